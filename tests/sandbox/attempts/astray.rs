//! Links and names that lead what is done from outside astray: mounts, rules, and what is put in order when a tool has ended.

use super::{Attempt, OK};
use crate::house::{House, SECRET};
use crate::inside::{Inside, create, open_to_write, overwrite, read};
use crate::kernel::{Answer, Refused};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub const ATTEMPTS: &[Attempt] = &[
    // A project that came with links where protected names are.
    Attempt::new("links: tasks of an editor are outside", |_| create(".vscode/tasks.json"), "ENOENT|EEXIST", "EACCES")
        .hurts()
        .after(|house| link(house, "../outside/open", ".vscode")),
    Attempt::new("links: a start-up file is outside", |_| overwrite(".zshrc"), "ENOENT", "EACCES")
        .hurts()
        .after(|house| link(house, "../home/.profile", ".zshrc")),
    Attempt::new("links: the workspace is outside", |_| open_to_write(".duragent/policy.yaml"), "ENOENT", "EACCES")
        .after(|house| {
            fs::rename(house.root.join("project/.duragent"), house.root.join("outside/ws")).unwrap();
            link(house, "../outside/ws", ".duragent");
        }),
    Attempt::new("links: .git is outside, make a hook", |_| create(".git/hooks/x"), "ENOENT|EEXIST", "EACCES|EEXIST")
        .hurts()
        .after(git_outside),
    Attempt::new("links: .git is outside, make a file", |_| create(".git/x"), "ENOENT|EEXIST", "EACCES|EEXIST")
        .hurts()
        .after(git_outside),
    Attempt::new("links: .git is outside, read its configuration", |_| read(".git/config"), "ENOENT", "EACCES")
        .after(git_outside),
    // A link into what may be read makes nothing of it writable.
    Attempt::new("links: .git is where one may read, change a file", |_| overwrite(".git/HEAD"), "EROFS", "EACCES")
        .hurts()
        .after(git_outside)
        .with(|house, policy| policy.read.push(house.root.join("outside"))),
    // The directory above protected names leads outside, where these names are.
    Attempt::new("links: .config is outside, make a file", |_| create(".config/x"), "ENOENT|EEXIST", "EACCES|EEXIST")
        .hurts()
        .after(|house| {
            configured_home(house);
            link(house, "../home/.config", ".config");
        }),
    Attempt::new("links: .config is outside, read a file", |_| read(".config/fish/config.fish"), "ENOENT", "EACCES")
        .after(|house| {
            configured_home(house);
            link(house, "../home/.config", ".config");
        }),
    // What is put in order afterwards, outside.
    Attempt::new(
        "links: lead the clearing up to outside",
        |_| Ok(symlink("../home/.config", ".config")?),
        OK,
        "EACCES",
    )
    .after(configured_home),
    Attempt::new(
        "links: lead the clearing of temporary files to outside",
        |i| {
            let directory = std::env::var_os("TMPDIR").map_or(PathBuf::from("src"), PathBuf::from);
            Ok(symlink(&i.outside, directory.join("link"))?)
        },
        OK,
        OK,
    ),
    Attempt::new("links: a .git that is a file", |_| overwrite(".git"), "EROFS", "EACCES").hurts().after(|house| {
        fs::rename(house.root.join("project/.git"), house.root.join("outside/repository")).unwrap();
        fs::write(house.root.join("project/.git"), "gitdir: ../outside/repository\n").unwrap();
    }),
    Attempt::new(
        "links: lead the clearing up to outside, as a service",
        |i| Ok(symlink(i.root.join("home/.config"), ".config")?),
        OK,
        OK,
    )
    .in_service()
    .after(configured_home),
    // Another name for a protected file.
    Attempt::new(
        "names: change a start-up file through a hard link",
        |_| second_name(".bashrc"),
        "EXDEV",
        "EXDEV|EACCES",
    )
    .hurts(),
    Attempt::new(
        "names: change a git hook through a hard link",
        |_| second_name(".git/hooks/pre-commit"),
        "EXDEV",
        "EXDEV|EACCES",
    )
    .hurts(),
    Attempt::new(
        "names: change git's configuration through a hard link",
        |_| second_name(".git/config"),
        "EXDEV",
        "EXDEV|EACCES",
    )
    .hurts(),
    Attempt::new("names: reach files through any process", through_processes, "not there", "EACCES"),
    Attempt::new("names: change a program's mode through any process", program_mode, "EROFS|EACCES|EPERM", "EACCES"),
    // What the loader of programs does for whoever starts the sandbox, outside, if the tool's environment says so.
    Attempt::new("loader: have a file written outside", |_| Ok(()), OK, OK).hurts().environment(|house| {
        vec![
            ("LD_DEBUG".to_owned(), "files".to_owned()),
            ("LD_DEBUG_OUTPUT".to_owned(), house.root.join("outside/open/loader").display().to_string()),
        ]
    }),
    // Only for users of the machine who run it; nothing that a sandbox of files is asked about.
    Attempt::new(
        "leave a set-user-id program",
        |_| {
            fs::copy("notes.txt", "src/program")?;
            Ok(fs::set_permissions("src/program", fs::Permissions::from_mode(0o4755))?)
        },
        OK,
        OK,
    )
    .limit(),
    // A repository further down, whoever made it, is the project's own.
    Attempt::new("make a hook in a repository further down", |_| create("src/module/.git/hooks/pre-commit"), OK, OK)
        .limit(),
    Attempt::new(
        "make a hook for a module of the repository",
        |_| create(".git/modules/x/hooks/pre-commit"),
        OK,
        "EACCES",
    )
    .limit(),
];

fn link(house: &House, target: &str, name: &str) {
    let path = house.root.join("project").join(name);
    symlink(target, path).unwrap();
}

fn git_outside(house: &House) {
    fs::rename(house.root.join("project/.git"), house.root.join("outside/repository")).unwrap();
    link(house, "../outside/repository", ".git");
}

fn configured_home(house: &House) {
    for name in ["fish", "systemd", "autostart"] {
        let directory = house.root.join("home/.config").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.fish"), SECRET).unwrap();
    }
}

fn second_name(path: &str) -> Answer {
    fs::hard_link(path, "src/second")?;
    overwrite("src/second")
}

/// By the root, the working directory and the open directories of every process that is to be seen.
fn through_processes(inside: &Inside) -> Answer {
    let below = inside.outside.strip_prefix("/").map_err(|_| Refused::Nothing("relative"))?.join("secret-0644");
    for process in fs::read_dir("/proc")?.flatten() {
        let process = process.path();
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        for start in [process.join("root"), process.join("cwd")].into_iter().chain(open) {
            // From wherever it is, up to what is the root there.
            if read(start.join("../../../../../../..").join(&below)).is_ok() {
                return Ok(());
            }
        }
    }
    Err(Refused::Nothing("not there"))
}

/// The mode that it has. A program is named by the mount it was started from, which may be another than is seen here.
fn program_mode(_: &Inside) -> Answer {
    let mut answer = Err(Refused::Nothing("no process"));
    for process in fs::read_dir("/proc")?.flatten() {
        let program = process.path().join("exe");
        let changed = fs::metadata(&program).and_then(|found| {
            let mode = fs::Permissions::from_mode(found.permissions().mode());
            fs::set_permissions(Path::new(&program), mode)
        });
        match changed {
            Ok(()) => return Ok(()),
            // Names in /proc that are no processes.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(error) => answer = Err(error.into()),
        }
    }
    answer
}
