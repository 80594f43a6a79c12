//! `cargo xtask bench`: the figures of the project (benches/figures), taken of the release binary.
//!
//! Prints a Markdown table and writes nothing, unless told to put it into a document, where lines with [`BEGIN`] and
//! [`END`] keep a place for it.

use crate::repo::{self, Repo, tee};
use crate::{Failure, Result, Tally};
use std::path::{Path, PathBuf};

/// The axum server that the front door is measured beside: a workspace of its own, which nothing else builds.
const PEER: &str = "benches/peers/axum/Cargo.toml";
/// Its program.
const PEER_NAME: &str = "duragent-peer-axum";
/// The figures that need it.
const BESIDE_PEERS: [&str; 3] = ["12", "13", "14"];
/// Programs that some figures run, and the Debian packages that have them.
const TOOLS: [(&str, &str); 2] = [("wrk", "wrk"), ("nginx", "nginx-light")];
/// Where administrators' programs are, which need not be in `PATH`.
const SYSTEM_PROGRAMS: &str = "/usr/sbin";

/// Stands before the table in a document.
const BEGIN: &str = "<!-- bench -->";
/// Stands behind it.
const END: &str = "<!-- /bench -->";

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
    let peer = if options.needs_peers() { Some(peer(repo)?) } else { None };
    // Cargo builds the release binary beside the benchmark, and tells it where that is.
    let mut command = repo.cargo(["bench", "--quiet", "--package", "duragent", "--bench", "figures", "--"]);
    if let Some(peer) = peer {
        command.arg("--peer").arg(peer);
    }
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

/// What other servers take to be measured: looked for before minutes of work, and named if it is missing.
fn peer(repo: &Repo) -> Result<PathBuf> {
    let is_missing = |program: &str| !repo::in_path(program) && !Path::new(SYSTEM_PROGRAMS).join(program).is_file();
    let missing: Vec<_> =
        TOOLS.iter().filter(|(program, _)| is_missing(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        repo::install_packages(&missing.join(" "), repo::is_ci())?;
    }
    let target = repo.target_dir()?.join("peers");
    let mut command = repo.cargo(["build", "--quiet", "--release", "--locked", "--manifest-path", PEER]);
    repo::run(command.arg("--target-dir").arg(&target))?;
    Ok(target.join("release").join(PEER_NAME))
}

impl Options {
    fn needs_peers(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|number| BESIDE_PEERS.contains(&number.as_str()))
    }
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

/// The document with `table` between its marks.
///
/// # Errors
/// Unless there is one of each, in this order.
fn replace(path: &str, document: &str, table: &str) -> Result<String> {
    let begin: Vec<&str> = document.split(BEGIN).collect();
    let end: Vec<&str> = document.split(END).collect();
    match (&begin[..], &end[..]) {
        ([before, rest], [_, after]) if rest.ends_with(&[END, *after].concat()) => {
            Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
        }
        _ => Err(Failure::new(format!("{path}: expected {BEGIN} and behind it {END}, each once"))),
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
    fn the_peers_are_built_for_what_is_measured_beside_them() {
        for (words, needed) in [("", true), ("--only 12", true), ("--only 1 --only 14", true), ("--only 1", false)] {
            assert_eq!(parse(&args(words)).map(|o| o.needs_peers()), Ok(needed), "{words}");
        }
    }

    #[test]
    fn the_table_goes_between_the_marks_and_nowhere_else() {
        let document = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n";
        let new = replace("x.md", document, "| t |\n").expect("has both marks");
        assert_eq!(new, "a\n<!-- bench -->\n\n| t |\n\n<!-- /bench -->\nb\n");
        assert_eq!(replace("x.md", &new, "| t |\n"), Ok(new.clone()));
        for wrong in ["", BEGIN, END, "<!-- /bench --><!-- bench -->", "<!-- bench --><!-- bench --><!-- /bench -->"] {
            assert!(replace("x.md", wrong, "").is_err(), "{wrong}");
        }
    }
}
