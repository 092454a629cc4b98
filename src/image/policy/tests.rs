//! Choices compared with the reference's, with reference orders, and the one departure.

use super::number::number;
use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

fn policy(filter: Option<(&str, &str)>, order: Value) -> ImagePolicy {
    let mut spec = json!({"imageRepositoryRef": {"name": "app"}, "policy": order});
    if let Some((pattern, extract)) = filter {
        spec["filterTags"] = json!({"pattern": pattern, "extract": extract});
    }
    let manifest = json!({"kind": "ImagePolicy", "metadata": {"name": "app"}, "spec": spec});
    ImagePolicy::read(&manifest).unwrap()
}

fn strings<T: ToString>(tags: &[T]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    tags: Vec<String>,
    policy: String,
    order: String,
    range: String,
    filter: Vec<String>,
}

#[derive(Deserialize)]
struct Expected {
    tag: String,
}

#[test]
fn the_same_tag_is_chosen_as_by_flux() {
    let inputs = include_str!("../../../tests/golden/imagepolicy/choose/input.json");
    let expected = include_str!("../../../tests/golden/imagepolicy/choose/expected.json");
    let inputs: Vec<Input> = serde_json::from_str(inputs).unwrap();
    let expected: Vec<Expected> = serde_json::from_str(expected).unwrap();
    assert!(inputs.len() == expected.len() && inputs.len() > 50);
    for (input, Expected { tag }) in inputs.iter().zip(expected) {
        let filter = match input.filter.as_slice() {
            [pattern, extract] => Some((pattern.as_str(), extract.as_str())),
            _ => None,
        };
        let order = match input.policy.as_str() {
            "semver" => json!({"semver": {"range": input.range}}),
            other => json!({other: {"order": input.order}}),
        };
        let mut tags = input.tags.clone();
        for _ in 0..2 {
            let explained = explain(&policy(filter, order.clone()), &tags);
            let found = explained.outcome.map(|choice| choice.tag).unwrap_or_default();
            assert_eq!(found, tag, "{input:?}");
            assert_eq!(explained.candidates.len(), tags.len(), "{input:?}");
            // In which order the registry lists the tags counts for nothing.
            tags.reverse();
        }
    }
}

#[derive(Deserialize)]
struct ExpectedNumber {
    valid: bool,
    float: String,
}

#[test]
fn the_same_texts_are_numbers_as_in_go_and_in_the_same_order() {
    let inputs = include_str!("../../../tests/golden/imagepolicy/numbers/input.json");
    let expected = include_str!("../../../tests/golden/imagepolicy/numbers/expected.json");
    let inputs: Vec<String> = serde_json::from_str(inputs).unwrap();
    let expected: Vec<ExpectedNumber> = serde_json::from_str(expected).unwrap();
    assert!(inputs.len() == expected.len() && inputs.len() > 100);
    for (key, expected) in inputs.iter().zip(expected) {
        let float = expected.float.replace("Inf", "inf").parse();
        let float: Option<f64> = expected.valid.then(|| float.unwrap());
        assert_eq!(number(key), float, "{key:?}");
    }
    for refused in ["nan", "NaN", "+nan"] {
        assert_eq!(number(refused), None);
    }
    assert_eq!(number("20261122123456789"), number("20261122123456788"), "one float in Flux too");
}

#[test]
fn a_day_with_ten_images_and_what_flux_would_say() {
    let tags =
        strings(&["dev-20261122.9", "dev-20261122.10", "dev-20261121.99", "prod-20261123.1"]);
    let filter = Some((r"^dev-(?P<v>\d{8}\.\d+)$", "$v"));
    for order in ["numerical", "alphabetical"] {
        let choice = choose(&policy(filter, json!({order: {"order": "asc"}})), &tags).unwrap();
        assert_eq!(choice.tag, "dev-20261122.10");
        let notice = choice.notice.unwrap();
        assert_eq!((notice.flux.as_str(), notice.order), ("dev-20261122.9", order));
        let told = format!(
            "dev-20261122.10 is chosen by date and counter; Flux's {order} order would choose \
             dev-20261122.9. Both agree on filterTags pattern \
             '^dev\\-(?P<d>\\d{{8}})\\.(?P<n>\\d+)$', extract '$d.$n.0', policy semver range \
             '>=0.0.0-0'"
        );
        assert_eq!(notice.to_string(), told);
        let Suggestion { pattern, extract, range } = notice.suggestion.unwrap();
        let agreed = policy(Some((&pattern, &extract)), json!({"semver": {"range": range}}));
        let expected = Choice { tag: "dev-20261122.10".into(), notice: None };
        assert_eq!(choose(&agreed, &tags), Ok(expected));
    }
}

