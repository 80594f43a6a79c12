//! Limits of a call, and the variables that it sees.

use super::yard::{ENCLOSING, Seen, TRUST, USERS, User, Yard, alive, bash, is_root};
use std::time::Duration;

/// Keys below `sandbox.limits`, a command that goes beyond, and how that is called.
const BEYOND: [(&str, &str, &str, &str); 3] = [
    ("file_bytes: 65536", "head -c 1000000 /dev/zero > big", "limit", "file_bytes"),
    ("wall_seconds: 1", "sleep 600", "timeout", "1 s"),
    ("cpu_seconds: 1", "while :; do :; done", "limit", "cpu_seconds"),
];

#[test]
fn what_goes_beyond_a_limit_is_ended_and_named() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("limits", mode, user);
        yard.work_below();
        for (limit, command, kind, what) in BEYOND {
            yard.configure(&format!("mode: {mode}, limits: {{{limit}}}"));
            let told = format!("{{\"denied\":true,\"kind\":\"{kind}\",\"what\":\"{what}");
            let seen = yard.one(bash(command).told(&told));
            let denied = seen.denied().unwrap_or_else(|| panic!("{mode} {user:?} {limit}: {seen:?}"));
            assert!(denied.0 == kind && denied.1.starts_with(what), "{mode} {user:?} {limit}: {seen:?}");
        }
        let size = std::fs::metadata(yard.project().join("work/big")).expect("the file").len();
        assert_eq!(size, 65536, "{mode} {user:?}");
    }
}

#[test]
fn the_control_of_limits() {
    let yard = Yard::new("limits", TRUST, User::Own);
    yard.configure("mode: trust, limits: {file_bytes: 65536}");
    assert_eq!(yard.one(bash(BEYOND[0].1)).denied(), None);
    assert_eq!(std::fs::metadata(yard.project().join("big")).expect("the file").len(), 1_000_000);
}

/// Starts as many processes as it can, up to 100. By sh: bash would try again for a quarter of a minute.
const MANY: &str = "exec sh -c 'for i in $(seq 100); do sleep 300 & echo started; done'";

const PROCESSES: &str = "processes: 16";

fn started(seen: &Seen) -> usize {
    seen.outcome.result.lines().filter(|line| *line == "started").count()
}

#[test]
fn only_so_many_processes_can_be_started() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("many", mode, user);
        yard.configure(&format!("mode: {mode}, limits: {{{PROCESSES}}}"));
        let seen = yard.one(bash(MANY).told("{\"denied\":true,\"kind\":\"limit\",\"what\":\"processes"));
        assert!((4..=most()).contains(&started(&seen)), "{mode} {user:?}: {seen:?}");
    }
    let yard = Yard::new("many", TRUST, User::Own);
    yard.configure(&format!("mode: trust, limits: {{{PROCESSES}}}"));
    assert_eq!(started(&yard.one(bash(MANY))), 100, "the control");
}

/// Most processes at a time in these tests. Without root there is no control group, and with Landlock what other tests of
/// the same user end meanwhile leaves room (setrlimit(2), `RLIMIT_NPROC`): still far from what a bomb wants.
fn most() -> usize {
    if is_root() { 16 + HELPERS_MAX } else { 80 }
}

/// Processes besides the tool's whose arguments hold its command: the runtime's guard and what bwrap starts.
const HELPERS_MAX: usize = 5;

#[test]
fn a_fork_bomb_ends_with_its_call() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("bomb", mode, user);
        let mark = format!("bomb-{}", yard.mark());
        yard.configure(&format!("mode: {mode}, limits: {{{PROCESSES}, wall_seconds: 2}}"));
        yard.play(&[
            bash(&format!("b() {{ b | b & }}; b; sleep 300 # {mark}")).told("{\"denied\":true,\"kind\":\"timeout\"")
        ]);
        let mut run = yard.start(&["run", "worker", "go"]);
        run.close_input();
        let mut seen = 0;
        while run.is_running() {
            seen = seen.max(alive(&mark).len());
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = run.end();
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{mode} {user:?}: {ended:?}");
        assert!((8..=most()).contains(&seen), "{mode} {user:?}: {seen} processes at a time");
        assert_eq!(alive(&mark), [], "{mode} {user:?}");
    }
}

/// Of the runtime's environment.
const VARIABLES: [(&str, &str); 4] = [
    ("LISTED", "listed-value"),
    ("UNLISTED", "unlisted-value"),
    ("OPENAI_API_KEY", "sk-key-of-openai"),
    ("MY_KEY", "sk-key-of-mine"),
];

/// Looks wherever a process can see variables: its own, and those of processes above it.
const LOOK: &str = "env; for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done 2>/dev/null; true";

#[test]
fn only_listed_variables_are_there() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("variables", mode, user);
        yard.configure(&format!("mode: {mode}, env: [PATH, LISTED]"));
        let seen = yard.turn_with(&[bash(LOOK)], &VARIABLES).remove(0);
        let result = &seen.outcome.result;
        assert!(result.contains("LISTED=listed-value") && !seen.outcome.truncated, "{mode} {user:?}: {result}");
        for hidden in ["unlisted-value", "sk-key-of-openai", "sk-key-of-mine"] {
            assert!(!result.contains(hidden), "{mode} {user:?}: {result}");
        }
    }
    let yard = Yard::new("variables", TRUST, User::Own);
    let above = "tr '\\0' '\\n' < /proc/$PPID/environ; P=$(awk '/^PPid/{print $2}' /proc/$PPID/status); tr '\\0' '\\n' < /proc/$P/environ";
    let seen = yard.turn_with(&[bash(above)], &VARIABLES).remove(0);
    assert!(seen.outcome.result.contains("sk-key-of-openai"), "the control: it can be read from the runtime: {seen:?}");
}

#[test]
fn a_key_that_is_listed_is_an_error() {
    for mode in ENCLOSING.into_iter().chain([TRUST]) {
        let yard = Yard::new("keys", mode, User::Own);
        yard.play(&[bash("env > ran")]);
        for (name, environment) in [("OPENAI_API_KEY", None), ("ALIAS", Some(("ALIAS", "sk-key-of-openai")))] {
            yard.configure(&format!("mode: {mode}, env: [{name}]"));
            let mut command = yard.command(&["run", "worker", "go"]);
            let ended = yard.finish(command.env("OPENAI_API_KEY", "sk-key-of-openai").envs(environment));
            assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{mode} {name}: {ended:?}");
            assert!(ended.err.contains(name) && !ended.err.contains("sk-key"), "{mode} {name}: {ended:?}");
        }
        assert_eq!(yard.house.read("ran"), None);
    }
}
