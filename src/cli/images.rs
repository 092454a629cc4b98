//! `gitopsd images`: which tag of which image is there, chosen and running, and why.

use super::table::{Cell, Style, Table};
use super::terminal::{Terminal, now_ms};
use super::{Context, EXIT_CODES, Exit, words};
use crate::pipeline::{ImageView, RunningView};

const EXAMPLES: &str = "EXAMPLES
  gitopsd images                   every image policy, and repositories without one
  gitopsd images blaster-dev       the tags in its order, and why each was not chosen
  gitopsd images --json | jq -r '.[] | [.policy, .chosen.tag] | @tsv'
  gitopsd reconcile image blaster-dev";

const COLUMNS: &str = "COLUMNS
  POLICY    the ImagePolicy; none (NAME) is an ImageRepository that no policy chooses from
  IMAGE     the image, as its ImageRepository names it
  LATEST    of the tags that the registry listed last, the first in the policy's order; without a
            policy, by name
  CHOSEN    the tag in force, which is written where a marker names the policy; it differs from
            LATEST while the policy is suspended, or cannot choose
  DEPLOYED  the tag that each Kustomization has applied, TAG in KUSTOMIZATION; where that is not
            healthy, also the tag that was healthy last
  SCANNED   how long ago the registry listed its tags
  NEXT      when it is asked again
  With NAME each tag has a line: KEY is what of it is compared, WHY why it was not chosen.";

const HEAD: &[&str] = &["POLICY", "IMAGE", "LATEST", "CHOSEN", "DEPLOYED", "SCANNED", "NEXT"];

/// Show which tag of which image is there, chosen and running
///
/// Exits with 0 only if every policy and repository that is shown is ready, and every Kustomization
/// healthy that runs what a policy chose.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{COLUMNS}\n\n{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// NAME or NAMESPACE/NAME of an ImagePolicy or ImageRepository
    name: Option<String>,
}

/// Asks and prints.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let images = context.client().images(args.name.as_deref()).await?;
    let terminal = &context.terminal;
    if terminal.is_json() {
        terminal.json(&images)?;
    } else if images.is_empty() {
        terminal.note("no image policies and no image repositories");
    } else if args.name.is_some() {
        let told: Vec<String> =
            images.iter().map(|image| detail(image, terminal, now_ms())).collect();
        terminal.out(&told.join("\n"))?;
    } else {
        terminal.out(&list(&images, terminal, now_ms()))?;
    }
    Ok(if images.iter().all(fine) { Exit::Ok } else { Exit::Problems })
}

fn fine(image: &ImageView) -> bool {
    image.failure.is_none() && image.deployed.iter().all(|running| !failing(running))
}

/// True for an image in a Kustomization that is not healthy, or that was never healthy there and is
/// not ready for another reason.
fn failing(view: &RunningView) -> bool {
    view.trouble.is_some() && (view.unhealthy || !was_healthy(view))
}

/// Whether the image that runs was healthy once.
fn was_healthy(view: &RunningView) -> bool {
    view.running.healthy.as_ref() == Some(&view.running.image)
}

/// The policy, or the repository that has none.
fn name(image: &ImageView) -> &str {
    image.policy.as_deref().unwrap_or(&image.repository)
}

fn list(images: &[ImageView], terminal: &Terminal, now_ms: i64) -> String {
    let mut table = Table::new(HEAD);
    for image in images {
        let chosen = image.chosen.as_ref().map(|choice| choice.tag.as_str()).unwrap_or("-");
        let current = image.policy.is_none() || image.latest.as_deref() == Some(chosen);
        let running = image.deployed.iter().map(|view| deployed(image, view));
        let running: Vec<String> = running.collect();
        let bad = image.deployed.iter().any(failing);
        table.row(vec![
            match &image.policy {
                Some(policy) => policy.as_str().into(),
                None => format!("none ({})", image.repository).into(),
            },
            image.image.as_str().into(),
            image.latest.as_deref().unwrap_or("-").into(),
            Cell::new(chosen, if current { Style::Plain } else { Style::Warn }),
            Cell::new(&running.join(", "), if bad { Style::Bad } else { Style::Plain }),
            ago(image.scanned_ms, now_ms).into(),
            Cell::new(&soon(image.next_ms, now_ms), Style::Dim),
        ]);
    }
    let mut text = table.render(terminal.color());
    for (style, lines) in [(Style::Bad, troubles(images)), (Style::Warn, notices(images))] {
        if !lines.is_empty() {
            text.push('\n');
        }
        for line in lines {
            text.push_str(&format!("{}\n", terminal.paint(style, &line)));
        }
    }
    text
}

