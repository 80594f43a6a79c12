//! What a call may use. The control uses as much without limits.

use super::Attempt;
use crate::inside::Inside;
use crate::kernel::{Answer, Refused, as_arg, at_mut, call, fork, ignore_signal, kill, set_limit, wait};
use duragent_platform::sandbox::Policy;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

const MIB: u64 = 1 << 20;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new("file size: write more", |_| write_file("src/large"), "SIGXFSZ", "SIGXFSZ").with(limited),
    Attempt::new(
        "file size: write more without the signal",
        |_| {
            ignore_signal(libc::SIGXFSZ);
            write_file("src/large")
        },
        "EFBIG",
        "EFBIG",
    )
    .with(limited),
    Attempt::new("memory: reserve more", reserve, "ENOMEM", "ENOMEM").with(limited),
    Attempt::new(
        "open files: open more",
        |_| {
            let mut files = Vec::new();
            for _ in 0..200 {
                files.push(File::open("/dev/null")?);
            }
            Ok(())
        },
        "EMFILE",
        "EMFILE",
    )
    .with(limited),
    Attempt::new(
        "open files: raise the limit",
        |_| set_limit(libc::RLIMIT_NOFILE.cast_signed(), 128),
        "EPERM",
        "EPERM",
    )
    .with(limited),
    Attempt::new("processes: start more", start_processes, "EAGAIN", "EAGAIN").alone().with(limited),
    Attempt::new("processor: use more", use_processor, "SIGXCPU|SIGKILL", "SIGXCPU|SIGKILL").with(limited),
    Attempt::new("/tmp: fill it", |i| fill("/tmp", i), "ENOSPC", "EACCES").with(limited),
    Attempt::new("/dev/shm: fill it", |i| fill("/dev/shm", i), "ENOSPC", "EACCES").with(limited),
    Attempt::new("core dumps: ask for one", core_limit, "none", "none").control_says("none", "none"),
];

fn limited(_: &crate::house::House, policy: &mut Policy) {
    policy.limits.cpu_seconds = 1;
    policy.limits.memory_bytes = 512 * MIB;
    policy.limits.processes = 64;
    policy.limits.file_bytes = 4 * MIB;
    policy.limits.open_files = 64;
    policy.limits.tmp_bytes = 2 * MIB;
}

/// 5 MiB in the working directory.
fn write_file(name: &str) -> Answer {
    let mut file = File::create(name)?;
    for _ in 0..5 {
        file.write_all(&vec![b'x'; 1 << 20])?;
    }
    Ok(fs::remove_file(name)?)
}

fn reserve(_: &Inside) -> Answer {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = as_arg(libc::PROT_READ | libc::PROT_WRITE);
    call(libc::SYS_mmap, &[0, 1 << 30, protection, as_arg(flags), as_arg(-1), 0]).map(drop)
}

/// A hundred that live at the same time.
fn start_processes(_: &Inside) -> Answer {
    let mut children = Vec::new();
    let mut answer = Ok(());
    for _ in 0..100 {
        match fork(|| {
            std::thread::sleep(Duration::from_secs(30));
            0
        }) {
            Ok(child) => children.push(child),
            Err(refused) => {
                answer = Err(refused);
                break;
            }
        }
    }
    for &child in &children {
        kill(child, libc::SIGKILL)?;
        wait(child)?;
    }
    answer
}

/// More than a second, and less than two: CLOCK_PROCESS_CPUTIME_ID says when it is enough.
fn use_processor(_: &Inside) -> Answer {
    let mut used = [0_u64; 2];
    while used[0] == 0 || used[1] < 300_000_000 {
        for _ in 0..1_000 {
            std::hint::black_box(used[1].wrapping_mul(3));
        }
        call(libc::SYS_clock_gettime, &[libc::CLOCK_PROCESS_CPUTIME_ID.unsigned_abs() as usize, at_mut(&mut used)])?;
    }
    Ok(())
}

/// 3 MiB.
fn fill(directory: &str, inside: &Inside) -> Answer {
    let path = std::path::Path::new(directory).join(&inside.mark);
    let written = File::create_new(&path).and_then(|mut file| file.write_all(&vec![b'x'; 3 << 20]));
    let removed = fs::remove_file(&path);
    written?;
    Ok(removed?)
}

fn core_limit(_: &Inside) -> Answer {
    let mut limits = [0_u64; 2];
    call(libc::SYS_prlimit64, &[0, libc::RLIMIT_CORE as usize, 0, at_mut(&mut limits)])?;
    if limits == [0, 0] { Err(Refused::Nothing("none")) } else { Ok(()) }
}
