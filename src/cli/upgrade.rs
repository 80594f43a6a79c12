//! `duragent upgrade`: replaces this binary by a release that somebody trusted has signed, and takes it back if it does not work.
//!
//! In this order, each a reason to stop with nothing changed: the signature of the release's text by a trusted key; a version that
//! is later than this one (an old release, signed long ago, is how known holes come back); this machine's target; a log version
//! that both read; size and SHA-256 of the very file that is installed; its `version`, and its `check` of the workspace. Then it gets its place
//! ([`place`]), and the server, if one is up, becomes it ([`trial`], [`health`]).
//!
//! Absent: looking for releases by itself, deltas, and any key that is trusted without somebody having said so.

mod fetch;
mod health;
mod place;
mod release;
mod signature;
mod trial;

pub use place::Place;
pub use trial::{Trial, again};

use super::{Common, Failure, args, print, setup, text};
use duragent_core::event::LOG_VERSION;
use fetch::Source;
use health::Server;
use place::{Marker, Staged, cannot};
use release::Release;
use signature::{FILE_BYTES_MAX, Keys, SIGNATURE_BYTES};
use std::cmp::Ordering;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What this binary is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What it was built for, as releases name it.
#[cfg(feature = "tls")]
const TARGET: &str = env!("DURAGENT_TARGET");
#[cfg(not(feature = "tls"))]
const TARGET: &str = concat!(env!("DURAGENT_TARGET"), "-no-tls");

/// Where keys are looked for if there is none beside the binary.
const KEYS: &str = "/etc/duragent/release.pub";

/// Seconds that a new server gets to be ready, unless somebody says: many logs on a slow card are read in minutes.
const SECONDS: u64 = 300;
const SECONDS_MAX: u64 = 3600;

/// What `--help` says.
const HELP: &str = "duragent [--dir WORKSPACE] upgrade --from FILE|URL

Replaces this binary by a signed release, and takes it back if the server does not become ready with it.

      --from FILE|URL     the text of the release; its signature (.sig) and the binary are beside it
      --key FILE          public keys that are trusted, instead of duragent.pub beside the binary or
                          /etc/duragent/release.pub
      --dry-run           do all but replace it
      --allow-downgrade   take a release that is older than this one
      --timeout SECONDS   how long the server gets to be ready (300)
      --rollback          put the binary back that was replaced last
      --settle            for service managers: count a start of a binary on trial, or end the trial
";

#[derive(Default)]
struct Options {
    from: Option<String>,
    key: Option<PathBuf>,
    dry_run: bool,
    downgrade: bool,
    seconds: Option<u64>,
    rollback: bool,
    settle: bool,
}

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return print(HELP),
            lexopt::Arg::Long("from") => options.from = Some(args::text(parser.value()?)?),
            lexopt::Arg::Long("key") => options.key = Some(parser.value()?.into()),
            lexopt::Arg::Long("dry-run") => options.dry_run = true,
            lexopt::Arg::Long("allow-downgrade") => options.downgrade = true,
            lexopt::Arg::Long("timeout") => {
                let seconds = args::number(parser.value()?, "--timeout")?;
                if !(1..=SECONDS_MAX).contains(&seconds) {
                    let error = format!("--timeout: expected 1 to {SECONDS_MAX} seconds, found {seconds}");
                    return Err(Failure::usage(error, "leave it out for 300"));
                }
                options.seconds = Some(seconds);
            }
            lexopt::Arg::Long("rollback") => options.rollback = true,
            lexopt::Arg::Long("settle") => options.settle = true,
            other => return Err(other.unexpected().into()),
        }
    }
    // A workspace that was named has to be there; without one there is no server to care for.
    let named = common.dir.is_some() || common.workspace().is_dir();
    let dir = if named { Some(common.existing()?) } else { None };
    let place = Place::own()?;
    match (&options.from, options.rollback, options.settle) {
        (Some(from), false, false) => upgrade(&place, dir.as_deref(), from, &options),
        (None, true, false) => rollback(&place, dir.as_deref(), &options),
        (None, false, true) => {
            let _lock = place.lock()?;
            print(&health::settle(&place, dir.as_deref())?)
        }
        _ => Err(Failure::usage("expected one of --from, --rollback and --settle", "see: duragent upgrade --help")),
    }
}

