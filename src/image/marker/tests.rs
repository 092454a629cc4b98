//! Edits: compared with kyaml's reading of comments, byte by byte, and over every example.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::path::{Path, PathBuf};

fn image(tag: &str) -> ImageRef {
    ImageRef { name: "r.local/app".into(), tag: tag.into(), digest: None }
}

/// Sets every marker of any policy.
fn set_all(text: &str, to: &ImageRef) -> Edit {
    edit(text.as_bytes(), &|_| Target::Set(to.clone()))
}

fn yaml_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
}

fn files_below(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
    found.sort();
    let read = |path: PathBuf| Some((path.clone(), std::fs::read_to_string(path).ok()?));
    found.into_iter().filter_map(read).collect()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Expected {
    path: String,
    value: String,
    setter: String,
}

#[test]
fn the_same_scalars_are_marked_as_by_kyaml() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imagemarker");
    let numbers = regex::Regex::new(r"\[\d+\]").unwrap();
    let mut cases = 0;
    for case in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(case.join("input.yaml")) else { continue };
        let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
        let mut expected: Vec<Expected> = serde_json::from_str(&expected).unwrap();
        let scanned = Scanned::read(&text).unwrap();
        let marks = attach::attach(&text, &scanned).marks.into_iter().map(|mark| {
            let value = &scanned.values[mark.value];
            let path = format!(".{}", numbers.replace_all(&value.path, "[]"));
            Expected { path, value: value.text.clone(), setter: mark.setter }
        });
        let mut found: Vec<_> = marks.collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}", case.display());
        cases += 1;
    }
    assert!(cases >= 10, "{cases} cases");
}

#[test]
fn markers_that_name_a_policy_are_listed_with_their_lines() {
    let text = "a: r:1 # {\"$imagepolicy\": \"n:app\"}\nb:\n- v1 # {\"$imagepolicy\": \"n:db:tag\"}\n\
                c: 1 # {\"$imagepolicy\": \"nothing\"}\nd: 1 # a comment\n";
    let named = |text: &[u8]| {
        let found = markers(text).into_iter().map(|found| (found.line, found.policy.to_string()));
        found.collect::<Vec<_>>()
    };
    assert_eq!(named(text.as_bytes()), [(1, "n/app".to_owned()), (3, "n/db".to_owned())]);
    assert_eq!((named(b"a: [ # no YAML"), named(b"\xff")), (Vec::new(), Vec::new()));
}

/// One tag for every scalar that kyaml marks, one at a time and all at once.
#[test]
fn an_edit_of_what_kyaml_marks_changes_the_bytes_of_that_scalar_alone() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imagemarker");
    let new = "dev-20261122.7";
    let mut edits = 0;
    for case in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(case.join("input.yaml")) else { continue };
        let scanned = Scanned::read(&text).unwrap();
        let marks: Vec<usize> =
            attach::attach(&text, &scanned).marks.into_iter().map(|mark| mark.value).collect();
        let replaced = |marks: &[usize]| {
            let one = |index: &usize| {
                let done = scalar::replace(&text, &scanned.values[*index], new);
                (*index, done.unwrap())
            };
            rewrite(&text, &scanned, &marks.iter().map(one).collect::<Vec<_>>())
        };
        for index in &marks {
            let value = &scanned.values[*index];
            let name = format!("{} line {}", case.display(), value.line);
            let after = replaced(&[*index]).unwrap_or_else(|| panic!("{name} reads otherwise"));
            let rest = after.strip_prefix(&text[..value.range.start]);
            let scalar = rest.and_then(|rest| rest.strip_suffix(&text[value.range.end..]));
            let scalar = scalar.unwrap_or_else(|| panic!("{name}: other bytes changed"));
            // A block keeps the line breaks behind its text.
            assert_eq!(scalar.trim_end().trim_matches(['"', '\'']), new, "{name}");
            edits += 1;
        }
        let all = replaced(&marks).unwrap_or_else(|| panic!("{}", case.display()));
        let after = Scanned::read(&all).unwrap();
        let values = marks.iter().map(|index| after.values[*index].text.trim_end());
        assert!(values.clone().all(|value| value == new), "{}", case.display());
    }
    assert!(edits >= 90, "{edits} edits");
}

