//! The sandbox as people get it: the binary, a recorded model that asks for what it must not have, and the machine looked at
//! before and after. Each attack is made in trust mode as well, where it succeeds, so that each of these tests can fail.
//!
//! As whoever runs the tests, and where it matters as an ordinary user too. What the kernel answers to each attempt alone is
//! tested in `tests/sandbox`. A machine without bwrap or Landlock fails these tests by name.

mod backends;
mod ends;
mod files;
mod limits;
mod network;
mod places;
mod yard;
