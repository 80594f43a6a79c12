//! `cargo xtask sign --key KEY.pem DIR`: makes a release of the binaries in a folder, for `duragent upgrade --from`.
//!
//! Writes `release.txt` (docs/formats.md) and `release.txt.sig` beside what `cargo xtask cross` has kept there. The key stays where it
//! is: openssl reads it, or whatever its engine leads to.

use crate::cross::build;
use crate::cross::targets::TARGETS;
use crate::repo::{self, Repo, at};
use crate::{Failure, Result, Tally};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The text of a release.
const TEXT: &str = "release.txt";

/// Most bytes of a binary that an installed one takes (src/cli/upgrade/release.rs).
const BINARY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Signs what is in the folder that is named.
///
/// # Errors
/// If the command line is wrong, there is nothing to sign, or openssl does not do it.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut key, mut dir) = (None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--key" => key = args.next().map(PathBuf::from),
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument("sign", flag)),
            _ if dir.is_none() => dir = Some(PathBuf::from(arg)),
            _ => return Err(Failure::unknown_argument("sign", arg)),
        }
    }
    let (Some(key), Some(dir)) = (key, dir) else {
        return Err(Failure::Usage("sign: expected --key KEY.pem and a folder".to_owned()));
    };
    let text = text(repo, &dir)?;
    let path = dir.join(TEXT);
    std::fs::write(&path, &text).map_err(|e| at(&path, &e))?;
    sign(&key, &path)?;
    print!("{text}");
    println!("{}: signed by {}", path.display(), key.display());
    Ok(Tally { passed: 1, failed: 0 })
}

/// What is said of the binaries in `dir`.
fn text(repo: &Repo, dir: &Path) -> Result<String> {
    let version = value(&repo.read_text("Cargo.toml")?, "version = \"", "\"")?;
    let state = value(&repo.read_text("src/core/src/event.rs")?, "LOG_VERSION: u64 = ", ";")?;
    // A build reads every version up to its own until docs/formats.md says otherwise.
    let mut text = format!("duragent-release 1\nversion {version}\nstate 1 {state}\n");
    let mut found = 0;
    for name in TARGETS.iter().flat_map(|target| [false, true].map(|no_tls| build::name(target, no_tls))) {
        let path = dir.join(&name);
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.len() > BINARY_BYTES_MAX {
            return Err(Failure::new(format!(
                "{}: expected at most {BINARY_BYTES_MAX} bytes, found {}",
                path.display(),
                meta.len()
            )));
        }
        let sum = repo::capture(Command::new("sha256sum").arg(&path).stdin(Stdio::null()))?;
        let sum = sum.split(' ').next().unwrap_or_default();
        let target = name.strip_prefix("duragent-").unwrap_or(&name);
        text.push_str(&format!("file {target} {} {sum} {name}\n", meta.len()));
        found += 1;
    }
    if found == 0 {
        return Err(Failure::new(format!("{}: expected binaries of cargo xtask cross, found none", dir.display())));
    }
    Ok(text)
}

/// What stands between two marks, at the first place that has the first one.
fn value(text: &str, before: &str, after: &str) -> Result<String> {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).map(|(value, _)| value.to_owned());
    found.ok_or_else(|| Failure::new(format!("expected {before:?}, found none")))
}

/// Signs a file, and makes sure that the signature is one by Ed25519.
fn sign(key: &Path, path: &Path) -> Result<()> {
    let signature = PathBuf::from(format!("{}.sig", path.display()));
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(key).arg("-in").arg(path).arg("-out").arg(&signature);
    repo::run(&mut openssl)?;
    let bytes = std::fs::metadata(&signature).map_err(|e| at(&signature, &e))?.len();
    if bytes == 64 {
        return Ok(());
    }
    let text = format!("{}: expected an Ed25519 key, whose signatures have 64 bytes, found {bytes}", key.display());
    Err(Failure::new(text + "; make one with: openssl genpkey -algorithm ed25519 -out key.pem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openssl(args: &[&str], dir: &Path) -> bool {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("openssl is there").success()
    }

    #[test]
    fn a_folder_of_binaries_becomes_a_release_that_openssl_verifies() {
        let dir = std::env::temp_dir().join(format!("duragent-sign-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let repo = Repo::find().expect("the repository");
        assert!(openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key.pem"], &dir));
        let args = |key: &str| ["--key".to_owned(), dir.join(key).display().to_string(), dir.display().to_string()];
        assert!(run(&repo, &args("key.pem")).is_err_and(|failure| failure.to_string().contains("found none")));
        for target in [&TARGETS[0], &TARGETS[1]] {
            std::fs::write(dir.join(build::name(target, false)), "binary").expect("written");
        }
        std::fs::write(dir.join(build::name(&TARGETS[0], true)), "another").expect("written");
        assert!(run(&repo, &args("key.pem")).is_ok());
        let text = std::fs::read_to_string(dir.join(TEXT)).expect("a text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("duragent-release 1", 6));
        assert!(lines[1].starts_with("version ") && lines[2] == "state 1 1", "{text}");
        let words: Vec<&str> = lines[3].split(' ').collect();
        assert_eq!((words[0], words[1], words[2], words[3].len()), ("file", TARGETS[0].name, "6", 64));
        assert!(text.contains("-no-tls 7 "), "{text}");
        let verify = ["pkeyutl", "-verify", "-rawin", "-inkey", "key.pem", "-in", TEXT, "-sigfile", "release.txt.sig"];
        assert!(openssl(&verify, &dir));
        std::fs::write(dir.join(TEXT), text.replace("state 1 1", "state 1 2")).expect("written");
        assert!(!openssl(&verify, &dir));
        assert!(openssl(&["genpkey", "-algorithm", "rsa", "-out", "rsa.pem"], &dir));
        assert!(run(&repo, &args("rsa.pem")).is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
