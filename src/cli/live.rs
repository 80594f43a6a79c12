//! What a command that stays with a session hears: its events, signals, and lines of standard input, in one queue.
//!
//! Job: follow a session across restarts of the server, catch signals, read lines; each on a thread of its own, since all
//! three block. Send messages in a way that may be repeated.
//!
//! Invariant: events arrive once and in order of seq, whatever happens to the connection. A second signal ends the process
//! if the first one is still unanswered: a server that hangs cannot keep anybody.

use super::Failure;
use super::connect::{self, Connection};
use crate::http::client::{Event, Events, Stream};
use async_io::Async;
use duragent_core::json::{self, ObjectWriter, Value};
use duragent_platform::process;
use duragent_platform::signal::{Signal, Signals};
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Items that wait for the command; above, the threads wait. A slow terminal makes the server drop us, and we come back.
const QUEUE_MAX: usize = 256;
/// Pause between two attempts to reach a server that went away.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Longest line of standard input in bytes; the rest of it is the next line. As the largest message a workspace can allow.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Exit code after `SIGINT`.
pub const INTERRUPTED: u8 = 130;
/// Exit code after `SIGTERM`.
pub const TERMINATED: u8 = 143;

/// Something to react to.
#[derive(Debug)]
pub enum Heard {
    /// An event of the session, or a token.
    Event(Event),
    /// The server does not answer any more; it is being looked for.
    Gone,
    /// It is back.
    Back,
    /// It did not come back in time, or does not want to talk about this session.
    Lost(Failure),
    /// A line of standard input.
    Line(String),
    /// Standard input ended.
    InputEnd,
    /// Somebody wants us to stop.
    Signal(Signal),
}

/// The queue, and what fills it.
pub struct Live {
    sender: SyncSender<Heard>,
    receiver: Receiver<Heard>,
    /// A signal is in the queue, or being answered.
    signalled: Arc<AtomicBool>,
}

impl Live {
    /// Catches signals from here on. Once in a process.
    pub fn new() -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::new(format!("cannot catch signals: {error}"));
        let signals = Async::new(Signals::new().map_err(cannot)?).map_err(cannot)?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let signalled = Arc::new(AtomicBool::new(false));
        let (to, flag) = (sender.clone(), Arc::clone(&signalled));
        std::thread::spawn(move || {
            loop {
                while let Some(signal) = signals.get_ref().read() {
                    if signal == Signal::User1 {
                        continue;
                    }
                    if flag.swap(true, Ordering::SeqCst) {
                        std::process::exit(i32::from(code(signal)));
                    }
                    to.send(Heard::Signal(signal)).ok();
                }
                if smol::block_on(signals.readable()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { sender, receiver, signalled })
    }

    /// The next thing that happens. Asking for it says that the signal before it, if it was one, has been dealt with.
    pub fn next(&self) -> Heard {
        self.signalled.store(false, Ordering::SeqCst);
        // We hold a sender ourselves, so the queue cannot end.
        self.receiver.recv().unwrap_or(Heard::Signal(Signal::Terminate))
    }

    /// As [`Live::next`]; `None` if nothing happens until `deadline`.
    pub fn next_until(&self, deadline: Instant) -> Option<Heard> {
        self.signalled.store(false, Ordering::SeqCst);
        self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Follows `session` after seq `after`, and looks for a server that goes away for as long as `patience`. Listens when
    /// this returns: what is sent then is heard with every token of its answer.
    pub fn follow(&self, connection: &Arc<Connection>, session: &str, after: u64, patience: Duration) {
        self.follow_as(connection, session, after, patience, false);
    }

    /// The same before a message is delivered: whether another process has the session is told by that, and may have
    /// changed by then.
    pub fn follow_message(&self, connection: &Arc<Connection>, session: &str, after: u64, patience: Duration) {
        self.follow_as(connection, session, after, patience, true);
    }

    fn follow_as(&self, connection: &Arc<Connection>, session: &str, after: u64, patience: Duration, waits: bool) {
        let (connection, to) = (Arc::clone(connection), self.sender.clone());
        let path = format!("/api/v1/sessions/{session}/events");
        let first = connection.client().events(&path, Some(after));
        let place = Place { after, patience, waits };
        std::thread::spawn(move || follow(&connection, &path, first, place, &to));
    }

    /// Reads standard input line by line.
    pub fn read_lines(&self) {
        let to = self.sender.clone();
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line);
                if !matches!(read, Ok(1..)) {
                    to.send(Heard::InputEnd).ok();
                    return;
                }
                let text = String::from_utf8_lossy(&line);
                if to.send(Heard::Line(text.trim_end_matches(['\r', '\n']).to_owned())).is_err() {
                    return;
                }
            }
        });
    }
}

/// The exit code of a process that ends because of `signal`: 128 and its number.
pub fn code(signal: Signal) -> u8 {
    match signal {
        Signal::Interrupt => INTERRUPTED,
        Signal::Hangup => 129,
        Signal::Terminate | Signal::User1 => TERMINATED,
    }
}

