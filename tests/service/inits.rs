//! Each init system for real: `duragent service install` in a tree where it is process 1, then what people and machines do to
//! a service.

use crate::tree::{Ended, Tree};

/// What differs between them.
struct Init {
    name: &'static str,
    tree: &'static str,
    prepare: &'static str,
    process_1: &'static [&'static str],
    /// Lines of shell.
    stop: &'static str,
    start: &'static str,
    reload: &'static str,
    /// That a bad configuration makes `reload` fail; where it is a signal nobody hears of it.
    reload_answers: bool,
    status: &'static str,
    /// The code of `status` when it is stopped.
    stopped: i32,
    /// That somebody starts what ended by itself.
    supervised: bool,
    log: &'static str,
}

/// A process 1 that does nothing but to wait for those whom nobody else waits for.
const NOBODY: &[&str] = &["/bin/sh", "-c", "while :; do sleep 1; done"];

const SYSV: Init = Init {
    name: "sysv",
    tree: "whole",
    prepare: "touch /etc/inittab; busybox syslogd -O /var/log/messages",
    process_1: NOBODY,
    stop: "/etc/init.d/duragent stop",
    start: "/etc/init.d/duragent start",
    reload: "/etc/init.d/duragent reload",
    reload_answers: true,
    status: "/etc/init.d/duragent status",
    stopped: 3,
    supervised: false,
    log: "cat /var/log/messages",
};

const BUSYBOX: Init = Init {
    name: "busybox",
    tree: "bare",
    prepare: "printf '::sysinit:/etc/init.d/rcS\\n::respawn:/sbin/syslogd -n -O /var/log/messages\\n' >/etc/inittab
        printf '#!/bin/sh\\nfor s in /etc/init.d/S*; do [ ! -x $s ] || $s start; done\\n' >/etc/init.d/rcS; chmod +x /etc/init.d/rcS",
    process_1: &["/sbin/init"],
    stop: "/etc/init.d/S90duragent stop",
    start: "/etc/init.d/S90duragent start",
    reload: "/etc/init.d/S90duragent reload",
    reload_answers: true,
    status: "/etc/init.d/S90duragent status",
    stopped: 3,
    supervised: true,
    log: "cat /var/log/messages",
};

const OPENRC: Init = Init {
    name: "openrc",
    tree: "whole",
    prepare: "mkdir -p /etc/runlevels/default /run/openrc; cd /run/openrc; mkdir daemons exclusive failed hotplugged inactive init.d \
        options scheduled started starting stopping tmp wasinactive; touch /run/openrc/softlevel; busybox syslogd -O /var/log/messages",
    process_1: NOBODY,
    stop: "rc-service duragent stop",
    start: "rc-service duragent start",
    reload: "rc-service duragent reload",
    reload_answers: true,
    status: "rc-service duragent status",
    stopped: 3,
    supervised: true,
    log: "cat /var/log/duragent.log",
};

const RUNIT: Init = Init {
    name: "runit",
    tree: "whole",
    prepare: "rm -rf /etc/service; mkdir /etc/service",
    process_1: &["/usr/bin/runsvdir", "-P", "/etc/service"],
    stop: "sv -w 60 down duragent",
    start: "sv -w 60 up duragent",
    reload: "sv hup duragent",
    reload_answers: false,
    // Its own say 0 for what is down as it should be.
    status: "sv status duragent | grep -q ^run: || exit 3",
    stopped: 3,
    supervised: true,
    log: "cat /var/log/duragent/current",
};

const S6: Init = Init {
    name: "s6",
    tree: "whole",
    prepare: "mkdir /run/service",
    process_1: &["/usr/bin/s6-svscan", "/run/service"],
    stop: "s6-svc -wD -T 60000 -d /run/service/duragent",
    // Ready, as said to its notification-fd.
    start: "s6-svc -wU -T 60000 -u /run/service/duragent",
    reload: "s6-svc -h /run/service/duragent",
    reload_answers: false,
    status: "test \"$(s6-svstat -o ready /run/service/duragent)\" = true || exit 3",
    stopped: 3,
    supervised: true,
    log: "cat /var/log/duragent/current",
};

const SYSTEMD: Init = Init {
    name: "systemd",
    tree: "whole",
    prepare: crate::systemd::PREPARE,
    process_1: crate::systemd::PROCESS_1,
    stop: "systemctl stop duragent",
    start: "systemctl start duragent",
    reload: "systemctl reload duragent",
    reload_answers: true,
    status: "systemctl is-active duragent",
    stopped: 3,
    supervised: true,
    log: "journalctl --no-pager -u duragent -o cat",
};

/// The server's process, which answers.
fn process(tree: &Tree) -> String {
    tree.until("duragent --dir /var/lib/duragent ps >/dev/null && duragent service status >/dev/null");
    tree.ok("cat /var/lib/duragent/server.lock").trim().to_owned()
}

