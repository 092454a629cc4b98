//! Key material in files: which one counts was settled by `config`, and no other is looked at.
//!
//! A file that the operator names goes before what systemd hands over in its credentials directory.
//! A missing `LoadCredential=` path fails the unit on systemd 252, so each credential has a
//! `SetCredential=` of the same id, which that version wants to hold something: it is a line feed.
//! A file of nothing but white space therefore means "not given". Files are read whole
//! under a limit. A key file that everybody on the host can read is refused by whoever starts with
//! it ([`guarded`]); one that a group can read comes back with a warning.

use super::{Plaintext, SecretsError};
use crate::config::CREDENTIALS;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// systemd's own limit for one credential, and far above any key file or kubeconfig: 1 MiB.
const MAX_CREDENTIAL: u64 = 1024 * 1024;

/// Credentials that are no secret: whom we believe.
const PUBLIC: &[&str] = &["git-known-hosts", "git-ca"];

/// A credential that was given.
#[derive(Debug)]
pub struct Credential {
    /// Its content.
    pub content: Plaintext,
    /// Where it came from.
    pub path: PathBuf,
    /// A sentence for the operator where the file's mode is too open.
    pub warning: Option<String>,
}

/// Reads the credential `id` from the file that the configuration has settled on, if on any.
///
/// # Errors
/// As [`read_credential`].
pub fn credential(id: &str, settled: Option<&Path>) -> Result<Option<Credential>, SecretsError> {
    let found = read_credential(None, id, settled)?;
    let ours = settled.is_some_and(handed_over);
    Ok(found.map(|found| Credential { warning: found.warning.filter(|_| !ours), ..found }))
}

/// True for a file that systemd handed over, or a reload in its place. Nobody else gets into that
/// directory, and the group bits of what lies there come from an ACL mask.
pub fn handed_over(file: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| file.starts_with(directory))
}

/// Reads `directory/id`, else `configured`; `None` where there is no such credential, or an empty
/// one, and nothing is configured.
///
/// # Errors
/// [`SecretsError::Credential`] for an id that is no file name, a file that cannot be read, one
/// above 1 MiB, or anything but a regular file.
pub fn read_credential(
    directory: Option<&Path>,
    id: &str,
    configured: Option<&Path>,
) -> Result<Option<Credential>, SecretsError> {
    if id.is_empty() || id.starts_with('.') || id.contains('/') {
        let problem = "is not the name of a credential".to_owned();
        return Err(SecretsError::Credential { path: id.into(), problem });
    }
    // Nobody but root gets into the directory, whatever the mode of a file in it: no warning.
    if let Some(directory) = directory
        && let Some((content, _)) = read(&directory.join(id))?
    {
        return Ok(Some(Credential { content, path: directory.join(id), warning: None }));
    }
    let Some(path) = configured else { return Ok(None) };
    if path.extension().is_some_and(|ending| ending == "cred") {
        let problem = "is sealed by systemd-creds, and only the unit is given what is in it";
        let (path, problem) = (path.to_owned(), problem.to_owned());
        return Err(SecretsError::Credential { path, problem });
    }
    let Some((content, mode)) = read(path)? else {
        // Somebody counts on it: to go on without would fail later, and elsewhere.
        let problem = match path.exists() {
            true => "is empty",
            false => "is not there",
        };
        let setting = CREDENTIALS.iter().find(|(known, _)| *known == id).map(|(_, key)| *key);
        let setting = setting.map(|key| format!(", which {key} names"));
        let (path, problem) = (path.to_owned(), problem.to_owned() + &setting.unwrap_or_default());
        return Err(SecretsError::Credential { path, problem });
    };
    let warning = if PUBLIC.contains(&id) { None } else { warning(path, mode) };
    Ok(Some(Credential { content, path: path.to_owned(), warning }))
}

/// A sentence on a key file that others on this host can read.
pub fn too_open(path: &Path) -> Option<String> {
    warning(path, fs::metadata(path).ok()?.permissions().mode())
}

/// Refuses the file of the credential `id` when somebody whom `closed_to` names can read or write
/// it: 0o007 is everybody, 0o077 everybody and the group. A file that cannot even be looked at lies
/// in a directory that guards it.
///
/// # Errors
/// [`SecretsError::Exposed`], with what to run.
pub fn guarded(id: &str, path: &Path, closed_to: u32) -> Result<(), SecretsError> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o7777;
    if PUBLIC.contains(&id) || !metadata.is_file() || mode & closed_to == 0 {
        return Ok(());
    }
    Err(SecretsError::Exposed { path: path.to_owned(), mode })
}

fn warning(path: &Path, mode: u32) -> Option<String> {
    (mode & 0o077 != 0).then(|| {
        format!(
            "{} has mode {:04o} and holds key material: run chmod 0600 on it",
            path.display(),
            mode & 0o7777
        )
    })
}

