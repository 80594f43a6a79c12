//! `cargo xtask golden`: what the command line prints, against `tests/golden/*.case`.
//!
//! A case runs in a fresh folder with an empty environment. Its lines:
//!
//! ```text
//! # a comment, kept
//! @ notes/a.txt              a file that the case needs …
//! | its first line           … and what is in it
//! $ duragent version         a command; quotes work as in a shell, nothing else does
//! < typed text               a line of its standard input
//! > duragent VERSION         a line of its standard output
//! ! error: no such agent     a line of its standard error
//! = 1                        its exit code; left out if 0
//! ```
//!
//! What differs from run to run is replaced by a word before comparing: `DIR` (the folder), `VERSION`, `TIME`
//! (RFC 3339), `N` (in `N ms`). `--bless` writes down what the commands print now. A hanging command is a failure.

use crate::repo::{Repo, at};
use crate::{Failure, Result, Tally};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest run of one command; generous, because the machine may be busy.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

const FOLDER: &str = "tests/golden";

/// Runs the cases; those named, or all.
///
/// # Errors
/// If a case is malformed or cannot be run. A difference counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut bless, mut release, mut names) = (false, false, Vec::new());
    for arg in args {
        match arg.as_str() {
            "--bless" => bless = true,
            "--release" => release = true,
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument("golden", flag)),
            name => names.push(name.to_owned()),
        }
    }
    let binary = repo.build(release)?;
    compare(repo, &binary, bless, &names)
}

/// Runs the cases against `binary`.
///
/// # Errors
/// As [`run`].
pub fn compare(repo: &Repo, binary: &Path, bless: bool, names: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    for path in repo.files()?.iter().filter(|p| p.starts_with(FOLDER) && p.ends_with(".case")) {
        let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".case");
        if !names.is_empty() && !names.iter().any(|n| n == name) {
            continue;
        }
        let expected = repo.read_text(path)?;
        let case = Case::parse(path, &expected)?;
        let folder = Folder::new(name)?;
        let found = case.play(binary, &folder.path)?;
        if found == expected {
            tally.passed += 1;
        } else if bless {
            repo.write(path, &found)?;
            println!("{path}: rewritten");
            tally.passed += 1;
        } else {
            print!(
                "{path}: differs (`cargo xtask golden --bless {name}` takes what is found)\n{}",
                diff(&expected, &found)
            );
            tally.failed += 1;
        }
    }
    println!("golden: {} cases as expected, {} not", tally.passed, tally.failed);
    if tally == Tally::default() {
        return Err(Failure::new(format!("expected cases in {FOLDER}, found none that match")));
    }
    Ok(tally)
}

/// A folder of its own for a case, gone afterwards.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("duragent-golden-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| at(&path, &e))?;
        Ok(Self { path: path.canonicalize().map_err(|e| at(&path, &e))? })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A comment or an empty line.
    Note(String),
    /// A file to be there before what follows.
    File { path: String, lines: Vec<String> },
    /// A command: its text, and the lines of its standard input.
    Command { text: String, input: Vec<String> },
}

#[derive(Debug, PartialEq, Eq)]
struct Case {
    parts: Vec<Part>,
}

