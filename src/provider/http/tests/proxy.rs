//! A proxy on loopback, between us and servers on loopback.

use super::tls::{tls_server, trusting};
use super::{SOON, plain, post};
use crate::provider::http::{Client, Proxy, Settings, Timeouts};
use crate::provider::testing::{Act, Server, answer, chunked, dead_url, told};
use duragent_core::event::FailureKind;
use duragent_core::secret::Secret;
use duragent_platform::cancel::Cancel;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// A proxy that opens tunnels to wherever it is told, and tells the head of each request for one.
fn tunnels() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, heads) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, told) = (client.unwrap(), told.clone());
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count > 0) {
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let mut server = TcpStream::connect(head.split(' ').nth(1).unwrap()).unwrap();
                told.send(head).unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut down));
                let _ = std::io::copy(&mut server, &mut client);
            });
        }
    });
    (address, heads)
}

fn through(proxy: &str, settings: Settings) -> Client {
    let proxy = Proxy::parse(&Secret::new(format!("http://{proxy}"))).unwrap();
    Client::new(&Settings { proxy: Some(proxy), ..settings }).unwrap()
}

#[test]
fn https_goes_through_a_tunnel_and_the_certificate_is_the_servers() {
    let (proxy, heads) = tunnels();
    let url = tls_server(answer(200, "", "private"));
    let client = through(&format!("me:geheim@{proxy}"), trusting(&url, Timeouts::LOCAL));
    assert_eq!(post(&client, &Cancel::new()).unwrap(), "private");
    let target = url.strip_prefix("https://").unwrap();
    let want =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic bWU6Z2VoZWlt\r\n\r\n");
    assert_eq!(heads.recv_timeout(SOON).unwrap(), want);
    // Control: who does not trust the server does not trust it through a proxy either.
    let url = tls_server(answer(200, "", "private"));
    let failure = post(&through(&proxy, Settings::new(&url, Timeouts::LOCAL)), &Cancel::new()).unwrap_err();
    assert!(failure.kind == FailureKind::Connect && failure.detail.contains("UnknownIssuer"), "{failure:?}");
}

#[test]
fn http_names_its_whole_target_on_every_request_of_a_connection() {
    let proxy = Server::always(chunked("text/plain", &["by proxy"]));
    let address = proxy.url.strip_prefix("http://").unwrap();
    // A name that nobody can resolve: the proxy has to.
    let settings = Settings {
        api_key: Some(Secret::new("sk-1".into())),
        ..Settings::new("http://model.invalid/v1", Timeouts::LOCAL)
    };
    let client = through(&format!("me:geheim@{address}"), settings);
    let body = "x".repeat(100_000);
    for body in ["{}", &body] {
        let found = client.post("/chat", body, &Cancel::new()).and_then(super::Answer::text).unwrap();
        assert_eq!(found, "by proxy");
    }
    assert_eq!(proxy.connections(), 1);
    for request in proxy.requests() {
        let begin = "POST http://model.invalid:80/v1/chat HTTP/1.1\r\nProxy-Authorization: Basic bWU6Z2VoZWlt\r\n";
        assert!(request.starts_with(begin), "{:.300}", request);
        assert!(request.to_lowercase().contains("\r\nhost: model.invalid\r\n"), "{:.300}", request);
    }
    // Control: without the proxy there is no such server.
    let failure = post(&plain("http://model.invalid/v1", Timeouts::LOCAL), &Cancel::new()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Connect);
}

#[test]
fn what_a_proxy_refuses_is_told_as_the_proxys() {
    let short = Timeouts { connect: Duration::from_millis(200), ..Timeouts::LOCAL };
    let cases = [
        (answer(407, "", ""), "refused", "it answered 407; the proxy wants a user and a password"),
        (answer(403, "", ""), "connect", "it answered 403"),
        (b"220 smtp.example.com ESMTP\r\n\r\n".to_vec(), "connect", "it does not speak http"),
    ];
    for (bytes, kind, what) in cases {
        let proxy = Server::start(vec![vec![Act::Send(bytes), Act::Close]]);
        let address = proxy.url.strip_prefix("http://").unwrap();
        let client = through(address, Settings::new("https://model.invalid", Timeouts::LOCAL));
        let failure = post(&client, &Cancel::new()).unwrap_err();
        assert_eq!(failure.kind.as_str(), kind, "{failure:?}");
        let said = failure.detail.to_lowercase();
        assert!(said.contains(&format!("through the proxy {address}: ")) && said.contains(what), "{failure:?}");
        assert!(!failure.worked);
    }
    let nobody = dead_url();
    let client = through(nobody.strip_prefix("http://").unwrap(), Settings::new("https://model.invalid", short));
    let failure = post(&client, &Cancel::new()).unwrap_err();
    assert!(
        failure.detail.contains("through the proxy 127.0.0.1:") && failure.detail.contains("refused"),
        "{failure:?}"
    );
    // One that says nothing holds the call no longer than connecting may take.
    let mute = Server::start(vec![vec![Act::Hang]]);
    let client = through(mute.url.strip_prefix("http://").unwrap(), Settings::new("https://model.invalid", short));
    assert!(told(&post(&client, &Cancel::new()).unwrap_err()).contains("no connection within 200ms"));
    // And a plain request meets its refusal as an answer.
    let proxy = Server::always(answer(407, "", ""));
    let client = through(proxy.url.strip_prefix("http://").unwrap(), Settings::new("http://model.invalid", short));
    let refusal = client.post("/x", "{}", &Cancel::new()).unwrap().into_refusal();
    assert_eq!(refusal.failure.kind, FailureKind::Refused);
}
