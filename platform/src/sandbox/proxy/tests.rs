//! The proxy as its clients and servers see it: real sockets on 127.0.0.1, a scripted resolver. What would be dialled outside
//! loopback is noted and never dialled.

mod bed;

use super::dial::{DIALS_MAX, Outside};
use super::*;
use bed::*;
use std::net::IpAddr;
use std::time::Instant;

#[test]
fn refusals_and_their_status() {
    let (closed, gone) = listen();
    drop(closed);
    let bed = bed(
        &[&gone.to_string(), "nowhere.test:80", "empty.test:80", "127.1:80", "public.test:443"],
        &[("empty.test", &[]), ("public.test", &["8.8.8.8"])],
    );
    let not_listed = "is not on the list of sandbox.network; ask the user to add it";
    bed.check("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 403, &format!("example.com:443 {not_listed}\n"));
    bed.check("GET http://Example.com./x HTTP/1.1\r\n\r\n", 403, &format!("example.com:80 {not_listed}\n"));
    bed.check("CONNECT [::1]:80 HTTP/1.1\r\n\r\n", 403, &format!("[::1]:80 {not_listed}\n"));
    bed.check("CONNECT public.test:80 HTTP/1.1\r\n\r\n", 403, not_listed);
    bed.check("CONNECT example.com:443 HTTP/1.0\r\n\r\n", 403, not_listed);
    bed.check(&format!("CONNECT {gone} HTTP/1.1\r\n\r\n"), 502, &format!("cannot reach {gone}: "));
    bed.check(
        "GET http://nowhere.test/ HTTP/1.1\r\n\r\n",
        502,
        "cannot reach nowhere.test:80: scripted: no such name\n",
    );
    bed.check("GET http://empty.test/ HTTP/1.1\r\n\r\n", 502, "the name has no address");
    bed.check("CONNECT public.test:443 HTTP/1.1\r\n\r\n", 502, "scripted: not dialled");
    bed.check("GET http://127.1/ HTTP/1.1\r\n\r\n", 400, "four decimal numbers");
    bed.check("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, "this is a proxy");
    bed.check("\r\n\r\n", 400, "expected");
    bed.check("GET http://example.com/ HTTP/1.1\n\n", 400, "line feed");
    bed.check("\x16\x03\x01\0", 400, "NUL");
    bed.check(&format!("GET http://example.com/{} ", "x".repeat(20_000)), 431, "too large");
    bed.check(&format!("GET http://a/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(101)), 431, "too large");
    assert_eq!(*bed.outer.looked_up.lock().unwrap(), ["nowhere.test", "empty.test", "public.test"]);
    assert_eq!(*bed.outer.dialled.lock().unwrap(), [gone.to_string(), "8.8.8.8:443".into()]);

    let hint = "not on the list of sandbox.network; ask the user to add it";
    let what = ["example.com:443", "example.com:80", "[::1]:80", "public.test:80"];
    assert_eq!(bed.finish(), what.map(|what| (what.to_owned(), hint.to_owned())));
}

/// As it is used: with the runtime's own network. The name is a number, so that no name server is asked.
#[test]
fn the_network_of_the_runtime() {
    let _turn = shared();
    assert_eq!((Outside::system().resolve)("127.0.0.1", 80).unwrap(), [IpAddr::from([127, 0, 0, 1])]);
    let ((listener, at), (server, target)) = (listen(), listen());
    let allowed = vec![Endpoint { host: target.ip().to_string(), port: target.port() }];
    let proxy = Proxy::start(listener, allowed).unwrap();
    let mut client = connect(at);
    client.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    accept(&server).write_all(b"hello").unwrap();
    assert_eq!(rest(&mut client), "HTTP/1.1 200 Connection established\r\n\r\nhello");
    assert_eq!(proxy.finish(), []);
}

#[test]
fn a_head_that_does_not_come_is_given_up() {
    let times = Times { head_max: Duration::from_millis(50), ..FOR_EVER };
    let bed = bed_of(shared(), &[], scripted(&[]), times);
    for start in ["", "GET", "CONNECT a:1 HTTP/1.1\r\n"] {
        bed.check(start, 408, "no whole head in time");
    }
    assert_eq!(bed.finish(), []);
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let bed = bed(&[], &[]);
    let head = "CONNECT example.com:443 HTTP/1.1\r\nX: 1\r\n\r\n";
    for split in 1..head.len() {
        let mut client = bed.connect();
        let (one, two) = head.split_at(split);
        client.write_all(one.as_bytes()).unwrap();
        if split % 8 == 0 {
            // So that some do arrive apart.
            thread::sleep(Duration::from_millis(2));
        }
        client.write_all(two.as_bytes()).unwrap();
        assert!(rest(&mut client).starts_with("HTTP/1.1 403 "), "split at {split}");
    }
    let mut client = bed.connect();
    for byte in head.as_bytes() {
        client.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_micros(200));
    }
    assert!(rest(&mut client).starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_tunnel_carries_both_ways_and_each_way_ends_by_itself() {
    let (server, at) = listen();
    let bed = bed(&["127.0.0.1:1", &at.to_string()], &[]);
    for client_ends_first in [true, false] {
        let mut client = bed.tunnel(&at.to_string());
        let mut upstream = accept(&server);
        client.write_all(b"ping\0\xff").unwrap();
        expect(&mut upstream, b"ping\0\xff");
        upstream.write_all(b"pong").unwrap();
        expect(&mut client, b"pong");
        let (mut first, mut second) = if client_ends_first { (client, upstream) } else { (upstream, client) };
        first.write_all(b"last").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut second), "last");
        // The other direction lives on.
        for _ in 0..3 {
            second.write_all(b"more").unwrap();
            expect(&mut first, b"more");
        }
        second.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut first), "");
    }
    assert_eq!(bed.finish(), []);
}

#[test]
fn what_is_sent_right_behind_the_head_is_not_lost() {
    let (server, at) = listen();
    let bed = bed(&[&at.to_string()], &[]);
    let mut client = bed.connect();
    client.write_all(format!("CONNECT {at} HTTP/1.1\r\n\r\nearly").as_bytes()).unwrap();
    let mut upstream = accept(&server);
    expect(&mut upstream, b"early");
    expect(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
    drop(upstream);
    assert_eq!(rest(&mut client), "");
}

#[test]
fn a_request_with_a_whole_url_is_written_anew() {
    let (server, at) = listen();
    let bed = bed(&[&format!("web.test:{}", at.port()), &at.to_string()], &[("web.test", &["127.0.0.1"])]);
    let mut client = bed.connect();
    let request = format!(
        "POST http://WEB.test:{}/a?b HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic eA==\r\nConnection: X-Hop\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 4\r\n\r\nbody",
        at.port()
    );
    // The second request goes to the same place, whatever it names: that is the boundary.
    let second = "GET http://elsewhere.test/ HTTP/1.1\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    client.write_all(second.as_bytes()).unwrap();
    let mut upstream = accept(&server);
    let expected = format!(
        "POST /a?b HTTP/1.1\r\nHost: web.test:{}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody{second}",
        at.port()
    );
    expect(&mut upstream, expected.as_bytes());
    upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\nanswer").unwrap();
    drop(upstream);
    assert_eq!(rest(&mut client), "HTTP/1.1 200 OK\r\n\r\nanswer");
    assert_eq!(*bed.outer.looked_up.lock().unwrap(), ["web.test"]);
    assert_eq!(*bed.outer.dialled.lock().unwrap(), [at.to_string()]);
    assert_eq!(bed.finish(), []);
}

#[test]
fn a_name_that_stands_for_a_private_address_is_refused_unless_that_is_listed() {
    let (server, at) = listen();
    let (name, at) = (format!("inner.test:{}", at.port()), at.to_string());
    let connect = format!("CONNECT {name} HTTP/1.1\r\n\r\n");
    for found in ["127.0.0.1", "::ffff:127.0.0.1"] {
        let strict = bed(&[&name], &[("inner.test", &[found])]);
        strict.check(&connect, 403, "127.0.0.1 is not public; ask the user to add 127.0.0.1:");
        assert!(strict.outer.dialled.lock().unwrap().is_empty());
        let hint = format!("127.0.0.1 is not public; ask the user to add {at} to sandbox.network");
        assert_eq!(strict.finish(), [(name.clone(), hint)]);

        // The control: the very same with the address listed, so it is that rule which refuses.
        let listed = bed(&[&name, &at], &[("inner.test", &[found])]);
        let mut client = listed.tunnel(&name);
        accept(&server).write_all(b"hello").unwrap();
        assert_eq!(rest(&mut client), "hello");
        assert_eq!(listed.finish(), []);
    }
    for found in ["10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::10.0.0.1", "0.0.0.0", "::"] {
        let bed = bed(&[&name, &at], &[("inner.test", &[found])]);
        bed.check(&connect, 403, "is not public");
        assert!(bed.outer.dialled.lock().unwrap().is_empty(), "{found}");
    }
}

#[test]
fn a_listed_address_is_reached_in_each_of_its_forms_and_no_other_is() {
    let (server, at) = listen();
    let bed = bed(&[&at.to_string()], &[]);
    for form in [at.to_string(), format!("[::ffff:127.0.0.1]:{}", at.port()), format!("[::FFFF:7f00:1]:{}", at.port())]
    {
        let mut client = bed.tunnel(&form);
        accept(&server).write_all(b"hello").unwrap();
        assert_eq!(rest(&mut client), "hello");
    }
    let port = at.port();
    for other in [format!("127.0.0.2:{port}"), format!("[::ffff:127.0.0.2]:{port}"), format!("[::127.0.0.1]:{port}")] {
        bed.check(&format!("CONNECT {other} HTTP/1.1\r\n\r\n"), 403, "not on the list");
    }
}

#[test]
fn a_name_is_looked_up_once_and_its_second_answer_is_never_asked_for() {
    let (server, at) = listen();
    let port = at.port();
    let (name, address) = (format!("twice.test:{port}"), at.to_string());
    let bed = bed(&[&name, &address], &[("twice.test", &["127.0.0.1"]), ("twice.test", &["10.0.0.1"])]);
    let mut client = bed.tunnel(&name);
    accept(&server).write_all(b"first").unwrap();
    assert_eq!(rest(&mut client), "first");
    assert_eq!(*bed.outer.looked_up.lock().unwrap(), ["twice.test"]);
    assert_eq!(*bed.outer.dialled.lock().unwrap(), [address]);
    // The control: the script does have another answer, and it is refused when it comes.
    bed.check(&format!("CONNECT {name} HTTP/1.1\r\n\r\n"), 403, "10.0.0.1 is not public");
    assert_eq!(bed.outer.looked_up.lock().unwrap().len(), 2);
    assert_eq!(bed.outer.dialled.lock().unwrap().len(), 1);
}

#[test]
fn vetted_addresses_are_tried_in_turn_and_private_ones_are_not() {
    let (server, at) = listen();
    let port = at.port();
    let name = format!("many.test:{port}");
    let bed = bed(
        &[&name, &at.to_string()],
        &[("many.test", &["10.0.0.1", "8.8.8.8", "2606:4700::1", "127.0.0.1", "1.1.1.1"])],
    );
    let mut client = bed.tunnel(&name);
    accept(&server).write_all(b"hello").unwrap();
    assert_eq!(rest(&mut client), "hello");
    let tried = [format!("8.8.8.8:{port}"), format!("[2606:4700::1]:{port}"), at.to_string()];
    assert_eq!(*bed.outer.dialled.lock().unwrap(), tried);
    assert_eq!(bed.finish(), []);
}

#[test]
fn a_connection_too_many_is_told_so_and_the_next_is_served_when_one_ends() {
    let bed = bed(&[], &[]);
    let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| bed.connect()).collect();
    bed.check("", 503, "more than 64 connections at a time");
    // The others are well.
    let mut one = open.pop().unwrap();
    one.write_all(b"\r\n\r\n").unwrap();
    assert!(rest(&mut one).starts_with("HTTP/1.1 400 "));
    drop(one);
    until("a place is free again", || {
        let mut client = bed.connect();
        // Fails if it was turned away already.
        let _ = client.write_all(b"\r\n\r\n");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 400 ")
    });
    let start = Instant::now();
    assert_eq!(bed.finish(), []);
    assert!(open.iter().all(has_ended));
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn the_end_waits_for_nobody_and_closes_everything() {
    for by_drop in [false, true] {
        let turn = alone();
        let (server, at) = listen();
        let (outside, outer, gate) = hanging();
        let allowed = [&at.to_string(), "slow.test:80", "192.0.2.1:80"];
        let bed = bed_of(turn, &allowed, (outside, outer), FOR_EVER);
        let send = |text: &str| {
            let mut client = bed.connect();
            client.write_all(text.as_bytes()).unwrap();
            client
        };
        let mut clients = vec![bed.connect(), send("GET http://"), send("CONNECT example.com:443 HTTP/1.1\r\n\r\n")];
        clients.push(send("GET http://slow.test/ HTTP/1.1\r\n\r\n"));
        clients.push(send("GET http://192.0.2.1/ HTTP/1.1\r\n\r\n"));
        clients.push(bed.tunnel(&at.to_string()));
        let upstream = accept(&server);
        // A tunnel whose far end does not read, full to the brim.
        let stuffed = bed.tunnel(&at.to_string());
        let unread = accept(&server);
        stuff(&stuffed, 256 << 20);
        until("both hang", || gate.waiting() == 2);

        let Bed { proxy, at, _turn, .. } = bed;
        let start = Instant::now();
        let ending = thread::spawn(move || if by_drop { drop(proxy) } else { assert_eq!(proxy.finish().len(), 1) });
        until("it ends", || ending.is_finished());
        ending.join().unwrap();
        // Everything in it would wait for an hour.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(TcpStream::connect(at).is_err(), "nobody listens any more");
        let mut all = clients.iter().chain([&upstream, &stuffed]);
        assert!(all.all(has_ended), "all are closed, though two lookups hang");
        drop(unread);
        until("nothing is left behind but what hangs in the system", || threads() == 2);
        assert_eq!(gate.waiting(), 2);
        gate.open();
        until("no threads are left", || threads() == 0);
    }
}

#[test]
fn memory_does_not_grow_while_a_side_does_not_read() {
    const FLOOD_BYTES: usize = 256 << 20;
    let (server, at) = listen();
    let bed = bed(&[&at.to_string()], &[]);
    for client_floods in [true, false] {
        let client = bed.tunnel(&at.to_string());
        let upstream = accept(&server);
        let (from, to) = if client_floods { (client, upstream) } else { (upstream, client) };
        let taken = stuff(&from, FLOOD_BYTES);
        // The kernel's buffers on two connections, at their largest, are some 20 MiB.
        assert!(taken < FLOOD_BYTES / 4, "{taken} bytes were taken, and nobody read one");
        // None is lost.
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(io::copy(&mut { &to }, &mut io::sink()).unwrap(), taken as u64);
    }
}

#[test]
fn a_scan_is_not_remembered_whole() {
    let bed = bed(&[], &[]);
    for port in (1..=REFUSALS_MAX + 10).flat_map(|port| [port, port]) {
        bed.check(&format!("CONNECT example.com:{port} HTTP/1.1\r\n\r\n"), 403, "not on the list");
    }
    let refusals = bed.finish();
    let what: Vec<_> = (1..=REFUSALS_MAX).map(|port| format!("example.com:{port}")).collect();
    assert_eq!(refusals.into_iter().map(|(what, _)| what).collect::<Vec<_>>(), what);
}

#[test]
fn a_lookup_and_a_connect_that_hang_are_given_up() {
    let turn = alone();
    let (outside, outer, gate) = hanging();
    let times = Times { dial_max: Duration::from_millis(50), ..FOR_EVER };
    let bed = bed_of(turn, &["slow.test:80", "192.0.2.1:80"], (outside, outer), times);
    bed.check("GET http://slow.test/ HTTP/1.1\r\n\r\n", 502, "cannot reach slow.test:80: timed out");
    bed.check("GET http://192.0.2.1/ HTTP/1.1\r\n\r\n", 502, "cannot reach 192.0.2.1:80: timed out");
    until("both hang", || gate.waiting() == 2);
    gate.open();
    until("both have ended", || gate.waiting() == 0);
}

#[test]
fn a_connection_without_a_byte_is_ended() {
    let (server, at) = listen();
    let times = Times { idle_max: Duration::from_millis(50), ..FOR_EVER };
    let bed = bed_of(shared(), &[&at.to_string()], scripted(&[]), times);
    let client = bed.tunnel(&at.to_string());
    let upstream = accept(&server);
    assert!(has_ended(&client) && has_ended(&upstream));
}

#[test]
fn a_client_that_keeps_its_side_open_after_the_answer_is_left() {
    let (server, at) = listen();
    let times = Times { linger_max: Duration::from_millis(50), ..FOR_EVER };
    let bed = bed_of(shared(), &[&at.to_string()], scripted(&[]), times);
    let head = format!("GET http://{at}/ HTTP/1.1\r\n\r\n");
    let mut asking = bed.connect();
    asking.write_all(head.as_bytes()).unwrap();
    let upstream = accept(&server);
    upstream.shutdown(Shutdown::Write).unwrap();
    // The end of what the client sends is seen here only when the proxy ends it.
    assert!(has_ended(&upstream));
    // As after a refusal, where the answer comes whole.
    bed.check("GET http://elsewhere.test/ HTTP/1.1\r\n\r\n", 403, "not on the list");
    // The control: the far end of a tunnel may end first, and that is no reason to leave.
    let mut tunnel = bed.tunnel(&at.to_string());
    let mut upstream = accept(&server);
    upstream.shutdown(Shutdown::Write).unwrap();
    thread::sleep(times.linger_max * 3);
    tunnel.write_all(b"still here").unwrap();
    expect(&mut upstream, b"still here");
}

#[test]
fn no_thread_is_left_of_connections_that_ended() {
    let turn = alone();
    let (server, at) = listen();
    let bed = bed_of(turn, &[&at.to_string()], scripted(&[]), FOR_EVER);
    for _ in 0..20 {
        let mut client = bed.tunnel(&at.to_string());
        accept(&server).write_all(b"x").unwrap();
        assert_eq!(rest(&mut client), "x");
    }
    until("one thread accepts and no other is left", || threads() == 1);
    let Bed { proxy, _turn, .. } = bed;
    proxy.finish();
    until("no thread is left", || threads() == 0);
}

#[test]
fn connections_being_made_are_counted_even_after_their_proxy() {
    let turn = alone();
    let (outside, outer, gate) = hanging();
    let hang = |turn| bed_of(turn, &["slow.test:80"], (outside.clone(), Arc::clone(&outer)), FOR_EVER);
    let request = "GET http://slow.test/ HTTP/1.1\r\n\r\n";
    let mut turn = Some(turn);
    for round in 1..=DIALS_MAX / CONNECTIONS_MAX {
        let bed = hang(turn.take().unwrap());
        let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| bed.connect()).collect();
        clients.iter_mut().for_each(|client| client.write_all(request.as_bytes()).unwrap());
        until("all hang", || gate.waiting() == round * CONNECTIONS_MAX);
        let Bed { proxy, _turn, .. } = bed;
        proxy.finish();
        turn = Some(_turn);
    }
    let bed = hang(turn.take().unwrap());
    bed.check(request, 503, "more than 128 connections being made");
    gate.open();
    until("they were given back", || bed.ask(request).starts_with("HTTP/1.1 502 "));
}
