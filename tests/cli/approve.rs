//! `approve` and `deny`.

use super::house::{House, ended, signal, until};
use std::process::Stdio;

/// One call, then the last answer.
fn one_call(command: &str) -> String {
    format!(
        "{{\"deltas\":[\"May I?\"],\"tool_calls\":[{{\"name\":\"bash\",\"arguments\":{{\"command\":\"{command}\"}}}}]}}\n\
         {{\"deltas\":[\"Thank you.\"]}}\n"
    )
}

/// Two calls in one answer, then the last answer.
const TWO_CALLS: &str = "{\"tool_calls\":[{\"name\":\"bash\",\"arguments\":{\"command\":\"echo 1\"}},{\"name\":\"bash\",\"arguments\":{\"command\":\"echo 2\"}}]}\n\
                         {\"deltas\":[\"Both.\"]}\n";

/// The ids of the requests in a log, in order.
fn requests(log: &str) -> Vec<String> {
    let id = |line: &str| Some(line.split_once("\"approval_id\":\"")?.1.split_once('"')?.0.to_owned());
    log.lines().filter(|line| line.contains("\"approval_requested\"")).filter_map(id).collect()
}

#[test]
fn without_a_server_the_turn_goes_on_here() {
    for (command, done, result, ran) in
        [("approve", "granted (once)", "Thank you.", true), ("deny", "denied (once)", "Thank you.", false)]
    {
        let house = House::new(&one_call("touch made"));
        house.session("ask", &["please"]);
        let id = requests(&house.log("ask")).remove(0);
        let out = house.good(&[command, "as"]);
        assert_eq!(out, format!("{done} {id} bash: touch made\n{result}\n"));
        assert_eq!(house.path("made").exists(), ran, "{command}");
        assert!(house.good(&["ps"]).contains("idle"));
        let error = house.bad(1, &[command, "ask"]);
        assert!(error.starts_with("error: session ask waits for no approval\n"), "{error}");
    }
}

#[test]
fn with_a_server_the_decision_is_all() {
    let house = House::new(&one_call("echo hi"));
    house.session("ask", &["please"]);
    let server = house.serve();
    assert_eq!(server.status("ask"), "waiting");
    let id = requests(&house.log("ask")).remove(0);
    let out = house.good(&["approve", "ask", &id, "--scope", "session"]);
    assert_eq!(out, format!("granted (session) {id} bash: echo hi\n"));
    until("the turn to rest", || (server.status("ask") == "idle").then_some(()));
    server.stop();
    assert!(house.log("ask").contains("\"scope\":\"session\""));
}

#[test]
fn of_several_requests_one_has_to_be_named() {
    let house = House::new(TWO_CALLS);
    house.session("ask", &["please"]);
    let ids = requests(&house.log("ask"));
    assert_eq!(ids.len(), 2, "{}", house.log("ask"));
    let error = house.bad(2, &["approve", "ask"]);
    assert!(
        error.starts_with("error: session ask waits for 2 approvals\nhint: say which with: duragent approve ask ID\n"),
        "{error}"
    );
    for (id, n) in ids.iter().zip(["1", "2"]) {
        assert!(error.contains(&format!("hint: {id} bash: echo {n}\n")), "{error}");
    }
    let error = house.bad(1, &["deny", "ask", "nonsense"]);
    assert!(error.starts_with("error: session ask does not wait for an approval \"nonsense\"\nhint: "), "{error}");

    // The turn waits again: that is exit code 4, and what was decided stands.
    let waits = house.run(&["approve", "ask", &ids[0]]);
    assert_eq!((waits.code, waits.out.lines().count()), (Some(4), 1), "{waits:?}");
    assert!(
        waits.err.starts_with("error: the turn waits for an approval\n") && waits.err.contains(&ids[1]),
        "{waits:?}"
    );
    assert!(house.good(&["deny", "ask"]).ends_with("Both.\n"));
}

#[test]
fn always_is_written_into_the_policy() {
    let house = House::new(&one_call("echo hi"));
    house.session("ask", &["please"]);
    house.good(&["approve", "ask", "--scope", "always"]);
    let policy = std::fs::read_to_string(house.dir().join("agents/bot/policy.yaml")).expect("it was written");
    assert!(policy.contains("bash:echo hi"), "{policy}");
}

#[test]
fn a_turn_that_fails_afterwards_is_a_failure() {
    let mut tape = one_call("echo hi");
    tape.truncate(tape.find('\n').expect("a line") + 1);
    tape.push_str("{\"fail\":{\"kind\":\"refused\",\"detail\":\"no more\"}}\n");
    let house = House::new(&tape);
    house.session("ask", &["please"]);
    let found = house.run(&["approve", "ask"]);
    assert_eq!((found.code, found.out.lines().count()), (Some(1), 1), "{found:?}");
    assert!(found.err.starts_with("error: turn 1 is failed: ") && found.err.contains("no more"), "{found:?}");
}

#[test]
fn ctrl_c_leaves_the_turn_on_disk() {
    let house = House::new(&one_call("touch begun; sleep 600"));
    house.session("ask", &["please"]);
    let child =
        house.command(&["approve", "ask"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until("the tool to begin", || house.path("begun").exists().then_some(()));
    signal("INT", &child);
    let found = ended(child.wait_with_output().expect("it ends"));
    assert_eq!((found.code, found.err.as_str()), (Some(130), ""), "{found:?}");
    let log = house.log("ask");
    assert!(log.lines().last().is_some_and(|line| line.contains("\"session_paused\"")), "{log}");
    // It never runs twice: the model is told, and the turn ends.
    let server = house.serve();
    until("the turn to rest", || (server.status("ask") == "idle").then_some(()));
    server.stop();
    assert!(house.log("ask").contains("\"tool_interrupted\""));
}
