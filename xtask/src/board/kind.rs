//! The machines that are emulated: what QEMU calls them and which Debian they run.

/// A machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// For people.
    pub name: &'static str,
    /// Debian's name of the architecture.
    pub debian: &'static str,
    /// What the names of the targets start with whose static binaries it boots.
    pub target: &'static str,
    /// The emulator of the whole machine.
    pub system: &'static str,
    /// What it is told to be.
    pub machine: &'static [&'static str],
    /// The Debian package of its kernel.
    pub kernel: &'static str,
    /// The loader of dynamic programs.
    pub loader: &'static str,
}

/// Memory of every machine, in MiB: a gateway of the small kind. Debian's kernel and its initramfs need half of it to boot.
pub const MEMORY_MIB: u32 = 128;

/// All of them, the smaller first.
pub const KINDS: [Kind; 2] = [
    Kind {
        name: "armv7 (Cortex-A15)",
        debian: "armhf",
        target: "armv7-",
        system: "qemu-system-arm",
        machine: &["-M", "virt,highmem=off", "-cpu", "cortex-a15"],
        kernel: "linux-image-armmp",
        loader: "ld-linux-armhf.so.3",
    },
    Kind {
        name: "arm64 (Cortex-A53)",
        debian: "arm64",
        target: "aarch64-",
        system: "qemu-system-aarch64",
        machine: &["-M", "virt", "-cpu", "cortex-a53"],
        kernel: "linux-image-arm64",
        loader: "ld-linux-aarch64.so.1",
    },
];

impl Kind {
    /// The machine that boots the binary of `target`: a static one, since the guest has no C library for programs of ours.
    #[must_use]
    pub fn of(target: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| target.starts_with(kind.target) && target.contains("-musl"))
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn static_binaries_of_two_architectures_are_booted() {
        let name = |target: &str| Kind::of(target).map(|kind| kind.debian);
        assert_eq!(name("armv7-unknown-linux-musleabihf"), Some("armhf"));
        assert_eq!(name("aarch64-unknown-linux-musl"), Some("arm64"));
        for other in ["armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-musl", "arm-unknown-linux-musleabi"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