/// Where one listens, and for how long one looks for a server that is gone.
struct Place {
    after: u64,
    patience: Duration,
    /// Waits for a session that another process has.
    waits: bool,
}

/// Sends events until nobody listens or the server is lost. `stream` is the first attempt.
fn follow(
    connection: &Connection,
    path: &str,
    mut stream: io::Result<Stream>,
    Place { mut after, patience, waits }: Place,
    to: &SyncSender<Heard>,
) {
    let mut gone: Option<Instant> = None;
    loop {
        match stream {
            Ok(Stream::Events(events)) => {
                if gone.take().is_some() && to.send(Heard::Back).is_err() {
                    return;
                }
                match pass_on(events, &mut after, to) {
                    Passed::Ended => {}
                    Passed::Lagged => {
                        stream = connection.client().events(path, Some(after));
                        continue;
                    }
                    Passed::Unheard => return,
                }
            }
            // A server that is starting or going down; it may be another one in a moment.
            Ok(Stream::Other(response)) if response.status == 503 || (waits && is_leased(&response.body)) => {}
            Ok(Stream::Other(response)) => {
                to.send(Heard::Lost(connect::problem(&response))).ok();
                return;
            }
            Err(_) => {}
        }
        let since = *gone.get_or_insert_with(|| {
            to.send(Heard::Gone).ok();
            Instant::now()
        });
        if since.elapsed() > patience {
            to.send(Heard::Lost(Failure::new("the server went away; the turn is on disk"))).ok();
            return;
        }
        std::thread::sleep(RECONNECT_PAUSE);
        stream = connection.client().events(path, Some(after));
    }
}

/// True if a problem document says that another process has the session.
fn is_leased(problem: &[u8]) -> bool {
    std::str::from_utf8(problem).is_ok_and(|text| text.contains(":problem:leased\""))
}

/// How a stream came to its end.
enum Passed {
    /// The server closed it, or went away.
    Ended,
    /// We were too slow, and are to come back at once.
    Lagged,
    /// Nobody listens to us any more.
    Unheard,
}

/// Passes events on; `after` is the place to come back to.
fn pass_on(events: Events, after: &mut u64, to: &SyncSender<Heard>) -> Passed {
    for event in events.map_while(Result::ok) {
        match event.kind.as_str() {
            "lagged" => return Passed::Lagged,
            "shutdown" => return Passed::Ended,
            _ => *after = event.last_id.unwrap_or(*after),
        }
        if to.send(Heard::Event(event)).is_err() {
            return Passed::Unheard;
        }
    }
    Passed::Ended
}

/// A message on its way: sent again under the same key, it is one message.
#[derive(Debug, Clone)]
pub struct Message {
    body: String,
    key: String,
}

/// Where a message went.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Seq of its `message_received`.
    pub seq: u64,
    /// Turn that answers it.
    pub turn: u64,
}

impl Message {
    /// A message of the command line. `steps_max` bounds the model calls of its turn.
    pub fn new(content: &str, steps_max: Option<u64>) -> Self {
        let mut body = String::new();
        let mut object = ObjectWriter::new(&mut body);
        object.str("content", content).str("source", "cli");
        if let Some(steps) = steps_max {
            object.u64("steps_max", steps);
        }
        object.finish();
        Self { body, key: format!("cli-{:016x}{:016x}", process::random_u64(), process::random_u64()) }
    }

    /// Sends it. `Ok(None)` if the server did not answer: it may have the message or not, and sending it again does no harm.
    ///
    /// # Errors
    /// If it was refused.
    pub fn send(&self, connection: &Connection, session: &str) -> Result<Option<Sent>, Failure> {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", self.key.as_str())];
        let path = format!("/api/v1/sessions/{session}/messages");
        let Ok(response) = connection.client().request("POST", &path, &headers, self.body.as_bytes()) else {
            return Ok(None);
        };
        if !(200..300).contains(&response.status) {
            return Err(connect::problem(&response));
        }
        let answer = std::str::from_utf8(&response.body).ok().and_then(|text| json::parse(text).ok());
        let number = |name| answer.as_ref().and_then(|a| a.get(name)).and_then(Value::as_u64);
        match (number("seq"), number("turn")) {
            (Some(seq), Some(turn)) => Ok(Some(Sent { seq, turn })),
            _ => Err(Failure::new("the answer to a message has no seq and turn; is the server of another version?")),
        }
    }

    /// As [`Message::send`], again and again for as long as `patience`.
    ///
    /// # Errors
    /// If it was refused, or nobody answered.
    pub fn deliver(&self, connection: &Connection, session: &str, patience: Duration) -> Result<Sent, Failure> {
        let start = Instant::now();
        loop {
            if let Some(sent) = self.send(connection, session)? {
                return Ok(sent);
            }
            if start.elapsed() > patience {
                return Err(Failure::new("the server went away before it took the message"));
            }
            std::thread::sleep(RECONNECT_PAUSE);
        }
    }
}
