//! Power cuts without a machine: the server works on a [`Disk`], and at some moment all is gone that was not synced.
//!
//! A client says the four messages of the story as fast as they are taken, another listens. What was acknowledged to the one
//! (202) or shown to the other has to be in the log that the disk still has; calls of class `once` tell a file on another disk of
//! their effect; and when the server is back, the story ends as if nothing had been. A second cut may come while it recovers.
//!
//! Acknowledged is what came before the cut began: a sync that is under way meanwhile may return success although the journal was
//! aborted under it (`jbd2_complete_transaction` finds the transaction gone), which no machine without power does.
//!
//! The control plays the same on a disk where every sync is skipped, and has to lose something. If it does not, the moments
//! prove nothing.

use super::client::Client;
use super::disk::{Cutter, Disk};
use super::families::{Case, Extent, Family, Survey};
use super::inject::{Program, RUN_TIME_MAX, Running};
use super::json::Json;
use super::oracle;
use super::play::{Calm, Verdict, compare};
use super::random::Random;
use super::scene::{PROMPTS, Scene};
use super::serve::{Subscriber, shut_down, wait_until_ready};
use crate::repo::at;
use crate::{Failure, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Cuts of one disk, one after the other; each leaves it older than the one before.
const ROUNDS: usize = 6;

/// Disks in a slice, and in all: six cuts each, and a control.
const DISKS_SLICE: usize = 7;
const DISKS_MAX: usize = 40;

/// A program that runs a program whose syncs do nothing and say that all is well.
const UNSYNCED: &str = "\
#!/bin/sh
exec strace -f -qq --seccomp-bpf -e signal=none -o /dev/null -e trace=fsync,fdatasync \\
    -e inject=fsync,fdatasync:retval=0 -- ";

/// Power cuts, and the control.
pub fn cuts<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    let disks = if extent.cases_max == usize::MAX { DISKS_MAX } else { DISKS_SLICE };
    let calm = &survey.calm;
    let mut cases: Vec<Case<'a>> = (0..disks)
        .map(|number| {
            let seed = random.next();
            Case {
                name: format!("disk {number} (seed {seed})"),
                run: Box::new(move |root| played(root, calm, seed, true)),
            }
        })
        .collect();
    let seed = random.next();
    cases.push(Case {
        name: "without fdatasync".to_owned(),
        run: Box::new(move |root| {
            let verdict = played(root, calm, seed, false)?;
            let mut control = Verdict { hits: verdict.hits, ..Verdict::default() };
            if verdict.findings.is_empty() {
                control.find("expected it to lose something, it lost nothing: these moments prove nothing");
            }
            Ok(control)
        }),
    });
    // Some moments come before the first message, or after the last turn.
    let hits_min = disks * ROUNDS / 3;
    Family { name: "power", about: "power cuts of an ext4 disk, and a control without fdatasync", cases, hits_min }
}

/// A disk with a workspace, and whoever talks to the server on it.
struct Bench<'a> {
    disk: Disk,
    scene: Scene,
    /// The same without its syncs, if this is a control.
    disturbed: Program,
    socket: PathBuf,
    client: Client,
    calm: &'a Calm,
    verdict: Verdict,
}

fn played(root: &Path, calm: &Calm, seed: u64, synced: bool) -> Result<Verdict> {
    let mut bench = Bench::new(root, calm, synced)?;
    let mut random = Random::new(seed);
    let mut span = Duration::ZERO;
    for round in 0..=ROUNDS {
        // The first is not disturbed, and says how long a story takes.
        let moment = (round > 0).then(|| span.mul_f64(random.below(1000) as f64 / 900.0));
        let again = random.below(3) == 0;
        let again = moment.filter(|_| again).map(|_| span.mul_f64(random.below(1000) as f64 / 2000.0));
        let from = bench.verdict.findings.len();
        let start = Instant::now();
        bench.round(round, moment.into_iter().chain(again))?;
        if round == 0 {
            span = start.elapsed();
        }
        for finding in &mut bench.verdict.findings[from..] {
            *finding = format!("round {round}, cut after {moment:?}, then {again:?}: {finding}");
        }
        if !bench.verdict.findings.is_empty() {
            break;
        }
    }
    bench.disk.unmount()?;
    bench.verdict.findings.extend(bench.disk.check()?);
    Ok(bench.verdict)
}

