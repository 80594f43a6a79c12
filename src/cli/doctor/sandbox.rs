//! What stands between a tool and this machine: a canary runs where tools run, and says what it was able to do. What the
//! kernel offers for a stronger sandbox is tried as well.

use super::Check;
use duragent_platform::cancel::Cancel;
use duragent_platform::process;
use duragent_platform::sandbox::{self, Command, Exit, Place, Sandbox, Trust};
use landlock::{ABI, Access, AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Most time of one canary: it does nothing, but the machine may be busy.
const CANARY_TIME_MAX: Duration = Duration::from_secs(20);
/// Most bytes that are taken of what a canary prints.
const CANARY_BYTES_MAX: usize = 4096;
/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

pub fn look(dir: &Path, workdir: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    match sandbox::own_binary() {
        Ok(guard) => {
            let trust = Trust::new(guard);
            checks.push(canary(&trust, dir, workdir));
            checks.push(bubblewrap(&trust, workdir));
        }
        Err(error) => {
            checks.push(Check::fail("sandbox", format!("cannot find this binary, which guards tools: {error}")));
        }
    }
    checks.push(user_namespaces(&|path| fs::read_to_string(path).ok()));
    checks.push(landlock_canary());
    checks
}

/// Runs a shell where tools run. It says who it is, and whether it could change what configures the runtime.
fn canary(sandbox: &dyn Sandbox, dir: &Path, workdir: &Path) -> Check {
    const NAME: &str = "sandbox";
    const SCRIPT: &str = "id -un; id -u; if test -w \"$1\"; then echo open; else echo closed; fi";
    let config = dir.join("duragent.yaml").to_string_lossy().into_owned();
    let args = vec!["-c".into(), SCRIPT.into(), "canary".into(), config];
    let (backend, enforced) = (sandbox.report().backend, sandbox.report().enforcement.as_str());
    let hint = "without a shell no tool runs; install one as /bin/sh";
    let (exit, text) = match ran(sandbox, "/bin/sh", args, workdir) {
        Ok(ran) => ran,
        Err(error) => {
            return Check::fail(NAME, format!("{backend}: a canary could not be started: {error}")).hint(hint);
        }
    };
    let lines: Vec<&str> = text.lines().collect();
    let (Exit::Code(0), [user, uid, wall]) = (exit, lines.as_slice()) else {
        return Check::fail(NAME, format!("{backend}: a canary ended with {exit:?} and said {text:?}")).hint(hint);
    };
    let could = if *wall == "open" { "could change" } else { "could not change" };
    let evidence = format!(
        "{backend}, enforced: {enforced}; a canary ran as user {user} ({uid}) with no wall and {could} this configuration"
    );
    let check = Check::warn(NAME, evidence);
    if process::uid() == 0 {
        check.hint("tools are root here; run duragent as a user of its own")
    } else {
        check.hint("tools can do whatever this user can; \"ask\" in policy.yaml is what stands before that")
    }
}

/// Runs `program` to its end and returns how it ended and what it printed, both pipes together.
fn ran(sandbox: &dyn Sandbox, program: &str, args: Vec<String>, workdir: &Path) -> std::io::Result<(Exit, String)> {
    let command = Command {
        program: program.to_owned(),
        args,
        env: vec![("PATH".to_owned(), PATH.to_owned()), ("LC_ALL".to_owned(), "C".to_owned())],
        deadline: CANARY_TIME_MAX,
    };
    let mut out = Vec::new();
    let view = sandbox.view(Place { workdir, artifacts: workdir });
    let ended = sandbox.run(&view, &command, &Cancel::new(), &mut |_, chunk| {
        let room = CANARY_BYTES_MAX.saturating_sub(out.len());
        out.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
    })?;
    Ok((ended.exit, String::from_utf8_lossy(&out).into_owned()))
}

/// Whether bubblewrap is there and able to make its namespaces. Nothing uses it yet.
fn bubblewrap(sandbox: &dyn Sandbox, workdir: &Path) -> Check {
    const NAME: &str = "bubblewrap";
    let program = PATH.split(':').map(|folder| Path::new(folder).join("bwrap")).find(|path| path.is_file());
    let Some(program) = program.map(|path| path.to_string_lossy().into_owned()) else {
        return Check::warn(NAME, format!("no bwrap in {PATH}")).hint("not needed in trust mode, which is configured");
    };
    let version = ran(sandbox, &program, vec!["--version".into()], workdir);
    let version = version.map_or_else(|error| error.to_string(), |(_, text)| text.trim().to_owned());
    let args = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/sh", "-c", "exit 0"];
    match ran(sandbox, &program, args.map(str::to_owned).to_vec(), workdir) {
        Ok((Exit::Code(0), _)) => Check::ok(NAME, format!("{version} made its namespaces")),
        Ok((_, text)) => {
            let said = text.lines().next().unwrap_or("nothing");
            Check::warn(NAME, format!("{version} cannot work here: {said}")).hint("not needed in trust mode")
        }
        Err(error) => {
            Check::warn(NAME, format!("{program} cannot be started: {error}")).hint("not needed in trust mode")
        }
    }
}

/// What the kernel's switches say about namespaces for ordinary users. `read` reads a file.
fn user_namespaces(read: &dyn Fn(&str) -> Option<String>) -> Check {
    const NAME: &str = "user namespaces";
    const MAX: &str = "/proc/sys/user/max_user_namespaces";
    let value = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let hint = "not needed in trust mode; a sandbox without root needs them";
    let Some(max) = value(MAX) else {
        return Check::warn(NAME, format!("the kernel has none: {MAX} is missing")).hint(hint);
    };
    for (path, off) in [
        (MAX, 0),
        ("/proc/sys/kernel/unprivileged_userns_clone", 0),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1),
    ] {
        if value(path) == Some(off) {
            return Check::warn(NAME, format!("{path} is {off}: not for ordinary users")).hint(hint);
        }
    }
    Check::ok(NAME, format!("allowed, at most {max}"))
}

