//! One choice of a policy, among the tags that are stored.

use super::{Chosen, Known};
use crate::flux::{DigestReflection, ImagePolicy, ImageRepository};
use crate::history::Choice;
use crate::image::{self, ChooseError};
use crate::pipeline::{Failure, Pipeline, Retry, Step, lock, record};

/// What the tags lead to, before a digest is asked for.
struct Picked {
    tag: String,
    notice: Option<String>,
}

impl Pipeline {
    /// Lets a policy choose. What was chosen before stays in force whatever goes wrong.
    pub async fn choose(&self, policy: &ImagePolicy, repository: &ImageRepository) -> Chosen {
        let name = policy.key().to_string();
        let name = name.split_once('/').map_or(name.as_str(), |(_, name)| name).to_owned();
        let stored = name.clone();
        let before = match self.database(move |history| history.choice(&stored)).await {
            Ok(before) => before,
            Err(failure) => return Chosen::failed(failure),
        };
        let picked = match self.pick(policy, repository).await {
            Ok(picked) => picked,
            Err(failure) => {
                let failure = failure.object(policy.key());
                return Chosen { choice: before, news: false, notice: None, result: Err(failure) };
            }
        };
        let notice = picked.notice.clone();
        let kept = |before, failure: Failure| {
            let result = Err(failure.object(policy.key()));
            Chosen { choice: before, news: false, notice: notice.clone(), result }
        };
        let digest = match self.reflected(policy, repository, &picked.tag, before.as_ref()).await {
            Ok(digest) => digest,
            Err(failure) => return kept(before, failure),
        };
        let choice = Choice {
            name: repository.image.clone(),
            tag: picked.tag,
            digest,
            previous: before.as_ref().map(Choice::whole),
            since_ms: record::now_ms(),
        };
        let news = before.as_ref().is_none_or(|before| before.whole() != choice.whole());
        let choice = match before.clone() {
            Some(same) if !news => same,
            _ => choice,
        };
        if news {
            let (name, choice) = (name.clone(), choice.clone());
            let stored = self.database(move |history| history.choose(&name, &choice)).await;
            if let Err(failure) = stored {
                return kept(before, failure);
            }
        }
        let known = Known { choice: choice.clone(), policy: Some(policy.clone()) };
        lock(&self.images).known.insert(name, known);
        let result = Ok(resolved(&choice));
        Chosen { choice: Some(choice), news, notice: picked.notice, result }
    }

    async fn pick(
        &self,
        policy: &ImagePolicy,
        repository: &ImageRepository,
    ) -> Result<Picked, Failure> {
        self.admitted(policy, repository).await?;
        let (of, asked) = (policy.repository.to_string(), super::scan::asked(repository));
        let judged = policy.clone();
        let picked = self.database(move |history| {
            let stored = history.tags(&of)?.filter(|stored| stored.asked == asked);
            Ok(stored.map(|stored| image::choose(&judged, &stored.tags)))
        });
        let waits = |cause: &str| Failure::new(Step::Choose, "DependencyNotReady", cause);
        match picked.await? {
            None => {
                let of = repository.key();
                Err(waits(&format!("no tags of {of} are stored yet")))
            }
            Some(Err(error @ ChooseError::NoTags)) => Err(waits(&error.to_string())),
            Some(Err(error)) => {
                Err(Failure::new(Step::Choose, "Failure", error.to_string()).retry(Retry::Never))
            }
            Some(Ok(choice)) => Ok(Picked {
                notice: choice.notice.map(|notice| notice.to_string()),
                tag: choice.tag,
            }),
        }
    }

    /// The digest of a tag, where the policy wants it.
    async fn reflected(
        &self,
        policy: &ImagePolicy,
        repository: &ImageRepository,
        tag: &str,
        before: Option<&Choice>,
    ) -> Result<Option<String>, Failure> {
        let same = before.filter(|b| b.name == repository.image && b.tag == tag);
        match (policy.digest, same.and_then(|same| same.digest.clone())) {
            (DigestReflection::Never, _) => Ok(None),
            (DigestReflection::IfNotPresent, Some(digest)) => Ok(Some(digest)),
            _ => self.digest_of(repository, tag).await.map(Some),
        }
    }
}

/// The sentence of the Ready condition, in Flux's words.
fn resolved(choice: &Choice) -> String {
    let Choice { name, tag, digest, previous, .. } = choice;
    let digest = digest.as_ref().map(|d| format!(" with digest {d}")).unwrap_or_default();
    let before = previous.as_ref().map(|p| format!(" (previously {p})")).unwrap_or_default();
    format!("Latest image tag for {name} resolved to {tag}{digest}{before}")
}
