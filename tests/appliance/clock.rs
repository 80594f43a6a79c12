//! A board without a clock: in 1970 at first, then suddenly today. By libfaketime, which leaves the monotonic clock alone.

use crate::house::{House, Served, require, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A time at which this program had not been written, and one at which it had.
pub const UNSET: &str = "1970-01-01 00:01:00";
pub const SET: &str = "2026-11-01 12:00:00";

/// The library, wherever the package has put it.
fn library() -> PathBuf {
    require("faketime", "faketime");
    let output = Command::new("faketime").args(["-f", "+0", "env"]).output().expect("faketime starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let preload =
        text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).expect("faketime preloads its library");
    // Its last part, since others may be there before it.
    let last = preload.split([':', ' ']).find(|path| path.contains("faketime")).expect("its library");
    PathBuf::from(last)
}

/// Has `command` run with the clock that `file` says, at every look.
pub fn with_clock<'c>(command: &'c mut Command, file: &Path) -> &'c mut Command {
    let library = library();
    // `$LIB` is for the loader to fill in.
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_RESET", "1")
}

/// A server with the clock of `house.root/clock`.
pub fn serve(house: &House, args: &[&str]) -> Served {
    house.start(with_clock(&mut house.command(&[], args), &house.root.join("clock")))
}

pub fn set(house: &House, time: &str) {
    // Replaced, so that nobody reads half of it.
    let (clock, new) = (house.root.join("clock"), house.root.join("clock.new"));
    fs::write(&new, format!("@{time}\n")).and_then(|()| fs::rename(new, clock)).expect("the clock is set");
}

fn ats(house: &House, id: &str) -> Vec<String> {
    let log = fs::read_to_string(house.dir().join("sessions").join(id).join("events.jsonl")).expect("a log");
    let at = |line: &str| line.split_once("\"at\":\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
    log.lines().filter_map(at).collect()
}

#[test]
fn sessions_work_without_a_clock_and_their_times_do_not_go_back() {
    let house = House::new("");
    set(&house, SET);
    let server = serve(&house, &[]);
    server.session("a", "hello");
    assert_eq!(server.turn("a"), "completed");
    assert!(server.log.lines_with("clock").is_empty(), "{}", server.log.text());
    server.stop();
    assert!(ats(&house, "a")[0].starts_with("2026-11-01T"), "the clock is faked: {:?}", ats(&house, "a"));

    // A boot without a clock.
    set(&house, UNSET);
    let server = serve(&house, &[]);
    server.log.wait_for("the clock is not set");
    assert_eq!(server.turn("a"), "completed");
    server.session("b", "tool");
    assert_eq!(server.turn("b"), "completed");
    assert!(ats(&house, "b")[0].starts_with("1970-01-01T"), "a session that began then says so");
    let times = ats(&house, "a");
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.last().expect("events").starts_with("2026-11-01T"), "{times:?}");
    let doctor = with_clock(&mut Command::new(env!("CARGO_BIN_EXE_duragent")), &house.root.join("clock"))
        .args(["--dir", house.dir().to_str().expect("UTF-8"), "doctor"])
        .output()
        .expect("doctor starts");
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = told.lines().find(|line| line.contains("wall clock:")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.starts_with("warn") && line.contains("1970-01-01T"), "{line}");
    server.stop();

    // Behind the last event by an hour, as boards are that remember the time of their last shutdown.
    set(&house, "2026-11-01 11:00:00");
    let server = serve(&house, &[]);
    assert_eq!(server.turn("a"), "completed");
    assert!(ats(&house, "a").is_sorted(), "{:?}", ats(&house, "a"));
    // The control: a new session has the time as it is.
    server.session("c", "hello");
    assert!(ats(&house, "c")[0].starts_with("2026-11-01T11:"), "{:?}", ats(&house, "c"));
    server.stop();
}

#[test]
fn a_clock_that_is_set_while_a_turn_runs_ends_nothing() {
    let house = House::new("limits: {turn_seconds_max: 600, approval_seconds_max: 600, session_idle_seconds: 1}");
    set(&house, UNSET);
    let server = serve(&house, &[]);
    let log = |id: &str| house.dir().join("sessions").join(id).join("events.jsonl");
    server.session("a", "nap");
    for turn in 1..=3 {
        set(&house, UNSET);
        server.send("a");
        until("the call to run", || {
            let log = fs::read_to_string(log("a")).expect("a log");
            (log.matches("tool_started").count() == turn).then_some(())
        });
        set(&house, SET);
        until("the turn", || {
            let log = fs::read_to_string(log("a")).expect("a log");
            (log.matches("\"reason\":\"completed\"").count() == turn).then_some(())
        });
    }
    let times = ats(&house, "a");
    assert!(times.is_sorted() && times[1].starts_with("1970"), "{times:?}");
    // What waits for a person is not too late because it was asked in 1970.
    set(&house, UNSET);
    server.session("b", "asks");
    server.send("b");
    server.wait_for_status("b", "waiting");
    server.stop();
    set(&house, SET);
    let server = serve(&house, &[]);
    server.session("c", "hello");
    assert_eq!(server.turn("c"), "completed");
    server.wait_for_status("b", "waiting");
    server.decide("b", "grant");
    until("its turn", || fs::read_to_string(log("b")).expect("a log").contains("turn_finished").then_some(()));
    assert!(fs::read_to_string(log("b")).expect("a log").contains("\"decision\":\"grant\""));
    server.stop();
}
