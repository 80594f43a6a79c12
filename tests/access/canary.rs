//! Tokens and keys are put everywhere they may be, everything is tried that works and that fails, and then they are looked
//! for everywhere they may not be.
//!
//! The server runs as an ordinary user where the tests are run by root: what protects it from other processes of its own
//! user would not show otherwise.

use crate::client::{JSON, bearer, read, send, tcp};
use crate::house::{Asked, House, Model, Served, begin, eventually, finish, piece};
use duragent_platform::process;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

/// Where the secret stands, and what it is.
const TOKEN: &str = "canary-token-Qm3xZt0b";
const ADMIN: &str = "canary-admin-w8RkLp2v";
const KEY: &str = "canary-key-variable-Hc5nYd7j";
const KEY_IN_FILE: &str = "canary-key-file-Vt9sBg4f";
const HEADER: &str = "canary-header-Xu6eMa1k";
const ALL: [&str; 5] = [TOKEN, ADMIN, KEY, KEY_IN_FILE, HEADER];

/// Files that hold secrets because the test put them there, as seen from the house.
const TOLD: [&str; 3] = [".duragent/admin", ".duragent/key", ".duragent/duragent.yaml"];

const SERVER: &str = "address: '127.0.0.1:0', api_token: '${TOKEN}', admin_token_file: admin";

/// Nobody has this number.
const ORDINARY: u32 = 47_998;

/// What the model can be asked for.
const WORDS: [&str; 7] = ["refuse", "babble", "redirect", "break", "garble", "greet", "look around"];

/// The secrets in these bytes.
fn found(bytes: &[u8]) -> Vec<&'static str> {
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    ALL.into_iter().filter(|secret| holds(secret)).collect()
}

fn clean(what: &str, text: &str) {
    assert_eq!(found(text.as_bytes()), [""; 0], "{what}: {text}");
}

/// As the ordinary user, who owns everything in the house.
fn as_ordinary<'c>(house: &House, command: &'c mut Command) -> &'c mut Command {
    if process::uid() == 0 {
        own(&house.root);
        command.uid(ORDINARY).gid(ORDINARY);
    }
    command
}

fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(ORDINARY), Some(ORDINARY)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).expect("a folder").flatten().for_each(|entry| own(&entry.path()));
    }
}

/// A model that quotes what it was sent, in every way in which a model can fail.
fn indiscreet(echoed: Sender<String>) -> Model {
    Model::start(move |asked, stream| {
        let Asked { head, body } = asked;
        echoed.send(head.clone()).ok();
        let said = head.replace("\r\n", " ").replace('"', "'");
        let whole = |stream: &mut TcpStream, status: &str, kind: &str, text: &str| {
            let length = text.len();
            let answer =
                format!("HTTP/1.1 {status}\r\n{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}");
            stream.write_all(answer.as_bytes()).expect("the agent reads");
        };
        // What was said last is what is asked for: messages that nobody answered stand before it in one with it.
        let last = WORDS.into_iter().max_by_key(|word| body.rfind(word).map_or(0, |at| at + 1));
        let asked_for = |word: &str| last == Some(word);
        if head.starts_with("GET") || asked_for("refuse") {
            whole(
                stream,
                "401 No",
                "Content-Type: application/json\r\n",
                &format!("{{\"error\":{{\"message\":\"bad key: {said}\"}}}}"),
            );
        } else if asked_for("babble") {
            whole(stream, "500 No", "", &said);
        } else if asked_for("redirect") {
            let key = said.split("Bearer ").nth(1).unwrap_or_default().split(' ').next().unwrap_or_default();
            whole(stream, "307 There", &format!("Location: /v1/{key}\r\n"), "");
        } else if asked_for("break") {
            begin(stream);
            piece(stream, "so far");
            stream
                .write_all(format!("data: {{\"error\":{{\"message\":\"{said}\"}}}}\n\n").as_bytes())
                .expect("it reads");
        } else if asked_for("garble") {
            begin(stream);
            stream.write_all(format!("data: {said}\n\n").as_bytes()).expect("it reads");
        } else if asked_for("look around") && !body.contains("\"tool\"") {
            let call = format!(
                "{{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"c\",\"type\":\"function\",\
                 \"function\":{{\"name\":\"bash\",\"arguments\":\"{{\\\"command\\\":\\\"{LOOK}\\\"}}\"}}}}]}}}}]}}"
            );
            begin(stream);
            stream.write_all(format!("data: {call}\n\n").as_bytes()).expect("it reads");
            finish(stream, "tool_calls");
        } else {
            begin(stream);
            piece(stream, "well");
            finish(stream, "stop");
        }
    })
}

