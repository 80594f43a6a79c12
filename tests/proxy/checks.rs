//! What has to work through every proxy.

use crate::client::{Way, ids};
use crate::guide::{Behind, NAME};

const EVENTS: [&str; 2] = ["-H", "Accept: text/event-stream"];
const JSON: [&str; 2] = ["-H", "Content-Type: application/json"];

/// Everything. `base` is what the server calls itself.
pub fn all(way: &Way, behind: &Behind, base: &str) {
    strangers(way);
    let made = way.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("location"), Some(format!("{base}/api/v1/sessions/s").as_str()), "{made:?}");
    the_first_event_comes_at_once(way, behind);
    streams_go_on_where_they_were(way, behind);
    requests(way);
}

/// Without the token nobody gets in, wherever they say they are.
fn strangers(way: &Way) {
    let status = |path: &str, args: &[&str]| way.stranger(path, args).map(|reply| reply.status);
    assert_eq!((status("/livez", &[]), status("/readyz", &[])), (Some(200), Some(200)));
    for args in [
        &[][..],
        &["-H", "X-Forwarded-For: 127.0.0.1"],
        &["-H", "X-Forwarded-For:", "-H", "X-Forwarded-Host: localhost"],
        &["-H", "Forwarded: for=127.0.0.1"],
        &["-H", "Authorization: Bearer another"],
    ] {
        assert_eq!(status("/version", args), Some(401), "{args:?}");
        assert_eq!(status("/api/admin/v1/reload", &[args, &["-X", "POST"]].concat()), Some(401), "{args:?}");
    }
    assert_eq!(way.ask("/version", &[]).status, 200, "the control");
    assert_eq!(way.ask("/version", &["-H", "Origin: https://evil.example"]).status, 403);
    assert_eq!(way.ask("/version", &["-H", "Sec-Fetch-Site: cross-site"]).status, 403);
}

fn the_first_event_comes_at_once(way: &Way, behind: &Behind) {
    let body = [&EVENTS[..], &JSON, &["-d", r#"{"content":"hold"}"#]].concat();
    let stream = way.stream("/api/v1/sessions/s/messages", &body);
    // The model does not go on before we say so, so this did not wait for the end.
    stream.hears("\"text\":\"first\"");
    stream.hears(": ping\n\n");
    assert!(!stream.said().contains("and last"));
    behind.go_on();
    let said = stream.end();
    assert!(said.contains("\"text\":\" and last\"") && said.contains("event: turn_finished"), "{said}");
}

fn streams_go_on_where_they_were(way: &Way, behind: &Behind) {
    let body = [&EVENTS[..], &JSON, &["-d", r#"{"content":"hold"}"#]].concat();
    let turn = way.stream("/api/v1/sessions/s/messages", &body);
    turn.hears("\"text\":\"first\"");
    let path = "/api/v1/sessions/s/events";
    let broken = way.stream(path, &[]);
    broken.hears(": ping\n\n");
    let before = ids(&broken.said());
    let last = *before.last().expect("events");
    assert_eq!(before, (1..=last).collect::<Vec<_>>());
    drop(broken);
    behind.go_on();
    drop(turn);
    let resumed = way.stream(path, &["-H", &format!("Last-Event-ID: {last}")]);
    resumed.hears("event: turn_finished");
    let after = ids(&resumed.said());
    let end = last + u64::try_from(after.len()).expect("few");
    assert!(end > last, "{after:?}");
    assert_eq!(after, (last + 1..=end).collect::<Vec<_>>(), "nothing missing, nothing twice");
}

fn requests(way: &Way) {
    let waited = way.post("/api/v1/sessions/s/messages?wait=60", r#"{"content":"greet"}"#);
    assert!(waited.status == 200 && waited.body.contains("\"reply\":\"first and last\""), "{waited:?}");
    // As large as a message may be; and larger than a body may be, which the proxy or the server may say.
    let large = format!(r#"{{"content":"greet {}"}}"#, "x".repeat(250_000));
    let file = std::env::temp_dir().join(format!("duragent-proxy-{}-{}", std::process::id(), way.port));
    let at = format!("@{}", file.display());
    std::fs::write(&file, large).expect("a file");
    let taken = way.post("/api/v1/sessions/s/messages?wait=60", &at);
    std::fs::write(&file, "x".repeat(1_100_000)).expect("a file");
    let refused = way.post("/api/v1/sessions/s/messages", &at);
    std::fs::remove_file(&file).ok();
    assert_eq!((taken.status, refused.status), (200, 413), "{taken:?} {refused:?}");
    assert_eq!(way.ask("/api/v1/sessions/s", &["-X", "DELETE"]).status, 200);
    assert_eq!(way.ask("/api/v1/sessions/none", &[]).status, 404);
    assert_eq!(way.ask("/version", &["-I"]).status, 200);
    assert_eq!(way.ask("/version", &["-H", &format!("Origin: https://{NAME}.evil.example")]).status, 403);
}
