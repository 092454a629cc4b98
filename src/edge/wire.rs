//! Pure: the provider's objects as its API has them, as far as they are read here.
//!
//! Field names are those of the v4 API. Unknown fields are ignored; a missing one that we rely on
//! makes the answer unreadable.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// What a call needs the token to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// To be a token at all.
    Token,
    /// Zones by name.
    ZoneRead,
    /// Tunnels, their configuration and connections.
    TunnelRead,
    /// The same, to change them.
    TunnelEdit,
    /// Records of a zone.
    DnsRead,
    /// The same, to change them.
    DnsEdit,
}

impl Need {
    /// The permission as the provider's dashboard calls it.
    pub fn permission(self) -> &'static str {
        match self {
            Need::Token => "(none: any token may do that)",
            Need::ZoneRead => "Zone / Zone / Read",
            Need::TunnelRead | Need::TunnelEdit => "Account / Cloudflare Tunnel / Edit",
            Need::DnsRead | Need::DnsEdit => "Zone / DNS / Edit",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::Token => "be used",
            Need::ZoneRead => "read zones",
            Need::TunnelRead => "read tunnels",
            Need::TunnelEdit => "change tunnels",
            Need::DnsRead => "read DNS records",
            Need::DnsEdit => "change DNS records",
        })
    }
}

/// Every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    pub success: bool,
    #[serde(default)]
    pub errors: Vec<Fault>,
    #[serde(default)]
    pub result: Value,
    #[serde(default)]
    pub result_info: Option<PageInfo>,
}

/// One error of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    #[serde(default)]
    pub code: i64,
    #[serde(default)]
    pub message: String,
}

/// Where in a list an answer stands.
#[derive(Debug, Deserialize)]
pub(super) struct PageInfo {
    #[serde(default)]
    pub total_pages: Option<u64>,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Zone {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The domain.
    pub name: String,
    /// Whose it is.
    pub account: Account,
}

/// An account, as a zone names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tunnel {
    /// A UUID.
    pub id: String,
    /// What it is called; two that are not deleted have different names.
    pub name: String,
    /// `cloudflare` when it is configured through the API, `local` otherwise.
    #[serde(default)]
    pub config_src: Option<String>,
    /// When it was deleted, if it was.
    #[serde(default)]
    pub deleted_at: Option<String>,
    /// Its connectors' connections.
    #[serde(default)]
    pub connections: Vec<Connection>,
}

impl Tunnel {
    /// True while it is not deleted.
    pub fn lives(&self) -> bool {
        self.deleted_at.is_none()
    }

    /// Connections that serve.
    pub fn connected(&self) -> usize {
        self.connections.iter().filter(|connection| !connection.is_pending_reconnect).count()
    }
}

/// One connection of a connector to the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Connection {
    /// True when it has ended and is waited for.
    #[serde(default)]
    pub is_pending_reconnect: bool,
}

/// A tunnel's configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Configuration {
    /// Counts its changes.
    #[serde(default)]
    pub version: i64,
    /// The configuration as it stands, kept whole: not all of it is ours.
    #[serde(default)]
    pub config: Option<Value>,
}

/// A DNS record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The whole name.
    pub name: String,
    /// `CNAME`, `A`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What it points at; some kinds have none.
    #[serde(default)]
    pub content: String,
    /// Whether requests go through the provider.
    #[serde(default)]
    pub proxied: bool,
    /// What people write beside it.
    #[serde(default)]
    pub comment: Option<String>,
}
