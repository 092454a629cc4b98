//! Clears tunnels that were used before: ours in an account that is not used any more, and adopted
//! ones that the configuration does not name any more.
//!
//! It is done once the tunnel of now carries the names. What cannot be cleared keeps nothing from
//! being done: it is named, with what to do, and tried again by each run. When the edge goes down, it
//! is told a last time and forgotten if the provider says no; anything else is waited for.

use super::provider::told_apart;
use crate::edge::{Cloudflare, CloudflareError, Deed, Left, State, withdraw_routes};
use crate::pipeline::Failure;
use crate::pipeline::kustomization::{Run, Wanted};
use serde_json::Value;

/// What of ours stands in a tunnel that was used before.
#[derive(Default)]
struct Remains {
    deeds: Vec<Deed>,
    /// Its configuration without our rules.
    config: Option<Value>,
    /// It is ours as a whole.
    whole: bool,
}

impl Run<'_> {
    /// Takes away what is left of ours, and gives what went wrong that may be otherwise later.
    pub(super) async fn clear_left(
        &mut self,
        client: &Cloudflare,
        state: &mut State,
        begin: &Wanted,
    ) -> Result<Option<CloudflareError>, Failure> {
        let mut passing = None;
        for left in state.left.clone() {
            let cleared = match self.remains(client, &left).await {
                Ok(remains) if remains.deeds.is_empty() => Ok(remains),
                Ok(remains) => {
                    self.begin(begin).await?;
                    clear(client, &left, &remains).await.map(|()| remains)
                }
                Err(error) => Err(error),
            };
            match cleared {
                Ok(remains) => {
                    for deed in &remains.deeds {
                        self.did(deed).await?;
                    }
                    state.left.retain(|other| other.tunnel.id != left.tunnel.id);
                    self.pipeline.keep_edge_state(state).await?;
                }
                Err(error) => {
                    let error = told_apart(client, error).await;
                    self.tell_left(&left, &error);
                    passing = passing.or((!error.of_this_alone()).then_some(error));
                }
            }
        }
        Ok(passing)
    }

    /// What a run would take away. What cannot be read is told by the run.
    pub(super) async fn foreseen_left(&self, client: &Cloudflare, state: &State) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for left in &state.left {
            deeds.extend(self.remains(client, left).await.unwrap_or_default().deeds);
        }
        deeds
    }

    async fn remains(&self, client: &Cloudflare, left: &Left) -> Result<Remains, CloudflareError> {
        let Left { account, tunnel, rules } = left;
        let found = client.tunnel(account, &tunnel.id).await?;
        let Some(found) = found.filter(|found| found.lives()) else {
            return Ok(Remains::default());
        };
        if !tunnel.adopted {
            // By id and by name: one that somebody has made his own is not deleted.
            let ours = found.name.ends_with(&self.edge.parts.suffix);
            let deed = ours.then(|| Deed::new("delete", "Tunnel", &found.name, "used before"));
            return Ok(Remains { deeds: deed.into_iter().collect(), config: None, whole: true });
        }
        let found = client.configuration(account, &tunnel.id).await?;
        // Others' rules in an adopted tunnel are in nobody's way.
        let routes = withdraw_routes(&found, rules, true).unwrap_or_default();
        Ok(Remains { deeds: routes.deeds, config: routes.body, whole: false })
    }

    fn tell_left(&mut self, left: &Left, error: &CloudflareError) {
        let Left { account, tunnel, rules } = left;
        let hosts = rules.hosts().collect::<Vec<_>>().join(", ");
        let remedy = match tunnel.adopted {
            true => format!("delete its rules for {hosts} in Cloudflare's dashboard"),
            false => "delete it in Cloudflare's dashboard".to_owned(),
        };
        self.warnings.push(format!(
            "tunnel {} of account {account}, which was used before, could not be cleared: {error}; \
             it is tried again, or {remedy}",
            tunnel.name
        ));
    }
}

async fn clear(client: &Cloudflare, left: &Left, remains: &Remains) -> Result<(), CloudflareError> {
    let Left { account, tunnel, .. } = left;
    if let Some(config) = &remains.config {
        return client.configure(account, &tunnel.id, config).await;
    }
    if remains.whole {
        client.clean_connections(account, &tunnel.id).await?;
        client.delete_tunnel(account, &tunnel.id).await?;
    }
    Ok(())
}
