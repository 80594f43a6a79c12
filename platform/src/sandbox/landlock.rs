//! The backend `landlock`, for machines without user namespaces or bwrap: rules on files, a system call filter and limits
//! that a process puts on itself and on all it starts (landlock(7), seccomp(2)).
//!
//! What it cannot do, and what follows. It grants what it is told and takes nothing away below that: where something below a
//! directory is protected, the entries beside it are granted one by one, and new ones in that very directory cannot be made
//! by a shell (file tools can). It does not hide processes, so `/proc` is not granted. It has no `/tmp` of its own, so there
//! is a directory for each call, in `TMPDIR`, or in the working directory where nothing else is writable. It cannot tell one address on the network from another, so the network is
//! either none or all. It has no say about modes, owners and times of files: for root, what may not be changed is therefore
//! mounted read-only as well ([`super::mounts`]); an ordinary user can do that to files of its own.

use super::backend::Backend;
use super::guard::Options as GuardOptions;
use super::inside::Options as InsideOptions;
use super::layout::{Kind, Layout, layout};
use super::rules::{ABI_FULL, Rules, kernel_abi};
use super::run::{self, Plan};
use super::{Command, Ended, Enforcement, Grant, Network, Place, Policy, Report, Sandbox, Stream, Unavailable, View};
use super::{confined, explain};
use crate::cancel::Cancel;
use crate::process::{random_u64, uid};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most entries of directories that are granted one by one. Each is a system call and a little kernel memory.
const ENTRIES_MAX: usize = 4096;

/// Granted beside the policy: devices without a state, and what programs ask about the machine.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const ABOUT_MACHINE: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/sys/devices/system/cpu",
];

/// A sandbox that rests on Landlock.
#[derive(Debug, Clone)]
struct Landlock {
    guard: PathBuf,
    policy: Policy,
    report: Report,
    abi: u32,
    /// As root: what may not be changed is mounted read-only as well.
    mounts: bool,
}

/// Tries it out here.
pub(super) fn find(guard: &Path) -> Result<Backend, Unavailable> {
    let abi = kernel_abi().map_err(|error| Unavailable {
        cause: format!("landlock: the kernel has none ({error})"),
        remedy: "boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock among lsm=".to_owned(),
    })?;
    let mut report =
        Report { backend: "landlock", enforcement: Enforcement::Full, landlock_abi: Some(abi), missing: Vec::new() };
    if abi < ABI_FULL {
        report.missing.push(format!(
            "Landlock has version {abi}: before version {ABI_FULL} (Linux 6.12) it does not keep tools from signalling other processes of this user"
        ));
    }
    confined::processes(&mut report);
    // Before the trial: one that is known to be partial goes without what is missing.
    report.enforcement = achieved(&report);
    let is_root = uid() == 0;
    let (guard, policy) = (guard.to_owned(), Policy::default());
    let mut trial = Landlock { guard, policy, report: report.clone(), abi, mounts: is_root };
    if let Err(unavailable) = confined::try_out(&trial) {
        trial.mounts = false;
        if !is_root {
            return Err(unavailable);
        }
        confined::try_out(&trial)?;
        report.missing.push(format!("modes and times of root's own files elsewhere ({})", unavailable.cause));
    }
    report.enforcement = achieved(&report);
    trial.report = report.clone();
    Ok(Backend::new(report, Arc::new(move |policy| Ok(Arc::new(trial.with(policy)?)))))
}

fn achieved(report: &Report) -> Enforcement {
    if report.missing.is_empty() { Enforcement::Full } else { Enforcement::Partial }
}

impl Landlock {
    fn with(&self, policy: Policy) -> Result<Self, Unavailable> {
        match policy.network {
            Network::None | Network::All => Ok(Self { policy, ..self.clone() }),
            Network::Loopback | Network::Hosts(_) => Err(Unavailable {
                cause: "landlock cannot tell one address on the network from another".to_owned(),
                remedy: "write `network: none` or `network: all`, or install bubblewrap and write `sandbox: {mode: bubblewrap}`"
                    .to_owned(),
            }),
        }
    }

