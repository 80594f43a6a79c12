//! `cargo xtask tidy`: the rules of the house that compilers do not check.
//!
//! Every violation is reported as `file:line: rule: text`. A single line is excused by a comment on it or right above
//! it: `tidy-allow(rule): why`. Absent: style that `rustfmt` and `clippy` see.

mod code;
mod imports;
mod ratchet;
mod source;
mod text;

use crate::repo::Repo;
use crate::{Failure, Result, Tally};
use ratchet::Ratchet;
use source::Source;

/// The rules by the names that are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Imports,
    Unsafe,
    Yaml,
    Environment,
    Panics,
    Prints,
    DroppedResults,
    Length,
    Space,
    Unfinished,
    Places,
    Layout,
    Ratchet,
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::Imports => "imports",
            Self::Unsafe => "unsafe",
            Self::Yaml => "yaml",
            Self::Environment => "environment",
            Self::Panics => "panics",
            Self::Prints => "prints",
            Self::DroppedResults => "dropped-results",
            Self::Length => "length",
            Self::Space => "space",
            Self::Unfinished => "unfinished",
            Self::Places => "places",
            Self::Layout => "layout",
            Self::Ratchet => "ratchet",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    rule: Rule,
    text: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Report {
    violations: Vec<Violation>,
}

impl Report {
    fn add(&mut self, source: &Source<'_>, line: usize, rule: Rule, text: &str) {
        self.add_at(source.path, line, rule, text);
    }

    fn add_at(&mut self, path: &str, line: usize, rule: Rule, text: &str) {
        self.violations.push(Violation { path: path.to_owned(), line, rule, text: text.to_owned() });
    }

    /// Drops from index `from` on what the file excuses.
    fn excuse(&mut self, text: &str, from: usize) {
        let lines: Vec<&str> = text.lines().collect();
        let excused = |violation: &Violation| {
            let mark = format!("tidy-allow({}): ", violation.rule.name());
            let has_reason = |line: usize| {
                let line = line.checked_sub(1).and_then(|i| lines.get(i));
                line.and_then(|l| l.split(&mark).nth(1)).is_some_and(|reason| !reason.trim().is_empty())
            };
            has_reason(violation.line) || has_reason(violation.line.saturating_sub(1))
        };
        let kept: Vec<_> = self.violations.drain(from..).filter(|v| !excused(v)).collect();
        self.violations.extend(kept);
    }
}

/// Checks the whole tree; with `--bless`, first takes over into ratchet.txt what got better.
///
/// # Errors
/// If the tree cannot be read. Violations are counted as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let bless = match args {
        [] => false,
        [arg] if arg == "--bless" => true,
        [arg, ..] => return Err(Failure::unknown_argument("tidy", arg)),
    };
    let files = repo.files()?;
    let mut ratchet = Ratchet::parse(&repo.read_text(ratchet::PATH)?)?;
    if bless {
        let present = text::check_layout(repo, &files, &ratchet.absent, &mut Report::default());
        ratchet.tighten(|path| repo.read_text(path).ok().map(|t| t.lines().count()), &present);
        repo.write(ratchet::PATH, &ratchet.to_text())?;
    }
    let mut report = Report::default();
    let mut texts = Vec::new();
    for path in &files {
        if let Ok(text) = String::from_utf8(repo.read(path)?) {
            texts.push((path, text));
        }
    }
    let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
    let test_modules: Vec<String> = rust.flat_map(|(path, text)| Source::new(path, text).test_modules()).collect();
    for (path, text) in &texts {
        check_file(path, text, &test_modules, &ratchet, &mut report);
    }
    for folder in text::check_layout(repo, &files, &ratchet.absent, &mut report) {
        report.add_at(
            ratchet::PATH,
            1,
            Rule::Ratchet,
            &format!("{folder} is there now: run `cargo xtask tidy --bless`"),
        );
    }
    for (path, _) in ratchet.lines.iter().filter(|(path, _)| !files.contains(path)) {
        report.add_at(ratchet::PATH, 1, Rule::Ratchet, &format!("{path} is gone: run `cargo xtask tidy --bless`"));
    }
    for Violation { path, line, rule, text } in &report.violations {
        println!("{path}:{line}: {}: {text}", rule.name());
    }
    let failed = report.violations.len();
    println!("tidy: {} files, {failed} violations", files.len());
    Ok(if failed == 0 { Tally { passed: 1, failed: 0 } } else { Tally { passed: 0, failed: 1 } })
}

/// Checks one file against every rule that looks at files.
fn check_file(path: &str, text: &str, test_modules: &[String], ratchet: &Ratchet, report: &mut Report) {
    let from = report.violations.len();
    text::check(path, text, report);
    ratchet.check(path, text, report);
    if path.ends_with(".rs") {
        let mut source = Source::new(path, text);
        let is_part =
            |m: &String| path.strip_prefix(m.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
        source.in_test_module = test_modules.iter().any(is_part);
        imports::check(&source, report);
        code::check(&source, report);
    }
    report.excuse(text, from);
}

#[cfg(test)]
mod tests;
