//! HTTP for providers: one request, an answer that is read as it arrives, and every error mapped to a [`Failure`].
//!
//! Built on `ureq`, with the three timeouts that matter for a model kept apart ([`Timeouts`]): its own body timeout is a
//! total, and loading a model on a small board takes minutes while an answer that stalls should not. Redirects are not
//! followed (they would carry the key elsewhere), the environment's proxies do not apply, and nothing has a total
//! timeout. TLS is rustls with ring and the bundled Mozilla roots.
//!
//! Invariants: a raised [`Cancel`] shuts the socket of its call down, and of no other; no secret of the client gets into
//! a [`Failure`]; one answer holds at most [`ANSWER_MAX`] bytes.
//!
//! Absent: retries (the session machine's), proxies, compression.

mod base_url;
mod connection;
mod lane;
mod report;
mod retry_after;
mod tls;

pub use base_url::{SetupError, is_local};
pub use report::{ErrorReport, kind_of_code, kind_of_status};

use super::Failure;
use base_url::host_of;
use duragent_core::event::FailureKind;
use duragent_core::json;
use duragent_core::secret::Secret;
use duragent_platform::cancel::Cancel;
use lane::Lane;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tls::Tls;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use ureq::http::{Method, Request};
use ureq::{BodyReader, Timeout};

/// Most bytes of one answer. A whole context window as text is a tenth of it.
pub const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of an error's body that are read.
pub const ERROR_BODY_MAX: usize = 8 * 1024;

/// Most characters of foreign text that are quoted in a failure.
pub const QUOTE_MAX: usize = 300;

/// Connections kept for later calls. More calls may run at once; their connections are closed afterwards.
pub const LANES_IDLE_MAX: usize = 4;

/// Bytes of one of ureq's buffers, of which a connection has two, and four with TLS.
const BUFFER: usize = 16 * 1024;

/// Most bytes of a response head. Less than the buffer, because a full buffer looks like the end of the stream.
const HEAD_MAX: usize = BUFFER - 1024;

/// How long a kept connection is trusted; servers close theirs after 30 s or more.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(15);

/// How long to wait for what politely follows a whole answer (the last chunk), so that the connection can be kept.
const REST_WAIT: Duration = Duration::from_millis(250);

/// How long a call may wait, and for what. There is no limit on the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name and the connection, each.
    pub connect: Duration,
    /// From the start of the call to the first byte of the body.
    pub first_byte: Duration,
    /// Between two reads of the body; also for each write of the request.
    pub idle: Duration,
}

impl Timeouts {
    /// For a server on the same machine or network, which may have to load the model first: a client that hangs up
    /// aborts the loading.
    pub const LOCAL: Self = Self {
        connect: Duration::from_secs(5),
        first_byte: Duration::from_secs(15 * 60),
        idle: Duration::from_secs(2 * 60),
    };

    /// For a service.
    pub const REMOTE: Self = Self { first_byte: Duration::from_secs(2 * 60), ..Self::LOCAL };
}

