//! Pure: the kinds of event that the journal knows by id, and the catalog that explains them.
//!
//! An id is drawn once at random and never changes or moves to another kind: scripts and
//! `journalctl MESSAGE_ID=` depend on it. The text of [`catalog`] is what `journalctl -x` shows
//! below an event; it is installed as `/usr/lib/systemd/catalog/gitopsd.catalog`.

use std::fmt::Write;

/// What kind of event a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The daemon is ready.
    Started,
    /// The daemon stops in good order.
    Stopped,
    /// No root repository is configured.
    NotConfigured,
    /// The configuration was read again.
    ConfigReloaded,
    /// The configuration is wrong; the old one stays in force.
    ConfigRefused,
    /// A source has a new revision.
    SourceFetched,
    /// A source could not be fetched.
    SourceFailed,
    /// A run ended well.
    RunSucceeded,
    /// A run failed.
    RunFailed,
    /// An object was created or configured.
    Applied,
    /// An object that left Git was deleted.
    Pruned,
    /// Drift was undone.
    Healed,
    /// Deletes wait for a confirmation.
    PruneHeld,
    /// Everything a Kustomization waits for is healthy.
    HealthPassed,
    /// Something did not become healthy, or stopped being so.
    HealthFailed,
    /// A run was found open at start-up.
    RecordInterrupted,
    /// The database was damaged and replaced.
    RecordRebuilt,
    /// Objects of ours that no inventory knew were found in the cluster.
    InventoryRegained,
    /// Another writer keeps changing fields that Git sets.
    Conflict,
    /// Two Kustomizations want the same object differently.
    ClaimRefused,
    /// A sealed file's MAC does not match.
    MacWrong,
    /// A file could not be opened.
    SealedFailed,
    /// A Secret stands in Git in plain text.
    PlaintextSecret,
    /// A base outside the source cannot be asked after.
    OldCopy,
    /// Something in Git is not acted upon: it is not supported yet, or misspelt.
    Unsupported,
    /// Flux, or another gitopsd, runs on the same cluster.
    SecondOwner,
    /// The API server does not answer.
    ClusterUnreachable,
    /// The API server answers again.
    ClusterReachable,
    /// Another cluster answers than the one recorded.
    ClusterChanged,
    /// Something was suspended.
    Suspended,
    /// Something was resumed.
    Resumed,
    /// The state directory's disk is full.
    DiskFull,
    /// An image policy has chosen another tag.
    ImageChosen,
    /// A chosen image was committed and pushed.
    ImagePushed,
    /// A registry, a policy or an automation failed.
    ImageFailed,
    /// A policy orders its tags otherwise than Flux.
    ImageOrder,
    /// The daemon cannot start, or go on, on this host as it is.
    CannotRun,
    /// A Kustomization left Git, and was ended.
    Departed,
}

