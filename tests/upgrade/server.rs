//! An upgrade under a server: it becomes the new binary, or stays what it was.

use super::house::{House, Served, VERSION, ended, get, later, real_later, script, until};
use duragent_core::json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FROM: [&str; 5] = ["upgrade", "--from", "rel/release.txt", "--timeout", "60"];

/// The version that answers, if one does.
fn answering(house: &House) -> Option<String> {
    get(&house.client(), "/version")?.get("version").and_then(Value::as_str).map(str::to_owned)
}

#[test]
fn a_server_becomes_the_new_binary_and_goes_back_on_command() {
    let house = House::new();
    house.release(&later(), &real_later());
    let server = house.serve();
    server.begin("talk");
    server.say("talk", "one");
    let out = house.good(&FROM);
    assert!(out.ends_with("the server is ready with it\n"), "{out}");
    assert_eq!(answering(&house), Some(later()));
    assert_eq!(house.names(), ["duragent", "duragent.old", "duragent.pub"], "the trial is over");
    // The same process, and the same sessions.
    assert_eq!(server.say("talk", "two"), 7);
    assert!(house.good(&["upgrade", "--rollback"]).contains(&format!("{VERSION} is back")));
    assert_eq!(answering(&house).as_deref(), Some(VERSION));
    assert_eq!(server.say("talk", "three"), 12);
    assert_eq!(house.names(), ["duragent", "duragent.pub"]);
    assert!(house.bad(1, &["upgrade", "--rollback"]).contains("there is no"));
}

/// A service manager: starts the server again whenever it ends, until it is dropped.
struct Manager {
    on: Arc<AtomicBool>,
    at_work: Option<std::thread::JoinHandle<()>>,
}

