//! Accepts connections and drains them.
//!
//! Invariants: nothing that `accept` says ends the loop. Draining stops accepting at once and breaks no request before the
//! deadline.
//!
//! Absent: HTTP (`conn`), and signals, which the command line turns into [`Server::drain`].

use super::door::{BindError, Door, Listen};
use super::shared::{Shared, serve_stream};
use async_io::Timer;
use duragent_platform::log;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause after a failure to accept that is likely to last (no descriptors, no memory). By then a connection that waited for
/// its client is gone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// First pause before an address is tried again that was not there; doubles.
const LATE_PAUSE: Duration = Duration::from_millis(250);
/// Longest: who has plugged the cable in waits for it.
const LATE_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Connections that are taken in a row before those that are open get their turn. Whoever connects fast enough would
/// otherwise keep everybody else waiting.
const ROW_MAX: u32 = 8;

/// How many turns those that were given up get to go before the next is accepted, and how many pauses if that was not enough:
/// a pause is long for those who wait to be accepted.
const LEAVING_TURNS_MAX: u32 = 64;
const LEAVING_PAUSES_MAX: u32 = 4;
const LEAVING_PAUSE: Duration = Duration::from_millis(1);

/// Listeners that are being served.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<Listen>,
    accepting: Mutex<Vec<smol::Task<()>>>,
}

impl Server {
    /// Binds all of `listen` and begins to serve on the smol executor. An address that this machine does not have yet is waited
    /// for: a network may come up later than we do.
    ///
    /// # Errors
    /// [`BindError`] if one address cannot be had; then none is served.
    pub fn bind(listen: &[Listen], shared: Arc<Shared>) -> Result<Self, BindError> {
        let (mut doors, mut late) = (Vec::new(), Vec::new());
        for listen in listen {
            match Door::open(listen, &shared) {
                Ok(door) => doors.push(door),
                Err(BindError::Io(listen, error)) if is_early(&error) => late.push(listen),
                Err(error) => return Err(error),
            }
        }
        let addresses = doors.iter().map(|door| door.address.clone()).collect();
        let accepting = doors.into_iter().map(|door| smol::spawn(accept(door, Arc::clone(&shared))));
        let waiting = late.into_iter().map(|listen| smol::spawn(wait_for(listen, Arc::clone(&shared))));
        let accepting = accepting.chain(waiting).collect();
        Ok(Self { shared, addresses, accepting: Mutex::new(accepting) })
    }

    /// Where it listens from the start, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Stops accepting and closes idle connections at once; drains the runtime, which gives turns `grace` to finish and
    /// then ends event streams; waits a little for requests under way, then cuts them off. True if none had to be.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        let accepting = std::mem::take(&mut *self.accepting.lock().unwrap_or_else(PoisonError::into_inner));
        for task in accepting {
            // Closes the listener.
            task.cancel().await;
        }
        for (_, live) in self.shared.connections().open.iter().filter(|(_, live)| live.idle.load(Ordering::SeqCst)) {
            live.shut(Shutdown::Read);
        }
        self.shared.runtime.drain(grace).await;
        let deadline = Instant::now() + self.shared.limits.last_time_max;
        while !self.shared.connections().open.is_empty() {
            let ended = async { self.shared.ended.1.recv().await.is_ok() };
            let late = async {
                Timer::at(deadline).await;
                false
            };
            if !smol::future::or(ended, late).await {
                let connections = self.shared.connections();
                connections.open.iter().for_each(|(_, live)| live.shut(Shutdown::Both));
                return connections.open.is_empty();
            }
        }
        true
    }
}

/// True if the address may be there later.
fn is_early(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
}

/// Serves at an address as soon as this machine has it.
async fn wait_for(listen: Listen, shared: Arc<Shared>) {
    let (about, mut pause) = (listen.to_string(), LATE_PAUSE);
    log::warn(&["waiting for ", &about, ": this machine does not have that address yet"].concat());
    loop {
        Timer::after(pause).await;
        match Door::open(&listen, &shared) {
            Ok(door) => {
                log::info(&["listening on ", &door.address.to_string()].concat());
                return accept(door, shared).await;
            }
            Err(BindError::Io(_, error)) if is_early(&error) => {}
            // Somebody else has it, for now.
            Err(error) if pause < LATE_PAUSE_MAX => log::warn(&error.to_string()),
            Err(_) => {}
        }
        pause = (pause * 2).min(LATE_PAUSE_MAX);
    }
}

async fn accept(door: Door, shared: Arc<Shared>) {
    let mut row = 0;
    loop {
        row += 1;
        if row == ROW_MAX {
            row = 0;
            smol::future::yield_now().await;
            let mut turns = 0;
            while shared.is_crowded() && turns < LEAVING_TURNS_MAX + LEAVING_PAUSES_MAX {
                turns += 1;
                if turns <= LEAVING_TURNS_MAX {
                    smol::future::yield_now().await;
                } else {
                    Timer::after(LEAVING_PAUSE).await;
                }
            }
        }
        match door.accept().await {
            Ok((stream, peer)) => {
                let served = serve_stream(stream, peer, Arc::clone(&shared));
                smol::spawn(served).detach();
            }
            Err(error) => {
                shared.meter.accept_failed(&error);
                // Of these only one connection died, not the listener.
                if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                    shared.make_room();
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
