//! Accepts connections and drains them.
//!
//! Invariants: nothing that `accept` says ends the loop. Draining stops accepting at once and breaks no request before the
//! deadline.
//!
//! Absent: HTTP (`conn`), and signals, which the command line turns into [`Server::drain`].

use super::door::{BindError, Door, Listen};
use super::shared::{Shared, serve_stream};
use async_io::Timer;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause after a failure to accept that is likely to last (no descriptors, no memory). By then a connection that waited for
/// its client is gone.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
    /// Binds all of `listen` and begins to serve on the smol executor.
    ///
    /// # Errors
    /// [`BindError`] if one address cannot be had; then none is served.
    pub fn bind(listen: &[Listen], shared: Arc<Shared>) -> Result<Self, BindError> {
        let doors: Vec<Door> = listen.iter().map(|listen| Door::open(listen, &shared)).collect::<Result<_, _>>()?;
        let addresses = doors.iter().map(|door| door.address.clone()).collect();
        let accepting = doors.into_iter().map(|door| smol::spawn(accept(door, Arc::clone(&shared)))).collect();
        Ok(Self { shared, addresses, accepting: Mutex::new(accepting) })
    }

    /// Where it listens, with the ports that the system chose.
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
