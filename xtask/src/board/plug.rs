//! The plug: the emulator is killed at random moments while turns run, and the board is switched on again.
//!
//! For each plug there is a session of its own. A client says messages under idempotency keys, another listens; each turn calls tools
//! of all three classes, and the one of class `once` tells this machine of its effect. What was acknowledged to the one (202) or shown
//! to the other has to be in the log after the next boot, the turns have to end, and no effect of class `once` may be there twice. Some
//! plugs are pulled a second time while the board boots or recovers.
//!
//! The control is the same with a disk under the workspace on which syncs do nothing, and has to lose something.

use super::Report;
use super::image::{AGENT, Image};
use super::machine::{Machine, Start};
use super::model::{Ear, Model};
use super::story::quoted;
use crate::Result;
use crate::crash::client::Client;
use crate::crash::log;
use crate::crash::oracle;
use crate::crash::random::Random;
use crate::crash::serve::Subscriber;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Messages of a session.
const MESSAGES: usize = 6;

/// The latest plug after the first message is said, in milliseconds. The model's pauses make all turns together longer than that,
/// however fast the board is.
const WORK_MS: usize = 6000;

/// Plugs of the control; the first that loses something is enough.
const CONTROL_PLUGS: usize = 4;

/// Pulls the plug `plugs` times, and then in the control.
///
/// # Errors
/// If the board does not boot; what is merely wrong counts as failed.
pub fn pull(image: &Image, model: &Model, plugs: usize, seed: u64, report: &mut Report) -> Result<()> {
    println!("  {plugs} plugs, seed {seed}");
    let mut campaign = Campaign::new(image, model, "plug", seed, Start::default())?;
    for number in 0..plugs {
        let what = campaign.plug(number)?;
        let findings = std::mem::take(&mut campaign.findings);
        report.check(&format!("plug {number}: {what}"), &findings);
    }
    let what = campaign.last()?;
    report.check(&what, &std::mem::take(&mut campaign.findings));
    let hits = campaign.hits;
    report.holds(&format!("{hits} of {plugs} plugs left a turn unfinished"), hits * 3 >= plugs, hits);
    control(image, model, seed, report)
}

fn control(image: &Image, model: &Model, seed: u64, report: &mut Report) -> Result<()> {
    let unsynced = Start { unsynced: true };
    let mut campaign = Campaign::new(image, model, "control", seed, unsynced)?;
    for number in 0..CONTROL_PLUGS {
        campaign.plug(number)?;
        if number > 0 && !campaign.findings.is_empty() {
            break;
        }
    }
    if campaign.findings.is_empty() {
        campaign.last()?;
    }
    let lost = campaign.findings.first().map_or("nothing", String::as_str);
    let lost: String = lost.chars().take(120).collect();
    report.holds(&format!("the control without syncs loses: {lost}"), !campaign.findings.is_empty(), "nothing lost");
    Ok(())
}

/// What clients of a session know.
struct Known {
    session: String,
    /// Message, and the seq that its 202 told.
    taken: Vec<(usize, u64)>,
    seen: Vec<String>,
}

struct Campaign<'a> {
    image: &'a Image,
    disk: PathBuf,
    how: Start,
    ear: Ear,
    random: Random,
    open: Option<Known>,
    done: Vec<Known>,
    hits: usize,
    findings: Vec<String>,
}

impl<'a> Campaign<'a> {
    fn new(image: &'a Image, model: &Model, name: &str, seed: u64, how: Start) -> Result<Self> {
        let notes = ("notes.txt", "the sky is blue\n".to_owned());
        let (disk, ear) = (image.data(name, &model.url, &[notes])?, Ear::listen()?);
        let (random, open, done) = (Random::new(seed), None, Vec::new());
        Ok(Self { image, disk, how, ear, random, open, done, hits: 0, findings: Vec::new() })
    }

    fn boot(&self) -> Result<Machine> {
        Machine::start(self.image, &self.disk, self.how)
    }

    /// Boots, looks at what the last plug left, works, and pulls the plug. What was done, in words.
    fn plug(&mut self, number: usize) -> Result<String> {
        let mut board = self.boot()?;
        board.ready()?;
        let booted = board.age();
        self.settle(&mut board)?;
        let moment = Duration::from_millis(self.random.below(WORK_MS) as u64);
        let known = self.work(&board, number, moment);
        let mut what =
            format!("after {moment:?} of work ({} acknowledged, {} events seen)", known.taken.len(), known.seen.len());
        self.open = Some(known);
        self.findings.extend(board.pull()?);
        if self.random.below(3) == 0 {
            let moment = booted.mul_f64(self.random.below(1200) as f64 / 1000.0);
            let board = self.boot()?;
            std::thread::sleep(moment);
            self.findings.extend(board.pull()?);
            what.push_str(&format!(", and {moment:.1?} into the next boot"));
        }
        Ok(what)
    }

