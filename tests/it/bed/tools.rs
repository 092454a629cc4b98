//! Where the programs of the test bed are.
//!
//! `GITOPSD_TEST_BIN` names the directory, as `tests/run.sh` sets it; else `tests/tools.sh` is
//! asked, which builds what is missing and may take ten minutes the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The directory that holds testcluster, kubectl, kine, kwok and sops.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        if let Some(dir) = std::env::var_os("GITOPSD_TEST_BIN") {
            return PathBuf::from(dir);
        }
        let script = source("tests/tools.sh");
        let output = Command::new(&script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("tests/tools.sh can be run");
        assert!(output.status.success(), "{} failed; its messages are above", script.display());
        let text = String::from_utf8(output.stdout).expect("a path in UTF-8");
        PathBuf::from(text.lines().last().expect("tests/tools.sh prints the directory last"))
    })
}

/// A file of the source tree.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Lays out k3s's data directory below `dir` and returns its kubectl,
/// `DIR/data/current/bin/kubectl`: upstream's kubectl in k3s's place.
pub fn k3s_data(dir: &Path) -> PathBuf {
    let home = dir.join("data/testbed/bin");
    fs::create_dir_all(&home).expect("a directory of the test");
    for name in ["kubectl", "k3s"] {
        let to = home.join(name);
        // A link costs nothing; across file systems it takes a copy of 140 MB.
        if fs::hard_link(bin().join(name), &to).is_err() {
            fs::copy(bin().join(name), &to).expect("the test bed's kubectl");
        }
    }
    std::os::unix::fs::symlink("testbed", dir.join("data/current")).expect("a fresh directory");
    dir.join("data/current/bin/kubectl")
}
