//! Leaves the unwind tables out of the release binary: it aborts on panic, so nothing ever reads them, and they are an
//! eighth of its size (docs/adr/0002). There is no stable compiler option for it that a profile could set.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    // Only where the linker is known to take the script, and not for debug builds, whose tests unwind.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let out = std::env::var_os("OUT_DIR").unwrap_or_default();
        let script = Path::new(&out).join("no-unwind-tables.ld");
        let text = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) } } INSERT AFTER .rodata;\n";
        if let Err(error) = std::fs::write(&script, text) {
            println!("cargo::warning=the binary keeps its unwind tables: cannot write {}: {error}", script.display());
            return;
        }
        println!("cargo::rustc-link-arg-bin=duragent=-Wl,-T,{}", script.display());
    }
}
