//! `cargo xtask cross --test`, and `cargo xtask board` with binaries that are there already: what was built for other machines
//! runs on them, emulated.
//!
//! Every target is smoked under QEMU's user mode, which has neither seccomp nor Landlock nor user namespaces, and memory figures of
//! its own. Static ARM binaries also boot on a whole machine: Debian's kernel, BusyBox's init with the script of `platform/init`, a
//! read-only system, an ext4 disk. There they run turns, are measured, and lose power.
//!
//! Absent: speed. What takes long on an emulated processor says nothing about a real one.

mod image;
mod kind;
mod machine;
mod model;
mod plug;
mod story;
mod user;

use crate::repo::{self, Repo, at};
use crate::{Failure, Result, Tally};
use image::Image;
use kind::Kind;
use model::Model;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Plugs that are pulled on each machine.
const PLUGS: usize = 24;
/// The same in a slice, on one machine.
const PLUGS_SLICE: usize = 3;

struct Options {
    slice: bool,
    keep: bool,
    seed: u64,
    plugs: Option<usize>,
    parts: Vec<String>,
    binaries: Vec<(String, PathBuf)>,
    script: Option<PathBuf>,
}

/// Programs that boards need, and the Debian packages that have them.
const TOOLS: [(&str, &str); 7] = [
    ("qemu-arm-static", "qemu-user-static"),
    ("qemu-system-arm", "qemu-system-arm"),
    ("setpriv", "util-linux"),
    ("cpio", "cpio"),
    ("modprobe", "kmod"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
];

/// The parts, as they are named on the command line.
const PARTS: [&str; 4] = ["user", "story", "later", "plug"];

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let (parts, binaries) = (Vec::new(), Vec::new());
        let mut options = Self { slice: false, keep: false, seed: 1, plugs: None, parts, binaries, script: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = |what: &str| {
                args.next()
                    .cloned()
                    .ok_or_else(|| Failure::Usage(format!("board: {arg} expects {what}, found nothing")))
            };
            let number = |text: String| {
                text.parse().map_err(|_| Failure::Usage(format!("board: {arg} expects a number, found {text:?}")))
            };
            match arg.as_str() {
                "--slice" => options.slice = true,
                "--keep" => options.keep = true,
                "--seed" => options.seed = number(value("a number")?)?,
                "--plugs" => options.plugs = Some(usize::try_from(number(value("a number")?)?).unwrap_or(usize::MAX)),
                "--script" => options.script = Some(value("a file")?.into()),
                "--binary" => {
                    let text = value("TARGET=FILE")?;
                    let (target, file) = text
                        .split_once('=')
                        .ok_or_else(|| Failure::Usage(format!("board: expected TARGET=FILE, found {text:?}")))?;
                    let file = std::path::absolute(file).map_err(|e| at(Path::new(file), &e))?;
                    options.binaries.push((target.to_owned(), file));
                }
                part if PARTS.contains(&part) => options.parts.push(part.to_owned()),
                other => return Err(Failure::unknown_argument("board", other)),
            }
        }
        if options.binaries.is_empty() {
            return Err(Failure::Usage("board: expected --binary TARGET=FILE at least once".to_owned()));
        }
        Ok(options)
    }
}

/// Runs the parts that are named, or all, with binaries that are there already.
///
/// # Errors
/// On a wrong command line, or if a board does not boot.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let options = Options::parse(args)?;
    all(repo, &options)
}

/// Tries these binaries out, each by its target's name.
///
/// # Errors
/// If a program or package is missing, or a board does not boot; what is merely wrong counts as failed.
pub fn test(repo: &Repo, binaries: &[(String, PathBuf)], slice: bool, seed: u64) -> Result<Tally> {
    let binaries = binaries.to_vec();
    all(repo, &Options { slice, keep: false, seed, plugs: None, parts: Vec::new(), binaries, script: None })
}

fn all(repo: &Repo, options: &Options) -> Result<Tally> {
    let mut packages: Vec<_> =
        TOOLS.iter().filter(|(name, _)| !repo::in_path(name)).map(|(_, package)| *package).collect();
    packages.dedup();
    if !packages.is_empty() {
        repo::install_packages(&packages.join(" "), repo::is_ci())?;
    }
    let folder = repo.target_dir()?.join("boards").join(std::process::id().to_string());
    let mut report = Report::default();
    let result = tried(repo, options, &folder, &mut report);
    if options.keep {
        println!("kept in {}", folder.display());
    } else if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| at(&folder, &e))?;
    }
    result?;
    println!("board: {} checks as they have to be, {} not", report.tally.passed, report.tally.failed);
    Ok(report.tally)
}

fn tried(repo: &Repo, options: &Options, folder: &Path, report: &mut Report) -> Result<()> {
    let wants =
        |part: &str| options.script.is_none() && (options.parts.is_empty() || options.parts.iter().any(|p| p == part));
    if wants("user") {
        for (target, binary) in &options.binaries {
            user::smoke(repo, target, binary, &folder.join("user").join(target), report)?;
        }
    }
    let mut boards: Vec<_> =
        options.binaries.iter().filter_map(|(target, binary)| Some((Kind::of(target)?, binary))).collect();
    if options.slice {
        boards.truncate(1);
    }
    if options.parts.iter().any(|part| part == "user") && options.parts.len() == 1 {
        return Ok(());
    }
    for (kind, binary) in boards {
        let start = Instant::now();
        let image = Image::create(repo, kind, binary, &folder.join(kind.debian))?;
        report.group(kind.name, start);
        if let Some(script) = &options.script {
            story::script(repo, &image, script, report)?;
        }
        let model = Model::start(repo)?;
        if wants("story") {
            story::tell(&image, &model, report)?;
        }
        if wants("later") && !options.slice {
            story::later(&image, &model, report)?;
        }
        if wants("plug") {
            let plugs = options.plugs.unwrap_or(if options.slice { PLUGS_SLICE } else { PLUGS });
            plug::pull(&image, &model, plugs, options.seed, report)?;
        }
    }
    Ok(())
}

/// What came of the checks, told as they come.
#[derive(Debug, Default)]
pub struct Report {
    tally: Tally,
}

impl Report {
    fn group(&self, name: &str, start: Instant) {
        println!("board: {name}, put together in {:.1} s", start.elapsed().as_secs_f64());
    }

    /// A check, with what is wrong.
    pub fn check(&mut self, what: &str, findings: &[String]) {
        if findings.is_empty() {
            self.tally.passed += 1;
            println!("  ok     {what}");
        } else {
            self.tally.failed += 1;
            println!("  FAILED {what}\n    {}", findings.join("\n    "));
        }
    }

    /// A check that is one comparison.
    pub fn holds(&mut self, what: &str, holds: bool, found: impl std::fmt::Debug) {
        let finding = format!("found {found:?}");
        self.check(what, if holds { &[] } else { std::slice::from_ref(&finding) });
    }

    /// Something that was measured.
    pub fn figure(&self, what: &str, value: &str) {
        println!("  figure {what}: {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let parse = |args: &str| Options::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--slice --seed 7 --plugs 2 story --binary armv7-x=/b").expect("is right");
        assert_eq!((options.slice, options.seed, options.plugs), (true, 7, Some(2)));
        assert_eq!(options.binaries, [("armv7-x".to_owned(), PathBuf::from("/b"))]);
        for args in ["", "--seed x", "--binary x", "--binary", "boot --binary a=b"] {
            assert!(matches!(parse(args), Err(Failure::Usage(_))), "{args}");
        }
    }
}
