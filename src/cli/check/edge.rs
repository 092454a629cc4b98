//! The edge: whether the provider's token is one, and may do all that it should.
//!
//! Reading is tried by reading. Whether tunnels and records may be changed is tried by an edit of one
//! that does not exist: what a zone tells of permissions are those of a user, not of the token.

use super::finding::Finding;
use crate::config::{Config, EdgeSettings};
use crate::daemon::DaemonError;
use crate::edge::{Cloudflare, CloudflareError, Zone};
use crate::secrets::Plaintext;

const WHAT: &str = "edge";

/// Checks it; where none is configured, no more than whether a token that is there can be used: each
/// start reads it all the same.
pub async fn check(
    config: &Config,
    token: Result<Option<Plaintext>, DaemonError>,
    online: bool,
) -> Vec<Finding> {
    let Some(settings) = &config.edge else {
        let failed = |error: DaemonError| Finding::fail(WHAT, error.to_string(), error.hint());
        return token.err().map(failed).into_iter().collect();
    };
    let token = match token {
        Ok(Some(token)) => token,
        Ok(None) => {
            let fix = "put it into edge.cloudflare.tokenFile or the credential cloudflare-token";
            return vec![Finding::fail(WHAT, "there is no API token", Some(fix.to_owned()))];
        }
        Err(error) => return vec![Finding::fail(WHAT, error.to_string(), error.hint())],
    };
    if !online {
        let fix = "gitopsd check --online".to_owned();
        let found = format!("{} public hosts; Cloudflare was not asked", settings.hosts.len());
        return vec![Finding { fix: Some(fix), ..Finding::ok(WHAT, found) }];
    }
    match Cloudflare::new(&settings.url, token) {
        Ok(client) => ask(&client, settings).await,
        Err(error) => vec![Finding::fail(WHAT, error.to_string(), error.hint())],
    }
}

async fn ask(client: &Cloudflare, settings: &EdgeSettings) -> Vec<Finding> {
    if let Some(account) = &settings.account {
        client.of_account(account);
    }
    if let Err(error) = client.verify().await {
        return vec![refused("API token", &error)];
    }
    let mut findings = vec![Finding::ok("API token", "active")];
    let mut account = None;
    for said in &settings.zones {
        let zone = match client.zone(said).await {
            Ok(zone) => zone,
            Err(error) => {
                findings.push(refused(&format!("zone {said}"), &error));
                continue;
            }
        };
        findings.push(records(client, &zone).await);
        account = Some(zone.account.id);
    }
    if let Some(account) = account {
        findings.push(tunnels(client, &account, settings).await);
    }
    findings
}

async fn records(client: &Cloudflare, zone: &Zone) -> Finding {
    let what = format!("zone {}", zone.name);
    if let Err(error) = client.records_named(&zone.id, &zone.name).await {
        return refused(&what, &error);
    }
    match client.may_edit_records(zone).await {
        Ok(()) => Finding::ok(&what, "records can be read and changed"),
        Err(error) => refused(&what, &error),
    }
}

async fn tunnels(client: &Cloudflare, account: &str, settings: &EdgeSettings) -> Finding {
    let what = format!("account {account}");
    if let Err(error) = client.tunnels(account, &settings.tunnel).await {
        return refused(&what, &error);
    }
    match client.may_edit_tunnels(account).await {
        Ok(()) => Finding::ok(&what, "tunnels can be read and changed"),
        Err(error) => refused(&what, &error),
    }
}

fn refused(what: &str, error: &CloudflareError) -> Finding {
    let CloudflareError::Denied { need, .. } = error else {
        return Finding::fail(what, error.to_string(), error.hint());
    };
    let fix = format!("give the token the permission {}", need.permission());
    Finding::fail(what, format!("the API token may not {need}"), Some(fix))
}
