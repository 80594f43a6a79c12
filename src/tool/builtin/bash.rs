//! `bash`: one shell command.

use super::{declare, refused, said, seconds};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::capture::Capture;
use crate::tool::{Context, Tool};
use duragent_core::event::{Denied, ToolOutcome};
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::sandbox::{Command, Ended, Exit, Refusal, explain};
use std::path::Path;
use std::time::Duration;

/// Longest command in bytes: Linux gives one argument 128 KiB with its NUL (execve(2), `MAX_ARG_STRLEN`).
const COMMAND_BYTES_MAX: usize = 128 * 1024 - 1;

/// `PATH` where the runtime has none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const FIELDS: [Field; 2] = [Field::required("command", Kind::Text), Field::optional("timeout_seconds", Kind::Count)];

/// The tool. Effect `once`: a command can do anything.
pub(super) struct Bash {
    decl: ToolDecl,
    shell: &'static str,
    environment: Vec<(String, String)>,
}

impl Bash {
    /// With `environment` as what commands see of the runtime's, and no more: everything else may be a secret.
    pub(super) fn new(environment: &[(String, String)]) -> Self {
        let mut environment = environment.to_vec();
        if !environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(("PATH".into(), PATH_DEFAULT.into()));
        }
        environment.push(("TERM".into(), "dumb".into()));
        let shell = if has_bash(&environment) { "bash" } else { "/bin/sh" };
        let description =
            "Run a shell command in the working directory. What it leaves in the background ends with it.";
        let decl = declare("bash", description, &FIELDS, EffectClass::Once, PolicyArgument::Command("command"));
        Self { decl, shell, environment }
    }

    fn command(&self, text: &str, deadline: Duration, context: &Context<'_>) -> Command {
        let mut env = self.environment.clone();
        env.push(("DURAGENT_SESSION".into(), context.session.into()));
        env.push(("DURAGENT_CALL_ID".into(), context.call_id.into()));
        Command { program: self.shell.into(), args: vec!["-c".into(), text.into()], env, deadline }
    }
}

impl Tool for Bash {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let text = arguments.text("command");
        if text.len() > COMMAND_BYTES_MAX {
            let hint = "put it into a file with write_file and run that";
            let result = format!("the command has {} bytes, the most is {COMMAND_BYTES_MAX}; {hint}", text.len());
            return refused(result, "limit", "command", hint);
        }
        let deadline = match arguments.count("timeout_seconds") {
            Some(0) => return said("wrong arguments: timeout_seconds is to be 1 or more, found 0"),
            Some(asked) => context.deadline.min(Duration::from_secs(asked)),
            None => context.deadline,
        };
        let mut capture = Capture::new(context);
        let command = self.command(text, deadline, context);
        match context.sandbox.run(context.view, &command, context.cancel, &mut |_, bytes| capture.push(bytes)) {
            Ok(ended) => outcome(capture, ended, deadline, context),
            Err(error) => said(format!("the command was not started: {error}")),
        }
    }
}

fn outcome(capture: Capture<'_>, ended: Ended, deadline: Duration, context: &Context<'_>) -> ToolOutcome {
    let captured = capture.finish();
    let (mut result, mut exit_code) = (captured.text, None);
    // What was seen to be refused; else what a command that failed says was.
    let mut refusals = ended.refusals;
    if refusals.is_empty() && ended.exit != Exit::Code(0) {
        refusals.extend(explain::refusal_in(context.view, &result));
    }
    let as_denied = |r: Refusal| Denied { kind: r.kind.as_str().into(), what: r.what, hint: r.hint };
    let mut denied = refusals.into_iter().next().map(as_denied);
    let note = match ended.exit {
        Exit::Code(code) => {
            exit_code = Some(i64::from(code));
            (code != 0).then(|| format!("[exit code {code}]"))
        }
        Exit::Signal(signal) => Some(format!("[killed by signal {signal}]")),
        Exit::Cancelled => Some("[cancelled]".into()),
        Exit::Deadline => {
            let seconds = seconds(deadline);
            denied = Some(Denied {
                kind: "timeout".into(),
                what: format!("{seconds} s"),
                hint: "do less at a time, or ask for more with timeout_seconds, as far as the agent's limit goes"
                    .into(),
            });
            Some(format!("[killed at the deadline of {seconds} s]"))
        }
    };
    if let Some(note) = note {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(&note);
    } else if result.is_empty() {
        // Some providers refuse an empty result.
        result.push_str("[no output]");
    }
    ToolOutcome {
        result,
        exit_code,
        denied,
        truncated: captured.truncated,
        artifact: captured.artifact,
        duration_ms: 0,
    }
}

/// True if `PATH` leads to a bash.
fn has_bash(environment: &[(String, String)]) -> bool {
    let path = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    path.split(':').any(|directory| directory.starts_with('/') && Path::new(directory).join("bash").is_file())
}