impl Case {
    fn parse(path: &str, text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let (mark, rest) = line.split_at(line.chars().next().map_or(0, char::len_utf8));
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            let wrong = |what: &str| Failure::new(format!("{path}:{number}: {what}, found {line:?}"));
            match (mark, parts.last_mut()) {
                ("" | "#", _) => parts.push(Part::Note(line.to_owned())),
                ("@", _) => parts.push(Part::File { path: rest.to_owned(), lines: Vec::new() }),
                ("$", _) if rest == "duragent" || rest.starts_with("duragent ") => {
                    parts.push(Part::Command { text: rest.to_owned(), input: Vec::new() });
                }
                ("$", _) => return Err(wrong("expected `$ duragent …`")),
                ("|", Some(Part::File { lines, .. })) => lines.push(rest.to_owned()),
                ("|", _) => return Err(wrong("expected `@ FILE` before its lines")),
                ("<", Some(Part::Command { input, .. })) => input.push(rest.to_owned()),
                (">" | "!" | "=", Some(Part::Command { .. })) => {}
                ("<" | ">" | "!" | "=", _) => return Err(wrong("expected `$ duragent …` before")),
                _ => return Err(wrong("expected a line that starts with one of # @ | $ < > ! =")),
            }
        }
        Ok(Self { parts })
    }

    /// Runs the case in `folder` and returns its text with what was really printed.
    fn play(&self, binary: &Path, folder: &Path) -> Result<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Note(line) => out.push_str(&format!("{line}\n")),
                Part::File { path, lines } => {
                    mark(&mut out, "@", path);
                    lines.iter().for_each(|line| mark(&mut out, "|", line));
                    put(&folder.join(path), lines)?;
                }
                Part::Command { text, input } => {
                    mark(&mut out, "$", text);
                    input.iter().for_each(|line| mark(&mut out, "<", line));
                    let ended = execute(binary, folder, text, input)?;
                    normalize(&ended.out, folder).lines().for_each(|line| mark(&mut out, ">", line));
                    normalize(&ended.err, folder).lines().for_each(|line| mark(&mut out, "!", line));
                    if ended.code != "0" {
                        mark(&mut out, "=", &ended.code);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Appends a line of a case.
fn mark(out: &mut String, mark: &str, line: &str) {
    let space = if line.is_empty() { "" } else { " " };
    out.push_str(&format!("{mark}{space}{line}\n"));
}

fn put(path: &Path, lines: &[String]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| at(parent, &e))?;
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).map_err(|e| at(path, &e))
}

struct Ended {
    out: String,
    err: String,
    code: String,
}

fn execute(binary: &Path, folder: &Path, text: &str, input: &[String]) -> Result<Ended> {
    let words = words(text)?;
    // Beside the folder, so that the command does not see them.
    let aside = |name: &str| folder.with_extension(name);
    let (input_path, out_path, err_path) = (aside("in"), aside("out"), aside("err"));
    put(&input_path, input)?;
    let create = |path: &Path| File::create(path).map_err(|e| at(path, &e));
    let mut child = Command::new(binary)
        .args(&words[1..])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .stdin(Stdio::from(File::open(&input_path).map_err(|e| at(&input_path, &e))?))
        .stdout(Stdio::from(create(&out_path)?))
        .stderr(Stdio::from(create(&err_path)?))
        .spawn()
        .map_err(|e| at(binary, &e))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| at(binary, &e))? {
            break Some(status);
        }
        if start.elapsed() > COMMAND_TIME_MAX {
            child.kill().and_then(|()| child.wait()).map_err(|e| at(binary, &e))?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |path: &Path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| at(path, &e));
    let ended = Ended { out: read(&out_path)?, err: read(&err_path)?, code: code(status) };
    for path in [&input_path, &out_path, &err_path] {
        fs::remove_file(path).map_err(|e| at(path, &e))?;
    }
    Ok(ended)
}

fn code(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => status.code().map_or_else(|| status.to_string(), |code| code.to_string()),
        None => format!("no end within {} s", COMMAND_TIME_MAX.as_secs()),
    }
}

/// Splits at white space; single and double quotes hold words together.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_none() { Ok(words) } else { Err(Failure::new(format!("quote without an end: {text:?}"))) }
}

/// Replaces what differs from run to run.
fn normalize(text: &str, folder: &Path) -> String {
    let text = text.replace(&*folder.to_string_lossy(), "DIR");
    let text = replace_version(&text);
    let text = replace_pattern(&text, "dddd-dd-ddTdd:dd:dd.dddZ", "TIME");
    let text = replace_pattern(&text, "dddd-dd-ddTdd:dd:ddZ", "TIME");
    replace_milliseconds(&text)
}

fn replace_version(text: &str) -> String {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(VERSION) {
        let (before, after) = (&rest[..at], &rest[at + VERSION.len()..]);
        let goes_on = |c: char| c == '.' || c.is_ascii_digit();
        let whole = !before.ends_with(goes_on) && !after.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(before);
        out.push_str(if whole { "VERSION" } else { VERSION });
        rest = after;
    }
    out + rest
}

