//! The workspace that the campaign plays in: an agent with a recorded model, and a story of four messages.
//!
//! One turn for each effect class, each with a tool whose result can be told from outside, and a last one that finds
//! everything settled. The model is a transcript, so every undisturbed run writes the same story.

use super::inject::{Ended, Point, Program};
use super::log::{self, Damage, Log};
use super::oracle::COUNTER;
use crate::repo::at;
use crate::{Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What is said, one message a turn.
pub const PROMPTS: [&str; 4] = ["read the notes", "write the report", "count once", "say goodbye"];

/// The session that all of it happens in.
pub const SESSION: &str = "story";

/// Where calls of class `once` leave their mark, outside the workspace.
pub const EFFECTS: &str = "effects.txt";

/// Written by the `idempotent` call.
const REPORT: &str = "report.txt";

const REPORT_TEXT: &str = "all is well";

const CONFIG: &str = "\
providers:
  recorded:
    kind: replay
    file: transcript.jsonl
sandbox:
  mode: trust
limits:
  model_attempts_max: 3
";

const AGENT: &str = "\
apiVersion: duragent/v1alpha1
kind: Agent
metadata:
  name: witness
spec:
  model:
    provider: recorded
    name: transcript
  tools: [read_file, write_file, bash]
";

const POLICY: &str = "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n";

/// Answers after the last of the story.
const SPARE_ANSWERS: usize = 20;

/// How long the call of class `once` goes on after its effect in [`Scene::enclose`]: well beyond the time within which
/// nothing of it may be left.
const TOOL_SECONDS: u32 = 4;

/// Answers by number. The spare ones are for sessions that were cut short and get a message more. `rest` is what the call
/// of class `once` does after its effect.
fn transcript(effects: &str, rest: &str) -> String {
    let once = format!("printf '%s\\\\n' \\\"${COUNTER}\\\" >> {effects}{rest}");
    let call = |name: &str, arguments: &str| {
        format!("{{\"tool_calls\":[{{\"name\":\"{name}\",\"arguments\":{arguments}}}]}}\n")
    };
    let text = |text: &str| {
        format!("{{\"deltas\":[\"{text} \",\"done\"],\"usage\":{{\"input_tokens\":10,\"output_tokens\":2}}}}\n")
    };
    [
        call("read_file", "{\"path\":\"notes.txt\"}"),
        text("reading"),
        call("write_file", &format!("{{\"path\":\"{REPORT}\",\"content\":\"{REPORT_TEXT}\"}}")),
        text("writing"),
        call("bash", &format!("{{\"command\":\"{once}\"}}")),
        text("counting"),
        text("goodbye"),
    ]
    .into_iter()
    .chain((1..SPARE_ANSWERS).map(|n| text(&format!("answer {n}"))))
    .collect()
}

/// A workspace on disk and how to run the binary in it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Holds `.duragent`, and is where tools work.
    pub folder: PathBuf,
    /// The binary.
    pub program: Program,
    /// The session that it all happens in.
    pub session: String,
    /// Where calls of class `once` leave their mark, if not in `folder`.
    effects: Option<PathBuf>,
}

impl Scene {
    /// Makes the workspace with `duragent init` and puts the witness into it.
    ///
    /// # Errors
    /// If `init` fails or files cannot be written.
    pub fn create(root: &Path, binary: &Path) -> Result<Self> {
        let scene = Self::in_folder(root, binary)?;
        let ended = scene.program.run(&["init", "."])?;
        if ended.code() != Some(0) {
            return Err(Failure::new(format!("duragent init: {}: {}", ended.describe(), ended.err)));
        }
        for (name, text) in [
            (".duragent/duragent.yaml", CONFIG),
            (".duragent/policy.yaml", POLICY),
            (".duragent/agents/witness/agent.yaml", AGENT),
            (".duragent/transcript.jsonl", &transcript(EFFECTS, "")),
            ("notes.txt", "the sky is blue\n"),
        ] {
            scene.put(name, text.as_bytes())?;
        }
        Ok(scene)
    }

