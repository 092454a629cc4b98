//! A repository as its author has it: a work tree, and a bare repository that it pushes to.
//!
//! The git program does the work, so that what gitopsd reads was written by somebody else. Pushes go
//! to the bare repository's directory and do not appear in the server's log of requests.

use super::{GitServer, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The age key that opens the sealed files of `tests/examples/`. It protects nothing.
pub const TEST_KEY: &str = include_str!("../../examples/age.key");

/// `NAME=VALUE` lines: what is in the sealed files, to be looked for where it must not be.
pub const SECRETS: &str = include_str!("../../examples/secrets.txt");

/// What the examples say in place of a Git server's address.
const PLACEHOLDER: &str = "http://git.test.invalid";

/// The tag that a pipeline of the example application would give its image: what its script prints.
pub fn pipeline_tag(branch: &str, number: u32) -> String {
    let script = tools::source("tests/examples/games/blaster/ci/tag.sh");
    let output = Command::new("sh")
        .arg(script)
        .env("CI_COMMIT_BRANCH", branch)
        .env("CI_PIPELINE_IID", number.to_string())
        .env("CI_PIPELINE_CREATED_AT", "2026-11-22T09:41:07Z")
        .output()
        .expect("sh is everywhere");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a tag").trim().to_owned()
}

/// A work tree bound to a bare repository.
pub struct Repo {
    work: TempDir,
    bare: PathBuf,
}

impl Repo {
    /// Makes `NAME.git` on a server, say `infra/flux-config`, and an empty work tree.
    pub fn create(server: &GitServer, name: &str) -> Repo {
        let work = TempDir::with_prefix("gitopsd-work-").expect("a temporary directory");
        let repo = Repo { work, bare: server.root().join(format!("{name}.git")) };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo.git(&["init", "--quiet", "--bare", "--initial-branch=main", repo.bare_str()]);
        // As on GitHub and GitLab, any commit that a ref reaches can be asked for.
        let bare = ["--git-dir", repo.bare_str(), "config"];
        repo.git(&[&bare[..], &["uploadpack.allowReachableSHA1InWant", "true"]].concat());
        repo.git(&[&bare[..], &["http.receivepack", "true"]].concat());
        repo
    }

    /// Copies `tests/examples/EXAMPLE` into the work tree, with the placeholder of the Git server
    /// replaced by `url` (without a slash at the end).
    pub fn load_example(&self, example: &str, url: &str) {
        let from = tools::source("tests/examples").join(example);
        self.copy(&from, self.path(), url);
    }

    fn copy(&self, from: &Path, to: &Path, url: &str) {
        fs::create_dir_all(to).expect("a work tree can be written");
        for entry in fs::read_dir(from).expect("an example is a directory") {
            let entry = entry.expect("an example can be read");
            let target = to.join(entry.file_name());
            if entry.file_type().expect("an example can be read").is_dir() {
                self.copy(&entry.path(), &target, url);
            } else {
                let text = fs::read_to_string(entry.path()).expect("examples are text");
                fs::write(target, text.replace(PLACEHOLDER, url)).expect("ours to write");
            }
        }
    }

    /// The work tree.
    pub fn path(&self) -> &Path {
        self.work.path()
    }

    /// The bare repository on the server.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// Writes a file of the work tree, directories included.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("ours to write");
        fs::write(path, text).expect("ours to write");
    }

    /// The text of a file of the work tree.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Replaces a text that must be there.
    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} does not contain {from:?}");
        self.write(path, &text.replace(from, to));
    }

    /// Removes a file or a directory.
    pub fn remove(&self, path: &str) {
        let path = self.path().join(path);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Commits the whole work tree, even if nothing changed, and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.head()
    }

    /// The id of the commit that the work tree is at.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Pushes the commit that the work tree is at to a branch.
    pub fn push(&self, branch: &str) {
        self.git(&["push", "--quiet", self.bare_str(), &format!("HEAD:refs/heads/{branch}")]);
    }

    /// The same even if the branch loses commits by it.
    pub fn force_push(&self, branch: &str) {
        self.git(&["push", "--quiet", self.bare_str(), &format!("+HEAD:refs/heads/{branch}")]);
    }

    /// Tags the commit that the work tree is at and pushes the tag.
    pub fn tag(&self, name: &str) {
        self.git(&["tag", "--annotate", "--force", "--message", name, name]);
        self.git(&["push", "--quiet", self.bare_str(), &format!("+refs/tags/{name}")]);
    }

    /// Deletes a branch on the server.
    pub fn delete_branch(&self, branch: &str) {
        self.git(&["push", "--quiet", self.bare_str(), &format!(":refs/heads/{branch}")]);
    }

    /// Takes the work tree back to a commit, to rewrite history from there.
    pub fn reset(&self, commit: &str) {
        self.git(&["reset", "--quiet", "--hard", commit]);
    }

    /// Runs git in the work tree and returns what it prints; it must succeed.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = git().arg("-C").arg(self.path()).args(arguments).output();
        let output = output.expect("git can be run");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {}: {error}", arguments.join(" "));
        String::from_utf8(output.stdout).expect("git prints UTF-8 here")
    }

    fn bare_str(&self) -> &str {
        self.bare.to_str().expect("temporary directories have plain names")
    }
}

/// The git program without the machine's and the user's configuration.
pub fn git() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada Tester")
        .env("GIT_AUTHOR_EMAIL", "ada@test.invalid")
        .env("GIT_COMMITTER_NAME", "Ada Tester")
        .env("GIT_COMMITTER_EMAIL", "ada@test.invalid")
        .stdin(std::process::Stdio::null());
    command
}
