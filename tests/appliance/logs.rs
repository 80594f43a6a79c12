//! The log as a file: its cap, its older files, `logrotate`, and a disk that fails; and what signals do.

use crate::house::{House, require, until};
use crate::mounts::{disk, on_disk};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_flood_of_lines_stays_below_the_cap_and_loses_none_in_between() {
    let house = House::new("log: {level: debug, file: logs/log, file_bytes_max: 16384, files_max: 2}");
    let server = house.serve(&[]);
    let log = house.dir().join("logs/log");
    let files = [log.clone(), log.with_extension("1"), log.with_extension("2")];
    for n in 0..1000 {
        server.ask("GET", &format!("/livez?{n}"), "");
    }
    until("two older files", || (size(&files[2]) > 0).then_some(()));
    assert!(server.log.text().is_empty(), "standard error has none of them: {}", server.log.text());
    server.stop();
    for file in &files {
        assert!((1..=16_384).contains(&size(file)), "{}: {}", file.display(), size(file));
    }
    assert!(!log.with_extension("3").exists());
    let lines: String = files.iter().rev().map(|file| text(file)).collect();
    assert!(lines.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "each has its time: {lines}");
    assert!(lines.ends_with(" info: draining\n"), "the last line is there: {lines}");
    // The control: without a file, all of it goes to standard error, however much it is.
    let house = House::new("log: {level: debug}");
    let server = house.serve(&[]);
    for _ in 0..1000 {
        server.ask("GET", "/livez", "");
    }
    until("lines beyond the cap", || (server.log.text().len() > 3 * 16_384).then_some(()));
}

#[test]
fn usr1_begins_a_new_file_under_the_name_that_logrotate_has_freed() {
    let house = House::new("log: {level: debug}");
    let log = house.root.join("named.log");
    let server = house.serve(&["--log-file", log.to_str().expect("UTF-8")]);
    until("the first lines", || text(&log).contains("info: ready").then_some(()));
    let moved = house.root.join("moved.log");
    fs::rename(&log, &moved).expect("as logrotate does");
    server.ask("GET", "/livez", "");
    // The control: the file that was renamed gets them.
    until("a line in the old file", || text(&moved).contains("/livez").then_some(()));
    assert!(!log.exists());
    server.signal("USR1");
    until("a new file", || {
        server.ask("GET", "/livez", "");
        text(&log).contains("/livez").then_some(())
    });
    // A reload that names another file is followed, unless the command line has named one.
    let path = house.dir().join("duragent.yaml");
    let other = text(&path).replace("level: debug", "level: debug, file: other.log");
    fs::write(&path, other).expect("it can be written");
    server.signal("HUP");
    until("the reload", || text(&log).contains("configuration reloaded").then_some(()));
    assert!(!house.dir().join("other.log").exists());
    server.stop();
}

#[test]
fn a_log_that_cannot_be_written_goes_to_standard_error_and_comes_back() {
    let house = House::new("log: {file: logs, level: debug}");
    // A directory in its place.
    fs::create_dir(house.dir().join("logs")).expect("a directory");
    let server = house.serve(&[]);
    let line = server.log.wait_for("the log file takes no lines, they go here");
    assert!(line.contains("/logs"), "{line}");
    server.log.wait_for("info: ready");
    fs::remove_dir(house.dir().join("logs")).expect("it goes");
    until("lines in the file", || {
        server.ask("GET", "/livez", "");
        text(&house.dir().join("logs")).contains("/livez").then_some(())
    });
    server.stop();
}

#[test]
fn a_full_disk_stops_the_log_and_not_the_server_and_keeps_its_last_bytes() {
    on_disk("logs::a_full_disk_stops_the_log_and_not_the_server_and_keeps_its_last_bytes", 4096, || {
        let house =
            House::new("log: {level: debug, file: log, file_bytes_max: 1073741824}\nlimits: {reserve_bytes: 65536}");
        let server = house.serve(&[]);
        server.session("a", "hello");
        let mut filler = fs::File::create(disk().join("filler")).expect("a file");
        let free = || duragent_platform::file::space(&disk()).expect("it tells").0;
        while free() > 300 * 1024 {
            filler.write_all(&[b'x'; 4096]).expect("there is room");
        }
        until("lines beside the file", || {
            for _ in 0..100 {
                assert_eq!(server.ask("GET", "/livez", "").status, 200);
            }
            server.log.text().contains("the log file takes no lines").then_some(())
        });
        assert!(free() > 200 * 1024, "what is left is for sessions: {}", free());
        assert_eq!(server.turn("a"), "completed");
        drop(filler);
        fs::remove_file(disk().join("filler")).expect("it goes");
        until("lines in the file", || {
            server.ask("GET", "/version", "");
            text(&house.dir().join("log")).contains("/version").then_some(())
        });
        server.stop();
    });
}

