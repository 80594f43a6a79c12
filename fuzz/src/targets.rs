//! What is fuzzed: one function per parser of outside bytes. Each panics if a promise of the parser is broken.
//!
//! `fuzz_targets/` runs them under libFuzzer, and `tests/fuzz_smoke.rs` on seeded mutations in plain `cargo test`.

use duragent_core::json;

/// JSON: what is read is written back as something that reads the same; `raw` takes every text that `parse` takes; an
/// error is inside the text.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match json::parse(text) {
        Ok(value) => {
            let written = value.to_string();
            assert_eq!(json::parse(&written).as_ref(), Ok(&value), "written as {written}");
            let mut reader = json::Reader::new(text);
            assert!(reader.raw().is_ok() && reader.end().is_ok(), "raw refuses what parse takes");
        }
        Err(error) => {
            assert!(error.byte <= text.len(), "{error}");
            let (line, column) = error.position(text);
            assert!(line >= 1 && column >= 1, "{line}:{column}");
        }
    }
}
