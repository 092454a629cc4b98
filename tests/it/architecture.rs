//! The rules that the source keeps, checked on the source. There is no list of exceptions.
//!
//! Each check takes a [`Tree`] and answers with its complaints. A test first shows it a tree that
//! breaks the rule, so that a check which sees nothing cannot pass for a clean tree.

mod mentions;
mod tree;

use mentions::{Mention, Mentions, Scope};
use std::collections::{BTreeMap, BTreeSet};
use tree::{Reached, Tree};

/// The pure files of each module. What lies in the folder of a pure file is pure as well.
const PURE: &[(&str, &str)] = &[
    ("config", "edge fragment problem root settings"),
    ("logging", "message"),
    ("flux", "cel classify duration image known kustomization pattern root semver source"),
    ("secrets", "age error plaintext sops store"),
    ("net", "error trust"),
    ("registry", "challenge docker error mirrors page reference"),
    ("source", "credential error ignore lineage report select target"),
    ("render", "document error finish kustomization manifest open reach redact remote substitute"),
    ("plan", "claims coming contest decide desired diff gate guard inventory order trim writer"),
    ("edge", "absent connector deed error ingress records routes rules state tunnel wire"),
    ("image", "marker message policy"),
    ("apply", "managers refusal"),
    ("observe", "cause kstatus"),
    ("history", "word"),
    (
        "pipeline",
        "departed edge/view family image/edit image/hold image/running memory orders outcome turned",
    ),
    ("graph", "depends image item orders schedule summary vigil"),
    ("api", "document"),
    (
        "cli",
        "build/claims build/depends build/images build/mask build/report build/scope build/values build/yaml check/finding init/answers init/url public table words",
    ),
];

/// Crates that act on the world or read from it.
const EFFECTS: &[&str] = &["tokio", "kube", "gix", "reqwest", "rusqlite", "getrandom"];

/// Lines that a file may have, its tests included.
const LONGEST: usize = 600;

/// Lines of prose that a folder's door has at least.
const DOOR: usize = 8;

fn lines<const N: usize>(complaints: [&str; N]) -> Vec<String> {
    complaints.into_iter().map(str::to_owned).collect()
}

/// Asserts that a check finds exactly this in the bad sample, and nothing in the source.
fn finds<const N: usize>(check: fn(&Tree) -> Vec<String>, bad: &[(&str, &str)], told: [&str; N]) {
    assert_eq!(check(&Tree::of(bad)), lines(told), "the check does not see a bad sample");
    assert_eq!(check(&Tree::here()), Vec::<String>::new(), "the source breaks a rule");
}

/// The modules in the order of their `mod` lines.
fn order(tree: &Tree) -> Vec<String> {
    tree.mentions("src/lib.rs", Scope::All).mods.into_iter().map(|line| line.name).collect()
}

/// Everything below `src/` and `tests/it/` that a `mod` line reaches.
fn reached(tree: &Tree) -> Vec<Reached> {
    let roots = ["src/lib.rs", "src/main.rs", "tests/it/main.rs"];
    roots
        .into_iter()
        .filter(|root| tree.0.contains_key(*root))
        .flat_map(|root| tree.reached(root))
        .collect()
}

fn documented_order(tree: &Tree) -> Vec<String> {
    let documented: Vec<String> = tree
        .text("src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! * [`")?.split_once("`]: "))
        .map(|(name, _)| name.to_owned())
        .collect();
    let order = order(tree);
    if documented == order {
        return Vec::new();
    }
    vec![format!("lib.rs documents {} and declares {}", documented.join(" "), order.join(" "))]
}

#[test]
fn the_order_that_lib_rs_documents_is_the_order_of_its_mod_lines() {
    let text = "//! * [`flux`]: one\n//! * [`plan`]: two\npub mod plan;\npub mod flux;\n";
    finds(
        documented_order,
        &[("src/lib.rs", text)],
        ["lib.rs documents flux plan and declares plan flux"],
    );
}

