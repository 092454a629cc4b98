//! Tags as the registry listed them, what each policy chose, and which image runs where.

use super::error::HistoryError;
use super::{Durability, History};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// The tags of one image repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// What was listed: a list of another name, or with other exclusions, does not count.
    pub asked: String,
    /// The tags, in descending order of their bytes.
    pub tags: Vec<String>,
    /// The scan that found this list first, Unix milliseconds.
    pub scanned_ms: i64,
}

/// What an ImagePolicy has chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The image without tag, as the ImageRepository names it.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// Digest of its manifest, where the policy reflects it.
    pub digest: Option<String>,
    /// The whole reference that was in force before.
    pub previous: Option<String>,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
}

/// Which image of a policy a Kustomization runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// The policy, `namespace/name`.
    pub policy: String,
    /// The Kustomization, `namespace/name`.
    pub owner: String,
    /// The image that it applied last, without digest.
    pub image: String,
    /// The last one with which it was healthy.
    pub healthy: Option<String>,
    /// When it was so last with that image for the first time, Unix milliseconds.
    pub healthy_ms: Option<i64>,
}

impl Choice {
    /// `name:tag`.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    /// `name:tag`, with the digest where there is one.
    pub fn whole(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.tagged()),
            None => self.tagged(),
        }
    }
}

impl History {
    /// The tags of a repository, `namespace/name`.
    pub fn tags(&self, repository: &str) -> Result<Option<Tags>, HistoryError> {
        self.read("read the tags", |db| {
            db.prepare_cached("SELECT asked, tags, scanned_ms FROM tags WHERE repository = ?1")?
                .query_row([repository], |row| {
                    let tags: String = row.get(1)?;
                    Ok(Tags {
                        asked: row.get(0)?,
                        tags: tags.lines().map(str::to_owned).collect(),
                        scanned_ms: row.get(2)?,
                    })
                })
                .optional()
        })
    }

