//! HTTP for providers: one request, an answer that is read as it arrives, and every error mapped to a [`Failure`].
//!
//! Built on `ureq`, with the three timeouts that matter for a model kept apart ([`Timeouts`]): its own body timeout is a
//! total, and loading a model on a small board takes minutes while an answer that stalls should not. Redirects are not
//! followed (they would carry the key elsewhere), a proxy is used only if one is configured, and nothing has a total
//! timeout. TLS is rustls with ring and the bundled Mozilla roots, or configured ones in their place; a build without the
//! feature `tls` has none.
//!
//! Invariants: a raised [`Cancel`] shuts the socket of its call down, and of no other; no secret of the client gets into
//! a [`Failure`]; one answer holds at most [`ANSWER_MAX`] bytes.
//!
//! Absent: retries (the session machine's), compression.

mod base_url;
mod connection;
mod failure;
mod lane;
mod proxy;
mod report;
mod retry_after;
mod settings;
#[cfg_attr(not(feature = "tls"), path = "http/no_tls.rs")]
mod tls;

pub use base_url::{SetupError, is_local};
pub use proxy::Proxy;
pub use report::{ErrorReport, kind_of_status};
pub use settings::{Settings, Timeouts};

use super::Failure;
use base_url::host_of;
use duragent_core::event::FailureKind;
use duragent_core::secret::Secret;
use duragent_platform::cancel::Cancel;
use lane::Lane;
use report::{judge, remedy};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tls::Tls;
use ureq::BodyReader;
use ureq::http::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use ureq::http::{Method, Request};

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

/// Talks to one server. Usable from several threads at once.
pub struct Client {
    base: String,
    host: String,
    headers: HeaderMap,
    /// What must never be quoted.
    secrets: Vec<Secret>,
    key_from: Option<String>,
    timeouts: Timeouts,
    proxy: Option<Arc<Proxy>>,
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
    /// A client as `settings` say. Connects to nothing.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let Settings { api_key, headers, timeouts, .. } = settings;
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
        let tls = match &settings.ca {
            Some(ca) => Tls::trusting(ca).map_err(|error| SetupError::Certificate { what: error.to_string() })?,
            None => Tls::default(),
        };
        let credentials = settings.proxy.as_ref().and_then(Proxy::credentials);
        Ok(Self {
            base: settings.base_url.trim_end_matches('/').to_string(),
            host: host_of(&settings.base_url)?,
            headers: all_headers(settings)?,
            secrets: api_key.iter().chain(headers.iter().map(|(_, value)| value)).chain(credentials).cloned().collect(),
            key_from: settings.key_from.clone(),
            timeouts: *timeouts,
            proxy: settings.proxy.clone().map(Arc::new),
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
        let lane = lane.unwrap_or_else(|| Lane::new(self.config.clone(), &self.tls, self.proxy.as_ref()));
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
}

fn all_headers(settings: &Settings) -> Result<HeaderMap, SetupError> {
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = settings.version {
        map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for (name, value) in &settings.headers {
        let bad = || SetupError::Header { name: name.clone() };
        map.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, sensitive(value.expose(), bad)?);
    }
    if let Some(key) = &settings.api_key {
        let name = settings.key_header.map_or(AUTHORIZATION, HeaderName::from_static);
        let bad = || SetupError::Header { name: name.to_string() };
        let value = match settings.key_header {
            Some(_) => sensitive(key.expose(), bad)?,
            None => sensitive(&["Bearer ", key.expose()].concat(), bad)?,
        };
        map.insert(name, value);
    }
    Ok(map)
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

    /// True if the status says that what was asked for comes.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True if the server says that the body is of this media type (RFC 9110, 8.3.1: parameters do not matter).
    #[must_use]
    pub fn is_of_type(&self, media_type: &str) -> bool {
        let found = self.header(&CONTENT_TYPE).and_then(|value| value.split(';').next());
        found.is_some_and(|found| found.trim().eq_ignore_ascii_case(media_type))
    }

    /// Where the server says that it is instead.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.header(&LOCATION)
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
                    return Err(self.failed(FailureKind::Protocol, &what));
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
        String::from_utf8(text).map_err(|_| self.failed(FailureKind::Protocol, "answer is not UTF-8"))
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
