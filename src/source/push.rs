//! Sends a commit of ours to its remote, by gix's transport and Git's own words.
//!
//! gix knows no push, but what a push is made of: the handshake, which lists the refs, and packs.
//! The rest is said here. The request is a line (`OLD NEW NAME`, the capabilities behind a zero
//! byte), a flush, the push options and a flush where there are any, then a pack of whole objects;
//! the answer is read by `report`. Whether the ref may change is decided by `target`, on the refs
//! that this very connection listed; the server compares them once more when it changes them, so
//! that nobody's commit is lost in between.
//!
//! The branch goes first, and the destination of a refspec in a push of its own once the branch
//! has the commit, as in Flux: what keeps the second place from it keeps no deployment waiting,
//! and no server takes the second without the first.
//!
//! A push that is given up at its limit may still arrive. Whoever pushes next sees it in the
//! listing: nothing is doubled.

use super::commit::Commit;
use super::error::{SourceError, public_url};
use super::poll::{Remote, Source};
use super::report::{PushError, Pushed, clean, judge, read_only};
use super::select::RemoteRef;
use super::ssh;
use super::target::{Aim, Push, Sent, Update, aims, options, update};
use super::wire::{Wire, http_status};
use super::within::{Limit, within};
use gix::objs::Kind;
use gix::odb::pack::data;
use gix::protocol::Handshake;
use gix::protocol::transport::Service;
use gix::protocol::transport::client::blocking_io::{ExtendedBufRead, Transport};
use gix::protocol::transport::client::{Capabilities, MessageKind, WriteMode};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::PoisonError;

/// Bytes of a report: a line for the ref, and what a server adds.
const MAX_REPORT: u64 = 64 << 10;

/// Bytes of words that are kept while a server talks; `report` cuts them further.
const MAX_HEARD: usize = 16 << 10;

type Box2<'a> = Box<dyn ExtendedBufRead<'a> + Unpin + 'a>;

/// Everything one push to one ref needs, owned, since it runs on a thread of its own.
struct Errand {
    wire: Wire,
    commit: Commit,
    aim: Aim,
    options: Vec<String>,
}

impl Source {
    /// Pushes a commit. Never forces; the limit is `remote.timeout` for all of it, and
    /// `remote.reference` does not matter. A ref that is at the commit already counts as pushed.
    /// Where there is a branch, no trouble with the refspec is an error, not even its own.
    pub fn push(
        &self,
        remote: &Remote,
        commit: &Commit,
        push: &Push<'_>,
    ) -> Result<Pushed, PushError> {
        let limit = Limit::new(public_url(&remote.url), remote.timeout);
        if !["https://", "http://", "ssh://"].iter().any(|scheme| remote.url.starts_with(scheme)) {
            let cause = "a push needs https://, http:// or ssh://".into();
            return Err(SourceError::InvalidUrl { url: limit.url, cause }.into());
        }
        let ((first, second), options) = (aims(push)?, options(push.options)?);
        // Nothing is changed while the lock is held that a panic could leave half done.
        let mut pushing = self.pushing.lock().unwrap_or_else(PoisonError::into_inner);
        if pushing.as_ref().is_some_and(|late| !late.is_finished()) {
            return Err(limit.passed().into());
        }
        let mut run = |aim: Aim| {
            let dirs = (self.dir.as_path(), self.runtime.as_path());
            let wire = Wire::new(remote, dirs, limit.left()?)?;
            let errand = Errand { wire, commit: commit.clone(), aim, options: options.clone() };
            within(&limit, move |_| errand.run(), || None).unwrap_or_else(|given_up| {
                *pushing = given_up.late;
                Err(given_up.error.into())
            })
        };
        let mut pushed = run(first)?;
        match second.map(|second| run(second?)) {
            None => {}
            Some(Ok(more)) => {
                pushed.refs.extend(more.refs);
                let words = [pushed.words, more.words];
                pushed.words =
                    words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join("; ");
            }
            Some(Err(error)) => pushed.left = Some(error),
        }
        Ok(pushed)
    }
}

