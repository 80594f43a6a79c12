//! What the programs of all architectures say, by an interpreter. What the kernel of this machine does about the native
//! one is in [`kernel`].

mod kernel;

use super::rules::{self, Arch, NEWEST, Rule};
use super::{ALLOW, KILL, Program, REFUSE, REFUSE_SOCKET, Sockets, UNKNOWN, op};
use libc::sock_filter;

const NOTHING: Sockets = Sockets { inet: false, unix: false, others: false };
const ALL: Sockets = Sockets { inet: true, unix: true, others: true };
const INET: Sockets = Sockets { inet: true, unix: false, others: false };
const UNIX: Sockets = Sockets { inet: false, unix: true, others: true };
const ARCHES: [Arch; 5] = [rules::X86_64, rules::AARCH64, rules::RISCV64, rules::ARM, rules::X86];

/// Numbers that are tried for each architecture, one by one: some way past [`NEWEST`].
const SWEEP_MAX: u32 = 2000;
/// What a 64-bit program may set above an argument of 32 bits.
const HIGH: u64 = 0xdead_beef << 32;

fn program(arch: Arch, sockets: Sockets) -> Vec<sock_filter> {
    Program::new(arch, sockets).expect("no jump is too long").0
}

/// Runs the subset of classic BPF that the kernel has for filters and we use, over a call. Leaving the program, an
/// instruction that is none of ours, and a load that the kernel would not take are panics.
fn run(program: &[sock_filter], audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut words = vec![number, audit, 0, 0];
    words.extend(args.iter().flat_map(|&arg| [arg as u32, (arg >> 32) as u32]));
    let (mut a, mut at) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut jump = |condition| at += usize::from(if condition { jt } else { jf });
        match code {
            op::LOAD => {
                assert_eq!(k % 4, 0, "the kernel takes whole words only");
                a = words[k as usize / 4];
            }
            op::AND => a &= k,
            op::IF_EQUAL => jump(a == k),
            op::IF_AT_LEAST => jump(a >= k),
            op::IF_ANY => jump(a & k != 0),
            op::RETURN => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn find(arch: Arch, wanted: Rule) -> Option<u32> {
    let row = rules::JUDGED.iter().find(|(_, rule)| *rule == wanted).expect("a rule of the table");
    rules::number(&row.0, arch)
}

/// On every architecture that has the rule's call.
fn check(rule: Rule, sockets: Sockets, cases: &[([u64; 3], u32)]) {
    for arch in ARCHES {
        let Some(number) = find(arch, rule) else { continue };
        let program = program(arch, sockets);
        for &([a, b, c], expected) in cases {
            let found = run(&program, arch.audit, number, [a, b, c, 0, 0, 0]);
            assert_eq!(found, expected, "{rule:?} {sockets:?} ({a:#x}, {b:#x}, {c:#x}) on {:#x}", arch.audit);
        }
    }
}

#[test]
fn every_number_is_judged_as_the_table_says() {
    for arch in ARCHES {
        let refused: Vec<u32> = rules::REFUSED.iter().filter_map(|row| rules::number(row, arch)).collect();
        let judged: Vec<u32> = rules::JUDGED.iter().filter_map(|row| rules::number(&row.0, arch)).collect();
        for sockets in [NOTHING, ALL, INET, UNIX] {
            let program = program(arch, sockets);
            for number in (0..SWEEP_MAX).filter(|number| !judged.contains(number)) {
                let expected = match number {
                    _ if refused.contains(&number) => REFUSE,
                    0..=NEWEST => ALLOW,
                    _ => UNKNOWN,
                };
                for args in [[0; 6], [u64::MAX; 6]] {
                    assert_eq!(run(&program, arch.audit, number, args), expected, "{number} on {:#x}", arch.audit);
                }
            }
        }
    }
}

#[test]
fn no_number_stands_twice_and_none_is_past_the_newest() {
    for arch in ARCHES {
        let rows = rules::REFUSED.iter().chain(rules::JUDGED.iter().map(|(row, _)| row));
        let mut numbers: Vec<u32> = rows.filter_map(|row| rules::number(row, arch)).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{:#x}: {numbers:?}", arch.audit);
        assert!(numbers.iter().all(|&number| number <= NEWEST));
    }
}

/// The numbers of this machine, by the names of the libc crate.
#[test]
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
fn the_table_is_what_the_c_library_calls_by_these_names() {
    let open_tree_attr = 467;
    let listns = 470;
    #[rustfmt::skip]
    let mut expected = vec![
        libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree,
        libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
        libc::SYS_mount_setattr, open_tree_attr, listns, libc::SYS_open_by_handle_at, libc::SYS_ptrace,
        libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_kcmp,
        libc::SYS_pidfd_getfd, libc::SYS_move_pages, libc::SYS_migrate_pages, libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
        libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_fanotify_init, libc::SYS_lookup_dcookie,
        libc::SYS_syslog, libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module, libc::SYS_finit_module,
        libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl,
        libc::SYS_quotactl_fd, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup, libc::SYS_settimeofday,
        libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_iopl, libc::SYS_ioperm,
        libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS__sysctl, libc::SYS_nfsservctl,
    ];
    let arch = rules::NATIVE.expect("a filter for this architecture");
    let mut found: Vec<libc::c_long> =
        rules::REFUSED.iter().filter_map(|row| rules::number(row, arch)).map(libc::c_long::from).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);

    let judged = [
        (Rule::Unknown, libc::SYS_clone3),
        (Rule::Clone, libc::SYS_clone),
        (Rule::Unshare, libc::SYS_unshare),
        (Rule::Personality, libc::SYS_personality),
        (Rule::Ioctl, libc::SYS_ioctl),
        (Rule::Socket, libc::SYS_socket),
        (Rule::Socketpair, libc::SYS_socketpair),
        (Rule::Priority, libc::SYS_setpriority),
        (Rule::IoPriority, libc::SYS_ioprio_set),
    ];
    for (rule, number) in judged {
        assert_eq!(find(arch, rule).map(libc::c_long::from), Some(number), "{rule:?}");
    }
    assert_eq!(find(arch, Rule::Socketcall), None);
    let own = rules::JUDGED.iter().filter(|(_, rule)| *rule == Rule::Own);
    let own: Vec<_> = own.filter_map(|(row, _)| rules::number(row, arch)).map(libc::c_long::from).collect();
    let expected = [
        libc::SYS_prlimit64,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setattr,
    ];
    assert_eq!(own, expected);
}

/// The numbers that are refused and those that are judged, in the order of the tables, taken from the kernel's tables by
/// name; 424 and up, which are the same everywhere, are left to the test above.
#[test]
fn other_architectures_have_the_numbers_of_the_kernels_tables() {
    #[rustfmt::skip]
    let generic: &[u32] = &[
        18, 39, 40, 41, 42, 51, 58, 60, 89, 104, 105, 106, 112, 116, 117, 142, 161, 162, 170, 171, 217, 218, 219, 224, 225,
        238, 239, 241, 262, 265, 266, 268, 270, 271, 272, 273, 280, 282, 294,
    ];
    #[rustfmt::skip]
    let arm: &[u32] = &[
        21, 26, 51, 52, 61, 74, 79, 86, 87, 88, 103, 111, 115, 121, 124, 128, 129, 131, 149, 169, 218, 249, 262, 309, 310,
        311, 344, 347, 364, 367, 371, 372, 375, 376, 377, 378, 379, 386, 388, 400, 401, 404, 405,
    ];
    #[rustfmt::skip]
    let x86: &[u32] = &[
        21, 22, 25, 26, 51, 52, 61, 74, 79, 86, 87, 88, 101, 103, 110, 111, 113, 115, 121, 123, 124, 128, 129, 131, 149,
        166, 169, 217, 253, 264, 283, 286, 287, 288, 294, 317, 336, 338, 342, 343, 346, 347, 348, 349, 350, 357, 374, 404,
        405,
    ];
    let columns: [(Arch, &[u32], &[u32]); 4] = [
        (rules::AARCH64, generic, &[435, 220, 97, 92, 29, 198, 199, 261, 118, 119, 122, 274, 140, 30]),
        (rules::RISCV64, generic, &[435, 220, 97, 92, 29, 198, 199, 261, 118, 119, 122, 274, 140, 30]),
        (rules::ARM, arm, &[435, 120, 337, 136, 54, 281, 288, 369, 154, 156, 241, 380, 97, 314]),
        (rules::X86, x86, &[435, 120, 310, 136, 54, 359, 360, 102, 340, 154, 156, 241, 351, 97, 289]),
    ];
    for (arch, refused, judged) in columns {
        let mut found: Vec<u32> = rules::REFUSED.iter().filter_map(|row| rules::number(row, arch)).collect();
        found.retain(|&number| number < 424);
        found.sort_unstable();
        assert_eq!(found, refused, "{:#x}", arch.audit);
        let found: Vec<u32> = rules::JUDGED.iter().filter_map(|(row, _)| rules::number(row, arch)).collect();
        assert_eq!(found, judged, "{:#x}", arch.audit);
    }
}

#[test]
fn a_wrong_architecture_is_killed_whatever_it_calls() {
    for arch in ARCHES {
        let program = program(arch, ALL);
        // The others; without the marks for 64 bits or little-endian; nothing.
        let wrong = ARCHES.map(|other| other.audit).into_iter().filter(|&audit| audit != arch.audit);
        for audit in wrong.chain([arch.audit ^ (1 << 31), arch.audit ^ (1 << 30), 0, u32::MAX]) {
            for number in [0, 39, 56, 165, NEWEST, NEWEST + 1, 1 << 30] {
                assert_eq!(run(&program, audit, number, [0; 6]), KILL, "{number} of {audit:#x} on {:#x}", arch.audit);
            }
        }
    }
}

#[test]
fn numbers_past_the_newest_are_unknown_x32_among_them() {
    let x32_bit = 1 << 30;
    // What x32 calls by numbers of its own: 514 ioctl, 521 ptrace, 539 process_vm_readv. 39 is getpid, 101 ptrace.
    let numbers = [NEWEST + 1, 512, 514, 521, 539, 547, 548, x32_bit, x32_bit | 39, x32_bit | 101, x32_bit | 521];
    for arch in ARCHES {
        let program = program(arch, ALL);
        for number in numbers.into_iter().chain([i32::MAX as u32, 1 << 31, u32::MAX]) {
            assert_eq!(run(&program, arch.audit, number, [0; 6]), UNKNOWN, "{number:#x} on {:#x}", arch.audit);
        }
        assert_eq!(run(&program, arch.audit, NEWEST, [0; 6]), ALLOW);
    }
}

#[test]
fn arm_keeps_its_private_calls_and_others_have_none() {
    for arch in ARCHES {
        let program = program(arch, NOTHING);
        for (number, exists) in
            [(0xf_0000, false), (0xf_0001, true), (0xf_0005, true), (0xf_0006, true), (0xf_0007, false)]
        {
            let expected = if exists && arch.audit == rules::ARM.audit { ALLOW } else { UNKNOWN };
            assert_eq!(run(&program, arch.audit, number, [0; 6]), expected, "{number:#x} on {:#x}", arch.audit);
        }
    }
}

#[test]
fn limits_and_priorities_are_of_oneself_where_others_have_numbers() {
    let cases = |own: u32, rule| match rule {
        // Process or group 0; another one; a user, 0 too: all of that user's processes.
        Rule::Priority => {
            vec![([0, 0, 9], ALLOW), ([1, 0, 0], ALLOW), ([0, 7, 0], own), ([2, 0, 0], own), ([HIGH | 2, 0, 0], own)]
        }
        Rule::IoPriority => {
            vec![([1, 0, 9], ALLOW), ([2, 0, 0], ALLOW), ([1, 7, 0], own), ([3, 0, 0], own), ([1, 1 << 31, 0], own)]
        }
        // The kernel does not look at the upper half of a number of 32 bits.
        _ => {
            vec![([0; 3], ALLOW), ([0, 7, 7], ALLOW), ([HIGH, 0, 0], ALLOW), ([7, 0, 0], own), ([HIGH | 7, 0, 0], own)]
        }
    };
    for rule in [Rule::Own, Rule::Priority, Rule::IoPriority] {
        check(rule, INET, &cases(REFUSE, rule));
        check(rule, ALL, &cases(ALLOW, rule));
    }
}

#[test]
fn clone3_is_unknown_whatever_its_arguments() {
    check(Rule::Unknown, ALL, &[([0; 3], UNKNOWN), ([u64::MAX; 3], UNKNOWN)]);
}

#[test]
fn clone_makes_processes_and_threads_but_no_namespaces() {
    let fork = (libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD) as u64;
    let thread = 0x3d_0f00;
    let vfork = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
    let mut cases = vec![
        ([fork, 0, 0], ALLOW),
        ([thread, 0, 0], ALLOW),
        ([vfork, 0, 0], ALLOW),
        ([0, u64::MAX, u64::MAX], ALLOW),
        // Bits of the exit signal.
        ([0xff, 0, 0], ALLOW),
        // The kernel does not look at the upper half (`lower_32_bits` in kernel/fork.c).
        ([HIGH | fork, 0, 0], ALLOW),
        ([(libc::CLONE_NEWUSER as u64) << 32, 0, 0], ALLOW),
    ];
    // CLONE_NEW*: NS, CGROUP, UTS, IPC, USER, PID, NET.
    for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        cases.extend([([flag, 0, 0], REFUSE), ([flag | fork, 0, 0], REFUSE), ([HIGH | flag, 0, 0], REFUSE)]);
    }
    check(Rule::Clone, ALL, &cases);
}

#[test]
fn unshare_lets_go_of_what_is_shared_but_makes_no_namespaces() {
    let shared = (libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SYSVSEM) as u64;
    let mut cases = vec![([0; 3], ALLOW), ([shared, 0, 0], ALLOW), ([HIGH | shared, 0, 0], ALLOW)];
    // CLONE_NEW*, TIME first; then flags that no kernel knows yet.
    let namespaces = [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    for flag in namespaces.into_iter().chain([1, 0x10_0000, 0x8000_0000]) {
        cases.extend([([flag, 0, 0], REFUSE), ([flag | shared, 0, 0], REFUSE), ([HIGH | flag, 0, 0], REFUSE)]);
    }
    check(Rule::Unshare, ALL, &cases);
}

#[test]
fn personality_asks_and_fixes_addresses_and_no_more() {
    let fixed = libc::ADDR_NO_RANDOMIZE as u64;
    let old = libc::READ_IMPLIES_EXEC as u64;
    check(
        Rule::Personality,
        ALL,
        &[
            ([0; 3], ALLOW),
            ([fixed, 0, 0], ALLOW),
            ([0xffff_ffff, 0, 0], ALLOW),
            ([u64::MAX, 0, 0], ALLOW),
            ([1, 0, 0], REFUSE),
            ([8, 0, 0], REFUSE),
            ([old, 0, 0], REFUSE),
            ([fixed | old, 0, 0], REFUSE),
            ([HIGH | old, 0, 0], REFUSE),
            ([libc::MMAP_PAGE_ZERO as u64, 0, 0], REFUSE),
        ],
    );
}

#[test]
fn no_ioctl_types_into_a_terminal_whatever_stands_above_its_number() {
    let (sti, linux, size) = (0x5412, 0x541c, 0x5413);
    check(
        Rule::Ioctl,
        ALL,
        &[
            ([0, sti, 0], REFUSE),
            ([0, HIGH | sti, 0], REFUSE),
            ([0, 1 << 32 | sti, 0], REFUSE),
            ([u64::MAX, sti, u64::MAX], REFUSE),
            ([0, linux, 0], REFUSE),
            ([0, HIGH | linux, 0], REFUSE),
            ([0, size, 0], ALLOW),
            ([0, sti - 1, 0], ALLOW),
            ([0, linux - 1, 0], ALLOW),
            ([0, linux + 1, 0], ALLOW),
            ([0, sti << 32, 0], ALLOW),
            ([sti, 0, sti], ALLOW),
        ],
    );
}

#[test]
fn sockets_are_of_the_allowed_families() {
    let family = |number: i32| number as u64;
    let (unix, inet, inet6, netlink) =
        (family(libc::AF_UNIX), family(libc::AF_INET), family(libc::AF_INET6), family(libc::AF_NETLINK));
    let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
    for sockets in [NOTHING, ALL, INET, UNIX] {
        let verdict = |allowed| if allowed { ALLOW } else { REFUSE_SOCKET };
        let mut cases = Vec::new();
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM].map(|kind| kind as u64) {
            for high in [0, HIGH, 1 << 32] {
                cases.extend([
                    ([high | unix, kind, 0], verdict(sockets.unix)),
                    ([high | inet, kind, 6], verdict(sockets.inet)),
                    ([high | inet6, high | kind | flags, 0], verdict(sockets.inet)),
                    ([high | netlink, kind, 0], verdict(sockets.inet)),
                ]);
            }
        }
        let raw = libc::SOCK_RAW as u64;
        cases.push(([netlink, raw | flags, HIGH], verdict(sockets.inet)));
        cases.push(([unix, libc::SOCK_SEQPACKET as u64, 0], verdict(sockets.unix)));
        // Types 3 RAW, 4 RDM, 5 SEQPACKET, 6 DCCP, 10 PACKET, and what is none.
        for kind in [0, raw, 4, 5, 6, 10, 11, HIGH | raw, raw | flags] {
            cases.extend([([inet, kind, 0], REFUSE_SOCKET), ([inet6, kind, 0], REFUSE_SOCKET)]);
        }
        // A bit that is none of the type's: the kernel's to judge.
        cases.push(([inet, 0x10 | libc::SOCK_STREAM as u64, 0], verdict(sockets.inet)));
        // Netlink: 9 audit, 12 netfilter, 15 uevents, 16 generic; above its protocol anything may stand.
        for protocol in [1, 9, 12, 15, 16, HIGH | 9] {
            cases.push(([netlink, raw, protocol], REFUSE_SOCKET));
        }
        let named = [unix, inet, inet6, netlink];
        for other in (0..64).filter(|family| !named.contains(family)).chain([u64::MAX, 0xffff_ffff]) {
            cases.extend([([other, 1, 0], REFUSE_SOCKET), ([HIGH | other, 3, 0], REFUSE_SOCKET)]);
        }
        check(Rule::Socket, sockets, &cases);
    }
}

#[test]
fn pairs_are_of_unix_sockets_only() {
    let (unix, inet, tipc) = (libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_TIPC as u64);
    for sockets in [NOTHING, ALL] {
        check(
            Rule::Socketpair,
            sockets,
            &[
                ([unix, 1, 0], ALLOW),
                ([HIGH | unix, 1, 0], ALLOW),
                ([inet, 1, 0], REFUSE_SOCKET),
                ([tipc, 1, 0], REFUSE_SOCKET),
                ([HIGH | tipc, 1, 0], REFUSE_SOCKET),
                ([unix << 32, 1, 0], REFUSE_SOCKET),
            ],
        );
    }
}

#[test]
fn socketcall_makes_no_sockets_and_does_the_rest() {
    for sockets in [NOTHING, ALL] {
        let cases: Vec<([u64; 3], u32)> = (0..32)
            .map(|call| ([call, u64::MAX, 0], if call == 1 || call == 8 { REFUSE_SOCKET } else { ALLOW }))
            .collect();
        check(Rule::Socketcall, sockets, &cases);
    }
    assert!(find(rules::X86, Rule::Socketcall).is_some());
}

#[test]
fn a_jump_that_is_too_long_is_no_program() {
    let runs = |len: u32| (0..len).map(|first| (first, Rule::Refuse)).collect::<Vec<_>>();
    assert!(Program(Vec::new()).search(&runs(200), ALL).is_some());
    assert!(Program(Vec::new()).search(&runs(400), ALL).is_none());
    assert!(Program(Vec::new()).search(&[], ALL).is_none());
}

/// A number to look at when the table grows, with room to the jumps' limit, and comparisons to a verdict.
#[test]
fn programs_stay_small() {
    for arch in ARCHES {
        let program = program(arch, ALL);
        let longest = program.iter().map(|step| step.jt.max(step.jf)).max();
        println!("{:#x}: {} instructions, longest jump {longest:?}", arch.audit, program.len());
        assert!(program.len() <= 256, "{:#x}: {} instructions", arch.audit, program.len());
        assert!(longest < Some(192), "{:#x}: a jump of {longest:?}", arch.audit);
    }
}
