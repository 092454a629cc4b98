//! Pure: which DNS records must be there, given those that are.
//!
//! A record is ours if its comment *and* its target say so: a CNAME with our comment that points at
//! our tunnel, or at one that was ours. There are no marks beside it, which could be left over. What
//! is not ours is a conflict where its name is wanted, and nothing to us elsewhere.

use super::deed::Deed;
use super::state::Zoned;
use super::wire::Record;
use serde_json::{Value, json};

/// Kinds of record that a CNAME cannot stand beside.
const IN_THE_WAY: [&str; 4] = ["A", "AAAA", "CNAME", "NS"];

/// A wanted host and the zone it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The host.
    pub host: String,
    /// Its zone.
    pub zone: Zoned,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Zone, body.
    pub create: Vec<(Zoned, Value)>,
    /// Zone, id, body.
    pub update: Vec<(Zoned, String, Value)>,
    /// Records of hosts that are not public any more.
    pub delete: Vec<(Zoned, Record)>,
    /// Hosts whose record cannot be ours.
    pub conflicts: Vec<Conflict>,
}

/// A host whose record cannot be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The host.
    pub host: String,
    /// Why, in a sentence.
    pub cause: String,
    /// What to do.
    pub hint: &'static str,
}

impl Conflict {
    /// Of a host that no zone is for.
    pub fn outside(host: &str) -> Self {
        let cause = format!("{host} lies in none of the zones");
        let hint = "add its zone to edge.cloudflare.zones, or take the host from edge.hosts";
        Conflict { host: host.to_owned(), cause, hint }
    }

    /// Of a host whose record the provider refuses, in its words.
    pub fn refused(host: &str, cause: String) -> Self {
        let hint = "if somebody has made a record of that name meanwhile, delete it in Cloudflare's \
                    dashboard, or take the host from edge.hosts";
        Conflict { host: host.to_owned(), cause, hint }
    }

    fn theirs(host: &str, record: &Record) -> Self {
        let Record { kind, content, .. } = record;
        let cause = format!("{host} has a record of somebody else's: {kind} {content}");
        let hint = "delete that record in Cloudflare's dashboard, or take the host from \
                    edge.hosts; gitopsd touches no record that is not its own";
        Conflict { host: host.to_owned(), cause, hint }
    }
}

impl Records {
    /// Why a host's record is not as it should be, if that is so.
    pub fn conflict(&self, host: &str) -> Option<&Conflict> {
        self.conflicts.iter().find(|conflict| conflict.host == host)
    }

    /// Whether a host's record is still to be made or moved.
    pub fn pending(&self, host: &str) -> bool {
        let made = self.create.iter().map(|(_, body)| body);
        let moved = self.update.iter().map(|(_, _, body)| body);
        made.chain(moved).any(|body| body["name"] == host)
    }

    /// What changes.
    pub fn deeds(&self) -> Vec<Deed> {
        let name = |body: &Value| body["name"].as_str().unwrap_or_default().to_owned();
        let to = |body: &Value| format!("CNAME {}", body["content"].as_str().unwrap_or_default());
        let gone = self.delete.iter().map(|(_, record)| {
            Deed::new("delete", "Record", &record.name, &format!("CNAME {}", record.content))
        });
        let made = self
            .create
            .iter()
            .map(|(_, body)| Deed::new("create", "Record", &name(body), &to(body)));
        let moved = self
            .update
            .iter()
            .map(|(_, _, body)| Deed::new("configure", "Record", &name(body), &to(body)));
        gone.chain(made).chain(moved).collect()
    }
}

/// The comment of our records: at most 100 characters. The suffix stands for this machine.
pub fn comment(suffix: &str) -> String {
    format!("gitopsd {suffix}: made and kept by gitopsd, do not edit")
}

/// Where a record for a tunnel points.
pub fn target(tunnel: &str) -> String {
    format!("{tunnel}.cfargotunnel.com")
}

