//! How fast turns go, and how far that is from what the disk and the model allow.
//!
//! A turn is two commits around one model call, so one client cannot have more than one turn in two syncs and a round trip
//! of the model; many clients share the disk, which then is the bound. Bare disk, bare model and turns are measured in
//! turns, round after round, and ratios are taken within a round.

use crate::bare::Bare;
use crate::client::{self, Client};
use crate::failure::{Failure, Result, doing};
use crate::ollama;
use crate::proc;
use crate::scene::{MESSAGE, PIECES, Place, Scene, Server, message_body};
use crate::stats::Sample;
use crate::store;
use crate::table::{Aim, Row};
use duragent::provider::config::{ProviderConfig, Transcript, build};
use duragent::provider::{Message, Provider, Request};
use duragent_core::provider::ProviderKind;
use duragent_platform::cancel::Cancel;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds of which medians are taken: many short ones, since the mood of a shared disk changes within seconds.
const ROUNDS: usize = 10;
/// How long each load runs in a round, and the bare disk before it and after it.
const LOAD_TIME: Duration = Duration::from_millis(600);
const BARE_TIME: Duration = Duration::from_millis(250);
/// Clients at a time in the second half.
const MANY: usize = 16;
/// Turns that fill the window of a model: from then on every request has the same size.
const WINDOW_TURNS: usize = 59;

/// Clients, each with a connection and a session of its own.
struct Load {
    clients: Vec<(Client, String)>,
    body: String,
}

impl Load {
    fn new(server: &Server, agent: &str, count: usize) -> Result<Self> {
        let mut clients = Vec::new();
        for number in 0..count {
            let (mut client, session) = (server.client()?, format!("{agent}-{count}-{number}"));
            client.create(agent, &session)?;
            clients.push((client, client::messages(&session)));
        }
        let mut load = Self { clients, body: message_body() };
        load.run(&|turns, _| turns < WINDOW_TURNS)?;
        Ok(load)
    }

    /// Turns a second over `time`, and how many they were.
    fn rate(&mut self, time: Duration) -> Result<(f64, usize)> {
        let (count, took) = self.run(&|_, elapsed| elapsed < time)?;
        Ok((count as f64 / took.as_secs_f64(), count))
    }

    /// Every client has turns as long as `goes_on`.
    fn run(&mut self, goes_on: &(dyn Fn(usize, Duration) -> bool + Sync)) -> Result<(usize, Duration)> {
        let (start, body) = (Instant::now(), &self.body);
        let work = |client: &mut Client, path: &str| {
            let mut count = 0;
            while goes_on(count, start.elapsed()) {
                client.turn(path, body)?;
                count += 1;
            }
            Ok(count)
        };
        let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
            let mut running = Vec::new();
            for (client, path) in &mut self.clients {
                running.push(scope.spawn(|| work(client, path)));
            }
            let panicked = |_| Err(Failure("a thread panicked".into()));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        Ok((counts.into_iter().sum::<Result<usize>>()?, start.elapsed()))
    }
}

/// A model asked by the runtime's own code, with the request that a long session makes.
struct Model {
    provider: Arc<dyn Provider>,
    request: Request,
}

impl Model {
    fn new(kind: ProviderKind, url: Option<String>, transcript: Option<Transcript>) -> Result<Self> {
        let config = ProviderConfig { transcript, ..ProviderConfig::new(kind, url) };
        let mut messages = Vec::new();
        for _ in 0..WINDOW_TURNS {
            messages.push(Message::User { content: MESSAGE.into() });
            let content = PIECES.concat();
            messages.push(Message::Assistant { content, thinking: None, blocks: None, tool_calls: Vec::new() });
        }
        messages.push(Message::User { content: MESSAGE.into() });
        let request = Request {
            model: "m".into(),
            system: String::new(),
            messages,
            tools: Vec::new(),
            temperature: None,
            max_output_tokens: None,
            context_tokens: 8192,
        };
        Ok(Self { provider: build(&config).map_err(doing("building a provider"))?, request })
    }

    fn replay(scene: &Scene) -> Result<Self> {
        Self::new(ProviderKind::Replay, None, Some(Transcript::File(scene.folder.join(".duragent/instant.jsonl"))))
    }

    fn remote(address: SocketAddr) -> Result<Self> {
        Self::new(ProviderKind::Ollama, Some(format!("http://{address}")), None)
    }

    /// Seconds of one round trip, over `time`.
    fn seconds(&self, time: Duration) -> Result<f64> {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < time {
            let reply = self.provider.complete(&self.request, &Cancel::new(), &mut |_| {});
            reply.map_err(|failure| Failure(format!("the model failed: {}", failure.detail)))?;
            count += 1;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(count))
    }
}

/// One load over all rounds.
struct Line {
    name: &'static str,
    load: Load,
    rates: Vec<f64>,
    ratios: Vec<f64>,
    /// Microseconds of the server's processor time for each turn.
    costs: Vec<f64>,
    aim: f64,
    peer: f64,
}

