//! The machine that an upgrade meets: disks, users, package managers, other upgrades.

use super::house::{House, VERSION, ended, good, later, real_later, script};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

const FROM: [&str; 3] = ["upgrade", "--from", "rel/release.txt"];

/// Runs a shell script as root in a mount namespace of its own, at the root of the house.
fn with_mounts(house: &House, script: &str) -> String {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-ec", script]).current_dir(&house.root);
    String::from_utf8_lossy(&good(&mut unshare).stdout).into_owned()
}

#[test]
fn a_full_and_a_read_only_disk_change_nothing() {
    let house = House::new();
    house.release(&later(), &real_later());
    let size = fs::metadata(house.path("bin/duragent")).expect("it is there").len();
    let (full, enough) = (size + size / 2, 3 * size);
    let said = with_mounts(
        &house,
        &format!(
            "mkdir small; try() {{ small/duragent upgrade --from rel/release.txt 2>&1 || echo \"code $?\"; small/duragent version; ls -A small; }}
             mount -t tmpfs -o size={full} none small; cp bin/* small; try; umount small; echo ---
             mount -t tmpfs -o size={enough} none small; cp bin/* small; mount -o remount,ro small; try; echo ---
             mount -o remount,rw small; try"
        ),
    );
    let parts: Vec<&str> = said.split("---\n").collect();
    for (part, words) in [
        (parts[0], &["No space left", "hint: free some space"]),
        (parts[1], &["Read-only file system", "hint: the file system is read-only"]),
    ] {
        assert!(words.iter().all(|word| part.contains(word)), "{part}");
        assert!(part.ends_with(&format!("code 1\nduragent {VERSION}\nduragent\nduragent.pub\n")), "{part}");
    }
    assert!(parts[2].contains(&format!("duragent {}\n", later())), "{}", parts[2]);
}

#[test]
fn who_may_not_write_there_changes_nothing_and_owners_stay_owners() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    for name in ["", "bin", "bin/duragent", "rel", ".duragent"] {
        fs::set_permissions(house.path(name), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(house.path("bin/duragent"));
    other.args(["upgrade", "--from"]).arg(house.path("rel/release.txt")).current_dir("/");
    let said = ended(other.output().expect("setpriv is there"));
    assert!(said.code == Some(1) && said.err.contains("Permission denied") && said.err.contains("sudo"), "{said:?}");
    assert_eq!(
        (house.names(), house.version()),
        (vec!["duragent".to_owned(), "duragent.pub".to_owned()], VERSION.to_owned())
    );

    let binary = house.path("bin/duragent");
    std::os::unix::fs::chown(&binary, Some(1234), Some(4321)).expect("this test is run by root");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o1750)).expect("chmod");
    house.good(&FROM);
    let new = fs::metadata(&binary).expect("it is there");
    // Permissions and no more: a set-user-ID bit is nothing that a release gets by itself.
    assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (1234, 4321, 0o750));
}

#[test]
fn a_link_to_the_binary_stays_one() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    std::os::unix::fs::symlink("bin/duragent", house.path("link")).expect("linked");
    let mut linked = Command::new(house.path("link"));
    good(linked.args(FROM).current_dir(&house.root));
    assert!(house.path("link").is_symlink());
    assert_eq!((house.version(), house.read("link")), (later(), script(&later())));
}

#[test]
fn what_a_package_has_installed_is_for_its_manager() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    // dpkg's own records, as they are on a machine where the package is installed.
    house.write("dpkg/status", "Package: duragent\nStatus: install ok installed\nMaintainer: x <x@y>\nArchitecture: all\nVersion: 1\nDescription: x\n\n");
    house.write("dpkg/info/format", "1\n");
    house.write("dpkg/info/duragent.list", format!("/.\n{}\n", house.path("bin/duragent").display()));
    let run = |args: &[&str]| {
        ended(house.command(args).env("DPKG_ADMINDIR", house.path("dpkg")).output().expect("it starts"))
    };
    for args in [&FROM[..], &["upgrade", "--rollback"]] {
        let said = run(args);
        assert!(said.code == Some(1) && said.err.contains("belongs to the Debian package duragent"), "{said:?}");
        assert!(said.err.contains("hint: upgrade it with: apt install --only-upgrade duragent"), "{said:?}");
    }
    assert_eq!(house.version(), VERSION);
    // Control: another file of that package.
    house.write("dpkg/info/duragent.list", "/.\n/usr/bin/other\n");
    assert_eq!(run(&FROM).code, Some(0));
}

#[test]
fn two_upgrades_at_a_time_are_one_too_many() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    let folder = fs::File::open(house.path("bin")).expect("a folder");
    folder.try_lock().expect("free");
    for args in [&FROM[..], &["upgrade", "--rollback"], &["upgrade", "--settle"]] {
        // There has to be something to go back to.
        house.write("bin/duragent.old", "x");
        assert!(house.bad(1, args).contains("another upgrade is at work"), "{args:?}");
    }
    drop(folder);
    house.good(&FROM);
}

#[test]
fn a_configuration_that_is_wrong_now_is_said_first_and_the_command_line_too() {
    let house = House::new();
    house.release(&later(), &script(&later()));
    house.write(".duragent/duragent.yaml", "sandbox: {mode: trust}\nserver: {adress: x}\n");
    assert!(house.bad(3, &FROM).contains("did you mean \"address\"?"));
    for args in [
        &["upgrade"][..],
        &["upgrade", "--rollback", "--settle"],
        &["upgrade", "--from", "x", "--rollback"],
        &["upgrade", "--timeout", "0", "--rollback"],
    ] {
        house.bad(2, args);
    }
    assert!(
        house.bad(3, &["--dir", "elsewhere", "upgrade", "--from", "rel/release.txt"]).contains("there is no workspace")
    );
    // No workspace at all is no reason not to.
    fs::remove_dir_all(house.path(".duragent")).expect("removed");
    house.good(&FROM);
    assert_eq!(house.version(), later());
}
