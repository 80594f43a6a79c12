//! Sessions, messages, approvals, health: paths, codes and bodies.

use crate::house::{JSON, Reply, eventually, house, house_with, metric};
use duragent::http::{Access, Limits, Token};

#[test]
fn sessions_are_made_listed_shown_and_closed() {
    let house = house();
    let body = r#"{"agent":"assistant","id":"a-1","title":"T"}"#;
    let made = house.ask("POST", "/api/v1/sessions", JSON, body);
    assert_eq!((made.status, made.header("location")), (201, Some("/api/v1/sessions/a-1")), "{made:?}");
    assert_eq!(made.header("content-type"), Some("application/json"));
    for (key, value) in [("id", "a-1"), ("agent", "assistant"), ("status", "idle"), ("title", "T")] {
        assert_eq!(made.field(key), value);
    }
    assert!(made.field("created_at").ends_with('Z') && made.field("last_seq") != "0");
    assert_eq!(house.ask("POST", "/api/v1/sessions", JSON, body).status, 409);
    assert_eq!(house.ask("POST", "/api/v1/sessions", JSON, r#"{"agent":"nobody"}"#).status, 404);
    house.session("a-2");
    house.session("a-3");
    let list = |query: &str| house.ask("GET", &format!("/api/v1/sessions?{query}"), "", "");
    let ids = |reply: &Reply| reply.body.matches("\"id\":\"a-").count();
    assert_eq!((ids(&list("")), list("").field("next").as_str()), (3, "null"));
    let page = list("limit=2");
    assert_eq!((ids(&page), page.field("next").as_str()), (2, "a-2"));
    assert_eq!(ids(&list("limit=2&after=a-2")), 1);
    assert_eq!((ids(&list("agent=nobody")), ids(&list("status=idle")), ids(&list("status=closed"))), (0, 3, 0));
    for query in ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "status=busy", "agent=%zz"] {
        assert_eq!(list(query).status, 400, "{query}");
    }
    assert_eq!(house.ask("GET", "/api/v1/sessions/a-1", "", "").field("id"), "a-1");
    assert_eq!(house.ask("DELETE", "/api/v1/sessions/a-1", "", "").field("status"), "closed");
    let after = house.ask("POST", "/api/v1/sessions/a-1/messages", JSON, r#"{"content":"x"}"#);
    assert_eq!(after.status, 409, "{after:?}");
    for path in [
        "/api/v1/sessions/nope",
        "/api/v1/sessions/A",
        "/api/v1/sessions/%00",
        "/api/v1/sessions/..",
        "/api/v1/sessions/a-1x/messages",
    ] {
        assert_eq!(house.ask("GET", path, "", "").status, 404, "{path}");
    }
}

#[test]
fn agents_are_listed_and_shown() {
    let house = house();
    assert!(house.ask("GET", "/api/v1/agents", "", "").field("agents").contains("\"name\":\"assistant\""));
    let shown = house.ask("GET", "/api/v1/agents/assistant", "", "");
    assert_eq!(shown.field("name"), "assistant");
    assert!(shown.field("spec").contains("\"max_tool_iterations\":10"), "{shown:?}");
    assert_eq!(house.ask("GET", "/api/v1/agents/nobody", "", "").status, 404);
}

#[test]
fn a_mistake_in_a_body_is_named_with_its_place() {
    let house = house();
    house.session("a");
    // body, line, column, field, expected, found
    let cases = [
        ("", "1", "1", "", "an object", "the end"),
        ("[]", "1", "1", "", "an object", "an array"),
        ("{\"content\":1}", "1", "12", "content", "a string", "a number"),
        ("{\n  \"contnt\": \"x\"}", "2", "3", "contnt", "one of the keys content, steps_max, source", "an unknown key"),
        (
            "{\"content\":\"x\", \"é\":1}",
            "1",
            "17",
            "é",
            "one of the keys content, steps_max, source",
            "an unknown key",
        ),
        ("{\"content\":\"x\",\"content\":\"y\"}", "1", "16", "content", "each key once", "it a second time"),
        ("{\"content\":\"x\"", "1", "15", "", "',' or '}'", "the end"),
        ("{\"content\":\"x\"}x", "1", "16", "", "well-formed JSON", "unexpected text after the value"),
        ("{\"content\":\"\\x\"}", "1", "14", "content", "well-formed JSON", "unknown escape in a string"),
        ("{}", "1", "1", "content", "the key", "none"),
    ];
    for (body, line, column, field, expected, found) in cases {
        let headers = format!("{JSON}Content-Length: {}\r\n", body.len());
        let mut wire = house.wire();
        wire.send(
            format!("POST /api/v1/sessions/a/messages HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").as_bytes(),
        );
        let reply = wire.reply().expect("an answer");
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        let place = ["line", "column", "field", "expected", "found"].map(|key| reply.field(key));
        assert_eq!(place, [line, column, field, expected, found], "{body}");
    }
    let mut wire = house.wire();
    let head =
        format!("POST /api/v1/sessions/a/messages HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 3\r\n\r\n");
    wire.send(head.as_bytes());
    wire.send(b"{\"\xff");
    assert_eq!(wire.reply().expect("an answer").field("expected"), "UTF-8");
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/messages", JSON, r#"{"content":""}"#).status, 400);
    assert_eq!(house.ask("GET", "/api/v1/sessions/a", "", "").field("turns"), "0", "none of these was taken");
}

#[test]
fn a_message_is_accepted_waited_for_and_taken_once() {
    let house = house();
    house.session("a");
    let path = "/api/v1/sessions/a/messages";
    let said = house.say("a", "hello");
    assert_eq!(said.field("turn"), "1");
    let waited = house.ask("POST", &format!("{path}?wait=20"), JSON, r#"{"content":"again"}"#);
    assert_eq!((waited.status, waited.field("turn").as_str()), (200, "2"), "{waited:?}");
    assert_eq!(waited.field("reason"), "completed");
    assert!(waited.field("usage").contains("input_tokens") && !waited.field("reply").is_empty());
    let late = house.ask("POST", &format!("{path}?wait=1"), JSON, r#"{"content":"slow"}"#);
    assert_eq!((late.status, late.field("turn").as_str()), (202, "3"), "{late:?}");
    let keyed = || house.ask("POST", path, &format!("{JSON}Idempotency-Key: k-1\r\n"), r#"{"content":"once"}"#);
    assert_eq!(keyed().body, keyed().body);
    assert_eq!(house.ask("GET", "/api/v1/sessions/a", "", "").field("turns"), "4");
    let long = "k".repeat(256);
    for key in ["", "a b", &long] {
        let headers = format!("{JSON}Idempotency-Key: {key}\r\n");
        assert_eq!(house.ask("POST", path, &headers, r#"{"content":"x"}"#).status, 400, "{key:?}");
    }
    for wait in ["0", "601", "x", "-1", ""] {
        assert_eq!(
            house.ask("POST", &format!("{path}?wait={wait}"), JSON, r#"{"content":"x"}"#).status,
            400,
            "{wait:?}"
        );
    }
    assert!(house.ask("GET", path, "", "").field("messages").starts_with("[{"));
}

#[test]
fn a_turn_is_cancelled_once() {
    let house = house();
    house.session("a");
    house.say("a", "slow");
    let cancelled = house.ask("POST", "/api/v1/sessions/a/cancel", "", "");
    assert_eq!((cancelled.status, cancelled.field("turn").as_str()), (202, "1"));
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/cancel", "", "").status, 409);
    assert_eq!(house.ask("POST", "/api/v1/sessions/b/cancel", "", "").status, 404);
}

#[test]
fn a_session_is_forked_and_exported() {
    let house = house();
    house.session("a");
    house.say("a", "hello");
    let forked = house.ask("POST", "/api/v1/sessions/a/fork", "", "");
    assert_eq!(forked.status, 201);
    assert_eq!(forked.header("location"), Some(format!("/api/v1/sessions/{}", forked.field("id")).as_str()));
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/fork", JSON, r#"{"seq":1}"#).status, 201);
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/fork", JSON, r#"{"seq":"1"}"#).status, 400);
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/fork", "", r#"{"seq":1}"#).status, 415);
    let export = house.ask("GET", "/api/v1/sessions/a/export", "", "");
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    assert!(export.body.starts_with("{\"seq\":1,") && export.body.ends_with("}\n"), "{export:?}");
}

#[test]
fn an_approval_is_decided_once() {
    let house = house();
    house.session("a");
    house.say("a", "approve");
    let path = "/api/v1/sessions/a/approvals";
    let mut open = String::new();
    eventually("the turn waits for a word", || {
        open = house.ask("GET", path, "", "").field("approvals");
        open != "[]"
    });
    assert!(open.contains("\"name\":\"bash\"") && open.contains("\"arguments\":{\"command\":\"ls\"}"), "{open}");
    assert_eq!(house.ask("GET", "/api/v1/sessions/a", "", "").field("status"), "waiting");
    let id = open.split('"').nth(3).expect("the first value");
    let decide = |id: &str, body: &str| house.ask("POST", &format!("{path}/{id}"), JSON, body);
    let wrong = decide(id, r#"{"decision":"maybe"}"#);
    assert_eq!((wrong.status, wrong.field("expected").as_str()), (400, "\"grant\" or \"deny\""), "{wrong:?}");
    assert_eq!(decide(id, r#"{"decision":"grant","scope":"twice"}"#).field("column"), "29");
    assert_eq!(decide(id, r#"{"scope":"once"}"#).field("field"), "decision");
    let granted = decide(id, r#"{"decision":"grant","scope":"session"}"#);
    assert_eq!((granted.status, granted.field("scope").as_str()), (200, "session"), "{granted:?}");
    assert_eq!(decide(id, r#"{"decision":"deny"}"#).status, 409, "decided already");
    let never = decide("a9-1-1", r#"{"decision":"deny"}"#);
    assert_eq!((never.status, never.field("type").as_str()), (404, "urn:duragent:problem:not-found"), "{never:?}");
}

#[test]
fn health_and_metrics_are_told() {
    let house = house();
    let mut wire = house.wire();
    for path in ["/livez", "/readyz"] {
        let reply = wire.ask("GET", path, "", "");
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok\n"), "{path}");
    }
    let metrics = wire.ask("GET", "/metrics", "", "");
    assert!(metrics.header("content-type").is_some_and(|t| t.starts_with("text/plain; version=0.0.4")));
    assert_eq!((metric(&metrics, "http_connections"), metric(&metrics, "http_requests_total")), (1, 3));
}

#[test]
fn a_configuration_that_cannot_be_used_is_named() {
    let reply = house().ask("POST", "/api/admin/v1/reload", "", "");
    assert_eq!((reply.status, reply.field("detail").as_str()), (409, "duragent.yaml:1:1: no"));
    assert_eq!(reply.field("type"), "urn:duragent:problem:configuration");
}

#[test]
fn a_configured_token_is_required() {
    let access = Access { token: Token::new("secret"), admin_token: Token::new("admin"), ..Access::default() };
    let house = house_with(access, Limits::default());
    let ask = |method, path, token: &str| house.ask(method, path, token, "");
    let bearer = |token| format!("Authorization: bearer {token}\r\n");
    for wrong in [
        "",
        "Authorization: Basic secret\r\n",
        "Authorization: secret\r\n",
        &bearer("secre"),
        &bearer("secret2"),
        &bearer(""),
    ] {
        for path in ["/api/v1/agents", "/metrics", "/nope"] {
            let reply = ask("GET", path, wrong);
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{wrong:?} {path}");
        }
    }
    assert_eq!(ask("GET", "/api/v1/agents", &bearer("secret")).status, 200);
    assert_eq!(ask("GET", "/nope", &bearer("secret")).status, 404);
    assert_eq!(ask("GET", "/livez", "").status, 200, "a probe has no token");
    assert_eq!(ask("POST", "/api/admin/v1/reload", &bearer("secret")).status, 401);
    assert_eq!(ask("POST", "/api/admin/v1/reload", &bearer("admin")).status, 409, "let in, and told why not");
}
