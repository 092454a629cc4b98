//! Templates: compared with Go itself, bounded, and our own message.

use super::*;
use crate::image::{ImageRef, ObjectName};
use proptest::prelude::*;
use serde::Deserialize;
use std::path::Path;

fn image(name: &str, tag: &str, digest: Option<&str>) -> ImageRef {
    ImageRef { name: name.into(), tag: tag.into(), digest: digest.map(Into::into) }
}

fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectName {
    let [api_version, kind, namespace, name] =
        [api_version, kind, namespace, name].map(str::to_owned);
    ObjectName { api_version, kind, namespace, name }
}

fn change(object: &ObjectName, [old, new, setter]: [&str; 3], image: &ImageRef) -> Change {
    let name = setter.split(':').nth(1).unwrap().to_owned();
    Change {
        object: object.clone(),
        field: "spec.image".into(),
        line: 7,
        old: old.into(),
        new: new.into(),
        setter: setter.into(),
        policy: NamespacedName { namespace: "flux-system".into(), name },
        image: image.clone(),
    }
}

/// The data that the golden cases were made with.
fn changes() -> Vec<(String, Change)> {
    let blaster = image("registry.local:5000/games/blaster", "dev-20261122.7", None);
    let redis = image("redis", "7.4.1", Some("sha256:0123"));
    let whole = [
        "registry.local:5000/games/blaster:dev-20261122.6",
        "registry.local:5000/games/blaster:dev-20261122.7",
        "flux-system:blaster-dev",
    ];
    let deployment = object("apps/v1", "Deployment", "games", "blaster");
    let job = object("batch/v1", "CronJob", "games", "clean");
    let kustomization = object("kustomize.config.k8s.io/v1beta1", "Kustomization", "", "");
    let at = |file: &str, change: Change| (file.to_owned(), change);
    let other = ["redis:7.4.0", "redis:7.4.1@sha256:0123", "flux-system:redis"];
    let tag = ["dev-20261122.6", "dev-20261122.7", "flux-system:blaster-dev:tag"];
    vec![
        at("apps/blaster.yaml", change(&deployment, whole, &blaster)),
        at("apps/blaster.yaml", change(&job, whole, &blaster)),
        at("apps/blaster.yaml", change(&job, other, &redis)),
        at("kustomization.yaml", change(&kustomization, tag, &blaster)),
    ]
}

fn run(template: Option<&str>, changes: &[(String, Change)]) -> Result<String, TemplateError> {
    let automation = NamespacedName { namespace: "flux-system".into(), name: "games".into() };
    let values = [("cluster", "box-1"), ("empty", ""), ("team", "Games & Co"), ("zone", "é1")];
    let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    message(template, &MessageData { automation: &automation, values: &values, changes })
}

#[derive(Deserialize)]
struct Expected {
    error: String,
    output: String,
}

