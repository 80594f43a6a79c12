//! Tags: what a session has read decides whether data may leave it.

use super::house::{House, Served, until};
use super::stage::{bash, calls, events, ran, says, stage, text};
use duragent_core::json::Value;
use std::fs;

/// Everything is allowed, and the tools play the parts: one reads what is private, one what strangers wrote, one sends.
const ROLES: &str = "mode: allow\ntags:\n  read_file: [private]\n  list_dir: [untrusted]\n  bash: [egress]\n";

const SECRET: (&str, &str) = ("read_file", r#"{"path":"secret.txt"}"#);
const STRANGER: (&str, &str) = ("list_dir", "{}");
const SEND: (&str, &str) = ("bash", r#"{"command":"cp secret.txt sent.txt"}"#);

/// A turn that reads both, and one that sends.
fn two_turns() -> String {
    [calls(&[SECRET]), calls(&[STRANGER]), says("Read."), calls(&[SEND]), says("Sent.")].concat()
}

/// Sends a message as a script would; the exit code.
fn run(house: &House, session: &str) -> Option<i32> {
    house.run(&["run", "bot", "--session", session, "go on"]).code
}

fn sent(house: &House) -> bool {
    house.path("sent.txt").exists()
}

fn reasons(house: &House, session: &str) -> Vec<String> {
    events(house, session, "approval_requested").iter().map(|event| text(event, "reason")).collect()
}

/// What a tag of each kind adds, one by one: only all three together stop the call.
#[test]
fn data_leaves_a_session_unasked_unless_it_has_read_private_and_untrusted_things() {
    for (policy, code) in [
        (ROLES.to_owned(), 4),
        (ROLES.replace("[untrusted]", "[]"), 0),
        (ROLES.replace("[private]", "[]"), 0),
        (ROLES.replace("[egress]", "[]"), 0),
        // Without a word on tags commands and directories bring in nothing untrusted: what the manual warns of.
        ("mode: allow\n".to_owned(), 0),
        ("mode: allow\ntags: {list_dir: [untrusted]}\n".to_owned(), 4),
        ("mode: allow\ntags: {'*_dir': [untrusted, private]}\n".to_owned(), 4),
    ] {
        let house = stage(&policy, &two_turns());
        assert_eq!(run(&house, "s"), Some(0), "{policy}");
        assert_eq!(run(&house, "s"), Some(code), "{policy}");
        assert_eq!(sent(&house), code == 0, "{policy}");
        assert_eq!(reasons(&house, "s"), if code == 4 { vec!["egress"] } else { vec![] }, "{policy}");
    }
}

#[test]
fn the_order_within_one_answer_counts() {
    for (answer, code) in [
        ([STRANGER, SECRET, SEND], 4),
        ([SECRET, STRANGER, SEND], 4),
        // The control: what is sent before anything is read cannot carry it.
        ([SEND, SECRET, STRANGER], 0),
        ([SECRET, SEND, STRANGER], 0),
    ] {
        let house = stage(ROLES, &[calls(&answer), says("Done.")].concat());
        assert_eq!(run(&house, "s"), Some(code), "{answer:?}");
        assert_eq!(sent(&house), code == 0, "{answer:?}");
        let names: Vec<String> = events(&house, "s", "tool_started").iter().map(|event| text(event, "name")).collect();
        let expected: Vec<&str> = answer.iter().map(|(name, _)| *name).take(if code == 0 { 3 } else { 2 }).collect();
        assert_eq!(names, expected, "what stands before it has run");
    }
}

#[test]
fn a_person_lets_it_out_or_not() {
    for (word, code, out) in [("approve", 0, true), ("deny", 0, false)] {
        let house = stage(ROLES, &two_turns());
        assert_eq!((run(&house, "s"), run(&house, "s")), (Some(0), Some(4)));
        assert_eq!(house.run(&[word, "s"]).code, Some(code));
        assert_eq!(sent(&house), out, "{word}");
    }
}

#[test]
fn a_grant_covers_the_exact_call_and_its_scope() {
    let again = |command: &str| [bash(command), says("Done.")].concat();
    let tape = || {
        let same = "cp secret.txt sent.txt";
        [two_turns(), again(same), again("cp secret.txt other.txt"), again(same)].concat()
    };
    for (scope, codes) in [("once", [4, 4]), ("session", [0, 4]), ("always", [0, 4])] {
        let house = stage(ROLES, &tape());
        assert_eq!((run(&house, "s"), run(&house, "s")), (Some(0), Some(4)), "{scope}");
        assert_eq!(house.run(&["approve", "s", "--scope", scope]).code, Some(0), "{scope}");
        assert_eq!(run(&house, "s"), Some(codes[0]), "{scope}: the same call");
        if codes[0] == 4 {
            house.good(&["deny", "s"]);
        }
        assert_eq!(run(&house, "s"), Some(codes[1]), "{scope}: another call");
        assert!(!house.path("other.txt").exists());
        // What is allowed for ever by a rule is still data that leaves: another session is asked again.
        assert_eq!((run(&house, "t"), run(&house, "t")), (Some(0), Some(4)), "{scope}: another session");
        assert_eq!(reasons(&house, "t"), ["egress"], "{scope}");
    }
}

/// A rule that asks and a session that has read too much are one question, not two; a rule that denies is not lifted.
#[test]
fn rules_and_tags_together() {
    let house = stage(&format!("{ROLES}ask: [bash]\n"), &two_turns());
    assert_eq!((run(&house, "s"), run(&house, "s")), (Some(0), Some(4)));
    assert_eq!(reasons(&house, "s"), [""], "the rule asked");
    assert!(house.good(&["approve", "s"]).ends_with("Sent.\n"));
    assert!(sent(&house));
    let house = stage(&format!("{ROLES}deny: [bash]\n"), &two_turns());
    assert_eq!((run(&house, "s"), run(&house, "s")), (Some(0), Some(0)));
    assert!(!sent(&house) && reasons(&house, "s").is_empty());
}

fn served(house: &House, first: &[&str]) -> Served {
    let server = house.serve();
    server.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#);
    first.iter().for_each(|message| server.say("s", message));
    server
}

#[test]
fn a_kill_and_a_restart_do_not_wash_it_off() {
    for forget in [false, true] {
        let house = stage(ROLES, &two_turns());
        served(&house, &["read"]).kill();
        if forget {
            // Only the log counts.
            fs::remove_file(house.dir().join("sessions/s/state.yaml")).ok();
        }
        let server = house.serve();
        server.say("s", "send");
        assert_eq!(server.status("s"), "waiting");
        assert_eq!(reasons(&house, "s"), ["egress"]);
        server.kill();
        // Asked for once: the request survives too.
        let server = house.serve();
        assert_eq!(server.status("s"), "waiting");
        assert_eq!(reasons(&house, "s"), ["egress"]);
        server.kill();
        assert!(!sent(&house));
    }
}

/// A call that was cut off may have been read before.
#[test]
fn a_call_that_a_kill_cut_off_counts() {
    let tape = [bash("touch begun; sleep 600"), says("Oh."), calls(&[SEND]), says("Sent.")].concat();
    for (tags, status) in [("[private, untrusted, egress]", "waiting"), ("[private, egress]", "idle")] {
        let house = stage(&format!("mode: allow\ntags: {{bash: {tags}}}\n"), &tape);
        let server = served(&house, &[]);
        server.post("/api/v1/sessions/s/messages", r#"{"content":"begin"}"#);
        until("the tool to begin", || house.path("begun").exists().then_some(()));
        server.kill();
        let server = house.serve();
        until("the turn to end", || (server.status("s") == "idle").then_some(()));
        server.say("s", "send");
        assert_eq!(server.status("s"), status, "{tags}");
        server.kill();
        assert_eq!(sent(&house), status == "idle", "{tags}");
    }
}

#[test]
fn a_fork_has_read_what_its_beginning_has_read() {
    let tape = [says("Hello.")].into_iter().chain([two_turns()]).collect::<String>();
    let house = stage(ROLES, &tape);
    let server = served(&house, &["hello"]);
    let clean =
        events(&house, "s", "turn_finished").pop().and_then(|e| e.get("seq").and_then(Value::as_u64)).expect("a turn");
    server.say("s", "read");
    let fork = |body: &str| text(&server.post("/api/v1/sessions/s/fork", body), "id");
    let (late, early) = (fork("{}"), fork(&format!("{{\"seq\":{clean}}}")));
    server.say(&late, "send");
    assert_eq!((server.status(&late), sent(&house)), ("waiting".to_owned(), false));
    // The control: one that was forked before has not. The tape goes by the number of answers, so another one is played.
    server.kill();
    house.write(".duragent/tape.jsonl", &[says("Hello."), calls(&[SEND]), says("Sent.")].concat());
    let server = house.serve();
    server.say(&early, "send");
    assert_eq!((server.status(&early), sent(&house)), ("idle".to_owned(), true));
    server.kill();
}

#[test]
fn an_export_takes_it_along() {
    let house = stage(ROLES, &two_turns());
    assert_eq!(run(&house, "s"), Some(0));
    house.good(&["session", "export", "s", "-o", "s.jsonl"]);
    house.good(&["session", "import", "s.jsonl", "--id", "copy"]);
    assert_eq!(run(&house, "copy"), Some(4));
    assert_eq!(reasons(&house, "copy"), ["egress"]);
    assert!(!sent(&house));
    assert_eq!(ran(&house, "copy"), Vec::<String>::new());
}

#[test]
fn tags_are_shown() {
    let house = stage("mode: allow\ntags: {'read_*': [], bash: [egress]}\n", &two_turns());
    house.write(".duragent/agents/bot/policy.yaml", "tags:\n  bash: [untrusted]\n");
    let out = house.good(&["check", "-T"]);
    for line in [
        "tags:\n  \"read_*\": []\n  \"bash\": [egress]\n",
        "#   tags of bash: [untrusted, egress]\n#   tags of read_file: []\n#   tags of list_dir: [private]\n#   tags of write_file: []\n",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let server = house.serve();
    let agent = server.get("/api/v1/agents/bot");
    let tags = agent.get("spec").and_then(|spec| spec.get("tags")).expect("tags").to_string();
    assert_eq!(tags, r#"{"bash":["untrusted","egress"],"list_dir":["private"],"read_file":[],"write_file":[]}"#);
    server.stop();
}
