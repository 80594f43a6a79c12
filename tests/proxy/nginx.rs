//! nginx with the configuration that Debian installs, but for its paths.

use crate::checks;
use crate::client::Way;
use crate::guide::{Behind, NAME, Proxy, free_port, put, snippet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Starts nginx in a folder of the house, with this site.
fn start(behind: &Behind, site: &str, way: &Way) -> Proxy {
    start_with(behind, site, way, &[])
}

/// The same with more changes to the stock configuration.
fn start_with(behind: &Behind, site: &str, way: &Way, more: &[(&str, &str)]) -> Proxy {
    let root = behind.house.root.join("nginx");
    fs::create_dir(&root).expect("a folder");
    let of = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
    let stock = fs::read_to_string("/etc/nginx/nginx.conf");
    let stock = stock.expect("/etc/nginx/nginx.conf: not found; install the Debian package nginx-light");
    // Where it may write, and which sites there are. All else is as installed.
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", of(name)))
        .concat();
    let text = put(
        &stock,
        &[
            ("pid /run/nginx.pid;", &format!("pid {};", of("pid"))),
            ("/var/log/nginx/access.log", &of("access.log")),
            ("/var/log/nginx/error.log", &of("error.log")),
            ("include /etc/nginx/conf.d/*.conf;", &folders),
            ("/etc/nginx/sites-enabled/*", &of("site")),
        ],
    );
    fs::write(of("nginx.conf"), put(&text, more)).expect("a file");
    fs::write(of("site"), site).expect("a file");
    let mut command = Command::new("nginx");
    command.args(["-c", &of("nginx.conf"), "-e", &of("error.log"), "-g", "daemon off;"]);
    let mut proxy = Proxy::start(&mut command, "nginx-light", &root.join("out"));
    proxy.ready(|| way.stranger("/livez", &[]).is_some_and(|reply| reply.status == 200));
    proxy
}

fn plain() -> Way {
    Way { scheme: "http", port: free_port(), base: "", certificate: None }
}

fn listening(way: &Way) -> String {
    format!("listen 127.0.0.1:{}", way.port)
}

/// A certificate for the name, signed by itself; its file and that of its key.
fn certificate(folder: &Path) -> [String; 2] {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name).to_str().expect("UTF-8").to_owned());
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={NAME}"), "-addext", &format!("subjectAltName=DNS:{NAME}")]);
    let output = command.args(["-out", &cert, "-keyout", &key]).output();
    let output = output.expect("openssl: not found; install the Debian package openssl");
    assert!(output.status.success(), "{output:?}");
    [cert, key]
}

#[test]
fn plain_by_tcp() {
    let (behind, way) = (Behind::new("tcp", ""), plain());
    let site = put(&snippet("nginx-plain"), &[("listen 80", &listening(&way)), ("127.0.0.1:8410", &behind.tcp())]);
    let _proxy = start(&behind, &site, &way);
    checks::all(&way, &behind, "");
    let status = |args: &[&str]| way.ask("/version", args).status;
    assert_eq!(status(&["-H", "Origin: https://agents.example.org"]), 200, "allowed_origins");
    assert_eq!(status(&["-H", "Host: evil.example"]), 403, "allowed_hosts: a name that leads here and is not ours");
    assert_eq!(status(&["-H", "Host: evil.example", "-H", "X-Forwarded-Host: localhost"]), 403, "nginx overwrites it");
}

/// Through the site with TLS, whose lines for the upstream are replaced.
fn tls(behind: &Behind, upstream: &str) {
    let [cert, key] = certificate(&behind.house.root);
    let way = Way { scheme: "https", port: free_port(), base: "/duragent", certificate: Some(cert.clone()) };
    let site = put(
        &snippet("nginx-tls"),
        &[
            ("listen 443", &listening(&way)),
            ("/etc/ssl/certs/agents.example.org.pem", &cert),
            ("/etc/ssl/private/agents.example.org.key", &key),
            ("http://unix:/run/duragent/http.sock", upstream),
        ],
    );
    let _proxy = start(behind, &site, &way);
    checks::all(&way, behind, "/duragent");
}

