#[cfg(feature = "tls")]
mod proxy;
#[cfg(feature = "tls")]
mod tls;

use super::{ANSWER_MAX, Answer, Client, LANES_IDLE_MAX, Settings, Timeouts};
use crate::provider::Failure;
use crate::provider::testing::{Act, Server, answer, chunk, chunked, chunked_head, client as plain, dead_url, told};
use duragent_core::event::FailureKind;
use duragent_core::secret::Secret;
use duragent_platform::cancel::Cancel;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Longer than anything takes here, shorter than a person's patience.
const SOON: Duration = Duration::from_secs(10);

/// Long enough to see that something does not end by itself.
const A_WHILE: Duration = Duration::from_millis(400);

const TEXT: &str = "text/plain";

/// The whole answer to one POST.
fn post(client: &Client, cancel: &Cancel) -> Result<String, Failure> {
    client.post("/x", "{}", cancel).and_then(Answer::text)
}

/// Posts on a thread of its own.
fn posting(client: &Arc<Client>, cancel: &Cancel) -> mpsc::Receiver<Result<String, Failure>> {
    let ((sender, receiver), client, cancel) = (mpsc::channel(), Arc::clone(client), cancel.clone());
    thread::spawn(move || sender.send(post(&client, &cancel)));
    receiver
}

fn hanging(before: Vec<u8>) -> Vec<Act> {
    vec![Act::Send(before), Act::Hang]
}

#[test]
fn a_cancel_ends_a_call_that_would_wait_for_ever() {
    let mut within = chunked_head(TEXT);
    within.extend(chunk("some"));
    for before in [Vec::new(), b"HTTP/1.1 200 OK\r\nX-".to_vec(), chunked_head(TEXT), within] {
        let server = Server::start(vec![hanging(before.clone())]);
        let (client, cancel) = (Arc::new(server.client(Timeouts::LOCAL)), Cancel::new());
        let result = posting(&client, &cancel);
        assert!(result.recv_timeout(A_WHILE).is_err(), "control: nothing else ends it, after {before:?}");
        cancel.raise();
        let failure = result.recv_timeout(SOON).expect("a raised cancel ends the call").unwrap_err();
        assert_eq!(told(&failure), "truncated: cancelled", "after {before:?}");
    }
}

#[test]
fn a_cancel_raised_before_the_call_ends_it_too() {
    let server = Server::start(vec![hanging(Vec::new())]);
    let (client, cancel) = (Arc::new(server.client(Timeouts::LOCAL)), Cancel::new());
    cancel.raise();
    let failure = posting(&client, &cancel).recv_timeout(SOON).expect("it ends at once").unwrap_err();
    assert_eq!(told(&failure), "truncated: cancelled");
}

#[test]
fn a_cancel_touches_its_own_call_only() {
    let server = Server::start(vec![vec![Act::Send(answer(200, "", "one"))], hanging(Vec::new())]);
    let client = Arc::new(server.client(Timeouts::LOCAL));
    let (earlier, later) = (Cancel::new(), Cancel::new());
    assert_eq!(post(&client, &earlier).unwrap(), "one");
    let result = posting(&client, &later);
    while server.requests().len() < 2 {
        thread::sleep(Duration::from_millis(5));
    }
    earlier.raise();
    assert!(result.recv_timeout(A_WHILE).is_err(), "the cancel of an earlier call on the same connection is over");
    assert_eq!(server.connections(), 1, "it is the same connection");
    later.raise();
    assert_eq!(told(&result.recv_timeout(SOON).unwrap().unwrap_err()), "truncated: cancelled");
}

#[test]
fn the_connection_is_kept_after_a_whole_answer_only() {
    if std::env::var_os(PROXY_CHILD).is_some() {
        assert!(ureq::Proxy::try_from_env().is_some(), "control: the environment has a proxy");
    }
    let server = Server::always(chunked(TEXT, &["a", "b"]));
    let client = server.client(Timeouts::LOCAL);
    for _ in 0..3 {
        assert_eq!(post(&client, &Cancel::new()).unwrap(), "ab");
    }
    assert_eq!(server.connections(), 1);
    drop(client.post("/x", "{}", &Cancel::new()).unwrap());
    post(&client, &Cancel::new()).unwrap();
    assert_eq!(server.connections(), 2, "an answer that was left unread closes its connection");
    let mut left = client.post("/x", "{}", &Cancel::new()).unwrap();
    left.read(&mut [0; 1]).unwrap();
    left.finish();
    post(&client, &Cancel::new()).unwrap();
    assert_eq!(server.connections(), 2, "one that was finished does not");
}

/// Set in the child of the test below.
const PROXY_CHILD: &str = "DURAGENT_TEST_PROXY_CHILD";

