//! What may be used up.

use super::models::chain;
use super::*;

#[test]
fn budgets_are_kept_to_the_last_request() {
    let one = |n| Some(n);
    let cases: [(&str, Budget); 4] = [
        ("requests", Budget { requests: one(3), ..Budget::default() }),
        // 3 answers of 12 tokens, and a worst case of the prompt and 100 for the fourth.
        ("tokens", Budget { tokens: one(400), ..Budget::default() }),
        ("tool_calls", Budget { tool_calls: one(2), ..Budget::default() }),
        ("seconds", Budget { ms: one(14), ..Budget::default() }),
    ];
    for (word, budget) in cases {
        for (of, budgets) in [
            ("turn", Budgets { turn: budget, ..Budgets::default() }),
            ("session", Budgets { session: budget, ..Budgets::default() }),
        ] {
            let mut b = chain(Verdict::Allow, 1, 1 << 20);
            (b.rules.budgets, b.rules.limits.steps_max) = (budgets, 50);
            b.say("hi");
            let mut step = 0;
            while b.state.turn.is_some() {
                step += 1;
                b.reply("", &["look"]);
                if b.state.turn.is_some() {
                    b.tool_done(&format!("c1-{step}-1"));
                }
            }
            let (reason, detail) = b.ended();
            let key = format!("budgets.{of}.{word}: the limit is ");
            assert!(reason == TurnReason::Limit && detail.starts_with(&key), "{key}: {detail}");
            let (requests, calls) = (b.requests().len(), b.runs().len());
            let expected = match word {
                "requests" => (3, 3),
                "tool_calls" => (3, 2),
                "seconds" => (3, 2),
                _ => (requests, calls),
            };
            assert_eq!((requests, calls), expected, "{key}");
            assert_paired(&b.state.history.messages(usize::MAX));
            // A new turn is free again if it is the turn's budget, and is not if it is the session's.
            b.say("again");
            // With tokens it depends: the whole conversation is asked for anew. And asking is no call of a tool.
            if word == "requests" || word == "seconds" {
                assert_eq!(b.state.turn.is_some(), of == "turn", "{key}");
            }
            assert_eq!(replay(&b.log), b.state);
        }
    }
}

#[test]
fn the_day_counts_what_others_spend() {
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    b.rules.budgets.day.requests = Some(10);
    b.today = Spent { requests: 9, ..Spent::default() };
    b.say("hi");
    assert_eq!(b.requests().len(), 1, "the control: the tenth is made");
    b.reply("y", &[]);
    b.today.requests = 10;
    b.say("hi");
    assert!(b.ended().1.starts_with("budgets.day.requests: the limit is 10, the next step may bring it to 11"));
    assert_eq!(b.requests().len(), 1);
}

#[test]
fn an_outage_uses_up_no_requests() {
    for (kind, counted) in [(FailureKind::Connect, 0), (FailureKind::Overloaded, 1), (FailureKind::Timeout, 1)] {
        let mut b = chain(Verdict::Allow, 1, 1 << 20);
        b.say("hi");
        assert_eq!(b.state.meter.spent().requests, 1, "while it is under way");
        b.fail_with(kind, None, false);
        assert_eq!(b.state.meter.spent().requests, counted, "{kind:?}");
    }
}

#[test]
fn what_nobody_counted_counts_as_the_worst_case() {
    let usage = |b: &Bench| b.state.meter.spent().tokens;
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    b.say("hi");
    let worst = usage(&b);
    assert!(worst > 100, "reserved: {worst}");
    b.reply("y", &[]);
    assert_eq!(usage(&b), 12, "the control: as counted");
    b.say("hi");
    b.fail_with(FailureKind::Connect, None, false);
    assert_eq!(usage(&b), 12, "nobody worked");
    b.retry();
    b.fail_with(FailureKind::Truncated, None, true);
    let after = usage(&b);
    assert!(after > 12 + 100, "{after}");
    b.retry();
    b.crash(b.log.len());
    assert!(usage(&b) > after + 200, "the one that the crash took, and the next");
    b.input(InputKind::Cancel).expect("cancel");
    let cancelled = usage(&b);
    assert!(cancelled > after + 200, "and one that was cancelled");
    let (turn, step) = (3, 1);
    b.say("hi");
    let reply = Reply { text: "y".to_owned(), ..Reply::default() };
    b.input(InputKind::Replied { turn, step, attempt: 1, reply, duration_ms: 1 }).expect("reply");
    assert!(usage(&b) > cancelled + 100, "an answer without figures");
    let last = b.state.finished.back().expect("ended");
    assert_eq!(last.usage, Usage::default(), "and nobody is told figures that nobody gave");
}

#[test]
fn money_counts_where_a_price_is_known() {
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    b.rules.model.price = Price { input: 3_000_000, output: 15_000_000, cached: 300_000 };
    b.say("hi");
    b.reply("y", &[]);
    let cost = 10 * 3 + 2 * 15;
    assert_eq!(b.state.meter.spent().cost_micros, cost);
    b.rules.budgets.session.cost_micros = Some(cost + 1);
    b.say("hi");
    assert!(b.ended().1.starts_with("budgets.session.money: the limit is 0.000061, "), "{}", b.ended().1);
}