/// The module of the crate that a path leads into, seen from a file; `None` for other crates and
/// for what lies in the file itself or beside it.
fn leads_into<'a>(file: &Reached, mention: &'a Mention) -> Option<&'a str> {
    let (first, second) = (mention.segments.first()?, mention.segments.get(1)?);
    match first.as_str() {
        "crate" => Some(second),
        "super" if file.module.len() + mention.inside.len() == 1 => Some(second),
        _ => None,
    }
}

fn only_leftwards(tree: &Tree) -> Vec<String> {
    let order = order(tree);
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut complaints = BTreeSet::new();
    for file in tree.reached("src/lib.rs").into_iter().filter(|f| !f.test && !f.module.is_empty()) {
        let here = place(&file.module[0]);
        for mention in tree.mentions(&file.path, Scope::Shipped).paths {
            let Some(name) = leads_into(&file, &mention) else { continue };
            match place(name) {
                Some(there) if Some(there) <= here => {}
                Some(_) => drop(complaints.insert(format!("{} imports {name}", file.path))),
                None => drop(complaints.insert(format!("{} names no module: {name}", file.path))),
            }
        }
    }
    complaints.into_iter().collect()
}

#[test]
fn a_module_imports_only_from_its_left() {
    finds(
        only_leftwards,
        &[
            ("src/lib.rs", "pub mod flux; pub mod net; pub mod plan; pub mod cli;"),
            ("src/flux/mod.rs", "mod cel; mod kind; use super::cli::Cli;"),
            ("src/flux/cel.rs", "use crate::{flux::Key, plan::{self, Plan}}; use super::kind;"),
            (
                "src/flux/kind.rs",
                "fn f(x: &crate::net::Client) { print!(\"{}\", [crate::cli::X]) }",
            ),
            ("src/net.rs", "#[cfg(test)] mod tests { use crate::plan; use super::*; }"),
            ("src/plan.rs", "use crate::{net, Surprise};"),
            ("src/cli.rs", "use crate::plan::Plan; #[cfg(test)] mod tests;"),
        ],
        [
            "src/flux/cel.rs imports plan",
            "src/flux/kind.rs imports cli",
            "src/flux/kind.rs imports net",
            "src/flux/mod.rs imports cli",
            "src/plan.rs names no module: Surprise",
        ],
    );
}

fn one_door(tree: &Tree) -> Vec<String> {
    let below = tree.rust("src/").filter(|(path, _)| *path != "src/lib.rs");
    let open = below.flat_map(|(path, _)| {
        let exposed = tree.mentions(path, Scope::All).exposed;
        exposed.into_iter().map(move |name| format!("{path} opens mod {name}"))
    });
    let above = tree.rust("src/").chain(tree.rust("tests/it/")).filter_map(|(path, _)| {
        let climbs =
            |mention: &Mention| mention.segments.starts_with(&["super".into(), "super".into()]);
        let climbing = tree.mentions(path, Scope::All).paths.iter().any(climbs);
        climbing.then(|| format!("{path} says super::super"))
    });
    open.chain(above).collect()
}

#[test]
fn a_folder_has_one_door() {
    finds(
        one_door,
        &[
            ("src/lib.rs", "pub mod flux;"),
            ("src/flux/mod.rs", "pub(crate) mod cel; mod kind; pub mod inline {}"),
            ("src/flux/kind.rs", "#[cfg(test)] mod tests { use super::super::cel; }"),
            ("src/flux/cel.rs", "fn f() { vec![super::super::kind()] }"),
        ],
        [
            "src/flux/mod.rs opens mod cel",
            "src/flux/mod.rs opens mod inline",
            "src/flux/cel.rs says super::super",
            "src/flux/kind.rs says super::super",
        ],
    );
}