fn upgrade(place: &Place, dir: Option<&Path>, from: &str, options: &Options) -> Result<u8, Failure> {
    if cfg!(not(feature = "signatures")) {
        let hint = "install a build with the feature \"signatures\" by hand";
        return Err(Failure::new("this build cannot verify signatures, and takes no release without").hint(hint));
    }
    place.refuse_managed()?;
    let _lock = place.lock()?;
    let workspace = dir.map(setup::load).transpose()?;
    let keys = trusted(place, options.key.as_deref())?;
    let (source, name) = Source::parse(from, workspace.as_ref())?;
    let release = verified(&source, &name, &keys)?;
    match release::compare(&release.version, VERSION) {
        Some(Ordering::Greater) => {}
        Some(Ordering::Less) if options.downgrade => {}
        Some(Ordering::Equal) => return print(&format!("this is {VERSION} already, nothing was changed\n")),
        _ => {
            let error = format!("{name}: expected a version later than {VERSION}, found {}", release.version);
            return Err(Failure::new(error)
                .hint("an old release may have known holes; to go back all the same: --allow-downgrade"));
        }
    }
    let (oldest, newest) = release.state;
    if !(oldest..=newest).contains(&LOG_VERSION) {
        let error =
            format!("{name}: expected a release that reads log version {LOG_VERSION}, found {oldest} to {newest}");
        return Err(Failure::new(error).hint("take a release in between first"));
    }
    let staged = staged(place, &source, &release)?;
    trial::try_out(&staged.path, &release.version, dir)?;
    if options.dry_run {
        return print(&format!("{} is good and would replace {VERSION}; nothing was changed\n", release.version));
    }
    if newest > LOG_VERSION {
        text::say(&format!(
            "sessions that {} begins will be read-only for {VERSION}; have a backup to go back",
            release.version
        ));
    }
    install(place, dir, staged, &release, options.seconds.unwrap_or(SECONDS))
}

/// The release whose text is `name`, if one of `keys` has signed it.
fn verified(source: &Source, name: &str, keys: &Keys) -> Result<Release, Failure> {
    let manifest = source.whole(name, release::BYTES_MAX)?;
    let signed = [name, ".sig"].concat();
    let signature = source.whole(&signed, SIGNATURE_BYTES).map_err(|failure| match failure.hint {
        Some(_) => failure,
        None => failure.hint("a release has its signature beside it"),
    })?;
    if signature.len() != SIGNATURE_BYTES {
        let error = format!("{signed}: expected a signature of {SIGNATURE_BYTES} bytes, found {}", signature.len());
        return Err(Failure::new(error).hint("make it with: openssl pkeyutl -sign -rawin"));
    }
    if !keys.have_signed(&manifest, &signature) {
        let keys = text::count(keys.count(), "trusted key");
        let error = format!("{name}: expected a signature by {keys}, found one of somebody else, or of another text");
        return Err(Failure::new(error).hint("nothing was changed; get the release and the keys from whom you trust"));
    }
    release::parse(&manifest, TARGET).map_err(|error| {
        Failure::new(format!("{name}: {error}"))
            .hint("the signature is good: whoever made this release has to look at it")
    })
}

/// The keys that are trusted. They are as good as the binary, so nobody may write them who may not write that.
fn trusted(place: &Place, named: Option<&Path>) -> Result<Keys, Failure> {
    let mut beside = place.binary.clone().into_os_string();
    beside.push(".pub");
    let beside = PathBuf::from(beside);
    let path = named.unwrap_or(if beside.exists() { &beside } else { Path::new(KEYS) });
    let found = fs::metadata(path).map_err(|error| {
        let hint = format!("put the public keys (PEM) of whom you trust into {} or {KEYS}", beside.display());
        Failure::new(format!("cannot read trusted keys from {}: {error}", path.display())).hint(hint)
    })?;
    let owners = [0, duragent_platform::process::uid()];
    if found.mode() & 0o022 != 0 || !owners.contains(&found.uid()) {
        let error = format!(
            "{}: expected a file that only its owner, root or this user, can write, found mode {:04o} of user {}",
            path.display(),
            found.mode() & 0o7777,
            found.uid()
        );
        return Err(Failure::new(error).hint("who can write it decides what runs here; chmod go-w, chown"));
    }
    let bad = |what: String| Failure::new(format!("{}: {what}", path.display()));
    let bytes = crate::config::regular_file(path, FILE_BYTES_MAX).map_err(bad)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(bad(format!("expected at most {FILE_BYTES_MAX} bytes, found more")));
    }
    Keys::parse(&String::from_utf8_lossy(&bytes)).map_err(bad)
}

