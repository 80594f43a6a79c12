//! Command lines, and what the two ways of building have to agree on.

use super::*;
use std::process::Command;
use targets::Libc;

fn options(line: &str) -> Result<Options> {
    read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn arguments_are_read_and_others_refused() {
    let found = options("--no-tls --out x armv7-unknown-linux-musleabihf").expect("is right");
    assert_eq!((found.no_tls, found.out, found.targets.len()), (true, Some("x".into()), 1));
    assert_eq!(options("--all").map(|found| found.targets.len()), Ok(TARGETS.len()));
    for wrong in ["", "--out", "--al", "armv5", "--test --twice --all", "--all --seed x"] {
        assert!(matches!(options(wrong), Err(Failure::Usage(_))), "{wrong}");
    }
}

/// The text of a table, from its head to the next one.
fn table<'a>(text: &'a str, head: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\n[{head}]\n"))?;
    Some(rest.split_once("\n[").map_or(rest, |(table, _)| table))
}

#[test]
fn both_ways_build_the_same_targets_with_the_same_flags() {
    let repo = Repo::find().expect("this is the repository");
    let [flags, containers, script] =
        [build::FLAGS, "cross/Cross.toml", "cross/sysroot.sh"].map(|path| repo.read_text(path).expect(path));
    for target in &TARGETS {
        let musl = matches!(target.libc, Libc::Musl(_));
        let ours = table(&flags, &format!("target.{}", target.name)).unwrap_or_default();
        assert_eq!(ours.contains("+crt-static") && ours.contains("-Clink-self-contained=no"), musl, "{}", target.name);
        let thumb = target.arm_max == Some(7);
        assert_eq!(ours.contains("+thumb-mode"), thumb, "{}", target.name);
        // The other way has no flags of its own, and the same compiler: Debian's, by the same script.
        let theirs = table(&containers, &format!("target.{}.env", target.name)).expect(target.name);
        let linker = format!("\"CARGO_TARGET_{}_LINKER=/opt/duragent/gcc\"", target.upper());
        let compiler = format!("\"CC_{}=/opt/duragent/gcc\"", target.name.replace('-', "_"));
        let archiver = format!("\"AR_{}={}\"", target.name.replace('-', "_"), target.tool("ar"));
        for part in [linker, compiler, archiver] {
            assert!(theirs.contains(&part), "{}: {part}", target.name);
        }
        let triplet = if let Libc::Musl(triplet) = target.libc { triplet } else { "" };
        let line = format!("{}) arch={} prefix={} triplet={triplet} ;;", target.name, target.debian, target.tools);
        assert!(script.contains(&line), "{line}");
    }
    assert!(!containers.contains("rustflags") && !containers.contains("RUSTFLAGS"), "flags are in one place");
    let std = "build-std = [\"std\", \"panic_abort\"]";
    assert!(table(&flags, "unstable").is_some_and(|t| t.contains(std)));
    assert!(table(&containers, "build").is_some_and(|t| t.contains(std)), "or cross installs another library");
}

#[test]
fn cargo_takes_the_flags() {
    let repo = Repo::find().expect("this is the repository");
    for key in
        ["profile.release.panic", "unstable.build-std-features", "target.armv7-unknown-linux-musleabihf.rustflags"]
    {
        let mut command = repo.cargo(["-Z", "unstable-options", "config", "get", "--config", build::FLAGS, key]);
        let found = crate::repo::capture(command.env("RUSTC_BOOTSTRAP", "1"));
        assert!(found.as_ref().is_ok_and(|text| text.starts_with(key)), "{key}: {found:?}");
    }
}

#[test]
fn the_script_of_the_sysroots_is_a_good_shell_script() {
    let repo = Repo::find().expect("this is the repository");
    let checked = crate::repo::capture(Command::new("sh").arg("-n").arg(repo.root.join("cross/sysroot.sh")));
    assert_eq!(checked, Ok(String::new()));
    let refused = Command::new("sh").arg(repo.root.join("cross/sysroot.sh")).output().expect("sh");
    assert_eq!(refused.status.code(), Some(2), "it does nothing without being told for what");
}
