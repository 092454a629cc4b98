//! `gitopsd build`: the whole repository, without a cluster and without a daemon.
//!
//! In the order of use: [`Inputs::open`] reads the directories and keys, `walk` renders everything
//! that the entry path leads to (`sources` and `values` say from which files and variables;
//! `scope`°, `claims`°, `depends`° and `images`° what an API server, the owners of objects, a graph
//! and image automation would say), `report`° is the outcome as agreed, `mask`° takes the secrets out
//! and `yaml`° writes. `check PATH` uses the same walk.
//!
//! Nothing is applied, no Git remote and no cluster is asked, and plaintext exists only in memory
//! and in a private directory on tmpfs while kustomize runs. What a cluster alone could tell
//! (admission, defaults, conflicts with live objects) is not told here.

mod claims;
mod depends;
mod images;
mod inputs;
mod mask;
mod report;
mod scope;
mod sources;
mod values;
mod walk;
mod yaml;

pub use inputs::{Inputs, private};
pub use report::{Entry, Outcome, Report};
pub use walk::Walked;

use super::table::{Cell, Style, Table};
use super::{Context, EXIT_CODES, Exit, terminal::Terminal, words};
use anyhow::Context as _;
use mask::Masks;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use walk::Output;
use yaml::yaml;

const EXAMPLES: &str = "EXAMPLES
  gitopsd build --tree . --path clusters/my-cluster --identity age.key
  gitopsd build --tree . --path clusters/my-cluster --output /tmp/built \\
      --source flux-system/blaster=../blaster
  gitopsd build --tree . --path clusters/my-cluster --json | jq .kustomizations";

/// Render everything that an entry path leads to, offline
///
/// Prints the objects as they would be applied, and the Flux objects among them, which are not
/// applied but carried out by the daemon; or writes DIR/NAMESPACE/KUSTOMIZATION.yaml and
/// DIR/report.json; with --json, prints the report. Values of Secrets and of sealed files are
/// masked, wherever patches and variables have carried them, but for names, for values of less than
/// six characters outside of Secrets, and for what ${NAME:0:8} and the like make of one. What the daemon would refuse is an error, such as one
/// object that two Kustomizations declare differently.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// Directory with the flux-config repository, files that Git does not track included
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// Entry directory inside it, such as clusters/my-cluster
    #[arg(long, value_name = "PATH")]
    path: String,
    #[command(flatten)]
    given: Given,
    /// Print values of Secrets and of sealed files
    #[arg(long)]
    show_secrets: bool,
    /// Write files instead of printing
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What `build` and `check PATH` take beside the tree.
#[derive(Debug, clap::Args)]
pub struct Given {
    /// Directory that stands for another GitRepository; may be repeated
    #[arg(long = "source", value_name = "NAMESPACE/NAME=DIR", value_parser = inputs::mapping)]
    pub sources: Vec<(String, PathBuf)>,
    /// File with age identities that open sealed files; may be repeated
    #[arg(long = "identity", value_name = "KEYFILE")]
    pub identities: Vec<PathBuf>,
    /// kubectl or kustomize to render with
    #[arg(long, hide = true, value_name = "PATH", env = "GITOPSD_RENDER_ENGINE", hide_env = true)]
    pub engine: Option<PathBuf>,
}

/// Walks and prints.
pub fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let walked = Inputs::open(&args.tree, &args.path, &args.given)?.walk()?;
    let terminal = &context.terminal;
    let Walked { report, outputs } = walked;
    match &args.output {
        Some(dir) => {
            store(dir, &report, &outputs, args.show_secrets)?;
            if !terminal.is_json() {
                terminal.out(&summary(&report, terminal.color()))?;
            }
        }
        None if terminal.is_json() => {}
        None => {
            for output in outputs.into_iter().flatten() {
                terminal.out(&yaml(&objects(&output, args.show_secrets)))?;
            }
        }
    }
    if terminal.is_json() {
        terminal.json(&report)?;
    } else {
        tell(&report, terminal);
    }
    let fine = report.kustomizations.iter().all(|entry| entry.result == Outcome::Ok);
    Ok(if fine { Exit::Ok } else { Exit::Problems })
}

fn objects(output: &Output, show_secrets: bool) -> Vec<Value> {
    if show_secrets {
        return output.manifests.iter().map(|manifest| manifest.body().clone()).collect();
    }
    let masks = Masks { opened: output.opened.clone(), substituted: output.substituted.clone() };
    output.manifests.iter().map(|manifest| masks.apply(manifest)).collect()
}

/// Writes a file for each Kustomization, and the report last.
fn store(
    dir: &Path,
    report: &Report,
    outputs: &[Option<Output>],
    show_secrets: bool,
) -> anyhow::Result<()> {
    let mode = if show_secrets { 0o600 } else { 0o644 };
    for (entry, output) in report.kustomizations.iter().zip(outputs) {
        // Names come from the repository: nothing may be written outside the directory.
        anyhow::ensure!(
            plain(&entry.namespace) && plain(&entry.name),
            "{:?} is no name of a Kustomization",
            format!("{}/{}", entry.namespace, entry.name)
        );
        let path = dir.join(&entry.namespace).join(format!("{}.yaml", entry.name));
        match output {
            Some(output) => write(&path, yaml(&objects(output, show_secrets)).as_bytes(), mode)?,
            None => match std::fs::remove_file(&path) {
                // An older result would pass for this one.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            },
        }
    }
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    write(&dir.join("report.json"), &text, 0o644)
}

fn plain(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(good)
}

/// Writes a file whole or not at all.
fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let stored = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(content)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.persist(path)?;
        Ok(())
    };
    stored().with_context(|| path.display().to_string())
}

fn summary(report: &Report, color: bool) -> String {
    let mut table = Table::new(&["KUSTOMIZATION", "RESULT", "OBJECTS", "SOURCE", "PATH"]);
    for entry in &report.kustomizations {
        let style = if entry.result == Outcome::Ok { Style::Good } else { Style::Bad };
        table.row(vec![
            format!("{}/{}", entry.namespace, entry.name).into(),
            Cell::new(entry.result.as_str(), style),
            entry.objects.to_string().into(),
            entry.source.as_str().into(),
            entry.path.as_str().into(),
        ]);
    }
    table.render(color)
}

/// Problems and notices go to stderr.
fn tell(report: &Report, terminal: &Terminal) {
    for entry in &report.kustomizations {
        let name = format!("{}/{}", entry.namespace, entry.name);
        for error in &entry.errors {
            terminal.note(&format!("{name}: {}: {error}", entry.result.as_str()));
        }
        for warning in &entry.warnings {
            terminal.note(&format!("{name}: warning: {warning}"));
        }
        for missing in entry.missing() {
            terminal.note(&format!("{name}: {}", missing.told()));
        }
    }
    if !report.set_aside.is_empty() {
        let aside = words::count(report.set_aside.len(), "manifest");
        terminal.note(&format!("{aside} of Flux itself set aside"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_no_names() {
        for (name, good) in [("apps", true), ("a.b-c_D1", true), ("..", false), ("a/b", false)] {
            assert_eq!(plain(name), good, "{name}");
        }
        assert!(!plain("") && !plain(".hidden"));
    }
}
