//! Pure: a repository's URL as people have it on their clipboard, and the server it names.

use crate::config::{RootError, check_url};

/// Reads a URL in any form that people have it, into that of the configuration.
pub fn repository(said: &str) -> Result<String, RootError> {
    let url = normal(said);
    check_url(&url).map(|()| url)
}

/// What to say instead, here where credentials come by flags and short forms are taken.
pub fn remedy(error: &RootError) -> &'static str {
    match error {
        RootError::NoScheme | RootError::Scheme(_) => "say https://…, ssh://… or git@HOST:PATH",
        RootError::Credentials => "leave them out: a password is named by --password-file FILE",
        RootError::ShortForm | RootError::Host | RootError::Outside(_) => error.hint(),
    }
}

/// The URL in the form that the configuration takes: `git@host:path` becomes `ssh://git@host/path`.
/// What is no short form is left as it is.
fn normal(said: &str) -> String {
    let said = said.trim();
    if said.contains("://") {
        return said.to_owned();
    }
    let Some((server, path)) = said.split_once(':') else { return said.to_owned() };
    let path = path.trim_start_matches('/');
    if server.is_empty() || server.contains('/') || path.is_empty() {
        return said.to_owned();
    }
    let user = if server.contains('@') { "" } else { "git@" };
    format!("ssh://{user}{server}/{path}")
}

/// Whom a URL speaks to: credentials are meant for one of these and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `ssh`, `https` or `http`.
    pub scheme: String,
    /// Without brackets, in lower case.
    pub host: String,
    /// The scheme's own where none is said.
    pub port: u16,
}

/// The server of a URL; nothing for what is none.
pub fn server(url: &str) -> Option<Server> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port.parse().ok()?))
        }
        _ => (authority, None),
    };
    let usual = match scheme {
        "ssh" => 22,
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = host.trim_matches(['[', ']']).to_lowercase();
    (!host.is_empty()).then(|| Server {
        scheme: scheme.to_owned(),
        host,
        port: port.unwrap_or(usual),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_become_urls_and_everything_else_stays() {
        for (said, url) in [
            ("git@git.example:infra/flux.git", "ssh://git@git.example/infra/flux.git"),
            ("git.example:infra/flux", "ssh://git@git.example/infra/flux"),
            ("me@h:/srv/r.git", "ssh://me@h/srv/r.git"),
            (" https://h/r \n", "https://h/r"),
            ("ssh://git@h:22/r", "ssh://git@h:22/r"),
            ("/srv/r.git", "/srv/r.git"),
            ("./a:b", "./a:b"),
            ("nonsense", "nonsense"),
            ("h:", "h:"),
        ] {
            assert_eq!(normal(said), url, "{said}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_repository_is_told_with_what_to_say_here() {
        let read = |said: &str| repository(said).map_err(|error| (error.clone(), remedy(&error)));
        assert_eq!(read(" git@h:r "), Ok("ssh://git@h/r".to_owned()));
        let forms = "say https://…, ssh://… or git@HOST:PATH";
        assert_eq!(read("nonsense"), Err((RootError::NoScheme, forms)));
        assert_eq!(read("ftp://h/r"), Err((RootError::Scheme("ftp".to_owned()), forms)));
        let file = "leave them out: a password is named by --password-file FILE";
        assert_eq!(read("https://me:hunter2@h/r"), Err((RootError::Credentials, file)));
        assert_eq!(read("https:///r"), Err((RootError::Host, "write https://HOST/PATH")));
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let told = |url: &str| server(url).map(|s| format!("{} {} {}", s.scheme, s.host, s.port));
        for (url, expected) in [
            ("https://Git.Example/r", Some("https git.example 443")),
            ("ssh://git@h:2222/r", Some("ssh h 2222")),
            ("http://[::1]:80/r", Some("http ::1 80")),
            ("http://u:p@h/r:8", Some("http h 80")),
            ("ssh://git@h:99999/r", None),
            ("file:///r", None),
            ("nonsense", None),
        ] {
            assert_eq!(told(url).as_deref(), expected, "{url}");
        }
    }
}
