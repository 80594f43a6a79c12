//! What the backends that enclose have in common: limits that need more than setrlimit(2), and trying themselves out.

use super::cgroup::Group;
use super::inside::NOTHING;
use super::policy::Limits;
use super::{Command, Enforcement, Exit, Place, Report, Sandbox, Unavailable};
use crate::cancel::Cancel;
use crate::process::uid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Time to try a sandbox out. It does nothing, but the machine may be busy.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(20);

/// A directory that every system has, for a trial that touches nothing.
const TRIAL_DIRECTORY: &str = "/usr";

/// Runs nothing in `sandbox`, to see whether it can be built here.
pub(super) fn try_out(sandbox: &dyn Sandbox) -> Result<(), Unavailable> {
    let backend = sandbox.report().backend;
    let directory = Path::new(TRIAL_DIRECTORY);
    let view = sandbox.view(Place { workdir: directory, artifacts: directory });
    let command = Command { program: NOTHING.to_owned(), args: Vec::new(), env: Vec::new(), deadline: TRIAL_TIME_MAX };
    let cause = match sandbox.run(&view, &command, &Cancel::new(), &mut |_, _| {}) {
        Ok(ended) if ended.exit == Exit::Code(0) => return Ok(()),
        Ok(ended) => format!("a trial ended with {:?}", ended.exit),
        Err(error) => error.to_string(),
    };
    Err(Unavailable { cause: format!("{backend}: {cause}"), remedy: String::new() })
}

/// Notes in `report` if the number of processes cannot be bounded: root's are only by a control group.
pub(super) fn processes(report: &mut Report) {
    if uid() == 0
        && let Err(error) = Group::make(Limits::default().processes)
    {
        report.missing.push(format!(
            "the number of processes: it does not bind root without a pids control group ({error}); run duragent as a user of its own"
        ));
    }
}

/// The control group for one call, if it needs one.
///
/// # Errors
/// If it needs one and there was one when the backend was tried out.
pub(super) fn group(limits: &Limits, report: &Report) -> io::Result<Option<Group>> {
    if uid() != 0 || limits.processes == 0 {
        return Ok(None);
    }
    match Group::make(limits.processes) {
        Ok(group) => Ok(Some(group)),
        Err(_) if report.enforcement < Enforcement::Full => Ok(None),
        Err(error) => Err(io::Error::other(format!("no control group to bound the number of processes: {error}"))),
    }
}

/// `processes` as `RLIMIT_NPROC` is to have it. It counts all processes and threads of the user, those outside too, unless
/// there is a user namespace of its own and the kernel counts by namespace (`shared` false, Linux 5.14).
pub(super) fn process_limit(processes: u64, shared: bool) -> u64 {
    if processes == 0 || (!shared && counts_by_namespace()) { processes } else { processes + tasks_of(uid()) }
}

fn counts_by_namespace() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

/// Processes and threads of a user. What comes or goes meanwhile does not matter much.
fn tasks_of(user: u32) -> u64 {
    let tasks = |pid: libc::pid_t| {
        // A directory has two links, and one for each directory in it.
        let found = fs::metadata(format!("/proc/{pid}/task")).ok().filter(|task| task.uid() == user);
        found.map_or(0, |task| task.nlink().saturating_sub(2))
    };
    crate::procfs::pids().map(tasks).sum()
}

/// Adds a variable if it is not there.
pub(super) fn set_default(env: &mut Vec<(String, String)>, name: &str, value: &Path) {
    if !env.iter().any(|(known, _)| known == name) {
        env.push((name.to_owned(), value.to_string_lossy().into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_shared_leave_room_for_the_others() {
        assert_eq!(process_limit(0, true), 0, "no limit stays none");
        assert!(process_limit(10, true) > 10, "this process counts");
        assert!(tasks_of(uid()) >= 1 && tasks_of(4_000_000_000) == 0);
    }

    #[test]
    fn a_variable_that_is_there_stays() {
        let mut env = vec![("HOME".to_owned(), "/here".to_owned())];
        set_default(&mut env, "HOME", Path::new("/tmp"));
        set_default(&mut env, "TMPDIR", Path::new("/tmp"));
        assert_eq!(env, [("HOME".to_owned(), "/here".to_owned()), ("TMPDIR".to_owned(), "/tmp".to_owned())]);
    }
}
