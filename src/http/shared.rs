//! What all connections share, and how many there may be.
//!
//! Invariants: when all places are taken, a new connection takes that of the one which has waited longest for its client:
//! who dribbles a request or reads no answer cannot keep others out. Only when all are at work is it told so and closed,
//! which costs no more than a few bytes. A place is given back whatever ends the connection.

use super::conn;
use super::guard::{Access, Peer};
use super::io::{Io, Live};
use super::limits::Limits;
use super::meter::Meter;
use crate::session::Runtime;
use async_io::Async;
use duragent_platform::process::release_memory;
use smol::channel::{Receiver, Sender, bounded};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections over the limit that are being told so. Those over this one as well are closed without a word.
const REFUSALS_MAX: usize = 32;

/// One in so many places is kept for requests that are answered at once, but not more than so many: whoever follows
/// sessions must not keep an operator from asking how the server is.
const LASTING_SPARE: usize = 8;
const LASTING_SPARE_MAX: usize = 32;

/// Connections at a time that make it worth the while to give memory back when they have gone.
const FLOOD: usize = 32;

/// Connections that were given up and may still be there while others are accepted: beyond that their descriptors would
/// count.
const LEAVING_MAX: usize = 8;

/// Numbers for `/metrics`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) connections: u64,
    /// The same by what they do.
    pub(super) states: [(&'static str, u64); 3],
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) given_up: u64,
}

