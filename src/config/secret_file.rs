//! Files that hold a secret and nothing else.
//!
//! Invariant: no message has anything of what is in them.

use super::types::Secret;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most bytes of a file that holds a key or token.
const BYTES_MAX: u64 = 64 * 1024;

/// Why there is no secret.
#[derive(Debug)]
pub enum SecretError {
    /// This user may not read it, as when a service's key is met by a person who lists sessions.
    Denied(String),
    /// Anything else.
    Bad(String),
}

impl SecretError {
    /// What to tell the user.
    #[must_use]
    pub fn message(self) -> String {
        match self {
            Self::Denied(message) | Self::Bad(message) => message,
        }
    }
}

/// Reads a file that holds a secret and nothing else; the white space around it is dropped. Group and others must not be
/// able to read or write it, checked on the open file. One exception is what systemd hands to a service that is not root's: a file of
/// root with mode 0440 and an access control list for that user, whose mask is what the group's bits show (acl(5)).
///
/// # Errors
/// What is wrong with the file, and what was expected.
pub fn read(path: &Path) -> Result<Secret, SecretError> {
    let bad = |message: String| SecretError::Bad(format!("{}: {message}", path.display()));
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => SecretError::Denied(format!("{}: {error}", path.display())),
        std::io::ErrorKind::NotFound => bad("no such file".to_owned()),
        _ => bad(error.to_string()),
    };
    // Asked before it is opened: opening a FIFO would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(bad(format!("expected a regular file of at most {BYTES_MAX} bytes")));
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 && !is_credential(&metadata, duragent_platform::process::uid()) {
        return Err(bad(format!("mode {mode:04o} lets other users at it; run chmod 600 on it")));
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() || text.bytes().any(|b| b.is_ascii_control()) {
        return Err(bad("expected one line with the secret and nothing else".to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// True of a credential of systemd, for a process of user `uid`.
fn is_credential(metadata: &std::fs::Metadata, uid: u32) -> bool {
    metadata.mode() & 0o777 == 0o440 && (metadata.uid(), metadata.gid()) == (0, 0) && uid != 0
}

#[cfg(test)]
mod tests {
    use super::{is_credential, read};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn only_its_owner_may_read_it_and_who_has_it_from_systemd() {
        let path = std::env::temp_dir().join(format!("duragent-secret-{}", std::process::id()));
        std::fs::write(&path, "secret\n").expect("a file");
        for (mode, good) in
            [(0o400, true), (0o600, true), (0o440, false), (0o640, false), (0o660, false), (0o444, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            // An ordinary user who runs this owns the file, so it is none of root's.
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
            let metadata = std::fs::metadata(&path).expect("a file");
            let of_root = (metadata.uid(), metadata.gid()) == (0, 0);
            assert_eq!(is_credential(&metadata, 1000), of_root && mode == 0o440, "{mode:o}");
            assert!(!is_credential(&metadata, 0), "{mode:o}");
        }
        std::fs::remove_file(path).ok();
    }
}
