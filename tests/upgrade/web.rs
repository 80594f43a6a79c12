//! Releases from a web server, one that may do what it likes.

use super::house::{House, VERSION, later, script};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Serves the files of a folder; `rule` may answer in its place. Ends with the test's process.
fn serve(
    folder: PathBuf,
    rule: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
            let mut first = String::new();
            reader.read_line(&mut first).ok();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
            seen.lock().expect("a list").push(target.clone());
            let path = target.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
            let answer = rule(&target).unwrap_or_else(|| match fs::read(folder.join(path)) {
                Ok(bytes) => ok(&bytes),
                Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            });
            stream.write_all(&answer).ok();
        }
    });
    (address, asked)
}

fn ok(bytes: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes].concat()
}

fn to(place: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn house() -> House {
    let house = House::new();
    house.release(&later(), &script(&later()));
    house
}

#[test]
fn a_release_is_taken_from_a_web_server_over_redirects() {
    let house = house();
    let (address, asked) = serve(house.path("rel"), |target| {
        // As release pages do: another place, with a query.
        (target.starts_with("/latest/"))
            .then(|| to(&target.replace("/latest/", "/v2/store/").replace("new", "new?token=x")))
    });
    house.good(&["upgrade", "--from", &format!("http://{address}/latest/release.txt")]);
    assert_eq!(house.version(), later());
    let asked = asked.lock().expect("a list").join(" ");
    assert!(asked.contains("/latest/release.txt.sig") && asked.contains("/v2/store/duragent-new?token=x"), "{asked}");
}

#[test]
fn a_proxy_is_used_where_one_is_configured() {
    let house = house();
    let (proxy, asked) = serve(house.path("rel"), |_| None);
    let config = String::from_utf8(house.read(".duragent/duragent.yaml")).expect("UTF-8");
    house.write(".duragent/duragent.yaml", format!("{config}proxy: \"http://{proxy}\"\n"));
    house.good(&["upgrade", "--from", "http://releases.invalid/v2/release.txt"]);
    assert_eq!(house.version(), later());
    assert_eq!(asked.lock().expect("a list")[0], "http://releases.invalid:80/v2/release.txt");
}

#[test]
fn what_a_web_server_does_wrong_is_said_and_changes_nothing() {
    type Rule = fn(&str) -> Option<Vec<u8>>;
    let cases: [(&str, Rule); 7] = [
        ("expected status 200, found 404", |_| Some(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec())),
        ("more than 5 redirects", |_| Some(to("/again/release.txt"))),
        ("expected https://", |_| Some(to("ftp://elsewhere/release.txt"))),
        ("expected https://", |_| Some(to("file:///etc/passwd"))),
        // Cut in the middle of the binary.
        ("cannot get ", |target| {
            target
                .ends_with("new")
                .then(|| b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n#!/bin/sh".to_vec())
        }),
        // Without an end.
        ("found more", |target| target.ends_with("new").then(|| ok(&vec![b'x'; 1 << 20]))),
        ("cannot get ", |_| Some(b"SSH-2.0-OpenSSH\r\n".to_vec())),
    ];
    let house = house();
    for (part, rule) in cases {
        let (address, _) = serve(house.path("rel"), rule);
        let err = house.bad(1, &["upgrade", "--from", &format!("http://{address}/release.txt")]);
        assert!(err.contains(part), "{part}: {err}");
        assert_eq!(house.names(), ["duragent", "duragent.pub"], "{part}");
    }
    let err = house.bad(1, &["upgrade", "--from", "http://user:secret@127.0.0.1:1/release.txt"]);
    assert!(err.contains("expected no user name") && !err.contains("secret"), "{err}");
    assert_eq!(house.run(&["upgrade", "--from", "http://127.0.0.1:1/"]).code, Some(2));
    assert_eq!(house.version(), VERSION);
    let (address, _) = serve(house.path("rel"), |_| None);
    house.good(&["upgrade", "--from", &format!("http://{address}/release.txt")]);
}
