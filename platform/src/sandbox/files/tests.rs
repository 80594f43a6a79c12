//! What cannot be seen from outside: words, and machines without openat2. The rest is in `tests/file_policy.rs`.

use super::super::policy::{Grant, Network, Place, Policy, View};
use super::refused::{Refused, grants};
use super::{names_directory, resolve};
use std::path::Path;

fn view(change: impl FnOnce(&mut Policy)) -> View {
    let mut policy = Policy { hidden: vec!["/w/.duragent".into()], ..Policy::default() };
    change(&mut policy);
    View::new(&policy, Place { workdir: Path::new("/w"), artifacts: Path::new("/w/.duragent/artifacts") })
}

#[test]
fn a_hint_says_what_is_allowed_and_what_to_do() {
    let check = |view: &View, path: &str, access, expected: &str| {
        assert_eq!(Refused::new(view, path.into(), access).hint, expected, "{path}");
    };
    let plain = &view(|_| {});
    check(
        plain,
        "/etc/hosts",
        Grant::Write,
        "the sandbox allows changes only below /w; use a path there, or ask the user to add it to sandbox.write",
    );
    check(
        plain,
        "/etc/hosts",
        Grant::Read,
        "the sandbox allows reading only below /w, /w/.duragent/artifacts, and in the system's own directories; use a path \
         there, or ask the user to add it to sandbox.read",
    );
    let many = &view(|policy| {
        policy.network = Network::All;
        policy.write = ["/a", "/b", "/x", "/y"].map(Into::into).to_vec();
    });
    check(
        many,
        "/usr/x",
        Grant::Write,
        "the sandbox allows changes only below /w, /a, /b, /x, …; use a path there, or ask the user to add it to \
         sandbox.write",
    );
    let runtime = "this belongs to the runtime and is never opened from inside the sandbox; ask the user";
    for path in ["/w/.duragent/duragent.yaml", "/w/.duragent", "/w/deep/.duragent/x"] {
        check(plain, path, Grant::Write, runtime);
        check(plain, path, Grant::Read, runtime);
    }
    let run_outside =
        "this is run or read outside the sandbox and is never changed from inside; ask the user to change it";
    for path in ["/w/.git/hooks/pre-commit", "/w/.bashrc"] {
        check(plain, path, Grant::Write, run_outside);
    }
    check(plain, "/proc/1/environ", Grant::Read, "processes outside the sandbox are not seen from inside");
}

#[test]
fn processes_are_never_granted_by_a_policy() {
    let view = &view(|policy| policy.read = vec!["/proc".into()]);
    for (path, expected) in [
        ("/proc/loadavg", true),
        ("/proc/sys/kernel/osrelease", true),
        ("/proc", true),
        ("/proc/1", false),
        ("/proc/1/environ", false),
        ("/proc/4711/task/4712/mem", false),
    ] {
        assert_eq!(grants(view, Path::new(path), Grant::Read), expected, "{path}");
    }
    // Control: it is not the policy that says so.
    assert_eq!(view.grant(Path::new("/proc/1/environ")), Grant::Read);
    let trust = View::everything(Place { workdir: Path::new("/w"), artifacts: Path::new("/a") });
    assert!(grants(&trust, Path::new("/proc/1/environ"), Grant::Read));
}

#[test]
fn names_that_only_directories_have() {
    for (path, expected) in [
        ("a", false),
        ("a/b", false),
        (".a", false),
        ("a..", false),
        ("...", false),
        ("", true),
        (".", true),
        ("..", true),
        ("/", true),
        ("a/", true),
        ("a/.", true),
        ("a/..", true),
    ] {
        assert_eq!(names_directory(Path::new(path)), expected, "{path:?}");
    }
}

#[test]
fn plain_paths_are_told_from_those_that_go_up() {
    for (path, expected) in [
        ("/", Some("/")),
        ("/w/./a//b/", Some("/w/a/b")),
        ("/w/..a/b..", Some("/w/..a/b..")),
        ("/w/../a", None),
        ("/..", None),
    ] {
        let found = resolve::plain(Path::new(path));
        assert_eq!(found.as_ref().map(|found| found.as_os_str()), expected.map(AsRef::as_ref), "{path:?}");
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod without_openat2 {
    use super::super::Lookup;

    /// Makes openat2 fail with `errno`, for this thread and for good (seccomp(2)). The numbers of other machines are other
    /// calls, but no test runs in two kinds of code.
    fn forbid_openat2(errno: libc::c_int) {
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let statement = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
        let number = u32::try_from(libc::SYS_openat2).unwrap();
        let mut filter = [
            statement(load, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        let (one, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: the program and its length are valid through the call.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none), 0);
            let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
        }
    }

    #[test]
    fn the_walk_is_taken_where_the_kernel_has_no_openat2_or_a_filter_forbids_it() {
        assert_eq!(Lookup::probe(), Lookup::Openat2, "expected a kernel of 5.6 or later");
        for errno in [libc::ENOSYS, libc::EPERM] {
            let found = std::thread::spawn(move || {
                forbid_openat2(errno);
                Lookup::probe()
            });
            assert_eq!(found.join().unwrap(), Lookup::Walk, "errno {errno}");
        }
    }
}
