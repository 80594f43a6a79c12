//! What only systemd has: readiness, watchdog, credentials, hardening.

/// Units that would touch the machine itself, or wait for hardware.
pub const PREPARE: &str = "for unit in systemd-sysctl.service systemd-modules-load.service systemd-udevd.service kmod-static-nodes.service \
    systemd-timesyncd.service modprobe@.service systemd-random-seed.service systemd-hwdb-update.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-hugepages.mount sys-fs-fuse-connections.mount; do ln -sf /dev/null /etc/systemd/system/$unit; done
    rm -f /etc/machine-id; echo 0123456789abcdef0123456789abcdef >/etc/machine-id";

/// The basic target only: no logins, no network.
pub const PROCESS_1: &[&str] =
    &["/lib/systemd/systemd", "--unit=basic.target", "--log-target=journal", "--show-status=no"];
