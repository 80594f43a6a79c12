//! Archives that want to do something else than a restore, made by GNU tar; it shows for each that the attack works.

use super::house::{House, good};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A house with a backup unpacked in `x/`, to be packed again with something added.
fn house() -> House {
    let house = House::new();
    let server = house.serve();
    server.begin("a");
    server.say("a", "one");
    drop(server);
    house.good(&["backup", "-o", "good.tar"]);
    fs::create_dir(house.path("x")).expect("made");
    good(Command::new("tar").arg("xf").arg(house.path("good.tar")).current_dir(house.path("x")));
    house
}

/// Packs `x/` as a backup is packed, with `extra` arguments of tar before the list of files.
fn pack(house: &House, extra: &[&str], files: &[&str]) {
    let mut tar = Command::new("tar");
    tar.args(["--format=ustar", "--owner=0", "--group=0", "--no-recursion", "-cPf"])
        .arg(house.path("evil.tar"))
        .args(extra);
    let order = ["backup.txt"].into_iter().chain(files.iter().copied());
    good(tar.args(order).current_dir(house.path("x")));
}

/// All files of the backup but the three texts.
fn files(house: &House) -> Vec<String> {
    let out = good(Command::new("tar").arg("tf").arg(house.path("good.tar"))).stdout;
    let names = String::from_utf8(out).expect("UTF-8");
    names.lines().filter(|name| name.starts_with("workspace/")).map(str::to_owned).collect()
}

/// What `sha256sum` says of these files, as the list at the end.
fn list(house: &House, files: &[&str]) {
    let out = good(Command::new("sha256sum").arg("backup.txt").args(files).current_dir(house.path("x"))).stdout;
    fs::write(house.path("x/manifest.txt"), out).expect("written");
}

fn refused(house: &House, parts: &[&str]) {
    let before = names(&house.root);
    let err = house.bad(1, &["restore", "evil.tar", "--dir", "r"]);
    for part in parts.iter().chain(&["evil.tar", "nothing was restored"]) {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
    assert_eq!(names(&house.root), before, "{parts:?}: something is left");
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).expect("a folder").flatten().map(|e| e.file_name()).collect();
    names.sort();
    names
}

#[test]
fn what_tar_packs_of_the_same_files_is_a_backup() {
    let house = house();
    let files = files(&house);
    let files: Vec<&str> = files.iter().map(String::as_str).chain(["sessions.txt", "manifest.txt"]).collect();
    pack(&house, &[], &files);
    house.good(&["restore", "evil.tar", "--dir", "r"]);
    house.good(&["--dir", "r", "session", "verify", "a"]);
}

#[test]
fn names_that_lead_out_are_refused() {
    let house = house();
    let root = house.root.display().to_string();
    house.write("x/workspace/zz", "evil");
    for (name, part) in [
        ("../escaped".to_owned(), "an empty part, . or .."),
        ("workspace/../../escaped".to_owned(), "an empty part, . or .."),
        ("workspace/./escaped".to_owned(), "an empty part, . or .."),
        (format!("{root}/escaped"), "a slash at the start"),
    ] {
        pack(&house, &[&format!("--transform=s,^workspace/zz$,{name},")], &["workspace/zz"]);
        refused(&house, &[part]);
        assert!(!house.path("escaped").exists());
    }
    // Control: tar itself, told to trust names, goes where they lead.
    pack(&house, &[&format!("--transform=s,^workspace/zz$,{root}/escaped,")], &["workspace/zz"]);
    fs::create_dir(house.path("y")).expect("made");
    good(Command::new("tar").arg("xPf").arg(house.path("evil.tar")).current_dir(house.path("y")));
    assert_eq!(house.read("escaped"), b"evil");
}

