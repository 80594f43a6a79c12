//! A disk that is full, and one that is read-only.

use crate::house::{House, Served, require, until};
use crate::mounts::{disk, on_disk};
use std::fs;
use std::io::Write;

/// Kilobytes of the disk: the workspace, the reserve, and a little.
const SIZE: u64 = 4096;

/// An agent whose first call lasts as long as the file `hold` is there and says more than the last page of its log has room
/// for, and whose second leaves a trace.
const TAPE: &str = concat!(
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"while [ -e hold ]; do sleep 0.05; done; seq 1 2000"}}]}"#,
    "\n",
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo x >> trace; echo second"}}]}"#,
    "\n",
    r#"{"deltas":["Done."]}"#,
    "\n",
);

fn house(config: &str) -> House {
    let house = House::new(config);
    house.write("agents/hello/tape.jsonl", TAPE);
    fs::write(house.root.join("hold"), "").expect("there is room");
    house
}

/// Takes all space that is left.
fn fill() {
    let mut file = fs::File::create(disk().join("filler")).expect("there is room for a name");
    for size in [1 << 16, 1 << 12, 1] {
        let bytes = vec![b'x'; size];
        while file.write_all(&bytes).is_ok() {}
    }
}

fn empty() {
    fs::remove_file(disk().join("filler")).expect("the filler goes");
}

fn log(house: &House, id: &str) -> String {
    fs::read_to_string(house.dir().join("sessions").join(id).join("events.jsonl")).expect("a log")
}

/// Types of the events in a log, in order.
fn kinds(house: &House, id: &str) -> Vec<String> {
    let kind =
        |line: &str| line.split_once("\"type\":\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
    log(house, id).lines().filter_map(kind).collect()
}

fn wait_for(house: &House, id: &str, part: &str) {
    until(part, || log(house, id).contains(part).then_some(()));
}

fn status(server: &Served, path: &str, body: &str) -> (u16, String) {
    let answer = server.ask(if body.is_empty() { "GET" } else { "POST" }, path, body);
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

const MESSAGE: &str = r#"{"content":"more"}"#;

#[test]
fn what_was_begun_is_written_down_and_waits_and_goes_on_by_itself() {
    on_disk("disk::what_was_begun_is_written_down_and_waits_and_goes_on_by_itself", SIZE, || {
        let house = house("limits: {reserve_bytes: 524288}");
        let server = house.serve(&[]);
        let reserve = house.dir().join("reserve");
        until("the reserve", || fs::metadata(&reserve).ok().filter(|meta| meta.len() == 524_288));
        server.session("a", "hello");
        server.session("b", "hello");
        server.send("a");
        wait_for(&house, "a", "tool_started");
        fill();
        fs::remove_file(house.root.join("hold")).expect("the call may end");
        wait_for(&house, "a", r#""type":"session_paused","reason":"disk_full""#);
        let kinds_so_far = kinds(&house, "a");
        assert_eq!(
            kinds_so_far[5..],
            ["tool_started", "tool_finished", "model_requested", "model_responded", "session_paused"]
        );
        assert!(!house.root.join("trace").exists(), "the second call has not begun");
        assert!(fs::metadata(&reserve).expect("it is there").len() < 524_288, "it was given up");

        // New turns are refused, of this session and of others, and nothing of them is taken; reading goes on.
        for path in ["/api/v1/sessions/a/messages", "/api/v1/sessions/b/messages"] {
            let (code, body) = status(&server, path, MESSAGE);
            assert_eq!(code, 507, "{body}");
            assert!(body.contains("urn:duragent:problem:disk-full"), "{body}");
        }
        assert_eq!(status(&server, "/api/v1/sessions", r#"{"id":"c","agent":"hello"}"#).0, 507);
        assert_eq!(status(&server, "/api/v1/sessions/a/messages", "").0, 200);
        assert_eq!(server.status("a"), "paused");
        assert_eq!(kinds(&house, "a"), kinds_so_far);
        assert_eq!(server.metrics().get("disk_full"), 1.0);

        // Nor does a restart begin anything.
        server.stop();
        let server = house.serve(&[]);
        assert_eq!(status(&server, "/api/v1/sessions/a/messages", MESSAGE).0, 507);
        assert_eq!(kinds(&house, "a"), kinds_so_far);

        empty();
        wait_for(&house, "a", "turn_finished");
        assert_eq!(fs::read_to_string(house.root.join("trace")).expect("the second call ran"), "x\n");
        assert!(!log(&house, "a").contains("tool_interrupted"), "nothing was lost: {}", log(&house, "a"));
        until("the reserve to be whole", || fs::metadata(&reserve).ok().filter(|meta| meta.len() == 524_288));
        assert_eq!(server.turn("b"), "completed");
        assert_eq!(server.metrics().get("disk_full"), 0.0);
        server.stop();
    });
}

/// The control: without the reserve, what the call has done is not in the log, and never will be.
#[test]
fn without_a_reserve_what_was_done_is_forgotten() {
    on_disk("disk::without_a_reserve_what_was_done_is_forgotten", SIZE, || {
        let house = house("limits: {reserve_bytes: 0}");
        let server = house.serve(&[]);
        assert!(!house.dir().join("reserve").exists());
        server.session("a", "hello");
        server.send("a");
        wait_for(&house, "a", "tool_started");
        fill();
        fs::remove_file(house.root.join("hold")).expect("the call may end");
        server.log.wait_for("a session failed, it is opened again");
        assert_eq!(kinds(&house, "a").last().map(String::as_str), Some("tool_started"));
        empty();
        wait_for(&house, "a", "turn_finished");
        assert!(log(&house, "a").contains(r#""type":"tool_interrupted""#), "{}", log(&house, "a"));
        server.stop();
    });
}

/// What the kernel says of a quota, and of a file system in which it has found an error (`errors=remount-ro`): to one write to
/// the log, the first of a message or the one at the end of its turn.
#[test]
fn no_quota_and_no_right_to_write_are_a_full_disk() {
    require("strace", "strace");
    for error in ["EDQUOT", "EROFS"] {
        for (write, refused) in [(2, true), (3, false)] {
            // One writer: strace counts the calls of each thread for itself.
            let house = House::new("limits: {writers_max: 1}");
            let log_path = house.dir().join("sessions/a/events.jsonl");
            let inject = format!("inject=write:error={error}:when={write}");
            let log_path = log_path.to_str().expect("UTF-8");
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", log_path, "-e", "trace=write", "-e", &inject];
            let server = house.start(&mut house.command(&strace, &[]));
            server.session("a", "hello");
            let (code, body) = status(&server, "/api/v1/sessions/a/messages?wait=60", MESSAGE);
            if refused {
                assert_eq!(code, 507, "{error}: {body}");
                assert_eq!(kinds(&house, "a"), ["session_created"], "nothing of it was taken");
                server.log.wait_for("the disk takes something again");
                assert_eq!(server.turn("a"), "completed", "{error}");
            } else {
                assert_eq!(code, 200, "{error}: {body}");
                assert!(body.contains("completed"), "{body}");
                server.log.wait_for("the disk takes something again");
            }
            assert_eq!(kinds(&house, "a").iter().filter(|kind| *kind == "turn_finished").count(), 1);
        }
    }
}
