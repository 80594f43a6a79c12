//! The backend `bubblewrap`: namespaces of its own for everything, made by the program bwrap, which needs no privilege
//! (bwrap(1), namespaces(7)).
//!
//! The tool sees the system's programs and libraries read-only, what the policy lists, a `/proc` with its own processes, a
//! `/dev` without devices of the machine and a `/tmp` of its own; nothing else has a name. What stays outside has no path to
//! be redirected: this very binary, which becomes the tool inside ([`super::inside`]), and the channel to the runtime are
//! descriptors.
//!
//! Invariants: process 1 in here is bwrap, which is of the outside: root cannot look into it. Directories that hold something protected are mounts, so no tool can carry them off (see [`super::layout`]).

use super::backend::Backend;
use super::guard::{BINARY_FD, FILTER_FD, Options as GuardOptions};
use super::inside::Options as InsideOptions;
use super::layout::{Kind, Layout, layout};
use super::run::{self, Plan};
use super::{Command, Ended, Enforcement, Network, Place, Policy, Report, Sandbox, Stream, Unavailable, View};
use super::{confined, explain};
use crate::cancel::Cancel;
use crate::process::uid;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where bwrap is looked for: where systems put programs, and nowhere a tool could.
const FOLDERS: [&str; 6] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"];

/// What the kernel lets root do through `/proc`, whatever the namespaces: read-only or not at all.
const PROC_READ_ONLY: [&str; 1] = ["/proc/sys"];

/// A sandbox made by bwrap.
#[derive(Debug, Clone)]
struct Bubblewrap {
    guard: PathBuf,
    program: PathBuf,
    policy: Policy,
    report: Report,
}

/// Tries it out here.
pub(super) fn find(guard: &Path) -> Result<Backend, Unavailable> {
    let program = FOLDERS.iter().map(|folder| Path::new(folder).join("bwrap")).find(|path| path.is_file());
    let program = program.ok_or_else(|| Unavailable {
        cause: format!("bubblewrap: no bwrap in {}", FOLDERS.join(":")),
        remedy: "install the package bubblewrap".to_owned(),
    })?;
    let mut report =
        Report { backend: "bubblewrap", enforcement: Enforcement::Full, landlock_abi: None, missing: Vec::new() };
    confined::processes(&mut report);
    if !report.missing.is_empty() {
        report.enforcement = Enforcement::Partial;
    }
    let trial = Bubblewrap { guard: guard.to_owned(), program, policy: Policy::default(), report: report.clone() };
    confined::try_out(&trial).map_err(|unavailable| Unavailable { remedy: remedy().to_owned(), ..unavailable })?;
    Ok(Backend::new(report, Arc::new(move |policy| Ok(Arc::new(Bubblewrap { policy, ..trial.clone() })))))
}

/// What to do if bwrap is there and does not work: mostly one of these switches.
fn remedy() -> &'static str {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "allow user namespaces: sysctl user.max_user_namespaces=10000"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "allow bwrap its user namespaces: an AppArmor profile for it, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "user namespaces are needed, and bubblewrap 0.8 or newer; see what it says with: bwrap --unshare-all --ro-bind / / true"
    }
}

impl Bubblewrap {
    /// bwrap's command line, up to and with the `--` before the program.
    fn argv(&self, view: &View, layout: &Layout) -> Vec<OsString> {
        let mut args = Args(vec![self.program.clone().into_os_string()]);
        args.flags(&["--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"]);
        if self.policy.network == Network::All {
            args.flags(&["--share-net"]);
        }
        // The filter holds before anything of what was mounted is executed.
        args.flags(&["--seccomp", &FILTER_FD.to_string(), "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc"]);
        for path in PROC_READ_ONLY {
            args.flags(&["--ro-bind", path, path]);
        }
        if uid() == 0 {
            // Process 1 is bwrap, whose program is not in here: through it, root could change that program's mode.
            args.flags(&["--perms", "0555", "--size", "4096", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1"]);
        }
        let tmp_bytes = self.policy.limits.tmp_bytes.max(4096).to_string();
        for tmp in ["/dev/shm", "/tmp"] {
            args.flags(&["--perms", "1777", "--size", &tmp_bytes, "--tmpfs", tmp]);
        }
        let mut hidden = Vec::new();
        for (path, step) in layout.steps.iter() {
            match &step.kind {
                Kind::Link(_) if path.starts_with("/proc") => {}
                Kind::Link(target) => args.pair("--symlink", target, path),
                Kind::Read | Kind::Keep => args.pair("--ro-bind", path, path),
                Kind::Write | Kind::Pin => args.pair(if is_device(path) { "--dev-bind" } else { "--bind" }, path, path),
                Kind::Hide if path.is_dir() => {
                    args.flags(&["--perms", "0555", "--size", "4096", "--tmpfs"]);
                    args.0.push(path.into());
                    hidden.push(path);
                }
                Kind::Hide => args.pair("--ro-bind", Path::new("/dev/null"), path),
            }
        }
        // Last: mount points below them had to be made.
        for path in hidden.into_iter().map(PathBuf::as_path).chain([Path::new("/dev"), Path::new("/")]) {
            args.0.extend(["--remount-ro".into(), path.into()]);
        }
        args.0.extend(["--chdir".into(), view.workdir().into(), "--".into()]);
        args.0
    }
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.file_type().is_char_device() || metadata.file_type().is_block_device())
}

struct Args(Vec<OsString>);

impl Args {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn pair(&mut self, flag: &str, from: &Path, to: &Path) {
        self.0.extend([flag.into(), from.into(), to.into()]);
    }
}

impl Sandbox for Bubblewrap {
    fn report(&self) -> &Report {
        &self.report
    }

    fn view(&self, place: Place<'_>) -> View {
        View::new(&self.policy, place)
    }

    fn run(
        &self,
        view: &View,
        command: &Command,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ended> {
        let layout = layout(view);
        let processes = confined::process_limit(self.policy.limits.processes, false);
        let mut inside = InsideOptions::new(&self.policy.network, &self.policy.limits, processes);
        // bwrap goes by names, and a tool of another call may change what they lead to while it does.
        let mounts = layout.steps.iter().filter(|(_, step)| !matches!(step.kind, Kind::Link(_)));
        inside.mounts = mounts.map(|(path, step)| (path.clone(), step.id)).collect();
        let mut argv = self.argv(view, &layout);
        argv.push(format!("/proc/self/fd/{BINARY_FD}").into());
        argv.extend(inside.to_args());
        let cgroup = confined::group(&self.policy.limits, &self.report)?;
        let options = GuardOptions {
            inside: true,
            here: false,
            filter: Some(inside.inet),
            cgroup: cgroup.as_ref().map(|group| group.path().to_owned()),
            remove: None,
            watch: layout.watch,
        };
        let mut env = command.env.clone();
        confined::set_default(&mut env, "HOME", Path::new("/tmp"));
        let mut plan = Plan::new(&self.guard, view, argv, command, env, options);
        if let Network::Hosts(hosts) = &self.policy.network {
            plan.hosts = hosts.clone();
        }
        let ended = run::run(plan, cancel, sink)?;
        Ok(explain::with_limits(ended, &self.policy.limits))
    }
}
