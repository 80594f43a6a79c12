//! A network that comes late: the address to listen on, the names of others, the model's server.

use crate::clock;
use crate::house::{House, require, until};
use crate::mounts::off_network;
use duragent_testkit::Fake;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use std::process::{Child, Command, Stdio};

fn ip(args: &[&str]) {
    require("ip", "iproute2");
    let status = Command::new("ip").args(args).status().expect("ip starts");
    assert!(status.success(), "ip {args:?}");
}

fn log(house: &House, id: &str) -> String {
    fs::read_to_string(house.dir().join("sessions").join(id).join("events.jsonl")).unwrap_or_default()
}

#[test]
fn an_address_that_is_not_there_yet_is_waited_for() {
    off_network("network::an_address_that_is_not_there_yet_is_waited_for", 8192, || {
        // Up, since a device that is down knows no addresses, and takes any.
        ip(&["link", "set", "lo", "up"]);
        let token = "t-0123456789abcdef0123456789abcdef";
        let house = House::new(&format!("server: {{address: \"192.0.2.7:8410\", api_token: {token}}}"));
        let server = house.serve(&[]);
        server.log.wait_for("waiting for 192.0.2.7:8410");
        // The unix socket works meanwhile.
        server.session("a", "hello");
        assert_eq!(server.turn("a"), "completed");
        assert!(TcpStream::connect("192.0.2.7:8410").is_err(), "the control: nobody listens there");
        ip(&["address", "add", "192.0.2.7/32", "dev", "lo"]);
        server.log.wait_for("listening on 192.0.2.7:8410");
        let mut stream = TcpStream::connect("192.0.2.7:8410").expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.0\r\nHost: 192.0.2.7\r\n\r\n").expect("it takes it");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1."), "{answer}");
        server.stop();
        // One that somebody else has is an error as ever, and so is one that waits when it is told to stop no obstacle.
        let _other = std::net::TcpListener::bind("192.0.2.7:8410").expect("it is free");
        let output = house.command(&[], &[]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let server = house.serve(&["--listen", "192.0.2.9:1"]);
        server.log.wait_for("waiting for 192.0.2.9:1");
        server.stop();
    });
}

/// Answers every question for an address with 127.0.0.1 (RFC 1035).
fn name_server() {
    let socket = UdpSocket::bind("127.0.0.53:53").expect("root may");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let name = question[12..length].iter().position(|byte| *byte == 0).map_or(length, |end| 12 + end + 5);
            let is_a = question.get(name - 4..name) == Some(&[0, 1, 0, 1]);
            let mut answer = question[..name].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn a_name_server_and_a_model_that_come_later_are_found() {
    off_network("network::a_name_server_and_a_model_that_come_later_are_found", 8192, || {
        ip(&["link", "set", "lo", "up"]);
        let resolver = std::env::temp_dir().join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.9\noptions timeout:1 attempts:1\n").expect("it can be written");
        let status = Command::new("mount").arg("--bind").arg(&resolver).arg("/etc/resolv.conf").status();
        assert!(status.expect("mount starts").success());
        let fake = Fake::ollama().models(&["m"]).text("Here.");
        let port = fake.address().port();
        let house = House::new("limits: {model_attempts_max: 1}");
        house.reconfigure(
            "hello: {kind: replay, file: ./agents/hello/tape.jsonl}",
            &format!("hello: {{kind: ollama, base_url: \"http://models.test:{port}\", preload: true}}"),
        );
        let server = house.serve(&[]);
        server.session("a", "hello");
        server.send("a");
        until("the turn to be parked", || log(&house, "a").contains("\"reason\":\"offline\"").then_some(()));
        server.log.wait_for("cannot load m");
        // The network is up: another name server is said, and it answers.
        name_server();
        fs::write("/etc/resolv.conf", "nameserver 127.0.0.53\n").expect("it can be written");
        until("the turn", || log(&house, "a").contains("turn_finished").then_some(()));
        assert!(log(&house, "a").contains("Here."), "{}", log(&house, "a"));
        server.stop();
    });
}

/// A certificate that is no authority: as such it could be trusted, and could not be the server's.
const CA: &str = "basicConstraints=critical,CA:FALSE";

/// Ended when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_certificate_that_is_refused_in_1970_is_the_clocks_fault_and_says_so() {
    require("openssl", "openssl");
    let house = House::new("limits: {model_attempts_max: 1}");
    let here = |name: &str| house.dir().join(name).to_str().expect("UTF-8").to_owned();
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (key, pem, port) = (here("key.pem"), here("ca.pem"), free_port());
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", CA, "-days", "30"];
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", &key, "-out", &pem];
    let made = openssl(&[&["req", "-x509"][..], &kind, &subject].concat()).status().expect("openssl starts");
    assert!(made.success(), "openssl req");
    let accept = format!("127.0.0.1:{port}");
    let serve = ["s_server", "-accept", &accept, "-cert", &pem, "-key", &key, "-www"];
    let _server = Ended(openssl(&serve).spawn().expect("openssl starts"));
    house.reconfigure(
        "hello: {kind: replay, file: ./agents/hello/tape.jsonl}",
        &format!("hello: {{kind: openai, base_url: \"https://localhost:{port}/v1\", ca_file: ca.pem}}"),
    );
    until("the server", || TcpStream::connect(&accept).ok());
    clock::set(&house, clock::UNSET);
    let server = clock::serve(&house, &[]);
    server.session("a", "hello");
    server.send("a");
    until("the failure", || log(&house, "a").contains("model_failed").then_some(()));
    let told = log(&house, "a");
    assert!(told.contains("the clock says 1970-01-01T"), "{told}");
    // The control: with the time of this machine the certificate is good, and it is something else that goes wrong.
    server.ask("POST", "/api/v1/sessions/a/cancel", "");
    server.stop();
    let (server, start) = (house.serve(&[]), std::time::Instant::now());
    server.session("b", "hello");
    server.send("b");
    let answer = until("the page of openssl, which is no answer, or nothing", || {
        let log = log(&house, "b");
        let running = log.contains("model_requested") && start.elapsed() > std::time::Duration::from_secs(3);
        (log.contains("model_failed") || running).then_some(log)
    });
    assert!(!answer.contains("certificate"), "{answer}");
    // It waits for openssl, which waits for us.
    server.kill();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}
