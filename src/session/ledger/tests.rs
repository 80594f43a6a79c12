use super::*;
use crate::store::Batch;
use duragent_core::event::{FailureKind, SandboxReport, ToolOutcome, TurnReason};
use duragent_core::session::State;
use duragent_core::tool::{EffectClass, Tags};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

/// Midnight at the beginning of 2026-11-22.
const MIDNIGHT: u64 = 20_779 * DAY_MS;

fn usage(input_tokens: u64, cost_micros: u64) -> Usage {
    Usage { input_tokens, cost_micros, ..Usage::default() }
}

fn created(session: &str, parent: Option<(&str, u64)>) -> Body {
    let parent = parent.map(|(session, seq)| (session.to_owned(), seq));
    Body::SessionCreated { v: 1, session: session.to_owned(), agent: "worker".to_owned(), title: None, parent }
}

fn requested(model: &str, reserved: Usage) -> Body {
    let (provider, model) = ("p".to_owned(), model.to_owned());
    Body::ModelRequested { turn: 1, step: 1, attempt: 1, provider, model, reserved, summary: false }
}

fn responded(usage: Usage) -> Body {
    Body::ModelResponded {
        turn: 1,
        step: 1,
        text: String::new(),
        thinking: None,
        blocks: None,
        tool_calls: Vec::new(),
        usage,
        finish_reason: String::new(),
        duration_ms: 7,
    }
}

fn failed(worked: bool) -> Body {
    Body::ModelFailed {
        turn: 1,
        step: 1,
        attempt: 1,
        kind: FailureKind::Timeout,
        detail: String::new(),
        retry_at_ms: None,
        worked,
        context_tokens: None,
        duration_ms: 5,
    }
}

fn compacted(usage: Usage) -> Body {
    let (through_seq, summary) = (1, String::new());
    Body::SessionCompacted { through_seq, summary, tokens_before: 2, tokens_after: 1, usage, duration_ms: 3 }
}

fn called() -> [Body; 2] {
    let call_id = || "c1-1-1".to_owned();
    let (name, arguments, sandbox) = ("bash".to_owned(), "{}".to_owned(), SandboxReport::default());
    let effect = EffectClass::Once;
    let outcome = ToolOutcome { duration_ms: 11, ..ToolOutcome::default() };
    [
        Body::ToolStarted { call_id: call_id(), name, arguments, effect, sandbox, tags: Tags::default() },
        Body::ToolFinished { call_id: call_id(), outcome },
    ]
}

fn finished() -> Body {
    Body::TurnFinished { turn: 1, reason: TurnReason::Failed, detail: None, usage: Usage::default() }
}

/// Events with these times after [`MIDNIGHT`], in milliseconds.
fn events(bodies: Vec<(i64, Body)>) -> Vec<Event> {
    let event = |(i, (at, body)): (usize, (i64, Body))| {
        let at_ms = MIDNIGHT.checked_add_signed(at).expect("a time");
        Event { seq: i as u64 + 1, at_ms, body }
    };
    bodies.into_iter().enumerate().map(event).collect()
}

fn tracked(events: &[Event]) -> Track {
    let mut track = Track::default();
    events.iter().for_each(|event| track.take(event));
    track
}

fn sum(requests: u64, tokens: u64, tool_calls: u64, ms: u64, cost_micros: u64, estimated: u64) -> Sum {
    Sum { spent: Spent { requests, tokens, tool_calls, ms, cost_micros }, estimated }
}

/// A ledger that somebody has asked for.
fn wanted(alone: bool) -> Ledger {
    let ledger = Ledger::new(alone);
    ledger.wanted.store(true, Ordering::Release);
    ledger
}

/// Far enough back for all of it to be another day.
const YESTERDAY: i64 = -1000;

