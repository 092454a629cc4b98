//! What is wrong with what was said, all of it at once: each thing under the flag that said it.
//!
//! Nobody wrote the file that the answers go into, so no place in it is named to whoever said a flag.
//! What no flag has said keeps its place, and is a matter of the configuration: a value that comes
//! from what stands, or from another file beside.

use super::Args;
use super::answers::Missing;
use super::tell::Halt;
use crate::cli::Exit;
use crate::cli::check::Finding;
use crate::config::{Problem, Problems};
use crate::secrets::Plaintext;
use std::path::Path;

/// What was found so far.
#[derive(Debug, Default)]
pub struct Faults {
    /// Each under its flag.
    flags: Vec<Finding>,
    /// More is wrong with the flags than that a file cannot be read.
    usage: bool,
    /// What no flag is to blame for.
    files: Vec<Problem>,
}

impl Faults {
    /// What a flag says, if it can be meant so; else what is wrong, and what to say instead.
    pub fn read<T>(&mut self, flag: &str, said: Result<T, (String, &str)>) -> Option<T> {
        match said {
            Ok(meant) => Some(meant),
            Err((found, fix)) => {
                self.blame(flag, found, fix);
                None
            }
        }
    }

    /// The file that a flag names. One that cannot be read counts as there, but empty: what else is
    /// wrong does not follow from that.
    pub fn file(&mut self, flag: &str, read: anyhow::Result<Plaintext>) -> Plaintext {
        read.unwrap_or_else(|error| {
            self.flags.push(Finding::fail(flag, format!("{error:#}"), None));
            Plaintext::default()
        })
    }

    /// What is wrong with the configuration in which `own` is the file of the answers.
    pub fn config(&mut self, args: &Args, own: &Path, problems: Vec<Problem>) {
        let own = own.display().to_string();
        for problem in problems {
            let flag = match &problem {
                Problem::Invalid { place, key, .. } if *place.file == *own => args.flag(key),
                _ => None,
            };
            match (flag, problem) {
                (Some(flag), Problem::Invalid { what, fix, .. }) => self.blame(flag, what, &fix),
                (_, problem) => self.files.push(problem),
            }
        }
    }

    /// What nobody has said, where nobody is there to be asked.
    pub fn unsaid(&mut self, missing: &[Missing]) {
        // The scan shows what there is to compare, whether or not somebody is asked.
        if matches!(missing, [] | [Missing::HostKey]) {
            return;
        }
        let flags: Vec<&str> = missing.iter().map(|missing| missing.flags()).collect();
        let found = format!("not said: {}", flags.join("; "));
        self.blame("flags", found, "say it, or run this on a terminal to be asked");
    }

    /// Goes on only where nothing is wrong.
    pub fn stop(self) -> Result<(), Halt> {
        if self.flags.is_empty() && self.files.is_empty() { Ok(()) } else { Err(self.halt()) }
    }

    /// Everything that is wrong. Wrong usage is said where only the flags are to blame.
    pub fn halt(self) -> Halt {
        let Faults { flags: mut found, usage, files } = self;
        let exit = match (files.is_empty(), usage) {
            (false, _) => Exit::Config,
            (true, true) => Exit::Usage,
            (true, false) => Exit::Problems,
        };
        if !files.is_empty() {
            found.push(Finding::fail("configuration", Problems(files).to_string(), None));
        }
        Halt::Found(found, exit)
    }

