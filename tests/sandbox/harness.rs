//! The harness that cargo starts, and a half of it for each user.

use crate::case::{Ground, Outcome, User};
use crate::{attempts, case, house, kernel, survive};
use duragent_platform::sandbox::{Backend, Enforcement, find};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The ordinary user: nobody has this number, so nobody else's processes count against its limits.
const ORDINARY_ID: u32 = 47_001;

/// Where the houses stand. Not in /tmp, which a sandbox has one of its own of.
const BASE: &str = "/var/tmp";

/// Cases of a half that run side by side; the halves do as well.
const WORKERS: usize = 2;

const BACKENDS: [&str; 3] = ["bubblewrap", "landlock", "trust"];

/// What is left of libtest's options: words that a case's name must contain one of.
pub fn filters(args: &[String]) -> Vec<String> {
    const WITH_VALUE: [&str; 7] =
        ["--test-threads", "--skip", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];
    let mut filters = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if WITH_VALUE.contains(&arg.as_str()) {
            args.next();
        } else if !arg.starts_with('-') {
            filters.push(arg.clone());
        }
    }
    filters
}

#[derive(Debug, Default)]
struct Counts {
    passed: u32,
    failed: u32,
    filtered: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.filtered += other.filtered;
    }
}

/// Runs the halves that can be run, and says what came of all.
pub fn harness(filters: &[String]) -> ExitCode {
    let start = Instant::now();
    let base = PathBuf::from(BASE).join(format!("duragent-escape-{}", std::process::id()));
    fs::create_dir(&base).unwrap();
    let mut total = Counts::default();
    // All copies are made before anything is started: a program that is open for writing cannot be executed.
    let mut halves = vec![prepare(User::Ordinary, &base, filters)];
    if kernel::uid() == 0 {
        halves.push(prepare(User::Root, &base, filters));
    } else if std::env::var_os("CI").is_some_and(|value| value == "true") {
        println!("test the half as root ... FAILED: expected to be root where CI is true, found uid {}", kernel::uid());
        total.failed += 1;
    } else {
        println!("not run: the half as root; this is uid {}", kernel::uid());
    }
    std::thread::scope(|scope| {
        let halves: Vec<_> = halves.into_iter().map(|half| scope.spawn(|| follow(half))).collect();
        for half in halves {
            total.add(half.join().unwrap());
        }
    });
    let _ = fs::remove_dir_all(&base);
    let word = if total.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        total.passed,
        total.failed,
        total.filtered,
        start.elapsed().as_secs_f64()
    );
    // As libtest's.
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Copies the programs to where the user can read them; the command that starts this one as that user.
fn prepare(user: User, base: &Path, filters: &[String]) -> Command {
    let base = base.join(user.name());
    let bin = base.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let own = std::env::current_exe().unwrap();
    let programs =
        [(own, "sandbox"), (env!("CARGO_BIN_EXE_duragent").into(), "duragent"), ("/bin/true".into(), "spare")];
    for (from, name) in &programs {
        fs::copy(from, bin.join(name)).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(bin.join("sandbox"));
    command.arg("__half").arg(user.name()).arg(&base).args(filters).current_dir(&base);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env(house::SECRET_NAME, house::SECRET.trim());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if user == User::Ordinary && kernel::uid() == 0 {
        // Without root, it is an ordinary user already. Setting the user drops the groups as well.
        for path in [&base, &bin, &bin.join("sandbox"), &bin.join("duragent"), &bin.join("spare")] {
            chown(path, Some(ORDINARY_ID), Some(ORDINARY_ID)).unwrap();
        }
        command.uid(ORDINARY_ID).gid(ORDINARY_ID);
    }
    command
}

/// Starts a half, hands on what it prints, and returns what it counted.
fn follow(mut half: Command) -> Counts {
    let mut child = half.spawn().unwrap();
    let mut counts = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("counts: ") {
            Some(numbers) => counts = Some(numbers.to_owned()),
            None => println!("{line}"),
        }
    }
    let status = child.wait().unwrap();
    let numbers: Vec<u32> = counts.iter().flat_map(|text| text.split(' ')).filter_map(|n| n.parse().ok()).collect();
    if let [passed, failed, filtered] = numbers[..] {
        Counts { passed, failed, filtered }
    } else {
        println!("test {half:?} ... FAILED: it ended early: {status}");
        Counts { failed: 1, ..Counts::default() }
    }
}

