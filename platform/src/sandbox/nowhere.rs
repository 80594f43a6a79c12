//! The backends that enclose, on systems where there are none: asking for one is an error, and `trust` has to be written down.

macro_rules! nowhere {
    ($($name:ident)*) => {$(
        pub(super) mod $name {
            use crate::sandbox::backend::{Backend, Unavailable};

            pub(in crate::sandbox) fn find(_guard: &std::path::Path) -> Result<Backend, Unavailable> {
                let cause = format!(concat!(stringify!($name), ": only on Linux, and this is {}"), std::env::consts::OS);
                Err(Unavailable { cause, remedy: String::new() })
            }
        }
    )*};
}

nowhere! { bubblewrap landlock }

/// There is nothing here that a canary could be sent into.
pub mod canary {
    use crate::sandbox::{Place, Sandbox};
    use std::io;
    use std::path::Path;

    /// What came of one attempt.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Finding {
        /// What was attempted, in `snake_case`.
        pub name: String,
        /// True if it succeeded.
        pub reached: bool,
        /// What the kernel said.
        pub evidence: String,
    }

    /// Says that it cannot be done.
    ///
    /// # Errors
    /// Always: `Unsupported`.
    pub fn look(_: &dyn Sandbox, _: Place<'_>, _: &Path) -> io::Result<Vec<Finding>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "what a canary tries is Linux' own"))
    }
}
