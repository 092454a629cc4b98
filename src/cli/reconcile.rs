//! `gitopsd reconcile`: run now, and follow until it has settled.

use super::object::{self, Within};
use super::status::{in_full, key};
use super::table::Style;
use super::terminal::Terminal;
use super::{Context, Exit, terminal, words};
use crate::api::{Accepted, Client, Document, HeldView, ReconcileAsk};
use crate::graph::{ItemView, Ready};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const EXAMPLES: &str = "EXAMPLES
  gitopsd reconcile                        every Kustomization
  gitopsd reconcile --with-source          ask the Git remotes first
  gitopsd reconcile apps --timeout 15m     one of them, with patience
  gitopsd reconcile apps --no-wait         only ask for it
  gitopsd reconcile image blaster-dev      scan, choose, commit, deploy
  gitopsd reconcile kustomization apps     as flux has it

EXIT CODES
  0 settled and ready   1 not ready, not within the timeout, suspended (if named),
    or the API server does not answer   2 wrong usage
  69 the daemon cannot be reached   78 it cannot, for the configuration is wrong";

/// How long the daemon has to show that it has begun; it does so before it answers, or at once.
const BEGIN: Duration = Duration::from_secs(2);

/// How long before it is due an item of an image's chain counts as under way, milliseconds.
const IMAGE: i64 = 1500;

/// Run now, and follow until it has settled
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME; everything when absent. `image NAME` is an
    /// ImagePolicy or ImageRepository, from its registry to what runs it. Or as flux has it:
    /// kustomization NAME, source git NAME, image repository NAME, image policy NAME, image update
    /// NAME
    #[arg(value_name = "NAME", num_args = 0..=3)]
    names: Vec<String>,
    #[command(flatten)]
    within: Within,
    /// Ask the Git remotes first
    #[arg(long)]
    with_source: bool,
    /// Do not follow
    #[arg(long)]
    no_wait: bool,
    /// Give up following after this time; the run goes on
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = words::duration)]
    timeout: Duration,
}

/// What the names ask for.
fn asks(args: &Args) -> Result<ReconcileAsk, String> {
    // `image` alone is no kind: what is meant is all that hangs from the image.
    let (image, said) = match args.names.as_slice() {
        [image, name] if image == "image" => (true, std::slice::from_ref(name)),
        said => (false, said),
    };
    let name = args.within.name(said)?;
    Ok(ReconcileAsk { name, with_source: args.with_source, image })
}

/// Asks and follows.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let ask = match object::sense(context, asks(args)) {
        Ok(ask) => ask,
        Err(exit) => return Ok(exit),
    };
    let client = context.client();
    let before = client.status(None).await?.serial;
    let accepted = client.reconcile(&ask).await?;
    if args.no_wait {
        return asked(context, &accepted);
    }
    let deadline = Instant::now() + args.timeout;
    let named = ask.name.is_some();
    let mut follower = Follower {
        keys: named.then_some(accepted.keys),
        named,
        sources: args.with_source,
        // A commit waits that long for what is chosen together with its cause.
        about: if ask.image { IMAGE } else { 0 },
        told: BTreeMap::new(),
    };
    let followed = timeout_at(deadline, follower.follow(context, &client, before)).await;
    let late = match followed {
        Ok(document) => document.map(|_| false)?,
        Err(_) => true,
    };
    if late {
        let after = crate::flux::format_duration(args.timeout);
        context.terminal.error(&format!("not settled after {after}; it goes on"));
        context.terminal.note("see gitopsd status");
    }
    // What did not change was compared with nothing: the verdict holds only of a server that is
    // there now.
    let document = client.status_heard(Duration::ZERO, None).await?;
    let exit = follower.result(context, &document)?;
    Ok(if late { Exit::Problems } else { exit })
}

fn asked(context: &Context, accepted: &Accepted) -> anyhow::Result<Exit> {
    if context.terminal.is_json() {
        context.terminal.json(accepted)?;
    } else {
        context.terminal.out(&format!("asked for {}", accepted.keys.join(", ")))?;
    }
    Ok(Exit::Ok)
}

/// What became of the first pass of a daemon.
pub struct First {
    /// Everything is ready.
    pub ready: bool,
    /// What became of each item, with the cause where it is not ready.
    pub text: String,
}

/// How long a daemon that was just started has to open its socket.
const START: Duration = Duration::from_secs(60);

