//! Reading and writing of the five formats, without any seal.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read_yaml(text: &str) -> Vec<Value> {
    let documents = yaml::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    documents.iter().map(to_value).collect()
}

#[test]
fn formats_follow_from_file_names() {
    let cases = [
        ("a/b.yaml", Format::Yaml),
        ("b.yml", Format::Yaml),
        ("config.json", Format::Json),
        (".dockerconfigjson", Format::Json),
        ("reg.dockerconfigjson", Format::Json),
        (".env", Format::Dotenv),
        ("app.env", Format::Dotenv),
        ("php.ini", Format::Ini),
        ("tls.crt", Format::Binary),
        ("README", Format::Binary),
        ("yaml", Format::Binary),
    ];
    for (name, format) in cases {
        assert_eq!(Format::by_name(name), format, "{name}");
    }
}

#[test]
fn json_without_blanks_is_seen_as_sealed_too() {
    assert!(is_sealed(b"{\"sops\":{\"mac\":\"ENC[AES256_GCM\"}}", Format::Json));
    assert!(!is_sealed(b"{\"mac\": \"12:34\"}", Format::Json));
}

#[test]
fn plain_scalars_are_typed_as_go_yaml_types_them() {
    // What sops 3.13.3 (go-yaml 3.0.4) writes for the same text is in tests/golden/sops/types.
    let cases = [
        ("yes", json!("yes")),
        ("on", json!("on")),
        ("TRUE", json!(true)),
        ("tRUE", json!("tRUE")),
        ("~", json!(null)),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1F", json!(31)),
        ("-0b101", json!(-5)),
        ("1_000", json!(1000)),
        ("08", json!(8)),
        ("+12", json!(12)),
        ("18446744073709551615", json!(18446744073709551615u64)),
        ("1e3", json!(1000)),
        ("1.50", json!(1.5)),
        (".5", json!(0.5)),
        ("1.", json!(1)),
        ("1e400", json!("1e400")),
        ("1.2.3", json!("1.2.3")),
        ("12:30", json!("12:30")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("-", json!([null])),
        ("0xZZ", json!("0xZZ")),
        ("2024-02-29", json!("2024-02-29T00:00:00Z")),
        ("2023-02-29", json!("2023-02-29")),
        ("2024-1-2", json!("2024-01-02T00:00:00Z")),
        ("2024-01-02T03:04:05Z", json!("2024-01-02T03:04:05Z")),
        ("2024-01-02t3:4:5.120+02:00", json!("2024-01-02T03:04:05.12+02:00")),
        ("2024-01-02 03:04:05", json!("2024-01-02T03:04:05Z")),
        ("2024-01-02 03:04:05 Z", json!("2024-01-02 03:04:05 Z")),
        ("2024-01-02T25:00:00Z", json!("2024-01-02T25:00:00Z")),
        ("2024-01", json!("2024-01")),
        ("!!str 12", json!("12")),
        ("!!int \"12\"", json!(12)),
        ("!!float 12", json!(12)),
        ("!!binary aGk=", json!("hi")),
        ("!custom 12", json!("12")),
    ];
    for (text, expected) in cases {
        let text = if text == "-" { "\n-".to_owned() } else { text.to_owned() };
        assert_eq!(read_yaml(&format!("a: {text}\n")), [json!({"a": expected})], "{text}");
    }
    assert!(yaml::read(b"a: !!int x\n").is_err());
}

#[test]
fn documents_aliases_and_order_are_kept() {
    let text = "---\nb: &x {z: 1, a: [2]}\na: *x\n---\n---\nc: 1\n...\n";
    let expected =
        [json!({"b": {"z": 1, "a": [2]}, "a": {"z": 1, "a": [2]}}), json!({}), json!({"c": 1})];
    let found = read_yaml(text);
    assert_eq!(found, expected);
    let order: Vec<&String> = found[0].as_object().expect("a mapping").keys().collect();
    assert_eq!(order, ["b", "a"]);
}

#[test]
fn bytes_that_are_no_text_are_written_as_binary_yaml_and_refused_in_json() {
    let leaf = Node::Leaf(Scalar::Text(Zeroizing::new(vec![0xff, 0x00])));
    let document = [Node::Map(vec![("data".to_owned(), leaf)])];
    let text = write(&document, Format::Yaml, 0).expect("YAML");
    assert_eq!(text.expose(), b"data: !!binary \"/wA=\"\n");
    assert_eq!(write(&document, Format::Binary, 0).expect("bytes").expose(), [0xff, 0x00]);
    let error = write(&document, Format::Json, 0).expect_err("JSON").to_string();
    assert_eq!(error, "cannot be written as JSON: data is not UTF-8");
}

#[test]
fn ini_quotes_survive_a_round_trip() {
    let text = "[a]\nplain = x\nhash = `a # b`\nlines = \"\"\"one\ntwo\"\"\"\nwide = \"  y \"\n\
                `k=1` = v\njoined = one\\\ntwo\n";
    let read = ini::read(text.as_bytes()).expect("INI");
    let expected = json!({
        "DEFAULT": {},
        "a": {"plain": "x", "hash": "a # b", "lines": "one\ntwo", "wide": "  y ", "k=1": "v",
              "joined": "onetwo"},
    });
    assert_eq!(to_value(&read), expected);
    let written = write(&[read], Format::Ini, 0).expect("INI");
    let again = ini::read(written.expose()).expect("INI");
    assert_eq!(to_value(&again), expected);
}

#[test]
fn flattened_metadata_is_rebuilt_and_contradictions_are_named() {
    let mk = |entries: &[(&str, &str)]| {
        let leaf = |text: &str| Node::Leaf(Scalar::text(text));
        let entries: Vec<_> = entries.iter().map(|(k, v)| ((*k).to_owned(), leaf(v))).collect();
        flat::unflatten(&entries)
    };
    let found =
        mk(&[("age__list_1__map_enc", "b"), ("age__list_0__map_enc", "one\\ntwo"), ("mac", "x")]);
    let expected = json!({"age": [{"enc": "one\ntwo"}, {"enc": "b"}], "mac": "x"});
    assert_eq!(found.expect("fits"), expected);
    assert!(mk(&[("a", "1"), ("a__map_b", "2")]).is_err());
    assert!(mk(&[("a__list_99999999", "1")]).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-zA-Z0-9:~<>|&*#!%@ -]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof!["[a-z0-9:# -]{0,6}", any::<String>()];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn written_yaml_and_json_read_back_as_the_same_values(value in any_json()) {
        let document = json!({"root": value});
        let tree = [from_value(&document)];
        let text = write(&tree, Format::Yaml, 0).expect("YAML");
        let found = yaml::read(text.expose()).expect("reads back");
        prop_assert_eq!(to_value(&found[0]), document.clone());
        let text_of = std::str::from_utf8(text.expose()).expect("UTF-8");
        let kubernetes: Value = serde_saphyr::from_str(text_of).expect("reads back");
        prop_assert_eq!(kubernetes, document.clone());
        let text = write(&tree, Format::Json, 0).expect("JSON");
        let found: Value = serde_json::from_slice(text.expose()).expect("reads back");
        prop_assert_eq!(found, document);
    }
}
