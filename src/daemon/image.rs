//! The loop's side of image automation: effects out, what came of them in, the journal told.

use super::Daemon;
use super::workers::Done;
use crate::api::Refused;
use crate::flux::{Key, Kind, Object};
use crate::graph::{Effect, Event, Ready};
use crate::history::Trigger;
use crate::logging::Message;
use crate::pipeline::{Automated, Automation, Chosen, Failure, ImageAsk, ImageView, Pushed};
use std::collections::BTreeMap;
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
        // Once: its words follow the tags.
        let known = self.graph.item(key).is_some_and(|item| !item.warnings.is_empty());
        if let Some(notice) = chosen.notice.as_ref().filter(|_| !known) {
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

    /// Shows the policies, or those of one name with all of their candidates.
    pub(super) fn images(
        &mut self,
        name: Option<&str>,
        reply: oneshot::Sender<Result<Vec<ImageView>, Refused>>,
    ) {
        let chosen = name.map(|name| self.graph.find(name));
        let unwell: BTreeMap<String, String> = self
            .graph
            .items()
            .filter(|(key, item)| {
                key.kind == Kind::Kustomization && item.condition.status == Ready::False
            })
            .map(|(key, item)| {
                (format!("{}/{}", key.namespace, key.name), item.condition.message.clone())
            })
            .collect();
        let asks: Vec<ImageAsk> = self
            .graph
            .items()
            .filter_map(|(key, item)| {
                let Object::ImagePolicy(policy) = &item.object else { return None };
                let at = &policy.repository;
                let repository = Key::new(Kind::ImageRepository, &at.namespace, &at.name);
                let meant = |found: &Vec<Key>| found.contains(key) || found.contains(&repository);
                if !chosen.as_ref().is_none_or(meant) {
                    return None;
                }
                let from = self.graph.item(&repository);
                let repository = from.and_then(|item| match &item.object {
                    Object::ImageRepository(repository) => Some((**repository).clone()),
                    _ => None,
                });
                Some(ImageAsk {
                    policy: (**policy).clone(),
                    repository,
                    notices: item.warnings.clone(),
                    failure: item.failure.clone().or_else(|| from?.failure.clone()),
                    next_ms: from.and_then(|item| self.publisher.next_ms(item)),
                    unwell: unwell.clone(),
                })
            })
            .collect();
        if asks.is_empty() && name.is_some() {
            let hint = "gitopsd images lists every name".to_owned();
            let message = format!("no image is called {:?}", name.unwrap_or_default());
            // A caller that has gone away needs no answer.
            let _ = reply.send(Err(Refused::new(404, &message, Some(hint))));
            return;
        }
        let (pipeline, whole) = (self.pipeline.clone(), name.is_some());
        tokio::spawn(async move {
            let views = pipeline.images(asks, whole).await;
            let views = views.map_err(|failure| Refused::new(500, &failure.to_string(), None));
            let _ = reply.send(views);
        });
    }
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
