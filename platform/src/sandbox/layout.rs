//! A view, held against what is on the disk just now: what a backend has to do, path by path, and what has to be looked at
//! when the tool has ended.
//!
//! A mount or a rule holds a file that is there. Three cases need more. A protected file that is not there yet cannot be
//! mounted on: whatever is at its name when the tool has ended is moved aside ([`Watch`]). A protected name that is a
//! symbolic link can be replaced as a name: the same, and the link is put back. And a protected file could be carried off by
//! renaming a directory above it: those directories become mounts on themselves, which cannot be renamed ([`Kind::Pin`]).
//!
//! Invariant: links are followed where only the system makes them. Elsewhere a path is what it looks like or it is not there,
//! and its identity is noted, so that a backend that has to go by names can check what it got ([`Step::id`]).

use super::files;
use super::policy::{Entry, Grant, NETWORK_READ, SYSTEM_READ, View};
use super::watch::{Watch, first_link};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to do for a view.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) steps: Steps,
    /// Names to look at when the tool has ended.
    pub(super) watch: Vec<Watch>,
}

/// By path: what holds comes before what it holds.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<(PathBuf, Step)>);

impl Steps {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, (PathBuf, Step)> {
        self.0.iter()
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Step> {
        self.0.get(self.find(path).ok()?).map(|(_, step)| step)
    }

    fn find(&self, path: &Path) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_path().cmp(path))
    }

    /// Puts a step in the place of another one.
    fn set(&mut self, path: &Path, step: Step) {
        match self.find(path) {
            Ok(at) => self.0.iter_mut().skip(at).take(1).for_each(|(_, old)| *old = step.clone()),
            Err(at) => self.0.insert(at, (path.to_owned(), step)),
        }
    }
}

/// What to do at a path that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What.
    pub(super) kind: Kind,
    /// What is there, where somebody else could change it. Nothing is kept of what will be hidden.
    pub(super) id: Option<Id>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Let it be read.
    Read,
    /// Let it be changed.
    Write,
    /// A symbolic link of the system to a directory that is granted elsewhere.
    Link(PathBuf),
    /// A directory that may be changed, but not renamed: something below it is protected.
    Pin,
    /// Let it be read, though what is above it may be changed.
    Keep,
    /// Put an empty directory or file in its place.
    Hide,
}

/// Device and inode: which file a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Id {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What is granted from `path` on while the entries are walked.
struct Granted<'a> {
    path: &'a Path,
    grant: Grant,
    /// The nearest entry above, or this one, that grants.
    root: &'a Path,
}

/// Looks at the disk.
pub(super) fn layout(view: &View) -> Layout {
    let mut layout = Layout::default();
    let mut stack: Vec<Granted<'_>> = Vec::new();
    for entry in view.entries() {
        while stack.last().is_some_and(|above| !entry.path.starts_with(above.path)) {
            stack.pop();
        }
        let above = stack.last().map_or(Grant::None, |above| above.grant);
        // What is there already is not granted again, what is not there not taken away.
        if if entry.limits { entry.grant >= above } else { entry.grant <= above } {
            continue;
        }
        let root = match stack.last() {
            Some(above) if entry.limits => above.root,
            _ => &entry.path,
        };
        if entry.limits {
            layout.limit(view, entry, root, above);
        } else {
            layout.grant(view, entry);
        }
        stack.push(Granted { path: &entry.path, grant: entry.grant, root });
    }
    layout
}

impl Layout {
    fn grant(&mut self, view: &View, entry: &Entry) {
        let kind = if entry.grant == Grant::Write { Kind::Write } else { Kind::Read };
        if SYSTEM_READ.iter().chain(NETWORK_READ).any(|path| entry.path == Path::new(path)) {
            self.grant_system(view, &entry.path, kind);
        } else if let Some(id) = identity(&entry.path) {
            // The lists were made free of links when they were read. One that is there now was made since, and not by us.
            self.steps.set(&entry.path, Step { kind, id: Some(id) });
        }
    }

