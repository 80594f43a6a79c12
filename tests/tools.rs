//! The tool `bash` as an agent runs it: this program as the guard, real processes, real files.

use duragent::tool::{Context, Registry};
use duragent_core::event::ToolOutcome;
use duragent_core::json::ObjectWriter;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Place, Sandbox, Trust};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    root: PathBuf,
    registry: Registry,
    sandbox: Trust,
    cancel: Cancel,
    deadline: Duration,
    artifact_bytes_max: u64,
}

impl Bench {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("duragent-bash-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(root.join("work")).unwrap();
        let environment = [("PATH", "/usr/bin:/bin"), ("HOME", "/home/somebody"), ("LANG", "C.UTF-8")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            root,
            registry: Registry::new(&["bash".into()], &environment).unwrap(),
            sandbox: Trust::new(PathBuf::from(env!("CARGO_BIN_EXE_duragent"))),
            cancel: Cancel::new(),
            deadline: PATIENCE,
            artifact_bytes_max: 64 * 1024 * 1024,
        }
    }

    fn workdir(&self) -> PathBuf {
        self.root.join("work")
    }

    fn run_json(&self, arguments: &str) -> ToolOutcome {
        let (workdir, artifacts) = (self.workdir(), self.root.join("artifacts"));
        let context = Context {
            sandbox: &self.sandbox,
            view: &self.sandbox.view(Place { workdir: &workdir, artifacts: &artifacts }),
            artifacts: &artifacts,
            call_id: "call_7",
            session: "s1",
            deadline: self.deadline,
            output_bytes_max: 1024,
            artifact_bytes_max: self.artifact_bytes_max,
            cancel: &self.cancel,
        };
        self.registry.get("bash").unwrap().run(arguments, &context)
    }

