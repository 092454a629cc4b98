//! The repository: can it be reached, is the entry there, what does it lead to.

use super::tell::{Halt, Teller};
use crate::cli::build::{Entry, Inputs, Outcome, private};
use crate::cli::words::{count, revision};
use crate::config::Config;
use crate::daemon::entry;
use crate::secrets::{Format, Keyring, is_sealed, open};
use crate::source::{
    Credential, Entry as File, Poll, Remote, Snapshot, Source, SourceError, Tree, public_url,
};
use std::collections::BTreeSet;
use tempfile::TempDir;

/// Kustomizations and files that are told one by one; the rest is a number.
const TOLD: usize = 10;

/// Files that are looked into for seals; each at most 5 MiB, one at a time.
const FILES: usize = 20_000;

/// One revision, in a directory that goes with it.
pub struct Reached {
    snapshot: Snapshot,
    _mirror: TempDir,
}

/// Fetches the wanted revision with the credentials that would be used.
pub fn reach(config: &Config, credential: Credential) -> Result<Reached, Halt> {
    fetch(config, credential).map_err(|failure| match failure {
        Failure::Git(error) => stopped(&error),
        Failure::Other(error) => Halt::Error(error),
    })
}

/// Why nothing was fetched.
pub enum Failure {
    /// The remote, or the way to it.
    Git(SourceError),
    /// This host.
    Other(anyhow::Error),
}

/// As [`reach`], with the error for whoever can do something about it.
pub fn fetch(config: &Config, credential: Credential) -> Result<Reached, Failure> {
    let source = entry(config).source;
    let remote = Remote {
        url: source.url,
        reference: source.reference,
        credential,
        timeout: source.timeout,
        ignore: None,
    };
    let place = tempfile::tempdir().map_err(|error| Failure::Other(error.into()))?;
    let runtime = private().map_err(Failure::Other)?;
    let polled = Source::open(place.path(), runtime.path()).and_then(|source| source.poll(&remote));
    match polled.map_err(Failure::Git)? {
        Poll::New(snapshot) => Ok(Reached { snapshot, _mirror: place }),
        Poll::Unchanged => {
            Err(Failure::Other(anyhow::anyhow!("an empty mirror cannot be unchanged")))
        }
    }
}

/// What to say of a remote that cannot be used.
pub fn stopped(error: &SourceError) -> Halt {
    let fix = match error {
        SourceError::AuthenticationFailed { url, .. } if !url.starts_with("ssh://") => {
            "give --username and --password-file (an access token counts as a password), or \
             --token-file for a bearer token"
                .to_owned()
        }
        SourceError::RefNotFound { .. } => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("say --branch, --tag, --semver or --commit{hint}")
        }
        SourceError::RepositoryNotFound { .. } => {
            "check --repo; a private repository may hide behind this without credentials".to_owned()
        }
        SourceError::CertificateUntrusted { .. } => {
            "give the CA that signed it: --ca-file FILE; or check the clock".to_owned()
        }
        _ => error.hint().unwrap_or_default(),
    };
    Halt::at("repository", error.to_string(), fix)
}

impl Reached {
    /// Makes sure that the entry is a directory.
    pub fn entry(&self, config: &Config, teller: &Teller<'_>) -> Result<(), Halt> {
        let (url, at) = (public_url(&config.root.url), self.snapshot.revision.to_string());
        teller.done("repository", format!("{url} is at {}", revision(&at)))?;
        let (tree, path) = (&self.snapshot.tree, &config.root.path);
        match tree.entry(path)? {
            Some(File::Dir { .. }) => Ok(()),
            _ => {
                let found = format!("{path} is no directory of this revision");
                Err(Halt::at("path", found, nearby(tree, path)))
            }
        }
    }

    /// Whether the repository says to whom it seals.
    pub fn has_rules(&self) -> bool {
        self.snapshot.tree.read_ignored(".sops.yaml").is_ok()
    }

    /// Whether `.sops.yaml` names all of these already.
    pub fn names(&self, recipients: &[String]) -> bool {
        // No source passes it on, as in Flux.
        let text = self.snapshot.tree.read_ignored(".sops.yaml").unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        recipients.iter().all(|recipient| text.contains(recipient.as_str()))
    }

    /// The same for a host that has no key yet: where something is sealed, one that was made now
    /// would open nothing, and then stand in the way of the right one.
    pub fn opens(&self, config: &Config, teller: &Teller<'_>) -> Result<(), Halt> {
        let closed = self.look(config, &Keyring::empty(), teller)?;
        let Some((file, error)) = closed.first() else { return Ok(()) };
        let more = match closed.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let fix = "name the key that opens it: --age-key FILE; if it is lost, say \
                   --generate-age-key, and seal everything anew";
        Err(Halt::at("sealed file", format!("{file}: {error}{more}"), fix))
    }

    /// Walks from the entry as `build` does; tells what is there and what is wrong with it.
    pub fn contents(
        &self,
        config: &Config,
        keyring: &Keyring,
        teller: &Teller<'_>,
    ) -> Result<(), Halt> {
        tell_closed(&self.look(config, keyring, teller)?, teller)
    }

