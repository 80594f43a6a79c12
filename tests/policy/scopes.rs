//! How far a grant reaches, and the rule that an approval of scope `always` writes.

use super::house::House;
use super::stage::{bash, events, ran, says, stage, text};
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
    assert_eq!(house.run(&["approve", "s", "--scope", "always"]).code, Some(0));
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
