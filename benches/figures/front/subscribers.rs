//! What a thousand subscribers cost: memory while nothing happens, while much does and when they have gone, and processor time
//! for each event that one of them is told.

use super::AXUM;
use super::crowd::Crowd;
use super::peers;
use crate::client::{self, Client};
use crate::failure::{Failure, Result, fail};
use crate::proc::{self, Resident};
use crate::scene::{Place, Scene, Server, message_body, wait_until};
use crate::table::{Aim, Beside, Pairs, Row};
use std::time::{Duration, Instant};

/// Subscribers at first, and in the end.
const FEW: usize = 100;
const MANY: usize = 1000;
/// Sessions that they follow, and turns that each has while they do.
const SESSIONS: usize = 20;
const TURNS: usize = 20;
/// Time for memory to come to rest after the threads have.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes that a subscriber may cost.
const BYTES_MAX: f64 = 8.0;

/// Rounds of the fan-out, how long each takes at least, and turns between which everybody is waited for: far fewer events than
/// may wait for one who is slow.
const ROUNDS: usize = 3;
const FAN_OUT_TIME: Duration = Duration::from_secs(2);
const BURST: usize = 10;

/// Figure 13: memory and threads with 0, 100 and 1,000 subscribers.
pub fn subscribers(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 600, None)?;
    let server = scene.serve()?;
    let ours = memory(&server, &mut ours(&server)?)?;
    drop(server);
    let server = peers::axum(place, 300)?;
    let theirs = memory(&server, &mut Axum::new(&server)?)?;
    let shown = |name: &str, value: f64, unit: &str| Row::one(name, value, unit, Aim::Shown);
    let mut rows = Vec::new();
    for (memory, when) in [
        (ours.none, "no subscriber".to_owned()),
        (ours.few, format!("{FEW} idle subscribers of {SESSIONS} sessions")),
        (ours.many, "1,000 of them".to_owned()),
        (ours.busy, format!("1,000 of them after {TURNS} turns of each session")),
        (ours.gone, "all of them gone".to_owned()),
    ] {
        let anon = format!("{} MB of it in no file", crate::table::number(memory.anon / 1e6));
        rows.push(shown(&format!("resident memory (Rss), {when}"), memory.rss / 1e6, "MB").spread(anon));
    }
    let threads = format!("threads with 1,000 subscribers, above those with none, while {SESSIONS} sessions had turns");
    rows.push(Row::one(
        "threads with 1,000 idle subscribers, above those with none",
        ours.threads,
        "",
        Aim::AtMost(0.0),
    ));
    rows.push(shown(&threads, ours.threads_busy, ""));
    let kept = "memory kept when 1,000 subscribers have gone, above that before they came";
    rows.push(Row::one(kept, (ours.gone.rss - ours.none.rss).max(0.0) / 1e6, "MB", Aim::AtMost(1.0)));
    for (when, pick) in [("idle", Of::many as fn(&Of) -> f64), ("after those turns", Of::busy)] {
        let name = format!("memory for each of 1,000 subscribers, {when}");
        rows.push(Row::one(&name, pick(&ours), "KiB", Aim::AtMost(BYTES_MAX)));
        let pairs = Pairs { peer: AXUM, ours: vec![pick(&ours)], theirs: vec![pick(&theirs)] };
        rows.push(Row::beside("the same", "KiB", &pairs, Beside::Less));
    }
    Ok(rows)
}

/// Memory with so many subscribers.
struct Of {
    none: Resident,
    few: Resident,
    many: Resident,
    busy: Resident,
    gone: Resident,
    threads: f64,
    threads_busy: f64,
}

impl Of {
    /// KiB that each idle one costs.
    fn many(&self) -> f64 {
        (self.many.rss - self.none.rss) / MANY as f64 / 1024.0
    }

    /// The same after they were busy.
    fn busy(&self) -> f64 {
        (self.busy.rss - self.none.rss) / MANY as f64 / 1024.0
    }
}

