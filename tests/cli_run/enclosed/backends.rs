//! Which backend is taken, and what is said where none can be had. Machines without bwrap, without user namespaces, without
//! Landlock and without control groups are made of this one, by bwrap itself around the runtime.

use super::yard::{ENCLOSING, TRUST, USERS, User, Yard, bash};
use crate::house::{Ended, field};
use duragent_core::json::{self, Value};

/// The same machine, as the same user, with `arguments` of bwrap about what is different there.
fn machine<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut around = vec!["bwrap", "--dev-bind", "/", "/"];
    around.extend_from_slice(arguments);
    around
}

/// The same with a kernel that has no Landlock: a filter, in a file that bwrap reads, lets none of its calls through.
fn machine_without_landlock<'a>(filter: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut around = vec!["sh", "-c", "exec 3<\"$0\" \"$@\"", filter];
    around.extend(machine(&["--seccomp", "3"]));
    around.extend_from_slice(arguments);
    around
}

/// The filter as seccomp(2) takes it: ENOSYS for landlock_create_ruleset(2), which has the same number on all processors that
/// there are machines of.
fn write_filter(yard: &Yard) -> String {
    const PROGRAM: [(u16, u8, u8, u32); 4] = [
        (0x20, 0, 0, 0),                // load the number of the call
        (0x15, 0, 1, 444),              // this one?
        (0x06, 0, 0, 0x0005_0000 | 38), // an error: ENOSYS
        (0x06, 0, 0, 0x7fff_0000),      // allowed
    ];
    let mut bytes = Vec::new();
    for (code, yes, no, number) in PROGRAM {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([yes, no]);
        bytes.extend(number.to_ne_bytes());
    }
    let path = yard.outside("filter");
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// No bwrap: a device is in the place of each program of this name.
fn without_bwrap() -> Vec<&'static str> {
    let folders = ["/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap", "/usr/sbin/bwrap", "/sbin/bwrap"];
    let mut places: Vec<_> =
        folders.iter().filter_map(|path| Some((std::fs::canonicalize(path).ok()?, *path))).collect();
    places.dedup_by(|a, b| a.0 == b.0);
    assert!(!places.is_empty(), "expected bwrap in one of {folders:?}, found none: install the package bubblewrap");
    places.iter().flat_map(|(_, path)| ["--ro-bind", "/dev/null", *path]).collect()
}

/// No user namespaces: those that there are may have none below them.
const WITHOUT_NAMESPACES: [&str; 2] = ["--unshare-user", "--disable-userns"];

/// Root, or one who takes himself for root, without control groups.
const ROOT_WITHOUT_CGROUPS: [&str; 9] =
    ["--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--tmpfs", "/sys/fs/cgroup"];

/// The one call of these tests, and what says that it was made.
const CALL: &str = "echo x > ran; echo it ran";

fn run(yard: &Yard, around: &[&str]) -> Ended {
    yard.play(&[bash(CALL)]);
    std::fs::remove_file(yard.project().join("work/ran")).ok();
    std::fs::remove_dir_all(yard.project().join(".duragent/sessions")).ok();
    yard.finish(&mut yard.command_around(around, &["run", "worker", "go"]))
}

fn yard(name: &str, mode: &str, user: User) -> Yard {
    let yard = Yard::new(name, mode, user);
    yard.work_below();
    yard
}

fn check_runs(yard: &Yard, around: &[&str], backend: &str, enforcement: &str) {
    let ended = run(yard, around);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{around:?}: {ended:?}");
    let seen = yard.seen(&yard.house.session()).remove(0);
    let report = (seen.sandbox.backend.as_str(), seen.sandbox.enforcement.as_str());
    assert_eq!((report, seen.outcome.result.as_str()), ((backend, enforcement), "it ran\n"), "{around:?}");
}

/// Nothing runs, and what is said holds `cause` and `remedy`.
fn check_refused(yard: &Yard, around: &[&str], cause: &[&str], remedy: &str) {
    let ended = run(yard, around);
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{around:?}: {ended:?}");
    let (said, hint) = ended.err.split_once("\nhint: ").unwrap_or_else(|| panic!("{around:?}: no hint: {ended:?}"));
    assert!(cause.iter().all(|cause| said.contains(cause)), "{around:?}: expected {cause:?} in {ended:?}");
    assert!(hint.contains(remedy) && hint.contains("mode: trust"), "{around:?}: expected {remedy:?} in {ended:?}");
    assert_eq!((yard.house.read("work/ran"), yard.house.sessions().len()), (None, 0), "{around:?}");
}

#[test]
fn auto_takes_bubblewrap_else_landlock() {
    for user in USERS {
        let yard = yard("auto", "auto", user);
        check_runs(&yard, &[], "bubblewrap", "full");
        check_runs(&yard, &machine(&[]), "bubblewrap", "full");
        check_runs(&yard, &machine(&without_bwrap()), "landlock", "full");
        check_runs(&yard, &machine(&WITHOUT_NAMESPACES), "landlock", "full");
    }
}

#[test]
fn a_backend_that_is_asked_for_is_that_or_nothing() {
    for user in USERS {
        let yard = yard("asked", "bubblewrap", user);
        check_runs(&yard, &machine(&[]), "bubblewrap", "full");
        check_refused(
            &yard,
            &machine(&without_bwrap()),
            &["bubblewrap: no bwrap in "],
            "install the package bubblewrap",
        );
        check_refused(
            &yard,
            &machine(&WITHOUT_NAMESPACES),
            &["bubblewrap: the sandbox could not be made: "],
            "user namespaces",
        );
        yard.configure("mode: landlock");
        check_runs(&yard, &machine(&[]), "landlock", "full");
        let filter = write_filter(&yard);
        check_refused(
            &yard,
            &machine_without_landlock(&filter, &[]),
            &["landlock: the kernel has none"],
            "CONFIG_SECURITY_LANDLOCK",
        );
    }
}

