//! `duragent serve [--listen ADDR|unix:PATH] [--pid-file FILE] [--ready-fd N] [--log-format text|json]
//! [--log-level error|warn|info|debug] [--log-file FILE]`
//!
//! In the foreground, log on standard error or in a file. TERM and INT drain, a second one ends at once; HUP checks the
//! configuration and takes it if it is good; USR1 reopens the log file.

mod preload;
mod supervisor;

use super::upgrade::{self, Place, Trial};
use super::{Common, Failure, args, connect, setup};
use crate::config::{self, env};
use crate::http::{self, Access, BindError, Listen, Server, Token};
use crate::session::{Runtime, Slow};
use async_io::Async;
use duragent_platform::clock;
use duragent_platform::file::{self, Lease, LeaseError};
use duragent_platform::log::{self, Format, Level, Value};
use duragent_platform::process;
use duragent_platform::signal::{Signal, Signals};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervisor::{ReadyFd, Supervisor};

/// How long the lock may be held by what a server leaves that has just ended: a child between fork and exec, which has all its
/// descriptors.
const LOCK_TIME_MAX: Duration = Duration::from_secs(1);

/// How long running turns and requests get to finish after TERM: below the ninety seconds that systemd waits.
const DRAIN: Duration = Duration::from_secs(30);

/// Descriptors for what is neither a connection nor a session: listeners, model servers, tools and their pipes.
const DESCRIPTORS_SPARE: u64 = 128;

/// Descriptors of one session: its log, its lease, and its directory while something is renamed.
const DESCRIPTORS_OF_SESSION: u64 = 3;