impl<'a> Bench<'a> {
    fn new(root: &Path, calm: &'a Calm, synced: bool) -> Result<Self> {
        fs::create_dir_all(root).map_err(|e| at(root, &e))?;
        let mut disk = Disk::create(root)?;
        let original = &calm.before[0].program.binary;
        let mut scene = Scene::create(&disk.folder, original)?;
        // Output, the socket and the marks of tools are the bench's own, and stay.
        scene.program.scratch = root.join("scratch");
        scene.set_effects_outside(&root.join("effects.txt"))?;
        disk.unmount()?;
        disk.mount()?;
        let mut disturbed = scene.program.clone();
        if !synced {
            disturbed.binary = root.join("unsynced");
            let text = format!("{UNSYNCED}'{}' \"$@\"\n", original.display());
            fs::write(&disturbed.binary, text).map_err(|e| at(&disturbed.binary, &e))?;
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&disturbed.binary, executable).map_err(|e| at(&disturbed.binary, &e))?;
        }
        let socket = root.join("s");
        let client = Client::new(&socket);
        Ok(Self { disk, scene, disturbed, socket, client, calm, verdict: Verdict::default() })
    }

    fn start(&self) -> Result<Running> {
        let listen = format!("unix:{}", self.socket.display());
        self.disturbed.start(&["--dir", ".duragent", "serve", "--listen", &listen])
    }

    /// Tells the story in a session of its own, with a power cut at each of these moments after a start of the server.
    fn round(&mut self, round: usize, moments: impl Iterator<Item = Duration>) -> Result<()> {
        self.scene.session = format!("story-{round}");
        self.scene.set_effects("")?;
        let (mut taken, mut seen) = (Vec::new(), Vec::new());
        for moment in moments {
            seen = self.disturbed_by(moment, &mut taken, seen)?;
            self.after_the_cut(&taken, &seen)?;
            if !self.verdict.findings.is_empty() {
                return Ok(());
            }
        }
        let mut server = self.start()?;
        if !wait_until_ready(&self.client, &mut server)? {
            let ended = server.stop()?;
            self.verdict.find(format!("the server does not start: {}: {}", ended.describe(), ended.err.trim_end()));
            return Ok(());
        }
        let subscriber = Subscriber::after(&self.client, &self.scene.session, seen);
        tell(&self.client, &self.scene.session, &mut taken, &AtomicBool::new(false), &mut self.verdict);
        self.rest(&subscriber)?;
        self.listed(round);
        shut_down(&self.client, &mut self.verdict);
        let ended = server.end()?;
        if ended.code() != Some(0) {
            self.verdict.find(format!("at shutdown: {}: {}", ended.describe(), ended.err.trim_end()));
        }
        self.after_the_cut(&taken, &subscriber.seen())?;
        compare(&mut self.verdict, &self.scene, self.calm)
    }

    /// Starts the server, talks to it, and cuts the power. What the subscriber saw before.
    fn disturbed_by(&mut self, moment: Duration, taken: &mut Vec<Taken>, seen: Vec<String>) -> Result<Vec<String>> {
        let cutter = Cutter::new(&self.disk)?;
        let mut server = self.start()?;
        let start = Instant::now();
        let is_cut = AtomicBool::new(false);
        let subscriber = Subscriber::after(&self.client, &self.scene.session, seen);
        let (client, session) = (&self.client, self.scene.session.as_str());
        let verdict = &mut self.verdict;
        let scene = &self.scene;
        let effects = std::thread::scope(|scope| {
            let teller = scope.spawn(|| {
                while !is_cut.load(Ordering::SeqCst) && client.ask("GET", "/livez", &[], "").is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                tell(client, session, taken, &is_cut, verdict);
            });
            std::thread::sleep(moment.saturating_sub(start.elapsed()));
            // Before it is done: what happens from here on happens to nobody.
            is_cut.store(true, Ordering::SeqCst);
            subscriber.close_eyes();
            let effects = scene.effects();
            let cut = cutter.cut();
            let is_alive = server.is_alive();
            let stopped = server.stop();
            // A panic in it is shown already.
            drop(teller.join());
            cut?;
            let ended = stopped?;
            if !is_alive? && ended.err.contains("panicked") {
                return Err(Failure::new(format!("the server panicked: {}", ended.err)));
            }
            effects
        })?;
        self.disk.unmount()?;
        self.disk.mount()?;
        self.forget(&effects)?;
        Ok(subscriber.seen())
    }

    /// Takes back what tools did after the cut began, unless the disk knows that they were started: `before` is what they had
    /// done by then.
    fn forget(&self, before: &str) -> Result<()> {
        let log = self.scene.log()?.unwrap_or_default();
        let is_known =
            |id: &&str| log.entries.iter().any(|e| e.kind == "tool_started" && e.fields.text("call_id") == *id);
        let all = self.scene.effects()?;
        let later = all.get(before.len()..).unwrap_or_default().lines().filter(is_known);
        let kept = later.fold(before.to_owned(), |text, id| format!("{text}{id}\n"));
        self.scene.set_effects(&kept)
    }

    /// What can be said while no server runs.
    fn after_the_cut(&mut self, taken: &[Taken], seen: &[String]) -> Result<()> {
        let Self { scene, verdict, .. } = self;
        let log = match scene.log()? {
            Ok(log) => log,
            Err(damage) => {
                verdict.find(format!("the log is damaged: {damage}"));
                return Ok(());
            }
        };
        verdict.findings.extend(oracle::check(&log, false));
        verdict.findings.extend(oracle::effects(&log, &scene.effects()?));
        verdict.findings.extend(oracle::acknowledged(&log, seen));
        for Taken { number, seq } in taken {
            let entry = usize::try_from(*seq).ok().and_then(|seq| log.entries.get(seq.wrapping_sub(1)));
            if !entry.is_some_and(|e| e.kind == "message_received" && e.fields.text("content") == PROMPTS[*number]) {
                verdict.find(format!("message {number} was acknowledged as seq {seq}, where the log has {entry:?}"));
            }
        }
        // Whatever is replaced is synced before it is renamed: its name leads to the old or to the new.
        torn(&scene.folder, verdict)?;
        verdict.findings.extend(scene.report()?.filter(|text| !text.ends_with("found \"\"")));
        let is_open = oracle::check(&log, true) != oracle::check(&log, false);
        verdict.hits +=
            usize::from(is_open || log.entries.iter().filter(|e| e.kind == "turn_finished").count() < PROMPTS.len());
        Ok(())
    }

    /// What lists show of sessions comes from a cache that no cut may make a liar of.
    fn listed(&mut self, rounds: usize) {
        let answer = self.client.ask("GET", "/api/v1/sessions?limit=100", &[], "");
        let list = answer.map(|answer| answer.json()).unwrap_or(Json::Plain("null".into()));
        let sessions = list.list("sessions");
        let idle = sessions.iter().filter(|s| s.text("status") == "idle" && s.number("last_seq") > Some(1)).count();
        if (sessions.len(), idle) != (rounds + 1, rounds + 1) {
            self.verdict.find(format!("expected {} sessions that are idle, found {list:?}", rounds + 1));
        }
    }

    /// Waits until all turns have ended and the subscriber has seen it.
    fn rest(&mut self, subscriber: &Subscriber) -> Result<()> {
        let start = Instant::now();
        loop {
            let log = self.scene.log()?.unwrap_or_default();
            let ends = log.entries.iter().filter(|e| e.kind == "turn_finished").count();
            let findings = oracle::check(&log, true);
            if ends >= PROMPTS.len() && findings.is_empty() && subscriber.seen().len() >= log.entries.len() {
                return Ok(());
            }
            if start.elapsed() > RUN_TIME_MAX {
                let seen = subscriber.seen().len();
                let of = log.entries.len();
                self.verdict.find(format!("{ends} turns ended, the subscriber has {seen} events of {of}"));
                self.verdict.findings.extend(findings);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A message that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    number: usize,
    seq: u64,
}

/// Makes the session and says all messages under their keys, as fast as they are taken, until nobody answers.
fn tell(client: &Client, session: &str, taken: &mut Vec<Taken>, is_cut: &AtomicBool, verdict: &mut Verdict) {
    let mut ask = |path: &str, key: &str, body: &str, good: &[u16]| {
        let answer = client.ask("POST", path, &[("Idempotency-Key", key)], body)?;
        if is_cut.load(Ordering::SeqCst) {
            return None;
        }
        if good.contains(&answer.status) {
            return Some(answer);
        }
        verdict.find(format!("{path}: {} {}", answer.status, answer.body));
        None
    };
    let body = format!("{{\"agent\":\"witness\",\"id\":\"{session}\"}}");
    if ask("/api/v1/sessions", "session", &body, &[201, 409]).is_none() {
        return;
    }
    let path = format!("/api/v1/sessions/{session}/messages");
    let mut moved = None;
    for (number, prompt) in PROMPTS.iter().enumerate() {
        let body = format!("{{\"content\":\"{prompt}\"}}");
        let Some(answer) = ask(&path, &format!("message-{number}"), &body, &[202]) else { break };
        let seq = answer.json().number("seq").unwrap_or(0);
        match taken.iter().find(|t| t.number == number) {
            Some(before) if before.seq != seq => moved = Some((number, before.seq, seq)),
            Some(_) => {}
            None => taken.push(Taken { number, seq }),
        }
    }
    if let Some((number, before, seq)) = moved {
        verdict.find(format!("message {number} was acknowledged as seq {before}, and under the same key as seq {seq}"));
    }
}

/// Finds files that are empty or have NUL in them: what a rename leaves that came before its sync. `state.yaml` is a cache that
/// knows whether it is whole.
fn torn(dir: &Path, verdict: &mut Verdict) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| at(dir, &e))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            torn(&path, verdict)?;
        }
        let is_text =
            path.extension().is_some_and(|end| ["yaml", "md", "txt", "json"].iter().any(|known| end == *known));
        if path.is_file() && is_text && !path.ends_with("state.yaml") {
            let bytes = fs::read(&path).map_err(|e| at(&path, &e))?;
            if bytes.is_empty() || bytes.contains(&0) {
                verdict.find(format!("{} has {} bytes, NUL among them or none", path.display(), bytes.len()));
            }
        }
    }
    Ok(())
}
