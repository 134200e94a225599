//! seccomp: calls of the system that a job has no use for are refused with `EPERM`.
//!
//! It is a list of what is refused, not of what is allowed: the libraries below us (RocksDB, librdkafka, the C library) change what they call from release
//! to release, and a call that is missing from a list of allowed ones shows as a fault in the middle of a job. What is listed is every way to start a
//! program or a process, to look into or signal another one, to listen, to reach a neighbour on this machine by a socket that is no internet address, to
//! change what the machine is, and interfaces of the kernel that were a way out before (io_uring, bpf, perf, userfaultfd, keyrings).
//!
//! The arguments that a filter sees are numbers: it does not know where a `connect` leads. `clone3` hides its flags behind a pointer, so it is said not to
//! exist, and the C library makes its threads by `clone`, whose flags are seen.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::{Error, Standing};

/// An obsolete kind of raw socket, which kernels still know (`man 7 packet`).
const SOCK_PACKET: libc::c_int = 10;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_personality,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Others that come to us.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Who we are.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // Who comes first.
    libc::SYS_setpriority,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_ioprio_set,
    // What the machine is.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    // Interfaces that were a way out before.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
];

/// The same, of calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod, libc::SYS_modify_ldt, libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// The other numbers under which x86-64 kernels may know the same calls (the x32 interface); none elsewhere.
#[cfg(target_arch = "x86_64")]
const ALSO_AT: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const ALSO_AT: Option<i64> = None;

pub(crate) fn filter() -> Result<Standing, Error> {
    let Some(arch) = architecture() else { return Ok(foreign()) };
    // The one that says "there is no such call" first: once the other stands, no thread of ours may put up another.
    let missing = Rules::from([(libc::SYS_clone3, Vec::new())]);
    apply(missing, libc::ENOSYS, arch)?;
    apply(refused()?, libc::EPERM, arch)?;
    Ok(Standing::Up)
}

/// Whether this kernel has filters, by what it says of itself.
pub(crate) fn offered() -> Standing {
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        _ if architecture().is_none() => foreign(),
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => Standing::Up,
        Ok(_) => Standing::Missing { reason: "this kernel's filters cannot refuse a call".to_owned() },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Standing::Missing { reason: "this kernel has no filters".to_owned() },
        Err(error) => Standing::Partly { missing: format!("it cannot be told whether this kernel has filters: {error}") },
    }
}

fn architecture() -> Option<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).ok()
}

fn foreign() -> Standing {
    Standing::Missing { reason: format!("there are no rules for {}", std::env::consts::ARCH) }
}

fn apply(rules: Rules, errno: libc::c_int, arch: TargetArch) -> Result<(), Error> {
    let code = u32::try_from(errno).expect("numbers of errors are positive");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(code), arch).map_err(|error| unbuildable(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| unbuildable(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| unbuildable(&error))
}

fn unbuildable(error: &dyn std::fmt::Display) -> Error {
    Error::Unbuildable { what: "the filter of system calls", reason: error.to_string() }
}

fn refused() -> Result<Rules, Error> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    for (call, any_of) in by_arguments() {
        let built = any_of.into_iter().map(|conditions| {
            let conditions =
                conditions.into_iter().map(|(argument, length, operator, value)| SeccompCondition::new(argument, length, operator, value));
            SeccompRule::new(conditions.collect::<Result<_, _>>()?)
        });
        rules.insert(call, built.collect::<Result<_, _>>().map_err(|error: seccompiler::BackendError| unbuildable(&error))?);
    }
    if let Some(offset) = ALSO_AT {
        let again: Rules = rules.iter().map(|(call, rules)| (call + offset, rules.clone())).collect();
        rules.extend(again);
    }
    Ok(rules)
}

/// One comparison: the number of an argument, how much of it counts, how, with what.
type Comparison = (u8, seccompiler::SeccompCmpArgLen, SeccompCmpOp, u64);

/// Refused if all comparisons of one of the lists hold.
fn by_arguments() -> Vec<(i64, Vec<Vec<Comparison>>)> {
    let bits = |value: libc::c_int| u64::try_from(value).expect("flags and numbers of families are positive");
    let own = u64::from(std::process::id());
    let family = |value| (0, Dword, SeccompCmpOp::Ne, bits(value));
    let kind = |value| vec![(1, Dword, SeccompCmpOp::MaskedEq(0xf), bits(value))];
    vec![
        // A thread is allowed, a process is not.
        (libc::SYS_clone, vec![vec![(0, Qword, SeccompCmpOp::MaskedEq(bits(libc::CLONE_THREAD)), 0)]]),
        // Signals stay in the process.
        (libc::SYS_kill, vec![vec![(0, Dword, SeccompCmpOp::Ne, own)]]),
        (libc::SYS_tgkill, vec![vec![(0, Dword, SeccompCmpOp::Ne, own)]]),
        // Internet addresses, by the protocols that have ports.
        (libc::SYS_socket, vec![vec![family(libc::AF_INET), family(libc::AF_INET6)], kind(libc::SOCK_RAW), kind(SOCK_PACKET)]),
        // It is killed with its parent, and cannot take that back; it stays as little of a target for others as it is.
        (libc::SYS_prctl, vec![vec![(0, Dword, SeccompCmpOp::Eq, bits(libc::PR_SET_PDEATHSIG))]]),
        // What is typed at a terminal by others.
        (libc::SYS_ioctl, vec![vec![(1, Dword, SeccompCmpOp::Eq, libc::TIOCSTI)]]),
    ]
}
