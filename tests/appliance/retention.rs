//! What is kept while a server runs, and by hand; and a kill in the middle of it.

use crate::clock;
use crate::house::{House, require, until};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn dir(house: &House, id: &str) -> PathBuf {
    house.dir().join("sessions").join(id)
}

/// Sessions of long ago, each with an artifact.
fn grow_old(house: &House, ids: &[&str]) {
    clock::set(house, "2026-02-01 12:00:00");
    let server = clock::serve(house, &[]);
    for id in ids {
        server.session(id, "hello");
        assert_eq!(server.turn(id), "completed");
    }
    server.stop();
    require("touch", "coreutils");
    for id in ids {
        let artifact = dir(house, id).join("artifacts/c1-1-1.txt");
        fs::create_dir_all(dir(house, id).join("artifacts")).expect("a directory");
        fs::write(&artifact, "much").expect("a file");
        let log = dir(house, id).join("events.jsonl");
        let status = Command::new("touch").args(["-d", "2026-02-01 12:00:00"]).arg(log).arg(artifact).status();
        assert!(status.expect("touch starts").success());
    }
}

fn prune(house: &House, before: &[&str], args: &[&str]) -> Output {
    let mut words = before.to_vec();
    words.extend([env!("CARGO_BIN_EXE_duragent"), "--dir", ".duragent", "session"]);
    words.extend(args);
    Command::new(words[0]).args(&words[1..]).current_dir(&house.root).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_server_removes_what_is_not_to_be_kept_once_that_is_said() {
    let house = House::new("retention: {idle_days: 0}");
    grow_old(&house, &["old", "followed", "used"]);
    let server = house.serve(&[]);
    server.session("new", "hello");
    assert_eq!(server.turn("new"), "completed");
    // One is in memory, and one has a client that listens.
    assert_eq!(server.turn("used"), "completed");
    let path = house.socket();
    let mut follower = Command::new("curl");
    require("curl", "curl");
    follower.args(["-sN", "-H", "Accept: text/event-stream", "--unix-socket", path.to_str().expect("UTF-8")]);
    let follower = follower.arg("http://localhost/api/v1/sessions/followed/events").stdout(std::process::Stdio::null());
    let mut follower = follower.spawn().expect("curl starts");
    until("the follower", || (server.metrics().get("subscribers") == 1.0).then_some(()));
    // The control: nobody has asked for anything to go.
    server.signal("HUP");
    server.log.wait_for("configuration reloaded");
    assert!(dir(&house, "old").exists());
    house.reconfigure("idle_days: 0", "idle_days: 30");
    server.signal("HUP");
    let line = server.log.wait_for("removed what is not to be kept");
    assert!(line.contains("sessions=1 artifacts=0"), "{line}");
    assert!(!dir(&house, "old").exists());
    for kept in ["new", "followed", "used"] {
        assert!(dir(&house, kept).join("events.jsonl").exists(), "{kept}");
    }
    let page = server.metrics();
    assert_eq!(page.get("retention_removed_total{what=\"session\"}"), 1.0);
    assert!(page.get("retention_removed_bytes_total") > 500.0);
    assert_eq!(server.ask("GET", "/api/v1/sessions/old", "").status, 404);
    // Its name is free.
    server.session("old", "hello");
    assert_eq!(server.turn("old"), "completed");
    follower.kill().and_then(|()| follower.wait()).expect("it ends");
    until("nobody to follow", || (server.metrics().get("subscribers") == 0.0).then_some(()));
    server.signal("HUP");
    until("the one that was followed to go", || (!dir(&house, "followed").exists()).then_some(()));
    server.stop();
}

#[test]
fn by_hand_it_says_what_would_go_and_a_kill_leaves_no_half_session() {
    let house = House::new("retention: {idle_days: 30, artifacts_days: 3}");
    grow_old(&house, &["a", "b"]);
    let told = text(&prune(&house, &[], &["prune", "--dry-run"]).stdout);
    for line in ["would remove session a, ", "would remove session b, ", "(idle_days)"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(dir(&house, "a").exists() && dir(&house, "b").exists());

    // Killed at the first file that it removes.
    require("strace", "strace");
    let inject = "inject=unlink,unlinkat:signal=SIGKILL:when=1";
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unlink,unlinkat", "-e", inject];
    let killed = prune(&house, &strace, &["prune"]);
    assert!(!killed.status.success(), "{killed:?}");
    let left: Vec<String> = fs::read_dir(house.dir().join("sessions"))
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.iter().any(|name| name.starts_with(".removed-a-")), "{left:?}");
    let verified = prune(&house, &[], &["verify", "--all"]);
    let told = text(&verified.stdout);
    assert!(verified.status.success() && told.starts_with("b: intact") && !told.contains("a:"), "{told}");
    // The control: removed where it stands, a kill leaves what lists as damaged, or as a session that it is not.
    let half = dir(&house, "half");
    fs::create_dir(&half).expect("a directory");
    let log = fs::read_to_string(dir(&house, "b").join("events.jsonl")).expect("a log");
    let (_, rest) = log.split_once('\n').expect("lines");
    fs::write(half.join("events.jsonl"), rest).expect("the first segment is gone, the second is not");
    assert!(!prune(&house, &[], &["verify", "--all"]).status.success());
    fs::remove_dir_all(&half).expect("it goes");

    let told = text(&prune(&house, &[], &["prune"]).stdout);
    assert!(told.contains("removed session b, "), "{told}");
    assert_eq!(fs::read_dir(house.dir().join("sessions")).expect("a directory").count(), 0, "what was left is swept");

    // While the clock says nothing everything is kept, and it says why.
    grow_old(&house, &["c"]);
    clock::set(&house, clock::UNSET);
    let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
    command.args(["session", "prune"]).current_dir(&house.root);
    let held = clock::with_clock(&mut command, &house.root.join("clock")).output().expect("it starts");
    assert!(held.status.code() == Some(1) && text(&held.stderr).contains("the clock is not set"), "{held:?}");
    assert!(dir(&house, "c").exists());
    let told = text(&prune(&house, &[], &["prune", "--dry-run"]).stdout);
    assert!(told.contains("would remove session c, "), "the control: {told}");
}