impl Manager {
    fn start(house: &House) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let (still, binary, root) = (Arc::clone(&on), house.path("bin/duragent"), house.root.clone());
        let work = move || {
            while still.load(Ordering::SeqCst) {
                let mut serve = Command::new(&binary);
                serve.arg("serve").current_dir(&root).env_clear().env("PATH", "/usr/bin:/bin");
                let Ok(mut child) = serve.stdin(Stdio::null()).stderr(Stdio::null()).spawn() else { continue };
                while still.load(Ordering::SeqCst) && child.try_wait().expect("ours").is_none() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                child.kill().and_then(|()| child.wait()).expect("it ends");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        let at_work = Some(std::thread::spawn(work));
        let manager = Self { on, at_work };
        until("the server", || answering(house));
        manager
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.on.store(false, Ordering::SeqCst);
        self.at_work.take().expect("once").join().expect("it ends");
    }
}

#[test]
fn a_binary_whose_server_ends_at_once_is_taken_back() {
    let house = House::new();
    // Its version is right and its check is good, but there it ends.
    house.release(&later(), &script(&later()));
    let manager = Manager::start(&house);
    let said = house.run(&["upgrade", "--from", "rel/release.txt", "--timeout", "1"]);
    assert!(said.code == Some(1) && said.out.is_empty(), "{said:?}");
    for part in
        [&format!("{} did not work: expected a server of version", later()), &format!("hint: {VERSION} is back")]
    {
        assert!(said.err.contains(part), "{said:?}");
    }
    assert_eq!(
        (house.version(), house.names()),
        (VERSION.to_owned(), vec!["duragent".to_owned(), "duragent.pub".to_owned()])
    );
    assert_eq!(until("the server", || answering(&house)), VERSION);
    drop(manager);
}

/// The installed binary is the later one, on trial, and `duragent.old` the one under test, as after a power cut.
fn on_trial(seconds: u64, tries: u64) -> House {
    let house = House::new();
    fs::rename(house.path("bin/duragent"), house.path("bin/duragent.old")).expect("renamed");
    house.program("duragent", &real_later());
    house.write("bin/duragent.upgrade", format!("from {VERSION}\nto {}\nseconds {seconds}\ntries {tries}\n", later()));
    house
}

fn start(house: &House, args: &[&str]) -> Child {
    let mut command = house.command(&[&["serve"], args].concat());
    command.stderr(fs::File::create(house.path("log")).expect("made")).spawn().expect("it starts")
}

fn log(house: &House) -> String {
    String::from_utf8(house.read("log")).expect("UTF-8")
}

#[test]
fn a_first_start_that_becomes_ready_ends_the_trial() {
    let house = on_trial(60, 0);
    let server = house.serve();
    assert_eq!(answering(&house), Some(later()));
    until("the end of the trial", || (!house.names().contains(&"duragent.upgrade".to_owned())).then_some(()));
    drop(server);
    // Announced by a service manager's hook: that is the same start.
    let house = on_trial(60, 1);
    let server = house.serve();
    until("the end of the trial", || (!house.names().contains(&"duragent.upgrade".to_owned())).then_some(()));
    assert_eq!(answering(&house), Some(later()));
    drop(server);
}

#[test]
fn a_start_after_one_that_did_not_become_ready_is_the_old_one() {
    let house = on_trial(60, 2);
    let server = Served { child: start(&house, &[]), client: house.client() };
    until("the server", || answering(&house));
    assert_eq!(answering(&house).as_deref(), Some(VERSION), "{}", log(&house));
    assert_eq!(
        (house.version(), house.names()),
        (VERSION.to_owned(), vec!["duragent".to_owned(), "duragent.pub".to_owned()])
    );
    assert!(log(&house).contains("was started before and did not become ready"), "{}", log(&house));
    drop(server);
}

#[test]
fn a_server_that_cannot_serve_is_the_old_one_again() {
    let house = on_trial(60, 0);
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    let address = taken.local_addr().expect("an address").to_string();
    let mut child = start(&house, &["--listen", &address]);
    // The old one cannot have the address either, and says so.
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(log(&house).contains("cannot serve: "), "{}", log(&house));
    assert_eq!(
        (house.version(), house.names()),
        (VERSION.to_owned(), vec!["duragent".to_owned(), "duragent.pub".to_owned()])
    );
}

#[test]
fn a_server_that_hangs_is_the_old_one_again() {
    let house = on_trial(1, 0);
    // Nobody ever writes to it: who opens it to look for unfinished turns waits for good.
    fs::create_dir_all(house.path(".duragent/sessions/stuck")).expect("made");
    super::house::good(Command::new("mkfifo").arg(house.log_path("stuck")));
    let server = Served { child: start(&house, &[]), client: house.client() };
    until("the old one", || (answering(&house).as_deref() == Some(VERSION)).then_some(()));
    assert!(log(&house).contains("did not become ready in time"), "{}", log(&house));
    assert_eq!(house.version(), VERSION);
    drop(server);
}

#[test]
fn a_marker_of_a_change_that_never_came_about_is_taken_away() {
    let house = House::new();
    house.write("bin/duragent.old", script("0.0.1"));
    house.write("bin/duragent.upgrade", format!("from {VERSION}\nto {}\nseconds 60\ntries 0\n", later()));
    let server = house.serve();
    assert_eq!(answering(&house).as_deref(), Some(VERSION));
    assert_eq!(house.names(), ["duragent", "duragent.old", "duragent.pub"]);
    drop(server);
    // What is no marker is nothing.
    for junk in ["", "from\n", "from 1\nto 2\nseconds x\ntries 0\n"] {
        house.write("bin/duragent.upgrade", junk);
        drop(house.serve());
        assert_eq!(house.version(), VERSION);
    }
}

#[test]
fn hooks_of_a_service_manager_count_starts_for_a_server_that_may_not() {
    // The server may not write beside its binary: the owner of it does, before and after the start.
    let house = on_trial(60, 0);
    assert!(house.good(&["upgrade", "--settle"]).contains("is on trial"));
    let server = house.serve();
    until("the end of the trial", || (!house.names().contains(&"duragent.upgrade".to_owned())).then_some(()));
    house.write("bin/duragent.upgrade", format!("from {VERSION}\nto {}\nseconds 60\ntries 1\n", later()));
    assert!(house.good(&["upgrade", "--settle"]).contains("its trial is over"));
    assert_eq!(house.good(&["upgrade", "--settle"]), "nothing is on trial\n");
    drop(server);
    let house = on_trial(60, 0);
    house.good(&["upgrade", "--settle"]);
    assert!(house.good(&["upgrade", "--settle"]).contains(&format!("{VERSION} is back")));
    assert_eq!(house.version(), VERSION);
}

#[test]
fn without_a_server_the_next_start_is_the_trial() {
    let house = House::new();
    house.release(&later(), &real_later());
    let said = ended(house.command(&FROM).output().expect("it starts"));
    assert!(said.out.ends_with("no server is up; the next one to start is on trial\n"), "{said:?}");
    let server = house.serve();
    assert_eq!(answering(&house), Some(later()));
    until("the end of the trial", || (!house.names().contains(&"duragent.upgrade".to_owned())).then_some(()));
    drop(server);
}
