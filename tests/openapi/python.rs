//! The programs from PyPI, made ready once.

use duragent_testkit::programs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the programs of the environment are.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi-python");
    let made = || programs::python(&folder, include_str!("requirements.txt"));
    FOLDER.get_or_init(|| made().unwrap_or_else(|error| panic!("{error}")))
}
