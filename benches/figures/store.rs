//! The store without the runtime: commits of one event, over a bare append of the same bytes and its sync.

use crate::bare::Bare;
use crate::failure::{Result, doing, fail};
use crate::made;
use crate::scene::{MESSAGE, Place};
use crate::stats::Sample;
use crate::table::{Aim, Row};
use duragent::session::{DeviceLimits, Pool};
use duragent::store::file::FileStore;
use duragent::store::{Batch, Log, StoreError};
use duragent_core::event::{Body, Event};
use duragent_core::line::{self, CRC_START};
use duragent_platform::clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Rounds of which medians are taken: many short ones, since the mood of a shared disk changes within seconds.
const ROUNDS: usize = 10;
/// How long each contender runs in a round; the bare disk runs before and after the store.
const TIME: Duration = Duration::from_millis(400);
/// Sessions at a time in the second half.
const MANY: usize = 64;

/// The line that a commit here writes, for those who write it without us: about 350 bytes.
pub fn line() -> Result<String> {
    let mut text = String::new();
    line::encode(&Event { seq: 1000, at_ms: clock::wall_ms(), body: body() }, CRC_START, &mut text);
    if text.len() < 300 || text.len() > 400 { fail(format!("a line of {} bytes", text.len())) } else { Ok(text) }
}

fn body() -> Body {
    made::message(333, MESSAGE.into())
}

/// A log and its place.
struct Session {
    log: Box<dyn Log>,
    seq: u64,
}

impl Session {
    fn new(store: &FileStore, id: &str) -> Result<Self> {
        let log = store.create(id).map_err(doing("making a log"))?;
        let mut session = Self { log, seq: 0 };
        session.commit(made::created(id)).map_err(doing("the first commit"))?;
        Ok(session)
    }

    fn commit(&mut self, body: Body) -> std::result::Result<(), StoreError> {
        self.seq += 1;
        let events = vec![Event { seq: self.seq, at_ms: clock::wall_ms(), body }];
        self.log.commit(Batch { events, effects: Vec::new() }).map(drop)
    }

    /// Commits a second by this thread alone.
    fn rate(&mut self) -> Result<f64> {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < TIME {
            self.commit(body()).map_err(doing("committing"))?;
            count += 1;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}

/// Many sessions on the runtime's own pool of writers; each commits again as soon as it has committed.
struct Many {
    pool: Pool,
    sessions: Vec<Session>,
}

struct Run {
    pool: Pool,
    start: Instant,
    count: AtomicU64,
    back: mpsc::Sender<std::result::Result<Session, StoreError>>,
}

impl Many {
    fn rate(&mut self) -> Result<f64> {
        let (back, done) = mpsc::channel();
        let start = Instant::now();
        let run = Arc::new(Run { pool: self.pool.clone(), start, count: AtomicU64::new(0), back });
        let count = self.sessions.len();
        for session in self.sessions.drain(..) {
            next(&run, session);
        }
        for _ in 0..count {
            let session = done.recv().map_err(doing("waiting for a writer"))?;
            self.sessions.push(session.map_err(doing("committing"))?);
        }
        Ok(run.count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
    }
}

fn next(run: &Arc<Run>, mut session: Session) {
    let again = Arc::clone(run);
    run.pool.spawn(move || {
        let result = session.commit(body());
        again.count.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() && again.start.elapsed() < TIME {
            return next(&again, session);
        }
        // Nobody waits any more once one session has failed.
        again.back.send(result.map(|()| session)).ok();
    });
}

/// One contender over all rounds, and the bare disk around it.
struct Race {
    rates: Vec<f64>,
    bare: Vec<f64>,
    ratios: Vec<f64>,
}

impl Race {
    /// Runs once, between two looks at the bare disk.
    fn run(&mut self, bare: &mut dyn FnMut() -> Result<f64>, store: &mut dyn FnMut() -> Result<f64>) -> Result<()> {
        let (before, rate, after) = (bare()?, store()?, bare()?);
        let bare = (before + after) / 2.0;
        self.rates.push(rate);
        self.bare.push(bare);
        self.ratios.push(rate / bare);
        Ok(())
    }

    fn rows(self, commits: &str, bare: &str, aim: Aim) -> [Row; 3] {
        let shown = |name: String, values| Row::median(&name, &Sample::new(values), "/s", Aim::Shown);
        [
            shown(format!("commits per second, {commits}"), self.rates),
            shown(format!("bare append and fdatasync beside that, {bare}"), self.bare),
            Row::median("commits over the bare disk", &Sample::new(self.ratios), "", aim),
        ]
    }
}

/// Figure 9: commits a second with one session and with 64, over the bare disk. The runtime has as many writers as
/// [`DeviceLimits`] says; what more of them would bring is shown beside that.
pub fn commits(place: &Place) -> Result<Vec<Row>> {
    let folder = place.folder()?;
    let store = FileStore::new(folder.join("sessions"), u64::MAX);
    let mut one = Session::new(&store, "one")?;
    let sessions = (0..MANY).map(|n| Session::new(&store, &format!("many-{n}"))).collect::<Result<_>>()?;
    let DeviceLimits { writers_max: writers, stack_bytes, .. } = DeviceLimits::default();
    let (few, all) = (Pool::new("writer", writers, stack_bytes), Pool::new("writer", MANY, stack_bytes));
    let mut many = Many { pool: few.clone(), sessions };
    let line = line()?;
    let mut bare_one = Bare::new(&folder.join("one"), 1, &line)?;
    let mut bare_many = Bare::new(&folder.join("many"), MANY, &line)?;
    let mut races = [const { Race { rates: Vec::new(), bare: Vec::new(), ratios: Vec::new() } }; 4];
    let [single, wide, narrow, widest] = &mut races;
    for _ in 0..ROUNDS {
        single.run(&mut || bare_one.rate(1, TIME), &mut || one.rate())?;
        many.pool = few.clone();
        wide.run(&mut || bare_many.rate(MANY, TIME), &mut || many.rate())?;
        narrow.run(&mut || bare_many.rate(writers, TIME), &mut || many.rate())?;
        many.pool = all.clone();
        widest.run(&mut || bare_many.rate(MANY, TIME), &mut || many.rate())?;
    }
    let [single, wide, narrow, widest] = races;
    let (pool, aim) = (format!("{MANY} sessions, {writers} writers"), Aim::AtLeast(0.9));
    let by = |threads: usize| format!("{MANY} files by {threads} threads");
    let mut rows = Vec::from(single.rows("1 session", "1 file", aim));
    rows.extend(wide.rows(&pool, &by(MANY), aim));
    rows.extend(narrow.rows(&pool, &by(writers), aim));
    rows.extend(widest.rows(&format!("{MANY} sessions, {MANY} writers"), &by(MANY), Aim::Shown));
    Ok(rows)
}