impl Line {
    fn new(server: &Server, (name, agent, clients): (&'static str, &str, usize)) -> Result<Self> {
        let (aim, peer) = if clients == 1 { (1500.0, 739.0) } else { (5000.0, 3167.0) };
        let load = Load::new(server, agent, clients)?;
        Ok(Self { name, load, rates: Vec::new(), ratios: Vec::new(), costs: Vec::new(), aim, peer })
    }

    /// Measures once, between two looks at the bare disk with as many files; `alone` is how often a single file can be
    /// synced in a second, `model` how many seconds a round trip of the model takes. Returns syncs of the bare disk a second.
    fn measure(&mut self, pid: u32, disk: &mut Bare, alone: Option<f64>, model: f64) -> Result<f64> {
        let clients = self.load.clients.len();
        let before = disk.rate(clients, BARE_TIME)?;
        let ticks = proc::ticks(pid)?;
        let (rate, count) = self.load.rate(LOAD_TIME)?;
        // A tick is 10 ms.
        self.costs.push((proc::ticks(pid)? - ticks) as f64 * 1e4 / count as f64);
        let syncs = (before + disk.rate(clients, BARE_TIME)?) / 2.0;
        let each = clients as f64 / (2.0 / alone.unwrap_or(syncs) + model);
        self.rates.push(rate);
        self.ratios.push(rate / each.min(syncs / 2.0));
        Ok(syncs)
    }

    fn rows(self) -> [Row; 3] {
        let (rates, ratios) = (Sample::new(self.rates), Sample::new(self.ratios));
        let rate = format!("turns per second, {}", self.name);
        let bound = format!("the same over what 2 syncs and the model allow, {}", self.name);
        let cost = format!("processor time of the server per turn, {}", self.name);
        [
            Row::median(&rate, &rates, "/s", Aim::AtLeast(self.aim)).peer(self.peer, rates.median(), "/s"),
            Row::median(&bound, &ratios, "", Aim::AtLeast(0.8)),
            Row::median(&cost, &Sample::new(self.costs), "µs", Aim::Shown),
        ]
    }
}

/// Figure 5: whole turns by `POST messages?wait` on connections that stay open, one session a client.
pub fn rates(place: &Place) -> Result<Vec<Row>> {
    let remote = ollama::start(None)?;
    let scene = Scene::new(place, 60, Some(remote))?;
    let server = scene.serve()?;
    let line = store::line()?;
    let mut disk_one = Bare::new(&scene.folder.join("one"), 1, &line)?;
    let mut disk_many = Bare::new(&scene.folder.join("many"), MANY, &line)?;
    let (replay, remote) = (Model::replay(&scene)?, Model::remote(remote)?);
    let mut lines = [
        [
            Line::new(&server, ("1 client, model in process", "instant", 1))?,
            Line::new(&server, ("16 clients, model in process", "instant", MANY))?,
        ],
        [
            Line::new(&server, ("1 client, model over HTTP", "remote", 1))?,
            Line::new(&server, ("16 clients, model over HTTP", "remote", MANY))?,
        ],
    ];
    let (mut ones, mut manys, mut replays, mut remotes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let models = [replay.seconds(BARE_TIME / 5)?, remote.seconds(BARE_TIME)?];
        for ([single, several], model) in lines.iter_mut().zip(models) {
            let one = single.measure(server.pid, &mut disk_one, None, model)?;
            manys.push(several.measure(server.pid, &mut disk_many, Some(one), model)?);
            ones.push(one);
        }
        replays.push(models[0] * 1e6);
        remotes.push(models[1] * 1e6);
    }
    let mut rows: Vec<Row> = lines.into_iter().flatten().flat_map(Line::rows).collect();
    for (name, values, unit) in [
        ("bare append and fdatasync, 1 file", ones, "/s"),
        ("bare append and fdatasync, 16 files by 16 threads", manys, "/s"),
        ("bare round trip of the model in process", replays, "µs"),
        ("bare round trip of the model over HTTP, by our client code", remotes, "µs"),
    ] {
        rows.push(Row::median(name, &Sample::new(values), unit, Aim::Shown));
    }
    Ok(rows)
}

/// Figure 6: a turn streamed over TCP, from just before the request is written.
pub fn streamed(place: &Place) -> Result<Vec<Row>> {
    /// Turns in a batch, and batches: bare syncs are measured between them.
    const TURNS: usize = 20;
    const BATCHES: usize = 20;
    let scene = Scene::new(place, 60, None)?;
    let server = scene.serve()?;
    let mut disk = Bare::new(&scene.folder.join("one"), 1, &store::line()?)?;
    let (mut client, body) = (server.client()?, message_body());
    client.create("instant", "streamed")?;
    let path = "/api/v1/sessions/streamed/messages";
    let (mut tokens, mut finished, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    client.streamed(path, &body)?;
    for _ in 0..BATCHES {
        syncs.extend(disk.times(TURNS)?);
        for _ in 0..TURNS {
            let turn = client.streamed(path, &body)?;
            tokens.push(turn.token.as_secs_f64() * 1e3);
            finished.push(turn.finished.as_secs_f64() * 1e3);
        }
    }
    let (tokens, finished, syncs) = (Sample::new(tokens), Sample::new(finished), Sample::new(syncs));
    let p99 = |name: &str, sample: &Sample| Row::one(name, sample.percentile(99.0), "ms", Aim::Shown);
    Ok(vec![
        Row::median("streamed turn, request to first token, p50", &tokens, "ms", Aim::AtMost(2.0)).peer(
            44.0,
            tokens.median(),
            "ms",
        ),
        p99("the same, p99", &tokens),
        Row::median("streamed turn, request to turn_finished, p50", &finished, "ms", Aim::AtMost(2.0)),
        p99("the same, p99", &finished),
        Row::median("bare append and fdatasync between those turns, p50", &syncs, "ms", Aim::Shown),
        p99("the same, p99", &syncs),
        Row::one("first token over 1 sync, p50", tokens.median() / syncs.median(), "×", Aim::Shown),
        Row::one("turn_finished over 2 syncs, p50", finished.median() / syncs.median() / 2.0, "×", Aim::Shown),
    ])
}
