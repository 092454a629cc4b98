//! Publishes the one status value, and only when it has changed.

use crate::api::{ClusterView, DaemonView, Document, HeldView, SuspendView};
use crate::flux::{Key, unknown_field};
use crate::graph::{Graph, Item, Phase, Ready, UnsupportedView};
use crate::logging::Message;
use crate::pipeline::{Connection, EdgeView, Failure, FluxHealth};
use crate::plan::Held;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// What the daemon knows beside the graph.
pub struct Beside {
    /// Child processes that rendering has started.
    pub children: u64,
    /// Held deletions of Kustomizations that left Git.
    pub parted: Vec<(Key, Vec<Held>)>,
    /// Kustomizations that left Git and are being ended.
    pub ending: Vec<Key>,
    /// What the host has stopped.
    pub suspended: Vec<SuspendView>,
    /// What is wrong with the host: the place of the record, or a configuration not in force.
    pub trouble: Vec<String>,
    /// The edge, if there is one.
    pub edge: Option<EdgeView>,
}

/// Deletions that wait, of items in the graph and of those that left it. What several wait for
/// together is shown once, under who lost them.
fn held(graph: &Graph, parted: &[(Key, Vec<Held>)]) -> Vec<HeldView> {
    let known = graph.items().map(|(key, item)| (key, item.held.as_slice()));
    let gone = parted.iter().map(|(key, held)| (key, held.as_slice()));
    let all = known.chain(gone).flat_map(|(key, held)| held.iter().map(move |held| (key, held)));
    let all = all.chain(graph.cascades());
    let owner = |key: &Key| format!("{}/{}", key.namespace, key.name);
    let mut views: Vec<HeldView> = Vec::new();
    let mut shown: HashMap<&str, usize> = HashMap::new();
    for (key, held) in all {
        if let Some(at) = shown.get(held.digest.as_str()) {
            if views[*at].owner != owner(key) {
                views[*at].owner = owner(&graph.root());
            }
            continue;
        }
        shown.insert(&held.digest, views.len());
        views.push(HeldView {
            owner: owner(key),
            digest: held.digest.clone(),
            reason: held.reason.clone(),
            objects: held.ids.iter().map(ToString::to_string).collect(),
        });
    }
    views
}

/// Holds what was published last.
pub struct Publisher {
    status: watch::Sender<Arc<Document>>,
    flux: watch::Sender<Arc<HashMap<String, FluxHealth>>>,
    cluster: ClusterView,
    told: HashMap<Key, String>,
    /// What was said of the connection before the server fell silent.
    spoken: String,
    epoch_ms: i64,
}

impl Publisher {
    /// Nothing but the daemon itself is known.
    pub fn new(about: DaemonView) -> Self {
        let cluster = ClusterView {
            connected: false,
            server: String::new(),
            version: String::new(),
            message: "connecting".to_owned(),
            blind: BTreeMap::new(),
        };
        let document = Document::starting(about, cluster.clone());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Publisher {
            status: watch::channel(Arc::new(document)).0,
            flux: watch::channel(Arc::default()).0,
            cluster,
            told: HashMap::new(),
            spoken: String::new(),
            epoch_ms: i64::try_from(since.as_millis()).unwrap_or_default(),
        }
    }

    /// The status document as it changes.
    pub fn status(&self) -> watch::Receiver<Arc<Document>> {
        self.status.subscribe()
    }

    /// Readiness of Flux objects as it changes.
    pub fn flux(&self) -> watch::Receiver<Arc<HashMap<String, FluxHealth>>> {
        self.flux.subscribe()
    }

    /// When an item is due, Unix milliseconds.
    pub fn next_ms(&self, item: &Item) -> Option<i64> {
        match &item.phase {
            Phase::Idle { due: Some((at, _)) } => Some(self.epoch_ms.saturating_add_unsigned(*at)),
            _ => None,
        }
    }

    /// True when a failure of a source, or of an end, says something new: a remote that stays away
    /// is told once.
    pub fn news(&mut self, key: &Key, failure: &Failure) -> bool {
        let text = failure.to_string();
        self.told.insert(key.clone(), text.clone()) != Some(text)
    }

    /// True while the latest that was told of it is a failure.
    pub fn ails(&self, key: &Key) -> bool {
        self.told.contains_key(key)
    }

    /// It works: should it fail again, that is news, whatever the words.
    pub fn works(&mut self, key: &Key) {
        self.told.remove(key);
    }

