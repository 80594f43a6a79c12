//! Programs of other people, from their registries, at pinned versions: made ready once, below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Seconds for one answer of a registry on a slow line.
const SECONDS: &str = "300";

/// Where the programs of a Python environment with exactly `requirements` are; it is made in `folder` unless it is there.
///
/// # Errors
/// What is missing, by name.
pub fn python(folder: &Path, requirements: &str) -> Result<PathBuf, String> {
    let bin = folder.join("bin");
    made_once(folder, "requirements.txt", requirements, |wanted| {
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv"]).arg(folder), "install the Debian packages python3 and python3-venv")?;
        let mut pip = Command::new(bin.join("python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--timeout", SECONDS]);
        run(pip.arg("--requirement").arg(wanted), "a package index has to be in reach")
    })?;
    Ok(bin)
}

/// Where the programs of a set of Node packages are, with exactly what `lock` (`package-lock.json`) has; it is made in `folder`
/// unless it is there. `package` is its `package.json`.
///
/// # Errors
/// What is missing, by name.
pub fn node(folder: &Path, package: &str, lock: &str) -> Result<PathBuf, String> {
    made_once(folder, "wanted.json", lock, |_| {
        for (name, text) in [("package.json", package), ("package-lock.json", lock)] {
            fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit", "peer"]).current_dir(folder);
        run(
            &mut npm,
            "install the Debian packages nodejs and npm, at Node 20.15 or later; a registry has to be in reach",
        )
    })?;
    Ok(folder.join("node_modules/.bin"))
}

/// Makes what `make` makes, unless `stamp` says that it was made of the same `text`. What is half made is made anew.
fn made_once(
    folder: &Path,
    stamp: &str,
    text: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let stamp = folder.join(stamp);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == text) {
        return Ok(());
    }
    fs::remove_dir_all(folder).ok();
    let wanted = folder.join("wanted.txt");
    let place = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).and_then(|()| fs::write(&wanted, text)).map_err(place)?;
    make(&wanted)?;
    fs::rename(&wanted, &stamp).map_err(place)
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