/// What all connections share.
pub struct Shared {
    pub(super) runtime: Runtime,
    pub(super) limits: Limits,
    access: Access,
    pub(super) live: Mutex<Connections>,
    pub(super) draining: AtomicBool,
    pub(super) meter: Meter,
    /// Bytes of the bodies that are arriving: the sum of what the connections say.
    arriving: AtomicUsize,
    /// Whoever asked for the end wants a new beginning.
    restart: AtomicBool,
    /// Closed when somebody asks for the end over HTTP.
    stop: (Sender<()>, Receiver<()>),
    /// A word here whenever a connection has ended.
    pub(super) ended: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
pub(super) struct Connections {
    /// In no order; few enough to search (`connections_max`).
    pub(super) open: Vec<(u64, Arc<Live>)>,
    refusals: usize,
    lasting: usize,
    accepted: u64,
    refused: u64,
    given_up: u64,
    /// Given up, and not gone yet: their descriptors are still taken.
    leaving: usize,
    /// Most open ones since memory was last given back.
    most: usize,
}

impl Shared {
    /// Everything that serving a connection takes, without a listener.
    #[must_use]
    pub fn new(runtime: Runtime, access: Access, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            limits,
            access,
            live: Mutex::default(),
            draining: AtomicBool::new(false),
            meter: Meter::default(),
            arriving: AtomicUsize::new(0),
            restart: AtomicBool::new(false),
            stop: bounded(1),
            ended: bounded(1),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn traffic(&self) -> Traffic {
        let live = self.connections();
        let connections = live.open.len();
        let idle = live.open.iter().filter(|(_, live)| live.idle.load(Ordering::Relaxed)).count();
        let busy = connections.saturating_sub(idle + live.lasting);
        Traffic {
            connections: connections as u64,
            states: [("idle", idle as u64), ("busy", busy as u64), ("lasting", live.lasting as u64)],
            accepted: live.accepted,
            refused: live.refused,
            given_up: live.given_up,
        }
    }

    pub(super) fn request_shutdown(&self, restart: bool) {
        self.restart.store(restart, Ordering::SeqCst);
        self.stop.0.close();
    }

    /// True if the server is to start again when it has drained, with the binary that is in its place then.
    #[must_use]
    pub fn is_to_restart(&self) -> bool {
        self.restart.load(Ordering::SeqCst)
    }

    /// Resolves once `POST /api/admin/v1/shutdown` was asked for. What follows is [`super::Server::drain`].
    pub async fn shutdown_requested(&self) {
        // Nothing is ever sent: the only answer is that the channel is closed.
        let _ = self.stop.1.recv().await;
    }

    pub(super) fn connections(&self) -> MutexGuard<'_, Connections> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for the connection, if there is one or one can be made.
    fn admit(self: &Arc<Self>, live: Arc<Live>) -> Admission {
        let mut connections = self.connections();
        if connections.open.len() < self.limits.connections_max || connections.give_up(|_| true).is_some() {
            connections.accepted += 1;
            let number = connections.accepted;
            connections.open.push((number, live));
            connections.most = connections.most.max(connections.open.len());
            return Admission::Open(Place { shared: Arc::clone(self), kind: Kind::Open(number) });
        }
        connections.refused += 1;
        if connections.refusals < REFUSALS_MAX {
            connections.refusals += 1;
            return Admission::Refused(Place { shared: Arc::clone(self), kind: Kind::Refused });
        }
        Admission::Dropped
    }

    /// Gives up the connection that has waited longest for its client, if one waits.
    pub(super) fn make_room(&self) {
        self.connections().give_up(|_| true);
    }

    /// True while as many as [`LEAVING_MAX`] have been given up and are not gone.
    pub(super) fn is_crowded(&self) -> bool {
        self.connections().leaving >= LEAVING_MAX
    }

    /// Takes a place for an answer that lasts: a stream of events, or the wait for a turn. `None` if only those are left that
    /// are kept for answers that do not.
    pub(super) fn admit_lasting(self: &Arc<Self>) -> Option<Place> {
        let max = self.limits.connections_max;
        let mut connections = self.connections();
        if connections.lasting >= max - (max / LASTING_SPARE).min(LASTING_SPARE_MAX) {
            return None;
        }
        connections.lasting += 1;
        Some(Place { shared: Arc::clone(self), kind: Kind::Lasting })
    }

    /// Notes how much of the body of a connection there is. If that is too much in all, who has waited longest with a part
    /// of one is given up, and it may be this one.
    pub(super) fn arrives(&self, live: &Live, bytes: usize) {
        let before = live.arriving.swap(bytes, Ordering::Relaxed);
        let more = bytes.wrapping_sub(before);
        let all = self.arriving.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
        if bytes > before && all > self.limits.arriving_bytes_max() {
            let given_up = self.connections().give_up(|live| live.arriving.load(Ordering::Relaxed) > 0);
            let freed = given_up.map_or(0, |live| live.arriving.swap(0, Ordering::Relaxed));
            self.arriving.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

impl Connections {
    /// True if many have gone since memory was last given back: what they took is not needed again soon.
    fn is_ebb(&mut self) -> bool {
        let ebb = self.most >= FLOOD && self.open.len() <= self.most / 2;
        if ebb {
            self.most = self.open.len();
        }
        ebb
    }

    /// Gives up the connection that has waited longest for its client, among those that `may` go. `None` if all of them are at
    /// work: then it is we who are slow.
    fn give_up(&mut self, may: fn(&Live) -> bool) -> Option<Arc<Live>> {
        loop {
            let candidates = self.open.iter().enumerate().filter(|(_, (_, live))| may(live));
            let (since, at) = candidates.filter_map(|(at, (_, live))| Some((live.waiting()?, at))).min()?;
            // A failure means that its request became whole just now: there may be another.
            if self.open.get(at).is_some_and(|(_, live)| live.give_up(since)) {
                self.given_up += 1;
                self.leaving += 1;
                return Some(self.open.swap_remove(at).1);
            }
        }
    }
}

enum Admission {
    Open(Place),
    Refused(Place),
    Dropped,
}

/// A connection's place among the others, given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    kind: Kind,
}

enum Kind {
    /// The connection of this number.
    Open(u64),
    /// One that is being refused.
    Refused,
    /// An answer that lasts.
    Lasting,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        match self.kind {
            Kind::Open(number) => {
                // One that was given up is not there any more.
                match connections.open.iter().position(|(open, _)| *open == number) {
                    Some(at) => drop(connections.open.swap_remove(at)),
                    None => connections.leaving -= 1,
                }
            }
            Kind::Refused => connections.refusals -= 1,
            Kind::Lasting => connections.lasting -= 1,
        }
        let ebb = connections.is_ebb();
        drop(connections);
        // Full means that the word is there already.
        let _ = self.shared.ended.0.try_send(());
        if ebb {
            release_memory();
        }
    }
}

/// Serves one connection to its end. The command line serves a socket pair this way without a listener.
pub async fn serve_stream(stream: UnixStream, peer: Peer, shared: Arc<Shared>) {
    let Ok(socket) = Async::new(stream) else { return };
    let mut io = Io::new(Live::new(socket), shared.limits.write_time_max);
    match shared.admit(Arc::clone(&io.live)) {
        Admission::Open(_place) => conn::serve(&mut io, peer, &shared).await,
        Admission::Refused(_place) => conn::refuse(&mut io, peer, &shared).await,
        Admission::Dropped => {}
    }
}
