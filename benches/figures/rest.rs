//! What a server costs while nobody talks to it.

use crate::failure::Result;
use crate::made;
use crate::proc;
use crate::scene::{Place, Scene, Server, message_body, wait_until};
use crate::table::{Aim, Row};
use crate::{client, proc::Resident};
use std::time::Duration;

/// Time between start and measurement.
const SETTLED: Duration = Duration::from_secs(2);
/// Time that is watched for work without a reason.
const WATCHED: Duration = Duration::from_secs(10);
/// Sessions that are used before the second measurement of memory.
const USED: usize = 100;
/// Sessions on disk while processor time is measured.
const ON_DISK: usize = 1000;

/// Figure 3: resident memory after start, and after sessions were used and went to rest.
pub fn memory(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 1, None)?;
    let server = scene.serve()?;
    std::thread::sleep(SETTLED);
    let (fresh, threads) = (proc::resident(server.pid)?, proc::threads(server.pid)?);
    use_sessions(&server)?;
    // Threads of the pools end a few seconds after their last job.
    wait_until("the threads are as few as after the start", || Ok(proc::threads(server.pid)? <= threads))?;
    let used = proc::resident(server.pid)?;
    let after = format!("{USED} sessions used and at rest");
    let mut rows = rows("2 s after start", fresh, 3.0, 15.5);
    rows.extend(self::rows(&after, used, 5.0, 19.0));
    Ok(rows)
}

fn rows(when: &str, memory: Resident, aim: f64, peer: f64) -> Vec<Row> {
    let (rss, pss) = (memory.rss / 1e6, memory.pss / 1e6);
    vec![
        Row::one(&format!("resident memory (Rss), {when}"), rss, "MB", Aim::AtMost(aim)).peer(peer, rss, "MB"),
        Row::one(&format!("resident memory (Pss), {when}"), pss, "MB", Aim::Shown),
    ]
}

fn use_sessions(server: &Server) -> Result<()> {
    let (mut client, body) = (server.client()?, message_body());
    for number in 0..USED {
        let session = format!("used-{number}");
        client.create("one_tool", &session)?;
        for _ in 0..3 {
            client.turn(&client::messages(&session), &body)?;
        }
    }
    wait_until("the sessions have left memory", || Ok(client.metric("duragent_sessions_live")? == 0))
}

/// Figure 4: processor time and wake-ups with sessions on disk and nothing to do.
pub fn processor(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 1, None)?;
    made::sessions(&scene.sessions(), ON_DISK)?;
    let server = scene.serve()?;
    // Whoever waits for a thread of a pool to end sees that as a wake-up; it belongs to the start.
    std::thread::sleep(SETTLED + Duration::from_secs(5));
    let (ticks, switches) = (proc::ticks(server.pid)?, proc::switches(server.pid)?);
    std::thread::sleep(WATCHED);
    let ticks = proc::ticks(server.pid)? - ticks;
    let switches = proc::switches(server.pid)? - switches;
    // A tick is 10 ms.
    let percent = ticks as f64 / WATCHED.as_secs_f64();
    let (seconds, when) = (WATCHED.as_secs(), format!("{ON_DISK} sessions on disk, nothing to do"));
    Ok(vec![
        Row::one(&format!("processor time, {when}"), percent, "% of a core", Aim::AtMost(0.0))
            .spread(format!("{ticks} ticks in {seconds} s"))
            .peer(7.6, percent, "% of a core"),
        Row::one(&format!("wake-ups in {seconds} s, {when}"), switches, "", Aim::AtMost(0.0)),
    ])
}
