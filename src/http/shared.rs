//! What all connections share, and how many there may be.
//!
//! Invariants: a connection over the limit is told so and closed, and costs no more than a few bytes. A place is given back
//! whatever ends the connection.

use super::conn;
use super::guard::{Access, Peer, Token};
use super::io::{Io, Live};
use super::limits::Limits;
use super::meter::Meter;
use crate::session::Runtime;
use async_io::Async;
use smol::channel::{Receiver, Sender, bounded};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections over the limit that are being told so. Those over this one as well are closed without a word.
const REFUSALS_MAX: usize = 32;

/// Numbers for `/metrics`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) connections: u64,
    /// The same by what they do.
    pub(super) states: [(&'static str, u64); 3],
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

/// What all connections share.
pub struct Shared {
    pub(super) runtime: Runtime,
    pub(super) limits: Limits,
    access: Access,
    pub(super) live: Mutex<Connections>,
    pub(super) draining: AtomicBool,
    pub(super) meter: Meter,
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
    accepted: u64,
    refused: u64,
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
            stop: bounded(1),
            ended: bounded(1),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn token(&self) -> Option<&Token> {
        self.access.token.as_ref()
    }

    pub(super) fn admin_token(&self) -> Option<&Token> {
        self.access.admin_token.as_ref().or(self.token())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn traffic(&self) -> Traffic {
        let live = self.connections();
        let connections = live.open.len() as u64;
        let idle = live.open.iter().filter(|(_, live)| live.idle.load(Ordering::Relaxed)).count() as u64;
        let streaming = self.meter.streams();
        let busy = connections.saturating_sub(idle + streaming);
        Traffic {
            connections,
            states: [("idle", idle), ("busy", busy), ("streaming", streaming)],
            accepted: live.accepted,
            refused: live.refused,
        }
    }

    pub(super) fn request_shutdown(&self) {
        self.stop.0.close();
    }

    /// Resolves once `POST /api/admin/v1/shutdown` was asked for. What follows is [`Server::drain`].
    pub async fn shutdown_requested(&self) {
        // Nothing is ever sent: the only answer is that the channel is closed.
        let _ = self.stop.1.recv().await;
    }

    pub(super) fn connections(&self) -> MutexGuard<'_, Connections> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for the connection, if there is one.
    fn admit(self: &Arc<Self>, live: Arc<Live>) -> Admission {
        let mut connections = self.connections();
        if connections.open.len() < self.limits.connections_max {
            connections.accepted += 1;
            let number = connections.accepted;
            connections.open.push((number, live));
            return Admission::Open(Place { shared: Arc::clone(self), number: Some(number) });
        }
        connections.refused += 1;
        if connections.refusals < REFUSALS_MAX {
            connections.refusals += 1;
            return Admission::Refused(Place { shared: Arc::clone(self), number: None });
        }
        Admission::Dropped
    }
}

enum Admission {
    Open(Place),
    Refused(Place),
    Dropped,
}

/// A connection's place among the others, given back when dropped.
struct Place {
    shared: Arc<Shared>,
    /// `None` for one that is being refused.
    number: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        match self.number {
            Some(number) => {
                if let Some(at) = connections.open.iter().position(|(open, _)| *open == number) {
                    connections.open.swap_remove(at);
                }
            }
            None => connections.refusals -= 1,
        }
        // Full means that the word is there already.
        let _ = self.shared.ended.0.try_send(());
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
