//! Git over HTTP and HTTPS on loopback.
//!
//! [`GitServer`] serves the bare repositories below one directory. It logs each request by what it
//! asks for, so that a test can say "listed once, fetched nothing", and it can be switched into
//! faults while a test runs.

use super::ca::Ca;
use super::cgi::{Call, Reply, git_backend};
use base64::Engine;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    #[default]
    Anyone,
    Basic {
        user: String,
        password: String,
    },
    Bearer(String),
}

/// How a server is set up; the default is plain HTTP for anyone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub auth: Auth,
    /// HTTPS with a certificate of a private CA, see [`GitServer::ca`].
    pub tls: bool,
}

/// What goes wrong at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every request is answered by this status.
    Status(u16),
    /// Connections are accepted and never answered (for 60 s).
    Silence,
    /// Connections are closed after the request, without an answer.
    HangUp,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `info/refs`: the capabilities, with protocol version 2; the refs too with older ones.
    Advertise,
    /// The refs, with protocol version 2.
    ListRefs,
    /// Objects.
    Fetch,
    /// A push.
    Push,
    Other,
}

/// One request that was answered, by whatever status.
#[derive(Clone, Debug)]
pub struct Request {
    pub command: Command,
    pub path: String,
    pub status: u16,
}

/// A running server.
pub struct GitServer {
    root: TempDir,
    address: SocketAddr,
    ca: Option<String>,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    root: PathBuf,
    auth: Auth,
    tls: Option<Arc<rustls::ServerConfig>>,
    open: AtomicBool,
    fault: Mutex<Fault>,
    log: Mutex<Vec<Request>>,
}

impl GitServer {
    /// Plain HTTP, for anyone.
    pub fn http() -> GitServer {
        GitServer::start(Options::default())
    }

    /// A server with a password or a private CA.
    pub fn start(options: Options) -> GitServer {
        let root = TempDir::with_prefix("gitopsd-git-").expect("a temporary directory");
        let (tls, ca) = if options.tls {
            let (config, ca) = certificate();
            (Some(config), Some(ca))
        } else {
            (None, None)
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            root: root.path().to_owned(),
            auth: options.auth,
            tls,
            open: AtomicBool::new(true),
            fault: Mutex::default(),
            log: Mutex::default(),
        });
        let accepting = Mutex::new(Some(accept(listener, shared.clone())));
        GitServer { root, address, ca, shared, accepting }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The URL of a repository, say `infra/flux-config`.
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url())
    }

    /// The private CA's certificate in PEM, of a server with TLS.
    pub fn ca(&self) -> &str {
        self.ca.as_deref().expect("only a server with TLS has a CA")
    }

    /// The directory of the bare repositories.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Goes into a fault, or out of it with [`Fault::None`].
    pub fn fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }

    /// Closes the port: connections are refused until [`GitServer::up`].
    pub fn down(&self) {
        let Some(thread) = lock(&self.accepting).take() else { return };
        self.shared.open.store(false, Ordering::SeqCst);
        // Wakes the thread; a failure means that it is awake already.
        let _ = TcpStream::connect(self.address);
        thread.join().expect("the accepting thread does not panic");
    }

    /// Opens the same port again.
    pub fn up(&self) {
        let listener = TcpListener::bind(self.address).expect("the port that was ours is free");
        self.shared.open.store(true, Ordering::SeqCst);
        *lock(&self.accepting) = Some(accept(listener, self.shared.clone()));
    }

    /// Every request so far, in the order of the answers.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.log).clone()
    }

    /// How many successful requests asked for this.
    pub fn count(&self, command: Command) -> usize {
        let counted = |request: &&Request| request.command == command && request.status == 200;
        lock(&self.shared.log).iter().filter(counted).count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.shared.log).clear();
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.down();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if !shared.open.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = shared.clone();
            // A peer that goes away in the middle is its own affair.
            std::thread::spawn(move || serve(&shared, stream).ok());
        }
    })
}

fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    // A request comes at once or not at all; a minute is for loaded machines.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    match &shared.tls {
        None => talk(shared, &mut stream),
        Some(config) => {
            let connection =
                rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            let mut tls = rustls::StreamOwned::new(connection, stream);
            talk(shared, &mut tls)?;
            tls.conn.send_close_notify();
            tls.flush()
        }
    }
}

fn talk(shared: &Shared, stream: &mut (impl Read + Write)) -> io::Result<()> {
    let Some(call) = Call::read(stream)? else { return Ok(()) };
    let fault = *lock(&shared.fault);
    let reply = match fault {
        Fault::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Fault::HangUp => return Ok(()),
        Fault::Status(status) => Reply::empty(status),
        Fault::None => match &shared.auth {
            auth if allowed(auth, &call) => git_backend(&shared.root, &call)?,
            _ => Reply::empty(401).with("WWW-Authenticate", "Basic realm=\"test\""),
        },
    };
    let request =
        Request { command: command(&call), path: call.path.clone(), status: reply.status };
    lock(&shared.log).push(request);
    reply.write(stream)
}

fn allowed(auth: &Auth, call: &Call) -> bool {
    let wanted = match auth {
        Auth::Anyone => return true,
        Auth::Basic { user, password } => {
            let pair = format!("{user}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Auth::Bearer(token) => format!("Bearer {token}"),
    };
    call.header("authorization") == Some(&wanted)
}

fn command(call: &Call) -> Command {
    if call.path.ends_with("/info/refs") {
        Command::Advertise
    } else if call.path.ends_with("/git-receive-pack") {
        Command::Push
    } else if !call.path.ends_with("/git-upload-pack") {
        Command::Other
    } else if call.body.windows(15).take(64).any(|text| text == b"command=ls-refs") {
        Command::ListRefs
    } else {
        // Long requests are gzip'd by the git program: those are fetches, a listing is short.
        Command::Fetch
    }
}

/// A server certificate for 127.0.0.1 and localhost, and the PEM of the CA that signed it.
pub(super) fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let ca = Ca::new();
    (ca.server().config(), ca.pem().to_owned())
}
