//! What the build may do: read its workspace, compute, print.
//!
//! Landlock allows reading the workspace and executing the engine's own file, nothing else, and
//! no writing at all. seccomp allows the calls that a Go program computes with and answers
//! `ENOSYS` to every other, so there are no sockets, no ptrace, no namespaces, no io_uring, no
//! signals to strangers but `tgkill`, which Go's scheduler needs (Landlock scopes it where the
//! kernel can). An allow-list, not a deny-list: it has no gap for calls of the x32 ABI or of
//! kernels to come, and Go takes `ENOSYS` as "not on this kernel" and falls back.
//!
//! Everything is prepared before the fork; between fork and exec only system calls are made.
//! A kernel without Landlock is told once, and seccomp stands alone. No namespaces: they would
//! cost the unit its rating.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A prepared sandbox, moved into the child.
pub(crate) struct Sandbox {
    filter: BpfProgram,
    ruleset: Option<OwnedFd>,
}

/// Every file access that Landlock knew when this was written; older kernels handle what they know.
const KNOWN: ABI = ABI::V6;

impl Sandbox {
    /// Prepares the rules for one workspace and one engine.
    ///
    /// # Errors
    /// The kernel refuses to build them.
    pub fn prepare(workspace: &Path, engine: &Path) -> io::Result<Sandbox> {
        Ok(Sandbox { filter: filter()?, ruleset: ruleset(workspace, engine)? })
    }

    /// False on a kernel without Landlock.
    pub fn confines_files(&self) -> bool {
        self.ruleset.is_some()
    }

    /// Applies everything to the calling process; called between fork and exec, so it makes
    /// system calls only: no allocation, no lock.
    ///
    /// # Errors
    /// The kernel's refusal; the child must not be executed then.
    #[allow(unsafe_code)] // prctl, setrlimit and landlock_restrict_self have no safe wrapper.
    pub fn enter(&self, parent: libc::pid_t) -> io::Result<()> {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain system calls with values of ours; `none` outlives the call.
        unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The parent may have died before the line above took effect.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
            if let Some(ruleset) = &self.ruleset {
                let call = libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0);
                check(i32::try_from(call).unwrap_or(-1))?;
            }
        }
        seccompiler::apply_filter(&self.filter)
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ruleset(workspace: &Path, engine: &Path) -> io::Result<Option<OwnedFd>> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // kubectl opens its KUBECONFIG, which is /dev/null.
    let rules: [(&Path, BitFlags<AccessFs>); 3] = [
        (workspace, read),
        (engine, AccessFs::Execute | AccessFs::ReadFile),
        (Path::new("/dev/null"), AccessFs::ReadFile.into()),
    ];
    let build = || -> Result<Option<OwnedFd>, landlock::RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?;
        for (path, access) in rules {
            let Ok(opened) = PathFd::new(path) else { continue };
            ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
        }
        Ok(ruleset.into())
    };
    build().map_err(io::Error::other)
}

/// Namespaces that `clone` could make: all `CLONE_NEW*` flags.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

fn filter() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let build = || -> Result<BpfProgram, seccompiler::BackendError> {
        let mask = SeccompCmpOp::MaskedEq(u64::from(NAMESPACES.unsigned_abs()));
        let plain = SeccompCondition::new(0, SeccompCmpArgLen::Qword, mask, 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![plain])?]);
        let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let here = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, enosys, SeccompAction::Allow, here)?.try_into()
    };
    build().map_err(io::Error::other)
}

/// What Go's runtime and kustomize compute with, and what a static C program needs to start.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ioctl,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    libc::SYS_setitimer,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older spellings that exist on this architecture only.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];

#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];
