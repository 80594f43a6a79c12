//! Trust mode with real processes: what a tool finds, how it ends, and that nothing of it stays.

mod common;

use common::{PATH, PATIENCE, TESTBED, TempDir, bash, eventually, everything, marked, trust, unique};
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Enforcement, Exit, Sandbox, Stream, Trust};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs a script that is not expected to meet the deadline; returns its end and its standard output.
fn run(script: &str) -> (Exit, String) {
    let (mark, mut out) = (unique(), Vec::new());
    let exit = common::run(&bash(script, &mark, PATIENCE), &Cancel::new(), &mut |stream, bytes| {
        if stream == Stream::Out {
            out.extend_from_slice(bytes);
        }
    })
    .unwrap();
    assert_eq!(marked(&mark), [], "left behind by {script:?}");
    (exit, String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn backend_and_enforcement_are_honest() {
    let report = trust().report().clone();
    assert_eq!((report.backend, report.enforcement), ("trust", Enforcement::None));
}

#[test]
fn ends_are_told_apart() {
    let check = |script: &str, exit: Exit, out: &str| assert_eq!(run(script), (exit, out.to_owned()), "{script}");
    check("echo hi", Exit::Code(0), "hi\n");
    check("echo hi >&2; exit 7", Exit::Code(7), "");
    check("exit 255", Exit::Code(255), "");
    check("kill -9 $$", Exit::Signal(9), "");
    check("kill -TERM $$", Exit::Signal(15), "");
    check("cat; echo end of input", Exit::Code(0), "end of input\n");
    check("ulimit -c", Exit::Code(0), "0\n");
    check("kill -TERM $PPID; kill -HUP $PPID; kill -INT $PPID; echo still here; exit 3", Exit::Code(3), "still here\n");
}

#[test]
fn the_environment_is_the_given_one_and_no_other() {
    let mut command = bash("", &unique(), PATIENCE);
    (command.program, command.args) = ("env".into(), vec![]);
    command.env.push(("EMPTY".into(), String::new()));
    let mut out = Vec::new();
    let exit = common::run(&command, &Cancel::new(), &mut |_, bytes| out.extend_from_slice(bytes)).unwrap();
    assert_eq!(exit, Exit::Code(0));
    let mut lines: Vec<_> = std::str::from_utf8(&out).unwrap().lines().map(str::to_owned).collect();
    let mut expected: Vec<_> = command.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
    // The guard's own environment can be read by the tool: it must be the same.
    let (_, guards) = run("tr '\\0' '\\n' < /proc/$PPID/environ | cut -d= -f1 | sort | tr '\\n' ' '");
    assert_eq!(guards, "+MARK +PATH ");
}

#[test]
fn neither_descriptors_nor_signal_state_are_inherited() {
    // Shells change signals for themselves, so the state of an exec'd program is looked at. Only the lowest 28 signals
    // count: a C library keeps some of the others to itself.
    let script = r"ls -m -w 0 /proc/$$/fd; exec sed -nE 's/^Sig(Blk|Ign):.*(.{7})$/\1 \2/p' /proc/self/status";
    let leaked = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: duplicates an open descriptor, without close-on-exec, and ignores a signal nobody sends.
    unsafe {
        assert!(libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&leaked), libc::F_DUPFD, 100) >= 100);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
    assert_eq!(run(script).1, "0, 1, 2\nBlk 0000000\nIgn 0000000\n");

    let control = std::process::Command::new("bash").args(["-c", script]).output().unwrap();
    let control = String::from_utf8(control.stdout).unwrap();
    assert!(control.contains("Ign 0000001\n"), "a plain child inherits the ignored signal: {control}");
    assert!(control.contains("100"), "and the descriptor: {control}");
}

#[test]
fn what_cannot_be_started_is_an_error_that_names_it() {
    let dir = TempDir::new();
    std::fs::write(dir.join("plain.txt"), "no program").unwrap();
    let check = |guard: &str, program: &str, cwd: &Path, kind: io::ErrorKind, names: &str| {
        let mut command = bash("", &unique(), PATIENCE);
        command.program = program.into();
        let error = Trust::new(PathBuf::from(guard))
            .run(&everything(cwd), &command, &Cancel::new(), &mut |_, _| {})
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(names), "{error} does not name {names}");
    };
    let plain = dir.join("plain.txt").display().to_string();
    check(TESTBED, "no-such-program", dir.path(), io::ErrorKind::NotFound, "no-such-program");
    check(TESTBED, &plain, dir.path(), io::ErrorKind::PermissionDenied, "plain.txt");
    check(TESTBED, "bash", &dir.join("gone"), io::ErrorKind::NotFound, "gone");
    check(TESTBED, "bash", Path::new(&plain), io::ErrorKind::NotFound, "plain.txt");
    check(TESTBED, "ba\0sh", dir.path(), io::ErrorKind::InvalidInput, "guard");
    check("/no/such/guard", "bash", dir.path(), io::ErrorKind::NotFound, "/no/such/guard");
    check("/bin/true", "bash", dir.path(), io::ErrorKind::Other, "without a report");
}