#[test]
fn where_nothing_works_nothing_runs() {
    for user in USERS {
        let yard = yard("nothing", "auto", user);
        let filter = write_filter(&yard);
        let around = machine_without_landlock(&filter, &without_bwrap());
        let causes = ["no sandbox works here", "no bwrap in ", "landlock: the kernel has none"];
        check_refused(&yard, &around, &causes, "install the package bubblewrap");
        // The control, and what the remedy is about.
        yard.configure("mode: trust");
        check_runs(&yard, &around, "trust", "none");
    }
}

#[test]
fn less_than_is_required_is_refused_unless_it_is_accepted() {
    for mode in ENCLOSING.into_iter().chain(["auto"]) {
        let yard = yard("partial", mode, User::Own);
        let around = machine(&ROOT_WITHOUT_CGROUPS);
        let cause = ["enforcement is partial, required is full", "the number of processes"];
        check_refused(&yard, &around, &cause, "write `enforcement: partial` below sandbox");
        yard.configure(&format!("mode: {mode}, enforcement: partial"));
        check_runs(&yard, &around, if mode == "landlock" { mode } else { "bubblewrap" }, "partial");
        // What is achieved is on record, not what is asked for; an ordinary user needs no control group.
        let taken = if mode == "landlock" { mode } else { "bubblewrap" };
        check_runs(&yard, &machine(&[]), taken, "full");
    }
}

#[test]
fn doctor_says_what_the_kernel_did() {
    for (mode, user) in ENCLOSING.into_iter().chain([TRUST]).flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = yard("doctor", mode, user);
        yard.play(&[bash(CALL)]);
        let before = yard.snapshot();
        let ended = yard.finish(&mut yard.command(&["doctor", "--json"]));
        assert_eq!(ended.code, Some(0), "{mode} {user:?}: {ended:?}");
        let text = |check: &Value, key: &str| match check.get(key) {
            Some(Value::String(text)) => text.clone(),
            other => panic!("{mode}: {key}: {other:?}"),
        };
        let report = json::parse(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
        let Some(Value::Array(checks)) = report.get("checks") else { panic!("{ended:?}") };
        let named = |name: &str| {
            let found = checks.iter().find(|check| text(check, "name") == name);
            found.unwrap_or_else(|| panic!("{mode}: no {name}: {ended:?}"))
        };
        let sandbox = named("sandbox");
        let enforcement = if mode == TRUST { "none" } else { "full" };
        assert!(text(sandbox, "evidence").starts_with(&format!("{mode}, enforcement {enforcement}; ")), "{sandbox:?}");
        for name in
            ["write_outside", "change_configuration", "read_secret", "connect_to_the_machine", "see_the_runtime"]
        {
            let check = named(&format!("canary {name}"));
            let (status, evidence) = if mode == TRUST { ("warn", "not kept from it: ") } else { ("ok", "refused: ") };
            assert_eq!(text(check, "status"), status, "{mode} {user:?}: {check:?}");
            assert!(text(check, "evidence").starts_with(evidence), "{mode} {user:?}: {check:?}");
        }
        for backend in ENCLOSING {
            assert_eq!(text(named(&format!("backend {backend}")), "status"), "ok", "{mode} {user:?}: {ended:?}");
        }
        assert_eq!(yard.snapshot(), before, "{mode} {user:?}: it leaves nothing behind");
    }
}

#[test]
fn doctor_says_what_cannot_be_had() {
    let yard = yard("cannot", "bubblewrap", User::Own);
    yard.play(&[bash(CALL)]);
    let ended = yard.finish(&mut yard.command_around(&machine(&without_bwrap()), &["doctor", "--json"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(field(&ended.out, "checks").contains("install the package bubblewrap"), "{ended:?}");
}

/// And where there is none, it says so instead of running a tool in the open.
#[test]
fn the_demonstration_says_what_is_missing() {
    let yard = yard("demonstration-without", "auto", User::Own);
    let filter = write_filter(&yard);
    let folder = yard.outside("demonstration");
    let around = machine_without_landlock(&filter, &without_bwrap());
    let ended = yard.finish(&mut yard.command_around(&around, &["demo", "--dir", &folder]));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for part in ["no sandbox works here", "no bwrap in", "hint: install the package bubblewrap"] {
        assert!(ended.err.contains(part), "{part}: {ended:?}");
    }
    assert!(!std::path::Path::new(&folder).join("pump.log").metadata().is_ok_and(|log| log.len() > 0));
}

/// The first thing that a newcomer runs works behind either wall.
#[test]
fn the_demonstration_runs_without_bubblewrap_too() {
    let yard = yard("demonstration", "auto", User::Own);
    for (number, around) in [Vec::new(), machine(&without_bwrap())].iter().enumerate() {
        let folder = yard.outside(&format!("demonstration-{number}"));
        let ended = yard.finish(&mut yard.command_around(around, &["demo", "--dir", &folder]));
        assert!(ended.out.contains("one line: the tool ran once"), "{around:?}: {ended:?}");
        let log = std::fs::read_dir(format!("{folder}/.duragent/sessions")).expect("a session").flatten().next();
        let log = std::fs::read_to_string(log.expect("one").path().join("events.jsonl")).expect("its log");
        let backend = if around.is_empty() { "bubblewrap" } else { "landlock" };
        assert!(log.contains(&format!("\"backend\":\"{backend}\",\"enforcement\":\"full\"")), "{backend}: {log}");
    }
}
