//! What goes wrong on the wire, and what becomes of the turn: each fault in a session of its own, all at a time.
//!
//! The call that comes with a fault writes `early`, the one of the next answer `late`. A fault that is survived runs the first;
//! one that costs the answer must not.

use crate::house::{ANTHROPIC, Api, House, OLLAMA, OPENAI, OPENROUTER, everywhere};
use duragent_testkit::{Answer, Cut, End, Fake, Fault, Split};
use std::time::Duration;

/// A session, what its model says, and what has to come of it.
struct Case {
    name: &'static str,
    /// More keys of the provider.
    keys: &'static str,
    script: Vec<Answer>,
    /// The story without its commands.
    story: String,
    /// What the calls have written.
    written: &'static str,
}

fn call(word: &str, name: &str) -> Answer {
    Answer::new().say("Let me see. ").and_call("bash", &format!("{{\"command\":\"echo {word} >> {name}.log\"}}"))
}

fn done() -> Answer {
    Answer::text("Schöne Grüße 🦀")
}

impl Case {
    /// The answer is as good as whole.
    fn survived(name: &'static str, change: impl Fn(Answer) -> Answer) -> Self {
        let script = vec![change(call("early", name)), change(done())];
        let story = "1 call; bash; \"Schöne Grüße 🦀\"; completed".into();
        Self { name, keys: "", script, story, written: "early\n" }
    }

    /// The answer is as good as whole with this.
    fn with(name: &'static str, fault: Fault) -> Self {
        Self::survived(name, |answer| answer.with(fault.clone()))
    }

    /// The answer is lost for this reason, and asked for again.
    fn lost(name: &'static str, fault: Fault, kind: &str) -> Self {
        let script = vec![call("early", name).with(fault), call("late", name), done()];
        let story = format!("{kind}; 1 call; bash; \"Schöne Grüße 🦀\"; completed");
        Self { name, keys: "", script, story, written: "late\n" }
    }

    /// There is no use in asking again.
    fn last(name: &'static str, fault: Fault, kind: &str) -> Self {
        let story = format!("{kind} for good; failed");
        Self { name, keys: "", script: vec![call("early", name).with(fault)], story, written: "" }
    }

    fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }
}

