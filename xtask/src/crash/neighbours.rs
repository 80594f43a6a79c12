//! More than one process on a workspace, and a workspace that cannot be written.

use super::client::Client;
use super::families::{Case, Family};
use super::inject::{Ended, Program};
use super::log::Log;
use super::oracle;
use super::play::{Calm, Verdict};
use super::scene::{PROMPTS, SESSION, Scene};
use super::serve;
use crate::{Failure, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// All of them.
#[must_use]
pub fn all(calm: &Calm) -> Family<'_> {
    let scene = &calm.before[1];
    let case = |name: &str, play: fn(&Scene) -> Result<Verdict>| Case {
        name: name.to_owned(),
        run: Box::new(move |root| play(&scene.copy(root)?)),
    };
    let cases = vec![
        case("two servers on one workspace", two_servers),
        case("a command beside a server", command_beside_server),
        case("two commands for one session at once", two_commands),
        case("a workspace that is read-only", read_only),
    ];
    Family { name: "neighbours", about: "more than one process, and nothing to write to", hits_min: cases.len(), cases }
}

/// The same program with files of its own for output, so that two can run side by side.
fn beside(scene: &Scene) -> Program {
    Program { scratch: scene.program.scratch.with_extension("beside"), ..scene.program.clone() }
}

fn log(verdict: &mut Verdict, scene: &Scene, at_rest: bool) -> Result<Log> {
    let log = scene.log()?.unwrap_or_else(|damage| {
        verdict.find(format!("the log is damaged: {damage}"));
        Log::default()
    });
    verdict.findings.extend(oracle::check(&log, at_rest));
    verdict.findings.extend(oracle::effects(&log, &scene.effects()?));
    Ok(log)
}

fn count(log: &Log, prompt: &str) -> usize {
    log.entries.iter().filter(|e| e.kind == "message_received" && e.fields.text("content") == prompt).count()
}

fn expect_refusal(verdict: &mut Verdict, what: &str, ended: &Ended) {
    if !matches!(ended.code(), Some(1..=5)) || !ended.err.starts_with("error: ") {
        verdict.find(format!("{what}: expected a refusal, found {}: {:?}", ended.describe(), ended.err));
    }
}

fn two_servers(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    let args = serve::arguments(scene);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut first = scene.program.start(&args)?;
    let client = Client::new(&scene.folder.join(serve::SOCKET));
    if !serve::tell(&client, &mut first, 1)? {
        return Err(Failure::new("the first server does not answer"));
    }
    // The same socket, and another one: the workspace is what is taken.
    let elsewhere = format!("unix:{}", scene.folder.join("t").display());
    let other = [&args[..4], &[elsewhere.as_str()]].concat();
    for (what, args) in [("the same socket", &args), ("another socket", &other)] {
        let ended = beside(scene).run(args)?;
        expect_refusal(&mut verdict, what, &ended);
    }
    if !serve::tell(&client, &mut first, 2)? {
        verdict.find("the first server is gone");
    }
    serve::shut_down(&client, &mut verdict);
    let ended = first.end()?;
    if ended.code() != Some(0) {
        verdict.find(format!("the first server: {}: {}", ended.describe(), ended.err.trim_end()));
    }
    log(&mut verdict, scene, true)?;
    Ok(verdict)
}

fn command_beside_server(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    let args = serve::arguments(scene);
    let mut server = scene.program.start(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let client = Client::new(&scene.folder.join(serve::SOCKET));
    serve::wait_until_ready(&client, &mut server)?;
    let beside = beside(scene);
    for prompt in &PROMPTS[1..3] {
        let ended = beside.run(&scene.says(prompt))?;
        if ended.code() == Some(0) {
            verdict.findings.extend(oracle::acknowledged(
                &log(&mut Verdict::default(), scene, false)?,
                &super::play::published(&ended.out),
            ));
        } else {
            // A server on another address than the configured one may not be found; then the lease has to refuse.
            expect_refusal(&mut verdict, "the command", &ended);
        }
        let taken = count(&log(&mut Verdict::default(), scene, false)?, prompt);
        if taken != usize::from(ended.code() == Some(0)) {
            verdict.find(format!("{prompt:?} ended with {} and is in the log {taken} times", ended.describe()));
        }
    }
    serve::shut_down(&client, &mut verdict);
    server.end()?;
    log(&mut verdict, scene, true)?;
    Ok(verdict)
}

fn two_commands(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    let (first, second) =
        (scene.program.start(&scene.says(PROMPTS[1]))?, beside(scene).start(&scene.says(PROMPTS[2]))?);
    let ended = [first.end()?, second.end()?];
    let log = log(&mut verdict, scene, true)?;
    for (ended, prompt) in ended.iter().zip(&PROMPTS[1..3]) {
        let taken = count(&log, prompt);
        match ended.code() {
            Some(0) if taken == 1 => {}
            Some(1..=5) if taken == 0 && ended.err.starts_with("error: ") => {}
            _ => verdict.find(format!(
                "{prompt:?} ended with {} and is in the log {taken} times: {}",
                ended.describe(),
                ended.err
            )),
        }
    }
    if ended.iter().all(|e| e.code() != Some(0)) {
        verdict.find("neither of two commands got through");
    }
    Ok(verdict)
}

/// Root may write where the mode says no, so for root the workspace is mounted read-only.
fn read_only(scene: &Scene) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    let workspace = scene.folder.join(".duragent");
    let before = scene.log_bytes()?;
    let is_root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let ended = if is_root {
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
        let mut args = vec!["--mount", "--", "sh", "-c", script, workspace.to_str().unwrap_or_default()];
        args.push(scene.program.binary.to_str().unwrap_or_default());
        args.extend(scene.says(PROMPTS[1]));
        Program { binary: "unshare".into(), ..scene.program.clone() }.run(&args)?
    } else {
        set_mode(scene, "a-w")?;
        let ended = scene.say(PROMPTS[1], None)?;
        set_mode(scene, "u+w")?;
        ended
    };
    if ended.err.contains("unshare:") || ended.err.contains("mount:") {
        return Err(Failure::new(format!("expected unshare and mount to work for root: {}", ended.err)));
    }
    expect_refusal(&mut verdict, "on a read-only workspace", &ended);
    if scene.log_bytes()? != before {
        verdict.find("the log of a read-only workspace has changed");
    }
    let ended = scene.say(PROMPTS[1], None)?;
    if ended.code() != Some(0) {
        verdict.find(format!("writable again: {}: {}", ended.describe(), ended.err.trim_end()));
    }
    log(&mut verdict, scene, true)?;
    if !scene.session().join("events.jsonl").is_file() {
        verdict.find(format!("session {SESSION} has no log"));
    }
    Ok(verdict)
}

fn set_mode(scene: &Scene, mode: &str) -> Result<()> {
    crate::repo::run(Command::new("chmod").arg("-R").arg(mode).arg(scene.folder.join(".duragent")))
}
