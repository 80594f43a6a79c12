//! What no sandbox gives away: the workspace, secrets, and whatever else configures the runtime.

use super::paths::canonical;
use crate::config::env::{self, Env};
use crate::config::providers::masked_url;
use crate::config::read;
use crate::config::types::{Listen, Provider, Server, from_base};
use crate::config::yaml::{Kind, Node};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Variables that hold a key by custom, whether a provider uses them or not.
const KEY_VARIABLES: [&str; 3] = ["OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"];

/// Values in `duragent.yaml` that are secrets; `*` stands for every key.
const SECRETS: [&[&str]; 3] =
    [&["server", "api_token"], &["server", "admin_token"], &["providers", "*", "headers", "*"]];

/// Values that may carry a password.
const URLS: [&[&str]; 3] = [&["providers", "*", "base_url"], &["proxy"], &["providers", "*", "proxy"]];

/// Files that hold a secret.
const SECRET_FILES: [&[&str]; 3] =
    [&["server", "api_token_file"], &["server", "admin_token_file"], &["providers", "*", "api_key_file"]];

/// What may be a link to a place outside the workspace, and is part of it all the same.
const LINKS: [&str; 4] = ["duragent.yaml", "policy.yaml", "agents", "sessions"];

/// What is neither read nor changed, and what is not changed, whatever a layer says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Protected {
    /// The workspace, without symbolic links.
    pub workspace: PathBuf,
    /// Secrets, the server's socket, and parts of the workspace that are elsewhere.
    pub hidden: Vec<PathBuf>,
    /// This program, and recordings, prices and a profile outside the workspace.
    pub read_only: Vec<PathBuf>,
    /// Names of variables that hold secrets.
    pub variables: Vec<String>,
}

impl Protected {
    /// For the workspace `dir`, whose `duragent.yaml` is `root` with its variables expanded, and which `files` configure too.
    #[must_use]
    pub fn new(
        dir: &Path,
        root: &Node,
        mut variables: Vec<String>,
        mut files: Vec<PathBuf>,
        server: &Server,
        providers: &BTreeMap<String, Provider>,
    ) -> Self {
        let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let workspace = canonical(dir);
        let mut hidden = Vec::new();
        for path in SECRET_FILES {
            values(root, path, &mut |node| hidden.extend(read::text_of(node).map(|file| from_base(dir, file))));
        }
        values(root, &["providers", "*", "api_key_env"], &mut |node| {
            variables.extend(read::text_of(node).map(str::to_owned));
        });
        variables.extend(KEY_VARIABLES.map(str::to_owned));
        if let Listen::Unix(socket) = &server.listen {
            hidden.push(socket.clone());
        }
        let mut hidden: Vec<PathBuf> = hidden.iter().map(|path| canonical(path)).collect();
        hidden.extend(links(&workspace));
        files.extend(providers.values().filter_map(|provider| provider.file.clone()));
        values(root, &["prices_file"], &mut |node| files.extend(read::text_of(node).map(|file| from_base(dir, file))));
        let read_only = files.into_iter().chain(std::env::current_exe()).map(|path| canonical(&path));
        let outside = |path: &PathBuf| !path.starts_with(&workspace);
        let read_only = read_only.filter(outside).collect();
        Self { hidden, read_only, workspace, variables }
    }

    /// Whether the variable `name` holds a secret, by its name or by its value.
    #[must_use]
    pub fn is_secret(&self, name: &str, env: Env<'_>, server: &Server, providers: &BTreeMap<String, Provider>) -> bool {
        let keys = providers.values().filter_map(|provider| provider.api_key.as_ref());
        let mut secrets = keys.chain(&server.api_token).chain(&server.admin_token);
        self.variables.iter().any(|known| known == name)
            || env(name).is_some_and(|value| secrets.any(|secret| secret.expose() == value.trim()))
    }

    /// Whether `path` is no part of the workspace.
    #[must_use]
    pub fn is_outside(&self, path: &Path) -> bool {
        !path.starts_with(&self.workspace)
    }
}

/// Where links in the workspace lead that are part of the configuration. A link to what holds the workspace is passed over:
/// hiding that would hide everything.
fn links(workspace: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = LINKS.iter().map(|name| workspace.join(name)).collect();
    let agents = workspace.join("agents");
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for agent in list(&agents) {
        found.extend(list(&agent));
        found.push(agent);
    }
    let targets = found.into_iter().filter(|path| path.is_symlink()).map(|path| canonical(&path));
    targets.filter(|target| !target.starts_with(workspace) && !workspace.starts_with(target)).collect()
}

/// The files that hold a secret, as `duragent.yaml` of the workspace `dir` names them, without links.
///
/// # Errors
/// Why it cannot be read.
pub fn secret_files(dir: &Path, env: Env<'_>) -> Result<Vec<PathBuf>, String> {
    const NAME: &str = "duragent.yaml";
    let (mut root, document) = read::document(&dir.join(NAME), NAME).map_err(|problem| problem.to_string())?;
    read::expand(&mut root, env, &read::Problems::new(NAME, &document));
    let mut found = Vec::new();
    for path in SECRET_FILES {
        values(&root, path, &mut |node| {
            found.extend(read::text_of(node).map(|file| canonical(&from_base(dir, file))));
        });
    }
    Ok(found)
}

/// Names of the variables that go into secrets of `duragent.yaml`, before they are expanded.
#[must_use]
pub fn secret_variables(root: &Node, env: Env<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut take = |text: &str| found.extend(env::names(text).into_iter().map(str::to_owned));
    for path in SECRETS {
        values(root, path, &mut |node| read::text_of(node).into_iter().for_each(&mut take));
    }
    for path in URLS {
        values(root, path, &mut |node| {
            let expanded = |text: &str| env::expand(text, env).ok().flatten();
            let carries = |text: &&str| expanded(text).is_some_and(|url| masked_url(&url) != url);
            read::text_of(node).filter(carries).into_iter().for_each(&mut take);
        });
    }
    found
}

/// Calls `found` with every value at a path of keys.
fn values<'n>(node: &'n Node, path: &[&str], found: &mut dyn FnMut(&'n Node)) {
    let Some((key, rest)) = path.split_first() else { return found(node) };
    if let Kind::Map(entries) = &node.kind {
        for entry in entries.iter().filter(|entry| *key == "*" || entry.key == *key) {
            values(&entry.value, rest, found);
        }
    }
}
