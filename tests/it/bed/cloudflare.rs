//! A stand-in for Cloudflare's v4 API: strict, stateful, on loopback.
//!
//! It is no Cloudflare: it refuses what the published description of the API does not have (unknown
//! fields, wrong types, a configuration without a last rule) and keeps zones, tunnels,
//! configurations and records over any number of requests and daemons. `api` has the state and the
//! rules, this file the server: one request for each connection, a log of them, their bodies, and
//! faults that meet the call of a given number, or the next of a kind. Connectors do not connect here:
//! the test says how many connections a tunnel has.
//!
//! Where `GITOPSD_TEST_BODIES` names a file, each body is appended to it with its call, for those who
//! judge requests by the types of Cloudflare's own client.

mod api;

pub use api::{Grant, Record};

use api::{Answer, Api, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What meets a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Mishap {
    /// This status with this code; the API sees nothing.
    Status(u16, i64),
    /// 429, with a pause of so many seconds.
    Limited(u64),
    /// Taken by the API, and never answered.
    Silence,
    /// Taken by the API; half of the answer comes back.
    Torn,
    /// The connection is closed before the API sees anything.
    Reset,
    /// 307 to the same path once more; the API sees nothing.
    Moved,
    /// Taken by the API; the answer waits until [`Cloudflare::release`].
    Held,
}

#[derive(Default)]
struct State {
    api: Api,
    /// `METHOD /path`, one for each call.
    log: Vec<String>,
    /// Path and body of each call that had one.
    bodies: Vec<(String, Value)>,
    /// What meets the call of this number, counted from 1.
    mishaps: BTreeMap<usize, Mishap>,
    /// Method, end of the path, and what meets the next such call.
    awaited: Vec<(String, String, Mishap)>,
    /// What meets every call.
    outage: Option<Mishap>,
    held: bool,
}

impl State {
    /// What meets this call, the last in the log.
    fn mishap(&mut self, request: &Request) -> Option<Mishap> {
        if let Some(mishap) = self.mishaps.remove(&self.log.len()) {
            return Some(mishap);
        }
        let is = |(method, end, _): &(String, String, Mishap)| {
            *method == request.method && request.path.ends_with(end.as_str())
        };
        match self.awaited.iter().position(is) {
            Some(at) => Some(self.awaited.remove(at).2),
            None => self.outage.clone(),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A stand-in in service; it ends with the test's process.
pub struct Cloudflare {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().expect("no thread panics while it holds it")
}

impl Cloudflare {
    /// Starts one with one account, `Home`, a zone `muppit.au` in it, and the token `good-token`,
    /// which may do everything.
    pub fn start() -> Cloudflare {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                // A peer that goes away in the middle is its own affair.
                std::thread::spawn(move || serve(&shared, stream).ok());
            }
        });
        Cloudflare { address, shared }
    }

    /// Base of the API.
    pub fn url(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// What a token may do from now on.
    pub fn grant(&self, token: &str, grants: &[Grant]) {
        lock(&self.shared).api.grant(token, grants);
    }

    /// The same of a token that is the account's own, and no user's.
    pub fn grant_of_account(&self, token: &str, grants: &[Grant]) {
        lock(&self.shared).api.grant_of_account(token, grants);
    }

    /// Makes a token worth nothing.
    pub fn revoke(&self, token: &str) {
        lock(&self.shared).api.revoke(token);
    }

    /// Adds a zone to the account.
    pub fn zone(&self, name: &str) {
        lock(&self.shared).api.add_zone(name);
    }

    /// Takes a zone away from what tokens see, or gives it back. Its records stay.
    pub fn hide_zone(&self, name: &str, hidden: bool) {
        lock(&self.shared).api.hide_zone(name, hidden);
    }

    /// Gives a zone to another account.
    pub fn move_zone(&self, name: &str, account: &str) {
        lock(&self.shared).api.move_zone(name, account);
    }

    /// Says how many connections every living tunnel has.
    pub fn connect(&self, connections: usize) {
        lock(&self.shared).api.connections = connections;
    }

    /// Lets connectors come back after so many clean-ups, as those do that are on their way out.
    pub fn linger(&self, cleanups: usize) {
        lock(&self.shared).api.lingering = cleanups;
    }

    /// A tunnel that somebody else has made, and that a file of its connector configures.
    pub fn local_tunnel(&self, name: &str) {
        lock(&self.shared).api.add_local_tunnel(name);
    }

    /// A tunnel that somebody else has made; its id.
    pub fn tunnel(&self, name: &str, rules: Value) -> String {
        lock(&self.shared).api.add_tunnel(name, rules)
    }

    /// Deletes a tunnel as somebody in the dashboard would.
    pub fn delete_tunnel(&self, name: &str) {
        lock(&self.shared).api.delete_tunnel(name);
    }

    /// Replaces a tunnel's rules as somebody in the dashboard would.
    pub fn set_rules(&self, name: &str, rules: Value) {
        lock(&self.shared).api.set_rules(name, rules);
    }

    /// A record that somebody else has made.
    pub fn record(&self, kind: &str, name: &str, content: &str, comment: Option<&str>) {
        lock(&self.shared).api.add_record(kind, name, content, comment);
    }

    /// Deletes all records of a name, as somebody in the dashboard would.
    pub fn delete_record(&self, name: &str) {
        lock(&self.shared).api.records.retain(|record| record.name != name);
    }

    /// Names and ids of the tunnels that are not deleted.
    pub fn tunnels(&self) -> Vec<(String, String)> {
        let state = lock(&self.shared);
        let living = state.api.tunnels.iter().filter(|tunnel| tunnel.deleted_at.is_none());
        living.map(|tunnel| (tunnel.name.clone(), tunnel.id.clone())).collect()
    }

    /// A living tunnel's rules, as `host path -> service`.
    pub fn rules(&self, name: &str) -> Vec<String> {
        lock(&self.shared).api.rules(name)
    }

    /// The same, whole.
    pub fn ingress(&self, name: &str) -> Value {
        lock(&self.shared).api.ingress(name)
    }

    /// The token of a living tunnel.
    pub fn connector_token(&self, name: &str) -> String {
        lock(&self.shared).api.connector_token(name)
    }

    /// All records.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.shared).api.records.clone()
    }

    /// Tunnels and records as one value, for comparing two moments.
    pub fn shape(&self) -> String {
        let rules: Vec<_> =
            self.tunnels().iter().map(|(name, _)| (name.clone(), self.rules(name))).collect();
        let records: Vec<_> = self.records().into_iter().map(|r| (r.name, r.kind)).collect();
        format!("{rules:?} {records:?}")
    }

    /// Calls so far.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.shared).log.clone()
    }

    /// Bodies so far, each with the call it came with.
    pub fn bodies(&self) -> Vec<(String, Value)> {
        lock(&self.shared).bodies.clone()
    }

    /// Lets a mishap meet the call of this number, counted from 1 at the first call ever.
    pub fn inject(&self, call: usize, mishap: Mishap) {
        lock(&self.shared).mishaps.insert(call, mishap);
    }

    /// Lets a mishap meet the next call of this method whose path ends so.
    pub fn inject_next(&self, method: &str, end: &str, mishap: Mishap) {
        lock(&self.shared).awaited.push((method.to_owned(), end.to_owned(), mishap));
    }

    /// Lets a mishap meet every call, or none any more.
    pub fn outage(&self, mishap: Option<Mishap>) {
        lock(&self.shared).outage = mishap;
    }

    /// Waits until a call is held; false when that takes too long.
    pub fn wait_held(&self, patience: Duration) -> bool {
        let state = lock(&self.shared);
        let waited = self.shared.changed.wait_timeout_while(state, patience, |s| !s.held);
        waited.expect("no thread panics while it holds it").0.held
    }

    /// Lets a held call go.
    pub fn release(&self) {
        lock(&self.shared).held = false;
        self.shared.changed.notify_all();
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let Some(request) = read(&stream)? else { return Ok(()) };
    let call = format!("{} {}", request.method, request.path);
    if let Some(body) = &request.body {
        keep(&call, body)?;
    }
    let mishap = {
        let mut state = lock(shared);
        state.log.push(call.clone());
        if let Some(body) = &request.body {
            state.bodies.push((call, body.clone()));
        }
        state.mishap(&request)
    };
    match &mishap {
        Some(Mishap::Reset) => return stream.shutdown(Shutdown::Both),
        Some(Mishap::Status(status, code)) => {
            return write(&mut stream, &Answer::fault(*status, *code, "as the test wants"), "");
        }
        Some(Mishap::Moved) => {
            let answer = Answer::fault(307, 0, "somewhere else");
            let place = format!("Location: /client/v4{}\r\n", request.path);
            return write(&mut stream, &answer, &place);
        }
        Some(Mishap::Limited(seconds)) => {
            let answer = Answer::fault(429, 10429, "too many requests");
            return write(&mut stream, &answer, &format!("Retry-After: {seconds}\r\n"));
        }
        _ => {}
    }
    let answer = lock(shared).api.answer(&request);
    match mishap {
        Some(Mishap::Silence) => {
            while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
            Ok(())
        }
        Some(Mishap::Torn) => {
            let body = answer.body.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body.as_bytes()[..body.len() / 2])?;
            stream.shutdown(Shutdown::Both)
        }
        Some(Mishap::Held) => {
            let mut state = lock(shared);
            state.held = true;
            shared.changed.notify_all();
            drop(shared.changed.wait_while(state, |state| state.held));
            write(&mut stream, &answer, "")
        }
        _ => write(&mut stream, &answer, ""),
    }
}

/// A line for each body: tests run side by side.
fn keep(call: &str, body: &Value) -> io::Result<()> {
    let Some(path) = std::env::var_os("GITOPSD_TEST_BODIES") else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{}\n", json!([call, body])).as_bytes())
}

fn write(stream: &mut TcpStream, answer: &Answer, headers: &str) -> io::Result<()> {
    let body = answer.body.to_string();
    let head = format!(
        "HTTP/1.1 {} -\r\n{headers}Content-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        answer.status,
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// One request; `None` when the peer closed without asking.
fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let (mut token, mut length, mut json) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(": ") else { break };
        match key.to_ascii_lowercase().as_str() {
            "authorization" => token = value.strip_prefix("Bearer ").unwrap_or_default().to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            "content-type" => json = value == "application/json",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let mut hex = || rest.next().and_then(|b| char::from(b).to_digit(16)).unwrap_or(0);
            bytes.push(if byte == b'%' { (hex() * 16 + hex()) as u8 } else { byte });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.strip_prefix("/client/v4").unwrap_or("/nowhere").to_owned(),
        query: pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect(),
        token,
        body: (length > 0 && json).then(|| serde_json::from_slice(&body).unwrap_or(Value::Null)),
    }))
}
