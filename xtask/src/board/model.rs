//! What boards talk to on the machine that emulates them: a model, and somebody whom tools tell of their effects.

use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where QEMU's user network has the machine that emulates, and its loopback with it.
const HOST: &str = "10.0.2.2";

/// The testkit's Ollama, answering as the messages ask.
pub struct Model {
    child: Child,
    /// Its URL, as boards reach it.
    pub url: String,
}

impl Model {
    /// Builds and starts it.
    ///
    /// # Errors
    /// If it does not build or does not say where it is.
    pub fn start(repo: &Repo) -> Result<Self> {
        const NAME: &str = "duragent-fake-model";
        repo::run(&mut repo.cargo(["build", "--quiet", "--package", "duragent-testkit", "--bin", NAME]))?;
        let program = repo.target_dir()?.join("debug").join(NAME);
        let mut command = Command::new(&program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| at(&program, &e))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let port = line.trim_end().rsplit_once(':').map(|(_, port)| port.to_owned());
        let model = |url| Self { child, url };
        match (read, port) {
            (Some(Ok(1..)), Some(port)) => Ok(model(format!("http://{HOST}:{port}"))),
            (read, _) => Err(Failure::new(format!("{NAME}: expected a URL, found {line:?}, {read:?}"))),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // It ends with its standard input.
        self.child.stdin.take();
        self.child.wait().ok();
    }
}

/// Hears of effects: `GET /effect/WHAT`. What it has heard, no pulled plug takes back.
pub struct Ear {
    address: SocketAddr,
    heard: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Ear {
    /// Listens on loopback, to its end.
    ///
    /// # Errors
    /// If there is no port.
    pub fn listen() -> Result<Self> {
        let wrong = |e: std::io::Error| Failure::new(format!("loopback: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // The effect has happened, whether the answer arrives or not.
                std::thread::spawn(move || hear(stream, &shared).is_ok());
            }
        });
        Ok(Self { address, heard })
    }

    /// The command of a tool that tells of the effect `what`; the shell expands it.
    #[must_use]
    pub fn told(&self, what: &str) -> String {
        format!("wget -q -O - http://{HOST}:{}/effect/{what}", self.address.port())
    }

    /// How often it has heard of what.
    #[must_use]
    pub fn heard(&self) -> BTreeMap<String, usize> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn hear(stream: TcpStream, heard: &Mutex<BTreeMap<String, usize>>) -> std::io::Result<()> {
    const SILENCE_MAX: Duration = Duration::from_secs(30);
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    reader.read_line(&mut line)?;
    if let Some(what) = line.split(' ').nth(1).and_then(|path| path.strip_prefix("/effect/")) {
        *heard.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default() += 1;
    }
    // To the empty line.
    while reader.read_line(&mut line)? > 2 {}
    reader.into_inner().write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
}