/// What a tool does that wants to know: its environment, that of everybody it can see, their command lines, and the files of the
/// runtime. It says when it runs, and waits to be let go.
const LOOK: &str = "touch started; until [ -e go ]; do sleep 0.05; done; env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline \
                    .duragent/* /proc/self/environ 2>&1 | tr '\\\\\\\\0' '\\\\\\\\n'; echo looked";

fn house(model: &Model) -> House {
    let house = House::new(SERVER, model);
    let common = model.provider();
    let fake = format!("{common}, api_key_env: KEY, headers: {{X-Team: {HEADER}}}");
    house.configure(SERVER, &fake);
    let path = house.root.join(".duragent/duragent.yaml");
    let text = fs::read_to_string(&path).expect("it was written");
    let two = format!("providers: {{other: {{{common}, api_key_file: key}}, ");
    house.write(".duragent/duragent.yaml", &text.replace("providers: {", &two));
    let agent = fs::read_to_string(house.root.join(".duragent/agents/bot/agent.yaml")).expect("it was written");
    house.write(".duragent/agents/cat/agent.yaml", &agent.replace("name: bot", "name: cat").replace("fake", "other"));
    house.write(".duragent/admin", &format!("{ADMIN}\n"));
    house.write(".duragent/key", &format!("{KEY_IN_FILE}\n"));
    house
}

const VARIABLES: [(&str, &str); 2] = [("TOKEN", TOKEN), ("KEY", KEY)];

