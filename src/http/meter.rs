//! What the front door counts of itself, and what it says of requests in the log.
//!
//! Invariant: neither a query, nor a header, nor a body is in any line: that is where tokens and secrets are.

use super::guard::Peer;
use super::shared::Shared;
use crate::session::Operation;
use crate::session::meter::{Counts, Family, single};
use duragent_core::http_head::Head;
use duragent_platform::log::{self, Level, Throttle, Value};
use std::io;
use std::time::{Duration, Instant};

/// Places in [`FAMILIES`].
#[derive(Debug, Clone, Copy)]
enum Count {
    Requests,
    Responses,
    Problems,
    AcceptErrors,
    Events,
}

/// What is counted, in the order of [`Count`].
pub(super) static FAMILIES: [Family; 5] = [
    single("http_requests", "Requests answered."),
    Family {
        name: "http_responses",
        help: "Responses, by class of status; a stream counts when it begins.",
        label: "class",
        values: &["2xx", "3xx", "4xx", "5xx", "other"],
    },
    Family {
        name: "http_problems",
        help: "Problem documents, by the last part of their type.",
        label: "type",
        values: &[
            "bad-request",
            "invalid",
            "unauthorized",
            "forbidden",
            "not-found",
            "method-not-allowed",
            "not-acceptable",
            "timeout",
            "conflict",
            "damaged",
            "leased",
            "configuration",
            "too-large",
            "target-too-long",
            "media-type",
            "expectation",
            "head-too-large",
            "internal",
            "not-implemented",
            "busy",
            "version",
            "disk-full",
            "other",
        ],
    },
    single("http_accept_errors", "Failures to take a connection."),
    single("sse_events", "Server-sent events written, without comments."),
];

/// What is counted.
pub(super) struct Meter {
    pub(super) counts: Counts,
    denied: Throttle,
    accept: Throttle,
}

impl Default for Meter {
    fn default() -> Self {
        let throttle = Throttle::new;
        Self { counts: Counts::new(&FAMILIES), denied: throttle(), accept: throttle() }
    }
}

impl Meter {
    fn one(&self, count: Count, label: &str) {
        self.counts.add(count as usize, label, 1);
    }

    /// A request arrived.
    pub(super) fn request(&self) {
        self.one(Count::Requests, "");
    }

    /// A server-sent event is written.
    pub(super) fn event(&self) {
        self.one(Count::Events, "");
    }

    /// Accepting a connection failed.
    pub(super) fn accept_failed(&self, error: &io::Error) {
        self.one(Count::AcceptErrors, "");
        self.accept.line(Level::Warn, "cannot take a connection", &[("error", Value::Text(&error.to_string()))], &[]);
    }

    fn answered(&self, status: u16, problem: &str) {
        let class = match status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "other",
        };
        self.one(Count::Responses, class);
        if !problem.is_empty() {
            self.one(Count::Problems, problem);
        }
    }
}

/// A request, as far as it is known, for the log.
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Shared,
    peer: Peer,
    /// Empty if there was no head, or none that could be read.
    method: &'a str,
    path: &'a str,
    began: Instant,
    /// It is in the log already.
    told: bool,
}

impl<'a> Asked<'a> {
    /// One of which nothing is known yet.
    pub(super) fn new(shared: &'a Shared, peer: Peer) -> Self {
        Self { shared, peer, method: "", path: "", began: Instant::now(), told: false }
    }

    /// One that [`Asked::lasts`] has told of.
    pub(super) fn told(shared: &'a Shared, peer: Peer) -> Self {
        Self { told: true, ..Self::new(shared, peer) }
    }

    /// Its head is read.
    pub(super) fn read(&mut self, head: &Head<'a>) {
        (self.method, self.path) = (head.method, head.path);
    }

    /// Handling it took so long, without waiting for the client, a turn or events.
    pub(super) fn handled(&self, time: Duration) {
        let about = [("method", Value::Text(self.method)), ("path", Value::Text(self.path))];
        self.shared.runtime.tally().took(Operation::Request, time, &about);
    }

    /// It has an answer that lasts: what it was is told now, since nothing of it is kept until the answer's end.
    pub(super) fn lasts(&self) {
        let fields = [
            ("method", Value::Text(self.method)),
            ("path", Value::Text(self.path)),
            ("peer", Value::Text(class(self.peer))),
        ];
        log::line(Level::Debug, "request with an answer that lasts", &[&fields]);
    }

    /// It has its answer, or the answer begins.
    pub(super) fn answered(&self, (status, problem): (u16, &'static str)) {
        let meter = &self.shared.meter;
        meter.answered(status, problem);
        let refused = matches!(problem, "unauthorized" | "forbidden");
        if !refused && (self.told || !log::writes(Level::Debug)) {
            return;
        }
        let time = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let fields = [
            ("method", Value::Text(self.method)),
            ("path", Value::Text(self.path)),
            ("status", Value::Number(status.into())),
            ("duration_ms", Value::Number(time)),
            ("peer", Value::Text(class(self.peer))),
            ("problem", Value::Text(problem)),
        ];
        // The last one only if there is one.
        let fields = fields.get(..fields.len() - usize::from(problem.is_empty())).unwrap_or_default();
        if refused {
            meter.denied.line(Level::Warn, "a caller is refused", fields, &[]);
        }
        log::line(Level::Debug, "request", &[fields]);
    }
}

fn class(peer: Peer) -> &'static str {
    match peer {
        Peer::Unix { .. } => "unix",
        Peer::Loopback(_) => "loopback",
        Peer::Network(_) => "network",
    }
}
