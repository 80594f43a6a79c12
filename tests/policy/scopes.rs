//! How far a grant reaches, and the rule that an approval of scope `always` writes.

use super::house::{House, until};
use super::stage::{bash, calls, decide, events, ran, says, stage, text};
use std::fs;

/// The same command twice, then two others that are nearly the same, each in a turn of its own.
fn tape() -> String {
    ["echo *", "echo *", "echo a", "echo * "].map(|command| bash(command) + &says("Done.")).concat()
}

fn run(house: &House, session: &str) -> Option<i32> {
    house.run(&["run", "bot", "--session", session, "go on"]).code
}

#[test]
fn a_scope_lets_the_same_call_through_and_no_other() {
    for (scope, same, elsewhere) in [("once", 4, 4), ("session", 0, 4), ("always", 0, 0)] {
        let house = stage("mode: ask\n", &tape());
        assert_eq!(run(&house, "s"), Some(4), "the control: nobody has said anything yet");
        house.good(&["approve", "s", "--scope", scope]);
        assert_eq!(run(&house, "s"), Some(same), "{scope}: the same call");
        if same == 4 {
            house.good(&["deny", "s"]);
        }
        assert_eq!(run(&house, "s"), Some(4), "{scope}: what the wildcard in the call would match is another call");
        house.good(&["deny", "s"]);
        // Another session, from the start of the tape.
        assert_eq!(run(&house, "t"), Some(elsewhere), "{scope}: another session");
        let expected: &[&str] = if same == 4 { &["echo *"] } else { &["echo *", "echo *"] };
        assert_eq!(ran(&house, "s"), expected, "{scope}");
    }
}

/// The agent's policy is for its agent; `always` of one does not let another one's call run.
#[test]
fn always_is_for_the_agent_that_asked() {
    let house = stage("mode: ask\n", &tape());
    let spec = fs::read_to_string(house.dir().join("agents/bot/agent.yaml")).expect("a spec");
    house.write(".duragent/agents/other/agent.yaml", &spec.replace("name: bot", "name: other"));
    assert_eq!(run(&house, "s"), Some(4));
    house.good(&["approve", "s", "--scope", "always"]);
    assert_eq!(house.run(&["run", "other", "--session", "t", "go on"]).code, Some(4));
    assert_eq!(run(&house, "u"), Some(0), "the control: the agent itself");
}

#[test]
fn always_is_a_line_that_people_can_read_and_take_out() {
    const BEFORE: &str = "# What the bot may do.\nmode: ask  # whatever is not below\n\nallow:\n  # looking is free\n  - read_file # all of it\n\
                          deny:\n  - \"bash:rm *\" # never\n";
    let house = stage("", &tape());
    house.write(".duragent/agents/bot/policy.yaml", BEFORE);
    let file = house.dir().join("agents/bot/policy.yaml");
    assert_eq!(run(&house, "s"), Some(4));
    house.good(&["approve", "s", "--scope", "always"]);
    let after = fs::read_to_string(&file).expect("a policy");
    assert_eq!(after, BEFORE.replace("allow:\n", "allow:\n  - \"bash:echo \\\\*\"\n"));
    assert!(house.good(&["check"]).contains("configuration ok"));
    assert_eq!(run(&house, "t"), Some(0), "the control: the rule holds");
    // Taken out again, it does not.
    fs::write(&file, BEFORE).expect("a policy");
    assert_eq!(run(&house, "u"), Some(4));
}

/// A rule that cannot be written is no rule, and the call that was granted runs once.
#[test]
fn always_without_a_way_to_write_it_is_said() {
    const BROKEN: &str = "mode: ask\nallow: &a [\n  read_file]\n";
    let house = stage("", &tape());
    house.write(".duragent/agents/bot/policy.yaml", BROKEN);
    assert_eq!(run(&house, "s"), Some(4));
    let found = house.run(&["approve", "s", "--scope", "always"]);
    assert_eq!(found.code, Some(0));
    assert!(found.err.contains("a rule was not written") && found.err.contains("add it by hand"), "{found:?}");
    assert_eq!(ran(&house, "s"), ["echo *"]);
    let after = fs::read_to_string(house.dir().join("agents/bot/policy.yaml")).expect("a policy");
    assert_eq!(after, BROKEN);
    assert_eq!(run(&house, "t"), Some(4), "another session is asked");
}

/// A denial of any scope is for this call: the next one is asked for.
#[test]
fn a_denial_is_not_remembered() {
    for scope in ["once", "session", "always"] {
        let house = stage("mode: ask\n", &tape());
        for _ in 0..2 {
            assert_eq!(run(&house, "s"), Some(4), "{scope}");
            house.good(&["deny", "s", "--scope", scope]);
        }
        assert!(ran(&house, "s").is_empty(), "{scope}");
        assert!(!house.dir().join("agents/bot/policy.yaml").exists(), "{scope}");
        let results: Vec<String> = events(&house, "s", "tool_finished")
            .iter()
            .map(|event| text(event.get("denied").expect("denied"), "kind"))
            .collect();
        assert_eq!(results, ["approval", "approval"], "{scope}");
    }
}

/// Two sessions of an agent whose calls are allowed for ever at the same time: both rules are written.
#[test]
fn always_twice_at_once_is_two_rules() {
    let house =
        stage("mode: ask\n", &calls(&[("bash", r#"{"command":"echo 1"}"#), ("bash", r#"{"command":"echo 2"}"#)]));
    let server = house.serve();
    server.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#);
    server.say("s", "please");
    std::thread::scope(|scope| {
        for approval in ["a1-1-1", "a1-1-2"] {
            let house = &house;
            scope.spawn(move || {
                assert_eq!(decide(house, "s", approval, r#"{"decision":"grant","scope":"always"}"#), 200)
            });
        }
    });
    let file = house.dir().join("agents/bot/policy.yaml");
    until("both rules", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text.contains("\"bash:echo 1\"") && text.contains("\"bash:echo 2\"")).then_some(())
    });
    server.kill();
}

/// A rule that denies is not lifted by a grant that was asked for before it was written.
#[test]
fn a_deny_that_was_written_meanwhile_wins() {
    for (policy, runs) in [("deny: [bash]\n", 0), ("mode: ask\n", 1)] {
        let house = stage("mode: ask\n", &tape());
        assert_eq!(run(&house, "s"), Some(4));
        house.write(".duragent/policy.yaml", policy);
        house.good(&["approve", "s"]);
        assert_eq!(ran(&house, "s").len(), runs, "{policy}");
    }
}