#[test]
fn proxies_of_the_environment_do_not_apply() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "provider::http::tests::the_connection_is_kept_after_a_whole_answer_only"])
        .envs([("http_proxy", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://127.0.0.1:1"), (PROXY_CHILD, "1")])
        .envs([("ALL_PROXY", "http://127.0.0.1:1")])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn a_connection_the_server_closed_meanwhile_is_replaced() {
    let script = vec![Act::Send(answer(200, "", "one")), Act::Close];
    let server = Server::start(vec![script]);
    let client = server.client(Timeouts::LOCAL);
    for count in 1..4 {
        assert_eq!(post(&client, &Cancel::new()).unwrap(), "one");
        while !client.idle.lock().unwrap().iter().all(|lane| lane.slot.is_closed()) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(server.connections(), count);
    }
}

#[test]
fn calls_run_side_by_side_and_few_connections_are_kept() {
    let calls = LANES_IDLE_MAX + 3;
    let slow = vec![Act::Pause(A_WHILE), Act::Send(answer(200, "", "x"))];
    let server = Server::start(vec![slow]);
    let client = Arc::new(server.client(Timeouts::LOCAL));
    let results: Vec<_> = (0..calls).map(|_| posting(&client, &Cancel::new())).collect();
    for result in results {
        assert_eq!(result.recv_timeout(SOON).unwrap().unwrap(), "x");
    }
    assert_eq!(server.connections(), calls);
    assert_eq!(client.idle.lock().unwrap().len(), LANES_IDLE_MAX);
}

#[test]
fn each_timeout_counts_for_itself() {
    let short = Duration::from_millis(200);
    let first = Timeouts { first_byte: short, ..Timeouts::LOCAL };
    let idle = Timeouts { idle: short, first_byte: SOON, ..Timeouts::LOCAL };
    let mut begun = chunked_head(TEXT);
    begun.extend(chunk("some"));
    let cases = [
        (first, Vec::new(), "timeout: no answer within 200ms"),
        (first, b"HTTP/1.1 200 OK\r\n".to_vec(), "timeout: no answer within 200ms"),
        (first, chunked_head(TEXT), "timeout: no answer within 200ms"),
        (idle, begun, "timeout: stalled: nothing more within 200ms"),
    ];
    for (timeouts, before, want) in cases {
        let server = Server::start(vec![hanging(before.clone())]);
        let failure = post(&server.client(timeouts), &Cancel::new()).unwrap_err();
        assert!(failure.worked, "nobody knows: {want}");
        assert_eq!(told(&failure), want, "after {:?}", String::from_utf8_lossy(&before));
    }
}

#[test]
fn a_slow_first_byte_is_no_stall_and_a_long_answer_has_no_total() {
    let idle = Duration::from_millis(1500);
    let mut script = vec![Act::Send(chunked_head(TEXT)), Act::Pause(idle + A_WHILE)];
    for _ in 0..5 {
        script.extend([Act::Send(chunk("a")), Act::Pause(A_WHILE)]);
    }
    script.push(Act::Send(b"0\r\n\r\n".to_vec()));
    let server = Server::start(vec![script]);
    let client = server.client(Timeouts { idle, ..Timeouts::LOCAL });
    assert_eq!(post(&client, &Cancel::new()).unwrap(), "aaaaa");
}

#[test]
fn a_header_that_trickles_is_bounded_by_the_first_byte() {
    let mut script = vec![Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec())];
    for _ in 0..100 {
        script.extend([Act::Send(b"X: y\r\n".to_vec()), Act::Pause(Duration::from_millis(50))]);
    }
    let server = Server::start(vec![script]);
    let client = server.client(Timeouts { first_byte: A_WHILE, ..Timeouts::LOCAL });
    assert_eq!(told(&post(&client, &Cancel::new()).unwrap_err()), "timeout: no answer within 400ms");
}

#[test]
fn faults_below_and_within_http_have_their_kinds() {
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    let cases: &[(&[u8], FailureKind, &str)] = &[
        (b"", FailureKind::Truncated, "the server closed the connection before its answer"),
        (b"HTTP/1.1 200 OK\r\nConte", FailureKind::Truncated, "the server closed the connection before its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", FailureKind::Truncated, "within its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", FailureKind::Truncated, "within its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", FailureKind::Truncated, "within"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FailureKind::Protocol, ""),
        (b"220 smtp.example.com ESMTP\r\n\r\n", FailureKind::Protocol, ""),
        (b"\x15\x03\x01\x00\x02\x02\x46", FailureKind::Protocol, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", FailureKind::Protocol, "answer is not UTF-8"),
        (long_head.as_bytes(), FailureKind::Protocol, ""),
    ];
    for (bytes, kind, what) in cases {
        let server = Server::start(vec![vec![Act::Send(bytes.to_vec()), Act::Close]]);
        let failure = post(&server.client(Timeouts::LOCAL), &Cancel::new()).unwrap_err();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        assert_eq!(failure.kind, *kind, "{shown:?}: {failure:?}");
        let whole_head = bytes.len() < 20_000 && shown.starts_with("HTTP/1.1 200") && shown.contains("\r\n\r\n");
        assert_eq!(failure.worked, whole_head, "{shown:?}");
        assert!(failure.detail.contains(what), "{shown:?}: {failure:?}");
    }
    let nobody = plain(&dead_url(), Timeouts::LOCAL);
    let failure = post(&nobody, &Cancel::new()).unwrap_err();
    assert!(told(&failure).starts_with("connect: connection refused"), "{failure:?}");
}

#[test]
fn an_endless_answer_is_cut_off() {
    let mut script = vec![Act::Send(chunked_head(TEXT))];
    let piece = chunk(&"x".repeat(1024 * 1024));
    script.extend((0..=ANSWER_MAX / (1024 * 1024)).map(|_| Act::Send(piece.clone())));
    script.push(Act::Hang);
    let server = Server::start(vec![script]);
    let failure = post(&server.client(Timeouts::LOCAL), &Cancel::new()).unwrap_err();
    assert_eq!(told(&failure), "protocol: answer is larger than 16777216 bytes");
}

#[test]
fn error_bodies_are_shortened_and_redirects_not_followed() {
    let other = Server::always(answer(200, "", "secret destination"));
    let long = "y".repeat(100_000);
    let redirect = format!("Location: {}/v2\r\n", other.url);
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
    let cases: Vec<(Vec<u8>, FailureKind, String, Option<u64>)> = vec![
        (answer(429, "Retry-After: 7\r\n", ""), FailureKind::Overloaded, "answered 429".into(), Some(7000)),
        (answer(429, date, ""), FailureKind::Overloaded, "answered 429".into(), Some(30_000)),
        (answer(400, "", &long), FailureKind::Invalid, format!("answered 400: {}…", "y".repeat(300)), None),
        (
            answer(307, &redirect, ""),
            FailureKind::Invalid,
            format!("answered 307, a redirect to \"{}/v2\", which is not followed; set base_url", other.url),
            None,
        ),
        (
            answer(429, "", r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#),
            FailureKind::Refused,
            "answered 429: pay; add credit with the provider".into(),
            None,
        ),
    ];
    for (bytes, kind, what, retry_after_ms) in cases {
        let server = Server::always(bytes);
        let client = server.client(Timeouts::LOCAL);
        let refusal = client.post("/x", "{}", &Cancel::new()).unwrap().into_refusal();
        let want = Failure { retry_after_ms, ..Failure::new(kind, format!("{}: {what}", client.host())) };
        assert_eq!(refusal.failure, want);
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn an_error_body_that_stalls_does_not_hold_the_call() {
    let server = Server::start(vec![hanging(b"HTTP/1.1 500 E\r\nContent-Length: 99\r\n\r\n{\"err".to_vec())]);
    let client = server.client(Timeouts { connect: Duration::from_millis(200), ..Timeouts::LOCAL });
    let refusal = client.post("/x", "{}", &Cancel::new()).unwrap().into_refusal();
    assert_eq!(told(&refusal.failure), "overloaded: answered 500: {\"err");
}

#[test]
fn secrets_are_sent_and_never_quoted() {
    let body = r#"{"error":{"message":"bad key sk-geheim for team geheim-2"}}"#;
    let server = Server::always(answer(401, "", body));
    let headers = [("X-Team".to_string(), Secret::new("geheim-2".into()))];
    let key = Secret::new("sk-geheim".into());
    let settings = Settings {
        api_key: Some(key),
        headers: headers.to_vec(),
        key_from: Some("environment variable X_KEY".into()),
        ..Settings::new(&format!("{}/v1/", server.url), Timeouts::LOCAL)
    };
    let client = Client::new(&settings).unwrap();
    let refusal = client.post("/x", "{}", &Cancel::new()).unwrap().into_refusal();
    assert_eq!(
        told(&refusal.failure),
        "refused: answered 401: bad key *** for team ***; check the API key: environment variable X_KEY"
    );
    assert!(!format!("{client:?} {refusal:?}").contains("geheim"));
    let request = server.requests()[0].to_lowercase();
    assert!(request.starts_with("post /v1/x http/1.1\r\n"), "{request}");
    for header in ["authorization: bearer sk-geheim", "x-team: geheim-2", "content-type: application/json"] {
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{header}: {request}");
    }
}

#[test]
fn names_are_resolved() {
    let server = Server::always(answer(200, "", "found"));
    let url = server.url.replace("127.0.0.1", "localhost");
    let client = plain(&url, Timeouts::LOCAL);
    assert_eq!(post(&client, &Cancel::new()).unwrap(), "found");
}

/// The part of the promise that only the other build can keep: `cargo xtask check` runs it there.
#[cfg(not(feature = "tls"))]
#[test]
fn no_tls_no_https() {
    let error = Client::new(&Settings::new("https://127.0.0.1:1", Timeouts::LOCAL)).unwrap_err().to_string();
    assert!(error.starts_with("base_url \"https://127.0.0.1:1\": https is not in this build"), "{error}");
    let bad = Settings { ca: Some(Vec::new()), ..Settings::new("http://127.0.0.1:1", Timeouts::LOCAL) };
    assert_eq!(Client::new(&bad).unwrap_err().to_string(), "ca_file: https is not in this build");
}
