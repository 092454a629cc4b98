//! An HTTP proxy before an API server that answers chosen requests with a fault.
//!
//! It stands between a daemon and `kubectl proxy`, takes one request per connection and hands
//! bytes on as they come, so that a watch streams. Each request is one line of its log,
//! `METHOD /path?query content-type`; a [`Pattern`] is a list of pieces that must, or with a `!`
//! in front must not, stand in that line. A rule answers so many requests of a pattern with a
//! [`Fault`]; everything else goes through.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Largest head of a request that is looked at.
const HEAD: usize = 64 << 10;

/// Pieces of a request's line.
pub type Pattern = Vec<String>;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Answered with this status, these header lines and this body; the server sees nothing.
    Answer(u16, &'static str, String),
    /// Taken, and never answered.
    Silence,
    /// The connection is reset before the server sees anything.
    Reset,
    /// Handed on; of the answer only the first half of the body comes back.
    Cut,
    /// Handed on after a while.
    Slow(Duration),
}

struct Rule {
    pattern: Pattern,
    left: usize,
    fault: Fault,
    hits: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: Vec<(Instant, String)>,
    /// Connections in use, to be cut off.
    open: Vec<TcpStream>,
}

/// A proxy in service; it ends with the test's process.
pub struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// A pattern.
pub fn pattern(pieces: &[&str]) -> Pattern {
    pieces.iter().map(|piece| (*piece).to_owned()).collect()
}

fn matches(pattern: &Pattern, line: &str) -> bool {
    pattern.iter().all(|piece| match piece.strip_prefix('!') {
        Some(without) => !line.contains(without),
        None => line.contains(piece.as_str()),
    })
}

