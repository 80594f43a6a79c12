//! Reads `sandbox` of `duragent.yaml` and `spec.sandbox` of an agent, and puts them together into what the platform's
//! sandbox takes.
//!
//! Each file is a [`Layer`]: a preset, and keys that go over it. An agent's layer goes over the workspace's: lists of paths
//! and variables add up, a list of hosts adds to a list and replaces anything else, all other keys replace, and an agent's
//! preset takes the place of the workspace's preset.
//!
//! Invariants: paths come out absolute, without `..`, and as far as they exist without symbolic links; what configures the
//! runtime is never among those that may be changed, and no secret among the variables that pass.
//!
//! Absent: enforcing any of it, and what the machine can enforce (`duragent_platform::sandbox`).

mod network;
mod paths;
mod presets;
mod protected;
mod variables;

pub use paths::canonical;
pub use presets::{PRESETS, Preset, devices};
pub use protected::{Protected, secret_files, secret_variables};

use super::list::{ITEMS_MAX, Judged, each, items};
use super::profile::Profile;
use super::read::{self, Section};
use super::types::{Limits, Server};
use super::yaml::Kind;
use duragent_platform::sandbox::policy::{Endpoint, Network};
use duragent_platform::sandbox::{Enforcement, Mode, Policy};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Variables that pass if no list says otherwise: where programs are, and how people write.
pub const ENV_DEFAULT: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// Words of `sandbox.mode`.
const MODES: [(&str, Mode); 4] =
    [("auto", Mode::Auto), ("bubblewrap", Mode::Bubblewrap), ("landlock", Mode::Landlock), ("trust", Mode::Trust)];

/// Keys of a layer.
const KEYS: [&str; 6] = ["preset", "read", "write", "network", "env", "limits"];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Keys of `limits`: the name, the range, and whether 0 is a value beside it. 0 is no limit of ours.
pub const LIMITS: [(&str, RangeInclusive<u64>, bool); 8] = [
    ("cpu_seconds", 0..=604_800, false),
    // Below 16 MiB not even a shell starts.
    ("memory_bytes", 16 * MIB..=1024 * GIB, true),
    // A shell, a pipe and what stands between.
    ("processes", 4..=32_768, false),
    ("file_bytes", 4 * KIB..=1024 * GIB, false),
    ("open_files", 16..=65_536, false),
    ("tmp_bytes", 64 * KIB..=64 * GIB, true),
    // These two only lower what the device allows, see [`Limits`].
    ("wall_seconds", 1..=86_400, false),
    ("output_bytes", KIB..=MIB, false),
];

/// `sandbox` of `duragent.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// `mode`: has no default.
    pub mode: Mode,
    /// `enforcement`: what has to be achieved at least. `None` for trust.
    pub required: Enforcement,
    /// What the profile says: beneath all layers, and no preset goes beyond it.
    pub profile: Vec<(&'static str, u64)>,
    /// What agents start from.
    pub layer: Layer,
    /// What no layer gives away.
    pub protected: Protected,
}

/// What one file says, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layer {
    /// `preset`.
    pub preset: Option<&'static Preset>,
    /// `read`.
    pub read: Vec<PathBuf>,
    /// `write`.
    pub write: Vec<PathBuf>,
    /// `network`.
    pub network: Option<Network>,
    /// `env`.
    pub env: Option<Vec<String>>,
    /// `limits`: those that are written, by their names in [`LIMITS`].
    pub limits: Vec<(&'static str, u64)>,
}

/// What holds for the tools of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxSpec {
    /// What they may reach, and what a call may use.
    pub policy: Policy,
    /// Names of the variables that pass from the runtime's environment.
    pub env: Vec<String>,
    /// Wall time of one call in seconds, if it is less than the device's.
    pub wall_seconds: Option<u64>,
    /// Bytes of one result that go to the model, if they are less than the device's.
    pub output_bytes: Option<u64>,
}