/// Kind, id, subject, explanation with remedy.
type Entry = (Message, &'static str, &'static str, &'static str);

/// The explanations, in the order of the enum. `@FIELD@` is filled in by journalctl.
const ENTRIES: [Entry; 38] = [
    (
        Message::Started,
        "7e93cb33bbc7eb1859404495e9145625",
        "gitopsd is ready",
        "The configuration is valid, the database is open and the socket answers.\n\
         Whether the cluster is in order is told by: gitopsd status",
    ),
    (
        Message::Stopped,
        "b934135f539cfd883ac7098fef775f7e",
        "gitopsd stopped in good order",
        "What was in hand was finished and recorded; the next start goes on from there.\n\
         Workloads go on running unwatched.\n\
         Start it again with: systemctl start gitopsd",
    ),
    (
        Message::NotConfigured,
        "471a84a0272f19a475f4d8a8fc02ff83",
        "No repository is configured",
        "gitopsd runs but has nothing to follow.\n\
         Name the repository in /etc/gitopsd/config.yaml: root.url, root.ref and root.path.",
    ),
    (
        Message::ConfigReloaded,
        "a7b3bf8de5dd80698147857f3879e7e6",
        "The configuration was read again",
        "The new settings are in force; what changed is in the line above.\n\
         Nothing is to be done. gitopsd check shows the settings of this host.",
    ),
    (
        Message::ConfigRefused,
        "25e37f7760b4be7b1411d92b566be1ea",
        "The configuration is wrong",
        "Each problem is in the line above with its place and what to do. After a reload the settings\n\
         read before stay in force; a start is refused.\n\
         Correct it, then: gitopsd check && systemctl reload-or-restart gitopsd",
    ),
    (
        Message::SourceFetched,
        "a32a5916f0017bc9847d63becce03120",
        "A source has a new revision",
        "Revision @GITOPSD_REVISION@ was fetched; Kustomizations that can see the change run now.\n\
         Follow them with: gitopsd status -w",
    ),
    (
        Message::SourceFailed,
        "ee59370f173dd68ab0d79d4fb12a49f2",
        "A source cannot be fetched",
        "The last good revision stays in force and drift is still healed.\n\
         The line above names the cause: network, credentials, host key, certificate or a missing ref.\n\
         Try again at once with: gitopsd reconcile --with-source",
    ),
    (
        Message::RunSucceeded,
        "97cd0eb0f387926d978adad2e8390ba3",
        "@GITOPSD_KUSTOMIZATION@ is at @GITOPSD_REVISION@",
        "Everything was applied, and what is waited for is healthy.\n\
         See each change with: gitopsd history show @GITOPSD_RUN@",
    ),
    (
        Message::RunFailed,
        "164d9e11fe86a1e3a085fbe4d7805983",
        "A run of @GITOPSD_KUSTOMIZATION@ failed",
        "The line above names step, object, file in Git and cause. What was applied before stays applied,\n\
         nothing was pruned that should stay, and the run is tried again by itself.\n\
         After a fix: gitopsd reconcile; details: gitopsd history show @GITOPSD_RUN@",
    ),
    (
        Message::Applied,
        "ba59dd45e39378f8015e14c2948ea693",
        "@GITOPSD_OBJECT@ was written",
        "@GITOPSD_KUSTOMIZATION@ at @GITOPSD_REVISION@ created or changed this object.\n\
         See the difference with: gitopsd history show @GITOPSD_RUN@",
    ),
    (
        Message::Pruned,
        "da56ec3d9ba2ea1d24d8615cc21928fd",
        "@GITOPSD_OBJECT@ was deleted",
        "It belonged to @GITOPSD_KUSTOMIZATION@ and is no longer in Git at @GITOPSD_REVISION@.\n\
         To keep such an object, set the annotation kustomize.toolkit.fluxcd.io/prune: disabled.",
    ),
    (
        Message::Healed,
        "c705060768a7e066b52a5eb3ec071391",
        "@GITOPSD_OBJECT@ was brought back to Git's state",
        "Somebody or something changed fields that Git sets, and the change was undone.\n\
         Change it in Git instead, or stop healing for a while:\n\
         gitopsd suspend @GITOPSD_KUSTOMIZATION@ --for 2h",
    ),
    (
        Message::PruneHeld,
        "dac1167450cc8321afa215da457b5f80",
        "Deletes are held until you confirm",
        "Objects with data, or more objects than usual, would be deleted; all else was done.\n\
         See them with: gitopsd diff; put them back into Git, or let them go with:\n\
         gitopsd confirm @GITOPSD_DIGEST@",
    ),
    (
        Message::HealthPassed,
        "d07aab95e08ce9f9afdba37d19a30bc1",
        "@GITOPSD_KUSTOMIZATION@ is healthy",
        "Every object that is waited for is ready, and what depends on it may run.\n\
         Nothing is to be done.",
    ),
    (
        Message::HealthFailed,
        "b4a163a08210d63f86b9117d46b2831b",
        "@GITOPSD_KUSTOMIZATION@ is not healthy",
        "The line above names the object and the cause found in its pods and events.\n\
         It is watched on; a fix in Git or in the cluster is noticed by itself.",
    ),
    (
        Message::RecordInterrupted,
        "4af42bf99a3b53752e35a45942a490e0",
        "A run was cut short",
        "Run @GITOPSD_RUN@ was open when gitopsd stopped without notice, by a power cut for example.\n\
         Its record is closed as interrupted and the next run finishes the work. Nothing is lost.",
    ),
    (
        Message::RecordRebuilt,
        "d31187a8ad5e8de66fe2a2b8ca3e8b20",
        "The database was damaged and replaced",
        "The damaged file was put aside in the state directory. The inventory is rebuilt from the\n\
         cluster; history before this moment is in the old file. Look at the disk: journalctl -k -p warning",
    ),
    (
        Message::InventoryRegained,
        "80974a6784dc4eb48d1378c6277e3b92",
        "Objects came back into the inventory of @GITOPSD_KUSTOMIZATION@",
        "They carry its labels and fields, but the record did not know them: the record was lost, or\n\
         the cluster is older than it. What Git does not name is pruned next: gitopsd diff shows it.",
    ),
    (
        Message::Conflict,
        "b8937f93c4e48470f1f618d29fea7cd1",
        "Another writer keeps changing @GITOPSD_OBJECT@",
        "Git's state was put back several times in ten minutes; healing now waits longer each time.\n\
         gitopsd status names the other manager and the fields: take them out of Git, or stop the other.",
    ),
    (
        Message::ClaimRefused,
        "18ee2f2c1cd9a93cfc189a2c4e298789",
        "Two Kustomizations want @GITOPSD_OBJECT@ differently",
        "The one that came later was refused before anything was written; the line above names both files.\n\
         Let one of the two leave it out, or make them equal.",
    ),
    (
        Message::MacWrong,
        "a4e29c55779b03956f8e88289efcf5a4",
        "A sealed file was edited without re-sealing",
        "Its values are authentic, but its MAC does not match: text outside the sealed values was changed.\n\
         See that the change is wanted, then seal it again as that line says: a manifest by setting\n\
         its kind to what it is, any other file by a change of any value in\n\
         sops edit --ignore-mac FILE\n\
         To stop on this instead, set decryption.mac: enforce.",
    ),
    (
        Message::SealedFailed,
        "b7a35bae4c368a6d15c07fcd1d687be0",
        "A sealed file cannot be opened",
        "The line above says which file and whether the key is missing or a value was damaged.\n\
         The Kustomization waits. See which recipients are missing with: gitopsd check",
    ),
    (
        Message::PlaintextSecret,
        "7aef5c3ffe19c1e9f782dcef1570aab3",
        "A Secret stands in Git in plain text",
        "It was applied, but everybody who can read the repository can read it.\n\
         Seal it with sops, and change the password: the old one stays in Git's past.",
    ),
    (
        Message::OldCopy,
        "71af0ca567c94bb686468faa7f4f93a8",
        "A base outside the source is used as it was fetched last",
        "The server of a remote base does not answer or refuses; the copy on this host stands.\n\
         Nothing is to be done while the uplink is down. Otherwise correct the entry in the\n\
         kustomization file that is named above.",
    ),
    (
        Message::Unsupported,
        "c4bf23c406a7edc87dc37ab52d23a902",
        "Something in Git is not acted upon",
        "What is named above is not supported yet, or misspelt; the rest is acted upon.\n\
         All of them are listed by: gitopsd status",
    ),
    (
        Message::SecondOwner,
        "ff06c56781813f5fea9d730048b927af",
        "Another controller owns this cluster",
        "Live Flux controllers or another gitopsd were found; two owners would undo each other.\n\
         Nothing was written. The line above says what was found and how to hand over.",
    ),
    (
        Message::ClusterUnreachable,
        "7d72bd7e0eeb662010df4ac632334c7a",
        "The API server does not answer",
        "Work goes on by itself once it does; nothing is lost. Sources are still fetched.\n\
         Look at: systemctl status k3s",
    ),
    (
        Message::ClusterReachable,
        "8a5d5203cfca818deaca5cbe8504b343",
        "The API server answers again",
        "Every object is verified now, since changes may have been lost or missed.\n\
         Nothing is to be done.",
    ),
    (
        Message::ClusterChanged,
        "a6a439d55f76d0c38d3919f850b13134",
        "This is not the cluster that was recorded",
        "The uid of the namespace kube-system differs: a reinstall, a restored snapshot or a wrong\n\
         kubeconfig. Nothing is pruned until you say that it is right: gitopsd confirm cluster",
    ),
    (
        Message::Suspended,
        "3bf93a01ba4cf4fd87186614ac943600",
        "@GITOPSD_KUSTOMIZATION@ is suspended",
        "It is neither applied nor healed nor pruned until it is resumed.\n\
         Take it up again with: gitopsd resume @GITOPSD_KUSTOMIZATION@",
    ),
    (
        Message::Resumed,
        "e911ff2ad1d03f97988ec2af4afb0dcb",
        "@GITOPSD_KUSTOMIZATION@ is resumed",
        "It is brought to Git's state now.\n\
         Follow it with: gitopsd status -w",
    ),
    (
        Message::DiskFull,
        "bf87340ed3aa82e0bd2573e87809809c",
        "The disk of the state directory is full",
        "Nothing is written to the cluster that cannot be recorded first; a reserve was freed.\n\
         Make room, then: gitopsd reconcile. What is large: du -xh /var | sort -h | tail",
    ),
    (
        Message::ImageChosen,
        "46acb1dc5c26a4be0e33d974a769acac",
        "@GITOPSD_OBJECT@ chose another image",
        "The registry has a tag that the policy puts first; automations that follow it commit it now.\n\
         See why it was chosen, and why the others were not, with: gitopsd images NAME",
    ),
    (
        Message::ImagePushed,
        "9f631ccf30e1b8954916f3b8995e5eff",
        "An image was committed to Git as @GITOPSD_REVISION@",
        "The file named above was edited where it is marked and pushed; what depends on it runs at once.\n\
         See what it led to with: gitopsd history; to stop it: gitopsd suspend ImageUpdateAutomation/...",
    ),
    (
        Message::ImageFailed,
        "50a376b383adf2f6462c9ea88abb8f73",
        "@GITOPSD_OBJECT@ could not do its work",
        "The line above says why: the registry, its credentials, the tags, a marker or the Git server.\n\
         What was chosen before stays in force; it is tried again by itself, or now: gitopsd reconcile image",
    ),
    (
        Message::ImageOrder,
        "602fd85d78ee332bc0cc066156a8a1ef",
        "@GITOPSD_OBJECT@ orders its tags otherwise than Flux would",
        "Keys of a date and a counter are ordered as such here; Flux reads them as decimal fractions.\n\
         The line above has a policy on which both agree: put it into Git before going back to Flux.",
    ),
    (
        Message::CannotRun,
        "b328ca4028dd90221762d0a780d47eb8",
        "gitopsd cannot run on this host as it is",
        "The line above names what is wrong and what to do. Where another try may help systemd starts it\n\
         again, later each time; otherwise mend it, then: systemctl start gitopsd\n\
         Workloads go on running unwatched.",
    ),
    (
        Message::Departed,
        "3fed77dae6f352c264b5309e3692b77d",
        "@GITOPSD_KUSTOMIZATION@ left Git",
        "What it owned is deleted, or stays where it has prune: false or deletionPolicy: Orphan. What is\n\
         held, or could not be deleted yet, stays in the inventory and is tried again by itself.\n\
         What waits for you is listed by: gitopsd status",
    ),
];

impl Message {
    /// The 128-bit id as 32 lower-case hex digits, for the field `message_id`.
    pub const fn id(self) -> &'static str {
        ENTRIES[self as usize].1
    }
}

