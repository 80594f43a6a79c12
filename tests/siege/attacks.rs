//! What clients can do to a server that has all it needs.

use crate::house::{PATIENCE, Server, alone, eventually};
use crate::sockets::{allow_many, connect, read_little, reset_on_close};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long somebody else is watched while an attack goes on.
const WATCHED: Duration = Duration::from_millis(400);

/// Slow clients at a time; eight times as many as there are places.
const SLOW: usize = 2000;

/// Clients that ask and do not read: more than may have an answer that lasts.
const NO_READERS: usize = 240;

/// Most new connections of [`Slow`] in one pass over all of them: who is thrown out comes back, but not all at once.
const AGAIN_MAX: usize = 100;

/// KiB that the server may have more after the second round of all attacks than after the first. What the first took for
/// good is what it needs to work; what the second takes as well is lost. The allocator keeps two MiB more or less from one round
/// to the next; a round has some 20,000 connections, so that 200 bytes lost with each would be seen.
const LEAK_KIB_MAX: u64 = 4 * 1024;

/// KiB that the server may have more at any time than before: what so many connections cost, not what they ask for.
const PEAK_KIB_MAX: u64 = 48 * 1024;

/// An attack under way; over when dropped.
pub struct Attack {
    over: Arc<AtomicBool>,
    /// Counts what shows that it is one.
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    children: Vec<Child>,
}

impl Attack {
    fn new() -> Self {
        Self { over: Arc::default(), done: Arc::default(), threads: Vec::new(), children: Vec::new() }
    }

    /// Runs `act` until the attack is over.
    fn act(mut self, mut act: impl FnMut(&AtomicU64) + Send + 'static) -> Self {
        let (over, done) = (Arc::clone(&self.over), Arc::clone(&self.done));
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                act(&done);
            }
        }));
        self
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "an attacker failed");
        }
    }
}

/// Connections that send `first`, then `more` byte by byte, for ever. Who is thrown out comes back.
struct Slow {
    address: SocketAddr,
    streams: Vec<Option<TcpStream>>,
    first: &'static str,
    more: &'static [u8],
    at: usize,
}

