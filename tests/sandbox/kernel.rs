//! Raw system calls, as an attacker makes them, and the names of the kernel's answers.
//!
//! The only file of these tests with `unsafe` in it. Absent: what the calls are for; that is in `attempts`.

use std::ffi::{CString, c_int, c_long};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What came of an attempt: it worked, or what stood in the way.
pub type Answer = Result<(), Refused>;

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The kernel said so: an error number.
    Errno(c_int),
    /// The call went through, but brought nothing.
    Nothing(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(what) => f.write_str(what),
            Self::Errno(number) => match ERRNO_NAMES.iter().find(|(n, _)| n == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "errno {number}"),
            },
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::Nothing("an error without a number"), Self::Errno)
    }
}

const ERRNO_NAMES: [(c_int, &str); 44] = [
    (libc::E2BIG, "E2BIG"),
    (libc::EACCES, "EACCES"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EBADF, "EBADF"),
    (libc::EBUSY, "EBUSY"),
    (libc::ECHILD, "ECHILD"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EEXIST, "EEXIST"),
    (libc::EFAULT, "EFAULT"),
    (libc::EFBIG, "EFBIG"),
    (libc::EINVAL, "EINVAL"),
    (libc::EIO, "EIO"),
    (libc::EISDIR, "EISDIR"),
    (libc::ELOOP, "ELOOP"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOEXEC, "ENOEXEC"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ENXIO, "ENXIO"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EPERM, "EPERM"),
    (libc::EPIPE, "EPIPE"),
    (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
    (libc::EPROTOTYPE, "EPROTOTYPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::EROFS, "EROFS"),
    (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
    (libc::ESRCH, "ESRCH"),
    (libc::ESTALE, "ESTALE"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EUSERS, "EUSERS"),
    (libc::EXDEV, "EXDEV"),
];

/// Names of signals that a limit or a filter ends a process with.
pub fn signal_name(number: c_int) -> String {
    match number {
        libc::SIGKILL => "SIGKILL".into(),
        libc::SIGSEGV => "SIGSEGV".into(),
        libc::SIGSYS => "SIGSYS".into(),
        libc::SIGXCPU => "SIGXCPU".into(),
        libc::SIGXFSZ => "SIGXFSZ".into(),
        other => format!("signal {other}"),
    }
}

/// Any system call. Pointers are given as [`at`] or [`at_mut`] of a value that the caller keeps until it returns.
pub fn call(number: c_long, args: &[usize]) -> Result<usize, Refused> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: every pointer among the arguments is to a live value of the caller's that is as large as the call wants.
    // What else a call does to this process harms nobody: it exists for this one attempt.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| Refused::from(io::Error::last_os_error()))
}

/// The address of a value that the kernel reads.
pub fn at<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>().expose_provenance()
}

/// The address of a value that the kernel may write.
pub fn at_mut<T: ?Sized>(value: &mut T) -> usize {
    std::ptr::from_mut(value).cast::<u8>().expose_provenance()
}

/// A path as the kernel takes it.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// A call that returns a descriptor.
pub fn descriptor(number: c_long, args: &[usize]) -> Result<OwnedFd, Refused> {
    let fd = call(number, args)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(c_int::try_from(fd).unwrap()) })
}

/// socket(2).
pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd, Refused> {
    descriptor(libc::SYS_socket, &[as_arg(family), as_arg(kind), as_arg(protocol)])
}

/// A number as an argument of a call: sign-extended, as the C library does it.
pub fn as_arg(number: c_int) -> usize {
    isize::try_from(number).unwrap().cast_unsigned()
}

/// The number of a descriptor as an argument.
pub fn fd_arg(fd: &impl AsRawFd) -> usize {
    as_arg(fd.as_raw_fd())
}

