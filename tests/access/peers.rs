//! Users of this machine at unix sockets, and proxies that ask for others.

use crate::client::{ask, bearer, tcp, unix};
use crate::house::{House, Served, polite};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const VERSION: &str = "GET /version";

/// A user that nobody is.
const OTHER: &str = "47999";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there is a socket").permissions().mode() & 0o777
}

/// What another user gets at a socket: a status, or 0 if there is no way in. Only root can become another user.
fn as_another(socket: &Path, header: &str) -> u16 {
    let curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"];
    let mut command = Command::new("setpriv");
    command.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups"]);
    let output = command.args(curl).arg(socket).args(["-H", header, "http://localhost/version"]).output();
    let output = output.expect("setpriv: not found; install the Debian packages util-linux and curl");
    let status = String::from_utf8(output.stdout).expect("UTF-8");
    status.parse().unwrap_or_else(|_| panic!("{status:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn is_root() -> bool {
    duragent_platform::process::uid() == 0
}

#[test]
fn a_socket_has_its_mode_and_the_workspaces_own_is_for_nobody_else() {
    for (text, named) in [("", 0o600), (", socket_mode: '0660'", 0o660), (", socket_mode: '0606'", 0o606)] {
        let house = House::new(&format!("address: 'unix:s'{text}"), &polite());
        let served = house.serve();
        assert_eq!((mode(&house.root.join(".duragent/s")), mode(&house.socket())), (named, 0o600));
        drop(served);
        let _served = Served::start(&mut house.command(&["serve", "--listen", "unix:t"], &[]));
        assert_eq!((mode(&house.root.join("t")), mode(&house.socket())), (named, 0o600));
        let house = House::new(&format!("address: 'unix:duragent.sock'{text}"), &polite());
        let _served = house.serve();
        assert_eq!(mode(&house.socket()), 0o600, "named in the configuration, it is what it is");
    }
}

#[test]
fn at_a_unix_socket_the_kernel_says_who_asks() {
    let house = House::new("address: 'unix:../open.sock', socket_mode: '0666', api_token: api", &polite());
    let _served = house.serve();
    let open = house.root.join("open.sock");
    assert_eq!(
        (ask(&mut unix(&open), VERSION, "", "").status, house.near(VERSION, "")),
        (200, 200),
        "the server's own user"
    );
    if is_root() {
        assert_eq!(as_another(&open, "X: y"), 401, "another user needs the token");
        assert_eq!(as_another(&open, "Authorization: Bearer api"), 200);
        assert_eq!(as_another(&house.socket(), "Authorization: Bearer api"), 0, "the mode lets nobody else in");
    }
    // Without a token the mode is the guard.
    let house = House::new("address: 'unix:../open.sock', socket_mode: '0666'", &polite());
    let _served = house.serve();
    if is_root() {
        assert_eq!(as_another(&house.root.join("open.sock"), "X: y"), 200);
    }
}

#[test]
fn a_command_needs_no_token_on_its_own_machine() {
    let house = House::new(
        "address: '127.0.0.1:0', api_token: api, admin_token: adm, trusted_proxies: [unix, 127.0.0.1], allowed_hosts: [a.example]",
        &polite(),
    );
    let served = house.serve();
    assert_eq!(served.status(VERSION, ""), 401, "the control");
    for args in [&["reload"][..], &["ps"], &["ls"]] {
        let output = house.command(args, &[]).output().expect("the binary starts");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

#[test]
fn whoever_comes_through_a_proxy_at_a_unix_socket_needs_the_token() {
    let trusting = House::new("address: '127.0.0.1:0', api_token: api, trusted_proxies: [unix]", &polite());
    let other = House::new("address: '127.0.0.1:0', api_token: api, trusted_proxies: [127.0.0.1]", &polite());
    let (_one, _two) = (trusting.serve(), other.serve());
    for header in [
        "X-Forwarded-For: 203.0.113.9\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.9\r\n",
        "X-Forwarded-For: unix:\r\n",
        "X-Forwarded-For: %%%\r\n",
        "X-Forwarded-For:\r\n",
        "Forwarded: for=127.0.0.1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: localhost\r\n",
    ] {
        assert_eq!(trusting.near(VERSION, header), 401, "{header:?}");
        assert_eq!(trusting.near(VERSION, &(bearer("api") + header)), 200, "{header:?} with the token");
        assert_eq!(other.near(VERSION, header), 200, "the control: {header:?} of somebody who is no proxy");
    }
    assert_eq!(trusting.near(VERSION, ""), 200, "the control: nobody else is asking");
}

#[test]
fn a_proxys_word_for_the_host_counts_and_nobody_elses() {
    let common = "address: '127.0.0.1:0', api_token: api, allowed_hosts: [a.example]";
    let house = |proxies: &str| House::new(&format!("{common}, trusted_proxies: [{proxies}]"), &polite());
    let (trusting, range, other) = (house("127.0.0.1"), house("'127.0.0.0/8'"), house("192.0.2.1, unix"));
    let served = [trusting.serve(), range.serve(), other.serve()];
    for (headers, proxy, stranger) in [
        ("Host: localhost\r\n", 200, 200),
        ("Host: localhost\r\nX-Forwarded-Host: a.example\r\n", 200, 200),
        ("Host: localhost\r\nX-Forwarded-Host: evil.example\r\n", 403, 200),
        ("Host: evil.example\r\nX-Forwarded-Host: a.example\r\n", 200, 403),
        ("Host: evil.example\r\nX-Forwarded-Host: localhost\r\n", 200, 403),
        ("Host: evil.example\r\n", 403, 403),
        ("Host: localhost\r\nX-Forwarded-Host: a.example, evil.example\r\n", 403, 200),
        ("Host: localhost\r\nX-Forwarded-Host: a.example\r\nX-Forwarded-Host: a.example\r\n", 400, 200),
    ] {
        let headers = bearer("api") + headers;
        let found = served.each_ref().map(|served| ask(&mut tcp(served), VERSION, &headers, "").status);
        assert_eq!(found, [proxy, proxy, stranger], "{headers:?}");
    }
    // No address that anybody claims replaces the token.
    for claimed in ["127.0.0.1", "::1", "127.0.0.1, 127.0.0.1"] {
        let header = format!("X-Forwarded-For: {claimed}\r\n");
        assert_eq!(served.each_ref().map(|served| served.status(VERSION, &header)), [401; 3], "{claimed}");
    }
}