/// Follows a daemon that was just started to the end of its first pass over everything.
pub async fn first(context: &Context, limit: Duration) -> anyhow::Result<First> {
    let client = context.client();
    let began = Instant::now();
    let mut document = loop {
        match client.status(None).await {
            Ok(document) => break document,
            Err(error) if error.retry() && began.elapsed() < START.min(limit) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let told = BTreeMap::new();
    let mut follower = Follower { keys: None, named: false, sources: true, about: 0, told };
    let deadline = began + limit;
    let mut late = false;
    loop {
        for line in follower.progress(&document) {
            context.terminal.note(&line);
        }
        if late || tried(&document) && follower.settled(&document, terminal::now_ms()) {
            break;
        }
        match timeout_at(deadline, client.status(Some(document.serial))).await {
            Ok(next) => document = next?,
            Err(_) => {
                late = true;
                document = client.status(None).await?;
            }
        }
    }
    let mut text = follower.text(&context.terminal, &document);
    if late {
        let after = crate::flux::format_duration(limit);
        text.push_str(&format!("not settled after {after}; it goes on\n"));
    }
    if !document.cluster.connected {
        text.push_str(&format!("API server: {}\n", document.cluster.message));
    }
    let ready = !late && follower.items(&document).iter().all(|item| item.fine());
    Ok(First { ready: ready && document.cluster.connected, text })
}

/// Whether the entry was run, or cannot be.
fn tried(document: &Document) -> bool {
    let of = |kind: &str| {
        let root =
            crate::flux::root("", crate::flux::GitReference::Branch(String::new()), "", START);
        let name = root.kustomization.name;
        document.summary.items.iter().find(|item| item.kind == kind && item.name == name)
    };
    let failed = of("GitRepository").is_some_and(|source| source.failure.is_some());
    failed || of("Kustomization").is_some_and(|k| k.revision.is_some() || k.failure.is_some())
}

/// Follows some items.
struct Follower {
    /// `None` for everything, also what a new revision brings.
    keys: Option<Vec<String>>,
    /// A person asked for this very item.
    named: bool,
    /// With everything: the sources too.
    sources: bool,
    /// How long before it is due an item counts as under way, milliseconds.
    about: i64,
    /// What was told of each item last.
    told: BTreeMap<String, String>,
}

impl Follower {
    /// Waits until the items have settled. Progress goes to stderr, the result to stdout.
    async fn follow(
        &mut self,
        context: &Context,
        client: &Client,
        before: u64,
    ) -> anyhow::Result<Document> {
        // The answer may come a moment before the document that shows the runs as begun.
        let begun = timeout_at(Instant::now() + BEGIN, client.status(Some(before))).await;
        let mut document = match begun {
            Ok(document) => document?,
            Err(_) => client.status(None).await?,
        };
        loop {
            for line in self.progress(&document) {
                context.terminal.note(&line);
            }
            if self.settled(&document, terminal::now_ms()) {
                return Ok(document);
            }
            document = client.status(Some(document.serial)).await?;
        }
    }

    fn items<'a>(&self, document: &'a Document) -> Vec<&'a ItemView> {
        let ours = |item: &&ItemView| match &self.keys {
            Some(keys) => keys.contains(&key(item)),
            None => item.kind == "Kustomization" || self.sources && item.kind == "GitRepository",
        };
        document.summary.items.iter().filter(ours).collect()
    }

    /// A line for each item of which something new is to be told.
    fn progress(&mut self, document: &Document) -> Vec<String> {
        let mut lines = Vec::new();
        for item in self.items(document) {
            let state = match (item.running, item.ready) {
                (true, _) => "running".to_owned(),
                (false, _) if item.suspended.is_some() => "suspended".to_owned(),
                (false, Ready::True) => {
                    format!("ready: {}", words::brief(&item.message, 100))
                }
                (false, Ready::False) => {
                    format!("not ready: {}", words::brief(&item.message, 100))
                }
                (false, Ready::Unknown) => words::brief(&item.message, 100),
            };
            let key = key(item);
            if self.told.get(&key) != Some(&state) {
                lines.push(format!("{key}: {state}"));
                self.told.insert(key, state);
            }
        }
        for owner in &document.ending {
            let state = "left Git: what it owned is being deleted or let go of".to_owned();
            if self.told.get(owner) != Some(&state) {
                lines.push(format!("{owner}: {state}"));
                self.told.insert(owner.clone(), state);
            }
        }
        lines
    }

    /// True when nothing asked for is under way, or about to be. An item that waits for another
    /// one goes on waiting only while something runs at all.
    fn settled(&self, document: &Document, now_ms: i64) -> bool {
        let active = |item: &ItemView| {
            item.running
                || item.suspended.is_none()
                    && item.next_ms.is_some_and(|next| next <= now_ms + self.about)
        };
        let any = document.summary.items.iter().any(active);
        let waits =
            |item: &ItemView| ["DependencyNotReady", "Progressing"].contains(&item.reason.as_str());
        let busy =
            |item: &&ItemView| active(item) || any && item.suspended.is_none() && waits(item);
        document.ending.is_empty() && !self.items(document).iter().any(busy)
    }

    fn result(&self, context: &Context, document: &Document) -> anyhow::Result<Exit> {
        let terminal = &context.terminal;
        let items = self.items(document);
        if !document.cluster.connected {
            terminal.note(&format!("API server: {}", document.cluster.message));
        }
        if terminal.is_json() {
            terminal.json(&items)?;
        } else {
            terminal.out(&self.text(terminal, document))?;
        }
        Ok(if self.fine(document) { Exit::Ok } else { Exit::Problems })
    }

    /// Everything asked for is as it should be, and the API server is there to say so.
    fn fine(&self, document: &Document) -> bool {
        let fine = |item: &&ItemView| item.fine() && !(self.named && item.suspended.is_some());
        document.cluster.connected && self.items(document).iter().all(fine)
    }

    /// What became of each item.
    fn text(&self, terminal: &Terminal, document: &Document) -> String {
        let mut text = String::new();
        for item in self.items(document) {
            let revision = item.revision.as_deref().map(words::revision).unwrap_or_default();
            let key = key(item);
            if let Some(suspended) = &item.suspended {
                let word = terminal.paint(Style::Warn, "suspended");
                text.push_str(&format!("{key} {word}, nothing was done: {suspended}\n"));
                continue;
            }
            if item.ready == Ready::True {
                let objects = match item.kind.as_str() {
                    "Kustomization" => format!(", {}", words::count(item.objects, "object")),
                    "ImageRepository" => format!(", {}", words::count(item.objects, "tag")),
                    _ => String::new(),
                };
                let unseen = !document.cluster.connected && item.kind == "Kustomization";
                let ready = match unseen {
                    true => terminal.paint(Style::Warn, "not verified, was ready"),
                    false => terminal.paint(Style::Good, "ready"),
                };
                let at = if revision.is_empty() { revision } else { format!(" at {revision}") };
                text.push_str(&format!("{key} {ready}{at}{objects}\n"));
                continue;
            }
            text.push_str(&format!("{key} {}\n", terminal.paint(Style::Bad, "not ready")));
            match &item.failure {
                Some(failure) => text.push_str(&in_full(failure, terminal)),
                None => text.push_str(&words::indent(&item.message, "    ")),
            }
        }
        let owners: Vec<String> = self.items(document).into_iter().map(owner).collect();
        let gone =
            |held: &&HeldView| !document.summary.items.iter().any(|item| owner(item) == held.owner);
        let ours = |held: &&HeldView| owners.contains(&held.owner) || gone(held);
        for held in document.held.iter().filter(ours) {
            let line = format!("{}: {}", held.owner, held.sentence());
            text.push_str(&format!("{}\n", terminal.paint(Style::Warn, &line)));
        }
        text
    }
}

