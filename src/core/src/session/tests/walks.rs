//! Random walks through everything that can happen, with crashes at every line.

use super::*;

/// A small xorshift: the walk is the same on every machine, and a seed in a failure message is enough to repeat it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap_or(0)]
    }
}

/// Rules of many kinds: chains, small windows with and without summaries, budgets, outages that are waited for, tags.
fn any_rules(b: &mut Bench, dice: &mut Dice) {
    let rules = &mut b.rules;
    let model = |name: &str, context_tokens| Model {
        provider: "p".to_owned(),
        name: name.to_owned(),
        context_tokens,
        answer_tokens: 100,
        token_tenths: 10,
        price: Price { input: 1_000_000, output: 1_000_000, cached: 0 },
    };
    rules.model = model("m", dice.one(&[1500, 4000, 1 << 20]));
    rules.fallbacks = (0..dice.roll(3)).map(|n| model(&format!("f{n}"), 3000)).collect();
    rules.prefix_bytes = dice.roll(500);
    rules.compaction = dice.one(&[Compaction::Summary, Compaction::Truncate]);
    rules.limits.offline_ms_max = dice.one(&[0, 1000]);
    rules.limits.repeats_max = dice.one(&[2, 100]);
    rules.limits.attempts_max = 1 + dice.roll(3);
    rules.budgets.turn.requests = dice.one(&[None, Some(3)]);
    rules.budgets.session.tool_calls = dice.one(&[None, None, Some(4)]);
    rules.budgets.session.tokens = dice.one(&[None, None, Some(20_000)]);
    for tool in &mut rules.tools {
        tool.tags.private = tool.name == "look" && dice.roll(2) == 0;
        tool.tags.untrusted = tool.name == "put";
        tool.tags.egress = tool.name == "send";
    }
}

/// What holds of every request that is made.
fn check_request(b: &Bench, seed: u64) {
    let shown = messages(&b.state, &b.rules);
    assert_paired(&shown);
    assert!(matches!(shown.first(), Some(Message::User { .. })), "seed {seed}");
    let turn = b.state.turn.as_ref().expect("a turn");
    let fit = Fit::new(&b.state, &b.rules, b.rules.model_at(place(&b.rules, turn)));
    let bytes: usize = shown.iter().map(Message::weight).sum();
    assert!(fit.tokens(bytes) + fit.answer <= fit.window, "seed {seed}: {bytes} bytes in {fit:?}");
    let spent = b.state.meter.spent();
    let over = |limit: Option<u64>, spent| limit.is_some_and(|limit| spent > limit);
    assert!(!over(b.rules.budgets.session.tool_calls, spent.tool_calls), "seed {seed}: {spent:?}");
}

/// What holds of every call that is run: policy lets it, and it was granted if it could carry something out.
fn check_call(b: &Bench, call: &ToolCall, seed: u64) {
    let request = format!("a{}", &call.call_id[1..]);
    let granted = |e: &Event| match &e.body {
        Body::ApprovalDecided { approval_id, decision, .. } => *approval_id == request && *decision == Decision::Grant,
        _ => false,
    };
    let granted = b.log.iter().any(granted) || b.state.grants.contains(&digest(call));
    match b.rules.policies[0].mode {
        Some(Verdict::Allow) => {
            let leaves = call.name == "send" && b.state.seen.private && b.state.seen.untrusted;
            assert!(granted || !leaves, "seed {seed}: {} leaves unasked", call.call_id);
        }
        Some(Verdict::Ask) => assert!(granted, "seed {seed}: {} runs unasked", call.call_id),
        _ => panic!("seed {seed}: {} runs", call.call_id),
    }
}

