use super::{Anthropic, Stream};
use crate::provider::config::{ProviderConfig, build};
use crate::provider::http::{Client, Settings, Timeouts};
use crate::provider::stream::Parts;
use crate::provider::testing::{
    Act, Server, all_cuts, answer, ask, chunk, chunked, chunked_head, client as plain, line, request, show,
    simple_request, told, tool, user,
};
use crate::provider::{Delta, Message, Provider, Reply, Request};
use duragent_core::event::FailureKind;
use duragent_core::message::Blocks;
use duragent_core::provider::{ProviderKind, Thinking};
use duragent_core::secret::Secret;
use duragent_core::tool::ToolCall;

const SSE: &str = "text/event-stream";

/// As in the documentation of the API, shortened: thinking, text, two calls of which one has its input in pieces.
const HELLO: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":20,\"cache_creation_input_tokens\":5,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Hm, \"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"größe?\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"c2ln\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"redacted_thinking\",\"data\":\"b3BhcXVl\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo 🦀\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":3,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"bash\",\"input\":{}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"z\\\":18446744073709551616,\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\\"command\\\":\\\"ls\\\"}\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":3}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":4,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"read\",\"input\":{}}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":4}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":89}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);
const HELLO_REPLY: &str =
    r#"[Hm, größe?]Hello 🦀 <toolu_1bash{"z":18446744073709551616,"command":"ls"} toolu_2read{}> 125+89 tool_use"#;
const HELLO_BLOCKS: &str = r#"[{"type":"thinking","thinking":"Hm, größe?","signature":"c2ln"},{"type":"redacted_thinking","data":"b3BhcXVl"}]"#;

fn anthropic(server: &Server) -> Anthropic {
    Anthropic::new(server.client(Timeouts::LOCAL), Thinking::Unset)
}

fn feed(client: &Client, pieces: &[&[u8]]) -> (String, Result<Reply, String>) {
    let (mut shown, mut stream) = (String::new(), Stream::new(client));
    let mut on_delta = |delta: Delta<'_>| shown.push_str(&show(delta));
    let fed = pieces.iter().try_for_each(|piece| stream.feed(piece, &mut on_delta));
    let result = fed.and_then(|()| stream.into_reply());
    (shown, result.map_err(|failure| told(&failure)))
}

/// The same outcome however the bytes arrive.
fn check(input: &str, want: &str) {
    let client = plain("http://127.0.0.1:1", Timeouts::LOCAL);
    for pieces in all_cuts(input.as_bytes()) {
        let found = feed(&client, &pieces).1.map_or_else(|told| told, |reply| line(&reply));
        assert_eq!(found, want, "{} pieces, the first of {} bytes, of {input}", pieces.len(), pieces[0].len());
    }
}

fn event(data: &str) -> String {
    let kind = data.split('"').nth(3).unwrap();
    format!("event: {kind}\ndata: {data}\n\n")
}

