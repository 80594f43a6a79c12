#!/bin/sh
# Makes a tree in namespaces of its own and becomes its process 1. $1: `bare`, BusyBox and nothing else, `whole`, this system
# with nothing written to it, or the folder of another system. $2: a file, $TO, /usr/bin/duragent if that is unset, in the
# tree. $3: a script that prepares the tree, run in it. The rest: process 1. $TREE: an empty folder, for others it stays so.
set -eu
kind=$1 file=$2 prepare=$3
to=${TO:-/usr/bin/duragent}
shift 3
mount --make-rprivate /
tree=${TREE:?}
# With the last process of the namespace its mounts go.
mount -t tmpfs tree "$tree"
mkdir "$tree/up" "$tree/work" "$tree/root"
if [ "$kind" != bare ]; then
    [ "$kind" != whole ] || kind=/
    mount -t overlay overlay -o "lowerdir=$kind,upperdir=$tree/up,workdir=$tree/work" "$tree/root"
else
    # pivot_root wants a mount.
    mount --bind "$tree/root" "$tree/root"
    (cd "$tree/root" && mkdir -p bin sbin usr/bin usr/sbin lib lib64 usr/lib etc/init.d proc sys dev run tmp var/lib var/log root old)
    cp "$(command -v busybox)" "$tree/root/bin/busybox"
    for applet in $("$tree/root/bin/busybox" --list-full); do
        [ -e "$tree/root/$applet" ] || ln -s /bin/busybox "$tree/root/$applet"
    done
    # What the binary needs, if it is not static.
    for at in lib lib64 usr/lib; do
        [ ! -d "/$at" ] || mount --bind -o ro "/$at" "$tree/root/$at"
    done
    echo "root:x:0:0:root:/root:/bin/sh" >"$tree/root/etc/passwd"
    echo "root:x:0:" >"$tree/root/etc/group"
fi
cd "$tree/root"
mkdir -p old usr/bin
# A copy: a mount in the middle of programs is not what the sandbox of tools expects.
cp "$file" "./$to"
# While this system's programs are at hand.
busybox ip link set lo up
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs dev
for node in null zero full random urandom tty; do
    : >dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/shm dev/pts
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
pivot_root . old
umount -l /old
# As it is where systemd starts: credentials of units are mounted for them from outside.
mount --make-rshared /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
sh -euc "$prepare"
: >/run/tree-is-up
exec env -i container=test PATH=$PATH "$@"
