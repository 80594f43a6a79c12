//! Which system calls are refused, by number, for each architecture that has a filter.
//!
//! The numbers are those of the kernel's own tables (`arch/*/syscall*.tbl`, up to Linux 7.1), written down here because
//! the libc crate lacks some of them, others on each target, and because this way the filter of every architecture is
//! tested on any machine. Calls of 2019 and later (424 and up) have one number everywhere.
//!
//! Left alone, though other filters refuse them: what only asks (name_to_handle_at, statmount), what only confines
//! (seccomp, landlock_*), memory placement of the process itself (mbind), and what fails for want of capabilities and has
//! ordinary uses beside (setuid and its family, mknod).

/// What is done about a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It goes ahead.
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`: what an older kernel says, so that programs take their older way.
    Unknown,
    /// No flag for a new namespace (clone).
    Clone,
    /// No flag but for what is no namespace (unshare).
    Unshare,
    /// No way to let old programs map memory unsafely (personality).
    Personality,
    /// No typing into a terminal for others to read (ioctl).
    Ioctl,
    /// Only families that are allowed (socket).
    Socket,
    /// Only AF_UNIX (socketpair).
    Socketpair,
    /// Nothing that makes a socket (socketcall).
    Socketcall,
    /// Of the calling thread (the first argument is 0), unless all processes there are belong to the tool.
    Own,
    /// The same for setpriority: of itself or its group.
    Priority,
    /// The same for ioprio_set, which counts from 1.
    IoPriority,
}

/// An architecture with a filter. All are little-endian, and on all the flags are clone's first argument.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arch {
    /// `AUDIT_ARCH_*` of linux/audit.h: the number of the ELF machine, with bits for 64-bit and little-endian.
    pub(super) audit: u32,
    /// Of the tables below.
    column: usize,
    /// First and last of the calls that exist on this one alone, far above the others; empty if the last is smaller.
    private: (u32, u32),
}

const NO_PRIVATE: (u32, u32) = (1, 0);
/// x32 has the same `audit`, and numbers from 1 << 30 on: above [`NEWEST`].
pub(super) const X86_64: Arch = Arch { audit: 0xc000_003e, column: 0, private: NO_PRIVATE };
pub(super) const AARCH64: Arch = Arch { audit: 0xc000_00b7, column: 1, private: NO_PRIVATE };
pub(super) const RISCV64: Arch = Arch { audit: 0xc000_00f3, column: 1, private: NO_PRIVATE };
/// EABI. A kernel that also takes calls of the old ABI offers no filters (its Kconfig: `AEABI && !OABI_COMPAT`). Private:
/// breakpoint, cacheflush, usr26, usr32, set_tls, get_tls (asm/unistd.h).
pub(super) const ARM: Arch = Arch { audit: 0x4000_0028, column: 2, private: (0xf_0001, 0xf_0006) };
pub(super) const X86: Arch = Arch { audit: 0x4000_0003, column: 3, private: NO_PRIVATE };

/// The one that this is compiled for.
pub(super) const NATIVE: Option<Arch> = if cfg!(target_endian = "big") {
    None
} else if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
    Some(X86_64)
} else if cfg!(all(target_arch = "aarch64", target_pointer_width = "64")) {
    Some(AARCH64)
} else if cfg!(target_arch = "riscv64") {
    Some(RISCV64)
} else if cfg!(target_arch = "arm") {
    Some(ARM)
} else if cfg!(target_arch = "x86") {
    Some(X86)
} else {
    None
};

/// The last call that was judged here (rseq_slice_yield of Linux 7.0). What comes after it does not exist for tools: a list
/// of what is refused cannot speak about calls that were not invented when it was written, and every program that uses
/// such a call has to cope with a kernel that lacks it.
pub(super) const NEWEST: u32 = 471;

/// Number of a call on x86_64; aarch64 and riscv64; arm; x86.
pub(super) type Numbers = [u16; 4];

/// The call is not there.
const NO: u16 = u16::MAX;

/// Refused whatever the arguments.
#[rustfmt::skip]
pub(super) const REFUSED: &[Numbers] = &[
    // Namespaces and mounts: what the view is made of.
    [308, 268, 375, 346], // setns
    [165,  40,  21,  21], // mount
    [166,  39,  52,  52], // umount2
    [ NO,  NO,  NO,  22], // umount
    [155,  41, 218, 217], // pivot_root
    [161,  51,  61,  61], // chroot
    [428; 4], // open_tree
    [429; 4], // move_mount
    [430; 4], // fsopen
    [431; 4], // fsconfig
    [432; 4], // fsmount
    [433; 4], // fspick
    [442; 4], // mount_setattr
    [467; 4], // open_tree_attr
    [470; 4], // listns
    // Opens files past the permissions of the directories above, and past Landlock.
    [304, 265, 371, 342], // open_by_handle_at
    // Other processes' memory and descriptors.
    [101, 117,  26,  26], // ptrace
    [310, 270, 376, 347], // process_vm_readv
    [311, 271, 377, 348], // process_vm_writev
    [440; 4], // process_madvise
    [312, 272, 378, 349], // kcmp
    [438; 4], // pidfd_getfd
    [279, 239, 344, 317], // move_pages
    [256, 238, 400, 294], // migrate_pages
    // Does what the calls refused here do, out of sight of the filter. EPERM is what the kernel says itself with
    // io_uring_disabled, and libraries then go without.
    [425; 4], // io_uring_setup
    [426; 4], // io_uring_enter
    [427; 4], // io_uring_register
    // Keys know no namespaces.
    [248, 217, 309, 286], // add_key
    [249, 218, 310, 287], // request_key
    [250, 219, 311, 288], // keyctl
    // Watching or programming the kernel; the holes that most ways in went through.
    [321, 280, 386, 357], // bpf
    [298, 241, 364, 336], // perf_event_open
    [323, 282, 388, 374], // userfaultfd
    [300, 262, 367, 338], // fanotify_init
    [212,  18, 249, 253], // lookup_dcookie
    [103, 116, 103, 103], // syslog
    // The machine.
    [246, 104, 347, 283], // kexec_load
    [320, 294, 401,  NO], // kexec_file_load
    [175, 105, 128, 128], // init_module
    [313, 273, 379, 350], // finit_module
    [176, 106, 129, 129], // delete_module
    [169, 142,  88,  88], // reboot
    [167, 224,  87,  87], // swapon
    [168, 225, 115, 115], // swapoff
    [163,  89,  51,  51], // acct
    [179,  60, 131, 131], // quotactl
    [443; 4], // quotactl_fd
    [170, 161,  74,  74], // sethostname
    [171, 162, 121, 121], // setdomainname
    [153,  58, 111, 111], // vhangup
    // Its clock. In the last three asking and setting look the same: what is wanted stands in memory.
    [164, 170,  79,  79], // settimeofday
    [ NO,  NO,  NO,  25], // stime
    [227, 112, 262, 264], // clock_settime
    [ NO,  NO, 404, 404], // clock_settime64
    [159, 171, 124, 124], // adjtimex
    [305, 266, 372, 343], // clock_adjtime
    [ NO,  NO, 405, 405], // clock_adjtime64
    // Its ports, and code of 16 bits.
    [172,  NO,  NO, 110], // iopl
    [173,  NO,  NO, 101], // ioperm
    [154,  NO,  NO, 123], // modify_ldt
    [ NO,  NO,  NO, 113], // vm86old
    [ NO,  NO,  NO, 166], // vm86
    // Gone from new kernels, dangerous on old ones.
    [134,  NO,  86,  86], // uselib
    [156,  NO, 149, 149], // _sysctl
    [180,  42, 169, 169], // nfsservctl
];

/// Judged by their arguments, and the one that hides them in memory.
#[rustfmt::skip]
pub(super) const JUDGED: &[(Numbers, Rule)] = &[
    ([435; 4],             Rule::Unknown), // clone3: its flags cannot be seen; libraries then use clone
    ([ 56, 220, 120, 120], Rule::Clone),
    ([272,  97, 337, 310], Rule::Unshare),
    ([135,  92, 136, 136], Rule::Personality),
    ([ 16,  29,  54,  54], Rule::Ioctl),
    ([ 41, 198, 281, 359], Rule::Socket),
    ([ 53, 199, 288, 360], Rule::Socketpair),
    ([ NO,  NO,  NO, 102], Rule::Socketcall),
    ([302, 261, 369, 340], Rule::Own), // prlimit64
    ([142, 118, 154, 154], Rule::Own), // sched_setparam
    ([144, 119, 156, 156], Rule::Own), // sched_setscheduler
    ([203, 122, 241, 241], Rule::Own), // sched_setaffinity
    ([314, 274, 380, 351], Rule::Own), // sched_setattr
    ([141, 140,  97,  97], Rule::Priority),
    ([251,  30, 314, 289], Rule::IoPriority),
];

/// A row's number on `arch`.
pub(super) fn number(row: &Numbers, arch: Arch) -> Option<u32> {
    row.get(arch.column).copied().filter(|&number| number != NO).map(u32::from)
}

/// All numbers as runs with one rule: the first number of each, ascending from 0; the last run has no end.
pub(super) fn runs(arch: Arch) -> Vec<(u32, Rule)> {
    let mut rules = [Rule::Allow; NEWEST as usize + 1];
    let mut set = |row, rule| {
        if let Some(place) = number(row, arch).and_then(|number| rules.get_mut(number as usize)) {
            *place = rule;
        }
    };
    REFUSED.iter().for_each(|row| set(row, Rule::Refuse));
    JUDGED.iter().for_each(|(row, rule)| set(row, *rule));

    let mut runs: Vec<(u32, Rule)> = Vec::new();
    for (number, rule) in (0..).zip(rules).chain([(NEWEST + 1, Rule::Unknown)]) {
        if runs.last().is_none_or(|run| run.1 != rule) {
            runs.push((number, rule));
        }
    }
    let (first, last) = arch.private;
    if first <= last {
        runs.extend([(first, Rule::Allow), (last + 1, Rule::Unknown)]);
    }
    runs
}
