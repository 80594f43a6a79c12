//! The programs from PyPI, made ready once.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Time for making the environment on a slow line; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the programs of the environment are.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| environment().unwrap_or_else(|error| panic!("{error}")))
}

/// Makes the environment, unless it is there with exactly these requirements.
fn environment() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi-python");
    let (bin, stamp) = (folder.join("bin"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(bin);
    }
    // What is half made is made anew.
    std::fs::remove_dir_all(&folder).ok();
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv"]).arg(&folder), "install the Debian packages python3 and python3-venv")?;
    let wanted = folder.join("wanted.txt");
    std::fs::write(&wanted, REQUIREMENTS).map_err(|error| format!("{}: {error}", wanted.display()))?;
    let seconds = PATIENCE.as_secs().to_string();
    let mut pip = Command::new(bin.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", &seconds]);
    run(pip.arg("--requirement").arg(&wanted), "a package index has to be in reach")?;
    std::fs::rename(&wanted, &stamp).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(bin)
}

fn run(command: &mut Command, remedy: &str) -> Result<(), String> {
    let what = match command.output() {
        Ok(Output { status, .. }) if status.success() => return Ok(()),
        Ok(Output { status, stdout, stderr }) => {
            format!("{status}\n{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
        }
        Err(error) => error.to_string(),
    };
    Err(format!("{command:?}: {what}\n{remedy}"))
}