#[test]
fn a_track_comes_to_what_the_machine_counts() {
    let [started, done] = called();
    let log = events(vec![
        (0, created("s", None)),
        (1, requested("a", usage(100, 9))),
        (2, responded(usage(40, 3))),
        (3, started),
        (4, done),
        // Turned away: nothing counts but the request.
        (5, requested("a", usage(100, 9))),
        (6, failed(false)),
        // Nobody knows: the worst case.
        (7, requested("b", usage(200, 0))),
        (8, failed(true)),
        // A crash, and the same once more by another model.
        (9, requested("a", usage(100, 9))),
        (10, requested("b", usage(300, 0))),
        (11, responded(usage(250, 0))),
        // A summary, and a part that was left out while nobody knew what became of a request.
        (12, requested("a", usage(100, 0))),
        (12, compacted(usage(20, 1))),
        (12, requested("a", usage(500, 0))),
        (12, compacted(Usage::default())),
        // Cancelled.
        (12, requested("b", usage(1000, 1))),
        (13, finished()),
    ]);
    let mut state = State::default();
    for through in 0..log.len() {
        state.apply(&log[through]);
        let entry = tracked(&log[..=through]).entry();
        assert_eq!(entry.total.spent, state.meter.spent(), "after event {}", through + 1);
        assert_eq!(entry.today, entry.total, "all of it is today");
    }
    let entry = tracked(&log).entry();
    let tokens = 40 + 200 + 100 + 250 + 20 + 500 + 1000;
    assert_eq!(entry.total, sum(8, tokens, 1, 7 + 11 + 5 + 5 + 7 + 3 + 3, 3 + 9 + 1 + 1, 4));
    let models: Vec<_> = entry.models.iter().map(|of| (of.model.as_str(), of.today)).collect();
    assert_eq!(models, [("a", sum(5, 660, 1, 29, 13, 2)), ("b", sum(3, 1450, 0, 12, 1, 2))]);
    assert_eq!((entry.session.as_str(), entry.agent.as_str()), ("s", "worker"));
}

#[test]
fn a_day_is_one_of_utc_and_a_request_is_of_the_day_it_began() {
    let all = |answer: u64| {
        tracked(&events(vec![
            (YESTERDAY, created("s", None)),
            (YESTERDAY, requested("a", usage(100, 0))),
            (YESTERDAY, responded(usage(50, 0))),
            (-1, requested("a", usage(100, 0))),
            (0, responded(usage(answer, 0))),
            (1, requested("a", usage(10, 0))),
            (2, responded(usage(4, 0))),
        ]))
        .entry()
    };
    // Less than was reserved frees nothing of the new day; more than that is spent on it.
    assert_eq!(all(30).today, sum(1, 4, 0, 7 + 7, 0, 0));
    assert_eq!(all(30).total, sum(3, 84, 0, 21, 0, 0));
    assert_eq!(all(130).today, sum(1, 30 + 4, 0, 14, 0, 0));
}

#[test]
fn what_a_fork_begins_with_was_spent_by_another() {
    let log = |parent| {
        tracked(&events(vec![
            (0, created("child", parent)),
            (0, requested("a", usage(100, 0))),
            (0, responded(usage(50, 0))),
            (0, finished()),
            (1, requested("a", usage(100, 0))),
            (2, responded(usage(7, 0))),
        ]))
        .entry()
    };
    assert_eq!(log(Some(("parent", 4))).today, sum(1, 7, 0, 7, 0, 0));
    assert_eq!(log(None).today, sum(2, 57, 0, 14, 0, 0), "control");
}

#[test]
fn a_clock_that_jumps_does_not_begin_a_day_anew() {
    let ledger = wanted(true);
    let mut track = Track::default();
    let mut seq = 0;
    let mut spend = |at_ms: u64| {
        for body in [requested("a", usage(100, 0)), responded(usage(10, 0))] {
            seq += 1;
            ledger.take(&mut track, &Event { seq, at_ms, body });
        }
        ledger.today(at_ms).requests
    };
    assert_eq!(spend(5), 1, "no clock yet: the first day there is");
    assert_eq!(spend(MIDNIGHT), 1, "the clock is set");
    assert_eq!(spend(MIDNIGHT - 1), 2, "set back");
    assert_eq!(spend(1000), 3, "lost");
    assert_eq!(spend(MIDNIGHT + DAY_MS - 1), 4);
    assert_eq!(spend(MIDNIGHT + DAY_MS), 1, "the next day");
    assert_eq!(ledger.today(MIDNIGHT + DAY_MS + 5).requests, 1);
    assert_eq!(ledger.today(MIDNIGHT + 2 * DAY_MS).requests, 0, "midnight passes without an event as well");
    // The same from the log of one session.
    let log = [(MIDNIGHT, "a"), (5, "a"), (MIDNIGHT - 1, "a")];
    let mut track = Track::default();
    for (i, (at_ms, model)) in log.into_iter().enumerate() {
        track.take(&Event { seq: i as u64 + 1, at_ms, body: requested(model, usage(1, 0)) });
    }
    assert_eq!(track.entry().today.spent.requests, 3);
}

