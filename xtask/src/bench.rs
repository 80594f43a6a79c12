//! `cargo xtask bench`: the figures of the project (benches/figures), taken of the release binary.
//!
//! Prints a Markdown table and writes nothing, unless told to put it between the markers of a document.

use crate::repo::{Repo, tee};
use crate::{Failure, Result, Tally};

/// Stands alone in a line before the table of a document, and after it.
const MARKER: &str = "<!-- bench -->";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    only: Vec<String>,
    write: Option<String>,
}

/// Builds, measures and prints; with `--write` puts the table into a document as well.
///
/// # Errors
/// If it does not build, or the document has no place for the table. A figure that cannot be measured counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let options = parse(args)?;
    let document = match &options.write {
        Some(path) => Some((path, repo.read_text(path)?)),
        None => None,
    };
    if let Some((path, text)) = &document {
        replace(path, text, "")?;
    }
    // Cargo builds the release binary beside the benchmark, and tells it where that is.
    let mut command = repo.cargo(["bench", "--quiet", "--package", "duragent", "--bench", "figures", "--"]);
    for number in &options.only {
        command.args(["--only", number]);
    }
    let mut table = String::new();
    let complete = tee(&mut command, |line| {
        table.push_str(line);
        table.push('\n');
    })?;
    if !complete {
        return Ok(Tally { passed: 0, failed: 1 });
    }
    if let Some((path, text)) = document {
        repo.write(path, &replace(path, &text, &table)?)?;
    }
    Ok(Tally { passed: 1, failed: 0 })
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| Failure::Usage(format!("bench: a value after {arg}")));
        match arg.as_str() {
            "--only" => options.only.push(value()?),
            "--write" => options.write = Some(value()?),
            other => return Err(Failure::unknown_argument("bench", other)),
        }
    }
    if options.write.is_some() && !options.only.is_empty() {
        return Err(Failure::Usage("bench: --write takes the whole table, not what --only leaves of it".to_owned()));
    }
    Ok(options)
}

/// The document with `table` between its two markers.
///
/// # Errors
/// Unless there are exactly two.
fn replace(path: &str, document: &str, table: &str) -> Result<String> {
    match document.split(MARKER).collect::<Vec<_>>()[..] {
        [before, _, after] => Ok(format!("{before}{MARKER}\n\n{}\n\n{MARKER}{after}", table.trim())),
        ref parts => {
            let found = parts.len() - 1;
            Err(Failure::new(format!("{path}: expected {MARKER} before and after the table, found it {found} times")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_part_of_the_table_is_never_written() {
        let only = |n: &[&str]| n.iter().map(|&n| n.to_owned()).collect();
        assert_eq!(parse(&args("--only 1 --only 9")), Ok(Options { only: only(&["1", "9"]), write: None }));
        assert_eq!(parse(&args("--write README.md")), Ok(Options { only: only(&[]), write: Some("README.md".into()) }));
        for wrong in ["--only 1 --write README.md", "--only", "--write", "1"] {
            assert!(matches!(parse(&args(wrong)), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn the_table_goes_between_the_markers_and_nowhere_else() {
        let document = "a\n<!-- bench -->\nold\n<!-- bench -->\nb\n";
        let new = replace("x.md", document, "| t |\n").expect("has two markers");
        assert_eq!(new, "a\n<!-- bench -->\n\n| t |\n\n<!-- bench -->\nb\n");
        assert_eq!(replace("x.md", &new, "| t |\n"), Ok(new.clone()));
        for wrong in ["", "<!-- bench -->", "<!-- bench --><!-- bench --><!-- bench -->"] {
            assert!(replace("x.md", wrong, "").is_err(), "{wrong}");
        }
    }
}
