//! Other processes: seeing, reading, hurting them. The victim belongs to the same user and lets itself be traced.

use super::{Attempt, OK};
use crate::house::{SECRET, SECRET_NAME};
use crate::inside::{Inside, overwrite, read};
use crate::kernel::{Answer, Refused, as_arg, at, at_mut, call, descriptor, fd_arg, kill, wait};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new("read the environment of the runtime", runtime_environment, "not there", "EACCES"),
    // Root may not everywhere: the first process can hold more than root does.
    Attempt::new("read the environment of process 1", first_environment, "ENOENT|not there", "EACCES")
        .control_says("ok|EACCES", "EACCES"),
    Attempt::new("see the runtime among the processes", |i| see(i.runtime), "not there", "EACCES"),
    Attempt::new("read the arguments of the victim", |i| read(of(i.victim, "cmdline")), "ENOENT", "EACCES"),
    Attempt::new("ask whether the runtime is there", |i| kill(i.runtime, 0), "ESRCH", "EPERM"),
    // In a process namespace the parent is process 1 of it, which cannot be ended from inside and says nothing about it.
    Attempt::new("end the guard", |_| kill(parent_of_this(), libc::SIGKILL), OK, "EPERM")
        .control_says("ok|SIGKILL", "ok|SIGKILL"),
    Attempt::new("end the victim", |i| kill(i.victim, libc::SIGTERM), "ESRCH", "EPERM").hurts(),
    Attempt::new("end the victim through a descriptor", kill_by_pidfd, "ESRCH", "EPERM").hurts(),
    Attempt::new("send the victim a queued signal", queue_signal, "ESRCH", "EPERM").hurts(),
    Attempt::new("have the victim signalled by a pipe", signal_by_pipe, "ESRCH", OK).hurts(),
    Attempt::new("trace the victim", |i| trace(i, libc::PTRACE_ATTACH as i32), "EPERM", "EPERM"),
    Attempt::new("seize the victim", |i| trace(i, libc::PTRACE_SEIZE as i32), "EPERM", "EPERM"),
    Attempt::new("read the victim's memory", read_memory, "EPERM", "EPERM"),
    Attempt::new("write the victim's memory", write_memory, "EPERM", "EPERM"),
    Attempt::new("read the victim's memory as a file", memory_file, "ENOENT", "EACCES"),
    Attempt::new("take a descriptor of the victim", take_descriptor, "EPERM|ESRCH", "EPERM"),
    Attempt::new("list the victim's descriptors", |i| descriptors(i.victim), "ENOENT", "EACCES"),
    Attempt::new("read a file through the victim's root", through_root, "ENOENT", "EACCES"),
    Attempt::new(
        "read a file through the victim's working directory",
        |i| {
            fs::read_dir(of(i.victim, "cwd"))?;
            Ok(())
        },
        "ENOENT",
        "EACCES",
    ),
    Attempt::new("read the victim's map of memory", |i| read(of(i.victim, "maps")), "ENOENT", "EACCES"),
    Attempt::new("offer the victim to the killer of last resort", overwrite_score, "ENOENT", "EACCES"),
    Attempt::new("set the victim's limits", set_limits, "ESRCH", "EPERM").hurts(),
    Attempt::new("lower the victim's priority", lower_priority, "ESRCH", "EPERM").hurts(),
    Attempt::new("bind the victim to one processor", bind_processor, "ESRCH", "EPERM"),
    Attempt::new(
        "share the victim's memory",
        |i| {
            call(libc::SYS_shmat, &[i.victim_shared, 0, 0])?;
            Ok(())
        },
        "EINVAL",
        OK,
    )
    .limit(),
    Attempt::new("enter a namespace of the runtime", enter_namespace, "ENOENT", "EACCES|EPERM").root_only("EPERM"),
    Attempt::new("gain rights by a set-user-id program", set_user_id, "no rights gained", "no rights gained"),
    Attempt::new("be free to gain rights", free_to_gain, "no_new_privs is set", "no_new_privs is set"),
    Attempt::new("hold capabilities", capabilities, "none held", "none held").root_only("none held"),
];

fn of(pid: i32, name: &str) -> String {
    format!("/proc/{pid}/{name}")
}

