//! The binary against aimock, a mock that speaks all four APIs and was made by people who never saw this code.

use crate::house::{ANTHROPIC, Api, House, OLLAMA, OPENAI, OPENROUTER, each};
use duragent_testkit::programs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Where the mock's program is.
fn program() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-node");
    let (package, lock) = (include_str!("aimock/package.json"), include_str!("aimock/package-lock.json"));
    let made = || programs::node(&folder, package, lock);
    FOLDER.get_or_init(|| made().unwrap_or_else(|error| panic!("{error}"))).join("llmock")
}

/// A running mock.
struct Mock {
    child: Child,
    address: String,
}

impl Mock {
    fn start() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/aimock/fixtures.json");
        let mut command = Command::new("node");
        command.arg(program()).args([
            "--port",
            "0",
            "--strict",
            "--validate-on-load",
            "--chunk-size",
            "3",
            "--fixtures",
        ]);
        let mut child =
            command.arg(fixtures).stdout(Stdio::piped()).spawn().expect("install the Debian package nodejs");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut said = String::new();
        let address = loop {
            assert!(out.read_line(&mut said).expect("UTF-8") > 0, "the mock ended: {said}");
            if let Some((_, address)) = said.split_once("listening on http://") {
                break address.trim().to_owned();
            }
        };
        // What nobody reads would fill the pipe.
        std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
        Self { child, address }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn aimock_is_understood_in_all_its_tongues() {
    let apis: [(Api, &str); 4] = [(OPENAI, "/v1"), (OPENROUTER, "/api/v1"), (ANTHROPIC, ""), (OLLAMA, "")];
    each(&apis, |(api, path)| {
        let mock = Mock::start();
        let mut house = House::new("model_attempts_max: 2, offline_seconds_max: 0");
        house.provider("bot", *api, &format!("http://{}{path}", mock.address), "");
        house.spec("bot", "model: {provider: bot, name: m, max_output_tokens: 500}");
        let _server = house.serve();
        house.start("bot", "make it");
        let end = "2 calls; bash echo 'ü' >> ran.log; list_dir {}; \"Schöne Grüße.\"; completed";
        assert_eq!(house.rest("bot"), end, "{}", api.kind);
        assert_eq!(house.read("ran.log"), "ü\n");
        for (words, expected) in [
            ("think", "; \"Ja.\"; completed"),
            ("cut it", "; truncated; \"Whole.\"; completed"),
            ("be busy", "; overloaded; \"At last.\"; completed"),
            ("refuse", "; refused for good; failed"),
        ] {
            let before = house.rest("bot");
            house.say("bot", words);
            let story = house.rest("bot");
            assert_eq!(story.strip_prefix(&before), Some(expected), "{} {words}: {story}", api.kind);
        }
    });
}
