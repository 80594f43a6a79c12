//! Servers that come and go while somebody listens.

use crate::house::{House, eventually};
use std::sync::Arc;
use std::time::Duration;

/// Waits for a file, then answers; begun anew by every restart, as it only reads.
const TRANSCRIPT: &str = r#"{"deltas":["I wait."],"tool_calls":[{"name":"bash","arguments":{"command":"sh wait.sh"}}]}
{"deltas":["Over."]}
{"deltas":["Again."]}
"#;
const TOOL: &str = "echo ran >> ran.log\nwhile [ ! -e go ]; do sleep 0.05; done\n";

fn house(name: &str) -> House {
    let house = House::new(name, TRANSCRIPT, "mode: allow");
    house.write("wait.sh", TOOL);
    house
}

#[test]
fn run_goes_through_the_server_that_is_up() {
    let house = house("through");
    let server = house.serve();
    house.write("go", "");
    let ended = house.run(&["run", "worker", "hi"], "");
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "Over.\n", ""));
    assert!(house.read(&format!(".duragent/sessions/{}/lease", house.session())).is_some());
    server.signal("TERM");
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn run_goes_on_when_the_server_was_killed_and_started_again() {
    let house = house("restart");
    let server = house.serve();
    let mut run = house.start(&["run", "worker", "hi"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    server.signal("KILL");
    drop(server);
    let _server = house.serve();
    let ended = run.end();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "Over.\n", ""));
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"), "the tool ran once");
}

#[test]
fn run_says_where_the_turn_is_when_the_server_stays_away() {
    let house = house("away");
    let server = house.serve();
    let mut run = house.start(&["run", "worker", "hi"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    server.signal("KILL");
    drop(server);
    let ended = run.end();
    let session = house.session();
    let said =
        format!("error: the server went away; the turn is on disk\nhint: duragent run worker --resume {session}\n");
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(1), "", said.as_str()));
    let ended = house.run(&["run", "worker", "--resume", &session], "");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Over.\n"), "{ended:?}");
}

#[test]
fn attached_clients_come_back_with_the_server() {
    let house = house("back");
    let server = house.serve();
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("hi\n");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    server.signal("TERM");
    server.signal("TERM");
    drop(server);
    chat.err.wait_for("[server] it went away");
    let _server = house.serve();
    chat.err.wait_for("[server] it is back");
    chat.out.wait_for("Over.");
    chat.type_in("more\n");
    let ended = chat.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "I wait.\nOver.\nAgain.\n"), "{ended:?}");
    assert_eq!(house.said("one").len(), 2);
}

/// A disk that takes nothing for a while, with one client that waits for the turn and one that keeps asking, each of which
/// brings the session back to life. The turn goes on when the disk does, is not given up as if the runtime had crashed, and
/// the log is not opened as fast as it fails.
#[test]
fn a_disk_that_is_bad_for_a_while_costs_no_turn_and_no_storm() {
    let house = Arc::new(house("disk"));
    let mut server = house.serve_within_limits();
    assert!(house.ask("POST", "/api/v1/sessions", r#"{"agent":"worker","id":"one"}"#).contains(" 201 "));
    let waits = Arc::clone(&house);
    let waiter =
        std::thread::spawn(move || waits.ask("POST", "/api/v1/sessions/one/messages?wait=60", r#"{"content":"hi"}"#));
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    server.limit_files(Some(house.log("one").len()));
    house.write("go", "");
    server.err.wait_for("it is opened again");
    for _ in 0..60 {
        house.ask("GET", "/api/v1/sessions/one/approvals", "");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = house.ask("POST", "/api/v1/sessions/one/messages", r#"{"content":"more"}"#);
    assert!(told.contains(" 500 "), "nothing of it was taken: {told}");
    server.limit_files(None);
    let answer = waiter.join().expect("an answer");
    assert!(answer.contains("\"reason\":\"completed\""), "{answer}");
    let kinds = house.kinds("one");
    assert!(kinds.iter().any(|k| k == "tool_interrupted"), "{kinds:?}");
    assert!(!kinds.iter().any(|k| k == "session_recovered"), "nothing crashed: {kinds:?}");
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"), "the tool ran once");
    assert_eq!(house.said("one").len(), 1);
    server.signal("TERM");
    let said = server.end().err;
    assert!(said.matches("it is opened again").count() < 8, "{said}");
}

/// Taking up a turn that waits to ask its model again writes nothing, and so is no sign that the disk is well.
#[test]
fn a_disk_that_stays_bad_is_tried_less_and_less_often() {
    const BUSY: &str = r#"{"deltas":["Over."],"fail":{"kind":"overloaded","retry_after_ms":3000},"fail_first":1}"#;
    let house = House::new("rare", BUSY, "mode: allow");
    let mut server = house.serve_within_limits();
    assert!(house.ask("POST", "/api/v1/sessions", r#"{"agent":"worker","id":"one"}"#).contains(" 201 "));
    assert!(house.ask("POST", "/api/v1/sessions/one/messages", r#"{"content":"hi"}"#).contains(" 202 "));
    eventually("the model is busy", || house.kinds("one").last().is_some_and(|kind| kind == "model_failed"));
    server.limit_files(Some(house.log("one").len()));
    server.err.wait_for("after_ms=5000");
    server.limit_files(None);
    eventually("the turn ends", || house.kinds("one").last().is_some_and(|kind| kind == "turn_finished"));
    assert!(house.log("one").contains(r#""reason":"completed""#));
}
