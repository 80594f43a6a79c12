//! Parse, dispatch, exit code.

fn main() -> std::process::ExitCode {
    duragent::cli::main()
}
