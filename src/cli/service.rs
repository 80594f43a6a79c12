//! `duragent service install|status|remove [--init KIND] [--user USER] [--root TREE] [--yes] [--dry-run]`: runs the server
//! with the machine.
//!
//! Invariants: all that is going to be done is shown first, and done only if somebody agrees. What exists is left as it is
//! unless this command wrote it and nobody has changed it since: its files end with their checksum. Twice is as once.
//! Nothing is written outside of `--root`. The workspace is never taken away.
//!
//! Absent: what packages of distributions do by themselves.

mod account;
mod kinds;
mod plan;
mod step;

use super::{Common, Failure, args, print, text};
use duragent_platform::{process, terminal};
use kinds::Kind;
use plan::Place;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use step::Step;

#[derive(Default)]
struct Options {
    command: Option<String>,
    init: Option<&'static Kind>,
    user: Option<String>,
    root: Option<PathBuf>,
    yes: bool,
    dry_run: bool,
}

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("init") => {
                let names = kinds::KINDS.each_ref().map(|kind| kind.name);
                options.init = Some(&kinds::KINDS[args::word(parser.value()?, "--init", &names)?]);
            }
            lexopt::Arg::Long("user") => options.user = Some(args::text(parser.value()?)?),
            lexopt::Arg::Long("root") => options.root = Some(parser.value()?.into()),
            lexopt::Arg::Long("yes") => options.yes = true,
            lexopt::Arg::Long("dry-run") => options.dry_run = true,
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return print(HELP),
            lexopt::Arg::Value(value) if options.command.is_none() => options.command = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let place = place(&common, &options)?;
    match options.command.as_deref() {
        Some("install") => act(&place, plan::install(&place)?, &options),
        Some("remove") => act(&place, plan::remove(&place), &options),
        Some("status") => status(&place),
        Some(other) => Err(Failure::usage(["unknown command \"service ", other, "\""].concat(), EXPECTED)),
        None => Err(Failure::usage("expected a command for the service, found none", EXPECTED)),
    }
}

/// What `--help` says.
const HELP: &str = "duragent [--dir WORKSPACE] service install|status|remove

Runs the server with the machine. Shows what is to be done, and asks; the workspace is never removed.

      --init KIND   systemd, openrc, sysv, busybox, procd, runit or s6, if it is not the one that is found
      --user USER   whom the server runs as (duragent)
      --root TREE   in the tree of an image instead of this machine
      --yes         ask nobody
      --dry-run     only show

WORKSPACE is /var/lib/duragent, with procd /srv/duragent, if there is no --dir
";

const EXPECTED: &str = "there are: install, status, remove";

/// What is meant, checked: it goes into scripts.
fn place(common: &Common, options: &Options) -> Result<Place, Failure> {
    let root = options.root.as_deref().unwrap_or(Path::new("/"));
    let root = root.canonicalize().map_err(|error| Failure::new(format!("--root: {}: {error}", root.display())))?;
    let Some(kind) = options.init.or_else(|| kinds::detect(&root)) else {
        let error = "cannot tell which init system this is";
        let names = kinds::KINDS.each_ref().map(|kind| kind.name).join(", ");
        return Err(Failure::new(error).hint(["say which with --init: ", &names].concat()));
    };
    let user = options.user.as_deref().unwrap_or(kinds::USER);
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if user.is_empty()
        || user.len() > 32
        || !user.bytes().all(good)
        || !user.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return Err(Failure::usage(format!("--user: cannot use {user:?}"), "expected a name like duragent"));
    }
    let usual = if kind.name == "procd" { kinds::DIR_OPENWRT } else { kinds::DIR };
    let dir = common.dir.as_deref().map_or_else(|| Ok(PathBuf::from(usual)), std::path::absolute);
    let dir = dir.map_err(|error| Failure::new(error.to_string()))?;
    let dir = plain(&dir)?;
    Ok(Place {
        bin: plain(&plan::binary(&root)?)?,
        live: root == Path::new("/"),
        root,
        kind,
        user: user.to_owned(),
        dir,
    })
}

/// A path that means itself in a script and in a unit.
fn plain(path: &Path) -> Result<String, Failure> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    match path.to_str().filter(|text| text.starts_with('/') && text.bytes().all(good)) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let error = format!("cannot use {} in the files of a service", path.display());
            Err(Failure::usage(error, "expected a path of letters, digits and . _ - only"))
        }
    }
}

/// Shows what is going to be done, asks, and does it.
fn act(place: &Place, steps: Vec<Step>, options: &Options) -> Result<u8, Failure> {
    let mut shown = ["init system: ", place.kind.name, "\n"].concat();
    for step in &steps {
        shown.push_str(&step.text());
    }
    text::put(&shown)?;
    if options.dry_run || !steps.iter().any(Step::is_to_do) {
        return Ok(0);
    }
    if place.live && process::uid() != 0 {
        return Err(Failure::new("only root can do this").hint("try it with sudo, or see it with --dry-run"));
    }
    if !options.yes {
        if !terminal::is_terminal(std::io::stdin()) {
            return Err(Failure::usage("nobody is here to agree", "agree with --yes"));
        }
        text::put("Do it? [y/N] ")?;
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::new("nothing was changed"));
        }
    }
    for step in &steps {
        step.run(place)?;
    }
    print("done\n")
}

/// Says what there is, and how that is known. Exit code 0 if the service runs, or in a tree if it is all there.
fn status(place: &Place) -> Result<u8, Failure> {
    let found = plan::look(place);
    let mut out = ["init system: ", place.kind.name, "\n"].concat();
    for (word, evidence) in [("installed", &found.installed), ("enabled", &found.enabled), ("running", &found.running)]
    {
        let yes = if evidence.0 { "yes" } else { "no" };
        out.push_str(&[word, ": ", yes, "\n"].concat());
        for line in &evidence.1 {
            out.push_str(&["  ", line, "\n"].concat());
        }
    }
    print(&out)?;
    let good = if place.live { found.running.0 } else { found.installed.0 && found.enabled.0 };
    Ok(u8::from(!good))
}
