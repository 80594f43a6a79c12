//! Rules on commands against a real shell: texts put together from what a shell understands, by a seed. What a rule lets pass is
//! run by bash(1) where the only other programs are ours, and what then ran must be what the rule said.
//!
//! The texts are of a fixed grammar, and nothing in it names a file outside of the folder it runs in.

use duragent_core::policy::{Argument, Policy, Rule, Verdict, evaluate};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What may stand in front of a command.
#[rustfmt::skip]
const BEFORE: &[&str] = &[
    "", "true; ", "true && ", ": | ", "! ", "{ ", "( ", "$(", "`", "if ", "if true; then ", "while ", "A=1 ",
    "A='1 2' ", "A=\"x y\" ", "A=$(true) ", ">z ", "2>z ", ">'a b' ", ">\"a\" ", ">>z ", "</dev/null ", "<<<x ",
    "&>z ", ">&z ", ">a\\ b ", "sudo ", "env ", "env -i PATH=$PATH ", "env -u Q ", "exec ", "command ", "eval ",
    "time ", "time -p ", "builtin command ", "sh -c '", "bash -c \"", "echo x | ", "echo x | xargs ", "x=$(",
    "echo \"$(", "cat <(", ": ${q:=$(", "trap '", "f() { ", "coproc ", "[[ x ]] && ", "for i in 1; do ",
    "case a in a) ", "# x\n", "echo \\\\\n", "A=1\n", "cat <<E\nfoo\nE\n", "A+=x ", "a[0]=1 ", "a[1+1]=x ",
    "a['x y']=1 ", "((1)) || ", "let x=1; ", "set -x; ", "$u ", "${u} ", "\t", "{fd}>z ", "3>z ", "<>z ", "- || ",
    "\\\n", "A=1\\\n ", "until ! ", "declare x=$(", "export A=`", "printf %s $(",
];

/// Ways to say `rm`.
#[rustfmt::skip]
const REMOVE: &[&str] = &[
    "rm", "r''m", "'rm'", "\"rm\"", "\\rm", "r\\m", "r\\\nm", "$'rm'", "$'\\x72m'", "$'\\162m'", "r$'\\u6d'",
    "$\"rm\"", "r${u}m", "r$@m", "r$()m", "r``m", "${u:-rm}", "${u-r}m", "{rm,-f,q}", "r{m,}", "{r,}m", "r$(:)m",
    "r`:`m", "r${u[0]}m", "r${u%%x}m", "r${u/a/b}m", "r${u:+z}m", "${PATH:+rm}", "${PATH+rm}", "r$u''m", "r\"$u\"m",
    "r\"\"$'m'", "$u\"rm\"", "${u:-${v:-rm}}", "${u:-\"rm\"}", "${u:-r}${u:-m}", "{,rm}", "r{m,m}", "{r..r}m",
    "{'rm',-f}", "r\\\n\\\nm", "\\r\\m", "${u-$'rm'}", "${u:-r\\m}", "r$1m", "r$*m", "r${*}m", "r${u,,}m",
    "r${u@Q}m", "$(echo)rm", "`true`rm",
];

/// What may stand behind a program.
#[rustfmt::skip]
const BEHIND: &[&str] = &[
    " y", " -f y", "\ty", "  y", "$IFS-f", "${IFS}y", "$IFS$9y", ">z y", " y>z", "<z y", " \\\ny", " 'y z'",
    " \"$u\"y", " {y,z}", " $u y", " y # c", " y;", " y &&:", " y\n", " y | cat", " y)", " y`", " y }", " y; }",
    " y'", " y\"", " y; done", " y;; esac", " y; fi", " y)\"", " y)}", "${IFS%??}y", "${IFS:0:1}y", "<<<x y",
    "2>&1 y", "\\\n y", " 2>/dev/null y", "${u- }y",
];

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        list[usize::try_from(self.0 % list.len() as u64).expect("is an index")]
    }

    /// Some of a list, one behind the other.
    fn some(&mut self, list: &[&str], most: usize) -> String {
        let count = self.of(&["", "1", "22", "333"]).len().min(most);
        (0..count).map(|_| self.of(list)).collect()
    }
}

/// A folder with programs of ours, each of which notes how it was called.
struct Shell {
    root: PathBuf,
}

impl Shell {
    fn new(name: &str, noted: &[&str]) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-shell-{name}-{}", std::process::id()));
        let bin = root.join("bin");
        fs::create_dir_all(&bin).expect("a folder");
        let program = |name: &str, text: &str| {
            fs::write(bin.join(name), text).expect("a program");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        for name in noted {
            program(name, &format!("#!/bin/sh\necho \"{name} $*\" >>{}/noted\n", root.display()));
        }
        program("sudo", "#!/bin/sh\nexec \"$@\"\n");
        for (name, path) in
            [("sh", "/bin/sh"), ("bash", "/bin/bash"), ("env", "/usr/bin/env"), ("xargs", "/usr/bin/xargs")]
        {
            assert!(Path::new(path).exists(), "{path} is there");
            symlink(path, bin.join(name)).expect("a link");
        }
        Self { root }
    }

