//! Sealed files made by the real `sops`, opened, and damaged in every way that matters.

use super::*;
use crate::secrets::{detect, is_sealed};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/sops/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn mk_ring(names: &[&str]) -> Keyring {
    let mut ring = Keyring::empty();
    for name in names {
        ring.merge(Keyring::parse(&golden(&format!("keys/{name}"))).expect("a test key"));
    }
    ring
}

fn recipient(name: &str) -> String {
    mk_ring(&[name]).recipients().remove(0)
}

/// All documents of a YAML text, as Kubernetes would read them.
fn yaml(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("UTF-8").replace("!!merge <<", "<<");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// The text of a sealed case with one change made to it.
fn changed(name: &str, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(golden(name)).expect("UTF-8");
    assert!(text.contains(from), "{name} has no {from}");
    text.replacen(from, to, 1).into_bytes()
}

/// Opens YAML to YAML with the test key.
fn open_yaml(bytes: &[u8]) -> Result<Opened, SecretsError> {
    open(bytes, Format::Yaml, Format::Yaml, &mk_ring(&["test.agekey"]))
}

#[test]
fn every_yaml_case_opens_to_what_sops_opens_it_to_and_its_mac_is_valid() {
    let cases = [
        ("secret", "test.agekey"),
        ("types", "test.agekey"),
        ("documents", "test.agekey"),
        ("mac-only-encrypted", "test.agekey"),
        ("encrypted-suffix", "test.agekey"),
        ("unencrypted-regex", "test.agekey"),
        ("comment-regex", "test.agekey"),
        ("two-recipients", "test.agekey"),
        ("two-recipients", "second.agekey"),
        ("ssh-ed25519", "id_ed25519"),
        ("ssh-rsa", "id_rsa"),
    ];
    for (case, key) in cases {
        let sealed = golden(&format!("{case}/sealed.yaml"));
        assert!(is_sealed(&sealed, Format::Yaml), "{case}");
        let opened = open(&sealed, Format::Yaml, Format::Yaml, &mk_ring(&[key]))
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(opened.mac, MacState::Valid, "{case}");
        let expected = golden(&format!("{case}/opened.yaml"));
        assert!(!is_sealed(opened.text.expose(), Format::Yaml), "{case}");
        assert_eq!(yaml(opened.text.expose()), yaml(&expected), "{case}");
    }
}

#[test]
fn json_dotenv_ini_and_binary_open_to_the_text_of_sops() {
    let cases = [
        ("object", "json", Format::Json),
        ("dotenv", "env", Format::Dotenv),
        ("ini", "ini", Format::Ini),
        ("binary", "bin", Format::Binary),
    ];
    for (case, extension, format) in cases {
        let sealed = golden(&format!("{case}/sealed.{extension}"));
        assert!(is_sealed(&sealed, format), "{case}");
        let opened = open(&sealed, format, format, &mk_ring(&["test.agekey"]))
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(opened.mac, MacState::Valid, "{case}");
        let expected = golden(&format!("{case}/opened.{extension}"));
        if format == Format::Json {
            let read = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("JSON");
            assert_eq!(read(opened.text.expose()), read(&expected));
            continue;
        }
        // Comments are lost in the text formats; binary has none, whatever its lines look like.
        let lines = |text: &[u8]| -> Vec<Vec<u8>> {
            let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
            lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b";")).collect()
        };
        assert_eq!(lines(opened.text.expose()), lines(&expected), "{case}");
    }
}

#[test]
fn a_sealed_file_survives_windows_line_ends_and_a_byte_order_mark() {
    let text = String::from_utf8(golden("secret/sealed.yaml")).expect("UTF-8");
    let bytes = format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes();
    let opened = open_yaml(&bytes).expect("ours");
    assert_eq!(opened.mac, MacState::Valid);
    let expected = golden("secret/opened.yaml");
    assert_eq!(yaml(opened.text.expose()), yaml(&expected));
}