/// Replaces every place that looks like `pattern`, where `d` is any digit.
fn replace_pattern(text: &str, pattern: &str, word: &str) -> String {
    let fits = |c: char, p: char| if p == 'd' { c.is_ascii_digit() } else { c == p };
    let chars: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut out, mut i) = (String::new(), 0);
    while i < chars.len() {
        let window = &chars[i..chars.len().min(i + pattern.len())];
        if window.len() == pattern.len() && window.iter().zip(&pattern).all(|(&c, &p)| fits(c, p)) {
            out.push_str(word);
            i += pattern.len();
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// `12 ms` and `12ms` become `N ms` and `Nms`.
fn replace_milliseconds(text: &str) -> String {
    let (mut out, mut digits) = (String::new(), String::new());
    for (i, c) in text.char_indices() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let rest = text[i..].trim_start_matches(' ');
        let is_unit = rest.strip_prefix("ms").is_some_and(|r| !r.starts_with(char::is_alphanumeric));
        if !digits.is_empty() {
            out.push_str(if is_unit && text[i..].len() - rest.len() <= 1 { "N" } else { &digits });
            digits.clear();
        }
        out.push(c);
    }
    out + &digits
}

/// The lines that differ, with their numbers: what was expected and what was found.
fn diff(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let left = (expected.len() - same).min(found.len() - same);
    let tail = (0..left).take_while(|n| expected[expected.len() - 1 - n] == found[found.len() - 1 - n]).count();
    let show = |mark: &str, lines: &[&str]| -> String {
        let numbered = (same + 1..).zip(&lines[same..lines.len() - tail]);
        numbered.map(|(number, line)| format!("  {mark} {number:4} {line}\n")).collect()
    };
    show("expected", &expected) + &show("found   ", &found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(text: &str, script: &str) -> String {
        let name = format!("test-{:?}", std::thread::current().id()).replace(['(', ')'], "");
        let folder = Folder::new(&name).expect("a folder can be made");
        let program = folder.path.with_extension("sh");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).expect("it can be made executable");
        let found = Case::parse("x.case", text).and_then(|case| case.play(&program, &folder.path));
        fs::remove_file(&program).expect("it is there");
        found.expect("the case runs")
    }

    const CASE: &str = "# a comment\n\n@ sub/a.txt\n| one\n|\n|  two\n$ duragent x 'y z'\n< in\n> out\n! err\n= 3\n";

    #[test]
    fn a_case_that_holds_is_unchanged() {
        let found = play(
            CASE,
            "read a; [ \"$a\" = in ] && [ \"$2\" = 'y z' ] && grep -q two sub/a.txt && echo out; echo err >&2; exit 3",
        );
        assert_eq!(found, CASE);
    }

    #[test]
    fn every_difference_shows() {
        for script in [
            "echo out; echo err >&2; exit 4",
            "echo err >&2; exit 3",
            "echo out; exit 3",
            "echo out; echo; echo err >&2; exit 3",
        ] {
            assert_ne!(play(CASE, script), CASE, "{script}");
        }
        assert_eq!(play("$ duragent\n", "kill -9 $$"), "$ duragent\n= signal: 9 (SIGKILL)\n");
    }

    #[test]
    fn malformed_cases_say_where() {
        for (text, line) in
            [("$ rm x\n", 1), ("\n> out\n", 2), ("# a\n| x\n", 2), ("< x\n", 1), ("$ duragent\nx\n", 2), ("= 1\n", 1)]
        {
            let error = Case::parse("x.case", text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("x.case:{line}: ")), "{error}");
        }
        assert!(words("a 'b").is_err());
        assert_eq!(words("a  'b c'd \"\" e"), Ok(["a", "b cd", "", "e"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        let version = env!("CARGO_PKG_VERSION");
        for (text, expected) in [
            (format!("duragent {version} x{version}.5 1{version}"), format!("duragent VERSION xVERSION.5 1{version}")),
            ("at 2026-11-22T10:00:00.123Z and 2026-11-22T10:00:00Z".into(), "at TIME and TIME".into()),
            ("took 12 ms, 3ms, 4 msgs, 5".into(), "took N ms, Nms, 4 msgs, 5".into()),
            ("in /tmp/golden/.duragent".into(), "in DIR/.duragent".into()),
        ] {
            assert_eq!(normalize(&text, Path::new("/tmp/golden")), expected);
        }
    }

    #[test]
    fn a_difference_is_shown_without_what_is_equal() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\ny\nc\n"), "  expected    2 b\n  found       2 x\n  found       3 y\n");
    }
}
