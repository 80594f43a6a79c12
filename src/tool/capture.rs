//! Output of a process, whole if it is short; else its head and tail, and all of it in an artifact.
//!
//! Invariant: memory is bounded by the cap whatever is printed. An artifact is made only when the cap is exceeded.

use super::Context;
use duragent_platform::file::{create_dir, has_room, sync_dir_of};
use duragent_platform::wear::{self, What};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of an artifact after which it is synced before more of it is taken. 1 MiB: what waits for the disk is memory, and a tool
/// prints faster than a card writes.
const SYNC_BYTES: u64 = 1024 * 1024;

/// Bytes of a call id that go into the name of its artifact; a hash makes up for what is cut.
const ID_BYTES_MAX: usize = 64;

/// Collects output, bytes as they come.
pub(super) struct Capture<'a> {
    context: &'a Context<'a>,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    artifact: Artifact,
}

enum Artifact {
    /// Everything fits in head and tail so far.
    NotNeeded,
    Open {
        file: File,
        name: String,
        bytes: u64,
    },
    /// Could not be made or written: the model is told why.
    Failed(io::Error),
}

/// What goes to the model.
pub(super) struct Captured {
    pub(super) text: String,
    pub(super) truncated: bool,
    pub(super) artifact: Option<String>,
}

impl<'a> Capture<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        Self { context, head: Vec::new(), tail: VecDeque::new(), total: 0, artifact: Artifact::NotNeeded }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let cap = self.context.output_bytes_max;
        if matches!(self.artifact, Artifact::NotNeeded) && self.total + bytes.len() as u64 > cap as u64 {
            self.open_artifact();
        }
        self.write_artifact(bytes);
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min((cap / 2).saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        let tail_max = cap - cap / 2;
        let rest = rest.get(rest.len().saturating_sub(tail_max)..).unwrap_or_default();
        let surplus = (self.tail.len() + rest.len()).saturating_sub(tail_max);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// The text for the model: at most the cap, and one line more if it was cut.
    pub(super) fn finish(mut self) -> Captured {
        let cap = self.context.output_bytes_max;
        let mut tail = std::mem::take(&mut self.tail);
        let tail: &[u8] = tail.make_contiguous();
        if self.total <= cap as u64 {
            let whole: String = pieces(&[self.head.as_slice(), tail].concat()).map(|(c, _)| c).collect();
            if whole.len() <= cap {
                return Captured { text: whole, truncated: false, artifact: None };
            }
            // Short in bytes, but long in text: what is not UTF-8 takes three bytes each.
            self.tail.extend(tail);
            self.open_artifact();
        }
        let (head_text, head_bytes) = beginning(&self.head, cap / 2);
        let (tail_text, tail_bytes) = ending(tail, cap - cap / 2);
        let left_out = self.total - (head_bytes + tail_bytes) as u64;
        let (place, artifact) = self.close_artifact();
        let text =
            format!("{}\n[… {left_out} bytes left out; {place} …]\n{tail_text}", head_text.trim_end_matches('\n'));
        Captured { text, truncated: true, artifact }
    }

    /// Makes the artifact and puts what was kept so far into it.
    fn open_artifact(&mut self) {
        let name = artifact_name(self.context.call_id);
        self.artifact = match create(self.context.artifacts, &name) {
            Ok(file) => Artifact::Open { file, name, bytes: 0 },
            Err(error) => Artifact::Failed(error),
        };
        let kept = [self.head.as_slice(), self.tail.make_contiguous()].concat();
        self.write_artifact(&kept);
    }

    fn write_artifact(&mut self, bytes: &[u8]) {
        let Artifact::Open { file, bytes: written, .. } = &mut self.artifact else { return };
        let room = self.context.artifact_bytes_max.saturating_sub(*written);
        let bytes = bytes.get(..usize::try_from(room).unwrap_or(usize::MAX)).unwrap_or(bytes);
        // The last bytes of the disk are for saying how the call ended.
        let stored = has_room(self.context.artifacts).and_then(|()| file.write_all(bytes)).and_then(|()| {
            let step = *written / SYNC_BYTES;
            *written += bytes.len() as u64;
            wear::wrote(What::Artifacts, bytes.len());
            if *written / SYNC_BYTES == step {
                return Ok(());
            }
            wear::synced(What::Artifacts);
            file.sync_data()
        });
        if let Err(error) = stored {
            self.artifact = Artifact::Failed(error);
        }
    }

    /// Syncs the artifact, because an event is about to name it. Says where the whole output is.
    fn close_artifact(&mut self) -> (String, Option<String>) {
        match std::mem::replace(&mut self.artifact, Artifact::NotNeeded) {
            Artifact::Open { file, name, bytes } => {
                wear::synced(What::Artifacts);
                let in_place = || sync_dir_of(What::Artifacts, self.context.artifacts);
                if let Err(error) = file.sync_all().and_then(|()| in_place()) {
                    return (format!("the whole output could not be kept: {error}"), None);
                }
                let place = self.context.artifacts.join(&name);
                let place = place.display();
                if bytes < self.total {
                    (format!("the first {bytes} of {} bytes are in {place}", self.total), Some(name))
                } else {
                    (format!("all {bytes} bytes are in {place}"), Some(name))
                }
            }
            Artifact::Failed(error) => (format!("the whole output could not be kept: {error}"), None),
            Artifact::NotNeeded => (String::from("it was not kept"), None),
        }
    }
}

