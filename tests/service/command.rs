//! `duragent service` with `--root`: trees of images.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-image-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        let image = Self(root);
        image.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nother:x:999:999::/:/bin/false");
        image.write("etc/group", "root:x:0:\nthird:x:998:\n");
        image.write("usr/bin/duragent", "for another machine");
        image
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn run(&self, args: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args.split(' ')).arg("--root").arg(&self.0).stdin(Stdio::null());
        let output = command.output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn ok(&self, args: &str) -> String {
        let (code, text) = self.run(args);
        assert_eq!(code, Some(0), "{args}: {text}");
        text
    }

    /// Everything in it, but the accounts.
    fn list(&self) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![self.0.clone()]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("a folder").flatten() {
                if entry.file_type().expect("a type").is_dir() {
                    open.push(entry.path());
                } else {
                    let path = entry.path();
                    found.push(path.strip_prefix(&self.0).expect("inside").to_str().expect("UTF-8").to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

const KINDS: [&str; 7] = ["systemd", "openrc", "sysv", "busybox", "procd", "runit", "s6"];

#[test]
fn every_kind_goes_into_an_image_and_out_of_it() {
    for kind in KINDS {
        let image = Image::new(kind);
        let dir = if kind == "procd" { "srv/duragent" } else { "var/lib/duragent" };
        let before = image.list();
        let plan = image.ok(&format!("service install --init {kind} --dry-run"));
        assert_eq!(image.list(), before, "{kind}: only shown: {plan}");
        let done = image.ok(&format!("service install --init {kind} --yes"));
        assert_eq!(done, plan + "done\n");
        assert!(!done.contains("  run "), "{kind}: nothing of this machine is touched: {done}");
        image.ok(&format!("service status --init {kind}"));

        // 997 is the highest that neither users nor groups have.
        assert!(image.read("etc/passwd").contains(&format!(":/bin/false\nduragent:x:997:997::/{dir}:/bin/false\n")));
        assert!(image.read("etc/group").ends_with("\nduragent:x:997:\n"));
        let workspace = fs::metadata(image.0.join(dir)).expect("a workspace");
        assert_eq!((workspace.uid(), workspace.gid(), workspace.mode() & 0o777), (997, 997, 0o700), "{kind}");
        let config = fs::metadata(image.0.join(dir).join("agents/assistant/agent.yaml")).expect("an agent");
        assert_eq!((config.uid(), config.gid()), (997, 997), "{kind}");

        let again = image.ok(&format!("service install --init {kind} --yes"));
        assert!(again.lines().skip(1).all(|line| line.starts_with("  keep ")), "{kind}: {again}");

        // What somebody changes is theirs, in both directions.
        let mut files =
            image.list().into_iter().filter(|path| path.starts_with("etc/") && !image.0.join(path).is_symlink());
        let mine = files.find(|path| image.read(path).contains("/usr/bin/duragent")).expect("there is a main file");
        let changed = image.read(&mine).replace("/usr/bin/duragent", "/opt/duragent");
        image.write(&mine, &changed);
        let kept = image.ok(&format!("service install --init {kind} --yes"));
        assert!(kept.contains(&format!("keep file /{mine}: has been changed by somebody")), "{kind}: {kept}");
        image.ok(&format!("service remove --init {kind} --yes"));
        assert_eq!(image.read(&mine), changed, "{kind}");
        fs::remove_file(image.0.join(&mine)).expect("it was there");

        // All of it goes but the workspace.
        image.ok(&format!("service install --init {kind} --yes"));
        image.ok(&format!("service remove --init {kind} --yes"));
        let left: Vec<String> = image.list().into_iter().filter(|path| !before.contains(path)).collect();
        let foreign: Vec<&String> =
            left.iter().filter(|path| !path.starts_with(dir) && *path != "etc/inittab").collect();
        assert!(foreign.is_empty() && left.len() >= 4, "{kind}: {left:?}");
        assert_eq!(image.run(&format!("service status --init {kind}")).0, Some(1));
        assert_eq!(
            image.ok(&format!("service remove --init {kind}")).lines().count(),
            1,
            "{kind}: nothing is left to do"
        );
    }
}

#[test]
fn files_of_another_version_are_replaced_and_others_are_not() {
    let image = Image::new("older");
    image.ok("service install --init sysv --yes");
    let script = image.read("etc/init.d/duragent");
    // Another user: what was written before is ours, and may be written anew.
    image.ok("service install --init sysv --user someone --yes");
    assert!(image.read("etc/init.d/duragent").contains("\nuser=someone\n") && script.contains("\nuser=duragent\n"));
    assert!(image.read("etc/passwd").contains("\nsomeone:x:996:996:"));
    // One byte is enough to be somebody's.
    image.write("etc/init.d/duragent", &script.replace("stop_seconds=60", "stop_seconds=61"));
    image.ok("service install --init sysv --yes");
    assert!(image.read("etc/init.d/duragent").contains("stop_seconds=61"));
}

#[test]
fn a_workspace_elsewhere_is_in_all_files() {
    let image = Image::new("elsewhere");
    image.ok("--dir /home/box/agents service install --init systemd --yes");
    let unit = image.read("etc/systemd/system/duragent.service");
    for line in [
        "Environment=DURAGENT_DIR=/home/box/agents",
        "ReadWritePaths=/home/box/agents",
        "ConditionPathExists=/home/box/agents/duragent.yaml",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
    assert!(!unit.contains("StateDirectory") && !unit.contains("ProtectHome") && !unit.contains("/var/lib"), "{unit}");
    assert!(image.0.join("home/box/agents/duragent.yaml").exists());
    for bad in [
        "--dir /a$(id) service install --init sysv",
        "--dir /a\nb service install --init sysv",
        "service install --user Root --init sysv",
        "service install --user a:b --init sysv",
    ] {
        assert_eq!(image.run(bad).0, Some(2), "{bad}");
    }
}

#[test]
fn a_workspace_that_is_there_is_left_alone() {
    let image = Image::new("kept");
    image.write("var/lib/duragent/mine", "text");
    let text = image.ok("service install --init runit --yes");
    assert!(text.contains("keep workspace /var/lib/duragent: exists"), "{text}");
    assert!(!image.0.join("var/lib/duragent/duragent.yaml").exists());
}

#[test]
fn links_of_an_image_lead_nowhere_else() {
    // As in an image whose /etc/init.d is an absolute link: for us that would be this machine's.
    let outside = Image::new("outside");
    for (link, args) in [
        ("etc/init.d", "service install --init sysv --yes"),
        ("etc/systemd", "service install --init systemd --yes"),
        ("var/lib", "service install --init runit --yes"),
        ("var/lib/duragent", "service install --init runit --yes"),
    ] {
        let image = Image::new("inside");
        let before = outside.list();
        let at = image.0.join(link);
        fs::create_dir_all(at.parent().expect("inside")).expect("a folder");
        let empty = outside.0.join("empty");
        fs::create_dir_all(&empty).expect("a folder");
        symlink(&empty, &at).expect("a link");
        let (code, text) = image.run(args);
        assert!(code == Some(1) && text.contains("symbolic link"), "{link}: {text}");
        assert_eq!(outside.list(), before, "{link}");
        assert_eq!(fs::metadata(&empty).expect("it is there").uid(), 0, "{link}");
    }
}

#[test]
fn the_init_system_is_told_by_the_tree() {
    let link = |image: &Image, to: &str| {
        fs::create_dir_all(image.0.join("sbin")).expect("a folder");
        symlink(to, image.0.join("sbin/init")).expect("a link");
    };
    type Make<'m> = &'m dyn Fn(&Image);
    let makes: [(Option<&str>, Make<'_>); 8] = [
        (Some("systemd"), &|image| link(image, "/lib/systemd/systemd")),
        (Some("busybox"), &|image| link(image, "../bin/busybox")),
        (Some("runit"), &|image| link(image, "runit-init")),
        (Some("s6"), &|image| link(image, "/usr/bin/s6-linux-init")),
        (Some("procd"), &|image| image.write("sbin/procd", "")),
        (Some("openrc"), &|image| image.write("sbin/openrc-run", "")),
        (Some("sysv"), &|image| {
            image.write("etc/inittab", "");
            image.write("etc/rc2.d/README", "");
        }),
        (None, &|_| ()),
    ];
    for (expected, make) in makes {
        let image = Image::new("detect");
        make(&image);
        let (code, text) = image.run("service install --dry-run");
        match expected {
            Some(name) => assert!(code == Some(0) && text.starts_with(&format!("init system: {name}\n")), "{text}"),
            None => assert!(code == Some(1) && text.contains("--init: systemd, openrc, sysv"), "{text}"),
        }
    }
}

#[test]
fn modes_are_what_they_have_to_be_whatever_the_umask() {
    let image = Image::new("umask");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" service install --init runit --yes --root \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_duragent")).arg(&image.0).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().expect("sh can be run").success());
    let mode = |path: &str| fs::metadata(image.0.join(path)).expect(path).permissions().mode() & 0o777;
    assert_eq!(mode("etc/sv/duragent/run"), 0o755);
    assert_eq!(mode("etc/sv/duragent/log/run"), 0o755);
    assert!(Path::new(&image.0).join("etc/service/duragent").is_symlink());
}
