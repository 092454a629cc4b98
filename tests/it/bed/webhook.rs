//! A mutating admission webhook: a real HTTPS server that answers with a JSON patch.
//!
//! It serves one request per connection, as `cgi.rs` does, and ends with the test's process.

use super::cgi::{Call, Reply};
use super::git::certificate;
use base64::Engine as _;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A webhook in service.
pub struct Webhook {
    /// Where it listens.
    pub url: String,
    /// The CA of its certificate, PEM.
    pub ca: String,
}

impl Webhook {
    /// Starts one; `change` makes the operations of a JSON patch of an object, or is the sentence
    /// with which it is refused. `dry` tells whether the request is a dry-run.
    pub fn start(change: fn(object: &Value, dry: bool) -> Value) -> Webhook {
        let (config, ca) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = config.clone();
                // A peer that goes away in the middle is its own affair.
                std::thread::spawn(move || serve(config, stream, change).ok());
            }
        });
        Webhook { url: format!("https://{address}/mutate"), ca }
    }

    /// Its registration for one namespace and some kinds, to be applied by somebody else.
    pub fn registration(&self, namespace: &str, resources: &str) -> String {
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\n\
             metadata: {{name: {namespace}}}\nwebhooks:\n- name: change.test.invalid\n  \
             admissionReviewVersions: [v1]\n  sideEffects: NoneOnDryRun\n  failurePolicy: Fail\n  \
             namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
             rules:\n  - {{apiGroups: ['*'], apiVersions: ['*'], operations: [CREATE, UPDATE], \
             resources: [{resources}]}}\n  clientConfig: {{url: \"{}\", caBundle: {ca}}}\n",
            self.url
        )
    }
}

fn serve(
    config: Arc<rustls::ServerConfig>,
    stream: TcpStream,
    change: fn(&Value, bool) -> Value,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    let Some(call) = Call::read(&mut tls)? else { return Ok(()) };
    let review: Value = serde_json::from_slice(&call.body)?;
    let request = &review["request"];
    let response = match change(&request["object"], request["dryRun"] == true) {
        Value::String(why) => {
            json!({"uid": request["uid"], "allowed": false, "status": {"message": why}})
        }
        patch => {
            let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
            json!({"uid": request["uid"], "allowed": true, "patchType": "JSONPatch",
                "patch": patch})
        }
    };
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": response});
    let mut reply = Reply::empty(200).with("Content-Type", "application/json");
    reply.body = answer.to_string().into_bytes();
    reply.write(&mut tls)?;
    tls.conn.send_close_notify();
    tls.flush()
}
