use super::{Answer, Answered, Cut, End, Fake, Fault, Json, Split, ask};
use std::time::Duration;

const ANTHROPIC: &str = "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
const TOOL: &str = r#"{"type":"function","function":{"name":"bash","parameters":{"type":"object"}}}"#;

fn post(fake: &Fake, headers: &str, body: &str) -> Answered {
    ask("POST", &fake.endpoint(), headers, body).expect("an answer")
}

/// An API, and headers and body of a request that it takes.
type Case = (fn() -> Fake, &'static str, &'static str);

/// Every API.
fn all() -> [Case; 4] {
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}"#;
    let messages = r#"{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let ollama = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    [
        (Fake::openai, "", chat),
        (Fake::openrouter, "", chat),
        (Fake::anthropic, ANTHROPIC, messages),
        (Fake::ollama, "", ollama),
    ]
}

/// Checks that `body` is refused with a message that has `expected` in it.
fn refused(api: fn() -> Fake, headers: &str, body: &str, expected: &str) {
    let fake = api().may_refuse();
    let answered = post(&fake, headers, body);
    assert!((400..500).contains(&answered.status), "{} for {body}", answered.status);
    assert!(answered.body.contains(expected), "expected {expected:?}, found {} for {body}", answered.body);
    assert_eq!(fake.refused().len(), 1);
}

