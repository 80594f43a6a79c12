//! Caddy as Debian has it.

use crate::checks;
use crate::client::Way;
use crate::guide::{Behind, NAME, Proxy, free_port, put, snippet};
use std::fs;
use std::process::Command;

/// Starts Caddy with this site and everything it keeps in a folder of the house.
fn start(behind: &Behind, site: &str, way: &Way) -> Proxy {
    let root = behind.house.root.join("caddy");
    fs::create_dir(&root).expect("a folder");
    let file = root.join("Caddyfile");
    // Nobody's port 80, nobody's certificates, and nothing listens but the site.
    let options = "{\n    admin off\n    auto_https disable_redirects\n    skip_install_trust\n}\n\n";
    fs::write(&file, [options, site].concat()).expect("a file");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("HOME", &root).env("XDG_DATA_HOME", &root).env("XDG_CONFIG_HOME", &root);
    let mut proxy = Proxy::start(&mut command, "caddy", &root.join("out"));
    proxy.ready(|| way.stranger("/livez", &[]).is_some_and(|reply| reply.status == 200));
    proxy
}

#[test]
fn plain_by_tcp() {
    let behind = Behind::new("tcp", "");
    let way = Way { scheme: "http", port: free_port(), base: "", certificate: None };
    let address = format!("http://{NAME}:{}", way.port);
    let site = put(&snippet("caddy"), &[(NAME, &address), ("127.0.0.1:8410", &behind.tcp())]);
    let _proxy = start(&behind, &site, &way);
    checks::all(&way, &behind, "");
}

#[test]
fn tls_below_a_path_by_a_unix_socket() {
    let behind = Behind::new("unix", "");
    let root = behind.house.root.join("caddy/caddy/pki/authorities/local/root.crt");
    let certificate = Some(root.to_str().expect("UTF-8").to_owned());
    let way = Way { scheme: "https", port: free_port(), base: "/duragent", certificate };
    let address = format!("https://{NAME}:{}", way.port);
    let site = put(&snippet("caddy-path"), &[(NAME, &address), ("/run/duragent", &behind.run())]);
    let _proxy = start(&behind, &site, &way);
    checks::all(&way, &behind, "/duragent");
}
