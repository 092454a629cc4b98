//! Finds the files, reads them within limits, merges them, and gathers what systemd handed over.
//!
//! Only configuration files are opened here. Credentials are looked at for their size alone: the
//! unit gives each a line feed as its default (systemd 252 takes no empty one), so that a missing
//! one does not fail the unit, and a file of one byte therefore means "not given".

use super::fragment::{self, Node};
use super::problem::{Problem, Problems};
use super::settings::{CREDENTIALS, Config, Handed, settings};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Bytes of one file: a full configuration has 2 KiB, so this is a mistake, not a configuration.
const MAX_FILE: u64 = 1 << 20;

/// Files in `config.d`; with [`MAX_FILE`] at most 65 MiB are ever read.
const MAX_FILES: usize = 64;

/// A file of `config.d` that nobody has written yet, and the credentials that would come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The file; one of that name is not read.
    pub file: PathBuf,
    /// What it would say.
    pub text: String,
    /// Ids of the credentials that would lie in `credentials/`, and no others.
    pub credentials: Vec<String>,
}

/// Loads `path` and the `config.d/*.yaml` beside it.
///
/// # Errors
/// Every problem of every file at once; see [`Problems::not_configured`] for the one that a fresh
/// installation has.
pub fn load(path: &Path) -> Result<Config, Problems> {
    load_with(path, &handed(path, |name| std::env::var_os(name).map(PathBuf::from)), None)
}

/// Loads what the configuration would be with a proposal in place.
///
/// # Errors
/// As [`load()`]: what is wrong with the proposal, or with other files beside it.
pub fn propose(path: &Path, proposal: &Proposal) -> Result<Config, Problems> {
    let mut handed = handed(path, |name| std::env::var_os(name).map(PathBuf::from));
    let directory = credentials_directory(path);
    handed.credentials.retain(|(_, file)| !file.starts_with(&directory));
    handed.copies.retain(|(_, copy)| !copy.starts_with(&directory));
    for id in &proposal.credentials {
        if !handed.credentials.iter().any(|(known, _)| known == id) {
            handed.credentials.push((id.clone(), directory.join(id)));
        }
    }
    load_with(path, &handed, Some(proposal))
}

/// Where credentials lie that no unit hands over: `credentials/` beside the main file.
pub fn credentials_directory(path: &Path) -> PathBuf {
    path.with_file_name("credentials")
}

fn load_with(
    path: &Path,
    handed: &Handed,
    proposal: Option<&Proposal>,
) -> Result<Config, Problems> {
    let main = path.display().to_string();
    let (mut problems, mut files) = (Vec::new(), Vec::new());
    let mut tree: Option<Node> = None;
    let mut drop_ins = drop_ins(&path.with_file_name("config.d"), &mut problems);
    if let Some(proposal) = proposal
        && !drop_ins.contains(&proposal.file)
    {
        drop_ins.push(proposal.file.clone());
        drop_ins.sort();
    }
    for file in std::iter::once(path.to_owned()).chain(drop_ins) {
        let name = file.display().to_string();
        let proposed = proposal.filter(|proposal| proposal.file == file);
        let text = match proposed.map_or_else(|| read(&file), |p| Ok(p.text.clone())) {
            Ok(text) => text,
            Err(ReadError::Missing) if file == path => continue,
            Err(error) => {
                problems.push(error.problem(name));
                continue;
            }
        };
        let (node, found) = fragment::parse(&name, &text);
        problems.extend(found);
        files.push(file);
        tree = match (tree, node) {
            (Some(base), Some(over)) => Some(fragment::merge(base, over)),
            (base, over) => base.or(over),
        };
    }
    let broken = files.is_empty() && !problems.is_empty();
    let empty = || fragment::parse(&main, "").0;
    if let Some(tree) = tree.or_else(empty) {
        let (config, found) = settings(&tree, &main, handed);
        let unknown = |problem: &Problem| matches!(problem, Problem::NotConfigured { .. });
        // A file that cannot be read or parsed may well name the root: do not claim otherwise.
        let blind = broken
            || problems
                .iter()
                .any(|p| matches!(p, Problem::Syntax { .. } | Problem::Unreadable { .. }));
        let missing = !files.iter().any(|file| file == path);
        let found = found.into_iter().filter(|problem| !(blind && unknown(problem)));
        problems.extend(found.map(|problem| match problem {
            Problem::NotConfigured { file, .. } => Problem::NotConfigured { file, there: !missing },
            other => other,
        }));
        if let (Some(config), true) = (config, problems.is_empty()) {
            return Ok(Config { files, ..config });
        }
    }
    Err(Problems(problems))
}

