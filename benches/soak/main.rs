//! A long run under a memory control group: `cargo xtask soak`.
//!
//! Job: an hour (or a slice of it) of turns, watchers who come and go, tools that flood, a provider that fails, rotated logs,
//! reloads, forks, on a server that has 32 MB; then the question whether it is what it was before: memory flat, descriptors and
//! threads back, nothing lost, nothing left.
//!
//! What counts: the group holds the server and every process of its tools, page cache and kernel memory included. Flat has to be
//! the anonymous memory of the server's own process; that of the whole group is shown beside it, since it depends on which tools
//! run when somebody looks.
//!
//! Invariants: whatever is not measured fails the run. A run with `--leak` has to fail, or the judge is none.
//!
//! Absent: crashes, which `cargo xtask crash` makes; how fast it is, which `cargo xtask bench` says.

mod audit;
mod house;
mod load;

use duragent_platform::signal::{Signal, Signals};
use duragent_testkit::steady::Trend;
use duragent_testkit::weather::Model;
use house::{House, PATIENCE, Server, Size};
use load::{Kept, Stage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the runtime and its tools have: the share of a board with 128 MB.
const GROUP_BYTES: u64 = 32 * 1024 * 1024;
/// How far memory may be from what it was.
const GROWTH_MAX: f64 = 0.10;
/// Samples are so far apart.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How long the load runs before anything counts.
const WARM_UP: Duration = Duration::from_secs(15);
/// How long everybody may take to come to rest: the longest pause of a retry, then idle sessions and threads.
const REST_MAX: Duration = Duration::from_secs(150);
const LEAK_REST: Duration = Duration::from_secs(15);
/// How long the server is left alone before it is looked at for the last time.
const SILENCE: Duration = Duration::from_secs(4);
/// Threads and descriptors that may be there beyond those of before.
const MORE_MAX: u64 = 0;

struct Options {
    time: Duration,
    seed: u64,
    leak: bool,
    dir: PathBuf,
    binary: PathBuf,
    bytes: u64,
}

impl Options {
    /// How long everybody may take to come to rest. What leaks on purpose never does.
    fn rest(&self) -> Duration {
        if self.leak { LEAK_REST } else { REST_MAX }
    }
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            wrong.iter().for_each(|what| println!("WRONG: {what}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let minute = Duration::from_secs(60);
    let mut options = Options {
        time: 60 * minute,
        seed: 1,
        leak: false,
        dir: std::env::temp_dir(),
        binary: env!("CARGO_BIN_EXE_duragent").into(),
        bytes: GROUP_BYTES,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("expected a value after {arg}"));
        let mut number = || value()?.parse::<u64>().map_err(|_| format!("{arg}: expected a whole number"));
        match arg.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--minutes" => options.time = minute * u32::try_from(number()?).unwrap_or(u32::MAX),
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--seed" => options.seed = number()?,
            "--bytes" => options.bytes = number()?,
            "--leak" => options.leak = true,
            "--dir" => options.dir = value()?.into(),
            "--binary" => options.binary = value()?.into(),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(options)
}

/// One run; what was wrong.
fn run(options: &Options) -> Result<Vec<String>, String> {
    let signals = Signals::new().map_err(|error| format!("signals: {error}"))?;
    let model = Model::start()?;
    let house = House::new(&options.dir, &options.binary, model.address, options.leak)?;
    let server = house.serve(options.bytes)?;
    let (kept, mut wrong) = (Kept::default(), Vec::new());
    let before = first_turn(&server, options.leak)?;
    let stage = Stage {
        server: &server,
        model: &model,
        folder: &house.folder,
        kept: &kept,
        seed: options.seed,
        leak: options.leak,
    };
    let samples = thread::scope(|scope| {
        scope.spawn(|| load::run(&stage));
        let samples = sample(&server, options.time, &signals, &mut wrong);
        kept.end();
        samples
    });
    // A server that is gone has no rest; why, the rest of the report says.
    let after = rest(&server, before, options.rest(), &mut wrong).unwrap_or_else(|error| {
        wrong.push(format!("no rest: {error}"));
        before
    });
    judge(&samples, before, after, &mut wrong);
    let (kills, peak, pid) = (server.group.oom_kills(), server.group.peak(), server.pid);
    if kills > 0 {
        wrong.push(format!("the kernel has killed {kills} processes for want of memory"));
    }
    match audit::zombies(pid) {
        0 => {}
        zombies => wrong.push(format!("{zombies} zombies")),
    }
    match server.stop() {
        Ok(left) if left.is_empty() => {}
        Ok(left) => wrong.push(format!("processes that outlive the server: {left:?}")),
        Err(error) => wrong.push(error),
    }
    wrong.extend(audit::groups(pid).into_iter().map(|group| format!("left over: {group}")));
    wrong.extend(audit::leftovers(&house).into_iter().map(|file| format!("left over: {file}")));
    let acknowledged = kept.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let found = audit::logs(&house, &acknowledged)?;
    wrong.append(&mut kept.wrong.lock().unwrap_or_else(PoisonError::into_inner));
    report(options, &kept, &model, &samples, (before, after, peak), &found, acknowledged.len());
    wrong.extend(found.wrong);
    Ok(wrong)
}

/// A turn with a tool, so that what is made once is made; then what there is at rest.
fn first_turn(server: &Server, leak: bool) -> Result<Size, String> {
    let asked =
        |method: &str, path: &str, body: &str| server.ask(method, path, body).map_err(|e| format!("{path}: {e}"));
    asked("POST", "/api/v1/sessions", "{\"agent\":\"worker\",\"id\":\"first\"}")?;
    let body = "{\"content\":\"mark first \\nsh: echo first >> once.log\"}";
    let (status, answer) = asked("POST", "/api/v1/sessions/first/messages?wait=60", body)?;
    if status != 200 || answer.at("reason").str() != Some("completed") {
        return Err(format!("the first turn: {status} {answer:?}"));
    }
    asked("DELETE", "/api/v1/sessions/first", "")?;
    let start = Instant::now();
    while (server.metric("duragent_sessions_live")? > 0 && !leak) || pool_threads(server)? > 0 {
        if start.elapsed() > PATIENCE {
            return Err("the server does not come to rest after the first turn".to_owned());
        }
        thread::sleep(Duration::from_millis(200));
    }
    thread::sleep(SILENCE);
    server.size()
}

fn pool_threads(server: &Server) -> Result<u64, String> {
    let count = |pool| server.metric(&format!("duragent_pool_threads{{pool=\"{pool}\"}}"));
    Ok(count("writer")? + count("worker")? + count("reader")?)
}

/// One look at the server and its group.
struct Sample {
    own: Size,
    group: u64,
    usage: u64,
}

/// Looks again and again, until the time is over, the server is gone, or somebody wants to stop.
fn sample(server: &Server, time: Duration, signals: &Signals, wrong: &mut Vec<String>) -> Vec<Sample> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        thread::sleep(SAMPLE_EVERY);
        if matches!(signals.read(), Some(Signal::Interrupt | Signal::Terminate)) {
            wrong.push("interrupted".to_owned());
            break;
        }
        match server.size() {
            Ok(own) if start.elapsed() > WARM_UP => {
                samples.push(Sample { own, group: server.group.anonymous(), usage: server.group.usage() });
            }
            Ok(_) => {}
            Err(error) => {
                wrong.push(error);
                break;
            }
        }
    }
    samples
}

/// Waits until nothing is going on, and as much is open as before.
fn rest(server: &Server, before: Size, time_max: Duration, wrong: &mut Vec<String>) -> Result<Size, String> {
    let start = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500));
        let size = server.size()?;
        let quiet = server.metric("duragent_sessions_live")? == 0 && pool_threads(server)? == 0;
        let same = size.descriptors <= before.descriptors + MORE_MAX && size.threads <= before.threads + MORE_MAX;
        if quiet && same {
            // Memory goes back to the system when nobody has asked anything for two seconds.
            thread::sleep(SILENCE);
            return server.size();
        }
        if start.elapsed() > time_max {
            let live = server.metric("duragent_sessions_live")?;
            wrong.push(format!(
                "{} s later {live} sessions are in memory; before {before:?}, now {size:?}",
                time_max.as_secs()
            ));
            return Ok(size);
        }
    }
}

