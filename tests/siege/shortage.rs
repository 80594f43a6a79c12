//! A server that lacks what it needs: descriptors, memory of the kernel, threads.

use crate::attacks::slow_heads;
use crate::house::{Server, Workspace, alone, ask, eventually};
use crate::sockets::allow_many;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long somebody else is watched.
const WATCHED: Duration = Duration::from_millis(500);

/// Within this time what needs nothing that is short is answered.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A user that nobody else is: the kernel counts the processes of each.
const USER: u32 = 54_321;
const AS_USER: [&str; 2] = ["--reuid=54321", "--clear-groups"];

/// 2,000 clients where 80 descriptors may be open, its hard limit, and 256 connections are configured.
#[test]
fn with_few_descriptors_others_are_served_all_the_same() {
    let _alone = alone();
    allow_many();
    let server = Server::start_in(Workspace::new(), &["prlimit", "--nofile=80:80"]);
    let answer_max = server.calm("a");
    let before = server.usage();
    let attack = slow_heads(&server);
    assert!(server.usage().descriptors > 40, "most descriptors are taken");
    server.bystander("a", WATCHED, answer_max);
    drop(attack);
    server.settle(before);
    assert_eq!(server.ask("GET", "/livez", "").0, 200);
}

/// Every second attempt to accept a connection fails, as if the client was gone again, or as if there was nothing left.
#[test]
fn failing_to_accept_keeps_nobody_out() {
    let _alone = alone();
    allow_many();
    for error in ["ECONNABORTED", "EMFILE", "ENFILE", "ENOMEM"] {
        let inject = format!("inject=accept4:error={error}:when=2+2");
        let strace = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=accept4", "-e", &inject];
        let server = Server::start_in(Workspace::new(), &strace);
        let answer_max = server.calm("a");
        server.bystander("a", WATCHED, answer_max);
        assert!(server.metric("http_accept_errors_total") > 0, "{error}: accepting did fail");
    }
}

/// No thread can be started: what needs one is refused with a problem document, all else goes on, and so does everything
/// once there are threads again.
#[test]
fn without_threads_it_refuses_and_recovers() {
    let _alone = alone();
    let workspace = Workspace::new();
    let server = if is_root() {
        // The limit does not bind root.
        give_away(&workspace.folder);
        Server::start_in(workspace, &["setpriv", AS_USER[0], AS_USER[1]])
    } else {
        Server::start_in(workspace, &["env"])
    };
    server.session("a");
    // Threads that have nothing to do end after some seconds.
    eventually("all spare threads have ended", || server.threads() <= 4);
    limit_processes(server.pid, "1");
    let mut refused = 0;
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(server.ask("GET", "/livez", "").0, 200);
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        for (method, path, body) in [
            ("POST", "/api/v1/sessions", "{\"agent\":\"worker\"}"),
            ("POST", "/api/v1/sessions/a/messages", "{\"content\":\"hi\"}"),
            ("GET", "/api/v1/sessions", ""),
            ("GET", "/api/v1/sessions/a/export", ""),
        ] {
            let (status, text) = server.ask(method, path, body);
            assert!(matches!(status, 200..=202 | 503), "{method} {path}: {status} {text}");
            if status == 503 {
                assert!(text.contains("urn:duragent:problem:busy"), "{method} {path}: {text}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the control: threads were needed");
    limit_processes(server.pid, "500");
    eventually("messages are taken again", || {
        let answer = ask(server.address, "POST", "/api/v1/sessions/a/messages?wait=20", "{\"content\":\"again\"}");
        answer.is_ok_and(|(status, text)| status == 200 && text.contains("\"completed\""))
    });
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// Makes the folder, and all in it, the other user's.
fn give_away(folder: &Path) {
    chown(folder, Some(USER), None).expect("root may");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("ours");
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => give_away(&path),
            false => chown(&path, Some(USER), None).expect("root may"),
        }
    }
}

fn limit_processes(pid: u32, max: &str) {
    let limit = format!("--nproc={max}:");
    let (program, before) = if is_root() { ("setpriv", AS_USER.as_slice()) } else { ("env", [].as_slice()) };
    let status = Command::new(program).args(before).args(["prlimit", "--pid", &pid.to_string(), &limit]).status();
    assert!(status.expect("setpriv and prlimit of util-linux").success());
}
