//! What the server tells a supervisor, to a socket that listens as systemd's does.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A tool call that writes down what environment it has, and an answer.
const ENVIRONMENT: &str =
    "{\"tool_calls\":[{\"name\":\"bash\",\"arguments\":{\"command\":\"env\"}}]}\n{\"deltas\":[\"Done.\"]}\n";

struct House {
    root: PathBuf,
    server: Option<Child>,
}

impl House {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("duragent-service-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(root.join(".duragent/agents/bot")).expect("a folder");
        let write = |name: &str, text: &str| fs::write(root.join(".duragent").join(name), text).expect("a file");
        write(
            "duragent.yaml",
            "sandbox: {mode: trust}\nproviders: {tape: {kind: replay, file: ./tape.jsonl}}\nserver: {address: \"unix:other.sock\"}\n",
        );
        write("tape.jsonl", ENVIRONMENT);
        write("policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n");
        write(
            "agents/bot/agent.yaml",
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: bot}\nspec:\n  model: {provider: tape, name: tape}\n  tools: [{type: builtin, name: bash}]\n",
        );
        Self { root, server: None }
    }

    /// A socket in the house, and its address.
    fn socket(&self) -> (UnixDatagram, String) {
        let path = self.root.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        (socket, path.to_str().expect("UTF-8").to_owned())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.root).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    fn serve(&mut self, variables: &[(&str, &str)]) {
        let mut command = self.command(&["serve"]);
        command.envs(variables.iter().copied()).stderr(Stdio::null());
        self.server = Some(command.spawn().expect("the binary starts"));
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    fn signal(&self, signal: &str) {
        let id = self.server.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill can be run").success());
    }

    fn code(&mut self) -> Option<i32> {
        self.server.take().expect("it runs").wait().expect("our child").code()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().ok();
            server.wait().ok();
        }
        fs::remove_dir_all(&self.root).ok();
    }
}

/// The next datagram; `None` if nothing comes in time.
fn next(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 4096];
    let n = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// The next one that is no sign of life.
fn news(socket: &UnixDatagram) -> String {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match next(socket) {
            Some(text) if text.starts_with("WATCHDOG=1") => {}
            Some(text) => return text,
            None => break,
        }
    }
    panic!("nothing was said in time");
}

#[test]
fn a_life_is_told_in_order() {
    let mut house = House::new("life");
    let (socket, address) = house.socket();
    house.serve(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "200000")]);
    let ready = news(&socket);
    let (first, status) = ready.split_once('\n').expect("two lines");
    assert_eq!(first, "READY=1");
    assert!(status.starts_with("STATUS=listening on unix:") && status.ends_with("; sessions in memory: 0"), "{status}");
    // Bound and recovered: clients are answered.
    assert!(house.run(&["ps"]).status.success());

    let is_reloading = |text: &str| {
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split('\n').next());
        let uptime = fs::read_to_string("/proc/uptime").expect("it can be read");
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        let said: f64 = usec.expect("a time").parse().expect("a number");
        assert!((said / 1e6 - uptime).abs() < 60.0, "{text}: the clock that systemd compares it with says {uptime}");
    };
    for how in ["hup", "reload", "bad"] {
        match how {
            "hup" => house.signal("-HUP"),
            "reload" => assert!(house.run(&["reload"]).status.success()),
            _ => {
                fs::write(house.root.join(".duragent/duragent.yaml"), "bogus: 1\n").expect("a file");
                assert!(!house.run(&["reload"]).status.success());
            }
        }
        is_reloading(&news(&socket));
        assert!(news(&socket).starts_with("READY=1\n"), "{how}: whatever came of it, it serves");
    }
    house.signal("-TERM");
    assert_eq!(news(&socket), "STOPPING=1\nSTATUS=draining");
    assert_eq!(house.code(), Some(0));
}

