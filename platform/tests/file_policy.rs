//! The file tools under a policy, on a real file system, with both ways to keep links out.

mod common;

use common::{TempDir, everything};
use duragent_platform::sandbox::{Access, Grant, Lookup, Place, Policy, Refused, View};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const LOOKUPS: [Lookup; 2] = [Lookup::Openat2, Lookup::Walk];

/// What is to come of an operation.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// The contents that are read, or the file that is changed: `@` is the temporary directory.
    Done(&'static str),
    /// The path that is refused, with `@`.
    Refused(&'static str),
    /// An error of the kernel's.
    Kind(ErrorKind),
    /// One without a kind that can be named.
    Errno(i32),
}
use Expect::{Done, Errno, Kind};

/// A working directory `w` with links in all directions, and things beside it that are granted or not.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(TempDir::new());
        for (path, text) in [
            ("w/a.txt", "a"),
            ("w/sub/b.txt", "b"),
            ("w/sub/.duragent/x", "workspace"),
            ("w/.duragent/duragent.yaml", "config"),
            ("w/.duragent/artifacts/c1.txt", "artifact"),
            ("w/.git/hooks/pre-commit", "hook"),
            ("w/prompt.md", "prompt"),
            ("data/d.txt", "d"),
            ("out/o.txt", "o"),
            ("single/file", "single"),
            ("outside/secret", "secret"),
            ("outside/dir/deep", "deep"),
        ] {
            let path = scene.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for (link, text) in [
            ("in", "sub/b.txt"),
            ("chain1", "sub/chain2"),
            ("sub/chain2", "../chain3"),
            ("chain3", "a.txt"),
            ("absolute", "@/w/a.txt"),
            ("dirs", "sub"),
            ("to-data", "../data"),
            ("to-out", "@/out"),
            ("to-workspace", ".duragent"),
            ("to-hooks", ".git/hooks"),
            ("out-file", "../outside/secret"),
            ("out-dir", "@/outside"),
            ("out-chain", "out-again"),
            ("out-again", "out-dir/secret"),
            ("out-link", "../outside/link"),
            ("loop1", "loop2"),
            ("loop2", "loop1"),
            ("inside-itself", "inside-itself/x"),
            ("dangling", "nowhere"),
            ("dangling-dir", "nowhere/further"),
            ("dangling-out", "../outside/nothing"),
            // Listed, but made by the agent: the list does not pass to where it leads.
            ("cache", "../outside"),
            ("../outside/link", "secret"),
            ("../outside/loop", "loop"),
            ("../outside/back", "@/w/a.txt"),
            ("../outside/back-up", "../w/a.txt"),
        ] {
            symlink(text.replace('@', scene.0.path().to_str().unwrap()), scene.0.join("w").join(link)).unwrap();
        }
        scene
    }

    fn view(&self) -> View {
        let policy = Policy {
            read: vec![self.0.join("data")],
            write: ["out", "single/file", "unmade/file", "w/cache"].map(|path| self.0.join(path)).to_vec(),
            hidden: vec![self.0.join("w/.duragent")],
            read_only: vec![self.0.join("w/prompt.md")],
            ..Policy::default()
        };
        let (workdir, artifacts) = (self.0.join("w"), self.0.join("w/.duragent/artifacts"));
        View::new(&policy, Place { workdir: &workdir, artifacts: &artifacts })
    }

    fn path(&self, text: &str) -> PathBuf {
        PathBuf::from(text.replace('@', self.0.path().to_str().unwrap()))
    }

    /// Every file below, with its contents.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn add(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    add(&entry.path(), files);
                } else {
                    let link = || fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes();
                    let contents = if kind.is_symlink() { link() } else { fs::read(entry.path()).unwrap() };
                    files.push((entry.path(), contents));
                }
            }
        }
        let mut files = Vec::new();
        add(self.0.path(), &mut files);
        files.sort();
        files
    }

    fn check_refused(&self, error: &io::Error, expected: &str, access: Grant, what: &str) {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
        let refused = refused.unwrap_or_else(|| panic!("{what}: expected a refusal, found {error:?}"));
        assert_eq!((&refused.path, refused.access), (&self.path(expected), access), "{what}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}");
    }
}

fn read(view: &View, lookup: Lookup, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    view.open_by(lookup, path, Access::Read)?.read_to_string(&mut text)?;
    Ok(text)
}

fn refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

