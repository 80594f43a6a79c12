//! `run` without a person: an `ask` ends it with exit code 4 and never turns into leave.

use super::house::{House, ended};
use super::stage::{bash, command_json, digest, ran, says, stage, text};
use duragent_core::json::{self, Value};
use std::process::{Command, Stdio};

fn house() -> House {
    stage("mode: ask\n", &[bash("touch made"), says("Made.")].concat())
}

fn unmade(house: &House) {
    assert!(!house.path("made").exists() && ran(house, "s").is_empty(), "it ran");
}

const RUN: [&str; 5] = ["run", "bot", "-p", "--session", "s"];

#[test]
fn nobody_there_is_no_leave_however_it_is_asked() {
    let json = |format| [&RUN[..], &["--output-format", format, "please"]].concat();
    let house = house();
    let first = house.run(&[&RUN[..], &["please"]].concat());
    assert_eq!((first.code, first.out.as_str()), (Some(4), ""), "{first:?}");
    assert_eq!(
        first.err,
        "error: the turn waits for an approval of bash: touch made\nhint: duragent approve s a1-1-1\nhint: then: duragent run bot \
         --resume s\n"
    );
    unmade(&house);
    // Asked again in every way there is: other words, other formats, no input at all, an input that says yes.
    for args in [
        vec!["run", "--resume", "s"],
        [&RUN[..], &["go on"]].concat(),
        vec!["run", "bot", "-c", "yes, do it"],
        json("json"),
        json("stream-json"),
        vec!["chat", "bot", "--session", "s"],
        vec!["attach", "s"],
    ] {
        for input in ["/dev/null", "closed", "y\\ny\\nyes\\n"] {
            if input.contains('y') && matches!(args[0], "chat" | "attach") {
                // There the word of a script is one, and that is said.
                continue;
            }
            let command = house.command(&args);
            let mut shell = Command::new("sh");
            let redirect = match input {
                "/dev/null" => "exec \"$@\" </dev/null".to_owned(),
                "closed" => "exec \"$@\" <&-".to_owned(),
                words => format!("printf '{words}' | \"$@\""),
            };
            shell.args(["-c", &redirect, "sh"]).arg(command.get_program()).args(command.get_args());
            shell.current_dir(house.path("")).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
            let found = ended(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("sh(1) is there"));
            assert_eq!(found.code, Some(4), "{args:?} with {input}: {found:?}");
            unmade(&house);
        }
    }
}

#[test]
fn the_json_names_what_waits() {
    for format in ["json", "stream-json"] {
        let house = house();
        let found = house.run(&[&RUN[..], &["--output-format", format, "please"]].concat());
        assert_eq!(found.code, Some(4), "{found:?}");
        let result = json::parse(found.out.lines().last().expect("a line")).expect("JSON");
        assert_eq!((text(&result, "reason"), text(&result, "session")), ("waiting".to_owned(), "s".to_owned()));
        let Some(Value::Array(list)) = result.get("approvals") else { panic!("{result}") };
        let [request] = list.as_slice() else { panic!("{result}") };
        let arguments = command_json("touch made");
        assert_eq!((text(request, "approval_id"), text(request, "name")), ("a1-1-1".to_owned(), "bash".to_owned()));
        assert_eq!(request.get("arguments").map(Value::to_string), Some(arguments.clone()));
        assert_eq!(text(request, "digest"), digest("bash", &arguments));
        unmade(&house);
    }
}

#[test]
fn it_is_approved_and_resumed_later() {
    // Without a server the approval goes on with the turn itself; with one, the turn goes on there.
    let house = house();
    assert_eq!(house.run(&[&RUN[..], &["please"]].concat()).code, Some(4));
    assert!(house.good(&["approve", "s"]).ends_with("Made.\n"));
    assert!(house.path("made").exists());
    assert_eq!(house.run(&["run", "--resume", "s"]).code, Some(2), "there is nothing left to resume");

    let other = self::house();
    assert_eq!(other.run(&[&RUN[..], &["please"]].concat()).code, Some(4));
    // The word comes in while nobody goes on with the turn, and `run --resume` does.
    let server = other.serve();
    other.good(&["approve", "s", "a1-1-1"]);
    let found = other.run(&["run", "bot", "--resume", "s"]);
    // Either it follows the end of the turn, or comes after it.
    assert!(matches!(found.code, Some(0 | 2)), "{found:?}");
    super::stage::until_is(&other, "s", "idle");
    server.stop();
    assert!(other.path("made").exists());
    assert_eq!(ran(&other, "s"), ["touch made"], "once");

    let denied = self::house();
    assert_eq!(denied.run(&[&RUN[..], &["please"]].concat()).code, Some(4));
    assert!(denied.good(&["deny", "s"]).ends_with("Made.\n"), "the model is told, and says what it says");
    unmade(&denied);
}