/// Bytes as text, character by character, with the number of bytes each came from. What is not UTF-8, and NUL, which no log
/// line may hold, become U+FFFD.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (char, usize)> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().len();
        let valid =
            chunk.valid().chars().map(|c| (if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }, c.len_utf8()));
        valid.chain((invalid > 0).then_some((char::REPLACEMENT_CHARACTER, invalid)))
    })
}

/// As much of the beginning as fits in `max` bytes of text, and the bytes it came from. A character that was cut in two at
/// the end is left out.
pub(super) fn beginning(bytes: &[u8], max: usize) -> (String, usize) {
    let whole = match bytes.utf8_chunks().last() {
        Some(last) if is_cut_character(last.invalid()) => bytes.len() - last.invalid().len(),
        _ => bytes.len(),
    };
    let (mut text, mut taken) = (String::new(), 0);
    for (c, count) in pieces(bytes.get(..whole).unwrap_or(bytes)) {
        if text.len() + c.len_utf8() > max {
            break;
        }
        text.push(c);
        taken += count;
    }
    (text, taken)
}

/// True if more bytes could make a character of these.
fn is_cut_character(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// The same from the end. Bytes at the front that continue a character that is not there are left out.
fn ending(bytes: &[u8], max: usize) -> (String, usize) {
    /// A character has at most four bytes, so at most three continue it.
    const CONTINUATION_BYTES_MAX: usize = 3;
    let cut = bytes.iter().take(CONTINUATION_BYTES_MAX).take_while(|&&b| b & 0xC0 == 0x80).count();
    let bytes = bytes.get(cut..).unwrap_or_default();
    let mut surplus = pieces(bytes).map(|(c, _)| c.len_utf8()).sum::<usize>().saturating_sub(max);
    let (mut text, mut taken) = (String::new(), 0);
    for (c, count) in pieces(bytes) {
        if surplus > 0 {
            surplus = surplus.saturating_sub(c.len_utf8());
            continue;
        }
        text.push(c);
        taken += count;
    }
    (text, taken)
}

/// `<call_id>.txt`. Call ids are the model's: anything but letters, digits, `-` and `_` is replaced, and a hash of the whole
/// id keeps two of them apart.
fn artifact_name(call_id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !call_id.is_empty() && call_id.len() <= ID_BYTES_MAX && call_id.bytes().all(plain) {
        return format!("{call_id}.txt");
    }
    let safe = call_id.bytes().take(ID_BYTES_MAX).map(|b| if plain(b) { char::from(b) } else { '_' });
    let mut name: String = safe.collect();
    name.push('.');
    for byte in hmac_sha256::Hash::hash(call_id.as_bytes()).iter().take(8) {
        name.push_str(&format!("{byte:02x}"));
    }
    name + ".txt"
}

/// Makes the file anew: one of the same call is from a run that was interrupted. Only its user may read it.
fn create(directory: &Path, name: &str) -> io::Result<File> {
    create_dir(directory)?;
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests;