/// The binary of `release` in a file beside the present one, read back and verified.
fn staged(place: &Place, source: &Source, release: &Release) -> Result<Staged, Failure> {
    let name = &release.name;
    let staged = place.stage(&mut |file| {
        let mut left = release.size;
        source.get(name, &mut |piece| {
            let Some(rest) = left.checked_sub(piece.len() as u64) else {
                return Err(Failure::new(format!("{name}: expected {} bytes, found more", release.size)));
            };
            left = rest;
            let path = PathBuf::from(name);
            file.write_all(piece).map_err(cannot("write beside the present binary", &path)).map(|()| true)
        })
    })?;
    let (size, sha256) = staged.measure()?;
    if size != release.size {
        let error = format!("{name}: expected {} bytes, found {size}", release.size);
        return Err(Failure::new(error).hint("get it once more"));
    }
    if sha256 != release.sha256 {
        let hex = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let error = format!("{name}: expected SHA-256 {}, found {}", hex(&release.sha256), hex(&sha256));
        return Err(
            Failure::new(error).hint("it was damaged on the way, or somebody changed it; nothing was installed")
        );
    }
    Ok(staged)
}

fn install(place: &Place, dir: Option<&Path>, staged: Staged, release: &Release, seconds: u64) -> Result<u8, Failure> {
    let to = &release.version;
    let server = dir.and_then(Server::of);
    place.put(staged, &Marker { from: VERSION.to_owned(), to: to.clone(), seconds, tries: 0 })?;
    let done = format!(
        "{}: {to} has replaced {VERSION}, which is kept as {}\n",
        place.binary.display(),
        place.old().display()
    );
    let Some(server) = server else {
        return print(&(done + "no server is up; the next one to start is on trial\n"));
    };
    let well = server.restart().map_err(|failure| failure.error).and_then(|()| {
        text::say("waiting for the server to become ready");
        server.wait(to, Duration::from_secs(seconds), Some(place))
    });
    match well {
        Ok(()) => {
            place.unmark()?;
            print(&(done + "the server is ready with it\n"))
        }
        Err(why) => {
            let error = format!("{to} did not work: {why}");
            // Gone if the server went back by itself.
            let back = if place.marker().is_some() { place.back() } else { Ok(()) };
            back.map_err(|failure| Failure::new([&error, "\n", &failure.error].concat()))?;
            let hint = if server.version().as_deref() == Some(VERSION) && server.is_ready() {
                format!("{VERSION} is back, and the server is ready with it; its log says what happened")
            } else {
                format!("{VERSION} is back; start the server, and see its log for what happened")
            };
            Err(Failure::new(error).hint(hint))
        }
    }
}

/// `--rollback`: the binary that was replaced last, by hand.
fn rollback(place: &Place, dir: Option<&Path>, options: &Options) -> Result<u8, Failure> {
    place.refuse_managed()?;
    let _lock = place.lock()?;
    let old = place.old();
    if !old.is_file() {
        let error = format!("there is no {} to put back", old.display());
        return Err(Failure::new(error).hint("it is there after an upgrade, until it was put back"));
    }
    let version = trial::version_of(&old)?;
    trial::try_out(&old, &version, dir)?;
    if options.dry_run {
        return print(&format!("{version} works and would be put back; nothing was changed\n"));
    }
    let server = dir.and_then(Server::of);
    place.back()?;
    let done = format!("{}: {version} is back\n", place.binary.display());
    let Some(server) = server else { return print(&done) };
    let seconds = Duration::from_secs(options.seconds.unwrap_or(SECONDS));
    let well = server.restart().map_err(|failure| failure.error).and_then(|()| server.wait(&version, seconds, None));
    well.map_err(|why| {
        Failure::new(format!("{version} is back, but the server is not well: {why}")).hint("see its log")
    })?;
    print(&(done + "the server is ready with it\n"))
}
