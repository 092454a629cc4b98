//! Pure: durations, ages and names as people write and read them.

use crate::api::ReplacedView;
use crate::flux::{Kind, parse_duration};
use std::time::Duration;

/// Reads `2h`, `1h30m`, `90s`, and `3d` for days.
pub fn duration(said: &str) -> Result<Duration, String> {
    let days = said.strip_suffix('d').filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let parsed = match days.and_then(|days| days.parse::<u64>().ok()) {
        Some(days) => Duration::from_secs(days.saturating_mul(86_400)),
        None => parse_duration(said)?,
    };
    if parsed.is_zero() {
        return Err("must be longer than nothing".to_owned());
    }
    // A hundred years: beyond it sums of times overflow, and nobody means it.
    if parsed > Duration::from_secs(100 * 365 * 86_400) {
        return Err(format!("{said:?} is too long"));
    }
    Ok(parsed)
}

/// A span in one or two units: `45s`, `12m`, `3h10m`, `5d`.
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (2.., _, _) => format!("{days}d"),
        (_, 10.., _) => format!("{hours}h"),
        (_, 1.., _) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (_, 1.., _) => format!("{hours}h"),
        (_, _, 1..) => format!("{minutes}m"),
        _ => format!("{seconds}s"),
    }
}

/// Microseconds as a person wants them: `850 µs`, `12 ms`, `3.4 s`.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

