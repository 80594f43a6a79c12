//! Backups of a workspace at work, and what a restored one is.

use super::house::{House, Served, executable, good, snapshot, until};
use duragent_core::json::{self, Value};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call whose output is too long for the model, then an answer.
const LONG: &str = "{\"repeat\":true}\n{\"tool_calls\":[{\"name\":\"bash\",\"arguments\":{\"command\":\"seq 20000\"}}]}\n{\"deltas\":[\"Done.\"]}\n";

/// Lines of all segments of a session, oldest first.
fn lines(dir: &Path, id: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join("sessions").join(id)).expect("a session").flatten();
    let mut names: Vec<_> = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    names.sort();
    names
        .iter()
        .flat_map(|p| fs::read_to_string(p).expect("UTF-8").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Names in an archive, as tar(1) sees them.
fn names(house: &House, archive: &str) -> Vec<String> {
    let out = good(Command::new("tar").arg("tf").arg(house.path(archive))).stdout;
    String::from_utf8(out).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_it_began() {
    const IDS: [&str; 3] = ["a", "b", "c"];
    let house = House::new();
    let server = house.serve();
    IDS.iter().for_each(|id| server.begin(id));
    // Long messages, so that segments are closed all the time (they have 64 KiB).
    let (acknowledged, go_on, long) = (Mutex::new([0; IDS.len()]), AtomicBool::new(true), "x".repeat(6000));
    std::thread::scope(|scope| {
        for (i, id) in IDS.iter().enumerate() {
            let (server, acknowledged, go_on, long) = (&server, &acknowledged, &go_on, &long);
            scope.spawn(move || {
                while go_on.load(Ordering::SeqCst) {
                    let seq = server.say(id, long);
                    acknowledged.lock().expect("numbers")[i] = seq;
                    // Every log is read from its start again and again: it must not grow without end.
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let mut segments = 0;
        for n in 0..6 {
            until("more turns", || (acknowledged.lock().expect("numbers")[0] > n * 10).then_some(()));
            let before = *acknowledged.lock().expect("numbers");
            house.good(&["backup", "-o", "b.tar"]);
            let (target, place) = (format!("r{n}/.duragent"), house.path(&format!("r{n}/.duragent")));
            house.good(&["--dir", &target, "restore", "b.tar"]);
            house.good(&["--dir", &target, "session", "verify", "--all"]);
            for (id, seq) in IDS.iter().zip(before) {
                let (found, truth) = (lines(&place, id), lines(&house.path(".duragent"), id));
                assert!(found.len() as u64 >= seq, "{id}: {} lines, {seq} acknowledged", found.len());
                assert!(truth.starts_with(&found), "{id}: not what was written");
            }
            segments = names(&house, "b.tar").iter().filter(|name| name.contains("/events.0")).count();
            fs::remove_dir_all(house.path(&format!("r{n}"))).expect("removed");
        }
        go_on.store(false, Ordering::SeqCst);
        assert!(segments > 2, "{segments} closed segments: nothing was closed while it was copied");
    });
}

/// Control for the test above: copying file by file, as cp does, misses what is closed meanwhile, or half of what is written.
#[test]
fn a_copy_file_by_file_loses_a_segment_that_is_closed_meanwhile() {
    let house = House::new();
    let server = house.serve();
    server.begin("a");
    let long = "x".repeat(30_000);
    let (dir, copy) = (house.path(".duragent/sessions/a"), house.path("copy/.duragent/sessions/a"));
    fs::create_dir_all(&copy).expect("made");
    // A listing, some turns, and then the files that were listed.
    let listed: Vec<_> = fs::read_dir(&dir).expect("a session").flatten().map(|e| e.file_name()).collect();
    for _ in 0..6 {
        server.say("a", &long);
    }
    for name in listed.iter().filter(|name| name.to_string_lossy().ends_with(".jsonl")) {
        fs::copy(dir.join(name), copy.join(name)).expect("copied");
    }
    assert_eq!(house.run(&["--dir", "copy/.duragent", "session", "verify", "a"]).code, Some(1));
}

#[test]
fn a_restored_workspace_is_what_it_was_and_goes_on() {
    let house = House::new();
    house.workspace(LONG);
    house.write(".duragent/agents/bot/skills/run/SKILL.md", "---\nname: run\ndescription: Runs\n---\nRun it.\n");
    house.write(".duragent/agents/bot/skills/run/run.sh", "#!/bin/sh\n");
    executable(&house.path(".duragent/agents/bot/skills/run/run.sh"));
    house.write(".duragent/agents/bot/memory/MEMORY.md", "remember\n");
    house.write("outside/SOUL.md", "calm\n");
    std::os::unix::fs::symlink("../../../outside/SOUL.md", house.path(".duragent/agents/bot/SOUL.md")).expect("linked");
    let server = house.serve();
    server.begin("work");
    server.say("work", "go");
    // What is made anew, what belongs to those who have it open, and what tools have made.
    house.write(".duragent/sessions/work/state.yaml", "status: \"idle\"\n");
    house.write(".duragent/sessions/work/work/big.bin", "x");
    house.write(".duragent/sessions/work/events.jsonl.torn-12", "torn");
    house.write(".duragent/.policy.yaml.duragent-1-2", "half");
    house.write(".duragent/sessions/.import-7/work/events.jsonl", "half");
    house.write(".duragent/sessions/empty/lease", "1");
    house.write(".duragent/sessions/work/artifacts/nobody-names-it", "x");
    std::os::unix::fs::symlink("/etc/passwd", house.path(".duragent/sessions/work/events.jsonl.torn-99"))
        .expect("linked");
    let out = house.good(&["backup", "-o", "b.tar"]);
    assert!(out.starts_with("b.tar: 1 session, "), "{out}");
    let mode = fs::metadata(house.path("b.tar")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut found = names(&house, "b.tar");
    assert_eq!(
        (found.remove(0), found.pop(), found.pop()),
        ("backup.txt".to_owned(), Some("manifest.txt".into()), Some("sessions.txt".into()))
    );
    let expected = [
        "agents/bot/SOUL.md",
        "agents/bot/agent.yaml",
        "agents/bot/memory/MEMORY.md",
        "agents/bot/skills/run/SKILL.md",
        "agents/bot/skills/run/run.sh",
        "duragent.yaml",
        "policy.yaml",
        "tape.jsonl",
        "sessions/work/events.jsonl",
        "sessions/work/events.jsonl.torn-12",
        "sessions/work/artifacts/c1-1-1",
    ];
    let plain: Vec<&str> = found.iter().map(|name| name.strip_prefix("workspace/").expect("below it")).collect();
    let same = |a: &str, b: &str| {
        a == b || b.starts_with("sessions/work/artifacts/") && a.starts_with("sessions/work/artifacts/c1-1-1")
    };
    assert!(plain.len() == expected.len() && plain.iter().zip(expected).all(|(a, b)| same(a, b)), "{plain:?}");
    // With tar and sha256sum alone.
    fs::create_dir(house.path("x")).expect("made");
    good(Command::new("tar").arg("xf").arg(house.path("b.tar")).current_dir(house.path("x")));
    good(Command::new("sha256sum").args(["--check", "--strict", "manifest.txt"]).current_dir(house.path("x")));
    drop(server);

    // From a pipe.
    let mut restore = house.command(&["--dir", "new/.duragent", "restore", "-"]);
    good(restore.stdin(fs::File::open(house.path("b.tar")).expect("it is there")));
    let out = house.good(&["--dir", "new/.duragent", "session", "show", "work"]);
    assert!(out.contains("Done."), "{out}");
    let script = house.path("new/.duragent/agents/bot/skills/run/run.sh");
    assert_eq!(fs::metadata(script).expect("it is there").permissions().mode() & 0o777, 0o755);
    assert!(!house.path("new/.duragent/agents/bot/SOUL.md").is_symlink());
    house.good(&["--dir", "new/.duragent", "check"]);
    house.good(&["--dir", "new/.duragent", "run", "bot", "--resume", "work", "again"]);
    let piped = good(&mut house.command(&["--dir", "new/.duragent", "backup", "-o", "-"])).stdout;
    house.write("again.tar", piped);
    house.good(&["restore", "again.tar", "--dir", "third"]);
    assert!(house.good(&["--dir", "third", "session", "show", "work"]).matches("Done.").count() == 2);
}

#[test]
fn secrets_are_in_it_unless_somebody_says_no() {
    let house = House::new();
    let config = String::from_utf8(house.read(".duragent/duragent.yaml")).expect("UTF-8");
    let with = config.replace("server: {", "server: {api_token_file: token, ");
    house.write(".duragent/duragent.yaml", &with);
    house.write(".duragent/token", "hunter2\n");
    fs::set_permissions(house.path(".duragent/token"), fs::Permissions::from_mode(0o600)).expect("chmod");
    house.good(&["backup", "-o", "with.tar"]);
    house.good(&["backup", "--no-secrets", "-o", "without.tar"]);
    let has = |archive| names(&house, archive).contains(&"workspace/token".to_owned());
    assert!(has("with.tar") && !has("without.tar"));
    let found = |archive: &str| house.read(archive).windows(7).any(|w| w == b"hunter2");
    assert!(found("with.tar") && !found("without.tar"));
    house.good(&["restore", "with.tar", "--dir", "r"]);
    assert_eq!(fs::metadata(house.path("r/token")).expect("it is there").permissions().mode() & 0o777, 0o600);
    house.good(&["--dir", "r", "check"]);
}

#[test]
fn a_damaged_session_is_copied_as_it_is_and_said_so() {
    let house = House::new();
    let server = house.serve();
    for id in ["good", "bad", "torn"] {
        server.begin(id);
        server.say(id, "one");
    }
    drop(server);
    let text = fs::read_to_string(house.log_path("bad")).expect("a log");
    fs::write(house.log_path("bad"), text.replacen("one", "two", 1)).expect("written");
    fs::OpenOptions::new()
        .append(true)
        .open(house.log_path("torn"))
        .and_then(|mut f| f.write_all(b"{\"seq\":9"))
        .expect("torn");
    let ended = house.run(&["backup", "-o", "b.tar"]);
    assert!(
        ended.code == Some(0) && ended.err.contains("warning: session bad is damaged and copied as it is"),
        "{ended:?}"
    );
    let ended = house.run(&["restore", "b.tar", "--dir", "r"]);
    assert!(ended.code == Some(0) && ended.err.contains("warning: session bad was damaged before"), "{ended:?}");
    assert_eq!(fs::read(house.path("r/sessions/bad/events.jsonl")).ok(), fs::read(house.log_path("bad")).ok());
    assert!(fs::read_to_string(house.path("r/sessions/torn/events.jsonl")).expect("a log").ends_with("}\n"));
    house.good(&["--dir", "r", "session", "verify", "good"]);
    house.good(&["--dir", "r", "session", "verify", "torn"]);
}

#[test]
fn only_the_user_of_the_workspace_makes_backups_and_not_into_it() {
    let house = House::new();
    house.bad(2, &["backup"]);
    let err = house.bad(2, &["backup", "-o", ".duragent/b.tar"]);
    assert!(err.contains("outside the workspace"), "{err}");
    std::os::unix::fs::chown(house.path(".duragent"), Some(1234), None).expect("this test is run by root");
    let err = house.bad(1, &["backup", "-o", "b.tar"]);
    assert!(err.contains("found one of user 1234") && err.contains("sudo -u '#1234'"), "{err}");
    assert!(!house.path("b.tar").exists());
}

#[test]
fn nothing_is_restored_over_what_is_there() {
    let house = House::new();
    house.good(&["backup", "-o", "b.tar"]);
    let before = snapshot(&house.path(".duragent"));
    let err = house.bad(1, &["restore", "b.tar"]);
    assert!(err.contains("is there already") && err.contains("--dir"), "{err}");
    assert_eq!(snapshot(&house.path(".duragent")), before);
    let server = house.serve();
    let err = house.bad(1, &["restore", "b.tar"]);
    assert!(err.contains("a server runs in "), "{err}");
    drop(server);
    house.write("file", "x");
    house.bad(1, &["restore", "b.tar", "--dir", "file"]);
    assert_eq!(house.read("file"), b"x");
    // An empty folder gives way.
    fs::create_dir(house.path("empty")).expect("made");
    house.good(&["restore", "b.tar", "--dir", "empty"]);
    house.good(&["--dir", "empty", "check"]);
}

/// Runs a command that is killed at the nth `call`; true if it came to its end before that.
fn killed(house: &House, call: &str, n: usize, args: &[&str]) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]).arg(house.path("bin/duragent")).args(args);
    strace.current_dir(&house.root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().expect("strace is there").success()
}

#[test]
fn a_backup_or_restore_that_is_killed_leaves_nothing_that_looks_whole() {
    let house = House::new();
    let server = house.serve();
    server.begin("a");
    server.say("a", "one");
    drop(server);
    house.write("b.tar", "the one of yesterday");
    let mut kills = 0;
    for call in ["write", "fsync", "rename"] {
        for n in 1..100 {
            house.write("b.tar", "the one of yesterday");
            if killed(&house, call, n, &["backup", "-o", "b.tar"]) {
                break;
            }
            kills += 1;
            if house.read("b.tar") != b"the one of yesterday" {
                house.good(&["restore", "b.tar", "--dir", "whole"]);
                fs::remove_dir_all(house.path("whole")).expect("removed");
            }
        }
    }
    house.good(&["backup", "-o", "b.tar"]);
    for call in ["mkdir", "write", "fsync", "rename"] {
        for n in 1..100 {
            if killed(&house, call, n, &["restore", "b.tar", "--dir", "r"]) {
                break;
            }
            kills += 1;
            if house.path("r").exists() {
                house.good(&["--dir", "r", "session", "verify", "a"]);
                house.good(&["--dir", "r", "check"]);
                fs::remove_dir_all(house.path("r")).expect("removed");
            }
        }
        fs::remove_dir_all(house.path("r")).expect("the one that came to its end");
    }
    assert!(kills > 20, "{kills} kills: is anything injected?");
    house.good(&["restore", "b.tar", "--dir", "r"]);
    let left: Vec<_> = fs::read_dir(&house.root).expect("a folder").flatten().map(|e| e.file_name()).collect();
    let left: Vec<_> = left.iter().filter(|name| name.to_string_lossy().starts_with(".r.duragent-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_full_disk_leaves_no_backup_and_no_workspace() {
    let house = House::new();
    let server: Served = house.serve();
    server.begin("a");
    server.say("a", &"x".repeat(200_000));
    drop(server);
    let script = "mkdir small; mount -t tmpfs -o size=100k none small; cp bin/duragent.pub small
                  try() { bin/duragent $* 2>&1 || true; ls -A small; }
                  try backup -o small/b.tar; bin/duragent backup -o b.tar; try --dir small/w restore b.tar";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-ec", script]).current_dir(&house.root);
    let said = String::from_utf8(good(&mut unshare).stdout).expect("UTF-8");
    assert_eq!(said.matches("No space left").count() + said.matches("no storage space").count(), 2, "{said}");
    assert_eq!(said.matches("\nduragent.pub\n").count(), 2, "{said}");
    let list = json::parse(&house.good(&["ps", "--json"])).expect("JSON");
    assert!(matches!(list, Value::Array(_) | Value::Object(_)));
}
