//! Shared by the unit tests of the tools: real files in a directory of their own, in trust mode or under a policy.

use super::{Context, Registry, builtin};
use duragent_core::event::ToolOutcome;
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Place, Policy, Sandbox, Trust, View};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A workspace that goes when it is dropped, and how tools run in it.
pub(super) struct Bench {
    root: PathBuf,
    sandbox: Trust,
    /// What the file tools are held to; `None`: trust mode.
    pub(super) policy: Option<Policy>,
    pub(super) cancel: Cancel,
    pub(super) call_id: String,
    pub(super) deadline: Duration,
    pub(super) output_bytes_max: usize,
    pub(super) artifact_bytes_max: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("duragent-tool-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(root.join("work")).unwrap();
        Self {
            root,
            // Files need no guard.
            sandbox: Trust::new(PathBuf::new()),
            policy: None,
            cancel: Cancel::new(),
            call_id: "call_1".into(),
            deadline: Duration::from_secs(60),
            output_bytes_max: 16 * 1024,
            artifact_bytes_max: 1024 * 1024,
        }
    }

    /// A path in the working directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join("work").join(name)
    }

    pub(super) fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// Makes a file, and the directories above it.
    pub(super) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), contents).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Names in a directory, sorted.
    pub(super) fn names(&self, directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) fn with<T>(&self, use_context: impl FnOnce(&Context<'_>) -> T) -> T {
        let (workdir, artifacts) = (self.root.join("work"), self.artifacts());
        let place = Place { workdir: &workdir, artifacts: &artifacts };
        let view = self.policy.as_ref().map_or_else(|| self.sandbox.view(place), |policy| View::new(policy, place));
        use_context(&Context {
            sandbox: &self.sandbox,
            view: &view,
            artifacts: &artifacts,
            call_id: &self.call_id,
            session: "s1",
            deadline: self.deadline,
            output_bytes_max: self.output_bytes_max,
            artifact_bytes_max: self.artifact_bytes_max,
            cancel: &self.cancel,
        })
    }

    /// Runs a built-in tool.
    pub(super) fn run(&self, name: &str, arguments: &str) -> ToolOutcome {
        let registry = Registry::new(&builtin::NAMES.map(String::from), &[]).unwrap();
        self.with(|context| registry.get(name).unwrap().run(arguments, context))
    }

    /// Runs a built-in tool and asserts what the model reads.
    pub(super) fn check(&self, name: &str, arguments: &str, expected: &str) {
        assert_eq!(self.run(name, arguments).result, expected, "{name} {arguments}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