/// Names of `config.d/*.yaml` in order; hidden files and other endings are left alone, except
/// `.yml`, which would be a silent surprise.
fn drop_ins(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let name = directory.display().to_string();
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut paths = match listed {
        Ok(paths) => paths,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(ReadError::Io(error).problem(name));
            return Vec::new();
        }
    };
    paths.sort();
    paths.retain(|path| {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !hidden && ending == Some("yml") {
            problems.push(Problem::Unreadable {
                file: path.display().to_string(),
                cause: "only *.yaml is read".to_owned(),
                fix: "rename it to end in .yaml",
            });
        }
        !hidden && ending == Some("yaml")
    });
    if paths.len() > MAX_FILES {
        let cause = format!("{} files, {MAX_FILES} at most", paths.len());
        problems.push(Problem::Unreadable { file: name, cause, fix: "merge some of them" });
        paths.truncate(MAX_FILES);
    }
    paths
}

enum ReadError {
    Missing,
    NoFile,
    TooLarge,
    NotText,
    Io(std::io::Error),
}

impl ReadError {
    fn problem(self, file: String) -> Problem {
        let (cause, fix) = match self {
            ReadError::Missing => ("it is gone".to_owned(), "put it back"),
            ReadError::NoFile => ("not a regular file".to_owned(), "put a file there"),
            ReadError::TooLarge => {
                ("larger than 1 MiB".to_owned(), "check that it is the right file")
            }
            ReadError::NotText => ("not UTF-8 text".to_owned(), "save it as UTF-8"),
            ReadError::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                (error.to_string(), "let the user gitopsd read it (chgrp gitopsd, chmod 640)")
            }
            ReadError::Io(error) => (error.to_string(), "check the disk and the path"),
        };
        Problem::Unreadable { file, cause, fix }
    }
}

fn read(path: &Path) -> Result<String, ReadError> {
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => ReadError::Missing,
        _ => ReadError::Io(error),
    };
    // Looked at before opening: opening a FIFO would wait for a writer that never comes.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(ReadError::NoFile);
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}

/// Reads systemd's variables through `env`; a list of directories counts by its first.
///
/// A credential that systemd does not hand over is looked for beside the main file, where `init`
/// puts it, plain or sealed (`ID.cred`): so `check` and `run` in root's terminal find what the unit
/// finds. Whoever may not look into that directory has none of them.
fn handed(path: &Path, env: impl Fn(&str) -> Option<PathBuf>) -> Handed {
    let directory = |name| {
        let listed = env(name)?;
        let first = std::env::split_paths(&listed).next()?;
        first.is_absolute().then_some(first)
    };
    let places: Vec<PathBuf> =
        env("CREDENTIALS_DIRECTORY").into_iter().chain([credentials_directory(path)]).collect();
    let given = |id: &str| {
        let sealed = credentials_directory(path).join(format!("{id}.cred"));
        let found = places.iter().map(|directory| directory.join(id)).chain([sealed]);
        let there = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 1);
        found.into_iter().find(there).map(|path| (id.to_owned(), path))
    };
    let credentials: Vec<_> = CREDENTIALS.iter().filter_map(|(id, _)| given(id)).collect();
    let beside = credentials_directory(path);
    let copies = credentials
        .iter()
        .filter(|(id, file)| *file != beside.join(id))
        .map(|(id, file)| (original(&beside, id), file.clone()))
        .collect();
    Handed {
        state: directory("STATE_DIRECTORY"),
        runtime: directory("RUNTIME_DIRECTORY"),
        credentials,
        copies,
    }
}