    fn blame(&mut self, flag: &str, found: String, fix: &str) {
        self.usage = true;
        self.flags.push(Finding::fail(flag, found, Some(fix.to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::answers::{Answers, Recovery};
    use crate::config::Place;

    const OWN: &str = "/etc/gitopsd/config.d/50-init.yaml";

    fn args(said: &[&str]) -> Args {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("init"));
        let words = std::iter::once("init").chain(said.iter().copied());
        let matches = command.try_get_matches_from(words).expect("flags of init");
        <Args as clap::FromArgMatches>::from_arg_matches(&matches).expect("flags of init")
    }

    fn invalid(file: &str, key: &str, what: &str) -> Problem {
        let place = Place { file: file.into(), line: 7 };
        Problem::Invalid { place, key: key.into(), what: what.into(), fix: "mend it".into() }
    }

    /// `what: found` of each, and the exit code.
    fn told(faults: Faults) -> (Vec<String>, Exit) {
        let Halt::Found(found, exit) = faults.halt() else { panic!("it is foreseen") };
        (found.iter().map(|f| format!("{}: {}", f.what, f.found)).collect(), exit)
    }

    #[test]
    fn every_wrong_flag_is_told_under_its_own_name_and_files_beside_them() {
        let said = args(&["--interval", "soon", "--commit", "abc", "--username", "me"]);
        let wrong = || {
            let mut faults = Faults::default();
            let none =
                faults.read::<String>("--repo", Err(("no scheme".to_owned(), "say https://…")));
            assert_eq!(none, None);
            assert_eq!(faults.read("--path", Ok("a")), Some("a"));
            let problems = ["root.ref.commit", "root.interval", "root.credentials.username"];
            let problems = problems.map(|key| invalid(OWN, key, "wrong"));
            faults.config(&said, Path::new(OWN), problems.into());
            faults
        };
        let mut expected: Vec<String> = vec!["--repo: no scheme".to_owned()];
        expected.extend(["--commit", "--interval", "--username"].map(|f| format!("{f}: wrong")));
        assert_eq!(told(wrong()), (expected.clone(), Exit::Usage));

        let mut faults = wrong();
        let other = "/etc/gitopsd/config.yaml";
        let problems = ["root.interval", "limits.workers"].map(|key| invalid(other, key, "off"));
        faults.config(&said, Path::new(OWN), problems.into());
        faults.unsaid(&[Missing::Path, Missing::HostKey]);
        let host_key = "--known-hosts FILE, or --host-key-fingerprint SHA256:…";
        expected.extend([
            format!("flags: not said: --path DIRECTORY, such as clusters/my-cluster; {host_key}"),
            format!(
                "configuration: {other}:7: root.interval: off, mend it\n\
                 {other}:7: limits.workers: off, mend it"
            ),
        ]);
        assert_eq!(told(faults), (expected, Exit::Config));
    }

    #[test]
    fn a_value_that_no_flag_has_said_is_not_blamed_on_one() {
        let said = args(&["--token-file", "/token", "--branch", "main"]);
        let mut faults = Faults::default();
        let problems = ["root.credentials.username", "root.ref.tag", "root.ref.name"];
        let problems = problems.map(|key| invalid(OWN, key, "off"));
        faults.config(&said, Path::new(OWN), problems.into());
        let lines = [
            format!("configuration: {OWN}:7: root.credentials.username: off, mend it"),
            format!("{OWN}:7: root.ref.tag: off, mend it"),
            format!("{OWN}:7: root.ref.name: off, mend it"),
        ];
        assert_eq!(told(faults), (vec![lines.join("\n")], Exit::Config));
    }

    #[test]
    fn a_file_that_cannot_be_read_stands_in_the_way_and_is_no_wrong_usage_by_itself() {
        let unread = || {
            let mut faults = Faults::default();
            let content = faults.file("--age-key", Err(anyhow::anyhow!("/k: is not there")));
            assert!(content.expose().is_empty());
            faults
        };
        let line = "--age-key: /k: is not there".to_owned();
        assert_eq!(told(unread()), (vec![line.clone()], Exit::Problems));
        let mut faults = unread();
        faults.unsaid(&[Missing::HostKey]);
        assert_eq!(told(faults), (vec![line], Exit::Problems));
        let mut faults = unread();
        faults.unsaid(&[Missing::Recovery]);
        assert_eq!(told(faults).1, Exit::Usage);
        assert!(unread().stop().is_err() && Faults::default().stop().is_ok());
    }

    #[test]
    fn every_key_that_is_written_has_the_flag_that_said_it_and_no_other() {
        let usual = ["--repo", "https://h/r", "--path", "a", "--interval", "5m", "--username", "u"];
        let more = ["--kubeconfig", "/k", "--recovery", "age1b"];
        let nothing = args(&[]);
        for reference in ["--branch", "--tag", "--semver", "--commit"] {
            let said = args(&[&usual[..], &more, &[reference, "v1"]].concat());
            let answers = Answers {
                url: said.repo.clone(),
                path: said.path.clone(),
                reference: said.reference(),
                interval: said.interval.clone(),
                username: said.username.clone(),
                kubeconfig: said.kubeconfig.clone(),
                recovery: said.recovery.clone().map(Recovery::Recipient),
            };
            let text = answers.config();
            // The keys above a line, by their depth.
            let mut keys: Vec<&str> = Vec::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (key, value) = line.split_once(':').expect("a key");
                keys.truncate((key.len() - key.trim_start().len()) / 2);
                keys.push(key.trim_start());
                let path = keys.join(".");
                assert!(value.is_empty() || said.flag(&path).is_some(), "{path}");
                assert_eq!(nothing.flag(&path), None, "{path}");
            }
        }
    }
}
