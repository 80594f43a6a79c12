//! TLS with a real server, whose certificate and key were made for this test.

use super::{A_WHILE, SOON, plain, post, posting};
use crate::provider::http::{Answer, Client, Settings, Timeouts};
use crate::provider::testing::{answer, told};
use duragent_core::event::FailureKind;
use duragent_platform::cancel::Cancel;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// A TLS server for one connection. Certificate and key were made for this test and protect nothing.
pub(super) fn tls_server(answer: Vec<u8>) -> String {
    let chain = vec![CertificateDer::from(&include_bytes!("../testdata/server.der")[..])];
    let key = PrivateKeyDer::try_from(&include_bytes!("../testdata/server-key.der")[..]).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, socket);
        let mut request = [0; 1024];
        // A client that does not trust us goes away here.
        while stream.read(&mut request).is_ok_and(|count| count > 0) {
            if request.windows(2).any(|pair| pair == b"{}") {
                let _ = stream.write_all(&answer);
            }
        }
    });
    url
}

/// Settings that trust the authority of [`tls_server`], and nobody else.
pub(super) fn trusting(url: &str, timeouts: Timeouts) -> Settings {
    let ca = Some(vec![include_bytes!("../testdata/ca.der").to_vec()]);
    Settings { ca, ..Settings::new(url, timeouts) }
}

fn tls_client(url: &str, timeouts: Timeouts) -> Client {
    Client::new(&trusting(url, timeouts)).unwrap()
}

#[test]
fn https_works_over_our_transport_and_is_checked_against_the_bundled_roots() {
    let url = tls_server(answer(200, "", "private"));
    assert_eq!(post(&tls_client(&url, Timeouts::LOCAL), &Cancel::new()).unwrap(), "private");
    let url = tls_server(answer(200, "", "private"));
    let stranger = plain(&url, Timeouts::LOCAL);
    let failure = post(&stranger, &Cancel::new()).unwrap_err();
    assert!(
        failure.kind == FailureKind::Connect
            && failure.detail.contains("UnknownIssuer; is the clock right")
            && failure.detail.ends_with("set ca_file"),
        "{failure:?}"
    );
    let bad = Settings { ca: Some(vec![b"no certificate".to_vec()]), ..Settings::new(&url, Timeouts::LOCAL) };
    let error = Client::new(&bad).unwrap_err().to_string();
    assert!(error.starts_with("ca_file: "), "{error}");
}

#[test]
fn large_messages_pass_through_tls_in_both_directions() {
    let large = "y".repeat(300_000);
    let url = tls_server(answer(200, "", &large));
    let client = tls_client(&url, Timeouts::LOCAL);
    let body = format!("{}{{}}", "x".repeat(300_000));
    let got = client.post("/x", &body, &Cancel::new()).and_then(Answer::text).unwrap();
    assert!(got == large, "{} bytes came", got.len());
}

#[test]
fn https_has_the_same_timeouts_and_the_same_cancel() {
    let url = tls_server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome".to_vec());
    let idle = Timeouts { idle: Duration::from_millis(200), first_byte: SOON, ..Timeouts::LOCAL };
    let failure = post(&tls_client(&url, idle), &Cancel::new()).unwrap_err();
    assert_eq!(told(&failure), "timeout: stalled: nothing more within 200ms");

    let url = tls_server(Vec::new());
    let (client, cancel) = (Arc::new(tls_client(&url, Timeouts::LOCAL)), Cancel::new());
    let result = posting(&client, &cancel);
    assert!(result.recv_timeout(A_WHILE).is_err(), "control: nothing else ends it");
    cancel.raise();
    assert_eq!(told(&result.recv_timeout(SOON).unwrap().unwrap_err()), "truncated: cancelled");

    // A handshake that nobody answers is part of connecting.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", mute.local_addr().unwrap());
    let connect = Timeouts { connect: Duration::from_millis(200), ..Timeouts::LOCAL };
    let failure = post(&tls_client(&url, connect), &Cancel::new()).unwrap_err();
    assert_eq!(told(&failure), "connect: no connection within 200ms");
}

/// What servers answer that know TLS 1.2 at most: two alerts, and a ServerHello of TLS 1.2 (RFC 5246, 7.2 and 7.4.1.3).
#[cfg(not(feature = "tls12"))]
#[test]
fn a_server_without_tls_1_3_is_told_with_the_remedy() {
    let mut hello = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\x00\xc0\x2f\x00");
    for answer in [b"\x15\x03\x03\x00\x02\x02\x46".to_vec(), b"\x15\x03\x03\x00\x02\x02\x28".to_vec(), hello] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", server.local_addr().unwrap());
        let bytes = answer.clone();
        let peer = thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]);
            socket.write_all(&bytes).unwrap();
            // Held open until the client has gone.
            while socket.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
        });
        let client = plain(&url, Timeouts::LOCAL);
        let failure = post(&client, &Cancel::new()).unwrap_err();
        drop(client);
        let said = &failure.detail;
        assert_eq!(failure.kind, FailureKind::Connect, "{answer:?}: {said}");
        assert!(said.contains("no TLS 1.3") && said.ends_with("build with --features tls12"), "{answer:?}: {said}");
        peer.join().unwrap();
    }
}
