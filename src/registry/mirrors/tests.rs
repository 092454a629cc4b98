//! What `registries.yaml` means, and what is told about a wrong one.

use super::*;

fn read(text: &str) -> Mirrors {
    Mirrors::parse("registries.yaml", text).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let problems = Mirrors::parse("registries.yaml", text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// Base and path of each endpoint, a mirror's with the registry it stands in for.
fn asked(mirrors: &Mirrors, image: &str) -> Vec<String> {
    let repository = Repository::parse(image).unwrap();
    let shown = |endpoint: Endpoint| {
        let of = endpoint.mirrored.map(|of| format!(" for {of}")).unwrap_or_default();
        format!("{} {}{of}", endpoint.base, endpoint.path)
    };
    mirrors.endpoints(&repository, false).into_iter().map(shown).collect()
}

const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://hub.lan:5443"
      - http://hub.lan:5000/v2/
      - https://harbor.lan/v2/hub
    rewrite:
      "^library/(.*)": "cache/$1"
  reg.lan:5000:
    endpoint: [https://reg.lan:5000]
    rewrite: {"^games/": "play/"}
  quiet.lan:
  "*":
    endpoint: [mirror.lan, "localhost:5001"]
configs:
  hub.lan:5443: &both
    auth: {username: ci, password: 0123}
    tls: {ca_file: /etc/ca.pem, cert_file: /etc/c.pem, key_file: /etc/k.pem}
    unknown: [ignored]
  docker.io:
    auth: {auth: Y2k6aHVudGVyMg==}
  other.lan:
    <<: *both
  "*":
    tls: {insecure_skip_verify: true}
"#;

#[test]
fn mirrors_come_first_with_their_rewrites_and_the_registry_last() {
    let mirrors = read(FILE);
    assert_eq!(
        asked(&mirrors, "podinfo"),
        [
            "https://hub.lan:5443/v2 cache/podinfo for index.docker.io",
            "http://hub.lan:5000/v2 cache/podinfo for index.docker.io",
            "https://harbor.lan/v2/hub cache/podinfo for index.docker.io",
            "https://index.docker.io/v2 library/podinfo",
        ]
    );
    // The registry as its own endpoint: rewritten first, then as it is.
    assert_eq!(
        asked(&mirrors, "reg.lan:5000/games/a"),
        ["https://reg.lan:5000/v2 play/a", "https://reg.lan:5000/v2 games/a"]
    );
    assert_eq!(asked(&mirrors, "reg.lan:5000/x"), ["https://reg.lan:5000/v2 x"]);
    assert_eq!(asked(&mirrors, "quiet.lan/x"), ["https://quiet.lan/v2 x"]);
    assert_eq!(
        asked(&mirrors, "any.lan/x"),
        [
            "https://mirror.lan/v2 x for any.lan",
            "http://localhost:5001/v2 x for any.lan",
            "https://any.lan/v2 x"
        ]
    );
    assert_eq!(asked(&Mirrors::default(), "any.lan/x"), ["https://any.lan/v2 x"]);
}

#[test]
fn credentials_and_certificates_are_found_by_host_and_port() {
    let mirrors = read(FILE);
    let login = |host: &str| {
        let login = mirrors.host(host)?.1.login.as_ref()?;
        let read = [login.user.expose(), b":", login.password.expose()].concat();
        Some(String::from_utf8(read).unwrap())
    };
    // A number in YAML is still the password that was written.
    assert_eq!(login("hub.lan:5443").as_deref(), Some("ci:0123"));
    assert_eq!(login("index.docker.io").as_deref(), Some("ci:hunter2"));
    assert_eq!(login("other.lan").as_deref(), Some("ci:0123"));
    assert_eq!(login("hub.lan"), None);
    assert!(mirrors.host("hub.lan").unwrap().1.insecure_skip_verify);
    let config = mirrors.host("hub.lan:5443").unwrap().1;
    assert!(!config.insecure_skip_verify);
    assert_eq!(config.ca_file.as_deref(), Some("/etc/ca.pem"));
    assert!(!format!("{mirrors:?}").contains("hunter2"));
    assert!(!format!("{mirrors:?}").contains("0123"));
}

#[test]
fn plain_http_follows_from_what_was_written_or_from_a_private_address() {
    let plain = |image: &str, insecure| {
        let repository = Repository::parse(image).unwrap();
        Mirrors::default().endpoints(&repository, insecure)[0].plain
    };
    for (image, expected) in [
        ("reg.lan/a", Plain::No),
        ("8.8.8.8:5000/a", Plain::No),
        ("localhost:5000/a", Plain::Anonymous),
        ("127.0.0.1:5000/a", Plain::Anonymous),
        ("10.1.2.3/a", Plain::Anonymous),
        ("192.168.1.2:5000/a", Plain::Anonymous),
        ("[::1]:5000/a", Plain::Anonymous),
        ("box.local/a", Plain::Anonymous),
    ] {
        assert_eq!(plain(image, false), expected, "{image}");
        assert_eq!(plain(image, true), Plain::Yes, "{image}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_by_line_and_without_values() {
    let text = "mirrors:\n  a.lan:\n    endpoint: https://a\n  b.lan:\n    endpoint:\n    - \
                https://u:hunter2@b\n    - ftp://b\n    rewrite: {\"(\": x}\nconfigs:\n  \
                https://c.lan:\n    auth: hunter2\n  d.lan:\n    auth: {auth: hunter2!}\n    \
                tls: {cert_file: /c, insecure_skip_verify: hunter2}\n";
    assert_eq!(
        problems(text),
        [
            "registries.yaml:3: mirrors.a.lan.endpoint: not a list, write - before each one",
            "registries.yaml:6: mirrors.b.lan.endpoint: no usable address, write user and \
             password below configs, not into the address",
            "registries.yaml:7: mirrors.b.lan.endpoint: no usable address, write http:// or \
             https://, a host, and what it needs of port and path",
            "registries.yaml:8: mirrors.b.lan.rewrite: \"(\" is no regular expression, write it as \
             in \"^library/(.*)\": \"mirror/$1\"",
            "registries.yaml:11: configs: \"https://c.lan\" is no host with an optional port, write \
             it without scheme and path",
            "registries.yaml:11: configs.https://c.lan.auth: not a map, write keys below it",
            "registries.yaml:13: configs.d.lan.auth: auth is not base64, write user:password in \
             base64",
            "registries.yaml:14: configs.d.lan.tls.insecure_skip_verify: neither true nor false, \
             write true or false",
            "registries.yaml:14: configs.d.lan.tls: cert_file and key_file belong together, write \
             both",
        ]
    );
}

#[test]
fn what_is_no_such_file_is_refused_and_an_empty_one_says_nothing() {
    for text in ["", "# nothing\n", "mirrors:\n", "{}", "mirrors: {}\nconfigs: ~\n"] {
        assert_eq!(asked(&read(text), "any.lan/x"), ["https://any.lan/v2 x"], "{text:?}");
    }
    for (text, expected) in [
        ("- a\n", ":1: the file: not a map"),
        ("mirrors: [hunter2\n", "not YAML"),
        ("a: 1\na: 2\n", ":2: \"a\": said twice"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("? [a]\n: b\n", "a key that is no word"),
        (&format!("{}{}", "[".repeat(20), "]".repeat(20)), "nested too deeply"),
        ("a: &a [*a]\n", "an alias to itself"),
    ] {
        let said = problems(text).remove(0);
        assert!(said.contains(expected) && !said.contains("hunter2"), "{text:?}: {said}");
    }
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
    }
    assert!(problems(&bomb)[0].contains("too many values"));
}