fn check_reads(rows: &[(&str, Expect)]) {
    let scene = Scene::new();
    let trust = everything(&scene.0.join("w"));
    for (path, expected) in rows {
        for lookup in LOOKUPS {
            let what = format!("{path} by {lookup:?}");
            let path = scene.path(path);
            match (read(&scene.view(), lookup, &path), *expected) {
                (Ok(found), Done(text)) => assert_eq!(found, text, "{what}"),
                (Err(error), Expect::Refused(path)) => scene.check_refused(&error, path, Grant::Read, &what),
                (Err(error), Kind(kind)) => assert_eq!(error.kind(), kind, "{what}: {error}"),
                (Err(error), Errno(errno)) => assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}"),
                (found, expected) => panic!("{what}: expected {expected:?}, found {found:?}"),
            }
            // Control: what refuses is the policy.
            let found = read(&trust, lookup, &path);
            assert!(!found.as_ref().is_err_and(refused), "{what}: trust refused it");
            if matches!(expected, Done(_)) {
                assert!(found.is_ok(), "{what}: {found:?}");
            }
        }
    }
}

#[test]
fn what_may_be_read() {
    check_reads(&[
        ("a.txt", Done("a")),
        ("./sub/../a.txt", Done("a")),
        (".//sub//./b.txt", Done("b")),
        ("@/w/a.txt", Done("a")),
        ("../w/a.txt", Done("a")),
        ("../../../../../../../../../../..@/w/a.txt", Done("a")),
        ("../data/d.txt", Done("d")),
        ("@/out/o.txt", Done("o")),
        ("@/single/file", Done("single")),
        (".duragent/artifacts/c1.txt", Done("artifact")),
        (".git/hooks/pre-commit", Done("hook")),
        ("prompt.md", Done("prompt")),
        ("in", Done("b")),
        ("chain1", Done("a")),
        ("absolute", Done("a")),
        ("dirs/b.txt", Done("b")),
        ("dirs/../a.txt", Done("a")),
        ("to-data/d.txt", Done("d")),
        ("to-data/../w/a.txt", Done("a")),
        ("to-workspace/artifacts/c1.txt", Done("artifact")),
        ("../outside/back", Done("a")),
        ("/proc/self/root@/w/a.txt", Done("a")),
        ("/proc/thread-self/root/proc/self/root@/w/in", Done("b")),
    ]);
}

#[test]
fn what_may_not_be_read_is_not_even_known_to_exist() {
    use Expect::Refused;
    check_reads(&[
        ("@/outside/secret", Refused("@/outside/secret")),
        ("../outside/secret", Refused("@/outside/secret")),
        ("../outside/missing", Refused("@/outside/missing")),
        ("../outside/missing/..", Refused("@/outside/missing")),
        ("../outside/secret/below", Refused("@/outside/secret/below")),
        ("../outside/dir/../../w/a.txt", Refused("@/outside/dir")),
        ("../outside/missing/../../w/a.txt", Refused("@/outside/missing")),
        ("../outside/secret/../../w/a.txt", Refused("@/outside/secret")),
        ("../outside/loop", Refused("@/outside/loop")),
        ("../outside/back-up", Refused("@/outside/back-up")),
        ("../outside/link", Refused("@/outside/link")),
        ("../outside/", Refused("@/outside")),
        ("..", Refused("@")),
        ("/", Refused("/")),
        ("/..", Refused("/")),
        ("out-file", Refused("@/outside/secret")),
        ("out-dir", Refused("@/outside")),
        ("out-dir/secret", Refused("@/outside/secret")),
        ("out-dir/../w/a.txt", Refused("@/outside")),
        ("out-chain", Refused("@/outside/secret")),
        ("cache/secret", Refused("@/outside/secret")),
        ("out-link", Refused("@/outside/link")),
        ("dangling-out", Refused("@/outside/nothing")),
        (".duragent", Refused("@/w/.duragent")),
        (".duragent/duragent.yaml", Refused("@/w/.duragent/duragent.yaml")),
        ("sub/../.duragent/missing", Refused("@/w/.duragent/missing")),
        ("to-workspace/duragent.yaml", Refused("@/w/.duragent/duragent.yaml")),
        ("to-workspace/artifacts/../duragent.yaml", Refused("@/w/.duragent/duragent.yaml")),
        ("sub/.duragent/x", Refused("@/w/sub/.duragent/x")),
        ("/etc/shadow", Refused("/etc/shadow")),
        ("/proc/self/root@/outside/secret", Refused("/proc/self/root@/outside/secret")),
        ("/proc/self/cwd/../../etc/shadow", Refused("/proc/self/cwd/../../etc/shadow")),
        ("/proc/self/fd/0", Refused("/proc/self/fd/0")),
        ("/proc/loadavg", Refused("/proc/loadavg")),
        ("/dev/zero", Refused("/dev/zero")),
    ]);
}

