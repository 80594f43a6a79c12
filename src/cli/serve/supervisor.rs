//! What the server tells whoever supervises it: by sd_notify(3) if `NOTIFY_SOCKET` is set, and by a line feed to `--ready-fd`.
//!
//! Invariant: what feeds the watchdog is a task on the executor of actors and connections, and timers of its reactor: where
//! those hang, nothing is sent, and the supervisor starts the server anew.
//!
//! Absent: the watchdog of threads that wait for disks and models. They may wait; the server answers meanwhile.

use super::Failure;
use crate::config::env;
use crate::session::Runtime;
use duragent_platform::log;
use duragent_platform::notify::{self, Notifier};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

/// While logs are recovered, this often is more time asked for, and this much, in microseconds. The watchdog is awake then if
/// this process has started itself again.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTEND: &str = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000\nSTATUS=looking for unfinished turns";

/// Times that it is asked for: after an hour something else is wrong than that there are many logs.
const EXTENSIONS_MAX: u32 = 360;

/// Shortest time between two signs of life: below it, they would be the load that they report on.
const FEED_MIN: Duration = Duration::from_millis(10);

/// Who supervises; nobody, if nobody has said so.
#[derive(Clone, Default)]
pub struct Supervisor {
    notifier: Option<Arc<Notifier>>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub fn new() -> Self {
        let Some(told) = env::supervisor(&env::process, std::process::id()) else { return Self::default() };
        match Notifier::new(&told.socket) {
            Ok(notifier) => Self { notifier: Some(Arc::new(notifier)), watchdog: told.watchdog },
            Err(error) => {
                log::warn(&["NOTIFY_SOCKET: ", &error.to_string()].concat());
                Self::default()
            }
        }
    }

    /// Sends `text`, which has no line feeds from outside.
    fn say(&self, text: &str) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.send(text)
        {
            log::warn(&["cannot tell the supervisor: ", &error.to_string()].concat());
        }
    }

    /// Asks for more time, until it is dropped.
    pub async fn recovering(&self) {
        for _ in 0..EXTENSIONS_MAX {
            smol::Timer::after(EXTEND_EVERY).await;
            self.say(EXTEND);
        }
        smol::future::pending().await
    }

    /// Logs are recovered and sockets bound; from here on the watchdog is fed for as long as this is polled, and `status` kept up.
    pub async fn serving(&self, runtime: &Runtime, listening: &str) {
        let mut news = "READY=1\n";
        loop {
            let live = runtime.gauges().sessions_live.to_string();
            self.say(&[news, "STATUS=listening on ", listening, "; sessions in memory: ", &live].concat());
            news = "WATCHDOG=1\n";
            let Some(watchdog) = self.watchdog else { return };
            // Half of it, as sd_watchdog_enabled(3) advises.
            smol::Timer::after((watchdog / 2).max(FEED_MIN)).await;
        }
    }

    /// The configuration is read anew by `load`.
    pub fn reloading<T>(&self, load: impl FnOnce() -> T) -> T {
        self.begin_reload("reading the configuration");
        let loaded = load();
        self.say("READY=1\nSTATUS=serving");
        loaded
    }

    /// No more work is taken. `restart`: this process is going to be another server, with the same number.
    pub fn stopping(&self, restart: bool) {
        if restart {
            self.begin_reload("starting again");
        } else {
            self.say("STOPPING=1\nSTATUS=draining");
        }
    }

    fn begin_reload(&self, status: &str) {
        if self.notifier.is_some() {
            let now = notify::monotonic_usec().to_string();
            self.say(&["RELOADING=1\nMONOTONIC_USEC=", &now, "\nSTATUS=", status].concat());
        }
    }
}

/// Who waits at `--ready-fd`.
pub struct ReadyFd(File);

impl ReadyFd {
    /// Takes the descriptor, before anything else is opened.
    pub fn take(fd: i32) -> Result<Self, Failure> {
        let taken = notify::inherited(fd).map(Self);
        taken.map_err(|error| {
            let text = ["--ready-fd ", &fd.to_string(), ": ", &error.to_string()].concat();
            Failure::usage(text, "give the number of a descriptor that is open, as in: --ready-fd 3 3>FILE")
        })
    }

    /// Writes a line feed, and closes it.
    pub fn ready(mut self) {
        // Whoever has heard it before, from the server that became this one, has gone.
        if let Err(error) = self.0.write_all(b"\n")
            && error.kind() != ErrorKind::BrokenPipe
        {
            log::warn(&["cannot write to --ready-fd: ", &error.to_string()].concat());
        }
    }
}