/// `namespace/name` of a Kustomization; no held deletion is another item's.
fn owner(item: &ItemView) -> String {
    match item.kind.as_str() {
        "Kustomization" => format!("{}/{}", item.namespace, item.name),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterView, DaemonView};

    fn item(name: &str, running: bool, reason: &str, next_ms: Option<i64>) -> ItemView {
        ItemView {
            kind: "Kustomization".into(),
            namespace: "n".into(),
            name: name.into(),
            ready: Ready::False,
            reason: reason.into(),
            message: "m".into(),
            revision: None,
            author: None,
            subject: None,
            location: String::new(),
            source: None,
            origin: None,
            parent: None,
            suspended: None,
            running,
            next_ms,
            objects: 0,
            warnings: Vec::new(),
            others: Default::default(),
            failure: None,
        }
    }

    fn settled(items: Vec<ItemView>) -> bool {
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        document.summary.items = items;
        let follower = Follower {
            sources: false,
            named: true,
            about: 0,
            keys: Some(vec!["Kustomization/n/a".into()]),
            told: BTreeMap::new(),
        };
        follower.settled(&document, 1_000)
    }

    #[test]
    fn image_and_a_name_ask_for_all_that_hangs_from_it_and_flux_has_words_for_one_object() {
        let asked = |said: &str| {
            let names = said.split_whitespace().map(str::to_owned).collect();
            let (namespace, with_source, no_wait) = (Some("web".to_owned()), false, false);
            let within = Within { namespace: namespace.filter(|_| !said.is_empty()) };
            let ask = asks(&Args { names, within, with_source, no_wait, timeout: BEGIN })?;
            Ok::<_, String>((ask.name, ask.image))
        };
        for (said, name, image) in [
            ("app", "web/app", false),
            ("image app", "web/app", true),
            ("image policy app", "ImagePolicy/web/app", false),
            ("kustomization app", "Kustomization/web/app", false),
            ("ks/app", "Kustomization/web/app", false),
        ] {
            assert_eq!(asked(said), Ok((Some(name.to_owned()), image)), "{said}");
        }
        assert_eq!(asked(""), Ok((None, false)));
        assert!(asked("a b").is_err());
    }

    #[test]
    fn what_runs_is_due_or_waits_for_a_running_one_has_not_settled() {
        let other = || item("b", true, "", None);
        assert!(!settled(vec![item("a", true, "", None)]));
        assert!(!settled(vec![item("a", false, "", Some(1_000))]));
        assert!(settled(vec![item("a", false, "BuildFailed", Some(1_001)), other()]));
        assert!(!settled(vec![item("a", false, "DependencyNotReady", None), other()]));
        assert!(settled(vec![item("a", false, "DependencyNotReady", None)]));
        let stopped = ItemView {
            suspended: Some("by root".into()),
            ..item("a", false, "DependencyNotReady", Some(0))
        };
        assert!(settled(vec![stopped, other()]));
    }

    #[test]
    fn progress_is_told_when_it_changes() {
        let mut follower = Follower {
            sources: false,
            named: true,
            about: 0,
            keys: Some(vec!["Kustomization/n/a".into()]),
            told: BTreeMap::new(),
        };
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        document.summary.items = vec![item("a", true, "", None), item("b", true, "", None)];
        assert_eq!(follower.progress(&document), ["Kustomization/n/a: running"]);
        assert_eq!(follower.progress(&document), Vec::<String>::new());
        document.summary.items = vec![item("a", false, "", None)];
        assert_eq!(follower.progress(&document), ["Kustomization/n/a: not ready: m"]);
    }

    #[test]
    fn ready_is_said_only_of_a_server_that_answers_and_of_what_is_not_suspended() {
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        document.cluster.connected = true;
        let ready = ItemView {
            ready: Ready::True,
            revision: Some("main@sha1:0123456789".into()),
            objects: 2,
            ..item("a", false, "ReconciliationSucceeded", None)
        };
        document.summary.items = vec![ready.clone()];
        let plain = Terminal::new(Some(false), false);
        let told = |document: &Document, named: bool| {
            let told = BTreeMap::new();
            let follower = Follower { sources: false, named, keys: None, about: 0, told };
            (follower.fine(document), follower.text(&plain, document))
        };
        let line = "Kustomization/n/a ready at main@0123456, 2 objects\n";
        assert_eq!(told(&document, true), (true, line.to_owned()));

        document.cluster.connected = false;
        let line = "Kustomization/n/a not verified, was ready at main@0123456, 2 objects\n";
        assert_eq!(told(&document, false), (false, line.to_owned()));

        document.cluster.connected = true;
        document.summary.items = vec![ItemView { suspended: Some("by root".into()), ..ready }];
        let line = "Kustomization/n/a suspended, nothing was done: by root\n";
        assert_eq!(told(&document, true), (false, line.to_owned()));
        assert_eq!(told(&document, false), (true, line.to_owned()));
    }

    #[test]
    fn held_deletions_are_told_also_of_what_left_git_and_its_end_is_waited_for() {
        let mut document = Document::starting(DaemonView::default(), ClusterView::default());
        let told = BTreeMap::new();
        let follower = Follower { sources: false, named: false, keys: None, about: 0, told };
        document.ending = vec!["n/gone".into()];
        assert!(!follower.settled(&document, 0));
        document.ending.clear();
        assert!(follower.settled(&document, 0));
        document.held = vec![HeldView {
            owner: "n/gone".into(),
            digest: "3f9a".into(),
            reason: "holds data".into(),
            objects: vec!["PersistentVolumeClaim/web/data".into()],
        }];
        let told = follower.text(&Terminal::new(Some(false), false), &document);
        let expected = "n/gone: deleting PersistentVolumeClaim/web/data is held: holds data; \
                        to delete: gitopsd confirm 3f9a\n";
        assert_eq!(told, expected);
    }
}
