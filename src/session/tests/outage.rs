//! Disks that are bad for a while.

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
