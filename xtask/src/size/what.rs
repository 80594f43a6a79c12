//! `cargo xtask size --what [TARGET]`: where the bytes are, by crate and by symbol, as cargo-bloat shows them.
//!
//! From the symbol table of the same build that is measured, not stripped. What has no symbol (text, padding, relocations) is
//! the rest. Fat LTO puts much of a generic function into whoever calls it.

use crate::budget::grouped;
use crate::cross::build::{self, Order};
use crate::cross::targets::Target;
use crate::repo::{self, Repo};
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of each of the two lists.
const LINES: usize = 30;

/// Builds for `target`, or for this machine, and shows what is heavy.
///
/// # Errors
/// If it does not build, or there is no such target.
pub fn show(repo: &Repo, target: Option<&str>) -> Result<()> {
    let folder = repo.target_dir()?.join("what");
    let (binary, nm) = match target {
        None => (built_here(repo, &folder)?, "nm".to_owned()),
        Some(name) => {
            let target = Target::find(name).ok_or_else(|| Failure::Usage(format!("size: unknown target {name:?}")))?;
            let order = Order { target_dir: folder, strip: false, ..Order::usual(repo)? };
            (build::build(repo, target, &order)?, target.tool("nm"))
        }
    };
    let table = repo::capture(Command::new(nm).args(["--print-size", "--size-sort", "--demangle"]).arg(&binary))?;
    print!("{}", summary(&table));
    Ok(())
}

fn built_here(repo: &Repo, folder: &Path) -> Result<PathBuf> {
    let mut command = repo.cargo(["build", "--release", "--bin", "duragent", "--target-dir"]);
    repo::run(command.arg(folder).env("CARGO_PROFILE_RELEASE_STRIP", "false"))?;
    Ok(folder.join("release/duragent"))
}

/// The table of nm as two lists: crates, and the largest symbols.
fn summary(table: &str) -> String {
    let mut crates = BTreeMap::<&str, u64>::new();
    let mut symbols = Vec::new();
    for line in table.lines() {
        let mut words = line.splitn(4, ' ');
        let (_, size, kind, name) = (words.next(), words.next(), words.next(), words.next());
        let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
        // What is zero at the start takes no bytes of the file.
        let (Some(size), Some(name), false) = (size, name, matches!(kind, Some("b" | "B"))) else { continue };
        *crates.entry(crate_of(name)).or_default() += size;
        symbols.push((size, name));
    }
    let mut crates: Vec<_> = crates.into_iter().map(|(name, size)| (size, name)).collect();
    let total: u64 = crates.iter().map(|(size, _)| size).sum();
    let mut out = format!("{:>12} bytes have a name\n", grouped(total));
    for list in [&mut crates, &mut symbols] {
        list.sort_by(|a, b| b.cmp(a));
        out.push('\n');
        for (size, name) in list.iter().take(LINES) {
            out.push_str(&format!("{:>12} {}\n", grouped(*size), name.chars().take(100).collect::<String>()));
        }
    }
    out
}

/// The crate of a symbol: the first path in it, whatever stands around it. C has no paths.
fn crate_of(name: &str) -> &str {
    if name.starts_with("ring_core_") {
        return "ring (C and assembly)";
    }
    let Some((before, _)) = name.split_once("::") else { return "C and assembly" };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    before.rfind(|c| !word(c)).map_or(before, |at| &before[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_summed_by_crate() {
        for (name, expected) in [
            ("duragent::cli::run", "duragent"),
            ("<ring::ec::Seed as core::fmt::Debug>::fmt", "ring"),
            ("<&mut dyn serde_yaml::de::X>::f", "serde_yaml"),
            ("core::ptr::drop_in_place<duragent::X>", "core"),
            ("ring_core_0_17_14__aes_nohw_encrypt", "ring (C and assembly)"),
            ("memcpy", "C and assembly"),
        ] {
            assert_eq!(crate_of(name), expected, "{name}");
        }
        let table =
            "00000010 00000020 T a::f\n00000030 00000010 r a::T\n00000040 00010000 b a::B\n00000050 00000008 t g\n\n";
        assert_eq!(
            summary(table),
            "          56 bytes have a name\n\n          48 a\n           8 C and assembly\n\n          32 a::f\n          16 a::T\n           8 g\n"
        );
    }
}