/// A server whose events can be followed.
trait Source {
    /// The session that subscriber `number` follows.
    fn session(&self, number: usize) -> String;
    /// Lets so many turns happen in each session.
    fn turns(&mut self, count: usize) -> Result<()>;
    /// Events with an id that subscriber `number` has been told if he has been told everything.
    fn told(&self, number: usize) -> u64;
    /// Open connections.
    fn connections(&mut self) -> Result<u64>;
}

fn memory(server: &Server, source: &mut dyn Source) -> Result<Of> {
    let threads = rest(server, f64::INFINITY)?;
    let none = proc::resident(server.pid)?;
    let connections = source.connections()?;
    let mut crowd = Crowd::default();
    let join = |crowd: &mut Crowd, source: &dyn Source, count: usize| -> Result<Resident> {
        while crowd.len() < count {
            crowd.join(server.address, &source.session(crowd.len()))?;
        }
        crowd.until(told(source, count))?;
        rest(server, threads)?;
        proc::resident(server.pid)
    };
    let few = join(&mut crowd, source, FEW)?;
    let many = join(&mut crowd, source, MANY)?;
    let threads_many = proc::threads(server.pid)?;
    source.turns(TURNS)?;
    let threads_busy = proc::threads(server.pid)?;
    crowd.until(told(source, MANY))?;
    rest(server, threads)?;
    let busy = proc::resident(server.pid)?;
    drop(crowd);
    wait_until("the subscribers have gone", || Ok(source.connections()? <= connections))?;
    rest(server, threads)?;
    let gone = proc::resident(server.pid)?;
    Ok(Of { none, few, many, busy, gone, threads: threads_many - threads, threads_busy: threads_busy - threads })
}

fn told(source: &dyn Source, count: usize) -> u64 {
    (0..count).map(|number| source.told(number)).sum()
}

/// Waits until the threads of the pools have ended, which they do a few seconds after their last job, and memory has come to
/// rest; how many threads are left.
fn rest(server: &Server, threads: f64) -> Result<f64> {
    if threads.is_infinite() {
        std::thread::sleep(SETTLED + Duration::from_secs(5));
    } else {
        wait_until("the threads are as few as without subscribers", || Ok(proc::threads(server.pid)? <= threads))?;
    }
    std::thread::sleep(SETTLED);
    proc::threads(server.pid)
}

/// Our server: sessions with turns.
struct Ours {
    client: Client,
    sessions: Vec<(String, u64)>,
}

/// Makes the sessions, with a turn in each.
fn ours(server: &Server) -> Result<Ours> {
    let mut client = server.client()?;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let session = format!("followed-{number}");
        client.create("instant", &session)?;
        sessions.push((session, 0));
    }
    let mut ours = Ours { client, sessions };
    ours.turns(1)?;
    Ok(ours)
}

impl Source for Ours {
    fn session(&self, number: usize) -> String {
        self.sessions.get(number % self.sessions.len()).map(|(session, _)| session.clone()).unwrap_or_default()
    }

    fn turns(&mut self, count: usize) -> Result<()> {
        let body = message_body();
        for (session, seq) in &mut self.sessions {
            let path = client::messages(session);
            (0..count).try_for_each(|_| self.client.turn(&path, &body))?;
            *seq = last_seq(&mut self.client, session)?;
        }
        Ok(())
    }

    fn told(&self, number: usize) -> u64 {
        self.sessions.get(number % self.sessions.len()).map_or(0, |(_, seq)| *seq)
    }

    fn connections(&mut self) -> Result<u64> {
        self.client.metric("duragent_http_connections")
    }
}