#[test]
fn nothing_is_said_where_flux_chooses_the_same() {
    let order = || json!({"numerical": {}});
    let tags = strings(&["20261122.1", "20261122.2", "20261121.11"]);
    let expected = Choice { tag: "20261122.2".into(), notice: None };
    assert_eq!(choose(&policy(None, order()), &tags), Ok(expected));
    // The smallest of the day: `.9`, and Flux takes it for more than `.10`.
    let tags = strings(&["20261122.9", "20261122.10"]);
    let choice = choose(&policy(None, json!({"numerical": {"order": "desc"}})), &tags).unwrap();
    assert_eq!(choice.tag, "20261122.9");
    let notice = choice.notice.unwrap();
    assert_eq!((notice.flux.as_str(), notice.suggestion), ("20261122.10", None));
}

#[test]
fn the_departure_is_no_wider_than_its_form() {
    for tags in [
        ["20261122.9", "20261122.10", "1.0"],
        ["20261122.9", "20261122.10", "2026112.10"],
        ["20261122.9", "20261122.10", "20261122"],
        ["20261122.9", "20261122.10", "020261122.1"],
        ["20261122.9", "20261122.10", "20261122."],
    ] {
        let choice = choose(&policy(None, json!({"numerical": {}})), &strings(&tags)).unwrap();
        assert_eq!(choice, Choice { tag: "20261122.9".into(), notice: None }, "{tags:?}");
    }
    // A commit's hash between the counter and the end: no pattern to suggest fits all tags.
    let filter = Some((r"^(\d{8}\.\d+)-[a-f0-9]+$", "$1"));
    let tags = strings(&["20261122.9-aa", "20261122.10-bb", "latest"]);
    let choice = choose(&policy(filter, json!({"numerical": {}})), &tags).unwrap();
    assert_eq!(choice.tag, "20261122.10-bb");
    let notice = choice.notice.unwrap();
    assert_eq!((notice.flux.as_str(), &notice.suggestion), ("20261122.9-aa", &None));
    assert!(notice.to_string().contains("extract '$d.$n.0'"));
}

