//! The configuration as plain data, with every limit, its unit, its default and its reason.
//!
//! Absent: how it is read ([`super::file`]) and who uses it. Numbers here have been checked against their ranges.

pub use duragent_core::net::Proxies;
pub use duragent_core::provider::{ProviderKind, Thinking};
pub use duragent_core::secret::Secret;

use super::budgets::Prices;
use super::log::Log;
use super::profile::Origins;
use super::proxy::Outward;
use super::sandbox::Sandbox;
use duragent_core::session::Budgets;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Port the server listens on if nothing else is said.
pub const PORT_DEFAULT: u16 = 8410;

/// `duragent.yaml`, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The HTTP front end.
    pub server: Server,
    /// Model endpoints by name. `ollama`, `openai`, `openrouter` and `anthropic` are always there.
    pub providers: BTreeMap<String, Provider>,
    /// The way out, for all that is no provider's.
    pub outward: Outward,
    /// Bounds of everything that could grow.
    pub limits: Limits,
    /// Where tools run.
    pub sandbox: Sandbox,
    /// What the server says to its operator.
    pub log: Log,
    /// What is kept, and for how long.
    pub retention: Retention,
    /// What all agents may use up.
    pub budgets: Budgets,
    /// What tokens cost.
    pub prices: Prices,
    /// Where limits come from.
    pub origins: Origins,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP, address and port.
    Tcp(SocketAddr),
    /// A unix socket. A relative path in the configuration starts at the workspace.
    Unix(PathBuf),
}

impl Listen {
    /// Reads `HOST:PORT`, `[V6]:PORT`, `HOST`, `:PORT` (loopback) or `unix:PATH`. A host is an address or `localhost`:
    /// what a name resolves to may change, and with it who can reach the server.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an address like 127.0.0.1:8410, [::1]:8410 or unix:/run/duragent.sock";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.contains('\0') { Err(EXPECTED) } else { Ok(Self::Unix(path.into())) };
        }
        let numeric = match text.strip_prefix("localhost") {
            Some(rest) if rest.is_empty() || rest.starts_with(':') => format!("127.0.0.1{rest}"),
            _ if text.starts_with(':') && !text.starts_with("::") => format!("127.0.0.1{text}"),
            _ => text.to_owned(),
        };
        if let Ok(address) = numeric.parse() {
            return Ok(Self::Tcp(address));
        }
        match numeric.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) => Ok(Self::Tcp(SocketAddr::new(ip, PORT_DEFAULT))),
            Err(_) => Err(EXPECTED),
        }
    }

    /// True if only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The HTTP front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `server.address` (or `listen`, the word of the command line): default `127.0.0.1:8410`.
    pub listen: Listen,
    /// `server.api_token` or `server.api_token_file`: bearer token; required if `listen` is not local.
    pub api_token: Option<Secret>,
    /// `server.admin_token` or `server.admin_token_file`: bearer token; if set, the only one that admits to `/api/admin/`.
    pub admin_token: Option<Secret>,
    /// `server.allowed_hosts`: names in `Host` besides the local ones, in lower case, with a port or for any.
    pub allowed_hosts: Vec<String>,
    /// `server.allowed_origins`: origins of web pages besides the local ones, in lower case.
    pub allowed_origins: Vec<String>,
    /// `server.trusted_proxies`: whose `X-Forwarded-…` counts. Nobody's.
    pub trusted_proxies: Proxies,
    /// `server.base_path`: path under which a proxy shows the server; empty for none, else `/` and no slash at the end.
    pub base_path: String,
    /// `server.socket_mode`: mode of unix sockets but `duragent.sock`. 0600: nobody else.
    pub socket_mode: u32,
    /// What anybody may take up.
    pub limits: ServerLimits,
}

