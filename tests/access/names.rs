//! What browsers can be made to send by pages of others: hosts, origins, forms. And paths below a base.

use crate::client::{JSON, ask, bearer, read, send, tcp, unix};
use crate::house::{House, Served, polite};

const VERSION: &str = "GET /version";

fn host(name: &str) -> String {
    format!("Host: {name}\r\n")
}

#[test]
fn on_loopback_a_host_is_local_or_allowed() {
    let plain = House::new("address: '127.0.0.1:0'", &polite());
    let listed = House::new("address: '127.0.0.1:0', allowed_hosts: [agents.example.org, 'box:8443']", &polite());
    let (plain_served, listed_served) = (plain.serve(), listed.serve());
    for (name, without, with) in [
        ("localhost", 200, 200),
        ("127.0.0.1:1", 200, 200),
        ("[::1]", 200, 200),
        ("agents.example.org", 403, 200),
        ("Agents.Example.Org:8443", 403, 200),
        ("box:8443", 403, 200),
        ("box", 403, 403),
        ("box:8444", 403, 403),
        ("agents.example.org.evil.example", 403, 403),
        ("evil.agents.example.org", 403, 403),
        ("localhost.evil.example", 403, 403),
        ("127.0.0.1.evil.example", 403, 403),
        ("192.0.2.1", 403, 403),
    ] {
        let found = [&plain_served, &listed_served].map(|served| served.status(VERSION, &host(name)));
        assert_eq!(found, [without, with], "{name}");
    }
    // In the target it counts as well.
    assert_eq!(plain_served.status("GET http://evil.example/version", &host("localhost")), 403);
}

#[test]
fn elsewhere_a_host_is_checked_if_there_is_a_list() {
    let plain = House::new("address: '0.0.0.0:0', api_token: api", &polite());
    let listed = House::new("address: '0.0.0.0:0', api_token: api, allowed_hosts: [agents.example.org]", &polite());
    for (house, expected) in [(&plain, [200, 200, 200]), (&listed, [200, 200, 403])] {
        let mut served = house.serve();
        served.address = served.address.map(|address| ([127, 0, 0, 1], address.port()).into());
        let names = ["localhost", "agents.example.org", "other.example"].map(host);
        assert_eq!(names.clone().map(|name| served.status(VERSION, &(name + &bearer("api")))), expected);
        assert_eq!(names.map(|name| house.near(VERSION, &name)), expected, "by the unix socket");
    }
}

#[test]
fn pages_of_others_are_refused_at_every_door() {
    let plain = "address: '0.0.0.0:0', api_token: api";
    let listed = "address: '0.0.0.0:0', api_token: api, allowed_origins: ['https://agents.example.org']";
    for (text, allowed) in [(plain, 403), (listed, 200)] {
        let house = House::new(text, &polite());
        let served =
            Served::start(&mut house.command(&["serve", "--listen", "127.0.0.1:0", "--listen", "unix:s"], &[]));
        let mut open = house_open(text);
        open.1.address = open.1.address.map(|address| ([127, 0, 0, 1], address.port()).into());
        for (headers, status) in [
            ("", 200),
            ("Origin: http://localhost:3000\r\n", 200),
            ("Origin: http://127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n", 200),
            ("Sec-Fetch-Site: same-origin\r\n", 200),
            ("Sec-Fetch-Site: none\r\n", 200),
            ("Sec-Fetch-Site: cross-site\r\n", 403),
            ("Origin: https://agents.example.org\r\n", allowed),
            ("Origin: https://agents.example.org\r\nSec-Fetch-Site: cross-site\r\n", allowed),
            ("Origin: http://agents.example.org\r\n", 403),
            ("Origin: https://agents.example.org:444\r\n", 403),
            ("Origin: https://agents.example.org.evil.example\r\n", 403),
            ("Origin: http://localhost.evil.example\r\n", 403),
            ("Origin: null\r\n", 403),
            ("Origin: \r\n", 403),
            ("Origin: http://localhost\r\nOrigin: http://evil.example\r\n", 400),
        ] {
            let headers = bearer("api") + headers;
            let replies = [
                served.reply(VERSION, &headers, ""),
                open.1.reply(VERSION, &headers, ""),
                ask(&mut unix(&house.socket()), VERSION, &headers, ""),
                ask(&mut unix(&house.root.join("s")), VERSION, &headers, ""),
            ];
            for (reply, door) in replies.iter().zip(["loopback", "network", "own socket", "named socket"]) {
                assert_eq!(reply.status, status, "{door}: {headers:?}");
                assert!(!reply.head.to_ascii_lowercase().contains("access-control"), "{door}: {}", reply.head);
            }
        }
    }
}

fn house_open(text: &str) -> (House, Served) {
    let house = House::new(text, &polite());
    let served = house.serve();
    (house, served)
}