#[test]
fn tls_below_a_path_by_a_unix_socket() {
    let behind = Behind::new("unix", "");
    tls(&behind, &format!("http://unix:{}/http.sock", behind.run()));
}

#[test]
fn tls_with_the_path_taken_away() {
    let behind = Behind::new("unix", "");
    tls(&behind, &format!("http://unix:{}/http.sock:/", behind.run()));
    let behind = Behind::new("tcp", "  base_path: /duragent\n");
    tls(&behind, &format!("http://{}/", behind.tcp()));
}

#[test]
fn a_proxy_of_the_servers_own_user_lets_nobody_in_without_the_token() {
    let site = |way: &Way, behind: &Behind| {
        let upstream = format!("http://unix:{}", behind.house.socket().display());
        put(&snippet("nginx-plain"), &[("listen 80", &listening(way)), ("http://127.0.0.1:8410", &upstream)])
    };
    let (behind, way) = (Behind::new("unix", ""), plain());
    let _proxy = start_as_own(&behind, &site(&way, &behind), &way);
    assert_eq!(way.stranger("/version", &[]).map(|reply| reply.status), Some(401));
    assert_eq!(way.ask("/version", &[]).status, 200);
    // The control: from a proxy that is not listed, every stranger is the server's own user.
    let (behind, way) = (Behind::new("tcp", ""), plain());
    let _proxy = start_as_own(&behind, &site(&way, &behind), &way);
    assert_eq!(way.stranger("/version", &["-H", "Host: localhost"]).map(|reply| reply.status), Some(200));
}

/// As [`start`]; its workers are of the same user as the server. Only root's nginx has others.
fn start_as_own(behind: &Behind, site: &str, way: &Way) -> Proxy {
    let root = duragent_platform::process::uid() == 0;
    start_with(behind, site, way, if root { &[("user www-data;", "user root;")] } else { &[] })
}

/// As short a configuration as can be: HTTP/1.0 to the server, where nginx passes on whole buffers only, unless it is told not
/// to. (With `proxy_http_version 1.1` it passes on whole chunks, told or not.)
#[test]
fn the_first_event_comes_at_once_because_the_server_says_so() {
    let short = "    location / {\n        proxy_pass http://127.0.0.1:8410;\n    }\n}\n";
    for told in [true, false] {
        let (behind, way) = (Behind::new("tcp", ""), plain());
        let text = snippet("nginx-plain");
        let (before, _) = text.split_once("    location").expect("a location");
        let deaf = if told { "" } else { "proxy_ignore_headers X-Accel-Buffering;\n    location" };
        let site = [before, short].concat();
        let site = put(&site, &[("listen 80", &listening(&way)), ("127.0.0.1:8410", &behind.tcp())]);
        let site = if told { site } else { put(&site, &[("location", deaf)]) };
        let _proxy = start(&behind, &site, &way);
        assert_eq!(way.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#).status, 201);
        let port = behind.served.address.expect("a TCP listener").port();
        let direct = Way { scheme: "http", port, base: "", certificate: None };
        let listener = direct.stream("/api/v1/sessions/s/events?after=1", &["-H", "Host: localhost"]);
        listener.hears("retry: ");
        let headers = ["-H", "Content-Type: application/json", "-H", "Accept: text/event-stream"];
        let asked = [&headers[..], &["-d", r#"{"content":"hold"}"#]].concat();
        let stream = way.stream("/api/v1/sessions/s/messages", &asked);
        // Who is not behind the proxy hears the model, and then a second of silence and another one.
        listener.hears("\"text\":\"first\"");
        listener.hears(": ping\n\n: ping\n\n");
        if told {
            stream.hears("\"text\":\"first\"");
        } else {
            assert_eq!(stream.said(), "", "the control: nginx holds back what it is not told to pass on");
        }
        behind.go_on();
        let said = stream.end();
        assert!(said.contains("\"text\":\"first\"") && said.contains("event: turn_finished"), "{said}");
    }
}
