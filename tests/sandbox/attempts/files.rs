//! Files that are none of a tool's business.

use super::{Attempt, OK};
use crate::inside::{Inside, create, create_in, open_to_write, overwrite, read};
use crate::kernel::{Answer, Refused, as_arg, at, c_path, call};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new("write to /", |i| create_in("/", &i.mark), "EROFS", "EACCES").root_only("EACCES"),
    Attempt::new("write to /etc", |i| create_in("/etc", &i.mark), "EROFS", "EACCES").root_only("EACCES"),
    Attempt::new("write to /usr", |i| create_in("/usr", &i.mark), "EROFS", "EACCES").root_only("EACCES"),
    Attempt::new("write to /run", |i| create_in("/run", &i.mark), "ENOENT", "EACCES").root_only("EACCES"),
    Attempt::new("write to /var/tmp", |i| create_in("/var/tmp", &i.mark), "EROFS", "EACCES"),
    // Inside a file system of its own: nothing of it is left on the machine, which the house looks after.
    Attempt::new("leave a file in /dev/shm", |i| create(Path::new("/dev/shm").join(&i.mark)), OK, "EACCES").hurts(),
    Attempt::new("leave a file in /tmp", |i| create(Path::new("/tmp").join(&i.mark)), OK, "EACCES").hurts(),
    Attempt::new("write above the working directory", |i| create_in("..", &i.mark), "EROFS", "EACCES"),
    Attempt::new("write to a directory that anybody else may", write_open, "EROFS", "EACCES").hurts().after(|house| {
        let path = house.root.join("outside/open");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }),
    Attempt::new("change a start-up file at home", |i| overwrite(i.root.join("home/.profile")), "ENOENT", "EACCES")
        .hurts(),
    Attempt::new("make a start-up file at home", |i| create(i.root.join("home/.zshrc")), "EROFS", "EACCES").hurts(),
    Attempt::new("read a private file", |i| read(i.outside.join("secret-0600")), "ENOENT", "EACCES"),
    Attempt::new("read a public file", |i| read(i.outside.join("secret-0644")), "ENOENT", "EACCES"),
    Attempt::new("read a token", |i| read(i.outside.join("token")), "ENOENT", "EACCES"),
    Attempt::new("list a directory", |i| list(&i.outside), "ENOENT", "EACCES"),
    Attempt::new("read /etc/shadow", |_| read("/etc/shadow"), "ENOENT", "EACCES").root_only("EACCES"),
    Attempt::new("read through a link in the project", link_read, "ENOENT", "EACCES"),
    Attempt::new("write through a link in the project", link_write, "ENOENT", "EACCES").hurts(),
    Attempt::new("read through /proc/self/root", proc_self_root, "ENOENT", "EACCES"),
    Attempt::new(
        "read through /proc/self/cwd/..",
        |_| read("/proc/self/cwd/../outside/secret-0644"),
        "ENOENT",
        "EACCES",
    ),
    Attempt::new(
        "take a file of outside into the project",
        |i| {
            fs::hard_link(i.outside.join("secret-0644"), "src/taken")?;
            read("src/taken")
        },
        "ENOENT",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new(
        "move a file of outside into the project",
        |i| Ok(fs::rename(i.outside.join("secret-0644"), "src/taken")?),
        "ENOENT",
        "EACCES|EXDEV",
    )
    .hurts(),
    Attempt::new("put a program beside the runtime's", |i| create_in(&i.bin, &i.mark), "EROFS", "EACCES"),
    Attempt::new("change the runtime's program", change_program, "EROFS", "EACCES"),
    Attempt::new("take descriptors that the runtime left open", inherited, "EBADF", "EBADF").against_a_plain_child(),
    Attempt::new("open a file by its handle", by_handle, "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("make a block device", block_device, "EPERM", "EACCES").root_only("EPERM"),
    Attempt::new(
        "change the mode of a file of outside",
        |i| Ok(fs::set_permissions(i.outside.join("secret-0600"), fs::Permissions::from_mode(0o666))?),
        "ENOENT",
        // Root's are mounted read-only.
        "ok|EROFS",
    )
    .hurts()
    .limit(),
    Attempt::new(
        "learn the size of a file of outside",
        |i| {
            fs::metadata(i.outside.join("secret-0600"))?;
            Ok(())
        },
        "ENOENT",
        OK,
    )
    .limit(),
    Attempt::new("write to the messages of the kernel", |_| open_to_write("/dev/kmsg"), "ENOENT", "EACCES")
        .root_only("EACCES"),
    // A control group for devices may stand above root.
    Attempt::new("read the disk below the files", disk, "ENOENT", "EACCES").control_says("ok|EPERM", "EACCES"),
    Attempt::new(
        "change what takes core dumps",
        |_| open_to_write("/proc/sys/kernel/core_pattern"),
        "EROFS|EACCES",
        "EACCES",
    )
    .root_only("EACCES"),
    Attempt::new("change what the kernel offers in /proc", |_| writable_in(Path::new("/proc"), 0), "none", "EACCES")
        .control_says("ok", "ok|none"),
    Attempt::new("move to another control group", control_group, "ENOENT", "EACCES").root_only("EACCES"),
    // Only opened. Some kernels do not have it.
    Attempt::new("pull the emergency brake", |_| open_to_write("/proc/sysrq-trigger"), "EROFS|ENOENT", "EACCES|ENOENT")
        .control_says("ok|ENOENT", "EACCES|ENOENT"),
];

fn write_open(inside: &Inside) -> Answer {
    create(inside.outside.join("open/new.txt"))
}

fn list(directory: &Path) -> Answer {
    match fs::read_dir(directory)?.next() {
        Some(_) => Ok(()),
        None => Err(Refused::Nothing("empty")),
    }
}

fn link_read(inside: &Inside) -> Answer {
    symlink(inside.outside.join("secret-0644"), "src/link")?;
    read("src/link")
}

fn link_write(inside: &Inside) -> Answer {
    symlink(inside.outside.join("secret-0644"), "src/link")?;
    overwrite("src/link")
}

fn proc_self_root(inside: &Inside) -> Answer {
    let below = inside.outside.strip_prefix("/").map_err(|_| Refused::Nothing("relative"))?;
    read(Path::new("/proc/self/root").join(below).join("secret-0644"))
}

/// A copy of it: a program that runs cannot be opened for writing anyway.
fn change_program(inside: &Inside) -> Answer {
    let program = inside.bin.join("spare");
    overwrite(&program)
}

fn inherited(_: &Inside) -> Answer {
    for number in 3..1024 {
        if call(libc::SYS_fcntl, &[number, as_arg(libc::F_GETFD)]).is_ok() {
            return Ok(());
        }
    }
    Err(Refused::Errno(libc::EBADF))
}

/// `struct file_handle` of linux/fcntl.h with room for the largest handle.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn by_handle(_: &Inside) -> Answer {
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let (path, mut mount) = (c_path(Path::new("notes.txt")), 0_i32);
    let name = at(path.as_bytes_with_nul());
    let (handle_at, mount_at) = (crate::kernel::at_mut(&mut handle), crate::kernel::at_mut(&mut mount));
    call(libc::SYS_name_to_handle_at, &[as_arg(libc::AT_FDCWD), name, handle_at, mount_at, 0])?;
    let directory = File::open(".")?;
    call(libc::SYS_open_by_handle_at, &[as_arg(directory.as_raw_fd()), handle_at, 0]).map(drop)
}