#[test]
fn what_changes_something_says_that_it_is_json_before_its_body_is_read() {
    let house = House::new("address: '127.0.0.1:0'", &polite());
    let served = house.serve();
    let new = r#"{"agent":"bot","id":"s"}"#;
    assert_eq!(served.reply("POST /api/v1/sessions", JSON, new).status, 201, "the control");
    // What a form or a simple request of a page can say, and saying nothing.
    for kind in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/plain; charset=application/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=application/json\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type:\r\n",
    ] {
        for line in [
            "POST /api/v1/sessions",
            "POST /api/v1/sessions/s/cancel",
            "DELETE /api/v1/sessions/s",
            "POST /api/admin/v1/reload",
        ] {
            for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
                // The body never comes, and is not waited for.
                let mut wire = tcp(&served);
                send(&mut wire, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{kind}{framing}\r\n"));
                let reply = read(&mut wire);
                assert_eq!(reply.status, 415, "{line} {kind:?} {framing:?}: {reply:?}");
            }
            let bodiless = if kind.is_empty() { line.starts_with("POST /api/v1/sessions/s") } else { true };
            if bodiless {
                let expected = if kind.is_empty() { 409 } else { 415 };
                assert_eq!(served.status(line, kind), expected, "{line} {kind:?} without a body");
            }
        }
    }
    assert_eq!(
        served.reply("POST /api/v1/sessions/s/fork", "Content-Type: Application/JSON; charset=utf-8\r\n", "{}").status,
        201
    );
    assert_eq!(served.status("DELETE /api/v1/sessions/s", ""), 200, "what has no body says nothing, and may");
}

#[test]
fn requests_are_served_below_the_base_and_without_it() {
    let house =
        House::new("address: '127.0.0.1:0', base_path: /x/duragent, api_token: api, admin_token: adm", &polite());
    let served = house.serve();
    for (path, status) in [
        ("/livez", 200),
        ("/x/duragent/livez", 200),
        ("/x/duragent/version", 200),
        ("/x/%64uragent/version", 200),
        ("/x/duragent", 404),
        ("/x/duragent/", 404),
        ("/x/livez", 404),
        ("/x/duragentlivez", 404),
        ("/x/duragent2/livez", 404),
        ("/x/duragent/x/duragent/livez", 404),
        ("/x%2fduragent/livez", 404),
        ("/x/duragent//livez", 404),
        ("//x/duragent/livez", 404),
        ("/x/duragent/../duragent/livez", 404),
        ("/x/duragent/api/admin/v1/none", 401),
        ("/x/duragent/%61pi/admin/v1/none", 401),
        ("/api/admin/v1/none", 401),
    ] {
        assert_eq!(served.status(&format!("GET {path}"), &bearer("api")), status, "{path}");
    }
    assert_eq!(served.status("GET /x/duragent/version", ""), 401, "the control: it is the same door");
    assert_eq!(served.status("POST /x/duragent/api/admin/v1/reload", &bearer("adm")), 200);
    for (path, id) in [("/x/duragent/api/v1/sessions", "a"), ("/api/v1/sessions", "b")] {
        let headers = bearer("api") + JSON;
        let made = served.reply(&format!("POST {path}"), &headers, &format!(r#"{{"agent":"bot","id":"{id}"}}"#));
        let location = format!("\r\nLocation: /x/duragent/api/v1/sessions/{id}\r\n");
        assert!(made.status == 201 && made.head.contains(&location), "{path}: {}", made.head);
        assert_eq!(served.status(&format!("GET /x/duragent/api/v1/sessions/{id}"), &headers), 200);
    }
}

#[test]
fn time_limits_are_as_configured() {
    let text = "address: '127.0.0.1:0', head_seconds_max: 1, body_seconds_max: 1, idle_seconds_max: 1, ping_seconds: 1";
    let house = House::new(text, &polite());
    let served = house.serve();
    for begun in [
        "GET /livez HTTP/1.1\r\n",
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut wire = tcp(&served);
        send(&mut wire, begun);
        assert_eq!(read(&mut wire).status, 408, "{begun:?}");
    }
    let mut wire = tcp(&served);
    send(&mut wire, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(read(&mut wire).status, 200, "and it is closed, although it was to be kept");
    assert_eq!(served.reply("POST /api/v1/sessions", JSON, r#"{"agent":"bot","id":"s"}"#).status, 201);
    let mut wire = tcp(&served);
    send(&mut wire, "GET /api/v1/sessions/s/events?after=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut said = String::new();
    while !said.contains(": ping") {
        let mut buffer = [0; 512];
        let n = std::io::Read::read(&mut wire, &mut buffer).expect("the stream goes on");
        assert!(n > 0, "the stream ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}
