//! The image policies as `gitopsd images` shows them: what is there, chosen and running, and why.
//! A repository that no policy chooses from is shown too, with its tags.

use crate::flux::{ImagePolicy, ImageRepository, NamespacedName};
use crate::history::{Choice, Deployed, History, HistoryError};
use crate::image::{self, Verdict};
use crate::pipeline::{Failure, Pipeline, lock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is to be shown, with what the graph knows of it.
pub struct ImageAsk {
    /// The policy; none for a repository that no policy chooses from.
    pub policy: Option<ImagePolicy>,
    /// The repository's name.
    pub of: NamespacedName,
    /// The repository, if it is declared.
    pub repository: Option<ImageRepository>,
    /// Notices of the policy.
    pub notices: Vec<String>,
    /// Why the policy, or its repository, is not ready.
    pub trouble: Option<String>,
    /// When the repository is scanned next, Unix milliseconds.
    pub next_ms: Option<i64>,
}

/// Why a Kustomization is not ready.
pub struct Unwell {
    /// In a sentence.
    pub why: String,
    /// Whether something that it applied is not healthy.
    pub health: bool,
}

/// One image policy as shown, or a repository that no policy chooses from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// The policy, `namespace/name`.
    pub policy: Option<String>,
    /// Its repository, `namespace/name`.
    pub repository: String,
    /// The image without a tag, as the repository names it.
    pub image: String,
    /// The tag that comes first among those that are stored: in the order of the policy, else by
    /// name.
    pub latest: Option<String>,
    /// The last tags by name, where no policy orders them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latest_tags: Vec<String>,
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
    /// Whether that is because something that it applied is not healthy.
    #[serde(default)]
    pub unhealthy: bool,
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

/// Tags that are shown of a repository without a policy, as many as Flux names.
const LATEST_TAGS: usize = 10;

impl Pipeline {
    /// Shows policies; `whole` with all of their candidates. `unwell` are the Kustomizations,
    /// `namespace/name`, that are not ready.
    pub async fn images(
        &self,
        asks: Vec<ImageAsk>,
        unwell: BTreeMap<String, Unwell>,
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
            let running: Vec<RunningView> =
                history.running()?.into_iter().map(|row| RunningView::of(row, &unwell)).collect();
            let shown = asks.into_iter().zip(scanned);
            shown.map(|(ask, scanned)| view(history, ask, scanned, &running, whole)).collect()
        })
        .await
    }
}

impl RunningView {
    fn of(running: Deployed, unwell: &BTreeMap<String, Unwell>) -> Self {
        let found = unwell.get(&running.owner);
        RunningView {
            trouble: found.map(|unwell| unwell.why.clone()),
            unhealthy: found.is_some_and(|unwell| unwell.health),
            running,
        }
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
    running: &[RunningView],
    whole: bool,
) -> Result<ImageView, HistoryError> {
    let ImageAsk { policy, of, repository, notices, trouble, next_ms } = ask;
    let stored = history.tags(&of.to_string())?;
    let tags = stored.as_ref().map(|stored| stored.tags.as_slice()).unwrap_or_default();
    let shown = ImageView {
        repository: of.to_string(),
        image: repository.map(|repository| repository.image).unwrap_or_default(),
        tags: tags.len(),
        scanned_ms: scanned.or_else(|| stored.as_ref().map(|stored| stored.scanned_ms)),
        next_ms,
        notices,
        failure: trouble,
        ..ImageView::default()
    };
    let Some(policy) = policy else {
        let latest_tags = tags.iter().take(LATEST_TAGS).cloned().collect();
        return Ok(ImageView { latest: tags.first().cloned(), latest_tags, ..shown });
    };
    let name = format!("{}/{}", policy.namespace, policy.name);
    let candidates = candidates(&policy, tags);
    let latest = candidates.iter().find(|c| c.lost.is_none()).map(|c| c.tag.clone());
    let mine = running.iter().filter(|view| view.running.policy == name);
    let listed = if whole { candidates.len().min(CANDIDATES) } else { 0 };
    Ok(ImageView {
        latest,
        chosen: history.choice(&name)?,
        deployed: mine.cloned().collect(),
        more: if whole { candidates.len() - listed } else { 0 },
        candidates: candidates.into_iter().take(listed).collect(),
        policy: Some(name),
        ..shown
    })
}
