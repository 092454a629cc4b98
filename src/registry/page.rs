//! Pure: reads what a registry answers: a page of tags, the way to the next one, its complaints.

use super::reference::is_tag;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// Longest wait that a `Retry-After` can ask for.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Characters of a server's words that we repeat.
const WORDS_LIMIT: usize = 200;

/// The tags of one page. The error says what is wrong with it.
pub(super) fn tags(body: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    // A repository whose tags were all deleted has `null` there.
    let wrong = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        format!("the list of tags cannot be read at line {line}, column {column}")
    };
    let listed: Page = serde_json::from_slice(body).map_err(wrong)?;
    let mut tags = listed.tags.unwrap_or_default();
    // One that nobody could pull is nobody's choice; a list of nothing else is no list of tags.
    let bad = tags.iter().find(|tag| !is_tag(tag)).map(|bad| words(bad, 60));
    tags.retain(|tag| is_tag(tag));
    match bad {
        Some(bad) if tags.is_empty() => Err(format!("{bad:?} in the list of tags is none")),
        _ => Ok(tags),
    }
}

/// Whether a content type can be that of a list of tags. Some registries send none, or text.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(said) = content_type else { return true };
    let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json") || kind == "text/plain"
}

/// Where a page says that it goes on, seen from its own address. The error says why not there.
///
/// A registry behind a proxy that ends TLS for it may name itself with the other scheme: the path
/// counts then. Another host is not followed, since credentials go along.
pub(super) fn next(links: &[&str], from: &Url) -> Result<Option<Url>, String> {
    let Some(target) = links.iter().flat_map(|header| targets(header)).next() else {
        return Ok(None);
    };
    let shown = || words(target, 100);
    let Ok(mut next) = from.join(target) else {
        return Err(format!("the next page is no address: {:?}", shown()));
    };
    if next.host_str() != from.host_str() || !matches!(next.scheme(), "http" | "https") {
        return Err(format!("the next page is said to be on another host: {}", shown()));
    }
    // The same host: keep the way by which it was reached.
    if next.scheme() != from.scheme() {
        let mut same = from.clone();
        same.set_path(next.path());
        same.set_query(next.query());
        next = same;
    }
    if next.port_or_known_default() != from.port_or_known_default() {
        return Err(format!("the next page is said to be on another port: {}", shown()));
    }
    next.set_fragment(None);
    Ok(Some(next))
}

/// The targets of a `Link` header whose relation is `next`.
fn targets(header: &str) -> impl Iterator<Item = &str> {
    let mut rest = header;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once('<')?;
            let (target, after) = after.split_once('>')?;
            let end = after.find('<').unwrap_or(after.len());
            let (parameters, after) = after.split_at(end);
            rest = after;
            let is_next = parameters.split([';', ',']).any(|parameter| {
                let Some((key, value)) = parameter.split_once('=') else { return false };
                key.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            });
            if is_next {
                return Some(target);
            }
        }
    })
}

/// What a registry says about a failure: its first error's code and message, or nothing where the
/// body is not in the protocol's form.
pub(super) fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Body { errors }) = serde_json::from_slice(body) else { return String::new() };
    let Some(One { code, message }) = errors.into_iter().next() else { return String::new() };
    let text = match (code.is_empty(), message.is_empty()) {
        (false, false) => format!("{code}: {message}"),
        _ => format!("{code}{message}"),
    };
    words(&text, WORDS_LIMIT)
}

