//! The image policies as `gitopsd images` shows them: what is there, chosen and running, and why.

use crate::flux::{ImagePolicy, ImageRepository};
use crate::history::{Choice, Deployed, History, HistoryError};
use crate::image::{self, Verdict};
use crate::pipeline::{Failure, Pipeline, lock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One policy that is to be shown, with what the graph knows of it.
pub struct ImageAsk {
    /// The policy.
    pub policy: ImagePolicy,
    /// Its repository, if that is declared.
    pub repository: Option<ImageRepository>,
    /// Notices of the policy.
    pub notices: Vec<String>,
    /// Why the policy, or its repository, is not ready.
    pub failure: Option<Failure>,
    /// When the repository is scanned next, Unix milliseconds.
    pub next_ms: Option<i64>,
    /// Kustomizations that are not ready, `namespace/name`, and why.
    pub unwell: BTreeMap<String, String>,
}

/// One image policy as shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// Its repository, `namespace/name`.
    pub repository: String,
    /// The image without a tag, as the repository names it.
    pub image: String,
    /// The tag that comes first among those that are stored.
    pub latest: Option<String>,
    /// What is in force.
    pub chosen: Option<Choice>,
    /// What runs it.
    pub deployed: Vec<RunningView>,
    /// How many tags are stored.
    pub tags: usize,
    /// When the registry listed them last, Unix milliseconds.
    pub scanned_ms: Option<i64>,
    /// When it is asked next, Unix milliseconds.
    pub next_ms: Option<i64>,
    /// What an operator should know.
    pub notices: Vec<String>,
    /// Why the policy or its repository is not ready.
    pub failure: Option<String>,
    /// The tags in the order of the policy, where one is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Candidates beyond those that are listed.
    #[serde(default)]
    pub more: usize,
}

/// One Kustomization that runs an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningView {
    /// The Kustomization and its image.
    #[serde(flatten)]
    pub running: Deployed,
    /// Why it is not ready.
    pub trouble: Option<String>,
}

/// One tag and how it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The tag.
    pub tag: String,
    /// What of it is compared; `None` where it does not come that far.
    pub key: Option<String>,
    /// Why it was not chosen; `None` for the one that is.
    pub lost: Option<String>,
}

/// Candidates in one answer: the socket bounds its answers, and nobody reads more.
const CANDIDATES: usize = 1000;

impl Pipeline {
    /// Shows policies; `whole` with all of their candidates.
    pub async fn images(
        &self,
        asks: Vec<ImageAsk>,
        whole: bool,
    ) -> Result<Vec<ImageView>, Failure> {
        let scanned: Vec<Option<i64>> = {
            let images = lock(&self.images);
            let of = |ask: &ImageAsk| {
                let listed = images.listed.get(&ask.repository.as_ref()?.key())?;
                Some(listed.at_ms)
            };
            asks.iter().map(of).collect()
        };
        self.database(move |history| {
            let running = history.running()?;
            let shown = asks.into_iter().zip(scanned);
            shown.map(|(ask, scanned)| view(history, ask, scanned, &running, whole)).collect()
        })
        .await
    }
}

/// The tags in the order of a policy, with why each was not chosen.
fn candidates(policy: &ImagePolicy, tags: &[String]) -> Vec<Candidate> {
    let judged = image::explain(policy, tags).candidates.into_iter();
    let shown = judged.map(|candidate| Candidate {
        lost: (candidate.verdict != Verdict::Chosen).then(|| candidate.verdict.words()),
        tag: candidate.tag,
        key: candidate.key,
    });
    shown.collect()
}

fn view(
    history: &History,
    ask: ImageAsk,
    scanned: Option<i64>,
    running: &[Deployed],
    whole: bool,
) -> Result<ImageView, HistoryError> {
    let ImageAsk { policy, repository, notices, failure, next_ms, unwell } = ask;
    let name = format!("{}/{}", policy.namespace, policy.name);
    let stored = history.tags(&policy.repository.to_string())?;
    let tags = stored.as_ref().map(|stored| stored.tags.as_slice()).unwrap_or_default();
    let candidates = candidates(&policy, tags);
    let latest = candidates.iter().find(|c| c.lost.is_none()).map(|c| c.tag.clone());
    let mine = running.iter().filter(|row| row.policy == name);
    let deployed = mine
        .map(|row| RunningView { trouble: unwell.get(&row.owner).cloned(), running: row.clone() });
    let listed = if whole { candidates.len().min(CANDIDATES) } else { 0 };
    Ok(ImageView {
        repository: policy.repository.to_string(),
        image: repository.map(|repository| repository.image).unwrap_or_default(),
        latest,
        chosen: history.choice(&name)?,
        deployed: deployed.collect(),
        tags: tags.len(),
        scanned_ms: scanned.or_else(|| stored.as_ref().map(|stored| stored.scanned_ms)),
        next_ms,
        notices,
        failure: failure.map(|failure| failure.to_string()),
        more: if whole { candidates.len() - listed } else { 0 },
        candidates: candidates.into_iter().take(listed).collect(),
        policy: name,
    })
}
