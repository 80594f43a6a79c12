//! Workspaces of other versions: real ones of earlier builds, as they were left by a `kill -9` (states/README.md), and logs as later
//! ones may write them.

use super::house::House;
use duragent_core::crc::Crc32c;
use std::fs;
use std::io::Write;
use std::path::Path;

/// Half a line.
pub const TORN: &str = "{\"seq\":99,\"at\":\"2026";

/// Builds whose workspaces are kept.
pub const EARLIER: [&str; 2] = ["heart", "door"];

/// A house with the workspace that this build has left.
pub fn left_by(build: &str) -> House {
    let house = House::new();
    fs::remove_dir_all(house.path(".duragent")).expect("removed");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/states").join(build);
    copy(&from, &house.path(".duragent"));
    // What the kill has left, which no text file in a repository may end in.
    let torn = fs::OpenOptions::new().append(true).open(house.log_path("torn"));
    torn.and_then(|mut log| log.write_all(TORN.as_bytes())).expect("it is there");
    house
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Chains lines anew, as docs/formats.md says; what stands in their `crc` is replaced.
pub fn chained(lines: &[String]) -> String {
    let (mut out, mut previous) = (String::new(), "00000000".to_owned());
    for line in lines {
        let with = line.rsplit_once(",\"crc\":\"").map(|(body, _)| body);
        let body = with.or(line.strip_suffix('}')).expect("a line");
        let crc = Crc32c::default().update(previous.as_bytes()).update(body.as_bytes()).value();
        previous = format!("{crc:08x}");
        out.push_str(&format!("{body},\"crc\":\"{previous}\"}}\n"));
    }
    out
}

/// The lines of a log.
pub fn lines(house: &House, id: &str) -> Vec<String> {
    let text = fs::read_to_string(house.log_path(id)).expect("a log");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn chaining_a_real_log_gives_that_log() {
    for build in EARLIER {
        let house = left_by(build);
        let log = fs::read_to_string(house.log_path("granted")).expect("a log");
        assert_eq!(chained(&lines(&house, "granted")), log);
    }
}
