//! Servers that come and go while somebody listens.

use crate::house::{House, eventually};

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