/// The first line of a text, at most `most` characters of it.
pub fn brief(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most && line.len() == text.len() {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(most.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// `main@sha1:0123456789…` as `main@0123456`.
pub fn revision(id: &str) -> String {
    match id.split_once("sha1:") {
        Some((name, commit)) => format!("{name}{}", commit.get(..7).unwrap_or(commit)),
        None => id.to_owned(),
    }
}

/// `dev-6 → dev-7 by ImagePolicy blaster-dev`: tags where the image is the same one.
pub fn replaced(image: &ReplacedView) -> String {
    let parts = |whole: &str| {
        // A colon before a slash is a port's.
        let at = whole.rfind(':').filter(|at| !whole[*at..].contains('/'));
        at.map_or((String::new(), whole.to_owned()), |at| {
            (whole[..at].to_owned(), whole[at + 1..].to_owned())
        })
    };
    let bare = |whole: &str| whole.split_once('@').map_or(whole, |(tagged, _)| tagged).to_owned();
    let (old, new) = (bare(&image.old), bare(&image.new));
    let ((from, before), (to, after)) = (parts(&old), parts(&new));
    let policy = image.policy.split_once('/').map_or(image.policy.as_str(), |(_, name)| name);
    if from == to && before != after {
        return format!("{before} → {after} by ImagePolicy {policy}");
    }
    format!("{} → {} by ImagePolicy {policy}", image.old, image.new)
}

/// `one object`, `3 objects`.
pub fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("one {thing}") } else { format!("{number} {thing}s") }
}

/// Every line of a text behind a margin.
pub fn indent(text: &str, margin: &str) -> String {
    text.lines().map(|line| format!("{margin}{line}\n")).collect()
}

/// Whether `Kind/namespace/name` is what a person called `said`.
pub fn is_called(key: &str, said: &str) -> bool {
    let key: Vec<&str> = key.split('/').collect();
    let said: Vec<&str> = said.split('/').collect();
    let of_kind = key[0] == Kind::named(said[0]).map(Kind::as_str).unwrap_or(said[0]);
    match said.as_slice() {
        [_, _, _] => of_kind && key.ends_with(&said[1..]),
        [_, name] if of_kind && key.last() == Some(name) => true,
        said => key.ends_with(said),
    }
}

/// What `flux` has before a name, for whoever had something else there.
const KINDS: &str = "kustomization, source git, image repository, image policy or image update";

/// What a person named, in the form that the daemon reads: one word of ours, or as `flux` has it
/// typed, the kind in words of its own before the name and the namespace behind `-n`. A namespace
/// that is said so belongs between `KIND` and `NAME` of `KIND/NAME` too. `None` where nothing was
/// named.
pub fn named(said: &[String], namespace: Option<&str>) -> Result<Option<String>, String> {
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let Some((&name, before)) = said.split_last() else {
        return match namespace {
            Some(_) => Err("a namespace goes with a name".to_owned()),
            None => Ok(None),
        };
    };
    let kind = match before {
        [word] => Kind::named(word),
        ["source", "git"] => Some(Kind::GitRepository),
        ["image", "repository"] => Some(Kind::ImageRepository),
        ["image", "policy"] => Some(Kind::ImagePolicy),
        ["image", "update"] => Some(Kind::ImageUpdateAutomation),
        _ => None,
    };
    if kind.is_none() && !before.is_empty() {
        let before = before.join(" ");
        return Err(format!(
            "{before:?} is no kind that gitopsd runs: say {KINDS}, or one NAME alone"
        ));
    }
    let apart = name.split_once('/').and_then(|(first, rest)| Some((Kind::named(first)?, rest)));
    let (kind, name) = match apart {
        Some((own, rest)) if kind.is_none() && namespace.is_some() => (Some(own), rest),
        _ => (kind, name),
    };
    if namespace.is_some() && name.contains('/') {
        return Err(format!("one namespace is enough: say it in {name:?}, or with -n"));
    }
    let parts = [kind.map(Kind::as_str), namespace, Some(name)];
    Ok(Some(parts.into_iter().flatten().collect::<Vec<_>>().join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_days_and_refused_when_senseless() {
        for (said, seconds) in [("2h", Some(7200)), ("3d", Some(259_200)), ("1h30m", Some(5400))] {
            assert_eq!(duration(said).ok().map(|d| d.as_secs()), seconds, "{said}");
        }
        for said in ["", "2", "0s", "d", "1d2h", "999999999999d", "-1h"] {
            assert!(duration(said).is_err(), "{said}");
        }
    }

    #[test]
    fn spans_are_told_in_the_unit_that_matters() {
        for (ms, told) in [
            (-5, "0s"),
            (59_999, "59s"),
            (61_000, "1m"),
            (3_600_000, "1h"),
            (4_200_000, "1h10m"),
            (86_400_000, "24h"),
            (200_000_000, "2d"),
        ] {
            assert_eq!(span(ms), told, "{ms}");
        }
        assert_eq!([micros(850), micros(12_345), micros(3_456_789)], ["850 µs", "12 ms", "3.4 s"]);
    }

    #[test]
    fn a_replaced_image_is_told_by_its_tags_where_that_is_all_that_changed() {
        let told = |old: &str, new: &str| {
            replaced(&ReplacedView {
                policy: "flux-system/blaster-dev".into(),
                automation: "flux-system/blaster".into(),
                file: "k8s/dev/deployment.yaml:18".into(),
                old: old.into(),
                new: new.into(),
            })
        };
        let by = "by ImagePolicy blaster-dev";
        for (old, new, expected) in [
            ("r:5000/a:dev-6", "r:5000/a:dev-7", "dev-6 → dev-7"),
            ("dev-6", "dev-7", "dev-6 → dev-7"),
            ("r:5000/a", "r:5000/a:dev-7", "r:5000/a → r:5000/a:dev-7"),
            ("r/a:1@sha256:ab", "r/a:2@sha256:cd", "1 → 2"),
            ("r/a:1@sha256:ab", "r/a:1@sha256:cd", "r/a:1@sha256:ab → r/a:1@sha256:cd"),
        ] {
            assert_eq!(told(old, new), format!("{expected} {by}"));
        }
    }

    #[test]
    fn a_long_or_many_lined_text_is_cut_at_a_character() {
        assert_eq!(brief("short", 10), "short");
        assert_eq!(brief("größer als das", 8), "größer…");
        assert_eq!(brief("one\ntwo", 10), "one…");
    }

    #[test]
    fn an_object_is_called_by_its_name_with_or_without_namespace_and_kind() {
        let key = "Kustomization/flux-system/apps";
        for said in ["apps", "flux-system/apps", key, "ks/flux-system/apps", "Kustomization/apps"] {
            assert!(is_called(key, said), "{said}");
        }
        for said in ["ks/apps", "kustomization/flux-system/apps"] {
            assert!(is_called(key, said), "{said}");
        }
        for said in ["app", "other/apps", "GitRepository/flux-system/apps", ""] {
            assert!(!is_called(key, said), "{said}");
        }
    }

    fn split(said: &str) -> Vec<String> {
        said.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_kind_may_stand_before_the_name_and_the_namespace_behind_it_as_flux_has_them() {
        for (said, namespace, name) in [
            ("apps", None, "apps"),
            ("apps", Some("web"), "web/apps"),
            ("GitRepository/flux-system/a", None, "GitRepository/flux-system/a"),
            ("Kustomization/apps", None, "Kustomization/apps"),
            ("Kustomization/apps", Some("web"), "Kustomization/web/apps"),
            ("KS/apps", Some("web"), "Kustomization/web/apps"),
            ("kustomization apps", None, "Kustomization/apps"),
            ("Kustomization web/apps", None, "Kustomization/web/apps"),
            ("ks apps", Some("web"), "Kustomization/web/apps"),
            ("source git a", None, "GitRepository/a"),
            ("image repository a", Some("web"), "ImageRepository/web/a"),
            ("image policy a", None, "ImagePolicy/a"),
            ("image update a", None, "ImageUpdateAutomation/a"),
        ] {
            assert_eq!(named(&split(said), namespace), Ok(Some(name.to_owned())), "{said}");
        }
        assert_eq!(named(&[], None), Ok(None));
    }

    #[test]
    fn a_kind_that_is_not_run_is_told_with_those_that_are_and_a_namespace_is_said_once() {
        for (said, namespace, told) in [
            ("helmrelease redis", None, "\"helmrelease\" is no kind that gitopsd runs: say kusto"),
            ("source helm podinfo", None, "\"source helm\" is no kind"),
            ("image app", None, "\"image\" is no kind"),
            ("a b", None, "or one NAME alone"),
            (
                "web/apps",
                Some("web"),
                "one namespace is enough: say it in \"web/apps\", or with -n",
            ),
            ("ks/web/apps", Some("web"), "one namespace is enough: say it in \"web/apps\""),
            ("ks web/apps", Some("web"), "one namespace is enough: say it in \"web/apps\""),
            ("", Some("web"), "a namespace goes with a name"),
        ] {
            let wrong = named(&split(said), namespace).expect_err(said);
            assert!(wrong.contains(told), "{said}: {wrong}");
        }
    }
}