/// Talks to one server. Usable from several threads at once.
pub struct Client {
    base: String,
    host: String,
    headers: HeaderMap,
    /// What must never be quoted.
    secrets: Vec<Secret>,
    timeouts: Timeouts,
    config: ureq::config::Config,
    tls: Arc<Tls>,
    idle: Mutex<Vec<Lane>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("host", &self.host).field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for `base_url`, which may have a path. `key` is sent as bearer token, `headers` with every request.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        base_url: &str,
        key: Option<&Secret>,
        headers: &[(String, Secret)],
        timeouts: Timeouts,
    ) -> Result<Self, SetupError> {
        Self::with_tls(base_url, key, headers, timeouts, Tls::default())
    }

    fn with_tls(
        base_url: &str,
        key: Option<&Secret>,
        headers: &[(String, Secret)],
        timeouts: Timeouts,
        tls: Tls,
    ) -> Result<Self, SetupError> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("duragent/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_response_header_size(HEAD_MAX)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(CONNECTION_AGE_MAX)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .build();
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            let bad = || SetupError::Header { name: name.clone() };
            map.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, sensitive(value.expose(), bad)?);
        }
        if let Some(key) = key {
            let bad = || SetupError::Header { name: "authorization".into() };
            map.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()), bad)?);
        }
        Ok(Self {
            base: base_url.trim_end_matches('/').to_string(),
            host: host_of(base_url)?,
            headers: map,
            secrets: key.into_iter().chain(headers.iter().map(|(_, value)| value)).cloned().collect(),
            timeouts,
            config,
            tls: Arc::new(tls),
            idle: Mutex::default(),
        })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends `body` to `path` below the base URL. Returns with the head of the answer, whatever its status.
    ///
    /// # Errors
    /// [`Failure`] if no answer came, or `cancel` was raised.
    pub fn post(&self, path: &str, body: &str, cancel: &Cancel) -> Result<Answer<'_>, Failure> {
        self.send(Method::POST, path, body, cancel, self.timeouts.first_byte)
    }

    /// Gets `path` below the base URL; `first_byte` replaces the client's own timeout of that name.
    ///
    /// # Errors
    /// [`Failure`] if no answer came.
    pub fn get(&self, path: &str, first_byte: Duration) -> Result<Answer<'_>, Failure> {
        self.send(Method::GET, path, "", &Cancel::new(), first_byte)
    }

    /// Sends `body` by `method`; see [`Client::post`] and [`Client::get`].
    ///
    /// # Errors
    /// [`Failure`] if no answer came, or `cancel` was raised.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        body: &str,
        cancel: &Cancel,
        first_byte: Duration,
    ) -> Result<Answer<'_>, Failure> {
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        let lane = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = lane.unwrap_or_else(|| Lane::new(self.config.clone(), &self.tls));
        let call = lane.slot.begin(first_byte, self.timeouts.idle);
        let slot = Arc::downgrade(&lane.slot);
        cancel.on_raise(move || {
            if let Some(slot) = slot.upgrade() {
                slot.cut(call);
            }
        });
        let sent = if method == Method::GET {
            request.body(()).map_err(Into::into).and_then(|request| lane.agent.run(request))
        } else {
            request.body(body).map_err(Into::into).and_then(|request| lane.agent.run(request))
        };
        let mut answer = Answer { client: self, lane: Some(lane), status: 0, head: None, body: None, size: 0 };
        match sent {
            Ok(response) => {
                let (head, body) = response.into_parts();
                answer.status = head.status.as_u16();
                answer.head = Some(head.headers);
                answer.body = Some(body.into_reader());
                Ok(answer)
            }
            Err(error) => Err(answer.failure(&error)),
        }
    }

    /// `text` fit for a failure: on one line, shortened, without our secrets.
    #[must_use]
    pub fn quote(&self, text: &str) -> String {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in self.secrets.iter().filter(|s| !s.expose().is_empty()) {
            text = text.replace(secret.expose(), "***");
        }
        if let Some((end, _)) = text.char_indices().nth(QUOTE_MAX) {
            text.truncate(end);
            text.push('…');
        }
        text
    }

    /// A failure whose detail begins with the host.
    #[must_use]
    pub fn failed(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::new(kind, format!("{}: {what}", self.host))
    }
}

fn sensitive(text: &str, bad: impl Fn() -> SetupError) -> Result<HeaderValue, SetupError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// An answer whose head is there. Dropping it before its end closes the connection.
pub struct Answer<'c> {
    client: &'c Client,
    lane: Option<Lane>,
    status: u16,
    head: Option<HeaderMap>,
    body: Option<BodyReader<'static>>,
    size: usize,
}