    /// The API server does not answer.
    pub fn cluster_down(&mut self, reason: String) {
        self.cluster.message = reason;
        self.cluster.connected = false;
    }

    /// The API server was asked and does not answer (the text says so), or has answered again.
    pub fn cluster_silent(&mut self, text: Option<String>) {
        self.cluster.connected = text.is_none();
        let spoken = std::mem::replace(&mut self.cluster.message, text.unwrap_or_default());
        if !self.cluster.connected {
            self.spoken = spoken;
        } else {
            self.cluster.message = std::mem::take(&mut self.spoken);
        }
    }

    /// What a watch follows cannot be watched, with the reason, or can be again.
    pub fn blind(&mut self, followed: String, why: Option<String>) {
        match why {
            Some(why) => self.cluster.blind.insert(followed, why),
            None => self.cluster.blind.remove(&followed),
        };
    }

    /// The API server answers.
    pub fn cluster_up(&mut self, server: &str, version: &str, connection: &Connection) {
        self.cluster.blind.clear();
        self.cluster.connected = true;
        server.clone_into(&mut self.cluster.server);
        version.clone_into(&mut self.cluster.version);
        self.cluster.message = if connection.stranger {
            "another cluster than the one the history was made on: nothing is pruned until \
             gitopsd confirm cluster"
                .to_owned()
        } else {
            String::new()
        };
    }

    /// Publishes the state of everything if it has changed. Answers the STATUS line.
    pub fn publish(&mut self, graph: &Graph, beside: Beside) -> String {
        let summary = graph.summary(self.epoch_ms);
        let mut line = summary.line();
        if !self.cluster.connected {
            line = format!("{line}; API server: {}", self.cluster.message);
        }
        for trouble in beside.trouble {
            line = format!("{line}; {trouble}");
        }
        if let Some(edge) = &beside.edge {
            line = format!("{line}; {}", edge.line());
        }
        let held = held(graph, &beside.parted);
        let deletions: usize = held.iter().map(|held| held.objects.len()).sum();
        if deletions > 0 {
            line = format!("{line}; deletions held: {deletions}, see gitopsd status");
        }
        let name = |key: &Key| format!("{}/{}", key.namespace, key.name);
        let ending = beside.ending.iter().map(name);
        let before = self.status.borrow().clone();
        let mut document = Document {
            version: before.version,
            serial: before.serial,
            daemon: DaemonView { render_children: beside.children, ..before.daemon.clone() },
            ready: summary.fine()
                && self.cluster.connected
                && beside.edge.as_ref().is_none_or(|edge| edge.ready),
            cluster: self.cluster.clone(),
            line: line.clone(),
            held,
            ending: ending.collect(),
            suspended: beside.suspended,
            edge: beside.edge,
            summary,
        };
        let unknown =
            |(alias, _): (&Key, &Key)| !self.flux.borrow().contains_key(&alias.to_string());
        if document == *before && !graph.aliases().any(unknown) {
            return line;
        }
        document.serial += 1;
        for new in &document.summary.unsupported {
            if !before.summary.unsupported.contains(new) {
                let UnsupportedView { kind, namespace, name, field } = new;
                let what = if field.is_empty() { String::new() } else { format!(": {field}") };
                let why = match unknown_field(kind, field) {
                    Some(why) => format!(": {why}"),
                    None => " is not supported yet and not acted upon".to_owned(),
                };
                tracing::warn!(
                    message_id = Message::Unsupported.id(),
                    gitopsd_object = format!("{kind}/{namespace}/{name}"),
                    "{kind}/{namespace}/{name}{what}{why}"
                );
            }
        }
        let mut states: HashMap<String, FluxHealth> = document
            .summary
            .items
            .iter()
            .map(|item| {
                let ready = item.ready == Ready::True;
                let key = format!("{}/{}/{}", item.kind, item.namespace, item.name);
                (key, FluxHealth { ready, message: item.message.clone() })
            })
            .collect();
        for (alias, key) in graph.aliases() {
            let state = match states.get(&key.to_string()) {
                // The root does not wait for itself, whatever it is called in Git.
                _ if *key == graph.root() => FluxHealth { ready: true, message: String::new() },
                Some(state) => state.clone(),
                None => continue,
            };
            states.insert(alias.to_string(), state);
        }
        if *self.flux.borrow().as_ref() != states {
            self.flux.send_replace(Arc::new(states));
        }
        self.status.send_replace(Arc::new(document));
        line
    }
}
