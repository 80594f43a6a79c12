//! A connection to a server: TCP, through a proxy if there is one, with TLS on top for `https`, under the limits of its
//! lane's [`Slot`].
//!
//! What is to be sent waits until something is read, so that the head of a request goes out with its body (and, with
//! TLS, in as few records).
//!
//! Invariants: no read and no write waits longer than its limit; while the connection is made, the TLS handshake
//! and what is said to a proxy included, that limit is the connect timeout.

use super::lane::{Slot, WAIT_MAX, WAIT_MIN};
use super::proxy::{self, Proxy};
use super::tls::{self, ClientConnection, Tls};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// Most bytes that wait to be sent. More is sent at once; the buffer itself grows by one of ureq's at most.
const UNSENT_MAX: usize = 8 * 1024;

/// Makes the connections of a lane.
pub(super) struct Connect {
    pub(super) slot: Arc<Slot>,
    pub(super) tls: Arc<Tls>,
    pub(super) proxy: Option<Arc<Proxy>>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connect")
    }
}

impl Connector<()> for Connect {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let deadline = Instant::now() + (*details.timeout.after).min(WAIT_MAX);
        let mut wire = self.wire(details, deadline)?;
        let (mut tls, mut via) = (None, None);
        let host = details.uri.host().unwrap_or_default();
        if let Some(proxy) = &self.proxy {
            let port = details.uri.port_u16().unwrap_or(if details.needs_tls() { 443 } else { 80 });
            let target = [host, ":", &port.to_string()].concat();
            if details.needs_tls() {
                wire.unsent.extend_from_slice(proxy.connect_request(&target).as_bytes());
                wire.send()?;
                proxy::read_answer(&mut wire)?;
            } else {
                via = Some((Arc::clone(proxy), ["http://", &target].concat()));
            }
        }
        if details.needs_tls() {
            let mut session = self.tls.begin(host.trim_matches(['[', ']']))?;
            while session.is_handshaking() {
                wire.exchange(&mut session)?;
            }
            tls = Some(session);
        }
        wire.connect_by = None;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Connection { wire, tls, via, begins: true, buffers }))
    }
}

impl Connect {
    /// Connects to the first address that answers.
    fn wire(&self, details: &ConnectionDetails<'_>, deadline: Instant) -> Result<Wire, Error> {
        let mut last = Error::HostNotFound;
        for address in &details.addrs {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(Timeout::Connect));
            }
            match TcpStream::connect_timeout(address, left.max(WAIT_MIN)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream = Arc::new(stream);
                    self.slot.attach(&stream)?;
                    return Ok(Wire {
                        stream,
                        slot: Arc::clone(&self.slot),
                        connect_by: Some(deadline),
                        unsent: Vec::new(),
                        read_wait: Duration::ZERO,
                        write_wait: Duration::ZERO,
                    });
                }
                Err(e) if is_timeout(&e) => last = Error::Timeout(Timeout::Connect),
                Err(e) => last = Error::Io(e),
            }
        }
        Err(last)
    }
}

/// A TCP connection whose every read and write is limited.
struct Wire {
    stream: Arc<TcpStream>,
    slot: Arc<Slot>,
    /// While the connection is being made: when it has to be there at the latest.
    connect_by: Option<Instant>,
    /// Written, but not sent before something is read.
    unsent: Vec<u8>,
    /// As set on the socket, to spare the system call.
    read_wait: Duration,
    write_wait: Duration,
}

impl Wire {
    /// `ours`, or what is left for connecting.
    fn wait(&self, ours: (Duration, Timeout)) -> io::Result<(Duration, Timeout)> {
        let (wait, name) = match self.connect_by {
            Some(by) => (by.saturating_duration_since(Instant::now()), Timeout::Connect),
            None => ours,
        };
        if wait.is_zero() { Err(Error::Timeout(name).into_io()) } else { Ok((wait.max(WAIT_MIN), name)) }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let (wait, name) = self.wait((self.slot.write_wait(), Timeout::PerWrite))?;
        if wait != self.write_wait {
            self.stream.set_write_timeout(Some(wait))?;
            self.write_wait = wait;
        }
        let sent = (&*self.stream).write_all(&self.unsent);
        self.unsent.clear();
        sent.map_err(|e| named(e, name))
    }

    /// Sends what `session` has to say, waits for something from the server and hands it to `session`.
    fn exchange(&mut self, session: &mut ClientConnection) -> io::Result<()> {
        self.collect(session)?;
        self.send()?;
        if session.read_tls(self)? == 0 && session.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let processed = session.process_new_packets();
        self.collect(session)?;
        processed.map(drop).map_err(|error| {
            // The alert is for the server's log; what went wrong is known.
            let _ = self.send();
            tls::told(error)
        })
    }

    /// Takes over what `session` has to say.
    fn collect(&mut self, session: &mut ClientConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut self.unsent)?;
        }
        Ok(())
    }
}

/// Errors that are ureq's are wrapped; [`Error::from`] unwraps them.
impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (wait, name) = self.wait(self.slot.read_wait())?;
            if wait != self.read_wait {
                self.stream.set_read_timeout(Some(wait))?;
                self.read_wait = wait;
            }
            match (&*self.stream).read(buffer) {
                // Linux does not restart a read that has a timeout, so a signal shows up here.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(|e| named(e, name)),
            }
        }
    }
}

/// What ureq reads and writes through.
pub(super) struct Connection {
    wire: Wire,
    tls: Option<Box<ClientConnection>>,
    /// The proxy that is told every request's whole target, and the beginning of that.
    via: Option<(Arc<Proxy>, String)>,
    /// What is written next is the beginning of a request.
    begins: bool,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// The timeouts of ureq's requests are not set, so that what it passes on here is always "never"; the slot's count.
impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut output = self.buffers.output().get(..amount).unwrap_or_default();
        let rewritten;
        if let (true, Some((proxy, origin))) = (std::mem::take(&mut self.begins), &self.via) {
            // The line ends within ureq's buffer, or it would have refused it.
            rewritten = proxy.rewritten(origin, output).ok_or(Error::Io(io::ErrorKind::InvalidInput.into()))?;
            output = &rewritten;
        }
        let Some(session) = &mut self.tls else {
            self.wire.unsent.extend_from_slice(output);
            return if self.wire.unsent.len() > UNSENT_MAX { Ok(self.wire.send()?) } else { Ok(()) };
        };
        while !output.is_empty() {
            // It takes as much as it has room for, and has room again after it was collected.
            let taken = session.writer().write(output)?;
            if taken == 0 {
                return Err(Error::Io(io::ErrorKind::WriteZero.into()));
            }
            output = output.get(taken..).unwrap_or_default();
            self.wire.collect(session)?;
            if self.wire.unsent.len() > UNSENT_MAX {
                self.wire.send()?;
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.wire.send()?;
        self.begins = true;
        let buffer = self.buffers.input_append_buf();
        let amount = match &mut self.tls {
            None => self.wire.read(buffer)?,
            Some(session) => loop {
                match session.reader().read(buffer) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wire.exchange(session)?,
                    other => break other?,
                }
            },
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Asked before a kept connection is used again: open means that a read would have to wait.
    fn is_open(&mut self) -> bool {
        let stream = &self.wire.stream;
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        let quiet = matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        quiet && stream.set_nonblocking(false).is_ok()
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// `error`, or the timeout of this name if that is what it was.
fn named(error: io::Error, name: Timeout) -> io::Error {
    if is_timeout(&error) { Error::Timeout(name).into_io() } else { error }
}