/// The runtime by its number, and what stands above this process.
fn runtime_environment(inside: &Inside) -> Answer {
    let mut refused = Refused::Nothing("not there");
    let mut pid = inside.runtime;
    let mut above = parent_of("self");
    loop {
        match fs::read(of(pid, "environ")) {
            Ok(bytes) if bytes.windows(SECRET_NAME.len()).any(|w| w == SECRET_NAME.as_bytes()) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => refused = error.into(),
        }
        match above {
            Some(next) if next > 1 => {
                pid = next;
                above = parent_of(&next.to_string());
            }
            _ => return Err(refused),
        }
    }
}

fn parent_of_this() -> i32 {
    i32::try_from(std::os::unix::process::parent_id()).unwrap_or_default()
}

fn parent_of(pid: &str) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A variable that is none of ours.
fn first_environment(_: &Inside) -> Answer {
    let own = fs::read("/proc/self/environ").unwrap_or_default();
    let own: Vec<&[u8]> = own.split(|&b| b == 0).collect();
    let first = fs::read("/proc/1/environ")?;
    // Until the tool is executed, its variables have a mark.
    let mut plain = first.split(|&b| b == 0).map(|variable| variable.strip_prefix(b"+").unwrap_or(variable));
    match plain.any(|variable| !own.contains(&variable)) {
        true => Ok(()),
        false => Err(Refused::Nothing("not there")),
    }
}

fn see(pid: i32) -> Answer {
    for entry in fs::read_dir("/proc")? {
        if entry?.file_name().to_str() == Some(&pid.to_string()) {
            return Ok(());
        }
    }
    Err(Refused::Nothing("not there"))
}

fn pidfd(pid: i32) -> Result<std::os::fd::OwnedFd, Refused> {
    descriptor(libc::SYS_pidfd_open, &[as_arg(pid), 0])
}

fn kill_by_pidfd(inside: &Inside) -> Answer {
    let victim = pidfd(inside.victim)?;
    call(libc::SYS_pidfd_send_signal, &[fd_arg(&victim), as_arg(libc::SIGTERM), 0, 0])?;
    Ok(())
}

fn queue_signal(inside: &Inside) -> Answer {
    // siginfo_t: signal, error number, SI_QUEUE.
    let mut information = [0_i32; 32];
    information[..3].copy_from_slice(&[libc::SIGTERM, 0, libc::SI_QUEUE]);
    let args = [as_arg(inside.victim), as_arg(libc::SIGTERM), at(&information)];
    call(libc::SYS_rt_sigqueueinfo, &args).map(drop)
}

/// A descriptor whose owner is the victim sends SIGTERM when there is something to read: fcntl(2), F_SETOWN and F_SETSIG.
/// The sender is not told whether it arrived; the house sees that.
fn signal_by_pipe(inside: &Inside) -> Answer {
    const F_SETSIG: i32 = 10;
    let mut pair = [0_i32; 2];
    call(libc::SYS_pipe2, &[at_mut(&mut pair), as_arg(libc::O_NONBLOCK)])?;
    let [reader, writer] = pair.map(as_arg);
    call(libc::SYS_fcntl, &[reader, as_arg(F_SETSIG), as_arg(libc::SIGTERM)])?;
    call(libc::SYS_fcntl, &[reader, as_arg(libc::F_SETOWN), as_arg(inside.victim)])?;
    call(libc::SYS_fcntl, &[reader, as_arg(libc::F_SETFL), as_arg(libc::O_ASYNC)])?;
    call(libc::SYS_write, &[writer, at(b"x"), 1])?;
    Ok(())
}

fn trace(inside: &Inside, request: i32) -> Answer {
    call(libc::SYS_ptrace, &[as_arg(request), as_arg(inside.victim), 0, 0])?;
    if request == libc::PTRACE_ATTACH as i32 {
        wait(inside.victim)?;
    }
    Ok(())
}

/// One piece of memory of each side, as process_vm_readv(2) takes it.
fn transfer(number: libc::c_long, inside: &Inside, buffer: &mut [u8]) -> Answer {
    let (theirs, ours) = ([inside.victim_at, buffer.len()], [at_mut(buffer), buffer.len()]);
    call(number, &[as_arg(inside.victim), at(&ours), 1, at(&theirs), 1, 0]).map(drop)
}