#[test]
fn the_same_values_get_quotes_as_from_kyaml() {
    let values = include_str!("../../../tests/golden/imagemarker/nonstring/input.json");
    let quoted = include_str!("../../../tests/golden/imagemarker/nonstring/expected.json");
    let values: Vec<String> = serde_json::from_str(values).unwrap();
    let quoted: Vec<bool> = serde_json::from_str(quoted).unwrap();
    assert!(values.len() == quoted.len() && values.len() > 100);
    for (value, quoted) in values.iter().zip(quoted) {
        assert_eq!(scalar::non_string(value), quoted, "{value:?}");
    }
}

#[test]
fn only_the_scalar_changes_and_the_change_is_told() {
    let text = "# a page\r\napiVersion: apps/v1\r\nkind: Deployment\r\nmetadata:\r\n  name: blaster\r\n  namespace: games\r\nspec:\r\n  template:\r\n    spec:\r\n      containers:\r\n      - {name: x, image: 'r.local/app:1' } # kept\r\n      -   name:   app\r\n          image:   &img   \"r.local/app:1\"   # {\"$imagepolicy\": \"games:blaster\"}\r\n          env: [*img]";
    let edited = set_all(text, &image("dev-20261122.7"));
    let expected = text.replace("\"r.local/app:1\"", "\"r.local/app:dev-20261122.7\"");
    assert_eq!(edited.text, Some(expected));
    let change = Change {
        object: ObjectName {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            namespace: "games".into(),
            name: "blaster".into(),
        },
        field: "spec.template.spec.containers[1].image".into(),
        line: 13,
        old: "r.local/app:1".into(),
        new: "r.local/app:dev-20261122.7".into(),
        setter: "games:blaster".into(),
        policy: NamespacedName { namespace: "games".into(), name: "blaster".into() },
        image: image("dev-20261122.7"),
    };
    assert_eq!((edited.changes, edited.findings), (vec![change], vec![]));
}

#[test]
fn each_part_of_an_image_has_its_setter() {
    let digest = "sha256:0123456789abcdef";
    let full = ImageRef { digest: Some(digest.into()), ..image("1.10") };
    for (before, after) in [
        ("a: x # {\"$imagepolicy\": \"n:p\"}", "a: r.local/app:1.10@sha256:0123456789abcdef #"),
        ("a: x # {\"$imagepolicy\": \"n:p:name\"}", "a: r.local/app #"),
        ("a: x # {\"$imagepolicy\": \"n:p:tag\"}", "a: \"1.10\" #"),
        ("a: 'x' # {\"$imagepolicy\": \"n:p:tag\"}", "a: '1.10' #"),
        ("a: x # {\"$imagepolicy\": \"n:p:digest\"}", "a: sha256:0123456789abcdef #"),
        ("a: |\n  x\n# after\nb: y # {\"$imagepolicy\": \"n:p:tag\"}", "b: \"1.10\" #"),
        ("a: |- # {\"$imagepolicy\": \"n:p:tag\"}\n   x\n   y\n\nb: z", "\n   1.10\n\nb: z"),
        ("a: > # {\"$imagepolicy\": \"n:p:tag\"}\n   x\n\nb: z", "\n   1.10\n\nb: z"),
        ("a: x\n  y # {\"$imagepolicy\": \"n:p:tag\"}", "a: \"1.10\" #"),
        ("a: [x, y] # no\nb: [\n  x, # {\"$imagepolicy\": \"n:p:tag\"}\n  y]", "  \"1.10\", #"),
        ("a: ~ # {\"$imagepolicy\": \"n:p:tag\"}", "a: \"1.10\" #"),
    ] {
        let edited = set_all(before, &full);
        let text = edited.text.unwrap_or_default();
        assert!(text.contains(after), "{before:?}: {text:?} {:?}", edited.findings);
        assert_eq!(edited.changes.len(), 1);
        let again = set_all(&text, &full);
        assert_eq!(again, Edit::default(), "{text:?}");
    }
    let without = set_all("a: x # {\"$imagepolicy\": \"n:p:digest\"}", &image("1"));
    assert_eq!(without.text.unwrap(), "a: \"\" # {\"$imagepolicy\": \"n:p:digest\"}");
}

