mod replayed;

use super::parts::Stream;
use super::{Dialect, OpenAi};
use crate::provider::http::{Client, Timeouts};
use crate::provider::stream::Parts;
use crate::provider::testing::{
    Act, Server, all_cuts, answer, ask, chunk, chunked, chunked_head, client as plain, dead_url, line, request, show,
    simple_request, told, tool, user,
};
use crate::provider::{Delta, Message, Provider};
use duragent_core::event::FailureKind;
use duragent_core::tool::ToolCall;
use std::time::{Duration, Instant};

const SSE: &str = "text/event-stream";

/// As recorded from a llama.cpp server, shortened.
const HELLO: &str = concat!(
    "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Hm, größe?\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"},\"finish_reason\":null}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo 🦀\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":9,\"total_tokens\":35}}\n\n",
    "data: [DONE]\n\n",
);
const HELLO_REPLY: &str = "[Hm, größe?]Hello 🦀 <> 26+9 stop";

fn client() -> Client {
    plain("http://127.0.0.1:1/v1", Timeouts::LOCAL)
}

fn openai(server: &Server) -> OpenAi {
    OpenAi::new(server.client(Timeouts::LOCAL), Dialect::Plain)
}

fn feed(client: &Client, pieces: &[&[u8]]) -> (String, String) {
    let (mut shown, mut stream) = (String::new(), Stream::new(client, Dialect::Plain));
    let mut on_delta = |delta: Delta<'_>| shown.push_str(&show(delta));
    let fed = pieces.iter().try_for_each(|piece| stream.feed(piece, &mut on_delta));
    let result = fed.and_then(|()| stream.into_reply());
    (shown, result.map_or_else(|failure| told(&failure), |reply| line(&reply)))
}

/// The same outcome however the bytes arrive.
fn check(input: &str, want: &str) {
    let client = client();
    for pieces in all_cuts(input.as_bytes()) {
        let found = feed(&client, &pieces).1;
        assert_eq!(found, want, "{} pieces, the first of {} bytes, of {input}", pieces.len(), pieces[0].len());
    }
}

/// Events that carry these tool call pieces, one each, and a normal end.
fn calls(pieces: &[&str]) -> String {
    let mut out = String::new();
    for piece in pieces {
        out.push_str(&format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{piece}]}}}}]}}\n\n"));
    }
    out.push_str("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    out
}

#[test]
fn an_answer_is_the_same_however_its_bytes_arrive() {
    check(HELLO, HELLO_REPLY);
    check(&HELLO.replace('\n', "\r\n"), HELLO_REPLY);
    check(&HELLO.replace('\n', "\r"), HELLO_REPLY);
    check(&format!("\u{feff}{HELLO}"), HELLO_REPLY);
    let client = client();
    for pieces in all_cuts(HELLO.as_bytes()) {
        assert_eq!(feed(&client, &pieces).0, "[Hm, größe?]Hello 🦀");
    }
}

#[test]
fn variants_of_streams() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let stop = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let usage = "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    let cases = [
        (format!("{text}{stop}"), "a <> 0+0 stop"),
        (format!("{text}{stop}{usage}"), "a <> 1+2 stop"),
        (format!("{text}{stop}data: [DONE]\n\n{text}"), "a <> 0+0 stop"),
        (format!(": OPENROUTER PROCESSING\n\n{text}: ping\n\n{stop}"), "a <> 0+0 stop"),
        (format!("data:\n\ndata: {{}}\n\ndata: {{\"choices\":null}}\n\n{text}{stop}"), "a <> 0+0 stop"),
        (format!("{text}data: {{\"choices\":[{{\"finish_reason\":\"length\"}}]}}\n\n"), "a <> 0+0 length"),
        (format!("data: {{\"choices\":[{{\"delta\":{{\"refusal\":\"no\"}}}}]}}\n\n{stop}"), "no <> 0+0 stop"),
        (format!("data: {{\"choices\":[{{\"delta\":{{\"reasoning\":\"r\"}}}}]}}\n\n{stop}"), "[r] <> 0+0 stop"),
        (text.to_string(), "truncated: the stream ended without finish_reason"),
        (format!("{text}data: [DONE]\n\n"), "truncated: the stream ended without finish_reason"),
        (format!("{text}{}", &stop[..stop.len() - 2]), "truncated: the stream ended without finish_reason"),
    ];
    for (input, want) in cases {
        check(&input, want);
    }
    assert_eq!(feed(&client(), &[]).1, "truncated: the stream ended without finish_reason");
}

