use super::known::Shown;
use super::parts::Stream;
use super::{Ollama, text_calls};
use crate::provider::http::{Client, Timeouts};
use crate::provider::stream::Parts;
use crate::provider::testing::{
    Act, Server, all_cuts, answer, ask, chunk, chunked, chunked_head, client as plain, dead_url, line, request, show,
    simple_request, told, tool, user,
};
use crate::provider::wire::CALLS_MAX;
use crate::provider::{Failure, Message, Provider};
use duragent_core::event::FailureKind;
use duragent_core::tool::{ToolCall, ToolDecl};
use std::fmt::Write as _;
use std::time::Duration;

const NDJSON: &str = "application/x-ndjson";

/// As recorded from Ollama 0.9, shortened.
const HELLO: &str = concat!(
    r#"{"model":"tiny","created_at":"2026-11-22T10:00:00.1Z","message":{"role":"assistant","content":"","thinking":"Hm, "},"done":false}"#,
    "\n",
    r#"{"model":"tiny","created_at":"2026-11-22T10:00:00.2Z","message":{"role":"assistant","content":"","thinking":"größe?"},"done":false}"#,
    "\n",
    r#"{"model":"tiny","created_at":"2026-11-22T10:00:00.3Z","message":{"role":"assistant","content":"Hel"},"done":false}"#,
    "\n",
    r#"{"model":"tiny","created_at":"2026-11-22T10:00:00.4Z","message":{"role":"assistant","content":"lo 🦀"},"done":false}"#,
    "\n",
    r#"{"model":"tiny","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":5,"prompt_eval_count":26,"eval_count":9}"#,
    "\n",
);

const CALL: &str = concat!(
    r#"{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"bash","arguments":{"z":18446744073709551616,"command":"ls -l"}}}]},"done":false}"#,
    "\n",
    r#"{"message":{"role":"assistant","content":"","tool_calls":[{"id":"call_2","function":{"index":1,"name":"read","arguments":{}}}]},"done":false}"#,
    "\n",
    r#"{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"bash","arguments":{"command":"pwd"}}}]},"done_reason":"stop","done":true,"prompt_eval_count":1,"eval_count":2}"#,
    "\n",
);

fn ollama(server: &Server) -> Ollama {
    Ollama::new(server.client(Timeouts::LOCAL), "10m", false)
}

fn client() -> Client {
    plain("http://127.0.0.1:1", Timeouts::LOCAL)
}

fn feed(client: &Client, pieces: &[&[u8]], tools: &[ToolDecl]) -> (String, String) {
    let (mut shown, mut stream) = (String::new(), Stream::new(client));
    let mut on_delta = |delta: crate::provider::Delta<'_>| shown.push_str(&show(delta));
    let fed = pieces.iter().try_for_each(|piece| stream.feed(piece, &mut on_delta));
    let result: Result<_, Failure> = fed.and_then(|()| stream.into_reply()).map(|mut reply| {
        text_calls::take(&mut reply, tools);
        reply
    });
    (shown, result.map_or_else(|failure| told(&failure), |reply| line(&reply)))
}

/// The same outcome however the bytes arrive.
fn check(input: &str, want: &str) {
    let (client, tools) = (client(), [tool("bash"), tool("read")]);
    for pieces in all_cuts(input.as_bytes()) {
        let (_, found) = feed(&client, &pieces, &tools);
        assert_eq!(found, want, "{} pieces, the first of {} bytes, of {input}", pieces.len(), pieces[0].len());
    }
}

#[test]
fn an_answer_is_the_same_however_its_bytes_arrive() {
    check(HELLO, "[Hm, größe?]Hello 🦀 <> 26+9 stop");
    let client = client();
    for pieces in all_cuts(HELLO.as_bytes()) {
        assert_eq!(feed(&client, &pieces, &[]).0, "[Hm, ][größe?]Hello 🦀");
    }
}

#[test]
fn calls_of_several_frames_and_of_the_last_one_are_collected() {
    let calls = r#"bash{"z":18446744073709551616,"command":"ls -l"} call_2read{} bash{"command":"pwd"}"#;
    check(CALL, &format!(" <{calls}> 1+2 stop"));
}