impl Errand {
    fn run(&self) -> Result<Pushed, PushError> {
        let mut transport = self.wire.transport().map_err(|error| self.failed(&error))?;
        let progress = &mut gix::progress::Discard;
        let service = Service::ReceivePack;
        let hello =
            gix::protocol::handshake(&mut transport, service, |_| Ok(None), Vec::new(), progress);
        let hello = hello.map_err(|error| self.failed(&error))?;
        let url = self.wire.public_url();
        let Commit { id, parent, earlier, .. } = &self.commit;
        let sent = Sent { id, parent, earlier };
        let Some(update) = update(&url, &self.aim, sent, &listed(&hello))? else {
            return Ok(Pushed { refs: Vec::new(), words: String::new(), left: None });
        };
        let side_band = hello.capabilities.contains("side-band-64k");
        let request = self.request(&update, &hello.capabilities)?;
        let sent = self.send(&mut transport, &request, side_band);
        let (report, heard) = sent.map_err(|error| self.failed(&error))?;
        let words = self.wire.scrub(clean(&heard));
        judge(&url, &update.name, &report, &words)?;
        Ok(Pushed { refs: vec![update.name], words, left: None })
    }

    /// The whole request: a few kilobytes in most cases, bounded where the commit was made.
    fn request(&self, update: &Update, offered: &Capabilities) -> Result<Vec<u8>, PushError> {
        let unsupported = |what| PushError::Unsupported { url: self.wire.public_url(), what };
        if !offered.contains("report-status") {
            return Err(unsupported("reports of what became of a push"));
        }
        if !self.options.is_empty() && !offered.contains("push-options") {
            return Err(unsupported("push options"));
        }
        let format = offered.capability("object-format");
        if format.and_then(|format| format.value()).is_some_and(|format| format != "sha1") {
            return Err(unsupported("SHA-1 ids"));
        }
        let mut wanted = vec!["report-status".to_owned()];
        for (name, needed) in
            [("side-band-64k", true), ("quiet", true), ("push-options", !self.options.is_empty())]
        {
            if needed && offered.contains(name) {
                wanted.push(name.to_owned());
            }
        }
        if offered.contains("agent") {
            wanted.push(concat!("agent=gitopsd/", env!("CARGO_PKG_VERSION")).to_owned());
        }
        let mut request = Vec::new();
        let none = "0".repeat(40);
        let old = update.old.as_deref().unwrap_or(&none);
        let (new, name, wanted) = (&self.commit.id, &update.name, wanted.join(" "));
        packet(&mut request, format!("{old} {new} {name}\0 {wanted}").as_bytes());
        request.extend_from_slice(b"0000");
        if !self.options.is_empty() {
            for option in &self.options {
                packet(&mut request, option.as_bytes());
            }
            request.extend_from_slice(b"0000");
        }
        let pack = pack(&self.commit).map_err(|error| {
            PushError::from(SourceError::InvalidCommit { cause: error.to_string() })
        })?;
        request.extend_from_slice(&pack);
        Ok(request)
    }

    /// Sends the request and answers the report and what the server said beside it.
    fn send(
        &self,
        transport: &mut Box<dyn Transport + Send>,
        request: &[u8],
        side_band: bool,
    ) -> Result<(Vec<u8>, Vec<u8>), gix::Error> {
        // The line mode is what makes the http transport send the body whole, with its length:
        // not every proxy takes chunks. The lines themselves are ours.
        let mode = WriteMode::OneLfTerminatedLinePerWriteCall;
        let writer = transport.request(mode, MessageKind::Flush, false)?;
        let (mut writer, mut answer) = writer.into_parts();
        let sent = writer.write_all(request).and_then(|()| writer.flush());
        drop(writer);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let got = match side_band {
            true => read_bands(&mut answer, heard.clone()),
            false => read_lines(&mut answer),
        };
        // A server that hangs up early has its reason in the answer.
        let report = match (got, sent) {
            (Ok(report), Ok(())) => report,
            (Ok(report), Err(_)) if !report.is_empty() || !heard.borrow().is_empty() => report,
            (Err(_), _) if !heard.borrow().is_empty() => Vec::new(),
            (Err(error), _) | (Ok(_), Err(error)) => return Err(gix::Error::from_error(error)),
        };
        drop(answer);
        let heard = heard.take();
        Ok((report, heard))
    }

    /// A failed exchange in our words: read-only credentials first, then as for any fetch.
    fn failed(&self, error: &gix::Error) -> PushError {
        let url = self.wire.public_url();
        if let Some(words) = self.wire.ssh_words() {
            // A banner may say anything; only a login that worked leads to a refusal to write.
            let named = ssh::explain(&url, &words);
            let in_doubt = matches!(named, None | Some(SourceError::RepositoryNotFound { .. }));
            if in_doubt && read_only(&words) {
                return PushError::ReadOnly { url, words: clean(words.as_bytes()) };
            }
        } else if http_status(error) == Some(403) {
            let said = self.wire.http_words("info/refs?service=git-receive-pack");
            let words = match self.wire.scrub(clean(&said)) {
                words if words.is_empty() => "HTTP status 403".to_owned(),
                words => format!("{words} (HTTP status 403)"),
            };
            return PushError::ReadOnly { url, words };
        }
        self.wire.explain(error).into()
    }
}