impl Answer<'_> {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True if the server says that the body is of this media type (RFC 9110, 8.3.1: parameters do not matter).
    #[must_use]
    pub fn is_of_type(&self, media_type: &str) -> bool {
        let found = self.header(&CONTENT_TYPE).and_then(|value| value.split(';').next());
        found.is_some_and(|found| found.trim().eq_ignore_ascii_case(media_type))
    }

    /// Waits for more of the body and puts it into `buffer`. Empty at the end.
    ///
    /// # Errors
    /// [`Failure`] if the body was cut, nothing came in time, it got too large, or the call was cancelled.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], Failure> {
        let Some(body) = &mut self.body else { return Ok(&[]) };
        match body.read(buffer) {
            Ok(0) if self.is_cancelled() => Err(self.cancelled()),
            Ok(0) => {
                self.body = None;
                Ok(&[])
            }
            Ok(count) => {
                if self.size == 0 {
                    self.each_slot(lane::Slot::answered);
                }
                self.size += count;
                if self.size > ANSWER_MAX {
                    let what = format!("answer is larger than {ANSWER_MAX} bytes");
                    return Err(self.client.failed(FailureKind::Protocol, &what));
                }
                Ok(buffer.get(..count).unwrap_or_default())
            }
            Err(error) => Err(self.failure(&ureq::Error::from(error))),
        }
    }

    /// All the rest has to be there after `wait`: the answer is as good as whole.
    pub fn hurry(&self, wait: Duration) {
        self.each_slot(|slot| slot.hurry(wait));
    }

    /// The answer is whole. What politely follows is read and forgotten, so that the connection can be kept.
    pub fn finish(mut self) {
        self.hurry(REST_WAIT);
        let mut buffer = [0; 512];
        while self.size < ANSWER_MAX && self.read(&mut buffer).is_ok_and(|more| !more.is_empty()) {}
    }

    /// The whole body, which has to be text.
    ///
    /// # Errors
    /// As [`Answer::read`]; and if it is not UTF-8.
    pub fn text(mut self) -> Result<String, Failure> {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.read(&mut buffer)? {
                [] => break,
                more => text.extend_from_slice(more),
            }
        }
        let client = self.client;
        String::from_utf8(text).map_err(|_| client.failed(FailureKind::Protocol, "answer is not UTF-8"))
    }

    /// What an answer with an error status says, at most [`ERROR_BODY_MAX`] bytes of it: the message of a JSON error if
    /// it is one, else the text itself; shortened, without our secrets. The failure it is by its status alone.
    #[must_use]
    pub fn into_refusal(mut self) -> Refusal {
        let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
        self.hurry(self.client.timeouts.connect);
        while text.len() < ERROR_BODY_MAX {
            match self.read(&mut buffer) {
                Ok(more) if !more.is_empty() => text.extend_from_slice(more),
                _ => break,
            }
        }
        text.truncate(ERROR_BODY_MAX);
        let text = String::from_utf8_lossy(&text);
        let report = json::parse(&text).ok().map(|value| ErrorReport::of(&value)).unwrap_or_default();
        let date = self.header(&DATE);
        let retry_after_ms = self.header(&RETRY_AFTER).and_then(|value| retry_after::milliseconds(value, date));
        let said = self.client.quote(report.message.as_deref().unwrap_or(&text));
        let mut what = format!("answered {}", self.status);
        if let Some(to) = self.header(&ureq::http::header::LOCATION).filter(|_| (300..400).contains(&self.status)) {
            what.push_str(&format!(", a redirect to {:?}, which is not followed; set base_url", self.client.quote(to)));
        }
        if !said.is_empty() {
            what.push_str(&format!(": {said}"));
        }
        let kind = report.code.as_deref().and_then(kind_of_code).unwrap_or_else(|| kind_of_status(self.status));
        let failure = Failure { retry_after_ms, ..self.client.failed(kind, &what) };
        Refusal { status: self.status, said, failure }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.as_ref()?.get(name)?.to_str().ok()
    }

    fn each_slot(&self, act: impl FnOnce(&lane::Slot)) {
        if let Some(lane) = &self.lane {
            act(&lane.slot);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.slot.is_raised())
    }

    fn cancelled(&self) -> Failure {
        self.client.failed(FailureKind::Truncated, "cancelled")
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        if self.is_cancelled() {
            return self.cancelled();
        }
        let Timeouts { connect, first_byte, idle } = self.client.timeouts;
        let (kind, what) = match error {
            ureq::Error::Timeout(Timeout::Resolve) => {
                (FailureKind::Connect, format!("name not resolved within {connect:?}"))
            }
            ureq::Error::Timeout(Timeout::Connect) => {
                (FailureKind::Connect, format!("no connection within {connect:?}"))
            }
            ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => {
                (FailureKind::Timeout, format!("stalled: nothing more within {idle:?}"))
            }
            ureq::Error::Timeout(_) => (FailureKind::Timeout, format!("no answer within {first_byte:?}")),
            ureq::Error::HostNotFound => (FailureKind::Connect, "no such host".into()),
            ureq::Error::Io(e) => return self.io_failure(e),
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                (FailureKind::Invalid, self.client.quote(&error.to_string()))
            }
            other => (FailureKind::Protocol, self.client.quote(&other.to_string())),
        };
        self.client.failed(kind, &what)
    }

    fn io_failure(&self, error: &io::Error) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        let (kind, what) = match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected => {
                let when = if self.status == 0 { "before its answer" } else { "within its answer" };
                (FailureKind::Truncated, format!("the server closed the connection {when}"))
            }
            _ => {
                let mut what = self.client.quote(&error.to_string());
                if error.raw_os_error().is_some() {
                    what.make_ascii_lowercase();
                } else if what.contains("certificate") {
                    what.push_str("; is the clock right, and the certificate from a public authority?");
                }
                (FailureKind::Connect, what)
            }
        };
        self.client.failed(kind, &what)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // First the connection goes back to its lane (or is closed), then the lane to the others.
        self.body = None;
        let Some(lane) = self.lane.take() else { return };
        lane.slot.end();
        let mut idle = self.client.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < LANES_IDLE_MAX {
            idle.push(lane);
        }
    }
}

/// An answer with an error status.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What the server said, shortened.
    pub said: String,
    /// The failure it is, by code and status; the provider may know better.
    pub failure: Failure,
}

#[cfg(test)]
mod tests;
