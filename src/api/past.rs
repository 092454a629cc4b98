//! Rows of history as the socket shows them.
//!
//! The database is asked on the blocking pool: a slow card must not hold up other answers.

use super::document::{ChangeView, ReplacedView, RunDetail, RunView};
use super::serve::Refused;
use crate::history::{Change, History, HistoryError, Push, RunId, RunRow, Trigger, Verdict};
use std::sync::Arc;

type Shared = Arc<History>;

/// The latest runs, newest first, of one Kustomization or of all.
pub async fn runs(
    history: Shared,
    name: Option<String>,
    limit: u32,
) -> Result<Vec<RunView>, Refused> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = ask(history, move |history| {
        let Some(name) = name else {
            return linked(history, history.runs(None, limit)?).map(Some);
        };
        let Some(owners) = owners(history, &name)? else { return Ok(None) };
        let mut rows = Vec::new();
        for owner in owners {
            rows.extend(history.runs(Some(&owner), limit)?);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(limit);
        linked(history, rows).map(Some)
    });
    match rows.await? {
        Some(rows) => Ok(rows),
        None => {
            let hint = "gitopsd status lists every name".to_owned();
            Err(Refused::new(404, "no run of that name is recorded", Some(hint)))
        }
    }
}

/// One run with its changes.
pub async fn run(history: Shared, said: String) -> Result<RunDetail, Refused> {
    let unknown = || {
        let hint = "gitopsd history lists the runs".to_owned();
        Refused::new(404, &format!("there is no run {said:?}"), Some(hint))
    };
    let id: i64 = said.parse().map_err(|_| unknown())?;
    let found = ask(history, move |history| {
        let Some((row, changes)) = history.run(RunId(id))? else { return Ok(None) };
        let steps = row.steps.clone();
        Ok(linked(history, vec![row])?.pop().map(|run| (run, steps, changes)))
    });
    let (run, steps, changes) = found.await?.ok_or_else(unknown)?;
    Ok(RunDetail { run, objects: changes.into_iter().map(change).collect(), steps })
}

async fn ask<T: Send + 'static>(
    history: Shared,
    call: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(move || call(&history));
    match done.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Refused::new(500, &error.to_string(), error.hint())),
        Err(_) => Err(Refused::new(500, "the database thread ended unexpectedly", None)),
    }
}

/// Owners by what a person typed: `name`, `namespace/name` or `Kustomization/namespace/name`.
fn owners(history: &History, said: &str) -> Result<Option<Vec<String>>, HistoryError> {
    let said = said.strip_prefix("Kustomization/").unwrap_or(said);
    let matches = |owner: &String| {
        owner == said || owner.split_once('/').is_some_and(|(_, name)| name == said)
    };
    // Runs outlive inventories: a name with no rows of its own is looked for as it stands.
    let mut owners: Vec<String> = history.owners()?.into_iter().filter(matches).collect();
    if owners.is_empty() && !history.runs(Some(said), 1)?.is_empty() {
        owners.push(said.to_owned());
    }
    Ok((!owners.is_empty()).then_some(owners))
}

/// The runs as they are shown, each with the images that its commit brought.
fn linked(history: &History, rows: Vec<RunRow>) -> Result<Vec<RunView>, HistoryError> {
    let mut shas: Vec<&str> = rows.iter().filter_map(brought).collect();
    shas.sort_unstable();
    shas.dedup();
    let pushes = history.pushes_of(&shas)?;
    let runs: Vec<RunId> = rows.iter().map(|row| row.id).collect();
    let overtaken = history.brought(&runs)?;
    let views = rows.into_iter().map(|row| {
        let sha = brought(&row).map(str::to_owned);
        let of = pushes.iter().filter(|push| Some(&push.sha) == sha.as_ref());
        let beside = overtaken.iter().filter(|(run, _)| *run == row.id).map(|(_, push)| push);
        let images = beside.chain(of).flat_map(replaced).collect();
        RunView { images, ..view(row) }
    });
    Ok(views.collect())
}

/// The commit that a run brought in: one that healed, say, brought nothing of its commit.
fn brought(row: &RunRow) -> Option<&str> {
    row.revision.split_once("sha1:").map(|(_, sha)| sha).filter(|_| row.trigger.brings())
}

fn replaced(push: &Push) -> Vec<ReplacedView> {
    let shown = push.changes.iter().map(|change| ReplacedView {
        policy: change.policy.clone(),
        automation: push.automation.clone(),
        file: format!("{}:{}", change.file, change.line),
        old: change.old.clone(),
        new: change.new.clone(),
    });
    shown.collect()
}

fn view(row: RunRow) -> RunView {
    let trigger = match &row.trigger {
        Trigger::Request { by } => format!("request by {by}"),
        other => other.to_string(),
    };
    RunView {
        run: row.id.to_string(),
        owner: row.owner,
        trigger,
        revision: row.revision,
        author: row.author,
        subject: row.subject,
        started_ms: row.started_ms,
        finished_ms: row.finished_ms,
        verdict: row.verdict.map_or("running", Verdict::as_str).to_owned(),
        message: row.message,
        changes: u64::from(row.changes),
        images: Vec::new(),
    }
}

fn change(change: Change) -> ChangeView {
    ChangeView {
        object: change.object,
        action: change.verb.as_str().to_owned(),
        file: change.origin,
        lines: change.diff.lines().map(str::to_owned).collect(),
    }
}
