//! Smoke under QEMU's user mode: does the binary run at all on that processor, and do what it says.
//!
//! Facts about that mode: it knows no seccomp, Landlock and user namespaces, and it cannot start our binary again, as every tool
//! process needs. So a turn here uses file tools, which run in the runtime itself, and `doctor` has to say that neither wall can be had.

use super::Report;
use crate::crash::client::Client;
use crate::crash::inject::{Ended, Program};
use crate::crash::json::{self, Json};
use crate::crash::log;
use crate::crash::oracle;
use crate::cross::apt;
use crate::cross::targets::{Libc, Target};
use crate::repo::{Repo, at};
use crate::{Failure, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a server to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the emulator says when its own threads have collided, once in some hundred servers on a busy machine (QEMU 7.2, SIGBUS); a
/// whole board never does. That is tried again, and nothing else is.
const LOST: &str = "qemu: uncaught target signal 7";

/// Attempts with the server.
const ATTEMPTS_MAX: usize = 3;

const CONFIG: &str = "\
providers:
  recorded:
    kind: replay
    file: transcript.jsonl
sandbox:
  mode: trust
";

const AGENT: &str = "\
apiVersion: duragent/v1alpha1
kind: Agent
metadata:
  name: witness
spec:
  model:
    provider: recorded
    name: transcript
  tools: [read_file, write_file]
";

const TRANSCRIPT: &str = "\
{\"repeat\":true}
{\"tool_calls\":[{\"name\":\"read_file\",\"arguments\":{\"path\":\"notes.txt\"}}]}
{\"tool_calls\":[{\"name\":\"write_file\",\"arguments\":{\"path\":\"report.txt\",\"content\":\"all is well\"}}]}
{\"deltas\":[\"It is \",\"done\"]}
";

/// The emulator of single programs for a target; none where this machine runs it by itself.
///
/// # Errors
/// If the architecture is unknown.
pub fn emulator(target: &str) -> Result<Option<&'static str>> {
    match target.split('-').next().unwrap_or_default() {
        "arm" | "armv7" => Ok(Some("qemu-arm-static")),
        "aarch64" => Ok(Some("qemu-aarch64-static")),
        "x86_64" if cfg!(target_arch = "x86_64") => Ok(None),
        other => Err(Failure::new(format!("no emulator is known for {other}"))),
    }
}

/// Tries the binary of a target out, in `root`.
///
/// # Errors
/// If it cannot be run at all.
pub fn smoke(repo: &Repo, target: &str, binary: &Path, root: &Path, report: &mut Report) -> Result<()> {
    println!("user mode: {target}");
    let folder = root.join("home");
    fs::create_dir_all(&folder).map_err(|e| at(&folder, &e))?;
    let wrapper = wrapper(repo, target, binary, root)?;
    let program = Program { binary: wrapper, folder, scratch: root.join("scratch"), files: Vec::new() };
    let mut smoke = Smoke { program, report };
    smoke.commands(emulator(target)?.is_some())?;
    smoke.turns()?;
    smoke.server()
}

/// A script that runs the binary as that machine would.
fn wrapper(repo: &Repo, target: &str, binary: &Path, root: &Path) -> Result<PathBuf> {
    let mut line = "exec".to_owned();
    if let Some(emulator) = emulator(target)? {
        line.push_str(&format!(" {emulator}"));
        if target.starts_with("arm-") {
            // The processor of the first Raspberry Pi: what it does not know is an illegal instruction.
            line.push_str(" -cpu arm1176");
        }
        if let Some(target) = Target::find(target).filter(|target| target.libc == Libc::Glibc) {
            line.push_str(&loader(repo, target)?);
        }
    }
    let path = root.join("duragent");
    fs::write(&path, format!("#!/bin/sh\n{line} '{}' \"$@\"\n", binary.display())).map_err(|e| at(&path, &e))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| at(&path, &e))?;
    Ok(path)
}

/// The words that run a dynamic program with Debian's C library. Not the emulator's `-L`, which takes `/` itself for a part of
/// that library.
fn loader(repo: &Repo, target: &Target) -> Result<String> {
    let root = apt::root(repo, target.debian, &["libc6", "libgcc-s1"])?;
    let lib = root.join("lib").join(target.tools);
    let found = fs::read_dir(&lib).map_err(|e| at(&lib, &e))?.flatten().map(|entry| entry.path());
    let is_loader =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"));
    let loader = found.filter(is_loader).min();
    let loader = loader.ok_or_else(|| Failure::new(format!("{}: expected a loader, found none", lib.display())))?;
    Ok(format!(" '{}' --library-path '{}'", loader.display(), lib.display()))
}

struct Smoke<'a> {
    program: Program,
    report: &'a mut Report,
}

impl Smoke<'_> {
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let path = self.program.folder.join(name);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).map_err(|e| at(&path, &e))
    }

    /// Runs a command, which has to end with `code` and to say `wanted`, on standard output or error.
    fn expect(&mut self, args: &[&str], code: i32, wanted: &str) -> Result<Ended> {
        let ended = self.program.run(args)?;
        let holds = ended.code() == Some(code) && (ended.out.contains(wanted) || ended.err.contains(wanted));
        let what = format!("{}: exit {code}, {wanted:?}", args.join(" "));
        self.report.holds(&what, holds, (ended.describe(), &ended.out, &ended.err));
        Ok(ended)
    }

    fn commands(&mut self, emulated: bool) -> Result<()> {
        self.expect(&["version"], 0, "duragent")?;
        self.expect(&["init", "."], 0, "made")?;
        self.expect(&["chek"], 2, "check")?;
        self.put(".duragent/duragent.yaml", "sandbox: {mode: trust}\nadress: 1\n")?;
        self.expect(&["check"], 3, "adress")?;
        self.put(".duragent/duragent.yaml", CONFIG)?;
        self.put(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n")?;
        self.put(".duragent/agents/witness/agent.yaml", AGENT)?;
        self.put(".duragent/transcript.jsonl", TRANSCRIPT)?;
        self.put("notes.txt", "the sky is blue\n")?;
        self.expect(&["check"], 0, "configuration ok")?;
        let ended = self.program.run(&["doctor", "--json"])?;
        let doctor = ended.out.lines().find_map(|line| json::parse(line).ok()).unwrap_or(Json::Plain("null".into()));
        let status = |name: &str| {
            let check = doctor.list("checks").iter().find(|check| check.text("name") == name);
            check.map_or("nothing", |check| check.text("status"))
        };
        let walls = (status("backend bubblewrap"), status("backend landlock"));
        let is_honest = !emulated || !(walls.0 == "ok" || walls.1 == "ok");
        let has_looked = doctor.list("checks").len() >= 10 && ended.code().is_some_and(|code| code < 2);
        let what = format!("doctor --json: {}; bubblewrap {}, Landlock {}", ended.describe(), walls.0, walls.1);
        self.report.holds(&what, is_honest && has_looked, (&ended.out, &ended.err));
        Ok(())
    }

    fn turns(&mut self) -> Result<()> {
        let says = ["run", "witness", "go on", "--session", "smoke", "--output-format", "stream-json"];
        self.expect(&says, 0, "\"reason\":\"completed\"")?;
        let ended = self.expect(&says, 0, "\"reason\":\"completed\"")?;
        let log = self.log("smoke")?;
        let mut findings = oracle::check(&log, true);
        findings.extend(oracle::acknowledged(&log, &crate::crash::play::published(&ended.out)));
        let report = fs::read_to_string(self.program.folder.join("report.txt")).unwrap_or_default();
        if report != "all is well" {
            findings.push(format!("report.txt has {report:?}"));
        }
        self.report.check("the log of two turns with tools, read a second time", &findings);
        self.expect(&["session", "verify", "smoke"], 0, "smoke").map(drop)
    }

    fn log(&self, session: &str) -> Result<log::Log> {
        let path = self.program.folder.join(format!(".duragent/sessions/{session}/events.jsonl"));
        let bytes = fs::read(&path).map_err(|e| at(&path, &e))?;
        log::read(&bytes).map_err(|damage| Failure::new(format!("{}: {damage}", path.display())))
    }

    fn server(&mut self) -> Result<()> {
        let mut findings = Vec::new();
        for attempt in 0..ATTEMPTS_MAX {
            findings = self.served(&format!("served-{attempt}"))?;
            if !findings.iter().any(|finding| finding.contains(LOST)) {
                break;
            }
            println!("  the emulator lost its way among threads, again: {}", findings.join("; "));
        }
        self.report.check("a server, killed and started again, with a turn by HTTP each time", &findings);
        Ok(())
    }

    fn served(&self, session: &str) -> Result<Vec<String>> {
        let socket = self.program.scratch.join("s");
        let listen = format!("unix:{}", socket.display());
        let client = Client::new(&socket);
        let mut findings = Vec::new();
        // The second finds what the first left when it was killed.
        for round in 0..2 {
            let mut server = self.program.start(&["serve", "--listen", &listen])?;
            let start = Instant::now();
            while client.ask("GET", "/readyz", &[], "").is_none_or(|answer| answer.status != 200) {
                if !server.is_alive()? || start.elapsed() > PATIENCE {
                    let ended = server.stop()?;
                    return Ok(vec![format!("serve: {}: {}", ended.describe(), ended.err)]);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let ask = |path: &str, body: &str| client.ask("POST", path, &[], body).map(|a| (a.status, a.body));
            ask("/api/v1/sessions", &format!("{{\"agent\":\"witness\",\"id\":\"{session}\"}}"));
            let said = ask(&format!("/api/v1/sessions/{session}/messages?wait=60"), "{\"content\":\"go on\"}");
            if !said.as_ref().is_some_and(|(status, body)| *status == 200 && body.contains("It is done")) {
                findings.push(format!("round {round}: {said:?}"));
            }
            let is_last = round > 0;
            if is_last {
                ask("/api/admin/v1/shutdown", "");
            }
            let ended = if is_last || !server.is_alive()? { server.end()? } else { server.stop()? };
            if (is_last || ended.err.contains(LOST)) && ended.code() != Some(0) {
                findings.push(format!("round {round}: {}: {}", ended.describe(), ended.err));
            }
        }
        findings.extend(oracle::check(&self.log(session)?, true));
        Ok(findings)
    }
}