#[test]
fn calls_are_collected_whatever_the_server_does_with_index_and_id() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "as OpenAI does",
            &[
                r#"{"index":0,"id":"c1","type":"function","function":{"name":"bash","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{\"a\""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
                r#"{"index":1,"id":"c2","function":{"name":"read","arguments":"{}"}}"#,
            ],
            r#"c1bash{"a":1} c2read{}"#,
        ),
        (
            "pieces of two calls mixed",
            &[
                r#"{"index":0,"id":"c1","function":{"name":"bash"}},{"index":1,"id":"c2","function":{"name":"read"}}"#,
                r#"{"index":1,"function":{"arguments":"{\"b\":"}},{"index":0,"function":{"arguments":"{\"a\":"}}"#,
                r#"{"index":0,"function":{"arguments":"1}"}},{"index":1,"function":{"arguments":"2}"}}"#,
            ],
            r#"c1bash{"a":1} c2read{"b":2}"#,
        ),
        (
            "index missing",
            &[
                r#"{"id":"c1","function":{"name":"bash","arguments":"{\"a\":"}}"#,
                r#"{"function":{"arguments":"1}"}}"#,
                r#"{"id":"c2","function":{"name":"read","arguments":"{}"}}"#,
            ],
            r#"c1bash{"a":1} c2read{}"#,
        ),
        (
            "index repeated, a new id is a new call",
            &[
                r#"{"index":0,"id":"c1","function":{"name":"bash","arguments":"{\"a\":1}"}}"#,
                r#"{"index":0,"id":"c2","function":{"name":"bash","arguments":"{\"a\""}}"#,
                r#"{"index":0,"function":{"arguments":":2}"}}"#,
            ],
            r#"c1bash{"a":1} c2bash{"a":2}"#,
        ),
        (
            "id and name in every piece",
            &[
                r#"{"index":0,"id":"c1","function":{"name":"bash","arguments":"{\"a\""}}"#,
                r#"{"index":0,"id":"c1","function":{"name":"bash","arguments":":1}"}}"#,
            ],
            r#"c1bash{"a":1}"#,
        ),
        (
            "neither index nor id, whole calls",
            &[
                r#"{"function":{"name":"bash","arguments":"{\"a\":1}"}}"#,
                r#"{"function":{"name":"bash","arguments":"{\"a\":2}"}}"#,
            ],
            r#"bash{"a":1} bash{"a":2}"#,
        ),
        (
            "all with index 0 and an empty id, whole calls",
            &[
                r#"{"index":0,"id":"","function":{"name":"bash","arguments":"{\"a\":1}"}}"#,
                r#"{"index":0,"id":"","function":{"name":"read","arguments":"{}"}}"#,
            ],
            r#"bash{"a":1} read{}"#,
        ),
        (
            "index only in the first piece, or only later",
            &[
                r#"{"index":3,"id":"c1","function":{"name":"bash","arguments":"{\"a\""}}"#,
                r#"{"function":{"arguments":":"}}"#,
                r#"{"index":0,"function":{"arguments":"1}"}}"#,
            ],
            r#"c1bash{"a":1}"#,
        ),
        ("no arguments", &[r#"{"index":0,"id":"c1","function":{"name":"bash"}}"#], "c1bash{}"),
        ("empty arguments", &[r#"{"index":0,"id":"c1","function":{"name":"bash","arguments":" "}}"#], "c1bash{}"),
        (
            "null everywhere",
            &[
                r#"{"index":0,"id":"c1","function":{"name":"bash","arguments":null}}"#,
                r#"{"index":0,"id":null,"function":{"name":null,"arguments":"{}"}}"#,
                r#"{"index":0,"id":null,"function":null}"#,
            ],
            "c1bash{}",
        ),
        (
            "the name in pieces",
            &[
                r#"{"index":0,"id":"c1","function":{"name":"ba"}}"#,
                r#"{"index":0,"function":{"name":"sh","arguments":"{}"}}"#,
            ],
            "c1bash{}",
        ),
    ];
    for (what, pieces, want) in cases {
        let found = feed(&client(), &[calls(pieces).as_bytes()]).1;
        assert_eq!(found, format!(" <{want}> 0+0 stop"), "{what}");
        check(&calls(pieces), &format!(" <{want}> 0+0 stop"));
    }
}

#[test]
fn calls_that_cannot_be_run_are_the_models_mistake() {
    let one = |arguments: &str| {
        calls(&[&format!(r#"{{"index":0,"id":"c","function":{{"name":"bash","arguments":"{arguments}"}}}}"#)])
    };
    let cases = [
        (one("{\\\"a\\\":1"), "bad_tool_call: call of \"bash\": arguments are not JSON: expected ',' or '}' at byte 6"),
        (one("ls"), "bad_tool_call: call of \"bash\": arguments are not JSON: expected a value at byte 0"),
        (one("[1]"), "bad_tool_call: call of \"bash\": arguments are not a JSON object"),
        (calls(&[r#"{"index":0,"id":"c","function":{"arguments":"{}"}}"#]), "bad_tool_call: call of \"\": no name"),
        (
            one("{\\\"a\\\":1").replace("\"stop\"", "\"length\""),
            "bad_tool_call: call of \"bash\": arguments are not JSON: expected ',' or '}' at byte 6; the answer was cut at its token limit",
        ),
    ];
    for (input, want) in cases {
        check(&input, want);
    }
    let many: Vec<String> =
        (0..65).map(|i| format!(r#"{{"index":{i},"id":"c{i}","function":{{"name":"b"}}}}"#)).collect();
    let pieces: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(feed(&client(), &[calls(&pieces).as_bytes()]).1, "bad_tool_call: more than 64 tool calls in one answer");
    assert!(feed(&client(), &[calls(&pieces[..64]).as_bytes()]).1.contains("c63b{}"));
}

#[test]
fn errors_and_garbage_within_the_stream() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let cases = [
        (
            r#"data: {"error":{"code":502,"message":"upstream died"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#,
            "overloaded: error within the answer: upstream died",
        ),
        (
            r#"data: {"error":{"code":402,"message":"no credits"}}"#,
            "refused: error within the answer: no credits; add credit with the provider",
        ),
        (r#"data: {"error":{"type":"invalid_request_error","message":"m"}}"#, "invalid: error within the answer: m"),
        (r#"data: {"error":"odd"}"#, "overloaded: error within the answer: odd"),
        ("event: error\ndata: {\"message\":\"m\",\"code\":429}", "overloaded: error within the answer: m"),
        (
            r#"data: {"choices":[{"delta":{},"finish_reason":"error"}]}"#,
            "overloaded: the server ended the answer with finish_reason error",
        ),
        ("data: <html>", "protocol: malformed JSON: expected a value at byte 0: \"<html>\""),
        (
            r#"data: {"choices":7}"#,
            "protocol: JSON whose fields are not of the expected types: \"{\\\"choices\\\":7}\"",
        ),
    ];
    for (bad, want) in cases {
        check(&format!("{text}{bad}\n\n"), want);
    }
    assert_eq!(feed(&client(), &[b"data: \xff\n\n"]).1, "protocol: line 1: not UTF-8 at byte 6");
    let long = vec![b'x'; duragent_core::sse::EVENT_MAX + 1];
    assert_eq!(feed(&client(), &[&long]).1, "protocol: line 1: event larger than 1048576 bytes");
}

#[test]
fn what_the_server_had_in_its_cache_is_counted() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":2,\"cost\":0.5,\"prompt_tokens_details\":{\"cached_tokens\":64}}}\n\n";
    let input = format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n{usage}");
    let client = client();
    let mut stream = Stream::new(&client, Dialect::Plain);
    stream.feed(input.as_bytes(), &mut |_| ()).unwrap();
    let usage = stream.into_reply().unwrap().usage;
    assert_eq!(
        (usage.input_tokens, usage.cached_tokens, usage.cost_micros),
        (90, 64, 0),
        "a price is OpenRouter's word"
    );
}

#[test]
fn calls_written_as_text_count_on_servers_that_are_near() {
    let text = concat!(
        "data: {\"choices\":[{\"delta\":{\"content\":\"<tool_call>{\\\"name\\\":\\\"bash\\\"}</tool_call>\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
    );
    let found = |dialect| {
        let server = Server::always(chunked(SSE, &[text]));
        line(&ask(&OpenAi::new(server.client(Timeouts::LOCAL), dialect), &simple_request()).1.unwrap())
    };
    assert_eq!(found(Dialect::Near), " <bash{}> 0+0 stop");
    assert_eq!(found(Dialect::Plain), r#"<tool_call>{"name":"bash"}</tool_call> <> 0+0 stop"#);
}

#[test]
fn the_request_carries_everything_in_openais_words() {
    let server = Server::always(chunked(SSE, &[HELLO]));
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
        vec![tool("bash")],
    );
    asked.temperature = Some(0.5);
    asked.max_output_tokens = Some(99);
    ask(&openai(&server), &asked).1.unwrap();
    let want = concat!(
        r#"{"model":"tiny","messages":[{"role":"system","content":"Be brief."},"#,
        r#"{"role":"user","content":"say \"hi\"\n"},{"role":"assistant","content":"ok","#,
        r#""tool_calls":[{"id":"c1","type":"function","function":{"name":"bash","arguments":"{\"command\":\"ls\"}"}},"#,
        r#"{"id":"c2","type":"function","function":{"name":"read","arguments":"{}"}}]},"#,
        r#"{"role":"tool","tool_call_id":"c1","content":"a\tb"}],"#,
        r#""tools":[{"type":"function","function":{"name":"bash","description":"the \"bash\" tool","#,
        r#""parameters":{"type":"object"}}}],"#,
        r#""stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"max_tokens":99}"#,
    );
    assert_eq!(server.last_body(), want);
    assert!(server.requests()[0].starts_with("POST /chat/completions HTTP/1.1\r\n"), "{}", server.requests()[0]);
    let own = OpenAi::new(plain("https://api.openai.com/v1", Timeouts::REMOTE), Dialect::Plain);
    assert!(own.body(&asked).ends_with(r#""max_completion_tokens":99}"#));
}

#[test]
fn answers_arrive_over_the_wire_in_every_framing() {
    let pieces: Vec<&str> = HELLO.split_inclusive("\n\n").collect();
    let close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{HELLO}").into_bytes();
    let cases =
        [answer(200, "Content-Type: text/event-stream; charset=utf-8\r\n", HELLO), chunked(SSE, &pieces), close];
    for (i, bytes) in cases.into_iter().enumerate() {
        let server = Server::start(vec![vec![Act::Send(bytes), Act::Close]]);
        let (shown, result) = ask(&openai(&server), &simple_request());
        assert_eq!(shown, "[Hm, größe?]|Hel|lo 🦀", "case {i}");
        assert_eq!(line(&result.unwrap()), HELLO_REPLY, "case {i}");
    }
}

#[test]
fn a_cut_counts_only_before_the_answer_is_whole() {
    let stop = HELLO.find("\"stop\"").unwrap() + "\"stop\"}]}\n\n".len();
    let end = |bytes: &str, last: Act| {
        let mut head = chunked_head(SSE);
        head.extend(chunk(bytes));
        let server = Server::start(vec![vec![Act::Send(head), last]]);
        ask(&openai(&server), &simple_request()).1.map_or_else(|failure| told(&failure), |reply| line(&reply))
    };
    let without_usage = "[Hm, größe?]Hello 🦀 <> 0+0 stop";
    assert_eq!(end(&HELLO[..stop - 40], Act::Close), "truncated: the server closed the connection within its answer");
    assert_eq!(end(&HELLO[..stop], Act::Close), without_usage);
    let start = Instant::now();
    assert_eq!(end(&HELLO[..stop], Act::Hang), without_usage, "usage never comes");
    assert_eq!(end(HELLO, Act::Hang), HELLO_REPLY, "the last chunk never comes");
    assert!(start.elapsed() < Duration::from_secs(60), "not the idle timeout");
}

#[test]
fn faults_on_the_wire_have_their_kinds() {
    let json = "Content-Type: application/json\r\n";
    let whole = r#"{"choices":[{"message":{"content":"hi"}}]}"#;
    let cases: Vec<(Vec<u8>, FailureKind, &str, Option<u64>)> = vec![
        (
            answer(429, "Retry-After: 3\r\n", r#"{"error":{"message":"slow down"}}"#),
            FailureKind::Overloaded,
            "answered 429: slow down",
            Some(3000),
        ),
        (answer(401, "", r#"{"error":{"message":"bad key"}}"#), FailureKind::Refused, "answered 401: bad key", None),
        (answer(402, "", ""), FailureKind::Refused, "answered 402", None),
        (answer(403, "", ""), FailureKind::Refused, "answered 403", None),
        (
            answer(404, "", r#"{"error":{"message":"no model","code":"model_not_found"}}"#),
            FailureKind::Invalid,
            "no model",
            None,
        ),
        (answer(500, "", "oops"), FailureKind::Overloaded, "answered 500: oops", None),
        (
            answer(200, json, r#"{"error":{"message":"pay","code":402}}"#),
            FailureKind::Refused,
            "within the answer: pay",
            None,
        ),
        (answer(200, json, whole), FailureKind::Protocol, "expected text/event-stream, found application/json", None),
        (answer(200, "", "<html>"), FailureKind::Truncated, "without finish_reason", None),
    ];
    for (bytes, kind, what, retry_after_ms) in cases {
        let worked = bytes.starts_with(b"HTTP/1.1 200");
        let server = Server::always(bytes);
        let failure = ask(&openai(&server), &simple_request()).1.unwrap_err();
        assert_eq!((failure.kind, failure.retry_after_ms), (kind, retry_after_ms), "{what}: {failure:?}");
        assert_eq!(failure.worked, worked, "{what}");
        assert!(failure.detail.contains(what), "{what}: {failure:?}");
    }
    let nobody = OpenAi::new(plain(&dead_url(), Timeouts::LOCAL), Dialect::Plain);
    assert_eq!(ask(&nobody, &simple_request()).1.unwrap_err().kind, FailureKind::Connect);
}

#[test]
fn a_probe_looks_for_the_model() {
    let list = r#"{"object":"list","data":[{"id":"tiny","object":"model","x":{"y":[1]}},{"id":"huge"}]}"#;
    let cases = [
        (answer(200, "", list), "tiny", Ok("answers and offers tiny")),
        (
            answer(200, "", list),
            "giant",
            Err((FailureKind::Invalid, "model \"giant\" is not among the 2 offered: tiny, huge")),
        ),
        (answer(404, "", ""), "tiny", Ok("does not list its models")),
        (answer(401, "", ""), "tiny", Err((FailureKind::Refused, "answered 401"))),
        (answer(200, "", "<html>"), "tiny", Err((FailureKind::Protocol, "is base_url right, with /v1 at its end?"))),
    ];
    for (bytes, model, want) in cases {
        let server = Server::always(bytes);
        match (openai(&server).probe(model), want) {
            (Ok(found), Ok(what)) => assert!(found.text.contains(what), "{found:?}"),
            (Err(failure), Err((kind, what))) => {
                assert!(failure.kind == kind && failure.detail.contains(what), "{failure:?}");
            }
            (found, want) => panic!("expected {want:?}, found {found:?}"),
        }
        assert!(server.requests()[0].starts_with("GET /models HTTP/1.1\r\n"));
    }
}
