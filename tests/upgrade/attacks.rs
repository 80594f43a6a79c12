//! Releases that somebody has tampered with. The control of each is [`a_good_release_is_installed`]: the same release, untouched, gets in.

use super::house::{Ended, House, TARGET, VERSION, executable, good, later, script, sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

const FROM: [&str; 3] = ["upgrade", "--from", "rel/release.txt"];

/// A house with a good release of a later version.
fn house() -> House {
    let house = House::new();
    house.release(&later(), &script(&later()));
    house
}

/// Whatever was tried, the old binary is there, alone, and works.
fn untouched(house: &House) {
    assert_eq!(house.names(), ["duragent", "duragent.pub"]);
    assert_eq!(house.version(), VERSION);
}

/// The release is refused, in words that have all of `parts`, and nothing was changed.
fn refused(house: &House, parts: &[&str]) {
    refused_with(house, &FROM, parts);
}

fn refused_with(house: &House, args: &[&str], parts: &[&str]) {
    let Ended { code, out, err } = house.run(args);
    assert!(code == Some(1) && out.is_empty(), "{code:?} {out} {err}");
    for part in parts.iter().chain(&["error: ", "hint: "]) {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
    untouched(house);
}

fn flip(house: &House, name: &str, byte: usize) {
    let mut bytes = house.read(name);
    bytes[byte] ^= 1;
    house.write(name, bytes);
}

#[test]
fn a_good_release_is_installed() {
    let house = house();
    let out = house.good(&[&FROM[..], &["--dry-run"]].concat());
    assert!(out.contains("is good and would replace"), "{out}");
    untouched(&house);
    let out = house.good(&FROM);
    assert!(out.contains(&format!("{} has replaced {VERSION}", later())), "{out}");
    assert_eq!(house.version(), later());
    assert_eq!(house.read("bin/duragent"), script(&later()));
    assert_eq!(house.names(), ["duragent", "duragent.old", "duragent.pub", "duragent.upgrade"]);
    assert_eq!(fs::metadata(house.path("bin/duragent")).map(|m| m.permissions().readonly()).ok(), Some(false));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let house = house();
    for byte in [0, 20, 40, 80] {
        flip(&house, "rel/release.txt", byte);
        refused(&house, &["release.txt: expected a signature by 1 trusted key"]);
        flip(&house, "rel/release.txt", byte);
    }
    for byte in [0, 31, 32, 63] {
        flip(&house, "rel/release.txt.sig", byte);
        refused(&house, &["expected a signature by"]);
        flip(&house, "rel/release.txt.sig", byte);
    }
    for byte in [0, 9] {
        flip(&house, "rel/duragent-new", byte);
        refused(&house, &["duragent-new: expected SHA-256 ", ", found ", "somebody changed it"]);
        flip(&house, "rel/duragent-new", byte);
    }
    house.good(&FROM);
}

#[test]
fn a_signature_by_somebody_else_or_of_something_else_is_refused() {
    let house = house();
    house.key("other");
    house.sign("other", "rel/release.txt");
    refused(&house, &["expected a signature by 1 trusted key, found one of somebody else"]);
    // The right key, another text.
    house.write("rel/letter.txt", "duragent-release 1\n");
    house.sign("key", "rel/letter.txt");
    fs::copy(house.path("rel/letter.txt.sig"), house.path("rel/release.txt.sig")).expect("copied");
    refused(&house, &["or of another text"]);
    // The right key, a text that is no release.
    house.write("rel/release.txt", "I owe you 100\n");
    house.sign("key", "rel/release.txt");
    refused(&house, &["expected \"duragent-release 1\" in the first line"]);
    house.release(&later(), &script(&later()));
    house.good(&FROM);
}

#[test]
fn several_keys_may_sign_and_a_file_that_others_can_write_is_no_file_of_keys() {
    use std::os::unix::fs::PermissionsExt;
    let house = house();
    house.key("other");
    let both = [house.read("other.pub"), b"# the next one\n".to_vec(), house.read("key.pub")].concat();
    house.write("bin/duragent.pub", &both);
    let out = house.good(&[&FROM[..], &["--dry-run"]].concat());
    assert!(out.contains("is good"), "{out}");
    house.sign("other", "rel/release.txt");
    house.good(&[&FROM[..], &["--dry-run"]].concat());

    house.write("bin/duragent.pub", house.read("other.pub"));
    house.sign("key", "rel/release.txt");
    refused(&house, &["by 1 trusted key, found one of somebody else"]);
    // A key that is named goes before the one beside the binary.
    house.good(&[&FROM[..], &["--dry-run", "--key", "key.pub"]].concat());

    for mode in [0o666, 0o620] {
        fs::set_permissions(house.path("key.pub"), fs::Permissions::from_mode(mode)).expect("chmod");
        refused_with(&house, &[&FROM[..], &["--key", "key.pub"]].concat(), &["only its owner", &format!("{mode:04o}")]);
    }
    fs::set_permissions(house.path("key.pub"), fs::Permissions::from_mode(0o644)).expect("chmod");
    house.good(&[&FROM[..], &["--key", "key.pub"]].concat());
}

#[test]
fn nobody_is_trusted_by_default() {
    let house = house();
    fs::remove_file(house.path("bin/duragent.pub")).expect("removed");
    if Path::new("/etc/duragent/release.pub").exists() {
        panic!("this machine trusts somebody: /etc/duragent/release.pub");
    }
    let err = house.bad(1, &FROM);
    assert!(
        err.contains("cannot read trusted keys from /etc/duragent/release.pub")
            && err.contains("hint: put the public keys"),
        "{err}"
    );
    assert_eq!((house.names(), house.version()), (vec!["duragent".to_owned()], VERSION.to_owned()));
}

#[test]
fn what_is_cut_is_refused() {
    let house = house();
    for (name, parts) in [
        ("rel/duragent-new", &["duragent-new: expected ", "bytes, found "][..]),
        ("rel/release.txt.sig", &["release.txt.sig: expected a signature of 64 bytes, found 63"]),
        ("rel/release.txt", &["expected a signature"]),
    ] {
        let whole = house.read(name);
        house.write(name, &whole[..whole.len() - 1]);
        refused(&house, parts);
        house.write(name, b"");
        assert_eq!(house.run(&FROM).code, Some(1), "{name}");
        untouched(&house);
        house.write(name, whole);
    }
    house.good(&FROM);
}

#[test]
fn what_is_longer_than_it_may_be_is_refused_without_being_read_to_its_end() {
    let house = house();
    let whole = house.read("rel/duragent-new");
    house.write("rel/duragent-new", [&whole[..], b"x"].concat());
    let err = house.bad(1, &FROM);
    assert!(err.contains(&format!("expected {} bytes, found more", whole.len())), "{err}");
    house.write("rel/duragent-new", whole);
    for name in ["rel/release.txt", "rel/release.txt.sig"] {
        let whole = house.read(name);
        let file = fs::File::create(house.path(name)).expect("made");
        file.set_len(1 << 40).expect("a sparse file");
        let err = house.bad(1, &FROM);
        assert!(err.contains("expected at most "), "{err}");
        house.write(name, whole);
    }
    untouched(&house);
    house.good(&FROM);
}

#[test]
fn a_signed_lie_about_the_size_is_refused() {
    let house = house();
    let (len, sum) = (script(&later()).len(), sha256(&house.path("rel/duragent-new")));
    for (size, part) in [(len - 1, "found more"), (len + 1, &*format!("found {len}"))] {
        house.text(&format!("version {}\nstate 1 1\nfile {TARGET} {size} {sum} duragent-new\n", later()));
        let err = house.bad(1, &FROM);
        assert!(err.contains(&format!("expected {size} bytes")) && err.contains(part), "{err}");
        untouched(&house);
    }
}

#[test]
fn another_target_is_refused() {
    let house = house();
    let text = String::from_utf8(house.read("rel/release.txt")).expect("UTF-8");
    house.text(text.replace(TARGET, "riscv64-unknown-none").split_once('\n').expect("lines").1);
    refused(&house, &[&format!("expected a binary for {TARGET}, found riscv64-unknown-none")]);
    // One for this target is taken out of many.
    house.text(
        text.replace(TARGET, &format!("other 1 {} x\nfile {TARGET}", "0".repeat(64)))
            .split_once('\n')
            .expect("lines")
            .1,
    );
    house.good(&FROM);
}

#[test]
fn an_old_release_is_refused_however_well_it_is_signed() {
    let house = House::new();
    for version in ["0.0.1", &format!("{VERSION}-rc.1")] {
        house.release(version, &script(version));
        refused(&house, &[&format!("expected a version later than {VERSION}, found {version}"), "--allow-downgrade"]);
    }
    house.release(VERSION, b"the same version, other bytes");
    assert!(house.good(&FROM).contains(&format!("this is {VERSION} already")));
    untouched(&house);
    house.release("0.0.1", &script("0.0.1"));
    house.good(&[&FROM[..], &["--allow-downgrade"]].concat());
    assert_eq!(house.version(), "0.0.1");
}

#[test]
fn a_release_that_does_not_read_our_logs_is_refused() {
    let house = house();
    let text = String::from_utf8(house.read("rel/release.txt")).expect("UTF-8");
    for state in ["state 2 3", "state 0 0"] {
        house.text(text.replace("state 1 1", state).split_once('\n').expect("lines").1);
        refused_with(&house, &[&FROM[..], &["--allow-downgrade"]].concat(), &["reads log version 1, found"]);
    }
    house.text(text.replace("state 1 1", "state 1 2").split_once('\n').expect("lines").1);
    let Ended { code, err, .. } = house.run(&FROM);
    assert!(code == Some(0) && err.contains("read-only"), "{err}");
}

#[test]
fn a_binary_that_does_not_run_or_is_another_one_is_refused() {
    let house = House::new();
    for (bytes, part) in [
        (b"\x7fELF, no really".to_vec(), "cannot run"),
        (b"#!/bin/sh\nexit 1\n".to_vec(), "expected it to print its version"),
        (b"#!/bin/sh\nkill -SEGV $$\n".to_vec(), "signal: 11"),
        (script("9.9.9"), "found \"9.9.9\""),
    ] {
        house.release(&later(), &bytes);
        let err = house.bad(1, &FROM);
        assert!(err.contains(part), "{part}: {err}");
        untouched(&house);
    }
    let picky = format!(
        "#!/bin/sh\n[ \"$1\" = version ] && echo duragent {} && exit 0\necho 'error: no such key' >&2\nexit 3\n",
        later()
    );
    house.release(&later(), picky.as_bytes());
    let err = house.bad(3, &FROM);
    assert!(err.contains("does not take the workspace") && err.contains("no such key"), "{err}");
    untouched(&house);
}

/// What is verified is what is installed, whoever changes what meanwhile. The binary itself changes things: it runs, to be tried, between
/// the two.
#[test]
fn what_is_swapped_between_verifying_and_installing_does_not_get_in() {
    let house = House::new();
    let evil = b"#!/bin/sh\necho evil\n";
    house.write("evil", evil);
    executable(&house.path("evil"));
    let (root, version) = (house.root.display().to_string(), later());
    // The source is changed: what was copied counts.
    let swap = format!(
        "#!/bin/sh\ncp {root}/evil {root}/rel/duragent-new\n[ \"$1\" = version ] && echo duragent {version}\nexit 0\n"
    );
    house.release(&later(), swap.as_bytes());
    house.good(&FROM);
    assert_eq!(house.read("rel/duragent-new"), evil, "it was swapped");
    assert_eq!(house.read("bin/duragent"), swap.as_bytes());
    // Control: verifying and then copying by name is what lets it in.
    house.write("naive/new", &swap);
    let sum = sha256(&house.path("naive/new"));
    fs::copy(house.path("evil"), house.path("naive/new")).expect("swapped");
    fs::copy(house.path("naive/new"), house.path("naive/duragent")).expect("installed");
    assert_ne!(sha256(&house.path("naive/duragent")), sum);

    // What was copied gets another file under its name: noticed.
    let house = House::new();
    house.write("evil", "#!/bin/sh\nexit 0\n");
    executable(&house.path("evil"));
    let root = house.root.display().to_string();
    let swap = format!(
        "#!/bin/sh\ncp {root}/evil {root}/x; mv {root}/x {root}/bin/.duragent.new\n[ \"$1\" = version ] && echo duragent {version}\nexit 0\n"
    );
    house.release(&later(), swap.as_bytes());
    let err = house.bad(1, &FROM);
    assert!(err.contains("is not the file that was verified"), "{err}");
    assert_eq!(house.version(), VERSION);
    assert!(!house.names().contains(&"duragent.upgrade".to_owned()), "{:?}", house.names());
}

#[test]
fn places_that_are_no_files_are_refused_and_none_is_waited_for() {
    let house = house();
    for (from, part) in
        [("rel/none.txt", "none.txt: No such file"), ("rel", "regular file"), ("rel/..", "names no file")]
    {
        let ended = house.run(&["upgrade", "--from", from]);
        assert!(matches!(ended.code, Some(1 | 2)), "{part}: {ended:?}");
    }
    fs::remove_file(house.path("rel/duragent-new")).expect("removed");
    good(Command::new("mkfifo").arg(house.path("rel/duragent-new")));
    let err = house.bad(1, &FROM);
    assert!(err.contains("expected a regular file"), "{err}");
    untouched(&house);
}