/// Content and mode of a file; `None` where it is missing or empty.
fn read(path: &Path) -> Result<Option<(Plaintext, u32)>, SecretsError> {
    let failed = |problem: String| SecretsError::Credential { path: path.to_owned(), problem };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    // A FIFO would block the start of the unit for ever.
    if !metadata.is_file() {
        return Err(failed("is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    // One byte more than announced, so that the vector does not move while it is filled.
    let expected = metadata.len().min(MAX_CREDENTIAL) as usize + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(expected));
    file.take(MAX_CREDENTIAL + 1)
        .read_to_end(&mut content)
        .map_err(|error| failed(error.to_string()))?;
    if content.len() as u64 > MAX_CREDENTIAL {
        return Err(failed(format!("is larger than {MAX_CREDENTIAL} bytes")));
    }
    if content.trim_ascii().is_empty() {
        return Ok(None);
    }
    Ok(Some((content.into(), metadata.permissions().mode())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_file(dir: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, content).expect("temp dir is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
        path
    }

    #[test]
    fn a_directory_comes_first_and_an_empty_file_in_it_counts_as_absent() {
        let dir = tempfile::tempdir().expect("temp dir");
        let given = mk_file(dir.path(), "given", b"one", 0o440);
        mk_file(dir.path(), "empty", b"\n", 0o400);
        let other = mk_file(dir.path(), "other", b"two", 0o600);

        let found = |id: &str, configured: Option<&Path>| {
            read_credential(Some(dir.path()), id, configured)
                .expect("readable")
                .map(|c| (c.content.expose().to_vec(), c.path, c.warning))
        };
        assert_eq!(found("given", Some(&other)), Some((b"one".to_vec(), given, None)));
        assert_eq!(found("empty", Some(&other)), Some((b"two".to_vec(), other, None)));
        assert_eq!(found("empty", None), None);
        assert_eq!(found("missing", None), None);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_given_with_a_warning() {
        let dir = tempfile::tempdir().expect("temp dir");
        let known_hosts = mk_file(dir.path(), "known_hosts", b"h k", 0o644);
        let public = read_credential(None, "git-known-hosts", Some(&known_hosts));
        assert_eq!(public.expect("readable").expect("given").warning, None, "it is no secret");
        let path = mk_file(dir.path(), "age.agekey", b"key", 0o640);
        let found = read_credential(None, "age", Some(&path)).expect("readable").expect("given");
        let shown = path.display();
        let expected =
            format!("{shown} has mode 0640 and holds key material: run chmod 0600 on it");
        assert_eq!(found.warning, Some(expected));
    }

    #[test]
    fn a_key_that_everybody_can_read_is_refused_with_the_chmod_to_run() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = mk_file(dir.path(), "age-key", b"key", 0o644);
        let error = guarded("age-key", &open, 0o007).expect_err("everybody can read it");
        let shown = open.display();
        let told = format!("{shown} holds key material and has mode 0644, which lets others at it");
        assert_eq!(error.to_string(), told);
        assert_eq!(error.hint(), Some(format!("chmod 0400 {shown}")));
        for (mode, closed_to, fine) in [
            (0o600, 0o077, true),
            (0o640, 0o007, true),
            (0o640, 0o077, false),
            (0o602, 0o007, false),
        ] {
            let file = mk_file(dir.path(), "other", b"key", mode);
            assert_eq!(guarded("age-key", &file, closed_to).is_ok(), fine, "{mode:o}");
        }
        guarded("git-ca", &open, 0o077).expect("that is no secret");
        guarded("age-key", &dir.path().join("none"), 0o077).expect("nothing is there");
    }

    #[test]
    fn directories_oversized_files_and_foreign_names_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let big = vec![b'x'; MAX_CREDENTIAL as usize + 1];
        let path = mk_file(dir.path(), "big", &big, 0o600);
        let problem = |id: &str, path: &Path| match read_credential(None, id, Some(path)) {
            Err(SecretsError::Credential { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem("big", &path), "is larger than 1048576 bytes");
        assert_eq!(problem("dir", dir.path()), "is not a regular file");
        assert_eq!(problem("gone", &dir.path().join("nowhere")), "is not there");
        let gone = problem("age-key", &dir.path().join("nowhere"));
        assert_eq!(gone, "is not there, which decryption.ageKeyFile names");
        let sealed = mk_file(dir.path(), "age-key.cred", b"x", 0o400);
        assert!(problem("age-key", &sealed).starts_with("is sealed by systemd-creds"));
        assert_eq!(problem("empty", &mk_file(dir.path(), "empty", b"", 0o600)), "is empty");
        let denied = std::io::Error::from_raw_os_error(13).to_string();
        let denied = SecretsError::Credential { path: path.clone(), problem: denied };
        assert!(denied.hint().is_some_and(|hint| hint.contains("let the user gitopsd read it")));
        assert_eq!(problem("../big", &path), "is not the name of a credential");
    }
}
