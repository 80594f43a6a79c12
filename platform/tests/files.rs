//! Opening and replacing files in trust mode, on a real file system, with both ways to keep links out.

mod common;

use common::{TESTBED, TempDir, everything};
use duragent_platform::sandbox::{Access, Lookup, entries};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Runs a test with each of them.
fn each(test: impl Fn(Lookup)) {
    [Lookup::Openat2, Lookup::Walk].into_iter().for_each(test);
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn open_reads_files_and_refuses_the_rest() {
    each(check_open);
}

fn check_open(lookup: Lookup) {
    let dir = TempDir::new();
    fs::write(dir.join("a.txt"), "text").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    make_pipe(&dir.join("pipe"));
    symlink("a.txt", dir.join("link")).unwrap();
    let open = |path: &str, access| everything(dir.path()).open_by(lookup, Path::new(path), access);

    for path in ["a.txt", "sub/../a.txt", "link", dir.join("a.txt").to_str().unwrap()] {
        let (mut file, mut text) = (open(path, Access::Read).unwrap(), String::new());
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text", "{path}");
        // SAFETY: asks for the flags of an open descriptor.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "{path}");
    }
    let check = |path, access, kind| assert_eq!(open(path, access).unwrap_err().kind(), kind, "{path} {access:?}");
    check("none", Access::Read, ErrorKind::NotFound);
    check("none", Access::List, ErrorKind::NotFound);
    check("sub", Access::Read, ErrorKind::IsADirectory);
    check("pipe", Access::Read, ErrorKind::InvalidInput);
    check("/dev/zero", Access::Read, ErrorKind::InvalidInput);
    check("a.txt", Access::List, ErrorKind::NotADirectory);
    check("a.txt/b", Access::Read, ErrorKind::NotADirectory);
}

#[test]
fn a_listed_directory_stays_itself_when_it_is_renamed() {
    let dir = TempDir::new();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/a"), "12345").unwrap();
    let opened = everything(dir.path()).open(Path::new("sub"), Access::List).unwrap();
    fs::rename(dir.join("sub"), dir.join("moved")).unwrap();
    let found: Vec<_> = entries(&opened).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].file_name().to_str(), found[0].metadata().unwrap().len()), (Some("a"), 5));
}

#[test]
fn replace_makes_overwrites_and_keeps_mode_owner_and_links() {
    each(check_replace);
}

fn check_replace(lookup: Lookup) {
    let dir = TempDir::new();
    let replace =
        |path: &str, contents: &str| everything(dir.path()).replace_by(lookup, Path::new(path), contents.as_bytes());

    replace("new/deep/a.txt", "one").unwrap();
    assert_eq!(fs::read_to_string(dir.join("new/deep/a.txt")).unwrap(), "one");

    let script = dir.join("run.sh");
    fs::write(&script, "old and long").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    let privileged = duragent_platform::process::uid() == 0;
    if privileged {
        std::os::unix::fs::chown(&script, Some(12345), Some(12345)).unwrap();
    }
    symlink("run.sh", dir.join("link")).unwrap();
    replace("link", "new").unwrap();
    let metadata = fs::metadata(&script).unwrap();
    assert_eq!(fs::read_to_string(&script).unwrap(), "new");
    assert_eq!(metadata.mode() & 0o7777, 0o750);
    assert_eq!(metadata.uid() == 12345, privileged);
    assert!(fs::symlink_metadata(dir.join("link")).unwrap().is_symlink());

    let long = "n".repeat(255);
    replace(&long, "long name").unwrap();
    replace("empty", "").unwrap();
    assert_eq!(dir.names(), ["empty", "link", "new", &long, "run.sh"], "and no temporary file is left");
}

#[test]
fn set_id_bits_do_not_pass_to_what_an_agent_wrote() {
    let dir = TempDir::new();
    let program = dir.join("program");
    let mode = || fs::metadata(&program).unwrap().mode() & 0o7777;
    each(|lookup| {
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6751)).unwrap();
        assert_eq!(mode(), 0o6751);
        everything(dir.path()).replace_by(lookup, &program, b"new").unwrap();
        assert_eq!(mode(), 0o751);
    });
}

#[test]
fn a_new_file_has_the_mode_of_the_umask() {
    let dir = TempDir::new();
    fs::write(dir.join("plain"), "").unwrap();
    everything(dir.path()).replace(Path::new("replaced"), b"").unwrap();
    let mode = |name| fs::metadata(dir.join(name)).unwrap().mode();
    assert_eq!(mode("replaced"), mode("plain"));
}

#[test]
fn what_cannot_be_replaced_is_refused_and_nothing_stays() {
    each(check_what_cannot_be_replaced);
}

fn check_what_cannot_be_replaced(lookup: Lookup) {
    let dir = TempDir::new();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("file"), "kept").unwrap();
    make_pipe(&dir.join("pipe"));
    symlink("nowhere", dir.join("dangling")).unwrap();
    let before = dir.names();
    let check = |path: &str, kind| {
        let error = everything(dir.path()).replace_by(lookup, Path::new(path), b"x").unwrap_err();
        assert_eq!(error.kind(), kind, "{path}: {error}");
        assert_eq!(dir.names(), before, "{path}");
    };
    check("sub", ErrorKind::IsADirectory);
    check("sub/..", ErrorKind::IsADirectory);
    check("new/..", ErrorKind::InvalidInput);
    check("pipe", ErrorKind::InvalidInput);
    check("dangling", ErrorKind::NotFound);
    check("file/below", ErrorKind::NotADirectory);
    check("/dev/null", ErrorKind::InvalidInput);
    check(&"n".repeat(256), ErrorKind::InvalidFilename);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "kept");
}

fn testbed(args: &[&str]) -> String {
    let output = Command::new(TESTBED).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_failed_write_keeps_the_old_file_and_removes_the_temporary_one() {
    let dir = TempDir::new();
    let path = dir.join("file");
    fs::write(&path, "kept").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(testbed(&["replace-limited", "4096", path]), "FileTooLarge\n");
    assert_eq!(fs::read_to_string(path).unwrap(), "kept");
    assert_eq!(dir.names(), ["file"]);
    // Control: the limit was what failed.
    assert_eq!(testbed(&["replace-limited", "1000000", path]), "replaced\n");
    assert_eq!(fs::metadata(path).unwrap().len(), 64 * 1024);
}

/// Needs root, to become somebody else; an ordinary user is somebody else already.
#[test]
fn a_write_protected_file_stays() {
    let dir = TempDir::new();
    let path = dir.join("file");
    fs::write(&path, "kept").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let attempt = |mode: u32| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if duragent_platform::process::uid() == 0 {
            testbed(&["replace-as", "65534", path.to_str().unwrap()])
        } else {
            match everything(Path::new("/")).replace(&path, b"x") {
                Ok(()) => "replaced\n".to_owned(),
                Err(error) => format!("{:?}\n", error.kind()),
            }
        }
    };
    assert_eq!(attempt(0o444), "PermissionDenied\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    assert_eq!(dir.names(), ["file"]);
    assert_eq!(attempt(0o666), "replaced\n");
}