#[test]
fn age_and_ssh_keys_may_stand_in_one_key_file() {
    let names = ["test.agekey", "id_ed25519", "id_rsa"];
    let text: Vec<u8> = names.iter().flat_map(|name| golden(&format!("keys/{name}"))).collect();
    let ring = Keyring::parse(&text).expect("three keys");
    let public = |name: &str| {
        let text = String::from_utf8(golden(&format!("keys/{name}"))).expect("UTF-8");
        text.trim_end().strip_suffix(" test").expect("a comment").to_owned()
    };
    let expected = [recipient("test.agekey"), public("id_ed25519.pub"), public("id_rsa.pub")];
    assert_eq!(ring.recipients(), expected);
}

#[test]
fn sealed_text_is_detected_by_its_marker() {
    let cases = [
        ("secret/sealed.yaml", Some(Format::Yaml)),
        ("object/sealed.json", Some(Format::Json)),
        ("binary/sealed.bin", Some(Format::Json)),
        ("dotenv/sealed.env", Some(Format::Dotenv)),
        ("ini/sealed.ini", Some(Format::Ini)),
        ("secret/opened.yaml", None),
        ("binary/opened.bin", None),
    ];
    for (name, format) in cases {
        assert_eq!(detect(&golden(name)), format, "{name}");
    }
}

#[test]
fn the_format_of_the_opened_text_may_differ_from_that_of_the_sealed_one() {
    let ring = mk_ring(&["test.agekey"]);
    let text = |name: &str, input, output| {
        let opened = open(&golden(name), input, output, &ring)?;
        Ok::<_, SecretsError>(opened.text.expose().to_vec())
    };
    let binary = text("binary/sealed.bin", Format::Json, Format::Binary).expect("binary");
    assert_eq!(binary, golden("binary/opened.bin"));
    let flat = text("two-recipients/sealed.yaml", Format::Yaml, Format::Dotenv).expect("flat");
    assert_eq!(flat, b"password=hunter2\nport=5432\n");
    let tree = text("two-recipients/sealed.yaml", Format::Yaml, Format::Json).expect("json");
    assert_eq!(tree, b"{\n\t\"password\": \"hunter2\",\n\t\"port\": 5432\n}\n");
    let refused = text("object/sealed.json", Format::Json, Format::Dotenv).expect_err("nested");
    assert_eq!(refused.to_string(), "cannot be written as dotenv: auths is not a single value");
    let refused = text("documents/sealed.yaml", Format::Yaml, Format::Json).expect_err("several");
    assert_eq!(refused.to_string(), "cannot be written as JSON: the file has several documents");
}

#[test]
fn opened_values_and_recipients_come_back_beside_the_text() {
    let opened = open_yaml(&golden("two-recipients/sealed.yaml")).expect("ours");
    let values: Vec<&[u8]> = opened.values.iter().map(Plaintext::expose).collect();
    assert_eq!(values, [b"hunter2".as_slice(), b"5432"]);
    assert_eq!(opened.recipients, [recipient("second.agekey"), recipient("test.agekey")]);
    assert!(!format!("{opened:?}").contains("hunter2"));
}

#[test]
fn two_of_three_key_groups_open_a_file_and_one_does_not() {
    let sealed = golden("groups/sealed.yaml");
    let open_with = |names: &[&str]| open(&sealed, Format::Yaml, Format::Yaml, &mk_ring(names));
    let all = ["test.agekey", "second.agekey", "stranger.agekey"];
    for names in [&all[..2], &all[1..], &[all[0], all[2]], &all] {
        let opened = open_with(names).expect("enough groups");
        assert_eq!(opened.mac, MacState::Valid);
        assert_eq!(opened.text.expose(), b"password: \"hunter2\"\nport: 5432\n");
    }
    assert_eq!(
        open_with(&all[..1]).expect_err("too few groups"),
        SecretsError::MissingGroups {
            needed: 2,
            opened: 1,
            sealed_to: all.map(recipient).to_vec(),
            held: vec![recipient(all[0])],
        }
    );
}

