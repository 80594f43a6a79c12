//! Faults from outside: a program under `strace`, which kills it at, or fails, a chosen system call.
//!
//! strace counts calls per thread and per name. A survey run without a fault says which calls there are and how often each
//! thread makes them; a point is then a name and a number up to the largest such count. The thread that reaches the
//! number first gets the fault. Children of the program (tools) are traced too, so a fault may hit one of them; the trace
//! says whom it hit.
//!
//! Absent: faults of the disk itself. What was not synced is not lost here.

use crate::repo::at;
use crate::{Failure, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest run of one command. What takes longer hangs, and hanging is a finding.
pub const RUN_TIME_MAX: Duration = Duration::from_secs(20);

/// Longest run of a command whose disk has failed for good. It may wait for the disk as long as it says so.
const BROKEN_TIME_MAX: Duration = Duration::from_secs(3);

/// System calls that touch files, and the steps of starting, watching and ending tools. Not every machine has all of them.
pub const TRACED: &str = "open,openat,openat2,creat,read,pread64,write,pwrite64,writev,close,lseek,ftruncate,truncate,\
                          fsync,fdatasync,sync_file_range,fallocate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,\
                          mkdir,mkdirat,rmdir,flock,fcntl,stat,fstat,lstat,newfstatat,statx,getdents64,chmod,fchmod,\
                          fchmodat,clone,clone3,vfork,execve,wait4,waitid,poll,ppoll,recvfrom";

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL when the call is entered: it does not happen.
    Kill,
    /// The call fails with this error and does not happen.
    Error(&'static str),
    /// It fails from this time on, as on a disk that stays full.
    Errors(&'static str),
}

/// A fault at the `when`-th call of this name. Errors happen to files of the scene only: what the kernel keeps to itself
/// (event descriptors, pipes) does not fail in these ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Name of the system call.
    pub call: String,
    /// From 1, counted per thread.
    pub when: u64,
    /// What happens there.
    pub fault: Fault,
}

impl Point {
    fn expression(&self) -> String {
        let Self { call, when, fault } = self;
        match fault {
            Fault::Kill => format!("inject={call}:signal=SIGKILL:when={when}"),
            Fault::Error(error) => format!("inject={call}:error={error}:when={when}"),
            Fault::Errors(error) => format!("inject={call}:error={error}:when={when}+"),
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.fault {
            Fault::Kill => "SIGKILL".to_owned(),
            Fault::Error(error) => error.to_owned(),
            Fault::Errors(error) => format!("{error} for good"),
        };
        write!(f, "{what} at {} {}", self.call, self.when)
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` if it did not end in time and had to be killed.
    pub status: Option<ExitStatus>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// What strace wrote; empty without strace.
    pub trace: String,
}

impl Ended {
    /// True if SIGKILL ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.status.is_some_and(|s| s.signal() == Some(9))
    }

    /// Its exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|s| s.code())
    }

    /// True if the fault happened: the program was killed, or a call of it or of a child was made to fail.
    #[must_use]
    pub fn was_hit(&self, point: &Point) -> bool {
        match point.fault {
            Fault::Kill => self.was_killed(),
            Fault::Error(_) | Fault::Errors(_) => self.injected().next().is_some(),
        }
    }

    /// How it ended, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.status.map_or_else(|| "no end in time".to_owned(), |status| status.to_string())
    }

    /// The calls that were made to fail, as strace shows them.
    pub fn injected(&self) -> impl Iterator<Item = &str> {
        self.trace.lines().filter(|line| line.ends_with("(INJECTED)"))
    }
}

/// A command that is run in a clean environment, with or without a fault.
#[derive(Debug, Clone)]
pub struct Program {
    /// What is run.
    pub binary: PathBuf,
    /// Where.
    pub folder: PathBuf,
    /// Files for output and trace are made here; nobody else's.
    pub scratch: PathBuf,
    /// Files of the scene, relative to the folder above `folder`: those that errors happen to.
    pub files: Vec<String>,
}

impl Program {
    /// Runs it without strace.
    ///
    /// # Errors
    /// If it cannot be started or its output cannot be kept.
    pub fn run(&self, args: &[&str]) -> Result<Ended> {
        self.start(args)?.end()
    }

    /// Runs it under strace with no fault, to see what calls it makes.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn survey(&self, args: &[&str]) -> Result<Ended> {
        self.start_surveyed(args)?.end()
    }

    /// Runs it with a fault.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn fault(&self, args: &[&str], point: &Point) -> Result<Ended> {
        let limit = if matches!(point.fault, Fault::Errors(_)) { BROKEN_TIME_MAX } else { RUN_TIME_MAX };
        self.start_with(args, point)?.end_within(limit)
    }

    /// As [`Program::run`], but does not wait for its end.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn start(&self, args: &[&str]) -> Result<Running> {
        let mut command = Command::new(&self.binary);
        command.args(args);
        self.execute(command, false)
    }

    /// As [`Program::survey`], but does not wait for its end.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn start_surveyed(&self, args: &[&str]) -> Result<Running> {
        self.execute(self.strace(args, None), true)
    }

    /// As [`Program::fault`], but does not wait for its end.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn start_with(&self, args: &[&str], point: &Point) -> Result<Running> {
        self.execute(self.strace(args, Some(point)), true)
    }

    /// What files are named from.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// The command line of strace: follows children, resolves descriptors to paths.
    fn strace(&self, args: &[&str], point: Option<&Point>) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-s", "8", "-e", "signal=none", "-o"]).arg(self.scratch.join("trace"));
        // Stops only at traced calls, which is faster; but strace 6.1 then forgets to deliver injected signals.
        if point.is_none_or(|p| p.fault != Fault::Kill) {
            command.arg("--seccomp-bpf");
        }
        match point {
            // Only the call itself: every other stop would cost time and change nothing.
            Some(point) => {
                for file in self.files.iter().filter(|_| point.fault != Fault::Kill) {
                    command.arg("-P").arg(self.root().join(file));
                }
                command.args(["-e", &format!("trace={}", point.call), "-e", &point.expression()])
            }
            // A question mark: not an error where there is no such call.
            None => command.args(["-e", &format!("trace=?{}", TRACED.replace(',', ",?"))]),
        };
        command.arg("--").arg(&self.binary).args(args);
        command
    }

    fn execute(&self, mut command: Command, traced: bool) -> Result<Running> {
        fs::create_dir_all(&self.scratch).map_err(|e| at(&self.scratch, &e))?;
        let create = |name: &str| {
            let path = self.scratch.join(name);
            File::create(&path).map_err(|e| at(&path, &e))
        };
        let child = command
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::from(create("out")?))
            .stderr(Stdio::from(create("err")?))
            .process_group(0)
            .spawn()
            .map_err(|e| at(Path::new(command.get_program()), &e))?;
        Ok(Running { child, scratch: self.scratch.clone(), traced, start: Instant::now() })
    }
}

/// A program that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    scratch: PathBuf,
    traced: bool,
    start: Instant,
}

impl Running {
    /// True until it has ended.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.poll()?.is_none())
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|e| at(&self.scratch, &e))
    }

    /// Waits for its end, and ends it after [`RUN_TIME_MAX`].
    ///
    /// # Errors
    /// If its output cannot be read, or strace could not do its work.
    pub fn end(self) -> Result<Ended> {
        self.end_within(RUN_TIME_MAX)
    }

    /// Waits for its end, and ends it after `limit`.
    ///
    /// # Errors
    /// As [`Running::end`].
    pub fn end_within(mut self, limit: Duration) -> Result<Ended> {
        loop {
            if let Some(status) = self.poll()? {
                return self.ended(Some(status));
            }
            if self.start.elapsed() > limit {
                return self.stop();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it now.
    ///
    /// # Errors
    /// As [`Running::end`].
    pub fn stop(mut self) -> Result<Ended> {
        // The whole group: those that strace traced outlive it. Tools have sessions of their own, and guards that end them.
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        killed.and_then(|_| self.child.wait()).map_err(|e| at(&self.scratch, &e))?;
        self.ended(None)
    }

    fn ended(&self, status: Option<ExitStatus>) -> Result<Ended> {
        let read = |name: &str| {
            let path = self.scratch.join(name);
            fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| at(&path, &e))
        };
        let trace = if self.traced { read("trace")? } else { String::new() };
        let ended = Ended { status, out: read("out")?, err: read("err")?, trace };
        if ended.err.starts_with("strace: ") { Err(Failure::new(ended.err)) } else { Ok(ended) }
    }
}

/// How often the busiest thread of the surveyed program itself, not of its children, makes each call. With `files`, only
/// calls that name one of them count.
#[must_use]
pub fn counts(trace: &str, files: Option<&[String]>) -> BTreeMap<String, u64> {
    let mut per_thread: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    let mut first = None;
    let mut children = BTreeSet::new();
    for line in trace.lines() {
        let Some((pid, call)) = read_call(line) else { continue };
        if *first.get_or_insert(pid) != pid && call == "execve" {
            children.insert(pid);
        }
        let counts = files.is_none_or(|files| paths(line).any(|path| files.iter().any(|file| path.ends_with(file))));
        *per_thread.entry((pid, call)).or_default() += u64::from(counts);
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, call), count) in per_thread.iter().filter(|((pid, _), _)| !children.contains(pid)) {
        let most = counts.entry((*call).to_owned()).or_default();
        *most = (*most).max(*count);
    }
    counts
}

/// Files below `root` that the trace names, relative to it, but for those whose names differ from run to run.
#[must_use]
pub fn files(trace: &str, root: &Path) -> Vec<String> {
    let relative = |path: &str| Path::new(path).strip_prefix(root).ok().map(|p| p.to_string_lossy().into_owned());
    let all: BTreeSet<String> = trace.lines().flat_map(paths).filter_map(relative).collect();
    // The folder itself is the working directory, which is named in every call that takes a path.
    all.into_iter().filter(|file| file.contains('/') && !file.contains(".duragent-")).collect()
}

/// Absolute paths in a line: of descriptors, between angle brackets, and of names, between quotes.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split(['<', '>', '"']).filter(|part| part.starts_with('/'))
}

/// Thread and name of the call that starts in this line of a trace; `None` for the second half of an interrupted line.
fn read_call(line: &str) -> Option<(u64, &str)> {
    let (pid, rest) = line.split_once(' ')?;
    let (name, _) = rest.trim_start().split_once('(')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some(pid.parse().ok().map(|pid| (pid, name)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str) -> Program {
        let scratch = std::env::temp_dir().join(format!("duragent-inject-{}-{name}", std::process::id()));
        fs::create_dir_all(&scratch).expect("a folder can be made");
        Program { binary: "sh".into(), folder: scratch.clone(), scratch, files: Vec::new() }
    }

    fn gone(program: &Program) {
        fs::remove_dir_all(&program.scratch).expect("it is there");
    }

    #[test]
    fn a_call_fails_where_it_was_meant_to() {
        let program = shell("fails");
        let point = Point { call: "write".into(), when: 2, fault: Fault::Error("ENOSPC") };
        let ended = program.fault(&["-c", "echo a; echo b || echo failed >&2; echo c"], &point).expect("strace runs");
        assert_eq!(ended.out, "a\nc\n");
        assert!(ended.err.contains("failed"), "{}", ended.err);
        assert_eq!(ended.injected().count(), 1, "{}", ended.trace);
        let point = Point { fault: Fault::Errors("EIO"), ..point };
        let ended = program.fault(&["-c", "echo a; echo b; echo c; exit 7"], &point).expect("strace runs");
        assert_eq!((ended.out.as_str(), ended.code()), ("a\n", Some(7)));
        gone(&program);
    }

    #[test]
    fn errors_happen_to_the_files_of_the_scene_only() {
        let mut program = shell("files");
        let root = program.root().to_path_buf();
        let script = "echo a > other; echo b > mine || echo failed; cat mine";
        let survey = program.survey(&["-c", script]).expect("strace runs");
        let found = files(&survey.trace, &root);
        let name = |file: &str| format!("{}/{file}", program.folder.file_name().unwrap_or_default().to_string_lossy());
        assert!(found.contains(&name("out")) && !found.iter().any(|f| f.contains("/etc/")), "{found:?}");
        program.files = vec![name("mine")];
        let point = Point { call: "write".into(), when: 1, fault: Fault::Errors("ENOSPC") };
        let ended = program.fault(&["-c", script], &point).expect("strace runs");
        assert_eq!(ended.out, "failed\n", "{}", ended.trace);
        gone(&program);
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_strace_traced() {
        let program = shell("hangs");
        let point = Point { call: "write".into(), when: 9, fault: Fault::Error("EIO") };
        let mut running =
            program.start_with(&["-c", "echo $$; while :; do sleep 0.01; done"], &point).expect("strace runs");
        let pid = loop {
            let out = fs::read_to_string(program.scratch.join("out")).expect("it is there");
            if let Some(pid) = out.strip_suffix('\n') {
                break pid.to_owned();
            }
            assert!(running.is_alive().expect("we may ask"), "it ended");
        };
        assert_eq!(running.stop().expect("it ends").status, None);
        let is_gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
        let start = Instant::now();
        while !is_gone() {
            assert!(start.elapsed() < RUN_TIME_MAX, "{pid} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        gone(&program);
    }

    #[test]
    fn a_kill_comes_before_the_call() {
        let program = shell("kill");
        for when in 1..=3 {
            let point = Point { call: "write".into(), when, fault: Fault::Kill };
            let ended = program.fault(&["-c", "echo a; echo b; echo c"], &point).expect("strace runs");
            assert!(ended.was_killed(), "{}", ended.describe());
            assert_eq!(ended.out.len() as u64, 2 * (when - 1));
        }
        let point = Point { call: "write".into(), when: 4, fault: Fault::Kill };
        let ended = program.fault(&["-c", "echo a; echo b; echo c"], &point).expect("strace runs");
        assert_eq!((ended.was_killed(), ended.code()), (false, Some(0)));
        gone(&program);
    }

    #[test]
    fn a_survey_counts_the_program_and_not_its_children() {
        let program = shell("survey");
        let ended = program.survey(&["-c", "echo a; echo b; cat /dev/null; exit 0"]).expect("strace runs");
        let counts = counts(&ended.trace, None);
        assert_eq!(counts.get("write"), Some(&2), "{}", ended.trace);
        assert_eq!(counts.get("execve"), Some(&1), "{}", ended.trace);
        gone(&program);
    }

    #[test]
    fn interrupted_lines_count_once_and_threads_apart() {
        let trace = "10 execve(\"a\", [], 0x1) = 0\n10 write(1</x>, \"a\", 1 <unfinished ...>\n11 write(1</x>, \"\", 1) = 1\n\
                     10 <... write resumed>) = 1\n11 write(1, \"\", 1) = 1\n12 execve(\"b\") = 0\n12 write(1) = 1\n12 write(1) = 1\n\
                     12 write(1) = 1\n10 +++ exited with 0 +++\n";
        let found = counts(trace, None);
        assert_eq!(found, BTreeMap::from([("execve".to_owned(), 1), ("write".to_owned(), 2)]));
        let found = counts(trace, Some(&["x".to_owned()]));
        assert_eq!(found, BTreeMap::from([("execve".to_owned(), 0), ("write".to_owned(), 1)]));
    }
}
