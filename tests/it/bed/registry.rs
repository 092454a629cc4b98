//! A container registry on loopback: Debian's `docker-registry`, plain or with a password, TLS and
//! client certificates.
//!
//! [`RegistryServer::push`] makes a tag with two uploads, a config and a manifest; no image is
//! ever run from it. What was asked of the registry is in its access log.

use super::ca::{Ca, Signed};
use super::children;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Who may log in where a registry wants it.
pub const USER: &str = "ci";
pub const PASSWORD: &str = "open sesame";

/// The password above by bcrypt, the only form that docker-registry reads, at its least cost.
const HTPASSWD: &str = "ci:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

/// A manifest's kind, in the two families that registries hold.
pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a registry is set up; the default is plain HTTP for anyone.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegistryOptions {
    /// [`USER`] and [`PASSWORD`] are wanted, for reading as well.
    pub password: bool,
    /// HTTPS with a certificate of a private CA.
    pub tls: bool,
    /// Clients must show a certificate of that CA. Only with `tls`.
    pub client_certificate: bool,
}

/// A running registry.
pub struct RegistryServer {
    dir: TempDir,
    port: u16,
    options: RegistryOptions,
    ca: Ca,
    client: Signed,
    child: Mutex<Option<Child>>,
}

impl RegistryServer {
    /// Plain HTTP, for anyone.
    pub fn plain() -> RegistryServer {
        RegistryServer::start(RegistryOptions::default())
    }

    /// An empty registry.
    pub fn start(options: RegistryOptions) -> RegistryServer {
        // Thousands of tags are ten thousands of files: in memory that is seconds, on a disk that
        // others use as well it was minutes.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = TempDir::with_prefix_in("gitopsd-registry-", root);
        let dir = dir.expect("a temporary directory");
        let ca = Ca::new();
        let (server, client) = (ca.server(), ca.client("gitopsd"));
        for (name, text) in [
            ("ca.pem", ca.pem()),
            ("server.pem", &server.certificate),
            ("server.key", &server.key),
            ("htpasswd", HTPASSWD),
        ] {
            fs::write(dir.path().join(name), text).expect("a file of the test");
        }
        let mut registry =
            RegistryServer { dir, port: 0, options, ca, client, child: Mutex::default() };
        // Another process may take the free port first; then the next one is tried.
        for _ in 0..5 {
            registry.port = free_port();
            if registry.launch() {
                return registry;
            }
        }
        panic!("docker-registry does not start: {}", registry.log());
    }

    /// `127.0.0.1:PORT`, what stands before the path in an image name.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// An image name without tag.
    pub fn image(&self, repository: &str) -> String {
        format!("{}/{repository}", self.host())
    }