#[test]
fn what_the_kernel_says_is_said_of_what_is_granted() {
    check_reads(&[
        ("missing", Kind(ErrorKind::NotFound)),
        ("missing/../a.txt", Kind(ErrorKind::NotFound)),
        ("missing/further", Kind(ErrorKind::NotFound)),
        ("@/unmade/file", Kind(ErrorKind::NotFound)),
        ("dangling", Kind(ErrorKind::NotFound)),
        ("dangling-dir", Kind(ErrorKind::NotFound)),
        ("a.txt/", Kind(ErrorKind::NotADirectory)),
        ("a.txt/.", Kind(ErrorKind::NotADirectory)),
        ("a.txt/..", Kind(ErrorKind::NotADirectory)),
        ("a.txt/../a.txt", Kind(ErrorKind::NotADirectory)),
        ("a.txt/below", Kind(ErrorKind::NotADirectory)),
        ("in/", Kind(ErrorKind::NotADirectory)),
        ("", Kind(ErrorKind::IsADirectory)),
        (".", Kind(ErrorKind::IsADirectory)),
        ("sub", Kind(ErrorKind::IsADirectory)),
        ("sub/", Kind(ErrorKind::IsADirectory)),
        ("dirs/", Kind(ErrorKind::IsADirectory)),
        ("nul\0", Kind(ErrorKind::InvalidInput)),
        ("dirs/nul\0", Kind(ErrorKind::InvalidInput)),
        ("loop1", Errno(libc::ELOOP)),
        ("inside-itself", Errno(libc::ELOOP)),
        (&"n".repeat(256), Kind(ErrorKind::InvalidFilename)),
        (&("dirs/".to_owned() + &"n".repeat(256)), Kind(ErrorKind::InvalidFilename)),
        (&"sub/../".repeat(1000), Kind(ErrorKind::InvalidFilename)),
        (&("./".repeat(1900) + "a.txt"), Done("a")),
    ]);
}

