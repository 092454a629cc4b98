//! Pure: which files of a tree a Source passes on (Flux: GitRepository, Ignore).
//!
//! The patterns are gitignore's, read as Flux's library reads them: every path is judged by
//! itself, the last pattern that matches it or one of its directories wins, and `!` can bring back
//! a file below an excluded directory (git itself would not). `.sourceignore` files count in the
//! order in which they are met, root first, then `spec.ignore`.
//!
//! The trap: one single user pattern, anywhere, replaces the defaults for images, archives and CI
//! files; only the version control patterns stay. A repository with a one-line `.sourceignore`
//! therefore ships `.github/workflows/*.yaml`. We copy that, since trees must equal Flux's.

use sha2::{Digest, Sha256};

/// Always on, but a later `!` may bring them back.
const VCS: &[&str] = &[".git/", ".gitignore", ".gitmodules", ".gitattributes"];

/// On while no user pattern exists.
#[rustfmt::skip]
const DEFAULTS: &[&str] = &[
    "*.jpg", "*.jpeg", "*.gif", "*.png", "*.wmv", "*.flv", "*.tar.gz", "*.zip",
    ".github/", ".circleci/", ".travis.yml", ".gitlab-ci.yml", "appveyor.yml", ".drone.yml",
    "cloudbuild.yaml", "codeship-services.yml", "codeship-steps.yml",
    "**/.goreleaser.yml", "**/.sops.yaml", "**/.flux.yaml",
];

/// Name of the files that hold user patterns.
pub const IGNORE_FILE: &str = ".sourceignore";

/// The compiled rules of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    patterns: Vec<Pattern>,
    digest: String,
}

impl Rules {
    /// Rules that leave nothing out.
    pub fn none() -> Rules {
        Rules { patterns: Vec::new(), digest: String::new() }
    }

    /// Compiles the `.sourceignore` files (`directory`, text; the root is the empty directory) in
    /// the order given, then `spec.ignore`.
    pub fn new(files: &[(String, String)], spec: Option<&str>) -> Rules {
        let mut user: Vec<Pattern> = Vec::new();
        for (directory, text) in files {
            user.extend(lines(text).map(|line| Pattern::parse(line, directory)));
        }
        user.extend(lines(spec.unwrap_or_default()).map(|line| Pattern::parse(line, "")));
        let defaults = if user.is_empty() { DEFAULTS } else { &[] };
        let built_in = VCS.iter().chain(defaults).map(|line| Pattern::parse(line, ""));
        let patterns: Vec<Pattern> = built_in.chain(user).collect();
        let mut hash = Sha256::new();
        for pattern in &patterns {
            // Lengths keep neighbours apart.
            for part in [pattern.domain.join("/"), pattern.said.clone()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Rules { patterns, digest }
    }

    /// Whether `path` (relative, `/`-separated) is left out. A directory that is left out may
    /// still have files that are not: see [`Rules::reincludes`].
    pub fn excludes(&self, path: &str, is_dir: bool) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let last = self.patterns.iter().rev().find(|pattern| pattern.matches(&path, is_dir));
        last.is_some_and(|pattern| !pattern.include)
    }

    /// Whether any pattern brings files back, so that an excluded directory has to be looked into.
    pub fn reincludes(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.include)
    }

    /// SHA-256 over the rules in hex: with a git tree id it names the files that are left.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    said: String,
    domain: Vec<String>,
    parts: Vec<String>,
    include: bool,
    dir_only: bool,
}

/// Lines that hold a pattern.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty())
}

impl Pattern {
    fn parse(line: &str, domain: &str) -> Pattern {
        let (include, rest) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let rest = if rest.ends_with("\\ ") { rest } else { rest.trim_end_matches(' ') };
        let (dir_only, rest) = match rest.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut parts: Vec<String> = rest.split('/').map(str::to_owned).collect();
        if parts.len() == 1 {
            // A bare name matches at any depth.
            parts.insert(0, "**".to_owned());
        } else {
            parts.retain(|part| !part.is_empty());
        }
        let domain = domain.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        Pattern { said: line.to_owned(), domain, parts, include, dir_only }
    }

    fn matches(&self, path: &[&str], is_dir: bool) -> bool {
        let Some(below) = path.get(self.domain.len()..).filter(|below| !below.is_empty()) else {
            return false;
        };
        let inside = self.domain.iter().zip(path).all(|(domain, part)| domain == part);
        inside && self.prefix(&self.parts, below, is_dir)
    }

    /// Whether `parts` match `path` itself or one of its directories.
    fn prefix(&self, parts: &[String], path: &[&str], is_dir: bool) -> bool {
        let Some((part, rest)) = parts.split_first() else {
            // What is left over lies below a match, which then was a directory.
            return !path.is_empty() || !self.dir_only || is_dir;
        };
        if part == "**" {
            if rest.is_empty() {
                return path.len() > 1 || (path.len() == 1 && (!self.dir_only || is_dir));
            }
            return (0..path.len()).any(|skip| self.prefix(rest, &path[skip..], is_dir));
        }
        match path.split_first() {
            Some((name, below)) => wildcard(part, name) && self.prefix(rest, below, is_dir),
            None => false,
        }
    }
}

