//! Named settings for common needs.

use super::paths::canonical;
use super::{SandboxSpec, add};
use duragent_platform::sandbox::policy::Network;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Most device files of one preset. A board has a few dozen; each is a mount.
const DEVICES_MAX: usize = 256;

/// A name, and what it stands for. Keys beside it go over it.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// The word in the configuration.
    pub name: &'static str,
    /// What may be reached; nothing is said if `None`.
    pub network: Option<Network>,
    /// By their names in [`super::LIMITS`].
    pub limits: &'static [(&'static str, u64)],
    /// What may be read, as far as it is there.
    pub read: &'static [&'static str],
    /// Beginnings of the names of device files that may be changed; a digit follows.
    pub devices: &'static [&'static str],
}

const MIB: u64 = 1024 * 1024;

/// All there are.
pub const PRESETS: [Preset; 5] = [
    // What the platform's own limits say; takes a preset of the workspace away.
    Preset { name: "default", network: None, limits: &[], read: &[], devices: &[] },
    // For small chores: what goes past this is a mistake.
    Preset {
        name: "strict",
        network: Some(Network::None),
        limits: &[
            ("cpu_seconds", 60),
            ("memory_bytes", 512 * MIB),
            ("processes", 64),
            ("file_bytes", 64 * MIB),
            ("tmp_bytes", 16 * MIB),
        ],
        read: &[],
        devices: &[],
    },
    // For compilers and test runs, which start many processes and talk to servers of their own.
    Preset {
        name: "build",
        network: Some(Network::Loopback),
        limits: &[("cpu_seconds", 3600), ("processes", 1024), ("file_bytes", 4096 * MIB), ("tmp_bytes", 512 * MIB)],
        read: &[],
        devices: &[],
    },
    Preset { name: "web", network: Some(Network::All), limits: &[], read: &[], devices: &[] },
    // For the pins, buses and serial lines of a board.
    Preset {
        name: "hardware",
        network: None,
        limits: &[],
        read: &["/sys/class", "/sys/bus", "/sys/devices", "/proc/device-tree", "/dev/hwrng"],
        devices: &["gpiochip", "i2c-", "spidev", "ttyUSB", "ttyACM", "ttyAMA", "ttyS", "video", "iio:device"],
    },
];

impl Preset {
    /// Puts it over what is there; its limits only as far as the device goes.
    pub fn apply(&self, spec: &mut SandboxSpec, device: &[(&str, u64)]) {
        if let Some(network) = &self.network {
            spec.policy.network.clone_from(network);
        }
        for (name, value) in self.limits {
            let most = device.iter().find(|(known, _)| known == name).map_or(u64::MAX, |(_, most)| *most);
            spec.set(name, most.min(*value));
        }
        let there = self.read.iter().map(Path::new).filter(|path| path.exists());
        add(&mut spec.policy.read, &there.map(canonical).collect::<Vec<_>>());
        if !self.devices.is_empty() {
            add(&mut spec.policy.write, &devices(Path::new("/dev"), self.devices));
        }
    }
}

/// The character devices in `dir` whose names are one of these beginnings and a digit, in the order of their names.
pub fn devices(dir: &Path, beginnings: &[&str]) -> Vec<PathBuf> {
    let is_meant = |name: &str| {
        let rest = beginnings.iter().find_map(|beginning| name.strip_prefix(beginning));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    // Without a /dev there are no devices; whoever needs one sees that it is not there.
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_meant));
    let paths = named.map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device())).collect();
    found.sort_unstable();
    found.truncate(DEVICES_MAX);
    found
}