/// A model endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// How to talk to it.
    pub kind: ProviderKind,
    /// Without a slash at the end. Empty for a transcript.
    pub base_url: String,
    /// The key, if one could be had.
    pub api_key: Option<Secret>,
    /// Why there is no key although one is configured: said when a model is called, not when a session is listed.
    pub api_key_missing: Option<String>,
    /// Where the key comes from, whether there is one or not: `environment variable OPENAI_API_KEY`.
    pub key_from: Option<String>,
    /// Sent with every request. Values are treated as secrets.
    pub headers: Vec<(String, Secret)>,
    /// Seconds until a connection stands. 5: a machine that is there answers within that.
    pub connect_seconds_max: u64,
    /// Seconds from the request to the first byte. 900 for a server that is near, because a client that hangs up aborts the
    /// loading of a model, which takes minutes on a small machine; else 120.
    pub first_byte_seconds_max: u64,
    /// Seconds between two bytes. 120: a swapping machine is slow, not dead.
    pub idle_seconds_max: u64,
    /// How long Ollama keeps the model loaded, in its own notation. `10m`: loading again costs minutes, and a person's next
    /// message comes within a few.
    pub keep_alive: String,
    /// Whether Ollama is told to load the agents' models when the server starts.
    pub preload: bool,
    /// Whether and how much a model of Anthropic's is asked to think.
    pub thinking: Thinking,
    /// Tenths of a byte of a request that are taken for a token before the provider has said how many there were. 30: JSON and
    /// code have fewer bytes to a token than English; Anthropic's tokens are shorter, 28.
    pub token_tenths: u64,
    /// File of certificates (PEM) that are trusted instead of the bundled roots, and what is in it (DER).
    pub ca: Option<(PathBuf, Vec<Vec<u8>>)>,
    /// Proxies on the way.
    pub outward: Outward,
    /// Context window in tokens if the agent does not say. 8,192 nearby: Ollama's own 4,096 cuts long prompts silently.
    pub context_tokens: u64,
    /// The transcript of a replay.
    pub file: Option<PathBuf>,
}

