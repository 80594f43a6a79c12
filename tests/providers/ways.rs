//! Ways to a provider that are configured: an authority of one's own, and a proxy.

use crate::house::{House, OPENAI, PATIENCE};
use duragent_testkit::Fake;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const SERVER: &[u8] = include_bytes!("../../src/provider/http/testdata/server.der");
const SERVER_KEY: &[u8] = include_bytes!("../../src/provider/http/testdata/server-key.der");
const CA: &str = include_str!("../../src/provider/http/testdata/ca.pem");

/// A request without its connection: head, rewritten by `head`, and body.
fn read_request(from: &mut dyn Read) -> io::Result<(String, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    from.read_exact(&mut body)?;
    Ok((head, body))
}

/// Hands on what the fake answers, as it comes. The fake keeps its connection; it ends with the fake.
fn relay(fake: SocketAddr, head: &str, body: &[u8], to: &mut dyn Write) -> io::Result<()> {
    let mut server = TcpStream::connect(fake)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(head.as_bytes())?;
    server.write_all(body)?;
    let mut buffer = [0; 4096];
    loop {
        match server.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
        to.flush()?;
    }
}

/// TLS in front of a fake, with a certificate for 127.0.0.1 of an authority that nobody knows. One request a connection.
fn tls_before(fake: &Fake) -> SocketAddr {
    let key = PrivateKeyDer::try_from(SERVER_KEY).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(SERVER)], key)
        .expect("a certificate");
    let (config, fake) = (Arc::new(config), fake.address());
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            thread::spawn(move || {
                let mut stream = rustls::StreamOwned::new(session, client);
                // Who does not trust us is gone by now.
                let (head, body) = read_request(&mut stream)?;
                relay(fake, &head, &body, &mut stream)
            });
        }
    });
    address
}

/// A proxy for plain requests that finds every host at the fake, and the first lines of what it was asked.
fn proxy_to(fake: &Fake) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (asked, fake) = (Arc::new(Mutex::new(Vec::new())), fake.address());
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    let (address, told) = (listener.local_addr().expect("an address"), Arc::clone(&asked));
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let told = Arc::clone(&told);
            thread::spawn(move || {
                let (head, body) = read_request(&mut client)?;
                told.lock().expect("a list").push(head.lines().take(2).collect::<Vec<_>>().join("|"));
                relay(fake, &head.replacen("http://model.invalid:80", "", 1), &body, &mut client)
            });
        }
    });
    (address, asked)
}

fn house(keys: &str, base_url: &str) -> House {
    let house = House::new("model_attempts_max: 1, offline_seconds_max: 0");
    let text = format!(
        "sandbox: {{mode: trust}}\nlimits: {{model_attempts_max: 1, offline_seconds_max: 0}}\nproviders:\n  far: {{kind: \
         {}, base_url: '{base_url}', api_key_env: CANARY_KEY{keys}}}\n",
        OPENAI.kind
    );
    house.write(".duragent/duragent.yaml", &text);
    house.write(".duragent/ca.pem", CA);
    house.spec("bot", "model: {provider: far, name: m}");
    house
}

#[test]
fn an_authority_of_ones_own_is_trusted_if_it_is_named() {
    for (keys, works) in [(", ca_file: ca.pem", true), ("", false)] {
        let fake = Fake::openai().text("Private.");
        let house = house(keys, &format!("https://{}/v1", tls_before(&fake)));
        let output = house.run(&["run", "bot", "hello"]);
        let told = crate::house::text(&[output.stdout, output.stderr].concat());
        if works {
            assert_eq!((output.status.code(), told.as_str()), (Some(0), "Private.\n"));
        } else {
            assert_eq!((output.status.code(), fake.calls().len()), (Some(1), 0), "{told}");
            assert!(told.contains("UnknownIssuer") && told.contains("set ca_file"), "{told}");
        }
    }
}

#[test]
fn a_proxy_is_used_if_it_is_named_and_the_environments_only_on_request() {
    const URL: &str = "http://model.invalid/v1";
    for (keys, variable, works) in [
        (", proxy: 'http://me:geheim@PROXY'", "", true),
        (", proxy: environment", "http://me:geheim@PROXY", true),
        ("", "http://me:geheim@PROXY", false),
    ] {
        let fake = Fake::openai().text("By proxy.");
        let (proxy, asked) = proxy_to(&fake);
        let place = |text: &str| text.replace("PROXY", &proxy.to_string());
        let house = house(&place(keys), URL);
        let output = house.command(&["run", "bot", "hello"]).env("HTTP_PROXY", place(variable)).output();
        let output = output.expect("the binary starts");
        let told = crate::house::text(&[output.stdout, output.stderr].concat());
        assert_eq!(output.status.code(), Some(if works { 0 } else { 1 }), "{told}");
        assert_eq!(told.contains("By proxy."), works, "{told}");
        let want = "POST http://model.invalid:80/v1/chat/completions HTTP/1.1|Proxy-Authorization: Basic bWU6Z2VoZWlt";
        assert_eq!(*asked.lock().expect("a list"), if works { vec![want] } else { vec![] });
        let dump = crate::house::text(&house.command(&["check", "-T"]).output().expect("a dump").stdout);
        assert!(!dump.contains("geheim"), "{dump}");
    }
}
