//! One connection's socket, the bytes that have arrived and were not asked for yet, and one timer for all deadlines.
//!
//! Invariants: every wait has a deadline, and one that others can be made to wait for gives its connection up when the place
//! is needed ([`Live::give_up`]). The timer is armed only when something really waits, and not again while it is
//! armed for an earlier moment, so a busy keep-alive connection never touches it. While nothing has arrived, no buffer is
//! held: an idle connection is its task, its descriptor and its timer.
//!
//! Absent: anything about HTTP.

use async_io::{Async, Timer};
use smol::future::{poll_fn, yield_now};
use smol::io::{AsyncRead, AsyncWrite};
use std::io::IoSlice;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Bytes that one read asks for; lives on the stack during the system call only.
const READ_BYTES_MAX: usize = 4096;

/// Reads and writes that a connection does in a row before the others get their turn: all share one thread, and a client
/// that sends or takes as fast as we do would otherwise keep it.
const ROW_MAX: u32 = 16;

/// Bytes a client may send ahead (pipelining) while it is being answered. More is not a client we know.
const AHEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest time and most bytes we listen to after our last word, so that closing does not destroy it on its way: data
/// that arrives at a closed socket makes the kernel send a reset, which overtakes what the client has not read yet.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Every stream socket, TCP too: once accepted, they are all just descriptors that take `recv` and `send`, and one type
/// means that the connection code is compiled once.
pub(super) type Socket = Async<UnixStream>;

/// What the listener can see of a connection: enough to end it.
pub(super) struct Live {
    pub(super) socket: Socket,
    /// True while no request is under way, so that closing it breaks nothing.
    pub(super) idle: AtomicBool,
    /// Since when it waits for its client, as a number that grows with time; [`WORKING`] or [`GIVEN_UP`] if it does not.
    waiting: AtomicU64,
    /// Bytes of a body that is arriving.
    pub(super) arriving: AtomicUsize,
}

/// It is the client that waits.
const WORKING: u64 = 0;
/// Its place was needed.
const GIVEN_UP: u64 = u64::MAX;

impl Live {
    pub(super) fn new(socket: Socket) -> Arc<Self> {
        let live = Self {
            socket,
            idle: AtomicBool::new(true),
            waiting: AtomicU64::new(WORKING),
            arriving: AtomicUsize::new(0),
        };
        live.waits();
        Arc::new(live)
    }

    /// Makes the connection's next read say that the client is done.
    pub(super) fn shut(&self, how: Shutdown) {
        // The only failure is that the peer was faster.
        let _ = self.socket.get_ref().shutdown(how);
    }

    /// It waits for its client from now on, if it did not already: for a request that is not there yet, or not whole, or for
    /// an answer to be read.
    fn waits(&self) {
        static MOMENT: AtomicU64 = AtomicU64::new(WORKING + 1);
        let now = MOMENT.fetch_add(1, Ordering::Relaxed);
        // A failure means that it waits already, or was given up.
        let _ = self.waiting.compare_exchange(WORKING, now, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The client did its part. False if the connection was given up before.
    fn works(&self) -> bool {
        let works = |waiting| (waiting != GIVEN_UP).then_some(WORKING);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, works).is_ok()
    }

    /// Since when it waits for its client; the smallest has waited longest.
    pub(super) fn waiting(&self) -> Option<u64> {
        Some(self.waiting.load(Ordering::Acquire)).filter(|since| *since != WORKING && *since != GIVEN_UP)
    }

    /// Ends the connection, unless its client has done its part since `since`.
    pub(super) fn give_up(&self, since: u64) -> bool {
        let given_up = self.waiting.compare_exchange(since, GIVEN_UP, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if given_up {
            self.shut(Shutdown::Both);
        }
        given_up
    }
}

/// Why a read or write came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The deadline passed.
    Late,
    /// The other side closed, or the socket failed: nobody is left to tell.
    Closed,
}

/// A timer that is moved lazily.
struct Clock {
    timer: Timer,
    armed: Option<Instant>,
}

impl Clock {
    /// Ready once `at` has passed.
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        loop {
            if self.armed.is_none_or(|armed| armed > at) {
                self.timer.set_at(at);
                self.armed = Some(at);
            }
            ready!(Pin::new(&mut self.timer).poll(cx));
            self.armed = None;
            if Instant::now() >= at {
                return Poll::Ready(());
            }
        }
    }
}

