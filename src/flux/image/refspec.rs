//! Pure: names of refs, and where a push refspec sends a commit (Flux: ImageUpdateAutomation).
//!
//! Flux hands `spec.git.push.refspec` to go-git, which completes no short names: `main:copy` means
//! nothing there, and nothing here.

/// The full name of the ref that a refspec, `SOURCE:DESTINATION`, sends the commit to.
///
/// # Errors
///
/// Why it cannot be served: a push is never forced, never deletes and goes to one full name.
pub fn push_destination(refspec: &str) -> Result<String, String> {
    let refuse = |cause: &str| Err(cause.to_owned());
    if refspec.starts_with('+') {
        return refuse("a push is never forced, leave the + out");
    }
    let (source, destination) = refspec.split_once(':').unwrap_or((refspec, refspec));
    if source.is_empty() {
        return refuse("it deletes, which automation never does");
    }
    if !destination.starts_with("refs/") {
        return refuse("the destination must be a full name, refs/heads/…");
    }
    match valid_ref(destination) {
        true => Ok(destination.to_owned()),
        false => refuse("the destination is not a valid name"),
    }
}

/// Whether git would accept the full name of a ref.
pub fn valid_ref(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    name.split('/').all(part)
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.len() <= 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refspec_sends_a_commit_to_one_full_name_and_never_by_force() {
        let gerrit = push_destination("refs/heads/main:refs/for/main");
        assert_eq!(gerrit, Ok("refs/for/main".to_owned()));
        assert_eq!(push_destination("refs/heads/a"), Ok("refs/heads/a".to_owned()));
        for (refspec, cause) in [
            ("+refs/heads/a:refs/heads/b", "never forced"),
            (":refs/heads/b", "it deletes"),
            ("main:copy", "full name"),
            ("main", "full name"),
            ("refs/heads/a:", "full name"),
            ("refs/heads/*:refs/heads/*", "not a valid name"),
            ("refs/heads/a:refs/heads/b:refs/heads/c", "not a valid name"),
        ] {
            let told = push_destination(refspec).expect_err("it cannot be served");
            assert!(told.contains(cause), "{refspec}: {told}");
        }
    }

    #[test]
    fn names_of_refs_are_judged_as_by_git() {
        for (name, valid) in [
            ("refs/heads/auto/images", true),
            ("refs/heads/a..b", false),
            ("refs/heads/a b", false),
            ("refs/heads/x.lock", false),
            ("refs/heads/", false),
            ("refs/heads/.a", false),
            ("refs/heads/a@{1}", false),
        ] {
            assert_eq!(valid_ref(name), valid, "{name}");
        }
    }
}
