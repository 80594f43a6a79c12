//! What is tried, and what the kernel is expected to say in each backend.

mod astray;
mod files;
mod limits;
mod network;
mod processes;
mod surface;
mod work;
mod workspace;

use crate::house::{House, Layout};
use crate::inside::Inside;
use crate::kernel::Answer;
use duragent_platform::sandbox::Policy;

/// What an attempt answers when it works.
pub const OK: &str = "ok";

/// Who runs the tool that the control is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Trust mode.
    Trust,
    /// A plain child of the test: trust mode itself stops this one.
    Plain,
}

/// One thing that is tried. Answers are names of error numbers or what [`crate::kernel::Refused`] says, or the
/// signal that ended it; several are divided by `|`.
pub struct Attempt {
    pub name: &'static str,
    /// Runs inside.
    pub run: fn(&Inside) -> Answer,
    pub bubblewrap: &'static str,
    pub landlock: &'static str,
    /// What the control says, as root and as an ordinary user.
    pub trust: [&'static str; 2],
    pub control: Control,
    pub layout: Layout,
    /// The control, if it succeeds, leaves damage that is seen from outside.
    pub hurts: bool,
    /// Where it succeeds in a sandbox, it may: what it changes is no damage.
    pub granted: bool,
    /// It is granted because the backend cannot refuse it: a documented limit, listed so that nobody is surprised.
    pub limit: bool,
    /// Counts the processes of the user, or uses much: runs when nothing else does.
    pub alone: bool,
    /// Changes the house before the attempt.
    pub prepare: fn(&House),
    /// Changes the policy of the attempt.
    pub policy: fn(&House, &mut Policy),
    /// More of an environment.
    pub environment: fn(&House) -> Vec<(String, String)>,
}

impl Attempt {
    /// An attempt that is refused in the sandboxes and that anybody succeeds with in trust mode.
    const fn new(
        name: &'static str,
        run: fn(&Inside) -> Answer,
        bubblewrap: &'static str,
        landlock: &'static str,
    ) -> Self {
        Self {
            name,
            run,
            bubblewrap,
            landlock,
            trust: [OK, OK],
            control: Control::Trust,
            layout: Layout::Project,
            hurts: false,
            granted: false,
            limit: false,
            alone: false,
            prepare: |_| {},
            policy: |_, _| {},
            environment: |_| Vec::new(),
        }
    }

    /// Work that must be possible: a sandbox that refuses everything passes no test.
    const fn work(name: &'static str, run: fn(&Inside) -> Answer) -> Self {
        Self { granted: true, ..Self::new(name, run, OK, OK) }
    }

    /// The control succeeds for root only; an ordinary user is told this.
    const fn root_only(self, ordinary: &'static str) -> Self {
        Self { trust: [OK, ordinary], ..self }
    }

    /// What the control says instead of "ok".
    const fn control_says(self, root: &'static str, ordinary: &'static str) -> Self {
        Self { trust: [root, ordinary], ..self }
    }

    const fn against_a_plain_child(self) -> Self {
        Self { control: Control::Plain, ..self }
    }

    const fn hurts(self) -> Self {
        Self { hurts: true, ..self }
    }

    const fn limit(self) -> Self {
        Self { granted: true, limit: true, ..self }
    }

    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    const fn granted(self) -> Self {
        Self { granted: true, ..self }
    }

    const fn in_service(self) -> Self {
        Self { layout: Layout::Service, ..self }
    }

    const fn after(self, prepare: fn(&House)) -> Self {
        Self { prepare, ..self }
    }

    const fn environment(self, environment: fn(&House) -> Vec<(String, String)>) -> Self {
        Self { environment, ..self }
    }

    const fn with(self, policy: fn(&House, &mut Policy)) -> Self {
        Self { policy, ..self }
    }
}

const TABLES: &[&[Attempt]] = &[
    work::ATTEMPTS,
    files::ATTEMPTS,
    workspace::ATTEMPTS,
    astray::ATTEMPTS,
    processes::ATTEMPTS,
    network::ATTEMPTS,
    surface::ATTEMPTS,
    limits::ATTEMPTS,
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    TABLES.iter().copied().flatten()
}

/// Makes the attempt of this name, inside, and says what came of it.
pub fn make(name: &str) {
    let Some(attempt) = all().find(|attempt| attempt.name == name) else {
        println!("answer: no such attempt");
        return;
    };
    match (attempt.run)(&Inside::from_environment()) {
        Ok(()) => println!("answer: {OK}"),
        Err(refused) => println!("answer: {refused}"),
    }
}