fn listed(hello: &Handshake) -> Vec<RemoteRef> {
    let read = |found: &gix::protocol::handshake::Ref| {
        let (name, target, _) = found.unpack();
        Some(RemoteRef { name: name.to_string(), commit: target?.to_string() })
    };
    hello.refs.iter().flatten().filter_map(read).collect()
}

/// Reads a report inside side-band 1; side-bands 2 and 3 are words.
fn read_bands(answer: &mut Box2<'_>, heard: Rc<RefCell<Vec<u8>>>) -> std::io::Result<Vec<u8>> {
    answer.set_progress_handler(Some(Box::new(move |_, text: &[u8]| {
        let mut heard = heard.borrow_mut();
        let room = MAX_HEARD.saturating_sub(heard.len() + 1);
        heard.extend_from_slice(&text[..text.len().min(room)]);
        heard.push(b'\n');
        heard.truncate(MAX_HEARD);
        ControlFlow::Continue(())
    })));
    let mut packets = Vec::new();
    answer.take(MAX_REPORT).read_to_end(&mut packets)?;
    Ok(unpacketed(&packets))
}

/// Reads a report that comes as it is.
fn read_lines(answer: &mut Box2<'_>) -> std::io::Result<Vec<u8>> {
    let mut report = Vec::new();
    while let Some(line) = answer.readline() {
        let line = line?.map_err(std::io::Error::other)?;
        let Some(text) = line.as_slice() else { break };
        report.extend_from_slice(text.trim_ascii_end());
        report.push(b'\n');
        if report.len() as u64 > MAX_REPORT {
            break;
        }
    }
    Ok(report)
}

/// Lines out of packets; what is no packet ends them.
fn unpacketed(mut packets: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    while let Some((length, rest)) = packets.split_at_checked(4) {
        let length = std::str::from_utf8(length).ok();
        let length = length.and_then(|length| usize::from_str_radix(length, 16).ok());
        let Some(length) = length.filter(|length| *length >= 4) else { break };
        let Some((line, rest)) = rest.split_at_checked(length - 4) else { break };
        lines.extend_from_slice(line.trim_ascii_end());
        lines.push(b'\n');
        packets = rest;
    }
    lines
}

/// Appends a packet line. Callers bound names and options far below the format's 65,516 bytes.
fn packet(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(format!("{:04x}", line.len() + 4).as_bytes());
    out.extend_from_slice(line);
}

/// A pack of the commit's own objects, none of them as a delta: the remote has everything else.
fn pack(commit: &Commit) -> Result<Vec<u8>, gix::Error> {
    let number = commit.objects.len() as u32;
    let mut pack = data::header::encode(data::Version::V2, number).to_vec();
    for object in commit.objects.iter() {
        let kind = match object.kind {
            Kind::Blob => data::entry::Header::Blob,
            Kind::Tree => data::entry::Header::Tree,
            Kind::Commit => data::entry::Header::Commit,
            Kind::Tag => data::entry::Header::Tag,
        };
        let size = object.bytes.len() as u64;
        kind.write_to(size, &mut pack).map_err(gix::Error::from_error)?;
        let level = gix::zlib::Compression::DEFAULT;
        let mut deflate = gix::zlib::stream::deflate::Write::new(&mut pack, level);
        let written = deflate.write_all(&object.bytes).and_then(|()| deflate.flush());
        written.map_err(gix::Error::from_error)?;
    }
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&pack);
    let trailer = hasher.try_finalize()?;
    pack.extend_from_slice(trailer.as_slice());
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_become_lines_and_nonsense_ends_them() {
        let mut packets = Vec::new();
        packet(&mut packets, b"unpack ok\n");
        packet(&mut packets, b"ok refs/heads/a\n");
        packets.extend_from_slice(b"0000");
        assert_eq!(unpacketed(&packets), b"unpack ok\nok refs/heads/a\n");
        for nonsense in [&b"zzzz"[..], b"00", b"0010short", b"0003x", b""] {
            assert_eq!(unpacketed(nonsense), b"");
        }
    }
}