/// `*`, `?`, `[a-z]`, `[!a]` and `\` within one name. Linear but for the last star, so that no
/// pattern can stall us.
fn wildcard(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if let Some(after) = one(&pattern, p, name[n]) {
            p = after;
            n += 1;
            continue;
        }
        let Some((at, taken)) = star else { return false };
        star = Some((at, taken + 1));
        (p, n) = (at + 1, taken + 1);
    }
    pattern[p.min(pattern.len())..].iter().all(|c| *c == '*')
}

/// Matches one character at `p`; the position after it in the pattern.
fn one(pattern: &[char], p: usize, found: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (pattern.get(p + 1) == Some(&found)).then_some(p + 2),
        '[' => class(pattern, p + 1, found),
        literal => (literal == found).then_some(p + 1),
    }
}

/// A bracket expression that starts after `[` at `p`; unclosed ones match nothing.
fn class(pattern: &[char], mut p: usize, found: char) -> Option<usize> {
    let negated = matches!(pattern.get(p), Some('!' | '^'));
    if negated {
        p += 1;
    }
    let mut hit = false;
    let first = p;
    loop {
        let mut low = *pattern.get(p)?;
        if low == ']' && p > first {
            return (hit != negated).then_some(p + 1);
        }
        if low == '\\' {
            p += 1;
            low = *pattern.get(p)?;
        }
        let mut high = low;
        let ranged = pattern.get(p + 1) == Some(&'-') && pattern.get(p + 2) != Some(&']');
        if ranged {
            high = *pattern.get(p + 2)?;
            p += 2;
        }
        hit |= (low..=high).contains(&found);
        p += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(root: &str) -> Rules {
        Rules::new(&[(String::new(), root.to_owned())], None)
    }

    #[test]
    fn without_user_patterns_flux_defaults_hold() {
        let rules = Rules::new(&[], Some("# only a comment\n\n"));
        for (path, out) in [
            (".gitignore", true),
            ("sub/.gitattributes", true),
            ("docs/logo.png", true),
            ("a.tar.gz", true),
            (".github/workflows/ci.yaml", true),
            ("deep/.sops.yaml", true),
            (".sops.yaml", true),
            ("deploy/app.yaml", false),
            (".github", false),
        ] {
            assert_eq!(rules.excludes(path, false), out, "{path}");
        }
        assert!(rules.excludes(".github", true));
    }

    #[test]
    fn one_user_pattern_replaces_every_default_but_version_control() {
        for rules in [rules("*.md"), Rules::new(&[], Some("*.md"))] {
            assert!(!rules.excludes(".github/workflows/ci.yaml", false));
            assert!(!rules.excludes("logo.png", false));
            assert!(rules.excludes(".gitignore", false));
            assert!(rules.excludes("docs/a.md", false));
        }
    }

    #[test]
    fn patterns_match_as_in_flux() {
        for (text, path, is_dir, out) in [
            ("/*\n!/deploy\n/deploy/**/*.txt", "deploy/app.yaml", false, false),
            ("/*\n!/deploy\n/deploy/**/*.txt", "deploy/a/notes.txt", false, true),
            ("/*\n!/deploy\n/deploy/**/*.txt", "deploy/notes.txt", false, true),
            ("/*\n!/deploy", "README", false, true),
            ("/*\n!/deploy", "src/a.yaml", false, true),
            ("docs/\n!docs/keep.yaml", "docs/keep.yaml", false, false),
            ("docs/\n!docs/keep.yaml", "docs/other.yaml", false, true),
            ("build/", "build", false, false),
            ("build/", "build", true, true),
            ("build/", "a/build/x", false, true),
            ("/build", "a/build", false, false),
            ("a/b", "a/b/c", false, true),
            ("a/b", "x/a/b", false, false),
            ("**/b", "a/b", false, true),
            ("a/**", "a/b/c", false, true),
            ("a/**", "a", true, false),
            ("a/**/z", "a/z", false, true),
            ("a/**/z", "a/b/c/z", false, true),
            ("test?.[ch]", "x/test1.c", false, true),
            ("test?.[!ch]", "test1.c", false, false),
            ("[a-c]*", "bcd", false, true),
            ("\\!keep", "!keep", false, true),
            ("trailing   ", "trailing", false, true),
            ("[unclosed", "[unclosed", false, false),
            ("*", "anything", false, true),
        ] {
            assert_eq!(rules(text).excludes(path, is_dir), out, "{text:?} {path}");
        }
    }

    #[test]
    fn a_nested_file_rules_its_own_directory_only() {
        let nested = [("a/b".to_owned(), "*.yaml\n!keep.yaml".to_owned())];
        let rules = Rules::new(&nested, None);
        for (path, out) in [
            ("a/b/x.yaml", true),
            ("a/b/c/x.yaml", true),
            ("a/b/keep.yaml", false),
            ("a/x.yaml", false),
            ("a/b", false),
        ] {
            assert_eq!(rules.excludes(path, false), out, "{path}");
        }
        assert!(rules.reincludes());
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = format!("{}b", "*a".repeat(40));
        assert!(!rules(&pattern).excludes(&"a".repeat(200), false));
    }

    #[test]
    fn the_digest_tells_rules_apart() {
        let one = Rules::new(&[], Some("a\nb"));
        assert_eq!(one.digest(), Rules::new(&[], Some("# x\na\nb\n")).digest());
        assert_ne!(one.digest(), Rules::new(&[], Some("b\na")).digest());
        assert_ne!(one.digest(), Rules::new(&[("d".into(), "a\nb".into())], None).digest());
    }
}
