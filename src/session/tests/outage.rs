//! Disks that are bad for a while, and more unfinished turns than there is room for.

use super::*;
use crate::store::file::FileStore;

/// `None` if `work` is not done within a minute.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        smol::Timer::after(Duration::from_secs(60)).await;
        None
    };
    smol::future::or(async { Some(work.await) }, late).await
}

#[test]
fn a_failed_log_is_no_crash_whoever_opens_it_again() {
    let mut f = Fixture::new("opener", echo);
    f.limits.log_segment_bytes_max = 100;
    f.gate.set(true);
    smol::block_on(async {
        let runtime = f.runtime();
        runtime.create(new("s")).await.expect("created");
        runtime.send("s", say("hi")).await.expect("accepted");
        // Has the name under which the newest segment would be closed: the answer is not written, nor is the log read.
        let in_the_way = f.root.join("sessions/s/events.000000000002.jsonl");
        fs::create_dir_all(in_the_way.join("full")).expect("in the way");
        f.gate.set(false);
        for _ in 0..5 {
            let told = in_time(runtime.turn_result("s", 1)).await.expect("is told");
            assert!(matches!(told, Err(ApiError::Internal(_))), "{told:?}");
        }
        fs::remove_dir_all(in_the_way).expect("out of the way");
        let result = in_time(runtime.turn_result("s", 1)).await.expect("goes on").expect("finished");
        assert_eq!((result.reason, result.reply.as_str()), (TurnReason::Completed, "hi/1"));
        let mut kinds = Vec::new();
        let store = FileStore::new(f.root.join("sessions"), u64::MAX);
        store.verify("s", &mut |event| kinds.push(event.body.kind().to_owned())).expect("intact");
        assert!(!kinds.contains(&"session_recovered".to_owned()), "nothing crashed: {kinds:?}");
        runtime.drain(Duration::ZERO).await;
    });
}

/// Sessions in the middle of a turn, left by a runtime that has stopped.
async fn leave_unfinished(f: &Fixture, ids: &[String]) {
    f.gate.set(true);
    let runtime = f.runtime();
    for id in ids {
        runtime.create(new(id)).await.expect("created");
        runtime.send(id, say("hi")).await.expect("accepted");
    }
    runtime.drain(Duration::ZERO).await;
}

#[test]
fn more_unfinished_turns_than_there_is_room_for_are_all_taken_up() {
    let mut f = Fixture::new("crowd", echo);
    let ids: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
    smol::block_on(async {
        leave_unfinished(&f, &ids).await;
        f.limits.sessions_live_max = 2;
        let runtime = f.runtime();
        in_time(runtime.recover()).await.expect("one look at each");
        assert!(runtime.is_ready());
        assert_eq!(runtime.gauges().sessions_live, 2, "no more than there may be");
        f.gate.set(false);
        for id in &ids {
            until(&runtime, id, Status::Idle).await;
            assert!(runtime.gauges().sessions_live <= 2);
            assert!(f.log(id).contains(r#""reason":"completed""#), "{id}");
        }
        runtime.drain(Duration::ZERO).await;
    });
}

#[test]
fn a_disk_that_is_bad_at_the_start_costs_no_turn() {
    let f = Fixture::new("boot", echo);
    smol::block_on(async {
        leave_unfinished(&f, &["s".to_owned()]).await;
        f.gate.set(false);
        // Has the name of a segment and cannot be read.
        let in_the_way = f.root.join("sessions/s/events.000000000001.jsonl");
        fs::create_dir_all(&in_the_way).expect("in the way");
        let runtime = f.runtime();
        in_time(runtime.recover()).await.expect("one look at each");
        assert!(runtime.is_ready() && runtime.gauges().sessions_live == 0);
        fs::remove_dir_all(in_the_way).expect("out of the way");
        until(&runtime, "s", Status::Idle).await;
        assert!(f.log("s").contains(r#""reason":"completed""#));
        runtime.drain(Duration::ZERO).await;
    });
}
