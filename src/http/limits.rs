//! Every bound of the front door, with its unit and its reason.

use std::time::Duration;

/// Open connections, unless configured otherwise. Each costs a descriptor and, idle, 1–2 KiB.
pub const CONNECTIONS_MAX: usize = 256;

/// Body bytes, unless configured otherwise: far above any message a person writes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the bodies that are arriving, over all connections, unless configured otherwise: each may be large, but not all of them at once. A board with
/// 512 MiB of memory would not survive that.
pub const ARRIVING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest time from the first byte of a head, or from the connection's start, to the head's end.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest silence between two requests of a connection.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// Longest time from the end of the head to the end of the body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest time without progress while we write. A client that reads nothing for so long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest silence of an event stream: proxies and NAT forget connections that say nothing for longer.
const PING_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest time that requests under way may take once the runtime has drained: it answers nothing new any more.
const LAST_TIME_MAX: Duration = Duration::from_secs(5);

/// Bounds of the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections_max: usize,
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// Bytes of the bodies that are arriving, over all connections.
    pub arriving_bytes_max: usize,
    /// From the first byte of a head, or the connection's start, to the head's end.
    pub head_time_max: Duration,
    /// From the head's end to the body's end.
    pub body_time_max: Duration,
    /// Silence between two requests of a connection.
    pub idle_time_max: Duration,
    /// Without progress while an answer is written.
    pub write_time_max: Duration,
    /// Silence of an event stream, which a comment ends.
    pub ping_time_max: Duration,
    /// From the end of the runtime to the end of requests under way.
    pub last_time_max: Duration,
}

impl Limits {
    /// Bytes of the bodies that are arriving, over all connections; two of the largest fit in any case.
    pub(super) fn arriving_bytes_max(&self) -> usize {
        self.arriving_bytes_max.max(self.body_bytes_max.saturating_mul(2))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            arriving_bytes_max: ARRIVING_BYTES_MAX,
            head_time_max: HEAD_TIME_MAX,
            body_time_max: BODY_TIME_MAX,
            idle_time_max: IDLE_TIME_MAX,
            write_time_max: WRITE_TIME_MAX,
            ping_time_max: PING_TIME_MAX,
            last_time_max: LAST_TIME_MAX,
        }
    }
}
