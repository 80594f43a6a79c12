use super::*;
use crate::event::*;
use crate::tool::{EffectClass, Tags, ToolCall};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

fn usage() -> Usage {
    Usage { input_tokens: 12, output_tokens: 3, cached_tokens: 5, cost_micros: 70 }
}

/// One event of every type, with every optional field set where it has one.
pub(crate) fn one_of_each() -> Vec<Body> {
    let s = |t: &str| t.to_string();
    let call = ToolCall { call_id: s("c1-1-1"), name: s("bash"), arguments: s(r#"{"command":"echo \"ä\"\n"}"#) };
    let outcome = ToolOutcome {
        result: s("line\n\u{1}\"quoted\" 🦀"),
        exit_code: Some(-1),
        denied: Some(Denied { kind: s("fs"), what: s("/etc/shadow"), hint: s("ask") }),
        truncated: true,
        artifact: Some(s("c1-1-1.txt")),
        duration_ms: 15,
    };
    vec![
        Body::SessionCreated { v: 1, session: s("s-1"), agent: s("a"), title: Some(s("t")), parent: Some((s("p"), 9)) },
        Body::MessageReceived {
            turn: 1,
            source: s("http"),
            content: s("hello"),
            idempotency_key: Some(s("k")),
            steps_max: Some(3),
        },
        Body::TurnStarted { turn: 1 },
        Body::ModelRequested {
            turn: 1,
            step: 1,
            attempt: 2,
            provider: s("ollama"),
            model: s("m"),
            reserved: usage(),
            summary: true,
        },
        Body::ModelFailed {
            turn: 1,
            step: 1,
            attempt: 2,
            kind: FailureKind::Connect,
            detail: s("refused"),
            retry_at_ms: Some(1_795_341_600_123),
            worked: true,
            context_tokens: Some(4096),
            duration_ms: 9,
        },
        Body::ModelSwitched {
            turn: 1,
            step: 1,
            from_provider: s("ollama"),
            from_model: s("m"),
            provider: s("openai"),
            model: s("n"),
            reason: FailureKind::Connect,
        },
        Body::ModelResponded {
            turn: 1,
            step: 1,
            text: s("let me see"),
            thinking: Some(s("hm")),
            blocks: Some(s(r#"[{"type":"thinking","signature":"x"}]"#)),
            tool_calls: vec![call.clone(), call.clone()],
            usage: usage(),
            finish_reason: s("stop"),
            duration_ms: 8,
        },
        Body::ApprovalRequested {
            approval_id: s("a1"),
            call_id: s("c1-1-1"),
            name: s("bash"),
            digest: s("00ff"),
            expires_at_ms: 5,
            reason: Some(s("egress")),
        },
        Body::ApprovalDecided { approval_id: s("a1"), decision: Decision::Grant, scope: Scope::Session, by: s("cli") },
        Body::ToolStarted {
            call_id: s("c1-1-1"),
            name: s("bash"),
            arguments: call.arguments.clone(),
            effect: EffectClass::Once,
            sandbox: SandboxReport { backend: s("trust"), enforcement: s("none"), landlock_abi: None },
            tags: Tags { private: true, untrusted: false, egress: true },
        },
        Body::ToolFinished { call_id: s("c1-1-1"), outcome },
        Body::ToolStarted {
            call_id: s("c1-1-2"),
            name: s("bash"),
            arguments: call.arguments,
            effect: EffectClass::Pure,
            sandbox: SandboxReport { backend: s("landlock"), enforcement: s("full"), landlock_abi: Some(7) },
            tags: Tags::default(),
        },
        Body::ToolInterrupted { call_id: s("c1-1-1"), reason: s("crash") },
        Body::TurnFinished { turn: 1, reason: TurnReason::Failed, detail: Some(s("why")), usage: usage() },
        Body::SessionRecovered {
            reason: s("torn_tail"),
            dropped_bytes: 7,
            saved_as: Some(s("events.jsonl.tail-1")),
            turn: Some(1),
            crashes: 2,
        },
        Body::SessionCompacted {
            through_seq: 4,
            summary: s("so far"),
            tokens_before: 9,
            tokens_after: 3,
            usage: usage(),
            duration_ms: 4,
        },
        Body::SessionPaused { reason: s("r"), retry_at_ms: Some(1_795_341_600_123) },
        Body::SessionResumed { reason: s("r") },
        Body::SessionClosed { reason: s("r") },
        Body::Unknown { kind: s("from_the_future") },
    ]
}

fn encode_all(bodies: Vec<Body>) -> (String, Vec<Event>) {
    let (mut out, mut crc) = (String::new(), CRC_START);
    let events: Vec<Event> =
        bodies.into_iter().zip(1..).map(|(body, seq)| Event { seq, at_ms: 1_795_341_600_000 + seq, body }).collect();
    for event in &events {
        crc = encode(event, crc, &mut out);
    }
    (out, events)
}

fn decode_all(text: &str) -> Result<Vec<Event>, LineError> {
    let mut crc = CRC_START;
    text.lines()
        .map(|line| {
            let (event, next) = decode(line.as_bytes(), crc)?;
            crc = next;
            Ok(event)
        })
        .collect()
}

#[test]
fn what_was_refused_is_named_for_what_it_is() {
    let s = |t: &str| t.to_string();
    for (kind, key) in [("fs", "path"), ("net", "host"), ("limit", "what"), ("timeout", "what"), ("policy", "what")] {
        let denied = Denied { kind: s(kind), what: s("it"), hint: s("do") };
        let outcome = ToolOutcome { denied: Some(denied), ..ToolOutcome::default() };
        let (text, events) = encode_all(vec![Body::ToolFinished { call_id: s("c"), outcome }]);
        assert!(
            text.contains(&format!("\"denied\":{{\"kind\":\"{kind}\",\"{key}\":\"it\",\"hint\":\"do\"}}")),
            "{text}"
        );
        assert_eq!(decode_all(&text), Ok(events));
    }
}

#[test]
fn every_type_survives_the_log() {
    let (text, events) = encode_all(one_of_each());
    assert_eq!(decode_all(&text).as_ref(), Ok(&events));
    assert!(!text.contains('\0'));
}

#[test]
fn a_line_looks_as_documented() {
    let (text, _) = encode_all(vec![Body::TurnStarted { turn: 1 }]);
    let crc = crate::crc::crc32c(
        b"00000000{\"seq\":1,\"at\":\"2026-11-22T10:00:00.001Z\",\"type\":\"turn_started\",\"turn\":1",
    );
    let mut expected =
        String::from("{\"seq\":1,\"at\":\"2026-11-22T10:00:00.001Z\",\"type\":\"turn_started\",\"turn\":1,\"crc\":\"");
    push_hex(&mut expected, crc);
    expected.push_str("\"}\n");
    assert_eq!(text, expected);
}

#[test]
fn every_single_bit_flip_is_detected() {
    let (text, _) = encode_all(one_of_each());
    let bytes = text.as_bytes();
    let (mut crc, mut start) = (CRC_START, 0);
    for line in text.lines() {
        let range = start..start + line.len();
        for bit in 0..line.len() * 8 {
            let mut copy = bytes[range.clone()].to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&copy, crc).is_err(), "bit {bit} of {line}");
        }
        crc = check(line.as_bytes(), crc).expect("intact");
        start = range.end + 1;
    }
}

#[test]
fn lost_moved_and_foreign_lines_break_the_chain() {
    let (text, _) = encode_all(one_of_each());
    let lines: Vec<&str> = text.lines().collect();
    for i in 0..lines.len() - 1 {
        let mut lost = lines.clone();
        lost.remove(i);
        assert!(decode_all(&lost.join("\n")).is_err(), "line {i} lost");
        let mut moved = lines.clone();
        moved.swap(i, i + 1);
        assert!(decode_all(&moved.join("\n")).is_err(), "line {i} moved");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let (text, _) = encode_all(one_of_each());
    for line in text.lines() {
        for end in 0..line.len() {
            assert!(decode(&line.as_bytes()[..end], CRC_START).is_err());
        }
    }
}

#[test]
fn fields_that_a_type_needs_are_named() {
    let line = |inner: &str| {
        let body = alloc::format!("{{{inner}");
        let mut line = body.clone();
        line.push_str(",\"crc\":\"");
        push_hex(&mut line, chain(CRC_START, body.as_bytes()));
        line.push_str("\"}");
        line
    };
    let fails = |inner: &str, message: &str| {
        let error = decode(line(inner).as_bytes(), CRC_START).expect_err(inner);
        assert_eq!(error.to_string(), message);
    };
    let head = r#""seq":1,"at":"2026-11-22T10:00:00.000Z","#;
    fails(r#""seq":1"#, r#": field "at" is missing or has a wrong value"#);
    fails(r#""type":"turn_started""#, r#": field "seq" is missing or has a wrong value"#);
    fails(r#""seq":1,"at":"yesterday","type":"turn_started""#, r#": field "at" is missing or has a wrong value"#);
    fails(&(head.to_string() + r#""turn":1"#), r#": field "type" is missing or has a wrong value"#);
    fails(
        &(head.to_string() + r#""type":"turn_finished","turn":1,"reason":"bored""#),
        r#"turn_finished: field "reason" is missing or has a wrong value"#,
    );
    fails(&(head.to_string() + r#""type":"turn_started","turn":"1""#), "expected a number at byte 70");
    let known = line(&(head.to_string() + r#""type":"turn_started","turn":1,"new_key":{"a":[1]}"#));
    assert!(decode(known.as_bytes(), CRC_START).is_ok(), "unknown keys are skipped");
}

#[test]
fn peeks_agree_with_the_decoder() {
    let (text, events) = encode_all(one_of_each());
    for (line, event) in text.lines().zip(&events) {
        assert_eq!(peek_seq(line.as_bytes()), Some(event.seq));
        assert_eq!(peek_kind(line), Some(event.body.kind()));
    }
    assert_eq!(peek_seq(b"{\"seq\":"), None);
}

#[test]
fn feeds_are_found_wherever_they_are() {
    for length in 0..40 {
        assert_eq!(find_feed(&vec![0x8a; length]), None);
        for at in 0..length {
            let mut bytes = vec![0x8a; length];
            bytes[at] = b'\n';
            if at + 1 < length {
                bytes[at + 1] = b'\n';
            }
            assert_eq!(find_feed(&bytes), Some(at));
        }
    }
}
