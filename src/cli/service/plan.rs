//! What has to be done, from what there is.

use super::Failure;
use super::kinds::{self, File, Kind};
use super::step::{State, Step};
use super::{account, step};
use crate::cli::connect::Connection;
use duragent_core::json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What is meant by the command line.
pub struct Place {
    /// The tree, without symbolic links.
    pub root: PathBuf,
    /// That it is the one of the machine that runs.
    pub live: bool,
    pub kind: &'static Kind,
    pub user: String,
    /// The workspace and the binary, as they are named inside the tree.
    pub dir: String,
    pub bin: String,
}

impl Place {
    /// Where `path` of the tree is for us.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, for this binary, workspace and user, with its checksum at the end if it can have comments.
    fn text(&self, (path, text, _): &File) -> String {
        let mut text = text.replace(kinds::BIN, &self.bin);
        if self.dir != kinds::DIR {
            let writable = ["ReadWritePaths=", &self.dir, "\n"].concat();
            text = text.replace(kinds::STATE_DIRECTORY, &writable);
            if ["/home/", "/root/", "/run/user/"].iter().any(|home| self.dir.starts_with(home)) {
                text = text.replace("ProtectHome=yes\n", "");
            }
        }
        text = text.replace(kinds::DIR, &self.dir).replace(kinds::DIR_OPENWRT, &self.dir);
        for key in ["user=", "User="] {
            text = text.replace(&["\n", key, kinds::USER, "\n"].concat(), &["\n", key, &self.user, "\n"].concat());
        }
        if path.ends_with("-fd") { text } else { step::sealed(text) }
    }

    /// Where a file is: a unit may have come with a package.
    fn path(&self, (path, ..): &File) -> &'static str {
        match *path {
            kinds::UNIT if !self.at(path).exists() && self.at(kinds::UNIT_OF_PACKAGE).exists() => {
                kinds::UNIT_OF_PACKAGE
            }
            path => path,
        }
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, u32, String, State)> {
        self.kind.files.iter().map(|file| {
            let text = self.text(file);
            let state = State::of(&self.at(self.path(file)), &text);
            (self.path(file), file.2, text, state)
        })
    }

    /// True if init is told by its table.
    fn has_table(&self) -> bool {
        self.kind.name == "busybox"
    }

    fn is_in_table(&self) -> bool {
        let text = fs::read_to_string(self.at(kinds::INITTAB)).unwrap_or_default();
        text.lines().any(|line| line == kinds::INITTAB_LINE.trim_end())
    }
}

/// Where the binary of the service is: this one, if it is where programs are; else where it is copied to.
pub fn binary(root: &Path) -> Result<PathBuf, Failure> {
    let (usual, local) = (PathBuf::from(kinds::BIN), PathBuf::from("/usr/local/bin/duragent"));
    if root != Path::new("/") {
        let in_tree = |path: &&PathBuf| path.strip_prefix("/").is_ok_and(|path| root.join(path).exists());
        return Ok([&usual, &local].into_iter().find(in_tree).unwrap_or(&usual).clone());
    }
    let own = std::env::current_exe().map_err(|error| Failure::new(format!("cannot find this binary: {error}")))?;
    let system = ["/usr", "/opt", "/bin", "/sbin"].iter().any(|place| own.starts_with(place));
    Ok(if system { own } else { local })
}

