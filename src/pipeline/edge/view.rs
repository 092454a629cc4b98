//! Pure: the edge as `status` shows it, and which link of the chain is broken.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeView {
    /// True when the way to every public host stands, as far as the ingress controller's Service, or
    /// the edge was taken down on purpose. What the controller knows beside Ingresses and HTTPRoutes
    /// is not known here: a host that none of these has is told, and is no broken link.
    pub ready: bool,
    /// `reachable through 4 connections`, or which link is broken.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// True while it is not ready for something that comes by itself, and is looked for again soon.
    pub waits: bool,
    /// Name of the tunnel at the provider.
    pub tunnel: Option<String>,
    /// Its id.
    pub tunnel_id: Option<String>,
    /// True when somebody else made it.
    pub adopted: bool,
    /// Connections that serve.
    pub connections: usize,
    /// Where requests go, the URL of a Service in the cluster.
    pub ingress: Option<String>,
    /// The public hosts.
    pub hosts: Vec<EdgeHost>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// True while a run is under way.
    pub running: bool,
    /// When the next is due, Unix milliseconds.
    pub next_ms: Option<i64>,
}

/// One public host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeHost {
    /// The host.
    pub host: String,
    /// The tunnel has a rule for it.
    pub routed: bool,
    /// A DNS record of ours points at the tunnel.
    pub named: bool,
    /// What is wrong with it; empty when nothing is.
    pub problem: String,
}

/// A link of the chain between a browser and a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The provider is not reached.
    Uplink,
    /// The API token.
    Token,
    /// The tunnel.
    Tunnel,
    /// Its connectors.
    Connector,
    /// Its configuration.
    Route,
    /// DNS records.
    Dns,
    /// The ingress controller, or an Ingress of a host.
    Ingress,
    /// The controller's Service.
    Service,
    /// The connectors' pods.
    Pod,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Uplink => "uplink",
            Link::Token => "token",
            Link::Tunnel => "tunnel",
            Link::Connector => "connector",
            Link::Route => "route",
            Link::Dns => "dns",
            Link::Ingress => "ingress",
            Link::Service => "service",
            Link::Pod => "pod",
        })
    }
}

impl EdgeView {
    /// Says that it works, and of which hosts the cluster has nothing.
    pub(super) fn reachable(&mut self) {
        let s = if self.connections == 1 { "" } else { "s" };
        let mut lacking = self.hosts.iter().filter(|line| !line.problem.is_empty());
        let lacking = match (lacking.next(), lacking.count()) {
            (None, _) => String::new(),
            (Some(line), 0) => format!("; no Ingress or HTTPRoute has {}", line.host),
            (Some(line), n) => {
                format!("; no Ingress or HTTPRoute has {} (and {n} more)", line.host)
            }
        };
        self.ready = true;
        self.waits = false;
        self.message = format!("reachable through {} connection{s}{lacking}", self.connections);
        self.hint = None;
    }

    /// Says which link is broken.
    pub(super) fn broken(&mut self, link: Link, cause: &str, hint: Option<String>) {
        self.ready = false;
        self.message = format!("{link}: {cause}");
        self.hint = hint;
    }

    /// The host's line; made when there is none.
    pub(super) fn host(&mut self, host: &str) -> &mut EdgeHost {
        let at = self.hosts.iter().position(|line| line.host == host).unwrap_or_else(|| {
            self.hosts.push(EdgeHost { host: host.to_owned(), ..EdgeHost::default() });
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }

    /// For the STATUS line.
    pub fn line(&self) -> String {
        let mut message = self.message.replace('\n', " ");
        if message.len() > 100 {
            let cut = (0..100).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
            message.push('…');
        }
        format!("edge: {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_of_connections_or_of_the_broken_link() {
        let mut view = EdgeView { connections: 4, ..EdgeView::default() };
        view.reachable();
        assert_eq!(view.line(), "edge: reachable through 4 connections");
        for (host, told) in [("a.x", "a.x"), ("b.x", "a.x (and 1 more)")] {
            view.host(host).problem = "ingress: none has it".into();
            view.reachable();
            let line = format!(
                "edge: reachable through 4 connections; no Ingress or HTTPRoute has {told}"
            );
            assert_eq!((view.ready, view.line()), (true, line));
        }
        view.broken(Link::Dns, "a.x has a record of somebody else's", None);
        assert_eq!(
            (view.ready, view.line().as_str()),
            (false, "edge: dns: a.x has a record of somebody else's")
        );
        view.broken(Link::Pod, &"ü".repeat(200), None);
        assert!(view.line().len() < 120);
    }
}
