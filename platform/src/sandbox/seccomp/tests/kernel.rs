//! The kernel of this machine under the native filter. Each call that is refused is made without the filter as well, with
//! arguments for which the kernel has another answer, whoever asks.

use super::{ALL, INET, NOTHING, UNIX};
use crate::sandbox::seccomp::{Filter, Sockets};
use libc::{
    AF_ALG, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, EACCES, EAFNOSUPPORT, EBADF, EFAULT, EINVAL,
    ENOSYS, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ESRCH, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, c_long,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn filter(sockets: Sockets) -> Filter {
    Filter::new(sockets).expect("a filter for this architecture")
}

/// `program`, which puts itself under the filter and makes a call before it is executed. The error of starting it is
/// that of the first of these that fails.
fn command(program: &str, filter: Option<Filter>, call: fn() -> c_long) -> Command {
    let mut command = Command::new(program);
    // SAFETY: installing is made for this place; the calls of this file are bare system calls.
    unsafe {
        command.pre_exec(move || {
            filter.as_ref().map_or(Ok(()), Filter::install)?;
            if call() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    command
}

/// The error number of `call`, or 0.
fn probe(filter: Option<Filter>, call: fn() -> c_long) -> i32 {
    match command("true", filter, call).status() {
        Ok(status) => {
            assert!(status.success(), "{status}");
            0
        }
        Err(error) => error.raw_os_error().expect("an error of the kernel"),
    }
}

fn script(filter: Option<Filter>, script: &str) -> Output {
    command("bash", filter, || 0).args(["-c", script]).env("LC_ALL", "C").output().expect("bash")
}

/// A bare system call; arguments that are left out are 0.
macro_rules! call {
    ($number:expr $(, $arg:expr)*) => {
        || {
            const ZERO: c_long = 0;
            // SAFETY: a call that fails, or changes the calling process alone, which is about to execute something else.
            unsafe { libc::syscall($number as c_long $(, $arg as c_long)*, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO) }
        }
    };
}

/// A name, a call, what it answers without the filter (one of), and with it; 0 is success.
type Case = (&'static str, fn() -> c_long, &'static [i32], i32);

fn check(sockets: Sockets, cases: &[Case]) {
    for &(name, call, without, with) in cases {
        let control = probe(None, call);
        assert!(without.contains(&control), "{name} without a filter: {control}");
        assert_eq!(probe(Some(filter(sockets)), call), with, "{name} under {sockets:?}");
    }
}

#[test]
fn refused_calls_fail_and_would_not_without_the_filter() {
    check(
        ALL,
        &[
            ("setns", call!(libc::SYS_setns, -1), &[EBADF], EPERM),
            ("mount", call!(libc::SYS_mount, 0, 0, 0), &[EFAULT], EPERM),
            ("umount2", call!(libc::SYS_umount2, 0, -1), &[EINVAL], EPERM),
            ("chroot", call!(libc::SYS_chroot, 0), &[EFAULT], EPERM),
            ("open_tree", call!(libc::SYS_open_tree, -1, 0, -1), &[EINVAL], EPERM),
            ("fsconfig", call!(libc::SYS_fsconfig, -1), &[EINVAL], EPERM),
            ("mount_setattr", call!(libc::SYS_mount_setattr, -1, 0, -1), &[EINVAL], EPERM),
            ("ptrace", call!(libc::SYS_ptrace, -1), &[ESRCH], EPERM),
            ("process_vm_readv", call!(libc::SYS_process_vm_readv, 0, 0, 0, 0, 0, 1), &[EINVAL], EPERM),
            ("process_vm_writev", call!(libc::SYS_process_vm_writev, 0, 0, 0, 0, 0, 1), &[EINVAL], EPERM),
            ("process_madvise", call!(libc::SYS_process_madvise, -1, 0, 0, 0, 1), &[EINVAL], EPERM),
            ("kcmp", call!(libc::SYS_kcmp), &[ESRCH, ENOSYS], EPERM),
            ("pidfd_getfd", call!(libc::SYS_pidfd_getfd, -1, 0, 1), &[EINVAL], EPERM),
            ("io_uring_enter", call!(libc::SYS_io_uring_enter, -1), &[EBADF, ENOSYS], EPERM),
            ("io_uring_register", call!(libc::SYS_io_uring_register, -1), &[EBADF, EINVAL, ENOSYS], EPERM),
            ("add_key", call!(libc::SYS_add_key), &[EFAULT, ENOSYS], EPERM),
            ("keyctl", call!(libc::SYS_keyctl, -1), &[EOPNOTSUPP, ENOSYS], EPERM),
            ("perf_event_open", call!(libc::SYS_perf_event_open, 0, 0, 0, 0, -1), &[EINVAL, ENOSYS], EPERM),
            ("userfaultfd", call!(libc::SYS_userfaultfd, -1), &[EINVAL, ENOSYS], EPERM),
            ("adjtimex", call!(libc::SYS_adjtimex), &[EFAULT], EPERM),
            ("clock_adjtime", call!(libc::SYS_clock_adjtime), &[EFAULT], EPERM),
            ("personality", call!(libc::SYS_personality, libc::READ_IMPLIES_EXEC), &[0], EPERM),
            ("clone3", call!(libc::SYS_clone3), &[EINVAL], ENOSYS),
            // New namespaces, with a flag that the kernel does not take with them.
            ("clone", call!(libc::SYS_clone, libc::CLONE_NEWUSER | libc::CLONE_FS), &[EINVAL], EPERM),
            ("unshare", call!(libc::SYS_unshare, libc::CLONE_NEWUSER | 1), &[EINVAL], EPERM),
            ("TIOCSTI", call!(libc::SYS_ioctl, -1, libc::TIOCSTI), &[EBADF], EPERM),
            ("TIOCLINUX", call!(libc::SYS_ioctl, -1, libc::TIOCLINUX), &[EBADF], EPERM),
        ],
    );
}

/// That the kernel does not look at them is seen by the first.
#[test]
#[cfg(target_pointer_width = "64")]
fn bits_above_an_argument_hide_nothing() {
    const HIGH: c_long = 0x7ead_beef << 32;
    check(
        NOTHING,
        &[
            ("FIOCLEX", call!(libc::SYS_ioctl, 0, HIGH | libc::FIOCLEX as c_long), &[0], 0),
            ("TIOCSTI", call!(libc::SYS_ioctl, -1, HIGH | libc::TIOCSTI as c_long), &[EBADF], EPERM),
            (
                "clone",
                call!(libc::SYS_clone, HIGH | c_long::from(libc::CLONE_NEWUSER | libc::CLONE_FS)),
                &[EINVAL],
                EPERM,
            ),
            ("socket", call!(libc::SYS_socket, HIGH | c_long::from(AF_INET), SOCK_DGRAM), &[0], EACCES),
        ],
    );
}

#[test]
fn what_is_left_alone_works_under_the_filter() {
    check(
        NOTHING,
        &[
            ("getpid", call!(libc::SYS_getpid), &[0], 0),
            ("unshare", call!(libc::SYS_unshare, libc::CLONE_FS | libc::CLONE_FILES), &[0], 0),
            ("personality", call!(libc::SYS_personality, -1), &[0], 0),
            ("no addresses by chance", call!(libc::SYS_personality, libc::ADDR_NO_RANDOMIZE), &[0], 0),
            ("setsid", call!(libc::SYS_setsid), &[0], 0),
            ("landlock_create_ruleset", call!(libc::SYS_landlock_create_ruleset, 0, 0, -1), &[EINVAL, ENOSYS], EINVAL),
        ],
    );
}

#[test]
fn sockets_are_refused_by_family() {
    let unix: Case = ("unix", call!(libc::SYS_socket, AF_UNIX, SOCK_STREAM), &[0], EACCES);
    let inet: Case = ("inet", call!(libc::SYS_socket, AF_INET, SOCK_STREAM), &[0], EACCES);
    let inet6: Case = ("inet6", call!(libc::SYS_socket, AF_INET6, SOCK_DGRAM), &[0, EAFNOSUPPORT], EACCES);
    let route: Case = ("route", call!(libc::SYS_socket, AF_NETLINK, SOCK_RAW, libc::NETLINK_ROUTE), &[0], EACCES);
    check(NOTHING, &[unix, inet, inet6, route]);
    let allowed = |(name, call, without, _): Case| (name, call, without, probe(None, call));
    check(ALL, &[unix, inet, inet6, route].map(allowed));
    check(UNIX, &[allowed(unix), inet, inet6, route]);
    check(INET, &[unix, allowed(inet), allowed(inet6), allowed(route)]);
    check(
        ALL,
        &[
            ("vsock", call!(libc::SYS_socket, AF_VSOCK, SOCK_STREAM), &[0, EAFNOSUPPORT], EACCES),
            ("alg", call!(libc::SYS_socket, AF_ALG, 5), &[0, EAFNOSUPPORT], EACCES),
            ("uevents", call!(libc::SYS_socket, AF_NETLINK, SOCK_RAW, 15), &[0, EPROTONOSUPPORT], EACCES),
            // EPERM for an ordinary user.
            ("packet", call!(libc::SYS_socket, AF_PACKET, SOCK_RAW), &[0, EPERM, EAFNOSUPPORT], EACCES),
            ("packet by type", call!(libc::SYS_socket, AF_INET, 10), &[0, EPERM, EAFNOSUPPORT], EACCES),
            ("raw", call!(libc::SYS_socket, AF_INET, SOCK_RAW, 1), &[0, EPERM], EACCES),
            ("pair of inet", call!(libc::SYS_socketpair, AF_INET, SOCK_STREAM), &[EOPNOTSUPP, EFAULT], EACCES),
        ],
    );
}

#[test]
fn pairs_of_unix_sockets_are_made_without_the_right_to_unix_sockets() {
    fn pair() -> c_long {
        let mut pair = [0; 2];
        // SAFETY: writes two descriptors, which the array has room for.
        unsafe { libc::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()) }.into()
    }
    check(NOTHING, &[("pair", pair, &[0], 0)]);
}

/// The 32-bit entry, which a 64-bit program can use as well: getpid is 20 there.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_call_of_another_architecture_kills() {
    use std::os::unix::process::ExitStatusExt;
    fn getpid() -> c_long {
        let mut result: c_long = 20;
        // SAFETY: the call takes nothing; the entry leaves all registers but these alone.
        unsafe {
            std::arch::asm!("int 0x80", inout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
        };
        result
    }
    let ended = |filter| command("true", filter, getpid).status().expect("true");
    assert!(ended(None).success(), "this kernel takes no 32-bit calls at all");
    let status = ended(Some(filter(ALL)));
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}

#[test]
fn installing_gives_up_new_privileges() {
    let output = script(Some(filter(NOTHING)), "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status");
    // 2: under a filter (proc_pid_status(5)).
    assert_eq!(String::from_utf8_lossy(&output.stdout), "NoNewPrivs:\t1\nSeccomp:\t2\n", "{output:?}");
}

#[test]
fn ordinary_programs_run() {
    let ordinary = "set -eo pipefail; sum=$(seq 300000 | sort -rn --parallel=2 | (sleep 0.1; cat) | tail -n 1); \
        file=$(mktemp); echo $sum > $file; (grep -q 1 $file & wait $!); rm $file; \
        test \"$(cat <(echo $sum))\" = 1; echo fine";
    for sockets in [NOTHING, ALL] {
        let output = script(Some(filter(sockets)), ordinary);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "fine\n", "{output:?}");
    }
}

/// The test runner starts a thread for each test: the C library asks for clone3, and has to be content with clone.
#[test]
fn threads_start() {
    let own = std::env::current_exe().expect("own binary");
    let output = command(own.to_str().expect("a name in UTF-8"), Some(filter(NOTHING)), || 0)
        .args(["--exact", "--test-threads=2", "sandbox::seccomp::tests::a_jump_that_is_too_long_is_no_program"])
        .args(["sandbox::seccomp::tests::clone3_is_unknown_whatever_its_arguments"])
        .output()
        .expect("own binary");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 passed"), "{output:?}");
}

#[test]
fn what_a_program_starts_is_under_the_filter_and_says_why() {
    let cases = [
        ("bash -c 'exec 3<>/dev/tcp/127.0.0.1/1'", "Connection refused", "Permission denied"),
        ("unshare --fork --mount --map-root-user --ipc nosuchprogram", "nosuchprogram", "Operation not permitted"),
    ];
    for (line, without, with) in cases {
        let said = |filter| String::from_utf8_lossy(&script(filter, line).stderr).into_owned();
        let control = said(None);
        assert!(control.contains(without) && !control.contains(with), "{line} without a filter: {control}");
        let filtered = said(Some(filter(NOTHING)));
        assert!(filtered.contains(with) && !filtered.contains(without), "{line}: {filtered}");
    }
}

#[test]
fn a_filter_that_the_kernel_does_not_take_is_an_error() {
    let empty = Filter(Vec::new());
    assert_eq!(probe(Some(empty), || 0), EINVAL);
    let mut endless = filter(ALL);
    endless.0.pop();
    assert_eq!(probe(Some(endless), || 0), EINVAL, "the last branch has no verdict");
}

#[test]
fn a_second_filter_adds_to_the_first() {
    let second = filter(ALL);
    let mut command = command("true", Some(filter(NOTHING)), || 0);
    // SAFETY: installing is made for this place.
    unsafe { command.pre_exec(move || second.install()) };
    assert!(command.status().expect("true").success());
}
