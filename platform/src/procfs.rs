//! What `/proc` tells of other processes (proc_pid_stat(5)).

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// State letter; `Z` and `X` are dead.
    pub(crate) state: u8,
    /// Parent.
    pub(crate) parent: libc::pid_t,
    /// Session.
    pub(crate) session: libc::pid_t,
}

impl Stat {
    /// False for a zombie: it has ended, and only waits to be noticed.
    pub(crate) fn is_alive(self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Looks `pid` up; `None` if there is no such process.
pub(crate) fn stat(pid: libc::pid_t) -> Option<Stat> {
    parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The numbers of all processes that are there, in no order.
pub(crate) fn pids() -> impl Iterator<Item = libc::pid_t> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `pid (name) S parent group session …`; the name may hold blanks and parentheses.
fn parse(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let check = |line: &str, expected: Option<(u8, i32, i32)>| {
            let found = parse(line.as_bytes()).map(|s| (s.state, s.parent, s.session));
            assert_eq!(found, expected, "{line:?}");
        };
        check("7 (sh) S 1 7 5 0 -1", Some((b'S', 1, 5)));
        check("7 (a) Z 9 (b) R 12 13 14 0", Some((b'R', 12, 14)));
        check("7 (sh) S 1 7", None);
        check("7 (sh", None);
        check("7 (sh)", None);
        check("", None);
    }

    #[test]
    fn this_process_is_listed_and_alive() {
        let own = libc::pid_t::try_from(std::process::id()).unwrap();
        assert!(pids().any(|pid| pid == own));
        assert!(stat(own).unwrap().is_alive());
    }
}
