//! Requests per second and how long they take, by wrk, with few connections and many.

use super::peers;
use super::wrk::{Load, Outcome, Wrk};
use super::{AXUM, NGINX};
use crate::bare::Bare;
use crate::client::Client;
use crate::failure::{Failure, Result, fail};
use crate::proc;
use crate::scene::{Place, Scene, Server, length, message_body, wait_until};
use crate::stats::Sample;
use crate::store;
use crate::table::{Aim, Beside, Pairs, Row};
use std::path::Path;
use std::time::Duration;

/// Rounds of which medians are taken.
const ROUNDS: usize = 3;
/// Connections at a time.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Sessions that messages go to. Each holds 64 in its queue, so that none is refused below 16,000 a second.
const SESSIONS: usize = 512;
/// How long the bare disk runs before messages are sent and after.
const BARE_TIME: Duration = Duration::from_millis(250);
/// Clients that make those sessions.
const MAKERS: usize = 16;
/// The session that is shown.
const SHOWN: &str = "/api/v1/sessions/shown";

/// Figure 12: `/livez`, a session, and a durable message.
pub fn requests(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 600, None)?;
    let ours = scene.serve()?;
    let (live, session) = {
        let mut client = ours.client()?;
        client.create("instant", "shown")?;
        client.turn(&crate::client::messages("shown"), &message_body())?;
        let live = client.expect(200, "GET", "/livez", "")?.to_owned();
        (live, client.expect(200, "GET", SHOWN, "")?.to_owned())
    };
    let axum = peers::axum(place, session.len())?;
    for (path, expected) in [("/livez", &live), (SHOWN, &session)] {
        let found = axum.client()?.expect(200, "GET", path, "")?.len();
        if found != expected.len() {
            return fail(format!("GET {path} of axum: expected {} bytes, found {found}", expected.len()));
        }
    }
    let nginx = peers::nginx(place, &live)?;
    let wrk = Wrk::new(&place.folder()?)?;
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let (mut with_axum, mut with_nginx) = (Table::new(AXUM), Table::new(NGINX));
        for _ in 0..ROUNDS {
            let [ours, axum, nginx] =
                [&ours, &axum, &nginx].map(|server| wrk.run(server, Load::Get("/livez"), connections));
            let ours = ours?;
            with_axum.add(ours, axum?);
            with_nginx.add(ours, nginx?);
        }
        rows.extend(with_axum.rows("GET /livez", connections, 0.5));
        rows.push(with_nginx.rate("GET /livez", connections, Beside::More));
        rows.push(with_nginx.p99("GET /livez", connections, Beside::Less));
        rows.push(with_nginx.cost("GET /livez", connections, Beside::Less));
    }
    for connections in CONNECTIONS {
        let mut table = Table::new(AXUM);
        for _ in 0..ROUNDS {
            let [ours, axum] = [&ours, &axum].map(|server| wrk.run(server, Load::Get(SHOWN), connections));
            table.add(ours?, axum?);
        }
        rows.extend(table.rows("GET of a session", connections, 0.5));
    }
    rows.extend(sizes(place, [&ours, &axum, &nginx])?);
    drop([ours, nginx]);
    rows.extend(messages(place, &wrk, &axum)?);
    Ok(rows)
}

/// Bytes of the programs, and of memory after all those requests.
fn sizes(place: &Place, servers: [&Server; 3]) -> Result<Vec<Row>> {
    let binaries: [&Path; 3] = [&place.binary, &place.peer, &peers::nginx_binary()?];
    let mut megabytes = Vec::new();
    for (binary, server) in binaries.into_iter().zip(servers) {
        megabytes.push([length(binary)? as f64 / 1e6, proc::resident(server.pid)?.rss / 1e6]);
    }
    let [ours, axum, nginx] = megabytes[..] else { return fail("expected three servers") };
    let mut rows = Vec::new();
    for (at, name) in ["size of the program", "resident memory (Rss) after those requests"].into_iter().enumerate() {
        for (peer, theirs) in [(AXUM, axum), (NGINX, nginx)] {
            let pairs = Pairs { peer, ours: vec![ours[at]], theirs: vec![theirs[at]] };
            rows.push(Row::beside(name, "MB", &pairs, Beside::Less));
        }
    }
    Ok(rows)
}