/// The connection as its task sees it.
pub(super) struct Io {
    pub(super) live: Arc<Live>,
    /// Arrived, and not part of what is being answered.
    pub(super) pending: Vec<u8>,
    clock: Clock,
    /// Longest time without progress while we write.
    write_time_max: Duration,
    /// Reads and writes since others had their turn.
    row: u32,
}

impl Io {
    pub(super) fn new(live: Arc<Live>, write_time_max: Duration) -> Self {
        Self { live, pending: Vec::new(), clock: Clock { timer: Timer::never(), armed: None }, write_time_max, row: 0 }
    }

    /// Waits for more bytes and appends them to `pending`.
    pub(super) async fn fill(&mut self, deadline: Instant) -> Result<(), Lost> {
        self.take_turn().await;
        let Self { live, pending, clock, .. } = self;
        poll_fn(|cx| match poll_read(&live.socket, cx, pending) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => clock.poll(cx, deadline).map(|()| Err(Lost::Late)),
        })
        .await
    }

    /// Lets the other connections have their turn every now and then.
    async fn take_turn(&mut self) {
        self.row += 1;
        if self.row == ROW_MAX {
            self.row = 0;
            yield_now().await;
        }
    }

    /// From here on the connection waits for its client: see [`Live::waiting`].
    pub(super) fn waits(&self) {
        self.live.waits();
    }

    /// The head is whole: from here on the connection waits for the body, and not since before.
    pub(super) fn waits_anew(&self) -> Result<(), Lost> {
        self.works()?;
        self.waits();
        Ok(())
    }

    /// The request is whole, and it is up to us.
    pub(super) fn works(&self) -> Result<(), Lost> {
        if self.live.works() { Ok(()) } else { Err(Lost::Closed) }
    }

    /// Writes all of `bytes`. In the ordinary case that is one system call.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.write_all(&mut [IoSlice::new(bytes)]).await
    }

    /// Writes all of `parts`, from where they are, as if they were one.
    pub(super) async fn write_all(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), Lost> {
        // Takes empty parts away.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            self.take_turn().await;
            let mut deadline = None;
            let Self { live, clock, write_time_max, .. } = self;
            let written = poll_fn(|cx| match Pin::new(&mut &live.socket).poll_write_vectored(cx, parts) {
                Poll::Ready(result) => Poll::Ready(result.map_err(|_| Lost::Closed)),
                Poll::Pending => {
                    let at = *deadline.get_or_insert_with(|| {
                        live.waits();
                        Instant::now() + *write_time_max
                    });
                    clock.poll(cx, at).map(|()| Err(Lost::Late))
                }
            })
            .await?;
            if written == 0 || (deadline.is_some() && !live.works()) {
                return Err(Lost::Closed);
            }
            IoSlice::advance_slices(&mut parts, written);
        }
        Ok(())
    }

    /// Waits for `work`, but not past `deadline` and not for a client that has hung up. What the client sends meanwhile
    /// is kept in `pending`.
    pub(super) async fn attend<F: Future + ?Sized>(
        &mut self,
        mut work: Pin<&mut F>,
        deadline: Instant,
    ) -> Result<F::Output, Lost> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if let Poll::Ready(lost) = self.poll_gone(cx) {
                return Poll::Ready(Err(lost));
            }
            self.clock.poll(cx, deadline).map(|()| Err(Lost::Late))
        })
        .await
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        while self.pending.len() < AHEAD_BYTES_MAX {
            if let Err(lost) = ready!(poll_read(&self.live.socket, cx, &mut self.pending)) {
                return Poll::Ready(lost);
            }
        }
        Poll::Ready(Lost::Closed)
    }

    /// Says that no more will come, then listens a little so that what was said arrives.
    pub(super) async fn linger(&mut self) {
        // Its place may go to somebody who has something to ask.
        self.waits();
        self.live.shut(Shutdown::Write);
        let deadline = Instant::now() + LINGER_TIME_MAX;
        let mut left = LINGER_BYTES_MAX;
        while left > 0 && self.fill(deadline).await.is_ok() {
            left = left.saturating_sub(self.pending.len());
            self.pending.clear();
        }
    }
}

/// Appends what can be read now. The end of the stream is `Lost::Closed`.
fn poll_read(socket: &Socket, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<Result<(), Lost>> {
    let mut scratch = [0; READ_BYTES_MAX];
    let read = ready!(Pin::new(&mut &*socket).poll_read(cx, &mut scratch));
    Poll::Ready(match read {
        Ok(n) if n > 0 => {
            into.extend_from_slice(scratch.get(..n).unwrap_or_default());
            Ok(())
        }
        _ => Err(Lost::Closed),
    })
}
