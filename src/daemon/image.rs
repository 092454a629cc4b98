//! The loop's side of image automation: effects out, what came of them in, the journal told.

use super::Daemon;
use super::workers::Done;
use crate::api::Refused;
use crate::flux::{ImagePolicy, Key, Kind, NamespacedName, Object};
use crate::graph::{Effect, Event, Item, Ready};
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{
    Automated, Automation, Chosen, Failure, ImageAsk, ImageView, Pushed, Step, Unwell,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

impl Daemon {
    /// Carries out what the graph wants of an image object.
    pub(super) fn image_effect(&mut self, effect: Effect) {
        let object = |key: &Key| self.graph.item(key).map(|item| item.object.clone());
        match effect {
            Effect::Scan { key, trigger } => {
                if let Some(Object::ImageRepository(repository)) = object(&key) {
                    self.workers.scan(*repository, trigger);
                }
            }
            Effect::Choose { key, repository } => {
                if let Some(Object::ImagePolicy(policy)) = object(&key) {
                    self.workers.choose(*policy, repository);
                }
            }
            Effect::Automate { key, source, revision, choices, policies } => {
                let Some(Object::ImageUpdateAutomation(automation)) = object(&key) else { return };
                let Some(git) = self.graph.source(&source).cloned() else { return };
                self.workers.automate(Automation {
                    automation: *automation,
                    tree: self.pipeline.tree(&git.key()),
                    source: git,
                    revision,
                    choices,
                    policies,
                });
            }
            // The others are carried out where the loop stands.
            _ => {}
        }
    }

    /// Takes in what came of it.
    pub(super) fn image_done(&mut self, done: Done) {
        match done {
            Done::Scanned(key, result) => {
                if let Err(failure) = &result {
                    self.tell_image(&key, failure);
                }
                self.handle(Event::Scanned(key, result));
            }
            Done::Chose(key, chosen) => {
                self.tell_choice(&key, &chosen);
                self.handle(Event::Chose(key, chosen));
            }
            Done::Automated(key, result) => {
                match &result {
                    Ok(Automated { pushed: Some(pushed), .. }) => tell_push(&key, pushed),
                    Ok(_) => {}
                    Err(failure) => self.tell_image(&key, failure),
                }
                self.handle(Event::Automated(key, result));
            }
            // The others are taken in where the loop stands.
            _ => {}
        }
    }

    /// A failure is told when it says something new.
    fn tell_image(&mut self, key: &Key, failure: &Failure) {
        if self.publisher.news(key, failure) {
            tracing::warn!(
                message_id = Message::ImageFailed.id(),
                gitopsd_object = %key,
                "{key}: {failure}"
            );
        }
    }

    fn tell_choice(&mut self, key: &Key, chosen: &Chosen) {
        if let (true, Some(choice)) = (chosen.news, &chosen.choice) {
            let before = choice.previous.as_ref().map(|p| format!(", before {p}"));
            tracing::info!(
                message_id = Message::ImageChosen.id(),
                gitopsd_object = %key,
                "{key}: {}{}",
                choice.whole(),
                before.unwrap_or_default()
            );
        }
        if let Err(failure) = &chosen.result
            && failure.reason != "DependencyNotReady"
        {
            self.tell_image(key, failure);
        }
        let first = |_: &&String| self.pipeline.first_notice(key);
        if let Some(notice) = chosen.notice.as_ref().filter(first) {
            tracing::warn!(
                message_id = Message::ImageOrder.id(),
                gitopsd_object = %key,
                "{key}: {notice}"
            );
        }
    }

    /// Asks for everything from the scan to the rollout of what a person named.
    pub(super) fn reconcile_image(&mut self, name: &str, by: &str) -> Result<Vec<Key>, Refused> {
        let image = |key: &Key| !matches!(key.kind, Kind::GitRepository | Kind::Kustomization);
        let mut found = self.graph.find(name);
        found.retain(image);
        if found.is_empty() {
            let hint = "gitopsd images lists every name".to_owned();
            return Err(Refused::new(404, &format!("no image is called {name:?}"), Some(hint)));
        }
        let chain = self.graph.image_chain(&found);
        for key in chain.iter().filter(|key| image(key)) {
            let trigger = Trigger::Request { by: by.to_owned() };
            self.handle(Event::Request(key.clone(), trigger, 0));
        }
        Ok(chain)
    }

    /// Shows the policies, and the repositories that no policy chooses from; or those of one name,
    /// with all of their candidates.
    pub(super) fn images(
        &mut self,
        name: Option<&str>,
        reply: oneshot::Sender<Result<Vec<ImageView>, Refused>>,
    ) {
        let chosen = name.map(|name| self.graph.find(name));
        let unwell: BTreeMap<String, Unwell> = self
            .graph
            .items()
            .filter(|(key, item)| {
                key.kind == Kind::Kustomization && item.condition.status == Ready::False
            })
            .map(|(key, item)| {
                let health = item.failure.as_ref().is_some_and(|f| f.step == Step::Observe);
                let why = item.condition.message.clone();
                (format!("{}/{}", key.namespace, key.name), Unwell { why, health })
            })
            .collect();
        let asks = self.image_asks(chosen.as_deref());
        if asks.is_empty() && name.is_some() {
            let hint = "gitopsd images lists every name".to_owned();
            let message = format!("no image is called {:?}", name.unwrap_or_default());
            // A caller that has gone away needs no answer.
            let _ = reply.send(Err(Refused::new(404, &message, Some(hint))));
            return;
        }
        let (pipeline, whole) = (self.pipeline.clone(), name.is_some());
        tokio::spawn(async move {
            let views = pipeline.images(asks, unwell, whole).await;
            let views = views.map_err(|failure| Refused::new(500, &failure.to_string(), None));
            let _ = reply.send(views);
        });
    }

    /// What is asked about: policies, then repositories without one.
    fn image_asks(&self, chosen: Option<&[Key]>) -> Vec<ImageAsk> {
        let meant =
            |keys: &[&Key]| chosen.is_none_or(|found| keys.iter().any(|key| found.contains(*key)));
        let (mut asks, mut followed) = (Vec::new(), BTreeSet::new());
        for (key, item) in self.graph.items() {
            let Object::ImagePolicy(policy) = &item.object else { continue };
            let at = &policy.repository;
            let repository = Key::new(Kind::ImageRepository, &at.namespace, &at.name);
            if meant(&[key, &repository]) {
                asks.push(self.image_ask(Some((&**policy, item)), &repository));
            }
            followed.insert(repository);
        }
        let lone = self.graph.items().map(|(key, _)| key);
        let lone = lone.filter(|key| key.kind == Kind::ImageRepository && !followed.contains(*key));
        asks.extend(lone.filter(|key| meant(&[*key])).map(|key| self.image_ask(None, key)));
        asks
    }

    /// What the graph knows of a policy and its repository, or of a repository alone.
    fn image_ask(&self, policy: Option<(&ImagePolicy, &Item)>, repository: &Key) -> ImageAsk {
        let from = self.graph.item(repository);
        let of_policy = policy.and_then(|(_, item)| unready(item));
        // A repository that is about to be scanned takes nothing from what is in force.
        let known = |item: &&Item| policy.is_none() || item.condition.status == Ready::False;
        let of_repository = from.filter(known).and_then(unready);
        let of_repository = of_repository.map(|told| match policy {
            Some(_) => format!("{repository}: {told}"),
            None => told,
        });
        let trouble: Vec<String> = of_policy.into_iter().chain(of_repository).collect();
        let spec = from.and_then(|item| match &item.object {
            Object::ImageRepository(repository) => Some((**repository).clone()),
            _ => None,
        });
        let (namespace, name) = (repository.namespace.clone(), repository.name.clone());
        ImageAsk {
            policy: policy.map(|(policy, _)| policy.clone()),
            of: NamespacedName { namespace, name },
            repository: spec,
            notices: policy.map(|(_, item)| item.warnings.clone()).unwrap_or_default(),
            trouble: (!trouble.is_empty()).then(|| trouble.join("; ")),
            next_ms: from.and_then(|item| self.publisher.next_ms(item)),
        }
    }
}

/// Why an item is not ready, if nobody has stopped it.
fn unready(item: &Item) -> Option<String> {
    let ready = item.condition.status == Ready::True;
    (!ready && item.active()).then(|| item.condition.message.clone())
}

fn tell_push(key: &Key, pushed: &Pushed) {
    for change in &pushed.replaced {
        tracing::info!(
            message_id = Message::ImagePushed.id(),
            gitopsd_object = %key,
            gitopsd_revision = pushed.revision.id,
            "{key}: {}:{}: {} -> {} by ImagePolicy {}, pushed as {}",
            change.file,
            change.line,
            change.old,
            change.new,
            change.policy,
            pushed.revision.id
        );
    }
}
