//! One turn: what it prints, what it leaves, how it ends.

use crate::house::{House, config, eventually, field};

/// Says hello in three pieces, then again to whatever comes next.
const HELLO: &str = r#"{"repeat":true}
{"deltas":["Hel","lo","."],"usage":{"input_tokens":7,"output_tokens":3}}
"#;
/// Runs a tool that takes its time, then looks at how it went.
const SLOW: &str = r#"{"deltas":["I begin."],"tool_calls":[{"name":"bash","arguments":{"command":"sh slow.sh"}}]}
{"deltas":["Done."]}
"#;
const SLOW_TOOL: &str = "echo ran >> ran.log\nsleep 60\n";
const ALLOW: &str = "mode: allow";

fn slow(name: &str) -> House {
    let house = House::new(name, SLOW, ALLOW);
    house.write("slow.sh", SLOW_TOOL);
    house
}

fn check(house: &House, args: &[&str], input: &str, code: i32, out: &str, err: &str) {
    let ended = house.run(args, input);
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    assert_eq!(ended.out, out, "{args:?}: {ended:?}");
    match err {
        "" => assert_eq!(ended.err, "", "{args:?}"),
        _ => assert!(ended.err.contains(err), "{args:?}: expected {err:?} in {:?}", ended.err),
    }
}

#[test]
fn text_is_the_reply_and_nothing_else() {
    let house = House::new("text", HELLO, ALLOW);
    check(&house, &["run", "worker", "hi"], "", 0, "Hello.\n", "");
    check(&house, &["run", "-p", "worker", "hi"], "", 0, "Hello.\n", "");
    check(&house, &["--dir", ".duragent", "run", "worker", "--output-format=text", "hi"], "", 0, "Hello.\n", "");
    assert_eq!(house.sessions().len(), 3);
}

#[test]
fn control_characters_reach_programs_unchanged() {
    let transcript = "{\"deltas\":[\"a\\u001b[31mb\\r\"]}\n";
    let house = House::new("raw", transcript, ALLOW);
    check(&house, &["run", "worker", "hi"], "", 0, "a\u{1b}[31mb\r\n", "");
}

#[test]
fn the_prompt_comes_from_argument_and_input() {
    let house = House::new("prompt", HELLO, ALLOW);
    for (args, input, expected) in [
        (vec!["run", "worker", "argument"], "", "argument"),
        (vec!["run", "worker"], "piped\nin\n", "piped\nin"),
        (vec!["run", "worker", "sum up"], "a\nb\n", "sum up\n\na\nb"),
    ] {
        let mut args = args;
        args.extend(["--session", "one"]);
        check(&house, &args, input, 0, "Hello.\n", "");
        let said = house.said("one");
        assert_eq!(said.last(), Some(&("cli".to_owned(), expected.to_owned())));
    }
    let usage = "expected a prompt, found none";
    check(&house, &["run", "worker"], " \n", 2, "", usage);
    assert_eq!(house.said("one").len(), 3);
}

