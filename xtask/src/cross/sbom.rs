//! What a binary is made of, as a list that programs read: CycloneDX 1.5 in JSON (ECMA-424), beside the binary.
//!
//! The crates that are linked into it, with versions, licenses and sums as in Cargo.lock, the standard library, and the C
//! library of a static binary. The same commit makes the same bytes: nothing of the day or the machine is in it.
//!
//! Absent: what only builds (macros, build scripts), and the crates within the standard library, which come with its version.

use super::targets::{Libc, Target};
use super::{apt, build};
use crate::crash::json::{self, Json};
use crate::portable::Library;
use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the names of these files end in.
pub const SUFFIX: &str = ".cdx.json";

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Component {
    name: String,
    version: String,
    /// An SPDX expression.
    license: String,
    /// Package URL, which is also its name within the list.
    purl: String,
    sha256: Option<String>,
    wants: Vec<String>,
}

/// Writes the list of `binary` beside it.
///
/// # Errors
/// If cargo cannot say what it is made of, or a crate is without a license.
pub fn write(repo: &Repo, library: Library, target: &Target, no_tls: bool, binary: &Path) -> Result<PathBuf> {
    let sum = repo::capture(Command::new("sha256sum").arg(binary))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let components = components(repo, library, target, no_tls)?;
    let text = document(&build::name(target, no_tls), sum, &components);
    let path = PathBuf::from([&binary.to_string_lossy(), SUFFIX].concat());
    std::fs::write(&path, text).map_err(|e| at(&path, &e))?;
    Ok(path)
}

/// All that is linked, the binary itself first.
fn components(repo: &Repo, library: Library, target: &Target, no_tls: bool) -> Result<Vec<Component>> {
    let mut command = library.cargo(repo, &["metadata", "--locked", "--format-version", "1"])?;
    command.args(["--filter-platform", target.name]);
    if no_tls {
        command.args(["--no-default-features", "--features", "signatures"]);
    }
    let text = repo::capture(&mut command)?;
    let graph = json::parse(&text).map_err(|(byte, what)| {
        Failure::new(format!("cargo metadata: expected {what} at byte {byte} of {}", text.len()))
    })?;
    let mut found = linked(&graph, &sums(&repo.read_text("Cargo.lock")?))?;
    let version = repo::capture(&mut library.rustc(&["--version"]))?;
    let version = version.split(' ').nth(1).unwrap_or_default().trim_end();
    found.push(Component {
        name: "std".into(),
        version: version.into(),
        license: "MIT OR Apache-2.0".into(),
        purl: format!("pkg:github/rust-lang/rust@{version}#library/std"),
        ..Component::default()
    });
    if let Libc::Musl(_) = target.libc {
        let version = apt::version(repo, target.debian, "musl-dev")?;
        found.push(Component {
            name: "musl".into(),
            license: "MIT".into(),
            purl: format!("pkg:deb/debian/musl-dev@{version}?arch={}", target.debian),
            version,
            ..Component::default()
        });
    }
    let ours: Vec<_> = found.iter().skip(1).filter(|c| !c.purl.starts_with("pkg:cargo")).cloned().collect();
    if let Some(binary) = found.first_mut() {
        binary.wants.extend(ours.into_iter().map(|component| component.purl));
    }
    Ok(found)
}

