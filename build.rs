//! What makes the release binary smaller: arguments for the linker, where they are known to work, for which there is no
//! stable option that a profile could set (docs/adr/0002); the description of the API and the device profiles, packed.

use std::path::Path;
use std::process::Command;

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    // What `duragent upgrade` takes the binary of out of a release.
    println!("cargo::rustc-env=DURAGENT_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    // Not for debug builds, whose tests unwind.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        leave_out_unwind_tables();
        if has_packed_relocations() {
            argument("-Wl,-z,pack-relative-relocs");
        }
        if links_with_lld() {
            // Functions only: the addresses of data stay distinct without one more argument.
            argument("-Wl,--icf=all");
        }
    }
    pack(read("docs/openapi.yaml")?, "openapi.packed")?;
    pack(profiles()?, "profiles.packed")
}

/// `# NAME`, a line feed and what is in its file but comments, for every profile in the order of their names.
fn profiles() -> Result<Vec<u8>, String> {
    const FOLDER: &str = "profiles";
    println!("cargo::rerun-if-changed={FOLDER}");
    let entries = std::fs::read_dir(FOLDER).map_err(|error| format!("cannot read {FOLDER}: {error}"))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let (name, path) = (path.file_stem().unwrap_or_default(), path.to_string_lossy());
        out.extend(format!("# {}\n", name.to_string_lossy()).into_bytes());
        // Nothing but numbers, so a # is never in a text.
        for line in String::from_utf8_lossy(&read(&path)?).lines() {
            let line = line.split('#').next().unwrap_or_default().trim_end();
            out.extend(if line.is_empty() { String::new() } else { format!("{line}\n") }.into_bytes());
        }
    }
    Ok(out)
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    println!("cargo::rerun-if-changed={path}");
    std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Packs a text by pairs: the commonest pair of bytes becomes one byte that the text does not have, and again, as long as
/// there are such bytes. A third of the size, for a few lines in src/core/src/packed.rs, which say the format.
fn pack(mut text: Vec<u8>, name: &str) -> Result<(), String> {
    let free: Vec<u8> = (0..=u8::MAX).filter(|byte| !text.contains(byte)).collect();
    let mut pairs = Vec::new();
    for code in free {
        let mut counts = vec![0_u32; 1 << 16];
        text.windows(2).for_each(|pair| counts[usize::from(pair[0]) << 8 | usize::from(pair[1])] += 1);
        let commonest = (0..=u16::MAX).max_by_key(|pair| counts[usize::from(*pair)]).unwrap_or_default();
        // Each costs three bytes in the list of pairs.
        if counts[usize::from(commonest)] < 4 {
            break;
        }
        let pair = commonest.to_be_bytes();
        let (mut rest, mut packed) = (text.as_slice(), Vec::new());
        while let Some((first, after)) = rest.split_first() {
            let found = rest.starts_with(&pair);
            packed.push(if found { code } else { *first });
            rest = if found { &rest[2..] } else { after };
        }
        text = packed;
        pairs.extend([code, pair[0], pair[1]]);
    }
    // Fits one byte: some byte is always in the text.
    let count = u8::try_from(pairs.len() / 3).map_err(|_| format!("{name}: nothing to pack"))?;
    let out = Path::new(&std::env::var_os("OUT_DIR").unwrap_or_default()).join(name);
    std::fs::write(&out, [vec![count], pairs, text].concat())
        .map_err(|error| format!("cannot write {}: {error}", out.display()))
}

/// It aborts on panic, so nothing ever reads them, and they are an eighth of it.
fn leave_out_unwind_tables() {
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    let script = Path::new(&out).join("no-unwind-tables.ld");
    let tables = "*(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) \
                  *(.ARM.exidx .ARM.exidx.*) *(.ARM.extab .ARM.extab.*)";
    let text = format!("SECTIONS {{ /DISCARD/ : {{ {tables} }} }} INSERT AFTER .rodata;\n");
    match std::fs::write(&script, text) {
        Ok(()) => argument(&format!("-Wl,-T,{}", script.display())),
        Err(error) => {
            println!("cargo::warning=the binary keeps its unwind tables: cannot write {}: {error}", script.display());
        }
    }
}

/// The loader has to know them (DT_RELR), which glibc does from 2.36 on: asked of the system that builds, which is the one
/// whose glibc the binary wants anyway. An older linker ignores the argument.
fn has_packed_relocations() -> bool {
    if !is("CARGO_CFG_TARGET_ENV", "gnu") || std::env::var_os("HOST") != std::env::var_os("TARGET") {
        return false;
    }
    let Ok(output) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("glibc 2.").and_then(|minor| minor.split('.').next()?.parse::<u32>().ok());
    version.is_some_and(|minor| minor >= 36)
}

/// Where it is the default of stable Rust, and nobody chose another.
fn links_with_lld() -> bool {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    is("TARGET", "x86_64-unknown-linux-gnu")
        && std::env::var_os("RUSTC_LINKER").is_none()
        && !["linker", "fuse-ld", "link-self-contained"].iter().any(|word| flags.contains(word))
}

fn is(name: &str, value: &str) -> bool {
    std::env::var(name).is_ok_and(|v| v == value)
}

fn argument(text: &str) {
    println!("cargo::rustc-link-arg-bin=duragent={text}");
}