#[test]
fn a_missing_key_is_told_with_both_sides_and_the_remedy() {
    let sealed = golden("secret/sealed.yaml");
    let (ours, theirs) = (recipient("stranger.agekey"), recipient("test.agekey"));
    let ring = mk_ring(&["stranger.agekey"]);
    let error = open(&sealed, Format::Yaml, Format::Yaml, &ring).expect_err("not ours");
    assert_eq!(error.to_string(), format!("sealed to {theirs}; the key held here is {ours}"));
    let hint = error.hint().expect("there is a remedy");
    assert!(hint.contains(&ours) && hint.contains("sops updatekeys"), "{hint}");

    let error = open(&sealed, Format::Yaml, Format::Yaml, &Keyring::empty()).expect_err("no key");
    assert_eq!(error.to_string(), format!("sealed to {theirs}; no key is held here"));
    assert!(!error.retry());
}

#[test]
fn a_file_with_recipients_of_other_kinds_only_says_which() {
    let sealed = json!({
        "a": "ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]",
        "sops": {
            "pgp": [{"fp": "ABCD", "enc": "x"}],
            "kms": [{"arn": "arn:aws:kms:x", "enc": "y"}],
            "age": null,
            "mac": "ENC[x]",
        },
    });
    let bytes = serde_json::to_vec(&sealed).expect("JSON");
    let error = open(&bytes, Format::Json, Format::Json, &mk_ring(&["test.agekey"]));
    assert_eq!(
        error.expect_err("foreign").to_string(),
        "sealed with pgp and kms only; gitopsd opens age recipients"
    );
}

/// Flips the first base64 digit behind a marker, from the line that starts with `key`.
fn flipped(name: &str, key: &str, marker: &str) -> Vec<u8> {
    let mut bytes = golden(name);
    let text = String::from_utf8(bytes.clone()).expect("UTF-8");
    let line = text.find(key).expect("the key is there");
    let at = line + text[line..].find(marker).expect("the marker is there") + marker.len();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    bytes
}

#[test]
fn a_flipped_bit_in_data_nonce_or_tag_is_found_and_named_by_path() {
    for marker in ["data:", "iv:", "tag:"] {
        let bytes = flipped("secret/sealed.yaml", "    password:", marker);
        assert_eq!(
            open_yaml(&bytes).expect_err(marker),
            SecretsError::Unauthentic { path: "stringData.password".to_owned() },
        );
    }
    let bytes = flipped("types/sealed.yaml", "    - key:", "data:");
    assert_eq!(
        open_yaml(&bytes).expect_err("in a list"),
        SecretsError::Unauthentic { path: "list[6].key".to_owned() },
    );
    let bytes = flipped("documents/sealed.yaml", "kind: ConfigMap", "GCM,data:");
    let error = open_yaml(&bytes).expect_err("in the second document");
    assert_eq!(error, SecretsError::Unauthentic { path: "data.a (document 2)".to_owned() });
}

#[test]
fn a_sealed_value_that_moves_to_another_path_does_not_open() {
    let bytes = changed("secret/sealed.yaml", "    password: ENC", "    passphrase: ENC");
    let error = open_yaml(&bytes).expect_err("moved");
    assert_eq!(error, SecretsError::Unauthentic { path: "stringData.passphrase".to_owned() });
    assert!(error.to_string().contains("moved from another path"));
}

#[test]
fn a_type_that_was_changed_behind_the_seal_is_no_reason_to_guess() {
    let text = String::from_utf8(golden("two-recipients/sealed.yaml")).expect("UTF-8");
    let bytes = text.replacen("type:str]", "type:int]", 1).into_bytes();
    let error = open_yaml(&bytes).expect_err("hunter2 is no number");
    assert_eq!(error, SecretsError::Unauthentic { path: "password".to_owned() });
    let bytes = text.replacen("type:str]", "type:comment]", 1).into_bytes();
    let error = open_yaml(&bytes).expect_err("a value cannot be hidden as a comment");
    assert_eq!(error, SecretsError::Unauthentic { path: "password".to_owned() });
    let bytes = text.replacen("type:str]", "type:tuple]", 1).into_bytes();
    let path = "password".to_owned();
    assert_eq!(
        open_yaml(&bytes).expect_err("unknown"),
        SecretsError::BadValue { path, problem: "is of an unknown type" },
    );
}

