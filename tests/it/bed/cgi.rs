//! HTTP/1.1 as `git http-backend` needs it: one request per connection, and CGI behind it.
//!
//! Requests may be chunked or wait for `100 Continue`, as the git program's are; gzip'd bodies are
//! handed on, http-backend opens them itself. Bodies are held in memory, 256 MiB at most.

use super::children;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

const BODY_LIMIT: u64 = 256 << 20;
const HEAD_LIMIT: u64 = 64 << 10;

/// One HTTP request, read whole.
#[derive(Debug, Default)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    /// Reads a request; None when the peer closed without asking.
    pub fn read(stream: &mut (impl Read + Write)) -> io::Result<Option<Call>> {
        let mut call = Call::default();
        let mut reader = BufReader::new(stream);
        let mut head = (&mut reader).take(HEAD_LIMIT);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        call.method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (call.path, call.query) = (path.to_owned(), query.to_owned());
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                call.headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
            }
        }
        if call.header("expect").is_some() {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            reader.get_mut().flush()?;
        }
        if call.header("transfer-encoding").is_some_and(|how| how.contains("chunked")) {
            call.body = chunks(&mut reader)?;
        } else if let Some(length) = call.header("content-length") {
            let length: u64 = length.parse().map_err(io::Error::other)?;
            let bounded = length.min(BODY_LIMIT);
            reader.take(bounded).read_to_end(&mut call.body)?;
        }
        Ok(Some(call))
    }

    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.take(HEAD_LIMIT).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        if body.len() as u64 + size > BODY_LIMIT {
            return Err(io::Error::other("the body is too long"));
        }
        reader.take(size).read_to_end(&mut body)?;
        // The line end after a chunk; after the last one there are no trailers here.
        line.clear();
        reader.take(HEAD_LIMIT).read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// An HTTP answer, written whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one more header.
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes it and says that the connection ends.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

/// Answers a request by `git http-backend` for the repositories below `root`.
pub fn git_backend(root: &Path, call: &Call) -> io::Result<Reply> {
    let mut command = children::dying("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &call.method)
        .env("PATH_INFO", &call.path)
        .env("QUERY_STRING", &call.query)
        .env("CONTENT_LENGTH", call.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = call.header(header) {
            command.env(variable, value);
        }
    }
    let mut child = children::spawn(command)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may end early, with its reason in the answer.
            let _ = stdin.write_all(&call.body);
        });
        let mut output = Vec::new();
        stdout.by_ref().take(BODY_LIMIT).read_to_end(&mut output).map(|_| output)
    })?;
    child.wait()?;
    Ok(reply(&output))
}

/// Splits a CGI program's output into status, headers and body.
fn reply(output: &[u8]) -> Reply {
    let Some(end) = output.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Reply::empty(500);
    };
    let mut reply = Reply::empty(200);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split_whitespace().next().and_then(|code| code.parse().ok());
            reply.status = code.unwrap_or(500);
        } else {
            reply.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    reply.body = output[end + 4..].to_vec();
    reply
}