/// Durable messages, beside axum's and beside the bare disk with as many files and as many threads as there are connections.
fn messages(place: &Place, wrk: &Wrk, axum: &Server) -> Result<Vec<Row>> {
    let mut disk = Bare::new(&place.folder()?, SESSIONS, &store::line()?)?;
    let mut client = axum.client()?;
    for number in 0..SESSIONS {
        client.expect(202, "POST", &format!("/api/v1/sessions/post-{number}/messages"), &message_body())?;
    }
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let (mut table, mut bare, mut ratios) = (Table::new(AXUM), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ours = asking(place)?;
            let before = disk.rate(connections, BARE_TIME)?;
            let found = wrk.run(&ours.1, Load::Post(SESSIONS), connections)?;
            let syncs = (before + disk.rate(connections, BARE_TIME)?) / 2.0;
            drop(ours);
            table.add(found, wrk.run(axum, Load::Post(SESSIONS), connections)?);
            bare.push(syncs);
            ratios.push(found.rate / syncs);
        }
        rows.extend(table.rows("POST of a message, durable", connections, 0.8));
        let threads = if connections == 1 { "1 thread".to_owned() } else { format!("{connections} threads") };
        // Several at a time are bound by the processor on any disk that is fast: the ratio says by how much, and no more.
        let aim = if connections == 1 { Aim::AtLeast(0.5) } else { Aim::Shown };
        let name = format!("the same over bare append and fdatasync by {threads}");
        rows.push(Row::median(&name, &Sample::new(ratios), "", aim));
        let name = format!("bare append and fdatasync by {threads}, {SESSIONS} files");
        rows.push(Row::median(&name, &Sample::new(bare), "/s", Aim::Shown));
    }
    Ok(rows)
}

/// A server whose sessions `post-0` and so on wait for an approval, so that a message to them is queued: one event, one
/// commit.
fn asking(place: &Place) -> Result<(Scene, Server)> {
    let scene = Scene::asking(place, SESSIONS * 2)?;
    let server = scene.serve()?;
    let make = |maker: usize| -> Result<()> {
        let (mut client, body) = (server.client()?, message_body());
        for number in (maker..SESSIONS).step_by(MAKERS) {
            let session = format!("post-{number}");
            client.create("asking", &session)?;
            client.expect(202, "POST", &format!("/api/v1/sessions/{session}/messages"), &body)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS).map(|maker| scope.spawn(move || make(maker))).collect();
        let panicked = |_| Err(Failure("a thread panicked".into()));
        makers.into_iter().try_for_each(|maker| maker.join().unwrap_or_else(panicked))
    })?;
    let mut client = server.client()?;
    wait_until("all sessions wait for their approval", || Ok(waiting(&mut client)? == SESSIONS))?;
    Ok((scene, server))
}

fn waiting(client: &mut Client) -> Result<usize> {
    let list = client.expect(200, "GET", "/api/v1/sessions?limit=1000&status=waiting", "")?;
    Ok(list.matches("\"last_seq\":").count())
}

fn plural(connections: usize) -> String {
    format!("{connections} connection{}", if connections == 1 { "" } else { "s" })
}

/// One load on us and on somebody else, round by round.
struct Table {
    peer: &'static str,
    rounds: Vec<(Outcome, Outcome)>,
}

impl Table {
    fn new(peer: &'static str) -> Self {
        Self { peer, rounds: Vec::new() }
    }

    fn add(&mut self, ours: Outcome, theirs: Outcome) {
        self.rounds.push((ours, theirs));
    }

    /// All that is said of a load; `least` is the share of the other's rate that we want to have.
    fn rows(&self, what: &str, connections: usize, least: f64) -> [Row; 4] {
        [
            self.rate(what, connections, Beside::AtLeast(least)),
            self.row("ms", &format!("{what}, {}, p50", plural(connections)), |o| o.p50, Beside::Less),
            self.p99(what, connections, Beside::AtMost(2.0)),
            self.cost(what, connections, Beside::Less),
        ]
    }

    fn rate(&self, what: &str, connections: usize, aim: Beside) -> Row {
        self.row("/s", &format!("{what}, {}", plural(connections)), |o| o.rate, aim)
    }

    fn p99(&self, what: &str, connections: usize, aim: Beside) -> Row {
        self.row("ms", &format!("{what}, {}, p99", plural(connections)), |o| o.p99, aim)
    }

    fn cost(&self, what: &str, connections: usize, aim: Beside) -> Row {
        self.row("µs", &format!("{what}, {}, processor time of the server", plural(connections)), |o| o.cost, aim)
    }

    fn row(&self, unit: &str, name: &str, value: impl Fn(&Outcome) -> f64, aim: Beside) -> Row {
        let (ours, theirs) = self.rounds.iter().map(|(ours, theirs)| (value(ours), value(theirs))).unzip();
        Row::beside(name, unit, &Pairs { peer: self.peer, ours, theirs }, aim)
    }
}
