//! Pure: what one configuration file may say, as a tree in which every value knows its line.
//!
//! The tree is built from parser events rather than by serde, because serde stops at the first
//! problem and forgets lines once files are merged. Anchors, aliases, tags and merge keys are
//! refused: `config.d` is the way to share settings, and a plain file can be edited by tools.

use super::problem::{Place, Problem};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use std::sync::Arc;

/// Deeper nesting than any key has; keeps a hostile file from growing the stack of later walks.
const MAX_DEPTH: usize = 16;

/// One value and where its key stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A value as written; typing it is up to `settings`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `null`, `~`, or nothing after the colon: not said.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What is allowed below a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    One,
    /// A list of single values.
    Many,
    Map(&'static [(&'static str, Shape)]),
    /// A map, or a single value that stands for the first of its keys.
    Short(&'static [(&'static str, Shape)]),
}

use Shape::{Many, Map, One, Short};

/// Every key of the file. The order is the order in which `init` and the example write them.
pub(super) const FILE: Shape = Map(&[
    (
        "root",
        Map(&[
            ("url", One),
            (
                "ref",
                Map(&[
                    ("branch", One),
                    ("tag", One),
                    ("semver", One),
                    ("name", One),
                    ("commit", One),
                ]),
            ),
            ("path", One),
            ("interval", One),
            (
                "credentials",
                Map(&[
                    ("username", One),
                    ("passwordFile", One),
                    ("bearerTokenFile", One),
                    ("identityFile", One),
                    ("knownHostsFile", One),
                    ("caFile", One),
                ]),
            ),
        ]),
    ),
    ("kubeconfig", One),
    ("registries", One),
    ("cluster", Map(&[("shared", One), ("verify", One)])),
    ("decryption", Map(&[("ageKeyFile", One), ("mac", One), ("recovery", One)])),
    ("stateDirectory", One),
    ("runtimeDirectory", One),
    (
        "render",
        Map(&[("engine", One), ("k3sDataDirectory", One), ("timeout", One), ("memory", One)]),
    ),
    (
        "limits",
        Map(&[("workers", One), ("apiRequests", One), ("historyDays", One), ("historyRuns", One)]),
    ),
    (
        "edge",
        Map(&[
            (
                "cloudflare",
                Map(&[("tokenFile", One), ("account", One), ("zones", Many), ("url", One)]),
            ),
            ("tunnel", Short(&[("name", One), ("adopt", One)])),
            ("hosts", Many),
            ("discover", Map(&[("label", One), ("pattern", One)])),
            (
                "ingress",
                Short(&[
                    ("controller", One),
                    ("class", One),
                    ("service", One),
                    ("scheme", One),
                    ("verify", One),
                ]),
            ),
            ("connector", Short(&[("by", One), ("replicas", One), ("image", One)])),
            ("routes", One),
            ("dns", One),
            ("interval", One),
        ]),
    ),
]);

/// Reads one file. What could be read is returned with everything that is wrong with it.
pub(super) fn parse(file: &str, text: &str) -> (Option<Node>, Vec<Problem>) {
    let file: Arc<str> = file.into();
    let place = |line| Place { file: file.clone(), line };
    let mut builder = Builder { open: Vec::new(), done: None, problems: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => {
                let mut what = error.info();
                what.insert_str(0, "not YAML: ");
                let line = error.marker().line();
                let fix = "correct the line or the one above it";
                builder.problems.push(Problem::Syntax { place: place(line), what, fix });
                return (None, builder.problems);
            }
        };
        let place = place(span.start.line());
        if let Err(problem) = builder.take(event, place) {
            builder.problems.push(problem);
            return (None, builder.problems);
        }
    }
    let mut problems = builder.problems;
    let node = builder.done.unwrap_or(Node { place: place(1), value: Value::Null });
    check(&node, FILE, "", &mut problems);
    (Some(node), problems)
}

/// Lays one file over another: maps key by key, anything else replaced.
pub(super) fn merge(base: Node, over: Node) -> Node {
    merge_at(base, over, "")
}