fn unreached(tree: &Tree) -> Vec<String> {
    let reached: BTreeSet<String> = reached(tree).into_iter().map(|file| file.path).collect();
    tree.rust("")
        .filter(|(path, _)| !reached.contains(*path))
        .map(|(path, _)| format!("no mod line reaches {path}"))
        .collect()
}

#[test]
fn every_file_is_reached_by_a_mod_line() {
    finds(
        unreached,
        &[
            ("src/lib.rs", "pub mod flux;"),
            ("src/main.rs", "fn main() {}"),
            ("src/flux/mod.rs", "mod cel; // mod lost;"),
            ("src/flux/cel.rs", "#[cfg(test)] mod tests;"),
            ("src/flux/cel/tests.rs", ""),
            ("src/flux/lost.rs", ""),
            ("tests/it/main.rs", "mod bed;"),
            ("tests/it/bed/mod.rs", "mod git;"),
            ("tests/it/bed/git.rs", ""),
            ("tests/it/git.rs", ""),
        ],
        ["no mod line reaches src/flux/lost.rs", "no mod line reaches tests/it/git.rs"],
    );
}

/// Whether a test file reads a golden case: it names the suite, and either names the case or
/// walks the directory.
fn reads(file: &Mentions, suite: &str, case: &str) -> bool {
    let (folder, whole) = (format!("tests/golden/{suite}"), format!("tests/golden/{suite}/{case}"));
    let within = |path: &str, text: &str| {
        text.split_once(path).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
    };
    let names = |text: &String| {
        within(&whole, text)
            || text.strip_prefix(case).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    let walks = |mention: &Mention| mention.segments.last().is_some_and(|word| word == "read_dir");
    file.literals.iter().any(|text| within(&folder, text))
        && (file.literals.iter().any(names) || file.paths.iter().any(walks))
}

fn unread_cases(tree: &Tree) -> Vec<String> {
    let cases: BTreeSet<(&str, &str)> = tree
        .0
        .keys()
        .filter_map(|path| path.strip_prefix("tests/golden/")?.split_once('/'))
        .filter_map(|(suite, rest)| Some((suite, rest.split_once('/')?.0)))
        .collect();
    // This file's samples name cases as well.
    let suites: Vec<Mentions> = tree
        .rust("")
        .filter(|(path, _)| !path.starts_with("tests/it/architecture"))
        .map(|(path, _)| tree.mentions(path, Scope::All))
        .collect();
    cases
        .into_iter()
        .filter(|(suite, case)| !suites.iter().any(|file| reads(file, suite, case)))
        .map(|(suite, case)| format!("no suite reads tests/golden/{suite}/{case}"))
        .collect()
}

#[test]
fn every_golden_case_is_read_by_a_suite() {
    finds(
        unread_cases,
        &[
            ("tests/golden/sops/README.md", ""),
            ("tests/golden/sops/secret/sealed.yaml", ""),
            ("tests/golden/sops/types/sealed.yaml", ""),
            ("tests/golden/sops/lost/sealed.yaml", ""),
            ("tests/golden/walked/any/in.yaml", ""),
            ("tests/golden/render/one/in.yaml", ""),
            ("tests/golden/render/two/in.yaml", ""),
            (
                "src/sops.rs",
                "// lost\nfn f() { g(format!(\"{}/tests/golden/sops/{name}\"), \"secret\", \"types/x\") }",
            ),
            ("src/lost.rs", "fn f() { g(\"lost\") }"),
            ("tests/it/walk.rs", "fn f() { std::fs::read_dir(\"tests/golden/walked\") }"),
            ("tests/it/render.rs", "fn f() { dir(\"tests/golden/render/one\") }"),
        ],
        ["no suite reads tests/golden/render/two", "no suite reads tests/golden/sops/lost"],
    );
}

fn too_long(tree: &Tree) -> Vec<String> {
    tree.rust("")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, count)| *count > LONGEST)
        .map(|(path, count)| format!("{path} has {count} lines"))
        .collect()
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let (fits, exceeds) = ("//\n".repeat(600), "//\n".repeat(601));
    finds(
        too_long,
        &[("src/fits.rs", &fits), ("tests/it/exceeds.rs", &exceeds)],
        ["tests/it/exceeds.rs has 601 lines"],
    );
}