/// Trees that do not want to end. Each script says `ready` when all of it stands.
const STUBBORN: [(&str, &str); 8] = [
    ("sleeps", "echo ready; sleep 1000"),
    ("ignores SIGTERM", "trap '' TERM HUP INT; echo ready; while :; do sleep 1000; done"),
    ("double-forks", "(sleep 1000 & sleep 1000 & ) ; (bash -c 'sleep 1000 & disown' & ) ; echo ready; sleep 1000"),
    (
        "makes sessions",
        "setsid -f sleep 1000; setsid -f bash -c 'setsid -f sleep 1001; sleep 1000'; echo ready; wait; sleep 1000",
    ),
    ("floods both pipes", "echo ready; yes & yes >&2 & wait"),
    ("stops itself", "echo ready; kill -STOP $$"),
    ("stops its guard", "sleep 1000 & setsid -f sleep 1000; kill -STOP $PPID; echo ready; sleep 1000"),
    (
        "respawns",
        "keep() { while :; do bash -c 'exec sleep 1000'; done; }; keep & setsid bash -c 'while :; do sleep 1000; done' & echo ready; wait",
    ),
];

/// Runs a stubborn script, calls `on_ready` when it stands, and asserts that nothing is left.
fn end_stubborn(name: &str, script: &str, deadline: Duration, on_ready: impl Fn(&Cancel), expected: Exit) {
    let (mark, cancel, mut seen) = (unique(), Cancel::new(), Vec::new());
    let mut ready = false;
    let exit = common::run(&bash(script, &mark, deadline), &cancel, &mut |_, bytes| {
        seen.extend_from_slice(bytes.get(..16).unwrap_or(bytes));
        if !ready && seen.windows(5).any(|w| w == b"ready") {
            ready = true;
            // Not at once: while a process executes a program it has no environment to be found by.
            eventually("guard and tool are seen alive", || marked(&mark).len() > 1);
            on_ready(&cancel);
        }
        seen.truncate(64);
    })
    .unwrap();
    assert!(ready, "{name} never stood");
    assert_eq!(exit, expected, "{name}");
    assert_eq!(marked(&mark), [], "{name} left processes");
}

#[test]
fn a_cancelled_tree_ends_whole() {
    for (name, script) in STUBBORN {
        end_stubborn(name, script, PATIENCE, Cancel::raise, Exit::Cancelled);
    }
}

#[test]
fn a_tree_past_its_deadline_ends_whole() {
    // Long enough to stand on a busy machine; side by side, so that it is waited for once.
    const DEADLINE: Duration = Duration::from_secs(6);
    std::thread::scope(|scope| {
        for (name, script) in STUBBORN {
            scope.spawn(move || end_stubborn(name, script, DEADLINE, |_| {}, Exit::Deadline));
        }
    });
}

#[test]
fn what_a_tool_leaves_behind_ends_with_it() {
    let check = |script: &str| {
        let start = Instant::now();
        assert_eq!(run(script), (Exit::Code(5), "done\n".to_owned()), "{script}");
        assert!(start.elapsed() < PATIENCE / 2, "{script} held the caller");
    };
    check("sleep 1000 & echo done; exit 5");
    check("setsid -f sleep 1000; echo done; exit 5");
    check("(setsid bash -c 'trap \"\" TERM; sleep 1000; sleep 1000' &) ; echo done; exit 5");

    // Control: without a guard it stays.
    let mark = unique();
    let mut plain = std::process::Command::new("bash");
    plain.args(["-c", "setsid -f sleep 1000 > /dev/null 2>&1"]).env("MARK", &mark).output().unwrap();
    let left = marked(&mark);
    assert_eq!(left.len(), 1, "a plain child leaves its daemon: {left:?}");
    kill(left[0].0);
}

