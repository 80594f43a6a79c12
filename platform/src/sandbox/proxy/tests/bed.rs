//! A proxy to try, with a scripted world around it.

use super::super::dial::Outside;
use super::super::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// Long enough for a machine that is busy with other things; only a failed test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Held exclusively by tests that count what all proxies of this process use.
static ALL_PROXIES: RwLock<()> = RwLock::new(());

pub(super) enum Turn {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

pub(super) fn shared() -> Turn {
    Turn::Shared(ALL_PROXIES.read().unwrap_or_else(PoisonError::into_inner))
}

pub(super) fn alone() -> Turn {
    Turn::Alone(ALL_PROXIES.write().unwrap_or_else(PoisonError::into_inner))
}

/// Never runs out in a test that does not change it.
pub(super) const FOR_EVER: Times = {
    let hour = Duration::from_secs(3600);
    Times { head_max: hour, dial_max: hour, idle_max: hour, linger_max: hour }
};

/// What the proxy did outside.
#[derive(Default)]
pub(super) struct Outer {
    pub(super) looked_up: Mutex<Vec<String>>,
    pub(super) dialled: Mutex<Vec<String>>,
}

/// Answers each lookup with the next list for the name, and dials loopback only.
pub(super) fn scripted(names: &[(&str, &[&str])]) -> (Outside, Arc<Outer>) {
    let outer = Arc::new(Outer::default());
    let address = |text: &&str| text.parse::<IpAddr>().unwrap();
    let script = names.iter().map(|(name, found)| (name.to_string(), found.iter().map(address).collect::<Vec<_>>()));
    let script = Mutex::new(script.collect::<Vec<_>>());
    let (on_resolve, on_connect) = (Arc::clone(&outer), Arc::clone(&outer));
    let resolve = move |name: &str, _| {
        on_resolve.looked_up.lock().unwrap().push(name.to_owned());
        let mut script = script.lock().unwrap();
        match script.iter().position(|(known, _)| known == name) {
            Some(at) => Ok(script.remove(at).1),
            None => Err(io::Error::other("scripted: no such name")),
        }
    };
    let connect = move |address: SocketAddr, timeout| {
        on_connect.dialled.lock().unwrap().push(address.to_string());
        if address.ip().is_loopback() {
            TcpStream::connect_timeout(&address, timeout)
        } else {
            Err(io::Error::other("scripted: not dialled"))
        }
    };
    (Outside { resolve: Arc::new(resolve), connect: Arc::new(connect) }, outer)
}

/// A proxy, and where it listens.
pub(super) struct Bed {
    pub(super) proxy: Proxy,
    pub(super) at: SocketAddr,
    pub(super) outer: Arc<Outer>,
    pub(super) _turn: Turn,
}

/// `allowed` has items like `host:port`.
pub(super) fn bed_of(turn: Turn, allowed: &[&str], (outside, outer): (Outside, Arc<Outer>), times: Times) -> Bed {
    let endpoint = |text: &&str| {
        let (host, port) = text.rsplit_once(':').unwrap();
        Endpoint { host: host.into(), port: port.parse().unwrap() }
    };
    let allowed: Vec<_> = allowed.iter().map(endpoint).collect();
    let (listener, at) = listen();
    let proxy = Proxy::start_with(listener, &allowed, outside, times).unwrap();
    Bed { proxy, at, outer, _turn: turn }
}

pub(super) fn bed(allowed: &[&str], names: &[(&str, &[&str])]) -> Bed {
    bed_of(shared(), allowed, scripted(names), FOR_EVER)
}

impl Bed {
    pub(super) fn connect(&self) -> TcpStream {
        connect(self.at)
    }

    /// All that comes back for `request`.
    pub(super) fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        rest(&mut client)
    }

    /// An open tunnel to `target`.
    pub(super) fn tunnel(&self, target: &str) -> TcpStream {
        let mut client = self.connect();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        expect(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
        client
    }

    pub(super) fn check(&self, request: &str, status: u16, text: &str) {
        let answer = self.ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{request:?}: {answer:?}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{request:?}: {answer:?}");
        assert!(body.starts_with("duragent: ") && body.contains(text), "{request:?}: {answer:?}");
    }

    pub(super) fn finish(self) -> Vec<(String, String)> {
        let refusals = self.proxy.finish();
        assert!(refusals.iter().all(|refusal| refusal.kind == RefusalKind::Net));
        refusals.into_iter().map(|refusal| (refusal.what, refusal.hint)).collect()
    }
}

pub(super) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

pub(super) fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

pub(super) fn connect(at: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(at).unwrap())
}

pub(super) fn accept(listener: &TcpListener) -> TcpStream {
    let mut sources = [poll::Source::new(Some(listener.as_fd()))];
    poll::wait(&mut sources, Some(PATIENCE)).unwrap();
    assert!(sources[0].ready, "nobody connects");
    patient(listener.accept().unwrap().0)
}

pub(super) fn rest(from: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(super) fn expect(from: &mut TcpStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    from.read_exact(&mut found).unwrap();
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
}

/// Reads to the end, or the error that a connection ends with.
pub(super) fn has_ended(mut socket: &TcpStream) -> bool {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
}

pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Something that hangs until it is opened.
#[derive(Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    pub(super) fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// Looking up `slow` hangs, and so does connecting to 192.0.2.1.
pub(super) fn hanging() -> (Outside, Arc<Outer>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let (on_resolve, on_connect) = (Arc::clone(&gate), Arc::clone(&gate));
    let (outside, outer) = scripted(&[]);
    let resolve = move |_: &str, _| {
        on_resolve.wait();
        Err(io::Error::other("scripted: given up"))
    };
    let connect = move |address: SocketAddr, timeout| {
        if address.ip().is_loopback() {
            return (outside.connect)(address, timeout);
        }
        on_connect.wait();
        Err(io::Error::other("scripted: given up"))
    };
    (Outside { resolve: Arc::new(resolve), connect: Arc::new(connect) }, outer, gate)
}

/// Threads of all proxies of this process.
pub(super) fn threads() -> usize {
    let is_ours = |task: io::Result<std::fs::DirEntry>| {
        let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm"))).unwrap_or_default();
        name.starts_with("proxy ")
    };
    std::fs::read_dir("/proc/self/task").unwrap().map(is_ours).filter(|ours| *ours).count()
}

/// Writes up to `max` bytes, until nothing was taken for a while. The count, and the socket is non-blocking after this.
pub(super) fn stuff(mut to: &TcpStream, max: usize) -> usize {
    to.set_nonblocking(true).unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    let (mut count, mut last) = (0, Instant::now());
    while count < max && last.elapsed() < Duration::from_millis(500) {
        match to.write(&chunk) {
            Ok(written) => (count, last) = (count + written, Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    }
    to.set_nonblocking(false).unwrap();
    count
}
