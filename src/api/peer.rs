//! Who is at the other end of a connection, and what they may do.
//!
//! The kernel vouches for uid and gid (`SO_PEERCRED`). Root and the daemon's own user act; members
//! of the socket file's group, by primary or supplementary group, read. Supplementary groups are
//! asked from the user database at each connection, because a person who was just added to the
//! group should not have to log in again to see `status`.

use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::ffi::CString;
use tokio::net::unix::UCred;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Look and act.
    Act,
}

/// The other end of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What it may do.
    pub right: Right,
    /// `name (uid 1000)`.
    pub name: String,
}

impl Peer {
    /// Judges a peer. Blocks on the user database for anybody but root and ourselves.
    pub fn judge(uid: u32, gid: u32, group: Option<u32>) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = match &user {
            Some(user) => format!("{} (uid {uid})", user.name),
            None => format!("uid {uid}"),
        };
        if uid == 0 || uid == Uid::effective().as_raw() {
            return Peer { right: Right::Act, name };
        }
        let supplementary = || {
            let user = user.and_then(|user| CString::new(user.name).ok())?;
            getgrouplist(&user, Gid::from_raw(gid)).ok()
        };
        // Group 0 owns the socket where nobody chose a group: that opens nothing to anybody.
        let member = group.filter(|group| *group != 0).is_some_and(|group| {
            gid == group || supplementary().is_some_and(|all| all.contains(&Gid::from_raw(group)))
        });
        Peer { right: if member { Right::Read } else { Right::None }, name }
    }

    /// Uid and gid of a connection's credentials.
    pub fn ids(credentials: &UCred) -> (u32, u32) {
        (credentials.uid(), credentials.gid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No system gives this id to anybody: the highest but the reserved one.
    const STRANGER: u32 = u32::MAX - 2;

    #[test]
    fn root_and_the_daemons_user_act_and_the_group_reads() {
        let own = Uid::effective().as_raw();
        for (uid, gid, group, right) in [
            (0, 0, None, Right::Act),
            (own, 0, Some(900), Right::Act),
            (STRANGER, 900, Some(900), Right::Read),
            (STRANGER, 901, Some(900), Right::None),
            (STRANGER, 0, Some(0), Right::None),
            (STRANGER, 900, None, Right::None),
        ] {
            assert_eq!(Peer::judge(uid, gid, group).right, right, "{uid} {gid} {group:?}");
        }
        assert_eq!(Peer::judge(STRANGER, 1, None).name, format!("uid {STRANGER}"));
    }
}