impl Proxy {
    /// Starts one before a server that is asked in plain HTTP, `HOST:PORT`.
    pub fn start(server: &str) -> Proxy {
        let server = server.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A peer that goes away in the middle is its own affair.
                std::thread::spawn(move || serve(&state, server, stream).ok());
            }
        });
        Proxy { address, server, state }
    }

    /// Starts one before the server that a kubeconfig leads to in plain HTTP; then it leads here.
    pub fn before(kubeconfig: &Path) -> Proxy {
        let text = fs::read_to_string(kubeconfig).expect("it was just written");
        let (_, server) = text.split_once("server: 'http://").expect("it names its server");
        let (server, _) = server.split_once('\'').expect("in quotes");
        let proxy = Proxy::start(server);
        let text = text.replace(&format!("http://{server}"), &proxy.url());
        fs::write(kubeconfig, text).expect("ours to write");
        proxy
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next so many requests of a pattern with a fault; the newest rule comes first.
    pub fn inject(&self, pattern: &Pattern, times: usize, fault: Fault) {
        let rule = Rule { pattern: pattern.clone(), left: times, fault, hits: 0 };
        lock(&self.state).rules.insert(0, rule);
    }

    /// How many requests the rules of a pattern have answered.
    pub fn hits(&self, pattern: &Pattern) -> usize {
        let state = lock(&self.state);
        state.rules.iter().filter(|rule| rule.pattern == *pattern).map(|rule| rule.hits).sum()
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        lock(&self.state).rules.clear();
    }

    /// Requests so far.
    pub fn len(&self) -> usize {
        lock(&self.state).log.len()
    }

    /// Requests of a pattern after the first so many.
    pub fn asked(&self, pattern: &Pattern, since: usize) -> Vec<String> {
        let state = lock(&self.state);
        let late = state.log.iter().skip(since).map(|(_, line)| line);
        late.filter(|line| matches(pattern, line)).cloned().collect()
    }

    /// Time between the first two requests of a pattern after the first so many.
    pub fn apart(&self, pattern: &Pattern, since: usize) -> Option<Duration> {
        let state = lock(&self.state);
        let late = state.log.iter().skip(since).filter(|(_, line)| matches(pattern, line));
        let mut times = late.map(|(at, _)| *at);
        let (first, second) = (times.next()?, times.next()?);
        Some(second - first)
    }

    /// Ends every connection in use, watches above all.
    pub fn cut_off(&self) {
        for stream in lock(&self.state).open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Asks the server itself: status line and headers, and the body.
    pub fn ask(&self, line: &str, content_type: &str, body: &str) -> (String, String) {
        let mut server = TcpStream::connect(self.server).expect("kubectl proxy listens");
        let request = format!(
            "{line} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        server.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        server.read_to_string(&mut answer).expect("it answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panics while it holds it")
}

fn serve(state: &Mutex<State>, server: SocketAddr, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // Looked at only: what is unread when a connection is closed makes it a reset.
    let Some(head) = head(&stream)? else { return Ok(()) };
    let line = line(&head);
    let fault = {
        let mut state = lock(state);
        let rule = state.rules.iter_mut().find(|r| r.left > 0 && matches(&r.pattern, &line));
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.hits += 1;
            rule.fault.clone()
        });
        state.log.push((Instant::now(), line.clone()));
        state.open.push(stream.try_clone()?);
        fault
    };
    match fault {
        Some(Fault::Reset) => {
            // The copy that is kept would keep the connection open.
            let peer = stream.peer_addr()?;
            lock(state).open.retain(|open| open.peer_addr().ok() != Some(peer));
            return Ok(());
        }
        Some(Fault::Silence) => {
            while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            return Ok(());
        }
        Some(Fault::Answer(status, headers, body)) => {
            take(&mut stream, &head)?;
            let head = format!(
                "HTTP/1.1 {status} -\r\n{headers}Content-Type: application/json\r\nConnection: \
                 close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
            return stream.shutdown(Shutdown::Both);
        }
        Some(Fault::Slow(pause)) => std::thread::sleep(pause),
        Some(Fault::Cut) | None => {}
    }
    let body = take(&mut stream, &head)?;
    let mut behind = TcpStream::connect(server)?;
    behind.write_all(closing(&head).as_bytes())?;
    behind.write_all(&body)?;
    if fault == Some(Fault::Cut) {
        return cut(&line, &mut behind, &mut stream);
    }
    lock(state).open.push(behind.try_clone()?);
    let copied = io::copy(&mut behind, &mut stream);
    let _ = stream.shutdown(Shutdown::Both);
    let _ = behind.shutdown(Shutdown::Both);
    copied.map(|_| ())
}

/// The head of a request, left unread; None when the peer closed without asking.
fn head(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut buffer = vec![0; HEAD];
    loop {
        let read = stream.peek(&mut buffer)?;
        if let Some(end) = buffer[..read].windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(String::from_utf8_lossy(&buffer[..end + 4]).into_owned()));
        }
        if read == 0 || read == HEAD {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// `GET /api/v1/namespaces/n/configmaps/a? -`: a path without a query has its `?` all the same.
fn line(head: &str) -> String {
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mark = if target.contains('?') { "" } else { "?" };
    format!("{method} {target}{mark} {}", header(head, "content-type").unwrap_or("-"))
}

/// Reads the whole request; the answer is its body.
fn take(stream: &mut TcpStream, head: &str) -> io::Result<Vec<u8>> {
    stream.read_exact(&mut vec![0; head.len()])?;
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The same head, of a connection that serves one request only.
fn closing(head: &str) -> String {
    let kept: Vec<&str> = head
        .trim_end()
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
}

/// Hands half an answer on. A watch is cut in the middle of its first event.
fn cut(line: &str, behind: &mut TcpStream, stream: &mut TcpStream) -> io::Result<()> {
    let mut body = br#"{"type":"MODIFIED","object":{"kind":"Part"#.to_vec();
    if !line.contains("watch=true") {
        let mut answer = Vec::new();
        behind.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
        body = answer.split_off(answer.len().min(end + 4));
        body.truncate(body.len() / 2);
    }
    let length = body.len() * 2 + 1;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.shutdown(Shutdown::Both)
}