/// The tag of an image, or the whole of it where it is another image.
fn tag<'a>(image: &ImageView, whole: &'a str) -> &'a str {
    whole.strip_prefix(&image.image).and_then(|rest| rest.strip_prefix(':')).unwrap_or(whole)
}

fn deployed(image: &ImageView, view: &RunningView) -> String {
    let name = view.running.owner.split_once('/').map_or("", |(_, name)| name);
    let what = format!("{} in {name}", tag(image, &view.running.image));
    match (failing(view), &view.running.healthy) {
        (false, _) => what,
        (true, Some(_)) if was_healthy(view) => format!("{what} (not healthy any more)"),
        (true, Some(healthy)) => {
            format!("{what} (not healthy, {} was)", tag(image, healthy))
        }
        (true, None) => format!("{what} (not healthy)"),
    }
}

fn ago(ms: Option<i64>, now_ms: i64) -> String {
    ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", words::span(now_ms - ms)))
}

fn soon(ms: Option<i64>, now_ms: i64) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("in {}", words::span(ms - now_ms)))
}

fn troubles(images: &[ImageView]) -> Vec<String> {
    let mut told = Vec::new();
    for image in images {
        told.extend(image.failure.iter().map(|failure| format!("{}: {failure}", name(image))));
        for view in image.deployed.iter().filter(|view| failing(view)) {
            let cause = view.trouble.as_deref().unwrap_or_default();
            told.push(format!("{}: {}: {cause}", name(image), view.running.owner));
        }
    }
    told
}

fn notices(images: &[ImageView]) -> Vec<String> {
    let told = images.iter().flat_map(|image| {
        image.notices.iter().map(move |notice| format!("{}: {notice}", name(image)))
    });
    told.collect()
}

