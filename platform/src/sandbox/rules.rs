//! Landlock's rules (landlock(7)), as the inside of a sandbox puts them on itself.
//!
//! Invariant: every path is opened without following a symbolic link in any part of it (openat2(2)), so a link that a tool
//! of another session swaps in meanwhile is an error and not a rule for somewhere else.

use super::{files, mounts};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// The version from which on all is enforced that we promise: files with truncation, devices, and, since this one, signals
/// and abstract unix sockets (Linux 6.12).
pub(super) const ABI_FULL: u32 = 6;

/// What may be reached. Written to the command line and read from it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// The version that the kernel was found to have: the least that has to be enforced again.
    pub(super) abi: u32,
    /// Files and directories to be read and executed, with all below.
    pub(super) read: Vec<PathBuf>,
    /// To be changed as well.
    pub(super) write: Vec<PathBuf>,
    /// Directories to be listed, with all below.
    pub(super) list: Vec<PathBuf>,
    /// For root: what is not to be mounted read-only. Empty: no mounts are made.
    pub(super) writable: Vec<PathBuf>,
    /// Beside that: what is read-only below it.
    pub(super) protected: Vec<PathBuf>,
}

impl Rules {
    /// As arguments.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args = vec!["--abi".into(), self.abi.to_string().into()];
        let lists = [
            ("--read", &self.read),
            ("--write", &self.write),
            ("--list", &self.list),
            ("--writable", &self.writable),
            ("--protected", &self.protected),
        ];
        for (name, paths) in lists {
            args.extend(paths.iter().flat_map(|path| [OsString::from(name), path.into()]));
        }
        args
    }

    /// Takes an option and its value, if it is one of these.
    pub(super) fn take(&mut self, name: &str, value: &OsStr) -> bool {
        match (name, value.to_str().and_then(|value| value.parse().ok())) {
            ("--read", _) => self.read.push(value.into()),
            ("--write", _) => self.write.push(value.into()),
            ("--list", _) => self.list.push(value.into()),
            ("--writable", _) => self.writable.push(value.into()),
            ("--protected", _) => self.protected.push(value.into()),
            ("--abi", Some(abi)) => self.abi = abi,
            _ => return false,
        }
        true
    }

    /// Puts them on this process, for ever. `inet`: internet sockets are somebody else's business.
    ///
    /// # Errors
    /// What could not be enforced, of all that the kernel was found able to.
    pub(super) fn enforce(&self, inet: bool) -> Result<(), String> {
        if !self.writable.is_empty() {
            let made = mounts::read_only_but(&self.writable, &self.protected);
            made.map_err(|error| format!("cannot mount the rest read-only: {error}"))?;
        }
        drop_capabilities().map_err(|error| format!("cannot drop root's capabilities: {error}"))?;
        let status = self.restrict(inet)?;
        match status.ruleset {
            RulesetStatus::FullyEnforced if status.no_new_privs => Ok(()),
            _ => Err(format!("expected all of Landlock's version {}, found {status:?}", self.abi)),
        }
    }

    fn restrict(&self, inet: bool) -> Result<RestrictionStatus, String> {
        let said = |error: RulesetError| format!("Landlock: {error}");
        let abi = version(self.abi);
        let all = AccessFs::from_all(abi);
        // Device files are made by nobody in here.
        let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        // What this version has is there, or it is an error.
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let mut rules = rules.handle_access(all).map_err(said)?;
        let (ports, scopes) = (AccessNet::from_all(abi), Scope::from_all(abi));
        if !inet && !ports.is_empty() {
            rules = rules.handle_access(ports).map_err(said)?;
        }
        if !scopes.is_empty() {
            rules = rules.scope(scopes).map_err(said)?;
        }
        let mut rules = rules.create().map_err(said)?;
        let list = BitFlags::from(AccessFs::ReadDir);
        for (paths, access) in [(&self.read, AccessFs::from_read(abi)), (&self.list, list), (&self.write, write)] {
            for path in paths {
                rules = add(rules, path, access, AccessFs::from_file(abi))?;
            }
        }
        rules.restrict_self().map_err(said)
    }
}

/// Takes the abstract unix sockets of other programs out of reach, for ever, if the kernel can.
///
/// # Errors
/// If it can and did not.
pub(super) fn leave_abstract_sockets() -> Result<(), String> {
    if kernel_abi().unwrap_or(0) < ABI_FULL {
        return Ok(());
    }
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let rules = rules.scope(Scope::AbstractUnixSocket).and_then(Ruleset::create);
    match rules.and_then(RulesetCreated::restrict_self) {
        Ok(status) if status.ruleset == RulesetStatus::FullyEnforced => Ok(()),
        other => Err(format!("expected abstract unix sockets out of reach, found {other:?}")),
    }
}

/// The version of the kernel's interface (landlock_create_ruleset(2)).
pub(super) fn kernel_abi() -> io::Result<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: libc::c_uint = 1;
    let (none, size) = (std::ptr::null::<libc::c_void>(), 0 as libc::size_t);
    // SAFETY: with this flag the call takes no ruleset and returns a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, VERSION) };
    u32::try_from(abi).map_err(|_| io::Error::last_os_error())
}

/// The crate's name for a version of the interface; the newest that it knows for newer ones.
fn version(abi: u32) -> ABI {
    match abi {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        7 => ABI::V7,
        8 => ABI::V8,
        _ => ABI::V9,
    }
}

fn add(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    of_files: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let said = |what: &dyn std::fmt::Display| format!("Landlock: cannot make a rule for {}: {what}", path.display());
    let file = match files::name(path) {
        Ok(file) => file,
        // Gone since it was looked at: nothing to be allowed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(rules),
        Err(error) => return Err(said(&error)),
    };
    let is_dir = file.metadata().map_err(|error| said(&error))?.is_dir();
    let access = if is_dir { access } else { access & of_files };
    rules.add_rule(PathBeneath::new(file, access)).map_err(|error| said(&error))
}

/// Gives up everything that root may do and others may not (capabilities(7)): from all sets, and for what is executed
/// later. An ordinary user has nothing to give up.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Default, Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    let unused: libc::c_ulong = 0;
    // SAFETY: both structs are as capget(2) lays them out, and outlive the calls; prctl takes numbers.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        if data.iter().all(|word| word.permitted == 0 && word.inheritable == 0) {
            return Ok(());
        }
        let mut number: libc::c_ulong = 0;
        // Beyond the last capability of this kernel the answer is EINVAL.
        while libc::prctl(libc::PR_CAPBSET_DROP, number, unused, unused, unused) == 0 {
            number += 1;
        }
        let none = [Data::default(); 2];
        if libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let left = |number| libc::prctl(libc::PR_CAPBSET_READ, number as libc::c_ulong, unused, unused, unused) == 1;
        if (0..64).any(left) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    Ok(())
}
