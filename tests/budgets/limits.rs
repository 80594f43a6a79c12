//! Each budget to the last request, token, call, second and millionth.

use crate::house::{House, Used, eventually, used};
use crate::model::{Manner, Model};
use std::time::Duration;

/// Millionths for each token.
const PRICES: &str = "prices: {currency: EUR, fake/m: {input: 1, output: 2}}\n";

/// Two calls a turn: three requests.
const BUSY: Manner = Manner { calls: 2, usage: Some((100, 20)), pause: Duration::ZERO, cost: None, answers: true };

/// What is limited, in how many turns it is used up, and in which sessions these are.
const SCOPES: [(&str, &[&str]); 3] = [("turn", &["a"]), ("session", &["a", "a"]), ("day", &["a", "b"])];

/// Plays the turns of a scope and returns the last exit code and how often the model was asked.
fn play(manner: Manner, more: &str, sessions: &[&str]) -> (House, i32, usize) {
    let model = Model::start(manner);
    let house = House::new(&model, &format!("{PRICES}{more}"));
    let mut code = 0;
    for session in sessions {
        assert_eq!(code, 0, "all but the last turn are within the budget: {more}");
        code = house.turn(session);
    }
    let asked = model.asked();
    (house, code, asked)
}

/// What the turns of a scope use up if nothing limits them; the day's are in two sessions.
fn measured(manner: Manner, sessions: &[&str]) -> Vec<Used> {
    let (house, code, _) = play(manner, "", sessions);
    assert_eq!(code, 0);
    let mut all = used(&house.events("a"));
    if sessions.contains(&"b") {
        let before = house.usage(&["a"]);
        let sum = |key: &str| total(&before, key);
        let before = Used {
            requests: sum("requests"),
            tokens: sum("tokens"),
            tool_calls: sum("tool_calls"),
            micros: sum("money"),
        };
        all.extend(used(&house.events("b")).iter().map(|used| Used {
            requests: before.requests + used.requests,
            tokens: before.tokens + used.tokens,
            tool_calls: before.tool_calls + used.tool_calls,
            micros: before.micros + used.micros,
        }));
    }
    all
}

/// A figure of the first session that `duragent usage` tells of; money in millionths.
fn total(usage: &duragent_core::json::Value, key: &str) -> u64 {
    let Some(duragent_core::json::Value::Array(sessions)) = usage.get("sessions") else { panic!("{usage}") };
    let text = sessions[0].get("total").and_then(|total| total.get(key)).expect(key).to_string();
    let scale = if key == "money" { 1e6 } else { 1.0 };
    (text.parse::<f64>().expect("a number") * scale).round() as u64
}

