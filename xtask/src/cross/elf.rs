//! What a binary demands of the machine that runs it, by its ELF header: libraries, and the generation of the processor.

use super::targets::{Libc, Target};
use crate::repo;
use crate::{Failure, Result};
use std::path::Path;
use std::process::Command;

/// Looks whether `binary` runs on every machine of `target`.
///
/// # Errors
/// If it does not, with what it demands, or it cannot be read.
pub fn check(target: &Target, binary: &Path) -> Result<()> {
    let ask = |what: &str| repo::capture(Command::new(target.tool("readelf")).args(["--wide", what]).arg(binary));
    let mut wrong = Vec::new();
    if target.libc != Libc::Glibc && is_dynamic(&ask("--program-headers")?, &ask("--dynamic")?) {
        wrong.push("expected a static binary, found one that wants libraries".to_owned());
    }
    if let Some(max) = target.arm_max {
        wrong.extend(beyond(&ask("--arch-specific")?, max));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{}: {}", binary.display(), wrong.join("; "))))
}

/// True if a loader or a library has to be there: `headers` and `dynamic` are what readelf says of them.
fn is_dynamic(headers: &str, dynamic: &str) -> bool {
    headers.contains("INTERP") || dynamic.contains("(NEEDED)")
}

/// What the attributes of an ARM binary (ARM IHI 0045) say that machines up to architecture `max` do not have.
fn beyond(attributes: &str, max: u32) -> Vec<String> {
    let value =
        |tag: &str| attributes.lines().find_map(|line| line.trim().strip_prefix(tag)?.strip_prefix(':')).map(str::trim);
    let mut wrong = Vec::new();
    match value("Tag_CPU_arch") {
        Some(found) if generation(found).is_some_and(|found| found <= max) => {}
        found => wrong.push(format!("expected code for ARMv{max} or less, found {}", found.unwrap_or("no mark"))),
    }
    if max >= 7 {
        return wrong;
    }
    // The instructions that came with ARMv7 or are not in every ARMv6.
    for (tag, allowed) in
        [("Tag_THUMB_ISA_use", &["Thumb-1"][..]), ("Tag_FP_arch", &["VFPv1", "VFPv2"]), ("Tag_Advanced_SIMD_arch", &[])]
    {
        if let Some(found) = value(tag)
            && !allowed.contains(&found)
            && found != "No"
        {
            wrong.push(format!("expected nothing beyond ARMv{max}, found {tag}: {found}"));
        }
    }
    wrong
}

/// The number in `v6KZ`, `v7`, `v5TE`, `v8-A`.
fn generation(found: &str) -> Option<u32> {
    let digits = found.strip_prefix('v')?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_armv6_get_nothing_that_came_later() {
        const MARK: &str = "Attribute Section: aeabi\nFile Attributes\n  Tag_CPU_name: \"6\"\n  Tag_CPU_arch: ";
        for (said, max, expected) in [
            ("v6\n  Tag_ARM_ISA_use: Yes\n  Tag_THUMB_ISA_use: Thumb-1\n", 6, ""),
            ("v6KZ\n  Tag_FP_arch: VFPv2\n", 6, ""),
            ("v5TE\n", 6, ""),
            ("v7\n  Tag_THUMB_ISA_use: Thumb-2\n", 7, ""),
            ("v7\n", 6, "expected code for ARMv6 or less, found v7"),
            ("v8\n", 7, "expected code for ARMv7 or less, found v8"),
            ("v10\n", 7, "expected code for ARMv7 or less, found v10"),
            (
                "v6\n  Tag_THUMB_ISA_use: Thumb-2\n",
                6,
                "expected nothing beyond ARMv6, found Tag_THUMB_ISA_use: Thumb-2",
            ),
            ("v6\n  Tag_FP_arch: VFPv3-D16\n", 6, "expected nothing beyond ARMv6, found Tag_FP_arch: VFPv3-D16"),
            (
                "v6\n  Tag_Advanced_SIMD_arch: NEONv1\n",
                6,
                "expected nothing beyond ARMv6, found Tag_Advanced_SIMD_arch: NEONv1",
            ),
        ] {
            assert_eq!(beyond(&[MARK, said].concat(), max).join("; "), expected, "{said}");
        }
        assert_eq!(beyond("", 6), ["expected code for ARMv6 or less, found no mark"]);
    }

    #[test]
    fn a_loader_or_a_library_makes_it_dynamic() {
        assert!(!is_dynamic("  LOAD 0x0\n", " 0x1e (FLAGS) NOW\n"));
        assert!(is_dynamic("  INTERP 0x1\n", ""));
        assert!(is_dynamic("", " 0x01 (NEEDED) Shared library: [libc.so.6]\n"));
    }
}