    /// Has calls of class `once` leave their mark in a file outside: whatever happens to the disk below `folder`, what they did
    /// they did.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn set_effects_outside(&mut self, path: &Path) -> Result<()> {
        self.effects = Some(path.to_path_buf());
        let effects = path.display().to_string();
        self.put(".duragent/transcript.jsonl", transcript(&effects, "").as_bytes())
    }

    fn in_folder(root: &Path, binary: &Path) -> Result<Self> {
        let (folder, scratch) = (root.join("home"), root.join("scratch"));
        for dir in [&folder, &scratch] {
            fs::create_dir_all(dir).map_err(|e| at(dir, &e))?;
        }
        let program = Program { binary: binary.to_path_buf(), folder: folder.clone(), scratch, files: Vec::new() };
        Ok(Self { folder, program, session: SESSION.to_owned(), effects: None })
    }

    /// The same state in another place.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy(&self, root: &Path) -> Result<Self> {
        let mut copy = Self::in_folder(root, &self.program.binary)?;
        copy.program.files.clone_from(&self.program.files);
        copy_tree(&self.folder, &copy.folder)?;
        Ok(copy)
    }

    /// Makes segments of the log this small.
    ///
    /// # Errors
    /// If the configuration cannot be written.
    pub fn limit_segments(&self, bytes: usize) -> Result<()> {
        let text = format!("{CONFIG}  log_segment_bytes_max: {bytes}\n");
        self.put(".duragent/duragent.yaml", text.as_bytes())
    }

    /// Puts tools behind a wall. The call of class `once` goes on after its effect, and all its processes have the folder's
    /// path in their arguments.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn enclose(&self) -> Result<()> {
        self.put(".duragent/duragent.yaml", CONFIG.replace("mode: trust", "mode: bubblewrap").as_bytes())?;
        // The last command of all, so that the shell stays.
        let rest = format!("; sleep {TOOL_SECONDS}; : {}", self.folder.display());
        self.put(".duragent/transcript.jsonl", transcript(EFFECTS, &rest).as_bytes())
    }

    /// The command line that says `prompt`.
    #[must_use]
    pub fn says<'a>(&self, prompt: &'a str) -> [&'a str; 9] {
        ["--dir", ".duragent", "run", "witness", prompt, "--session", SESSION, "--output-format", "stream-json"]
    }

    /// Says `prompt`, perhaps with a fault.
    ///
    /// # Errors
    /// If the binary cannot be started.
    pub fn say(&self, prompt: &str, point: Option<&Point>) -> Result<Ended> {
        let args = self.says(prompt);
        point.map_or_else(|| self.program.run(&args), |point| self.program.fault(&args, point))
    }

    /// Takes the unfinished turn up, perhaps with a fault.
    ///
    /// # Errors
    /// If the binary cannot be started.
    pub fn resume(&self, point: Option<&Point>) -> Result<Ended> {
        let args = ["--dir", ".duragent", "run", "witness", "--resume", SESSION];
        point.map_or_else(|| self.program.run(&args), |point| self.program.fault(&args, point))
    }

    /// The directory of the session.
    #[must_use]
    pub fn session(&self) -> PathBuf {
        self.folder.join(".duragent/sessions").join(&self.session)
    }

    /// The bytes of the log, its segments in a row. Empty if there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn log_bytes(&self) -> Result<Vec<u8>> {
        let dir = self.session();
        let mut names: Vec<String> = names(&dir)?;
        names.retain(|name| name.starts_with("events.") && name.ends_with(".jsonl"));
        // `events.000000000001.jsonl` comes before `events.jsonl`.
        names.sort_unstable();
        let mut bytes = Vec::new();
        for name in names {
            let path = dir.join(name);
            bytes.extend(fs::read(&path).map_err(|e| at(&path, &e))?);
        }
        Ok(bytes)
    }

    /// The log, read by the second reader.
    ///
    /// # Errors
    /// If it cannot be read at all; damage is the inner error.
    pub fn log(&self) -> Result<std::result::Result<Log, Damage>> {
        Ok(log::read(&self.log_bytes()?))
    }

    /// Call ids in the outside file.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn effects(&self) -> Result<String> {
        self.get(self.effects.as_deref().unwrap_or(Path::new(EFFECTS)))
    }

    /// Replaces the outside file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_effects(&self, text: &str) -> Result<()> {
        let outside = self.effects.as_deref().map(|path| path.display().to_string());
        self.put(outside.as_deref().unwrap_or(EFFECTS), text.as_bytes())
    }

    /// What is wrong with the file of the `idempotent` call after a turn that wrote it.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn report(&self) -> Result<Option<String>> {
        let found = self.get(Path::new(REPORT))?;
        Ok((found != REPORT_TEXT).then(|| format!("{REPORT}: expected {REPORT_TEXT:?}, found {found:?}")))
    }

    fn get(&self, name: &Path) -> Result<String> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(at(&path, &error)),
        }
    }

    /// Writes a file below the folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| at(parent, &e))?;
        }
        fs::write(&path, bytes).map_err(|e| at(&path, &e))
    }
}

/// Names in a directory; none if it is not there.
///
/// # Errors
/// If it is there and cannot be listed.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir, &error)),
    };
    entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(|e| at(dir, &e))).collect()
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|e| at(to, &e))?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        let kind = fs::symlink_metadata(&from).map_err(|e| at(&from, &e))?;
        if kind.is_dir() {
            copy_tree(&from, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to).map_err(|e| at(&from, &e))?;
        }
    }
    Ok(())
}