#[test]
fn every_tag_is_told_why_it_lost() {
    let told = |policy: &ImagePolicy, tags: &[&str]| -> Vec<(String, String)> {
        let candidates = explain(policy, &strings(tags)).candidates;
        candidates.into_iter().map(|c| (c.tag, c.verdict.words())).collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    let semver = policy(Some((r"^v?(\d.*)", "$1")), json!({"semver": {"range": "1.x"}}));
    let tags = ["v1.2.0", "v1.10.0", "1.10.0", "2.0.0", "1.1", "main", "1.10.0+b"];
    let expected = pairs(&[
        ("1.10.0+b", "chosen"),
        ("1.10.0", "equal to the chosen one"),
        ("v1.2.0", "lower"),
        ("main", "does not match filterTags.pattern"),
        ("v1.10.0", "same key as 1.10.0"),
        ("2.0.0", "outside of the range"),
        ("1.1", "not a version"),
    ]);
    assert_eq!(told(&semver, &tags), expected);
    let numerical = policy(None, json!({"numerical": {}}));
    let expected = pairs(&[
        ("latest", "not a number: fails the policy"),
        ("1", "not compared"),
        ("2", "not compared"),
    ]);
    assert_eq!(told(&numerical, &["1", "latest", "2"]), expected);
}

#[test]
fn an_error_names_the_tag_and_the_remedy() {
    let error = |policy: &ImagePolicy, tags: &[&str]| choose(policy, &strings(tags)).unwrap_err();
    let numerical = policy(Some(("^dev-(.*)$", "$1x")), json!({"numerical": {}}));
    assert_eq!(
        error(&numerical, &["dev-1"]).to_string(),
        "numerical policy: \"\" of tag \"dev-1\" is no number; narrow filterTags.pattern so that \
         such tags do not match, or extract the number"
    );
    assert_eq!(error(&numerical, &[]), ChooseError::NoTags);
    let pattern = "^dev-(.*)$".to_owned();
    assert_eq!(error(&numerical, &["a", "b"]), ChooseError::NoMatch { tags: 2, pattern });
    let semver = policy(None, json!({"semver": {"range": ">9"}}));
    let expected = ChooseError::NoneInRange { tags: 1, range: ">9".into() };
    assert_eq!(error(&semver, &["1.0.0"]), expected);
}

proptest! {
    #[test]
    fn date_and_counter_are_ordered_as_a_pair(
        pairs in prop::collection::vec((20_260_101_u64..20_261_231, 0_u64..2000), 1..30),
        numerical: bool,
        descending: bool,
    ) {
        let tags: Vec<_> = pairs.iter().map(|(date, n)| format!("dev-{date}.{n}")).collect();
        let name = if numerical { "numerical" } else { "alphabetical" };
        let order = json!({name: {"order": if descending { "desc" } else { "asc" }}});
        let policy = policy(Some((r"^dev-(.*)$", "$1")), order);
        let (date, n) =
            if descending { pairs.iter().min() } else { pairs.iter().max() }.unwrap();
        let choice = choose(&policy, &tags).unwrap();
        prop_assert_eq!(&choice.tag, &format!("dev-{date}.{n}"));
        if let Some(Notice { suggestion: Some(said), .. }) = choice.notice {
            let range = json!({"semver": {"range": said.range}});
            let agreed = self::policy(Some((&said.pattern, &said.extract)), range);
            prop_assert_eq!(choose(&agreed, &tags).unwrap().tag, choice.tag);
        }
    }

    #[test]
    fn numbers_are_ordered_as_integers_up_to_2_to_the_53(
        keys in prop::collection::btree_set(0_u64..1 << 53, 1..20),
    ) {
        let tags = strings(&keys.iter().collect::<Vec<_>>());
        let chosen = choose(&policy(None, json!({"numerical": {}})), &tags).unwrap().tag;
        prop_assert_eq!(chosen, keys.last().unwrap().to_string());
        let smallest = policy(None, json!({"numerical": {"order": "desc"}}));
        prop_assert_eq!(choose(&smallest, &tags).unwrap().tag, keys.first().unwrap().to_string());
    }

    #[test]
    fn numbers_are_read_to_the_last_bit(float in any::<f64>()) {
        prop_assume!(float.is_finite());
        for text in [format!("{float}"), format!("{float:e}")] {
            prop_assert_eq!(number(&text), Some(float), "{}", text);
        }
    }

    #[test]
    fn versions_are_ordered_as_triples(
        triples in prop::collection::btree_set((0_u32..9, 0_u32..12, 0_u32..30), 1..20),
    ) {
        let tags: Vec<_> = triples.iter().map(|(a, b, c)| format!("v{a}.{b}.{c}")).collect();
        let highest = policy(None, json!({"semver": {"range": "*"}}));
        prop_assert_eq!(&choose(&highest, &tags).unwrap().tag, tags.last().unwrap());
    }

    #[test]
    fn text_is_ordered_by_its_bytes(mut tags in prop::collection::vec("[A-Za-z0-9_.-]{1,12}", 1..20)) {
        prop_assume!(!tags.iter().all(|t| super::trap::DateCounter::parse(t).is_some()));
        let greatest = choose(&policy(None, json!({"alphabetical": {}})), &tags).unwrap().tag;
        let order = json!({"alphabetical": {"order": "desc"}});
        let smallest = choose(&policy(None, order), &tags).unwrap().tag;
        tags.sort();
        prop_assert_eq!((&smallest, &greatest), (&tags[0], &tags[tags.len() - 1]));
    }

    #[test]
    fn the_order_of_the_list_counts_for_nothing(
        tags in prop::collection::vec("[0-9]{1,3}(\\.[0-9]{1,2}){0,2}", 1..12).prop_shuffle(),
    ) {
        for order in ["numerical", "alphabetical"] {
            let policy = policy(None, json!({order: {}}));
            let mut sorted = tags.clone();
            sorted.sort();
            prop_assert_eq!(explain(&policy, &tags), explain(&policy, &sorted));
        }
    }
}