type Case<'a> = (String, Box<dyn FnOnce() -> Outcome + Send + 'a>);

/// All cases as this user; the last line counts them.
pub fn half(user: &str, base: &Path, filters: &[&str]) {
    let user = if user == User::Root.name() { User::Root } else { User::Ordinary };
    leak_secret(base);
    let counts = Mutex::new(Counts::default());
    let found: Vec<(&str, Backend)> = BACKENDS
        .into_iter()
        .filter_map(|name| match find_backend(name, base) {
            Ok(backend) => Some((name, backend)),
            Err(why) => {
                println!("test {name}/{}: the backend ... FAILED: {why}", user.name());
                counts.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
                None
            }
        })
        .collect();
    let houses = house::Houses::new(base);
    let grounds: Vec<Ground<'_>> =
        found.iter().map(|(_, backend)| Ground { backend, user, base, houses: &houses }).collect();
    let mut together: VecDeque<Case<'_>> = VecDeque::new();
    let mut alone: VecDeque<Case<'_>> = VecDeque::new();
    for ground in &grounds {
        let name = |what: &str| format!("{}/{}: {what}", ground.name(), user.name());
        for &(what, check) in survive::CHECKS {
            together.push_back((name(what), Box::new(move || check(ground).map(|()| "ok"))));
        }
        for &(what, check) in survive::ALONE {
            alone.push_back((name(what), Box::new(move || check(ground).map(|()| "ok"))));
        }
    }
    for attempt in attempts::all() {
        for ground in &grounds {
            let name = format!("{}/{}: {}", ground.name(), user.name(), attempt.name);
            let queue = if attempt.alone { &mut alone } else { &mut together };
            queue.push_back((name, Box::new(move || case::run(ground, attempt))));
        }
    }
    run_all(together, WORKERS, filters, &counts);
    run_all(alone, 1, filters, &counts);
    let Counts { passed, failed, filtered, .. } = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("counts: {passed} {failed} {filtered}");
}

/// A descriptor that a careless part of the runtime left open for every program it starts.
fn leak_secret(base: &Path) {
    let path = base.join("leaked");
    fs::write(&path, house::SECRET).unwrap();
    let file = fs::File::open(&path).unwrap();
    assert!(kernel::leak(&file) >= 100);
}

/// The backend of this name and no other, with full enforcement.
fn find_backend(name: &str, base: &Path) -> Result<Backend, String> {
    let required = if name == "trust" { Enforcement::None } else { Enforcement::Full };
    let backend = find(survive::mode_of(name), &base.join("bin/duragent"), required)
        .map_err(|error| format!("{}; {}", error.cause, error.remedy))?;
    let report = backend.report();
    if report.backend != name {
        return Err(format!("expected {name}, found {report:?}"));
    }
    Ok(backend)
}

fn run_all(cases: VecDeque<Case<'_>>, workers: usize, filters: &[&str], counts: &Mutex<Counts>) {
    let queue = Mutex::new(cases);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((name, case)) = next() {
                    let wanted = filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
                    let start = Instant::now();
                    let result = wanted.then(case);
                    let took = start.elapsed().as_millis();
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    match result {
                        None => counts.filtered += 1,
                        Some(Ok(word)) => {
                            println!("test {name} ... {word} ({took} ms)");
                            counts.passed += 1;
                        }
                        Some(Err(why)) => {
                            println!("test {name} ... FAILED: {why}");
                            counts.failed += 1;
                        }
                    }
                }
            });
        }
    });
}