fn read_memory(inside: &Inside) -> Answer {
    let mut buffer = vec![0; SECRET.len()];
    transfer(libc::SYS_process_vm_readv, inside, &mut buffer)?;
    if buffer == SECRET.as_bytes() { Ok(()) } else { Err(Refused::Nothing("something else")) }
}

fn write_memory(inside: &Inside) -> Answer {
    transfer(libc::SYS_process_vm_writev, inside, &mut SECRET.as_bytes().to_vec())
}

fn memory_file(inside: &Inside) -> Answer {
    let mut buffer = vec![0; SECRET.len()];
    File::open(of(inside.victim, "mem"))?.read_exact_at(&mut buffer, inside.victim_at as u64)?;
    if buffer == SECRET.as_bytes() { Ok(()) } else { Err(Refused::Nothing("something else")) }
}

fn take_descriptor(inside: &Inside) -> Answer {
    let victim = pidfd(inside.victim)?;
    descriptor(libc::SYS_pidfd_getfd, &[fd_arg(&victim), 0, 0]).map(drop)
}

fn descriptors(pid: i32) -> Answer {
    match fs::read_dir(of(pid, "fd"))?.next() {
        Some(_) => Ok(()),
        None => Err(Refused::Nothing("none")),
    }
}

fn through_root(inside: &Inside) -> Answer {
    let below = inside.outside.strip_prefix("/").map_err(|_| Refused::Nothing("relative"))?;
    read(std::path::Path::new(&of(inside.victim, "root")).join(below).join("secret-0644"))
}

fn overwrite_score(inside: &Inside) -> Answer {
    let path = of(inside.victim, "oom_score_adj");
    overwrite(&path).or_else(|refused| match refused {
        // The file takes numbers only: it was opened, and that is enough.
        Refused::Errno(libc::EINVAL) => Ok(()),
        other => Err(other),
    })
}

fn set_limits(inside: &Inside) -> Answer {
    let limit = [7_u64, 7];
    call(libc::SYS_prlimit64, &[as_arg(inside.victim), libc::RLIMIT_NOFILE as usize, at(&limit), 0]).map(drop)
}

fn lower_priority(inside: &Inside) -> Answer {
    call(libc::SYS_setpriority, &[libc::PRIO_PROCESS as usize, as_arg(inside.victim), 19]).map(drop)
}

fn bind_processor(inside: &Inside) -> Answer {
    let first = [1_u64];
    call(libc::SYS_sched_setaffinity, &[as_arg(inside.victim), 8, at(&first)]).map(drop)
}

fn enter_namespace(inside: &Inside) -> Answer {
    let namespace = File::open(of(inside.runtime, "ns/net"))?;
    call(libc::SYS_setns, &[fd_arg(&namespace), 0]).map(drop)
}

/// Starts su(1), and asks what it holds once it has complained. What has ended and was not waited for still says so.
fn set_user_id(_: &Inside) -> Answer {
    let mut su = Command::new("su");
    su.args(["--no-such-option"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = su.spawn()?;
    let complaint = child.stderr.take().map(|mut stderr| stderr.read(&mut [0; 1]));
    let held = capabilities_of(child.id());
    child.wait()?;
    match (complaint, held?) {
        (Some(Ok(1)), true) => Ok(()),
        (Some(Ok(1)), false) => Err(Refused::Nothing("no rights gained")),
        _ => Err(Refused::Nothing("su said nothing")),
    }
}

fn free_to_gain(_: &Inside) -> Answer {
    match call(libc::SYS_prctl, &[as_arg(libc::PR_GET_NO_NEW_PRIVS), 0, 0, 0, 0])? {
        0 => Ok(()),
        _ => Err(Refused::Nothing("no_new_privs is set")),
    }
}

fn capabilities(_: &Inside) -> Answer {
    if capabilities_of(0)? { Ok(()) } else { Err(Refused::Nothing("none held")) }
}

/// capget(2): whether there are effective, permitted or inheritable ones. Of any process, without asking for a right.
fn capabilities_of(pid: u32) -> Result<bool, Refused> {
    const VERSION_3: u32 = 0x2008_0522;
    let (header, mut sets) = ([VERSION_3, pid], [0_u32; 6]);
    call(libc::SYS_capget, &[at(&header), at_mut(&mut sets)])?;
    Ok(sets != [0; 6])
}
