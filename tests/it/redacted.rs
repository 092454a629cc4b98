//! No opened value is told anywhere, whatever it looks like: generated ones, through a whole run.

use crate::sealed::{OPEN, OURS, recorded, seal};
use crate::world::{App, World, mk_config_map};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};
use serde_json::{Value, json};

/// Passwords with what is escaped somewhere, texts of several lines, words.
fn values(seed: u64, count: usize) -> Vec<String> {
    let config = proptest::test_runner::Config {
        rng_seed: RngSeed::Fixed(seed),
        ..proptest::test_runner::Config::default()
    };
    let mut runner = TestRunner::new(config);
    let odd = ["\"", "\\", "'", "<", ">", "&", "\n", "\t", " ", "é", "🦀", "=", "%s"];
    let part = proptest::prop_oneof![
        3 => "[!-~]{2,9}",
        2 => "[a-zA-Z0-9]{4,12}",
        2 => proptest::sample::select(odd.map(str::to_owned).to_vec()),
    ];
    let value = proptest::collection::vec(part, 2..7).prop_map(|parts| parts.concat());
    // Long enough that none is found by chance, and as a file would keep it.
    let fits = |value: &String| value.trim().chars().count() >= 10;
    let value = value.prop_filter("long enough", fits).prop_map(|value| value.trim().to_owned());
    let mut next = || value.new_tree(&mut runner).expect("it can be drawn").current();
    (0..count).map(|_| next()).collect()
}

/// The forms that must not show: as it is, in base64, and as JSON, Go and Rust quote it.
fn forms(value: &str) -> Vec<String> {
    let quoted = [json!(value).to_string(), format!("{value:?}")];
    let mut forms: Vec<String> =
        quoted.iter().map(|text| text[1..text.len() - 1].to_owned()).collect();
    forms.extend([value.to_owned(), STANDARD.encode(value), STANDARD_NO_PAD.encode(value)]);
    forms.push(json!(value).to_string().replace('<', "\\u003c").replace('>', "\\u003e"));
    forms
}

#[test]
fn no_opened_value_is_told_whatever_it_looks_like() {
    let seed = u64::from(std::process::id());
    let drawn = values(seed, 40);
    let (first, rest) = drawn.split_at(12);
    let (second, rest) = rest.split_at(12);
    let (theirs, refused) = rest.split_at(8);
    let mut world = World::new();
    let ns = world.namespace.clone();
    let secret = |values: &[String]| {
        let keys = values.iter().enumerate().map(|(n, value)| (format!("k{n}"), json!(value)));
        let body = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "odd", "namespace": ns},
            "stringData": serde_json::Map::from_iter(keys)});
        seal(&body.to_string(), OURS, "^stringData$")
    };
    // No Service has such a type, and the API server says so with the value.
    let typed = |(number, value): (usize, &String)| {
        let body = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("bad{number}"), "namespace": ns},
            "spec": {"type": value, "ports": [{"port": 80}]}});
        seal(&body.to_string(), OURS, "^type$")
    };
    let names: Vec<String> = (0..refused.len()).map(|n| format!("refused{n}")).collect();
    let files: Vec<[(&str, String); 1]> =
        refused.iter().enumerate().map(|bad| [("bad.yaml", typed(bad))]).collect();
    let kept = [("odd.yaml", secret(first)), ("a.yaml", mk_config_map(&ns, "a", "1"))];
    let mut apps = vec![App { name: "odd", spec: OPEN, files: &kept }];
    let bad = names.iter().zip(&files);
    apps.extend(bad.map(|(name, files)| App { name, spec: OPEN, files }));
    let repo = world.apps(&apps);
    world.start();
    let opened = |world: &World, key: &str| {
        let object = world.get("secret", "odd").unwrap_or_default();
        let data = object["data"][key].as_str().map(str::to_owned).unwrap_or_default();
        String::from_utf8(STANDARD.decode(data).unwrap_or_default()).unwrap_or_default()
    };
    world.eventually("the values are applied", |world| world.is_ready("odd"));
    assert_eq!(opened(&world, "k3"), first[3], "seed {seed}");
    for name in &names {
        world.eventually("what is refused is told, without the value", |world| {
            let message = world.message(name);
            message.contains("Unsupported value") && message.contains("***")
        });
    }
    // Somebody else's values, healed; then other values from Git, planned and applied.
    let data = theirs.iter().enumerate().map(|(n, v)| (format!("k{n}"), json!(STANDARD.encode(v))));
    let patch = json!({"data": serde_json::Map::from_iter(data)}).to_string();
    world.cluster().kubectl_ok(&["-n", &ns, "patch", "secret", "odd", "-p", &patch]);
    world.eventually("it is healed", |world| {
        opened(world, "k0") == first[0] && recorded(world).contains("healed")
    });
    world.ok(&["suspend", "odd"]);
    repo.write("apps/odd/odd.yaml", &secret(second));
    repo.commit("other values");
    repo.push("main");
    world.run(&["reconcile", "--with-source"]);
    let mut told = String::new();
    let tell = |verb: &[&str]| {
        let output = world.run(verb);
        [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()
    };
    for verb in ["status", "diff", "history"] {
        told += &(tell(&[verb]) + &tell(&[verb, "--json"]));
    }
    assert!(told.contains("data.k0"), "the plan is told: {told}");
    world.ok(&["resume", "odd"]);
    world.eventually("the other values are applied", |world| opened(world, "k11") == second[11]);
    for name in names.iter().map(String::as_str).chain(["odd"]) {
        told += &(tell(&["status", name]) + &tell(&["status", name, "--json"]));
    }
    told += &recorded(&world);
    told += &world.log();
    for value in &drawn {
        for form in forms(value) {
            assert!(!told.contains(&form), "seed {seed}: {value:?} is told as {form:?}");
        }
    }
    let changes = serde_json::from_str::<Value>(&tell(&["history", "--json"])).expect("JSON");
    assert!(changes.as_array().is_some_and(|runs| runs.len() > 2), "{changes}");
}