    fn rules(&self, view: &View, layout: &Layout, tmp: Option<&Path>) -> io::Result<Rules> {
        let mut rules = Rules { abi: self.abi, ..Rules::default() };
        let canonical = |path: &str| fs::canonicalize(path).ok();
        rules.read.extend(ABOUT_MACHINE.into_iter().filter_map(canonical));
        rules.write.extend(DEVICES.into_iter().filter_map(canonical));
        rules.write.extend(tmp.map(Path::to_owned));
        if self.mounts {
            let of = |wanted: &[Kind]| {
                let steps = layout.steps.iter().filter(|(_, step)| wanted.contains(&step.kind));
                steps.map(|(path, _)| path.clone()).collect::<Vec<_>>()
            };
            rules.writable = of(&[Kind::Write]);
            rules.writable.extend(tmp.map(Path::to_owned));
            rules.protected = of(&[Kind::Keep, Kind::Hide]);
        }
        for (path, step) in layout.steps.iter() {
            let grant = match step.kind {
                Kind::Write => Grant::Write,
                Kind::Read | Kind::Keep => Grant::Read,
                Kind::Link(_) | Kind::Pin | Kind::Hide => continue,
            };
            if step.id.is_some() {
                self.carve(layout, path, grant, &mut rules)?;
                continue;
            }
            // System paths may lead through links that are the machine's own.
            let Ok(real) = fs::canonicalize(path) else { continue };
            if real == *path || view.grant(&real) < grant {
                self.carve(layout, &real, grant, &mut rules)?;
            }
        }
        Ok(rules)
    }

    /// Grants `path` and all below it, but what is protected there.
    fn carve(&self, layout: &Layout, path: &Path, grant: Grant, rules: &mut Rules) -> io::Result<()> {
        if rules.read.len() + rules.write.len() + rules.list.len() > ENTRIES_MAX {
            let text = format!(
                "landlock: more than {ENTRIES_MAX} entries beside what is protected, down to {}; give the agent a workdir of its own",
                path.display()
            );
            return Err(io::Error::other(text));
        }
        if !layout.is_limited_below(path) {
            if grant == Grant::Write {
                rules.write.push(path.into())
            } else {
                rules.read.push(path.into())
            }
            return Ok(());
        }
        rules.list.push(path.to_owned());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let below = entry.path();
            // A link is followed by the kernel to what it leads to, which has or has not a rule of its own.
            let own_step = layout.steps.get(&below).is_some_and(|step| step.kind != Kind::Pin);
            if !own_step && !entry.file_type()?.is_symlink() {
                self.carve(layout, &below, grant, rules)?;
            }
        }
        Ok(())
    }
}

impl Sandbox for Landlock {
    fn report(&self) -> &Report {
        &self.report
    }

    fn view(&self, place: Place<'_>) -> View {
        View::new(&self.policy, place).without_new_files()
    }

    fn run(
        &self,
        view: &View,
        command: &Command,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ended> {
        let layout = layout(view);
        let tmp = Temporary::make(view);
        let tmp_path = tmp.as_ref().map(|tmp| tmp.0.as_path());
        let processes = confined::process_limit(self.policy.limits.processes, true);
        let mut inside = InsideOptions::new(&self.policy.network, &self.policy.limits, processes);
        inside.landlock = Some(self.rules(view, &layout, tmp_path)?);
        let cgroup = confined::group(&self.policy.limits, &self.report)?;
        let options = GuardOptions {
            inside: true,
            here: true,
            filter: None,
            cgroup: cgroup.as_ref().map(|group| group.path().to_owned()),
            remove: tmp_path.map(Path::to_owned),
            watch: layout.watch.clone(),
        };
        let argv = inside.to_args();
        let mut env = command.env.clone();
        for name in ["HOME", "TMPDIR"] {
            confined::set_default(&mut env, name, tmp_path.unwrap_or(view.workdir()));
        }
        let plan = Plan::new(&self.guard, view, argv, command, env, options);
        let ended = run::run(plan, cancel, sink)?;
        Ok(explain::with_limits(ended, &self.policy.limits))
    }
}

/// A directory for temporary files of one call.
struct Temporary(PathBuf);

impl Temporary {
    /// `None` if there is no place for one: then a tool has what it may change, and nothing else.
    fn make(view: &View) -> Option<Self> {
        // On an appliance whose root is read-only, what the tool works on may be all that is not.
        let places = [std::env::temp_dir(), view.workdir().to_owned()];
        places.iter().find_map(|place| {
            let above = fs::canonicalize(place).ok()?;
            let path = above.join(format!(".duragent-{}-{:016x}", std::process::id(), random_u64()));
            DirBuilder::new().mode(0o700).create(&path).ok()?;
            Some(Self(path))
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The guard has removed it, but for one that was killed.
        let _ = fs::remove_dir_all(&self.0);
    }
}
