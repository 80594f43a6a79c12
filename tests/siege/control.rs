//! The attacks against a server that is open to them: tiny_http's own, in a process of its own. What does it no harm would
//! prove nothing about ours.

use crate::house::{alone, eventually};
use crate::sockets::{allow_many, connect};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set in the process that is tiny_http's server.
const INSIDE: &str = "DURAGENT_TEST_TINY_HTTP";

/// A server that answers at once gets so much longer for it.
const NEVER: Duration = Duration::from_secs(2);

struct Tiny {
    child: Child,
    address: SocketAddr,
}

impl Tiny {
    /// Starts one within limits of prlimit(1).
    fn start(limit: &str) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(limit).arg(std::env::current_exe().expect("this test"));
        command.args(["--exact", "control::tiny_http_as_it_is", "--nocapture"]).env(INSIDE, "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("prlimit of util-linux");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let address = lines.into_iter().find_map(|line| line.rsplit_once("listening on ")?.1.parse().ok());
        let tiny = Self { child, address: address.expect("it says where") };
        assert!(tiny.answers(), "it works as long as nobody means harm");
        tiny
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(NEVER))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok(status == *b"HTTP/1.1 200")
        };
        ask().unwrap_or(false)
    }

    fn threads(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test by itself: the server.
#[test]
fn tiny_http_as_it_is() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let server = tiny_http::Server::http("127.0.0.1:0").expect("loopback");
    println!("listening on {}", server.server_addr());
    for request in server.incoming_requests() {
        let _ = request.respond(tiny_http::Response::from_string("ok"));
    }
    // It accepts nobody any more; the process stays.
    loop {
        std::thread::park();
    }
}

#[test]
fn one_request_that_announces_100_gb_ends_it() {
    let _alone = alone();
    let mut tiny = Tiny::start("--as=4000000000");
    let mut stream = TcpStream::connect(tiny.address).expect("it accepts");
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\nabc")
        .expect("it reads");
    eventually("the process is gone", || tiny.child.try_wait().expect("a child of ours").is_some());
}

#[test]
fn running_out_of_descriptors_once_closes_it_for_good() {
    let _alone = alone();
    let tiny = Tiny::start("--nofile=40:40");
    let streams: Vec<_> = (0..60).filter_map(|_| connect(tiny.address)).collect();
    assert!(streams.len() > 20, "{} were let in", streams.len());
    // It is over once the last descriptor was asked for; what was accepted then goes.
    std::thread::sleep(Duration::from_millis(200));
    drop(streams);
    eventually("its descriptors are free again", || {
        fs::read_dir(format!("/proc/{}/fd", tiny.child.id())).is_ok_and(|fds| fds.count() < 20)
    });
    assert!(!tiny.answers(), "it accepts nobody any more");
}

#[test]
fn every_slow_client_costs_it_a_thread() {
    let _alone = alone();
    allow_many();
    let tiny = Tiny::start("--nofile=4096:");
    let mut streams = Vec::new();
    // Those that come at once wait for each other; those that come one by one get a thread each.
    eventually("two hundred threads", || {
        streams.extend(connect(tiny.address));
        tiny.threads() >= 200
    });
    assert!(streams.len() < 1000, "{} clients", streams.len());
}