/// A tree that grows while it is being ended. Every script ends by itself after a while, so that a failure of this test is
/// not the end of the machine.
#[test]
fn a_tree_that_forks_faster_than_it_is_read_ends() {
    // 2^8 shells that sleep, in one group; the same with a session for each; and a chain whose processes live only long
    // enough to start the next one in a session of its own.
    let bomb = "b() { [ $1 = 0 ] || { b $(($1-1)) & b $(($1-1)) & }; sleep 30; }; b 8 & sleep 0.1; echo ready; wait";
    let sessions = "export S='[ $1 = 0 ] || { setsid -f bash -c \"$S\" x $(($1-1)); setsid -f bash -c \"$S\" x $(($1-1)); }; sleep 30'
        setsid -f bash -c \"$S\" x 7; sleep 0.1; echo ready; sleep 30";
    let chain = "export S='[ $1 = 0 ] || setsid -f sh -c \"$S\" x $(($1-1))'
        for i in 1 2 3 4; do setsid -f sh -c \"$S\" x 5000; done; sleep 0.1; echo ready; sleep 30";
    for (name, script) in [("bomb", bomb), ("bomb with sessions", sessions), ("chain", chain)] {
        end_stubborn(name, script, PATIENCE, Cancel::raise, Exit::Cancelled);
    }
}

#[test]
fn a_tool_that_kills_its_guard_goes_with_it() {
    let (exit, _) = run("sleep 1000 & (sleep 1000 &) ; kill -9 $PPID; sleep 1000");
    assert_eq!(exit, Exit::Signal(9));
}

#[test]
fn a_run_that_was_cancelled_before_it_began_starts_nothing() {
    let dir = TempDir::new();
    let cancel = Cancel::new();
    cancel.raise();
    let command = bash(&format!("touch {}", dir.join("ran").display()), &unique(), PATIENCE);
    assert_eq!(common::run(&command, &cancel, &mut |_, _| {}).unwrap(), Exit::Cancelled);
    assert_eq!(dir.names(), [""; 0]);
}

#[test]
fn a_pipe_held_by_a_stranger_does_not_hold_the_caller() {
    let dir = TempDir::new();
    let flag = dir.join("held");
    let script = format!("echo $$; until [ -e {} ]; do sleep 0.01; done; echo last words", flag.display());
    let (mut out, mut stranger) = (String::new(), None);
    let exit = common::run(&bash(&script, &unique(), PATIENCE), &Cancel::new(), &mut |_, bytes| {
        out.push_str(std::str::from_utf8(bytes).unwrap());
        if let (None, Some(pid)) = (&stranger, out.lines().next().filter(|_| out.contains('\n'))) {
            // This process is outside the tree, and now has the pipe's writing end.
            stranger = Some(std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap());
            std::fs::write(&flag, "").unwrap();
        }
    })
    .unwrap();
    assert_eq!(exit, Exit::Code(0));
    assert!(stranger.is_some() && out.ends_with("last words\n"), "{out}");
}

#[test]
fn runs_under_one_cancel_flag_keep_no_descriptor() {
    let (cancel, mark) = (Cancel::new(), unique());
    let own = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = own();
    for _ in 0..64 {
        common::run(&bash("", &mark, PATIENCE), &cancel, &mut |_, _| {}).unwrap();
    }
    // Other tests of this process open and close a few meanwhile.
    eventually("the descriptors were given back", || own() < before + 32);
}

/// Starts a runtime as a process of its own, kills it with SIGKILL when its tool stands, and returns what lives on.
fn kill_runtime(kind: &str, script: &str) -> Vec<(i32, String)> {
    let (mark, dir) = (unique(), TempDir::new());
    let flag = dir.join("ready");
    let script = format!("{script} touch {}; sleep 1000", flag.display());
    let mut runtime = std::process::Command::new(TESTBED)
        .args([kind, &script])
        .env_clear()
        .envs([("PATH", PATH), ("MARK", &mark)])
        .spawn()
        .unwrap();
    eventually("the tool stands", || flag.exists());
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    let start = Instant::now();
    // A guard needs a moment; the control is given the same one.
    while !marked(&mark).is_empty() && start.elapsed() < if kind == "plain" { Duration::from_secs(1) } else { PATIENCE }
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    marked(&mark)
}

#[test]
fn kill_9_of_the_runtime_leaves_nothing_alive() {
    let script = "trap '' TERM HUP; sleep 1000 & setsid -f sleep 1000; (setsid bash -c 'sleep 1000; sleep 1' &) ;";
    assert_eq!(kill_runtime("guarded", script), []);

    let left = kill_runtime("plain", script);
    assert!(left.len() >= 4, "without a guard they live on, or this test proves nothing: {left:?}");
    left.iter().for_each(|&(pid, _)| kill(pid));
}

fn kill(pid: i32) {
    // SAFETY: ends a process that this test started and found by its mark.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
