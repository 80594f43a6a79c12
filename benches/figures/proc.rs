//! What `/proc` tells of a process (proc(5)).

use crate::failure::{Failure, Result, at};
use std::fs;
use std::path::Path;

/// Resident memory as `smaps_rollup` has it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    /// Pages in memory, shared ones in full.
    pub rss: f64,
    /// The same with shared pages divided among those that share them.
    pub pss: f64,
    /// Of these, what belongs to no file: heap and stacks.
    pub anon: f64,
}

/// Memory of a process now.
pub fn resident(pid: u32) -> Result<Resident> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = read(&path)?;
    Ok(Resident {
        rss: kib(&text, "Rss:", &path)?,
        pss: kib(&text, "Pss:", &path)?,
        anon: kib(&text, "Pss_Anon:", &path)?,
    })
}

/// The most memory a process has ever had, in bytes.
pub fn peak(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    kib(&read(&path)?, "VmHWM:", &path)
}

/// What a process has written since it began.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Bytes handed to write(2), sockets included.
    pub wchar: f64,
    /// Bytes of pages dirtied, as the block layer will see them.
    pub write_bytes: f64,
}

/// Bytes written so far.
pub fn written(pid: u32) -> Result<Written> {
    let path = format!("/proc/{pid}/io");
    let text = read(&path)?;
    Ok(Written { wchar: field(&text, "wchar:", &path)?, write_bytes: field(&text, "write_bytes:", &path)? })
}

/// Processor time so far in clock ticks of 10 ms (`utime` and `stime`, all threads, those that ended included).
pub fn ticks(pid: u32) -> Result<u64> {
    Ok(times(&pid.to_string())?[..2].iter().sum())
}

/// The same of this process and of all its children that have ended.
pub fn own_ticks() -> Result<u64> {
    Ok(times("self")?.iter().sum())
}

/// `utime`, `stime`, `cutime` and `cstime`.
fn times(process: &str) -> Result<[u64; 4]> {
    let path = format!("/proc/{process}/stat");
    let text = read(&path)?;
    // The name in parentheses may hold anything; what follows it are the fields from the third on.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let times: Vec<u64> = fields.take(4).filter_map(|field| field.parse().ok()).collect();
    times.try_into().map_err(|_| Failure(format!("{path}: expected times of the processor, found {text:?}")))
}

/// How often the threads of a process gave up the processor by themselves: a wake-up each.
pub fn switches(pid: u32) -> Result<f64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0.0;
    for task in fs::read_dir(&tasks).map_err(at(Path::new(&tasks)))? {
        let path = task.map_err(at(Path::new(&tasks)))?.path().join("status");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        sum += field(&text, "voluntary_ctxt_switches:", &path.display().to_string())?;
    }
    Ok(sum)
}

/// The number of threads of a process.
pub fn threads(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    field(&read(&path)?, "Threads:", &path)
}

/// How many files a process of ours may have open at a time (getrlimit(2), the soft limit).
pub fn descriptors() -> Result<f64> {
    let path = "/proc/self/limits";
    let text = read(path)?;
    let name = "Max open files";
    if text.contains("Max open files            unlimited") { Ok(f64::INFINITY) } else { field(&text, name, path) }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(at(Path::new(path)))
}

fn kib(text: &str, name: &str, path: &str) -> Result<f64> {
    Ok(field(text, name, path)? * 1024.0)
}

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str, path: &str) -> Result<f64> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    found.ok_or_else(|| Failure(format!("{path}: expected a line {name:?}, found none")))
}
