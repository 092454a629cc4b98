//! Signed commits, judged by git and ssh-keygen.

use super::*;
use gitopsd::secrets::Plaintext;

/// Makes a key with ssh-keygen.
fn keygen(dir: &TempDir, name: &str, arguments: &[&str], passphrase: &str) -> PathBuf {
    let path = dir.path().join(name);
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-N", passphrase, "-C", "bot", "-f"])
        .arg(&path)
        .args(arguments)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen {arguments:?}");
    path
}

fn key(path: &PathBuf, passphrase: Option<&str>) -> Result<SigningKey, SourceError> {
    let pem = Plaintext::new(fs::read(path).expect("ssh-keygen wrote it"));
    let passphrase = passphrase.map(|text| Plaintext::new(text.as_bytes().to_vec()));
    SigningKey::from_openssh(&pem, passphrase.as_ref())
}

#[test]
fn signatures_of_every_kind_of_key_are_verified_by_git() {
    let (server, place) = (GitServer::http(), Place::new());
    let (repo, keys) = (repo(&server, "r"), TempDir::new().unwrap());
    let source = place.open();
    let main = remote(&server.url_of("r"), "main", &[]);
    for (name, kind, passphrase) in [
        ("ed25519", &["-t", "ed25519"][..], ""),
        ("locked", &["-t", "ed25519"], "open sesame"),
        ("p256", &["-t", "ecdsa", "-b", "256"], ""),
        ("p384", &["-t", "ecdsa", "-b", "384"], "open sesame"),
        ("rsa", &["-t", "rsa", "-b", "3072"], ""),
    ] {
        let path = keygen(&keys, name, kind, passphrase);
        let given = Some(passphrase).filter(|text| !text.is_empty());
        let signer = key(&path, given).unwrap();
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(signer.public(), public.trim(), "{name}");
        let tip = source.tip(&main).unwrap();
        let files = [("README.md", name)];
        let commit = try_edit(&tip, &files, Some(&signer)).unwrap().unwrap();
        let again = try_edit(&tip, &files, Some(&signer)).unwrap().unwrap();
        assert_eq!(commit.id, again.id, "{name}: equal input, equal signature");
        source.push(&main, &commit, &to("main")).unwrap();
        sound(&repo);

        let allowed = keys.path().join("allowed");
        fs::write(&allowed, format!("bot@test.invalid {public}")).unwrap();
        let verify = |allowed: &std::path::Path| {
            let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
            let mut command = git();
            command.arg("--git-dir").arg(repo.bare()).args([
                "-c",
                &setting,
                "-c",
                "gpg.format=ssh",
            ]);
            let output = command.args(["verify-commit", "main"]).output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (good, said) = verify(&allowed);
        assert!(good && said.contains("Good \"git\" signature for bot@test.invalid"), "{said}");
        let strange = keygen(&keys, &format!("{name}-strange"), &["-t", "ed25519"], "");
        let public = fs::read_to_string(strange.with_extension("pub")).unwrap();
        fs::write(&allowed, format!("bot@test.invalid {public}")).unwrap();
        assert!(!verify(&allowed).0, "{name}: another key's signature is not ours");
    }
}

#[test]
fn keys_that_cannot_sign_are_refused_with_the_reason() {
    let keys = TempDir::new().unwrap();
    let locked = keygen(&keys, "locked", &["-t", "ed25519"], "open sesame");
    let short = keygen(&keys, "short", &["-t", "rsa", "-b", "1024"], "");
    let pem = keygen(&keys, "pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"], "");
    let odd = keygen(&keys, "odd", &["-t", "ecdsa", "-b", "521"], "");
    let slow = keygen(&keys, "slow", &["-t", "ed25519", "-a", "2000"], "x");
    let gpg = keys.path().join("gpg");
    fs::write(&gpg, "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n").unwrap();
    let broken = keys.path().join("broken");
    let text = fs::read_to_string(&locked).unwrap();
    fs::write(&broken, text.replace('A', "B")).unwrap();
    for (path, passphrase, reason) in [
        (&locked, None, "it has a passphrase and none is given"),
        (&locked, Some("wrong"), "the given passphrase does not open it"),
        (&short, None, "2048 bits or more"),
        (&pem, None, "not in OpenSSH's form"),
        (&slow, Some("x"), "hashed too often"),
        (&odd, None, "the signing key is not usable"),
        (&gpg, None, "OpenPGP keys are not supported"),
        (&broken, Some("open sesame"), ""),
    ] {
        let error = key(path, passphrase).unwrap_err();
        assert!(matches!(error, SourceError::InvalidSigningKey { .. }), "{error:?}");
        let said = format!("{error} {error:?} {:?}", error.hint());
        assert!(said.contains(reason), "{said}");
        assert!(!said.contains("open sesame") && !said.contains("wrong"), "{said}");
    }
    let plain = keygen(&keys, "plain", &["-t", "ed25519"], "");
    let shown = format!("{:?}", key(&plain, None).unwrap());
    assert!(shown.starts_with("SigningKey(SHA256:"), "{shown}");
}
