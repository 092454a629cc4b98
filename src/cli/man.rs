//! `gitopsd man`, for the package: a page for the program and one for each verb.
//!
//! They are made of the definitions that `--help` prints, so the two cannot differ. What a verb is
//! followed by, as in `gitopsd edge down`, stands on the verb's own page. `man.roff` is what
//! `gitopsd(8)` says beyond them; `gitopsd.config(5)` is written by hand and lies in `packaging/`,
//! where a test holds it against the keys that the reader knows.

use super::{Cli, Exit};
use clap::{Arg, Command, CommandFactory};
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
    // The program's verbs have pages of their own, theirs have not.
    let below = verbs && command.get_name() != "gitopsd";
    let parts = below.then(|| parts(&command)).transpose()?;
    let synopsis = synopsis(&command);
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
    writeln!(text, ".SH SYNOPSIS\n{synopsis}")?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    match &parts {
        None if verbs => man.render_subcommands_section(&mut text)?,
        None => {}
        Some(parts) => text.extend_from_slice(parts),
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

/// The line of a command: options with what they take, which clap_mangen leaves out, then what has
/// no name. What need not be said stands in brackets.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut line = vec![format!("\\fB{}\\fR", dashes(name))];
    let shown = |arg: &&Arg| !arg.is_hide_set();
    let mut options: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    options.retain(|arg| !arg.is_positional());
    options.sort_by_key(|arg| arg.get_display_order());
    for arg in options {
        let short = arg.get_short().map(|short| format!("-{short}"));
        let long = arg.get_long().map(|long| format!("--{long}"));
        let names = short.into_iter().chain(long).map(|name| format!("\\fB{}\\fR", dashes(&name)));
        let names = names.collect::<Vec<_>>().join("|");
        line.push(bracketed(arg.is_required_set(), format!("{names}{}", takes(arg))));
    }
    for arg in command.get_positionals().filter(shown) {
        let several = arg.get_num_args().is_some_and(|number| number.max_values() > 1);
        let word = bracketed(arg.is_required_set(), takes(arg).trim_start().to_owned());
        line.push(if several { format!("{word}...") } else { word });
    }
    if command.has_subcommands() {
        line.push(bracketed(command.is_subcommand_required_set(), "\\fICOMMAND\\fR".to_owned()));
    }
    line.join(" ")
}

fn bracketed(required: bool, text: String) -> String {
    if required { text } else { format!("[{text}]") }
}

/// What an argument takes, behind a space; nothing where it takes nothing.
fn takes(arg: &Arg) -> String {
    if !arg.get_action().takes_values() {
        return String::new();
    }
    let names = arg.get_value_names().unwrap_or_default();
    format!(" \\fI{}\\fR", dashes(&names.join(" ")))
}

/// What a verb is followed by: the whole line, what it does, its own options.
fn parts(verb: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    writeln!(text, ".SH SUBCOMMANDS")?;
    let shown = |part: &&Command| !part.is_hide_set() && part.get_name() != "help";
    for part in verb.get_subcommands().filter(shown) {
        let usage = part.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        writeln!(text, ".TP\n\\fB{}\\fR", dashes(usage))?;
        let about = part.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "{}", dashes(&about))?;
        let own = |arg: &&Arg| {
            !arg.is_global_set()
                && !arg.is_hide_set()
                && !arg.is_positional()
                && arg.get_id() != "help"
        };
        for arg in part.get_arguments().filter(own) {
            let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
            let long = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let option = dashes(&format!("{short}{long}"));
            let takes = takes(arg);
            writeln!(text, ".RS\n.TP\n\\fB{option}\\fR{takes}\n{}\n.RE", dashes(&help))?;
        }
    }
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
    fn every_page_that_is_referred_to_is_there_and_what_follows_a_verb_stands_on_its_own() {
        let pages = pages().expect("memory can be written to");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for (page, text) in &pages {
            let text = String::from_utf8_lossy(text).replace("\\-", "-");
            let text = text.replace("\\fB", " ").replace("\\fR", "");
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            let mut missing = words.filter_map(|word| word.strip_suffix("(8)"));
            let missing = missing.find(|name| {
                name.starts_with("gitopsd") && !names.contains(&format!("{name}.8").as_str())
            });
            assert_eq!(missing, None, "{page} refers to it");
        }
        let edge = pages.iter().find(|(name, _)| name == "gitopsd-edge.8").expect("a page");
        let text = String::from_utf8_lossy(&edge.1);
        for part in ["\\fBgitopsd edge down [OPTIONS]\\fR", "\\fB\\-y, \\-\\-yes\\fR"] {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
    }

    #[test]
    fn a_synopsis_shows_what_each_option_takes() {
        let pages = pages().expect("memory can be written to");
        let synopsis = |name: &str| {
            let (_, text) = pages.iter().find(|(page, _)| page == name).expect("a page");
            let text = String::from_utf8_lossy(text).replace("\\-", "-");
            let text = ["\\fB", "\\fI", "\\fR"].iter().fold(text, |t, font| t.replace(font, ""));
            let (_, after) = text.split_once(".SH SYNOPSIS\n").expect("a synopsis");
            after.lines().next().unwrap_or_default().to_owned()
        };
        let shared = "[--config PATH] [--socket PATH] [--json] [--color WHEN] [-h|--help]";
        for (name, line) in [
            ("gitopsd.8", format!("gitopsd {shared} [-V|--version] COMMAND")),
            ("gitopsd-status.8", format!("gitopsd status [-w|--watch] {shared} [NAME]")),
            (
                "gitopsd-history.8",
                format!("gitopsd history [-n|--number N] {shared} [NAME] [COMMAND]"),
            ),
            (
                "gitopsd-suspend.8",
                format!(
                    "gitopsd suspend [-n|--namespace NAMESPACE] [--for TIME] [--reason TEXT] \
                     {shared} NAME..."
                ),
            ),
        ] {
            assert_eq!(synopsis(name), line);
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
