//! What a board boots: Debian's kernel, an initramfs with the modules it needs, a read-only system of BusyBox, bubblewrap and our
//! binary, and a disk for the workspace. None of it takes root to make.

use super::kind::Kind;
use crate::cross::apt;
use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Debian's kernels have as modules and these boards need: their bus, disk and network, the file system, and one that
/// forgets (for the control).
const MODULES: [&str; 7] =
    ["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4", "overlay"];

/// Libraries of bubblewrap, besides the loader.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libcap.so.2", "libselinux.so.1", "libpcre2-8.so.0"];

/// The token of every board's server: it listens beyond loopback.
pub const TOKEN: &str = "board-0123456789abcdef0123456789abcdef";

/// The name of the one agent.
pub const AGENT: &str = "witness";

const SYSTEM_MIB: u64 = 32;
const DATA_MIB: u64 = 48;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nduragent:x:200:200:duragent:/var/lib/duragent:/bin/false\n";
const GROUP: &str = "root:x:0:\nduragent:x:200:\n";
const HOSTS: &str = "127.0.0.1 localhost\n";

const AGENT_FILE: &str = "\
apiVersion: duragent/v1alpha1
kind: Agent
metadata:
  name: witness
spec:
  model:
    provider: ollama
    name: fake
  tools: [bash, read_file, write_file]
";

const POLICY: &str = "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n";

/// Everything that machines of a kind share, and the folder that disks are made in.
#[derive(Debug)]
pub struct Image {
    /// The machine.
    pub kind: &'static Kind,
    /// Debian's kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The read-only system.
    pub system: PathBuf,
    /// Ours.
    pub folder: PathBuf,
}

impl Image {
    /// Puts a system with `binary` together in `folder`, with packages that are fetched if need be.
    ///
    /// # Errors
    /// If a package cannot be had or a program is missing.
    pub fn create(repo: &Repo, kind: &'static Kind, binary: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| at(folder, &e))?;
        let root = apt::root(repo, kind.debian, &[kind.kernel, "busybox-static", "bubblewrap"])?;
        let modules = root.join("lib/modules");
        let version = newest(&modules)?;
        if !modules.join(&version).join("modules.dep").is_file() {
            repo::run(Command::new("depmod").arg("-b").args([&root]).arg(&version))?;
        }
        let initrd = initramfs(&root, &version, folder)?;
        let system = system(repo, kind, &root, binary, folder)?;
        let kernel = root.join("boot").join(format!("vmlinuz-{version}"));
        Ok(Self { kind, kernel, initrd, system, folder: folder.to_path_buf() })
    }

    /// A disk with a workspace whose model is at `model` (a URL), and what else is in `more` (paths in the workspace, texts).
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn data(&self, name: &str, model: &str, more: &[(&str, String)]) -> Result<PathBuf> {
        let tree = self.folder.join(format!("{name}.tree"));
        let workspace = tree.join("workspace");
        let config = format!(
            "server:\n  address: 0.0.0.0:8410\n  api_token: {TOKEN}\nproviders:\n  ollama:\n    base_url: {model}\n    \
             context_tokens: 32768\nsandbox:\n  mode: bubblewrap\n  network: all\n"
        );
        let agent = format!("agents/{AGENT}/agent.yaml");
        let files = [("duragent.yaml", config.as_str()), ("policy.yaml", POLICY), (&agent, AGENT_FILE)];
        for (path, text) in files.into_iter().chain(more.iter().map(|(path, text)| (*path, text.as_str()))) {
            put(&workspace.join(path), text, 0o600)?;
        }
        let image = self.folder.join(format!("{name}.img"));
        file_system(&tree, &image, "data", DATA_MIB, "has_journal")?;
        fs::remove_dir_all(&tree).map_err(|e| at(&tree, &e))?;
        Ok(image)
    }
}

fn newest(modules: &Path) -> Result<String> {
    let entries = fs::read_dir(modules).map_err(|e| at(modules, &e))?;
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.pop().ok_or_else(|| Failure::new(format!("{}: expected a kernel's modules, found none", modules.display())))
}

