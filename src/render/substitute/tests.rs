//! Flux's substitution, expression by expression, and the round trip of whole objects.

use super::*;
use serde_json::json;

fn variables() -> Variables {
    let pairs = [
        ("v", "abcABC"),
        ("w", "4"),
        ("empty", ""),
        ("n", "123"),
        ("yes", "true"),
        ("quote", "\""),
        ("path", "/path/to/file.tar.gz"),
        ("umlaut", "äöü"),
        ("obj", "{a: 1, b: [x]}"),
        ("colon", "a: b"),
    ];
    Variables::from_pairs(pairs).expect("names are fine")
}

#[test]
fn every_form_of_the_table_expands_as_in_flux() {
    for (text, expected) in [
        ("${v}", "abcABC"),
        ("${empty}", ""),
        ("a${v}b${w}", "aabcABCb4"),
        // defaults, when unset or empty
        ("${v:-d}", "abcABC"),
        ("${x:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${x:=d}", "d"),
        ("${empty:=d}", "d"),
        ("${x=d}", "d"),
        ("${empty=d}", "d"),
        ("${x:=}", ""),
        ("${x:-a: b # c}", "a: b # c"),
        // :+ and :? are :-
        ("${x:+d}", "d"),
        ("${v:+d}", "abcABC"),
        ("${x:?d}", "d"),
        ("${v:?d}", "abcABC"),
        // bytes
        ("${v:2}", "cABC"),
        ("${v:2:2}", "cA"),
        ("${v:2:99}", "cABC"),
        ("${v:6}", ""),
        ("${v:99}", ""),
        ("${v:99:1}", ""),
        ("${v:-2}", "abcABC"),
        ("${v:1:-1}", "bcAB"),
        ("${v:4:-4}", ""),
        ("${v:one}", "abcABC"),
        ("${v:1:one}", "abcABC"),
        ("${v: -2}", "abcABC"),
        ("${v:${w}}", "BC"),
        ("${#v}", "6"),
        ("${#empty}", "0"),
        ("${#umlaut}", "6"),
        // case
        ("${v^}", "AbcABC"),
        ("${v^^}", "ABCABC"),
        ("${v,}", "abcABC"),
        ("${v,,}", "abcabc"),
        ("${umlaut^}", "Äöü"),
        // trim by glob, whose * crosses /
        ("${path#*/}", "path/to/file.tar.gz"),
        ("${path##*/}", "file.tar.gz"),
        ("${path%.*}", "/path/to/file.tar"),
        ("${path%%.*}", "/path/to/file"),
        ("${path%/*}", "/path/to"),
        ("${path##*}", ""),
        ("${v#[a-c]}", "bcABC"),
        ("${v#?b}", "cABC"),
        ("${v#x}", "abcABC"),
        ("${v#[}", "abcABC"),
        ("${v#${x:=ab}}", "cABC"),
        // literal replacement
        ("${v/b/-}", "a-cABC"),
        ("${v//C/-}", "abcAB-"),
        ("${path//t/T}", "/paTh/To/file.Tar.gz"),
        ("${v/#ab/X}", "XcABC"),
        ("${v/#b/X}", "abcABC"),
        ("${v/%BC/X}", "abcAX"),
        ("${v/%x/X}", "abcABC"),
        ("${v/*/X}", "abcABC"),
        ("${v/b/}", "acABC"),
        ("${v//C/}", "abcAB"),
        ("${v/#/pre-}", "pre-abcABC"),
        ("${v/%/-post}", "abcABC-post"),
        ("${v/#ab/}", "abcABC"),
        (r"${path//\//-}", "-path-to-file.tar.gz"),
        (r"${v/b/\\}", r"a\cABC"),
        ("${v/${x:=a}/${w}}", "4bcABC"),
        // nesting
        ("${x:=pre${w}post}", "pre4post"),
        ("${x:=${y:=${w}}}", "4"),
        // what is no expression
        ("$${v}", "${v}"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("$$${v}", "$abcABC"),
        ("$v $(v) 5$ }{", "$v $(v) 5$ }{"),
        (r"\\ \/ \${v}", r"\\ \/ \abcABC"),
        ("${x:=a$$b}", "a$$b"),
        ("ünï ${v} cödé", "ünï abcABC cödé"),
    ] {
        assert_eq!(expand(text, &variables()).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn shell_and_other_foreign_forms_are_errors() {
    for text in [
        "${v-d}",
        "${v+d}",
        "${v?d}",
        "${a[0]}",
        "${!v}",
        "${v@Q}",
        "${}",
        "${",
        "${v",
        "${v:=d",
        "${v:}",
        "${v:1:}",
        "${v#}",
        "${v/a}",
        "${#}",
        "${#v:1}",
        "${v^x}",
        "${ v }",
        "${*}",
        "${v:1:2:3",
        "${x:=${y}",
    ] {
        let error = expand(text, &variables()).expect_err(text);
        assert!(matches!(error, SubstituteError::Syntax { .. }), "{text}: {error}");
    }
    let missing = SubstituteError::Syntax { what: "missing closing brace" };
    assert_eq!(expand("${v-d}", &variables()), Err(missing));
    let deep = "${x:=".repeat(40) + &"}".repeat(40);
    assert!(matches!(expand(&deep, &variables()), Err(SubstituteError::Syntax { .. })));
}

#[test]
fn unset_variables_fail_under_every_operator_without_default() {
    for text in [
        "${x}",
        "${#x}",
        "${x^}",
        "${x,,}",
        "${x:0}",
        "${x:0:1}",
        "${x/a/b}",
        "${x//a/b}",
        "${x#a}",
        "${x%%a}",
        "${v:=${x}}",
    ] {
        let error = SubstituteError::Unset { names: vec!["x".into()] };
        assert_eq!(expand(text, &variables()), Err(error), "{text}");
    }
    let error = expand("${x} ${v} ${z^} ${x}", &variables()).expect_err("two are not set");
    assert_eq!(error.to_string(), r#"variable not set (strict mode): "x", "z""#);
    assert!(error.hint().is_some_and(|hint| hint.contains("${x:=value}")));
}

#[test]
fn a_split_character_and_endless_growth_are_errors() {
    assert_eq!(expand("${umlaut:1}", &variables()), Err(SubstituteError::SplitCharacter));
    let large = Variables::from_pairs([("a", "a".repeat(1 << 20))]).expect("a is a name");
    let error = Err(SubstituteError::TooLarge { limit: 8 << 20 });
    assert_eq!(expand(&"${a}".repeat(9), &large), error);
    assert_eq!(expand("${a//a/${a}}", &large), error);
}

#[test]
fn names_are_checked_and_newlines_deleted() {
    for (name, fits) in [
        ("a", true),
        ("_A1", true),
        ("1a", false),
        ("app.conf", false),
        ("a-b", false),
        ("", false),
        ("ä", false),
    ] {
        assert_eq!(Variables::new().insert(name, "x").is_ok(), fits, "{name:?}");
    }
    let variables = Variables::from_pairs([("a", "one\ntwo\n"), ("b", "x")]).expect("names");
    assert_eq!(variables.get("a"), Some("onetwo"));
    assert_eq!(format!("{variables:?}"), r#"{"a", "b"}"#);
}

#[test]
fn the_digest_follows_names_values_and_key() {
    let digest = |pairs: &[(&str, &str)], key: &[u8]| {
        Variables::from_pairs(pairs.iter().copied()).expect("names").digest(key)
    };
    let one = digest(&[("a", "bc"), ("d", "")], b"key");
    assert_eq!(one.len(), 64);
    assert_eq!(one, digest(&[("d", ""), ("a", "x"), ("a", "bc")], b"key"));
    assert_ne!(one, digest(&[("a", "b"), ("d", "")], b"key"));
    assert_ne!(one, digest(&[("ab", "c"), ("d", "")], b"key"));
    assert_ne!(one, digest(&[("a", "bc"), ("d", "")], b"other"));
}

fn config_map(data: Value) -> Manifest {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "n"}, "data": data});
    Manifest::new(body, None, false)
}

fn data_after(data: Value) -> Result<Value, SubstituteError> {
    let done = substitute(&config_map(data.clone()), &variables(), SubstituteStrategy::Always)?;
    Ok(done.map_or(data, |manifest| manifest.body()["data"].clone()))
}

#[test]
fn values_change_type_where_the_whole_scalar_is_an_expression() {
    for (before, after) in [
        (json!("${n}"), json!(123)),
        (json!("${yes}"), json!(true)),
        (json!("${empty}"), json!(null)),
        (json!("${n}m"), json!("123m")),
        (json!("${quote}${n}${quote}"), json!("123")),
        (json!("${obj}"), json!({"a": 1, "b": ["x"]})),
        (json!("x: ${n}"), json!("x: 123")),
        (json!("'${n}'"), json!("'123'")),
        (
            json!(["${n}", "${v}", 7, null, 1.5, [], {}]),
            json!([123, "abcABC", 7, null, 1.5, [], {}]),
        ),
        (json!({"${v}": {"${n}": "${w}"}}), json!({"abcABC": {"123": 4}})),
        (json!("$${n}"), json!("${n}")),
    ] {
        assert_eq!(data_after(before.clone()), Ok(after), "{before}");
    }
}

#[test]
fn text_that_looks_like_something_else_stays_text() {
    let looks = [
        "123",
        "1.5",
        "0644",
        "0x1f",
        "1_000",
        "1e3",
        "yes",
        "No",
        "on",
        "y",
        "true",
        "null",
        "~",
        "",
        ".inf",
        "2020-01-01",
        "1:30",
        "<<",
        "=",
        "- a",
        "a: b",
        "#x",
        "a #b",
        " lead",
        "trail ",
        "'q'",
        "\"q\"",
        "\\",
        "\t",
        "tab\tin",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\na",
        "  a\n b",
        "a \nb",
        "\n",
        "\r\n",
        "\u{85}\u{2028}\u{feff}\u{7}",
        "&a",
        "*a",
        "!t",
        "%d",
        "@x",
        "`x`",
        "{a",
        "[a",
        "---",
        "...",
        "--- a",
        "? a",
        "€ ünï 🦀",
    ];
    for text in looks {
        // With and without an expression beside it, which chooses another style.
        for (before, after) in [
            (json!({"k": text, "x": "${v}"}), json!({"k": text, "x": "abcABC"})),
            (json!([[text, "${v}"]]), json!([[text, "abcABC"]])),
            (json!({text: "${v}"}), json!({text: "abcABC"})),
        ] {
            assert_eq!(data_after(before), Ok(after), "{text:?}");
        }
        if text.contains('\n') || text.len() > 6 {
            let inside = |value: &str| json!({"k": {"l": [format!("{text}{value}{text}")]}});
            assert_eq!(data_after(inside("${v}")), Ok(inside("abcABC")), "{text:?} around");
        }
    }
}

#[test]
fn label_annotation_and_strategy_leave_an_object_alone() {
    let with = |map: &str, value: &str| {
        let mut manifest = config_map(json!({"k": "${v}"}));
        manifest.edit(|body| body["metadata"][map] = json!({MARK: value}));
        substitute(&manifest, &variables(), SubstituteStrategy::Always)
    };
    assert_eq!(with("labels", "disabled"), Ok(None));
    assert_eq!(with("annotations", "disabled"), Ok(None));
    assert!(matches!(with("labels", "Disabled"), Ok(Some(_))), "compared exactly");

    let default = config_map(json!({"k": "${x:=1}"}));
    let none = Variables::new();
    assert_eq!(substitute(&default, &none, SubstituteStrategy::WithVariables), Ok(None));
    let done = substitute(&default, &none, SubstituteStrategy::Always);
    assert_eq!(done, Ok(Some(config_map(json!({"k": 1})))));
}

#[test]
fn secrets_change_in_string_data_only_and_stay_sensitive() {
    let secret = |text: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"k": "JHt2fQ=="}, "stringData": {"k": text}})
    };
    let before = Manifest::new(secret("${v}"), None, false);
    let after = substitute(&before, &variables(), SubstituteStrategy::WithVariables);
    assert_eq!(after, Ok(Some(Manifest::new(secret("abcABC"), None, false))));
}