    /// Answers which sealed files stay closed, with the reason.
    fn look(
        &self,
        config: &Config,
        keyring: &Keyring,
        teller: &Teller<'_>,
    ) -> Result<Vec<(String, String)>, Halt> {
        let (tree, path) = (&self.snapshot.tree, &config.root.path);
        let report = Inputs::of(tree, path, keyring, &config.render)?.walk()?.report;
        let entries = &report.kustomizations;
        let Some((root, others)) = entries.split_first() else {
            return Err(Halt::at("path", format!("{path} leads to nothing"), nearby(tree, path)));
        };
        let notes = || {
            let mut notes: Vec<String> =
                root.errors.iter().take(TOLD).map(ToString::to_string).collect();
            let more = root.errors.len() - notes.len();
            notes.extend((more > 0).then(|| format!("and {more} more")));
            notes.join("; ")
        };
        // Variables that only the cluster has: the daemon asks it.
        let lacking = root.result == Outcome::Blocked && root.engine.is_none();
        if lacking {
            teller.warn("path", notes(), "see to it that the cluster has it")?;
        } else if root.result != Outcome::Ok && !root.sealed {
            let fix = format!("see all of it with gitopsd check . --entry {path}, in a checkout");
            // What renders is followed, whatever is wrong with single objects.
            match (root.result, &root.engine) {
                (Outcome::Error, Some(_)) => teller.warn("path", notes(), &fix)?,
                _ => return Err(Halt::at("path", notes(), fix)),
            }
        }
        if root.result == Outcome::Ok && root.objects == 0 {
            let fix = "is it the right directory? it should lead to Kustomizations or manifests";
            return Err(Halt::at("path", format!("{path} yields no object"), fix));
        }
        let sources: BTreeSet<&str> = entries.iter().map(|entry| entry.source.as_str()).collect();
        let (sealed, closed) = sealed(tree, entries, keyring)?;
        teller.done(
            "path",
            format!(
                "{path} leads to {} from {}, {}",
                count(entries.len(), "Kustomization"),
                count(sources.len(), "source"),
                count(sealed, "sealed file")
            ),
        )?;
        if others.is_empty() && !lacking {
            let fix = "well if its manifests are all there is";
            teller.warn("path", "no further Kustomization is declared there", fix)?;
        }
        tell(others, teller)?;
        Ok(closed)
    }
}

fn tell(others: &[Entry], teller: &Teller<'_>) -> Result<(), Halt> {
    let waiting = others.iter().filter(|e| e.result == Outcome::Blocked).count();
    if waiting > 0 {
        let found = format!("{} of other sources cannot be looked at yet", {
            count(waiting, "Kustomization")
        });
        teller.done("path", found)?;
    }
    let bad = |e: &&Entry| matches!(e.result, Outcome::Error | Outcome::Unsupported) && !e.sealed;
    for entry in others.iter().filter(bad).take(TOLD) {
        let notes: Vec<String> = entry.errors.iter().map(ToString::to_string).collect();
        let name = format!("{}/{}", entry.namespace, entry.name);
        teller.warn(&name, notes.join("; "), "")?;
    }
    Ok(())
}

fn tell_closed(closed: &[(String, String)], teller: &Teller<'_>) -> Result<(), Halt> {
    for (file, error) in closed.iter().take(TOLD) {
        let fix = "import the key that opens it (--age-key FILE), or seal it to this host's key \
                   too: add it to .sops.yaml, then sops updatekeys FILE";
        teller.warn("sealed file", format!("{file}: {error}"), fix)?;
    }
    if closed.len() > TOLD {
        let more = closed.len() - TOLD;
        teller.warn("sealed file", format!("{more} more cannot be opened"), "")?;
    }
    Ok(())
}

/// How many sealed files lie below the paths of the root's Kustomizations, and which of them stay
/// closed, with the reason.
fn sealed(
    tree: &Tree,
    entries: &[Entry],
    keyring: &Keyring,
) -> Result<(usize, Vec<(String, String)>), SourceError> {
    let Some(root) = entries.first() else { return Ok((0, Vec::new())) };
    let mut files = BTreeSet::new();
    for entry in entries.iter().filter(|entry| entry.source == root.source) {
        gather(tree, &entry.path, &mut files)?;
    }
    let (mut sealed, mut closed) = (0, Vec::new());
    for file in files.into_iter().take(FILES) {
        let format = Format::by_name(file.rsplit('/').next().unwrap_or(&file));
        // A file that is too large to be a manifest is none.
        let Ok(bytes) = tree.read(&file) else { continue };
        if !is_sealed(&bytes, format) {
            continue;
        }
        sealed += 1;
        if let Err(error) = open(&bytes, format, format, keyring) {
            closed.push((file, error.to_string()));
        }
    }
    Ok((sealed, closed))
}

fn gather(tree: &Tree, dir: &str, files: &mut BTreeSet<String>) -> Result<(), SourceError> {
    if !matches!(tree.entry(dir)?, Some(File::Dir { .. })) || files.len() > FILES {
        return Ok(());
    }
    let dir = dir.trim_start_matches("./").trim_matches('/').trim_start_matches('.');
    for (name, entry) in tree.list(dir)? {
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        match entry {
            File::Dir { .. } => gather(tree, &path, files)?,
            File::File { .. } => {
                files.insert(path);
            }
        }
    }
    Ok(())
}

/// Directories that may have been meant: those beside the path that is not there.
fn nearby(tree: &Tree, path: &str) -> String {
    let parents = path.match_indices('/').map(|(at, _)| &path[..at]).rev().chain([""]);
    for parent in parents {
        let Ok(listed) = tree.list(parent) else { continue };
        let dirs = listed.into_iter().filter(|(_, entry)| matches!(entry, File::Dir { .. }));
        let names: Vec<String> = dirs
            .map(|(name, _)| if parent.is_empty() { name } else { format!("{parent}/{name}") })
            .take(TOLD)
            .collect();
        if !names.is_empty() {
            return format!("say --path with what is there: {}", names.join(", "));
        }
    }
    "the repository has no directories at all: check --repo and the branch".to_owned()
}