/// Where the unit takes a credential from, as its `LoadCredential=` says.
fn original(beside: &Path, id: &str) -> PathBuf {
    match id {
        "kubeconfig" => "/etc/rancher/k3s/k3s.yaml".into(),
        "registries" => "/etc/rancher/k3s/registries.yaml".into(),
        _ => beside.join(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RootRef;

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a joined path has a parent")).expect("mkdir");
        fs::write(&path, text).expect("write");
        path
    }

    fn shown(result: Result<Config, Problems>, directory: &Path) -> String {
        let problems = result.expect_err("problems were expected");
        problems.to_string().replace(&format!("{}/", directory.display()), "")
    }

    const ROOT: &str = "root:\n  url: https://git.example/a.git\n  path: ./clusters/x/\n";

    #[test]
    fn drop_ins_are_merged_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", ROOT);
        let b =
            write(dir.path(), "config.d/20-b.yaml", "limits: {workers: 2}\nroot: {ref: {tag: v1}}");
        let a = write(dir.path(), "config.d/10-a.yaml", "limits: {workers: 9, apiRequests: 3}");
        write(dir.path(), "config.d/.30-hidden.yaml", "nonsense: 1");
        write(dir.path(), "config.d/a.yaml.dpkg-dist", "nonsense: 1");
        let config = load_with(&main, &Handed::default(), None).expect("valid");
        assert_eq!(config.files, [main, a, b]);
        assert_eq!((config.work.workers, config.work.api_requests), (2, 3));
        assert_eq!(config.root.reference, RootRef::Tag("v1".into()));
        assert_eq!(config.root.path, "clusters/x");
    }

    #[test]
    fn every_problem_of_every_file_comes_at_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", "root:\n  url: nowhere\nfoo: 1\n");
        write(dir.path(), "config.d/a.yaml", "limits: {workers: many}\n");
        write(dir.path(), "config.d/b.yml", "");
        write(dir.path(), "config.d/c.yaml", "a: [\n");
        assert_eq!(
            shown(load_with(&main, &Handed::default(), None), dir.path()),
            "config.d/b.yml: cannot be read: only *.yaml is read, rename it to end in .yaml\n\
             config.yaml:3: foo: unknown key, known here: root, kubeconfig, registries, \
             cluster, decryption, stateDirectory, runtimeDirectory, render, limits, edge\n\
             config.d/c.yaml:1: not YAML: unclosed bracket '[', correct the line or the one above it\n\
             config.yaml:2: root.url: no scheme, write https://… or ssh://…\n\
             config.yaml:1: root.path: missing, write path: clusters/my-cluster\n\
             config.d/a.yaml:1: limits.workers: \"many\" is not taken, write a number from 1 to 64"
        );
    }

    #[test]
    fn a_host_that_nobody_configured_says_so_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = dir.path().join("config.yaml");
        let problems = load_with(&main, &Handed::default(), None).expect_err("no root");
        assert!(problems.not_configured());
        assert_eq!(
            problems.to_string().replace(&format!("{}/", dir.path().display()), ""),
            "config.yaml: there is no such file; root: not configured: name the repository as \
             root.url, root.ref and root.path"
        );
        write(dir.path(), "config.yaml", "# only comments\nlimits: {workers: 2}\n");
        assert!(load_with(&main, &Handed::default(), None).expect_err("no root").not_configured());
        write(dir.path(), "config.yaml", "root: [\n");
        assert!(!load_with(&main, &Handed::default(), None).expect_err("broken").not_configured());
    }

    #[test]
    fn a_file_beyond_one_mebibyte_or_no_file_at_all_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", &format!("#{}", "x".repeat(1 << 20)));
        assert_eq!(
            shown(load_with(&main, &Handed::default(), None), dir.path()),
            "config.yaml: cannot be read: larger than 1 MiB, check that it is the right file"
        );
        let text = shown(load_with(dir.path(), &Handed::default(), None), Path::new("/nowhere"));
        assert!(text.ends_with(": cannot be read: not a regular file, put a file there"), "{text}");
    }

    #[test]
    fn systemd_supplies_directories_and_credentials_that_are_more_than_a_line_feed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", ROOT);
        let kubeconfig = write(dir.path(), "credentials/kubeconfig", "apiVersion: v1");
        write(dir.path(), "credentials/age-key", "\n");
        let handed = handed(&main, |name| match name {
            "STATE_DIRECTORY" => Some("/srv/state:/srv/other".into()),
            "CREDENTIALS_DIRECTORY" => Some(dir.path().join("credentials")),
            _ => None,
        });
        let config = load_with(&main, &handed, None).expect("valid");
        assert_eq!(config.directories.state, Path::new("/srv/state"));
        assert_eq!(config.directories.runtime, Path::new("/run/gitopsd"));
        assert_eq!(config.cluster.kubeconfig, kubeconfig);
        assert_eq!(config.decryption.age_key_file, None);
    }

    #[test]
    fn a_credential_beside_the_file_stands_in_for_one_that_systemd_does_not_hand_over() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", ROOT);
        let beside = write(dir.path(), "credentials/age-key", "ours");
        write(dir.path(), "credentials/git-password", "ours");
        let theirs = write(dir.path(), "unit/git-password", "theirs");
        write(dir.path(), "unit/age-key", "");
        let sealed = write(dir.path(), "credentials/git-ca.cred", "sealed");
        write(dir.path(), "credentials/git-password.cred", "sealed");
        let unit = dir.path().join("unit");
        let handed = handed(&main, |name| (name == "CREDENTIALS_DIRECTORY").then(|| unit.clone()));
        let config = load_with(&main, &handed, None).expect("valid");
        assert_eq!(config.decryption.age_key_file, Some(beside));
        assert_eq!(config.root.credentials.password_file, Some(theirs));
        assert_eq!(config.root.credentials.ca_file, Some(sealed));
    }

    #[test]
    fn what_the_unit_hands_over_is_known_as_a_copy_of_the_file_it_is_taken_from() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = dir.path().join("config.yaml");
        let beside = write(dir.path(), "credentials/age-key", "for root alone");
        let sealed = write(dir.path(), "credentials/git-ca.cred", "sealed");
        let unit = dir.path().join("unit");
        let [key, k3s] = ["unit/age-key", "unit/kubeconfig"]
            .map(|name| write(dir.path(), name, "what systemd has made of it"));
        let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| unit.clone());
        let plain = sealed.with_extension("");
        let k3s = ("/etc/rancher/k3s/k3s.yaml".into(), k3s);
        let copies = vec![k3s, (beside.clone(), key), (plain.clone(), sealed.clone())];
        assert_eq!(handed(&main, env).copies, copies);
        // In a terminal it is read where it lies.
        assert_eq!(handed(&main, |_| None).copies, [(plain, sealed)]);

        let unit = include_str!("../../systemd/gitopsd.service");
        for (id, _) in CREDENTIALS {
            let original = original(Path::new("/etc/gitopsd/credentials"), id);
            let line = format!("LoadCredential={id}:{}\n", original.display());
            assert!(unit.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_proposal_is_read_in_place_of_the_file_and_with_its_credentials_only() {
        let dir = tempfile::tempdir().expect("temp dir");
        let main = write(dir.path(), "config.yaml", "limits: {workers: 2}\n");
        let file = write(dir.path(), "config.d/50-init.yaml", "nonsense: 1");
        write(dir.path(), "config.d/90-late.yaml", "root: {interval: 7m}");
        write(dir.path(), "credentials/git-token", "going");
        let credentials = vec!["git-password".to_owned()];
        let proposal = Proposal { file: file.clone(), text: ROOT.to_owned(), credentials };
        let config = propose(&main, &proposal).expect("valid");
        let password = Some(dir.path().join("credentials/git-password"));
        assert_eq!(config.root.credentials.password_file, password);
        assert_eq!(config.root.credentials.bearer_token_file, None);
        assert_eq!((config.work.workers, config.root.interval.as_secs()), (2, 420));
        let bad = Proposal { text: "root: {url: x, path: y}".to_owned(), ..proposal };
        let problems = propose(&main, &bad).expect_err("no scheme");
        assert!(problems.to_string().contains("50-init.yaml:1: root.url: no scheme"), "{problems}");
    }
}
