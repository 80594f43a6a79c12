//! Nothing outlives us: trees that do not want to end, floods, bombs, and a runtime that is killed.
//!
//! Processes are seen from outside, by a mark among their arguments, which forks keep.

use crate::case::{Ground, PATIENCE};
use crate::house::{House, Houses, Layout};
use crate::kernel::{self, fork, ignore_signal, kill};
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Command, Enforcement, Exit, Mode, Policy, Stream, find};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the issue asks for: this long after the runtime was killed, no tool is alive.
const GONE_MAX: Duration = Duration::from_secs(2);

/// A protected name that is not in a new house. What a tool made there is moved aside even if the runtime is gone.
const PROTECTED: &str = ".zshrc";

/// No tool of these tests lives longer, whatever fails.
const TOOL_LIFE_MAX: Duration = Duration::from_secs(60);

/// Processes besides the tool's that carry the mark: guards and helpers of the backend.
const HELPERS_MAX: usize = 5;

/// The limit that the bomb runs into; it wants many more.
const BOMB_PROCESSES_MAX: u64 = 64;
const BOMB_GENERATIONS: u32 = 8;
/// After which it is ended.
const BOMB_TIME: Duration = Duration::from_secs(2);

/// What a runtime's memory may grow by while a tool floods it.
const GROWTH_KIB_MAX: u64 = 4 * 1024;
/// After which the flood is ended.
const FLOOD_BYTES: u64 = 64 << 20;

/// A check of a backend.
pub type Check = fn(&Ground<'_>) -> Result<(), String>;

/// Checks that may run side by side.
pub const CHECKS: &[(&str, Check)] = &[
    ("kill -9 of the runtime ends the tree", runtime_killed),
    ("the deadline ends the tree", deadline),
    ("what stays behind ends with the tool", left_behind),
    ("a flood leaves the runtime's memory flat", flood),
];

/// The bomb, which counts the processes of the user, has the machine for itself.
pub const ALONE: &[(&str, Check)] = &[("a fork bomb stays within its limit", bomb)];

fn runtime_killed(ground: &Ground<'_>) -> Result<(), String> {
    let (left, made) = kill_runtime(ground, ground.name())?;
    expect(left == 0, || format!("expected no process after {GONE_MAX:?}, found {left}"))?;
    expect(made == ground.is_control(), || format!("{PROTECTED} is there: {made}"))?;
    if ground.is_control() {
        let (left, _) = kill_runtime(ground, "plain")?;
        expect(left >= 3, || format!("control: expected a plain child's tree to stay, found {left} processes"))?;
    }
    Ok(())
}

/// Starts a runtime with a stubborn tree and kills it. Returns how much of the tree is left, and whether the protected file
/// that it made is.
fn kill_runtime(ground: &Ground<'_>, backend: &str) -> Result<(usize, bool), String> {
    let mark = unique();
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["__runtime", backend, "tree", &mark]).arg(ground.base).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut runtime = command.spawn().map_err(|e| e.to_string())?;
    let mut line = String::new();
    let mut out = BufReader::new(runtime.stdout.take().ok_or("no output")?);
    out.read_line(&mut line).map_err(|e| e.to_string())?;
    let stood = alive(&mark).len();
    runtime.kill().and_then(|()| runtime.wait()).map_err(|e| e.to_string())?;
    let killed = Instant::now();
    expect(line == "ready\n" && stood >= 4, || format!("the tree never stood: {line:?}, {stood} processes"))?;
    // Nobody else builds the first house of that process.
    let made = House::first_of(ground.base, runtime.id()).join("project").join(PROTECTED);
    let mut left = alive(&mark);
    while (made.exists() || !left.is_empty()) && killed.elapsed() < GONE_MAX {
        std::thread::sleep(Duration::from_millis(10));
        left = alive(&mark);
    }
    end(&left);
    Ok((left.len(), made.exists()))
}

