use super::{DELAY_MAX, Replay, TRANSCRIPT_MAX};
use crate::provider::testing::{ask, line, request, tool, user};
use crate::provider::{Failure, Message, Provider, Request};
use duragent_core::event::FailureKind;
use duragent_platform::cancel::Cancel;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const DEMO: &str = r#"
{"step":1,"thinking":["Hm."],"deltas":["Let me ","look."],"tool_calls":[{"name":"bash","arguments":{ "command": "ls" }}],"usage":{"input_tokens":9,"output_tokens":4}}

{"step":2,"expect":{"last_role":"tool","contains":"Cargo"},"deltas":["A Rust project."],"finish_reason":"end"}
{}
"#;

fn replay(text: &str) -> Replay {
    Replay::from_text("t.jsonl", text).unwrap()
}

/// A conversation in which the model has answered `count` times; the last message is a tool result.
fn after(count: usize) -> Request {
    let mut messages = vec![user("what is this?")];
    for _ in 0..count {
        messages
            .push(Message::Assistant { content: "…".into(), thinking: None, blocks: None, tool_calls: Vec::new() });
        messages.push(Message::Tool { call_id: "c".into(), name: "bash".into(), content: "Cargo.toml src".into() });
    }
    request(messages, vec![tool("bash")])
}

fn failure(replay: &Replay, request: &Request) -> Failure {
    ask(replay, request).1.unwrap_err()
}