fn without_prose(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.rust("") {
        let prose = text.lines().take_while(|line| line.starts_with("//!"));
        let said = prose.filter(|line| line.len() > "//! ".len()).count();
        let door = path.ends_with("/mod.rs") || path == "src/lib.rs";
        if said == 0 || (door && text.lines().take_while(|l| l.starts_with("//!")).count() < DOOR) {
            complaints.push(format!("{path} opens with too little prose"));
        }
    }
    complaints
}

#[test]
fn every_file_opens_with_prose_and_every_door_with_eight_lines() {
    let (door, short) = ("//! Said.\n".repeat(8), "//! Said.\n".repeat(7));
    finds(
        without_prose,
        &[
            ("src/flux/mod.rs", &door),
            ("src/plan/mod.rs", &short),
            ("src/plan/gate.rs", "//! Pure: said."),
            ("src/plan/diff.rs", "// Not said.\n//! Too late."),
            ("src/plan/order.rs", "//!\n"),
        ],
        [
            "src/plan/diff.rs opens with too little prose",
            "src/plan/mod.rs opens with too little prose",
            "src/plan/order.rs opens with too little prose",
        ],
    );
}

/// The stem of the pure file that a path is, or in whose folder it lies.
fn pure_stem(path: &str) -> Option<String> {
    let stem = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    PURE.iter()
        .flat_map(|(module, names)| names.split(' ').map(move |name| format!("{module}/{name}")))
        .find(|pure| stem.strip_prefix(pure).is_some_and(|r| r.is_empty() || r.starts_with('/')))
}

fn pure_by_name_only(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in reached(tree).into_iter().filter(|file| !file.test) {
        match (pure_stem(&file.path), tree.text(&file.path).starts_with("//! Pure: ")) {
            (Some(_), false) => complaints.push(format!("{} does not open with Pure:", file.path)),
            (None, true) => complaints.push(format!("{} is not in the list", file.path)),
            _ => {}
        }
    }
    complaints.sort();
    complaints
}

#[test]
fn the_list_of_pure_files_and_their_first_lines_agree() {
    finds(
        pure_by_name_only,
        &[
            ("src/lib.rs", "pub mod flux; pub mod render;"),
            ("src/flux/mod.rs", "mod cel; mod fetch; mod semver;"),
            ("src/flux/cel.rs", "//! Compiles."),
            ("src/flux/fetch.rs", "//! Pure: says it."),
            ("src/flux/semver.rs", "//! Pure: compares.\n#[cfg(test)] mod tests;"),
            ("src/flux/semver/tests.rs", "//! Tests."),
            ("src/render/mod.rs", "mod substitute; mod child;"),
            ("src/render/child.rs", "//! A process."),
            ("src/render/substitute.rs", "//! Pure: substitutes.\nmod glob;"),
            ("src/render/substitute/glob.rs", "//! Matches."),
        ],
        [
            "src/flux/cel.rs does not open with Pure:",
            "src/flux/fetch.rs is not in the list",
            "src/render/substitute/glob.rs does not open with Pure:",
        ],
    );
    let here = Tree::here();
    for (module, names) in PURE {
        for name in names.split(' ') {
            assert!(here.0.contains_key(&format!("src/{module}/{name}.rs")), "{module}/{name}");
        }
    }
}

