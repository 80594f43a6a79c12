//! Event streams at scale, over real sockets, from the binary as a process of its own: what a subscriber costs, that all hear
//! the same, what becomes of one that does not listen, and that streams put together are one stream, across kill -9.

mod house;

use house::{Event, House, Listener, PATIENCE, Served, eventually};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A model that says three pieces.
const SHORT: &str = "{\"repeat\":true}\n{\"deltas\":[\"one \",\"two \",\"three\"]}\n";

/// Subscribers of the first test.
const MANY: usize = 1000;

/// Resident bytes that one of them may take.
const BYTES_MAX: u64 = 8 * 1024;

/// Opens so many streams, evenly over the sessions.
fn subscribe(served: &Served, sessions: &[String], count: usize) -> Vec<Listener> {
    let mut listeners: Vec<Listener> =
        sessions.iter().cycle().take(count).map(|session| served.listen(session, 0)).collect();
    for listener in &mut listeners {
        assert_eq!(listener.next().map(|event| event.id), Some(Some(1)), "the log from its beginning");
    }
    listeners
}

#[test]
fn a_thousand_subscribers_cost_little_memory_and_no_thread() {
    let house = House::new(SHORT, "connections_max: 1200");
    let served = house.serve();
    let sessions: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    sessions.iter().for_each(|session| served.session(session));
    // What the first ones take that all share.
    drop(subscribe(&served, &sessions, 40));
    eventually("they are gone", || served.metric("http_connections") == 1);
    eventually("threads that read have ended", || served.threads() <= 4);
    let before = served.resident();
    let mut listeners = subscribe(&served, &sessions, MANY);
    eventually("threads that read have ended", || served.threads() <= 4);
    let idle = served.resident().saturating_sub(before);
    assert!(idle / MANY as u64 <= BYTES_MAX, "{idle} bytes for {MANY} idle subscribers");
    for session in &sessions {
        served.say(session, &"x".repeat(4000));
    }
    for listener in &mut listeners {
        listener.until("turn_finished");
    }
    eventually("threads that worked have ended", || served.threads() <= 4);
    let busy = served.resident().saturating_sub(before);
    assert!(busy / MANY as u64 <= BYTES_MAX, "{busy} bytes for {MANY} subscribers that were told something");
    assert_eq!(served.metric("http_connections"), MANY as u64 + 1);
}

#[test]
fn all_hear_the_same_and_everything() {
    let house = House::new(SHORT, "connections_max: 400");
    let served = house.serve();
    served.session("a");
    let mut listeners = subscribe(&served, &["a".to_owned()], 300);
    for turn in 0..10 {
        served.say("a", &format!("message {turn}"));
    }
    let heard: BTreeSet<Vec<Event>> = listeners
        .iter_mut()
        .map(|listener| {
            let mut events = Vec::new();
            while events.iter().filter(|event: &&Event| event.kind == "turn_finished").count() < 10 {
                events.push(listener.next().expect("the stream goes on"));
            }
            // A queued message may come between two pieces of an answer, in the same place for all.
            events
        })
        .collect();
    assert_eq!(heard.len(), 1, "all streams are the same, tokens included");
    let events: Vec<Event> = heard.into_iter().flatten().filter(|event| event.id.is_some()).collect();
    assert_eq!(events, served.all("a").split_off(1), "and the same as the log");
}

#[test]
fn who_does_not_listen_is_told_and_can_come_back() {
    let house = House::new(SHORT, "body_bytes_max: 4194304");
    let served = house.serve();
    served.session("a");
    let mut deaf = served.listen("a", 0);
    assert_eq!(deaf.next().and_then(|event| event.id), Some(1));
    // The sockets' own buffers hold some megabytes, and the backlog its half one.
    for _ in 0..24 {
        served.say("a", &"x".repeat(900_000));
    }
    eventually("all turns are done", || served.metric("turns_finished_total") == 24);
    let mut heard: Vec<Event> = std::iter::from_fn(|| deaf.next()).collect();
    let last = heard.pop().expect("events");
    assert_eq!((last.kind.as_str(), last.id), ("lagged", None), "the last word");
    heard.retain(|event| event.id.is_some());
    let seen = heard.last().and_then(|event| event.id).expect("events before it");
    let all = served.all("a").split_off(1);
    assert!(heard.len() < all.len(), "it did miss something");
    let mut back = served.listen("a", seen);
    while heard.len() < all.len() {
        heard.extend(back.next().filter(|event| event.id.is_some()));
    }
    assert!(heard == all, "nothing missing, nothing twice");
}

#[test]
fn streams_put_together_are_one_stream_across_kills() {
    const TURNS: u64 = 40;
    // Slow enough that kills fall into turns.
    let house = House::new("{\"repeat\":true}\n{\"deltas\":[\"a\",\"b\",\"c\"],\"delay_ms\":5}\n", "");
    let mut served = house.serve();
    served.session("a");
    let socket = house.socket();
    let together = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut heard, mut cuts): (Vec<Event>, u64) = (Vec::new(), 0);
            let (mut done, deadline) = (0, Instant::now() + PATIENCE);
            loop {
                assert!(Instant::now() < deadline, "the end never came: {} events", heard.len());
                let after = heard.last().and_then(|event| event.id).unwrap_or(0);
                let Some(listener) = Listener::open(&socket, "a", after) else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                // Hangs up in the middle, at another byte every time.
                cuts += 1;
                for event in listener.cut_after((cuts * 7919) % 5000 + 200).filter(|event| event.id.is_some()) {
                    done += u64::from(event.kind == "turn_finished");
                    heard.push(event);
                    if done == TURNS {
                        return (heard, cuts);
                    }
                }
            }
        });
        for turn in 0..TURNS {
            served.say_once("a", &format!("message {turn}"), &format!("key-{turn}"));
            if turn % 8 == 7 {
                served.kill();
                served = house.serve();
            }
        }
        reader.join().expect("no panic")
    });
    let (heard, cuts) = together;
    let all = served.all("a");
    // The control: there was something to put together, and something to go on after.
    assert!(cuts > 5 && all.iter().any(|event| event.kind == "session_recovered"), "{cuts} streams");
    assert!(heard == all, "{} events heard, {} in the log", heard.len(), all.len());
}
