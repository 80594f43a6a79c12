//! A filter on system calls (seccomp(2), classic BPF), written by hand: what namespaces and Landlock leave open.
//!
//! Calls are allowed unless [`rules`] refuses them. A refused call fails with `EPERM` ("Operation not permitted") and the
//! program goes on; a socket of a refused family with `EACCES`, which socket(2) lists for exactly that, so that a tool
//! says "Permission denied" and does not guess that the kernel lacks the protocol; a call that programs can do without
//! with `ENOSYS`. A program of another architecture is killed at its first call: its numbers mean other calls.
//!
//! Invariants: a filter can never be taken off again, and holds for all that the process starts; every comparison of an
//! argument that the kernel cuts to 32 bits looks at these alone, so bits above them hide nothing.
//!
//! Absent: paths, addresses and flags in memory, which a filter cannot see. Debuggers, strace and LeakSanitizer, which need
//! ptrace. Programs of other architectures that the kernel could run, such as 32-bit ones under a 64-bit runtime and the
//! other way round. x32 programs find no system calls (`ENOSYS`, what most kernels say; the same for 512 to 547, by which
//! kernels before 5.4 let x32's ptrace through without x32's mark). On 32-bit x86, programs whose C library makes sockets
//! only by socketcall (glibc, if built for kernels before 4.3) get none.

mod rules;
#[cfg(test)]
mod tests;

use libc::{c_ulong, sock_filter};
use rules::{Arch, Rule};
use std::io;
use std::mem::offset_of;

/// Instructions (linux/bpf_common.h, linux/filter.h): A is the one register, K the constant in the instruction.
mod op {
    /// A = 32 bits of the call's data at K.
    pub(super) const LOAD: u16 = 0x20;
    /// A = A & K.
    pub(super) const AND: u16 = 0x54;
    /// Jumps if A == K.
    pub(super) const IF_EQUAL: u16 = 0x15;
    /// Jumps if A >= K.
    pub(super) const IF_AT_LEAST: u16 = 0x35;
    /// Jumps if A & K is not zero.
    pub(super) const IF_ANY: u16 = 0x45;
    /// Ends with the verdict K.
    pub(super) const RETURN: u16 = 0x06;
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSE: u32 = fail(libc::EPERM);
const UNKNOWN: u32 = fail(libc::ENOSYS);
const REFUSE_SOCKET: u32 = fail(libc::EACCES);

const fn fail(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// clone's flags for namespaces; CLONE_NEWTIME is none of them, its bit belongs to the exit signal there (clone(2)).
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// unshare's flags that are no namespace (unshare(2)). The others, those to come among them, are refused.
const SHARED: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// Bits of socket's second argument that are the type (linux/net.h, `SOCK_TYPE_MASK`); the others are flags.
const TYPE_MASK: u32 = 0xf;
/// First arguments of socketcall(2), linux/net.h.
const SYS_SOCKET: u32 = 1;
const SYS_SOCKETPAIR: u32 = 8;
/// setpriority(2), sys/resource.h: the second argument is a user.
const PRIO_USER: u32 = 2;
/// The same for ioprio_set(2), linux/ioprio.h.
const IOPRIO_WHO_USER: u32 = 3;
/// personality(2): asks, changes nothing.
const PERSONALITY_ASK: u32 = u32::MAX;

/// What differs between sandboxes. Pairs of unix sockets may always be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sockets {
    /// Streams and datagrams of the internet protocols, and the route lookups that go with them (`NETLINK_ROUTE`).
    pub inet: bool,
    /// `AF_UNIX`.
    pub unix: bool,
    /// Limits, priorities and processors of any process may be set that has a number here: all belong to the tool, because
    /// it has a process namespace of its own.
    pub others: bool,
}

/// A filter for this architecture.
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// `None`: there is no filter for the architecture that this is compiled for, so that whoever wants one has to refuse.
    pub(super) fn new(sockets: Sockets) -> Option<Self> {
        Some(Self(Program::new(rules::NATIVE?, sockets)?.0))
    }

