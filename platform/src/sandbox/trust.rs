//! Trust mode: tools run as the user the runtime runs as, and nothing is enforced. What is there all the same: the given
//! environment and no other, no inherited descriptors, a deadline, and the end of the whole process tree.
//!
//! Limit: a tool of the same user can kill its guard. Then what is left of its session is ended from outside; a process
//! that made a session of its own *and* outlived the guard gets away. Keeping that in takes a process namespace.

use super::backend::Backend;
use super::guard::Options;
use super::run::{self, Plan};
use super::{Command, Ended, Enforcement, Place, Report, Sandbox, Stream, View};
use crate::cancel::Cancel;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What it is: nothing is missing, because nothing was asked for.
static REPORT: Report =
    Report { backend: "trust", enforcement: Enforcement::None, landlock_abi: None, missing: Vec::new() };

/// The backend `trust`.
#[derive(Debug, Clone)]
pub struct Trust {
    guard: PathBuf,
}

impl Trust {
    /// With `guard` as a program that calls [`super::enter`]: this very binary, [`super::own_binary`], but for tests.
    #[must_use]
    pub fn new(guard: PathBuf) -> Self {
        Self { guard }
    }
}

/// Always there.
pub(super) fn find(guard: &Path) -> Backend {
    let guard = guard.to_owned();
    Backend::new(REPORT.clone(), Arc::new(move |_| Ok(Arc::new(Trust::new(guard.clone())))))
}

impl Sandbox for Trust {
    fn report(&self) -> &Report {
        &REPORT
    }

    fn view(&self, place: Place<'_>) -> View {
        View::everything(place)
    }

    fn run(
        &self,
        view: &View,
        command: &Command,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ended> {
        let plan = Plan::new(&self.guard, view, Vec::new(), command, command.env.clone(), Options::default());
        run::run(plan, cancel, sink)
    }
}