#[test]
fn what_cannot_be_done_is_told_with_its_line_and_leaves_the_file_alone() {
    let good = "good: x # {\"$imagepolicy\": \"n:p\"}\n";
    for (bad, line, told) in [
        ("a: x # {\"$imagepolicy\": \"n:other\"}", 2, "names ImagePolicy n/other, which does not"),
        ("a: x # {\"$imagepolicy\": \"n:p:what\"}", 2, "\"n:p:what\" is not NAMESPACE:NAME"),
        ("a: x # {\"$imagepolicy\": \"p\"}", 2, "\"p\" is not NAMESPACE:NAME"),
        ("a: &x y\nb: *x # {\"$imagepolicy\": \"n:p\"}", 3, "marks an alias"),
        ("a: [x, y] # {\"$imagepolicy\": \"n:p\"}", 2, "marks no scalar"),
        ("a: # {\"$imagepolicy\": \"n:p\"}\n  b: x", 2, "marks no scalar"),
        ("a: # {\"$imagepolicy\": \"n:p\"}", 2, "marks no scalar"),
        ("# {\"$imagepolicy\": \"n:p\"}\na: x", 2, "marks no scalar"),
        ("a: | # {\"$imagepolicy\": \"n:p\"}\n\nb: x", 2, "marks no scalar"),
        ("sops:\n  mac: x", 2, "sealed by SOPS"),
        ("a: ENC[AES256_GCM,data:x,type:str]", 2, "sealed by SOPS"),
        ("a: [x", 2, "not YAML"),
        ("a: *unknown", 2, "not YAML"),
    ] {
        let text = format!("{good}{bad}\n");
        let edited = edit(text.as_bytes(), &|policy| match policy.name.as_str() {
            "p" => Target::Set(image("2")),
            _ => Target::Unknown,
        });
        assert_eq!((edited.text, edited.changes), (None, vec![]), "{bad}");
        let [finding] = edited.findings.as_slice() else { panic!("{bad}: {:?}", edited.findings) };
        assert!(finding.blocks && finding.told.contains(told), "{bad}: {finding:?}");
        // An error of syntax is found where the parser gives up.
        assert!(finding.line == line || told == "not YAML", "{bad}: {finding:?}");
    }
    assert!(edit(b"a: \xff # {\"$imagepolicy\": \"n:p\"}", &|_| Target::Leave).findings[0].blocks);
}

#[test]
fn what_is_not_ours_is_left_and_what_is_nearly_a_marker_is_told() {
    let text = "a: x # {\"$imagepolicy\": \"n:later\"}\nb: y # {\"$imagepolicy\": \"n:p\"} here\n#c: z # {\"$imagepolicy\": \"n:p\"}\nd: x # {\"$imagepolicy\": \"n:p\"}\n";
    let edited = edit(text.as_bytes(), &|policy| match policy.name.as_str() {
        "p" => Target::Set(image("2")),
        _ => Target::Leave,
    });
    assert_eq!(edited.text.unwrap(), text.replace("d: x", "d: r.local/app:2"));
    let [finding] = edited.findings.as_slice() else { panic!("{:?}", edited.findings) };
    assert_eq!((finding.line, finding.blocks), (2, false));
}

#[test]
fn a_marker_in_the_text_of_a_value_is_told_and_edited_nowhere() {
    let text = "patches:\n- patch: |\n    kind: Deployment\n    image: x:1 # {\"$imagepolicy\": \"n:p\"}\n    tag: y # {\"$imagepolicy\": \"n:p:tag\"}\n- quoted: 'image: x # {\"$imagepolicy\": \"n:p\"}'\n- hidden: \"x # {\\\"$imagepolicy\\\": \\\"n:p\\\"}\"\n- image: x:1 # {\"$imagepolicy\": \"n:p\"}\n";
    let edited = set_all(text, &image("2"));
    let expected = text.replace("- image: x:1", "- image: r.local/app:2");
    assert_eq!((edited.text.as_deref(), edited.changes.len()), (Some(expected.as_str()), 1));
    let told: Vec<_> = edited.findings.iter().map(|f| (f.line, f.blocks)).collect();
    assert_eq!(told, [(4, false), (5, false), (6, false), (7, false)]);
    let first = &edited.findings[0].told;
    assert!(first.contains("inside the value of patches[0].patch"), "{first}");
}

