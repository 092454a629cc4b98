//! The two keys of an ssh source: our deploy key, and the key that the server shows.

use super::tell::{Halt, Teller};
use super::url::Server;
use super::{ask, child};
use crate::cli::build::private;
use crate::cli::public::{HostKey, host_keys, knows_host, ssh_public};
use crate::secrets::Plaintext;
use std::time::Duration;

/// A scan asks for each kind of key at once and waits 10 s; a slow resolver may double that.
const LIMIT: Duration = Duration::from_secs(30);

const INSTALL: &str = "apt install openssh-client";

/// Makes a deploy key. It lies in private memory while ssh-keygen has it, and nowhere else.
pub async fn identity() -> Result<Plaintext, Halt> {
    let place = private()?;
    let file = place.path().join("identity");
    let shown = file.to_string_lossy();
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", "gitopsd", "-f", &*shown];
    match child::run("ssh-keygen", &arguments, b"", LIMIT).await? {
        Some(ended) if ended.fine => Ok(Plaintext::new(std::fs::read(&file)?)),
        Some(ended) => Err(Halt::at("deploy key", ended.words, "")),
        None => Err(Halt::at("deploy key", "there is no ssh-keygen on this host", INSTALL)),
    }
}

/// The line to add to the repository's deploy keys, and its fingerprint.
pub fn deploy_line(identity: &Plaintext) -> Option<(String, String)> {
    let public = ssh_public(identity.expose())?;
    Some((format!("{} gitopsd", public.line), public.fingerprint))
}

/// What is known of the server's key.
pub struct Known<'a> {
    /// The lines that were given, or lie here.
    pub lines: &'a str,
    /// The lines were given by file: they count as they are.
    pub given: bool,
    /// The fingerprint that the owner was told.
    pub fingerprint: Option<&'a str>,
    /// Somebody is there to compare it.
    pub asks: bool,
}

/// The `known_hosts` that pins the server's key; `None` where the lines at hand do already.
pub async fn pin(
    server: &Server,
    known: Known<'_>,
    teller: &Teller<'_>,
) -> Result<Option<String>, Halt> {
    let Server { host, port, .. } = server;
    if knows_host(known.lines, host, Some(*port)) && known.fingerprint.is_none() {
        teller.done("host key", format!("{host} is among the known hosts"))?;
        return Ok(None);
    }
    if known.given {
        let fix = format!("add the line that ssh-keyscan -p {port} {host} prints, once compared");
        return Err(Halt::at("host key", format!("the file names no key of {host}"), fix));
    }
    let shown = scan(host, *port).await?;
    let chosen: Vec<&HostKey> = match known.fingerprint {
        Some(wanted) => shown.iter().filter(|key| key.fingerprint == wanted).collect(),
        None => shown.iter().collect(),
    };
    let told = prints(&shown);
    if chosen.is_empty() {
        let fix = "do not go on unless the server's owner names one of these: somebody else may \
                   be answering in its place";
        let found = format!("{host} shows another key than the one that was said: {told}");
        return Err(Halt::at("host key", found, fix));
    }
    if known.fingerprint.is_none() {
        if !known.asks {
            let fix = "compare with what the server's owner publishes, then say \
                       --host-key-fingerprint with one of them";
            return Err(Halt::at("host key", format!("{host} is unknown and shows {told}"), fix));
        }
        teller.block(&format!("The server {host} shows: {told}\n"))?;
        if !ask::yes("Is one of these what its owner publishes?", false)? {
            let fix = "ask the server's owner for its fingerprint; nothing was changed";
            return Err(Halt::at("host key", format!("{host} is not trusted"), fix));
        }
    }
    let kept: Vec<HostKey> = chosen.into_iter().cloned().collect();
    teller.done("host key", format!("{host} is pinned: {}", prints(&kept)))?;
    // What was known of other hosts stays; of this one only what is trusted now.
    let others = known.lines.lines().filter(|line| !knows_host(line, host, Some(*port)));
    let mut lines: Vec<&str> = others.collect();
    lines.extend(kept.iter().map(|key| key.line.as_str()));
    lines.dedup();
    let text = lines.join("\n") + "\n";
    Ok((text != known.lines).then_some(text))
}

fn prints(keys: &[HostKey]) -> String {
    let each = keys.iter().map(|key| format!("{} ({})", key.fingerprint, key.kind));
    each.collect::<Vec<_>>().join(", ")
}

async fn scan(host: &str, port: u16) -> Result<Vec<HostKey>, Halt> {
    let port = port.to_string();
    let arguments = ["-T", "10", "-p", &port, "--", host];
    let Some(ended) = child::run("ssh-keyscan", &arguments, b"", LIMIT).await? else {
        let fix = format!("{INSTALL}, or say --known-hosts FILE");
        return Err(Halt::at("host key", "there is no ssh-keyscan on this host", fix));
    };
    let keys = host_keys(&ended.text());
    if keys.is_empty() {
        let words = ended.words.lines().last().unwrap_or("it shows no key").to_owned();
        let fix = "check the address and the port in --repo";
        return Err(Halt::at("host key", format!("{host} port {port}: {words}"), fix));
    }
    Ok(keys)
}