fn detail(image: &ImageView, terminal: &Terminal, now_ms: i64) -> String {
    let mut text = format!("{}\n", terminal.paint(Style::Bold, name(image)));
    let chosen = image.chosen.as_ref();
    let since = chosen.map(|choice| format!(", since {}", super::terminal::local(choice.since_ms)));
    let previous = chosen.and_then(|choice| choice.previous.clone());
    let mut lines = vec![
        ("image", image.image.clone()),
        ("repository", image.repository.clone()),
        ("policy", if image.policy.is_none() { "none".to_owned() } else { String::new() }),
        ("latest", image.latest.clone().unwrap_or_default()),
        ("tags", image.latest_tags.join(", ")),
        (
            "chosen",
            chosen.map(|choice| choice.whole()).unwrap_or_default() + &since.unwrap_or_default(),
        ),
        ("before", previous.unwrap_or_default()),
    ];
    lines.extend(image.deployed.iter().map(|view| ("deployed", deployed(image, view))));
    let scanned = format!("{}, {} tags", ago(image.scanned_ms, now_ms), image.tags);
    lines.extend([("scanned", scanned), ("next", soon(image.next_ms, now_ms))]);
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("  {name:<10} {value}\n"));
    }
    for (style, lines) in [
        (Style::Bad, troubles(std::slice::from_ref(image))),
        (Style::Warn, notices(std::slice::from_ref(image))),
    ] {
        lines.iter().for_each(|l| text.push_str(&format!("  {}\n", terminal.paint(style, l))));
    }
    if image.candidates.is_empty() {
        return text;
    }
    let mut table = Table::new(&["TAG", "KEY", "WHY"]);
    for candidate in &image.candidates {
        let (why, style) = match &candidate.lost {
            None => ("chosen", Style::Good),
            Some(lost) => (lost.as_str(), Style::Dim),
        };
        let key = candidate.key.as_deref().filter(|key| *key != candidate.tag).unwrap_or_default();
        table.row(vec![candidate.tag.as_str().into(), key.into(), Cell::new(why, style)]);
    }
    text.push('\n');
    text.push_str(&table.render(terminal.color()));
    if image.more > 0 {
        text.push_str(&format!("and {} more\n", image.more));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Choice, Deployed};
    use crate::pipeline::Candidate;

    fn view() -> ImageView {
        ImageView {
            policy: Some("flux-system/blaster-dev".into()),
            repository: "flux-system/blaster".into(),
            image: "r.example/blaster".into(),
            latest: Some("dev-2".into()),
            chosen: Some(Choice {
                name: "r.example/blaster".into(),
                tag: "dev-2".into(),
                digest: None,
                previous: Some("r.example/blaster:dev-1".into()),
                since_ms: 0,
            }),
            deployed: vec![RunningView {
                running: Deployed {
                    policy: "flux-system/blaster-dev".into(),
                    owner: "flux-system/blaster".into(),
                    image: "r.example/blaster:dev-2".into(),
                    healthy: Some("r.example/blaster:dev-2".into()),
                    healthy_ms: Some(1),
                },
                trouble: None,
                unhealthy: false,
            }],
            tags: 2,
            scanned_ms: Some(1_000),
            next_ms: Some(61_000),
            ..ImageView::default()
        }
    }

    #[test]
    fn the_help_explains_every_column() {
        let words = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        let lines =
            COLUMNS.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let explained: Vec<String> = lines.map(words).filter(|word| word != "With").collect();
        assert_eq!(explained, HEAD);
        assert!(COLUMNS.lines().all(|line| line.len() <= 100), "a terminal of 100 columns");
    }

    #[test]
    fn a_policy_is_one_line_with_what_is_there_chosen_and_running() {
        let terminal = Terminal::new(Some(false), false);
        let text = list(&[view()], &terminal, 11_000);
        let line = text.lines().nth(1).expect("a row");
        let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).collect();
        let expected = [
            "flux-system/blaster-dev",
            "r.example/blaster",
            "dev-2",
            "dev-2",
            "dev-2 in blaster",
            "10s ago",
            "in 50s",
        ];
        assert_eq!(cells.iter().map(|cell| cell.trim()).collect::<Vec<_>>(), expected);
        assert!(fine(&view()));
    }

    #[test]
    fn a_rollout_that_fails_names_the_tag_the_cause_and_the_last_healthy_one() {
        let mut bad = view();
        bad.deployed[0].running.healthy = Some("r.example/blaster:dev-1".into());
        bad.deployed[0].trouble = Some("cannot pull".into());
        let terminal = Terminal::new(Some(false), false);
        let text = list(std::slice::from_ref(&bad), &terminal, 0);
        assert!(text.contains("dev-2 in blaster (not healthy, dev-1 was)"), "{text}");
        assert!(
            text.ends_with("\nflux-system/blaster-dev: flux-system/blaster: cannot pull\n"),
            "{text}"
        );
        assert!(!fine(&bad));
    }

    #[test]
    fn an_image_that_was_healthy_once_and_is_not_now_is_a_problem() {
        let terminal = Terminal::new(Some(false), false);
        let mut later = view();
        later.deployed[0].trouble = Some("cannot fetch".into());
        assert!(fine(&later), "its Kustomization is not ready, and what it applied runs on");
        later.deployed[0].unhealthy = true;
        assert!(!fine(&later));
        let text = list(std::slice::from_ref(&later), &terminal, 0);
        assert!(text.contains("dev-2 in blaster (not healthy any more)"), "{text}");
        assert!(text.ends_with(": flux-system/blaster: cannot fetch\n"), "{text}");
    }

    #[test]
    fn a_repository_without_a_policy_shows_its_tags_and_one_that_waits_says_why() {
        let terminal = Terminal::new(Some(false), false);
        let lone = ImageView {
            policy: None,
            chosen: None,
            latest_tags: vec!["dev-2".into(), "dev-1".into()],
            deployed: Vec::new(),
            ..view()
        };
        let text = list(std::slice::from_ref(&lone), &terminal, 11_000);
        let line = text.lines().nth(1).expect("a row");
        let cells: Vec<&str> = line.split_whitespace().collect();
        let expected = ["none", "(flux-system/blaster)", "r.example/blaster", "dev-2", "-"];
        assert_eq!(cells[..5], expected, "{text}");
        let told = detail(&lone, &terminal, 11_000);
        assert!(told.starts_with("flux-system/blaster\n"), "{told}");
        assert!(told.contains("  tags       dev-2, dev-1\n"), "{told}");
        assert!(told.contains("  policy     none\n"), "{told}");
        assert!(fine(&lone));

        let waits = ImageView { failure: Some("no tags are stored yet".into()), ..view() };
        let text = list(std::slice::from_ref(&waits), &terminal, 0);
        assert!(text.ends_with("\nflux-system/blaster-dev: no tags are stored yet\n"), "{text}");
        assert!(!fine(&waits));
    }

    #[test]
    fn the_candidates_of_one_policy_stand_in_order_with_what_each_lacked() {
        let candidate = |tag: &str, lost: Option<&str>| Candidate {
            tag: tag.into(),
            key: tag.strip_prefix("dev-").map(str::to_owned),
            lost: lost.map(str::to_owned),
        };
        let listed = ImageView {
            candidates: vec![candidate("dev-2", None), candidate("dev-1", Some("older"))],
            more: 3,
            ..view()
        };
        let text = detail(&listed, &Terminal::new(Some(false), false), 0);
        assert!(text.contains("  before     r.example/blaster:dev-1\n"), "{text}");
        assert!(
            text.ends_with(
                "\nTAG    KEY  WHY\ndev-2  2    chosen\ndev-1  1    older\nand 3 more\n"
            ),
            "{text}"
        );
    }
}
