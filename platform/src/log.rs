//! Lines for whoever operates the runtime: to standard error, whole, with a journald priority in front when asked for
//! (sd-daemon(3)).

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static PRIORITIES: AtomicBool = AtomicBool::new(false);

/// Puts `<4>` and the like in front of lines from now on, which journald takes for their priority and hides.
pub fn with_priorities() {
    PRIORITIES.store(true, Ordering::Relaxed);
}

/// Something to know.
pub fn info(text: &str) {
    line("<6>", text);
}

/// Something to look at.
pub fn warn(text: &str) {
    line("<4>", text);
}

fn line(priority: &str, text: &str) {
    let priority = if PRIORITIES.load(Ordering::Relaxed) { priority } else { "" };
    // One write, so that lines of several threads do not mix.
    // tidy-allow(dropped-results): nobody can be told that nobody can be told
    std::io::stderr().write_all(format!("{priority}duragent: {text}\n").as_bytes()).ok();
}
