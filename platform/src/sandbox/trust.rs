//! Trust mode: tools run as the user the runtime runs as, and nothing is enforced. What is there all the same: the given
//! environment and no other, no inherited descriptors, a deadline, and the end of the whole process tree.
//!
//! Limit: a tool of the same user can kill its guard. Then what is left of its session is ended from outside; a process
//! that made a session of its own *and* outlived the guard gets away. Keeping that in takes a process namespace.

use super::{Access, Command, Enforcement, Exit, Sandbox, Stream, files, run};
use crate::cancel::Cancel;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The backend `trust`.
#[derive(Debug, Clone)]
pub struct Trust {
    guard: PathBuf,
}

impl Trust {
    /// With `guard` as the program that runs [`super::guard_main`] when its first argument is [`super::GUARD_ARG`]: this
    /// very binary, [`super::own_binary`], but for tests.
    #[must_use]
    pub fn new(guard: PathBuf) -> Self {
        Self { guard }
    }
}

impl Sandbox for Trust {
    fn backend(&self) -> &'static str {
        "trust"
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::None
    }

    fn run(&self, command: &Command, cancel: &Cancel, sink: &mut dyn FnMut(Stream, &[u8])) -> io::Result<Exit> {
        run::run(&self.guard, command, cancel, sink)
    }

    fn open(&self, base: &Path, path: &Path, access: Access) -> io::Result<File> {
        files::open(&base.join(path), access)
    }

    fn replace(&self, base: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
        files::replace(&base.join(path), contents)
    }
}
