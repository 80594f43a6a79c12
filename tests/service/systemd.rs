//! What only systemd has: readiness, watchdog, credentials, hardening.

/// Units that would touch the machine itself, or wait for hardware.
pub const PREPARE: &str = "for unit in systemd-sysctl.service systemd-modules-load.service systemd-udevd.service kmod-static-nodes.service \
    systemd-timesyncd.service modprobe@.service systemd-random-seed.service systemd-hwdb-update.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-hugepages.mount sys-fs-fuse-connections.mount; do ln -sf /dev/null /etc/systemd/system/$unit; done
    rm -f /etc/machine-id; echo 0123456789abcdef0123456789abcdef >/etc/machine-id";

/// The basic target only: no logins, no network.
pub const PROCESS_1: &[&str] =
    &["/lib/systemd/systemd", "--unit=basic.target", "--log-target=journal", "--show-status=no"];

use crate::tree::Tree;

/// A tree in which systemd is up and the service is installed and runs.
fn installed() -> Tree {
    let tree = Tree::start("whole", PREPARE, PROCESS_1);
    tree.until("systemctl is-system-running");
    tree.ok("duragent service install --yes");
    tree.ok("systemctl is-active duragent");
    tree
}

/// Writes a part of the unit's settings beside it.
fn drop_in(tree: &Tree, lines: &str) {
    let dir = "/etc/systemd/system/duragent.service.d";
    tree.ok(&format!("mkdir -p {dir}; printf '[Service]\\n{lines}\\n' >{dir}/test.conf; systemctl daemon-reload"));
}

fn property(tree: &Tree, name: &str) -> String {
    tree.ok(&format!("systemctl show -P {name} duragent")).trim().to_owned()
}

#[test]
fn a_loop_that_hangs_is_ended_and_started_anew() {
    let tree = installed();
    drop_in(&tree, "WatchdogSec=2");
    tree.ok("systemctl restart duragent");
    let first = property(&tree, "MainPID");
    assert!(
        property(&tree, "StatusText").starts_with("listening on 127.0.0.1:8410, unix:"),
        "{}",
        property(&tree, "StatusText")
    );
    // The control: one that does not hang outlives many times that, since it says so.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!((property(&tree, "MainPID"), property(&tree, "NRestarts")), (first.clone(), "0".to_owned()));
    tree.ok(&format!("kill -STOP {first}"));
    tree.until("test \"$(systemctl show -P NRestarts duragent)\" -gt 0");
    tree.until("systemctl is-active duragent");
    assert_ne!(property(&tree, "MainPID"), first);
    let log = tree.ok("journalctl --no-pager -o cat -u duragent");
    assert!(log.contains("Watchdog timeout"), "{log}");
}

#[test]
fn a_token_comes_from_the_store_of_credentials() {
    let tree = installed();
    let lines = "server:\\n  api_token_file: ${CREDENTIALS_DIRECTORY:-/etc/credstore}/duragent.api-token\\n";
    tree.ok(&format!("printf '{lines}' >>/var/lib/duragent/duragent.yaml"));
    let failed = tree.run("systemctl restart duragent");
    assert_ne!(failed.code, Some(0), "without the file there is no token: {}", failed.out);
    tree.ok("mkdir -p -m 700 /etc/credstore; umask 077; echo a-token-of-32-characters-and-more >/etc/credstore/duragent.api-token");
    tree.ok("systemctl reset-failed duragent; systemctl restart duragent");
    // The file itself is root's, and the service has its own copy.
    assert_eq!(tree.ok("stat -c %U:%a /etc/credstore/duragent.api-token"), "root:600\n");
    let ask = |token: &str| {
        tree.run(&format!("curl -s -o /dev/null -w %{{http_code}} -H 'Authorization: Bearer {token}' http://127.0.0.1:8410/api/v1/agents")).out
    };
    assert_eq!(
        (ask("another-token-that-is-not-it"), ask("a-token-of-32-characters-and-more")),
        ("401".into(), "200".into())
    );
    // An administrator's command reads the same configuration, and the file itself; the control is the file gone.
    let says_missing =
        || tree.run("duragent --dir /var/lib/duragent check").out.contains("duragent.api-token: no such file");
    assert!(!says_missing());
    tree.ok("rm /etc/credstore/duragent.api-token");
    assert!(says_missing());
}

/// What `duragent doctor` says with all that the unit has, and one line more.
fn doctor(tree: &Tree, more: &str) -> String {
    let change = format!(
        "rm -f /run/doctor.txt; sed -e 's|^Type=.*|Type=oneshot\\nStandardOutput=truncate:/run/doctor.txt\\n{more}|' \
         -e 's|^ExecStart=.*|ExecStart=-/usr/bin/duragent doctor|' -e '/^WatchdogSec/d; /^ExecReload/d; /^Restart/d' \
         /etc/systemd/system/duragent.service >/etc/systemd/system/doctor.service; systemctl daemon-reload; systemctl start doctor"
    );
    tree.ok(&change);
    tree.ok("cat /run/doctor.txt")
}

#[test]
fn hardening_leaves_the_sandbox_whole() {
    let tree = installed();
    let said = doctor(&tree, "");
    assert!(said.contains("bubblewrap, enforcement full; 15 of 15 things that a canary tried were refused"), "{said}");
    assert!(said.contains("backend landlock:                  a trial ran in it; enforcement full"), "{said}");
    // The control: what the unit leaves out on purpose does keep bubblewrap from working.
    for harm in ["RestrictNamespaces=yes", "ProtectKernelTunables=yes", "ProcSubset=pid"] {
        let said = doctor(&tree, harm);
        let line = said.lines().find(|line| line.contains("backend bubblewrap:")).expect("a line about it");
        assert!(!line.contains("a trial ran in it"), "{harm}: {line}");
    }
    // And the unit itself does something.
    let pid = property(&tree, "MainPID");
    let status = tree.ok(&format!("cat /proc/{pid}/status"));
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
}
