//! What the tests of this crate start as a separate process: a guard, a runtime to be killed, a writer with limits. It is
//! no part of what is installed.

use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Command, Place, Sandbox, Trust, View, enter, own_binary};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let (name, args) = args.split_first().expect("an argument");
    if let Some(code) = enter(name, args) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name.to_str(), args.as_slice()) {
        (Some("guarded"), [script]) => guarded(script),
        (Some("plain"), [script]) => plain(script),
        (Some("replace-limited"), [bytes, path]) => replace_limited(bytes, Path::new(path)),
        (Some("replace-as"), [uid, path]) => replace_as(uid, Path::new(path)),
        _ => panic!("unknown arguments {name:?} {args:?}"),
    }
    ExitCode::SUCCESS
}

/// A runtime that runs a tool: its environment is the tool's.
fn guarded(script: &str) {
    let command = Command {
        program: "bash".into(),
        args: vec!["-c".into(), script.into()],
        env: std::env::vars().collect(),
        deadline: Duration::from_secs(600),
    };
    let sandbox = Trust::new(own_binary().expect("own binary"));
    sandbox.run(&everything(), &command, &Cancel::new(), &mut |_, _| {}).expect("run");
}

/// The same without a guard: the control.
fn plain(script: &str) {
    std::process::Command::new("bash").args(["-c", script]).output().expect("bash");
}

/// Replaces `path` by 64 KiB while no file may grow past `bytes` (setrlimit(2), `RLIMIT_FSIZE`).
fn replace_limited(bytes: &str, path: &Path) {
    let limit = bytes.parse().expect("bytes");
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: plain numbers. Ignoring the signal makes the write an error (EFBIG).
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    replace(path);
}

/// Replaces `path` as the user `uid`, without root's privileges.
fn replace_as(uid: &str, path: &Path) {
    let uid = uid.parse().expect("uid");
    // SAFETY: plain numbers, in the order that keeps the right to do the next.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(uid), 0);
        assert_eq!(libc::setuid(uid), 0);
    }
    replace(path);
}

fn replace(path: &Path) {
    match everything().replace(path, &[b'x'; 64 * 1024]) {
        Ok(()) => println!("replaced"),
        Err(error) => println!("{:?}", error.kind()),
    }
}

fn everything() -> View {
    View::everything(Place { workdir: Path::new("/"), artifacts: Path::new("/") })
}