#[test]
fn errors_name_the_field_and_no_value() {
    let script = config_map(json!({"a": "${v}", "run.sh": "#!/bin/sh\necho ${1} ${HOME-x}\n"}));
    let error = substitute(&script, &variables(), SubstituteStrategy::Always).expect_err("shell");
    assert_eq!(error.to_string(), "envsubst error in data.run.sh: missing closing brace");
    let open = config_map(json!({"a": "${v:=", "b": "${v"}));
    let error = substitute(&open, &variables(), SubstituteStrategy::Always).expect_err("open");
    assert!(error.to_string().starts_with("envsubst error in data.a: "), "{error}");
    let unset = config_map(json!({"a": "${v}", "b": ["${x}"], "c": "${v}"}));
    let error = substitute(&unset, &variables(), SubstituteStrategy::Always).expect_err("unset");
    assert_eq!(
        error.to_string(),
        r#"envsubst error in data.b.0: variable not set (strict mode): "x""#
    );
    let broken = config_map(json!({"a": "b-${colon}"}));
    let error = substitute(&broken, &variables(), SubstituteStrategy::Always);
    assert_eq!(error, Err(SubstituteError::NotYaml));
}

proptest::proptest! {
    #[test]
    fn an_object_without_expressions_comes_back_as_it_was(
        before in "[ -#%-~\n\tä🦀:#'-]{0,12}",
        after in "[ -#%-~\n\tä🦀:#'-]{0,12}",
    ) {
        // A single dollar sign is no expression, but makes the object go through the text.
        let text = format!("{before}$v{after}");
        let data = json!({text.clone(): [{"k": text}]});
        proptest::prop_assert_eq!(data_after(data.clone()), Ok(data));
    }
}