impl Sandbox {
    /// The word in the configuration.
    #[must_use]
    pub fn mode_word(&self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self.mode).map_or("", |(word, _)| word)
    }

    /// What holds for an agent with this layer.
    #[must_use]
    pub fn spec(&self, agent: &Layer) -> SandboxSpec {
        let mut spec = SandboxSpec::default();
        spec.policy.hidden.push(self.protected.workspace.clone());
        spec.policy.hidden.extend_from_slice(&self.protected.hidden);
        spec.policy.read_only.extend_from_slice(&self.protected.read_only);
        spec.env = match &self.layer.env {
            Some(names) => names.clone(),
            None => ENV_DEFAULT.map(str::to_owned).to_vec(),
        };
        self.profile.iter().for_each(|(name, value)| spec.set(name, *value));
        if let Some(preset) = self.layer.preset.filter(|_| agent.preset.is_none()) {
            preset.apply(&mut spec, &self.profile);
        }
        spec.add(&self.layer);
        if let Some(preset) = agent.preset {
            preset.apply(&mut spec, &self.profile);
        }
        add(&mut spec.env, agent.env.as_deref().unwrap_or_default());
        spec.add(agent);
        spec
    }
}

impl SandboxSpec {
    /// Puts the keys of a layer over what is there, but for its variables.
    fn add(&mut self, layer: &Layer) {
        add(&mut self.policy.read, &layer.read);
        add(&mut self.policy.write, &layer.write);
        match (&mut self.policy.network, &layer.network) {
            (Network::Hosts(hosts), Some(Network::Hosts(more))) => add(hosts, more),
            (network, Some(other)) => network.clone_from(other),
            (_, None) => {}
        }
        layer.limits.iter().for_each(|(name, value)| self.set(name, *value));
    }

    /// Sets a limit by its name in [`LIMITS`].
    fn set(&mut self, name: &str, value: u64) {
        let limits = &mut self.policy.limits;
        match name {
            "cpu_seconds" => limits.cpu_seconds = value,
            "memory_bytes" => limits.memory_bytes = value,
            "processes" => limits.processes = value,
            "file_bytes" => limits.file_bytes = value,
            "open_files" => limits.open_files = value,
            "tmp_bytes" => limits.tmp_bytes = value,
            "wall_seconds" => self.wall_seconds = Some(value),
            "output_bytes" => self.output_bytes = Some(value),
            _ => {}
        }
    }

    /// The limits in the order of [`LIMITS`]; `None` where the device's counts.
    #[must_use]
    pub fn limits(&self) -> [Option<u64>; 8] {
        let l = &self.policy.limits;
        let [cpu, memory, processes, file, open, tmp] =
            [l.cpu_seconds, l.memory_bytes, l.processes, l.file_bytes, l.open_files, l.tmp_bytes].map(Some);
        [cpu, memory, processes, file, open, tmp, self.wall_seconds, self.output_bytes]
    }
}

/// Adds what is not there yet.
fn add<T: PartialEq + Clone>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The folder that holds the workspace `dir`, absolute: where relative paths of a sandbox start.
#[must_use]
pub fn folder(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    dir.parent().unwrap_or(&dir).to_path_buf()
}