/// The crates that `duragent` is linked from, itself first, the others sorted.
fn linked(graph: &Json, sums: &BTreeMap<(String, String), String>) -> Result<Vec<Component>> {
    let packages = graph.list("packages");
    let package = |id: &str| packages.iter().find(|package| package.text("id") == id);
    let is_macro = |id: &str| {
        let targets = package(id).map(|package| package.list("targets")).unwrap_or_default();
        targets.iter().any(|target| target.list("kind").contains(&Json::Text("proc-macro".into())))
    };
    let nodes = graph.get("resolve").map(|resolve| resolve.list("nodes")).unwrap_or_default();
    let root = packages.iter().find(|package| package.text("name") == "duragent");
    let root = root.ok_or_else(|| Failure::new("cargo metadata: expected the package duragent, found none"))?;
    let (mut found, mut open) = (BTreeMap::new(), vec![root.text("id").to_owned()]);
    while let Some(id) = open.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let node = nodes.iter().find(|node| node.text("id") == id);
        let edges = node.map(|node| node.list("deps")).unwrap_or_default();
        let is_linked = |edge: &&Json| {
            edge.list("dep_kinds").iter().any(|kind| kind.get("kind") == Some(&Json::Plain("null".into())))
        };
        let wants = edges.iter().filter(is_linked).map(|edge| edge.text("pkg").to_owned());
        let wants: Vec<_> = wants.filter(|id| !is_macro(id)).collect();
        open.extend(wants.iter().cloned());
        found.insert(id, wants);
    }
    let purl = |id: &str| {
        let package = package(id).map(|package| (package.text("name"), package.text("version"))).unwrap_or_default();
        format!("pkg:cargo/{}@{}", package.0, package.1)
    };
    let mut components = Vec::new();
    for (id, wants) in &found {
        let known = package(id).ok_or_else(|| Failure::new(format!("cargo metadata: no package {id}")))?;
        let (name, version) = (known.text("name").to_owned(), known.text("version").to_owned());
        let mut wants: Vec<_> = wants.iter().map(|id| purl(id)).collect();
        wants.sort();
        let license = known.text("license").replace('/', " OR ");
        if license.is_empty() {
            return Err(Failure::new(format!("{name} {version}: expected a license in its Cargo.toml, found none")));
        }
        let sha256 = sums.get(&(name.clone(), version.clone())).cloned();
        components.push(Component { purl: purl(id), name, version, license, sha256, wants });
    }
    components.sort_by(|a, b| (a.name != "duragent", &a.purl).cmp(&(b.name != "duragent", &b.purl)));
    Ok(components)
}

/// The sums of the crates in Cargo.lock, by name and version.
fn sums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned))
    };
    let blocks = lock.split("[[package]]");
    blocks.filter_map(|b| Some(((value(b, "name")?, value(b, "version")?), value(b, "checksum")?))).collect()
}

fn document(name: &str, sum: &str, components: &[Component]) -> String {
    let (binary, others) = components.split_first().map(|(first, rest)| (first.clone(), rest)).unwrap_or_default();
    let binary = Component { name: name.to_owned(), sha256: Some(sum.to_owned()), ..binary };
    let all = |write: &dyn Fn(&Component) -> String| components.iter().map(write).collect::<Vec<_>>().join(",\n    ");
    let listed = others.iter().map(|c| component(c, "library")).collect::<Vec<_>>().join(",\n    ");
    let wanted = all(&|c| {
        let wants = c.wants.iter().map(|purl| quoted(purl)).collect::<Vec<_>>().join(", ");
        format!("{{\"ref\": {}, \"dependsOn\": [{wants}]}}", quoted(&c.purl))
    });
    format!(
        "{{\n  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"serialNumber\": \"urn:uuid:{}\",\n  \
         \"version\": 1,\n  \"metadata\": {{\"component\": {}}},\n  \"components\": [\n    {listed}\n  ],\n  \
         \"dependencies\": [\n    {wanted}\n  ]\n}}\n",
        uuid(sum),
        component(&binary, "application"),
    )
}

fn component(component: &Component, kind: &str) -> String {
    let Component { name, version, license, purl, sha256, .. } = component;
    let hashes = sha256.iter().map(|sum| format!("{{\"alg\": \"SHA-256\", \"content\": {}}}", quoted(sum)));
    format!(
        "{{\"type\": \"{kind}\", \"bom-ref\": {reference}, \"name\": {}, \"version\": {}, \"hashes\": [{}], \
         \"licenses\": [{{\"expression\": {}}}], \"purl\": {reference}}}",
        quoted(name),
        quoted(version),
        hashes.collect::<String>(),
        quoted(license),
        reference = quoted(purl),
    )
}