/// Plays all of them at a time, each with an agent, a provider and a fake of its own.
fn play(api: Api, cases: Vec<Case>) {
    let mut house = House::new("model_attempts_max: 3, offline_seconds_max: 0");
    let mut fakes = Vec::new();
    for case in &cases {
        let fake = case.script.iter().fold((api.fake)(), |fake, answer| fake.answer(answer.clone()));
        house.agent(case.name, api, &fake, case.keys);
        fakes.push(fake);
    }
    let _server = house.serve();
    for case in &cases {
        house.start(case.name, "go");
    }
    let mut wrong = Vec::new();
    for (case, fake) in cases.iter().zip(&fakes) {
        let story = house.rest(case.name);
        let bare: Vec<&str> =
            story.split("; ").map(|part| if part.starts_with("bash ") { "bash" } else { part }).collect();
        let found = (bare.join("; "), house.read(&format!("{}.log", case.name)));
        if found != (case.story.clone(), case.written.to_owned()) || fake.left() > 0 {
            let log = house.read(&format!(".duragent/sessions/{}/events.jsonl", case.name));
            wrong.push(format!(
                "{} {}: expected {:?}, found {found:?}, {} answers left\n{log}",
                api.kind,
                case.name,
                (&case.story, case.written),
                fake.left()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Those that every API can have.
fn common() -> Vec<Case> {
    let cut = |at, end| Fault::cut(at, end);
    let mut cases = vec![
        // The control of all that are lost: the same call is run when its stream finishes.
        Case::survived("nothing", |answer| answer),
        Case::survived("split-every-byte", |answer| answer.split(Split::EveryByte)),
        Case::survived("split-whole", |answer| answer.split(Split::Whole)),
        Case::survived("split-in-two", |answer| answer.split(Split::At(201))),
        Case::with("silence", Fault::Silence(Duration::from_millis(700))),
        Case::with("drip", Fault::Drip(Duration::from_millis(20))),
        // A trickle that lasts longer than any limit, of which there is none on the whole.
        Case::with("trickle", Fault::Drip(Duration::from_millis(300)))
            .keys(", first_byte_seconds_max: 2, idle_seconds_max: 2"),
        Case::survived("trickle-of-bytes", |answer| {
            answer.split(Split::EveryByte).with(Fault::Drip(Duration::from_micros(300)))
        }),
        Case::with("hangs-up", Fault::HangsUp),
        Case::with("no-index", Fault::NoIndex),
        Case::with("no-ids", Fault::NoIds),
        Case::with("stop-with-calls", Fault::StopWithCalls),
        Case::with("crlf", Fault::CrLf),
        Case::survived("crlf-every-byte", |answer| answer.with(Fault::CrLf).split(Split::EveryByte)),
        Case::with("no-usage", Fault::NoUsage),
        Case::survived("thinking", |answer| answer.think("Hm. I should look.")),
        Case::with("cut-after-the-finish", cut(Cut::AfterFinish, End::Clean)),
        Case::lost("cut-clean", cut(Cut::BeforeFinish, End::Clean), "truncated"),
        Case::lost("cut-fin", cut(Cut::BeforeFinish, End::Fin), "truncated"),
        Case::lost("cut-rst", cut(Cut::BeforeFinish, End::Rst), "truncated"),
        Case::lost("cut-in-a-frame", cut(Cut::Bytes(333), End::Fin), "truncated"),
        Case::lost("cut-at-once", cut(Cut::Bytes(0), End::Fin), "truncated"),
        Case::lost("busy-429", Fault::busy("1"), "overloaded"),
        Case::lost("broken-500", Fault::status(500), "overloaded"),
        Case::lost("busy-503", Fault::status(503), "overloaded"),
        Case::lost("page-502", Fault::Page(502), "overloaded"),
        Case::lost("error-in-stream", Fault::ErrorInStream, "overloaded"),
        Case::lost("bad-arguments", Fault::BadArguments, "bad_tool_call"),
        Case::last("key-401", Fault::status(401), "refused"),
        Case::last("money-402", Fault::status(402), "refused"),
        Case::last("forbidden-403", Fault::status(403), "refused"),
        Case::last("no-credit", Fault::NoCredit, "refused"),
        Case::last("missing-404", Fault::status(404), "invalid"),
        Case::lost("idle", cut(Cut::BeforeFinish, End::Hang), "timeout").keys(", idle_seconds_max: 2"),
        Case::lost("first-byte", Fault::Silence(Duration::from_secs(4)), "timeout").keys(", first_byte_seconds_max: 2"),
    ];
    // The other half of the first byte's limit: the same silence is nothing to who is patient.
    cases.push(Case::with("patience", Fault::Silence(Duration::from_secs(4))));
    cases
}

#[test]
fn openai() {
    let mut cases = common();
    cases.extend([
        Case::with("no-done", Fault::NoDone),
        Case::with("comments", Fault::Comments),
        Case::survived("no-index-no-ids", |answer| answer.with(Fault::NoIndex).with(Fault::NoIds)),
        Case::with("finish-then-fin", Fault::cut(Cut::AfterFinish, End::Fin)),
        Case::with("finish-then-rst", Fault::cut(Cut::AfterFinish, End::Rst)),
        Case::lost("error-under-200", Fault::ErrorUnder200, "overloaded"),
    ]);
    play(OPENAI, cases);
}

#[test]
fn openrouter() {
    let mut cases = common();
    cases.extend([
        Case::with("no-done", Fault::NoDone),
        Case::with("comments", Fault::Comments),
        Case::survived("secret-thinking", |answer| answer.think("Hm.").think_in_secret()),
        Case::lost("error-under-200", Fault::ErrorUnder200, "overloaded"),
    ]);
    play(OPENROUTER, cases);
}

#[test]
fn anthropic() {
    let mut cases = common();
    cases.extend([
        Case::with("comments", Fault::Comments),
        Case::with("unknown-events", Fault::UnknownEvents),
        Case::survived("secret-thinking", |answer| answer.think("Hm.").think_in_secret()),
        Case::lost("overloaded-529", Fault::status(529), "overloaded"),
    ]);
    play(ANTHROPIC, cases);
}

#[test]
fn ollama() {
    let mut cases = common();
    cases.extend([
        Case::with("calls-in-the-last-frame", Fault::CallsInLastFrame),
        Case::with("finish-then-rst", Fault::cut(Cut::AfterFinish, End::Rst)),
        Case::lost("bad-call-500", Fault::BadCall, "bad_tool_call"),
        Case::lost("error-under-200", Fault::ErrorUnder200, "overloaded"),
    ]);
    play(OLLAMA, cases);
}

/// Arguments that nobody sent are none, in every way in which they are left out.
#[test]
fn a_call_without_arguments_has_none() {
    everywhere(|api| {
        let answer = Answer::call("list_dir", "{}").with(Fault::NoArguments);
        let fake = (api.fake)().answer(answer).answer(done());
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        assert_eq!(house.rest("bot"), "1 call; list_dir {}; \"Schöne Grüße 🦀\"; completed", "{}", api.kind);
    });
}

/// Calls of one answer, with their index, without it, and with the same: they are three, and run in order.
#[test]
fn parallel_calls_are_told_apart() {
    everywhere(|api| {
        let three = || {
            let one = |word: &str| format!("{{\"command\":\"echo {word} >> calls.log\"}}");
            Answer::new().and_call("bash", &one("a")).and_call("bash", &one("b")).and_call("bash", &one("c"))
        };
        let wrong: &[&[Fault]] =
            &[&[], &[Fault::NoIndex], &[Fault::SameIndex], &[Fault::NoIndex, Fault::NoIds], &[Fault::CallsInLastFrame]];
        for faults in wrong {
            let answer = faults.iter().fold(three(), |answer, fault| answer.with(fault.clone()));
            let fake = (api.fake)().answer(answer).answer(done());
            let house = House::with(api, &fake, "");
            let ended = house.run(&["run", "bot", "go"]);
            let found = (ended.status.code(), house.read("calls.log"));
            assert_eq!(found, (Some(0), "a\nb\nc\n".into()), "{} {faults:?}", api.kind);
        }
    });
}

/// A line without an end fills no memory.
#[test]
fn an_endless_line_is_given_up() {
    everywhere(|api| {
        let endless = Answer::text(&"x".repeat(20 * 1024 * 1024)).split(Split::Whole);
        let fake = (api.fake)().answer(endless).answer(done());
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        assert_eq!(house.rest("bot"), "protocol; \"Schöne Grüße 🦀\"; completed", "{}", api.kind);
    });
}

/// What does not fit says by how much, and the turn ends with the figure or with a shorter prompt, never in a loop.
#[test]
fn a_prompt_that_is_too_long_is_told_with_its_figures() {
    for (api, figure) in [(OPENAI, "4096"), (OPENROUTER, "4096"), (ANTHROPIC, "4096")] {
        let fake: Fake = (0..6).fold((api.fake)(), |fake, _| fake.fault(Fault::TooLong(9031, 4096)));
        let house = House::with(api, &fake, "");
        let ended = house.run(&["run", "bot", "go"]);
        assert_ne!(ended.status.code(), Some(0));
        let story = house.story(&house.session());
        assert!(story.starts_with("too_long"), "{}: {story}", api.kind);
        let log = house.read(&format!(".duragent/sessions/{}/events.jsonl", house.session()));
        assert!(log.contains(figure), "{}: {log}", api.kind);
        assert!(fake.calls().len() < 5, "{}: {}", api.kind, fake.calls().len());
    }
}