fn merge_at(base: Node, over: Node, path: &str) -> Node {
    match (base.value, over.value) {
        // An empty file says nothing; a key that is null takes back what was said.
        (value, Value::Null) if path.is_empty() => Node { place: base.place, value },
        // One choice of five: half of an old choice beside the new one would be refused.
        (Value::Map(mut keys), Value::Map(added)) if path != "root.ref" => {
            for (key, node) in added {
                let below = dotted(path, &key);
                match keys.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, known)) => *known = merge_at(known.clone(), node, &below),
                    None => keys.push((key, node)),
                }
            }
            Node { place: over.place, value: Value::Map(keys) }
        }
        (_, value) => Node { place: over.place, value },
    }
}

/// `root` and `ref` make `root.ref`.
pub(super) fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Builds the tree from events; the stack holds what is open.
struct Builder {
    open: Vec<Open>,
    done: Option<Node>,
    problems: Vec<Problem>,
}

enum Open {
    List(Place, Vec<Node>),
    Map { place: Place, keys: Vec<(String, Node)>, key: Option<(String, Place)> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        let refuse = |place: Place, what: &str, fix| {
            Err(Problem::Syntax { place, what: what.to_owned(), fix })
        };
        match event {
            Event::Alias(_) => refuse(place, "an alias", "write the value out"),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                refuse(place, "a YAML tag", "remove the word that begins with !")
            }
            Event::Scalar(text, style, _, _) => {
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
                    if &*text == "<<" {
                        return refuse(place, "a merge key", "write the keys out");
                    }
                    *key = Some((text.into_owned(), place));
                    return Ok(());
                }
                let value = if null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.put(Node { place, value })
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if self.open.len() == MAX_DEPTH {
                    return refuse(place, "nested too deeply", "remove the inner levels");
                }
                if let Some(Open::Map { key: None, .. }) = self.open.last() {
                    return refuse(place, "a key that is no word", "write a word before the colon");
                }
                self.open.push(match event {
                    Event::SequenceStart(..) => Open::List(place, Vec::new()),
                    _ => Open::Map { place, keys: Vec::new(), key: None },
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, items)) => {
                    self.put(Node { place, value: Value::List(items) })
                }
                Some(Open::Map { place, keys, .. }) => {
                    self.put(Node { place, value: Value::Map(keys) })
                }
                None => Ok(()),
            },
            Event::DocumentStart(..) if self.done.is_some() => {
                refuse(place, "a second document", "remove the line --- and merge the two")
            }
            _ => Ok(()),
        }
    }

    /// Puts a finished value where it belongs; a map entry takes the place of its key.
    fn put(&mut self, node: Node) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.done = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { keys, key, .. }) => {
                let Some((name, place)) = key.take() else { return Ok(()) };
                match keys.iter().find(|(known, _)| *known == name) {
                    Some((_, known)) => {
                        let first = known.place.line;
                        self.problems.push(Problem::Twice { place, key: name, first });
                    }
                    None => keys.push((name, Node { place, value: node.value })),
                }
            }
        }
        Ok(())
    }
}

/// Names every key that the shape does not have and every value of the wrong kind.
fn check(node: &Node, shape: Shape, path: &str, problems: &mut Vec<Problem>) {
    let wrong = |what: &str, fix: String| Problem::Invalid {
        place: node.place.clone(),
        key: if path.is_empty() { "(file)".to_owned() } else { path.to_owned() },
        what: what.to_owned(),
        fix,
    };
    match (&node.value, shape) {
        (Value::Null, _) | (Value::Scalar(_), One | Short(_)) => {}
        (Value::List(_), One) => problems.push(wrong("a list", "write one value".to_owned())),
        (Value::Map(_), One) => problems.push(wrong("a map", "write one value".to_owned())),
        (Value::Scalar(said), Many) => {
            problems.push(wrong("not a list", format!("write [{said}]")));
        }
        (Value::Map(_), Many) => {
            problems.push(wrong("not a list", "write the values as [a, b]".to_owned()));
        }
        (Value::List(items), Many) => {
            for item in items {
                check(item, One, path, problems);
            }
        }
        (Value::Scalar(_) | Value::List(_), Map(keys)) | (Value::List(_), Short(keys)) => {
            problems.push(wrong("not a map", format!("write keys below it: {}", names(keys))));
        }
        (Value::Map(entries), Map(keys) | Short(keys)) => {
            for (key, below) in entries {
                let path = dotted(path, key);
                match keys.iter().find(|(known, _)| known == key) {
                    Some((_, shape)) => check(below, *shape, &path, problems),
                    None => problems.push(Problem::UnknownKey {
                        place: below.place.clone(),
                        fix: remedy(key, keys, &path),
                        key: path,
                    }),
                }
            }
        }
    }
}