macro_rules! limits {
    ($(#[$what:meta])* $limits:ident; $($(#[$doc:meta])* $name:ident: $default:expr, $range:expr;)*) => {
        $(#[$what])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $limits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $limits {
            /// Every key with its default and its smallest and largest value.
            pub const TABLE: &'static [(&'static str, u64, std::ops::RangeInclusive<u64>)] =
                &[$((stringify!($name), $default, $range)),*];

            /// Asks for the value of every key.
            #[must_use]
            pub fn from_fn(mut value: impl FnMut(&'static str, std::ops::RangeInclusive<u64>, u64) -> u64) -> Self {
                Self { $($name: value(stringify!($name), $range, $default)),* }
            }

            /// Every key with its value.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }

        impl Default for $limits {
            fn default() -> Self {
                Self::from_fn(|_, _, default| default)
            }
        }
    };
}

/// Window of a model nearby: Ollama's own 4,096 cuts long prompts silently.
const CONTEXT_TOKENS: u64 = 8192;

/// Window of a model of a service: theirs are larger, but this is about what a session keeps in memory.
const REMOTE_CONTEXT_TOKENS: u64 = 65_536;

/// Fewest tokens of a window: below that not even the system prompt and a question fit.
pub const CONTEXT_TOKENS_MIN: u64 = 512;

/// Most tokens that a window may have.
pub const CONTEXT_TOKENS_MAX: u64 = 2_097_152;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

limits! {
    /// Bounds of everything that could grow; `limits` in `duragent.yaml`, keys as the fields.
    Limits;
    /// Model calls of one turn. 20: what small models need for a chore; more is a loop.
    steps_max: 20, 1..=1000;
    /// Seconds of one turn, 0 for no limit; waiting for an approval does not count. 1,800: a dozen slow answers on a Pi.
    turn_seconds_max: 1800, 0..=604_800;
    /// Seconds of one tool call. 300: a build or a package upgrade; what takes longer belongs into the background.
    tool_seconds_max: 300, 1..=86_400;
    /// Attempts of one model call. 4: with doubling waits they outlast a restart of the model server.
    model_attempts_max: 4, 1..=20;
    /// Bytes of one tool result that go to the model; the whole is kept as an artifact. 16 KiB: half of an 8,192-token window.
    output_bytes_max: 16 * KIB, KIB..=MIB;
    /// Bytes of one artifact; the rest is dropped. 64 MiB: a runaway command must not fill an SD card.
    artifact_bytes_max: 64 * MIB, 64 * KIB..=4096 * MIB;
    /// Sessions in memory at a time. 64: at about 100 kB each they leave a 512 MB machine to the model.
    sessions_live_max: 64, 1..=65_536;
    /// Seconds without anything to do after which a session leaves memory. 60: people answer within that.
    session_idle_seconds: 60, 1..=86_400;
    /// Bytes of one message. 256 KiB: far more than a small context window takes.
    message_bytes_max: 256 * KIB, KIB..=16 * MIB;
    /// Messages of a session that wait for their turn. 64: a script that says it all at once; each is in memory.
    messages_waiting_max: 64, 1..=64;
    /// Bytes of one segment of an event log. 64 MiB: what is read at once in a recovery.
    log_segment_bytes_max: 64 * MIB, 64 * KIB..=1024 * MIB;
    /// Seconds an approval stays open. 86,400: a day, so that people may sleep.
    approval_seconds_max: 86_400, 1..=2_592_000;
    /// Times that a call may come back with the same result in a turn. 5: who waits for something asks a few times.
    call_repeats_max: 5, 2..=100;
    /// Seconds that a turn waits while no model can be reached, 0 for not at all. 86,400: a line that is mended by tomorrow.
    offline_seconds_max: 86_400, 0..=2_678_400;
    /// Bytes of the file `reserve`, which is given up when the disk is full, 0 for none. 1 MiB: what 64 sessions that come to
    /// rest have to write, results of their tools included.
    reserve_bytes: MIB, 0..=64 * MIB;
    /// Tokens of the window of a model nearby, if neither its agent nor its provider says.
    context_tokens: CONTEXT_TOKENS, CONTEXT_TOKENS_MIN..=CONTEXT_TOKENS_MAX;
    /// The same for a model of a service elsewhere.
    remote_context_tokens: REMOTE_CONTEXT_TOKENS, CONTEXT_TOKENS_MIN..=CONTEXT_TOKENS_MAX;
    /// Threads that wait for models and run tools. 64: a session at work takes one.
    workers_max: 64, 2..=1024;
    /// Threads that write logs. 64: the file system merges the syncs of those that wait together.
    writers_max: 64, 1..=1024;
    /// Threads that read logs for clients. 4: they take the processor from whoever has to answer meanwhile.
    readers_max: 4, 1..=64;
    /// Bytes of the stack of such a thread; what it does not touch costs addresses only. 512 KiB: TLS and JSON of depth 128
    /// stay far below.
    stack_bytes: 512 * KIB, 256 * KIB..=16 * MIB;
}

limits! {
    /// What is kept; `retention` in `duragent.yaml`, keys as the fields. 0 keeps everything, and so does a file that says nothing:
    /// what people have said is theirs to throw away.
    Retention;
    /// Days after its last event that a closed session is kept.
    closed_days: 0, 0..=36_500;
    /// Days after its last event that a session at rest is kept, closed or not.
    idle_days: 0, 0..=36_500;
    /// Sessions that are kept; those at rest that were quiet for longest go first.
    sessions_max: 0, 0..=1_000_000;
    /// Days after its last change that an artifact of a session at rest is kept.
    artifacts_days: 0, 0..=36_500;
    /// Bytes that all sessions take on disk. Artifacts of sessions at rest go first, the oldest of all, then whole sessions.
    bytes_max: 0, 0..=1024 * 1024 * MIB;
}

limits! {
    /// Bounds of the HTTP front end; in `server` of `duragent.yaml`, keys as the fields.
    ServerLimits;
    /// Bytes of a request body. 1 MiB: a message and its JSON escapes fit.
    body_bytes_max: MIB, KIB..=64 * MIB;
    /// Bytes of the bodies that are arriving, over all connections; two of the largest fit in any case. 16 MiB: each may be
    /// large, but not all of them at once.
    arriving_bytes_max: 16 * MIB, 64 * KIB..=1024 * MIB;
    /// Open connections. 256: more than a board's people, pages and gateways hold, and a few MB at the worst.
    connections_max: 256, 1..=65_536;
    /// Seconds for the head of a request. 10: it is one packet, and whoever sends it byte by byte means no good.
    head_seconds_max: 10, 1..=3600;
    /// Seconds for the body. 30: a mebibyte over a slow modem.
    body_seconds_max: 30, 1..=3600;
    /// Seconds without progress while we write. 30: a phone in a tunnel comes back.
    write_seconds_max: 30, 1..=3600;
    /// Seconds between two requests of a connection. 75: longer than proxies keep theirs (nginx 60), so that they close first.
    idle_seconds_max: 75, 1..=86_400;
    /// Seconds of silence before an event stream says something. 15: proxies and NAT forget after 30 and more.
    ping_seconds: 15, 1..=3600;
}

impl Provider {
    /// An endpoint of this kind with defaults.
    #[must_use]
    pub fn new(kind: ProviderKind, base_url: &str) -> Self {
        let mut provider = Self {
            kind,
            base_url: base_url.to_owned(),
            api_key: None,
            api_key_missing: None,
            key_from: None,
            headers: Vec::new(),
            connect_seconds_max: 5,
            first_byte_seconds_max: 120,
            idle_seconds_max: 120,
            keep_alive: "10m".to_owned(),
            preload: false,
            thinking: Thinking::Unset,
            token_tenths: if kind == ProviderKind::Anthropic { 28 } else { 30 },
            ca: None,
            outward: Outward::default(),
            // A recording has no window: it is played as it was made.
            context_tokens: if kind == ProviderKind::Replay { CONTEXT_TOKENS_MAX } else { CONTEXT_TOKENS },
            file: None,
        };
        provider.set_base_url(base_url.to_owned());
        provider
    }

    /// Takes another endpoint, and the default patience with it.
    pub fn set_base_url(&mut self, base_url: String) {
        self.base_url = base_url;
        self.first_byte_seconds_max = if self.is_near() { 900 } else { 120 };
        self.set_window(CONTEXT_TOKENS, REMOTE_CONTEXT_TOKENS);
    }

    /// Takes one of these windows, unless it is a recording.
    pub fn set_window(&mut self, near: u64, remote: u64) {
        if self.kind != ProviderKind::Replay {
            self.context_tokens = if self.is_near() { near } else { remote };
        }
    }

    fn is_near(&self) -> bool {
        self.kind == ProviderKind::Ollama || self.is_local() || self.is_private()
    }

    /// Tokens that are kept free for an answer in a window of so many if the agent sets no limit. Anthropic's API wants one on
    /// every answer, so it is sent as that. For the others 1,024: an answer on a small board.
    #[must_use]
    pub fn answer_tokens(&self, context_tokens: u64) -> u64 {
        match self.kind {
            ProviderKind::Anthropic => self.thinking.answer_tokens(context_tokens),
            _ => 1024.min(context_tokens / 4),
        }
    }

    /// True if the endpoint is an address of a private network.
    fn is_private(&self) -> bool {
        let host = host_of(&self.base_url);
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
            Err(_) => host.ends_with(".local"),
        }
    }

    /// True if the endpoint is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = host_of(&self.base_url);
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// The host in a URL, brackets included; empty if there is none.
#[must_use]
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or(""),
    }
}

/// `path`, from `base` on if it is relative.
#[must_use]
pub fn from_base(base: &Path, path: &str) -> PathBuf {
    base.join(path.strip_prefix("./").unwrap_or(path))
}