fn deadline(ground: &Ground<'_>) -> Result<(), String> {
    let (mark, start) = (unique(), Instant::now());
    let mut seen = Vec::new();
    let exit = run(ground, "tree", &mark, (Duration::from_millis(1500), &Cancel::new()), |_| {}, &mut |bytes| {
        seen.extend(bytes)
    })?;
    let left = alive(&mark);
    end(&left);
    expect(seen == b"ready\n", || format!("the tree never stood: {:?}", String::from_utf8_lossy(&seen)))?;
    expect(exit == Exit::Deadline, || format!("expected the deadline, found {exit:?}"))?;
    expect(left.is_empty(), || format!("expected nothing to be left, found {left:?}"))?;
    expect(start.elapsed() < PATIENCE, || format!("it took {:?}", start.elapsed()))
}

fn left_behind(ground: &Ground<'_>) -> Result<(), String> {
    let mark = unique();
    let mut seen = Vec::new();
    let exit = run(ground, "daemon", &mark, (PATIENCE, &Cancel::new()), |_| {}, &mut |bytes| seen.extend(bytes))?;
    let left = alive(&mark);
    end(&left);
    expect(seen == b"ready\n", || format!("the tree never stood: {:?}", String::from_utf8_lossy(&seen)))?;
    expect(exit == Exit::Code(0), || format!("expected code 0, found {exit:?}"))?;
    expect(left.is_empty(), || format!("expected nothing to be left, found {left:?}"))
}

/// In a process of its own, because others in this one use memory as well.
fn flood(ground: &Ground<'_>) -> Result<(), String> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["__runtime", ground.name(), "flood", &unique()]).arg(ground.base).stdin(Stdio::null());
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [bytes, before, most] = numbers[..] else {
        return Err(format!("expected three numbers, found {text:?} {}", String::from_utf8_lossy(&output.stderr)));
    };
    expect(bytes >= FLOOD_BYTES, || format!("expected a flood, found {bytes} bytes"))?;
    let growth = most.saturating_sub(before);
    expect(growth <= GROWTH_KIB_MAX, || format!("expected flat memory, found {growth} KiB more after {bytes} bytes"))
}

fn bomb(ground: &Ground<'_>) -> Result<(), String> {
    let (mark, done) = (unique(), AtomicBool::new(false));
    let (most, samples) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let limit = |policy: &mut Policy| policy.limits.processes = BOMB_PROCESSES_MAX;
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Others can still start something.
                let works = std::process::Command::new("true").status().is_ok_and(|status| status.success());
                samples.fetch_add(usize::from(works), Ordering::Relaxed);
                most.fetch_max(alive(&mark).len(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let exit = run(ground, "bomb", &mark, (BOMB_TIME, &Cancel::new()), limit, &mut |_| {});
        done.store(true, Ordering::Relaxed);
        exit
    })?;
    let (most, samples, left) = (most.into_inner(), samples.into_inner(), alive(&mark));
    end(&left);
    expect(left.is_empty(), || format!("expected nothing to be left, found {} processes", left.len()))?;
    expect(exit == Exit::Deadline, || format!("expected the deadline, found {exit:?}"))?;
    expect(samples >= 10, || format!("the machine was too busy: {samples} looks"))?;
    if ground.is_control() {
        return expect(most >= 200, || format!("control: expected the bomb to grow without a limit, found {most}"));
    }
    let allowed = usize::try_from(BOMB_PROCESSES_MAX).unwrap() + HELPERS_MAX;
    expect(most <= allowed, || format!("expected at most {allowed} processes, found {most}"))?;
    expect(most >= 16, || format!("expected a bomb, found {most} processes"))
}

/// Runs a tool of this file in the backend of `ground`, in a house of its own.
fn run(
    ground: &Ground<'_>,
    kind: &str,
    mark: &str,
    limits: (Duration, &Cancel),
    change: impl FnOnce(&mut Policy),
    see: &mut dyn FnMut(&[u8]),
) -> Result<Exit, String> {
    let house = ground.houses.take(Layout::Project);
    let mut policy = house.policy();
    change(&mut policy);
    let sandbox = ground.backend.sandbox(policy).map_err(|e| e.to_string())?;
    let view = house.with_place(|place| sandbox.view(place));
    let command = Command {
        program: ground.bin().join("sandbox").display().to_string(),
        args: vec!["__tool".into(), kind.into(), mark.into()],
        env: house.environment(),
        deadline: limits.0,
    };
    let mut sink = |_: Stream, bytes: &[u8]| see(bytes);
    sandbox.run(&view, &command, limits.1, &mut sink).map(|ended| ended.exit).map_err(|e| e.to_string())
}