impl Slow {
    fn pass(&mut self, done: &AtomicU64) {
        let byte = self.more.get(self.at % self.more.len().max(1)).copied();
        self.at += 1;
        let mut again = 0;
        for stream in &mut self.streams {
            let alive = match (&stream, byte) {
                (Some(open), Some(byte)) => (&mut &*open).write(&[byte]).is_ok(),
                // Silent ones learn of their end by reading.
                (Some(open), None) => !matches!((&mut &*open).read(&mut [0; 64]), Ok(0)),
                (None, _) => false,
            };
            if !alive && again < AGAIN_MAX {
                again += 1;
                *stream = connect(self.address).filter(|s| (&mut &*s).write_all(self.first.as_bytes()).is_ok());
                done.fetch_add(u64::from(stream.is_some()), Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn slow_of(server: &Server, first: &'static str, more: &'static [u8]) -> Slow {
    let mut slow = Slow { address: server.address, streams: Vec::new(), first, more, at: 0 };
    slow.streams.resize_with(SLOW, || None);
    slow
}

fn slow(server: &Server, first: &'static str, more: &'static [u8]) -> Attack {
    let mut slow = slow_of(server, first, more);
    let attack = Attack::new().act(move |done| slow.pass(done));
    let enough = SLOW as u64;
    eventually("all slow clients have come", || attack.done.load(Ordering::Relaxed) >= enough);
    assert!(server.metric("http_connections_given_up_total") > 0, "all places are taken, and given to others");
    attack
}

/// Connections that say nothing.
fn silence(server: &Server) -> Attack {
    slow(server, "", b"")
}

/// Heads that never end.
pub fn slow_heads(server: &Server) -> Attack {
    slow(server, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ", b"x")
}

/// Bodies that are announced and come byte by byte.
fn slow_bodies(server: &Server) -> Attack {
    slow(
        server,
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n",
        b"x",
    )
}

/// The same in chunks of one byte.
fn slow_chunks(server: &Server) -> Attack {
    slow(
        server,
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    )
}

/// Bodies of which all but the last byte comes, on all places: the most that can be made to be kept.
fn almost_whole_bodies(server: &Server) -> Attack {
    const BODY: usize = 1024 * 1024;
    let head = format!(
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let (address, mut kept) = (server.address, Vec::new());
    let attack = Attack::new().act(move |done| {
        if kept.len() == 300 {
            return std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(mut stream) = connect(address) {
            let _ = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; BODY - 1]));
            done.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
            kept.push(stream);
        }
    });
    // The control: it is kept, all of what may be.
    eventually("bodies are kept", || server.usage().resident > 12 * 1024);
    attack
}

/// Bodies that say they are of 100 GB, and chunks of one byte as fast as they are taken.
fn endless_bodies(server: &Server) -> Attack {
    let huge =
        b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000000000\r\n\r\nabc".as_slice();
    let chunked = b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let address = server.address;
    let mut attack = Attack::new();
    for (head, more) in [(huge, b"x".repeat(60_000)), (chunked, b"1\r\nx\r\n".repeat(10_000))] {
        attack = attack.act(move |done| {
            let Some(mut stream) = connect(address) else { return };
            let _ = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            let mut sent = stream.write_all(head);
            for _ in 0..100 {
                sent = sent.and_then(|()| stream.write_all(&more));
            }
            done.fetch_add(u64::from(sent.is_err()), Ordering::Relaxed);
        });
    }
    eventually("bodies are refused", || attack.done.load(Ordering::Relaxed) >= 4);
    attack
}

/// Requests without a pause, on a few connections, by clients that take the answers as fast as they come.
fn pipelines(server: &Server) -> Attack {
    let requests = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let address = server.address;
    let mut attack = Attack::new();
    for _ in 0..4 {
        let (requests, mut stream) = (requests.clone(), connect(address));
        let (mut sent, mut answers) = (0, vec![0; 64 * 1024]);
        attack = attack.act(move |done| {
            let Some(open) = &mut stream else { return stream = connect(address) };
            sent += open.write(&requests[sent..]).unwrap_or(0);
            sent %= requests.len();
            match open.read(&mut answers) {
                Ok(0) => stream = None,
                Ok(n) => drop(done.fetch_add(n as u64, Ordering::Relaxed)),
                Err(_) => std::thread::yield_now(),
            }
        });
    }
    eventually("answers come", || attack.done.load(Ordering::Relaxed) >= 1_000_000);
    attack
}

/// Refused requests of clients that do not go: each is listened to for a while, so that the refusal reaches it.
fn lingerers(server: &Server) -> Attack {
    let mut slow = slow_of(server, "BAD\r\n\r\n", b"");
    let attack = Attack::new().act(move |done| slow.pass(done));
    eventually("many are refused", || attack.done.load(Ordering::Relaxed) >= SLOW as u64);
    attack
}

/// Clients that ask for much and read nothing: exports, pages and streams of a large session.
fn no_reader(server: &Server) -> Attack {
    let (address, mut kept) = (server.address, Vec::new());
    let paths = ["events", "export", "events?follow=false&limit=1000", "messages"];
    let attack = Attack::new().act(move |done| {
        if kept.len() == NO_READERS {
            return std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(mut stream) = connect(address) {
            read_little(&stream);
            let path = paths[kept.len() % paths.len()];
            let request = format!("GET /api/v1/sessions/large/{path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*, text/event-stream\r\n\r\n");
            let sent = stream.write_all(request.as_bytes());
            done.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
            kept.push(stream);
        }
    });
    eventually("all have asked", || attack.done.load(Ordering::Relaxed) >= NO_READERS as u64);
    eventually("they are waited for", || server.usage().descriptors > 100);
    attack
}

/// Connections that are reset at once, some of them before they are accepted, some in the middle of a request.
fn resets(server: &Server) -> Attack {
    let address = server.address;
    let requests: [&[u8]; 4] = [
        b"",
        b"GET /livez HT",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ];
    let attack = Attack::new().act(move |done| {
        for request in requests {
            let Some(mut stream) = connect(address) else { continue };
            reset_on_close(&stream);
            let _ = stream.write_all(request);
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    eventually("many were reset", || attack.done.load(Ordering::Relaxed) >= 500);
    attack
}

/// Ten thousand connections that are closed at once.
fn flood(server: &Server) -> Attack {
    let address = server.address;
    let attack = Attack::new().act(move |done| {
        drop(connect(address));
        done.fetch_add(1, Ordering::Relaxed);
    });
    eventually("ten thousand came", || attack.done.load(Ordering::Relaxed) >= 10_000);
    attack
}

/// Says where the server is, to this program run as the client that freezes.
const FROZEN: &str = "DURAGENT_TEST_FROZEN_CLIENT_OF";

/// A client with 300 connections that is stopped in the middle of everything: to the server it has vanished.
fn frozen(server: &Server) -> Attack {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "attacks::a_client_that_freezes", "--nocapture"]).env(FROZEN, server.address.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this test again");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.into_iter().any(|line| line.ends_with("all connected")), "the client says when");
    let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()), "kill of procps");
    let mut attack = Attack::new();
    attack.children.push(child);
    attack
}

/// No test by itself: see [`frozen`].
#[test]
fn a_client_that_freezes() {
    let Some(address) = std::env::var(FROZEN).ok().and_then(|text| text.parse().ok()) else { return };
    allow_many();
    let requests = ["", "GET /livez HT", "GET /api/v1/sessions/large/export HTTP/1.1\r\nHost: localhost\r\n\r\n"];
    let mut streams: Vec<_> = std::iter::from_fn(|| connect(address)).take(300).collect();
    for (stream, request) in streams.iter_mut().zip(requests.iter().cycle()) {
        let _ = stream.write_all(request.as_bytes());
    }
    println!("all connected");
    // Until our end is wanted.
    let _ = std::io::stdin().read(&mut [0]);
}

type Begin = fn(&Server) -> Attack;

const ATTACKS: [(&str, Begin); 12] = [
    ("silence", silence),
    ("slow-heads", slow_heads),
    ("slow-bodies", slow_bodies),
    ("slow-chunks", slow_chunks),
    ("almost-whole-bodies", almost_whole_bodies),
    ("endless-bodies", endless_bodies),
    ("pipelines", pipelines),
    ("lingerers", lingerers),
    ("no-reader", no_reader),
    ("resets", resets),
    ("flood", flood),
    ("frozen", frozen),
];

/// A session of some hundred KiB.
fn fill(server: &Server) {
    server.session("large");
    let body = format!("{{\"content\":\"{}\"}}", "x".repeat(40_000));
    for _ in 0..10 {
        assert_eq!(server.ask("POST", "/api/v1/sessions/large/messages?wait=60", &body).0, 200);
    }
}

/// Some clients come and go: what the allocator has kept since the last of the attackers went is given back when these go,
/// so that what is counted afterwards is what is really held.
fn ebb(server: &Server) {
    let before = server.usage().descriptors;
    let streams: Vec<_> = (0..64).filter_map(|_| connect(server.address)).collect();
    eventually("they are there", || server.usage().descriptors >= before + streams.len());
}

#[test]
fn whatever_clients_do_others_are_served_and_nothing_is_lost() {
    let _alone = alone();
    allow_many();
    let server = Server::start();
    let idle = server.usage();
    fill(&server);
    let mut rounds = Vec::new();
    for round in 0..2 {
        for (name, begin) in ATTACKS {
            let session = format!("{name}-{round}");
            let answer_max = server.calm(&session);
            server.forget_peak();
            let before = server.usage();
            let start = Instant::now();
            let attack = begin(&server);
            let begun = start.elapsed();
            let worst = server.bystander(&session, WATCHED, answer_max);
            drop(attack);
            let after = server.usage();
            println!(
                "{session}: begun in {begun:?}, slowest answer {worst:?}, {before:?} before, {after:?} at the end"
            );
            let most = after.peak.saturating_sub(before.peak);
            assert!(most <= PEAK_KIB_MAX, "{session}: {most} KiB more were resident");
        }
        server.settle(idle);
        ebb(&server);
        rounds.push(server.settle(idle));
    }
    println!("{idle:?} at first, then {rounds:?}");
    let [first, second] = rounds[..] else { panic!("two rounds") };
    assert!(second.resident <= first.resident + LEAK_KIB_MAX, "{idle:?} at first, {first:?}, then {second:?}");
}