/// The last seq of a session, whose first is 1.
fn last_seq(client: &mut Client, session: &str) -> Result<u64> {
    let text = client.expect(200, "GET", &format!("/api/v1/sessions/{session}"), "")?;
    let number = text.split("\"last_seq\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
    number.and_then(|n| n.parse().ok()).ok_or_else(|| Failure(format!("expected a last_seq, found {text}")))
}

/// Axum's: one channel, and what is published to it. Nothing is replayed.
struct Axum {
    client: Client,
    published: u64,
    /// Bytes of an event's data.
    bytes: usize,
}

/// What a turn of ours tells a subscriber: five events of the log and eight tokens, of so many bytes without what goes around.
const TURN_EVENTS: usize = 13;
const AXUM_BYTES: usize = 100;

impl Axum {
    fn new(server: &Server) -> Result<Self> {
        Ok(Self { client: server.client()?, published: 0, bytes: AXUM_BYTES })
    }
}

impl Source for Axum {
    fn session(&self, _: usize) -> String {
        "all".to_owned()
    }

    fn turns(&mut self, count: usize) -> Result<()> {
        let body = format!("{{\"data\":\"{}\",\"count\":{TURN_EVENTS}}}", "x".repeat(self.bytes));
        for _ in 0..count {
            self.client.expect(204, "POST", "/publish", &body)?;
            self.published += TURN_EVENTS as u64;
        }
        Ok(())
    }

    fn told(&self, _: usize) -> u64 {
        self.published
    }

    fn connections(&mut self) -> Result<u64> {
        Ok(0)
    }
}

/// Figure 14: one busy session and a thousand who follow it.
pub fn fan_out(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 600, None)?;
    let server = scene.serve()?;
    let axum = peers::axum(place, 300)?;
    let mut ours = Ours { client: server.client()?, sessions: vec![("busy".to_owned(), 0)] };
    ours.client.create("instant", "busy")?;
    ours.turns(1)?;
    let mut theirs = Axum::new(&axum)?;
    let (crowd, other) = (gather(&server, &ours)?, gather(&axum, &theirs)?);
    let mut rates = Pairs { peer: AXUM, ours: Vec::new(), theirs: Vec::new() };
    let mut costs = rates.clone();
    let mut bytes = 0.0;
    for _ in 0..ROUNDS {
        let found = tell(&server, &crowd, &mut ours)?;
        rates.ours.push(found.rate);
        costs.ours.push(found.cost);
        bytes = found.bytes;
        // Events of the same length, with what goes around the data.
        theirs.bytes = (bytes as usize).saturating_sub("id: 12345\nevent: token\ndata: \n\n".len());
        let found = tell(&axum, &other, &mut theirs)?;
        rates.theirs.push(found.rate);
        costs.theirs.push(found.cost);
    }
    let what = format!("1,000 subscribers of one busy session, events of {bytes:.0} bytes");
    Ok(vec![
        Row::beside(&format!("events delivered to {what}"), "/s", &rates, Beside::AtLeast(0.5)),
        Row::beside("processor time of the server for each", "µs", &costs, Beside::AtMost(2.0)),
    ])
}

/// A thousand subscribers who have been told what there is to tell.
fn gather(server: &Server, source: &dyn Source) -> Result<Crowd> {
    let mut crowd = Crowd::default();
    while crowd.len() < MANY {
        crowd.join(server.address, &source.session(0))?;
    }
    crowd.until(told(source, MANY))?;
    Ok(crowd)
}

/// Events a second, microseconds of processor time for each, and bytes of each.
struct Told {
    rate: f64,
    cost: f64,
    bytes: f64,
}

/// Lets turns happen, some at a time, and everybody hear of them.
fn tell(server: &Server, crowd: &Crowd, source: &mut dyn Source) -> Result<Told> {
    let (before, ticks, start) = (crowd.heard()?, proc::ticks(server.pid)?, Instant::now());
    while start.elapsed() < FAN_OUT_TIME {
        source.turns(BURST)?;
        crowd.until(told(source, MANY))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    // A tick is 10 ms.
    let micros = (proc::ticks(server.pid)? - ticks) as f64 * 1e4;
    let after = crowd.heard()?;
    let events = (after.all - before.all) as f64;
    if events == 0.0 {
        return fail("expected events, found none");
    }
    Ok(Told { rate: events / seconds, cost: micros / events, bytes: (after.bytes - before.bytes) as f64 / events })
}