/// The journal catalog, in the format of `journalctl --update-catalog`.
pub fn catalog() -> String {
    let mut text = String::from(
        "# Explanations of gitopsd's journal events, for `journalctl -x`.\n\
         # Written by gitopsd::logging::catalog; a unit test keeps the two equal.\n",
    );
    for (_, id, subject, explanation) in ENTRIES {
        let defined = "Defined-By: gitopsd";
        // Writing to a String cannot fail.
        let _ = write!(text, "\n-- {id}\nSubject: {subject}\n{defined}\n\n{explanation}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_stands_at_its_own_place_with_its_own_id() {
        for (place, (message, id, ..)) in ENTRIES.iter().enumerate() {
            assert_eq!(*message as usize, place, "{message:?}");
            assert_eq!(message.id(), *id);
            let hex = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            assert!(hex && id.len() == 32, "{message:?}: {id}");
        }
        let ids: BTreeSet<_> = ENTRIES.iter().map(|entry| entry.1).collect();
        assert_eq!(ids.len(), ENTRIES.len());
        assert_eq!(ENTRIES[ENTRIES.len() - 1].0, Message::Departed, "the last kind has an entry");
    }

    #[test]
    fn the_shipped_catalog_is_the_one_the_code_writes() {
        let shipped = include_str!("../../packaging/usr/lib/systemd/catalog/gitopsd.catalog");
        assert!(shipped == catalog(), "write this to the file:\n{}", catalog());
    }

    #[test]
    fn every_explanation_fits_a_terminal_and_says_what_to_do() {
        for (message, _, subject, explanation) in ENTRIES {
            assert!(subject.len() <= 80, "{message:?}");
            assert!(explanation.lines().all(|line| line.len() <= 100), "{message:?}");
            assert!(explanation.lines().count() >= 2, "{message:?}");
            // A line of two dashes or an empty line would end the entry or its header early.
            assert!(!explanation.contains("\n--") && !explanation.contains("\n\n"), "{message:?}");
        }
    }
}