    fn grant_system(&mut self, view: &View, path: &Path, kind: Kind) {
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        if !(metadata.is_symlink() && path.is_dir()) {
            // A symbolic link to a file is taken as that file.
            if path.exists() {
                self.steps.set(path, Step { kind, id: None });
            }
            return;
        }
        if let (Ok(target), Ok(real)) = (fs::read_link(path), fs::canonicalize(path)) {
            self.steps.set(path, Step { kind: Kind::Link(target), id: None });
            if view.grant(&real) < Grant::Read {
                self.steps.set(&real, Step { kind, id: None });
            }
        }
    }

    fn limit(&mut self, view: &View, entry: &Entry, root: &Path, above: Grant) {
        let path = &entry.path;
        let error = match files::name(path).and_then(|file| file.metadata()) {
            Ok(found) => return self.protect(root, path, entry.grant, Id::of(&found)),
            Err(error) => error,
        };
        let changeable = above == Grant::Write;
        match error.raw_os_error() {
            Some(libc::ELOOP) => {
                let real = fs::canonicalize(path).ok().filter(|real| view.grant(real) > entry.grant);
                if let Some((real, id)) = real.and_then(|real| identity(&real).map(|id| (real, id))) {
                    self.protect(root_of(view, &real), &real, entry.grant, id);
                }
                // From the root down: the first is what can be replaced.
                let link = first_link(path).filter(|part| part.starts_with(root) && *part != root);
                let link = link.and_then(|part| Some((part, fs::read_link(part).ok()?)));
                if let Some((part, target)) = link.filter(|_| changeable) {
                    let watch = Watch { path: part.to_owned(), link: Some(target) };
                    if !self.watch.contains(&watch) {
                        self.watch.push(watch);
                    }
                }
            }
            // A `.git` that is a file says where the repository is.
            Some(libc::ENOTDIR) => {
                let file = path.ancestors().skip(1).find_map(|part| Some((part, identity(part)?)));
                if let Some((file, id)) = file.filter(|(file, _)| file.starts_with(root) && *file != root) {
                    self.protect(root, file, entry.grant, id);
                }
            }
            Some(libc::ENOENT) if changeable && !in_missing_repository(root, path) => {
                self.watch.push(Watch { path: path.clone(), link: None });
            }
            _ => {}
        }
    }

    fn protect(&mut self, root: &Path, path: &Path, grant: Grant, id: Id) {
        let between = path.ancestors().skip(1).take_while(|above| above.starts_with(root) && *above != root);
        for above in between {
            if self.steps.get(above).is_none() {
                self.steps.set(above, Step { kind: Kind::Pin, id: identity(above) });
            }
        }
        let hidden = grant == Grant::None;
        let step = Step { kind: if hidden { Kind::Hide } else { Kind::Keep }, id: (!hidden).then_some(id) };
        self.steps.set(path, step);
    }

    /// True if something below `path` has less than `path` has.
    pub(super) fn is_limited_below(&self, path: &Path) -> bool {
        let mut below = self.steps.iter().filter(|(below, _)| below != path && below.starts_with(path));
        below.any(|(_, step)| matches!(step.kind, Kind::Keep | Kind::Hide))
    }
}

/// Which file is at `path`; `None` if there is none, or a symbolic link in some part.
fn identity(path: &Path) -> Option<Id> {
    files::name(path).and_then(|file| file.metadata()).ok().map(|found| Id::of(&found))
}

/// The deepest directory above `path` that is granted as such.
fn root_of<'v>(view: &'v View, path: &Path) -> &'v Path {
    let mut above = view.entries().iter().filter(|entry| !entry.limits && path.starts_with(&entry.path));
    above.next_back().map_or(Path::new("/"), |entry| &entry.path)
}