#[test]
fn values_of_a_helm_release_are_set_by_name_and_by_tag() {
    let text = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: app, namespace: games}\nspec:\n  values:\n    image:\n      repository: old/app # {\"$imagepolicy\": \"n:p:name\"}\n      tag: \"1\" # {\"$imagepolicy\": \"n:p:tag\"}\n    sidecars:\n    - {image: \"old/app:1\"} # no marker\n";
    let edited = set_all(text, &image("1.10"));
    let expected = text
        .replace("repository: old/app", "repository: r.local/app")
        .replace("tag: \"1\"", "tag: \"1.10\"");
    assert_eq!(edited.text, Some(expected));
    let told: Vec<_> = edited
        .changes
        .iter()
        .map(|c| (c.object.kind.as_str(), c.field.as_str(), c.old.as_str(), c.new.as_str()))
        .collect();
    let expected = [
        ("HelmRelease", "spec.values.image.repository", "old/app", "r.local/app"),
        ("HelmRelease", "spec.values.image.tag", "1", "1.10"),
    ];
    assert_eq!((told.as_slice(), edited.findings), (&expected[..], vec![]));
}

#[test]
fn a_list_gives_each_item_its_own_object() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  metadata: {name: a}\n- kind: B\n  metadata: {name: b}\n  image: x # {\"$imagepolicy\": \"n:p\"}\n---\nkind: C\nmetadata: {name: c}\nimage: x # {\"$imagepolicy\": \"n:p\"}\n";
    let named: Vec<_> = set_all(text, &image("2"))
        .changes
        .into_iter()
        .map(|c| (c.object.kind, c.object.name, c.field))
        .collect();
    let expected = [("B", "b", "items[1].image"), ("C", "c", "image")];
    assert_eq!(named, expected.map(|(k, n, f)| (k.to_owned(), n.to_owned(), f.to_owned())));
}

#[test]
fn a_file_is_concerned_by_its_name_and_by_what_it_holds() {
    let marked = b"a: x # {\"$imagepolicy\": \"n:p\"}";
    for (path, expected) in [
        ("apps/x.yaml", true),
        ("x.yml", true),
        ("apps/Kustomization", true),
        ("apps/kustomization", false),
        ("x.json", false),
        ("x.yaml.bak", false),
    ] {
        assert_eq!(concerned(path, marked), expected, "{path}");
        assert!(!concerned(path, b"a: x # {$imagepolicy: n:p}"));
    }
}

/// Marks some scalars of a file, if that leaves it the same tree.
fn marked(text: &str, every: usize) -> Option<(String, usize)> {
    // The example's own markers are out of the way.
    let text = &text.replace("$imagepolicy", "$imagepolice");
    let before = Scanned::read(text).ok()?;
    let mut out = String::new();
    let mut count = 0;
    let mut at = 0;
    for (index, value) in before.values.iter().enumerate() {
        let rest = &text[value.range.end..];
        let line = rest.find('\n').unwrap_or(rest.len());
        let alone = rest[..line].trim_end_matches('\r').trim().is_empty();
        if index % every == 0 && alone && !value.block() && value.range.end >= at {
            out.push_str(&text[at..value.range.end]);
            out.push_str(" # {\"$imagepolicy\": \"n:p:tag\"}");
            at = value.range.end;
            count += 1;
        }
    }
    out.push_str(&text[at..]);
    let after = Scanned::read(&out).ok()?;
    (after.values.len() == before.values.len() && before.sealed.is_none()).then_some((out, count))
}

/// Checks that an edit changed the marked scalars' bytes and none else.
fn check_edit(name: &str, text: &str, count: usize) {
    let to = image("dev-20261122.7");
    let edited = set_all(text, &to);
    assert!(edited.findings.is_empty(), "{name}: {:?}", edited.findings);
    assert_eq!(edited.changes.len(), count, "{name}");
    let Some(after) = edited.text else { return assert_eq!(count, 0, "{name}") };
    let scanned = Scanned::read(text).unwrap();
    let marks = attach::attach(text, &scanned).marks;
    let ranges: Vec<_> =
        marks.iter().map(|mark| scanned.values[mark.value].range.clone()).collect();
    // What lies between the marked scalars stands in the new file, in order and without a gap.
    let mut kept = Vec::new();
    let mut at = 0;
    for range in &ranges {
        kept.push(&text[at..range.start]);
        at = range.end;
    }
    kept.push(&text[at..]);
    let mut rest = after.as_str();
    for (index, piece) in kept.iter().enumerate() {
        if index > 0 {
            let length = rest.find("dev-20261122.7").unwrap() + "dev-20261122.7".len();
            let quote = rest[length..].starts_with(['"', '\'']);
            let scalar = &rest[..length + usize::from(quote)];
            assert!(scalar.trim_matches(['"', '\'']) == "dev-20261122.7", "{name}: {scalar}");
            rest = &rest[scalar.len()..];
        }
        rest = rest.strip_prefix(*piece).unwrap_or_else(|| panic!("{name}: {piece:?} is gone"));
    }
    assert_eq!(rest, "", "{name}");
    assert_eq!(set_all(&after, &to), Edit::default(), "{name}: a second edit");
}