fn block_device(_: &Inside) -> Answer {
    let path = c_path(Path::new("src/device"));
    let mode = as_arg(0o600) | libc::S_IFBLK as usize;
    // Major 7, minor 0: a loop device, which nobody opens here.
    call(libc::SYS_mknodat, &[as_arg(libc::AT_FDCWD), at(path.as_bytes_with_nul()), mode, 7 << 8])?;
    Ok(fs::remove_file("src/device")?)
}

/// The device that the root file system is on, by its number; nothing is read.
fn disk(_: &Inside) -> Answer {
    let mut last = Refused::Nothing("no disk");
    for name in ["vda", "sda", "nvme0n1", "mmcblk0", "xvda", "loop0"] {
        match File::open(Path::new("/dev").join(name)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.into(),
        }
        if last != Refused::Errno(libc::ENOENT) {
            return Err(last);
        }
    }
    Err(last)
}

/// Opens what is no process' own for writing, and writes nothing.
fn writable_in(directory: &Path, depth: usize) -> Answer {
    const DEPTH_MAX: usize = 3;
    for entry in fs::read_dir(directory)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let of_process = depth == 0 && name.bytes().all(|b| b.is_ascii_digit());
        let kind = entry.file_type()?;
        // /proc/pressure and the like are for everybody.
        if of_process || kind.is_symlink() || name == "pressure" {
            continue;
        }
        if kind.is_dir() && depth < DEPTH_MAX {
            if writable_in(&path, depth + 1).is_ok() {
                return Ok(());
            }
        } else if kind.is_file() && open_to_write(&path).is_ok() {
            println!("{}", path.display());
            return Ok(());
        }
    }
    Err(Refused::Nothing("none"))
}

fn control_group(_: &Inside) -> Answer {
    let mut last = Refused::Nothing("no control groups");
    for path in ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"] {
        match open_to_write(path) {
            Err(Refused::Errno(libc::ENOENT)) => last = Refused::Errno(libc::ENOENT),
            answer => return answer,
        }
    }
    Err(last)
}