fn money(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[test]
fn the_call_beyond_a_budget_is_not_made_and_within_it_is() {
    for (scope, sessions) in SCOPES {
        let all = measured(BUSY, sessions);
        let requests = all.last().expect("a request").requests;
        // The last request, and the last call of a tool.
        let last = *all.last().expect("a request");
        let call = *all.iter().rev().nth(1).expect("a call");
        assert_eq!(call.tool_calls, last.tool_calls, "a turn ends with a request");
        for (word, most, is_call) in [
            ("requests", last.requests, false),
            ("tokens", last.tokens, false),
            ("money", last.micros, false),
            ("tool_calls", call.tool_calls, true),
        ] {
            let shown = |n| if word == "money" { money(n) } else { n.to_string() };
            let budget = |n| format!("budgets: {{{scope}: {{{word}: {}}}}}\n", shown(n));
            let what = format!("budgets.{scope}.{word} of {most}");
            let (house, code, asked) = play(BUSY, &budget(most - 1), sessions);
            assert_eq!((code, asked as u64), (5, requests - 1), "{what}: the request beyond it is not sent");
            let session = sessions.last().expect("a session");
            let made = used(&house.events(session)).iter().map(|used| used.tool_calls).max();
            let calls_a_turn = all.len() as u64 / sessions.len() as u64 / 2;
            let turns = sessions.iter().filter(|s| *s == session).count() as u64;
            assert_eq!(made, Some(turns * calls_a_turn - u64::from(is_call)), "{what}: calls that ran");
            let (reason, detail) = house.ended(session);
            let figures = format!("budgets.{scope}.{word}: the limit is {}, ", shown(most - 1));
            assert_eq!(reason, "limit", "{what}");
            assert!(detail.starts_with(&figures) && detail.contains(&shown(most)), "{what}: {detail}");
            let (_, code, asked) = play(BUSY, &budget(most), sessions);
            assert_eq!((code, asked as u64), (0, requests), "{what}: the control");
        }
    }
}

#[test]
fn seconds_are_those_that_models_and_tools_work() {
    // Each answer takes more than a second; how much more is the machine's affair.
    let slow = Manner { calls: 1, pause: Duration::from_millis(1100), ..Manner::default() };
    for (scope, sessions) in SCOPES {
        let sessions = &sessions[..1];
        let (house, code, asked) = play(slow, &format!("budgets: {{{scope}: {{seconds: 1}}}}\n"), sessions);
        let (reason, detail) = house.ended("a");
        assert_eq!((code, asked, reason.as_str()), (5, 1, "limit"), "{scope}");
        assert!(detail.starts_with(&format!("budgets.{scope}.seconds: the limit is 1.000, ")), "{detail}");
        let (_, code, asked) = play(slow, &format!("budgets: {{{scope}: {{seconds: 600}}}}\n"), sessions);
        assert_eq!((code, asked), (0, 2), "{scope}: the control");
    }
}

#[test]
fn money_that_a_provider_tells_of_counts_without_a_price() {
    // Half a thousandth for each answer; what the next one costs is not known before.
    for (budget, expected) in [("0.0005", (5, 1)), ("0.001", (5, 2)), ("0.0015", (0, 3)), ("0.0016", (0, 3))] {
        let model = Model::start(Manner { calls: 2, cost: Some("0.0005"), ..Manner::default() });
        let house = House::new(&model, &format!("budgets: {{turn: {{money: {budget}}}}}\n"));
        assert_eq!((house.turn("a"), model.asked()), expected, "{budget}");
    }
}

#[test]
fn an_agent_may_ask_for_less_and_not_for_more() {
    let model = Model::start(BUSY);
    let house = House::new(&model, "budgets: {turn: {requests: 2}}\n");
    let spec = std::fs::read_to_string(house.folder.join(".duragent/agents/worker/agent.yaml")).expect("a spec");
    for (asked_for, asked) in [(1, 1), (2, 2), (9, 2)] {
        let before = model.asked();
        let more = format!("{spec}  budgets: {{turn: {{requests: {asked_for}}}}}\n");
        house.write(".duragent/agents/worker/agent.yaml", &more);
        assert_eq!((house.turn("a"), model.asked() - before), (5, asked), "{asked_for}");
    }
}

#[test]
fn what_nobody_counted_counts_as_the_worst_case() {
    let silent = Manner { usage: None, ..Manner::default() };
    let sessions = ["a", "a"];
    let worst = measured(silent, &sessions).last().expect("a request").tokens;
    let budget = format!("budgets: {{session: {{tokens: {}}}}}\n", worst - 1);
    let (house, code, asked) = play(silent, &budget, &sessions);
    assert_eq!((code, asked), (5, 1), "the worst case of both is more than the budget");
    assert!(house.ended("a").1.starts_with("budgets.session.tokens: "));
    let (_, code, asked) = play(Manner::default(), &budget, &sessions);
    assert_eq!((code, asked), (0, 2), "the control: a model that says what it used is asked again");
}

#[test]
fn a_request_that_a_kill_left_open_counts() {
    let model = Model::start(Manner { answers: false, ..Manner::default() });
    let house = House::new(&model, "");
    let mut child = house.command(&["run", "worker", "-p", "--session", "a", "go"]).spawn().expect("it starts");
    eventually("the model is asked", || model.asked() == 1);
    child.kill().expect("a process of ours");
    child.wait().expect("it is gone");
    let worst = used(&house.events("a")).last().expect("a request").tokens;
    model.go_on();
    let resume = |more: &str| {
        house.configure(&model, more);
        house.run(&["run", "worker", "-p", "--resume", "a"]).0
    };
    // The same prompt again: as much once more.
    let log = std::fs::read(house.folder.join(".duragent/sessions/a/events.jsonl")).expect("a log");
    for (scope, word, most) in [
        ("turn", "requests", 2),
        ("turn", "tokens", 2 * worst),
        ("session", "tokens", 2 * worst),
        ("day", "tokens", 2 * worst),
    ] {
        let (before, budget) = (model.asked(), |n: u64| format!("budgets: {{{scope}: {{{word}: {n}}}}}\n"));
        std::fs::write(house.folder.join(".duragent/sessions/a/events.jsonl"), &log).expect("the log as it was");
        assert_eq!(resume(&budget(most - 1)), 5, "{scope} {word}");
        assert_eq!(model.asked(), before, "{scope} {word}: not asked again");
        assert_eq!(house.ended("a").0, "limit");
        if scope != "turn" {
            assert_eq!((house.turn("a"), model.asked()), (5, before), "{scope} {word}: nor by the next turn");
        }
        std::fs::write(house.folder.join(".duragent/sessions/a/events.jsonl"), &log).expect("the log as it was");
        assert_eq!(resume(&budget(most)), 0, "{scope} {word}: the control");
        assert_eq!(model.asked(), before + 1, "{scope} {word}: the control");
    }
}
