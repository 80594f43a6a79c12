//! What a turn costs the flash: bytes and syncs as the server counts them, as the kernel counts them for the process, and what
//! arrives at a device with ext4 on it, journal and all.

use crate::client::{self, Client};
use crate::failure::{Failure, Result, at, doing, fail};
use crate::proc;
use crate::scene::{Place, Scene, Server, free_address, message_body};
use crate::table::{Aim, Row};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Turns that are measured, after as many that are not.
const TURNS: usize = 100;
/// Bytes of the device.
const DEVICE_BYTES: u64 = 96 * 1024 * 1024;
/// What `/sys/block/*/stat` counts in, whatever the device has (Documentation/block/stat.rst in Linux).
const SECTOR_BYTES: f64 = 512.0;

/// Puts the workspace `$3` on the image `$1`, mounted at `$2` for this process alone, and serves it at `$5`: the mount goes when it
/// does.
const SERVE: &str = "mount -o loop,noatime \"$1\" \"$2\" && cp -a \"$3/.duragent\" \"$2/\" && exec \"$4\" --dir \"$2/.duragent\" serve --listen \"$5\"";

/// Figure 16.
pub fn cost(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 600, None)?;
    let folder = place.folder()?;
    let (image, mount) = (folder.join("image"), folder.join("mount"));
    fs::create_dir(&mount).map_err(at(&mount))?;
    File::create(&image).and_then(|file| file.set_len(DEVICE_BYTES)).map_err(at(&image))?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    let address = free_address()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SERVE, "sh"]).args([&image, &mount, &scene.folder, &place.binary]);
    let server = Server::spawn(command.arg(address.to_string()), address, &folder.join("server.log"))?;
    server.until("/readyz")?;
    let device = device(&image)?;
    let mut client = server.client()?;
    client.create("instant", "instant")?;
    turns(&mut client)?;
    let before = Look::now(&mut client, server.pid, &device)?;
    turns(&mut client)?;
    let after = Look::now(&mut client, server.pid, &device)?;
    let per_turn = |of: fn(&Look) -> f64| (of(&after) - of(&before)) / TURNS as f64;
    let (bytes, at_device) = (per_turn(|look| look.bytes), per_turn(|look| look.device_bytes));
    let kilobytes = |name: &str, bytes: f64, aim| Row::one(name, bytes / 1e3, "kB", aim);
    Ok(vec![
        kilobytes(
            "bytes written to files per plain turn (`duragent_disk_written_bytes_total`)",
            bytes,
            Aim::AtMost(1.4),
        ),
        Row::one("syncs per plain turn (`duragent_fsyncs_total`)", per_turn(|look| look.syncs), "", Aim::AtMost(2.1)),
        kilobytes("pages dirtied per plain turn (`write_bytes`)", per_turn(|look| look.dirtied), Aim::Shown),
        kilobytes("what arrives at a device with ext4, journal and metadata included", at_device, Aim::Shown),
        Row::one("that over the bytes written: what the file system multiplies", at_device / bytes, "×", Aim::Shown),
    ])
}

fn turns(client: &mut Client) -> Result<()> {
    let (path, body) = (client::messages("instant"), message_body());
    (0..TURNS).try_for_each(|_| client.turn(&path, &body))
}

/// All counters at one moment.
struct Look {
    bytes: f64,
    syncs: f64,
    dirtied: f64,
    device_bytes: f64,
}

impl Look {
    fn now(client: &mut Client, pid: u32, device: &Path) -> Result<Self> {
        // What the file system has not written yet counts as well.
        run(&mut Command::new("sync"))?;
        let text = client.expect(200, "GET", "/metrics", "")?;
        let sum = |family: &str| -> f64 {
            let lines = text.lines().filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let (bytes, syncs) = (sum("duragent_disk_written_bytes_total"), sum("duragent_fsyncs_total"));
        let stat = fs::read_to_string(device).map_err(at(device))?;
        // The seventh field is sectors written.
        let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<f64>().ok());
        let sectors = sectors
            .ok_or_else(|| Failure(format!("{}: expected sectors written, found {stat:?}", device.display())))?;
        let dirtied = proc::written(pid)?.write_bytes;
        Ok(Self { bytes, syncs, dirtied, device_bytes: sectors * SECTOR_BYTES })
    }
}

/// Where the kernel counts for the loop device of this image.
fn device(image: &Path) -> Result<PathBuf> {
    let output = Command::new("losetup").arg("-j").arg(image).output().map_err(doing("losetup"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split(':').next().and_then(|device| device.strip_prefix("/dev/")) {
        Some(name) => Ok(Path::new("/sys/block").join(name).join("stat")),
        None => fail(format!("losetup -j {}: expected a device, found {text:?}", image.display())),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(doing(name.clone()))?;
    if status.success() { Ok(()) } else { fail(format!("{name}: {status} (it takes root)")) }
}
