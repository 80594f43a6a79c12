//! The snippets of docs/operations.md, and a server that is configured by one of them.

use crate::house::{House, Model, Served, begin, eventually, finish, piece};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

/// The name in all snippets.
pub const NAME: &str = "agents.example.org";

pub const TOKEN: &str = "the-token-of-the-house";

/// The code block after the marker `name`.
pub fn snippet(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = fs::read_to_string(path).expect("the guide is there");
    let marker = format!("<!-- tested: {name} -->\n```");
    let (_, rest) = text.split_once(&marker).unwrap_or_else(|| panic!("no snippet {name} in {path}"));
    let (_, rest) = rest.split_once('\n').expect("a code block");
    rest.split_once("```").expect("a code block with an end").0.to_owned()
}

/// Replaces what has to be there.
pub fn put(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "expected {from:?} in the snippet: {text}");
        text.replace(from, to)
    })
}

/// A port of loopback that nobody listens on; somebody could take it before we do.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    listener.local_addr().expect("an address").port()
}

/// A server as the guide has it, and a model that holds back the rest of an answer until it is let go.
pub struct Behind {
    pub house: House,
    pub served: Served,
    go: Sender<()>,
}

impl Behind {
    /// With the snippet `name`; `more` has lines of the section.
    pub fn new(name: &str, more: &str) -> Self {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let model = Model::start(move |asked, stream| {
            begin(stream);
            piece(stream, "first");
            // What was said last is what is asked for.
            if asked.body.rfind("hold") > asked.body.rfind("greet") {
                wait.lock().expect("one at a time").recv().ok();
            }
            piece(stream, " and last");
            finish(stream, "stop");
        });
        let house = House::new("", &model);
        house.write(".duragent/api-token", TOKEN);
        let run = house.root.join("run");
        fs::create_dir(&run).expect("a folder");
        let pairs: &[(&str, &str)] = match name {
            "unix" => &[("/run/duragent", run.to_str().expect("UTF-8"))],
            _ => &[("127.0.0.1:8410", "127.0.0.1:0")],
        };
        share(&run);
        let text = fs::read_to_string(house.root.join(".duragent/duragent.yaml")).expect("it was written");
        let server = put(&snippet(name), pairs) + "  ping_seconds: 1\n" + more;
        house.write(".duragent/duragent.yaml", &put(&text, &[("server: {}\n", &server)]));
        let served = house.serve();
        Self { house, served, go }
    }

    /// Lets the model say the rest.
    pub fn go_on(&self) {
        self.go.send(()).expect("the model waits");
    }

    /// Where the server listens, as `127.0.0.1:8410` in the snippets.
    pub fn tcp(&self) -> String {
        self.served.address.expect("a TCP listener").to_string()
    }

    /// Folder of the socket, as `/run/duragent` in the snippets.
    pub fn run(&self) -> String {
        self.house.root.join("run").to_str().expect("UTF-8").to_owned()
    }
}

/// Does what the guide's line for tmpfiles.d does: sockets in the folder belong to the proxy's group.
fn share(folder: &Path) {
    if duragent_platform::process::uid() == 0 {
        let groups = fs::read_to_string("/etc/group").expect("groups");
        let group = groups.lines().find_map(|line| line.strip_prefix("www-data:x:")?.split(':').next()?.parse().ok());
        chown(folder, None, Some(group.expect("www-data: no such group"))).expect("root may");
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o2750)).expect("chmod");
}

/// A proxy that ends with the test.
pub struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Starts it, with what it says in a file.
    pub fn start(command: &mut Command, package: &str, log: &Path) -> Self {
        let file = fs::File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = child.unwrap_or_else(|e| panic!("{program}: {e}; install the Debian package {package}"));
        Self { child, log: log.to_path_buf() }
    }

    /// Waits until it answers.
    pub fn ready(&mut self, mut answers: impl FnMut() -> bool) {
        eventually("the proxy answers", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("the proxy ended with {status}: {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            answers()
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Not KILL: nginx would leave its workers behind.
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }
}