#[test]
fn links_devices_and_folders_are_refused() {
    let house = house();
    let x = house.path("x/workspace");
    std::os::unix::fs::symlink("/etc", x.join("agents/link")).expect("linked");
    fs::write(x.join("one"), "x").and_then(|()| fs::hard_link(x.join("one"), x.join("two"))).expect("linked");
    good(Command::new("mkfifo").arg(x.join("pipe")));
    good(Command::new("mknod").arg(x.join("null")).args(["c", "1", "3"]));
    for (files, kind) in [
        (&["workspace/agents/link"][..], "found type \"2\""),
        (&["workspace/one", "workspace/two"], "found type \"1\""),
        (&["workspace/pipe"], "found type \"6\""),
        (&["workspace/null"], "found type \"3\""),
    ] {
        pack(&house, &[], files);
        refused(&house, &[kind]);
    }
    // A folder has a slash behind its name.
    pack(&house, &[], &["workspace/agents"]);
    refused(&house, &["an empty part"]);
    for format in ["gnu", "pax"] {
        let long = format!("workspace/{}", "n".repeat(120));
        house.write(&format!("x/{long}"), "x");
        let mut tar = Command::new("tar");
        tar.arg(format!("--format={format}")).arg("-cf").arg(house.path("evil.tar")).args(["backup.txt", &long]);
        good(tar.current_dir(house.path("x")));
        let err = house.bad(1, &["restore", "evil.tar", "--dir", "r"]);
        let refused = ["found type", "header", "PaxHeaders"].iter().any(|part| err.contains(part));
        assert!(refused, "{format}: {err}");
    }
    // Control: a link, and then a file behind it, is how tar is led out by those who let it (-P keeps links as they are).
    fs::create_dir(house.path("target")).expect("made");
    let link = x.join("out");
    std::os::unix::fs::symlink(house.path("target"), &link).expect("linked");
    pack(&house, &[], &["workspace/out"]);
    fs::remove_file(&link)
        .and_then(|()| fs::create_dir(&link))
        .and_then(|()| fs::write(link.join("f"), "evil"))
        .expect("made");
    let mut add = Command::new("tar");
    good(
        add.args(["--format=ustar", "-rPf"])
            .arg(house.path("evil.tar"))
            .arg("workspace/out/f")
            .current_dir(house.path("x")),
    );
    fs::create_dir(house.path("y")).expect("made");
    good(Command::new("tar").arg("xPf").arg(house.path("evil.tar")).current_dir(house.path("y")));
    assert_eq!(house.read("target/f"), b"evil");
    fs::remove_file(house.path("target/f")).expect("removed");
    refused(&house, &["found type \"2\""]);
    assert_eq!(names(&house.path("target")).len(), 0);
}

#[test]
fn files_that_come_twice_or_do_not_belong_there_are_refused() {
    let house = house();
    let yaml = "workspace/duragent.yaml";
    pack(&house, &[], &[yaml, yaml]);
    refused(&house, &["found type \"1\""]);
    // Packed twice by tar, the second is a link to the first; told not to do that, it is the file again.
    pack(&house, &["--hard-dereference"], &[yaml, yaml]);
    refused(&house, &["duragent.yaml", "cannot be made"]);
    for (name, text) in [
        ("workspace/sessions/a/state.yaml", "status: \"idle\"\n"),
        ("workspace/sessions/a/lease", "1"),
        ("workspace/sessions/a/work/x", "x"),
        ("workspace/sessions/A/events.jsonl", "x"),
        ("workspace/sessions/day.lock", "x"),
        ("workspace/server.lock", "1"),
        ("workspace/duragent.sock", "x"),
        ("workspace/agents/.x.duragent-1-1", "x"),
        ("elsewhere/x", "x"),
    ] {
        house.write(&format!("x/{name}"), text);
        pack(&house, &[], &[yaml, name]);
        refused(&house, &["is no"]);
    }
    // A file where a folder has to be.
    house.write("x/flat", "x");
    pack(&house, &["--transform=s,^flat$,workspace/agents,"], &["flat", "workspace/agents/bot/agent.yaml"]);
    refused(&house, &["agents/bot/agent.yaml", "cannot make its folder"]);
}