/// fork(2) in a process with one thread. The child runs `child` and ends with the code it returns.
pub fn fork(child: impl FnOnce() -> c_int) -> Result<c_int, Refused> {
    // SAFETY: this process has one thread, so the child is whole.
    match unsafe { libc::fork() } {
        0 => {
            let code = child();
            // SAFETY: leaves without destructors; they are the parent's.
            unsafe { libc::_exit(code) }
        }
        pid if pid > 0 => Ok(pid),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// waitpid(2): the status of a child that ended.
pub fn wait(pid: c_int) -> Result<c_int, Refused> {
    let mut status: c_int = 0;
    call(libc::SYS_wait4, &[as_arg(pid), at_mut(&mut status), 0, 0])?;
    Ok(status)
}

/// kill(2).
pub fn kill(pid: c_int, signal: c_int) -> Answer {
    call(libc::SYS_kill, &[as_arg(pid), as_arg(signal)]).map(drop)
}

/// Has the kernel ignore or restore a signal, by signal(2).
pub fn ignore_signal(signal: c_int) {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sets the soft and the hard limit of this process: setrlimit(2).
pub fn set_limit(resource: c_int, limit: u64) -> Answer {
    call(libc::SYS_prlimit64, &[0, as_arg(resource), at(&[limit, limit]), 0]).map(drop)
}

/// getuid(2).
pub fn uid() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getuid() }
}

/// Calls `use_slave` in a child whose controlling terminal is a new one's slave. Only the leader of a session can have one,
/// and a tool that leads a group cannot become that.
pub fn with_terminal(use_slave: impl FnOnce(&OwnedFd) -> Answer) -> Answer {
    const NOTHING: c_int = 255;
    let child = fork(|| match terminal().and_then(|(_master, slave)| use_slave(&slave)) {
        Ok(()) => 0,
        Err(Refused::Errno(number)) => number,
        Err(Refused::Nothing(_)) => NOTHING,
    })?;
    match wait(child)? {
        status if libc::WIFSIGNALED(status) => Err(Refused::Nothing("the child was killed")),
        status => match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            number => Err(Refused::Errno(number)),
        },
    }
}

fn terminal() -> Result<(OwnedFd, OwnedFd), Refused> {
    let path = c_path(Path::new("/dev/ptmx"));
    let flags = as_arg(libc::O_RDWR | libc::O_NOCTTY);
    let master = descriptor(libc::SYS_openat, &[as_arg(libc::AT_FDCWD), at(path.as_bytes_with_nul()), flags])?;
    let mut zero: c_int = 0;
    ioctl(&master, libc::TIOCSPTLCK as usize, at_mut(&mut zero))?;
    let slave = descriptor(libc::SYS_ioctl, &[fd_arg(&master), libc::TIOCGPTPEER as usize, flags])?;
    call(libc::SYS_setsid, &[])?;
    // Comes when the master is closed.
    ignore_signal(libc::SIGHUP);
    ioctl(&slave, libc::TIOCSCTTY as usize, 0)?;
    Ok((master, slave))
}

/// ioctl(2).
pub fn ioctl(fd: &impl AsRawFd, request: usize, argument: usize) -> Answer {
    call(libc::SYS_ioctl, &[fd_arg(fd), request, argument]).map(drop)
}

/// getpid(2) through the gate for 32-bit programs, whose numbers a filter for the native ones does not know.
#[cfg(target_arch = "x86_64")]
pub fn getpid_by_int80() -> i32 {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: getpid takes nothing and changes nothing; the kernel may clear r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// A copy of the descriptor that programs started later inherit, at number 100 or above.
pub fn leak(fd: &impl AsRawFd) -> c_int {
    let number = call(libc::SYS_fcntl, &[fd_arg(fd), as_arg(libc::F_DUPFD), 100]).unwrap();
    c_int::try_from(number).unwrap()
}

/// Lets every process of the same user trace this one, where the kernel's default (Yama) is stricter.
pub fn allow_tracers() {
    const PR_SET_PTRACER: c_int = 0x5961_6d61;
    // Without Yama there is nothing to allow.
    let _ = call(libc::SYS_prctl, &[as_arg(PR_SET_PTRACER), usize::MAX]);
}

/// clone(2) with these flags, as fork(2) makes a child; it ends at once.
pub fn clone(flags: c_int) -> Answer {
    end_child(call(libc::SYS_clone, &[as_arg(flags | libc::SIGCHLD), 0, 0, 0, 0])?)
}

/// The same by clone3(2), whose arguments no filter can see.
pub fn clone3(flags: c_int) -> Answer {
    // `struct clone_args`: flags, three pointers, exit_signal, stack, its size, tls.
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::try_from(flags).unwrap();
    arguments[4] = u64::try_from(libc::SIGCHLD).unwrap();
    end_child(call(libc::SYS_clone3, &[at(&arguments), size_of_val(&arguments)])?)
}

fn end_child(pid: usize) -> Answer {
    if pid == 0 {
        // SAFETY: the child has a copy of everything, and leaves without destructors.
        unsafe { libc::_exit(0) }
    }
    wait(c_int::try_from(pid).unwrap()).map(drop)
}

/// Shared memory of this user that goes when this process does; returns its number.
pub fn share_memory() -> Result<usize, Refused> {
    let number = call(libc::SYS_shmget, &[as_arg(libc::IPC_PRIVATE), 4096, as_arg(libc::IPC_CREAT | 0o600)])?;
    call(libc::SYS_shmat, &[number, 0, 0])?;
    // Removed once nobody has it; until then it can be found by its number.
    call(libc::SYS_shmctl, &[number, as_arg(libc::IPC_RMID), 0])?;
    Ok(number)
}
