//! What a client is made with.

use super::proxy::Proxy;
use duragent_core::secret::Secret;
use std::time::Duration;

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

/// Where a client talks to, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://` or `https://`, which may have a path.
    pub base_url: String,
    /// The key, sent as bearer token unless [`Settings::key_header`] names another place.
    pub api_key: Option<Secret>,
    /// Where the key came from, for who has to look after it: `environment variable OPENAI_API_KEY`.
    pub key_from: Option<String>,
    /// Header that the key goes into as it is.
    pub key_header: Option<&'static str>,
    /// A header that is no secret, as a version of the API.
    pub version: Option<(&'static str, &'static str)>,
    /// Sent with every request. Values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Certificates (DER) that are trusted instead of the bundled roots.
    pub ca: Option<Vec<Vec<u8>>>,
    /// What stands between us and the server.
    pub proxy: Option<Proxy>,
}

impl Settings {
    /// Nothing but the URL and the timeouts.
    #[must_use]
    pub fn new(base_url: &str, timeouts: Timeouts) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: None,
            key_from: None,
            key_header: None,
            version: None,
            headers: Vec::new(),
            timeouts,
            ca: None,
            proxy: None,
        }
    }
}