    /// As `struct sock_filter`s in a row, for who installs it in our place: bwrap.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let bytes = |op: &sock_filter| {
            let ([a, b], [c, d, e, f]) = (op.code.to_ne_bytes(), op.k.to_ne_bytes());
            [a, b, op.jt, op.jf, c, d, e, f]
        };
        self.0.iter().flat_map(bytes).collect()
    }

    /// Puts this process, which has one thread, and all that it starts under the filter, for good. It also gives up the
    /// gain of privileges by executing files (`PR_SET_NO_NEW_PRIVS`), which the kernel demands. Calls only what is
    /// async-signal-safe and allocates nothing: it may stand between fork and exec.
    ///
    /// # Errors
    /// If the kernel refuses: it was built without filters (`EINVAL`), or another filter stands in the way.
    pub(super) fn install(&self) -> io::Result<()> {
        let len = self.0.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        let (on, none, mode): (c_ulong, c_ulong, c_ulong) = (1, 0, libc::SECCOMP_MODE_FILTER.into());
        // SAFETY: the first call takes numbers. The second reads `program` and the instructions it points to, which live
        // through the call, and writes to neither.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, none, none, none) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// A program as it grows. All jumps are forward, and each rule ends in a verdict, so none runs into the next.
struct Program(Vec<sock_filter>);

impl Program {
    /// `None` if a jump would be longer than the 255 instructions that the format has room for.
    fn new(arch: Arch, sockets: Sockets) -> Option<Self> {
        let mut program = Self(Vec::new());
        program.load(offset_of!(libc::seccomp_data, arch));
        program.push(op::IF_EQUAL, arch.audit, 1, 0);
        program.end(KILL);
        program.load(offset_of!(libc::seccomp_data, nr));
        program.search(&rules::runs(arch), sockets)?;
        Some(program)
    }

    /// Finds the run that the number in A is in by halving, some seven comparisons, and judges by its rule.
    fn search(&mut self, runs: &[(u32, Rule)], sockets: Sockets) -> Option<()> {
        if let [(_, rule)] = runs {
            self.judge(*rule, sockets);
            return Some(());
        }
        let (low, high) = runs.split_at(runs.len() / 2);
        let branch = self.0.len();
        self.push(op::IF_AT_LEAST, high.first()?.0, 0, 0);
        self.search(low, sockets)?;
        let distance = u8::try_from(self.0.len() - branch - 1).ok()?;
        self.0.get_mut(branch)?.jt = distance;
        self.search(high, sockets)
    }

    fn judge(&mut self, rule: Rule, sockets: Sockets) {
        match rule {
            Rule::Allow => self.end(ALLOW),
            Rule::Refuse => self.end(REFUSE),
            Rule::Unknown => self.end(UNKNOWN),
            Rule::Clone => self.argument(0).if_any(NAMESPACES as u32, REFUSE).end(ALLOW),
            Rule::Unshare => self.argument(0).if_any(!(SHARED as u32), REFUSE).end(ALLOW),
            // Address space layout without chance is what sanitizers ask for, and weakens none but who asks.
            Rule::Personality => self
                .argument(0)
                .if_equal(0, ALLOW)
                .if_equal(libc::ADDR_NO_RANDOMIZE as u32, ALLOW)
                .if_equal(PERSONALITY_ASK, ALLOW)
                .end(REFUSE),
            Rule::Ioctl => self
                .argument(1)
                .if_equal(libc::TIOCSTI as u32, REFUSE)
                .if_equal(libc::TIOCLINUX as u32, REFUSE)
                .end(ALLOW),
            Rule::Socket => self.socket(sockets),
            Rule::Socketpair => self.argument(0).if_equal(libc::AF_UNIX as u32, ALLOW).end(REFUSE_SOCKET),
            Rule::Socketcall => {
                self.argument(0).if_equal(SYS_SOCKET, REFUSE_SOCKET).if_equal(SYS_SOCKETPAIR, REFUSE_SOCKET).end(ALLOW)
            }
            Rule::Own | Rule::Priority | Rule::IoPriority if sockets.others => self.end(ALLOW),
            Rule::Own => self.argument(0).if_equal(0, ALLOW).end(REFUSE),
            // The first says whether the second is a process, a group or a user: all processes of a user are others too.
            Rule::Priority => {
                self.argument(0).if_at_least(PRIO_USER, REFUSE).argument(1).if_equal(0, ALLOW).end(REFUSE)
            }
            Rule::IoPriority => {
                self.argument(0).if_at_least(IOPRIO_WHO_USER, REFUSE).argument(1).if_equal(0, ALLOW).end(REFUSE);
            }
        }
    }

    /// Only streams and datagrams of the internet: the type SOCK_PACKET makes AF_INET mean AF_PACKET (packet(7)), and
    /// others have the kernel load protocols that nobody uses.
    fn socket(&mut self, sockets: Sockets) {
        self.argument(0);
        if sockets.unix {
            self.if_equal(libc::AF_UNIX as u32, ALLOW);
        }
        if sockets.inet {
            // No: over the four instructions of the next line.
            self.push(op::IF_EQUAL, libc::AF_NETLINK as u32, 0, 4);
            self.argument(2).if_equal(libc::NETLINK_ROUTE as u32, ALLOW).end(REFUSE_SOCKET);
            // Yes: over the other comparison, and the refusal.
            self.push(op::IF_EQUAL, libc::AF_INET as u32, 2, 0);
            self.push(op::IF_EQUAL, libc::AF_INET6 as u32, 1, 0);
            self.end(REFUSE_SOCKET);
            self.argument(1).push(op::AND, TYPE_MASK, 0, 0);
            self.if_equal(libc::SOCK_STREAM as u32, ALLOW).if_equal(libc::SOCK_DGRAM as u32, ALLOW);
        }
        self.end(REFUSE_SOCKET);
    }

    /// A = the lower half of an argument: on little-endian machines it comes first.
    fn argument(&mut self, index: usize) -> &mut Self {
        self.load(offset_of!(libc::seccomp_data, args) + index * size_of::<u64>());
        self
    }

    fn if_equal(&mut self, value: u32, verdict: u32) -> &mut Self {
        self.push(op::IF_EQUAL, value, 0, 1);
        self.end(verdict);
        self
    }

    fn if_at_least(&mut self, value: u32, verdict: u32) -> &mut Self {
        self.push(op::IF_AT_LEAST, value, 0, 1);
        self.end(verdict);
        self
    }

    fn if_any(&mut self, bits: u32, verdict: u32) -> &mut Self {
        self.push(op::IF_ANY, bits, 0, 1);
        self.end(verdict);
        self
    }

    fn load(&mut self, offset: usize) {
        self.push(op::LOAD, offset as u32, 0, 0);
    }

    fn end(&mut self, verdict: u32) {
        self.push(op::RETURN, verdict, 0, 0);
    }

    /// `yes` and `no`: how many instructions a jump leaves out.
    fn push(&mut self, code: u16, k: u32, yes: u8, no: u8) {
        self.0.push(sock_filter { code, jt: yes, jf: no, k });
    }
}