#[test]
fn a_template_gives_what_it_gives_in_go() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gotemplate");
    let (mut count, mut wrong) = (0, Vec::new());
    for case in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(inputs) = std::fs::read_to_string(case.join("input.json")) else { continue };
        let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
        let inputs: Vec<String> = serde_json::from_str(&inputs).unwrap();
        let expected: Vec<Expected> = serde_json::from_str(&expected).unwrap();
        assert_eq!(inputs.len(), expected.len());
        for (template, expected) in inputs.iter().zip(expected) {
            if template.is_empty() {
                continue;
            }
            count += 1;
            let found = run(Some(template), &changes());
            let same = match &found {
                Ok(text) => expected.error.is_empty() && *text == expected.output,
                Err(_) => !expected.error.is_empty(),
            };
            if !same {
                let Expected { error, output } = expected;
                wrong.push(format!("{template}\n  here {found:?}\n  Go   {output:?} {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "{count} templates");
}

#[test]
fn without_a_template_the_message_lists_the_changes_and_skips_ci() {
    let all = changes();
    let expected = "Update blaster to dev-20261122.7 [skip ci]\n\n\
        kustomization.yaml:7: dev-20261122.6 → dev-20261122.7 by ImagePolicy \
        flux-system/blaster-dev\n\nBy ImageUpdateAutomation flux-system/games.\n";
    assert_eq!(run(None, &all[3..]).unwrap(), expected);
    assert_eq!(run(Some(""), &all[3..]).unwrap(), expected);
    assert!(
        run(None, &all).unwrap().starts_with("Update 2 images [skip ci]\n\napps/blaster.yaml:7: ")
    );
    let many: Vec<_> = all.iter().cycle().take(200).cloned().collect();
    let text = run(None, &many).unwrap();
    assert!(text.lines().count() < 60 && text.contains("\nand 150 more\n"));
}

#[test]
fn a_template_is_left_as_it_is_written() {
    assert_eq!(run(Some("deploy\n"), &changes()).unwrap(), "deploy\n");
}

#[test]
fn an_error_names_its_line_and_what_is_not_supported() {
    for (template, line, told) in [
        ("a\n{{ now }}", 2, "the function \"now\" is not supported"),
        (
            "a\n\n{{ range .Changed.Changes }}\n{{ .Old }}{{ end }}",
            4,
            "can't evaluate field Old in a Change",
        ),
        ("{{ .Nope }}", 1, "can't evaluate field Nope in a TemplateData"),
        ("{{ upper 5 }}", 1, "upper: wrong type for value; expected string; got int"),
        ("{{ if true }}\n", 1, "this if is not closed by {{end}}"),
        ("x\n{{ printf \"%b\" 3 }}", 2, "printf: %b is not supported"),
        ("x\n{{/* a\nb */}}{{ $x }}", 3, "undefined variable $x"),
    ] {
        let error = run(Some(template), &changes()).unwrap_err();
        assert_eq!((error.line, error.told.as_str()), (line, told), "{template}");
        assert_eq!(error.unsupported, told.ends_with("is not supported"), "{template}");
    }
    let error = check_template("a\n{{ now }}").unwrap_err().to_string();
    let expected = "spec.git.commit.messageTemplate line 2: the function \"now\" is not supported";
    assert_eq!(error, expected);
    assert_eq!(check_template("{{ .Nope }}"), Ok(()));
}

#[test]
fn a_template_cannot_run_on_or_grow_without_limit() {
    let nested = format!("{}1{}", "{{ if true }}".repeat(2000), "{{ end }}".repeat(2000));
    let chained = format!("{{{{ if false }}}}{}{{{{ end }}}}", "{{ else if false }}".repeat(2000));
    let parens = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let doubled = "{{ $l := list 1 2 3 4 5 6 7 8 }}".to_owned()
        + &"{{ $l = list $l $l $l $l $l $l $l $l }}".repeat(30);
    let thousands = "{{ $l := until 60000 }}";
    let large = "{{ $x := repeat 60000 \"x\" }}";
    for template in [
        "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}",
        "{{ range 1000000000 }}{{ end }}",
        "{{ range until 1000 }}0123456789012345678901234567890123456789012345678901234567890123456789{{ end }}",
        "{{ repeat 1000000000 \"x\" }}",
        "{{ $x := \"x\" }}{{ range until 100 }}{{ $x = print $x $x }}{{ end }}",
        "{{ $x := \"x\" }}{{ range until 100 }}{{ $x = replace \"x\" \"xx\" $x }}{{ end }}",
        "{{ indent 70000 \"x\" }}",
        "{{ printf \"%99999d\" 1 | repeat 9 }}",
        "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}",
        "{{ define \"a\" }}{{ template \"a\" . }}{{ template \"a\" . }}{{ end }}{{ template \"a\" }}",
        &nested,
        &chained,
        &parens,
        &format!("{doubled}{{{{ $l }}}}"),
        &format!("{doubled}{{{{ quote $l }}}}"),
        &format!("{doubled}{{{{ has $l (list $l) }}}}"),
        &format!("{doubled}{{{{ join \"\" $l }}}}"),
        &format!("{doubled}{{{{ printf \"%d\" $l }}}}"),
        &format!("{doubled}{{{{ printf \"%60000d\" $l }}}}"),
        &format!("{doubled}{{{{ printf \"x\" {} }}}}", "$l ".repeat(2000)),
        &format!("{thousands}{{{{ len (concat {}) }}}}", "$l ".repeat(5000)),
        &format!("{thousands}{{{{ len (uniq $l) }}}}"),
        &format!("{thousands}{{{{ without $l {} }}}}", "0 ".repeat(5000)),
        &format!("{thousands}{{{{ range until 5000 }}}}{{{{ $x := has -1 $l }}}}{{{{ end }}}}"),
        &format!("{large}{{{{ range until 50000 }}}}{{{{ $y := sha256sum $x }}}}{{{{ end }}}}"),
        &format!(
            "{large}{{{{ range until 50000 }}}}{{{{ $y := eq $x {} }}}}{{{{ end }}}}",
            "$x ".repeat(9)
        ),
        &format!("{large}{{{{ trimAll $x $x }}}}{{{{ join $x (until 60000) }}}}"),
        &format!("{{{{ dict {} }}}}", (0..9000).map(|n| format!("{n} ")).collect::<String>()),
        "{{ $a := 1 }}{{ range until 40000 }}{{ $b := $a }}{{ end }}{{ range until 90000 }}{{ end }}",
        &format!(
            "{{{{ $a := 1 }}}}{}{{{{ range until 90000 }}}}{{{{ $a }}}}{{{{ end }}}}",
            "{{ $b := 1 }}".repeat(4000)
        ),
        &format!(
            "{{{{ range until 20000 }}}}{{{{ $x := or {} }}}}{{{{ end }}}}",
            "0 ".repeat(9000)
        ),
        &"x".repeat(LONGEST_TEMPLATE + 1),
    ] {
        let started = std::time::Instant::now();
        let short: String = template.chars().take(80).collect();
        let error = run(Some(template), &changes()).expect_err(&short);
        assert!(error.unsupported, "it is a limit of ours: {short}: {error}");
        assert!(started.elapsed().as_secs() < 5, "{short}: {:?}", started.elapsed());
    }
}

proptest! {
    #[test]
    fn any_text_is_a_message_or_an_error(
        pieces in prop::collection::vec(prop_oneof![
            Just("{{"), Just("}}"), Just("{{-"), Just("-}}"), Just(" "), Just("\n"), Just("."),
            Just(".Values"), Just("$x"), Just(":="), Just("="), Just("("), Just(")"), Just("|"),
            Just("if"), Just("else"), Just("end"), Just("range"), Just("with"), Just("\"a\""),
            Just("`"), Just("'"), Just("1"), Just("-1.5"), Just("list"), Just("trunc"),
            Just("printf"), Just("%5d"), Just("slice"), Just("index"), Just("substr"), Just("é"),
            Just("/*"), Just("*/"), Just("define"), Just("template"), Just("nil"), Just(","),
            Just("splitn"), Just("sub"), Just("abbrev"),
        ], 0..24),
    ) {
        let template = pieces.concat();
        let _ = run(Some(&template), &changes());
    }

    #[test]
    fn functions_never_panic(
        name in prop::sample::select(vec![
            "trunc", "substr", "abbrev", "repeat", "indent", "splitn", "slice", "index", "until",
            "sub", "div", "mod", "mul", "printf", "first", "join", "split", "dict", "ternary",
            "plural", "replace", "cat", "b64dec", "title", "dir", "clean", "base", "ext",
        ]),
        args in prop::collection::vec(prop_oneof![
            Just("-9223372036854775808".to_owned()),
            Just("9223372036854775807".to_owned()),
            (-4_i64..9).prop_map(|n| n.to_string()),
            "[a-zé/.%d ]{0,6}".prop_map(|s| format!("{s:?}")),
            Just("(list 1 \"é\")".to_owned()),
            Just("nil".to_owned()),
            Just("true".to_owned()),
            Just("1e300".to_owned()),
        ], 0..4),
    ) {
        let _ = run(Some(&format!("{{{{ {name} {} }}}}", args.join(" "))), &changes());
    }

    #[test]
    fn text_without_braces_is_its_own_message(text in "[^{}]{1,60}") {
        prop_assert_eq!(run(Some(&text), &changes()).unwrap(), text);
    }
}