/// Whatever comes: live and replayed states are equal, every request is paired and fits, a `once` call runs at most one
/// time, and nothing leaves unasked.
#[test]
fn whatever_happens_every_request_is_paired_and_once_is_once() {
    let (mut once_ran, mut kinds_seen) = (0, BTreeSet::new());
    for seed in 1..=600u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mode = [Verdict::Allow, Verdict::Ask, Verdict::Deny][usize::try_from(seed % 3).unwrap_or(0)];
        let mut b = Bench::new(mode);
        any_rules(&mut b, &mut dice);
        let mut once_runs: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..120 {
            walk(&mut b, &mut dice);
            assert_eq!(replay(&b.log), b.state, "seed {seed}");
            for effect in core::mem::take(&mut b.effects) {
                match &effect {
                    // Of those that one input led to only the last is still wanted.
                    Effect::CallModel { turn, step, attempt } => {
                        let wanted = |t: &Turn| {
                            (t.turn, t.step) == (*turn, *step)
                                && matches!(t.phase, Phase::Model { attempt: a, .. } if a == *attempt)
                        };
                        if b.state.turn.as_ref().is_some_and(wanted) {
                            check_request(&b, seed);
                        }
                    }
                    Effect::RunTool { call } => {
                        check_call(&b, call, seed);
                        if call.name == "send" {
                            let runs = once_runs.entry(call.call_id.clone()).or_default();
                            *runs += 1;
                            assert_eq!(*runs, 1, "seed {seed}: {} ran twice", call.call_id);
                        }
                    }
                    _ => {}
                }
            }
        }
        once_ran += once_runs.len();
        kinds_seen.extend(b.log.iter().map(|e| e.body.kind().to_owned()));
    }
    assert!(once_ran > 100, "the walks must get somewhere: {once_ran}");
    assert_eq!(kinds_seen.len(), 17, "all but closed: {kinds_seen:?}");
}

fn walk(b: &mut Bench, dice: &mut Dice) {
    let kind = match dice.roll(14) {
        0 => {
            let (content, source) = ("hello ".repeat(usize::try_from(dice.roll(120)).unwrap_or(0)), "test".to_owned());
            InputKind::Message { content, source, idempotency_key: None, steps_max: None }
        }
        1 if dice.roll(3) == 0 => InputKind::Cancel,
        2 | 3 => {
            // What was acknowledged stays: a crash never takes a durable event back.
            b.crash(b.log.len());
            return;
        }
        4 => InputKind::Pause { reason: "p".to_owned() },
        5 => InputKind::Resume { reason: "r".to_owned() },
        _ => match next(b, dice) {
            Some(kind) => kind,
            None => return,
        },
    };
    // Some of these do not fit the state: they are refused, and the walk goes on.
    let before = b.log.len();
    b.input(kind).ok();
    if dice.roll(8) == 0 {
        // The plug is pulled while the commit is written: any of its lines may be the last, and nothing of it was acted on.
        let kept = usize::try_from(dice.roll((b.log.len() - before + 1) as u64)).unwrap_or(0);
        b.crash(before + kept);
    }
}

