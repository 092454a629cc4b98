//! Pure: the public halves of keys, as people pass them on.
//!
//! Lines for `.sops.yaml`, the public line of an OpenSSH private key with its fingerprint, and the
//! lines of `known_hosts`. OpenSSH's format carries the public half in clear, so that a key with a
//! passphrase shows it too; nothing secret is decoded here.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

/// What SOPS is to seal: the values of Secrets and nothing else.
const SEALED: &str = "^(data|stringData)$";

/// The lines of `.sops.yaml` that seal to these recipients.
pub fn sops_lines(recipients: &[String]) -> String {
    let age = recipients.join(",");
    format!("creation_rules:\n  - encrypted_regex: {SEALED}\n    age: {age}\n")
}

/// The public half of an ssh key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPublic {
    /// `ssh-ed25519 AAAA…`, without a comment.
    pub line: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// `ssh-ed25519`.
    pub kind: String,
}

impl SshPublic {
    fn of(blob: &[u8]) -> Option<SshPublic> {
        let (kind, _) = field(blob)?;
        let kind = std::str::from_utf8(kind).ok()?.to_owned();
        let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)));
        Some(SshPublic { line: format!("{kind} {}", STANDARD.encode(blob)), fingerprint, kind })
    }
}

/// Reads the public half out of an OpenSSH private key; nothing for older formats.
pub fn ssh_public(private: &[u8]) -> Option<SshPublic> {
    let text = std::str::from_utf8(private).ok()?;
    let body = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?.1;
    let body = body.split_once("-----END OPENSSH PRIVATE KEY-----")?.0;
    let packed: zeroize::Zeroizing<String> =
        body.chars().filter(|c| !c.is_whitespace()).collect::<String>().into();
    let bytes = zeroize::Zeroizing::new(STANDARD.decode(packed.as_bytes()).ok()?);
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    // Cipher, key derivation, its options; then the number of keys and the first public one.
    for _ in 0..3 {
        rest = field(rest)?.1;
    }
    let (blob, _) = field(rest.get(4..)?)?;
    SshPublic::of(blob)
}

/// One length-prefixed field of an ssh blob, and what follows it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let rest = &bytes[4..];
    (length <= rest.len()).then(|| rest.split_at(length))
}

/// One line of `known_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The whole line.
    pub line: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// `ssh-ed25519`.
    pub kind: String,
}

/// The keys among lines of `known_hosts`, in a fixed order; what is no key is passed over.
pub fn host_keys(text: &str) -> Vec<HostKey> {
    let read = |line: &str| {
        let mut words = line.split_whitespace().filter(|word| !word.starts_with('@'));
        let (_, _, blob) = (words.next()?, words.next()?, words.next()?);
        let public = SshPublic::of(&STANDARD.decode(blob).ok()?)?;
        let SshPublic { fingerprint, kind, .. } = public;
        Some(HostKey { line: line.trim().to_owned(), fingerprint, kind })
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut keys: Vec<HostKey> = lines.filter_map(read).collect();
    keys.sort_by(|a, b| a.line.cmp(&b.line));
    keys.dedup();
    keys
}

/// Whether lines of `known_hosts` may name a host; hashed names may be any.
pub fn knows_host(text: &str, host: &str, port: Option<u16>) -> bool {
    let wanted = match port {
        Some(port) if port != 22 => format!("[{host}]:{port}"),
        _ => host.to_owned(),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_whitespace().find(|word| !word.starts_with('@')))
        .any(|names| names.starts_with("|1|") || names.split(',').any(|name| name == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test with `ssh-keygen -t ed25519`; it opens nothing.
    const PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n\
        QyNTUxOQAAACApDkp76P8D4gsVfZW1EYXmSvGDlftMO2dZm5VHIMksKwAAAIgD+BD4A/gQ\n\
        +AAAAAtzc2gtZWQyNTUxOQAAACApDkp76P8D4gsVfZW1EYXmSvGDlftMO2dZm5VHIMksKw\n\
        AAAEAy8S6uzutaDM+JcWlLvpIbRnQdHsqDK6YG6SmO20Y/XCkOSnvo/wPiCxV9lbURheZK\n\
        8YOV+0w7Z1mblUcgySwrAAAAAAECAwQF\n\
        -----END OPENSSH PRIVATE KEY-----\n";
    const PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICkOSnvo/wPiCxV9lbURheZK8YOV+0w7Z1mblUcgySwr";
    const FINGERPRINT: &str = "SHA256:JkGeJmgOzKXPBlCqd/rCkqp/bgIbU0zaxDqN624lQbg";

    #[test]
    fn the_public_half_of_a_private_key_is_what_ssh_keygen_says() {
        let public = ssh_public(PRIVATE.as_bytes()).expect("OpenSSH's format");
        let expected = SshPublic {
            line: PUBLIC.to_owned(),
            fingerprint: FINGERPRINT.to_owned(),
            kind: "ssh-ed25519".to_owned(),
        };
        assert_eq!(public, expected);
        assert_eq!(ssh_public(b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n"), None);
        let cut = PRIVATE.replace("AAAA", "AAA");
        assert_eq!(ssh_public(cut.as_bytes()), None);
    }

    #[test]
    fn host_keys_are_read_in_a_fixed_order_with_their_fingerprints() {
        let text = format!("# h:22 SSH-2.0\nb {PUBLIC}\n[a]:2222 {PUBLIC} note\nb {PUBLIC}\nx y\n");
        let keys = host_keys(&text);
        let lines: Vec<&str> = keys.iter().map(|key| key.line.as_str()).collect();
        assert_eq!(lines, [format!("[a]:2222 {PUBLIC} note"), format!("b {PUBLIC}")]);
        assert!(keys.iter().all(|key| key.fingerprint == FINGERPRINT));
        assert!(knows_host(&text, "a", Some(2222)) && knows_host(&text, "b", Some(22)));
        assert!(!knows_host(&text, "a", None) && !knows_host(&text, "c", None));
        assert!(knows_host("|1|abc|def ssh-ed25519 AAAA\n", "c", None), "it may be hashed");
    }

    #[test]
    fn the_lines_for_sops_name_every_recipient() {
        assert_eq!(
            sops_lines(&["age1a".to_owned(), "age1b".to_owned()]),
            "creation_rules:\n  - encrypted_regex: ^(data|stringData)$\n    age: age1a,age1b\n"
        );
    }
}