/// How long the last lines of the log may take.
const LOG_FLUSH: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Options {
    listen: Vec<Listen>,
    pid_file: Option<PathBuf>,
    ready_fd: Option<ReadyFd>,
    log: setup::LogOptions,
}

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("listen") => {
                let text = args::text(parser.value()?)?;
                let listen = Listen::parse(&text).ok_or_else(|| {
                    let hint = "expected an address like 127.0.0.1:8410, [::1]:8410 or unix:/run/duragent.sock";
                    Failure::usage(format!("--listen: cannot read {text:?}"), hint)
                })?;
                options.listen.push(listen);
            }
            lexopt::Arg::Long("pid-file") => options.pid_file = Some(parser.value()?.into()),
            lexopt::Arg::Long("ready-fd") => {
                options.ready_fd = Some(ReadyFd::take(args::number(parser.value()?, "--ready-fd")?)?);
            }
            lexopt::Arg::Long("log-level") => {
                let at = args::word(parser.value()?, "--log-level", &Level::NAMES)?;
                options.log.level = Some(Level::at(at));
            }
            lexopt::Arg::Long("log-format") => {
                let at = args::word(parser.value()?, "--log-format", &Format::NAMES)?;
                options.log.format = Some(Format::at(at));
            }
            lexopt::Arg::Long("log-file") => {
                // Absolute, so that it means the same place at every reload.
                let path = std::path::absolute(parser.value()?);
                options.log.file = Some(path.map_err(|error| Failure::new(format!("--log-file: {error}")))?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    if env::process("JOURNAL_STREAM").is_some() {
        log::with_priorities();
    }
    // Signals first: one that comes while we start is not lost.
    let signals = Signals::new().map_err(|error| Failure::new(format!("cannot catch signals: {error}")))?;
    let _only = only_server(&dir)?;
    // Now, while the name still leads to this very file.
    let place = Place::own();
    let trial = place.as_ref().ok().and_then(Trial::begin);
    let ended = smol::block_on(serve(&dir, options, signals, trial.clone()));
    log::file::flush(LOG_FLUSH);
    match (ended, trial) {
        (Ok(Ended::Again), _) => Err(upgrade::again(&place?.binary)),
        (Ok(Ended::Code(code)), _) => Ok(code),
        (Err(failure), trial) => {
            if let Some(trial) = trial {
                trial.fail(&["cannot serve: ", &failure.error].concat());
            }
            Err(failure)
        }
    }
}

/// How a server that started has ended.
enum Ended {
    /// With this exit code.
    Code(u8),
    /// To start again.
    Again,
}

/// One server a workspace: two would take turns at being found by clients.
fn only_server(dir: &Path) -> Result<Lease, Failure> {
    let path = dir.join("server.lock");
    let until = Instant::now() + LOCK_TIME_MAX;
    loop {
        match Lease::acquire(&path) {
            Ok(lease) => return Ok(lease),
            Err(LeaseError::Held(_)) if Instant::now() < until => std::thread::sleep(LOCK_TIME_MAX / 20),
            Err(LeaseError::Held(pid)) => {
                let by = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                let error = format!("another server runs in {}{by}", dir.display());
                return Err(
                    Failure::new(error).hint("clients find it by themselves; stop it with TERM first to start another")
                );
            }
            Err(LeaseError::Io(error)) => {
                return Err(Failure::new(format!("cannot lock {}: {error}", path.display())));
            }
        }
    }
}

async fn serve(dir: &Path, options: Options, signals: Signals, trial: Option<Arc<Trial>>) -> Result<Ended, Failure> {
    let workspace = setup::load(dir)?;
    setup::LOG.get_or_init(|| options.log);
    setup::configure_log(&workspace.config.log);
    setup::warn(&workspace);
    let config = &workspace.config.server;
    let mut made = setup::from(dir, &workspace)?;
    made.limits.alone = true;
    let reserve_bytes = workspace.config.limits.reserve_bytes;
    made.limits.reserve = (reserve_bytes > 0).then(|| (dir.join("reserve"), reserve_bytes));
    made.limits.slow = Some(Slow(workspace.config.log.slow_ms));
    let supervisor = Supervisor::new();
    let (reload, reloads) = (made.reload, supervisor.clone());
    made.reload = Box::new(move || reloads.reloading(&reload));
    let models = preload::models(&made.agents);
    let runtime = Runtime::new(made);
    let mut limits = limits(&config.limits);
    limits.connections_max = connections_max(limits.connections_max, workspace.config.limits.sessions_live_max);
    let shared = http::Shared::new(runtime.clone(), access(config), limits);
    let mut listen = options.listen;
    if listen.is_empty() {
        listen.extend(Listen::parse(&config.listen.to_string()));
    }
    let near = connect::socket(dir);
    listen.retain(|listen| !matches!(listen, Listen::Unix(path, _) if *path == near));
    for listen in &mut listen {
        if let Listen::Unix(_, mode) = listen {
            *mode = config.socket_mode;
        }
    }
    listen.push(Listen::unix(near));
    let server = Server::bind(&listen, Arc::clone(&shared)).map_err(|error| match error {
        BindError::TokenRequired(_) => Failure::config(error.to_string()),
        _ => Failure::new(error.to_string()),
    })?;
    if let Some(path) = &options.pid_file {
        let text = format!("{}\n", std::process::id());
        let told = |error| format!("cannot write {}: {error}", path.display());
        match file::replace(path, text.as_bytes(), 0o644) {
            // Whoever wants to stop us has to look in `ps` then, but sessions can be read.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                log::warn(&told(error));
            }
            result => result.map_err(|error| Failure::new(told(error)))?,
        }
    }
    let (version, place) = (env!("CARGO_PKG_VERSION"), dir.to_string_lossy());
    log::line(Level::Info, "started", &[&[("version", Value::Text(version)), ("workspace", Value::Text(&place))]]);
    if !clock::is_set(clock::wall_ms()) {
        log::warn("the clock is not set: certificates may be refused, times say little, and everything is kept");
    }
    for address in server.addresses() {
        log::info(&format!("listening on {address}"));
    }
    preload::start(models);
    // Clients are answered from here on; unfinished turns are looked for meanwhile.
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let up = Up { supervisor: supervisor.clone(), ready: options.ready_fd, trial, listening: addresses.join(", ") };
    smol::spawn(up.take_up(runtime.clone())).detach();
    until_told(&runtime, &shared, &signals).await;
    log::info("draining");
    supervisor.stopping(shared.is_to_restart());
    let drained = async {
        server.drain(DRAIN).await;
        Ok(if shared.is_to_restart() { Ended::Again } else { Ended::Code(0) })
    };
    let again = async {
        // The second signal means now. What is on disk is on disk.
        wait_for(&signals, |signal| matches!(signal, Signal::Terminate | Signal::Interrupt)).await;
        log::warn("ending at once");
        Ok(Ended::Code(1))
    };
    let code = smol::future::or(drained, again).await;
    if let Some(path) = &options.pid_file {
        // Unless somebody else has put theirs there meanwhile.
        let ours = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            std::fs::remove_file(path).ok();
        }
    }
    code
}

