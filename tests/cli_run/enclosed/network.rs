//! The network: none, all, and by list through the proxy. Spoken by bash itself over `/dev/tcp`, which every machine has.

use super::yard::{ENCLOSING, TRUST, USERS, User, Yard, bash};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A web server on a port of its own, for as long as the tests run.
struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                // One that connects and leaves is counted as well.
                answer(&client).ok();
            }
        });
        Self { port, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut client: &TcpStream) -> std::io::Result<()> {
    let mut first = String::new();
    for line in BufReader::new(client).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        first = if first.is_empty() { line } else { first };
    }
    let body = format!("served: {first}\n");
    write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Straight to the server.
fn direct(port: u16) -> String {
    format!("exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /direct HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3")
}

/// Through the proxy that the environment names, as every HTTP client does it: plain requests, and tunnels.
fn by_proxy(port: u16) -> String {
    let to_proxy = "p=${HTTP_PROXY#http://}; p=${p%/}; exec 3<>/dev/tcp/${p%:*}/${p##*:}";
    let place = format!("127.0.0.1:{port}");
    format!(
        "{to_proxy} && printf 'GET http://{place}/plain HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3
         {to_proxy} && printf 'CONNECT {place} HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\nGET /tunnel HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    )
}

#[test]
fn without_a_network_nothing_is_reached_and_the_model_is_told() {
    let server = Server::start();
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("none", mode, user);
        let place = format!("127.0.0.1:{}", server.port);
        let told = format!("{{\"denied\":true,\"kind\":\"net\",\"host\":\"{place}\"");
        let seen = yard.one(bash(&direct(server.port)).told(&told));
        assert_eq!(seen.denied(), Some(("net", place.as_str())), "{mode} {user:?}: {seen:?}");
        assert!(!seen.outcome.result.contains("served"), "{seen:?}");
    }
    assert_eq!(server.requests(), 0);
    let seen = Yard::new("none", TRUST, User::Own).one(bash(&direct(server.port)));
    assert!(seen.outcome.result.contains("served: GET /direct"), "the control: {seen:?}");
    assert_eq!(server.requests(), 1, "the control");
}

#[test]
fn a_network_for_all_is_one() {
    let server = Server::start();
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("all", mode, user);
        yard.configure(&format!("mode: {mode}, network: all"));
        let seen = yard.one(bash(&direct(server.port)));
        assert!(seen.outcome.result.contains("served: GET /direct"), "{mode} {user:?}: {seen:?}");
        assert_eq!(seen.denied(), None, "{mode} {user:?}: {seen:?}");
    }
}

#[test]
fn a_list_is_what_is_reached_and_nothing_else() {
    let (listed, unlisted) = (Server::start(), Server::start());
    for user in USERS {
        let yard = Yard::new("list", "bubblewrap", user);
        yard.configure(&format!("mode: bubblewrap, network: [\"127.0.0.1:{}\"]", listed.port));
        let place = format!("127.0.0.1:{}", unlisted.port);
        let told = format!("{{\"denied\":true,\"kind\":\"net\",\"host\":\"{place}\"");
        let before = listed.requests();
        let seen = yard.turn(&[
            bash(&by_proxy(listed.port)),
            bash(&by_proxy(unlisted.port)).told(&told),
            bash(&direct(listed.port)),
        ]);
        let [reached, refused, around] = seen.as_slice() else { panic!("{seen:?}") };
        let result = &reached.outcome.result;
        assert!(
            result.contains("served: GET /plain HTTP/1.1") && result.contains("served: GET /tunnel"),
            "{reached:?}"
        );
        assert_eq!(reached.denied(), None, "{user:?}: {reached:?}");
        assert_eq!(refused.outcome.result.matches("HTTP/1.1 403 ").count(), 2, "{user:?}: {refused:?}");
        assert_eq!(refused.denied(), Some(("net", place.as_str())), "{user:?}: {refused:?}");
        assert!(!around.outcome.result.contains("served"), "{user:?}: {around:?}");
        assert_eq!((listed.requests() - before, unlisted.requests()), (2, 0), "{user:?}");
        let log = yard.house.log(&yard.house.session());
        assert!(log.contains(&format!("\"denied\":{{\"kind\":\"net\",\"host\":\"{place}\"")), "{log}");
    }
}

/// A name that is listed and leads to a private address is no way to one that is not.
#[test]
fn a_listed_name_does_not_lead_to_a_private_address() {
    let server = Server::start();
    let place = format!("localhost:{}", server.port);
    let command =
        by_proxy(server.port).replace("127.0.0.1", "localhost").replace("/dev/tcp/localhost", "/dev/tcp/127.0.0.1");
    let yard = Yard::new("private", "bubblewrap", User::Own);
    yard.configure(&format!("mode: bubblewrap, network: [\"{place}\"]"));
    let seen = yard.one(bash(&command).told(&format!("\"kind\":\"net\",\"host\":\"{place}\"")));
    assert_eq!((seen.denied(), server.requests()), (Some(("net", place.as_str())), 0), "{seen:?}");
    yard.configure(&format!("mode: bubblewrap, network: [\"{place}\", \"127.0.0.1:{0}\", \"[::1]:{0}\"]", server.port));
    let seen = yard.one(bash(&command));
    assert!(seen.outcome.result.contains("served: GET /plain"), "the control: {seen:?}");
}

#[test]
fn landlock_refuses_a_list_it_cannot_keep() {
    for network in ["[\"127.0.0.1:80\"]", "loopback"] {
        let yard = Yard::new("unkept", "landlock", User::Own);
        yard.configure(&format!("mode: landlock, network: {network}"));
        yard.play(&[bash("echo x > ran")]);
        let ended = yard.finish(&mut yard.command(&["run", "worker", "go"]));
        assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""), "{network}: {ended:?}");
        assert!(ended.err.contains("landlock cannot tell one address on the network from another"), "{ended:?}");
        assert!(ended.err.contains("network: none") && ended.err.contains("mode: bubblewrap"), "a remedy: {ended:?}");
        assert_eq!((yard.house.read("ran"), yard.house.sessions().len()), (None, 0));
    }
}