#[test]
fn an_edit_of_the_cleartext_leaves_values_open_and_the_mac_wrong() {
    let bytes = changed("secret/sealed.yaml", "name: shop-db", "name: shop-database");
    let opened = open_yaml(&bytes).expect("values are untouched");
    let cause = "the content changed after it was sealed";
    let MacState::Wrong { cause: found, last_modified } = &opened.mac else {
        panic!("{:?}", opened.mac)
    };
    assert_eq!((*found, last_modified.is_empty()), (cause, false));
    assert_eq!(yaml(opened.text.expose())[0]["stringData"]["user"], json!("shop"));

    let bytes = changed("documents/sealed.yaml", "name: three", "name: four");
    assert!(matches!(open_yaml(&bytes).expect("open").mac, MacState::Wrong { .. }));
}

#[test]
fn with_mac_only_encrypted_an_edit_of_the_cleartext_is_no_matter() {
    let bytes = changed("mac-only-encrypted/sealed.yaml", "name: shop-db", "name: other");
    assert_eq!(open_yaml(&bytes).expect("open").mac, MacState::Valid);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let bytes = text.replacen("mac_only_encrypted: true", "version_of: x", 1).into_bytes();
    assert!(matches!(open_yaml(&bytes).expect("open").mac, MacState::Wrong { .. }));
}

#[test]
fn a_changed_time_stamp_or_a_missing_mac_shows_in_the_state() {
    let bytes = changed("secret/sealed.yaml", "lastmodified: \"20", "lastmodified: \"21");
    let MacState::Wrong { cause, .. } = open_yaml(&bytes).expect("open").mac else { panic!() };
    assert_eq!(cause, "sops.mac or sops.lastmodified was altered");
    let bytes = changed("secret/sealed.yaml", "    mac: ", "    mag: ");
    assert_eq!(open_yaml(&bytes).expect("open").mac, MacState::Absent);
}

#[test]
fn cleartext_where_the_rule_wants_a_seal_stops_the_file() {
    for added in ["    extra: hunter3\n", "    extra: 12\n", "    extra: true\n"] {
        let to = format!("stringData:\n{added}");
        let bytes = changed("secret/sealed.yaml", "stringData:\n", &to);
        let error = open_yaml(&bytes).expect_err(added);
        assert_eq!(error, SecretsError::NotSealed { path: "stringData.extra".to_owned() });
    }
}

#[test]
fn what_is_wrong_with_the_text_is_told_by_line_and_never_quoted() {
    let ring = mk_ring(&["test.agekey"]);
    let cases: &[(&[u8], Format, &str)] = &[
        (b"a: 1\nb: [hunter2", Format::Yaml, "not valid YAML at line 2: syntax error"),
        (b"a: 1\na: hunter2\n", Format::Yaml, "not valid YAML at line 2: a key appears twice"),
        (b"- hunter2\n", Format::Yaml, "not valid YAML at line 1: a document is not a mapping"),
        (b"\n\xff", Format::Yaml, "not valid YAML at line 2: not UTF-8"),
        (
            b"a: &x [*x]\n",
            Format::Yaml,
            "not valid YAML at line 1: an alias to a node that contains it",
        ),
        (b"a: 1\n", Format::Yaml, "no SOPS metadata in this YAML file"),
        (b"", Format::Yaml, "no SOPS metadata in this YAML file"),
        (b"sops: hunter2\n", Format::Yaml, "SOPS metadata `sops`: is not a mapping"),
        (b"sops: {}\n", Format::Yaml, "SOPS metadata `age`: there are no recipients"),
        (b"{\"a\": hunter2}", Format::Json, "not valid JSON at line 1: syntax error"),
        (b"{\"a\": 1,\n\"a\": 2}", Format::Json, "not valid JSON at line 2: data error"),
        (b"[1]", Format::Json, "not valid JSON at line 1: the document is not an object"),
        (b"A=1\nhunter2\n", Format::Dotenv, "not valid dotenv at line 2: there is no `=`"),
        (b"[a]\nhunter2\n", Format::Ini, "not valid INI at line 2: no key in front of a value"),
        (b"[a\n", Format::Ini, "not valid INI at line 1: unclosed section"),
        (b"a = `hunter2\n", Format::Ini, "not valid INI at line 1: unclosed quote"),
    ];
    for (bytes, format, expected) in cases {
        let error = open(bytes, *format, *format, &ring).expect_err(expected);
        assert_eq!(error.to_string(), *expected);
    }
    let size = MAX_SEALED + 1;
    let error = open(&vec![b' '; size], Format::Yaml, Format::Yaml, &ring).expect_err("large");
    assert_eq!(error, SecretsError::TooLarge { size, limit: MAX_SEALED });
}

