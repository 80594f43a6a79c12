use super::api::{ApiError, NewMessage, NewSession, Published, Status, Verdict};
use super::{About, Agent, Agents, DeviceLimits, Endpoint, Filter, Runtime, Setup, Workdir};
use crate::provider::{Delta, Failure, Probe, Provider, Reply, Request};
use crate::tool::Registry;
use duragent_core::event::{Decision, FailureKind, SandboxReport, Scope, TurnReason};
use duragent_core::message::Message;
use duragent_core::policy::{Policy, Verdict as Mode};
use duragent_core::session::{Limits, Model, Rules};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Sandbox, Trust, own_binary};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

mod outage;

type Answer = Box<dyn Fn(&Request) -> Result<Reply, Failure> + Send + Sync>;

/// A model that the test plays. While the gate is closed it waits, until it is opened or the call is cancelled.
struct Played {
    answer: Answer,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().expect("gate") = closed;
        self.moved.notify_all();
    }
}

impl Provider for Played {
    fn complete(&self, request: &Request, cancel: &Cancel, on: &mut dyn FnMut(Delta<'_>)) -> Result<Reply, Failure> {
        let gate = Arc::clone(&self.gate);
        cancel.on_raise(move || gate.moved.notify_all());
        let mut closed = self.gate.closed.lock().expect("gate");
        while *closed && !cancel.is_raised() {
            closed = self.gate.moved.wait_timeout(closed, Duration::from_millis(50)).expect("gate").0;
        }
        drop(closed);
        let reply = (self.answer)(request)?;
        on(Delta::Text(&reply.text));
        Ok(reply)
    }

    fn body(&self, _: &Request) -> String {
        String::new()
    }

    fn reach(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn probe(&self, _: &str) -> Result<Probe, Failure> {
        Ok(Probe { text: "played".into(), context_tokens: None, lacks_tools: false })
    }
}

/// Says what it was asked, and how many messages it was shown.
fn echo(request: &Request) -> Result<Reply, Failure> {
    let last = match request.messages.last() {
        Some(Message::User { content } | Message::Tool { content, .. }) => content.clone(),
        other => panic!("expected a question, found {other:?}"),
    };
    Ok(Reply { text: format!("{last}/{}", request.messages.len()), finish_reason: "stop".into(), ..Reply::default() })
}

/// Writes a file in its first step, and says what came of it in its second.
fn writer(request: &Request) -> Result<Reply, Failure> {
    if matches!(request.messages.last(), Some(Message::Tool { .. })) {
        return echo(request);
    }
    let arguments = r#"{"path":"note.txt","content":"kept"}"#.into();
    let call = ToolCall { call_id: String::new(), name: "write_file".into(), arguments };
    Ok(Reply { tool_calls: vec![call], ..Reply::default() })
}

struct Fixture {
    root: PathBuf,
    gate: Arc<Gate>,
    mode: Mode,
    answer: fn(&Request) -> Result<Reply, Failure>,
    limits: DeviceLimits,
}

impl Fixture {
    fn new(name: &str, answer: fn(&Request) -> Result<Reply, Failure>) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-session-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(&root).expect("temporary directory");
        let limits = DeviceLimits { session_idle: Duration::from_secs(600), ..DeviceLimits::default() };
        Self { root, gate: Arc::default(), mode: Mode::Allow, answer, limits }
    }

    fn runtime(&self) -> Runtime {
        let names = ["read_file", "write_file"].map(String::from);
        let tools = Registry::new(&names, &[]).expect("tools");
        let provider = Played { answer: Box::new(self.answer), gate: Arc::clone(&self.gate) };
        let sandbox: Arc<dyn Sandbox> = Arc::new(Trust::new(own_binary().expect("own binary")));
        let rules = Rules {
            model: Model { provider: "played".into(), name: "m".into(), context_tokens: 4096, ..Model::default() },
            tools: tools.decls().cloned().collect(),
            policies: vec![Policy { mode: Some(self.mode), ..Policy::default() }],
            workdir: self.root.to_string_lossy().into_owned(),
            sandbox: SandboxReport { backend: "trust".into(), enforcement: "none".into(), landlock_abi: None },
            limits: Limits {
                steps_max: 5,
                turn_ms_max: 60_000,
                attempts_max: 2,
                approval_ms_max: 60_000,
                queue_max: u64::MAX,
                ..Limits::default()
            },
            ..Rules::default()
        };
        let agent = Agent {
            name: "a".into(),
            description: String::new(),
            about: About::default(),
            rules,
            system: "be brief".into(),
            endpoint: Endpoint {
                provider: Arc::new(provider),
                temperature: None,
                max_output_tokens: None,
                circuit: Arc::default(),
            },
            fallbacks: Vec::new(),
            tools,
            sandbox,
            tool_time_max: None,
            output_bytes_max: None,
            workdir: Workdir::Shared(self.root.clone()),
            pause_on_disconnect: false,
            allow_always: Box::new(|_| Ok(())),
        };
        let mut agents = Agents::default();
        agents.good.push(Arc::new(agent));
        let sessions = self.root.join("sessions");
        Runtime::new(Setup {
            sessions,
            agents,
            reload: Box::new(|| Err("not here".into())),
            limits: self.limits.clone(),
        })
    }

    fn log(&self, session: &str) -> String {
        fs::read_to_string(self.root.join("sessions").join(session).join("events.jsonl")).expect("log")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

fn new(id: &str) -> NewSession {
    NewSession { agent: "a".into(), id: Some(id.into()), title: None }
}

fn say(content: &str) -> NewMessage {
    NewMessage { content: content.into(), source: "test".into(), idempotency_key: None, steps_max: None }
}

async fn turn(runtime: &Runtime, id: &str, content: &str) -> super::api::TurnResult {
    let accepted = runtime.send(id, say(content)).await.expect("accepted");
    runtime.turn_result(id, accepted.turn).await.expect("finished")
}

async fn until(runtime: &Runtime, id: &str, wanted: Status) {
    for _ in 0..2000 {
        if runtime.session(id).await.expect("session").status == wanted {
            return;
        }
        smol::Timer::after(Duration::from_millis(5)).await;
    }
    panic!("session {id} did not become {wanted:?}: {:?}", runtime.session(id).await);
}

#[test]
fn a_conversation_is_remembered_across_runtimes() {
    let f = Fixture::new("memory", echo);
    smol::block_on(async {
        let runtime = f.runtime();
        assert_eq!(runtime.create(new("s")).await.expect("created").last_seq, 1);
        assert_eq!(turn(&runtime, "s", "one").await.reply, "one/1");
        assert_eq!(turn(&runtime, "s", "two").await.reply, "two/3");
        runtime.drain(Duration::ZERO).await;
        let runtime = f.runtime();
        assert_eq!(turn(&runtime, "s", "three").await.reply, "three/5");
        assert_eq!(runtime.turn_result("s", 1).await.expect("remembered").reply, "one/1");
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn what_is_told_is_on_disk() {
    let f = Fixture::new("told", echo);
    f.gate.set(true);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        let mut follow = runtime.follow("s", 0).await.expect("follow");
        let accepted = runtime.send("s", say("hi")).await.expect("accepted");
        assert!(f.log("s").contains("\"content\":\"hi\""), "acknowledged, so it is there");
        f.gate.set(false);
        let mut seqs = Vec::new();
        loop {
            match &*follow.next().await.expect("goes on") {
                Published::Event { seq, line, kind } => {
                    assert!(f.log("s").contains(line.as_str()), "published, so it is there");
                    seqs.push(*seq);
                    if kind == "turn_finished" {
                        break;
                    }
                }
                Published::Token { data } => {
                    assert_eq!(*data, format!("{{\"turn\":{},\"step\":1,\"text\":\"hi/1\"}}", accepted.turn));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn following_from_anywhere_gives_what_was_not_seen() {
    let f = Fixture::new("follow", echo);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        for _ in 0..40 {
            turn(&runtime, "s", "x").await;
        }
        let last = runtime.session("s").await.expect("session").last_seq;
        for after in [0, 1, 7, 63, 64, 65, 128, last - 1] {
            let mut follow = runtime.follow("s", after).await.expect("follow");
            for expected in after + 1..=last {
                let item = follow.next().await.expect("more");
                assert!(matches!(&*item, Published::Event { seq, .. } if *seq == expected), "{item:?}");
            }
        }
        let page = runtime.events("s", 3, 5).await.expect("page");
        assert_eq!((page.lines.len(), page.next), (5, Some(8)));
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn an_unfinished_turn_is_taken_up_at_the_next_start() {
    let f = Fixture::new("takeup", echo);
    f.gate.set(true);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        runtime.create(new("idle")).await.expect("created");
        runtime.send("s", say("hi")).await.expect("accepted");
        runtime.drain(Duration::ZERO).await;
        assert!(f.log("s").contains("session_paused"));
        f.gate.set(false);
        let runtime = f.runtime();
        runtime.recover().await;
        assert!(runtime.is_ready());
        assert_eq!(runtime.gauges().sessions_live, 1, "only the unfinished one is brought into memory");
        assert_eq!(runtime.turn_result("s", 1).await.expect("finished").reply, "hi/1");
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn tools_run_and_their_results_go_to_the_model() {
    let f = Fixture::new("tools", writer);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        let result = turn(&runtime, "s", "write it down").await;
        assert_eq!(result.reason, TurnReason::Completed, "{result:?}");
        assert_eq!(fs::read_to_string(f.root.join("note.txt")).expect("written"), "kept");
        let messages = runtime.messages("s").rest().await.expect("messages");
        assert!(duragent_core::json::parse(&messages).is_ok(), "{messages}");
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn an_approval_outlives_the_runtime_and_is_given_once() {
    let mut f = Fixture::new("approval", writer);
    f.mode = Mode::Ask;
    let verdict = |decision| Verdict { decision, scope: Scope::Once, by: "test".into() };
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        runtime.send("s", say("write")).await.expect("accepted");
        until(&runtime, "s", Status::Waiting).await;
        runtime.drain(Duration::ZERO).await;
        assert!(!f.root.join("note.txt").exists());

        let runtime = f.runtime();
        runtime.recover().await;
        let open = runtime.approvals("s").await.expect("approvals");
        assert_eq!((open.len(), open[0].name.as_str()), (1, "write_file"));
        let id = &open[0].approval_id;
        runtime.decide("s", id, verdict(Decision::Grant)).await.expect("granted");
        let again = runtime.decide("s", id, verdict(Decision::Deny)).await;
        assert!(matches!(again, Err(ApiError::Conflict(_))), "{again:?}");
        assert_eq!(runtime.turn_result("s", 1).await.expect("finished").reason, TurnReason::Completed);
        assert!(f.root.join("note.txt").exists());
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn what_was_durable_before_a_restart_is_served_after_it() {
    let mut f = Fixture::new("served", writer);
    f.mode = Mode::Ask;
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        runtime.send("s", say("write")).await.expect("accepted");
        until(&runtime, "s", Status::Waiting).await;
        let last = runtime.session("s").await.expect("session").last_seq;
        runtime.drain(Duration::ZERO).await;
        let runtime = f.runtime();
        runtime.recover().await;
        assert_eq!(runtime.gauges().sessions_live, 1);
        assert_eq!(runtime.events("s", 1, 100).await.expect("page").lines.len() as u64, last - 1);
        let mut follow = runtime.follow("s", 1).await.expect("follow");
        for expected in 2..=last {
            let item = follow.next().await.expect("more");
            assert!(matches!(&*item, Published::Event { seq, .. } if *seq == expected), "{item:?}");
        }
        runtime.drain(Duration::ZERO).await;
    });
}

/// Whoever asks while a log fails is told, and does not wait for ever.
#[test]
fn a_log_that_fails_keeps_nobody_waiting() {
    let mut f = Fixture::new("fails", echo);
    f.limits.log_segment_bytes_max = 100;
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        // The next segment cannot be begun: something that cannot be replaced has the closed one's name.
        let in_the_way = f.root.join("sessions/s/events.000000000001.jsonl");
        fs::create_dir_all(in_the_way.join("full")).expect("in the way");
        let many = async {
            let sends = (0..20).map(|_| runtime.send("s", say("x")));
            for send in sends {
                assert!(send.await.is_err());
            }
            true
        };
        let late = async {
            smol::Timer::after(Duration::from_secs(60)).await;
            false
        };
        assert!(smol::future::or(many, late).await, "somebody waits for ever");
        fs::remove_dir_all(in_the_way).expect("out of the way");
        assert_eq!(turn(&runtime, "s", "x").await.reply, "x/1");
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn cancelling_ends_the_turn_and_the_session_goes_on() {
    let f = Fixture::new("cancel", echo);
    f.gate.set(true);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        assert_eq!(runtime.cancel("s").await, Ok(None));
        let first = runtime.send("s", say("one")).await.expect("accepted");
        assert_eq!(runtime.cancel("s").await, Ok(Some(first.turn)));
        assert_eq!(runtime.turn_result("s", first.turn).await.expect("ended").reason, TurnReason::Cancelled);
        f.gate.set(false);
        assert_eq!(turn(&runtime, "s", "two").await.reply, "one\n\ntwo/1");
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn a_failing_model_fails_the_turn_with_its_reason() {
    let f = Fixture::new("failing", |_| {
        Err(Failure { retry_after_ms: Some(1), ..Failure::new(FailureKind::Connect, "refused") })
    });
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        let result = turn(&runtime, "s", "hi").await;
        assert_eq!((result.reason, result.detail.as_deref()), (TurnReason::Failed, Some("refused")));
        assert_eq!(counted(&runtime, "model_calls"), [2]);
        runtime.drain(Duration::ZERO).await;
    });
}

fn counted(runtime: &Runtime, name: &str) -> Vec<u64> {
    let mut found = Vec::new();
    runtime.tally().counts.each(&mut |family, cells| {
        if family.name == name {
            found = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        }
    });
    found
}

#[test]
fn a_session_at_rest_leaves_memory_and_comes_back() {
    let mut f = Fixture::new("rest", echo);
    f.limits.session_idle = Duration::from_millis(30);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        for n in 0..5 {
            assert_eq!(turn(&runtime, "s", "x").await.reply, format!("x/{}", 2 * n + 1));
            for _ in 0..400 {
                if runtime.gauges().sessions_live == 0 {
                    break;
                }
                smol::Timer::after(Duration::from_millis(5)).await;
            }
            assert_eq!(runtime.gauges().sessions_live, 0);
            assert_eq!(runtime.session("s").await.expect("cached").turns, n + 1);
        }
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn memory_holds_a_limited_number_of_sessions() {
    let mut f = Fixture::new("room", echo);
    f.limits.sessions_live_max = 2;
    smol::block_on(async {
        let runtime = f.runtime();
        for n in 0..6 {
            let id = format!("s{n}");
            runtime.create(new(&id)).await.expect("created");
            turn(&runtime, &id, "x").await;
            assert!(runtime.gauges().sessions_live <= 2);
        }
        f.gate.set(true);
        runtime.send("s0", say("x")).await.expect("room for one");
        runtime.send("s1", say("x")).await.expect("room for two");
        let third = runtime.send("s2", say("x")).await;
        assert!(matches!(third, Err(ApiError::Busy(_))), "{third:?}");
        f.gate.set(false);
        let all = Filter { limit: 100, ..Filter::default() };
        assert_eq!(runtime.sessions(&all).await.expect("list").len(), 6);
        runtime.drain(Duration::from_secs(5)).await;
    });
}

#[test]
fn two_runtimes_do_not_share_a_session() {
    let f = Fixture::new("two", echo);
    smol::block_on(async {
        let (one, two) = (f.runtime(), f.runtime());
        one.create(new("s")).await.expect("created");
        assert!(matches!(two.create(new("s")).await, Err(ApiError::Leased(_) | ApiError::Conflict(_))));
        assert!(matches!(two.send("s", say("x")).await, Err(ApiError::Leased(_))));
        assert_eq!(two.session("s").await.expect("reading needs no lease").last_seq, 1);
        one.drain(Duration::ZERO).await;
        assert_eq!(turn(&two, "s", "x").await.reply, "x/1");
        two.drain(Duration::ZERO).await;
    });
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    let mut f = Fixture::new("wrong", echo);
    f.limits.message_bytes_max = 10;
    smol::block_on(async {
        let runtime = f.runtime();
        let agent = NewSession { agent: "b".into(), ..NewSession::default() };
        assert!(matches!(runtime.create(agent).await, Err(ApiError::NotFound(text)) if text.contains("there are: a")));
        assert!(matches!(runtime.create(new("No")).await, Err(ApiError::Invalid(_))));
        runtime.create(new("s")).await.expect("created");
        assert!(matches!(runtime.create(new("s")).await, Err(ApiError::Leased(_) | ApiError::Conflict(_))));
        for content in ["", "  \n", "01234567890"] {
            assert!(matches!(runtime.send("s", say(content)).await, Err(ApiError::Invalid(_))), "{content:?}");
        }
        assert!(matches!(runtime.send("t", say("x")).await, Err(ApiError::NotFound(_))));
        assert!(matches!(runtime.turn_result("s", 1).await, Err(ApiError::NotFound(_))));
        runtime.close("s", "test").await.expect("closed");
        assert!(matches!(runtime.send("s", say("x")).await, Err(ApiError::Conflict(_))));
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn a_damaged_session_can_be_read_but_not_written() {
    let f = Fixture::new("damaged", echo);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        turn(&runtime, "s", "x").await;
        runtime.drain(Duration::ZERO).await;
        let path = f.root.join("sessions/s/events.jsonl");
        let text = f.log("s").replace("turn_started", "turn_stopped");
        fs::write(&path, &text).expect("damage");
        let runtime = f.runtime();
        let summary = runtime.session("s").await.expect("found");
        assert_eq!(summary.status, Status::Damaged);
        assert!(summary.detail.is_some_and(|d| d.contains("events.jsonl:3: expected seq 3")));
        assert!(matches!(runtime.send("s", say("x")).await, Err(ApiError::Damaged(_))));
        assert_eq!(runtime.events("s", 0, 10).await.expect("page").lines.len(), 6);
        assert_eq!(fs::read_to_string(&path).expect("read"), text, "nothing was touched");
        fs::write(&path, text.replace("{\"seq\":4", "{\"sEq\":4")).expect("more damage");
        for (limit, lines, next) in [(2, 2, Some(2)), (10, 3, None)] {
            let page = runtime.events("s", 0, limit).await.expect("page");
            assert_eq!((page.lines.len(), page.next), (lines, next));
        }
        let page = runtime.events("s", 3, 2).await.expect("page");
        assert_eq!((page.lines.len(), page.next), (0, None), "pages have an end");
    });
}

#[test]
fn a_fork_begins_as_its_parent_did_and_goes_its_own_way() {
    let f = Fixture::new("fork", echo);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        turn(&runtime, "s", "one").await;
        turn(&runtime, "s", "two").await;
        let fork = runtime.fork("s", Some(8)).await.expect("forked");
        assert_eq!((fork.last_seq, fork.turns), (6, 1), "cut back to the end of a turn");
        assert!(f.log(&fork.id).contains("\"parent\":{\"session\":\"s\",\"seq\":6}"));
        assert_eq!(turn(&runtime, &fork.id, "else").await.reply, "else/3");
        assert_eq!(turn(&runtime, "s", "three").await.reply, "three/5");
        runtime.drain(Duration::ZERO).await;
    });
}
