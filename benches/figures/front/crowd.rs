//! Many subscribers to event streams, on one thread and with as little work for each event as can be: it runs on the same
//! cores as the server.

use crate::failure::{Result, doing, fail};
use crate::scene::go_on;
use async_io::Async;
use smol::io::AsyncWriteExt;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes that one read asks for.
const READ_BYTES: usize = 16 * 1024;
/// How long all of them are waited for, and how often they are asked.
const HEARD_TIME_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Subscribers, gone when dropped.
#[derive(Default)]
pub struct Crowd {
    tasks: Vec<smol::Task<()>>,
    heard: Arc<Heard>,
}

/// What all of them have heard so far.
#[derive(Default)]
struct Heard {
    /// Subscribers whose stream has begun.
    begun: AtomicU64,
    bytes: AtomicU64,
    /// Events.
    all: AtomicU64,
    /// Those with an id.
    durable: AtomicU64,
    /// Subscribers whose stream has ended.
    lost: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// Bytes, heads of answers included.
    pub bytes: u64,
    /// Events.
    pub all: u64,
    /// Events with an id.
    pub durable: u64,
}

impl Crowd {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// One more, who follows `session`.
    pub fn join(&mut self, address: SocketAddr, session: &str) -> Result<()> {
        let request = format!(
            "GET /api/v1/sessions/{session}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        );
        let stream = smol::block_on(async {
            let mut stream = Async::<TcpStream>::connect(address).await?;
            stream.write_all(request.as_bytes()).await?;
            Ok::<_, std::io::Error>(stream)
        });
        let stream = stream.map_err(doing(format!("subscriber {}", self.len())))?;
        let heard = Arc::clone(&self.heard);
        self.tasks.push(smol::spawn(async move {
            listen(stream, &heard).await;
            heard.lost.fetch_add(1, Ordering::Release);
        }));
        Ok(())
    }

    /// What they have heard so far. An error if one of them has lost its stream: then nobody can say what is missing.
    pub fn heard(&self) -> Result<Count> {
        match self.heard.lost.load(Ordering::Acquire) {
            0 => {}
            lost => return fail(format!("{lost} of {} subscribers lost their stream", self.len())),
        }
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Ok(Count { bytes: load(&self.heard.bytes), all: load(&self.heard.all), durable: load(&self.heard.durable) })
    }

    /// Waits until all of their streams have begun, and they have heard so many events with ids, all together.
    pub fn until(&self, durable: u64) -> Result<()> {
        let start = Instant::now();
        loop {
            let heard = self.heard()?;
            let begun = self.heard.begun.load(Ordering::Relaxed);
            if heard.durable >= durable && begun >= self.len() as u64 {
                return Ok(());
            }
            if start.elapsed() > HEARD_TIME_MAX {
                return fail(format!(
                    "expected {durable} events at {} subscribers, found {heard:?} at {begun}",
                    self.len()
                ));
            }
            go_on()?;
            std::thread::sleep(PAUSE);
        }
    }
}

/// Counts to the end of the stream, or until the task is dropped.
async fn listen(stream: Async<TcpStream>, heard: &Heard) {
    let (mut scan, mut begun) = (Scan::default(), false);
    loop {
        let some = stream.read_with(|mut stream| {
            let mut buffer = [0; READ_BYTES];
            let read = stream.read(&mut buffer)?;
            let (all, durable) = scan.feed(buffer.get(..read).unwrap_or_default());
            if !std::mem::replace(&mut begun, true) {
                heard.begun.fetch_add(1, Ordering::Relaxed);
            }
            heard.bytes.fetch_add(read as u64, Ordering::Relaxed);
            heard.all.fetch_add(all, Ordering::Relaxed);
            heard.durable.fetch_add(durable, Ordering::Relaxed);
            Ok(read > 0)
        });
        if !matches!(some.await, Ok(true)) {
            return;
        }
    }
}

/// Finds the fields of events in a stream, however it is cut.
#[derive(Default)]
struct Scan {
    /// What the current line begins with.
    start: [u8; DATA.len()],
    /// How much of that is known.
    known: usize,
}

const DATA: &[u8] = b"data: ";
const ID: &[u8] = b"id: ";

impl Scan {
    /// Takes more of the stream; how many events it has, and how many ids.
    fn feed(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut all, mut durable) = (0, 0);
        while let Some((&byte, rest)) = bytes.split_first() {
            if byte == b'\n' {
                self.known = 0;
                bytes = rest;
            } else if let Some(place) = self.start.get_mut(self.known) {
                *place = byte;
                self.known += 1;
                all += u64::from(self.start.get(..self.known) == Some(DATA));
                durable += u64::from(self.start.get(..self.known) == Some(ID));
                bytes = rest;
            } else {
                let line = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
                bytes = bytes.get(line..).unwrap_or_default();
            }
        }
        (all, durable)
    }
}
