//! Ways out: the machine's loopback stands for every network, because an answer there is sure.

use super::{Attempt, OK};
use crate::inside::Inside;
use crate::kernel::{Answer, Refused, as_arg, at, call, fd_arg, socket};
use duragent_platform::sandbox::policy::{Endpoint, Network};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

/// Socket families and protocols that the libc crate does not name on every target.
const AF_SMC: i32 = 43;
const IPPROTO_MPTCP: i32 = 262;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new("connect by TCP", tcp, "EACCES", "EACCES").hurts(),
    Attempt::new("connect by TCP in the first packet", fast_open, "EACCES", "EACCES").hurts(),
    Attempt::new("connect by multipath TCP", multipath, "EACCES", "EACCES")
        .control_says("ok|EPROTONOSUPPORT|ENOPROTOOPT", "ok|EPROTONOSUPPORT|ENOPROTOOPT"),
    Attempt::new("send by UDP", udp, "EACCES", "EACCES").hurts(),
    Attempt::new("make a socket for IPv6", |_| any(socket(libc::AF_INET6, libc::SOCK_STREAM, 0)), "EACCES", "EACCES")
        .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT"),
    Attempt::new(
        "listen for others",
        |_| {
            TcpListener::bind("127.0.0.1:0")?;
            Ok(())
        },
        "EACCES",
        "EACCES",
    ),
    Attempt::new("connect to an abstract socket", abstract_unix, "ECONNREFUSED", "EACCES").hurts(),
    Attempt::new("connect to a unix socket of outside", unix, "ENOENT", "EACCES").hurts(),
    Attempt::new("connect to a unix socket in a directory that may be read", unix, OK, "EACCES")
        .hurts()
        .limit()
        .with(|house, policy| policy.read.push(house.root.join("outside"))),
    Attempt::new(
        "make a raw socket",
        |_| any(socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
        "EACCES",
        "EACCES",
    )
    .root_only("EPERM"),
    Attempt::new("make a packet socket", |_| any(socket(libc::AF_PACKET, libc::SOCK_RAW, 0)), "EACCES", "EACCES")
        .root_only("EPERM"),
    Attempt::new(
        "make a socket to the hypervisor",
        |_| any(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        "EACCES",
        "EACCES",
    )
    .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT"),
    // These three are not in every kernel: then the control says so, and the family is named all the same.
    Attempt::new(
        "make a socket for ciphers of the kernel",
        |_| any(socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
        "EACCES",
        "EACCES",
    )
    .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT"),
    Attempt::new("make a socket for shared memory", |_| any(socket(AF_SMC, libc::SOCK_STREAM, 0)), "EACCES", "EACCES")
        .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT"),
    Attempt::new(
        "make a socket for bluetooth",
        |_| any(socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)),
        "EACCES",
        "EACCES",
    )
    .control_says("ok|EAFNOSUPPORT|EPROTONOSUPPORT", "ok|EAFNOSUPPORT|EPROTONOSUPPORT|EPERM"),
    Attempt::new("talk to the kernel by netlink", netlink, "EACCES", "EACCES"),
    Attempt::new("own loopback: connect to the machine's", tcp, "ECONNREFUSED", "not started")
        .hurts()
        .with(|_, policy| policy.network = Network::Loopback),
    Attempt::new("own loopback: send by UDP to the machine's", udp, "ECONNREFUSED", "not started")
        .hurts()
        .with(|_, policy| policy.network = Network::Loopback),
    Attempt::new(
        "own loopback: make a socket to the hypervisor",
        |_| any(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        "EACCES",
        "not started",
    )
    .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT")
    .with(|_, policy| policy.network = Network::Loopback),
    Attempt::new("listed hosts: connect to another", tcp, "ECONNREFUSED", "not started").hurts().with(one_host),
    Attempt::new("listed hosts: send by UDP", udp, "ECONNREFUSED", "not started").hurts().with(one_host),
    Attempt::new("listed hosts: ask the proxy for another", |i| by_proxy(i, "127.0.0.1"), REFUSED, "not started")
        .hurts()
        .with(one_host),
    // By a name that leads to the machine itself: the port is listed, the address is not.
    Attempt::new(
        "listed hosts: ask the proxy for another name of the same",
        |i| by_proxy(i, "localhost"),
        REFUSED,
        "not started",
    )
    .hurts()
    .with(own_listener),
    Attempt::new(
        "listed hosts: ask the proxy for an address written otherwise",
        |i| by_proxy(i, "[::ffff:7f00:1]"),
        REFUSED,
        "not started",
    )
    .hurts()
    .with(one_host),
    Attempt::new("listed hosts: ask the proxy for what is listed", |i| by_proxy(i, "127.0.0.1"), OK, "not started")
        .hurts()
        .granted()
        .with(own_listener),
    Attempt::new("whole network: connect by TCP", tcp, OK, OK)
        .hurts()
        .granted()
        .with(|_, policy| policy.network = Network::All),
    Attempt::new("whole network: connect to an abstract socket", abstract_unix, "EPERM", "EACCES")
        .hurts()
        .with(|_, policy| policy.network = Network::All),
    Attempt::new(
        "whole network: make a socket to the hypervisor",
        |_| any(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        "EACCES",
        "EACCES",
    )
    .control_says("ok|EAFNOSUPPORT", "ok|EAFNOSUPPORT")
    .with(|_, policy| policy.network = Network::All),
];

const REFUSED: &str = "the proxy refused";

fn own_listener(house: &crate::house::House, policy: &mut duragent_platform::sandbox::Policy) {
    policy.network = Network::Hosts(vec![Endpoint { host: "127.0.0.1".into(), port: house.tcp_port() }]);
}

fn one_host(_: &crate::house::House, policy: &mut duragent_platform::sandbox::Policy) {
    policy.network = Network::Hosts(vec![Endpoint { host: "example.org".into(), port: 443 }]);
}

fn any(socket: Result<OwnedFd, Refused>) -> Answer {
    socket.map(drop)
}

fn tcp(inside: &Inside) -> Answer {
    TcpStream::connect(("127.0.0.1", inside.tcp))?;
    Ok(())
}

/// Asks the proxy for the machine's listener under the name `host`. Without one, connects.
fn by_proxy(inside: &Inside, host: &str) -> Answer {
    let Ok(proxy) = std::env::var("HTTP_PROXY") else { return tcp(inside) };
    let mut stream = TcpStream::connect(proxy.trim_start_matches("http://"))?;
    let target = format!("{host}:{}", inside.tcp);
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    if status.contains(" 200 ") { Ok(()) } else { Err(Refused::Nothing(REFUSED)) }
}

/// `struct sockaddr_in` of 127.0.0.1 with this port.
fn loopback(port: u16) -> [u8; 16] {
    let family = u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes();
    let port = port.to_be_bytes();
    [family[0], family[1], port[0], port[1], 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// sendto(2) with MSG_FASTOPEN connects without connect(2).
fn fast_open(inside: &Inside) -> Answer {
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = loopback(inside.tcp);
    let args = [fd_arg(&socket), at(b"x"), 1, as_arg(libc::MSG_FASTOPEN), at(&address), address.len()];
    call(libc::SYS_sendto, &args).map(drop)
}

/// Not TCP to those who compare the protocol's number.
fn multipath(inside: &Inside) -> Answer {
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP)?;
    let address = loopback(inside.tcp);
    call(libc::SYS_connect, &[fd_arg(&socket), at(&address), address.len()]).map(drop)
}

fn udp(inside: &Inside) -> Answer {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", inside.udp))?;
    socket.send(b"x")?;
    // The second tells what came of the first: over loopback a refusal is there at once.
    socket.send(b"x")?;
    Ok(())
}

fn unix(inside: &Inside) -> Answer {
    UnixStream::connect(inside.outside.join("unix.sock"))?;
    Ok(())
}

fn abstract_unix(inside: &Inside) -> Answer {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(&inside.mark)?)?;
    Ok(())
}

/// The family that names interfaces and routes; others of the kind reach much more of the kernel.
fn netlink(_: &Inside) -> Answer {
    const NETLINK_NETFILTER: i32 = 12;
    any(socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_NETFILTER))
}