/// Plans. `marked` are the records with our comment, `named` those with a wanted name.
pub fn point(
    wanted: &[Named],
    marked: &[(Zoned, Record)],
    named: &[(Zoned, Record)],
    (tunnel, former): (&str, &[String]),
    mark: &str,
) -> Records {
    let mut records = Records::default();
    let ours = |record: &Record| is_ours(record, tunnel, former, mark);
    for (zone, record) in marked.iter().filter(|(_, record)| ours(record)) {
        if !wanted.iter().any(|named| named.host == record.name) {
            records.delete.push((zone.clone(), record.clone()));
        }
    }
    for Named { host, zone } in wanted {
        let body = body(host, tunnel, mark);
        let all = || marked.iter().chain(named).filter(|(_, record)| record.name == *host);
        if let Some((zone, record)) = all().find(|(_, record)| ours(record)) {
            if record.content != target(tunnel) || !record.proxied {
                records.update.push((zone.clone(), record.id.clone(), body));
            }
        } else if let Some((_, record)) =
            all().find(|(_, record)| IN_THE_WAY.contains(&record.kind.as_str()))
        {
            records.conflicts.push(Conflict::theirs(host, record));
        } else {
            records.create.push((zone.clone(), body));
        }
    }
    records
}

/// All of ours.
pub fn withdraw_records(
    marked: &[(Zoned, Record)],
    tunnel: &str,
    former: &[String],
    mark: &str,
) -> Records {
    point(&[], marked, &[], (tunnel, former), mark)
}

fn is_ours(record: &Record, tunnel: &str, former: &[String], mark: &str) -> bool {
    let tunnels = former.iter().map(String::as_str).chain([tunnel]);
    record.kind == "CNAME"
        && record.comment.as_deref() == Some(mark)
        && tunnels.into_iter().any(|tunnel| record.content == target(tunnel))
}

fn body(host: &str, tunnel: &str, mark: &str) -> Value {
    json!({"type": "CNAME", "name": host, "content": target(tunnel), "proxied": true, "ttl": 1,
        "comment": mark})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zoned {
        Zoned { id: "z".into(), name: "x".into() }
    }

    fn record(name: &str, kind: &str, content: &str, comment: Option<&str>) -> (Zoned, Record) {
        let record = Record {
            id: format!("id-{name}"),
            name: name.into(),
            kind: kind.into(),
            content: content.into(),
            proxied: true,
            comment: comment.map(str::to_owned),
        };
        (zone(), record)
    }

    fn wanted(hosts: &[&str]) -> Vec<Named> {
        hosts.iter().map(|host| Named { host: (*host).to_owned(), zone: zone() }).collect()
    }

    fn planned(
        hosts: &[&str],
        marked: &[(Zoned, Record)],
        named: &[(Zoned, Record)],
    ) -> (Vec<String>, Vec<String>) {
        let former = ["old".to_owned()];
        let records = point(&wanted(hosts), marked, named, ("new", &former), "mark");
        let deeds = records.deeds();
        let said = deeds.iter().map(|d| format!("{} {} {}", d.verb, d.name, d.lines[0])).collect();
        (said, records.conflicts.into_iter().map(|conflict| conflict.cause).collect())
    }

    const NEW: &str = "new.cfargotunnel.com";

    #[test]
    fn a_record_is_made_moved_left_or_deleted() {
        let mark = Some("mark");
        let marked = [
            record("same.x", "CNAME", NEW, mark),
            record("moved.x", "CNAME", "old.cfargotunnel.com", mark),
            record("gone.x", "CNAME", NEW, mark),
        ];
        let (said, conflicts) = planned(&["same.x", "moved.x", "made.x"], &marked, &[]);
        assert_eq!(
            said,
            [
                "delete gone.x CNAME new.cfargotunnel.com",
                "create made.x CNAME new.cfargotunnel.com",
                "configure moved.x CNAME new.cfargotunnel.com",
            ]
        );
        assert_eq!(conflicts, Vec::<String>::new());
    }

    #[test]
    fn neither_a_comment_nor_a_target_alone_makes_a_record_ours() {
        let marked = [
            record("gone.x", "CNAME", "elsewhere.example", Some("mark")),
            record("text.x", "TXT", NEW, Some("mark")),
        ];
        let named = [
            record("a.x", "CNAME", NEW, None),
            record("b.x", "A", "192.0.2.1", Some("mine")),
            record("c.x", "TXT", "anything", None),
        ];
        let (said, conflicts) = planned(&["a.x", "b.x", "c.x"], &marked, &named);
        assert_eq!(said, ["create c.x CNAME new.cfargotunnel.com"]);
        assert_eq!(
            conflicts,
            [
                "a.x has a record of somebody else's: CNAME new.cfargotunnel.com",
                "b.x has a record of somebody else's: A 192.0.2.1",
            ]
        );
    }

    #[test]
    fn the_comment_fits_into_what_the_provider_takes() {
        assert!(comment("0123456789abcdef").len() <= 100);
    }
}
