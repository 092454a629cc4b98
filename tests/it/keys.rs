//! `gitopsd keygen` and `gitopsd key show`, judged by age's and OpenSSH's own tools.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn gitopsd(dir: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_gitopsd"));
    program.arg("--config").arg(dir.join("config.yaml")).args(arguments).current_dir(dir);
    program.env_clear().stdin(Stdio::null()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What another tool prints; it must succeed.
fn tool(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("piped").write_all(input).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {arguments:?}");
    text(&output.stdout)
}

#[test]
fn a_new_key_is_one_that_age_keygen_reads() {
    let dir = tempfile::tempdir().expect("temp dir");
    let made = gitopsd(dir.path(), &["keygen"]);
    assert!(made.status.success());
    let public = tool("age-keygen", &["-y"], &made.stdout);
    assert_eq!(text(&made.stderr), format!("Public key: {public}"));
    assert!(text(&made.stdout).contains(&format!("# public key: {public}")));

    let file = dir.path().join("second.key");
    let made = gitopsd(dir.path(), &["keygen", "--output", "second.key"]);
    assert!(made.status.success() && made.stdout.is_empty());
    assert_eq!(fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o400);
    let content = fs::read(&file).expect("ours");
    let public = tool("age-keygen", &["-y"], &content);
    assert_eq!(text(&made.stderr), format!("Public key: {public}"));

    let again = gitopsd(dir.path(), &["keygen", "--output", "second.key"]);
    assert_eq!(again.status.code(), Some(1));
    let said = text(&again.stderr);
    assert!(
        said.contains("second.key: is there already, and a key is never overwritten"),
        "{said}"
    );
    assert_eq!(fs::read(&file).expect("ours"), content);
}

#[test]
fn a_terminal_gets_no_secret_key_unless_asked() {
    let dir = tempfile::tempdir().expect("temp dir");
    let on_terminal = |arguments: &str| {
        let program = env!("CARGO_BIN_EXE_gitopsd");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command"]).arg(format!("{program} {arguments}"));
        let output = script.arg("/dev/null").current_dir(dir.path()).output().expect("util-linux");
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = on_terminal("keygen");
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("AGE-SECRET") && said.contains("say --output FILE"), "{said}");
    let (code, said) = on_terminal("keygen --output -");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("AGE-SECRET-KEY-1"), "{said}");
}

#[test]
fn key_show_prints_what_age_and_openssh_print_and_no_secret() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join("credentials").join(name);
    let none = gitopsd(dir.path(), &["key", "show"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(text(&none.stderr), "there is no age key: gitopsd init makes or imports one\n");

    fs::create_dir(dir.path().join("credentials")).expect("ours");
    let identity = path("git-identity").display().to_string();
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &identity], b"");
    let secret = tool("age-keygen", &[], b"");
    fs::write(path("age-key"), &secret).expect("ours");
    let recipient = tool("age-keygen", &["-y"], secret.as_bytes()).trim().to_owned();
    let printed = tool("ssh-keygen", &["-l", "-f", &identity], b"");
    let fingerprint = printed.split_whitespace().nth(1).expect("its second word").to_owned();
    let public = tool("ssh-keygen", &["-y", "-f", &identity], b"").trim().to_owned();

    let shown = gitopsd(dir.path(), &["key", "show"]);
    assert_eq!(shown.status.code(), Some(0));
    let shown = text(&shown.stdout);
    for part in [&recipient, &fingerprint, &public, &identity] {
        assert!(shown.contains(part.as_str()), "{part}: {shown}");
    }
    assert!(!shown.contains("AGE-SECRET") && !shown.contains("PRIVATE KEY"), "{shown}");

    let second = "age1xwrz49vmfzwsnuu0ag2lhzehtkc0m7a7ra2w55glu6gmc9l3py0s5tftly";
    let config =
        format!("root: {{url: \"ssh://git@h/r\", path: a}}\ndecryption: {{recovery: {second}}}\n");
    fs::write(dir.path().join("config.yaml"), config).expect("ours");
    let shown = gitopsd(dir.path(), &["key", "show", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let age = path("age-key").display().to_string();
    assert_eq!(
        shown,
        serde_json::json!({
            "age": {"path": age, "recipients": [recipient]},
            "deploy": {"path": identity, "fingerprint": fingerprint, "public": public},
            "recovery": second,
            "sops": format!(
                "creation_rules:\n  - encrypted_regex: ^(data|stringData)$\n    \
                 age: {recipient},{second}\n"
            ),
        })
    );
}
