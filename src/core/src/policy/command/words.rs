//! The words that `command` knows. Texts with blanks between the words: a table of slices would be three times as large.

/// Words that may stand in front of a command.
pub(super) const RESERVED: &str = "then do else elif if while until ! { in";

/// Programs and builtins that run a command in their arguments.
pub(super) const RUNNERS: &str = "alias apptainer builtin busybox bwrap cgexec chpst chroot chrt command complete coproc cpulimit daemon \
    dbus-run-session doas docker entr env exec fakeroot firejail flock function gdb hash ionice ip kubectl ld-linux.so ld-linux-aarch64.so \
    ld-linux-x86-64.so less linux32 linux64 ltrace make man more nice nohup nsenter numactl parallel pkexec podman prlimit proot \
    rsync runuser s6-setuidgid screen script setarch setpriv setsid setuidgid sg start-stop-daemon stdbuf strace su sudo systemd-run tar \
    taskset tcpdump time timeout tini tmux toybox trap unbuffer unshare valgrind watch wget xargs xterm zip";

/// Those that run a text of theirs as a script.
pub(super) const INTERPRETERS: &str = "ash at awk bash batch bc bun csh dash deno ed emacs eval ex expect fish gawk ksh lua mawk mksh node nodejs nvim \
    osascript perl php pwsh python ruby sed sh source sqlite ssh tclsh tcsh vi view vim vimdiff zsh . crontab";

/// Options that run a program or write a file, whatever the program.
pub(super) const OPTIONS: &str = "-delete -exec -execdir -fls -fprint -fprint0 -fprintf -ok -okdir --checkpoint-action --command \
    --compress-program --config-env --eval --exec --exec-batch --exec-path --ext-diff --extcmd --hostname-bin --in-place --info-script \
    --new-volume-script --open-files-in-pager --output --output-document --output-file --pager --pre --preprocessor --receive-pack \
    --rmt-command --rsh --rsh-command --rsync-path --run --search-zip --set --to-command --upload-pack --use-askpass \
    --use-compress-program";

/// Letters of short options that do, by program.
pub(super) const SHORT_OPTIONS: [(&str, &str); 14] = [
    ("curl", "oOTKD"),
    ("date", "s"),
    ("dmesg", "cC"),
    ("git", "cO"),
    ("ip", "b"),
    ("less", "oO"),
    ("man", "P"),
    ("rsync", "e"),
    ("sed", "ie"),
    ("sort", "o"),
    ("ssh", "oF"),
    ("tar", "IxF"),
    ("tree", "o"),
    ("wget", "oOeia"),
];

/// Words with which git runs what it is told.
pub(super) const OPTIONS_OF_GIT: &str = "-c -x -O run foreach filter-branch";
