//! The budget of the day: over sessions, processes and midnights.

use crate::house::House;
use crate::model::{Manner, Model};
use duragent_core::json::Value;
use std::thread;

const SESSIONS: usize = 20;

/// Lets [`SESSIONS`] sessions of one server ask at once; how their turns ended, and how often the model was asked.
fn race(requests: usize) -> (Vec<String>, usize) {
    // Nobody is answered before all have been asked for: none of them gives anything back meanwhile.
    let model = Model::start(Manner { answers: false, ..Manner::default() });
    let house = House::new(&model, &format!("budgets: {{day: {{requests: {requests}}}}}\n"));
    let server = house.serve();
    for n in 0..SESSIONS {
        let (status, _) = house.ask("POST", "/api/v1/sessions", &format!(r#"{{"agent":"worker","id":"s{n}"}}"#));
        assert_eq!(status, 201);
    }
    thread::scope(|scope| {
        for n in 0..SESSIONS {
            let house = &house;
            scope.spawn(move || {
                let (status, _) = house.ask("POST", &format!("/api/v1/sessions/s{n}/messages"), r#"{"content":"go"}"#);
                assert_eq!(status, 202);
            });
        }
    });
    model.go_on();
    let at_rest = |n| {
        let (_, session) = house.ask("GET", &format!("/api/v1/sessions/s{n}"), "");
        session.get("status").and_then(Value::as_str) == Some("idle")
    };
    crate::house::eventually("all turns have ended", || (0..SESSIONS).all(at_rest));
    let ends = (0..SESSIONS).map(|n| house.ended(&format!("s{n}")).0).collect();
    let asked = model.asked();
    if requests < SESSIONS {
        // The day is used up for whoever comes next, too.
        drop(server);
        assert_eq!((house.turn("late"), model.asked()), (5, asked), "after a restart");
        let (reason, detail) = house.ended("late");
        let expected =
            format!("budgets.day.requests: the limit is {requests}, the next step may bring it to {}", requests + 1);
        assert_eq!(reason, "limit");
        assert!(detail.starts_with(&expected) && detail.ends_with("the next day begins at 00:00 UTC"), "{detail}");
    }
    (ends, asked)
}

#[test]
fn of_twenty_sessions_at_once_as_many_ask_as_the_day_has_requests() {
    let count = |ends: &[String], reason: &str| ends.iter().filter(|end| *end == reason).count();
    let (ends, asked) = race(5);
    assert_eq!((asked, count(&ends, "completed"), count(&ends, "limit")), (5, 5, SESSIONS - 5));
    let (ends, asked) = race(SESSIONS);
    assert_eq!((asked, count(&ends, "completed")), (SESSIONS, SESSIONS), "the control");
}

#[test]
fn the_next_day_is_free_again() {
    let model = Model::start(Manner::default());
    let house = House::new(&model, "budgets: {day: {requests: 2}}\n");
    for session in ["a", "b"] {
        assert_eq!(house.turn(session), 0);
    }
    assert_eq!((house.turn("c"), model.asked()), (5, 2), "the control: today it is used up");
    for session in ["a", "b", "c"] {
        house.age(session, 1);
    }
    assert_eq!((house.turn("a"), model.asked()), (0, 3), "all of that was yesterday");
    assert_eq!((house.turn("d"), model.asked()), (0, 4));
    assert_eq!((house.turn("b"), model.asked()), (5, 4));
}

#[test]
fn what_a_fork_begins_with_is_counted_once() {
    let model = Model::start(Manner::default());
    let house = House::new(&model, "budgets: {day: {requests: 2}}\n");
    assert_eq!(house.turn("a"), 0);
    let (code, fork, err) = house.run(&["session", "fork", "a"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!((house.turn(fork.trim()), model.asked()), (0, 2));
    assert_eq!((house.turn(fork.trim()), model.asked()), (5, 2), "the control");
}

#[test]
fn a_budget_that_comes_with_a_reload_counts_what_was_spent_before() {
    let model = Model::start(Manner::default());
    let house = House::new(&model, "");
    let server = house.serve();
    assert_eq!((house.turn("a"), house.turn("b"), model.asked()), (0, 0, 2));
    house.configure(&model, "budgets: {day: {requests: 3}}\n");
    assert_eq!(house.run(&["reload"]).0, 0, "{}", server.id());
    assert_eq!((house.turn("c"), model.asked()), (0, 3));
    assert_eq!((house.turn("d"), model.asked()), (5, 3));
}

/// Without a server every command is a process of its own.
#[test]
fn of_twenty_processes_at_once_as_many_ask_as_the_day_has_requests() {
    for (requests, expected) in [(5, 5), (SESSIONS, SESSIONS)] {
        let model = Model::start(Manner { answers: false, ..Manner::default() });
        let house = House::new(&model, &format!("budgets: {{day: {{requests: {requests}}}}}\n"));
        let start = |n| house.command(&["run", "worker", "-p", "--session", &format!("s{n}"), "go"]).spawn();
        let children: Vec<_> = (0..SESSIONS).map(|n| start(n).expect("it starts")).collect();
        // Those who may not ask have ended, the others wait for their answer.
        crate::house::eventually("as many have asked as may", || model.asked() == expected);
        let ended = |n: usize| house.try_ended(&format!("s{n}")).is_some();
        crate::house::eventually("the others are refused", || {
            (0..SESSIONS).filter(|n| ended(*n)).count() == SESSIONS - expected
        });
        model.go_on();
        let mut codes: Vec<_> = children.into_iter().map(|mut child| child.wait().expect("it ends").code()).collect();
        codes.sort_unstable();
        let all = [vec![Some(0); expected], vec![Some(5); SESSIONS - expected]].concat();
        assert_eq!((codes, model.asked()), (all, expected));
    }
}