#[test]
fn every_example_survives_an_edit_of_any_scalar() {
    let files = files_below("tests/examples");
    let mut edits = 0;
    for (path, text) in &files {
        let name = path.display().to_string();
        for every in [1, 3] {
            for text in [text.clone(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
                let Some((marked, count)) = marked(&text, every) else { continue };
                check_edit(&name, &marked, count);
                edits += count;
            }
        }
        let unmarked = text.replace("$imagepolicy", "$imagepolice");
        assert_eq!(set_all(&unmarked, &image("1")), Edit::default(), "{name}");
    }
    assert!(files.len() > 10 && edits > 1000, "{} files, {edits} edits", files.len());
}

/// YAML of every style, nested.
fn monster() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        "[a-z][a-z0-9./:-]{0,8}[a-z0-9]".prop_map(|s| s),
        "[ -~é]{0,10}"
            .prop_map(|s| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""))),
        "[ -~é]{0,10}".prop_map(|s| format!("'{}'", s.replace('\'', "''"))),
        Just("1.10".to_owned()),
        Just("~".to_owned()),
        Just("&anchor x:1".to_owned()),
        Just("!!str 5".to_owned()),
    ];
    let node = scalar.prop_map(|scalar| vec![scalar]).prop_recursive(4, 24, 4, |inner| {
        let children = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            children.clone().prop_map(|children| {
                let entry = |(n, lines): (usize, Vec<String>)| match lines.as_slice() {
                    [one] => vec![format!("k{n}:  {one}")],
                    many => std::iter::once(format!("k{n}:"))
                        .chain(many.iter().map(|line| format!("  {line}")))
                        .collect(),
                };
                let mut lines: Vec<String> =
                    children.into_iter().enumerate().flat_map(entry).collect();
                if lines.len() == 1 {
                    lines.push("# foot".to_owned());
                }
                lines
            }),
            children.prop_map(|children| {
                let entry = |lines: Vec<String>| -> Vec<String> {
                    let indent = |(n, line): (usize, String)| {
                        if n == 0 { format!("-   {line}") } else { format!("    {line}") }
                    };
                    lines.into_iter().enumerate().map(indent).collect()
                };
                let mut lines: Vec<String> = children.into_iter().flat_map(entry).collect();
                lines.insert(0, "# head".to_owned());
                lines
            }),
            Just(vec!["[x, {a: b,".to_owned(), "  c: 'd' }, [], e ]".to_owned()]),
            Just(vec!["|".to_owned(), "  text # no comment".to_owned(), "".to_owned()]),
            Just(vec![">-  # why".to_owned(), "  folded".to_owned(), "  text".to_owned()]),
        ]
    });
    let document = node.prop_map(|lines| format!("top:\n  {}\n", lines.join("\n  ")));
    (prop::collection::vec(document, 1..3), any::<bool>(), any::<bool>()).prop_map(
        |(documents, crlf, bom)| {
            let text = documents.join("--- # next\n");
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            if bom { format!("\u{feff}{text}") } else { text }
        },
    )
}

proptest! {
    #[test]
    fn a_monster_survives_an_edit_of_any_scalar(text in monster(), every in 1_usize..4) {
        if let Some((marked, count)) = marked(&text, every) {
            check_edit(&marked, &marked, count);
        }
    }

    #[test]
    fn any_text_is_edited_or_refused(text in "[ab:\\-#{}\\[\\]\"'|>&*!,\n ]{0,40}", tail: bool) {
        let text = if tail { format!("{text} # {{\"$imagepolicy\": \"n:p\"}}\n") } else { text };
        let edited = set_all(&text, &image("1"));
        let blocked = edited.findings.iter().any(|finding| finding.blocks);
        prop_assert_eq!(edited.text.is_some(), !edited.changes.is_empty());
        prop_assert!(!(blocked && edited.text.is_some()));
    }
}
