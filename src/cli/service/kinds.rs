//! The init systems, and what each of them needs. The files are compiled in as they stand in platform/init.

use std::fs;
use std::path::Path;

/// A file of a service: where it goes, what is in it, its mode.
pub type File = (&'static str, &'static str, u32);

/// An init system.
pub struct Kind {
    /// How people name it.
    pub name: &'static str,
    /// Its files.
    pub files: &'static [File],
    /// Symbolic links that make it start with the machine, and what they point to.
    pub links: &'static [(&'static str, &'static str)],
    /// What starts it now, after all that.
    pub start: &'static [&'static str],
    /// What stops it, before all is taken away.
    pub stop: &'static [&'static str],
    /// What the init system has to be told when its files have gone.
    pub gone: &'static [&'static str],
    /// Folders with state of the init system that go with the files.
    pub leftovers: &'static [&'static str],
}

/// Where BusyBox's init is told what to run, and the line that does.
pub const INITTAB: &str = "/etc/inittab";
pub const INITTAB_LINE: &str = include_str!("../../../platform/init/busybox/inittab");

/// The binary, workspaces and user in the files, which are replaced by the ones that are wanted.
pub const BIN: &str = "/usr/bin/duragent";
pub const DIR: &str = "/var/lib/duragent";
/// On OpenWrt /var is in memory.
pub const DIR_OPENWRT: &str = "/srv/duragent";
pub const USER: &str = "duragent";

/// What systemd makes by itself, at the usual place.
pub const STATE_DIRECTORY: &str = "StateDirectory=duragent\nStateDirectoryMode=0700\n";

macro_rules! init {
    ($file:literal) => {
        include_str!(concat!("../../../platform/init/", $file))
    };
}

/// A unit, as people write it, and as packages bring it.
pub const UNIT: &str = "/etc/systemd/system/duragent.service";
pub const UNIT_OF_PACKAGE: &str = "/lib/systemd/system/duragent.service";
const SCRIPT: &str = "/etc/init.d/duragent";

pub const KINDS: [Kind; 7] = [
    Kind {
        name: "systemd",
        files: &[(UNIT, init!("systemd/duragent.service"), 0o644)],
        links: &[("/etc/systemd/system/multi-user.target.wants/duragent.service", UNIT)],
        start: &["systemctl daemon-reload", "systemctl restart duragent"],
        stop: &["systemctl stop duragent"],
        gone: &["systemctl daemon-reload"],
        leftovers: &[],
    },
    Kind {
        name: "openrc",
        files: &[(SCRIPT, init!("openrc/duragent"), 0o755)],
        links: &[("/etc/runlevels/default/duragent", SCRIPT)],
        start: &["rc-service duragent restart"],
        stop: &["rc-service duragent stop"],
        gone: &[],
        leftovers: &[],
    },
    Kind {
        name: "sysv",
        files: &[(SCRIPT, init!("sysv/duragent"), 0o755)],
        links: &[
            ("/etc/rc2.d/S20duragent", "../init.d/duragent"),
            ("/etc/rc3.d/S20duragent", "../init.d/duragent"),
            ("/etc/rc4.d/S20duragent", "../init.d/duragent"),
            ("/etc/rc5.d/S20duragent", "../init.d/duragent"),
            ("/etc/rc0.d/K01duragent", "../init.d/duragent"),
            ("/etc/rc1.d/K01duragent", "../init.d/duragent"),
            ("/etc/rc6.d/K01duragent", "../init.d/duragent"),
        ],
        start: &["/etc/init.d/duragent restart"],
        stop: &["/etc/init.d/duragent stop"],
        gone: &[],
        leftovers: &[],
    },
    Kind {
        name: "busybox",
        files: &[("/etc/init.d/S90duragent", init!("busybox/S90duragent"), 0o755)],
        links: &[],
        start: &["kill -HUP 1", "/etc/init.d/S90duragent restart"],
        stop: &["/etc/init.d/S90duragent stop"],
        gone: &["kill -HUP 1"],
        leftovers: &[],
    },
    Kind {
        name: "procd",
        files: &[(SCRIPT, init!("procd/duragent"), 0o755)],
        links: &[("/etc/rc.d/S95duragent", "../init.d/duragent"), ("/etc/rc.d/K10duragent", "../init.d/duragent")],
        start: &["/etc/init.d/duragent restart"],
        stop: &["/etc/init.d/duragent stop"],
        gone: &[],
        leftovers: &[],
    },
    Kind {
        name: "runit",
        files: &[
            ("/etc/sv/duragent/run", init!("runit/run"), 0o755),
            ("/etc/sv/duragent/finish", init!("runit/finish"), 0o755),
            ("/etc/sv/duragent/log/run", init!("runit/log/run"), 0o755),
        ],
        // runsvdir looks for new ones every five seconds.
        links: &[("/etc/service/duragent", "/etc/sv/duragent")],
        start: &[],
        stop: &["sv -w 60 down duragent"],
        gone: &[],
        leftovers: &["/etc/sv/duragent/log/supervise", "/etc/sv/duragent/supervise"],
    },
    Kind {
        name: "s6",
        files: &[
            ("/etc/s6/sv/duragent/run", init!("s6/run"), 0o755),
            ("/etc/s6/sv/duragent/finish", init!("s6/finish"), 0o755),
            ("/etc/s6/sv/duragent/notification-fd", init!("s6/notification-fd"), 0o644),
            ("/etc/s6/sv/duragent/log/run", init!("s6/log/run"), 0o755),
        ],
        links: &[("/run/service/duragent", "/etc/s6/sv/duragent")],
        start: &["s6-svscanctl -a /run/service"],
        stop: &["s6-svc -wD -T 60000 -d /run/service/duragent"],
        gone: &["s6-svscanctl -an /run/service"],
        leftovers: &[
            "/etc/s6/sv/duragent/log/supervise",
            "/etc/s6/sv/duragent/log/event",
            "/etc/s6/sv/duragent/supervise",
            "/etc/s6/sv/duragent/event",
        ],
    },
];

/// The init system of the tree at `root`; of the machine that runs, if that is its root.
pub fn detect(root: &Path) -> Option<&'static Kind> {
    let is = |path: &str| root.join(path).exists();
    let process = match root == Path::new("/") {
        true => fs::read_to_string("/proc/1/comm").unwrap_or_default(),
        false => String::new(),
    };
    let init = fs::read_link(root.join("sbin/init")).unwrap_or_default();
    let init = init.file_name().unwrap_or_default().to_string_lossy();
    let name = match (process.trim_end(), &*init) {
        _ if process.is_empty() && is("sbin/procd") => "procd",
        ("procd", _) => "procd",
        ("systemd", _) => "systemd",
        ("runit" | "runsvdir", _) => "runit",
        ("s6-svscan", _) => "s6",
        // The last two stand above one of the others.
        _ if is("sbin/openrc-run") && (process.is_empty() || is("run/openrc")) => "openrc",
        (_, "busybox") => "busybox",
        ("", "systemd") => "systemd",
        ("", "runit" | "runit-init") => "runit",
        ("", "s6-linux-init" | "s6-svscan") => "s6",
        _ if is("etc/inittab") && is("etc/rc2.d") => "sysv",
        _ => return None,
    };
    KINDS.iter().find(|kind| kind.name == name)
}