/// What the world may answer to what is under way.
fn next(b: &Bench, dice: &mut Dice) -> Option<InputKind> {
    let turn = b.state.turn.as_ref()?;
    let (number, step) = (turn.turn, turn.step);
    if b.state.offline_until_ms.is_some() {
        return Some(match dice.roll(6) {
            0 => InputKind::Timer(Timer::Offline { turn: number }),
            1 => InputKind::Timer(Timer::Online { turn: number }),
            n => InputKind::Reached { turn: number, back: n > 3 },
        });
    }
    if dice.roll(30) == 0 {
        return Some(InputKind::Timer(Timer::TurnLimit { turn: number }));
    }
    match &turn.phase {
        Phase::Model { attempt, .. } if dice.roll(3) == 0 => {
            use FailureKind::{BadToolCall, Connect, Invalid, Overloaded, Protocol, Timeout, TooLong, Truncated};
            let kinds = [Connect, Connect, Timeout, Overloaded, BadToolCall, TooLong, Truncated, Protocol, Invalid];
            Some(InputKind::Failed {
                turn: number,
                step,
                attempt: *attempt,
                kind: dice.one(&kinds),
                detail: "t".to_owned(),
                retry_after_ms: dice.one(&[None, None, Some(20_000)]),
                context_tokens: dice.one(&[None, Some(1200)]),
                worked: dice.roll(2) == 0,
                duration_ms: 1,
            })
        }
        Phase::Model { attempt, .. } => {
            let calls = (0..dice.roll(4)).map(|n| ToolCall {
                call_id: "x".to_owned(),
                name: dice.one(&["look", "put", "send", "none"]).to_owned(),
                arguments: format!("{{\"n\":{n}}}"),
            });
            let tool_calls = calls.collect();
            let text = "well ".repeat(usize::try_from(dice.roll(100)).unwrap_or(0));
            let usage = Usage { input_tokens: dice.one(&[0, 50, 3000]), output_tokens: 9, ..Usage::default() };
            let reply = Reply { text, tool_calls, usage, ..Reply::default() };
            Some(InputKind::Replied { turn: number, step, attempt: *attempt, reply, duration_ms: 1 })
        }
        Phase::Backoff { attempt, .. } => {
            Some(InputKind::Timer(Timer::Retry { turn: number, step, attempt: *attempt }))
        }
        Phase::Tools => {
            let at = usize::try_from(dice.roll(turn.calls.len().max(1) as u64)).unwrap_or(0);
            let call = turn.calls.get(at)?;
            Some(match &call.status {
                CallStatus::Waiting { approval_id, .. } => InputKind::Decide {
                    approval_id: approval_id.clone(),
                    decision: dice.one(&[Decision::Grant, Decision::Deny]),
                    scope: dice.one(&[Scope::Once, Scope::Session]),
                    by: "cli".to_owned(),
                },
                _ => {
                    let result = "r".repeat(usize::try_from(dice.roll(900)).unwrap_or(0));
                    let outcome = ToolOutcome { result, ..ToolOutcome::default() };
                    InputKind::ToolDone { call_id: call.call.call_id.clone(), outcome }
                }
            })
        }
        Phase::Asking { .. } => None,
    }
}

/// A log may be imported: its calls may have any ids, and the same twice. Opening it comes to an end, without a panic.
#[test]
fn odd_ids_of_calls_in_a_log_do_no_harm() {
    for (mode, name) in
        [(Verdict::Deny, "look"), (Verdict::Ask, "look"), (Verdict::Allow, "look"), (Verdict::Allow, "none")]
    {
        for ids in [["", ""], ["ä", "ä"], ["c1", "c1"], ["c", "1"]] {
            let mut b = Bench::new(mode);
            b.say("hi");
            b.reply("", &["send", "send"]);
            let at = b.log.iter().position(|e| e.body.kind() == "model_responded").expect("an answer");
            if let Body::ModelResponded { tool_calls, .. } = &mut b.log[at].body {
                for (call, id) in tool_calls.iter_mut().zip(ids) {
                    (call.call_id, call.name) = (id.to_owned(), name.to_owned());
                }
            }
            b.crash(at + 1);
            for _ in 0..10 {
                let call = b.state.turn.as_ref().and_then(|t| t.calls.iter().find(|c| c.status != CallStatus::Done));
                let Some(Call { call, status }) = call.cloned() else { break };
                b.input(match status {
                    CallStatus::Waiting { approval_id, .. } => {
                        let (decision, scope, by) = (Decision::Grant, Scope::Once, "cli".to_owned());
                        InputKind::Decide { approval_id, decision, scope, by }
                    }
                    _ => InputKind::ToolDone { call_id: call.call_id, outcome: ToolOutcome::default() },
                })
                .expect("taken");
            }
            let asked = b.log.iter().filter(|e| e.body.kind() == "model_requested").count();
            assert_eq!(asked, 2, "{mode:?} {ids:?}: both calls have come to their end");
            assert_eq!(replay(&b.log), b.state);
        }
    }
}
