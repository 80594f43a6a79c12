//! The backends that enclose, with real processes: that ordinary work can be done inside, and how it ends. What cannot be
//! done inside is in the escape tests of the program.

mod common;

use common::{PATIENCE, TESTBED, TempDir, bash, marked, unique};
use duragent_platform::cancel::Cancel;
use duragent_platform::sandbox::{Ended, Enforcement, Exit, Mode, Place, Policy, Sandbox, Stream, canary, find};
use std::fs;
use std::path::Path;
use std::sync::Arc;

struct House {
    dir: TempDir,
    sandbox: Arc<dyn Sandbox>,
}

impl House {
    fn new(mode: Mode, change: impl FnOnce(&mut Policy, &TempDir)) -> Self {
        let dir = TempDir::new();
        fs::create_dir_all(dir.join("work/.duragent/sessions/s/artifacts")).unwrap();
        fs::write(dir.join("work/.duragent/duragent.yaml"), "mine").unwrap();
        let mut policy = Policy { hidden: vec![dir.join("work/.duragent")], ..Policy::default() };
        change(&mut policy, &dir);
        let required = if mode == Mode::Trust { Enforcement::None } else { Enforcement::Full };
        let backend = find(mode, Path::new(TESTBED), required).unwrap_or_else(|e| panic!("{e:?}"));
        let sandbox = backend.sandbox(policy).unwrap_or_else(|e| panic!("{e:?}"));
        Self { dir, sandbox }
    }

    fn run(&self, script: &str) -> (Ended, String) {
        let (workdir, artifacts) = (self.dir.join("work"), self.dir.join("work/.duragent/sessions/s/artifacts"));
        let (mark, mut out) = (unique(), Vec::new());
        let view = self.sandbox.view(Place { workdir: &workdir, artifacts: &artifacts });
        let ended = self.sandbox.run(&view, &bash(script, &mark, PATIENCE), &Cancel::new(), &mut |stream, bytes| {
            if stream == Stream::Out {
                out.extend_from_slice(bytes);
            }
        });
        assert_eq!(marked(&mark), [], "left behind by {script:?}");
        (ended.unwrap_or_else(|e| panic!("{script:?}: {e}")), String::from_utf8_lossy(&out).into_owned())
    }

    fn check(&self, script: &str, exit: Exit, out: &str) {
        let (ended, found) = self.run(script);
        assert_eq!((ended.exit, found.as_str()), (exit, out), "{script:?} in {}", self.sandbox.report().backend);
    }
}

const BOTH: [Mode; 2] = [Mode::Bubblewrap, Mode::Landlock];

#[test]
fn ordinary_work_can_be_done_and_ends_are_told() {
    for mode in BOTH {
        let house = House::new(mode, |_, _| {});
        fs::create_dir(house.dir.join("work/sub")).unwrap();
        house.check("echo hi", Exit::Code(0), "hi\n");
        house.check("exit 7", Exit::Code(7), "");
        house.check("no-such-program 2> /dev/null", Exit::Code(127), "");
        house.check("pwd", Exit::Code(0), &format!("{}\n", house.dir.join("work").display()));
        house.check("echo text > sub/a && cat sub/a && mv sub/a sub/b && rm sub/b", Exit::Code(0), "text\n");
        house.check("seq 3 | sort -r | tail -n 1", Exit::Code(0), "1\n");
        house.check("cat <(echo substituted)", Exit::Code(0), "substituted\n");
        house.check("cat <<< here", Exit::Code(0), "here\n");
        house.check("f=$(mktemp) && echo x > $f && cat $f", Exit::Code(0), "x\n");
        house.check("cat; echo end of input", Exit::Code(0), "end of input\n");
        house.check("ulimit -c", Exit::Code(0), "0\n");
        house.check("echo $MARK | cut -c 1-8", Exit::Code(0), "duragent\n");
        house.check("ls /proc/self/fd 2> /dev/null | wc -l | tr 0 4", Exit::Code(0), "4\n");
    }
}

/// What a canary is kept from, and in trust mode is not: so the attempts are real ones.
#[test]
fn a_canary_is_kept_in_and_the_same_canary_is_free_in_trust_mode() {
    let findings = |mode| {
        let house = House::new(mode, |_, _| {});
        let (workdir, artifacts) = (house.dir.join("work"), house.dir.join("work/.duragent/sessions/s/artifacts"));
        let place = Place { workdir: &workdir, artifacts: &artifacts };
        canary::look(&*house.sandbox, place, &workdir.join(".duragent/duragent.yaml")).unwrap()
    };
    for mode in BOTH {
        for finding in findings(mode) {
            println!("{mode:?} {finding:?}");
            assert!(!finding.reached, "{mode:?}: {finding:?}");
        }
    }
    for finding in findings(Mode::Trust) {
        println!("{finding:?}");
        // In some containers not even root may read this one.
        let free = finding.name != "environment_of_pid_1" || fs::read("/proc/1/environ").is_ok();
        assert_eq!(finding.reached, free, "trust: {finding:?}");
    }
}