/// Requests that succeed and fail with tokens in them; everything that was answered.
fn requests(served: &Served) -> String {
    let mut said = String::new();
    let mut ask = |line: &str, headers: &str, body: &str, statuses: &[u16]| {
        let reply = served.reply(line, headers, body);
        assert!(statuses.contains(&reply.status), "{line}: {reply:?}");
        said.push_str(&format!("{}\n{}\n", reply.head, reply.body));
    };
    let (api, admin) = (bearer(TOKEN) + JSON, bearer(ADMIN) + JSON);
    for session in [("bot", "a"), ("cat", "b")] {
        let (agent, id) = session;
        ask("POST /api/v1/sessions", &api, &format!(r#"{{"agent":"{agent}","id":"{id}"}}"#), &[201]);
        for word in WORDS.into_iter().filter(|word| *word != "look around") {
            let path = format!("POST /api/v1/sessions/{id}/messages?wait=60");
            ask(&path, &api, &format!(r#"{{"content":"{word}"}}"#), &[200]);
        }
        for path in ["", "/messages", "/events?follow=false&limit=1000", "/export"] {
            ask(&format!("GET /api/v1/sessions/{id}{path}"), &api, "", &[200]);
        }
    }
    for path in ["/version", "/metrics", "/api/v1/agents", "/api/v1/sessions", "/livez", "/nope"] {
        ask(&format!("GET {path}"), &admin, "", &[200, 404]);
    }
    ask("POST /api/admin/v1/reload", &admin, "", &[200]);
    ask("POST /api/admin/v1/reload", &api, "", &[401]);
    ask("POST /api/v1/sessions", &bearer(TOKEN), "{}", &[415]);
    ask("GET /version", &bearer(&format!("{TOKEN}x")), "", &[401]);
    ask("GET /version", &format!("Authorization: Basic {TOKEN}\r\n"), "", &[401]);
    ask("GET /version", &format!("Authorization: {TOKEN}\r\n"), "", &[401]);
    ask("GET /version", &(bearer(TOKEN) + &bearer(ADMIN)), "", &[400]);
    ask("GET /version", &(bearer(TOKEN) + "Host: evil.example\r\n"), "", &[400, 403]);
    ask("BREW /version", &api, "", &[501]);
    ask("POST /api/v1/sessions", &api, "{\"agent\":", &[400]);
    let line = format!("Authorization: Bearer {TOKEN}");
    for broken in [
        format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{line}\n\r\n"),
        format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{line}\r\n {ADMIN}\r\n\r\n"),
        format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{line}\0\r\n\r\n"),
        format!("GET /version HTTP/1.1\r\n{line}\r\n\r\n"),
        format!("GET /version HTTP/3.0\r\nHost: localhost\r\n{line}\r\n\r\n"),
        format!("{line}\r\n\r\n"),
    ] {
        let mut wire = tcp(served);
        send(&mut wire, &broken);
        let reply = read(&mut wire);
        assert!(reply.status >= 400, "{broken:?}: {reply:?}");
        said.push_str(&reply.body);
    }
    said
}

/// Command lines and environments of everything below the server, and the command line of itself.
fn processes(server: u32) -> (String, String) {
    let read = |pid: u32, what: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ") + "\n"
    };
    let below = process::descendants(server);
    let lines = below.iter().chain([&server]).map(|pid| read(*pid, "cmdline")).collect();
    (lines, below.iter().map(|pid| read(*pid, "environ")).collect())
}

/// Secrets in files of the house that the test did not put there.
fn leaks(house: &House, folder: &Path, list: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(&house.root).expect("inside").to_string_lossy().into_owned();
        if path.is_dir() {
            leaks(house, &path, list);
        } else if path.is_file() && !TOLD.contains(&name.as_str()) {
            let bytes = fs::read(&path).expect("it can be read");
            list.extend(found(&bytes).into_iter().map(|secret| format!("{name}: {secret}")));
        }
    }
}

#[test]
fn secrets_stay_where_they_were_put() {
    let (echo, echoed) = channel();
    let model = indiscreet(echo);
    let house = house(&model);
    let served = Served::start(as_ordinary(&house, &mut house.command(&["serve"], &VARIABLES)));
    clean("answers", &requests(&served));
    let heard: String = echoed.try_iter().collect();
    assert_eq!(
        found(heard.as_bytes()),
        [KEY, KEY_IN_FILE, HEADER],
        "the control: the model was told, and said it again"
    );

    // A tool, from inside and from outside.
    let ask = |line: &str, body: &str| served.reply(line, &(bearer(TOKEN) + JSON), body);
    assert_eq!(ask("POST /api/v1/sessions/a/messages", r#"{"content":"look around"}"#).status, 202);
    eventually("the tool starts", || house.root.join("started").exists());
    let (lines, environments) = processes(served.child.id());
    assert!(lines.contains("serve") && lines.contains("started"), "the control: {lines}");
    assert!(environments.contains("PATH="), "the control: {environments}");
    clean("command lines", &lines);
    clean("environments", &environments);
    house.write("go", "");
    eventually("the tool ends", || ask("GET /api/v1/sessions/a", "").body.contains("\"idle\""));
    let log = ask("GET /api/v1/sessions/a/export", "").body;
    assert!(log.contains("looked") && log.contains("DURAGENT_SESSION"), "the control: {log}");
    clean("what the tool saw", &log);

    // A configuration that is wrong at every secret: refused over HTTP and by a signal, and explained by commands.
    let good = fs::read_to_string(house.root.join(".duragent/duragent.yaml")).expect("it is there");
    let mut said = String::new();
    let run = |args: &[&str]| {
        let output = as_ordinary(&house, &mut house.command(args, &VARIABLES)).output().expect("the binary starts");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    said += &(run(&["check", "-T"]) + &run(&["doctor"]) + &run(&["doctor", "--json"]));
    assert!(said.contains("api_token: \"***\"") && said.contains("bad key: "), "the control: {said}");
    for (from, to) in [
        ("api_token: '${TOKEN}'", format!("api_token: [{TOKEN}]")),
        ("api_token: '${TOKEN}'", format!("api_token: '{TOKEN}', api_token: '{TOKEN}'")),
        ("api_token: '${TOKEN}'", format!("api_token: {{{TOKEN}: {ADMIN}}}")),
        ("api_token: '${TOKEN}'", format!("api_token: '{TOKEN}', address: 0.0.0.0:1, adress: ''")),
        ("api_token: '${TOKEN}'", format!("api_token: '{TOKEN}', api_token_file: admin")),
        ("api_token: '${TOKEN}'", format!("api_token: \"{TOKEN}")),
        ("api_token: '${TOKEN}'", format!("api_token: *{TOKEN}")),
        ("api_token: '${TOKEN}'", "api_token: '${TOKEN', trusted_proxies: ['${TOKEN}'], base_path: 1".to_owned()),
        (HEADER, format!("[{HEADER}]")),
        (HEADER, format!("\"{HEADER}\\n\"")),
        ("base_url: 'http://", format!("base_url: 'ftp://{KEY}:{KEY}@")),
    ] {
        let broken = good.replace(from, &to);
        assert_ne!(broken, good, "{from}");
        house.write(".duragent/duragent.yaml", &broken);
        let told = run(&["check", "-T"]);
        assert!(told.contains("error: duragent.yaml"), "{to}: {told}");
        said += &(told + &run(&["doctor"]) + &run(&["ls"]));
        said += &served.reply("POST /api/admin/v1/reload", &bearer(ADMIN), "").body;
        let before = served.log().len();
        kill("-HUP", served.child.id());
        eventually("the server says why", || served.log().get(before..).is_some_and(|log| log.contains("not taken")));
    }
    clean("commands and refusals", &said);
    clean("the server's log", &served.log());

    drop(served);
    house.write(".duragent/duragent.yaml", &good);
    let mut list = Vec::new();
    leaks(&house, &house.root, &mut list);
    assert_eq!(list, [""; 0]);
    house.write("copy", &format!("a line\nwith {KEY} in it"));
    leaks(&house, &house.root, &mut list);
    assert_eq!(list, [format!("copy: {KEY}")], "the control: the search finds what is there");
    for (file, secret) in TOLD.iter().zip([ADMIN, KEY_IN_FILE, HEADER]) {
        let bytes = fs::read(house.root.join(file)).expect("it is there");
        assert_eq!(found(&bytes), [secret], "the control: {file}");
    }
}

#[test]
fn the_servers_memory_is_its_own() {
    let (echo, _echoed) = channel();
    let house = house(&indiscreet(echo));
    let limitless = |program: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).args(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(VARIABLES).current_dir(&house.root);
        command
    };
    let mut served = Served::start(as_ordinary(&house, &mut limitless(&[env!("CARGO_BIN_EXE_duragent"), "serve"])));
    let mut command = limitless(&["sleep", "1000"]);
    let mut bystander = Bystander(
        as_ordinary(&house, command.stdout(Stdio::null()).stderr(Stdio::null())).spawn().expect("sleep starts"),
    );
    let environment = |pid: u32| {
        let output = as_ordinary(&house, Command::new("cat").arg(format!("/proc/{pid}/environ"))).output();
        found(&output.expect("cat").stdout)
    };
    eventually("sleep runs", || {
        fs::read(format!("/proc/{}/cmdline", bystander.0.id())).is_ok_and(|c| c.starts_with(b"sleep"))
    });
    assert_eq!(environment(bystander.0.id()), [TOKEN, KEY], "the control: processes of one user see each other's");
    assert_eq!(environment(served.child.id()), [""; 0]);
    for pid in [served.child.id(), bystander.0.id()] {
        kill("-ABRT", pid);
    }
    let ends = [served.child.wait().expect("it ends"), bystander.0.wait().expect("it ends")];
    assert_eq!(ends.map(|end| end.signal()), [Some(6); 2]);
    assert!(!ends[0].core_dumped(), "the server left a core");
    let mut list = Vec::new();
    leaks(&house, &house.root, &mut list);
    // Where cores go to a program or to another folder, the environment above is the control.
    let here =
        fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| !pattern.starts_with(['|', '/']));
    assert_eq!(
        here,
        ends[1].core_dumped() && !list.is_empty(),
        "the control: sleep leaves a core with its environment"
    );
    list.retain(|leak| !leak.starts_with("core"));
    assert_eq!(list, [""; 0]);
}

/// A process that ends with the test.
struct Bystander(Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "kill {signal} {pid}");
}
