//! Escape tests: each attempt is made in each backend, as root and as an ordinary user, and what the kernel says is compared
//! with what it is expected to say. Trust mode is the control: there the attempts succeed, so the test can fail.
//!
//! This program is all of it: the harness that cargo starts, a half of it for each user, the attempts that run inside,
//! runtimes to be killed, and victims. Without root the half as root is named as not run; where `CI` is `true`, that is a
//! failure. A backend that the machine cannot run is a failure too.
//!
//! A *known limit* in the list is what a backend cannot refuse, and docs/sandbox.md says so. Everything that attempts do to the machine outside their houses is harmless when it succeeds.

#[cfg(target_os = "linux")]
mod attempts;
#[cfg(target_os = "linux")]
mod case;
#[cfg(target_os = "linux")]
mod harness;
#[cfg(target_os = "linux")]
mod house;
#[cfg(target_os = "linux")]
mod inside;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod survive;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["__attempt", name] => attempts::make(name),
        ["__tool", kind, _mark] => survive::tool(kind),
        ["__victim"] => house::victim(),
        ["__runtime", ..] => survive::runtime(&args[1..]),
        ["__half", user, base, filters @ ..] => harness::half(user, std::path::Path::new(base), filters),
        _ => return harness::harness(&harness::filters(&args)),
    }
    std::process::ExitCode::SUCCESS
}

/// Other systems have trust mode alone, which encloses nothing.
#[cfg(not(target_os = "linux"))]
fn main() {}
