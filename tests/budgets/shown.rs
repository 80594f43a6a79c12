//! `duragent usage`, `GET /api/v1/usage`, and what `/metrics` says of it.

use crate::house::House;
use crate::model::{Manner, Model};
use duragent_core::json::Value;

const BUDGETS: &str = "prices: {currency: EUR, fake/m: {input: 1, output: 2.5}}\n\
                       budgets: {session: {requests: 10, money: 0.01}, day: {tokens: 100000, money: 1}}\n";

/// The value at a path of keys and places.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, key| match (value, key.parse::<usize>()) {
        (Value::Array(items), Ok(place)) => &items[place],
        (value, _) => value.get(key).unwrap_or_else(|| panic!("no {path} in {value}")),
    })
}

fn check(usage: &Value, expected: &[(&str, &str)]) {
    for (path, expected) in expected {
        assert_eq!(at(usage, path).to_string(), *expected, "{path} in {usage}");
    }
}

#[test]
fn what_was_spent_is_shown_beside_what_may_be() {
    let model = Model::start(Manner { calls: 1, ..Manner::default() });
    let house = House::new(&model, BUDGETS);
    assert_eq!((house.turn("a"), house.turn("b"), house.turn("b")), (0, 0, 0));
    // 100 and 20 tokens for each of six requests.
    let expected: &[(&str, &str)] = &[
        ("currency", "\"EUR\""),
        ("today.requests", "6"),
        ("today.tokens", "720"),
        ("today.tool_calls", "3"),
        ("today.money", "0.0009"),
        ("today.estimated", "0"),
        ("budget.tokens", "100000"),
        ("budget.money", "1"),
        ("left.tokens", "99280"),
        ("left.money", "0.9991"),
        ("agents.0.agent", "\"worker\""),
        ("agents.0.today.tokens", "720"),
        ("models.0.provider", "\"fake\""),
        ("models.0.model", "\"m\""),
        ("models.0.today.requests", "6"),
        ("sessions.0.session", "\"a\""),
        ("sessions.1.session", "\"b\""),
        ("sessions.1.agent", "\"worker\""),
        ("sessions.1.today.requests", "4"),
        ("sessions.1.total.money", "0.0006"),
        ("sessions.1.budget.requests", "10"),
        ("sessions.1.left.requests", "6"),
        ("sessions.1.left.money", "0.0094"),
        ("next", "null"),
    ];
    check(&house.usage(&[]), expected);
    // The same from a server, and from one that has seen some of it itself.
    let _server = house.serve();
    check(&house.usage(&[]), expected);
    assert_eq!(house.turn("c"), 0);
    let usage = house.ask("GET", "/api/v1/usage?limit=1&after=a", "").1;
    check(&usage, &[("today.requests", "8"), ("sessions.0.session", "\"b\""), ("next", "\"b\"")]);
    let one = house.ask("GET", "/api/v1/usage?session=a", "").1;
    check(&one, &[("today.requests", "8"), ("sessions.0.total.requests", "2"), ("next", "null")]);
    for (path, status) in [("session=none", 404), ("session=No", 404), ("limit=0", 400)] {
        assert_eq!(house.ask("GET", &format!("/api/v1/usage?{path}"), "").0, status, "{path}");
    }
    let (code, table, _) = house.run(&["usage"]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = table.lines().map(words).collect();
    assert_eq!(code, 0);
    for expected in [
        "USED BUDGET LEFT",
        "requests 8",
        "tokens 960 100000 99040",
        "tool_calls 4",
        "money 0.0012 EUR 1 EUR 0.9988 EUR",
        "AGENT REQUESTS TOKENS TOOL_CALLS SECONDS MONEY",
        "SESSION REQUESTS TOKENS TOOL_CALLS SECONDS MONEY LEFT IN ITS LIFE",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}\n{table}");
    }
    assert!(lines.iter().any(|line| line.starts_with("fake/m 8 960 4 ")), "{table}");
    let left = " 0.0006 EUR requests: 6, money: 0.0094 EUR";
    assert!(lines.iter().any(|line| line.starts_with("b 4 480 2 ") && line.ends_with(left)), "{table}");
    let (_, table, _) = house.run(&["usage", "b"]);
    assert!(table.starts_with("session b of worker, all its life\n"), "{table}");
    assert!(table.lines().any(|line| words(line) == "requests 4 10 6"), "{table}");
}

#[test]
fn a_guess_is_marked_and_money_is_only_shown_where_there_is_some() {
    let model = Model::start(Manner { usage: None, ..Manner::default() });
    let house = House::new(&model, "");
    assert_eq!(house.turn("a"), 0);
    let usage = house.usage(&[]);
    check(&usage, &[("today.estimated", "1"), ("today.money", "0")]);
    assert!(usage.get("budget").is_none() && usage.get("currency").is_none(), "{usage}");
    let (_, table, _) = house.run(&["usage"]);
    let tokens = at(&usage, "today.tokens").to_string();
    let cells: Vec<&str> =
        table.lines().find_map(|line| line.strip_prefix("tokens")).expect("tokens").split_whitespace().collect();
    assert_eq!(cells, [format!("~{tokens}")], "{table}");
    assert!(table.ends_with("\n~ with 1 request at the worst case, since nobody said what came of it\n"), "{table}");
    assert!(!table.to_lowercase().contains("money"), "{table}");
}

#[test]
fn refusals_are_counted_by_their_budget() {
    let model = Model::start(Manner::default());
    let house = House::new(&model, "budgets: {day: {requests: 1}}\nprices: {fake/m: {input: 1, output: 2}}\n");
    let _server = house.serve();
    assert_eq!((house.turn("a"), house.turn("b"), house.turn("b")), (0, 5, 5));
    let metrics = house.exchange("GET", "/metrics", "");
    for line in [
        "duragent_budget_refusals_total{budget=\"day.requests\"} 2",
        "duragent_budget_refusals_total{budget=\"turn.tokens\"} 0",
        "duragent_cost_micros_total 140",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
}
