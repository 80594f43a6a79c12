//! curl, as people use it.

use crate::guide::{NAME, TOKEN};
use crate::house::eventually;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The way to a proxy.
pub struct Way {
    /// `http` or `https`.
    pub scheme: &'static str,
    pub port: u16,
    /// In front of every path.
    pub base: &'static str,
    /// The certificate that is to be trusted.
    pub certificate: Option<String>,
}

/// A status and a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Way {
    fn curl(&self, path: &str, args: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-N", "--max-time", "120", "--noproxy", "*"]);
        command.args(["--resolve", &format!("{NAME}:{}:127.0.0.1", self.port)]);
        if let Some(certificate) = &self.certificate {
            command.args(["--cacert", certificate]);
        }
        command.args(args).arg(format!("{}://{NAME}:{}{}{path}", self.scheme, self.port, self.base));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Without a token; `None` if nobody answers.
    pub fn stranger(&self, path: &str, args: &[&str]) -> Option<Reply> {
        let output = self.curl(path, &[&["-i"], args].concat()).output();
        let output = output.expect("curl: not found; install the Debian package curl");
        let text = String::from_utf8(output.stdout).expect("UTF-8").replace('\r', "");
        let (head, body) = text.split_once("\n\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// With the token.
    pub fn ask(&self, path: &str, args: &[&str]) -> Reply {
        let token = format!("Authorization: Bearer {TOKEN}");
        self.stranger(path, &[&["-H", &token], args].concat()).expect("an answer")
    }

    /// A body of JSON, with the token.
    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.ask(path, &["-H", "Content-Type: application/json", "-H", "Expect:", "-d", body])
    }

    /// A stream, with the token.
    pub fn stream(&self, path: &str, args: &[&str]) -> Stream {
        let token = format!("Authorization: Bearer {TOKEN}");
        let mut command = self.curl(path, &[&["-H", &token], args].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("curl starts");
        let mut out = child.stdout.take().expect("a pipe");
        let said = Arc::new(Mutex::new(String::new()));
        let more = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buffer) {
                more.lock().expect("text").push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Stream { child, said, reader: Some(reader) }
    }
}

/// What has arrived of a stream.
pub struct Stream {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    pub fn said(&self) -> String {
        self.said.lock().expect("text").clone()
    }

    /// Waits until `text` has arrived.
    pub fn hears(&self, text: &str) {
        eventually(text, || self.said().contains(text));
    }

    /// Waits for the end.
    pub fn end(mut self) -> String {
        assert!(self.child.wait().expect("curl ends").success());
        // Until then some of it may be in the pipe.
        self.reader.take().map(JoinHandle::join).expect("asked once").expect("no panic");
        self.said()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ids of the events of a stream.
pub fn ids(said: &str) -> Vec<u64> {
    said.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}
