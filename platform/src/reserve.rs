//! A file that holds space on a disk, to be given up when there is none left: so that what has to be said then can be written.
//!
//! Invariants: what is held is really allocated, also where the file system compresses or knows holes. It is given up in
//! slices, each for somebody who waits for it, because whoever filled the disk is perhaps still writing. While anything of it
//! is missing, the disk counts as full ([`Reserve::is_full`]).
//!
//! Absent: who stops what, when the disk is full.

use crate::file;
use crate::process;
use crate::wear::{self, What};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes that are given up at a time beside those that are asked for: the block of a directory or a bitmap, and one more.
const SLICE_BYTES: u64 = 16 * 1024;
/// Free bytes below which a disk counts as full although nothing has failed yet, and which have to be free beside the
/// reserve before it counts as good again: a few messages.
const LOW_BYTES: u64 = 64 * 1024;
/// Bytes that are written at a time where space cannot be allocated otherwise.
const CHUNK_BYTES: usize = 4096;

/// The file.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
    full: AtomicBool,
    /// Held by whoever changes the file.
    changing: Mutex<()>,
}

impl Reserve {
    /// A reserve of so many bytes. Makes nothing yet.
    #[must_use]
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, full: AtomicBool::new(false), changing: Mutex::new(()) }
    }

    /// True from when the disk took something no more until the reserve is whole again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Says that the disk took nothing.
    pub fn note_full(&self) {
        self.full.store(true, Ordering::Release);
    }

    /// True if there is no room for anything that can be put off: [`Reserve::is_full`], or hardly anything is free.
    pub fn is_low(&self) -> bool {
        if !self.is_full() && self.free().is_ok_and(|free| free < LOW_BYTES) {
            self.note_full();
        }
        self.is_full()
    }

    /// Makes the file whole, and the disk good again. Writes nothing if it is whole, or if there is no room for it.
    ///
    /// # Errors
    /// `StorageFull` if there is no room, also as statvfs(3) counts; otherwise as open(2), fallocate(2), write(2) and fsync(2).
    pub fn make(&self) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let made = options.open(&self.path).and_then(|mut file| self.fill(&mut file));
        self.full.store(made.is_err(), Ordering::Release);
        made
    }

    fn fill(&self, file: &mut File) -> io::Result<()> {
        let held = held(file)?;
        let missing = self.bytes.saturating_sub(held);
        if missing > 0 {
            // A look first: a card should not wear out because it is full.
            if self.free()? < missing + LOW_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            match allocate(file, self.bytes) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => write_all(file, self.bytes),
                result => result,
            }
            .inspect_err(|_| {
                // What could not be had whole takes no room from others.
                file.set_len(held).ok();
            })?;
        }
        if file.metadata()?.len() != self.bytes {
            file.set_len(self.bytes)?;
        }
        wear::synced(What::Other);
        file.sync_all()?;
        // What is on the disk already says nothing of whether it takes anything.
        file.seek(SeekFrom::Start(0))?;
        let mut first = [0];
        file.read_exact(&mut first)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&first)?;
        file.sync_all()
    }

    /// Gives up as much as `bytes` take. False if there is nothing left to give.
    pub fn give(&self, bytes: usize) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_full();
        let shrink = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let length = file.metadata()?.len();
            file.set_len(length.saturating_sub(bytes as u64 + SLICE_BYTES))?;
            // Blocks can be had again when the journal has them.
            file.sync_all()?;
            Ok(length > 0)
        };
        shrink().unwrap_or(false)
    }

    fn free(&self) -> io::Result<u64> {
        Ok(file::space(&file::parent_of(&self.path))?.0)
    }
}

/// Bytes of the file that are really on the disk.
fn held(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    let blocks = std::os::unix::fs::MetadataExt::blocks(&meta);
    Ok(meta.len().min(blocks.saturating_mul(512)))
}

/// Allocates blocks without writing them (fallocate(2)).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let length = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    loop {
        // SAFETY: takes numbers only; the descriptor is open as long as `file` is borrowed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Err(io::ErrorKind::Unsupported.into()),
            _ => return Err(error),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes what cannot be compressed.
fn write_all(file: &mut File, bytes: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let (mut chunk, mut left) = ([0; CHUNK_BYTES], bytes);
    while left > 0 {
        for word in chunk.chunks_mut(8) {
            word.copy_from_slice(&process::random_u64().to_ne_bytes());
        }
        let part = chunk.get(..usize::try_from(left).unwrap_or(CHUNK_BYTES)).unwrap_or(&chunk);
        wear::wrote(What::Other, part.len());
        file.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reserve(name: &str, bytes: u64) -> Reserve {
        let path = std::env::temp_dir().join(format!("duragent-reserve-{name}-{}", std::process::id()));
        fs::remove_file(&path).ok();
        Reserve::new(path, bytes)
    }

    impl Drop for Reserve {
        fn drop(&mut self) {
            fs::remove_file(&self.path).ok();
        }
    }

    #[test]
    fn it_is_allocated_given_up_in_slices_and_made_again() {
        let reserve = reserve("life", 100_000);
        let held = || held(&File::open(&reserve.path).expect("it is there")).expect("it tells");
        reserve.make().expect("there is room");
        assert_eq!((held(), reserve.is_full()), (100_000, false));
        reserve.make().expect("it is there already");
        assert!(reserve.give(100));
        assert_eq!((held(), reserve.is_full()), (100_000 - 100 - SLICE_BYTES, true));
        assert!(reserve.give(1 << 20), "the rest");
        assert_eq!(held(), 0);
        assert!(!reserve.give(1), "there is nothing left");
        reserve.make().expect("there is room");
        assert_eq!((held(), reserve.is_full()), (100_000, false));
    }

    #[test]
    fn a_hole_holds_nothing_and_is_filled() {
        let reserve = reserve("hole", 100_000);
        // The control: a file of that length that takes no room.
        File::create(&reserve.path).and_then(|file| file.set_len(100_000)).expect("a file");
        let held = || held(&File::open(&reserve.path).expect("it is there")).expect("it tells");
        assert_eq!(held(), 0);
        reserve.make().expect("there is room");
        assert_eq!(held(), 100_000);
    }

    #[test]
    fn where_nothing_can_be_allocated_it_is_written_and_cannot_be_compressed() {
        let reserve = reserve("written", 0);
        let mut file = File::options().create_new(true).read(true).write(true).open(&reserve.path).expect("a file");
        write_all(&mut file, 10_000).expect("there is room");
        let bytes = fs::read(&reserve.path).expect("it is there");
        assert_eq!(bytes.len(), 10_000);
        let mut counts = [0; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| *count < 100), "{counts:?}");
    }

    #[test]
    fn a_disk_that_cannot_hold_it_is_full() {
        let reserve = reserve("huge", 1 << 60);
        assert_eq!(reserve.make().expect_err("no disk is that large").kind(), io::ErrorKind::StorageFull);
        assert!(reserve.is_full());
        assert_eq!(fs::metadata(&reserve.path).expect("it is there").len(), 0, "and takes nothing");
    }
}
