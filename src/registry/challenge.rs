//! Pure: how a registry says which proof it wants, and what a token service answers.

use crate::secrets::Plaintext;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// What a token lives where its service does not say: the least that the protocol allows.
const LEAST: Duration = Duration::from_secs(60);

/// Longest that a token is believed, whatever its service says.
const MOST: Duration = Duration::from_secs(3600);

/// One way of proving who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
}

/// Picks a way from the values of `WWW-Authenticate`: a token before a password. The error says
/// what was there instead.
pub(super) fn choose(headers: &[&str]) -> Result<Challenge, String> {
    let offers: Vec<Offer> = headers.iter().flat_map(|header| read(header)).collect();
    let named = |name: &str| offers.iter().find(|offer| offer.scheme.eq_ignore_ascii_case(name));
    if let Some(bearer) = named("bearer") {
        let Some(realm) = bearer.value("realm") else {
            return Err("the challenge Bearer names no realm".into());
        };
        let realm = Url::parse(realm)
            .ok()
            .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
        let Some(realm) = realm else {
            return Err("the realm of the challenge is no address of a token service".into());
        };
        let owned = |key| bearer.value(key).map(str::to_owned);
        return Ok(Challenge::Bearer { realm, service: owned("service"), scope: owned("scope") });
    }
    if named("basic").is_some() {
        return Ok(Challenge::Basic);
    }
    let schemes: Vec<&str> = offers.iter().map(|offer| offer.scheme).take(5).collect();
    Err(match schemes.as_slice() {
        [] => "HTTP status 401 without a challenge that we understand".into(),
        some => format!("it wants {}, we know Bearer and Basic", some.join(" or ")),
    })
}

/// What to ask a token service for. A challenge may name another path (a mirror's, say), but
/// never gets more than the right to pull.
pub(super) fn scope(said: Option<&str>, path: &str) -> String {
    let name = said
        .and_then(|scope| scope.split(' ').next())
        .and_then(|scope| scope.strip_prefix("repository:"))
        .and_then(|rest| rest.rsplit_once(':'))
        .map_or(path, |(name, _)| name);
    format!("repository:{name}:pull")
}

/// What a token service hands out.
pub(super) struct Token {
    pub token: Plaintext,
    /// From the moment of the answer.
    pub lives: Duration,
}

/// Reads a token service's answer. The error never quotes it.
pub(super) fn token(body: &[u8]) -> Result<Token, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not JSON")?;
    let given = [answer.token, answer.access_token].into_iter().flatten();
    let token = given.into_iter().find(|token| !token.is_empty()).ok_or("it gave no token")?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its token cannot stand in a header");
    }
    let said = answer.expires_in.and_then(|said| Duration::try_from_secs_f64(said).ok());
    // A tenth less than was said, for the way.
    let lives = said.filter(|said| !said.is_zero()).unwrap_or(LEAST).min(MOST).mul_f64(0.9);
    Ok(Token { token: Plaintext::new(token.into_bytes()), lives })
}

/// One challenge of a header.
struct Offer<'a> {
    scheme: &'a str,
    values: Vec<(&'a str, String)>,
}

impl Offer<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        let found = self.values.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Reads `Bearer realm="…",service="…", Basic realm="…"`.
fn read(header: &str) -> Vec<Offer<'_>> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        if word.is_empty() {
            return offers;
        }
        match (tail.trim_start_matches([' ', '\t']).strip_prefix('='), offers.last_mut()) {
            (Some(value), Some(offer)) => {
                let (value, after) = parameter(value.trim_start());
                offer.values.push((word, value));
                rest = after;
            }
            (Some(_), None) => return offers,
            (None, _) => {
                offers.push(Offer { scheme: word, values: Vec::new() });
                rest = tail;
            }
        }
    }
}

/// A value, quoted or not, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            plain => value.push(plain),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_and_commas_inside_quotes_part_nothing() {
        let header = r#"Basic realm="x, y", Bearer realm="https://auth.lan/token",service="a \"b\"",scope="repository:r:pull,push""#;
        let expected = Challenge::Bearer {
            realm: Url::parse("https://auth.lan/token").unwrap(),
            service: Some("a \"b\"".into()),
            scope: Some("repository:r:pull,push".into()),
        };
        assert_eq!(choose(&[header]), Ok(expected.clone()));
        let parted: Vec<&str> = header.split(", Bearer").collect();
        assert_eq!(choose(&[parted[0], &format!("bearer{}", parted[1])]), Ok(expected));
        assert_eq!(choose(&["basic realm=x"]), Ok(Challenge::Basic));
        assert_eq!(choose(&["Basic"]), Ok(Challenge::Basic));
    }

    #[test]
    fn what_is_no_usable_challenge_says_so() {
        for (headers, expected) in [
            (&[][..], "without a challenge"),
            (&["realm=\"x\""], "without a challenge"),
            (&["Negotiate", "NTLM abc"], "it wants Negotiate or NTLM"),
            (&["Bearer service=\"x\""], "names no realm"),
            (&["Bearer realm=\"/token\""], "no address"),
            (&["Bearer realm=\"https://u:p@h/\""], "no address"),
            (&["Bearer realm=\"https://h"], ""),
        ] {
            match choose(headers) {
                Err(error) => assert!(error.contains(expected), "{headers:?}: {error}"),
                Ok(_) => assert_eq!(expected, "", "{headers:?}"),
            }
        }
    }

    #[test]
    fn a_challenge_gets_the_right_to_pull_and_no_more() {
        for (said, expected) in [
            (None, "repository:a/b:pull"),
            (Some("repository:m/a/b:pull"), "repository:m/a/b:pull"),
            (Some("repository:x:pull,push"), "repository:x:pull"),
            (Some("repository:x:delete repository:y:push"), "repository:x:pull"),
            (Some("registry:catalog:*"), "repository:a/b:pull"),
            (Some("aws"), "repository:a/b:pull"),
        ] {
            assert_eq!(scope(said, "a/b"), expected);
        }
    }

    #[test]
    fn a_token_lives_a_little_shorter_than_its_service_says() {
        let lives = |text: &str| token(text.as_bytes()).map(|token| token.lives.as_secs_f64());
        assert_eq!(lives(r#"{"token": "t", "expires_in": 300}"#), Ok(270.0));
        assert_eq!(lives(r#"{"access_token": "t"}"#), Ok(54.0));
        assert_eq!(lives(r#"{"token": "t", "expires_in": 0}"#), Ok(54.0));
        assert_eq!(lives(r#"{"token": "t", "expires_in": -1}"#), Ok(54.0));
        assert_eq!(lives(r#"{"token": "t", "expires_in": 1e300}"#), Ok(54.0));
        assert_eq!(lives(r#"{"token": "", "access_token": ""}"#), Err("it gave no token"));
        assert!(lives(r#"{"token": "a b"}"#).is_err() && lives("<html>").is_err());
    }
}