    /// After the last plug: everything is looked at again, by the board itself as well.
    fn last(&mut self) -> Result<String> {
        let mut board = self.boot()?;
        board.ready()?;
        self.settle(&mut board)?;
        for Known { session, .. } in &self.done {
            let command =
                format!("su -s /bin/sh duragent -c 'duragent --dir /var/lib/duragent session verify {session}'");
            let (code, text) = board.try_run(&command)?;
            if code != 0 {
                self.findings.push(format!("{session}: verify: exit {code}: {text}"));
            }
        }
        board.run("(sleep 1; poweroff) >/dev/null 2>&1 &")?;
        board.off()?;
        Ok(format!("after all plugs: {} sessions verify", self.done.len()))
    }

    /// Talks to the board until it is time.
    fn work(&self, board: &Machine, number: usize, moment: Duration) -> Known {
        let session = format!("plug-{number}");
        let subscriber = Subscriber::new(&board.api, &session);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let teller = Teller {
            client: board.api.clone(),
            session: session.clone(),
            effect: self.ear.told("$DURAGENT_SESSION.$DURAGENT_CALL_ID"),
            taken: Arc::clone(&taken),
        };
        // It ends with the board, or when all is said.
        std::thread::spawn(move || teller.tell());
        std::thread::sleep(moment);
        subscriber.close_eyes();
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Known { session, taken, seen: subscriber.seen() }
    }

    /// The turns that the last plug interrupted have to end; then all that is known of them is held against the log.
    fn settle(&mut self, board: &mut Machine) -> Result<()> {
        let Some(known) = self.open.take() else { return Ok(()) };
        let Known { session, taken, seen } = &known;
        let path = format!("/api/v1/sessions/{session}");
        let status = board.until("the interrupted turns to end", |board| {
            let answer = board.api.ask("GET", &path, &[], "")?;
            let status = answer.json().text("status").to_owned();
            (answer.status == 404 || matches!(status.as_str(), "idle" | "damaged")).then_some((answer.status, status))
        })?;
        if status.0 == 404 {
            if !taken.is_empty() || !seen.is_empty() {
                self.findings.push(format!("{session} is gone, of which {} messages were acknowledged", taken.len()));
            }
            return Ok(());
        }
        let text = board.run(&format!("cat /var/lib/duragent/sessions/{session}/events.jsonl"))?;
        let log = match log::read(text.as_bytes()) {
            Ok(log) => log,
            Err(damage) => {
                self.findings.push(format!("{session}: the log is damaged: {damage}"));
                return Ok(());
            }
        };
        self.hits += usize::from(log.entries.iter().any(|e| e.fields.text("reason") == "unfinished_turn"));
        let prefix = format!("{session}.");
        let heard = self.ear.heard();
        let effects: String = heard
            .iter()
            .filter_map(|(what, count)| Some(format!("{}\n", what.strip_prefix(&prefix)?).repeat(*count)))
            .collect();
        let mut findings = oracle::check(&log, true);
        findings.extend(oracle::acknowledged(&log, seen));
        findings.extend(oracle::effects(&log, &effects));
        for (message, seq) in taken {
            let entry = log.entries.get(usize::try_from(*seq).unwrap_or(0).wrapping_sub(1));
            if !entry.is_some_and(|e| e.kind == "message_received" && e.line.contains(&format!("message {message} "))) {
                findings.push(format!("message {message} was acknowledged as seq {seq}, where the log has {entry:?}"));
            }
        }
        for end in log.entries.iter().filter(|e| e.kind == "turn_finished" && e.fields.text("reason") != "completed") {
            findings.push(format!("a turn ended otherwise: {}", end.line));
        }
        self.findings.extend(findings.into_iter().map(|finding| format!("{session}: {finding}")));
        self.done.push(known);
        Ok(())
    }
}

/// Who says the messages of a session.
struct Teller {
    client: Client,
    session: String,
    /// The command that tells of an effect.
    effect: String,
    taken: Arc<Mutex<Vec<(usize, u64)>>>,
}

impl Teller {
    /// Makes the session and says its messages, until nobody answers.
    fn tell(&self) {
        let Self { client, session, effect, .. } = self;
        let body = format!("{{\"agent\":\"{AGENT}\",\"id\":\"{session}\"}}");
        let made = client.ask("POST", "/api/v1/sessions", &[], &body);
        if made.is_none_or(|answer| answer.status != 201) {
            return;
        }
        for number in 0..MESSAGES {
            let once = quoted(&format!("{effect}; : message {number} of {session}"));
            let file = format!("report-{number}.txt");
            let script = format!(
                "call bash {{\"command\":{once}}}\ncall write_file {{\"path\":\"{file}\",\"content\":\"all is well\"}}\n\
                 call read_file {{\"path\":\"{file}\"}}\nslow 250 say one two three four\n"
            );
            let body = format!("{{\"content\":{}}}", quoted(&script));
            let (path, key) = (format!("/api/v1/sessions/{session}/messages"), format!("message-{number}"));
            let Some(answer) = client.ask("POST", &path, &[("Idempotency-Key", &key)], &body) else { return };
            if let (202, Some(seq)) = (answer.status, answer.json().number("seq")) {
                self.taken.lock().unwrap_or_else(PoisonError::into_inner).push((number, seq));
            }
        }
    }
}
