//! A workspace in a folder with a few things beside it, for what is said about sandboxes.

use super::super::Workspace;
use super::super::check::{Report, check};
use super::super::sandbox::SandboxSpec;
use super::*;
use duragent_platform::sandbox::policy::{Endpoint, Network};

/// The first lines of an agent, up to the keys of `spec`.
pub const AGENT: &str =
    "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n  model: {provider: ollama, name: m}\n";

/// A folder with a workspace in it, and in the folder `data/`, `out/` and `file`; its home is elsewhere.
pub struct House {
    pub folder: Folder,
    pub root: PathBuf,
    /// What `HOME` says.
    pub home: PathBuf,
}

impl House {
    pub fn new() -> Self {
        let folder = Folder::with(&[("file", b"x"), ("data/x", b"x"), ("out/x", b"x")]);
        let root = fs::canonicalize(&folder.0).expect("the folder");
        Self { folder, home: root.join("home"), root }
    }

    pub fn env(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => self.home.to_str().map(str::to_owned),
            "OTHER_KEY" => Some("sk-secret".to_owned()),
            "SECRET_PLACE" => Some("hidden-host".to_owned()),
            "DATA" => Some("data".to_owned()),
            "URL" => Some("https://user:sk@host/v1".to_owned()),
            "PLAIN_URL" => Some("https://host/v1".to_owned()),
            _ => super::env(name),
        }
    }

    /// `duragent.yaml`, and the agent `a` with these lines of `spec`.
    pub fn write(&self, config: &str, agent: &str) {
        self.folder.write(".duragent/duragent.yaml", config.as_bytes());
        self.folder.write(".duragent/agents/a/agent.yaml", format!("{AGENT}{agent}").as_bytes());
    }

    pub fn report(&self) -> Report {
        check(&self.root.join(".duragent"), &|name| self.env(name), &TOOLS)
    }

    pub fn workspace(&self) -> Workspace {
        Workspace::load(&self.root.join(".duragent"), &|name| self.env(name), &TOOLS).expect("a workspace")
    }

    /// What is said about it, without the verdict; the folder is `DIR`.
    pub fn said(&self) -> Vec<String> {
        let mut lines = self.report().lines;
        lines.pop();
        let root = self.root.display().to_string();
        lines.iter().map(|line| line.replace(&root, "DIR")).collect()
    }

    /// What holds for the agent.
    pub fn spec(&self, config: &str, agent: &str) -> SandboxSpec {
        self.write(config, agent);
        assert_eq!(self.said(), [""; 0], "{config}{agent}");
        let workspace = self.workspace();
        workspace.agents.get("a").and_then(|a| a.as_ref().ok()).expect("a usable agent").sandbox.clone()
    }

    pub fn real(&self, names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| self.root.join(name)).collect()
    }
}

/// Requires exactly these lines about each `sandbox` of a workspace, without the file and its key: `{at} {message}`.
pub fn workspace_table(house: &House, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        house.write(&format!("sandbox: {{mode: auto, {text}}}\n"), "");
        let said = house.said();
        let said: Vec<&str> = said.iter().map(|line| line.strip_prefix("duragent.yaml:1:").unwrap_or(line)).collect();
        assert_eq!(said, *expected, "{text}");
    }
}

/// A list of places.
pub fn hosts(list: &[(&str, u16)]) -> Network {
    Network::Hosts(list.iter().map(|(host, port)| Endpoint { host: (*host).to_owned(), port: *port }).collect())
}