    /// Stores a list of tags; the same list again is no write. True when it was news.
    pub fn store_tags(&self, repository: &str, found: &Tags) -> Result<bool, HistoryError> {
        let known = self.tags(repository)?;
        if known.is_some_and(|known| known.asked == found.asked && known.tags == found.tags) {
            return Ok(false);
        }
        // A tag has no line break: the registry's grammar is checked where tags are read.
        let tags = found.tags.join("\n");
        self.write("store the tags", Durability::Normal, |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO tags (repository, asked, tags, scanned_ms) \
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![repository, found.asked, tags, found.scanned_ms])
            .map(|_| true)
        })
    }

    /// What a policy, `namespace/name`, has chosen.
    pub fn choice(&self, policy: &str) -> Result<Option<Choice>, HistoryError> {
        // A box has some dozens of policies, and they choose when tags come.
        let all = self.choices()?.into_iter();
        Ok(all.into_iter().find(|(known, _)| known == policy).map(|(_, choice)| choice))
    }

    /// Everything that is chosen, by policy.
    pub fn choices(&self) -> Result<Vec<(String, Choice)>, HistoryError> {
        self.read("read the choices", |db| {
            let mut rows = db.prepare_cached(
                "SELECT policy, name, tag, digest, previous, since_ms FROM choice ORDER BY policy",
            )?;
            rows.query_map([], |row| {
                let choice = Choice {
                    name: row.get(1)?,
                    tag: row.get(2)?,
                    digest: row.get(3)?,
                    previous: row.get(4)?,
                    since_ms: row.get(5)?,
                };
                Ok((row.get(0)?, choice))
            })?
            .collect()
        })
    }

    /// Stores what a policy has chosen. Callers store news only.
    pub fn choose(&self, policy: &str, choice: &Choice) -> Result<(), HistoryError> {
        self.write("store a choice", Durability::Normal, |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO choice (policy, name, tag, digest, previous, since_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                policy,
                choice.name,
                choice.tag,
                choice.digest,
                choice.previous,
                choice.since_ms
            ])
            .map(|_| ())
        })
    }

    /// Drops the tags of a repository that left Git.
    pub fn forget_tags(&self, repository: &str) -> Result<(), HistoryError> {
        if self.tags(repository)?.is_none() {
            return Ok(());
        }
        self.write("drop tags", Durability::Normal, |db| {
            db.execute("DELETE FROM tags WHERE repository = ?1", [repository]).map(|_| ())
        })
    }

    /// Drops the choice of a policy that left Git, and what runs by it.
    pub fn forget_choice(&self, policy: &str) -> Result<(), HistoryError> {
        let runs = self.running()?.iter().any(|row| row.policy == policy);
        if self.choice(policy)?.is_none() && !runs {
            return Ok(());
        }
        self.write("drop a choice", Durability::Normal, |db| {
            db.execute("DELETE FROM choice WHERE policy = ?1", [policy])?;
            db.execute("DELETE FROM deployed WHERE policy = ?1", [policy]).map(|_| ())
        })
    }

    /// Which images run by which policy, ordered.
    pub fn running(&self) -> Result<Vec<Deployed>, HistoryError> {
        self.read("read which images run", |db| {
            let mut rows = db.prepare_cached(
                "SELECT policy, owner, image, healthy, healthy_ms FROM deployed \
                 ORDER BY policy, owner",
            )?;
            rows.query_map([], |row| {
                Ok(Deployed {
                    policy: row.get(0)?,
                    owner: row.get(1)?,
                    image: row.get(2)?,
                    healthy: row.get(3)?,
                    healthy_ms: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// Notes the images, as pairs of policy and image, that a Kustomization has applied, and
    /// whether it is healthy with them. What it no longer runs of the policies that are `known` is
    /// dropped; the same again is no write.
    pub fn deployed(
        &self,
        owner: &str,
        images: &[(String, String)],
        known: &[String],
        healthy: bool,
        now_ms: i64,
    ) -> Result<(), HistoryError> {
        let before = self.running()?;
        let mine: Vec<&Deployed> = before.iter().filter(|row| row.owner == owner).collect();
        let same = |(policy, image): &(String, String)| {
            let row = mine.iter().find(|row| row.policy == *policy && row.image == *image);
            row.is_some_and(|row| !healthy || row.healthy.as_ref() == Some(image))
        };
        let gone: Vec<&str> = mine
            .iter()
            .map(|row| row.policy.as_str())
            .filter(|policy| known.iter().any(|known| known == policy))
            .filter(|policy| !images.iter().any(|(now, _)| now == policy))
            .collect();
        let news: Vec<_> = images.iter().filter(|image| !same(image)).collect();
        if news.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.write("note which images run", Durability::Normal, |db| {
            for policy in &gone {
                db.execute(
                    "DELETE FROM deployed WHERE policy = ?1 AND owner = ?2",
                    params![policy, owner],
                )?;
            }
            let mut row = db.prepare_cached(
                "INSERT INTO deployed (policy, owner, image, healthy, healthy_ms) \
                 VALUES (?1, ?2, ?3, CASE WHEN ?4 THEN ?3 END, CASE WHEN ?4 THEN ?5 END) \
                 ON CONFLICT (policy, owner) DO UPDATE SET image = excluded.image, \
                 healthy = coalesce(excluded.healthy, healthy), \
                 healthy_ms = coalesce(excluded.healthy_ms, healthy_ms)",
            )?;
            for (policy, image) in &news {
                row.execute(params![policy, owner, image, healthy, now_ms])?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> (tempfile::TempDir, History) {
        let dir = tempfile::tempdir().expect("temp dir");
        let history = History::open(dir.path()).expect("opened").0;
        (dir, history)
    }

    fn mk_tags(tags: &[&str], scanned_ms: i64) -> Tags {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Tags { asked: "r.example/app".into(), tags, scanned_ms }
    }

    #[test]
    fn tags_and_choices_outlive_the_process_and_the_same_again_is_no_write() {
        let (dir, history) = history();
        let first = mk_tags(&["b", "a"], 1);
        assert!(history.store_tags("n/app", &first).expect("stored"));
        assert!(!history.store_tags("n/app", &mk_tags(&["b", "a"], 2)).expect("the same"));
        let choice = Choice {
            name: "r.example/app".into(),
            tag: "b".into(),
            digest: Some("sha256:1".into()),
            previous: Some("r.example/app:a".into()),
            since_ms: 3,
        };
        history.choose("n/app", &choice).expect("stored");
        drop(history);
        let (history, _) = History::open(dir.path()).expect("opened again");
        assert_eq!(history.tags("n/app").expect("read"), Some(first), "of the first scan");
        assert_eq!(history.choice("n/app").expect("read"), Some(choice.clone()));
        assert_eq!(choice.whole(), "r.example/app:b@sha256:1");
        let other = Tags { asked: "r.example/app but ^x".into(), ..mk_tags(&["b", "a"], 4) };
        assert!(history.store_tags("n/app", &other).expect("stored"), "another question");
        history.forget_tags("n/app").expect("dropped");
        history.forget_choice("n/app").expect("dropped");
        assert_eq!(history.tags("n/app").expect("read"), None);
        assert_eq!(history.choice("n/app").expect("read"), None);
    }

    #[test]
    fn the_last_healthy_image_stays_known_while_a_new_one_fails() {
        let (_dir, history) = history();
        let image = |tag: &str| [("n/app".to_owned(), format!("r/app:{tag}"))];
        let row = |history: &History| {
            let row = history.running().expect("read").pop().expect("a row");
            (row.image, row.healthy.unwrap_or_default(), row.healthy_ms.unwrap_or_default())
        };
        let known = ["n/app".to_owned()];
        let is = |image: &str, healthy: &str, at| (image.to_owned(), healthy.to_owned(), at);
        history.deployed("n/k", &image("1"), &known, false, 1).expect("noted");
        assert_eq!(row(&history), is("r/app:1", "", 0));
        history.deployed("n/k", &image("1"), &known, true, 2).expect("noted");
        history.deployed("n/k", &image("1"), &known, true, 3).expect("the same");
        assert_eq!(row(&history), is("r/app:1", "r/app:1", 2));
        history.deployed("n/k", &image("2"), &known, false, 4).expect("noted");
        assert_eq!(row(&history), is("r/app:2", "r/app:1", 2));
        history.deployed("n/other", &[], &known, true, 5).expect("another owner");
        assert_eq!(history.running().expect("read").len(), 1);
        history.deployed("n/k", &[], &[], true, 6).expect("of an unknown policy");
        assert_eq!(history.running().expect("read").len(), 1);
        history.deployed("n/k", &[], &known, true, 7).expect("noted");
        assert_eq!(history.running().expect("read"), []);
    }
}
