use super::*;
use crate::store::{Batch, Committed};
use duragent_core::event::{Body, LOG_VERSION};
use std::os::unix::fs::FileExt;

struct Fixture {
    store: FileStore,
    root: PathBuf,
}

impl Fixture {
    fn new(name: &str, segment_bytes_max: u64) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-store-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        Self { store: FileStore::new(root.clone(), segment_bytes_max), root }
    }

    /// A session `s` with `n` turns of two events behind its first event.
    fn with_turns(name: &str, n: u64, segment_bytes_max: u64) -> Self {
        let fixture = Self::new(name, segment_bytes_max);
        let mut log = fixture.store.create("s").expect("create");
        commit(&mut *log, 1, vec![created()]).expect("commit");
        for turn in 1..=n {
            let body = vec![
                Body::TurnStarted { turn },
                Body::SessionPaused { reason: "x".repeat(turn as usize % 90), retry_at_ms: None },
            ];
            commit(&mut *log, turn * 2, body).expect("commit");
        }
        fixture
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("s").join(LOG_NAME)
    }

    fn open(&self) -> Result<(Opened, Vec<Event>), StoreError> {
        let mut events = Vec::new();
        let opened = self.store.open("s", &mut |e| events.push(e))?;
        Ok((opened, events))
    }

    fn refused(&self) -> StoreError {
        match self.open() {
            Ok((_, events)) => panic!("expected a refusal, found {} events", events.len()),
            Err(error) => error,
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

fn created() -> Body {
    Body::SessionCreated { v: LOG_VERSION, session: "s".into(), agent: "a".into(), title: None, parent: None }
}

fn commit(log: &mut dyn Log, first: u64, bodies: Vec<Body>) -> Result<Committed, StoreError> {
    let events = bodies.into_iter().zip(first..).map(|(body, seq)| Event { seq, at_ms: 1_000 * seq, body }).collect();
    log.commit(Batch { events, effects: Vec::new() })
}

#[test]
fn what_was_committed_is_read_back() {
    let f = Fixture::with_turns("back", 3, u64::MAX);
    let (mut opened, events) = f.open().expect("open");
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((opened.dropped_bytes, &opened.saved_as), (0, &None));
    let committed = commit(&mut *opened.log, 8, vec![Body::TurnStarted { turn: 4 }]).expect("goes on");
    assert_eq!(committed.events[0].get().seq, 8);
    drop(opened);
    assert_eq!(f.open().expect("open").1.len(), 8);
}

#[test]
fn a_session_is_open_in_one_place() {
    let f = Fixture::with_turns("lease", 1, u64::MAX);
    let first = f.open().expect("open");
    assert!(matches!(f.refused(), StoreError::Leased { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(f.store.verify("s", &mut |_| {}).is_ok(), "reading needs no lease");
    drop(first);
    f.open().expect("free again");
}

#[test]
fn names_are_checked_and_taken_once() {
    let f = Fixture::with_turns("names", 1, u64::MAX);
    assert!(matches!(f.store.create("s"), Err(StoreError::Exists(_))));
    for name in ["nobody", "..", "a/b", "S", ""] {
        assert!(matches!(f.store.open(name, &mut |_| {}), Err(StoreError::NotFound(_))), "{name}");
    }
    assert_eq!(f.store.list().expect("list"), ["s"]);
}

#[test]
fn a_log_without_an_acknowledged_event_is_no_session() {
    let f = Fixture::new("empty", u64::MAX);
    drop(f.store.create("s").expect("create"));
    assert!(matches!(f.refused(), StoreError::NotFound(_)));
    fs::write(f.log_path(), "{\"seq\":1,\"at").expect("a torn first line");
    assert!(matches!(f.refused(), StoreError::NotFound(_)));
    let mut log = f.store.create("s").expect("the name is free");
    commit(&mut *log, 1, vec![created()]).expect("commit");
    drop(log);
    assert_eq!(f.open().expect("open").1.len(), 1);
    assert!(f.root.join("s/events.jsonl.torn-0").exists(), "what was there is kept");
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_line() {
    let f = Fixture::with_turns("cut", 4, u64::MAX);
    let whole = fs::read(f.log_path()).expect("read");
    let first = whole.iter().position(|b| *b == b'\n').expect("a line") + 1;
    for cut in first..whole.len() {
        fs::write(f.log_path(), &whole[..cut]).expect("write");
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        let (opened, events) = f.open().expect("open");
        assert_eq!(events.len(), lines, "cut at {cut}");
        let torn = cut - whole[..cut].iter().rposition(|b| *b == b'\n').expect("a line") - 1;
        assert_eq!(opened.dropped_bytes, torn as u64);
        if let Some(name) = opened.saved_as {
            let saved = fs::read(f.root.join("s").join(&name)).expect("saved");
            assert_eq!(saved, &whole[cut - torn..cut]);
        }
        drop(opened.log);
        assert_eq!(f.open().expect("again").0.dropped_bytes, 0, "the tail is gone for good");
    }
}

#[test]
fn a_tail_of_nul_was_never_acknowledged() {
    let f = Fixture::with_turns("nul", 2, u64::MAX);
    let mut text = fs::read(f.log_path()).expect("read");
    text.extend([0; 5000]);
    fs::write(f.log_path(), text).expect("write");
    let (opened, events) = f.open().expect("open");
    assert_eq!((opened.dropped_bytes, events.len()), (5000, 5));
}

#[test]
fn a_bit_flipped_anywhere_is_never_silent() {
    let f = Fixture::with_turns("flip", 3, u64::MAX);
    let whole = fs::read(f.log_path()).expect("read");
    for at in 0..whole.len() {
        let file = fs::OpenOptions::new().write(true).open(f.log_path()).expect("open");
        file.write_all_at(&[whole[at] ^ 1 << (at % 8)], at as u64).expect("flip");
        match f.open() {
            // Only the last line feed can be lost without a trace of more: that line then was never terminated.
            Ok((opened, events)) => {
                assert_eq!((at, events.len()), (whole.len() - 1, 6));
                assert!(opened.saved_as.is_some());
            }
            Err(StoreError::Damaged(damage)) => {
                let line = whole[..at].iter().filter(|b| **b == b'\n').count() as u64 + 1;
                assert_eq!((damage.line, damage.seq), (line, line), "byte {at}: {damage}");
                assert!(damage.file.ends_with("s/events.jsonl"), "{damage}");
            }
            // In the version or in the type of the first line nothing else could be said of it.
            Err(error) => panic!("byte {at}: {error}"),
        }
        fs::write(f.log_path(), &whole).expect("restore");
    }
}

#[test]
fn a_later_major_version_is_not_touched() {
    let f = Fixture::new("later", u64::MAX);
    let mut log = f.store.create("s").expect("create");
    let body = Body::SessionCreated { v: 2, session: "s".into(), agent: "a".into(), title: None, parent: None };
    commit(&mut *log, 1, vec![body]).expect("commit");
    drop(log);
    let before = fs::read(f.log_path()).expect("read");
    assert!(matches!(f.refused(), StoreError::TooNew { found: 2, .. }));
    assert!(matches!(f.store.repair("s"), Err(StoreError::TooNew { .. })));
    assert_eq!(fs::read(f.log_path()).expect("read"), before);
}

#[test]
fn segments_are_one_log() {
    let f = Fixture::with_turns("segments", 60, 2_000);
    let segments = scan::segments(&f.root.join("s")).expect("segments");
    assert!(segments.len() > 4, "{segments:?}");
    let (mut opened, events) = f.open().expect("open");
    assert_eq!(events.len(), 121);
    commit(&mut *opened.log, 122, vec![Body::TurnStarted { turn: 61 }]).expect("goes on");
    drop(opened);
    // A crash between closing a segment and beginning the next.
    fs::rename(f.log_path(), f.root.join("s").join(scan::segment_name(events.last().map_or(0, |e| e.seq) - 5)))
        .expect("rename");
    let found = f.store.verify("s", &mut |_| {}).expect("verify");
    assert_eq!((found.seq, &found.tail), (122, &Tail::Clean));
    let (mut opened, _) = f.open().expect("open");
    commit(&mut *opened.log, 123, vec![Body::TurnStarted { turn: 62 }]).expect("goes on");
}

#[test]
fn a_torn_line_in_a_closed_segment_is_damage() {
    let f = Fixture::with_turns("torn-segment", 60, 2_000);
    let first = &scan::segments(&f.root.join("s")).expect("segments")[0];
    let text = fs::read(first).expect("read");
    fs::write(first, &text[..text.len() - 10]).expect("cut");
    assert!(matches!(f.refused(), StoreError::Damaged(_)));
}

#[test]
fn ranges_are_what_a_full_read_gives() {
    for (name, segment) in [("range", u64::MAX), ("range-segments", 3_000)] {
        let f = Fixture::with_turns(name, 150, segment);
        let range = |after, through| {
            let mut seqs = Vec::new();
            let mut each = |seq, line: &str| {
                assert!(line.starts_with(&format!("{{\"seq\":{seq},")));
                seqs.push(seq);
                true
            };
            f.store.read("s", after, through, &mut each).expect("read");
            seqs
        };
        for after in 0..=302u64 {
            assert_eq!(range(after, u64::MAX), (after + 1..=301).collect::<Vec<_>>(), "after {after}");
        }
        assert_eq!(range(10, 12), [11, 12]);
        assert_eq!((range(12, 12), range(u64::MAX, 301), range(u64::MAX, u64::MAX)), (vec![], vec![], vec![]));
        assert_eq!(f.store.settle("s").expect("settle"), 301);
    }
}

#[test]
fn repair_cuts_before_the_damage_and_keeps_the_original() {
    for (name, segment, broken) in [("repair", u64::MAX, 0), ("repair-segments", 2_000, 2)] {
        let f = Fixture::with_turns(name, 60, segment);
        let path = scan::segments(&f.root.join("s")).expect("segments")[broken].clone();
        let mut text = fs::read(&path).expect("read");
        let middle = text.len() / 2;
        text[middle] ^= 1;
        fs::write(&path, &text).expect("damage");
        let StoreError::Damaged(damage) = f.refused() else { panic!("expected damage") };
        let repaired = f.store.repair("s").expect("repair");
        assert_eq!((repaired.damage.as_ref(), repaired.kept), (Some(&damage), damage.seq - 1));
        let kept = f.root.join("s").join(&repaired.saved_as[0]);
        assert_eq!(fs::read(kept).expect("original"), text);
        let (mut opened, events) = f.open().expect("opens now");
        assert_eq!(events.len() as u64, damage.seq - 1);
        commit(&mut *opened.log, damage.seq, vec![Body::TurnStarted { turn: 1 }]).expect("goes on");
        drop(opened);
        assert_eq!(f.store.repair("s").expect("nothing to do").damage, None);
    }
}

#[test]
fn a_failed_commit_poisons_the_log_until_it_is_opened_again() {
    let f = Fixture::with_turns("poison", 1, u64::MAX);
    let (mut opened, _) = f.open().expect("open");
    assert!(commit(&mut *opened.log, 9, vec![Body::TurnStarted { turn: 9 }]).is_err(), "a gap in seq");
    let again = commit(&mut *opened.log, 4, vec![Body::TurnStarted { turn: 2 }]);
    assert!(matches!(again, Err(StoreError::Poisoned(_))));
    drop(opened);
    let (mut opened, events) = f.open().expect("open");
    assert_eq!(events.len(), 3);
    commit(&mut *opened.log, 4, vec![Body::TurnStarted { turn: 2 }]).expect("goes on");
}

#[test]
fn a_summary_counts_only_for_the_log_it_was_made_from() {
    let f = Fixture::with_turns("summary", 1, u64::MAX);
    let summary = Cached {
        agent: "a".into(),
        title: Some("with \"quotes\": and colons".into()),
        status: "idle".into(),
        created_at_ms: 5,
        last_at_ms: 1_795_341_600_123,
        last_seq: 3,
        turns: 1,
        input_tokens: 2,
        output_tokens: 3,
        context_tokens: 5,
    };
    assert_eq!(f.store.cached("s"), None);
    f.store.cache("s", &summary);
    assert_eq!(f.store.cached("s"), Some(summary));
    let (mut opened, _) = f.open().expect("open");
    commit(&mut *opened.log, 4, vec![Body::TurnStarted { turn: 2 }]).expect("commit");
    assert_eq!(f.store.cached("s"), None, "the log went on");
    fs::write(f.root.join("s/state.yaml"), "status: [").expect("write");
    assert_eq!(f.store.cached("s"), None);
}

/// Runs itself again in a process of its own, whose memory nobody else uses.
#[test]
fn garbage_without_end_takes_little_memory_and_is_told() {
    const INSIDE: &str = "DURAGENT_TEST_GARBAGE";
    if std::env::var_os(INSIDE).is_some() {
        return garbage();
    }
    let exe = std::env::current_exe().expect("this test");
    let name = "store::file::tests::garbage_without_end_takes_little_memory_and_is_told";
    let output = std::process::Command::new(exe).args(["--exact", name]).env(INSIDE, "1").output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn garbage() {
    const GARBAGE_BYTES: u64 = 6 * line::LINE_BYTES_MAX as u64;
    for terminated in [false, true] {
        let f = Fixture::with_turns("garbage", 3, u64::MAX);
        let intact = fs::metadata(f.log_path()).expect("stat").len();
        let file = fs::OpenOptions::new().write(true).open(f.log_path()).expect("open");
        file.set_len(intact + GARBAGE_BYTES).expect("a sparse file");
        if terminated {
            file.write_all_at(b"{\"seq\":8,\"", intact).expect("begin");
            file.write_all_at(b"\n", intact + GARBAGE_BYTES - 1).expect("end");
        }
        let before = peak_bytes();
        let found = f.store.verify("s", &mut |_| {}).expect("can be read");
        assert_eq!(found.seq, 7);
        assert!(matches!(found.tail, Tail::Damaged(damage) if (damage.line, damage.byte) == (8, intact)));
        assert!(matches!(f.refused(), StoreError::Damaged(_)));
        assert_eq!(f.store.settle("s").expect("settle"), if terminated { 8 } else { 7 });
        let mut seqs = Vec::new();
        let mut each = |seq, _: &str| {
            seqs.push(seq);
            true
        };
        f.store.read("s", 0, u64::MAX, &mut each).expect("read");
        f.store.read("s", 5, u64::MAX, &mut each).expect("read from the middle");
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 6, 7]);
        assert!(!f.store.at_rest("s"));
        let more = peak_bytes() - before;
        assert!(more < GARBAGE_BYTES / 2, "{more} bytes of memory");
    }
}

/// Most bytes of memory that this process has held so far (proc_pid_status(5)).
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the proc file system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