/// Puts everything there.
pub fn install(place: &Place) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    let ids = account::find(&place.root, &place.user);
    steps.push(if ids.is_some() { Step::kept("user", &place.user, "exists") } else { Step::User });
    if !place.at(&place.bin).exists() {
        match place.live {
            true => steps.push(Step::Binary(place.bin.clone())),
            false => steps.push(Step::kept("binary", &place.bin, "is not in the tree yet: put it there")),
        }
    }
    let mut entries = fs::read_dir(place.at(&place.dir)).into_iter().flatten();
    steps.push(match entries.next() {
        Some(_) => Step::kept("workspace", &place.dir, "exists"),
        None => Step::Workspace(place.dir.clone(), place.user.clone()),
    });
    for (path, mode, text, state) in place.files() {
        steps.push(match state {
            State::Same => Step::kept("file", path, "is as it should be"),
            State::Foreign => Step::kept("file", path, "has been changed by somebody; to get ours, move it away"),
            State::Missing | State::Older => Step::File { path: path.to_owned(), text, mode },
        });
    }
    for &(at, to) in place.kind.links {
        // Whoever has made another one of that name has had a reason.
        let there = place.at(at).symlink_metadata().is_ok();
        steps.push(if there { Step::kept("link", at, "exists") } else { Step::Link(at, to) });
    }
    if place.has_table() {
        let line = kinds::INITTAB_LINE;
        let kept = Step::kept("line", kinds::INITTAB, "has it");
        steps.push(if place.is_in_table() { kept } else { Step::Line(kinds::INITTAB, line) });
    }
    // Nothing new: whoever runs need not be disturbed.
    if place.live && (steps.iter().any(Step::is_to_do) || !look(place).running.0) {
        steps.extend(place.kind.start.iter().map(|command| Step::Run(command)));
    }
    Ok(steps)
}

/// Takes away what is ours.
pub fn remove(place: &Place) -> Vec<Step> {
    let installed = place.files().any(|(.., state)| matches!(state, State::Same | State::Older));
    let mut steps = Vec::new();
    if place.live && installed {
        steps.extend(place.kind.stop.iter().map(|command| Step::Run(command)));
    }
    for &(at, to) in place.kind.links {
        if fs::read_link(place.at(at)).is_ok_and(|found| found == Path::new(to)) {
            steps.push(Step::Unlink(at.to_owned()));
        }
    }
    if place.has_table() && place.is_in_table() {
        steps.push(Step::NoLine(kinds::INITTAB, kinds::INITTAB_LINE));
    }
    if place.live && installed {
        steps.extend(place.kind.gone.iter().map(|command| Step::Run(command)));
    }
    for (path, _, _, state) in place.files() {
        match state {
            State::Missing => {}
            State::Foreign => steps.push(Step::kept("file", path, "has been changed by somebody")),
            State::Same | State::Older => steps.push(Step::Unlink(path.to_owned())),
        }
    }
    let leftovers = place.kind.leftovers.iter().filter(|path| place.at(path).exists());
    steps.extend(leftovers.map(|path| Step::Folder(path)));
    if installed {
        steps.push(Step::kept("workspace", &place.dir, "stays, and so does its user"));
    }
    steps
}

/// Something that holds or does not, and how that is known.
pub type Evidence = (bool, Vec<String>);

/// What there is.
pub struct Found {
    pub installed: Evidence,
    pub enabled: Evidence,
    pub running: Evidence,
}

/// Looks; changes nothing.
pub fn look(place: &Place) -> Found {
    let mut installed = (true, Vec::new());
    for (path, _, _, state) in place.files() {
        installed.0 &= state != State::Missing;
        installed.1.push([path, ": ", state.word()].concat());
    }
    let mut enabled = (true, Vec::new());
    for (at, _) in place.kind.links {
        let found = fs::read_link(place.at(at)).ok();
        enabled.0 &= found.is_some();
        let to = found.map_or_else(|| "missing".to_owned(), |to| ["points to ", &to.to_string_lossy()].concat());
        enabled.1.push([at, ": ", &to].concat());
    }
    if place.has_table() {
        enabled.0 &= place.is_in_table();
        let word = if place.is_in_table() { ": has the line " } else { ": does not have the line " };
        enabled.1.push([kinds::INITTAB, word, kinds::INITTAB_LINE.trim_end()].concat());
    }
    let dir = place.at(&place.dir);
    let answer = Connection::server(&dir).filter(|_| place.live).and_then(|server| server.get("/version").ok());
    let running = match answer {
        Some(answer) => {
            let version = answer.get("version").and_then(Value::as_str).unwrap_or("unknown");
            let holder = fs::read_to_string(dir.join("server.lock")).unwrap_or_default();
            let said = ["process ", holder.trim(), " answers at ", &place.dir, "/duragent.sock: version ", version];
            (true, vec![said.concat()])
        }
        None if place.live => (false, vec![["nobody answers at ", &place.dir, "/duragent.sock"].concat()]),
        None => (false, Vec::new()),
    };
    Found { installed, enabled, running }
}
