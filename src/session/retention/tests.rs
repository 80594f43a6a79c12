use super::*;
use crate::store::{Batch, Log};
use duragent_core::event::{Body, Event, LOG_VERSION, TurnReason, Usage};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// A day on which everything is looked at.
const NOW: u64 = clock::RELEASE_MS + 400 * DAY_MS + 12 * 3_600_000;

struct House {
    root: PathBuf,
    store: FileStore,
}

impl House {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-retention-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        Self { store: FileStore::new(root.clone(), 1 << 20), root }
    }

    fn write(&self, id: &str, days: u64, bodies: Vec<Body>) -> Box<dyn Log> {
        let mut log = self.store.create(id).expect("a session");
        let agent = "a".to_owned();
        let created = Body::SessionCreated { v: LOG_VERSION, session: id.to_owned(), agent, title: None, parent: None };
        let at_ms = NOW.saturating_sub(days * DAY_MS);
        let bodies = std::iter::once(created).chain(bodies);
        let events = bodies.zip(1..).map(|(body, seq)| Event { seq, at_ms, body }).collect();
        let _ = log.commit(Batch { events, effects: Vec::new() }).expect("it is written");
        self.age(&self.root.join(id).join("events.jsonl"), at_ms);
        log
    }

    /// A session whose last event is so many days old.
    fn session(&self, id: &str, days: u64, bodies: Vec<Body>) {
        drop(self.write(id, days, bodies));
    }

    fn artifact(&self, id: &str, name: &str, days: u64, bytes: usize) {
        let dir = self.root.join(id).join("artifacts");
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(name), vec![b'x'; bytes]).expect("a file");
        self.age(&dir.join(name), NOW - days * DAY_MS);
    }

    fn age(&self, path: &std::path::Path, at_ms: u64) {
        let at = UNIX_EPOCH + Duration::from_millis(at_ms);
        File::options().write(true).open(path).and_then(|file| file.set_modified(at)).expect("it can be dated");
    }

    /// What goes, a line each.
    fn plan(&self, keep: Keep) -> Vec<String> {
        let going = plan(&self.store, &keep, NOW).expect("it can be listed").expect("the clock is believed");
        let line = |going: &Going| {
            let names = going.artifacts.iter().map(|file| file.path.file_name().expect("a name").to_string_lossy());
            let names: Vec<_> = names.collect();
            let colon = if names.is_empty() { "" } else { ": " };
            format!("{} {}{colon}{}", going.session, going.why, names.join(" "))
        };
        going.iter().map(line).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

fn closed() -> Vec<Body> {
    vec![Body::SessionClosed { reason: "closed by cli".to_owned() }]
}

fn message(turn: u64) -> Body {
    let (source, content) = ("cli".to_owned(), "x".to_owned());
    Body::MessageReceived { turn, source, content, idempotency_key: None, steps_max: None }
}

fn none() -> Keep {
    Keep::default()
}

#[test]
fn nothing_goes_unless_it_is_said() {
    let house = House::new("silent");
    house.session("old", 300, closed());
    house.artifact("old", "c1.txt", 300, 10);
    assert_eq!(house.plan(none()), [""; 0]);
    assert_eq!(house.plan(Keep { closed_days: 301, ..none() }), [""; 0]);
    // The control: it would.
    assert_eq!(house.plan(Keep { closed_days: 300, ..none() }), ["old closed_days"]);
}

#[test]
fn what_is_not_at_rest_stays_however_old_it_is() {
    let house = House::new("rest");
    house.session("idle", 300, Vec::new());
    house.session("closed", 300, closed());
    house.session("waits-for-its-turn", 300, vec![message(1)]);
    house.session("running", 300, vec![message(1), Body::TurnStarted { turn: 1 }]);
    let paused = |reason: &str| Body::SessionPaused { reason: reason.to_owned(), retry_at_ms: None };
    house.session("parked", 300, vec![message(1), Body::TurnStarted { turn: 1 }, paused("offline")]);
    let usage = Usage::default();
    let finished = Body::TurnFinished { turn: 1, reason: TurnReason::Completed, detail: None, usage };
    house.session("finished", 300, vec![message(1), Body::TurnStarted { turn: 1 }, finished]);
    house.session("damaged", 300, closed());
    let log = house.root.join("damaged/events.jsonl");
    let text = fs::read_to_string(&log).expect("a log");
    fs::write(&log, text.replace("cli", "CLI")).expect("it can be changed");
    house.age(&log, NOW - 300 * DAY_MS);
    for (id, name) in [("running", "c1.txt"), ("finished", "c1.txt")] {
        house.artifact(id, name, 300, 10);
    }
    let all = Keep { idle_days: 1, sessions_max: 1, artifacts_days: 1, bytes_max: 1, ..none() };
    assert_eq!(house.plan(all), ["closed idle_days", "finished idle_days", "idle idle_days"]);
    // Leased, one stays when it comes to it, and with another event than was seen.
    let going = plan(&house.store, &all, NOW).expect("a list").expect("a plan");
    let held = house.store.open("idle", &mut |_| {}).expect("it opens");
    for going in &going {
        let result = going.remove(&house.store);
        assert_eq!(result.is_ok(), going.session != "idle", "{result:?}");
    }
    drop(held);
    assert!(house.root.join("idle").exists() && !house.root.join("closed").exists());
    let stale = Going { seq: 7, ..going.into_iter().find(|going| going.session == "idle").expect("it is planned") };
    assert!(matches!(stale.remove(&house.store), Err(StoreError::Exists(_))));
    assert!(house.root.join("idle/events.jsonl").exists());
}

#[test]
fn the_number_of_sessions_is_kept_and_the_quietest_go_first() {
    let house = House::new("number");
    for (id, days) in [("a", 5), ("b", 3), ("c", 9), ("d", 1), ("today", 0)] {
        house.session(id, days, Vec::new());
    }
    assert_eq!(house.plan(Keep { sessions_max: 5, ..none() }), [""; 0]);
    assert_eq!(house.plan(Keep { sessions_max: 3, ..none() }), ["a sessions_max", "c sessions_max"]);
    // Budgets have to know what was spent today.
    let all = ["a sessions_max", "b sessions_max", "c sessions_max", "d sessions_max"];
    assert_eq!(house.plan(Keep { sessions_max: 1, ..none() }), all);
    let house = House::new("today");
    house.session("today", 0, closed());
    house.session("other", 0, closed());
    assert_eq!(house.plan(Keep { sessions_max: 1, bytes_max: 1, ..none() }), [""; 0]);
}

#[test]
fn artifacts_go_before_sessions_and_only_as_many_as_are_too_many() {
    let house = House::new("bytes");
    house.session("a", 5, Vec::new());
    house.session("b", 3, Vec::new());
    house.artifact("a", "c1.txt", 5, 10_000);
    house.artifact("a", "c2.txt", 2, 10_000);
    house.artifact("b", "c1.txt", 3, 10_000);
    let days = |artifacts_days| Keep { artifacts_days, ..none() };
    assert_eq!(house.plan(days(3)), ["a artifacts_days: c1.txt", "b artifacts_days: c1.txt"]);
    let bytes = |bytes_max| Keep { bytes_max, ..none() };
    assert_eq!(house.plan(bytes(40_000)), [""; 0]);
    assert_eq!(house.plan(bytes(25_000)), ["a bytes_max: c1.txt"]);
    assert_eq!(house.plan(bytes(15_000)), ["a bytes_max: c1.txt", "b bytes_max: c1.txt"]);
    assert_eq!(house.plan(bytes(1)), ["a bytes_max", "b bytes_max"], "what goes whole is told once");
    for going in plan(&house.store, &bytes(15_000), NOW).expect("a list").expect("a plan") {
        going.remove(&house.store).expect("it goes");
    }
    assert!(house.root.join("a/artifacts/c2.txt").exists() && !house.root.join("a/artifacts/c1.txt").exists());
    assert_eq!(house.plan(bytes(15_000)), [""; 0]);
}

#[test]
fn while_the_clock_is_not_to_be_believed_everything_is_kept() {
    let house = House::new("clock");
    house.session("old", 300, closed());
    let keep = Keep { closed_days: 1, ..none() };
    let plan = |now| super::plan(&house.store, &keep, now).expect("it can be listed");
    assert!(plan(5000).is_err_and(|why| why == "the clock is not set"));
    let before = NOW - 300 * DAY_MS - 2 * SLACK_MS;
    assert!(plan(before).is_err_and(|why| why.contains("later than the clock")), "an event is later");
    assert_eq!(plan(NOW).expect("it is believed").len(), 1, "the control");
    // A session of 1970: it is not 56 years old, but as old as its file, or as old as we have known it.
    house.session("boot", 365 * 58, closed());
    let going = plan(NOW).expect("it is believed");
    assert_eq!(going.iter().map(|going| going.session.as_str()).collect::<Vec<_>>(), ["old"]);
    let taken = house.store.taken("boot");
    assert_eq!(taken.at_ms, NOW, "its age begins now");
    let later = plan(NOW + 2 * DAY_MS).expect("it is believed");
    assert_eq!(later.len(), 2, "and then it goes like any other");
}

#[test]
fn what_was_left_in_the_middle_is_swept_and_nothing_else() {
    let house = House::new("sweep");
    house.session("a", 5, closed());
    fs::rename(house.root.join("a"), house.root.join(".removed-a-17")).expect("as before a crash");
    fs::create_dir(house.root.join(".removed-")).expect("a directory of somebody");
    assert_eq!(house.store.list().expect("a list"), [""; 0]);
    house.store.sweep().expect("it is swept");
    assert!(!house.root.join(".removed-a-17").exists() && house.root.join(".removed-").exists());
}