/// What is known when a layer is read.
pub struct Reader<'r> {
    /// [`folder`].
    pub folder: &'r Path,
    /// What no layer gives away.
    pub protected: &'r Protected,
    /// What the device allows.
    pub device: &'r Limits,
    /// The server that tools must not reach without a token.
    pub server: &'r Server,
    /// Whether a variable holds a secret.
    pub is_secret: &'r dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    /// `sandbox` of `duragent.yaml` over the device's profile; `None` if it cannot be used, which has been reported then.
    #[must_use]
    pub fn workspace(&self, top: &Section<'_>, profile: Option<&Profile>) -> Option<Sandbox> {
        const REMEDY: &str = "write `sandbox: {mode: auto}` to run tools behind a wall, or `sandbox: {mode: trust}` to run them as the \
                              user that runs duragent, with no wall around them";
        let Some(section) = top.section("sandbox") else {
            top.missing("sandbox", REMEDY);
            return None;
        };
        section.keys(&[&["mode", "enforcement"], &KEYS[..]].concat(), &[]);
        let mode = match section.get("mode").and_then(read::text_of) {
            _ if section.get("mode").is_none() => {
                section.missing("mode", REMEDY);
                None
            }
            Some("docker") => {
                section.error("mode", &format!("\"docker\" is not supported; {REMEDY}"));
                None
            }
            _ => section.word("mode", &MODES.map(|(word, _)| word)).and_then(|index| MODES.get(index)),
        };
        let mode = mode.map(|(_, mode)| *mode);
        let partial = section.word("enforcement", &["full", "partial"]) == Some(1);
        if mode == Some(Mode::Trust) && section.get("enforcement").is_some() {
            section.error("enforcement", "mode trust enforces nothing; remove this key, or write mode: auto");
        }
        let layer = self.layer(&section, mode);
        let mode = mode?;
        let required = match mode {
            Mode::Trust => Enforcement::None,
            _ if partial => Enforcement::Partial,
            _ => Enforcement::Full,
        };
        let limit =
            |(name, ..): &(&'static str, _, _)| Some((*name, profile?.get(&["sandbox.limits.", name].concat())?));
        let profile = LIMITS.iter().filter_map(limit).collect();
        Some(Sandbox { mode, required, profile, layer, protected: self.protected.clone() })
    }

    /// `spec.sandbox` of an agent.
    #[must_use]
    pub fn agent(&self, spec: &Section<'_>, mode: Mode) -> Layer {
        let Some(section) = spec.section("sandbox") else { return Layer::default() };
        for key in ["mode", "enforcement"] {
            if section.get(key).is_some() {
                section.error(key, "is the workspace's to say; write it under sandbox in duragent.yaml");
            }
        }
        section.keys(&[&["mode", "enforcement"], &KEYS[..]].concat(), &[]);
        self.layer(&section, Some(mode))
    }

    /// Checks where an agent's tools are to work: `dir`, absolute; perhaps with a warning. `home` is the user's home.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn workdir(&self, dir: &Path, home: Option<&Path>) -> Judged {
        let real = paths::Paths { folder: self.folder, protected: self.protected }.workdir(dir)?;
        let is_home = home.is_some_and(|home| home.is_absolute() && canonical(home) == real);
        Ok(is_home.then(|| {
            format!(
                "{} is your home, and tools may change all of it but .duragent, .ssh and what shells, git and editors run by \
                 themselves; a folder of its own is safer",
                real.display()
            )
        }))
    }

    fn layer(&self, section: &Section<'_>, mode: Option<Mode>) -> Layer {
        let names = PRESETS.each_ref().map(|preset| preset.name);
        let mut layer = Layer {
            preset: section.word("preset", &names).and_then(|index| PRESETS.get(index)),
            network: network(section),
            ..Layer::default()
        };
        let paths = paths::Paths { folder: self.folder, protected: self.protected };
        let keep = |list: &mut Vec<PathBuf>, (path, warning)| {
            add(list, &[path]);
            warning
        };
        each(section, "read", "a path", &mut |text, _| paths.read(text).map(|found| keep(&mut layer.read, found)));
        each(section, "write", "a path", &mut |text, _| paths.write(text).map(|found| keep(&mut layer.write, found)));
        if section.get("env").is_some() {
            let mut names = Vec::new();
            each(section, "env", "the name of a variable", &mut |name, shown| {
                variables::check(name, shown, self.is_secret)?;
                add(&mut names, &[name.to_owned()]);
                Ok(None)
            });
            layer.env = Some(names);
        }
        layer.limits = self.limits(section);
        match mode {
            Some(Mode::Trust) => unenforced(section, &layer),
            Some(_) => self.own_door(section, &layer),
            None => {}
        }
        layer
    }

    fn limits(&self, section: &Section<'_>) -> Vec<(&'static str, u64)> {
        let section = section.section_or_empty("limits");
        section.keys(&LIMITS.each_ref().map(|(name, ..)| *name), &[]);
        let mut out = Vec::new();
        for (name, range, zero) in &LIMITS {
            let (least, most) = (*range.start(), *range.end());
            let Some(value) = section.int_opt(name, if *zero { 0 } else { least }..=most) else { continue };
            let bound = match *name {
                "wall_seconds" => Some(("tool_seconds_max", self.device.tool_seconds_max)),
                "output_bytes" => Some(("output_bytes_max", self.device.output_bytes_max)),
                _ => None,
            };
            let found = || section.get(name).map(|node| read::found(node, section.problems())).unwrap_or_default();
            match bound {
                Some((key, max)) if value > max => {
                    let message = "is more than the device allows; it can only be lowered here, or raise that";
                    section.error(name, &format!("{} {message} (limits.{key} is {max})", found()));
                }
                _ if value < least && value != 0 => {
                    let expected = format!("0 for no limit, or a whole number from {least} to {most}");
                    section.error(name, &format!("expected {expected}, found {}", found()));
                }
                _ => out.push((*name, value)),
            }
        }
        out
    }

    /// Warns if tools reach the server's own interface, which can grant approvals, and nothing is asked of them there.
    fn own_door(&self, section: &Section<'_>, layer: &Layer) {
        let network = layer.network.as_ref().or(layer.preset.and_then(|preset| preset.network.as_ref()));
        let Some(listen) = network.and_then(|network| network::door(network, self.server)) else { return };
        let key = if layer.network.is_some() { "network" } else { "preset" };
        let remedy = "set server.api_token_file, or server.address to unix:duragent.sock";
        section.warn(
            key,
            &format!("tools reach the server at {listen} and could grant their own approvals, for it asks for no token; {remedy}"),
        );
    }
}

