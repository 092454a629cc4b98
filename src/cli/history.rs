//! `gitopsd history`: who changed what, when, from which commit.

use super::table::{Cell, Style, Table};
use super::terminal::{Terminal, local};
use super::{Context, EXIT_CODES, Exit, words};
use crate::api::{ApiError, RunDetail, RunView};

const EXAMPLES: &str = "EXAMPLES
  gitopsd history                  the last 20 runs that changed something or failed
  gitopsd history -n 5             the last 5
  gitopsd history apps -n 100
  gitopsd history show 412         one run: every change, and where the time went";

const HEAD: &[&str] = &[
    "RUN",
    "STARTED",
    "KUSTOMIZATION",
    "RESULT",
    "CHANGES",
    "REVISION",
    "TRIGGER",
    "AUTHOR",
    "SUBJECT",
];

/// Show who changed what, when, from which commit
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), args_conflicts_with_subcommands = true)]
pub struct Args {
    /// NAME or NAMESPACE/NAME of a Kustomization
    name: Option<String>,
    /// How many runs
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    number: u32,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show one run: every change with its differences, and the time of each step
    #[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
    Show {
        /// Number of the run
        run: String,
    },
}

/// Asks and prints.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let client = context.client();
    let terminal = &context.terminal;
    if let Some(Verb::Show { run }) = &args.verb {
        let found = client.run(run).await?;
        if terminal.is_json() {
            terminal.json(&found)?;
        } else {
            terminal.out(&detail(&found, terminal))?;
        }
        return Ok(Exit::Ok);
    }
    let runs = client.history(args.name.as_deref(), args.number).await;
    let runs = runs.map_err(|error| meant(error, args.name.as_deref()))?;
    if terminal.is_json() {
        terminal.json(&runs)?;
    } else if runs.is_empty() {
        terminal.note("no runs yet");
    } else {
        terminal.out(&list(&runs, terminal))?;
    }
    Ok(Exit::Ok)
}

/// A number where a name belongs, and nothing has that name: what may have been meant.
fn meant(error: ApiError, name: Option<&str>) -> ApiError {
    match (error, name) {
        (ApiError::Refused { status: 404, .. }, Some(said)) if said.parse::<u32>().is_ok() => {
            let message = format!("nothing is called {said}");
            let hint = Some(format!(
                "for the last {said} runs: gitopsd history -n {said}; for run {said}: gitopsd \
                 history show {said}"
            ));
            ApiError::Refused { status: 404, message, hint }
        }
        (error, _) => error,
    }
}

fn list(runs: &[RunView], terminal: &Terminal) -> String {
    let mut table = Table::new(HEAD);
    for run in runs {
        let failed = run.verdict == "failed";
        // The commit made a change; why it failed matters more than its subject.
        let images: Vec<String> = run.images.iter().map(words::replaced).collect();
        let last = match (failed, images.is_empty()) {
            (true, _) => run.message.clone(),
            (false, true) => run.subject.clone(),
            (false, false) => images.join(", "),
        };
        table.row(vec![
            run.run.as_str().into(),
            local(run.started_ms).into(),
            run.owner.as_str().into(),
            Cell::new(&run.verdict, style(&run.verdict)),
            run.changes.to_string().into(),
            words::revision(&run.revision).into(),
            run.trigger.as_str().into(),
            words::brief(run.author.split(" <").next().unwrap_or_default(), 20).into(),
            words::brief(&last, 72).into(),
        ]);
    }
    table.render(terminal.color())
}

fn style(verdict: &str) -> Style {
    match verdict {
        "succeeded" => Style::Good,
        "failed" => Style::Bad,
        _ => Style::Warn,
    }
}

fn detail(found: &RunDetail, terminal: &Terminal) -> String {
    let run = &found.run;
    let title = format!("run {} of {}", run.run, run.owner);
    let mut text = format!("{}\n", terminal.paint(Style::Bold, &title));
    let finished = match run.finished_ms {
        Some(end) => format!("{}, took {} ms", local(run.started_ms), end - run.started_ms),
        None => local(run.started_ms),
    };
    for (name, value) in [
        ("result", terminal.paint(style(&run.verdict), &run.verdict)),
        ("message", run.message.replace('\n', "\n             ")),
        ("trigger", run.trigger.clone()),
        ("revision", run.revision.clone()),
        ("author", run.author.clone()),
        ("subject", run.subject.clone()),
        ("started", finished),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    }
    for image in &run.images {
        let told = format!("{} ({})", words::replaced(image), image.file);
        text.push_str(&format!("  {:<10} {told}\n", "image"));
    }
    if !found.steps.is_empty() {
        let steps: Vec<String> =
            found.steps.iter().map(|(step, us)| format!("{step} {}", words::micros(*us))).collect();
        text.push_str(&format!("  {:<10} {}\n", "steps", steps.join(", ")));
    }
    for change in &found.objects {
        let style = match change.action.as_str() {
            "created" => Style::Good,
            "deleted" | "recreated" => Style::Bad,
            _ => Style::Warn,
        };
        let file = change.file.as_ref().map(|file| format!(" ({file})")).unwrap_or_default();
        let action = terminal.paint(style, &change.action);
        text.push_str(&format!(
            "\n{action} {}{}\n",
            change.object,
            terminal.paint(Style::Dim, &file)
        ));
        change.lines.iter().for_each(|line| text.push_str(&words::indent(line, "    ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ChangeView;

    #[test]
    fn a_number_that_is_nobodys_name_is_told_with_what_it_may_mean() {
        let refused = |status: u16| ApiError::Refused {
            status,
            message: "no run of that name is recorded".into(),
            hint: None,
        };
        let told = meant(refused(404), Some("5"));
        assert_eq!(told.to_string(), "nothing is called 5");
        let hint = "for the last 5 runs: gitopsd history -n 5; for run 5: gitopsd history show 5";
        assert_eq!(told.hint().as_deref(), Some(hint));
        for (status, name) in [(404, Some("apps")), (404, None), (403, Some("5"))] {
            assert_eq!(meant(refused(status), name), refused(status), "{status} {name:?}");
        }
    }

    #[test]
    fn a_run_is_shown_with_its_changes_and_timings() {
        let run = RunView {
            run: "7".into(),
            owner: "flux-system/apps".into(),
            trigger: "revision".into(),
            revision: "main@sha1:0123456789".into(),
            author: "A <a@b>".into(),
            subject: "web: two replicas".into(),
            started_ms: 0,
            finished_ms: Some(120),
            verdict: "succeeded".into(),
            message: String::new(),
            changes: 1,
            images: Vec::new(),
        };
        let terminal = Terminal::new(Some(false), false);
        let table = list(std::slice::from_ref(&run), &terminal);
        assert!(
            table.lines().nth(1).is_some_and(|line| line.ends_with("A       web: two replicas"))
        );
        let found = RunDetail {
            run,
            objects: vec![ChangeView {
                object: "Deployment/web/a".into(),
                action: "configured".into(),
                file: Some("apps/web.yaml:3".into()),
                lines: vec!["~ spec.replicas: 1 -> 2".into()],
            }],
            steps: vec![("render".into(), 45_000), ("apply".into(), 9_000)],
        };
        let shown = detail(&found, &terminal);
        assert!(shown.starts_with("run 7 of flux-system/apps\n  result     succeeded\n"));
        assert!(shown.contains("  steps      render 45 ms, apply 9 ms\n"));
        assert!(shown.ends_with(
            "\nconfigured Deployment/web/a (apps/web.yaml:3)\n    ~ spec.replicas: 1 -> 2\n"
        ));
    }
}
