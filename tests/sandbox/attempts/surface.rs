//! Parts of the kernel that a tool has no use for, and ways to new rights.

use super::Attempt;
use crate::inside::{Inside, create_in};
use crate::kernel::{
    Answer, Refused, as_arg, at, at_mut, c_path, call, clone, clone3, descriptor, ioctl, with_terminal,
};
use std::fs;
use std::path::Path;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new("new user namespace", |_| unshare(libc::CLONE_NEWUSER), "EPERM", "EPERM"),
    Attempt::new("new user namespace for a child", |_| clone(libc::CLONE_NEWUSER), "EPERM", "EPERM"),
    Attempt::new("new user namespace for a child, by clone3", |_| clone3(libc::CLONE_NEWUSER), "ENOSYS", "ENOSYS"),
    Attempt::new("new mount namespace", |_| unshare(libc::CLONE_NEWNS), "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("new network namespace", |_| unshare(libc::CLONE_NEWNET), "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("mount a file system", mount, "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("mount again for writing", |_| mount_with("/usr", libc::MS_REMOUNT | libc::MS_BIND), "EPERM", "EPERM")
        .control_says("EINVAL|ok", "EPERM"),
    Attempt::new("open a file system", |_| any(call(libc::SYS_fsopen, &[at(b"tmpfs\0"), 0])), "EPERM", "EPERM")
        .root_only("EPERM"),
    Attempt::new("copy a tree of mounts", open_tree, "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("unmount", unmount, "EPERM", "EPERM").control_says("EINVAL", "EPERM"),
    Attempt::new("change the root directory", |_| path_call(libc::SYS_chroot, "."), "EPERM", "EPERM")
        .root_only("EPERM"),
    // A path that is not there: root is told so, others are not even listened to.
    Attempt::new("exchange the root file system", pivot_root, "EPERM", "EPERM").control_says("ENOENT", "EPERM"),
    Attempt::new("load a program for the kernel", bpf, "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new("watch performance events", perf_event, "EPERM|EACCES", "EPERM|EACCES")
        .control_says("ok", "ok|EACCES"),
    Attempt::new(
        "set up a ring of operations",
        |_| {
            let mut parameters = [0_u32; 30];
            any(call(libc::SYS_io_uring_setup, &[1, at_mut(&mut parameters)]))
        },
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ok|EPERM", "ok|EPERM"),
    Attempt::new(
        "handle page faults of one's own",
        |_| {
            const UFFD_USER_MODE_ONLY: usize = 1;
            any(call(libc::SYS_userfaultfd, &[UFFD_USER_MODE_ONLY]))
        },
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ok|ENOSYS", "ok|ENOSYS"),
    // Not in every kernel.
    Attempt::new(
        "ask for a ring of keys",
        |_| any(call(libc::SYS_keyctl, &[0, as_arg(-3), 0])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ok|ENOSYS", "ok|ENOSYS"),
    Attempt::new(
        "add a key",
        |_| any(call(libc::SYS_add_key, &[at(b"user\0"), at(b"duragent\0"), at(b"x"), 1, as_arg(-2)])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ok|ENOSYS", "ok|ENOSYS"),
    // The next four say EINVAL or the like to those who may, and change nothing.
    Attempt::new(
        "load another kernel",
        |_| any(call(libc::SYS_kexec_load, &[0, 0, 0, 0xffff])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("EINVAL|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new(
        "load a module",
        |_| any(call(libc::SYS_init_module, &[0, 0, at(b"\0")])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ENOEXEC|EFAULT|EINVAL|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new(
        "remove a module",
        |_| any(call(libc::SYS_delete_module, &[at(b"duragent_none\0"), 0])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ENOENT|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new("restart the machine", |_| any(call(libc::SYS_reboot, &[0, 0, 0, 0])), "EPERM", "EPERM")
        .control_says("EINVAL", "EPERM"),
    Attempt::new("rename the machine", rename_machine, "EPERM", "EPERM").root_only("EPERM"),
    Attempt::new(
        "set the clock",
        |_| {
            // No such clock: root is told so.
            any(call(libc::SYS_clock_settime, &[999, at(&[0_u64; 2])]))
        },
        "EPERM",
        "EPERM",
    )
    .control_says("EINVAL", "EINVAL"),
    Attempt::new(
        "read the messages of the kernel",
        |_| {
            let mut buffer = [0_u8; 256];
            any(call(libc::SYS_syslog, &[3, at_mut(&mut buffer), buffer.len()]))
        },
        "EPERM",
        "EPERM",
    )
    .control_says("ok", "ok|EPERM"),
    Attempt::new("watch all files", |_| any(call(libc::SYS_fanotify_init, &[0, 0])), "EPERM", "EPERM")
        .control_says("ok|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new(
        "keep accounts of all processes",
        |_| path_call(libc::SYS_acct, "no-such-file"),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ENOENT|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new("swap to a file", |_| path_call(libc::SYS_swapon, "no-such-file"), "EPERM|ENOSYS", "EPERM|ENOSYS")
        .control_says("ENOENT|ENOSYS", "EPERM|ENOSYS"),
    Attempt::new(
        "have all memory that is read executed",
        |_| {
            const READ_IMPLIES_EXEC: usize = 0x0040_0000;
            any(call(libc::SYS_personality, &[READ_IMPLIES_EXEC]))
        },
        "EPERM",
        "EPERM",
    ),
    // Terminals. Since Linux 6.2 the first may be off for those without CAP_SYS_ADMIN (EIO).
    Attempt::new("type into a terminal", |_| tiocsti(0), "EPERM", "EACCES").control_says("ok", "ok|EIO"),
    Attempt::new("type into a terminal, with high bits set", |_| tiocsti(1 << 32), "EPERM", "EACCES")
        .control_says("ok", "ok|EIO"),
    Attempt::new("paste into a console", |_| tioclinux(0), "EPERM", "EPERM").control_says("ENOTTY", "ENOTTY"),
    Attempt::new("paste into a console, with high bits set", |_| tioclinux(1 << 32), "EPERM", "EPERM")
        .control_says("ENOTTY", "ENOTTY"),
    // Which calls the gate for other programs lets through is not known to a filter: it stays shut.
    #[cfg(target_arch = "x86_64")]
    Attempt::new("call by the gate for 32-bit programs", int80, "SIGSYS", "SIGSYS")
        .control_says("ok|SIGSEGV", "ok|SIGSEGV"),
    #[cfg(target_arch = "x86_64")]
    Attempt::new("call by the numbers of x32", x32, "SIGSYS|ENOSYS|EPERM", "SIGSYS|ENOSYS|EPERM")
        .control_says("ok|ENOSYS", "ok|ENOSYS"),
    #[cfg(target_arch = "x86_64")]
    Attempt::new(
        "reach ports of the machine",
        |_| any(call(libc::SYS_ioperm, &[0x80, 1, 1])),
        "EPERM|ENOSYS",
        "EPERM|ENOSYS",
    )
    .control_says("ok|EPERM|ENOSYS", "EPERM|ENOSYS"),
];

fn any(result: Result<usize, Refused>) -> Answer {
    result.map(drop)
}

fn path_call(number: libc::c_long, path: &str) -> Answer {
    let path = c_path(Path::new(path));
    any(call(number, &[at(path.as_bytes_with_nul())]))
}

fn unshare(flags: i32) -> Answer {
    any(call(libc::SYS_unshare, &[as_arg(flags)]))
}

fn mount(inside: &Inside) -> Answer {
    fs::create_dir("src/mount")?;
    let target = c_path(Path::new("src/mount"));
    let target = at(target.as_bytes_with_nul());
    any(call(libc::SYS_mount, &[at(b"none\0"), target, at(b"tmpfs\0"), 0, 0]))?;
    create_in("src/mount", &inside.mark)?;
    any(call(libc::SYS_umount2, &[target, as_arg(libc::MNT_DETACH)]))
}

/// With a flag that no kernel knows, so that nothing is changed where it is allowed.
fn mount_with(target: &str, flags: libc::c_ulong) -> Answer {
    let target = c_path(Path::new(target));
    let flags = usize::try_from(flags).map_err(|_| Refused::Nothing("strange flags"))?;
    any(call(libc::SYS_mount, &[at(b"none\0"), at(target.as_bytes_with_nul()), at(b"none\0"), flags, 0]))
}

fn open_tree(_: &Inside) -> Answer {
    const OPEN_TREE_CLONE: usize = 1;
    descriptor(libc::SYS_open_tree, &[as_arg(libc::AT_FDCWD), at(b".\0"), OPEN_TREE_CLONE]).map(drop)
}

/// The working directory is no mount point: root is told so.
fn unmount(_: &Inside) -> Answer {
    any(call(libc::SYS_umount2, &[at(b"src\0"), as_arg(libc::MNT_DETACH)]))
}

fn pivot_root(_: &Inside) -> Answer {
    any(call(libc::SYS_pivot_root, &[at(b"no-such-directory\0"), at(b"no-such-directory\0")]))
}

/// BPF_MAP_CREATE: an array with one number in it.
fn bpf(_: &Inside) -> Answer {
    let mut attributes = [0_u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    descriptor(libc::SYS_bpf, &[0, at(&attributes), 72]).map(drop)
}

/// The clock of this very process, without the kernel's share.
fn perf_event(_: &Inside) -> Answer {
    const SOFTWARE: u64 = 1;
    const SIZE: u64 = 64;
    const EXCLUDE_KERNEL_AND_HYPERVISOR: u64 = 0b11 << 5;
    let mut attributes = [0_u64; 16];
    attributes[0] = SOFTWARE | SIZE << 32;
    attributes[5] = EXCLUDE_KERNEL_AND_HYPERVISOR;
    let args = [at(&attributes), 0, as_arg(-1), as_arg(-1), 0];
    descriptor(libc::SYS_perf_event_open, &args).map(drop)
}

/// To the name that it has already: `nodename` of uname(2), in fields of 65 bytes.
fn rename_machine(_: &Inside) -> Answer {
    let mut names = [0_u8; 6 * 65];
    call(libc::SYS_uname, &[at_mut(&mut names)])?;
    let name = &names[65..130];
    let length = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    any(call(libc::SYS_sethostname, &[at(name), length]))
}

fn tiocsti(high_bits: usize) -> Answer {
    with_terminal(|slave| ioctl(slave, libc::TIOCSTI as usize | high_bits, at(b"x")))
}

fn tioclinux(high_bits: usize) -> Answer {
    // No console is needed to see whether the request arrives anywhere.
    let null = fs::File::open("/dev/null")?;
    ioctl(&null, libc::TIOCLINUX as usize | high_bits, at(&[3_u8]))
}

#[cfg(target_arch = "x86_64")]
fn int80(_: &Inside) -> Answer {
    match crate::kernel::getpid_by_int80() {
        pid if pid > 0 => Ok(()),
        error => Err(Refused::Errno(-error)),
    }
}

#[cfg(target_arch = "x86_64")]
fn x32(_: &Inside) -> Answer {
    const X32_BIT: libc::c_long = 0x4000_0000;
    any(call(X32_BIT | libc::SYS_getpid, &[]))
}