#[test]
fn json_is_one_object() {
    let house = House::new("json", HELLO, ALLOW);
    let ended = house.run(&["run", "worker", "hi", "--output-format", "json"], "");
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
    let session = house.session();
    for (key, expected) in [
        ("session", session.as_str()),
        ("turn", "1"),
        ("reason", "completed"),
        ("reply", "Hello."),
        ("usage", r#"{"input_tokens":7,"output_tokens":3}"#),
    ] {
        assert_eq!(field(&ended.out, key), expected, "{key}");
    }
}

#[test]
fn stream_json_is_the_log_with_tokens_and_a_result() {
    let house = House::new("stream", HELLO, ALLOW);
    let ended = house.run(&["run", "worker", "hi", "--output-format", "stream-json"], "");
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ended.out.lines().collect();
    let kinds: Vec<String> = lines.iter().map(|line| field(line, "type")).collect();
    assert_eq!(kinds.last().map(String::as_str), Some("result"));
    assert_eq!(field(lines[lines.len() - 1], "reply"), "Hello.");

    let durable: Vec<&str> = lines.iter().copied().filter(|l| l.contains("\"crc\":")).collect();
    let log = house.log(&house.session());
    assert_eq!(durable, log.lines().skip(1).collect::<Vec<_>>(), "every line from the message on, as it is on disk");
    let tokens = lines.iter().filter(|line| field(line, "type") == "token");
    assert_eq!(tokens.map(|t| field(t, "text")).collect::<String>(), "Hello.");
}

#[test]
fn a_reply_goes_to_a_file_whole_or_not_at_all() {
    let house = House::new("file", HELLO, ALLOW);
    check(&house, &["run", "worker", "hi", "-o", "reply.txt"], "", 0, "", "");
    assert_eq!(house.read("reply.txt").as_deref(), Some("Hello.\n"));
    let ended = house.run(&["run", "worker", "hi", "-o", "other.txt", "--output-format", "json"], "");
    assert_eq!(field(&ended.out, "reply"), "Hello.");
    assert_eq!(house.read("other.txt").as_deref(), Some("Hello.\n"));

    house.write(".duragent/agents/worker/transcript.jsonl", r#"{"fail":{"kind":"invalid","detail":"no such model"}}"#);
    check(&house, &["run", "worker", "hi", "-o", "failed.txt"], "", 1, "", "no such model");
    assert_eq!(house.read("failed.txt"), None);
    check(&house, &["run", "worker", "hi", "-o", "nowhere/reply.txt"], "", 2, "", "there is no folder nowhere");
    assert_eq!(house.sessions().len(), 3, "the model was not asked in vain");
}

#[test]
fn failures_say_what_and_what_to_do() {
    let failing = r#"{"fail":{"kind":"connect","detail":"127.0.0.1:11434: refused; is Ollama running?"}}"#;
    let house = House::new("fail", failing, ALLOW);
    check(&house, &["run", "worker", "hi"], "", 1, "", "error: ");
    let ended = house.run(&["run", "worker", "hi"], "");
    assert!(
        ended.err.contains("127.0.0.1:11434: refused\nhint: is Ollama running?\nhint: the turn waits"),
        "{ended:?}"
    );
    let ended = house.run(&["run", "worker", "hi", "--output-format", "json"], "");
    assert_eq!((ended.code, field(&ended.out, "reason").as_str()), (Some(1), "offline"));
    assert!(field(&ended.out, "detail").contains("refused"));
}

#[test]
fn what_the_provider_says_is_cleaned_on_its_way_to_standard_error() {
    let house = House::new("dirty", "{\"fail\":{\"kind\":\"invalid\",\"detail\":\"x\\u001b]0;title\\u0007y\"}}", ALLOW);
    let ended = house.run(&["run", "worker", "hi"], "");
    assert!(ended.err.contains("]0;title"), "the control: it was said: {ended:?}");
    assert!(!ended.err.contains(['\u{1b}', '\u{7}']), "{ended:?}");
}

#[test]
fn usage_errors_are_2() {
    let house = House::new("usage", HELLO, ALLOW);
    for (args, err) in [
        (vec!["run"], "expected an agent and a prompt"),
        (vec!["run", "worker", "a", "b"], "unexpected argument"),
        (vec!["run", "worker", "hi", "--frobnicate"], "--frobnicate"),
        (vec!["run", "worker", "hi", "--output-format", "xml"], "expected text, json or stream-json, found \"xml\""),
        (vec!["run", "worker", "hi", "--max-turns", "0"], "expected 1 or more"),
        (vec!["run", "worker", "hi", "--max-turns", "few"], "expected a whole number"),
        (vec!["run", "worker", "hi", "-c", "--session", "x"], "expected one of -c, --resume and --session"),
        (vec!["run", "worker", "hi", "--session", "No!"], "--session: "),
        (vec!["attach"], "expected a session"),
        (vec!["chat"], "expected an agent"),
    ] {
        let ended = house.run(&args, "");
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(ended.err.contains(err) && ended.err.contains("hint: "), "{args:?}: {ended:?}");
    }
    assert_eq!(house.sessions().len(), 0);
}

#[test]
fn broken_configuration_is_3() {
    let house = House::new("config", HELLO, ALLOW);
    house.write(".duragent/duragent.yaml", &config(&["other"]));
    check(&house, &["run", "worker", "hi"], "", 3, "", "agent \"worker\" cannot be used");
    house.write(".duragent/duragent.yaml", "serverr: 1\n");
    check(&house, &["run", "worker", "hi"], "", 3, "", "unknown key \"serverr\"");
    check(&house, &["--dir", "nowhere", "run", "worker", "hi"], "", 3, "", "there is no workspace at nowhere");
}

#[test]
fn unknown_names_are_1() {
    let house = House::new("unknown", HELLO, ALLOW);
    check(&house, &["run", "nobody", "hi"], "", 1, "", "no agent \"nobody\"; there are: worker");
    check(&house, &["run", "worker", "hi", "--resume", "abc"], "", 1, "", "no session \"abc\"");
    check(&house, &["run", "worker", "hi", "-c"], "", 1, "", "has no session to continue");
    check(&house, &["attach", "abc"], "", 1, "", "no session \"abc\"");
}

#[test]
fn a_limit_is_5() {
    let transcript = r#"{"tool_calls":[{"name":"list_dir","arguments":{"path":"."}}]}"#;
    let house = House::new("limit", transcript, ALLOW);
    check(&house, &["run", "worker", "hi", "--max-turns", "1"], "", 5, "", "a limit was reached: steps_max");
}

#[test]
fn a_call_that_waits_is_4_and_goes_on_when_it_is_approved() {
    let house = House::new("waits", SLOW, "mode: ask");
    house.write("slow.sh", "echo ran >> ran.log\n");
    let ended = house.run(&["run", "worker", "hi", "--output-format", "json"], "");
    assert_eq!((ended.code, field(&ended.out, "reason").as_str()), (Some(4), "waiting"), "{ended:?}");
    let approvals = field(&ended.out, "approvals");
    assert!(approvals.contains(r#""arguments":{"command":"sh slow.sh"}"#), "{approvals}");

    let session = house.session();
    let command = format!("duragent approve {session} a1-1-1\n");
    check(&house, &["run", "worker", "--resume", &session], "", 4, "", &command);
    check(&house, &["run", "worker", "--resume", &session], "", 4, "", "bash: sh slow.sh");
    // Another message waits behind it.
    check(&house, &["run", "worker", "--resume", &session, "more"], "", 4, "", &command);
    assert_eq!(house.read("ran.log"), None);

    let ended = house.run(&["attach", &session], "y\n");
    assert!(ended.out.contains("Done."), "{ended:?}");
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"));
}

#[test]
fn sessions_are_named_continued_and_resumed() {
    let house = House::new("names", HELLO, ALLOW);
    house.agent("other", HELLO, ALLOW);
    house.write(".duragent/duragent.yaml", &config(&["worker", "other"]));
    check(&house, &["run", "worker", "--session", "garden", "one"], "", 0, "Hello.\n", "");
    check(&house, &["run", "worker", "--session", "garden", "two"], "", 0, "Hello.\n", "");
    check(&house, &["run", "other", "--session", "house", "three"], "", 0, "Hello.\n", "");
    check(&house, &["run", "worker", "-c", "four"], "", 0, "Hello.\n", "");
    check(&house, &["run", "--resume", "gar", "five"], "", 0, "Hello.\n", "");
    check(&house, &["run", "worker", "--resume", "garden", "six"], "", 0, "Hello.\n", "");
    let said: Vec<String> = house.said("garden").into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, ["one", "two", "four", "five", "six"]);

    check(&house, &["run", "worker", "--session", "house", "x"], "", 1, "", "is of agent \"other\", not \"worker\"");
    check(&house, &["run", "other", "--resume", "garden", "x"], "", 1, "", "is of agent \"worker\", not \"other\"");
    check(&house, &["run", "worker", "--resume", "garden"], "", 2, "", "has no unfinished turn");
    assert_eq!((house.said("garden").len(), house.said("house").len()), (5, 1));
}

#[test]
fn killed_while_a_tool_runs_the_turn_is_resumed_and_the_tool_is_not_run_again() {
    let house = slow("killed");
    let mut run = house.start(&["run", "worker", "hi"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    run.signal("KILL");
    drop(run);
    let session = house.session();
    assert_eq!(house.kinds(&session).last().map(String::as_str), Some("tool_started"), "the control: it was cut short");

    check(&house, &["run", "worker", "--resume", &session], "", 0, "Done.\n", "");
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"));
    let kinds = house.kinds(&session);
    let settled = kinds.iter().skip_while(|k| *k != "tool_started").skip(1).cloned().collect::<Vec<_>>();
    let expected = ["session_recovered", "tool_interrupted", "model_requested", "model_responded", "turn_finished"];
    assert_eq!(settled, expected);
}

#[test]
fn an_interrupt_cancels_the_turn() {
    let house = slow("interrupt");
    let mut run = house.start(&["run", "worker", "hi", "--output-format", "json"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    run.signal("INT");
    let ended = run.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(field(&ended.out, "reason"), "cancelled");
    let kinds = house.kinds(&house.session());
    assert_eq!(kinds[kinds.len() - 2..], ["tool_interrupted", "turn_finished"]);
}

#[test]
fn told_to_stop_it_leaves_the_turn_on_disk() {
    let house = slow("term");
    let mut run = house.start(&["run", "worker", "hi"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    run.signal("TERM");
    let ended = run.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(143), ""), "{ended:?}");
    let session = house.session();
    let remedy = format!("hint: duragent run worker --resume {session}\n");
    assert!(ended.err.contains(&remedy), "{ended:?}");
    assert_eq!(house.kinds(&session).last().map(String::as_str), Some("session_paused"));

    check(&house, &["run", "--resume", &session], "", 0, "Done.\n", "");
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"));
}

#[test]
fn a_session_that_another_process_holds_is_left_to_it() {
    let house = slow("held");
    let mut run = house.start(&["run", "worker", "hi", "--session", "one"]);
    run.close_input();
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    for args in
        [vec!["run", "worker", "more", "--session", "one"], vec!["run", "--resume", "one"], vec!["attach", "one"]]
    {
        let ended = house.run(&args, "");
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(ended.err.contains("hint: share a session between terminals through a server"), "{args:?}: {ended:?}");
    }
    assert_eq!((house.said("one").len(), house.read("ran.log").as_deref()), (1, Some("ran\n")));
}
