use super::*;

/// A directory, gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("duragent-logfile-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn log(&self, bytes_max: u64, files_max: u32) -> LogFile {
        LogFile::new(Settings { path: self.0.join("deep/log"), bytes_max, files_max })
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join("deep").join(name)).ok()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.join("deep")).expect("a directory").map(|e| e.expect("an entry").file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Puts a line although one failed a moment ago.
fn put(log: &mut LogFile, line: &str) -> io::Result<()> {
    log.not_before = None;
    log.put(line.as_bytes())
}

#[test]
fn files_have_their_cap_and_the_oldest_goes() {
    let dir = Dir::new("cap");
    let mut log = dir.log(10, 2);
    for line in ["1111\n", "2222\n", "3333\n", "4444\n", "5555\n", "6666\n", "7\n"] {
        put(&mut log, line).expect("it is written");
    }
    assert_eq!(dir.names(), ["log", "log.1", "log.2"]);
    assert_eq!(dir.read("log").as_deref(), Some("7\n"));
    assert_eq!(dir.read("log.1").as_deref(), Some("5555\n6666\n"));
    assert_eq!(dir.read("log.2").as_deref(), Some("3333\n4444\n"));
    // One line that is longer than the cap is no reason to lose it, nor to rotate an empty file for ever.
    put(&mut log, "long enough for two\n").expect("it is written");
    put(&mut log, "8\n").expect("it is written");
    assert_eq!(dir.read("log.1").as_deref(), Some("long enough for two\n"));
}

#[test]
fn a_new_process_goes_on_in_the_same_file_under_the_same_cap() {
    let dir = Dir::new("again");
    put(&mut dir.log(10, 1), "1111\n").expect("it is written");
    put(&mut dir.log(10, 1), "2222\n").expect("it is written");
    put(&mut dir.log(10, 1), "3\n").expect("it is written");
    assert_eq!((dir.read("log.1").as_deref(), dir.read("log").as_deref()), (Some("1111\n2222\n"), Some("3\n")));
}

#[test]
fn after_a_failure_a_rotation_goes_on_at_the_same_stage_and_the_cap_holds() {
    let dir = Dir::new("stages");
    let mut log = dir.log(10, 2);
    put(&mut log, "1111\n2222\n").expect("it is written");
    put(&mut log, "3333\n4444\n").expect("it is written");
    // What cannot be replaced by a file: a directory with something in it.
    fs::create_dir_all(dir.0.join("deep/log.2/full")).expect("a directory");
    for _ in 0..3 {
        put(&mut log, "5555\n").expect_err("there is no room for log.1");
        assert_eq!(log.stage, Stage::Shift(1));
        assert_eq!(dir.read("log").as_deref(), Some("3333\n4444\n"), "nothing is appended to what is long enough");
    }
    fs::remove_dir_all(dir.0.join("deep/log.2")).expect("it goes");
    // The next stage fails: what was renamed is not renamed again.
    fs::create_dir_all(dir.0.join("deep/log.1/full")).expect_err("a file is there still");
    put(&mut log, "5555\n").expect("it is written");
    let found = ["log", "log.1", "log.2"].map(|name| dir.read(name).unwrap_or_default());
    assert_eq!(found, ["5555\n", "3333\n4444\n", "1111\n2222\n"]);
}

#[test]
fn a_failure_is_not_tried_again_at_once() {
    let dir = Dir::new("pace");
    let mut log = dir.log(10, 1);
    fs::create_dir_all(dir.0.join("deep/log")).expect("a directory in its place");
    log.put(b"1\n").expect_err("a directory is no file");
    fs::remove_dir(dir.0.join("deep/log")).expect("it goes");
    assert_eq!(log.put(b"2\n").expect_err("too early").kind(), ErrorKind::WouldBlock);
    put(&mut log, "3\n").expect("it is written");
    assert_eq!(dir.read("log").as_deref(), Some("3\n"));
}

#[test]
fn reopened_it_writes_what_has_the_name_now() {
    let dir = Dir::new("reopen");
    let mut log = dir.log(100, 1);
    put(&mut log, "1\n").expect("it is written");
    fs::rename(dir.0.join("deep/log"), dir.0.join("deep/moved")).expect("as logrotate does");
    // The control: it goes on in the file that was renamed.
    put(&mut log, "2\n").expect("it is written");
    assert_eq!((dir.read("moved").as_deref(), dir.read("log")), (Some("1\n2\n"), None));
    log.reopen();
    put(&mut log, "3\n").expect("it is written");
    assert_eq!((dir.read("moved").as_deref(), dir.read("log").as_deref()), (Some("1\n2\n"), Some("3\n")));
    fs::remove_file(dir.0.join("deep/log")).expect("somebody deletes it");
    put(&mut log, "4\n").expect("it is written");
    assert_eq!(dir.read("log").as_deref(), Some("4\n"), "what is deleted is made anew");
}

#[test]
fn nothing_but_a_file_is_written_to() {
    let dir = Dir::new("kinds");
    let mut log = dir.log(100, 1);
    put(&mut log, "1\n").expect("it is written");
    fs::write(dir.0.join("victim"), "mine\n").expect("a file");
    fs::remove_file(dir.0.join("deep/log")).expect("it goes");
    std::os::unix::fs::symlink(dir.0.join("victim"), dir.0.join("deep/log")).expect("a link");
    put(&mut log, "2\n").expect_err("a link is not followed");
    assert_eq!(fs::read_to_string(dir.0.join("victim")).expect("a file"), "mine\n");
    // The control: by default it would be.
    OpenOptions::new().append(true).open(dir.0.join("deep/log")).expect("it opens");
}