/// The beginning of a server's words, on one line.
pub(super) fn words(text: &str, limit: usize) -> String {
    let clean = |char: char| if char.is_control() { ' ' } else { char };
    let mut short: String = text.chars().map(clean).take(limit).collect();
    if text.chars().nth(limit).is_some() {
        short.push('…');
    }
    short.trim().to_owned()
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(said: &str, now: Timestamp) -> Option<Duration> {
    let said = said.trim();
    let wait = match said.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = rfc2822::DateTimeParser::new().parse_timestamp(said).ok()?;
            Duration::try_from(then.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(A_DAY))
}

/// The digest that a registry names, if it is one.
pub(super) fn digest(said: &str) -> Option<String> {
    let (algorithm, hex) = said.trim().split_once(':')?;
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return None,
    };
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == length && hex.bytes().all(lower)).then(|| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_list_of_tags_and_nothing_else() {
        assert_eq!(tags(br#"{"name": "r", "tags": ["a", "b"], "more": {}}"#).unwrap(), ["a", "b"]);
        assert!(tags(br#"{"name": "r", "tags": null}"#).unwrap().is_empty());
        assert_eq!(
            tags(br#"{"tags": ["a", "1.0+x"]}"#).unwrap(),
            ["a"],
            "one that nobody can pull"
        );
        for (body, expected) in [
            (&b"<html>"[..], "line 1, column 1"),
            (b"{\"tags\": \"a\"}", "line 1"),
            (b"{\"tags\": [1]}", "line 1"),
            (b"[\"a\"]", "line 1"),
            (b"{\"tags\": [\"b c\"]}", "\"b c\" in the list"),
            (b"{\"tags\": [\"a\\n\\u001b[31m\"]}", "\"a  [31m\" in the list"),
        ] {
            let error = tags(body).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_next_page_is_on_the_same_host() {
        let from = Url::parse("https://reg.lan:5000/v2/a/tags/list?n=2").unwrap();
        let next = |link: &str| next(&[link], &from).map(|url| url.map(String::from));
        let there = Ok(Some("https://reg.lan:5000/v2/a/tags/list?last=b&n=2".to_owned()));
        for link in [
            "</v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            "<list?last=b&n=2>;rel=next",
            "<https://reg.lan:5000/v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            "<http://reg.lan/v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            "</first>; rel=\"first\", </v2/a/tags/list?last=b&n=2>; title=\"x\"; REL=\"Next\"",
        ] {
            assert_eq!(next(link), there, "{link}");
        }
        assert_eq!(next("</x>; rel=\"prev\""), Ok(None));
        assert_eq!(next("garbage"), Ok(None));
        assert_eq!(next("<unclosed; rel=\"next\""), Ok(None));
        for (link, expected) in [
            ("<https://evil.lan/v2/a/tags/list>; rel=\"next\"", "another host: https://evil.lan"),
            ("<//evil.lan/x>; rel=\"next\"", "another host"),
            ("<https://reg.lan:6000/x>; rel=\"next\"", "another port"),
            ("<file:///etc/passwd>; rel=\"next\"", "another host"),
            ("<http://[>; rel=\"next\"", "no address"),
        ] {
            assert!(next(link).unwrap_err().contains(expected), "{link}");
        }
    }

    #[test]
    fn json_is_told_from_pages() {
        for good in
            ["application/json", "application/json; charset=utf-8", "text/plain", "a/b+json"]
        {
            assert!(is_json(Some(good)), "{good}");
        }
        for bad in ["text/html; charset=utf-8", "application/octet-stream", "", "json"] {
            assert!(!is_json(Some(bad)), "{bad}");
        }
        assert!(is_json(None));
    }

    #[test]
    fn complaints_are_short_and_on_one_line() {
        let body = br#"{"errors": [{"code": "DENIED", "message": "no\nway", "detail": [1]}]}"#;
        assert_eq!(complaint(body), "DENIED: no way");
        assert_eq!(complaint(br#"{"errors": [{"code": "DENIED"}]}"#), "DENIED");
        assert_eq!(complaint(b"<html>"), "");
        let long = format!(r#"{{"errors": [{{"message": "{}"}}]}}"#, "x".repeat(9999));
        assert_eq!(complaint(long.as_bytes()).chars().count(), WORDS_LIMIT + 1);
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let wait = |said| retry_after(said, now).map(|wait| wait.as_secs());
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Fri, 15 Jan 2027 08:00:30 GMT"), Some(30));
        assert_eq!(wait("Fri, 15 Jan 2020 08:00:30 GMT"), None);
        assert_eq!(wait("Wed, 15 Jan 2020 08:00:30 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(86_400));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn digests_are_checked() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(digest(&format!(" {good}")), Some(good.clone()));
        for bad in ["", "sha256:", "md5:00", &good[..70], &good.to_uppercase()] {
            assert_eq!(digest(bad), None, "{bad}");
        }
    }
}