fn check(init: &Init) {
    let tree = Tree::start(init.tree, init.prepare, init.process_1);
    if init.name == "systemd" {
        tree.until("systemctl is-system-running");
    }
    let count = |what: &str| tree.run(init.log).out.matches(what).count();

    // Nothing is done that nobody has agreed to, and everything is shown.
    let Ended { code, out } = tree.run("duragent service install");
    assert_eq!(code, Some(2), "{out}");
    assert!(out.contains(&format!("init system: {}\n", init.name)), "{out}");
    let Ended { code, out } = tree.run("duragent service status");
    assert!(code == Some(1) && out.contains("installed: no"), "nothing was done: {out}");
    let out = tree.ok("duragent service install --yes");
    assert!(out.contains("add the system user") && out.contains("make the workspace /var/lib/duragent"), "{out}");

    // It runs, as its user, and nobody else can look into its workspace.
    let first = process(&tree);
    let status = tree.ok("duragent service status");
    for yes in ["installed: yes", "enabled: yes", "running: yes", &format!("process {first} answers")] {
        assert!(status.contains(yes), "expected {yes:?} in {status}");
    }
    assert_eq!(tree.ok("stat -c %U:%a /var/lib/duragent"), "duragent:700\n");
    assert_eq!(tree.ok("find /var/lib/duragent ! -user duragent -o ! -group duragent"), "", "all of it is the user's");
    let user = tree.ok("id -u duragent");
    assert_eq!(
        tree.ok(&format!("awk '/^Uid:/ {{print $2, $3, $4}}' /proc/{first}/status")),
        [user.trim(); 3].join(" ") + "\n"
    );
    tree.ok(init.status);

    // Twice is as once: the server is not disturbed.
    let again = tree.ok("duragent service install --yes");
    assert!(!again.contains("write /") && !again.contains("done"), "{again}");
    assert_eq!(process(&tree), first);

    // Reload: a good configuration, then a bad one, which is not taken.
    tree.until(&format!("{} | grep -q ready", init.log));
    tree.ok(init.reload);
    tree.until(&format!("{} | grep -q 'configuration reloaded'", init.log));
    tree.ok("echo 'bogus: 1' >>/var/lib/duragent/duragent.yaml");
    let bad = tree.run(init.reload);
    assert_eq!(bad.code == Some(0), !init.reload_answers, "{}", bad.out);
    if !init.reload_answers {
        tree.until(&format!("{} | grep -q 'the old one stays'", init.log));
    }
    tree.ok("sed -i '$d' /var/lib/duragent/duragent.yaml");
    assert_eq!(process(&tree), first, "it goes on");

    // Killed: a supervised one comes back by itself; of another one people are told.
    tree.ok(&format!("kill -9 {first}"));
    if init.supervised {
        tree.until(&format!("test \"$(cat /var/lib/duragent/server.lock)\" != {first} && duragent service status"));
    } else {
        tree.until(&format!("! test -e /proc/{first}/exe"));
        assert_eq!(tree.run(init.status).code, Some(1), "dead, and its pid file is there");
        assert_eq!(tree.run("duragent service status").code, Some(1));
        tree.ok(init.start);
    }
    let second = process(&tree);
    assert_ne!(second, first);

    // Stop drains, and it stays down until somebody starts it.
    let drained = count("draining");
    tree.until(init.status);
    tree.ok(init.stop);
    // It has ended when stop says so, even if nobody has heard of it yet.
    tree.ok(&format!("! grep ^State: /proc/{second}/status 2>/dev/null | grep -v Z"));
    assert_eq!(tree.run(init.status).code, Some(init.stopped));
    assert_eq!(tree.run("duragent service status").code, Some(1));
    tree.until(&format!("test $({} | grep -c draining) -gt {drained}", init.log));
    tree.ok(init.start);
    assert_ne!(process(&tree), second);

    // Removed, the workspace stays.
    let out = tree.ok("duragent service remove --yes");
    assert!(out.contains("keep workspace"), "{out}");
    let Ended { code, out } = tree.run("duragent service status");
    assert!(code == Some(1) && out.contains("installed: no") && out.contains("running: no"), "{out}");
    assert!(!out.contains("enabled: yes"), "{out}");
    tree.ok("test -e /var/lib/duragent/duragent.yaml");
    assert_eq!(
        tree.run("ls -d /etc/sv/duragent /etc/s6/sv/duragent /etc/init.d/*duragent").out.matches("\n/etc").count(),
        0
    );
}

#[test]
fn systemd_runs_it() {
    check(&SYSTEMD);
}

#[test]
fn openrc_runs_it() {
    check(&OPENRC);
}

#[test]
fn sysv_runs_it() {
    check(&SYSV);
}

#[test]
fn busybox_runs_it() {
    check(&BUSYBOX);
}

#[test]
fn runit_runs_it() {
    check(&RUNIT);
}

#[test]
fn s6_runs_it() {
    check(&S6);
}