#[test]
fn anthropic_refuses_what_it_refuses() {
    let messages = |messages: &str| format!(r#"{{"model":"m","max_tokens":10,"stream":true,"messages":[{messages}]}}"#);
    let user = r#"{"role":"user","content":"hi"}"#;
    let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"bash","input":{}}]}"#;
    let result = |id: &str| {
        format!(r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}","content":"x"}}]}}"#)
    };
    let think = |rest: &str| {
        format!(r#"{user},{{"role":"assistant","content":[{{"type":"thinking","thinking":"hm"{rest}}}]}},{user}"#)
    };
    let cached = r#"{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}"#;
    for (body, expected) in [
        ("{".to_owned(), "not JSON"),
        (r#"{"model":"m","stream":true,"messages":[]}"#.into(), "max_tokens: Field required"),
        (messages(""), "at least one message"),
        (messages(&format!("{user},{user}")), "roles must alternate"),
        (messages(&call.replace("tool_use", "text")), "first message must use"),
        (messages(r#"{"role":"user","content":""}"#), "non-empty content"),
        (messages(r#"{"role":"user","content":[{"type":"text","text":""}]}"#), "text content blocks must be non-empty"),
        (messages(r#"{"role":"system","content":"x"}"#), "Unexpected role"),
        (messages(&format!("{user},{call}")), "`tool_use` ids were found without `tool_result`"),
        (messages(&format!("{user},{call},{user}")), "`tool_use` ids were found without `tool_result`"),
        (messages(&format!("{user},{call},{}", result("t2"))), "`tool_use` ids were found without `tool_result`"),
        (messages(&result("t1")), "unexpected `tool_use_id`"),
        (
            messages(&format!("{user},{call},{}", result("t1").replace("[{", r#"[{"type":"text","text":"first"},{"#))),
            "`tool_use` ids were found without `tool_result`",
        ),
        (messages(&format!("{user},{},{}", call.replace("{}", "\"{}\""), result("t1"))), "valid dictionary"),
        (messages(&format!("{user},{},{}", call.replace("t1", "a b"), result("a b"))), "should match pattern"),
        (messages(&think("")), "signature: Field required"),
        (messages(&think(r#","signature":"EqQB/x""#)), "Invalid `signature`"),
        (messages(&think(&format!(r#","signature":"{}+""#, super::api::sign("hm")))), "cannot be modified"),
        (messages(&think(&format!(r#","signature":"{}|""#, super::api::sign("hm")))), "cannot be modified"),
        (
            messages(&format!(r#"{{"role":"user","content":[{cached},{cached},{cached},{cached},{cached}]}}"#)),
            "maximum of 4 blocks",
        ),
        (messages(user).replace("\"stream\"", "\"stream_options\":{},\"stream\""), "stream_options: Extra inputs"),
        (
            messages(user).replace("\"stream\"", r#""temperature":0.5,"thinking":{"type":"adaptive"},"stream""#),
            "`temperature` may only be set to 1",
        ),
        (
            messages(user).replace("\"stream\"", r#""thinking":{"type":"enabled","budget_tokens":2000},"stream""#),
            "`max_tokens` must be greater",
        ),
        (
            messages(&format!("{user},{call},{}", result("t1"))).replace(
                "\"max_tokens\":10",
                r#""max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":1024}"#,
            ),
            "must start with a thinking block",
        ),
        (messages(user).replace("\"stream\"", r#""tools":[{"name":"a b"}],"stream""#), "tools.0.custom.name"),
        (
            messages(user).replace("\"stream\"", r#""tools":[{"name":"a","input_schema":{}}],"stream""#),
            "input_schema.type",
        ),
    ] {
        refused(Fake::anthropic, ANTHROPIC, &body, expected);
        refused(
            Fake::anthropic,
            ANTHROPIC,
            &body,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"#,
        );
    }
    let body = messages(user);
    refused(Fake::anthropic, "anthropic-version: 2023-06-01\r\n", &body, "x-api-key header is required");
    refused(Fake::anthropic, "x-api-key: k\r\n", &body, "anthropic-version: header is required");
    let new = ANTHROPIC.replace("2023-06-01", "2026-10-21");
    let warm = body.replace("\"stream\"", r#""temperature":1,"stream""#);
    refused(Fake::anthropic, &new, &warm, "temperature: Extra inputs");
    assert_eq!(post(&Fake::anthropic().text("hi"), ANTHROPIC, &warm).status, 200);
}

#[test]
fn openai_refuses_what_it_refuses() {
    let messages = |messages: &str| format!(r#"{{"model":"m","stream":true,"messages":[{messages}]}}"#);
    let user = r#"{"role":"user","content":"hi"}"#;
    let call = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"bash","arguments":"{}"}}]}"#;
    let result = r#"{"role":"tool","tool_call_id":"c1","content":"x"}"#;
    let cases = [
        (messages(""), "empty array"),
        (messages(result), "must be a response to a preceeding message"),
        (messages(&format!("{user},{call}")), "did not have response messages: c1"),
        (messages(&format!("{user},{call},{user}")), "did not have response messages: c1"),
        (messages(&format!("{call},{result},{result}")), "must be a response to a preceeding message"),
        (messages(&format!("{},{result}", call.replace("\"{}\"", "{}"))), "expected a string, but got an object"),
        (messages(&format!("{},{result}", call.replace("c1", &"c".repeat(41)))), "string too long"),
        (messages(r#"{"role":"user","content":null}"#), "expected a string, got null"),
        (messages(r#"{"role":"assistant","content":"x","tool_calls":[]}"#), "empty array"),
        (messages(r#"{"role":"robot","content":"x"}"#), "Invalid value: 'robot'"),
        (messages(user).replace("true", "false"), "only streams"),
        (messages(user).replace("\"m\"", "\"\""), "you must provide a model"),
        (messages(user).replace("\"stream\"", r#""tools":[],"stream""#), "empty array"),
        (
            messages(user).replace("\"stream\"", &format!(r#""tools":[{}],"stream""#, TOOL.replace("bash", "a.b"))),
            "does not match pattern",
        ),
    ];
    for (body, expected) in cases {
        refused(Fake::openai, "", &body, expected);
        refused(Fake::openai, "", &body, r#""type":"invalid_request_error","param":"#);
        refused(Fake::openrouter, "", &body, expected);
        refused(Fake::openrouter, "", &body, r#","code":400}"#);
    }
    refused(
        Fake::openai,
        "",
        &messages(user).replace("\"stream\"", r#""options":{},"stream""#),
        "Unrecognized request argument",
    );
    let details = r#"{"role":"assistant","content":"x","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"no"}]}"#;
    refused(Fake::openrouter, "", &messages(details), "Invalid `signature`");
}

#[test]
fn ollama_refuses_what_it_refuses() {
    let call = r#"{"model":"m","messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"bash","arguments":ARGS}}]}]}"#;
    for (body, expected) in [
        (r#"{"messages":[]}"#.to_owned(), "model is required"),
        (call.replace("ARGS", "\"{}\""), "cannot unmarshal string into Go struct field"),
        (call.replace("ARGS", "[]"), "cannot unmarshal array into Go struct field"),
        (r#"{"model":"m","messages":[{"role":"robot","content":"x"}]}"#.into(), "invalid message role"),
        (r#"{"model":"m","messages":[{"role":"user","content":["x"]}]}"#.into(), "of type string"),
        (r#"{"model":"m","max_tokens":1}"#.into(), "max_tokens"),
    ] {
        refused(Fake::ollama, "", &body, expected);
    }
    refused(|| Fake::ollama().models(&["other"]), "", r#"{"model":"m"}"#, "not found, try pulling it first");
    let tools = format!(r#"{{"model":"m","tools":[{TOOL}]}}"#);
    refused(|| Fake::ollama().abilities(&["completion"], 4096), "", &tools, "does not support tools");
}

/// The answers themselves are held against the official clients in tests/interop.
#[test]
fn streams_are_the_same_however_they_are_cut() {
    for (api, headers, body) in all() {
        let say = |split| {
            let answer =
                Answer::new().think("Hm, ja. ").say("Schöne Grüße 🦀").and_call("bash", r#"{"command":"echo 'ü'"}"#);
            let fake = api().answer(answer.split(split));
            let answered = post(&fake, headers, body);
            assert!(answered.status == 200 && !answered.cut, "{answered:?}");
            (answered.body, answered.chunks)
        };
        let (whole, chunks) = say(Split::Whole);
        assert!(whole.contains('🦀') && chunks == [whole.len()], "{whole}");
        let (again, chunks) = say(Split::EveryByte);
        assert_eq!((again.as_str(), chunks.len()), (whole.as_str(), whole.len()));
        assert_eq!(say(Split::At(30)), (whole.clone(), vec![30, whole.len() - 30]));
        let (again, chunks) = say(Split::Frames);
        assert!(again == whole && chunks.len() >= 7, "{chunks:?}");
    }
}

#[test]
fn streams_break_off_as_they_are_told_to() {
    for (api, headers, body) in all() {
        let whole = post(&api().text("hi you"), headers, body).body;
        for (end, cut) in [(End::Clean, false), (End::Fin, true), (End::Rst, true)] {
            let say = |at| {
                let fake = api().answer(Answer::text("hi you").with(Fault::cut(at, end)));
                post(&fake, headers, body)
            };
            let early = say(Cut::BeforeFinish);
            let late = say(Cut::AfterFinish);
            let torn = say(Cut::Bytes(20));
            assert_eq!((early.cut, late.cut, torn.cut), (cut, cut, cut), "{end:?}");
            assert!(whole.starts_with(&early.body) && whole.starts_with(&late.body), "{}", early.body);
            assert!(early.body.len() < late.body.len() && torn.body.len() == 20, "{}", late.body);
            assert!(early.body.contains("hi"), "{}", early.body);
        }
    }
}

#[test]
fn a_reset_is_one() {
    let fake = Fake::ollama().answer(Answer::text("x").with(Fault::cut(Cut::Bytes(3), End::Rst)));
    let mut stream = std::net::TcpStream::connect(fake.address()).expect("a server");
    let body = r#"{"model":"m"}"#;
    let request = format!("POST /api/chat HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
    let read = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    assert_eq!(read.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn statuses_are_in_the_words_of_the_api() {
    let expected = [
        r#"{"error":{"message":"Rate limit reached for requests","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"provider_name":"Fake","raw":""}},"user_id":"user_fake"}"#,
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit."},"request_id":"req_fake"}"#,
        r#"{"error":"too many requests"}"#,
    ];
    for ((api, headers, body), expected) in all().into_iter().zip(expected) {
        let fake = api().fault(Fault::busy("7"));
        let answered = post(&fake, headers, body);
        assert_eq!(
            (answered.status, answered.header("retry-after"), answered.body.as_str()),
            (429, Some("7"), expected)
        );
        assert!(fake.refused().is_empty(), "told to, so no failure of the test");
    }
}

#[test]
fn a_key_is_asked_for() {
    for (api, headers, body) in all() {
        let fake = api().key("right").text("hi").may_refuse();
        assert_eq!(post(&fake, headers, body).status, 401);
        let right = format!("authorization: Bearer right\r\n{}", headers.replace("x-api-key: k", "x-api-key: right"));
        assert_eq!(post(&fake, &right, body).status, 200);
    }
}

#[test]
#[should_panic(expected = "the fake refused what the real API refuses:\nmodel is required")]
fn a_refusal_that_nobody_expects_fails_the_test() {
    let fake = Fake::ollama();
    post(&fake, "", "{}");
}

#[test]
fn a_script_that_is_at_its_end_is_a_refusal() {
    for (api, headers, body) in all() {
        refused(api, headers, body, "no answer left");
    }
}

#[test]
fn a_port_is_closed_and_opened() {
    let fake = Fake::ollama().text("hi");
    fake.close();
    let url = fake.endpoint();
    let error = ask("POST", &url, "", "{}").expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    fake.open();
    assert_eq!(post(&fake, "", r#"{"model":"m"}"#).status, 200);
}

#[test]
fn ollama_loads_first_and_says_so() {
    let fake = Fake::ollama().models(&["m:latest"]).loads_for(Duration::from_millis(300)).text("hi");
    let base = fake.url();
    let loaded = || ask("GET", &format!("{base}/api/ps"), "", "").expect("an answer").json();
    assert_eq!(loaded().at("models").items().len(), 0);
    // Somebody who does not wait.
    let mut stream = std::net::TcpStream::connect(fake.address()).expect("a server");
    let body = r#"{"model":"m"}"#;
    let request = format!("POST /api/chat HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
    drop(stream);
    while fake.loads_aborted() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(loaded().at("models").items().len(), 0);
    let preloaded = ask("POST", &format!("{base}/api/generate"), "", body).expect("an answer");
    assert_eq!(preloaded.json().at("done_reason").str(), Some("load"));
    assert_eq!(loaded().at("models.0.name").str(), Some("m:latest"));
    assert!(post(&fake, "", body).body.contains("hi"));
    let shown = ask("POST", &format!("{base}/api/show"), "", body).expect("an answer").json();
    assert_eq!(shown.at("model_info.fake.context_length"), &Json::Null, "its keys have dots");
    assert_eq!(shown.at("model_info").get("fake.context_length").and_then(Json::u64), Some(40_960));
    let tags = ask("GET", &format!("{base}/api/tags"), "", "").expect("an answer").json();
    assert_eq!(tags.at("models.0.model").str(), Some("m:latest"));
}

#[test]
fn json_is_read() {
    for text in ["null", "-1.5e+3", r#"{"b":[1,{"a":""}],"a":true,"b":"\\\" ü"}"#, "[]", "{}"] {
        assert_eq!(Json::parse(text).map(|value| value.to_string()).as_deref(), Ok(text));
    }
    assert_eq!(Json::parse(r#""\ud83e\udd80\u00fc\/""#), Ok(Json::String("🦀ü/".into())));
    for text in
        ["", "{", "[1,]", "{\"a\"}", "\"\\ud83e\"", "01", "1.", "nul", "1 2", "\"\n\"", "{\"a\":1,}", "+1", "\"\\q\""]
    {
        assert!(Json::parse(text).is_err(), "{text}");
    }
}

#[test]
fn dates_are_as_http_has_them() {
    for (seconds, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (1_795_341_600, "Sun, 22 Nov 2026 10:00:00 GMT"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
    ] {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(super::http_date(time), expected);
    }
}