    /// `http://127.0.0.1:PORT` or the same with https.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.host())
    }

    /// The private CA.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// A certificate that the registry lets in.
    pub fn client(&self) -> &Signed {
        &self.client
    }

    /// The directory with `ca.pem`, and for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a tag. The content is whatever tells one image from another; the digest of the
    /// manifest comes back.
    pub fn push(&self, repository: &str, tag: &str, content: &str) -> String {
        let config = json!({"architecture": "amd64", "os": "linux", "content": content});
        let config = config.to_string();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI, "layers": [], "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config), "size": config.len()}});
        let manifest = manifest.to_string();
        self.talk(|http| {
            let base = format!("{}/v2/{repository}", self.url());
            let begun = sent(http.post(format!("{base}/blobs/uploads/")), 202);
            let to = begun.headers()["location"].to_str().expect("an address").to_owned();
            let to = if to.starts_with('/') { format!("{}{to}", self.url()) } else { to };
            let sign = if to.contains('?') { '&' } else { '?' };
            let to = format!("{to}{sign}digest={}", digest(&config));
            sent(http.put(to).body(config.clone()), 201);
            let to = format!("{base}/manifests/{tag}");
            sent(http.put(to).header("Content-Type", OCI).body(manifest.clone()), 201);
        });
        digest(&manifest)
    }

    /// Makes thousands of tags of an image that is pushed by the first of them. The others are
    /// written into the registry's storage as it writes them itself: a push each takes minutes.
    pub fn push_many(&self, repository: &str, tags: &[String], content: &str) {
        let (first, rest) = tags.split_first().expect("some tags");
        let digest = self.push(repository, first, content);
        let root = format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags");
        let root = self.dir.path().join(root);
        for tag in rest {
            let place = root.join(tag).join("current");
            fs::create_dir_all(&place).expect("a directory of the test");
            fs::write(place.join("link"), &digest).expect("a file of the test");
        }
    }

    /// Makes a tag of an index over manifests that are there.
    pub fn push_index(&self, repository: &str, tag: &str, digests: &[&str]) -> String {
        let manifests: Vec<_> = digests
            .iter()
            .zip(["amd64", "arm64"])
            .map(|(digest, machine)| {
                json!({"mediaType": OCI, "digest": digest, "size": 1,
                    "platform": {"os": "linux", "architecture": machine}})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let index = index.to_string();
        self.talk(|http| {
            let to = format!("{}/v2/{repository}/manifests/{tag}", self.url());
            sent(http.put(to).header("Content-Type", INDEX).body(index.clone()), 201);
        });
        digest(&index)
    }

    /// Lines of the access log so far that hold this, say `"GET /v2/a/tags/list`.
    pub fn count(&self, what: &str) -> usize {
        self.log().lines().filter(|line| line.contains(what)).count()
    }

    /// Stops it: connections are refused until [`RegistryServer::up`].
    pub fn down(&self) {
        let child = self.child.lock().expect("no thread panics while it holds this lock").take();
        if let Some(mut child) = child {
            child.kill().expect("it is ours");
            child.wait().expect("it was killed");
        }
    }

    /// Starts it again on the same port, with what it held.
    pub fn up(&self) {
        assert!(self.launch(), "docker-registry does not start again: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts the process and waits until it answers; false where it ends instead.
    fn launch(&self) -> bool {
        let config = self.dir.path().join("config.yml");
        fs::write(&config, self.config()).expect("a file of the test");
        let log = self.dir.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log);
        let log = log.expect("a file of the test");
        let mut command = children::dying("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null());
        command.stderr(log.try_clone().expect("a second handle")).stdout(log);
        let mut child = children::spawn(command).expect(
            "docker-registry is installed: tests/tools.sh does so, or apt-get install \
             docker-registry",
        );
        let until = Instant::now() + Duration::from_secs(60);
        let mut answers = false;
        loop {
            if child.try_wait().expect("it is ours").is_some() || Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            // Twice: the first answer may be that of another process that has taken the port.
            let answered = answers;
            answers = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if answered && answers {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.child.lock().expect("no thread panics while it holds this lock") = Some(child);
        true
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: \
             {dir}/data}}\n  delete: {{enabled: true}}\n  maintenance: {{uploadpurging: {{enabled: \
             false}}}}\n"
        );
        if self.options.password {
            text += &format!("auth: {{htpasswd: {{realm: test, path: {dir}/htpasswd}}}}\n");
        }
        text += &format!("http:\n  addr: 127.0.0.1:{}\n", self.port);
        if self.options.tls {
            text +=
                &format!("  tls:\n    certificate: {dir}/server.pem\n    key: {dir}/server.key\n");
            if self.options.client_certificate {
                text += &format!("    clientcas: [{dir}/ca.pem]\n");
            }
        }
        text
    }

    /// Lets something speak to the registry as the CI job does. On a thread of its own: a blocking
    /// client must not live on one that drives futures.
    fn talk(&self, work: impl FnOnce(&Http) + Send) {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| work(&Http::new(self))).join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.down();
    }
}

/// What the CI job pushes with.
struct Http {
    client: reqwest::blocking::Client,
    password: bool,
}

impl Http {
    fn new(registry: &RegistryServer) -> Http {
        // An error means that somebody else installed a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(registry.ca.pem().as_bytes()).expect("PEM");
        let me = format!("{}{}", registry.client.certificate, registry.client.key);
        let me = reqwest::Identity::from_pem(me.as_bytes()).expect("PEM");
        let client = reqwest::blocking::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .identity(me)
            .timeout(Duration::from_secs(60))
            .build();
        Http { client: client.expect("a client"), password: registry.options.password }
    }

    fn post(&self, url: String) -> reqwest::blocking::RequestBuilder {
        self.signed(self.client.post(url))
    }

    fn put(&self, url: String) -> reqwest::blocking::RequestBuilder {
        self.signed(self.client.put(url))
    }

    fn signed(&self, r: reqwest::blocking::RequestBuilder) -> reqwest::blocking::RequestBuilder {
        if self.password { r.basic_auth(USER, Some(PASSWORD)) } else { r }
    }
}

fn sent(request: reqwest::blocking::RequestBuilder, wanted: u16) -> reqwest::blocking::Response {
    let answer = request.send().expect("the registry answers");
    let status = answer.status().as_u16();
    if status != wanted {
        panic!("the registry answered {status}: {}", answer.text().unwrap_or_default());
    }
    answer
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A port that is free now. docker-registry cannot be asked which one it took.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    listener.local_addr().expect("a bound socket has an address").port()
}