fn names(keys: &[(&str, Shape)]) -> String {
    keys.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

/// The nearest key here, the same key elsewhere, or all keys there are here.
fn remedy(said: &str, keys: &[(&'static str, Shape)], path: &str) -> String {
    let plain = |key: &str| key.to_lowercase().replace(['_', '-'], "");
    let near = |key: &str| {
        let (said, key) = (plain(said), plain(key));
        if said == key {
            0
        } else if said.len() >= 3 && key.starts_with(&said) {
            1
        } else {
            distance(&said, &key)
        }
    };
    // A third of the letters may differ: `brnach` is branch, `tag` is not `path`.
    let allowed = |key: &str| (key.len() / 3).max(1);
    let best = keys.iter().map(|(key, _)| (near(key), *key)).min();
    match best {
        Some((far, key)) if far <= allowed(key) => format!("did you mean {key}?"),
        _ => match elsewhere(said, path) {
            Some(path) => format!("it belongs at {path}; mind the indentation"),
            None => format!("known here: {}", names(keys)),
        },
    }
}

/// The dotted path of a key of this very name anywhere in the file, best in the same section.
fn elsewhere(said: &str, path: &str) -> Option<String> {
    fn find(said: &str, shape: Shape, above: &str, found: &mut Vec<String>) {
        let (Map(keys) | Short(keys)) = shape else { return };
        for (key, below) in keys {
            let path = dotted(above, key);
            if *key == said {
                found.push(path.clone());
            }
            find(said, *below, &path, found);
        }
    }
    let mut found = Vec::new();
    find(said, FILE, "", &mut found);
    let section = path.split('.').next();
    let near = found.iter().position(|place| place.split('.').next() == section);
    (!found.is_empty()).then(|| found.swap_remove(near.unwrap_or_default()))
}

/// Levenshtein's distance of two names, with the swap of two neighbours counted once.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (row[j - 1] + 1).min(rows[i - 1][j] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        parse("c.yaml", text).1.iter().map(ToString::to_string).collect()
    }

    /// Every dotted key that takes a value.
    fn keys(shape: Shape, above: &str) -> Vec<String> {
        match shape {
            One | Many => vec![above.to_owned()],
            Map(below) | Short(below) => {
                below.iter().flat_map(|(key, shape)| keys(*shape, &dotted(above, key))).collect()
            }
        }
    }

    #[test]
    fn the_manual_names_every_key_and_no_other() {
        let manual = include_str!("../../packaging/usr/share/man/man5/gitopsd.config.5");
        let bold =
            manual.lines().filter(|line| line.starts_with(".B ") || line.starts_with(".BR "));
        let words = bold.flat_map(|line| line.split([' ', '"', ','])).map(|w| w.replace('\\', ""));
        let sections = ["root.", "cluster.", "decryption.", "render.", "limits.", "edge."];
        let mut named: Vec<String> = words
            .filter(|word| sections.iter().any(|section| word.starts_with(section)))
            .chain(
                ["kubeconfig", "registries", "stateDirectory", "runtimeDirectory"]
                    .map(str::to_owned),
            )
            .filter(|word| word != "root.ref" && manual.contains(word.as_str()))
            .collect();
        named.sort();
        named.dedup();
        let mut known = keys(FILE, "");
        known.sort();
        assert_eq!(named, known);
    }

    /// The dotted keys that a file gives a value to.
    fn said(node: &Node, above: &str) -> Vec<String> {
        let Value::Map(entries) = &node.value else { return vec![above.to_owned()] };
        entries.iter().flat_map(|(key, below)| said(below, &dotted(above, key))).collect()
    }

    #[test]
    fn the_conffile_has_an_example_line_of_every_key() {
        let conffile = include_str!("../../packaging/etc/gitopsd/config.yaml");
        // A key stands right behind the #, or an even number of blanks behind it; prose one blank.
        // Other choices have a second # where their key would begin.
        let settings = conffile.lines().filter_map(|line| line.strip_prefix('#'));
        let settings = settings.filter(|line| !line.starts_with(' ') || line.starts_with("  "));
        let chosen = settings.map(|line| match line.trim_start().strip_prefix('#') {
            Some(key) => format!("{}{key}\n", &line[..line.len() - line.trim_start().len()]),
            None => format!("{line}\n"),
        });
        let (node, problems) = parse("config.yaml", &chosen.collect::<String>());
        assert_eq!(problems, []);
        let mut shown = said(&node.expect("it is YAML"), "");
        shown.sort();
        let mut known = keys(FILE, "");
        known.sort();
        assert_eq!(shown, known);
    }

    #[test]
    fn every_unknown_key_is_named_with_its_line_and_a_guess() {
        let text = "root:\n  ulr: x\n  branch: main\n  credentials:\n    password: hunter2\nworkerz: 3\n\
                    limits: {api_requests: 2}\n";
        assert_eq!(
            lines(text),
            [
                "c.yaml:2: root.ulr: unknown key, did you mean url?",
                "c.yaml:3: root.branch: unknown key, it belongs at root.ref.branch; mind the indentation",
                "c.yaml:5: root.credentials.password: unknown key, did you mean passwordFile?",
                "c.yaml:6: workerz: unknown key, known here: root, kubeconfig, registries, \
                 cluster, decryption, stateDirectory, runtimeDirectory, render, limits, edge",
                "c.yaml:7: limits.api_requests: unknown key, did you mean apiRequests?",
            ]
        );
    }

    #[test]
    fn yaml_beyond_plain_maps_is_refused_with_its_line() {
        for (text, line) in [
            ("root: &a {}\nrender: *a\n", "c.yaml:2: an alias, write the value out"),
            ("root: !x {}\n", "c.yaml:1: a YAML tag, remove the word that begins with !"),
            ("root:\n  <<: {}\n", "c.yaml:2: a merge key, write the keys out"),
            (
                "a: 1\n---\nb: 2\n",
                "c.yaml:2: a second document, remove the line --- and merge the two",
            ),
            ("[a, b]: 1\n", "c.yaml:1: a key that is no word, write a word before the colon"),
            (
                "root: [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]\n",
                "c.yaml:1: nested too deeply, remove the inner levels",
            ),
        ] {
            assert_eq!(lines(text), [line], "{text}");
        }
        let broken = lines("root:\n  url: \"x\n");
        assert!(
            broken[0].starts_with("c.yaml:") && broken[0].contains(": not YAML: "),
            "{broken:?}"
        );
    }

    #[test]
    fn wrong_kinds_and_repeated_keys_are_named_together() {
        assert_eq!(
            lines("kubeconfig: [a]\nkubeconfig: b\ndecryption: yes\n"),
            [
                "c.yaml:2: kubeconfig: already said on line 1, remove one of the two",
                "c.yaml:1: kubeconfig: a list, write one value",
                "c.yaml:3: decryption: not a map, write keys below it: ageKeyFile, mac, recovery",
            ]
        );
    }

    #[test]
    fn later_files_win_key_by_key_and_a_ref_is_replaced_whole() {
        let read = |file, text| parse(file, text).0.expect("the sample is valid YAML");
        let base = read("a", "root:\n  url: u\n  ref: {branch: main}\nlimits: {workers: 1}\n");
        let over = read("b", "root:\n  ref: {tag: v1}\nlimits:\n  workers:\n");
        let both = merge(merge(base, read("empty", "# nothing\n")), over);
        let Value::Map(keys) = both.value else { panic!("a map stays a map") };
        let flat = format!("{keys:?}");
        assert!(flat.contains("\"url\"") && flat.contains("\"tag\""), "{flat}");
        assert!(!flat.contains("branch"), "{flat}");
        let workers = &keys[1].1;
        let Value::Map(limits) = &workers.value else { panic!("limits is a map") };
        assert_eq!(
            limits[0].1,
            Node { place: Place { file: "b".into(), line: 4 }, value: Value::Null }
        );
    }
}