#[test]
fn the_request_alone_decides_which_line_answers() {
    let want = [
        ("[Hm.]|Let me |look.", r#"[Hm.]Let me look. <bash{"command":"ls"}> 9+4 tool_calls"#),
        ("A Rust project.", "A Rust project. <> 0+0 end"),
        ("", " <> 0+0 stop"),
    ];
    let kept = replay(DEMO);
    for at in [0, 0, 2, 1, 0, 1] {
        for provider in [&kept, &replay(DEMO)] {
            let (shown, reply) = ask(provider, &after(at));
            assert_eq!((shown.as_str(), line(&reply.unwrap()).as_str()), want[at], "answer {}", at + 1);
        }
    }
    let failure = failure(&kept, &after(3));
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert_eq!(failure.detail, "t.jsonl: the request asks for answer 4, the transcript has 3");
}

#[test]
fn a_repeating_transcript_has_no_end() {
    let provider = replay("{\"repeat\":true}\n{\"deltas\":[\"a\"]}\n{\"deltas\":[\"b\"]}\n");
    let found: String = (0..7).map(|at| ask(&provider, &after(at)).1.unwrap().text).collect();
    assert_eq!(found, "abababa");
    assert_eq!(provider.probe("x").unwrap().text, "replays t.jsonl (2 answers, over and over)");
    let once = replay("{\"repeat\":false}\n{}\n");
    assert_eq!(failure(&once, &after(1)).kind, FailureKind::Invalid);
    assert_eq!(once.probe("x").unwrap().text, "replays t.jsonl (1 answers)");
}

#[test]
fn a_request_that_is_not_the_expected_one_fails() {
    let cases = [
        (r#"{"expect":{"last_role":"tool"}}"#, 0, "answer 1 expects a last message of role tool, found user"),
        (r#"{"expect":{"last_role":"user","contains":"what"}}"#, 0, ""),
        (
            r#"{"expect":{"contains":"zebra"}}"#,
            0,
            "answer 1 expects a last message that contains \"zebra\", found \"what is this?\"",
        ),
        (r#"{"expect":{}}"#, 0, ""),
    ];
    for (text, at, want) in cases {
        match ask(&replay(text), &after(at)).1 {
            Ok(_) => assert_eq!(want, "", "{text}"),
            Err(failure) => {
                assert_eq!(
                    (failure.kind, failure.detail),
                    (FailureKind::Invalid, format!("t.jsonl: {want}")),
                    "{text}"
                );
            }
        }
    }
    let nothing = request(Vec::new(), Vec::new());
    assert!(failure(&replay(cases[0].0), &nothing).detail.ends_with("role tool, found none"));
}

#[test]
fn failures_are_played_always_or_first() {
    let fail = r#"{"fail":{"kind":"overloaded","detail":"busy","retry_after_ms":50}}"#;
    let want = Failure { retry_after_ms: Some(50), ..Failure::new(FailureKind::Overloaded, "t.jsonl: busy") };
    let always = replay(fail);
    for _ in 0..3 {
        assert_eq!(failure(&always, &after(0)), want);
    }
    let first =
        replay("{\"deltas\":[\"x\"]}\n{\"fail\":{\"kind\":\"bad_tool_call\"},\"fail_first\":2,\"deltas\":[\"y\"]}\n");
    for _ in 0..2 {
        assert_eq!(failure(&first, &after(1)).kind, FailureKind::BadToolCall);
    }
    for _ in 0..3 {
        assert_eq!(ask(&first, &after(1)).1.unwrap().text, "y");
        assert_eq!(ask(&first, &after(0)).1.unwrap().text, "x");
    }
}

#[test]
fn delays_are_kept_and_end_with_a_cancel() {
    let start = std::time::Instant::now();
    ask(&replay(r#"{"deltas":["a","b","c"],"delay_ms":20}"#), &after(0)).1.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));

    let (cancel, (sender, receiver)) = (Cancel::new(), mpsc::channel());
    let raised = cancel.clone();
    thread::spawn(move || {
        let provider = replay(&format!("{{\"deltas\":[\"a\",\"b\"],\"delay_ms\":{DELAY_MAX}}}"));
        let mut shown = 0;
        let result = provider.complete(&after(0), &raised, &mut |_| shown += 1);
        sender.send((result, shown)).unwrap();
    });
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "control: it waits");
    cancel.raise();
    let (result, shown) = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((result.unwrap_err().detail.as_str(), shown), ("t.jsonl: cancelled", 0));
    let already = replay("{}").complete(&after(0), &cancel, &mut |_| {});
    assert_eq!(already.unwrap_err().detail, "t.jsonl: cancelled");
}

#[test]
fn a_malformed_transcript_is_refused_with_its_place() {
    let cases = [
        ("", "t.jsonl: expected at least one answer, found none"),
        ("{\"repeat\":true}\n", "t.jsonl: expected at least one answer, found none"),
        ("{}\n{\"step\":3}\n", "t.jsonl:2:9: expected step 2, found 3"),
        ("{}\n\n{\"deltas\":[\"é\",7]}\n", "t.jsonl:3:16: expected a string"),
        ("{\"deltas\":[\"a\"}", "t.jsonl:1:15: expected ',' or ']'"),
        (
            "{\"detlas\":[]}",
            "t.jsonl:1:2: unknown key \"detlas\", expected step, thinking, deltas, delay_ms, tool_calls, usage, finish_reason, expect, fail, fail_first or repeat",
        ),
        ("{\"usage\":{\"tokens\":1}}", "t.jsonl:1:11: unknown key \"tokens\", expected input_tokens or output_tokens"),
        ("{\"usage\":{\"input_tokens\":-1}}", "t.jsonl:1:26: expected a whole number from 0 to 2^64-1"),
        ("{\"tool_calls\":[{\"arguments\":{}}]}", "t.jsonl:1:32: tool call without a name"),
        ("{\"tool_calls\":[{\"name\":\"a\",\"arguments\":\"x\"}]}", "t.jsonl:1:40: arguments: expected an object"),
        (
            "{\"tool_calls\":[{\"nam\":\"a\"}]}",
            "t.jsonl:1:17: unknown key \"nam\", expected name, arguments or call_id",
        ),
        ("{\"delay_ms\":60001}", "t.jsonl:1:13: expected at most 60000 ms, found 60001"),
        ("{\"expect\":{\"last_role\":\"system\"}}", "t.jsonl:1:24: expected user, assistant or tool, found \"system\""),
        ("{\"expect\":{\"role\":\"user\"}}", "t.jsonl:1:12: unknown key \"role\", expected last_role or contains"),
        ("{\"fail\":{\"kind\":\"tired\"}}", "t.jsonl:1:17: unknown kind of failure \"tired\""),
        ("{\"fail\":{}}", "t.jsonl:1:11: fail without kind"),
        ("{\"fail\":{\"why\":\"\"}}", "t.jsonl:1:10: unknown key \"why\", expected kind, detail or retry_after_ms"),
        ("{\"fail_first\":1}", "t.jsonl:1:17: fail_first without fail"),
        ("{\"deltas\":[],\"deltas\":[]}", "t.jsonl:1:23: duplicate key \"deltas\""),
        ("{}\n{\"repeat\":true}\n", "t.jsonl:2:1: repeat belongs in the first line"),
        ("{\"repeat\":true,\"step\":1}\n", "t.jsonl:1:25: repeat stands alone in its line"),
        ("{} {}", "t.jsonl:1:4: unexpected text after the value"),
        ("[]", "t.jsonl:1:1: expected an object"),
    ];
    for (text, want) in cases {
        assert_eq!(Replay::from_text("t.jsonl", text).err().map(|e| e.to_string()).as_deref(), Some(want), "{text}");
    }
}

#[test]
fn transcripts_come_from_files_of_bounded_size() {
    let path = std::env::temp_dir().join(format!("duragent-replay-{}.jsonl", std::process::id()));
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Replay::open(&path).map(|r| r.steps.len()).map_err(|e| e.to_string())
    };
    assert_eq!(error(DEMO.as_bytes()), Ok(3));
    assert!(error(b"\xff\n").unwrap_err().contains("cannot read the transcript: invalid utf-8"));
    let max = usize::try_from(TRANSCRIPT_MAX).unwrap();
    let mut large = vec![b' '; max];
    large[..3].copy_from_slice(b"{}\n");
    assert_eq!(error(&large), Ok(1));
    large.push(b' ');
    assert!(error(&large).unwrap_err().ends_with("transcript is larger than 4194304 bytes"));
    std::fs::remove_file(&path).unwrap();
    assert!(Replay::open(&path).unwrap_err().to_string().contains("cannot read the transcript"));
}
