//! Tables of files and what is said about them, word for word.

mod agent;
mod agents_md;
mod budgets;
mod config;
mod house;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod policy;
mod profile;
mod providers;
mod reach;
mod sandbox;
mod server;
mod skills;
mod workspace;
mod yaml;

use super::check::{Report, check};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names of the tools there are, in these tests.
pub const TOOLS: [&str; 6] = ["bash", "read_file", "write_file", "edit_file", "list_dir", "search_files"];

/// What every workspace has to say.
pub const TRUST: &str = "sandbox: {mode: trust}\n";

/// What a configuration without a sandbox is told.
pub const WRITE_A_MODE: &str = "write `sandbox: {mode: auto}` to run tools behind a wall, or `sandbox: {mode: trust}` to run them as the \
                                user that runs duragent, with no wall around them";

/// Lines about `duragent.yaml` made of this text and a sandbox.
pub fn after_trust(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        let text = format!("{TRUST}{text}");
        assert_eq!(lines(&[("duragent.yaml", text.as_bytes())]), *expected, "{text}");
    }
}

/// A folder that goes away with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("duragent-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// One with these files.
    pub fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = Self::new();
        for (name, bytes) in files {
            folder.write(name, bytes);
        }
        folder
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders of the test");
        fs::write(path, bytes).expect("a file of the test");
    }

    /// A file's text.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The environment of these tests.
pub fn env(name: &str) -> Option<String> {
    match name {
        "SET" => Some("value".to_owned()),
        "EMPTY" => Some(String::new()),
        "NUMBER" => Some("7".to_owned()),
        "KEY" => Some("sk-secret".to_owned()),
        _ => None,
    }
}

/// Checks a folder.
pub fn report(dir: &Path) -> Report {
    check(dir, &env, &TOOLS)
}

/// Lines about these files, without the verdict; paths of the folder are shown as `DIR`.
pub fn lines(files: &[(&str, &[u8])]) -> Vec<String> {
    let folder = Folder::with(files);
    let mut report = report(&folder.0);
    report.lines.pop();
    let dir = folder.0.display().to_string();
    report.lines.iter().map(|line| line.replace(&dir, "DIR")).collect()
}

/// Requires exactly these lines about each of the texts, taken as `file` beside `others`.
pub fn table(file: &str, others: &[(&str, &[u8])], cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        let mut files = others.to_vec();
        files.push((file, text.as_bytes()));
        assert_eq!(lines(&files), *expected, "{text}");
    }
}