/// `network`: a word, or a list of places.
fn network(section: &Section<'_>) -> Option<Network> {
    const WORDS: [&str; 3] = ["none", "loopback", "all"];
    let node = section.get("network")?;
    match (&node.kind, read::text_of(node)) {
        (Kind::Broken, _) => None,
        (Kind::List(nodes), _) if nodes.is_empty() || nodes.len() > ITEMS_MAX => {
            let remedy = if nodes.is_empty() { "write network: none" } else { "write network: all" };
            section.error("network", &format!("expected 1 to {ITEMS_MAX} places, found {}; {remedy}", nodes.len()));
            None
        }
        (Kind::List(nodes), _) => {
            let mut hosts: Vec<Endpoint> = Vec::new();
            items(section, "network", nodes, "host:port", &mut |text, shown| {
                let endpoint = network::endpoint(text).map_err(|why| format!("{why}, found {shown}"))?;
                add(&mut hosts, &[endpoint]);
                Ok(None)
            });
            Some(Network::Hosts(hosts))
        }
        (_, Some("none")) => Some(Network::None),
        (_, Some("loopback")) => Some(Network::Loopback),
        (_, Some("all")) => Some(Network::All),
        (_, text) => {
            let hint = match text.and_then(|text| read::suggest(text, &mut WORDS.into_iter())) {
                Some(word) => format!(" (did you mean {word:?}?)"),
                None if text.is_some_and(|text| text.contains(':')) => " (put it into a list)".to_owned(),
                None => String::new(),
            };
            let found = read::found(node, section.problems());
            let message = format!("expected none, loopback, all or a list of host:port, found {found}{hint}");
            section.error("network", &message);
            None
        }
    }
}

/// Warns of what mode trust does not enforce.
fn unenforced(section: &Section<'_>, layer: &Layer) {
    let keys = ["preset", "read", "write", "network"].into_iter().filter(|key| section.get(key).is_some());
    let mut idle: Vec<String> = keys.map(str::to_owned).collect();
    // The runtime itself sees to these two.
    let limits = layer.limits.iter().filter(|(name, _)| !["wall_seconds", "output_bytes"].contains(name));
    idle.extend(limits.map(|(name, _)| format!("limits.{name}")));
    if !idle.is_empty() {
        let message = format!("{}: mode trust enforces none of {}; write mode: auto", section.path, idle.join(", "));
        section.problems().warn(section.id, message);
    }
}
