//! Streams as servers sent them, or are documented to, whole and one byte at a time; where they come from is in
//! `streams/README.md`. No call of theirs does anything.

use crate::house::{ANTHROPIC, Api, House, OLLAMA, OPENAI, OPENROUTER};
use duragent_core::event::Body;
use duragent_testkit::{Answer, Split};
use std::path::Path;

/// What came of a stream: thinking in brackets, text, calls, tokens (those of the cache, and the price, where there are any),
/// the reason; or the failure.
fn told(body: &Body) -> Option<String> {
    match body {
        Body::ModelResponded { text, thinking, tool_calls, usage, finish_reason, blocks, .. } => {
            let thinking = thinking.as_ref().map_or(String::new(), |text| format!("[{text}] "));
            let calls: Vec<String> =
                tool_calls.iter().map(|call| format!(" {}{}", call.name, call.arguments)).collect();
            let rest = match (usage.cached_tokens, usage.cost_micros) {
                (0, 0) => String::new(),
                (cached, 0) => format!(" ({cached} cached)"),
                (cached, cost) => format!(" ({cached} cached, {cost} micros)"),
            };
            let blocks = blocks.as_ref().map_or(String::new(), |blocks| format!(" blocks {blocks}"));
            let (input, output, calls) = (usage.input_tokens, usage.output_tokens, calls.concat());
            Some(format!("{thinking}{text:?}{calls} {input}+{output}{rest} {finish_reason}{blocks}"))
        }
        Body::ModelFailed { kind, detail, context_tokens, .. } => {
            let detail = detail.split_once(": ").map_or(detail.as_str(), |(_, detail)| detail);
            let window = context_tokens.map_or(String::new(), |tokens| format!(" (window {tokens})"));
            Some(format!("{}: {detail}{window}", kind.as_str()))
        }
        _ => None,
    }
}

/// File, its API, its status, and what comes of it.
const STREAMS: [(&str, Api, u16, &str); 21] = [
    ("llamacpp-plain.sse", OPENAI, 200, r#""Hello, I'm here to help with any creative endeavors." 24+13 stop"#),
    (
        "llamacpp-tools.sse",
        OPENAI,
        200,
        r#""{\"name\": \"bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>\n" bash{"command":"file"} 432+52 (431 cached) tool_calls"#,
    ),
    ("llamacpp-length.sse", OPENAI, 200, r#""The rain was a constant companion in the" 36+8 (24 cached) length"#),
    (
        "llamacpp-cut-call.sse",
        OPENAI,
        200,
        r#"bad_tool_call: call of "bash": arguments are not JSON: string without an end at byte 13; the answer was cut at its token limit"#,
    ),
    (
        "llamacpp-too-long.json",
        OPENAI,
        400,
        r#"too_long: answered 400: request (9031 tokens) exceeds the available context size (8192 tokens), try increasing it (window 8192)"#,
    ),
    (
        "openai-padded.sse",
        OPENAI,
        200,
        r#""Two at once." bash{"command":"echo \"ü\""} bash{"command":"true"} 1200+31 (1024 cached) tool_calls"#,
    ),
    ("azure-filter.sse", OPENAI, 200, r#""Safe and sound." 25+4 stop"#),
    ("deepseek-thinking.sse", OPENAI, 200, r#"[Süß, oder?] "Ja." 50+9 (32 cached) stop"#),
    ("vllm-empty-lists.sse", OPENAI, 200, r#""I look." bash{"command":"true"} 77+19 tool_calls"#),
    ("mistral-at-once.sse", OPENAI, 200, r#""" bash{"command":"true"} list_dir{} 94+26 tool_calls"#),
    ("gemini-no-index.sse", OPENAI, 200, r#""" bash{"command":"true"} bash{"command":"false"} 60+12 stop"#),
    (
        "openrouter-signed.sse",
        OPENROUTER,
        200,
        r#"[One, two.] "Three." 111+22 (100 cached, 1235 micros) stop blocks [{"type":"reasoning.text","text":"One, two.","format":"anthropic-claude-v1","index":0,"signature":"ErUBCkYIAxgC=="}]"#,
    ),
    ("openrouter-error.sse", OPENROUTER, 200, r#"overloaded: error within the answer: Rate limit exceeded upstream"#),
    (
        "anthropic-tools.sse",
        ANTHROPIC,
        200,
        r#""Zuerst schön." bash{"command":"true"} list_dir{} 1212+89 (1000 cached) tool_use blocks [{"type":"thinking","thinking":"","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds=="}]"#,
    ),
    ("anthropic-input-at-once.sse", ANTHROPIC, 200, r#""" bash{"command":"true"} 40+11 tool_use"#),
    (
        "anthropic-refusal.sse",
        ANTHROPIC,
        200,
        r#"invalid: the model declined to answer (stop_reason refusal); say it in other words"#,
    ),
    ("anthropic-overloaded.sse", ANTHROPIC, 200, r#"overloaded: error within the answer: Overloaded"#),
    ("ollama-old.ndjson", OLLAMA, 200, r#""" bash{"command":"true"} list_dir{} 310+28 stop"#),
    ("ollama-thinking.ndjson", OLLAMA, 200, r#"[Die Gänse.] "Ich sehe nach." bash{"command":"true"} 210+44 stop"#),
    ("ollama-length.ndjson", OLLAMA, 200, r#""Es war einmal" 20+3 length"#),
    (
        "ollama-error.ndjson",
        OLLAMA,
        200,
        r#"overloaded: error within the answer: an error was encountered while running the model: CUDA error: out of memory"#,
    ),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/streams")
}

#[test]
fn every_stream_is_understood() {
    let mut house = House::new("model_attempts_max: 1, offline_seconds_max: 0, steps_max: 1");
    let mut fakes = Vec::new();
    for (file, api, status, _) in STREAMS {
        let text = std::fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (way, split) in [("whole", Split::Whole), ("bytes", Split::EveryByte), ("frames", Split::Frames)] {
            let fake = (api.fake)().answer(Answer::recorded(status, &text).split(split)).may_refuse();
            let agent = format!("{}-{way}", file.split_once('.').expect("a suffix").0);
            house.agent(&agent, api, &fake, "");
            fakes.push((file, agent, fake));
        }
    }
    let _server = house.serve();
    for (_, agent, _) in &fakes {
        house.start(agent, "go");
    }
    let mut wrong = Vec::new();
    for (file, agent, _) in &fakes {
        house.rest(agent);
        let found = house.events(agent).iter().find_map(|event| told(&event.body)).unwrap_or_default();
        let (.., expected) = STREAMS.iter().find(|(name, ..)| name == file).expect("it is there");
        if found != *expected {
            wrong.push(format!("{agent}: expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_played() {
    for entry in std::fs::read_dir(folder()).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name == "README.md" || STREAMS.iter().any(|(file, ..)| *file == name), "{name} is played by nobody");
    }
}