#[test]
fn directories_are_listed_where_files_may_be_read() {
    let scene = Scene::new();
    for lookup in LOOKUPS {
        let list = |path: &str| scene.view().open_by(lookup, &scene.path(path), Access::List).map(drop);
        for path in ["", ".", "sub", "sub/", "dirs", "to-data", "@/out", ".git/hooks", "sub/..", "/usr/bin"] {
            list(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for (path, expected) in [("..", "@"), ("out-dir", "@/outside"), (".duragent", "@/w/.duragent"), ("/", "/")] {
            scene.check_refused(&list(path).unwrap_err(), expected, Grant::Read, path);
        }
        assert_eq!(list("in").unwrap_err().kind(), ErrorKind::NotADirectory);
    }
}

/// Each row in a scene of its own: the file that changes, or what is said instead while nothing changes.
fn check_writes(rows: &[(&str, Expect)]) {
    for (path, expected) in rows {
        for lookup in LOOKUPS {
            let what = format!("{path} by {lookup:?}");
            let scene = Scene::new();
            let before = scene.files();
            let written = scene.view().replace_by(lookup, &scene.path(path), b"written");
            match (&written, *expected) {
                (Ok(()), Done(path)) => {
                    let changed: Vec<_> = scene.files().into_iter().filter(|file| !before.contains(file)).collect();
                    assert_eq!(changed, [(scene.path(path), b"written".to_vec())], "{what}");
                    continue;
                }
                (Err(error), Expect::Refused(path)) => scene.check_refused(error, path, Grant::Write, &what),
                (Err(error), Kind(kind)) => assert_eq!(error.kind(), kind, "{what}: {error}"),
                (Err(error), Errno(errno)) => assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}"),
                (found, expected) => panic!("{what}: expected {expected:?}, found {found:?}"),
            }
            assert_eq!(scene.files(), before, "{what}");
            // Control: what refuses is the policy. Only within the scene: the rest of the machine is not ours to change.
            let here =
                matches!(expected, Expect::Refused(path) if path.starts_with("@/") && !path.contains("missing/"));
            if here {
                let found = everything(&scene.0.join("w")).replace_by(lookup, &scene.path(path), b"written");
                assert!(!found.is_err_and(|error| refused(&error)), "{what}: trust refused it");
            }
        }
    }
}

#[test]
fn what_may_be_changed() {
    check_writes(&[
        ("a.txt", Done("@/w/a.txt")),
        ("new.txt", Done("@/w/new.txt")),
        ("sub/new/deep/er.txt", Done("@/w/sub/new/deep/er.txt")),
        ("@/w/sub/../new.txt", Done("@/w/new.txt")),
        ("@/out/new/o.txt", Done("@/out/new/o.txt")),
        ("in", Done("@/w/sub/b.txt")),
        ("chain1", Done("@/w/a.txt")),
        ("dirs/new.txt", Done("@/w/sub/new.txt")),
        ("dirs/new/new.txt", Done("@/w/sub/new/new.txt")),
        ("to-out/o.txt", Done("@/out/o.txt")),
        // A single file that is listed, in a directory that is not.
        ("../single/file", Done("@/single/file")),
        ("../outside/back", Done("@/w/a.txt")),
        ("/proc/self/root@/w/a.txt", Done("@/w/a.txt")),
    ]);
}

#[test]
fn what_may_not_be_changed_stays() {
    use Expect::Refused;
    check_writes(&[
        ("@/outside/secret", Refused("@/outside/secret")),
        ("@/outside/new", Refused("@/outside/new")),
        ("../new", Refused("@/new")),
        ("../new/deep", Refused("@/new/deep")),
        ("../data/d.txt", Refused("@/data/d.txt")),
        ("../single/other", Refused("@/single/other")),
        // The file is listed, its missing directory is not.
        ("@/unmade/file", Refused("@/unmade")),
        ("../outside/", Refused("@/outside")),
        ("../outside/missing/..", Refused("@/outside/missing")),
        ("to-data/new", Refused("@/data/new")),
        ("out-file", Refused("@/outside/secret")),
        ("out-dir/secret", Refused("@/outside/secret")),
        ("out-dir/new/new", Refused("@/outside/new/new")),
        ("out-chain", Refused("@/outside/secret")),
        ("cache/secret", Refused("@/outside/secret")),
        ("dangling-out", Refused("@/outside/nothing")),
        ("prompt.md", Refused("@/w/prompt.md")),
        (".duragent/duragent.yaml", Refused("@/w/.duragent/duragent.yaml")),
        (".duragent/new/new", Refused("@/w/.duragent/new/new")),
        (".duragent/artifacts/c1.txt", Refused("@/w/.duragent/artifacts/c1.txt")),
        ("to-workspace/duragent.yaml", Refused("@/w/.duragent/duragent.yaml")),
        ("new/.duragent/duragent.yaml", Refused("@/w/new/.duragent/duragent.yaml")),
        (".git/hooks/pre-commit", Refused("@/w/.git/hooks/pre-commit")),
        ("to-hooks/post-commit", Refused("@/w/.git/hooks/post-commit")),
        (".bashrc", Refused("@/w/.bashrc")),
        (".config/systemd/user/x.service", Refused("@/w/.config/systemd/user/x.service")),
        ("/usr/bin/new", Refused("/usr/bin/new")),
        ("/etc/hosts", Refused("/etc/hosts")),
        ("/", Refused("/")),
        ("/proc/self/root@/outside/new", Refused("/proc/self/root@/outside/new")),
    ]);
}

#[test]
fn what_cannot_be_changed_is_said() {
    check_writes(&[
        ("sub", Kind(ErrorKind::IsADirectory)),
        ("sub/", Kind(ErrorKind::IsADirectory)),
        ("", Kind(ErrorKind::IsADirectory)),
        ("a.txt/", Kind(ErrorKind::NotADirectory)),
        ("a.txt/below", Kind(ErrorKind::NotADirectory)),
        ("a.txt/below/below", Kind(ErrorKind::NotADirectory)),
        ("missing/", Kind(ErrorKind::InvalidInput)),
        ("missing/..", Kind(ErrorKind::InvalidInput)),
        ("missing/../x", Kind(ErrorKind::NotFound)),
        ("dangling", Kind(ErrorKind::NotFound)),
        ("dangling/x", Kind(ErrorKind::NotFound)),
        ("dangling-dir", Kind(ErrorKind::NotFound)),
        ("nul\0", Kind(ErrorKind::InvalidInput)),
        ("loop1", Errno(libc::ELOOP)),
        (&"n".repeat(256), Kind(ErrorKind::InvalidFilename)),
        (&("new/".to_owned() + &"n".repeat(256)), Kind(ErrorKind::InvalidFilename)),
    ]);
}

#[test]
fn what_a_protected_name_leads_to_is_protected_too() {
    let scene = Scene(TempDir::new());
    for path in ["w/dotfiles/bashrc", "w/repository/hooks/pre-commit", "w/keys/token"] {
        let path = scene.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "kept").unwrap();
    }
    for (link, text) in [("w/.bashrc", "dotfiles/bashrc"), ("w/.git", "repository"), ("w/token", "keys/token")] {
        symlink(text, scene.0.join(link)).unwrap();
    }
    let policy = Policy { hidden: vec![scene.0.join("w/token")], ..Policy::default() };
    let workdir = scene.0.join("w");
    let view = View::new(&policy, Place { workdir: &workdir, artifacts: &workdir });
    let before = scene.files();
    for lookup in LOOKUPS {
        for (path, expected) in [
            (".bashrc", "@/w/dotfiles/bashrc"),
            ("dotfiles/bashrc", "@/w/dotfiles/bashrc"),
            (".git/hooks/new", "@/w/repository/hooks/new"),
            ("repository/hooks/pre-commit", "@/w/repository/hooks/pre-commit"),
            ("token", "@/w/token"),
            ("keys/token", "@/w/keys/token"),
        ] {
            let error = view.replace_by(lookup, Path::new(path), b"x").unwrap_err();
            scene.check_refused(&error, expected, Grant::Write, path);
        }
        let error = read(&view, lookup, Path::new("keys/token")).unwrap_err();
        scene.check_refused(&error, "@/w/keys/token", Grant::Read, "keys/token");
        assert_eq!(read(&view, lookup, Path::new(".bashrc")).unwrap(), "kept");
        assert_eq!(scene.files(), before);
        // Control: beside them all may be changed.
        for path in ["dotfiles/other", "repository/index", "keys/other"] {
            view.replace_by(lookup, Path::new(path), b"x").unwrap();
            fs::remove_file(workdir.join(path)).unwrap();
        }
    }
}