#[test]
fn variants_of_frames() {
    let done = r#"{"done":true,"done_reason":"stop"}"#;
    let call = |function: &str| format!(r#"{{"message":{{"tool_calls":[{{"function":{function}}}]}}}}"#);
    let cases: &[(String, &str)] = &[
        (format!("{done}\n"), " <> 0+0 stop"),
        ("{\"done\":true}\r\n".into(), " <> 0+0 "),
        (format!("\n\n{done}\n{{\"message\":{{\"content\":\"late\"}}}}\ngarbage\n"), " <> 0+0 stop"),
        (format!("{{\"message\":null,\"error\":null}}\n{done}\n"), " <> 0+0 stop"),
        (format!("{{\"message\":{{\"content\":null,\"tool_calls\":null}}}}\n{done}\n"), " <> 0+0 stop"),
        (format!("{}\n{done}\n", call(r#"{"name":"bash"}"#)), " <bash{}> 0+0 stop"),
        (format!("{}\n{done}\n", call(r#"{"name":"bash","arguments":null}"#)), " <bash{}> 0+0 stop"),
        (format!("{}\n{done}\n", call(r#"{"name":"bash","arguments":"{\"a\": 1}"}"#)), r#" <bash{"a":1}> 0+0 stop"#),
        (
            format!("{}\n{done}\n", call(r#"{"name":"bash","arguments":[1]}"#)),
            "bad_tool_call: call of \"bash\": arguments are not an object",
        ),
        (
            format!("{}\n{done}\n", call(r#"{"name":"bash","arguments":"oops"}"#)),
            "bad_tool_call: call of \"bash\": arguments are not JSON: expected a value at byte 0",
        ),
        (
            format!("{}\n{done}\n", call(r#"{"name":"bash","arguments":{"a":1,"a":2}}"#)),
            "bad_tool_call: malformed tool call: duplicate key at byte 76",
        ),
        (format!("{}\n{done}\n", call(r#"{"arguments":{}}"#)), "bad_tool_call: a tool call without a name"),
        (format!("{}\n{done}\n", call(r#"{"name":"","arguments":{}}"#)), "bad_tool_call: a tool call without a name"),
        ("{\"message\":{\"tool_calls\":7}}\n".into(), "protocol: tool_calls is not a list"),
    ];
    for (input, want) in cases {
        check(input, want);
    }
}

#[test]
fn too_many_calls_are_refused() {
    let mut frame = String::from("{\"done\":true,\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"bash\"}}");
    let allowed = |frame: &str| format!("{frame}]}}}}\n");
    for _ in 1..CALLS_MAX {
        frame.push_str(",{\"function\":{\"name\":\"bash\"}}");
    }
    let found = |input: String| feed(&client(), &[input.as_bytes()], &[]).1;
    assert!(found(allowed(&frame)).contains("bash{}"));
    frame.push_str(",{\"function\":{\"name\":\"bash\"}}");
    assert_eq!(found(allowed(&frame)), "bad_tool_call: more than 64 tool calls in one answer");
}

#[test]
fn a_stream_without_its_end_gives_no_reply() {
    let whole_line = HELLO.find('\n').unwrap() + 1;
    for end in [0, 10, whole_line, HELLO.len() - 1] {
        let found = feed(&client(), &[&HELLO.as_bytes()[..end]], &[]).1;
        assert_eq!(found, "truncated: the stream ended without done: true", "cut at {end}");
    }
    let (first_call, _) = CALL.split_at(CALL.find('\n').unwrap() + 1);
    assert!(feed(&client(), &[first_call.as_bytes()], &[]).1.starts_with("truncated"), "its calls are never run");
}

#[test]
fn errors_and_garbage_within_the_stream() {
    let text = "{\"message\":{\"content\":\"Hel\"}}\n";
    let cases: &[(&str, &str)] = &[
        (
            r#"{"error":"model runner has unexpectedly stopped"}"#,
            "overloaded: error within the answer: model runner has unexpectedly stopped",
        ),
        (
            r#"{"error":"error parsing tool call: raw='{\"a' err=unexpected end"}"#,
            "bad_tool_call: error within the answer: error parsing tool call: raw='{\"a' err=unexpected end",
        ),
        (r#"{"error":{"message":"odd"}}"#, "overloaded: error within the answer: odd"),
        ("<html>", "protocol: malformed JSON: expected a value at byte 0: \"<html>\""),
        (r#"{"message":"#, "protocol: malformed JSON: unexpected end at byte 11: \"{\\\"message\\\":\""),
        (
            r#"{"message":"text"}"#,
            "protocol: JSON whose fields are not of the expected types: \"{\\\"message\\\":\\\"text\\\"}\"",
        ),
        ("\u{0}", "protocol: malformed JSON: expected a value at byte 0: \"\\0\""),
    ];
    for (bad, want) in cases {
        check(&format!("{text}{bad}\n"), want);
    }
    let not_utf8 = feed(&client(), &[b"{\"message\":{\"content\":\"\xff\"}}\n"], &[]).1;
    assert_eq!(not_utf8, "protocol: line 1: not UTF-8 at byte 23");
    let deep = format!("{}\n", "[".repeat(200));
    assert!(feed(&client(), &[deep.as_bytes()], &[]).1.starts_with("protocol: nested deeper than 128 levels"));
    let long = vec![b'x'; duragent_core::ndjson::LINE_MAX + 1];
    assert_eq!(feed(&client(), &[&long], &[]).1, "protocol: line 1: longer than 1048576 bytes");
}

#[test]
fn a_call_written_as_text_is_taken_however_it_arrives() {
    let frames = concat!(
        r#"{"message":{"content":"I look.\n```json\n{\"name\":\"bash\","}}"#,
        "\n",
        r#"{"message":{"content":"\"arguments\":{\"command\":\"ls\"}}\n```"},"done":true}"#,
        "\n"
    );
    check(frames, "I look. <bash{\"command\":\"ls\"}> 0+0 ");
    let native = format!("{{\"message\":{{\"tool_calls\":[{{\"function\":{{\"name\":\"read\"}}}}]}}}}\n{frames}");
    let found = feed(&client(), &[native.as_bytes()], &[tool("bash")]).1;
    assert!(found.contains("<read{}>") && found.contains("```"), "native calls win: {found}");
}

#[test]
fn the_request_carries_everything_in_ollamas_words() {
    let server = Server::always(chunked(NDJSON, &[HELLO]));
    let call = ToolCall { call_id: "c1".into(), name: "bash".into(), arguments: r#"{"command":"ls"}"#.into() };
    let bare = ToolCall { call_id: "c2".into(), name: "read".into(), arguments: String::new() };
    let mut asked = request(
        vec![
            user("say \"hi\"\n"),
            Message::Assistant {
                content: "ok".into(),
                thinking: Some("hm".into()),
                blocks: None,
                tool_calls: vec![call, bare],
            },
            Message::Tool { call_id: "c1".into(), name: "bash".into(), content: "a\tb".into() },
        ],
        vec![tool("bash"), tool("read")],
    );
    asked.temperature = Some(0.5);
    asked.max_output_tokens = Some(99);
    ask(&ollama(&server), &asked).1.unwrap();
    let mut want = String::from(r#"{"model":"tiny","messages":[{"role":"system","content":"Be brief."},"#);
    want.push_str(r#"{"role":"user","content":"say \"hi\"\n"},{"role":"assistant","content":"ok","thinking":"hm","#);
    want.push_str(r#""tool_calls":[{"function":{"name":"bash","arguments":{"command":"ls"}}},"#);
    want.push_str(r#"{"function":{"name":"read","arguments":{}}}]},"#);
    want.push_str(r#"{"role":"tool","tool_name":"bash","content":"a\tb"}],"tools":["#);
    for (i, name) in ["bash", "read"].iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(want, r#"{comma}{{"type":"function","function":{{"name":"{name}","description":"the \"{name}\" tool","#)
            .unwrap();
        want.push_str(r#""parameters":{"type":"object"}}}"#);
    }
    want.push_str(
        r#"],"stream":true,"truncate":false,"shift":false,"keep_alive":"10m","options":{"num_ctx":8192,"temperature":0.5,"num_predict":99}}"#,
    );
    assert_eq!(server.last_body(), want);
    assert!(server.requests()[0].starts_with("POST /api/chat HTTP/1.1\r\n"), "{}", server.requests()[0]);

    let mut bare = request(vec![user("x")], vec![]);
    (bare.system, bare.context_tokens) = (String::new(), 0);
    let forever = Ollama::new(server.client(Timeouts::LOCAL), "-1", false);
    ask(&forever, &bare).1.unwrap();
    let want = r#"{"model":"tiny","messages":[{"role":"user","content":"x"}],"stream":true,"truncate":false,"shift":false,"keep_alive":-1,"options":{}}"#;
    assert_eq!(server.last_body(), want);
}

#[test]
fn answers_arrive_over_the_wire_in_every_framing() {
    let pieces: Vec<&str> = HELLO.split_inclusive('\n').collect();
    let close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{HELLO}").into_bytes();
    let bytewise: Vec<Act> = chunked(NDJSON, &pieces).chunks(7).map(|b| Act::Send(b.to_vec())).collect();
    let cases = [
        vec![Act::Send(answer(200, "", HELLO))],
        vec![Act::Send(chunked(NDJSON, &pieces))],
        vec![Act::Send(chunked(NDJSON, &[&HELLO[..200], &HELLO[200..201], &HELLO[201..]]))],
        vec![Act::Send(close), Act::Close],
        bytewise,
    ];
    for (i, script) in cases.into_iter().enumerate() {
        let server = Server::start(vec![script]);
        let (shown, result) = ask(&ollama(&server), &simple_request());
        assert_eq!(shown, "[Hm, ]|[größe?]|Hel|lo 🦀", "case {i}");
        assert_eq!(line(&result.unwrap()), "[Hm, größe?]Hello 🦀 <> 26+9 stop", "case {i}");
    }
}

#[test]
fn faults_on_the_wire_have_their_kinds() {
    let first = HELLO.split_inclusive('\n').next().unwrap();
    let mut cut_chunked = chunked_head(NDJSON);
    cut_chunked.extend(chunk(first));
    let cut_length = format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{first}").into_bytes();
    let clean_but_short = chunked(NDJSON, &[first]);
    let missing = r#"{"error":"model \"tiny\" not found, try pulling it first"}"#;
    let bad_call = r#"{"error":"error parsing tool call: raw='{' err=unexpected end of JSON input"}"#;
    let no_tools = r#"{"error":"registry.ollama.ai/library/tiny does not support tools"}"#;
    let send = |bytes: Vec<u8>| vec![Act::Send(bytes), Act::Close];
    let cases: Vec<(Vec<Act>, FailureKind, &str)> = vec![
        (send(cut_chunked), FailureKind::Truncated, "closed the connection within its answer"),
        (send(cut_length), FailureKind::Truncated, "closed the connection within its answer"),
        (send(clean_but_short), FailureKind::Truncated, "ended without done: true"),
        (vec![Act::Close], FailureKind::Truncated, "closed the connection before its answer"),
        (
            send(answer(404, "", missing)),
            FailureKind::Invalid,
            "try pulling it first; get the model with: ollama pull tiny",
        ),
        (send(answer(500, "", bad_call)), FailureKind::BadToolCall, "error parsing tool call"),
        (send(answer(400, "", no_tools)), FailureKind::Invalid, "choose a model that can call tools"),
        (send(answer(500, "", "{\"error\":\"cuda\"}")), FailureKind::Overloaded, "answered 500: cuda"),
        (send(answer(503, "Retry-After: 2\r\n", "busy\n  now")), FailureKind::Overloaded, "answered 503: busy now"),
        (send(answer(401, "", "")), FailureKind::Refused, "answered 401"),
        (send(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), FailureKind::Protocol, ""),
        (send(answer(200, "", "<html>captive portal</html>\n")), FailureKind::Protocol, "captive portal"),
    ];
    for (i, (script, kind, what)) in cases.into_iter().enumerate() {
        let server = Server::start(vec![script]);
        let failure = ask(&ollama(&server), &simple_request()).1.unwrap_err();
        assert_eq!(failure.kind, kind, "case {i}: {failure:?}");
        assert!(failure.detail.contains(what), "case {i}: {failure:?}");
        assert!(failure.detail.starts_with("127.0.0.1:"), "case {i}: {failure:?}");
        assert_eq!(failure.retry_after_ms, what.contains("503").then_some(2000), "case {i}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told_with_the_remedy() {
    let provider = Ollama::new(plain(&dead_url(), Timeouts::LOCAL), "10m", false);
    for failure in [ask(&provider, &simple_request()).1.unwrap_err(), provider.probe("tiny").unwrap_err()] {
        assert_eq!(failure.kind, FailureKind::Connect);
        assert!(failure.detail.ends_with("; is Ollama running? start it with: ollama serve"), "{failure:?}");
        assert!(failure.detail.contains("connection refused"), "{failure:?}");
    }
}

#[test]
fn loading_a_model_may_take_longer_than_a_stall() {
    let timeouts =
        Timeouts { idle: Duration::from_millis(250), first_byte: Duration::from_secs(10), ..Timeouts::LOCAL };
    let slow = vec![Act::Pause(Duration::from_millis(700)), Act::Send(chunked(NDJSON, &[HELLO]))];
    let stalled = vec![Act::Send(chunked_head(NDJSON)), Act::Send(chunk(&HELLO[..50])), Act::Hang];
    let server = Server::start(vec![slow, stalled]);
    let provider = Ollama::new(server.client(timeouts), "10m", false);
    assert!(ask(&provider, &simple_request()).1.is_ok(), "the first byte has its own timeout");
    let failure = ask(&provider, &simple_request()).1.unwrap_err();
    assert_eq!(told(&failure), "timeout: stalled: nothing more within 250ms");
}

#[test]
fn a_probe_tells_version_context_and_abilities() {
    let show = r#"{"license":"…","capabilities":["completion","tools"],"tensors":[{"a":[1]}],
        "model_info":{"general.architecture":"llama","llama.context_length":131072,"tokenizer.ggml.tokens":null}}"#;
    let mute = r#"{"capabilities":["completion"],"model_info":{}}"#;
    let version = || vec![Act::Send(answer(200, "", r#"{"version":"0.9.1"}"#))];
    let there = r#"{"models":[{"name":"qwen3:1.7b","size":1},{"name":"tiny:latest"}]}"#;
    let scripts = vec![
        version(),
        vec![Act::Send(answer(200, "", show))],
        version(),
        vec![Act::Send(answer(200, "", mute))],
        version(),
        vec![Act::Send(answer(404, "", r#"{"error":"model 'tiny' not found"}"#))],
        vec![Act::Send(answer(200, "", "<html>"))],
    ];
    let server = Server::with_asides(vec![("/api/tags", answer(200, "", there))], scripts);
    let provider = ollama(&server);
    let found = provider.probe("tiny").unwrap();
    assert_eq!(found.text, "ollama 0.9.1, tiny: context 131072 tokens, can completion, tools");
    assert_eq!(found.context_tokens, Some(131_072));
    assert_eq!(server.last_body(), r#"{"model":"tiny"}"#);
    let line = provider.probe("tiny").unwrap().text;
    assert!(line.contains("context unknown") && line.ends_with("(not tools: agents with tools will fail)"), "{line}");
    let missing = provider.probe("tiny").unwrap_err().detail;
    assert!(missing.ends_with("ollama pull tiny; there are: qwen3:1.7b, tiny:latest"), "{missing}");
    let failure = provider.probe("tiny").unwrap_err();
    assert!(failure.kind == FailureKind::Protocol && failure.detail.contains("is base_url right?"), "{failure:?}");
}

#[test]
fn what_a_model_shows_is_read_strictly() {
    for text in ["", "[]", "{", r#"{"capabilities":[1]}"#, "{} x"] {
        assert!(Shown::read(text).is_err(), "{text}");
    }
    assert!(Shown::read(r#"{"capabilities":null,"model_info":null}"#).is_ok());
}

/// A server that shows `show`, has `loaded` models in memory, and answers.
fn showing(show: &str, loaded: &str) -> Server {
    let loaded = format!("{{\"models\":[{loaded}]}}");
    let asides = vec![("/api/show", answer(200, "", show)), ("/api/ps", answer(200, "", &loaded))];
    Server::with_asides(asides, vec![vec![Act::Send(chunked(NDJSON, &[HELLO]))]])
}

const SHORT: &str = r#"{"capabilities":["completion","tools"],"model_info":{"llama.context_length":2048}}"#;

#[test]
fn the_window_asked_for_is_no_longer_than_the_models_own_which_is_asked_once() {
    let server = showing(SHORT, r#"{"name":"tiny:latest"}"#);
    let provider = ollama(&server);
    let asked = simple_request();
    assert!(provider.body(&asked).contains(r#""num_ctx":8192"#), "nothing is known yet");
    for _ in 0..2 {
        let (shown, result) = ask(&provider, &asked);
        assert!(result.is_ok() && !shown.contains('<'), "{shown}");
        assert!(server.last_body().contains(r#""num_ctx":2048"#), "{}", server.last_body());
        assert_eq!(server.last_body(), provider.body(&asked));
    }
    // Loaded a moment ago: not asked again.
    assert_eq!(server.asides(), ["/api/show", "/api/ps"]);
    // What was not told is asked again, whatever the call came to.
    let busy = Server::always(chunked(NDJSON, &[HELLO]));
    let provider = ollama(&busy);
    assert!(ask(&provider, &asked).1.is_ok() && ask(&provider, &asked).1.is_ok());
    assert_eq!(busy.asides(), ["/api/show", "/api/ps", "/api/show"]);
    let long = showing(r#"{"model_info":{"llama.context_length":131072}}"#, "");
    let provider = ollama(&long);
    assert!(ask(&provider, &asked).1.is_ok());
    assert!(long.last_body().contains(r#""num_ctx":8192"#));
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_with_the_window_before_the_server_cuts_it() {
    let server = showing(SHORT, "");
    let long = request(vec![user(&"word ".repeat(2000))], vec![tool("bash")]);
    let failure = ask(&ollama(&server), &long).1.unwrap_err();
    assert_eq!((failure.kind, failure.context_tokens, failure.worked), (FailureKind::TooLong, Some(2048), false));
    assert!(failure.detail.contains("do not fit into the 2048 of tiny"), "{failure:?}");
    assert!(server.requests().is_empty(), "it was not asked");
    // Control: it goes out where nothing is known; and where the window is as wanted, whoever wanted it has measured.
    assert!(ask(&ollama(&Server::always(chunked(NDJSON, &[HELLO]))), &long).1.is_ok());
    let wanted = crate::provider::Request { context_tokens: 2048, ..long };
    assert!(ask(&ollama(&server), &wanted).1.is_ok());
    // What newer servers say themselves.
    let said = r#"{"error":"prompt too long; exceeded max context length by 812 tokens"}"#;
    let failure = ask(&ollama(&Server::always(answer(400, "", said))), &simple_request()).1.unwrap_err();
    assert_eq!((failure.kind, failure.context_tokens), (FailureKind::TooLong, None));
}

#[test]
fn an_agent_with_tools_is_told_before_the_call_that_the_model_has_none() {
    let mute = r#"{"capabilities":["completion"],"model_info":{}}"#;
    let server = showing(mute, "");
    let failure = ask(&ollama(&server), &simple_request()).1.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(
        failure
            .detail
            .ends_with("tiny does not support tools; choose a model that can call tools, or give the agent none")
    );
    assert!(server.requests().is_empty(), "it was not asked");
    assert!(ask(&ollama(&server), &request(vec![user("hi")], Vec::new())).1.is_ok(), "without tools it answers");
    // Old versions say nothing of abilities.
    assert!(ask(&ollama(&showing(r#"{"model_info":{}}"#, "")), &simple_request()).1.is_ok());
}

#[test]
fn a_model_that_has_to_be_loaded_first_is_told() {
    let cases = [
        ("", true),
        (r#"{"name":"other:latest"}"#, true),
        (r#"{"name":"tinyer"}"#, true),
        (r#"{"name":"tiny"}"#, false),
        (r#"{"name":"other"},{"name":"tiny:latest"}"#, false),
    ];
    for (loaded, told) in cases {
        let server = showing(SHORT, loaded);
        let (shown, result) = ask(&ollama(&server), &simple_request());
        assert!(result.is_ok());
        assert_eq!(shown.starts_with("<loading tiny>|"), told, "{loaded}: {shown}");
    }
    let odd = Server::with_asides(
        vec![("/api/ps", answer(200, "", "<html>"))],
        vec![vec![Act::Send(chunked(NDJSON, &[HELLO]))]],
    );
    // What cannot be learned is not told; "/api/show" gets an answer of another kind here, and is none either.
    let (shown, _) = ask(&ollama(&odd), &simple_request());
    assert!(!shown.contains('<'), "{shown}");
}

#[test]
fn a_model_is_loaded_before_it_is_needed_with_the_same_window() {
    let server = showing(SHORT, "");
    let cancel = duragent_platform::cancel::Cancel::new();
    assert!(ollama(&server).preload("tiny", 8192, &cancel).is_none(), "not configured");
    assert!(server.requests().is_empty());
    let provider = Ollama::new(server.client(Timeouts::LOCAL), "10m", true);
    assert!(provider.preload("tiny", 8192, &cancel).unwrap().is_ok());
    assert!(server.requests()[0].starts_with("POST /api/generate "), "{}", server.requests()[0]);
    assert_eq!(server.last_body(), r#"{"model":"tiny","stream":false,"keep_alive":"10m","options":{"num_ctx":2048}}"#);
    let (shown, _) = ask(&provider, &simple_request());
    assert!(!shown.contains("loading"), "{shown}");
    let missing = Server::always(answer(404, "", r#"{"error":"model 'tiny' not found"}"#));
    let provider = Ollama::new(missing.client(Timeouts::LOCAL), "10m", true);
    assert!(provider.preload("tiny", 8192, &cancel).unwrap().unwrap_err().detail.ends_with("ollama pull tiny"));
}