/// True for what would be in `.git` if there were one: who makes a repository fills it.
fn in_missing_repository(root: &Path, path: &Path) -> bool {
    let repository = root.join(".git");
    path.starts_with(&repository) && fs::symlink_metadata(&repository).is_err()
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Place, Policy};
    use super::super::watch::put_aside;
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("duragent-layout-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().canonicalize().unwrap().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn make(&self, names: &[&str]) {
            for name in names {
                let path = self.0.join(name.split(" -> ").next().unwrap());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match name.split_once(" -> ") {
                    Some((_, target)) => symlink(target, path).unwrap(),
                    None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
                    None => fs::write(path, "x").unwrap(),
                }
            }
        }

        fn layout(&self, change: impl FnOnce(&mut Policy)) -> Layout {
            let mut policy = Policy { hidden: vec![self.0.join("w/.duragent")], ..Policy::default() };
            change(&mut policy);
            let (workdir, artifacts) = (self.0.join("w"), self.0.join("w/.duragent/sessions/s/artifacts"));
            layout(&View::new(&policy, Place { workdir: &workdir, artifacts: &artifacts }))
        }

        fn steps(&self, layout: &Layout) -> Vec<(String, Kind)> {
            let inside = layout.steps.iter().filter_map(|(path, step)| Some((path.strip_prefix(&self.0).ok()?, step)));
            inside.map(|(path, step)| (path.to_string_lossy().into_owned(), step.kind.clone())).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn is_watched(layout: &Layout, path: &Path) -> bool {
        layout.watch.iter().any(|watch| watch.path == path)
    }

    #[test]
    fn what_is_there_is_held_and_what_is_not_is_watched() {
        let folder = Folder::new();
        folder.make(&["w/.duragent/sessions/s/artifacts/", "w/.git/hooks/", "w/.git/config", "w/.bashrc", "w/src/"]);
        let layout = folder.layout(|_| {});
        let expected = [
            ("w", Kind::Write),
            ("w/.bashrc", Kind::Keep),
            ("w/.duragent", Kind::Hide),
            ("w/.duragent/sessions/s/artifacts", Kind::Read),
            ("w/.git", Kind::Pin),
            ("w/.git/config", Kind::Keep),
            ("w/.git/hooks", Kind::Keep),
        ];
        assert_eq!(folder.steps(&layout), expected.map(|(path, kind)| (path.to_owned(), kind)));
        assert!(is_watched(&layout, &folder.0.join("w/.profile")));
        assert!(is_watched(&layout, &folder.0.join("w/.git/commondir")));
        assert!(!is_watched(&layout, &folder.0.join("w/.bashrc")));
        assert!(layout.is_limited_below(&folder.0.join("w")));
        assert!(layout.is_limited_below(&folder.0.join("w/.git")));
        assert!(!layout.is_limited_below(&folder.0.join("w/.bashrc")));
    }

    #[test]
    fn a_workspace_further_down_pins_what_is_above_it() {
        let folder = Folder::new();
        folder.make(&["w/a/b/space/"]);
        let layout = folder.layout(|policy| policy.hidden = vec![folder.0.join("w/a/b/space")]);
        let expected = [("w", Kind::Write), ("w/a", Kind::Pin), ("w/a/b", Kind::Pin), ("w/a/b/space", Kind::Hide)];
        assert_eq!(folder.steps(&layout), expected.map(|(path, kind)| (path.to_owned(), kind)));
        assert!(is_watched(&layout, &folder.0.join("w/.duragent")), "a workspace that is not there yet");
        assert!(!is_watched(&layout, &folder.0.join("w/.git/hooks")), "who makes a repository fills it");
    }

    #[test]
    fn links_to_protected_files_protect_the_file_and_the_link() {
        let folder = Folder::new();
        folder.make(&["w/dotfiles/bashrc", "w/.bashrc -> dotfiles/bashrc", "w/.profile -> nowhere"]);
        folder.make(&["w/repository/hooks/", "w/.git -> repository"]);
        let layout = folder.layout(|_| {});
        let expected = [
            ("w", Kind::Write),
            ("w/dotfiles", Kind::Pin),
            ("w/dotfiles/bashrc", Kind::Keep),
            ("w/repository", Kind::Pin),
            ("w/repository/hooks", Kind::Keep),
        ];
        assert_eq!(folder.steps(&layout), expected.map(|(path, kind)| (path.to_owned(), kind)));
        let watched = |name: &str| layout.watch.iter().find(|w| w.path == folder.0.join(name)).unwrap().link.clone();
        assert_eq!(watched("w/.bashrc"), Some("dotfiles/bashrc".into()));
        assert_eq!(watched("w/.profile"), Some("nowhere".into()));
        assert_eq!(watched("w/.git"), Some("repository".into()));
    }

    #[test]
    fn a_repository_that_is_a_file_is_kept_as_one() {
        let folder = Folder::new();
        folder.make(&["w/.git"]);
        let expected = [("w", Kind::Write), ("w/.git", Kind::Keep)];
        assert_eq!(folder.steps(&folder.layout(|_| {})), expected.map(|(path, kind)| (path.to_owned(), kind)));
    }

    /// A tool may have made it: what it leads to was never granted.
    #[test]
    fn a_listed_path_that_has_become_a_link_is_not_there() {
        let folder = Folder::new();
        folder.make(&["outside/secret", "x/", "x/link -> ../outside", "x/sub -> ../outside", "x/plain"]);
        for name in ["x/link", "x/sub/secret"] {
            let layout = folder.layout(|policy| policy.write = vec![folder.0.join(name)]);
            assert_eq!(folder.steps(&layout), [], "{name}");
        }
        let layout = folder.layout(|policy| policy.write = vec![folder.0.join("x/plain")]);
        assert_eq!(folder.steps(&layout), [("x/plain".to_owned(), Kind::Write)]);
        let id = layout.steps.get(&folder.0.join("x/plain")).unwrap().id;
        assert_eq!(id, Some(Id::of(&fs::metadata(folder.0.join("x/plain")).unwrap())));
    }

    #[test]
    fn what_is_granted_already_is_not_granted_again() {
        let folder = Folder::new();
        folder.make(&["w/a/", "w/b/"]);
        let layout = folder.layout(|policy| {
            policy.read = vec![folder.0.join("w/a"), "/usr/bin".into()];
            policy.write = vec![folder.0.join("w/b")];
        });
        assert_eq!(folder.steps(&layout), [("w".to_owned(), Kind::Write)]);
        assert_eq!(layout.steps.get(Path::new("/usr/bin")), None);
    }

    #[test]
    fn what_was_made_at_a_protected_name_is_moved_aside_and_links_are_put_back() {
        let folder = Folder::new();
        folder.make(&["w/.bashrc -> dotfiles/bashrc", "w/.zshrc -> a"]);
        let layout = folder.layout(|_| {});
        assert_eq!(put_aside(&layout.watch), [] as [&Path; 0], "nothing was changed");
        fs::remove_file(folder.0.join("w/.bashrc")).unwrap();
        fs::remove_file(folder.0.join("w/.zshrc")).unwrap();
        folder.make(&["w/.bashrc", "w/.profile", "w/.duragent/duragent.yaml"]);
        // A way that leads elsewhere now: what is there is not ours to move, but the link is.
        folder.make(&["outside/fish/", "w/.config -> ../outside"]);
        let mut aside = put_aside(&layout.watch);
        aside.sort();
        assert!(folder.0.join("outside/fish").is_dir() && !folder.0.join("w/.config").is_symlink());
        let expected = ["w/.bashrc", "w/.config/fish", "w/.duragent", "w/.profile", "w/.zshrc"];
        let expected = expected.map(|name| folder.0.join(name));
        assert_eq!(aside, expected);
        assert_eq!(fs::read_link(folder.0.join("w/.bashrc")).unwrap(), Path::new("dotfiles/bashrc"));
        assert_eq!(fs::read_link(folder.0.join("w/.zshrc")).unwrap(), Path::new("a"));
        let mut names: Vec<_> = fs::read_dir(folder.0.join("w")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let kept = names.iter().filter(|name| name.to_string_lossy().contains(".refused-by-duragent-")).count();
        assert_eq!((names.len(), kept), (6, 4), "nothing is lost: {names:?}");
    }
}