#[test]
fn an_abstract_socket_is_told_too() {
    let mut house = House::new("abstract");
    let name = format!("duragent-service-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    house.serve(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    assert!(news(&socket).starts_with("READY=1\n"));
}

#[test]
fn the_watchdog_is_fed_while_the_loop_runs_and_not_while_it_does_not() {
    let mut house = House::new("watchdog");
    let (socket, address) = house.socket();
    house.serve(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "400000")]);
    assert!(news(&socket).starts_with("READY=1\n"));
    for _ in 0..5 {
        assert!(next(&socket).expect("in time").starts_with("WATCHDOG=1\nSTATUS=listening on "));
    }
    // The control: a process that is stopped says nothing, and a supervisor would notice.
    let held = hold(&house, &socket);
    assert!(held, "a held loop says nothing");
    house.signal("-CONT");
    assert!(next(&socket).expect("in time").starts_with("WATCHDOG=1"), "it goes on");
}

/// Stops the server; true if nothing was said for many times as long as it takes to say something.
fn hold(house: &House, socket: &UnixDatagram) -> bool {
    house.signal("-STOP");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("it can be set");
    // What was sent before.
    let mut rest = 0;
    while next(socket).is_some() {
        rest += 1;
        assert!(rest < 1000, "it never ends");
    }
    let silent = next(socket).is_none();
    socket.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    silent
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    for (pid, fed) in [("1", false), ("", true)] {
        let mut house = House::new(&format!("other{pid}"));
        let (socket, address) = house.socket();
        let mut variables = vec![("NOTIFY_SOCKET", &*address), ("WATCHDOG_USEC", "100000")];
        if !fed {
            variables.push(("WATCHDOG_PID", pid));
        }
        house.serve(&variables);
        assert!(news(&socket).starts_with("READY=1\n"));
        if !fed {
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("it can be set");
        }
        assert_eq!(next(&socket).is_some(), fed, "WATCHDOG_PID={pid}");
    }
}

#[test]
fn nobody_need_listen() {
    for address in ["/nowhere/at/all", "relative", "@nobody-listens-here"] {
        let mut house = House::new("nobody");
        house.serve(&[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "100000")]);
        let start = Instant::now();
        while !house.run(&["ps"]).status.success() || !house.root.join(".duragent/duragent.sock").exists() {
            assert!(start.elapsed() < PATIENCE, "{address}: it never answers");
            std::thread::sleep(Duration::from_millis(20));
        }
        house.signal("-TERM");
        assert_eq!(house.code(), Some(0), "{address}");
    }
}

#[test]
fn tools_know_nothing_of_it() {
    let mut house = House::new("tools");
    let (socket, address) = house.socket();
    house.serve(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "600000000"), ("CREDENTIALS_DIRECTORY", "/run/c")]);
    assert!(news(&socket).starts_with("READY=1\n"));
    let ended = house.run(&["run", "bot", "go", "--session", "env"]);
    assert!(ended.status.success(), "{ended:?}");
    let log = fs::read_to_string(house.root.join(".duragent/sessions/env/events.jsonl")).expect("a log");
    let result = log.lines().find(|line| line.contains("\"tool_finished\"")).expect("a tool has run");
    assert!(result.contains("PATH="), "the control: it says what it has: {result}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG", "CREDENTIALS_DIRECTORY"] {
        assert!(!result.contains(name), "{name}: {result}");
    }
}

#[test]
fn a_line_feed_goes_to_the_ready_fd_whoever_owns_it() {
    let mut house = House::new("ready");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" serve --ready-fd 3 3>&1 1>/dev/null", env!("CARGO_BIN_EXE_duragent")]);
    command.current_dir(&house.root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().expect("sh can be run");
    let mut reader = server.stdout.take().expect("a pipe");
    house.server = Some(server);
    let mut said = [0; 1];
    std::io::Read::read_exact(&mut reader, &mut said).expect("it says something");
    assert_eq!(&said, b"\n");
    // What is not open is a mistake, and said at once.
    let ended = house.run(&["serve", "--ready-fd", "77"]);
    assert_eq!(ended.status.code(), Some(2));
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(error.starts_with("error: --ready-fd 77: ") && error.contains("\nhint: "), "{error}");
}
