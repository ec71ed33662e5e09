//! The default seccomp profile, compiled to BPF here: no C library needed.
//!
//! It allows what container runtimes allow by default, plus what the container's capabilities are useless without. Known
//! but refused calls fail with EPERM; calls newer than the profile, and those of a foreign architecture (32-bit programs
//! on a 64-bit kernel), with ENOSYS, so that programs fall back to older ones.

use nix::errno::Errno;
use nix::libc::{self, sock_filter};

use crate::spec::capability::Capabilities;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JUMP_GREATER_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Offsets in `struct seccomp_data`; arguments are 64 bits wide, low half first on the architectures below.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = 16;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Calls of the x32 variant of x86-64 carry this bit.
const X32_BIT: u32 = 0x4000_0000;
/// Every flag of clone(2) that makes a namespace.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// The personalities that mean "Linux", "uname 2.6" and "tell me".
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Filters the calls of this process and its children from now on. Needs CAP_SYS_ADMIN or no_new_privs.
pub(super) fn install(program: &[sock_filter]) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    Errno::result(result).map(drop)
}

/// The default profile for a container with these capabilities.
pub(super) fn default_profile(capabilities: Capabilities) -> Vec<sock_filter> {
    let mut allowed: Vec<u32> = ALLOWED.iter().chain(ALLOWED_ARCH).map(|number| *number as u32).collect();
    for (names, calls) in CAPABILITY_CALLS {
        if capabilities.names().iter().any(|name| names.contains(name)) {
            allowed.extend(calls.iter().map(|number| *number as u32));
        }
    }
    allowed.sort_unstable();
    allowed.dedup();
    let is_admin = capabilities.contains(Capabilities::SYS_ADMIN);

    let mut program = vec![
        instruction(LOAD, OFFSET_ARCH),
        jump(JUMP_EQUAL, ARCH, 1, 0),
        instruction(RETURN, UNKNOWN),
        instruction(LOAD, OFFSET_NUMBER),
        jump(JUMP_GREATER_EQUAL, X32_BIT, 0, 1),
        instruction(RETURN, UNKNOWN),
    ];
    if !is_admin {
        // Flags of clone3 are behind a pointer, where a filter cannot look; libraries then use clone.
        program.extend([jump(JUMP_EQUAL, libc::SYS_clone3 as u32, 0, 1), instruction(RETURN, UNKNOWN)]);
        let clone = [jump(JUMP_ANY_BIT, NAMESPACE_FLAGS, 0, 1), instruction(RETURN, DENY), instruction(RETURN, ALLOW)];
        program.extend(on_argument(libc::SYS_clone as u32, &clone));
    }
    let mut personality: Vec<_> =
        PERSONALITIES.iter().flat_map(|value| [jump(JUMP_EQUAL, *value, 0, 1), instruction(RETURN, ALLOW)]).collect();
    personality.push(instruction(RETURN, DENY));
    program.extend(on_argument(libc::SYS_personality as u32, &personality));
    // Sockets to the hypervisor lead out of every namespace.
    let socket = [jump(JUMP_EQUAL, libc::AF_VSOCK as u32, 0, 1), instruction(RETURN, DENY), instruction(RETURN, ALLOW)];
    program.extend(on_argument(libc::SYS_socket as u32, &socket));
    for (low, high) in ranges(&allowed) {
        program.extend([
            jump(JUMP_GREATER_EQUAL, low, 0, 2),
            jump(JUMP_GREATER, high, 1, 0),
            instruction(RETURN, ALLOW),
        ]);
    }
    let newest = allowed.last().copied().unwrap_or(0);
    program.extend([jump(JUMP_GREATER, newest, 0, 1), instruction(RETURN, UNKNOWN), instruction(RETURN, DENY)]);
    program
}

/// Decides one call by the low half of its first argument; `body` must return.
fn on_argument(number: u32, body: &[sock_filter]) -> Vec<sock_filter> {
    // Bodies are a few instructions long.
    let skip = (body.len() + 1) as u8;
    let mut program = vec![jump(JUMP_EQUAL, number, 0, skip), instruction(LOAD, OFFSET_ARG0)];
    program.extend_from_slice(body);
    program
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code, jt: if_true, jf: if_false, k }
}