    fn run(&self, command: &str) -> ToolOutcome {
        let mut arguments = String::new();
        let mut object = ObjectWriter::new(&mut arguments);
        object.str("command", command);
        object.finish();
        self.run_json(&arguments)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[test]
fn output_and_exit_code() {
    let bench = Bench::new();
    let check = |command: &str, result: &str, exit_code: Option<i64>| {
        let outcome = bench.run(command);
        assert_eq!((outcome.result.as_str(), outcome.exit_code), (result, exit_code), "{command}");
        assert_eq!((outcome.denied, outcome.truncated, outcome.artifact), (None, false, None), "{command}");
    };
    check("echo hi", "hi\n", Some(0));
    check("true", "[no output]", Some(0));
    check("printf hi; exit 3", "hi\n[exit code 3]", Some(3));
    check("false", "[exit code 1]", Some(1));
    check("no-such-command 2> /dev/null", "[exit code 127]", Some(127));
    check("kill -9 $$", "[killed by signal 9]", None);
    check("printf 'a\\0b\\377c'", "a\u{fffd}b\u{fffd}c", Some(0));
    check("cat", "[no output]", Some(0));
    check("pwd", &format!("{}\n", bench.workdir().display()), Some(0));
    check("[[ ab == a* ]] && echo it is bash", "it is bash\n", Some(0));
    assert!(!bench.root.join("artifacts").exists());
}

#[test]
fn both_streams_are_seen_in_the_order_they_came() {
    let bench = Bench::new();
    // Two pipes have no common order by themselves: the pauses give them one.
    let outcome = bench.run("echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three");
    assert_eq!(outcome.result, "one\ntwo\nthree\n");
}

#[test]
fn the_environment_is_what_is_given_and_no_more() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something that must not pass");
    let outcome = Bench::new().run("env | grep -vE '^(PWD|OLDPWD|SHLVL|_)=' | sort");
    let expected = "DURAGENT_CALL_ID=call_7\nDURAGENT_SESSION=s1\nHOME=/home/somebody\nLANG=C.UTF-8\nPATH=/usr/bin:/bin\nTERM=dumb\n";
    assert_eq!(outcome.result, expected);
}

#[test]
fn without_bash_the_system_shell_is_taken_and_without_path_a_usual_one() {
    let mut bench = Bench::new();
    let environment = [("PATH".to_owned(), "/nonexistent".to_owned())];
    bench.registry = Registry::new(&["bash".into()], &environment).unwrap();
    assert_eq!(bench.run("echo $0").result, "/bin/sh\n");
    bench.registry = Registry::new(&["bash".into()], &[]).unwrap();
    assert_eq!(bench.run("echo $0; ls -d /").result, "bash\n/\n");
}

#[test]
fn long_output_is_cut_and_kept() {
    let bench = Bench::new();
    let outcome = bench.run("seq 1 100000");
    let whole: String = (1..=100_000).map(|i| format!("{i}\n")).collect();
    assert!(outcome.truncated && outcome.exit_code == Some(0));
    assert!(
        outcome.result.starts_with("1\n2\n3\n") && outcome.result.ends_with("\n99999\n100000\n"),
        "{}",
        outcome.result
    );
    let place = bench.root.join("artifacts").join(outcome.artifact.as_deref().unwrap());
    assert!(
        outcome.result.contains(&format!("all {} bytes are in {}", whole.len(), place.display())),
        "{}",
        outcome.result
    );
    assert_eq!(std::fs::read_to_string(place).unwrap(), whole);
}

#[test]
fn a_flood_ends_up_as_a_small_result_and_a_limited_artifact() {
    let mut bench = Bench::new();
    bench.artifact_bytes_max = 100_000;
    let outcome = bench.run("yes | head -c 50000000; exit 9");
    assert!(outcome.result.len() < 2048 && outcome.result.ends_with("y\n[exit code 9]"), "{}", outcome.result);
    assert!(outcome.result.contains("the first 100000 of 50000000 bytes are in"), "{}", outcome.result);
    let place = bench.root.join("artifacts").join(outcome.artifact.unwrap());
    assert_eq!(std::fs::metadata(place).unwrap().len(), 100_000);
}

#[test]
fn a_command_past_its_deadline_is_killed_and_the_model_is_told() {
    let mut bench = Bench::new();
    let check = |bench: &Bench, arguments: &str, result: &str, what: &str| {
        let start = Instant::now();
        let outcome = bench.run_json(arguments);
        assert!(start.elapsed() < PATIENCE / 2);
        assert_eq!((outcome.result.as_str(), outcome.exit_code), (result, None));
        let denied = outcome.denied.unwrap();
        assert_eq!((denied.kind.as_str(), denied.what.as_str()), ("timeout", what));
    };
    check(
        &bench,
        r#"{"command":"trap '' TERM; printf begun; sleep 1000; echo never","timeout_seconds":1}"#,
        "begun\n[killed at the deadline of 1 s]",
        "1 s",
    );
    bench.deadline = Duration::from_secs(2);
    check(&bench, r#"{"command":"sleep 1000","timeout_seconds":5000}"#, "[killed at the deadline of 2 s]", "2 s");
}

#[test]
fn a_cancelled_command_ends_soon() {
    let bench = Bench::new();
    let flag = bench.workdir().join("begun");
    let (cancel, seen) = (bench.cancel.clone(), flag.clone());
    let canceller = std::thread::spawn(move || {
        let start = Instant::now();
        while !seen.exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.raise();
    });
    let outcome = bench.run("echo begun; touch begun; sleep 1000");
    canceller.join().unwrap();
    assert_eq!((outcome.result.as_str(), outcome.exit_code), ("begun\n[cancelled]", None));
    assert_eq!(outcome.denied, None);
}

#[test]
fn what_cannot_run_is_said() {
    let bench = Bench::new();
    let check = |arguments: &str, result: &str| assert_eq!(bench.run_json(arguments).result, result, "{arguments}");
    check(r#"{"command":"true","timeout_seconds":0}"#, "wrong arguments: timeout_seconds is to be 1 or more, found 0");
    check(
        r#"{"cmd":"true"}"#,
        "wrong arguments: unknown argument \"cmd\". expected {\"command\": a string, \"timeout_seconds\": a whole number (optional)}",
    );
    let outcome = bench.run(&format!("true {}", "x".repeat(128 * 1024)));
    assert_eq!(outcome.denied.unwrap().kind, "limit");
    assert!(outcome.result.starts_with("the command has 131077 bytes, the most is 131071; "), "{}", outcome.result);
    // The limit is the kernel's: one byte below it still runs.
    assert_eq!(bench.run(&format!("true {}", "x".repeat(128 * 1024 - 1 - 5))).exit_code, Some(0));
    let nul = bench.run("echo a\0b").result;
    assert!(nul.starts_with("the command was not started: "), "{nul}");

    std::fs::remove_dir_all(bench.workdir()).unwrap();
    let gone = bench.run("true").result;
    assert!(gone.contains("working directory") && gone.contains("does not exist"), "{gone}");
}