/// Calls of the log's thread that hang for a second hold nobody up; one that fails is gone on with.
#[test]
fn a_disk_that_hangs_or_fails_in_a_rotation_holds_nobody_up() {
    require("strace", "strace");
    let config = "log: {level: debug, file: logs/log, file_bytes_max: 16384, files_max: 2}";
    let house = House::new(config);
    let log = house.dir().join("logs/log");
    // The log's first syncs and renames fail, then each rename takes a second.
    let inject = [
        "trace=fsync,rename,renameat,renameat2",
        "inject=fsync:error=EIO:when=1",
        "inject=rename,renameat,renameat2:error=EIO:when=1..2",
        "inject=rename,renameat,renameat2:delay_enter=1000000:when=3+",
    ];
    let path = log.to_str().expect("UTF-8");
    let mut strace = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-P", path];
    inject.iter().for_each(|inject| strace.extend(["-e", inject]));
    let server = house.start(&mut house.command(&strace, &[]));
    server.session("a", "hello");
    let mut slowest = std::time::Duration::ZERO;
    until("an older file", || {
        for _ in 0..100 {
            let start = std::time::Instant::now();
            server.ask("GET", "/livez", "");
            slowest = slowest.max(start.elapsed());
            assert!(size(&log) <= 16_384, "the cap holds: {}", size(&log));
        }
        (size(&log.with_extension("1")) > 0).then_some(())
    });
    assert_eq!(server.turn("a"), "completed");
    assert!(slowest < std::time::Duration::from_secs(1), "nobody waited for the log: {slowest:?}");
    server.log.wait_for("the log file takes no lines");
}

fn pid_file(house: &House) -> (std::path::PathBuf, String) {
    let path = house.root.join("server.pid");
    (path.clone(), path.to_str().expect("UTF-8").to_owned())
}

#[test]
fn a_pid_file_is_whole_and_goes_with_its_server_and_a_stale_one_is_nobodys() {
    let house = House::new("");
    let (path, name) = pid_file(&house);
    // What a crash has left, of a process that is gone, and of one that is there.
    for stale in ["4194304\n".to_owned(), "1\n".to_owned(), "junk".to_owned()] {
        fs::write(&path, stale).expect("it can be written");
        let server = house.serve(&["--pid-file", &name]);
        assert_eq!(text(&path), format!("{}\n", server.child.id()));
        server.stop();
        assert!(!path.exists(), "it goes with its server");
    }
    // Somebody else has put theirs there: it stays.
    let server = house.serve(&["--pid-file", &name]);
    fs::write(&path, "1\n").expect("it can be written");
    server.stop();
    assert_eq!(text(&path), "1\n");
    // Where it cannot be, the server says so and ends.
    let output = house.command(&[], &["--pid-file", "/proc/server.pid"]).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("error: cannot write /proc/server.pid"), "{told}");
}

#[test]
fn the_second_term_is_now_and_what_was_running_goes_on_after_the_next_start() {
    let house = House::new("");
    let mut server = house.serve(&[]);
    server.session("a", "stuck");
    server.send("a");
    let log = house.dir().join("sessions/a/events.jsonl");
    until("the call", || text(&log).contains("tool_started").then_some(()));
    server.signal("TERM");
    server.log.wait_for("draining");
    assert!(server.child.try_wait().expect("it can be asked").is_none(), "it waits for the turn");
    server.signal("TERM");
    assert_eq!(server.child.wait().expect("it ends").code(), Some(1), "{}", server.log.text());
    let server = house.serve(&[]);
    until("the turn", || text(&log).contains("turn_finished").then_some(()));
    server.stop();
    // A descriptor that is given is told when it is up, also with a log file.
    let ready = house.root.join("ready");
    let script = "exec 7> ready; exec \"$0\" serve --ready-fd 7 --log-file log";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_duragent")]).current_dir(&house.root);
    let server = house.start(command.stderr(std::process::Stdio::piped()));
    until("the line feed", || (text(&ready) == "\n").then_some(()));
    assert!(text(&house.root.join("log")).contains("info: ready"), "from where it was started");
    server.stop();
}
