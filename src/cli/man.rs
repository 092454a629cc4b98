//! `gitopsd man`, for the package: a page for the program and one for each verb.
//!
//! They are made of the definitions that `--help` prints, so the two cannot differ. `man.roff` is
//! what `gitopsd(8)` says beyond them; `gitopsd.config(5)` is written by hand and lies in
//! `packaging/`, where a test holds it against the keys that the reader knows.

use super::{Cli, Exit};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io::{self, Write};
use std::path::PathBuf;

const EXAMPLES: &str = "EXAMPLES
  gitopsd man ./man

EXIT CODES
  0 written   1 could not be written   2 wrong usage";

/// What `gitopsd(8)` says beyond its options.
const MORE: &str = include_str!("man.roff");

/// Write the man pages into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, hide = true)]
pub struct Args {
    /// The directory; it is made
    directory: PathBuf,
}

/// Writes them.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(&args.directory)?;
    for (name, text) in pages()? {
        std::fs::write(args.directory.join(name), text)?;
    }
    Ok(Exit::Ok)
}

/// File name and roff text of each page.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let verbs: Vec<Command> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let names = verbs.iter().map(|verb| format!("gitopsd-{}", verb.get_name()));
    let pointers: Vec<String> = names.chain(["gitopsd.config".to_owned()]).collect();
    let mut pages = vec![("gitopsd.8".to_owned(), page(command, MORE, &pointers)?)];
    for verb in verbs {
        let name = format!("gitopsd-{}", verb.get_name());
        let verb = verb.clone().name(name.clone()).display_name(name.clone());
        pages.push((format!("{name}.8"), page(verb, "", &["gitopsd".to_owned()])?));
    }
    Ok(pages)
}

fn page(command: Command, more: &str, pointers: &[String]) -> io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let verbs = command.get_subcommands().any(|verb| !verb.is_hide_set());
    let title = command.get_display_name().unwrap_or("gitopsd").to_uppercase();
    // No date: the same source makes the same page.
    let man = Man::new(command.after_help(""))
        .title(title)
        .section("8")
        .date("")
        .source(concat!("gitopsd ", env!("CARGO_PKG_VERSION")))
        .manual("GitOps for one k3s box");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if verbs {
        man.render_subcommands_section(&mut text)?;
    }
    text.write_all(more.as_bytes())?;
    sections(&after, &mut text)?;
    writeln!(text, ".SH \"SEE ALSO\"")?;
    let section = |name: &String| if name.ends_with("config") { 5 } else { 8 };
    let all: Vec<String> = pointers
        .iter()
        .map(|name| format!("\\fB{}\\fR({})", dashes(name), section(name)))
        .collect();
    writeln!(text, "{}", all.join(",\n"))?;
    Ok(text)
}

/// `EXAMPLES` and its like: a heading at the margin, lines below it kept as they are.
fn sections(after: &str, text: &mut Vec<u8>) -> io::Result<()> {
    let mut open = false;
    for line in after.lines() {
        if line.is_empty() {
            continue;
        }
        if line.starts_with(' ') {
            // A leading zero-width character: a line may begin with a dot or a quote.
            writeln!(text, "\\&{}", dashes(&line.replace('\\', "\\e")))?;
            continue;
        }
        if open {
            writeln!(text, ".fi")?;
        }
        writeln!(text, ".SH \"{line}\"\n.nf")?;
        open = true;
    }
    if open {
        writeln!(text, ".fi")?;
    }
    Ok(())
}

/// A hyphen that can be copied and typed.
fn dashes(text: &str) -> String {
    text.replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_on_credentials_names_every_one_that_the_unit_hands_over() {
        let section = MORE.split(".SH ").find(|part| part.starts_with("CREDENTIALS")).expect("one");
        let bold =
            section.lines().filter(|line| line.starts_with(".B ") || line.starts_with(".BR "));
        let said: String =
            bold.map(|line| format!("{} ", line.replace(['\\', '"', ','], ""))).collect();
        for (id, _) in crate::config::CREDENTIALS {
            assert!(said.split(' ').any(|word| word == id), "{id} is not among {said}");
        }
    }

    #[test]
    fn every_verb_has_a_page_with_its_examples_and_the_way_back() {
        let pages = pages().expect("memory can be written to");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"gitopsd.8") && names.contains(&"gitopsd-status.8"), "{names:?}");
        assert!(
            !names.contains(&"gitopsd-man.8") && !names.contains(&"gitopsd-help.8"),
            "{names:?}"
        );
        for (name, text) in &pages {
            let text = String::from_utf8_lossy(text);
            for part in
                [".TH GITOPSD", ".SH NAME", ".SH \"EXAMPLES\"", ".SH \"EXIT CODES\"", "SEE ALSO"]
            {
                assert!(text.contains(part), "{name} lacks {part}:\n{text}");
            }
        }
    }

    #[test]
    fn examples_keep_their_lines_and_backslashes() {
        let mut text = Vec::new();
        sections("EXAMPLES\n  a --b \\\n    .c\n\nEXIT CODES\n  0 done", &mut text)
            .expect("memory");
        assert_eq!(
            String::from_utf8_lossy(&text),
            ".SH \"EXAMPLES\"\n.nf\n\\&  a \\-\\-b \\e\n\\&    .c\n.fi\n.SH \"EXIT CODES\"\n.nf\n\\&  0 done\n.fi\n"
        );
    }
}