/// A number for this list that depends on the binary alone: RFC 9562, version 8, whose bits are anybody's.
fn uuid(sum: &str) -> String {
    let at = |range: std::ops::Range<usize>| sum.get(range).unwrap_or_default();
    format!("{}-{}-8{}-8{}-{}", at(0..8), at(8..12), at(12..15), at(15..18), at(18..30))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it is pinned. What it takes is what others can read.
    const VALIDATOR: &str = include_str!("../../../cross/sbom-requirements.txt");

    const VALIDATE: &str = "import sys\nfrom cyclonedx.schema import SchemaVersion\nfrom cyclonedx.validation.json import JsonStrictValidator\n\
        error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())\nsys.exit(error and str(error))\n";

    fn of_target(name: &str, no_tls: bool) -> (String, Vec<Component>) {
        let (repo, target) = (Repo::find().expect("this is the repository"), Target::find(name).expect("known"));
        let components = components(&repo, Library::Installed, target, no_tls).expect("a list");
        (document(&build::name(target, no_tls), &"5a".repeat(32), &components), components)
    }

    /// The interpreter of an environment with the validator, made once. A package index has to be in reach.
    fn validator(venv: &Path) -> PathBuf {
        let (python, stamp) = (venv.join("bin/python"), venv.join("requirements.txt"));
        if std::fs::read_to_string(&stamp).is_ok_and(|found| found == VALIDATOR) {
            return python;
        }
        let made = repo::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv));
        made.expect("the Debian packages python3 and python3-venv");
        let wanted = venv.join("wanted.txt");
        std::fs::write(&wanted, VALIDATOR).expect("written");
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", "300"]);
        repo::capture(pip.arg("--requirement").arg(&wanted)).expect("a package index in reach");
        std::fs::rename(&wanted, &stamp).expect("marked as whole");
        python
    }

    #[test]
    fn a_validator_takes_the_list_and_refuses_a_wrong_one() {
        let folder = std::env::temp_dir().join(format!("duragent-sbom-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let repo = Repo::find().expect("this is the repository");
        let venv = repo.target_dir().expect("a folder").join("tools/cyclonedx");
        let python = validator(&venv);
        let judged = |text: &str| {
            let path = folder.join("list.json");
            std::fs::write(&path, text).expect("written");
            repo::capture(Command::new(&python).args(["-c", VALIDATE]).arg(&path))
        };
        let (good, _) = of_target("armv7-unknown-linux-gnueabihf", false);
        assert_eq!(judged(&good), Ok(String::new()));
        for (part, wrong) in [("\"library\"", "\"book\""), ("SHA-256", "SHA-0"), ("\"bom-ref\"", "\"bomRef\"")] {
            assert!(judged(&good.replace(part, wrong)).is_err(), "{wrong}");
        }
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn the_list_has_what_is_linked_and_is_the_same_twice() {
        let (text, components) = of_target("aarch64-unknown-linux-gnu", false);
        assert_eq!(of_target("aarch64-unknown-linux-gnu", false).0, text);
        assert!(json::parse(&text).is_ok());
        let has = |components: &[Component], name: &str| components.iter().any(|c| c.name == name);
        assert_eq!(components.first().map(|c| c.name.as_str()), Some("duragent"));
        for name in ["duragent-core", "duragent-platform", "smol", "rustls", "ring", "libc", "std"] {
            assert!(has(&components, name), "{name}");
        }
        for name in ["duragent-testkit", "xtask", "serde_derive", "syn", "cc"] {
            assert!(!has(&components, name), "{name} is not linked");
        }
        let foreign = components.iter().filter(|c| c.purl.starts_with("pkg:cargo") && !c.name.starts_with("duragent"));
        assert!(foreign.clone().count() > 40);
        assert!(foreign.clone().all(|c| c.sha256.as_ref().is_some_and(|sum| sum.len() == 64)));
        let refs: Vec<_> = components.iter().map(|c| &c.purl).collect();
        assert!(components.iter().flat_map(|c| &c.wants).all(|purl| refs.contains(&purl)));
        let (_, without) = of_target("aarch64-unknown-linux-gnu", true);
        for name in ["rustls", "rustls-webpki", "webpki-roots"] {
            assert!(has(&components, name) && !has(&without, name), "{name}");
        }
    }

    #[test]
    fn numbers_of_lists_are_uuids_and_odd_text_is_escaped() {
        assert_eq!(uuid(&"0123456789abcdef".repeat(4)), "01234567-89ab-8cde-8f01-23456789abcd");
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