fn start(block: &str) -> String {
    event(&format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#))
}

fn stop(reason: &str) -> String {
    let end = event(&format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#));
    end + &event(r#"{"type":"message_stop"}"#)
}

#[test]
fn an_answer_is_the_same_however_its_bytes_arrive() {
    check(HELLO, HELLO_REPLY);
    check(&HELLO.replace('\n', "\r\n"), HELLO_REPLY);
    let client = plain("http://127.0.0.1:1", Timeouts::LOCAL);
    for pieces in all_cuts(HELLO.as_bytes()) {
        let (shown, reply) = feed(&client, &pieces);
        let reply = reply.unwrap();
        assert_eq!((shown.as_str(), reply.blocks.as_deref()), ("[Hm, ][größe?]Hello 🦀", Some(HELLO_BLOCKS)));
        assert_eq!(reply.usage.cached_tokens, 100);
    }
}

#[test]
fn variants_of_streams() {
    let text = start(r#"{"type":"text","text":"a"}"#);
    let cases = [
        (format!("{text}{}", stop("end_turn")), "a <> 0+0 end_turn"),
        (format!("{text}{}{text}", stop("end_turn")), "a <> 0+0 end_turn"),
        (format!("{text}{}", stop("pause_turn")), "a <> 0+0 pause_turn"),
        (format!("{text}{}", stop("max_tokens")), "a <> 0+0 max_tokens"),
        (
            format!("{text}{}", stop("refusal")),
            "invalid: the model declined to answer (stop_reason refusal); say it in other words",
        ),
        // A cut after the reason loses nothing that counts.
        (format!("{text}{}", stop("end_turn").split_once("event: message_stop").unwrap().0), "a <> 0+0 end_turn"),
        (text.clone(), "truncated: the stream ended without stop_reason"),
        (format!("{text}{}", event(r#"{"type":"message_stop"}"#)), "truncated: the stream ended without stop_reason"),
        (String::from(": x\n\n"), "truncated: the stream ended without stop_reason"),
        // Events, blocks and deltas yet unknown.
        (
            format!("{}{text}{}", event(r#"{"type":"weather","sun":[1,{"a":null}]}"#), stop("end_turn")),
            "a <> 0+0 end_turn",
        ),
        (
            format!("{}{}", start(r#"{"type":"server_tool_use","id":"x","name":"y","input":{}}"#), stop("end_turn")),
            " <> 0+0 end_turn",
        ),
        (
            format!(
                "{text}{}{}",
                event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{}}}"#),
                stop("end_turn")
            ),
            "a <> 0+0 end_turn",
        ),
        (
            format!(
                "{}{}",
                event(r#"{"type":"content_block_delta","index":7,"delta":{"type":"text_delta","text":"x"}}"#),
                stop("end_turn")
            ),
            " <> 0+0 end_turn",
        ),
        // The type stands in the data too; either is enough.
        (
            format!(
                "data: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{{\"type\":\"text\",\"text\":\"b\"}}}}\n\n{}",
                stop("end_turn")
            ),
            "b <> 0+0 end_turn",
        ),
        (format!("event: ping\ndata: {{}}\n\n{text}{}", stop("end_turn")), "a <> 0+0 end_turn"),
        // The last word on usage counts.
        (
            format!(
                "{text}{}",
                event(
                    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":7,"output_tokens":9}}"#
                )
            ),
            "a <> 7+9 end_turn",
        ),
    ];
    for (input, want) in cases {
        check(&input, want);
    }
}

#[test]
fn input_of_calls_comes_in_pieces_or_whole_or_not_at_all() {
    let piece = |json: &str| {
        event(&format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":"{json}"}}}}"#
        ))
    };
    let call = |input: &str| start(&format!(r#"{{"type":"tool_use","id":"t1","name":"bash"{input}}}"#));
    let end = stop("tool_use");
    let cases = [
        (format!("{}{end}", call("")), " <t1bash{}> 0+0 tool_use"),
        (format!("{}{end}", call(r#","input":null"#)), " <t1bash{}> 0+0 tool_use"),
        (format!("{}{end}", call(r#","input":{}"#)), " <t1bash{}> 0+0 tool_use"),
        (format!("{}{end}", call(r#","input":{"a":1.0}"#)), r#" <t1bash{"a":1.0}> 0+0 tool_use"#),
        (format!("{}{}{end}", call(r#","input":{}"#), piece("{\\\"a\\\":2}")), r#" <t1bash{"a":2}> 0+0 tool_use"#),
        (format!("{}{}{end}", call(""), piece("")), " <t1bash{}> 0+0 tool_use"),
        (
            format!("{}{}{end}", call(""), piece("{\\\"a\\\":")),
            "bad_tool_call: call of \"bash\": arguments are not JSON: unexpected end at byte 5",
        ),
        (
            format!("{}{}{}", call(""), piece("{\\\"a\\\":"), stop("max_tokens")),
            "bad_tool_call: call of \"bash\": arguments are not JSON: unexpected end at byte 5; the answer was cut at its token limit",
        ),
        (
            format!("{}{end}", call(r#","input":[1]"#)),
            "bad_tool_call: call of \"bash\": arguments are not a JSON object",
        ),
        (format!("{}{end}", start(r#"{"type":"tool_use","id":"t1"}"#)), "bad_tool_call: call of \"\": no name"),
        (format!("{}{end}", call("").repeat(65)), "bad_tool_call: more than 64 tool calls in one answer"),
    ];
    for (input, want) in cases {
        if input.len() < 4000 {
            check(&input, want);
        }
        let found = feed(&plain("http://127.0.0.1:1", Timeouts::LOCAL), &[input.as_bytes()]).1;
        assert_eq!(found.map_or_else(|told| told, |reply| line(&reply)), want);
    }
}

#[test]
fn errors_and_garbage_within_the_stream() {
    let text = start(r#"{"type":"text","text":"a"}"#);
    let error = |kind: &str| event(&format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}}}}"#));
    let cases = [
        (error("overloaded_error"), "overloaded: error within the answer: m"),
        (error("api_error"), "overloaded: error within the answer: m"),
        (error("rate_limit_error"), "overloaded: error within the answer: m"),
        (error("invalid_request_error"), "invalid: error within the answer: m"),
        (error("something_new"), "overloaded: error within the answer: m"),
        ("data: <html>\n\n".into(), "protocol: malformed JSON: expected a value at byte 0: \"<html>\""),
        (
            "data: {\"type\":7}\n\n".into(),
            "protocol: JSON whose fields are not of the expected types: \"{\\\"type\\\":7}\"",
        ),
    ];
    for (bad, want) in cases {
        check(&format!("{text}{bad}"), want);
    }
}

fn assistant(text: &str, json: Option<&str>, calls: &[&str]) -> Message {
    let blocks = json.map(|json| Blocks { provider: "anthropic".into(), model: "tiny".into(), json: json.into() });
    let call = |id: &&str| ToolCall { call_id: (*id).into(), name: "bash".into(), arguments: r#"{"a":1}"#.into() };
    Message::Assistant { content: text.into(), thinking: None, blocks, tool_calls: calls.iter().map(call).collect() }
}

fn result(id: &str, text: &str) -> Message {
    Message::Tool { call_id: id.into(), name: "bash".into(), content: text.into() }
}

fn body(request: &Request, thinking: Thinking) -> String {
    Anthropic::new(plain("http://127.0.0.1:1", Timeouts::LOCAL), thinking).body(request)
}

/// The messages of a request, without the breakpoints.
fn messages(messages: Vec<Message>) -> String {
    let body = body(&request(messages, Vec::new()), Thinking::Unset).replace(MARK, "");
    body.split_once("\"messages\":").unwrap().1.strip_suffix('}').unwrap().replace('"', "'")
}

const MARK: &str = r#","cache_control":{"type":"ephemeral"}"#;

#[test]
fn the_request_carries_everything_in_anthropics_words() {
    let asked = Request {
        temperature: Some(0.5),
        ..request(
            vec![
                user("say \"hi\"\n"),
                assistant("ok ", Some(HELLO_BLOCKS), &["c1", "c2"]),
                result("c1", "a\tb"),
                result("c2", " "),
                user("and?"),
            ],
            vec![tool("bash"), tool("read")],
        )
    };
    let want = concat!(
        r#"{"model":"tiny","max_tokens":2048,"stream":true,"temperature":0.5,"#,
        r#""tools":[{"name":"bash","description":"the \"bash\" tool","input_schema":{"type":"object"}},"#,
        r#"{"name":"read","description":"the \"read\" tool","input_schema":{"type":"object"}}],"#,
        r#""system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"#,
        r#""messages":[{"role":"user","content":[{"type":"text","text":"say \"hi\"\n","cache_control":{"type":"ephemeral"}}]},"#,
        r#"{"role":"assistant","content":[{"type":"thinking","thinking":"Hm, größe?","signature":"c2ln"},"#,
        r#"{"type":"redacted_thinking","data":"b3BhcXVl"},{"type":"text","text":"ok"},"#,
        r#"{"type":"tool_use","id":"c1","name":"bash","input":{"a":1}},{"type":"tool_use","id":"c2","name":"bash","input":{"a":1}}]},"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"a\tb"},"#,
        r#"{"type":"tool_result","tool_use_id":"c2"},{"type":"text","text":"and?","cache_control":{"type":"ephemeral"}}]}]}"#,
    );
    assert_eq!(body(&asked, Thinking::Unset), want);
    let other = Request { model: "other".into(), ..asked };
    assert!(!body(&other, Thinking::Unset).contains("c2ln"), "signatures are of one model");
}

#[test]
fn roles_take_turns_and_nothing_is_empty() {
    let cases = [
        (
            vec![user("a"), user("b")],
            "[{'role':'user','content':[{'type':'text','text':'a'},{'type':'text','text':'b'}]}]",
        ),
        (vec![user(" "), user("b"), user("\n")], "[{'role':'user','content':[{'type':'text','text':'b'}]}]"),
        (
            vec![user("a"), assistant("", Some(HELLO_BLOCKS), &[]), user("b")],
            "[{'role':'user','content':[{'type':'text','text':'a'},{'type':'text','text':'b'}]}]",
        ),
        (
            vec![user("a"), assistant(" \n", None, &["c"]), user("late"), result("c", "r")],
            "[{'role':'user','content':[{'type':'text','text':'a'}]},\
             {'role':'assistant','content':[{'type':'tool_use','id':'c','name':'bash','input':{'a':1}}]},\
             {'role':'user','content':[{'type':'tool_result','tool_use_id':'c','content':'r'},{'type':'text','text':'late'}]}]",
        ),
        (
            vec![assistant("x", None, &[]), user("b")],
            "[{'role':'user','content':'Go on.'},{'role':'assistant','content':[{'type':'text','text':'x'}]},\
             {'role':'user','content':[{'type':'text','text':'b'}]}]",
        ),
        (vec![], "[]"),
    ];
    for (said, want) in cases {
        assert_eq!(messages(said), want);
    }
}

#[test]
fn breakpoints_stand_where_the_next_request_finds_them() {
    let mut said = vec![user("q")];
    let marks = |said: &[Message], tools| {
        let body = body(&request(said.to_vec(), tools), Thinking::Unset);
        let places: Vec<&str> = body.split(MARK).map(|part| &part[part.len().saturating_sub(8)..]).collect();
        places[..places.len() - 1].join("|")
    };
    assert_eq!(marks(&said, vec![tool("bash")]), r#" brief."|ext":"q""#);
    for step in 1..5 {
        let id = format!("c{step}");
        said.extend([assistant("", None, &[&id]), result(&id, &format!("r{step}"))]);
        let before = if step == 1 { "ext\":\"q\"".into() } else { format!("nt\":\"r{}\"", step - 1) };
        assert_eq!(marks(&said, vec![tool("bash")]), format!(" brief.\"|{before}|nt\":\"r{step}\""));
    }
    said.push(assistant("done", None, &[]));
    assert_eq!(marks(&said, Vec::new()), r#" brief."|nt":"r3"|nt":"r4""#, "the model may have the last word");
    let bare = Request { system: String::new(), ..request(vec![user("q")], vec![tool("bash"), tool("read")]) };
    assert!(body(&bare, Thinking::Unset).contains(r#""input_schema":{"type":"object"},"cache_control":"#));
    assert_eq!(body(&bare, Thinking::Unset).matches("cache_control").count(), 2);
    // The prefix is the same to the byte, but for the breakpoints.
    let short = body(&request(said[..3].to_vec(), vec![tool("bash")]), Thinking::Unset).replace(MARK, "");
    let long = body(&request(said, vec![tool("bash")]), Thinking::Unset).replace(MARK, "");
    assert!(long.starts_with(short.strip_suffix("]}").unwrap()), "{short}\n{long}");
}

#[test]
fn thinking_is_asked_for_only_if_configured_and_then_without_temperature() {
    let asked = |max_output_tokens, context_tokens, messages: Vec<Message>| Request {
        temperature: Some(0.5),
        max_output_tokens,
        context_tokens,
        ..request(messages, vec![tool("bash")])
    };
    let begin = |request: &Request, thinking| {
        let body = body(request, thinking);
        let (begin, _) = body.split_once(",\"tools\"").unwrap();
        begin.strip_prefix(r#"{"model":"tiny","#).unwrap().replace("\"stream\":true,", "").replace('"', "")
    };
    let hello = || vec![user("a")];
    let tokens = Thinking::Tokens;
    let cases = [
        (asked(None, 200_000, hello()), Thinking::Unset, "max_tokens:4096,temperature:0.5"),
        (asked(None, 8192, hello()), Thinking::Unset, "max_tokens:2048,temperature:0.5"),
        (asked(Some(99), 8192, hello()), Thinking::Unset, "max_tokens:99,temperature:0.5"),
        (
            asked(None, 200_000, hello()),
            Thinking::Adaptive,
            "max_tokens:16384,thinking:{type:adaptive,display:summarized}",
        ),
        (asked(None, 200_000, hello()), tokens(8000), "max_tokens:12096,thinking:{type:enabled,budget_tokens:8000}"),
        (asked(None, 16_384, hello()), tokens(8000), "max_tokens:8192,thinking:{type:enabled,budget_tokens:7168}"),
        (
            asked(Some(4096), 200_000, hello()),
            tokens(8000),
            "max_tokens:4096,thinking:{type:enabled,budget_tokens:3072}",
        ),
        (asked(Some(2000), 200_000, hello()), tokens(8000), "max_tokens:2000,temperature:0.5"),
        // In the middle of a turn that was begun without thinking, as by another model of the chain.
        (
            asked(None, 200_000, vec![user("a"), assistant("", None, &["c"]), result("c", "r")]),
            tokens(2000),
            "max_tokens:6096,temperature:0.5",
        ),
        (
            asked(None, 200_000, vec![user("a"), assistant("", Some(HELLO_BLOCKS), &["c"]), result("c", "r")]),
            tokens(2000),
            "max_tokens:6096,thinking:{type:enabled,budget_tokens:2000}",
        ),
        (
            asked(None, 200_000, vec![user("a"), assistant("x", None, &[]), user("b")]),
            tokens(2000),
            "max_tokens:6096,thinking:{type:enabled,budget_tokens:2000}",
        ),
    ];
    for (request, thinking, want) in cases {
        assert_eq!(begin(&request, thinking), want, "{thinking:?} {:?}", request.max_output_tokens);
    }
}

#[test]
fn faults_on_the_wire_have_their_kinds() {
    let error = |status: u16, kind: &str, message: &str| {
        let body = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"r"}}"#);
        answer(status, if status == 429 { "Retry-After: 7\r\n" } else { "" }, &body)
    };
    let mut cut = chunked_head(SSE);
    cut.extend(chunk(&HELLO[..900]));
    let cases: Vec<(Vec<u8>, FailureKind, &str, bool)> = vec![
        (error(529, "overloaded_error", "Overloaded"), FailureKind::Overloaded, "answered 529: Overloaded", false),
        (error(429, "rate_limit_error", "slow"), FailureKind::Overloaded, "answered 429: slow", false),
        (error(500, "api_error", "oops"), FailureKind::Overloaded, "answered 500: oops", false),
        (error(401, "authentication_error", "bad"), FailureKind::Refused, "; no API key is configured", false),
        (error(403, "permission_error", "no"), FailureKind::Refused, "answered 403: no", false),
        (error(402, "billing_error", "pay"), FailureKind::Refused, "; add credit with the provider", false),
        (
            error(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            FailureKind::Refused,
            "add credit",
            false,
        ),
        (error(404, "not_found_error", "model: x"), FailureKind::Invalid, "answered 404: model: x", false),
        (error(413, "request_too_large", "big"), FailureKind::TooLong, "answered 413: big", false),
        (
            error(400, "invalid_request_error", "\\\"thinking.type.enabled\\\" is not supported for this model"),
            FailureKind::Invalid,
            "; thinking_tokens is a number for older models, adaptive for newer ones",
            false,
        ),
        (
            error(400, "invalid_request_error", "temperature is not supported"),
            FailureKind::Invalid,
            "; leave temperature out for this model",
            false,
        ),
        (chunked(SSE, &[&HELLO[..900]]), FailureKind::Truncated, "without stop_reason", true),
        (cut, FailureKind::Truncated, "within its answer", true),
        (
            chunked(SSE, &[&event(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#)]),
            FailureKind::Overloaded,
            "error within the answer: Overloaded",
            true,
        ),
        (chunked(SSE, &[&stop("refusal")]), FailureKind::Invalid, "declined", true),
    ];
    for (bytes, kind, what, worked) in cases {
        let server = Server::start(vec![vec![Act::Send(bytes), Act::Close]]);
        let failure = ask(&anthropic(&server), &simple_request()).1.unwrap_err();
        assert_eq!((failure.kind, failure.worked), (kind, worked), "{what}: {failure:?}");
        assert!(failure.detail.contains(what), "{what}: {failure:?}");
        assert_eq!(failure.retry_after_ms, what.contains("429").then_some(7000), "{what}");
    }
    let long = error(400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum");
    let failure = ask(&anthropic(&Server::always(long)), &simple_request()).1.unwrap_err();
    assert_eq!((failure.kind, failure.context_tokens), (FailureKind::TooLong, Some(200_000)));
}

#[test]
fn blocks_that_are_refused_are_left_out_once() {
    let bad = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#;
    let scripts = || vec![vec![Act::Send(answer(400, "", bad))], vec![Act::Send(chunked(SSE, &[HELLO]))]];
    let server = Server::start(scripts());
    let asked = request(vec![user("a"), assistant("x", Some(HELLO_BLOCKS), &[]), user("b")], Vec::new());
    assert_eq!(line(&ask(&anthropic(&server), &asked).1.unwrap()), HELLO_REPLY);
    let requests = server.requests();
    assert!(requests[0].contains("c2ln") && !requests[1].contains("c2ln"), "{requests:?}");
    // Control: without blocks there is nothing to leave out.
    let server = Server::start(scripts());
    let failure = ask(&anthropic(&server), &simple_request()).1.unwrap_err();
    assert_eq!((failure.kind, server.requests().len()), (FailureKind::Invalid, 1));
}

#[test]
fn the_key_goes_into_its_own_header_and_the_url_may_end_in_v1() {
    for end in ["", "/", "/v1", "/v1/"] {
        let server = Server::always(chunked(SSE, &[HELLO]));
        let mut config = ProviderConfig::new(ProviderKind::Anthropic, Some(format!("{}{end}", server.url)));
        config.http = Settings { api_key: Some(Secret::new("sk-ant-1".into())), ..config.http };
        let provider = build(&config).unwrap();
        let (shown, result) = ask(provider.as_ref(), &simple_request());
        assert_eq!((shown.as_str(), line(&result.unwrap()).as_str()), ("[Hm, ]|[größe?]|Hel|lo 🦀", HELLO_REPLY));
        let request = server.requests()[0].to_lowercase();
        assert!(request.starts_with("post /v1/messages http/1.1\r\n"), "{request}");
        for header in ["x-api-key: sk-ant-1", "anthropic-version: 2023-06-01"] {
            assert!(request.contains(&format!("\r\n{header}\r\n")), "{header}: {request}");
        }
        assert!(!request.contains("authorization"), "{request}");
    }
}

#[test]
fn a_probe_asks_for_the_model() {
    let found = answer(200, "", r#"{"type":"model","id":"tiny","max_input_tokens":200000}"#);
    let list = answer(200, "", r#"{"data":[{"type":"model","id":"huge"}],"has_more":false}"#);
    let server = Server::always(found);
    let probe = anthropic(&server).probe("tiny").unwrap();
    assert!(probe.text.ends_with("answers and offers tiny") && probe.context_tokens == Some(200_000), "{probe:?}");
    assert!(server.requests()[0].starts_with("GET /v1/models/tiny HTTP/1.1\r\n"));
    let server = Server::start(vec![vec![Act::Send(answer(404, "", "{}"))], vec![Act::Send(list)]]);
    let failure = anthropic(&server).probe("tiny").unwrap_err();
    assert_eq!(told(&failure), "invalid: model \"tiny\" is not among the 1 offered: huge");
    assert!(anthropic(&Server::always(answer(401, "", ""))).reach().is_ok(), "it answers");
    assert!(anthropic(&Server::always(answer(503, "", ""))).reach().is_err());
}