#[test]
fn sessions_add_up_and_what_was_never_written_is_taken_back() {
    let ledger = wanted(true);
    let mut tracks = Vec::new();
    for session in ["b", "a", "c"] {
        let mut track = Track::default();
        for event in events(vec![(0, created(session, None)), (1, requested("m", usage(100, 5)))]) {
            ledger.take(&mut track, &event);
        }
        tracks.push(track);
    }
    assert_eq!(ledger.today(MIDNIGHT), sum(3, 300, 0, 0, 15, 0).spent, "reserved counts at once");
    ledger.take(&mut tracks[0], &Event { seq: 3, at_ms: MIDNIGHT, body: responded(usage(10, 1)) });
    assert_eq!(ledger.today(MIDNIGHT), sum(3, 210, 0, 7, 11, 0).spent);
    // The commit failed: the session is read again, and what it had asked for never happened.
    let mut again = tracked(&events(vec![(0, created("a", None))]));
    ledger.take(&mut again, &Event { seq: 2, at_ms: MIDNIGHT, body: finished() });
    assert_eq!(ledger.today(MIDNIGHT), sum(2, 110, 0, 7, 6, 0).spent);
    let told = ledger.told(MIDNIGHT, None, 10);
    let ids = |told: &Today| told.sessions.iter().map(|entry| entry.session.clone()).collect::<Vec<_>>();
    assert_eq!((told.day, ids(&told)), (20_779, vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(told.agents, [("worker".to_owned(), told.total)]);
    assert_eq!(told.models.iter().map(|of| of.today).collect::<Vec<_>>(), [told.total]);
    assert_eq!(ids(&ledger.told(MIDNIGHT, Some("a"), 1)), ["b"]);
}

/// A folder of sessions that goes away.
struct Folder(PathBuf, FileStore);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("duragent-ledger-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        // So small that every commit gets a segment of its own.
        let store = FileStore::new(path.clone(), 64);
        Self(path, store)
    }

    /// A session that has answered `n` requests at this time after midnight, one commit each.
    fn session(&self, id: &str, at: i64, n: usize) {
        let mut bodies = vec![(at, created(id, None))];
        for _ in 0..n {
            bodies.extend([(at, requested("m", usage(100, 0))), (at, responded(usage(10, 0)))]);
        }
        let mut log = self.1.create(id).expect("a new session");
        for events in events(bodies).chunks(2) {
            log.commit(Batch { events: events.to_vec(), effects: Vec::new() }).expect("it is written");
        }
    }

    fn filled(&self, now_ms: u64) -> Ledger {
        let ledger = wanted(true);
        ledger.fill(&self.1, now_ms).expect("the logs are read");
        ledger
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_logs_of_today_are_read_segments_and_damage_included() {
    let folder = Folder::new();
    folder.session("old", YESTERDAY, 4);
    folder.session("new", 1000, 3);
    folder.session("both", YESTERDAY, 2);
    assert!(folder.0.join("new/events.000000000001.jsonl").exists(), "segments");
    let more = |session: &str, at_ms| {
        let mut last = 0;
        let opened = folder.1.open(session, &mut |event| last = event.seq).expect("it opens");
        let mut log = opened.log;
        let event = Event { seq: last + 1, at_ms, body: requested("m", usage(100, 0)) };
        log.commit(Batch { events: vec![event], effects: Vec::new() }).expect("it is written");
    };
    more("both", MIDNIGHT + 5);
    // Before the files were changed: only the lines say what day it is.
    assert_eq!(folder.filled(MIDNIGHT).today(MIDNIGHT), sum(4, 3 * 10 + 100, 0, 21, 0, 0).spent);
    // A line in the middle is changed: what stands before it counts.
    let path = folder.0.join("new/events.000000000003.jsonl");
    let text = std::fs::read_to_string(&path).expect("a segment");
    std::fs::write(&path, text.replace("\"input_tokens\":10", "\"input_tokens\":11")).expect("it is written");
    assert_eq!(folder.filled(MIDNIGHT).today(MIDNIGHT).requests, 1 + 1, "the line after the damage does not count");
    assert_eq!(folder.filled(MIDNIGHT + DAY_MS).today(MIDNIGHT + DAY_MS), Spent::default(), "another day");
    // The clock is a day behind, or was never set: the day of the last event goes on.
    for now_ms in [MIDNIGHT - 1, 0] {
        assert_eq!(folder.filled(now_ms).today(now_ms).requests, 1 + 1, "{now_ms}");
    }
}

#[test]
fn what_is_at_work_already_is_not_counted_twice() {
    let folder = Folder::new();
    folder.session("a", 1000, 3);
    let ledger = wanted(true);
    let mut track = Track::default();
    folder.1.verify("a", &mut |event| track.take(&event)).expect("it is read");
    ledger.take(&mut track, &Event { seq: 8, at_ms: MIDNIGHT, body: requested("m", usage(100, 0)) });
    assert_eq!(ledger.today(MIDNIGHT).requests, 4, "its own part of the day is known from its log");
    ledger.fill(&folder.1, MIDNIGHT).expect("the logs are read");
    assert_eq!(ledger.today(MIDNIGHT).requests, 4);
    assert_eq!(folder.filled(MIDNIGHT).today(MIDNIGHT).requests, 3, "control");
}

#[test]
fn what_other_processes_write_is_seen_where_there_are_others() {
    for (alone, expected) in [(false, 3 + 2 + 1), (true, 3 + 1)] {
        let folder = Folder::new();
        folder.session("a", 1000, 3);
        let ledger = wanted(alone);
        let fill = || ledger.fill(&folder.1, MIDNIGHT).expect("the logs are read");
        fill();
        assert_eq!(ledger.today(MIDNIGHT).requests, 3);
        // Its own session, and one that is continued by another process.
        let mut track = Track::default();
        for event in events(vec![(0, created("own", None)), (1, requested("m", usage(100, 0)))]) {
            ledger.take(&mut track, &event);
        }
        let mut last = 0;
        let mut log = folder.1.open("a", &mut |event| last = event.seq).expect("it opens").log;
        let asked = |seq| Event { seq, at_ms: MIDNIGHT, body: requested("m", usage(100, 0)) };
        log.commit(Batch { events: vec![asked(last + 1), asked(last + 2)], effects: Vec::new() }).expect("written");
        fill();
        assert_eq!(ledger.today(MIDNIGHT).requests, expected, "alone: {alone}");
        fill();
        assert_eq!(ledger.today(MIDNIGHT).requests, expected, "and counted once");
    }
}

#[test]
fn nothing_is_kept_before_somebody_asks() {
    let folder = Folder::new();
    folder.session("a", 1000, 3);
    let (ledger, mut track) = (Ledger::new(true), Track::default());
    folder.1.verify("a", &mut |event| ledger.take(&mut track, &event)).expect("it is read");
    assert!(ledger.book().entries.is_empty());
    ledger.fill(&folder.1, MIDNIGHT).expect("the logs are read");
    assert_eq!(ledger.today(MIDNIGHT).requests, 3, "the logs know it");
    ledger.take(&mut track, &Event { seq: 8, at_ms: MIDNIGHT, body: requested("m", usage(100, 0)) });
    assert_eq!(ledger.today(MIDNIGHT).requests, 4);
}
