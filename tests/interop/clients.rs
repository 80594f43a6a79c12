//! The fakes, driven by the official clients. What they ask is in the scripts; what they are answered is here.

use duragent_testkit::{Answer, Cut, End, Fake, Fault, Split, programs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the environment's programs are.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-python");
    let made = || programs::python(&folder, include_str!("requirements.txt"));
    FOLDER.get_or_init(|| made().unwrap_or_else(|error| panic!("{error}")))
}

/// Runs a script of this folder.
fn script(name: &str, arguments: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    let mut command = Command::new(programs().join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*");
    let output = command.arg(script).args(arguments).output().expect("python starts");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Runs a script that has to find all in order.
fn holds(name: &str, arguments: &[&str]) {
    let text = script(name, arguments).unwrap_or_else(|text| panic!("{name}: {text}"));
    assert!(text.ends_with(" checks hold\n"), "{text}");
    println!("{name}: {text}");
}

/// Runs a script against a fake that sends whole frames and one that sends single bytes; each has to be asked for all it has,
/// and to refuse so much.
fn both(name: &str, more: &[&str], refused: usize, fake: impl Fn(Split) -> Fake) {
    let fakes = [Split::Frames, Split::EveryByte].map(fake);
    let urls = fakes.each_ref().map(Fake::url).join(",");
    holds(name, &[&[urls.as_str()], more].concat());
    for fake in fakes {
        assert_eq!((fake.left(), fake.refused().len()), (0, refused), "{:?}", fake.refused());
    }
}

fn greeting() -> Answer {
    Answer::text("Schöne Grüße 🦀").usage(100, 9, 60)
}

fn two_calls() -> Answer {
    Answer::new().and_call("bash", r#"{"command":"ls -l"}"#).and_call("bash", r#"{"command":"date"}"#)
}

fn chat(fake: fn() -> Fake, split: Split) -> Fake {
    fake()
        .may_refuse()
        .answer(greeting().split(split))
        .answer(two_calls().split(split))
        .answer(Answer::text("Done.").split(split))
        .answer(two_calls().split(split))
        .fault(Fault::busy("7"))
        .fault(Fault::status(401))
        .fault(Fault::status(403))
        .fault(Fault::status(503))
        .fault(Fault::ErrorInStream)
        .answer(Answer::text("lost").with(Fault::cut(Cut::BeforeFinish, End::Fin)))
}

#[test]
fn openai_is_as_its_client_has_it() {
    both("client_openai.py", &["openai"], 2, |split| chat(Fake::openai, split));
}

#[test]
fn openrouter_is_as_openais_client_has_it() {
    let fake = chat(Fake::openrouter, Split::Frames);
    holds("client_openai.py", &[&fake.url(), "openrouter"]);
    assert_eq!((fake.left(), fake.refused().len()), (0, 2), "{:?}", fake.refused());
}

#[test]
fn anthropic_is_as_its_client_has_it() {
    both("client_anthropic.py", &[], 5, |split| {
        let thought = two_calls().think("I should look.").think_in_secret().say("I look.");
        Fake::anthropic()
            .may_refuse()
            .answer(thought.clone().split(split))
            .answer(greeting().split(split))
            .answer(thought.split(split))
            .answer(Answer::text("Done.").split(split))
            .fault(Fault::busy("7"))
            .fault(Fault::status(401))
            .fault(Fault::status(403))
            .fault(Fault::status(529))
            .fault(Fault::ErrorInStream)
    });
}

#[test]
fn ollama_is_as_its_client_has_it() {
    both("client_ollama.py", &[], 1, |split| {
        Fake::ollama()
            .may_refuse()
            .models(&["m"])
            .answer(greeting().think("I should look.").split(split))
            .answer(two_calls().split(split))
            .answer(two_calls().with(Fault::CallsInLastFrame).split(split))
            .answer(Answer::text("Done.").split(split))
            .fault(Fault::BadCall)
            .fault(Fault::ErrorInStream)
    });
}

/// The control: what is not of the wire is found out.
#[test]
fn a_fake_that_is_wrong_is_found_out() {
    let found = |fake: &Fake, name: &str, more: &[&str], expected: &str| {
        let url = fake.url();
        let told = script(name, &[&[url.as_str()], more].concat()).expect_err("it must not hold");
        assert!(told.contains(expected), "{name}: no {expected:?} in {told}");
    };
    let fake = Fake::openai().answer(greeting()).answer(two_calls().with(Fault::NoIndex));
    found(&fake, "client_openai.py", &["openai"], "tool_calls.0.index");
    let fake = Fake::openrouter().answer(greeting());
    found(&fake, "client_openai.py", &["openai"], "ChatCompletionChunk has no ['provider']");
    let fake = Fake::anthropic().answer(greeting().with(Fault::UnknownEvents));
    found(&fake, "client_anthropic.py", &[], "weather");
    let fake = Fake::ollama().models(&["m"]).answer(two_calls().with(Fault::BadArguments));
    found(&fake, "client_ollama.py", &[], "tool_calls.0.function.arguments");
}