#[test]
fn a_service_works_inside_its_hidden_workspace() {
    let dir = TempDir::new();
    let workdir = dir.join("real/sessions/s/work");
    fs::create_dir_all(&workdir).unwrap();
    fs::write(dir.join("real/duragent.yaml"), "config").unwrap();
    symlink("real", dir.join("link")).unwrap();
    for hidden in ["real", "link"] {
        let policy = Policy { hidden: vec![dir.join(hidden)], ..Policy::default() };
        let view = View::new(&policy, Place { workdir: &workdir, artifacts: &workdir });
        for lookup in LOOKUPS {
            view.replace_by(lookup, Path::new("a"), b"x").unwrap();
            assert_eq!(read(&view, lookup, Path::new("a")).unwrap(), "x");
            for path in ["real/duragent.yaml", "link/duragent.yaml"] {
                assert!(refused(&read(&view, lookup, &dir.join(path)).unwrap_err()), "{path}");
            }
        }
    }
}

#[test]
fn as_many_links_are_followed_as_the_kernel_follows() {
    let dir = TempDir::new();
    fs::write(dir.join("0"), "end").unwrap();
    for i in 1..=45 {
        symlink((i - 1).to_string(), dir.join(&i.to_string())).unwrap();
    }
    let view = View::new(&Policy::default(), Place { workdir: dir.path(), artifacts: dir.path() });
    for i in 1..=45 {
        let kernel = fs::read_to_string(dir.join(&i.to_string())).map_err(|error| error.raw_os_error());
        for lookup in LOOKUPS {
            let ours = read(&view, lookup, Path::new(&i.to_string())).map_err(|error| error.raw_os_error());
            assert_eq!(ours, kernel, "{i} links by {lookup:?}");
        }
    }
}

#[test]
fn names_need_not_be_text() {
    let dir = TempDir::new();
    let view = View::new(&Policy::default(), Place { workdir: dir.path(), artifacts: dir.path() });
    let name = |bytes: &'static [u8]| Path::new(OsStr::from_bytes(bytes));
    for lookup in LOOKUPS {
        view.replace_by(lookup, name(b"d\xff/f\xfe"), b"text").unwrap();
        symlink(name(b"d\xff"), dir.path().join(name(b"l\xfd"))).unwrap();
        view.replace_by(lookup, name(b"l\xfd/f\xfe"), b"more").unwrap();
        assert_eq!(read(&view, lookup, name(b"l\xfd/../d\xff/f\xfe")).unwrap(), "more");
        let error = read(&view, lookup, name(b"../\xff")).unwrap_err();
        assert!(error.to_string().contains("/\\xFF\" may not be read: "), "{error}");
        fs::remove_file(dir.path().join(name(b"l\xfd"))).unwrap();
    }
}

#[test]
fn a_second_name_for_a_protected_file_is_replaced_alone() {
    let scene = Scene::new();
    let config = scene.0.join("w/.duragent/duragent.yaml");
    for lookup in LOOKUPS {
        let _ = fs::remove_file(scene.0.join("w/second"));
        fs::hard_link(&config, scene.0.join("w/second")).unwrap();
        scene.view().replace_by(lookup, Path::new("second"), b"taken over").unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "config");
    }
}
