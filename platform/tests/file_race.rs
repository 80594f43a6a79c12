//! An agent swaps things for symbolic links in a tight loop while the file tools work: no file outside is read or changed.
//! The control does what these tools did before, ask first and open by path then, and loses that race.

#![cfg(any(target_os = "linux", target_os = "android"))]

mod common;

use common::{PATIENCE, TempDir};
use duragent_platform::process::uid;
use duragent_platform::sandbox::{Access, Grant, Lookup, Place, Policy, Refused, View};
use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Attempts of each kind, and the time after which fewer are enough: each that writes waits for the disk. It goes on until
/// both outcomes of a race were seen.
const ATTEMPTS: u32 = 5_000;
const ENOUGH: Duration = Duration::from_secs(1);

/// Attempts of the control at most. It needs about ten.
const CONTROL_ATTEMPTS_MAX: u32 = 1_000_000;

/// An ordinary user: nobody.
const NOBODY: u32 = 65534;

/// A working directory with things to swap, and what they are to lead to outside.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(TempDir::new());
        for (path, text) in [("w/dir/file", "public"), ("w/file", "public"), ("outside/file", "secret")] {
            fs::create_dir_all(scene.0.join(path).parent().unwrap()).unwrap();
            fs::write(scene.0.join(path), text).unwrap();
        }
        symlink("../outside", scene.0.join("w/dir-link")).unwrap();
        symlink("../outside/file", scene.0.join("w/file-link")).unwrap();
        scene
    }

    fn view(&self) -> View {
        View::new(&Policy::default(), Place { workdir: &self.0.join("w"), artifacts: &self.0.join("w") })
    }

    /// Everything in it belongs to `owner` now. Only root can.
    fn give_to(&self, owner: u32) {
        fn give(path: &Path, owner: u32) {
            lchown(path, Some(owner), Some(owner)).unwrap();
            if !path.is_symlink() && path.is_dir() {
                fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), owner));
            }
        }
        give(self.0.path(), owner);
    }

    fn outside_is_as_it_was(&self) -> bool {
        fs::read(self.0.join("outside/file")).unwrap() == b"secret"
            && fs::read_dir(self.0.join("outside")).unwrap().count() == 1
    }

    /// Runs `work` while another thread swaps `name` in the working directory for its link, again and again.
    fn while_swapping(&self, name: &str, owner: u32, work: impl FnOnce() + Send) {
        let [one, other] = [name, &format!("{name}-link")].map(|name| self.0.join("w").join(name));
        let text = fs::read_link(&other).unwrap();
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        let (c_one, c_other) = (c_path(&one), c_path(&other));
        let stop = AtomicBool::new(false);
        /// Stops the other thread also when an assertion fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                act_as(owner);
                while !stop.load(Ordering::Relaxed) {
                    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
                    // SAFETY: both names end in NUL and live through the call.
                    let result = unsafe { libc::renameat2(here, c_one.as_ptr(), here, c_other.as_ptr(), flags) };
                    assert_eq!(result, 0, "{}", io::Error::last_os_error());
                    // A file that is put in its place puts out a link that came in between.
                    if !one.is_symlink() && !other.is_symlink() {
                        let fresh = other.with_extension("fresh");
                        symlink(&text, &fresh).unwrap();
                        fs::rename(&fresh, &other).unwrap();
                    }
                }
            });
            let worker = scope.spawn(|| {
                let _stop = Stop(&stop);
                act_as(owner);
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Lets this thread use files as `owner` would, without root's privileges for them (setfsuid(2), capabilities(7)).
fn act_as(owner: u32) {
    if uid() == owner {
        return;
    }
    // SAFETY: plain numbers. The second call answers with what the first one set.
    unsafe {
        libc::setfsgid(owner);
        libc::setfsuid(owner);
        assert_eq!(u32::try_from(libc::setfsuid(owner)), Ok(owner));
    }
}

/// Whom the tools work as: root, if we are, and an ordinary user in any case.
fn owners() -> Vec<u32> {
    if uid() == 0 { vec![0, NOBODY] } else { vec![uid()] }
}

/// What is swapped in the working directory, and what is opened there.
const PLACES: [(&str, &str); 2] = [("dir", "dir/file"), ("file", "file")];

/// For each place, each kind of user and each way to keep links out: `attempt`, again and again, until it both succeeded and
/// was refused, and was made often enough.
fn race(places: &[(&str, &str)], attempt: impl Fn(&Scene, &View, Lookup, &Path) -> io::Result<()> + Sync) {
    for &(swapped, path) in places {
        for owner in owners() {
            for lookup in [Lookup::Openat2, Lookup::Walk] {
                let scene = Scene::new();
                if uid() == 0 {
                    scene.give_to(owner);
                }
                let (view, what) = (scene.view(), format!("{path} by {lookup:?} as {owner}"));
                let (mut succeeded, mut refused) = (0, 0);
                scene.while_swapping(swapped, owner, || {
                    let start = Instant::now();
                    let often = |attempts| attempts >= ATTEMPTS || start.elapsed() >= ENOUGH;
                    while !often(succeeded + refused) || succeeded == 0 || refused == 0 {
                        assert!(start.elapsed() < PATIENCE, "{what}: {succeeded} succeeded, {refused} were refused");
                        match attempt(&scene, &view, lookup, Path::new(path)) {
                            Ok(()) => succeeded += 1,
                            Err(error) => {
                                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
                                assert!(inner.is_some(), "{what}: expected a refusal, found {error:?}");
                                refused += 1;
                            }
                        }
                    }
                });
                assert!(scene.outside_is_as_it_was(), "{what}: changed outside");
            }
        }
    }
}

#[test]
fn no_secret_is_read_while_links_are_swapped() {
    race(&PLACES, |_, view, lookup, path| {
        let mut text = String::new();
        view.open_by(lookup, path, Access::Read)?.read_to_string(&mut text)?;
        assert_eq!(text, "public", "{path:?} by {lookup:?}");
        Ok(())
    });
}

#[test]
fn nothing_outside_is_changed_while_links_are_swapped() {
    race(&PLACES, |scene, view, lookup, path| {
        view.replace_by(lookup, path, b"mine")?;
        assert!(scene.outside_is_as_it_was(), "{path:?} by {lookup:?}");
        Ok(())
    });
}

#[test]
fn no_directory_is_made_outside_while_links_are_swapped() {
    race(&[("dir", "dir/new/deep")], |scene, view, lookup, path| {
        view.replace_by(lookup, path, b"mine")?;
        for made in ["w/dir/new", "w/dir-link/new"] {
            // Only one of the two is the directory.
            let _ = fs::remove_dir_all(scene.0.join(made));
        }
        Ok(())
    });
}

/// Asks for what is there, and then does it there: somebody else may come in between.
fn naive(view: &View, path: &Path, needed: Grant, then: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let path = view.workdir().join(path);
    if view.grant(&path.canonicalize()?) < needed {
        return Err(ErrorKind::PermissionDenied.into());
    }
    then(&path)
}

/// How often a naive tool has to be called until it is tricked.
fn control(needed: Grant, then: impl Fn(&Scene, &Path) -> io::Result<bool> + Sync) {
    for (swapped, path) in PLACES {
        for owner in owners() {
            let scene = Scene::new();
            if uid() == 0 {
                scene.give_to(owner);
            }
            let view = scene.view();
            let tricked = AtomicBool::new(false);
            scene.while_swapping(swapped, owner, || {
                for _ in 0..CONTROL_ATTEMPTS_MAX {
                    // What is not tricked is refused, or done inside.
                    let _ = naive(&view, Path::new(path), needed, |path| {
                        tricked.store(then(&scene, path)?, Ordering::Relaxed);
                        Ok(())
                    });
                    if tricked.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            assert!(tricked.into_inner(), "{path} as {owner}: the attack does not work, so the test shows nothing");
        }
    }
}

#[test]
fn a_tool_that_asks_first_and_opens_then_reads_the_secret() {
    control(Grant::Read, |_, path| Ok(fs::read(path)? == b"secret"));
}

#[test]
fn a_tool_that_asks_first_and_opens_then_changes_what_is_outside() {
    control(Grant::Write, |scene, path| {
        fs::write(path, "mine")?;
        Ok(!scene.outside_is_as_it_was())
    });
}