/// Runs of consecutive numbers in a sorted list.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == *number => *high = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Calls that a capability is for.
const CAPABILITY_CALLS: &[(&[&str], &[libc::c_long])] = &[
    (&["CAP_DAC_READ_SEARCH"], calls![SYS_open_by_handle_at]),
    (
        &["CAP_SYS_ADMIN"],
        calls![
            SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount
            SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
            SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
        ],
    ),
    (&["CAP_SYS_BOOT"], calls![SYS_reboot]),
    (&["CAP_SYS_CHROOT"], calls![SYS_chroot]),
    (&["CAP_SYS_MODULE"], calls![SYS_delete_module SYS_init_module SYS_finit_module]),
    (&["CAP_SYS_PACCT"], calls![SYS_acct]),
    (
        &["CAP_SYS_PTRACE"],
        calls![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace],
    ),
    (&["CAP_SYS_TIME"], calls![SYS_settimeofday SYS_clock_settime]),
    (&["CAP_SYS_TTY_CONFIG"], calls![SYS_vhangup]),
    (&["CAP_SYS_NICE"], calls![SYS_get_mempolicy SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node]),
    (&["CAP_SYSLOG"], calls![SYS_syslog]),
    (&["CAP_BPF"], calls![SYS_bpf]),
    (&["CAP_PERFMON"], calls![SYS_perf_event_open]),
];

/// Calls that any container may make, on every architecture.
const ALLOWED: &[libc::c_long] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex
    SYS_futex_waitv SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid
    SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom
    SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid
    SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel
    SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen
    SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create
    SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect
    SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl
    SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep
    SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease
    SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read
    SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr
    SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask
    SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam
    SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile
    SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid
    SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget
    SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill
    SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// Older forms that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_ARCH: &[libc::c_long] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_get_thread_area
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe
    SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd SYS_stat SYS_symlink SYS_time
    SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_ARCH: &[libc::c_long] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(program: &[sock_filter], arch: u32, number: u32, arg0: u32) -> u32 {
        let (mut at, mut register) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let condition = match step.code {
                LOAD => {
                    register = match step.k {
                        OFFSET_ARCH => arch,
                        OFFSET_NUMBER => number,
                        OFFSET_ARG0 => arg0,
                        other => panic!("load from {other}"),
                    };
                    continue;
                }
                RETURN => return step.k,
                JUMP_EQUAL => register == step.k,
                JUMP_GREATER => register > step.k,
                JUMP_GREATER_EQUAL => register >= step.k,
                JUMP_ANY_BIT => register & step.k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if condition { step.jt } else { step.jf });
        }
    }

    fn verdict(capabilities: Capabilities, number: libc::c_long, arg0: u32) -> u32 {
        run(&default_profile(capabilities), ARCH, number as u32, arg0)
    }

    const NONE: Capabilities = Capabilities(0);

    #[test]
    fn every_listed_call_is_allowed() {
        let conditional = [libc::SYS_clone, libc::SYS_personality, libc::SYS_socket];
        for number in ALLOWED.iter().chain(ALLOWED_ARCH) {
            assert!(!conditional.contains(number));
            assert_eq!(verdict(NONE, *number, 0), ALLOW, "{number}");
        }
    }

    #[test]
    fn calls_against_the_node_are_refused() {
        for number in
            [libc::SYS_mount, libc::SYS_bpf, libc::SYS_unshare, libc::SYS_setns, libc::SYS_reboot, libc::SYS_keyctl]
        {
            assert_eq!(verdict(NONE, number, 0), DENY, "{number}");
        }
        assert_eq!(verdict(Capabilities::SYS_ADMIN, libc::SYS_mount, 0), ALLOW);
        assert_eq!(verdict(Capabilities::SYS_ADMIN, libc::SYS_reboot, 0), DENY);
    }

    #[test]
    fn arguments_decide_where_they_must() {
        assert_eq!(verdict(NONE, libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(verdict(NONE, libc::SYS_clone, libc::CLONE_NEWUSER as u32), DENY);
        assert_eq!(verdict(Capabilities::SYS_ADMIN, libc::SYS_clone, libc::CLONE_NEWNS as u32), ALLOW);
        assert_eq!(verdict(NONE, libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(verdict(NONE, libc::SYS_personality, 0xffff_ffff), ALLOW);
        assert_eq!(verdict(NONE, libc::SYS_personality, 0x40_0000), DENY);
        assert_eq!(verdict(NONE, libc::SYS_socket, libc::AF_INET6 as u32), ALLOW);
        assert_eq!(verdict(NONE, libc::SYS_socket, libc::AF_VSOCK as u32), DENY);
    }

    #[test]
    fn what_the_profile_cannot_know_does_not_exist() {
        let profile = default_profile(NONE);
        assert_eq!(run(&profile, 0x4000_0003, libc::SYS_read as u32, 0), UNKNOWN);
        assert_eq!(run(&profile, ARCH, X32_BIT | libc::SYS_read as u32, 0), UNKNOWN);
        assert_eq!(run(&profile, ARCH, 9999, 0), UNKNOWN);
        assert!(profile.len() < 4096);
    }
}
