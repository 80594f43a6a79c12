//! What configures the runtime, and what runs outside by itself later.

use super::{Attempt, OK};
use crate::inside::{Inside, create, overwrite, read};
use crate::kernel::{Answer, Refused, as_arg, at, c_path, call, descriptor};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

pub const ATTEMPTS: &[Attempt] = &[
    // The workspace of the project.
    Attempt::new("read the configuration", |i| read(i.workspace.join("duragent.yaml")), "ENOENT", "EACCES"),
    Attempt::new("read the token of the server", |i| read(i.workspace.join("token")), "ENOENT", "EACCES"),
    Attempt::new(
        "read another session's log",
        |i| read(i.workspace.join("sessions/other/events.jsonl")),
        "ENOENT",
        "EACCES",
    ),
    Attempt::new("change the configuration", |i| overwrite(i.workspace.join("duragent.yaml")), "ENOENT", "EACCES")
        .hurts(),
    Attempt::new("change the policy", |i| overwrite(i.workspace.join("policy.yaml")), "ENOENT", "EACCES").hurts(),
    Attempt::new(
        "make a policy for an agent that has none",
        |i| create(i.workspace.join("agents/helper/policy.yaml")),
        "EROFS",
        "EACCES",
    )
    .hurts(),
    Attempt::new("make an agent", |i| create(i.workspace.join("agents/new/agent.yaml")), "EROFS", "EACCES").hurts(),
    Attempt::new("make a skill", |i| create(i.workspace.join("agents/helper/skills/two.md")), "EROFS", "EACCES")
        .hurts(),
    Attempt::new(
        "append to the session's own log",
        |i| append(&i.workspace.join("sessions/mine/events.jsonl")),
        "ENOENT",
        "EACCES",
    )
    .hurts(),
    Attempt::new(
        "write to the session's artifacts",
        |i| overwrite(i.workspace.join("sessions/mine/artifacts/big.txt")),
        "EROFS",
        "EACCES",
    )
    .hurts(),
    Attempt::new(
        "cut off the session's own log",
        |i| truncate(&i.workspace.join("sessions/mine/events.jsonl")),
        "ENOENT",
        "EACCES",
    )
    .hurts(),
    Attempt::new(
        "put another workspace in place",
        |_| {
            fs::rename(".duragent", "src/old")?;
            create(".duragent/policy.yaml")
        },
        "EBUSY",
        "EACCES",
    )
    .hurts(),
    Attempt::new("remove the workspace", |_| Ok(fs::remove_dir_all(".duragent")?), "EROFS|EBUSY", "EACCES").hurts(),
    Attempt::new(
        "put another project in place",
        |i| Ok(fs::rename(&i.project, i.root.join("old"))?),
        "EROFS",
        "EACCES",
    )
    .hurts(),
    Attempt::new(
        "change the policy through a link",
        |_| {
            symlink("../.duragent/policy.yaml", "src/link")?;
            overwrite("src/link")
        },
        "ENOENT",
        "EACCES",
    )
    .hurts(),
    Attempt::new(
        "change the configuration through a hard link",
        |_| {
            fs::hard_link(".duragent/duragent.yaml", "src/link")?;
            overwrite("src/link")
        },
        "ENOENT",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new(
        "change the policy through a path with dots",
        |_| overwrite("src/../.duragent/./policy.yaml"),
        "ENOENT",
        "EACCES",
    )
    .hurts(),
    Attempt::new("make a workspace where there is none", |_| create(".duragent/policy.yaml"), OK, "EACCES")
        .hurts()
        .after(|house| fs::remove_dir_all(house.root.join("project/.duragent")).unwrap()),
    Attempt::new("change a workspace further down", |_| overwrite("deep/.duragent/duragent.yaml"), OK, OK)
        .limit()
        .hurts(),
    Attempt::new("make a workspace further down", |_| create("src/.duragent/policy.yaml"), OK, OK).limit().hurts(),
    // The workspace around the working directory.
    Attempt::new("service: read the configuration", |_| read("../../../duragent.yaml"), "ENOENT", "EACCES")
        .in_service(),
    Attempt::new("service: change the configuration", |_| overwrite("../../../duragent.yaml"), "ENOENT", "EACCES")
        .in_service()
        .hurts(),
    Attempt::new("service: append to the session's log", |_| append(Path::new("../events.jsonl")), "ENOENT", "EACCES")
        .in_service()
        .hurts(),
    Attempt::new("service: read another session's log", |_| read("../../other/events.jsonl"), "ENOENT", "EACCES")
        .in_service(),
    Attempt::new("service: make an agent", |_| create("../../../agents/new/agent.yaml"), "EROFS", "EACCES")
        .in_service()
        .hurts(),
    Attempt::new(
        "service: put another session in place",
        |_| {
            fs::rename("../../mine", "../../old")?;
            create("../../mine/events.jsonl")
        },
        "EBUSY|EROFS",
        "EACCES",
    )
    .in_service()
    .hurts(),
    // What git, shells and editors run by themselves.
    Attempt::new("change a git hook", |_| overwrite(".git/hooks/pre-commit"), "EROFS", "EACCES").hurts(),
    Attempt::new("make a git hook", |_| create(".git/hooks/post-checkout"), "EROFS", "EACCES").hurts(),
    Attempt::new(
        "put a git hook in place by rename",
        |_| {
            create("src/hook")?;
            Ok(fs::rename("src/hook", ".git/hooks/pre-commit")?)
        },
        "EROFS|EBUSY|EXDEV",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new("change the configuration of git", |_| overwrite(".git/config"), "EROFS", "EACCES").hurts(),
    Attempt::new(
        "put another configuration of git in place",
        |_| {
            create("src/config")?;
            Ok(fs::rename("src/config", ".git/config")?)
        },
        "EBUSY|EROFS|EXDEV",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new(
        "put another .git in place",
        |_| {
            fs::rename(".git", "src/old")?;
            create(".git/hooks/pre-commit")
        },
        "EBUSY",
        "EACCES",
    )
    .hurts(),
    Attempt::new("send git elsewhere", |_| create(".git/commondir"), OK, "EACCES").hurts(),
    Attempt::new("make a .git where there is none", |_| create(".git/hooks/pre-commit"), OK, "EACCES")
        .limit()
        .hurts()
        .after(|house| fs::remove_dir_all(house.root.join("project/.git")).unwrap()),
    Attempt::new("change a start-up file", |_| overwrite(".bashrc"), "EROFS", "EACCES").hurts(),
    Attempt::new(
        "put another start-up file in place",
        |_| {
            create("src/rc")?;
            Ok(fs::rename("src/rc", ".bashrc")?)
        },
        "EBUSY|EROFS|EXDEV",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new("remove a start-up file", |_| Ok(fs::remove_file(".bashrc")?), "EBUSY|EROFS", "EACCES").hurts(),
    Attempt::new(
        "open a start-up file again for writing",
        |_| {
            let file = fs::File::open(".bashrc")?;
            overwrite(format!("/proc/self/fd/{}", file.as_raw_fd()))
        },
        "EROFS",
        "EACCES",
    )
    .hurts(),
    Attempt::new("cut off a start-up file by opening it for reading", open_and_cut, "EROFS", "EACCES").hurts(),
    Attempt::new("make a start-up file", |_| create(".zshrc"), OK, "EACCES").hurts(),
    // The guard that moves it aside is of the same user: what the tool takes from itself, it takes from the guard.
    Attempt::new("make a start-up file, and let nobody rename it", |_| make_and_lock(0o555), OK, "EACCES").hurts(),
    Attempt::new("make a start-up file, and let nobody see it", |_| make_and_lock(0o000), OK, "EACCES").hurts(),
    Attempt::new("make .mcp.json", |_| create(".mcp.json"), OK, "EACCES").hurts(),
    Attempt::new("make tasks for an editor", |_| create(".vscode/tasks.json"), OK, "EACCES").hurts(),
    Attempt::new("make services for the user's manager", |_| create(".config/systemd/user/x.service"), OK, "EACCES")
        .hurts(),
];

fn make_and_lock(mode: u32) -> Answer {
    create(".zprofile")?;
    Ok(fs::set_permissions(".", fs::Permissions::from_mode(mode))?)
}

fn append(path: &Path) -> Answer {
    let mut file = OpenOptions::new().append(true).open(path)?;
    match file.write(b"{\"seq\":2}\n")? {
        0 => Err(Refused::Nothing("nothing written")),
        _ => Ok(()),
    }
}

fn open_and_cut(_: &Inside) -> Answer {
    let flags = as_arg(libc::O_RDONLY | libc::O_TRUNC);
    descriptor(libc::SYS_openat, &[as_arg(libc::AT_FDCWD), at(b".bashrc\0"), flags]).map(drop)
}

fn truncate(path: &Path) -> Answer {
    let path = c_path(path);
    call(libc::SYS_truncate, &[at(path.as_bytes_with_nul()), 0]).map(drop)
}
