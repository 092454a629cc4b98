//! An HTTP server that answers as a test tells it to: for faults and for counting, in the place of
//! a registry, a token service or a proxy.
//!
//! One request per connection. It lives until the test's process ends.

use super::ca::Ca;
use super::cgi::{Call, Reply};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked for, and by whom.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub proxy_authorization: Option<String>,
    pub if_none_match: Option<String>,
    pub body: String,
}

/// A server in service.
pub struct StandIn {
    address: SocketAddr,
    tls: bool,
    log: Arc<Mutex<Vec<Asked>>>,
}

/// What makes an answer; None closes the connection without one.
type Answer = dyn Fn(&Call, &Asked) -> Option<Reply> + Send + Sync;

impl StandIn {
    /// Plain HTTP.
    pub fn start(
        answer: impl Fn(&Call, &Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> StandIn {
        StandIn::serve(None, Box::new(answer))
    }

    /// HTTPS with a certificate of this CA.
    pub fn start_tls(
        ca: &Ca,
        answer: impl Fn(&Call, &Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> StandIn {
        StandIn::serve(Some(ca.server().config()), Box::new(answer))
    }

    fn serve(tls: Option<Arc<rustls::ServerConfig>>, answer: Box<Answer>) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (with_tls, answer, kept) = (tls.is_some(), Arc::new(answer), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, answer, log) = (tls.clone(), answer.clone(), kept.clone());
                // A peer that goes away in the middle is its own affair.
                std::thread::spawn(move || accept(stream, tls, &**answer, &log).ok());
            }
        });
        StandIn { address, tls: with_tls, log }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The same with its scheme.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().expect("no thread panics while it holds this lock").clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.log.lock().expect("no thread panics while it holds this lock").clear();
    }
}

/// A JSON body.
pub fn json(status: u16, body: impl Into<String>) -> Reply {
    let mut reply = Reply::empty(status).with("Content-Type", "application/json");
    reply.body = body.into().into_bytes();
    reply
}

fn accept(
    mut stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    answer: &Answer,
    log: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let Some(config) = tls else {
        // A TLS greeting: as every plain server does, say at once that this is none.
        let mut first = [0];
        if stream.peek(&mut first)? == 1 && first[0] == 22 {
            return stream.write_all(b"HTTP/1.1 400 -\r\n\r\n");
        }
        return talk(&mut stream, answer, log);
    };
    let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    talk(&mut tls, answer, log)?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn talk(
    stream: &mut (impl Read + Write),
    answer: &Answer,
    log: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let Some(call) = Call::read(stream)? else { return Ok(()) };
    let header = |name| call.header(name).map(str::to_owned);
    let asked = Asked {
        method: call.method.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        authorization: header("authorization"),
        proxy_authorization: header("proxy-authorization"),
        if_none_match: header("if-none-match"),
        body: String::from_utf8_lossy(&call.body).into_owned(),
    };
    log.lock().expect("no thread panics while it holds this lock").push(asked.clone());
    match answer(&call, &asked) {
        Some(reply) => reply.write(stream),
        None => Ok(()),
    }
}
