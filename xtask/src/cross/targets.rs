//! Which targets are built, and what Debian calls their parts. Their flags are in `cross/config.toml`.

/// Where a target's C library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// Debian's cross compiler brings it; the binary wants it at run time.
    Glibc,
    /// Linked in: the binary wants nothing but a kernel. Debian's name of the directories it is in.
    Musl(&'static str),
}

/// A target.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// As Rust calls it.
    pub name: &'static str,
    /// Debian's architecture: of its musl-dev, and of packages of the binary.
    pub debian: &'static str,
    /// What the names of Debian's cross compiler and its tools begin with.
    pub tools: &'static str,
    /// Its C library.
    pub libc: Libc,
    /// The newest ARM architecture of which the binary may use instructions, as the ELF attributes number them;
    /// none where every machine has them all.
    pub arm_max: Option<u32>,
}

/// All of them, the small machines first.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "armv7-unknown-linux-musleabihf",
        debian: "armhf",
        tools: "arm-linux-gnueabihf",
        libc: Libc::Musl("arm-linux-musleabihf"),
        arm_max: Some(7),
    },
    Target {
        name: "aarch64-unknown-linux-musl",
        debian: "arm64",
        tools: "aarch64-linux-gnu",
        libc: Libc::Musl("aarch64-linux-musl"),
        arm_max: None,
    },
    Target {
        name: "x86_64-unknown-linux-musl",
        debian: "amd64",
        tools: "x86_64-linux-gnu",
        libc: Libc::Musl("x86_64-linux-musl"),
        arm_max: None,
    },
    // Raspberry Pi 1 and Zero. Debian's armhf is ARMv7 down to libgcc, so that its armel it must be, without the
    // floating point unit.
    Target {
        name: "arm-unknown-linux-musleabi",
        debian: "armel",
        tools: "arm-linux-gnueabi",
        libc: Libc::Musl("arm-linux-musleabi"),
        arm_max: Some(6),
    },
    Target {
        name: "armv7-unknown-linux-gnueabihf",
        debian: "armhf",
        tools: "arm-linux-gnueabihf",
        libc: Libc::Glibc,
        arm_max: Some(7),
    },
    Target {
        name: "aarch64-unknown-linux-gnu",
        debian: "arm64",
        tools: "aarch64-linux-gnu",
        libc: Libc::Glibc,
        arm_max: None,
    },
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// A program of Debian's cross compiler.
    #[must_use]
    pub fn tool(&self, name: &str) -> String {
        [self.tools, "-", name].concat()
    }

    /// Debian packages for the machine that builds.
    #[must_use]
    pub fn packages(&self) -> String {
        match self.debian {
            "amd64" => "gcc libc6-dev".to_owned(),
            arch => format!("gcc libc6-dev gcc-{} libc6-dev-{arch}-cross", self.tools),
        }
    }

    /// The name as it is in names of environment variables that cargo reads.
    #[must_use]
    pub fn upper(&self) -> String {
        self.name.replace('-', "_").to_uppercase()
    }
}