/// What in a path acts on the world or depends on it.
fn effect(mention: &Mention) -> Option<String> {
    let words: Vec<&str> = mention.segments.iter().map(String::as_str).collect();
    let acts = match words[..] {
        ["async" | "await" | "now()"] => true,
        ["std", "fs" | "net" | "process" | "env", ..] => true,
        [_, .., "now"] => true,
        [first, ..] => EFFECTS.contains(&first),
        [] => false,
    };
    acts.then(|| words.join("::"))
}

fn impure(tree: &Tree) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    for file in reached(tree).into_iter().filter(|file| !file.test) {
        if !tree.text(&file.path).starts_with("//! Pure: ") {
            continue;
        }
        for mention in tree.mentions(&file.path, Scope::Shipped).paths {
            complaints.extend(effect(&mention).map(|what| format!("{}: {what}", file.path)));
        }
    }
    complaints.into_iter().collect()
}

#[test]
fn pure_files_have_no_effects() {
    let sample = "//! Pure: not at all.
        use std::{collections::BTreeMap, env, fs as files};
        use kube::Client;
        fn f(now: u64) -> u64 { now }
        async fn g() { tokio::select!(_ = x => std::net::lookup()) }
        fn h() { let clock = std::time::Instant::now; print!(\"{}\", SystemTime::now()); zone.now() }
        fn i(x: rusqlite::Row) { x.map(async |y| y.await) }
        // gix::open()
        #[cfg(test)] mod tests { use std::fs; }
        impl X { #[cfg(test)] fn test() { reqwest::get() } }";
    finds(
        impure,
        &[("src/lib.rs", "pub mod net;"), ("src/net.rs", sample)],
        [
            "src/net.rs: SystemTime::now",
            "src/net.rs: async",
            "src/net.rs: await",
            "src/net.rs: kube::Client",
            "src/net.rs: now()",
            "src/net.rs: rusqlite::Row",
            "src/net.rs: std::env",
            "src/net.rs: std::fs",
            "src/net.rs: std::net::lookup",
            "src/net.rs: std::time::Instant::now",
            "src/net.rs: tokio::select",
        ],
    );
}

/// The comment of a TOML line, outside its strings.
fn comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return line[at + 1..].trim(),
            _ => {}
        }
    }
    ""
}

fn without_reason(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut among_dependencies = false;
    for line in tree.text("Cargo.toml").lines().filter(|line| !line.trim().is_empty()) {
        if let Some(section) = line.strip_prefix('[') {
            among_dependencies = section.contains("dependencies");
            if section.contains("dependencies.") {
                complaints.push(format!("{line} is not one line with its reason"));
            }
        } else if among_dependencies && !line.starts_with('#') && comment(line).is_empty() {
            let name = line.split_whitespace().next().unwrap_or(line);
            complaints.push(format!("{name} has no reason"));
        }
    }
    complaints
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = "[package]\nname = \"x\"\n\n[dependencies]\n# All of them.\nage = \"1\" # opens\n\
        cel = \"1\"\ngix = { features = [\"#\"] }\nnix = \"1\" #\n\n[dev-dependencies]\nsyn = \"2\"\n\
        [target.x.dependencies.libc]\nversion = \"1\" # constants\n\n[lints.rust]\nall = \"deny\"\n";
    finds(
        without_reason,
        &[("Cargo.toml", text)],
        [
            "cel has no reason",
            "gix has no reason",
            "nix has no reason",
            "syn has no reason",
            "[target.x.dependencies.libc] is not one line with its reason",
        ],
    );
}

#[test]
fn a_pure_file_is_listed_once_and_each_module_once() {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, names) in PURE {
        let names: Vec<&str> = names.split(' ').collect();
        let sorted: BTreeSet<&str> = names.iter().copied().collect();
        assert!(names.iter().eq(sorted.iter()), "{module} is not in the order of the alphabet");
        assert!(seen.insert(module, sorted).is_none(), "{module} twice");
    }
    let order = order(&Tree::here());
    let places: Vec<_> =
        PURE.iter().map(|(module, _)| order.iter().position(|m| m == module)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
}