    /// Runs a text: what our programs noted, and the files that are new.
    fn run(&self, text: &str) -> (String, usize) {
        let (work, noted) = (self.root.join("work"), self.root.join("noted"));
        fs::remove_dir_all(&work).ok();
        fs::remove_file(&noted).ok();
        fs::create_dir_all(&work).expect("a folder");
        // Its own process group ends with it, so that nothing in the background notes anything later.
        let mut command = Command::new("/usr/bin/timeout");
        command.args(["-k", "1", "5", "/bin/bash", "-c", text]).env_clear().env("PATH", self.root.join("bin"));
        command.current_dir(&work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("timeout(1) is there");
        let files = fs::read_dir(&work).expect("a folder").count();
        (fs::read_to_string(&noted).unwrap_or_default(), files)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

fn verdict(policy: &Policy, text: &str) -> Verdict {
    evaluate(std::slice::from_ref(policy), "bash", &Argument::Command(text.trim_ascii().to_owned())).verdict
}

#[test]
fn bash_runs_nothing_that_is_denied() {
    const TEXTS: usize = 4000;
    /// Texts that are run although they are denied, to see that they are worth denying.
    const CONTROLS: usize = 150;
    let deny = vec![Rule::parse("bash:rm *").expect("a rule")];
    let policy = Policy { mode: Some(Verdict::Allow), deny, ..Policy::default() };
    let (shell, mut random) = (Shell::new("deny", &["rm"]), Random(0x1234_5678_9abc_def1));
    let (mut passed, mut controls, mut dangerous, mut missed) = (0, 0, 0, Vec::new());
    for _ in 0..TEXTS {
        let text = random.some(BEFORE, 2) + random.of(REMOVE) + random.of(BEHIND) + &random.some(BEHIND, 2);
        let denied = verdict(&policy, &text) == Verdict::Deny;
        if denied {
            // In plain sight a simple matcher would see it, too.
            if controls == CONTROLS || text.starts_with("rm ") {
                continue;
            }
            controls += 1;
        } else {
            passed += 1;
        }
        let (noted, _) = shell.run(&text);
        // Without an argument it is no call that the rule is about.
        let removed = noted.lines().any(|line| line != "rm ");
        dangerous += usize::from(denied && removed);
        if !denied && removed {
            missed.push(format!("{text:?}: {noted}"));
        }
    }
    assert!(missed.is_empty(), "{} of {passed} that were let pass:\n{}", missed.len(), missed.join("\n"));
    assert!(passed > 50, "only {passed} were let pass");
    assert!(dangerous * 4 > CONTROLS, "the control: only {dangerous} of {CONTROLS} that were denied do anything");
}

#[test]
fn bash_runs_nothing_but_what_is_allowed() {
    const TEXTS: usize = 3000;
    #[rustfmt::skip]
    const MORE: &[&str] = &[
        "; rm y", "&& rm y", " | rm y", "\nrm y", " `rm y`", " $(rm y)", " >y", ">>y", " 2>y", " <(rm y)",
        " --output=y", " --outp y", " ${u:-$(rm y)}", " -5", " a/b", " 'a b'", " \"a b\"", " ..", " a..b", " {a,b}",
        " # rm y", " \\\n-5", " é", " --stat", " -- src", " *", " ?", " [a]", " ~", " !x", "\t-1", " a\\ b",
        " -S'x'", " =", " %h", " HEAD^", " @{1}", " &", " \r", "; }", " $u", " \\", "'", "\"", " '\nrm y\n'",
    ];
    let allow = vec![Rule::parse("bash:git log *").expect("a rule")];
    let policy = Policy { allow, ..Policy::default() };
    let (shell, mut random) = (Shell::new("allow", &["git", "rm"]), Random(0x0fed_cba9_8765_4321));
    let (mut allowed, mut asked, mut dangerous) = (0, 0, 0);
    for _ in 0..TEXTS {
        let text = random
            .of(&[
                "git log",
                "git log",
                "git log",
                "git log -1",
                "A=1 git log",
                "(git log",
                "git 'log'",
                "rm y; git log",
            ])
            .to_owned()
            + &random.some(MORE, 3);
        let is_allowed = verdict(&policy, &text) == Verdict::Allow;
        let checked = if is_allowed { &mut allowed } else { &mut asked };
        *checked += 1;
        if *checked > 250 {
            continue;
        }
        let (noted, files) = shell.run(&text);
        // Programs of ours write no files: these are of redirections. The options of git are for the real one.
        let harmless = files == 0 && noted.lines().all(|line| line.starts_with("git log") && !line.contains("--out"));
        assert!(!is_allowed || harmless, "{text:?} is allowed: {files} files, {noted}");
        dangerous += usize::from(!is_allowed && !harmless);
    }
    assert!(allowed > 250 && asked > 250, "{allowed} allowed, {asked} asked for");
    assert!(dangerous > 60, "the control: only {dangerous} of 250 that are asked for do anything");
}
