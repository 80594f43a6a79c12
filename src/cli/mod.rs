//! The command line: one file per command.
//!
//! Job: parse arguments, find the workspace, talk to a runtime through its HTTP interface (a server's socket, or a runtime
//! of our own behind a socket pair), print. Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 waiting for an
//! approval, 5 a limit was reached, 130 interrupted.
//!
//! Invariants: a failure leaves standard output empty and says `error: …` and `hint: …` on standard error. No colour and no
//! cursor codes outside a terminal.
//!
//! Absent: anything a session does by itself.

mod approval;
mod approve;
mod args;
mod backup;
mod chat;
mod check;
mod completions;
mod connect;
mod demo;
mod doctor;
mod failure;
mod init;
mod interrupt;
mod live;
mod ls;
mod pick;
mod ps;
mod reload;
mod render;
mod restore;
mod run;
mod serve;
mod service;
mod session;
mod setup;
mod text;
mod upgrade;
mod usage;

use args::Common;
use duragent_platform::{process, sandbox};
pub use failure::Failure;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// A command: its name, what it is good for, and its code.
struct Command {
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    run: fn(Common, lexopt::Parser) -> Result<u8, Failure>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "init",
        usage: "init [FOLDER]",
        summary: "make a workspace with one agent on local Ollama",
        run: init::run,
    },
    Command {
        name: "demo",
        usage: "demo [--dir FOLDER]",
        summary: "see a turn survive a kill -9, without a model",
        run: demo::run,
    },
    Command {
        name: "run",
        usage: "run AGENT [PROMPT] [--help]",
        summary: "one turn; a prompt can be piped in",
        run: run::run,
    },
    Command {
        name: "chat",
        usage: "chat AGENT [-c|--continue|--resume ID|--session NAME]",
        summary: "talk to an agent",
        run: chat::run,
    },
    Command { name: "attach", usage: "attach SESSION", summary: "join a session", run: chat::attach },
    Command { name: "serve", usage: "serve [--listen ADDR|unix:PATH]", summary: "run the server", run: serve::run },
    Command { name: "ls", usage: "ls [--json]", summary: "list the agents", run: ls::run },
    Command {
        name: "ps",
        usage: "ps [--json] [--agent AGENT] [--status STATUS]",
        summary: "list the sessions, newest first",
        run: ps::run,
    },
    Command {
        name: "usage",
        usage: "usage [SESSION] [--json]",
        summary: "what was spent today, or by a session",
        run: usage::run,
    },
    Command {
        name: "session",
        usage: "session COMMAND SESSION",
        summary: "show, log, cancel, close, fork, verify, repair, export, prune, import",
        run: session::run,
    },
    Command {
        name: "approve",
        usage: "approve SESSION [ID] [--show] [--scope once|session|always]",
        summary: "let a tool call run that waits",
        run: approve::approve,
    },
    Command {
        name: "deny",
        usage: "deny SESSION [ID] [--scope once|session|always]",
        summary: "refuse a tool call that waits",
        run: approve::deny,
    },
    Command {
        name: "backup",
        usage: "backup -o FILE|- [--no-secrets]",
        summary: "copy the workspace while it is at work",
        run: backup::run,
    },
    Command {
        name: "restore",
        usage: "restore FILE|- [--dir WORKSPACE]",
        summary: "make a workspace of a backup",
        run: restore::run,
    },
    Command { name: "check", usage: "check [-T]", summary: "check the configuration", run: check::run },
    Command {
        name: "doctor",
        usage: "doctor [--json]",
        summary: "measure sandbox, disk, clock, providers",
        run: doctor::run,
    },
    Command {
        name: "reload",
        usage: "reload",
        summary: "make the server read its configuration anew",
        run: reload::run,
    },
    Command {
        name: "upgrade",
        usage: "upgrade --from FILE|URL [--dry-run] [--rollback] [--help]",
        summary: "replace this binary by a signed release",
        run: upgrade::run,
    },
    Command {
        name: "service",
        usage: "service install|status|remove [--init KIND] [--yes]",
        summary: "run the server with the machine",
        run: service::run,
    },
    Command { name: "version", usage: "version", summary: "print the version", run: version },
    Command {
        name: "completions",
        usage: "completions bash|zsh|fish",
        summary: "print completions for a shell",
        run: completions::completions,
    },
];

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before anything else: what stands around a tool is to stay small.
    if let Some(code) = args.split_first().and_then(|(name, args)| sandbox::enter(name, args)) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    process::conceal();
    process::keep_little_memory();
    match dispatch(args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(args: Vec<OsString>) -> Result<u8, Failure> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut common = Common::default();
    loop {
        match parser.next()? {
            Some(lexopt::Arg::Long("dir")) => common.dir = Some(parser.value()?.into()),
            Some(lexopt::Arg::Long("profile")) => common.profile(parser.value()?)?,
            Some(lexopt::Arg::Short('h') | lexopt::Arg::Long("help")) => return help(),
            Some(lexopt::Arg::Short('V') | lexopt::Arg::Long("version")) => return version(common, parser),
            Some(lexopt::Arg::Value(name)) => {
                let name = name.to_string_lossy();
                if name == "help" {
                    return help();
                }
                let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
                    let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
                    return Err(Failure::usage(
                        format!("unknown command {name:?}"),
                        &format!("there are: {}", names.join(", ")),
                    ));
                };
                return (command.run)(common, parser).map_err(|failure| failure.of(command.usage));
            }
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(Failure::usage("expected a command", "see them with: duragent --help")),
        }
    }
}

fn help() -> Result<u8, Failure> {
    let mut text = String::from(
        "duragent [--dir WORKSPACE] [--profile NAME] COMMAND …\n\nDurable runtime for AI agents on small machines.\n\n",
    );
    let width = COMMANDS.iter().map(|c| c.usage.len()).max().unwrap_or(0);
    for command in COMMANDS {
        text.push_str(&format!("  {:width$}  {}\n", command.usage, command.summary));
    }
    text.push_str("\nWORKSPACE is a .duragent folder: --dir, else DURAGENT_DIR, else ./.duragent\nNAME is a device profile: --profile, else DURAGENT_PROFILE, else what duragent.yaml says\n");
    print(&text)
}

fn version(_: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    args::no_more(&mut parser)?;
    print(concat!("duragent ", env!("CARGO_PKG_VERSION"), "\n"))
}

/// Writes to standard output. A reader that has gone away is no failure of ours.
fn print(text: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(0),
    }
}