/// A runtime of its own: `BACKEND KIND MARK BASE`.
pub fn runtime(args: &[String]) {
    let [backend, kind, mark, base] = args else { panic!("expected backend, kind, mark, base; found {args:?}") };
    let base = Path::new(base);
    if backend == "plain" {
        let status = std::process::Command::new("/proc/self/exe").args(["__tool", kind, mark]).status();
        println!("{status:?}");
        return;
    }
    let mode = mode_of(backend);
    let backend = find(mode, &base.join("bin/duragent"), Enforcement::None).unwrap();
    // Who it is does not matter here.
    let houses = Houses::new(base);
    let ground = Ground { backend: &backend, user: crate::case::User::Ordinary, base, houses: &houses };
    let (mut bytes, mut before, cancel) = (0, 0, Cancel::new());
    let exit = run(&ground, kind, mark, (TOOL_LIFE_MAX, &cancel), |_| {}, &mut |chunk| {
        if kind != "flood" {
            std::io::stdout().write_all(chunk).unwrap();
        }
        if bytes == 0 {
            before = memory("VmRSS:");
        }
        bytes += chunk.len() as u64;
        if bytes >= FLOOD_BYTES {
            cancel.raise();
        }
    });
    if kind == "flood" && exit == Ok(Exit::Cancelled) {
        println!("{bytes} {before} {}", memory("VmHWM:"));
    } else {
        println!("{exit:?}");
    }
}

pub fn mode_of(backend: &str) -> Mode {
    match backend {
        "bubblewrap" => Mode::Bubblewrap,
        "landlock" => Mode::Landlock,
        _ => Mode::Trust,
    }
}

/// KiB of this process.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What runs inside: `KIND MARK`.
pub fn tool(kind: &str) {
    match kind {
        "tree" => {
            grow_tree();
            std::thread::sleep(TOOL_LIFE_MAX);
        }
        "daemon" => grow_tree(),
        "flood" => flood_pipes(),
        "bomb" => {
            grow_bomb(BOMB_GENERATIONS);
            std::thread::sleep(TOOL_LIFE_MAX);
        }
        other => panic!("no tool {other:?}"),
    }
}

/// Children, grandchildren without parents, sessions of their own; none listens to polite signals.
fn grow_tree() {
    // Refused where no new file can be made beside protected ones.
    let _ = fs::write(PROTECTED, "made from inside");
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
        ignore_signal(signal);
    }
    let stay = || {
        std::thread::sleep(TOOL_LIFE_MAX);
        0
    };
    let _ = fork(stay);
    let between = fork(|| {
        let _ = kernel::call(libc::SYS_setsid, &[]);
        // Its parent ends at once.
        let _ = fork(|| {
            let _ = kernel::call(libc::SYS_setsid, &[]);
            let _ = fork(stay);
            stay()
        });
        0
    });
    if let Ok(pid) = between {
        let _ = kernel::wait(pid);
    }
    println!("ready");
    std::io::stdout().flush().unwrap();
}

fn flood_pipes() {
    let block = vec![b'x'; 64 * 1024];
    let _ = fork(|| {
        while std::io::stderr().write_all(&block).is_ok() {}
        0
    });
    while std::io::stdout().write_all(&block).is_ok() {}
}

/// Two children, each of which does the same; who is refused tries again.
fn grow_bomb(generations: u32) {
    for _ in 0..if generations == 0 { 0 } else { 2 } {
        while fork(|| {
            grow_bomb(generations - 1);
            std::thread::sleep(TOOL_LIFE_MAX);
            0
        })
        .is_err()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("escape-mark-{}-{}.", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Processes with the mark among their arguments. Zombies have none.
fn alive(mark: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|&b| b == 0).any(|word| word == mark.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Ends what a failed check left.
fn end(pids: &[i32]) {
    for &pid in pids {
        let _ = kill(pid, libc::SIGKILL);
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
