//! A disk whose power can be cut without a machine around it: an ext4 image on a loop device.
//!
//! `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH` (Linux, fs/ext4/ioctl.c) drops in a moment what nobody synced, pages and journal alike, and
//! fails every call from then on; mounted again, the file system is what a board would find. `noauto_da_alloc` takes ext4's own
//! flush on rename away, and `commit` its flush by the clock: nothing is on the disk unless somebody asked for it.
//!
//! Absent: a disk that loses what it said it had written.

use crate::repo::{self, at};
use crate::{Failure, Result};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: u64 = 24 << 20;

const OPTIONS: &str = "loop,noauto_da_alloc,commit=300";

/// How long the last user of a mounted disk gets to go: tools end shortly after the runtime.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Says that it is ready, and cuts when it is told to: `_IOR('X', 125, __u32)`, flag 2.
const CUTTER: &str = "\
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print('ready', flush=True)
if sys.stdin.readline():
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
";

/// An image that is mounted or not.
pub struct Disk {
    image: PathBuf,
    mounts: usize,
    /// Where it is mounted.
    pub folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// An empty one in `root`, mounted.
    ///
    /// # Errors
    /// If programs are missing, or this user may not mount.
    pub fn create(root: &Path) -> Result<Self> {
        let (image, folder) = (root.join("disk-0.img"), root.join("disk"));
        fs::create_dir_all(&folder).map_err(|e| at(&folder, &e))?;
        fs::File::create(&image).and_then(|file| file.set_len(BYTES)).map_err(|e| at(&image, &e))?;
        repo::capture(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mut disk = Self { image, mounts: 0, folder, is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it. Or rather a copy: a mount namespace that somebody made meanwhile may still have the file system that was cut
    /// off, and whoever mounts the same file gets that one again.
    ///
    /// # Errors
    /// If that does not work: it takes root and a loop device.
    pub fn mount(&mut self) -> Result<()> {
        self.mounts += 1;
        let copy = self.image.with_file_name(format!("disk-{}.img", self.mounts));
        fs::copy(&self.image, &copy).and_then(|_| fs::remove_file(&self.image)).map_err(|e| at(&self.image, &e))?;
        self.image = copy;
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", OPTIONS]).args([&self.image, &self.folder]);
        repo::capture(&mut command).map_err(|e| Failure::new(format!("{e}\nit takes root and a free loop device")))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes it out, with all that was written.
    ///
    /// # Errors
    /// If somebody goes on using it.
    pub fn unmount(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.is_mounted {
            match repo::capture(Command::new("umount").arg(&self.folder)) {
                Ok(_) => self.is_mounted = false,
                Err(failure) if start.elapsed() > BUSY_MAX => return Err(failure),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }

    /// What is wrong with the file system; it is not to be mounted.
    ///
    /// # Errors
    /// If e2fsck cannot be started.
    pub fn check(&self) -> Result<Option<String>> {
        let output =
            Command::new("e2fsck").arg("-fn").arg(&self.image).output().map_err(|e| at("e2fsck".as_ref(), &e))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok((!output.status.success()).then(|| format!("e2fsck: {}: {}", output.status, text.trim_end())))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Also where something has gone wrong with it already.
            drop(Command::new("umount").arg("--lazy").arg(&self.folder).status());
        }
    }
}

/// A hand at the plug.
pub struct Cutter {
    child: Child,
}

impl Cutter {
    /// Gets ready.
    ///
    /// # Errors
    /// If Python is missing.
    pub fn new(disk: &Disk) -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", CUTTER]).arg(&disk.folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| at("python3".as_ref(), &e))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let cutter = Self { child };
        match read {
            Some(Ok(1..)) => Ok(cutter),
            _ => Err(Failure::new("python3: expected it to be ready to cut the power")),
        }
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(mut self) -> Result<()> {
        let told = self.child.stdin.take().map(|mut input| input.write_all(b"now\n"));
        let status = self.child.wait();
        match (told, status) {
            (Some(Ok(())), Ok(status)) if status.success() => Ok(()),
            (told, status) => Err(Failure::new(format!("cutting the power: {told:?}, {status:?}"))),
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        // Without a word it ends by itself; it holds the disk as long as it lives.
        self.child.stdin.take();
        self.child.wait().ok();
    }
}
