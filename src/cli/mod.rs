//! The command line: one file per command.

use duragent_platform::sandbox::{GUARD_ARG, guard_main};

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    // Before anything else: a guard of a tool is to stay small.
    if args.next().is_some_and(|first| first == GUARD_ARG) {
        return std::process::ExitCode::from(u8::try_from(guard_main(args)).unwrap_or(1));
    }
    std::process::ExitCode::SUCCESS
}
