#!/bin/sh
# shellcheck disable=SC2016
# Installs, upgrades, removes and purges the package $2 in a clean system, the folder $1, that is not written to. Says what is
# wrong and fails with it. Run by `cargo xtask deb --test`.
set -eu
here=$(dirname "$0")
clean=$1 package=$2
TREE=$(mktemp -d)
export TREE
trap 'rmdir "$TREE"' EXIT
path=/usr/sbin:/usr/bin:/sbin:/bin

# up PREPARE PROCESS_1…: $init is its process 1.
up() {
    TO=/root/duragent.deb unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net -- \
        sh "$here/tree.sh" "$clean" "$package" "$@" </dev/null >/dev/null &
    outer=$!
    tries=0
    until init=$(cat "/proc/$outer/task/$outer/children") && init=${init% } && [ -n "$init" ] &&
        [ -e "/proc/$init/root/run/tree-is-up" ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "the tree does not come up (it needs root, overlayfs and cgroup v2)"
        sleep 0.1
    done
}

down() {
    kill -9 "$outer" || true
    wait "$outer" || true
}

fail() {
    echo "$*" >&2
    down 2>/dev/null
    exit 1
}

run() {
    timeout --kill-after=5 120 nsenter -t "$init" -m -p -u -i -n -C -r -w env -i PATH=$path sh -c "$1" 2>&1 </dev/null
}

ok() {
    said=$(run "$1") || fail "expected success: $1: $said"
}

bad() {
    ! said=$(run "$1") || fail "expected failure: $1: $said"
}

until_ok() {
    tries=0
    until said=$(run "$1"); do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "never came true: $1: $said"
        sleep 0.2
    done
}

# Every file, but what dpkg and the system itself keep.
files() {
    run 'find / -xdev \( -path /root/duragent.deb -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path /var/lib/systemd \
        -o -path "/etc/passwd*" -o -path "/etc/group*" -o -path "/etc/shadow*" -o -path "/etc/gshadow*" -o -path "/etc/subuid*" \
        -o -path "/etc/subgid*" \) -prune -o -print | sort'
}

echo "with systemd"
up 'for unit in systemd-sysctl systemd-modules-load systemd-udevd kmod-static-nodes systemd-timesyncd systemd-random-seed
    do ln -sf /dev/null /etc/systemd/system/$unit.service; done; echo 0123456789abcdef0123456789abcdef >/etc/machine-id' \
    /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
until_ok 'systemctl is-system-running'
before=$(files)
ok 'dpkg -i /root/duragent.deb'
ok 'systemctl is-active duragent && systemctl is-enabled duragent'
ok 'test "$(stat -c %U:%G:%a /var/lib/duragent)" = duragent:duragent:700'
ok 'test "$(stat -c %a /etc/default/duragent)" = 640 && test "$(getent passwd duragent | cut -d: -f7)" = /usr/sbin/nologin'
ok 'test -z "$(find /var/lib/duragent ! -user duragent)" && test -z "$(dpkg -V duragent)"'
ok 'duragent --dir /var/lib/duragent ps'
ok 'duragent service status | grep -q "running: yes"'

# An upgrade starts it anew, and leaves what people have made.
first=$(run 'systemctl show -P MainPID duragent')
ok 'echo "# mine" >>/etc/default/duragent; echo "# mine" >>/var/lib/duragent/duragent.yaml; dpkg -i /root/duragent.deb'
until_ok 'systemctl is-active duragent'
[ "$first" != "$(run 'systemctl show -P MainPID duragent')" ] || fail "the upgrade did not start it anew"
ok 'grep -q mine /etc/default/duragent && grep -q mine /var/lib/duragent/duragent.yaml'

# Without a workspace it is not started, and that is no failure; the package does not make it again.
ok 'rm -r /var/lib/duragent/duragent.yaml; dpkg -i /root/duragent.deb'
bad 'systemctl is-active duragent'
bad 'systemctl is-failed duragent'
bad 'test -e /var/lib/duragent/duragent.yaml'
ok 'setpriv --reuid duragent --regid duragent --clear-groups duragent --dir /var/lib/duragent init; systemctl start duragent'

# Removed: what people have made stays. Purged: nothing does, but the user.
ok 'dpkg -r duragent'
bad 'systemctl is-active duragent'
bad 'pgrep duragent || test -e /usr/bin/duragent'
ok 'test -e /var/lib/duragent/duragent.yaml && test -e /etc/default/duragent && id duragent'
ok 'dpkg -i /root/duragent.deb && systemctl is-active duragent'
ok 'dpkg -P duragent'
bad 'systemctl is-active duragent'
after=$(files)
if [ "$before" != "$after" ]; then
    echo "$before" >"${TMPDIR:-/tmp}/duragent-before.$$"
    left=$(echo "$after" | diff "${TMPDIR:-/tmp}/duragent-before.$$" - || true)
    rm "${TMPDIR:-/tmp}/duragent-before.$$"
    fail "purged, and not as before: $left"
fi
down

echo "without systemd, as where an image is made"
up 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; rm -rf /run/systemd' \
    /bin/sh -c 'while :; do sleep 1; done'
ok 'dpkg -i /root/duragent.deb'
bad '/etc/init.d/duragent status'
ok 'ls /etc/rc2.d/S*duragent /etc/rc6.d/K*duragent'
# invoke-rc.d starts nothing where there is no runlevel; the machine's init would do it like this.
ok '/etc/init.d/duragent start && /etc/init.d/duragent status && duragent --dir /var/lib/duragent ps'
ok '/etc/init.d/duragent stop'
ok 'dpkg -P duragent'
bad 'ls -d /var/lib/duragent || ls /etc/init.d/duragent || ls /etc/rc2.d/S*duragent'
down
