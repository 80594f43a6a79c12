//! `duragent serve [--listen ADDR|unix:PATH] [--pid-file FILE] [--ready-fd N] [--log-format text|json]
//! [--log-level error|warn|info|debug]`
//!
//! In the foreground, log on standard error. TERM and INT drain, a second one ends at once; HUP checks the configuration and
//! takes it if it is good.

use super::{Common, Failure, args, connect, setup};
use crate::config::env;
use crate::http::{self, Access, Listen, Server, Token};
use crate::session::{Runtime, Slow};
use async_io::Async;
use duragent_platform::file::{self, Lease, LeaseError};
use duragent_platform::log::{self, Format, Level, Value};
use duragent_platform::signal::{Signal, Signals};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long running turns and requests get to finish after TERM: below the ninety seconds that systemd waits.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Options {
    listen: Vec<Listen>,
    pid_file: Option<PathBuf>,
    ready_fd: Option<i32>,
    log: (Option<Level>, Option<Format>),
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
            lexopt::Arg::Long("ready-fd") => options.ready_fd = Some(args::number(parser.value()?, "--ready-fd")?),
            lexopt::Arg::Long("log-level") => {
                let at = args::word(parser.value()?, "--log-level", &Level::NAMES)?;
                options.log.0 = Some(Level::at(at));
            }
            lexopt::Arg::Long("log-format") => {
                let at = args::word(parser.value()?, "--log-format", &Format::NAMES)?;
                options.log.1 = Some(Format::at(at));
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
    smol::block_on(serve(&dir, options, signals))
}

/// One server a workspace: two would take turns at being found by clients.
fn only_server(dir: &Path) -> Result<Lease, Failure> {
    let path = dir.join("server.lock");
    Lease::acquire(&path).map_err(|error| match error {
        LeaseError::Held(pid) => {
            let by = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            Failure::new(format!("another server runs in {}{by}", dir.display()))
                .hint("clients find it by themselves; stop it with TERM first to start another")
        }
        LeaseError::Io(error) => Failure::new(format!("cannot lock {}: {error}", path.display())),
    })
}

async fn serve(dir: &Path, options: Options, signals: Signals) -> Result<u8, Failure> {
    let workspace = setup::load(dir)?;
    setup::LOG.get_or_init(|| options.log);
    setup::configure_log(&workspace.config.log);
    for warning in &workspace.warnings {
        log::warn(&warning.to_string());
    }
    let config = &workspace.config.server;
    let mut made = setup::from(dir, &workspace)?;
    made.limits.slow = Some(Slow(workspace.config.log.slow_ms));
    let runtime = Runtime::new(made);
    let token = config.api_token.as_ref().and_then(|secret| Token::new(secret.expose()));
    let access = Access { token, ..Access::default() };
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limits = http::Limits {
        connections_max: size(config.connections_max),
        body_bytes_max: size(config.body_bytes_max),
        ..http::Limits::default()
    };
    let shared = http::Shared::new(runtime.clone(), access, limits);
    let mut listen = options.listen;
    if listen.is_empty() {
        let text = config.listen.to_string();
        listen.extend(Listen::parse(&text));
    }
    let near = Listen::Unix(connect::socket(dir));
    if !listen.contains(&near) {
        listen.push(near);
    }
    let server = Server::bind(&listen, Arc::clone(&shared)).map_err(|error| Failure::new(error.to_string()))?;
    if let Some(path) = &options.pid_file {
        let text = format!("{}\n", std::process::id());
        file::replace(path, text.as_bytes(), 0o644)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    let (version, place) = (env!("CARGO_PKG_VERSION"), dir.to_string_lossy());
    log::line(Level::Info, "started", &[&[("version", Value::Text(version)), ("workspace", Value::Text(&place))]]);
    for address in server.addresses() {
        log::info(&format!("listening on {address}"));
    }
    // Clients are answered from here on; unfinished turns are looked for meanwhile.
    smol::spawn(take_up(runtime.clone(), options.ready_fd)).detach();
    until_told(&runtime, &shared, &signals).await;
    log::info("draining");
    let drained = async {
        server.drain(DRAIN).await;
        Ok(0)
    };
    let again = async {
        // The second signal means now. What is on disk is on disk.
        wait_for(&signals, |signal| matches!(signal, Signal::Terminate | Signal::Interrupt)).await;
        log::warn("ending at once");
        Ok(1)
    };
    let code = smol::future::or(drained, again).await;
    if let Some(path) = &options.pid_file {
        std::fs::remove_file(path).ok();
    }
    code
}

async fn take_up(runtime: Runtime, ready_fd: Option<i32>) {
    runtime.recover().await;
    log::info("ready");
    if let Some(fd) = ready_fd {
        // By its path, so that no descriptor number from outside is trusted to be ours.
        let open = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
        if let Err(error) = open.and_then(|mut file| file.write_all(b"\n")) {
            log::warn(&format!("cannot write to --ready-fd {fd}: {error}"));
        }
    }
    // In the same task, which is on the executor that is watched.
    runtime.watch_executor().await;
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
                Signal::User1 => {}
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