#[test]
fn a_backup_that_was_changed_or_cut_is_refused() {
    let house = house();
    let all = files(&house);
    let files: Vec<&str> = all.iter().map(String::as_str).collect();
    let whole: Vec<&str> = files.iter().copied().chain(["sessions.txt", "manifest.txt"]).collect();
    // Changed behind the list's back, and with the list made to fit.
    let log = house.path("x/workspace/sessions/a/events.jsonl");
    let text = fs::read_to_string(&log).expect("a log");
    for change in [
        text.replacen("one", "two", 1),
        text[..text.len() - 1].to_owned(),
        text.lines().take(4).map(|l| format!("{l}\n")).collect(),
    ] {
        fs::write(&log, change).expect("written");
        pack(&house, &[], &whole);
        refused(&house, &["manifest.txt lists other files"]);
        list(&house, &whole[..whole.len() - 1]);
        pack(&house, &[], &whole);
        refused(&house, &["evil.tar: "]);
        fs::write(&log, &text).expect("written");
    }
    list(&house, &whole[..whole.len() - 1]);
    // Something is missing, something is too much, and the order.
    pack(&house, &[], &whole[1..]);
    refused(&house, &["lists other files"]);
    pack(&house, &["--hard-dereference"], &[&whole[..], &["sessions.txt"]].concat());
    refused(&house, &["expected nothing behind manifest.txt"]);
    pack(&house, &[], &files);
    refused(&house, &["expected manifest.txt at its end"]);
    pack(&house, &["--hard-dereference"], &[&["sessions.txt"], &whole[..]].concat());
    refused(&house, &["is not expected there"]);
    for sessions in ["", "a 5\n", "a 6\nb 1\n", "../a 6\n", "a\n"] {
        house.write("x/sessions.txt", sessions);
        list(&house, &whole[..whole.len() - 1]);
        pack(&house, &[], &whole);
        refused(&house, &["evil.tar: "]);
    }
    // Cut, and one bit.
    let good = house.read("good.tar");
    for length in (0..good.len()).step_by(479) {
        house.write("evil.tar", &good[..length]);
        refused(&house, &[]);
    }
    for byte in (0..good.len() - 1024).step_by(211) {
        let mut changed = good.clone();
        changed[byte] ^= 4;
        house.write("evil.tar", &changed);
        let ended = house.run(&["restore", "evil.tar", "--dir", "r"]);
        // What fills a block, and what of a header says nothing of a file, may be anything.
        if ended.code == Some(0) {
            fs::remove_dir_all(house.path("r")).expect("removed");
            assert_eq!(good[byte], 0, "byte {byte}: {ended:?}");
        }
    }
}

#[test]
fn a_backup_of_a_later_version_is_refused_before_anything_of_it_is_kept() {
    let house = house();
    let about = String::from_utf8(house.read("x/backup.txt")).expect("UTF-8");
    for (from, to, part) in [
        ("duragent-backup 1", "duragent-backup 2", "expected duragent-backup 1, found duragent-backup 2"),
        ("log 1", "log 2", "expected log version 1, found 2"),
    ] {
        house.write("x/backup.txt", about.replacen(from, to, 1).replace("version ", "version 7."));
        pack(&house, &[], &[]);
        refused(&house, &[part, "use duragent 7."]);
    }
    house.write("x/backup.txt", &about);
    house.write("x/workspace/format", "2\n");
    let all = files(&house);
    let whole: Vec<&str> =
        all.iter().map(String::as_str).chain(["workspace/format", "sessions.txt", "manifest.txt"]).collect();
    list(&house, &whole[..whole.len() - 1]);
    pack(&house, &[], &whole);
    let err = house.bad(3, &["restore", "evil.tar", "--dir", "r"]);
    assert!(err.contains("expected format 1 of the workspace, found \"2\""), "{err}");
    assert!(!house.path("r").exists());
    for text in ["", "x", "duragent-backup 1\n"] {
        house.write("x/backup.txt", text);
        pack(&house, &[], &[]);
        refused(&house, &["expected"]);
    }
}

#[test]
fn sizes_that_are_not_there_take_no_space() {
    let house = house();
    // A header that promises 8 GiB, with a checksum that fits, and nothing behind it.
    let mut bytes = house.read("good.tar");
    let start = 1024;
    bytes.truncate(start + 512);
    bytes[start + 124..start + 135].copy_from_slice(b"77777777777");
    bytes[start + 148..start + 156].fill(b' ');
    let sum: u64 = bytes[start..].iter().map(|b| u64::from(*b)).sum();
    bytes[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    house.write("evil.tar", bytes);
    refused(&house, &["found the end of the file"]);
}
