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