/// How many connections there can be, besides all else that takes descriptors: so that it is never accepting that fails.
fn connections_max(configured: usize, sessions_live_max: u64) -> usize {
    let others = DESCRIPTORS_SPARE + DESCRIPTORS_OF_SESSION * sessions_live_max;
    let allowed = process::allow_descriptors(configured as u64 + others);
    let most = usize::try_from(allowed.saturating_sub(others).max(allowed / 2)).unwrap_or(usize::MAX);
    if most < configured {
        log::warn(&format!(
            "{allowed} open files are allowed (ulimit -n): connections_max is {most}, not {configured}"
        ));
    }
    configured.min(most)
}

/// Who may ask.
fn access(config: &config::Server) -> Access {
    let token = |secret: &Option<config::Secret>| secret.as_ref().and_then(|secret| Token::new(secret.expose()));
    Access {
        token: token(&config.api_token),
        admin_token: token(&config.admin_token),
        hosts: config.allowed_hosts.clone(),
        origins: config.allowed_origins.clone(),
        proxies: config.trusted_proxies.clone(),
        base_path: config.base_path.clone(),
    }
}

fn limits(l: &config::ServerLimits) -> http::Limits {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    http::Limits {
        connections_max: size(l.connections_max),
        body_bytes_max: size(l.body_bytes_max),
        arriving_bytes_max: size(l.arriving_bytes_max),
        head_time_max: Duration::from_secs(l.head_seconds_max),
        body_time_max: Duration::from_secs(l.body_seconds_max),
        idle_time_max: Duration::from_secs(l.idle_seconds_max),
        write_time_max: Duration::from_secs(l.write_seconds_max),
        ping_time_max: Duration::from_secs(l.ping_seconds),
        ..http::Limits::default()
    }
}

/// Who is told that the server is up.
struct Up {
    supervisor: Supervisor,
    ready: Option<ReadyFd>,
    trial: Option<Arc<Trial>>,
    listening: String,
}

impl Up {
    async fn take_up(self, runtime: Runtime) {
        if let Err(error) = runtime.make_reserve().await {
            log::warn(&["the reserve is not made: ", &error.to_string()].concat());
        }
        smol::spawn(runtime.clone().keep_reserve()).detach();
        smol::spawn(runtime.clone().keep_house()).detach();
        smol::future::or(runtime.recover(), self.supervisor.recovering()).await;
        log::info("ready");
        if let Some(trial) = self.trial {
            trial.confirm();
        }
        if let Some(ready) = self.ready {
            ready.ready();
        }
        // In the same task, which is on the executor that is watched.
        smol::future::zip(self.supervisor.serving(&runtime, &self.listening), runtime.clone().watch_executor()).await;
    }
}

/// Returns when somebody wants the server to end.
async fn until_told(runtime: &Runtime, shared: &http::Shared, signals: &Signals) {
    let asked = shared.shutdown_requested();
    let signalled = async {
        loop {
            match wait_for(signals, |_| true).await {
                Signal::Terminate | Signal::Interrupt => return,
                Signal::Hangup => match runtime.reload().await {
                    Ok(()) => {}
                    Err(error) => {
                        log::warn(
                            &["the configuration is not taken, the old one stays: ", &error.to_string()].concat(),
                        );
                    }
                },
                Signal::User1 => log::file::reopen(),
            }
        }
    };
    smol::future::or(asked, signalled).await;
}

/// Waits for a signal that is wanted; the others are dropped.
pub(super) async fn wait_for(signals: &Signals, wanted: fn(Signal) -> bool) -> Signal {
    loop {
        if let Some(signal) = signals.read() {
            if wanted(signal) {
                return signal;
            }
            continue;
        }
        let readable = match Async::new(signals) {
            Ok(source) => source.readable().await,
            Err(error) => Err(error),
        };
        if let Err(error) = readable {
            log::warn(&format!("cannot wait for signals: {error}"));
            smol::Timer::after(Duration::from_secs(1)).await;
        }
    }
}