/// Locks a thread of its own out of the file system and lets it try to open a file. Nothing uses Landlock yet.
fn landlock_canary() -> Check {
    const NAME: &str = "landlock";
    // The rules hold for the thread that sets them, and end with it.
    let tried = std::thread::Builder::new().name("canary".to_owned()).spawn(|| {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1))?.create()?;
        let status = ruleset.restrict_self()?;
        Ok::<_, landlock::RulesetError>((status, fs::File::open("/proc/self/stat").is_err()))
    });
    let joined = tried.map(std::thread::JoinHandle::join);
    match joined {
        Ok(Ok(Ok((status, closed)))) => landlock_verdict(status.landlock, &status.ruleset, closed),
        Ok(Ok(Err(error))) => Check::warn(NAME, format!("the kernel refuses rules: {error}")),
        Ok(Err(_)) => Check::warn(NAME, "the canary did not come back"),
        Err(error) => Check::warn(NAME, format!("no thread for the canary: {error}")),
    }
}

fn landlock_verdict(kernel: LandlockStatus, rules: &RulesetStatus, closed: bool) -> Check {
    const NAME: &str = "landlock";
    let hint = "not needed in trust mode, which is configured";
    let (effective_abi, kernel_abi) = match kernel {
        LandlockStatus::NotEnabled => return Check::warn(NAME, "the kernel has it, but it is off").hint(hint),
        LandlockStatus::NotImplemented => return Check::warn(NAME, "the kernel does not have it").hint(hint),
        LandlockStatus::Available { effective_abi, kernel_abi } => (effective_abi, kernel_abi),
    };
    let abi = kernel_abi.unwrap_or(effective_abi as i32);
    if closed && *rules == RulesetStatus::FullyEnforced {
        return Check::ok(NAME, format!("ABI {abi}; a canary was kept from opening a file"));
    }
    let how = if closed { "was kept" } else { "was not kept" };
    Check::warn(NAME, format!("ABI {abi}; rules are {rules:?}, a canary {how} from opening a file")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn switches_of_the_kernel() {
        const MAX: (&str, &str) = ("/proc/sys/user/max_user_namespaces", "100\n");
        let check = |files: &[(&str, &str)], status: Status, part: &str| {
            let found = user_namespaces(&|path| files.iter().find(|(p, _)| *p == path).map(|(_, t)| (*t).to_owned()));
            assert!(found.status == status && found.evidence.contains(part), "{found:?}");
        };
        check(&[], Status::Warn, "is missing");
        check(&[MAX], Status::Ok, "at most 100");
        check(&[("/proc/sys/user/max_user_namespaces", "0")], Status::Warn, "max_user_namespaces is 0");
        check(&[MAX, ("/proc/sys/kernel/unprivileged_userns_clone", "0\n")], Status::Warn, "clone is 0");
        check(&[MAX, ("/proc/sys/kernel/unprivileged_userns_clone", "1\n")], Status::Ok, "allowed");
        let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        check(&[MAX, (apparmor, "1\n")], Status::Warn, "is 1");
        check(&[MAX, (apparmor, "0\n")], Status::Ok, "allowed");
    }

    #[test]
    fn what_landlock_says_and_does() {
        let check = |kernel, rules, closed, status: Status, part: &str| {
            let found = landlock_verdict(kernel, rules, closed);
            assert!(found.status == status && found.evidence.contains(part), "{found:?}");
        };
        let (full, none) = (&RulesetStatus::FullyEnforced, &RulesetStatus::NotEnforced);
        let there = LandlockStatus::Available { effective_abi: ABI::V4, kernel_abi: None };
        let newer = LandlockStatus::Available { effective_abi: ABI::V4, kernel_abi: Some(12) };
        check(there, full, true, Status::Ok, "ABI 4; a canary was kept");
        check(newer, full, true, Status::Ok, "ABI 12");
        check(there, full, false, Status::Warn, "was not kept");
        check(there, none, true, Status::Warn, "NotEnforced");
        check(LandlockStatus::NotEnabled, none, false, Status::Warn, "is off");
        check(LandlockStatus::NotImplemented, none, false, Status::Warn, "does not have it");
    }

    #[test]
    fn the_canary_is_alone_behind_its_wall() {
        let before = fs::File::open("/proc/self/stat").is_ok();
        landlock_canary();
        assert!(before && fs::File::open("/proc/self/stat").is_ok(), "the wall must end with the thread");
    }
}
