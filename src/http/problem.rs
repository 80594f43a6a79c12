//! Problem documents (RFC 9457): every refusal and failure says what, where, expected and found.
//!
//! `type` is stable and what programs compare; `title` and `detail` are for people.

use super::json::object;
use super::response::{PROBLEM, Response};
use crate::session::api::ApiError;
use duragent_core::http_head::Refusal;

/// Seconds a client is asked to wait when a limit is reached.
const RETRY_AFTER_S: u32 = 1;

/// A class of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    status: u16,
    /// Last part of `urn:duragent:problem:…`.
    name: &'static str,
    title: &'static str,
}

const fn kind(status: u16, name: &'static str, title: &'static str) -> Kind {
    Kind { status, name, title }
}

pub(super) const BAD_REQUEST: Kind = kind(400, "bad-request", "The request is not understood");
pub(super) const INVALID: Kind = kind(400, "invalid", "The request asks for something that is not valid");
pub(super) const UNAUTHORIZED: Kind = kind(401, "unauthorized", "A bearer token is required");
pub(super) const FORBIDDEN: Kind = kind(403, "forbidden", "This caller is not allowed here");
pub(super) const NOT_FOUND: Kind = kind(404, "not-found", "There is no such thing");
pub(super) const METHOD: Kind = kind(405, "method-not-allowed", "The method is not allowed here");
pub(super) const NOT_ACCEPTABLE: Kind = kind(406, "not-acceptable", "No media type that is accepted can be given");
pub(super) const TIMEOUT: Kind = kind(408, "timeout", "The request took too long to arrive");
pub(super) const CONFLICT: Kind = kind(409, "conflict", "It contradicts what is there");
pub(super) const DAMAGED: Kind = kind(409, "damaged", "The session's log is damaged and read-only");
pub(super) const LEASED: Kind = kind(409, "leased", "Another process holds the session");
pub(super) const CONFIGURATION: Kind = kind(409, "configuration", "The new configuration cannot be used");
pub(super) const TOO_LARGE: Kind = kind(413, "too-large", "The body is too large");
pub(super) const TARGET: Kind = kind(414, "target-too-long", "The request target is too long");
pub(super) const MEDIA_TYPE: Kind = kind(415, "media-type", "The media type of the body is not supported");
pub(super) const EXPECTATION: Kind = kind(417, "expectation", "The expectation cannot be met");
pub(super) const HEAD: Kind = kind(431, "head-too-large", "The request head is too large");
pub(super) const INTERNAL: Kind = kind(500, "internal", "The runtime failed");
pub(super) const NOT_IMPLEMENTED: Kind = kind(501, "not-implemented", "This part of HTTP is not implemented");
pub(super) const BUSY: Kind = kind(503, "busy", "A limit is reached; later may work");
pub(super) const VERSION: Kind = kind(505, "version", "The HTTP version is not supported");
pub(super) const DISK_FULL: Kind = kind(507, "disk-full", "The disk takes nothing more");

/// Where in a JSON body it is, and what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// Key of the object; empty if none was reached.
    pub(super) field: String,
    pub(super) expected: String,
    pub(super) found: String,
}

/// What went wrong, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    place: Option<Box<Place>>,
    allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), place: None, allow: None }
    }

    /// A body with a mistake at a known place.
    pub(super) fn at(place: Place) -> Self {
        let Place { line, column, field, expected, found } = &place;
        let colon = if field.is_empty() { "" } else { ": " };
        let detail = format!("line {line}, column {column}: {field}{colon}expected {expected}, found {found}");
        Self { place: Some(Box::new(place)), ..Self::new(BAD_REQUEST, detail) }
    }

    /// Says which methods there are.
    pub(super) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn into_response(self) -> Response {
        let Kind { status, name, title } = self.kind;
        let body = object(|json| {
            json.str("type", &["urn:duragent:problem:", name].concat()).str("title", title);
            json.u64("status", u64::from(status)).str("detail", &self.detail);
            if let Some(place) = &self.place {
                json.u64("line", place.line as u64).u64("column", place.column as u64).str("field", &place.field);
                json.str("expected", &place.expected).str("found", &place.found);
            }
        });
        let response = Response::new(status, PROBLEM, body).problem(name);
        match (self.allow, status) {
            (Some(methods), _) => response.header("Allow", methods.into()),
            (None, 401) => response.header("WWW-Authenticate", "Bearer".into()),
            (None, 503) => response.header("Retry-After", RETRY_AFTER_S.to_string()),
            _ => response,
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let (kind, detail) = match error {
            ApiError::NotFound(detail) => (NOT_FOUND, detail),
            ApiError::Conflict(detail) => (CONFLICT, detail),
            ApiError::Invalid(detail) => (INVALID, detail),
            ApiError::Damaged(detail) => (DAMAGED, detail),
            ApiError::Leased(detail) => (LEASED, detail),
            ApiError::Busy(detail) => (BUSY, detail),
            ApiError::DiskFull(detail) => (DISK_FULL, detail),
            ApiError::Internal(detail) => (INTERNAL, detail),
        };
        Self::new(kind, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Malformed(_) => BAD_REQUEST,
            Refusal::TargetTooLong => TARGET,
            Refusal::HeadTooLarge | Refusal::TooManyHeaders => HEAD,
            Refusal::UnknownExpectation => EXPECTATION,
            Refusal::UnknownVersion => VERSION,
        };
        Self::new(kind, refusal.to_string())
    }
}