fn judge(samples: &[Sample], before: Size, after: Size, wrong: &mut Vec<String>) {
    let own: Vec<f64> = samples.iter().map(|sample| sample.own.anonymous as f64).collect();
    match Trend::of(&own) {
        Ok(trend) if trend.growth() <= GROWTH_MAX => {}
        Ok(trend) => wrong.push(format!("memory grew by {:.1} %: {trend:?}", 100.0 * trend.growth())),
        Err(error) => wrong.push(error),
    }
    for (what, before, after) in
        [("descriptors", before.descriptors, after.descriptors), ("threads", before.threads, after.threads)]
    {
        if after > before + MORE_MAX {
            wrong.push(format!("{what}: {before} before, {after} after a rest"));
        }
    }
}

fn report(
    options: &Options,
    kept: &Kept,
    model: &Model,
    samples: &[Sample],
    (before, after, peak): (Size, Size, u64),
    found: &audit::Found,
    acknowledged: usize,
) {
    let mb = |bytes: f64| bytes / 1e6;
    let trend = |of: fn(&Sample) -> u64| {
        let all: Vec<f64> = samples.iter().map(|sample| of(sample) as f64).collect();
        let most = all.iter().copied().fold(0.0, f64::max);
        match Trend::of(&all) {
            Ok(t) => format!(
                "second quarter {:.2} MB, last {:.2} MB ({:+.1} %), most {:.2} MB",
                mb(t.before),
                mb(t.after),
                100.0 * t.growth(),
                mb(most)
            ),
            Err(error) => error,
        }
    };
    let count = |what: &AtomicU64| what.load(Ordering::Relaxed);
    let (answers, failures) = model.counts();
    println!("soak: {} s, seed {}, group of {:.1} MB", options.time.as_secs(), options.seed, mb(options.bytes as f64));
    println!("  anonymous memory of the server: {}", trend(|s| s.own.anonymous));
    println!("  resident memory of the server:  {}", trend(|s| s.own.resident));
    println!("  anonymous memory of the group:  {}", trend(|s| s.group));
    println!("  all memory of the group:        {}; peak {:.2} MB", trend(|s| s.usage), mb(peak as f64));
    println!(
        "  at rest: before {:.2} MB, after {:.2} MB anonymous; descriptors {} and {}, threads {} and {}",
        mb(before.anonymous as f64),
        mb(after.anonymous as f64),
        before.descriptors,
        after.descriptors,
        before.threads,
        after.threads
    );
    println!(
        "  {} sessions, {} forks, {} turns ({} floods of tools), {} watchers, {} outages, {} reloads, {} rotations, {} refused",
        count(&kept.sessions),
        count(&kept.forks),
        count(&kept.turns),
        count(&kept.floods),
        count(&kept.attaches),
        count(&kept.outages),
        count(&kept.reloads),
        count(&kept.rotations),
        count(&kept.refused)
    );
    println!("  the model answered {answers} times and failed {failures} times");
    println!(
        "  {acknowledged} messages acknowledged; in {} logs of {} segments: {} events, {} turns, {} of them completed",
        found.sessions, found.segments, found.events, found.turns, found.completed
    );
}