#[test]
fn two_rules_or_a_damaged_data_key_are_named_by_field() {
    let bytes = changed("secret/sealed.yaml", "    mac: ", "    encrypted_suffix: x\n    mac: ");
    let field = "encrypted_regex".to_owned();
    let problem = "cannot be used beside encrypted_suffix".to_owned();
    assert_eq!(open_yaml(&bytes).expect_err("two"), SecretsError::Metadata { field, problem });

    let bytes = changed("secret/sealed.yaml", "BEGIN AGE", "BEGIN OLD");
    let recipient = recipient("test.agekey");
    assert_eq!(open_yaml(&bytes).expect_err("bad"), SecretsError::DamagedDataKey { recipient });
}

#[test]
fn nesting_and_alias_bombs_are_refused() {
    let deep = format!("a: {}{}\n", "[".repeat(200), "]".repeat(200));
    let error = open_yaml(deep.as_bytes()).expect_err("deep").to_string();
    assert_eq!(error, "not valid YAML at line 1: nested too deeply");
    let deep = "{\"a\":".repeat(200);
    let ring = Keyring::empty();
    assert!(open(deep.as_bytes(), Format::Json, Format::Json, &ring).is_err());

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let error = open_yaml(bomb.as_bytes()).expect_err("a bomb").to_string();
    assert!(error.ends_with("too many nodes"), "{error}");
}

#[test]
fn an_object_after_rendering_opens_without_its_mac() {
    let mut object = yaml(&golden("secret/sealed.yaml")).remove(0);
    object["metadata"]["labels"]["added-by"] = json!("kustomize");
    let ring = mk_ring(&["test.agekey"]);
    let (opened, mac, values) = open_tree(&object, &ring).expect("ours");
    let mut expected = yaml(&golden("secret/opened.yaml")).remove(0);
    expected["metadata"]["labels"]["added-by"] = json!("kustomize");
    assert_eq!((opened, mac, values.len()), (expected, MacState::Absent, 4));

    let plain = json!({"kind": "Secret"});
    let error = open_tree(&plain, &ring).expect_err("not sealed");
    assert_eq!(error, SecretsError::NoMetadata { format: Format::Json });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let ring = mk_ring(&["test.agekey"]);
        let formats =
            [Format::Yaml, Format::Json, Format::Dotenv, Format::Ini, Format::Binary];
        for format in formats {
            let _ = open(&bytes, format, Format::Yaml, &ring);
            is_sealed(&bytes, format);
        }
        detect(&bytes);
        let _ = Keyring::parse(&bytes);
        let pem = [b"-----BEGIN OPENSSH PRIVATE KEY-----\n", bytes.as_slice()].concat();
        let _ = Keyring::parse(&pem);
    }

    #[test]
    fn damage_anywhere_in_a_sealed_file_never_panics(at in 0usize..4000, byte: u8, cut: bool) {
        let ring = mk_ring(&["test.agekey"]);
        for (name, format) in [
            ("secret/sealed.yaml", Format::Yaml),
            ("object/sealed.json", Format::Json),
            ("dotenv/sealed.env", Format::Dotenv),
            ("ini/sealed.ini", Format::Ini),
        ] {
            let mut bytes = golden(name);
            let at = at % bytes.len();
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = open(&bytes, format, format, &ring);
        }
    }
}