fn initramfs(root: &Path, version: &str, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("initramfs");
    clear(&tree)?;
    let mut files = Vec::new();
    for module in MODULES {
        let mut command = Command::new("modprobe");
        command.arg("-d").arg(root).args(["-S", version, "--show-depends", module]).env("PATH", path_of_root());
        for line in repo::capture(&mut command)?.lines() {
            // Others are built in.
            let Some(file) = line.strip_prefix("insmod ").map(|rest| PathBuf::from(rest.trim())) else { continue };
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        copy(file, &tree.join("modules").join(format!("{number:02}-{name}")))?;
    }
    copy(&root.join("bin/busybox"), &tree.join("bin/busybox"))?;
    put(&tree.join("init"), include_str!("guest/init"), 0o755)?;
    let archive = folder.join("initrd");
    let out = fs::File::create(&archive).map_err(|e| at(&archive, &e))?;
    let list = repo::capture(Command::new("find").arg(".").current_dir(&tree))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"]).current_dir(&tree).stdin(Stdio::piped()).stdout(out);
    let mut child = cpio.spawn().map_err(|e| at("cpio".as_ref(), &e))?;
    let written = child.stdin.take().map(|mut input| std::io::Write::write_all(&mut input, list.as_bytes()));
    let status = child.wait().map_err(|e| at("cpio".as_ref(), &e))?;
    match written {
        Some(Ok(())) if status.success() => Ok(archive),
        other => Err(Failure::new(format!("cpio: {status}, {other:?}"))),
    }
}

fn system(repo: &Repo, kind: &Kind, root: &Path, binary: &Path, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("system");
    clear(&tree)?;
    let (bin, lib) = (tree.join("usr/bin"), tree.join("usr/lib"));
    for dir in ["dev", "etc/init.d", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "var/lib/duragent"] {
        let dir = tree.join(dir);
        fs::create_dir_all(&dir).map_err(|e| at(&dir, &e))?;
    }
    for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("usr/sbin", "bin")] {
        symlink(target, tree.join(name)).map_err(|e| at(&tree.join(name), &e))?;
    }
    let busybox = root.join("bin/busybox");
    copy(&busybox, &bin.join("busybox"))?;
    let emulator = super::user::emulator(kind.target)?.unwrap_or("env");
    for applet in repo::capture(Command::new(emulator).arg(&busybox).arg("--list"))?.lines().filter(|a| *a != "busybox")
    {
        symlink("busybox", bin.join(applet)).map_err(|e| at(&bin.join(applet), &e))?;
    }
    copy(binary, &bin.join("duragent"))?;
    copy(&root.join("usr/bin/bwrap"), &bin.join("bwrap"))?;
    for name in LIBRARIES.iter().chain([&kind.loader]) {
        let found = repo::capture(Command::new("find").arg(root).args(["-name", name]))?;
        let file = found.lines().next().ok_or_else(|| Failure::new(format!("expected {name} for {}", kind.debian)))?;
        copy(&fs::canonicalize(file).map_err(|e| at(file.as_ref(), &e))?, &lib.join(name))?;
    }
    // What people get: the script of the repository is what boots the server here.
    let service = repo.root.join("platform/init/busybox");
    copy(&service.join("S90duragent"), &tree.join("etc/init.d/S90duragent"))?;
    let inittab = [include_str!("guest/inittab"), &repo.read_text("platform/init/busybox/inittab")?].concat();
    for (path, text, mode) in [
        ("etc/inittab", inittab.as_str(), 0o644),
        ("etc/passwd", PASSWD, 0o644),
        ("etc/group", GROUP, 0o644),
        ("etc/hosts", HOSTS, 0o644),
        ("etc/init.d/rcS", include_str!("guest/rcS"), 0o755),
        ("etc/init.d/rcK", include_str!("guest/rcK"), 0o755),
        ("www/cgi-bin/sh", include_str!("guest/sh.cgi"), 0o755),
    ] {
        put(&tree.join(path), text, mode)?;
    }
    let image = folder.join("system.img");
    file_system(&tree, &image, "board", SYSTEM_MIB, "^has_journal")?;
    Ok(image)
}

fn file_system(tree: &Path, image: &Path, label: &str, mib: u64, feature: &str) -> Result<()> {
    drop(fs::remove_file(image));
    let file = fs::File::create(image).map_err(|e| at(image, &e))?;
    file.set_len(mib << 20).map_err(|e| at(image, &e))?;
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-L", label, "-O", feature, "-E", "root_owner=0:0"]).arg("-d").args([tree, image]);
    repo::capture(command.env("PATH", path_of_root())).map(drop)
}

/// Where Debian has what administrators run; ordinary users have no such place in their path.
pub fn path_of_root() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(dir, &error)),
        _ => fs::create_dir_all(dir).map_err(|e| at(dir, &e)),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|e| at(parent, &e))?;
    fs::copy(from, to).map_err(|e| at(from, &e))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(|e| at(to, &e))
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| at(parent, &e))?;
    fs::write(path, text).map_err(|e| at(path, &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| at(path, &e))
}
