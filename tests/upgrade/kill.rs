//! The upgrade is killed at every system call that changes something on disk: a whole binary is always there, and the next
//! upgrade goes through.

use super::house::{House, VERSION, later, script};
use std::fs;
use std::process::{Command, Stdio};

/// What changes names or makes sure of something.
const CALLS: &str = "rename,renameat,renameat2,link,linkat,fsync,fdatasync,unlink,unlinkat,fchmod,chmod,fchown";

/// Most calls that an upgrade makes; beyond that something goes round in circles.
const CALLS_MAX: usize = 200;

/// Runs an upgrade that is killed as it makes this call for the `n`th time; true if it came to its end before that.
fn killed_at(house: &House, call: &str, n: usize, args: &[&str]) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]);
    strace.arg(house.path("bin/duragent")).args(args).current_dir(&house.root).env_clear();
    strace.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().expect("strace is there").success()
}

#[test]
fn a_kill_at_any_step_leaves_a_binary_that_runs() {
    const FROM: [&str; 3] = ["upgrade", "--from", "rel/release.txt"];
    let house = House::new();
    house.release(&later(), &script(&later()));
    let old = house.read("bin/duragent");
    let (mut kills, mut replaced) = (0, 0);
    for call in CALLS.split(',') {
        for n in 1.. {
            assert!(n < CALLS_MAX);
            if killed_at(&house, call, n, &FROM) {
                assert_eq!(house.version(), later());
                house.program("duragent", &old);
                break;
            }
            let (version, step) = (house.version(), format!("{call} {n}"));
            kills += 1;
            if version == VERSION {
                assert_eq!(house.read("bin/duragent"), old, "{step}");
            } else {
                assert_eq!(version, later(), "{step}");
                replaced += 1;
                assert_eq!(house.read("bin/duragent.old"), old, "{step}: there is no way back");
                assert!(
                    house.names().contains(&"duragent.upgrade".to_owned()),
                    "{step}: nobody knows that it is on trial"
                );
            }
            // The whole way from what is left, and back to the beginning.
            house.program("duragent", &old);
            let out = house.good(&FROM);
            assert!(out.contains("has replaced"), "{step}: {out}");
            assert_eq!(house.names(), ["duragent", "duragent.old", "duragent.pub", "duragent.upgrade"], "{step}");
            fs::remove_file(house.path("bin/duragent.old")).expect("it is there");
            fs::remove_file(house.path("bin/duragent.upgrade")).expect("it is there");
            house.program("duragent", &old);
        }
    }
    assert!(kills > 10 && replaced > 0, "{kills} kills, {replaced} after the change: is anything injected?");
}

#[test]
fn a_kill_at_any_step_of_going_back_leaves_a_binary_that_runs() {
    let house = House::new();
    let (new, old) = (house.read("bin/duragent"), script("0.0.1"));
    let mut kills = 0;
    for call in CALLS.split(',') {
        for n in 1.. {
            assert!(n < CALLS_MAX);
            house.program("duragent", &new);
            house.program("duragent.old", &old);
            house.write("bin/duragent.upgrade", format!("from 0.0.1\nto {VERSION}\nseconds 1\ntries 0\n"));
            let done = killed_at(&house, call, n, &["upgrade", "--rollback"]);
            let version = house.version();
            assert!(version == "0.0.1" || version == VERSION && !done, "{call} {n}: {version}");
            if version == VERSION {
                assert_eq!(house.read("bin/duragent.old"), old, "{call} {n}: there is no way back");
            }
            if done {
                assert_eq!(house.names(), ["duragent", "duragent.pub"]);
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 3, "{kills} kills: is anything injected?");
}

/// What a power cut leaves depends on the order of syncs: a trace of one upgrade shows it.
#[test]
fn every_step_is_on_disk_before_the_next() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-y", "-s", "300", "-e", &format!("trace={CALLS},execve")])
        .arg("-o")
        .arg(house.path("trace"));
    strace.arg(house.path("bin/duragent")).args(["upgrade", "--from", "rel/release.txt"]).current_dir(&house.root);
    assert!(
        strace
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::null())
            .status()
            .expect("strace is there")
            .success()
    );
    let trace = String::from_utf8(house.read("trace")).expect("UTF-8");
    let bin = house.path("bin").display().to_string();
    let mut rest = trace.as_str();
    for step in [
        // The new one is whole, and tried.
        format!("fsync(|<{bin}/.duragent.new>"),
        format!("execve(|{bin}/.duragent.new"),
        // The old one has its second name.
        "link|.duragent.keep".to_owned(),
        "rename|/duragent.old\"".to_owned(),
        format!("fsync(|<{bin}>"),
        // The marker is there.
        format!("fsync(|<{bin}/.duragent.upgrade."),
        "rename|/duragent.upgrade\"".to_owned(),
        format!("fsync(|<{bin}>"),
        // Then the change.
        format!("rename|{bin}/duragent\""),
        format!("fsync(|<{bin}>"),
    ] {
        let (call, what) = step.split_once('|').expect("both");
        let found = rest.lines().position(|line| line.contains(call) && line.contains(what));
        let at = found.unwrap_or_else(|| panic!("{step} is not in its place in\n{trace}"));
        rest = rest.splitn(at + 2, '\n').nth(at + 1).unwrap_or_default();
    }
}
