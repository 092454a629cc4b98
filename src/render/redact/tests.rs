//! Pure: values in every form in which a text may carry them.

use super::*;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

fn redactor(values: &[&str]) -> Redactor {
    let mut redactor = Redactor::default();
    values.iter().for_each(|value| redactor.add(value.as_bytes()));
    redactor
}

#[test]
fn every_form_of_a_value_is_masked() {
    let value = "p\"w<1>'\n\u{1}x-y";
    let mut json = json!({ "k": value }).to_string();
    assert_eq!(redactor(&[value]).mask(&json), r#"{"k":"***"}"#);
    json = json.replace('<', "\\u003c").replace('>', "\\u003e");
    assert_eq!(redactor(&[value]).mask(&json), r#"{"k":"***"}"#);
    // value, text, masked
    for (value, text, masked) in [
        ("hunter2", "a hunter2 b Hunter2", "a *** b Hunter2"),
        ("hunter2\n", "pw=hunter2;", "pw=***;"),
        ("hunter2", "aHVudGVyMg== aHVudGVyMg", "*** ***"),
        ("hunter2", "cGFzczpodW50ZXIyCg==", "cGFzczp***Cg=="),
        ("??>>??>>", "Pz8-Pj8_Pj4= Pz8+Pj8/Pj4=", "*** ***"),
        ("it's me", "k: 'it''s me'", "k: '***'"),
        ("one line\ntwo lines\nabc\n", "x two lines abc", "x *** abc"),
        ("one line\ntwo lines", "v: one linetwo lines", "v: ***"),
        ("ümläut", "an ümläut here", "an *** here"),
        ("short", "a short text", "a short text"),
        ("      ", "a:      b", "a:      b"),
    ] {
        assert_eq!(redactor(&[value]).mask(text), masked, "{value:?} in {text:?}");
    }
}

#[test]
fn values_that_overlap_touch_or_contain_each_other_are_masked_whole() {
    let many = redactor(&["abcdef", "defghi", "abcdefgh", "**tail--"]);
    assert_eq!(many.mask("abcdefghi abcdef,abcdefdefghi"), "*** ***,***");
    assert_eq!(many.mask("abcdeftail--"), "****", "the mask completes no value");
    assert_eq!(format!("{many:?}"), "Redactor(4 values)");
}

#[test]
fn bytes_that_are_no_text_are_masked_in_base64() {
    let key = [0xff, 0, 1, 2, 0xfe, 0x80, 7, 8, 9];
    let mut redactor = Redactor::default();
    redactor.add(&key);
    assert_eq!(redactor.mask(&format!("data: {}", STANDARD.encode(key))), "data: ***");
}

#[test]
fn a_large_value_is_masked_whole_and_merge_takes_all() {
    let large: String = (0..20_000).map(|i| format!("{i}é")).collect();
    let mut merged = redactor(&["hunter2"]);
    merged.mask("the index exists before more values come");
    merged.merge(&redactor(&[&large]));
    assert_eq!(merged.mask(&format!("<{large}> hunter2")), "<***> ***");
    let encoded = merged.mask(&STANDARD.encode(&large));
    assert!(encoded.len() < 10 * (large.len() / PIECE), "only seams are left: {encoded}");
}

#[test]
fn a_thousand_values_cost_no_more_than_the_text_is_long() {
    let values: Vec<String> = (0..1_000).map(|i| format!("postgres://user{i}:pw{i}@db")).collect();
    let redactor = redactor(&values.iter().map(String::as_str).collect::<Vec<_>>());
    let text = values.join(" and some more text between the values ");
    assert!(!redactor.mask(&text.repeat(20)).contains("postgres"));
}

/// What a value is written into.
#[derive(Clone, Copy, Debug)]
enum Carrier {
    Raw,
    Base64,
    UrlSafe,
    Unpadded,
    Inside,
    InsideUrlSafe,
    Json,
    GoJson,
    JsonInJson,
    Quoted,
    Debug,
    SingleQuotes,
    Block,
    Body,
    SecretBody,
}

const CARRIERS: [Carrier; 15] = {
    use Carrier::*;
    [
        Raw,
        Base64,
        UrlSafe,
        Unpadded,
        Inside,
        InsideUrlSafe,
        Json,
        GoJson,
        JsonInJson,
        Quoted,
        Debug,
        SingleQuotes,
        Block,
        Body,
        SecretBody,
    ]
};

/// Go's encoder, by what its documentation says it escapes.
fn go_json(text: &str) -> String {
    let mut json = json!(text).to_string();
    for char in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        json = json.replace(char, &format!("\\u{:04x}", u32::from(char)));
    }
    json
}

impl Carrier {
    /// The value as this carries it, after and before some bytes.
    fn text(self, value: &str, around: &[u8]) -> String {
        let inside = || [around, value.as_bytes(), around].concat();
        match self {
            Carrier::Raw => value.to_owned(),
            Carrier::Base64 => STANDARD.encode(value),
            Carrier::UrlSafe => URL_SAFE.encode(value),
            Carrier::Unpadded => STANDARD_NO_PAD.encode(value),
            Carrier::Inside => STANDARD.encode(inside()),
            Carrier::InsideUrlSafe => URL_SAFE_NO_PAD.encode(inside()),
            Carrier::Json => json!(value).to_string(),
            Carrier::GoJson => go_json(value),
            Carrier::JsonInJson => json!(json!({ "k": value }).to_string()).to_string(),
            Carrier::Quoted => format!("Invalid value: \"{}\": no", quoted(value)),
            Carrier::Debug => format!("{value:?}"),
            Carrier::SingleQuotes => format!("k: '{}'", value.replace('\'', "''")),
            Carrier::Block => {
                value.lines().map(|line| format!("\n    {}", line.trim())).collect::<String>()
            }
            Carrier::Body => {
                json!({"kind": "Status", "message": format!("bad: {value}, sorry")}).to_string()
            }
            Carrier::SecretBody => json!({"data": {"k": STANDARD.encode(value)}}).to_string(),
        }
    }
}

/// What of a value no text may show: forms of its own, not of what stands around it.
fn needles(value: &str) -> Vec<String> {
    let mut needles = vec![
        value.to_owned(),
        STANDARD_NO_PAD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
        json!(value).to_string(),
        go_json(value),
        quoted(value),
    ];
    needles.extend(value.lines().map(|line| line.trim().to_owned()));
    // What three bytes make in the middle of a longer text does not depend on what is around.
    for start in 0..3.min(value.len()) {
        let whole = &value.as_bytes()[start..];
        let whole = &whole[..whole.len() - whole.len() % 3];
        needles.extend([STANDARD.encode(whole), URL_SAFE.encode(whole)]);
    }
    needles.retain(|needle| needle.chars().count() >= SHORTEST);
    needles
}

/// Values: words, passwords with what is escaped somewhere, several lines, parts of each other.
fn values() -> impl Strategy<Value = Vec<String>> {
    let odd = prop::sample::select(
        [
            "\"", "\\", "'", "<", ">", "&", "\n", "\r\n", "\t", " ", "*", "***", "…", "é", "🦀",
            "\u{1}", "\u{8}", "\u{c}", "\u{7f}", "\u{2028}", "\u{a0}", "\u{301}", "=", "+/", "--",
        ]
        .map(str::to_owned)
        .to_vec(),
    );
    let part = prop_oneof![3 => "[!-~]{1,9}", 1 => "[a-c]{1,6}", 3 => odd];
    let value = prop::collection::vec(part, 1..9).prop_map(|parts| parts.concat());
    let fits = |value: &String| value.trim().chars().count() >= SHORTEST;
    let values = prop::collection::vec(value.prop_filter("long enough", fits), 1..4);
    // Half of the time one is a part of another.
    (values, any::<bool>(), any::<prop::sample::Index>()).prop_map(|(mut values, nest, cut)| {
        if nest {
            let outer = values[0].clone();
            let starts: Vec<usize> = outer.char_indices().map(|(at, _)| at).collect();
            let inner = &outer[starts[cut.index(starts.len())]..];
            values.push(format!("{inner}{outer}"));
            if inner.trim().chars().count() >= SHORTEST {
                values.push(inner.to_owned());
            }
        }
        values
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_value_survives_in_any_text(
        values in values(),
        before in "[a-c*A-Z =]{0,8}",
        after in "[a-c*A-Z =]{0,8}",
        around in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let redactor = redactor(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let mut all = before.clone();
        for value in &values {
            for carrier in CARRIERS {
                let form = carrier.text(value.trim(), &around);
                all.push_str(&form);
                all.push_str(&after);
                let masked = redactor.mask(&[before.as_str(), &form, &after].concat());
                for needle in needles(value.trim()) {
                    prop_assert!(
                        !masked.contains(&needle),
                        "{value:?} in {carrier:?}: {needle:?} in {masked:?}"
                    );
                }
                // As it stands in the file, with its white space.
                let masked = redactor.mask(&carrier.text(value, &around));
                let bare = value.trim();
                prop_assert!(!masked.contains(bare), "{bare:?} in {carrier:?}: {masked:?}");
            }
        }
        let masked = redactor.mask(&all);
        for value in &values {
            for needle in needles(value.trim()) {
                prop_assert!(!masked.contains(&needle), "{value:?}: {needle:?} in {masked:?}");
            }
        }
    }

    #[test]
    fn a_value_that_was_cut_short_shows_less_than_six_characters(
        value in "[ -~é\n]{30,300}",
        kept in 6usize..30,
    ) {
        let value = value.trim();
        prop_assume!(value.chars().count() > kept);
        let redactor = redactor(&[value]);
        for whole in [value.to_owned(), STANDARD.encode(value), json!(value).to_string()] {
            let cut: String = whole.chars().take(kept).collect();
            let masked = redactor.mask(&format!("{cut}…"));
            let start: String = whole.trim_start_matches('"').chars().take(SHORTEST).collect();
            prop_assert!(!masked.contains(&start) || cut.trim_start_matches('"').len() < SHORTEST,
                "{masked:?} of {whole:?}");
        }
    }
}
