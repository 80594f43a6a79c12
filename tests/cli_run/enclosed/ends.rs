//! The end of a runtime while a tool runs: nothing is left, and the session goes on.

use super::yard::{ENCLOSING, USERS, User, Yard, bash, left_after};
use crate::house::{PATIENCE, Running, eventually};
use std::path::PathBuf;
use std::time::Duration;

/// What is promised for the time after a `kill -9`.
const GONE_MAX: Duration = Duration::from_secs(2);

/// A shell with children in sessions of their own, deaf to what can be ignored.
fn stubborn(mark: &str) -> String {
    format!(
        "trap '' TERM INT HUP; (trap '' TERM HUP; setsid sleep 301.{mark} & setsid setsid sleep 301.{mark}) & echo up > up; sleep 301.{mark}; true"
    )
}

/// A yard whose tool runs, and the word that marks its processes.
fn begun(name: &str, mode: &str, user: User) -> (Yard, Running, String) {
    let yard = Yard::new(name, mode, user);
    // A number that sleep takes for a fraction of a second.
    let mark = yard.mark();
    yard.work_below();
    yard.play(&[bash(&stubborn(&mark))]);
    let mut run = yard.start(&["run", "worker", "--session", "one", "go"]);
    run.close_input();
    eventually("the tool runs", || {
        yard.house.read("work/up").is_some() && super::yard::alive(&format!("301.{mark}")).len() >= 3
    });
    (yard, run, format!("301.{mark}"))
}

/// Directories that a call of Landlock has for itself.
fn temporary(process: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
    let name = format!("duragent-{process}-");
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).map(|entry| entry.path()).collect()
}

#[test]
fn a_killed_runtime_leaves_no_tool_and_the_session_goes_on() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let (yard, run, mark) = begun("kill", mode, user);
        let pid = run.id();
        run.signal("KILL");
        assert_eq!(left_after(&mark, GONE_MAX), [], "{mode} {user:?}");
        drop(run);
        eventually("nothing is left in the folder for temporary files", || temporary(pid).is_empty());
        let ended = yard.finish(&mut yard.command(&["run", "worker", "--resume", "one"]));
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{mode} {user:?}: {ended:?}");
        let kinds = yard.house.kinds("one");
        for kind in ["tool_interrupted", "session_recovered", "turn_finished"] {
            assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1, "{mode} {user:?}: {kinds:?}");
        }
        assert_eq!(kinds.iter().filter(|k| *k == "tool_started").count(), 1, "it ran once: {kinds:?}");
        assert!(yard.house.log("one").contains("\"reason\":\"crash\""));
    }
}

#[test]
fn a_runtime_that_is_asked_to_end_takes_the_tool_with_it() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            let (yard, run, mark) = begun(signal, mode, user);
            let pid = run.id();
            run.signal(signal);
            let ended = run.end();
            assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{mode} {user:?} {signal}: {ended:?}");
            assert_eq!(left_after(&mark, GONE_MAX), [], "{mode} {user:?} {signal}");
            eventually("nothing is left in the folder for temporary files", || temporary(pid).is_empty());
            // Ctrl-C ends the turn. The others end the command, and the turn goes on with the next.
            let resumed =
                (signal != "INT").then(|| yard.finish(&mut yard.command(&["run", "worker", "--resume", "one"])));
            assert!(resumed.is_none_or(|ended| ended.code == Some(0)), "{mode} {user:?} {signal}");
            let (kinds, log) = (yard.house.kinds("one"), yard.house.log("one"));
            let reason = if signal == "INT" { "cancelled" } else { "completed" };
            assert!(log.contains(&format!("\"type\":\"turn_finished\",\"turn\":1,\"reason\":\"{reason}\"")), "{log}");
            for (kind, count) in [("tool_started", 1), ("tool_interrupted", 1), ("tool_finished", 0)] {
                assert_eq!(kinds.iter().filter(|k| *k == kind).count(), count, "{mode} {user:?} {signal}: {kinds:?}");
            }
        }
    }
}

/// What a tool left behind is gone when the next step begins.
#[test]
fn nothing_is_left_behind_by_a_call_that_ended_well() {
    for mode in ENCLOSING {
        let yard = Yard::new("behind", mode, User::Own);
        let mark = format!("302.{}{}", std::process::id(), mode.len());
        let command = format!("setsid sleep {mark} > /dev/null 2>&1 & (setsid sleep {mark} &) ; sleep 0.2; echo begun");
        let seen = yard.one(bash(&command));
        assert_eq!((seen.outcome.result.as_str(), seen.outcome.exit_code), ("begun\n", Some(0)), "{mode}");
        assert_eq!(left_after(&mark, Duration::ZERO), [], "{mode}");
    }
}

/// Nobody ends the tree of a plain child: what these tests look for can be found.
#[test]
fn the_control_of_ends() {
    let mark = format!("303.{}", std::process::id());
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let mut child = std::process::Command::new("sh").args(["-c", &script]).spawn().expect("sh is there");
    eventually("it stands", || super::yard::alive(&mark).len() >= 2);
    child.kill().and_then(|()| child.wait()).expect("it was there");
    let left = left_after(&mark, Duration::from_millis(200));
    assert!(!left.is_empty(), "the control: a plain child's children stay");
    for pid in left {
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill is there");
    }
    assert_eq!(left_after(&mark, PATIENCE), []);
}
