//! Who declared which Kustomization last.
//!
//! A row stands from the first declaration until the child has ended: a parent that is suspended
//! or cannot be rendered after a restart says nothing, and what it declared must not pass for
//! what nobody declares. A parent that no longer declares a child loses its row only to another
//! that does, so every child keeps at least the parent that spoke of it last.

use super::error::HistoryError;
use super::{Durability, History};

impl History {
    /// Stores which children (`namespace/name`) a parent declares; the same again is no write.
    /// Where the list may not be `whole`, nothing is taken off it.
    pub fn declare(
        &self,
        parent: &str,
        children: &[String],
        whole: bool,
    ) -> Result<(), HistoryError> {
        let known = self.parents()?;
        let mine = |child: &String| known.iter().any(|(c, p)| c == child && p == parent);
        let elsewhere = |child: &String| known.iter().any(|(c, p)| c == child && p != parent);
        let news: Vec<&String> = children.iter().filter(|child| !mine(child)).collect();
        let had = known.iter().filter(|(_, p)| p == parent).map(|(child, _)| child);
        let moved: Vec<&String> =
            had.filter(|child| whole && !children.contains(child) && elsewhere(child)).collect();
        if news.is_empty() && moved.is_empty() {
            return Ok(());
        }
        self.write("store who is declared", Durability::Full, |db| {
            let mut row =
                db.prepare_cached("INSERT OR IGNORE INTO child (owner, parent) VALUES (?1, ?2)")?;
            for child in &news {
                row.execute([child.as_str(), parent])?;
            }
            // Asked again inside: two parents may let go of one child at the same time.
            let mut gone = db.prepare_cached(
                "DELETE FROM child WHERE owner = ?1 AND parent = ?2 AND EXISTS \
                 (SELECT 1 FROM child AS other WHERE other.owner = ?1 AND other.parent <> ?2)",
            )?;
            for child in &moved {
                gone.execute([child.as_str(), parent])?;
            }
            Ok(())
        })
    }

    /// Every child with each of its parents, ordered.
    pub fn parents(&self) -> Result<Vec<(String, String)>, HistoryError> {
        self.read("read who is declared", |db| {
            let mut rows =
                db.prepare_cached("SELECT owner, parent FROM child ORDER BY owner, parent")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Forgets who declared a child that has ended. What it declared itself and is still there
    /// hangs from its parents then: it was their word that took it along.
    pub fn undeclare(&self, child: &str) -> Result<(), HistoryError> {
        if !self.parents()?.iter().any(|(known, _)| known == child) {
            return Ok(());
        }
        self.write("forget who declared it", Durability::Normal, |db| {
            db.execute(
                "INSERT OR IGNORE INTO child (owner, parent) SELECT below.owner, above.parent \
                 FROM child AS below JOIN child AS above \
                 WHERE below.parent = ?1 AND above.owner = ?1",
                [child],
            )?;
            db.execute("DELETE FROM child WHERE owner = ?1 OR parent = ?1", [child]).map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_parent_that_spoke_of_it_last_until_it_has_ended() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (history, _) = History::open(dir.path()).expect("opened");
        let declare = |parent: &str, children: &[&str], whole| {
            let children: Vec<String> = children.iter().map(|c| (*c).to_owned()).collect();
            history.declare(parent, &children, whole).expect("stored");
            let rows = history.parents().expect("read");
            rows.iter().map(|(child, parent)| format!("{child}<{parent}")).collect::<Vec<_>>()
        };
        assert_eq!(declare("n/a", &["n/c", "n/d"], true), ["n/c<n/a", "n/d<n/a"]);
        assert_eq!(declare("n/a", &["n/d"], true), ["n/c<n/a", "n/d<n/a"], "not ended yet");
        assert_eq!(declare("n/b", &["n/c"], true), ["n/c<n/a", "n/c<n/b", "n/d<n/a"]);
        let both = ["n/c<n/a", "n/c<n/b", "n/d<n/a"];
        assert_eq!(declare("n/a", &["n/d"], false), both, "one of its files cannot be read");
        assert_eq!(declare("n/a", &["n/d"], true), ["n/c<n/b", "n/d<n/a"], "it has moved");
        assert_eq!(declare("n/b", &[], true), ["n/c<n/b", "n/d<n/a"]);
        history.undeclare("n/c").expect("stored");
        assert_eq!(declare("n/b", &[], true), ["n/d<n/a"]);
        assert_eq!(declare("n/root", &["n/a"], true), ["n/a<n/root", "n/d<n/a"]);
        history.undeclare("n/a").expect("stored");
        assert_eq!(declare("n/root", &[], true), ["n/d<n/root"], "the root's word took n/a");
    }
}
