use super::super::{Secret, ServerLimits, Workspace};
use super::*;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

fn server(text: &str) -> super::super::Server {
    let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}server: {text}\n").as_bytes())]);
    Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace").config.server
}

fn shown(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::expose)
}

#[test]
fn nothing_said_is_nobody_but_this_machine() {
    let server = server("");
    assert_eq!((&server.api_token, &server.admin_token), (&None, &None));
    assert!(server.allowed_hosts.is_empty() && server.allowed_origins.is_empty() && server.trusted_proxies.is_empty());
    assert_eq!((server.base_path.as_str(), server.socket_mode), ("", 0o600));
    let said: Vec<(&str, u64)> = server.limits.entries();
    let defaults = [
        ("body_bytes_max", 1 << 20),
        ("arriving_bytes_max", 16 << 20),
        ("connections_max", 256),
        ("head_seconds_max", 10),
        ("body_seconds_max", 30),
        ("write_seconds_max", 30),
        ("idle_seconds_max", 75),
        ("ping_seconds", 15),
    ];
    assert_eq!(said, defaults);
    for (name, default, range) in ServerLimits::TABLE {
        assert!(range.contains(default), "{name}");
    }
}

#[test]
fn tokens_come_from_values_variables_and_files() {
    let found = server("{api_token: ' one ', admin_token: '${KEY}'}");
    assert_eq!((shown(found.api_token.as_ref()), shown(found.admin_token.as_ref())), (Some("one"), Some("sk-secret")));
    assert_eq!(server("{api_token: '${UNSET:-}', admin_token: ' '}").admin_token, None);
    let text = "server: {api_token_file: a, admin_token_file: ./b}\n";
    let folder =
        Folder::with(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes()), ("a", b"in-a\n"), ("b", b" in-b ")]);
    for name in ["a", "b"] {
        std::fs::set_permissions(folder.0.join(name), std::fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    let server = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace").config.server;
    assert_eq!((shown(server.api_token.as_ref()), shown(server.admin_token.as_ref())), (Some("in-a"), Some("in-b")));
    std::fs::set_permissions(folder.0.join("b"), std::fs::Permissions::from_mode(0o604)).expect("chmod");
    let line = report(&folder.0).lines.remove(0);
    assert!(line.starts_with("duragent.yaml:2:47: server.admin_token_file: ") && line.contains("0604"), "{line}");
}

#[test]
fn what_is_wrong_with_a_token_does_not_show_it() {
    after_trust(&[
        (
            "server: {api_token: 12345678}\n",
            &["duragent.yaml:2:21: server.api_token: expected text (put it in quotes)"],
        ),
        (
            "server: {admin_token: [geheim]}\n",
            &["duragent.yaml:2:23: server.admin_token: expected text (put it in quotes)"],
        ),
        (
            "providers: {openai: {headers: {X-Key: 12345678}}}\n",
            &["duragent.yaml:2:39: providers.openai.headers.X-Key: expected text (put it in quotes)"],
        ),
        (
            "server: {admin_token: geheim, admin_token_file: none}\n",
            &["duragent.yaml:2:23: server.admin_token: admin_token and admin_token_file exclude each other; keep one"],
        ),
    ]);
}

#[test]
fn names_and_origins() {
    let found = server(
        "{allowed_hosts: [Agents.Example.ORG, 'box:8410', '10.0.0.5', '[fd00::1]:80'], allowed_origins: ['https://Agents.example.org', 'app://x:1']}",
    );
    assert_eq!(found.allowed_hosts, ["agents.example.org", "box:8410", "10.0.0.5", "[fd00::1]:80"]);
    assert_eq!(found.allowed_origins, ["https://agents.example.org", "app://x:1"]);
    for bad in ["", "*", "*.example.org", "a/b", "http://a", "a:99999", "a:+1", "a b", "fd00::1", "[x]", "a@b", "a:"] {
        let text = format!("server: {{allowed_hosts: ['{bad}']}}\n");
        let line = format!(
            "duragent.yaml:2:26: server.allowed_hosts[0]: expected a name like agents.example.org, found {bad:?}"
        );
        after_trust(&[(&text, &[&line])]);
    }
    for bad in ["*", "null", "example.org", "https://", "https://a/", "https://a/b", "https://u@a", "://a", "https://*"]
    {
        let text = format!("server: {{allowed_origins: ['{bad}']}}\n");
        let line = format!(
            "duragent.yaml:2:28: server.allowed_origins[0]: expected an origin like https://agents.example.org, found {bad:?}"
        );
        after_trust(&[(&text, &[&line])]);
    }
}

#[test]
fn proxies_are_addresses_ranges_and_unix_and_need_a_token() {
    let found = server("{api_token: x, trusted_proxies: [127.0.0.1, 10.0.0.0/8, 'fd00::/8', unix]}").trusted_proxies;
    let ip = |text: &str| text.parse::<IpAddr>().expect(text);
    assert!(found.unix && found.work_at(ip("10.9.9.9")) && found.work_at(ip("fd00::1")) && !found.work_at(ip("::1")));
    after_trust(&[
        (
            "server: {trusted_proxies: [127.0.0.1]}\n",
            &[
                "duragent.yaml:2:27: server.trusted_proxies: a proxy lets others in, so api_token or api_token_file is required",
            ],
        ),
        (
            "server: {api_token: x, trusted_proxies: [nginx, 10.0.0.1/8]}\n",
            &[
                "duragent.yaml:2:42: server.trusted_proxies[0]: expected an address like 10.0.0.5, a range like \
                 10.0.0.0/8, or unix, found \"nginx\"",
                "duragent.yaml:2:49: server.trusted_proxies[1]: expected an address like 10.0.0.5, a range like \
                 10.0.0.0/8, or unix, found \"10.0.0.1/8\"",
            ],
        ),
        (
            "server: {api_token: x, trusted_proxies: unix}\n",
            &["duragent.yaml:2:41: server.trusted_proxies: expected a list, found \"unix\""],
        ),
    ]);
}

#[test]
fn base_paths() {
    for (text, expected) in [("/duragent", "/duragent"), ("/a/b-c_d.e~f", "/a/b-c_d.e~f"), ("/", ""), ("", "")] {
        assert_eq!(server(&format!("{{base_path: '{text}'}}")).base_path, expected);
    }
    for bad in ["duragent", "/duragent/", "//x", "/a//b", "/a/../b", "/.", "/a b", "/a%20b", "/a?b", "/ä"] {
        let text = format!("server: {{base_path: '{bad}'}}\n");
        let line = format!(
            "duragent.yaml:2:21: server.base_path: expected a path like /duragent of letters, digits and -._~, without a \
             slash at the end, found {bad:?}"
        );
        after_trust(&[(&text, &[&line])]);
    }
    // What the page has a row for, a base path cannot begin with.
    let rows = include_str!("../../../docs/formats.md").lines().filter_map(|line| line.strip_prefix("| `GET /"));
    let mut routes: Vec<&str> = rows.filter_map(|row| row.split(['/', '`']).next()).collect();
    routes.dedup();
    assert!(routes.contains(&"api") && routes.contains(&"livez"), "{routes:?}");
    for own in routes.iter().flat_map(|name| [format!("/{name}"), format!("/{name}/x")]) {
        let line =
            format!("duragent.yaml:2:21: server.base_path: {own:?} is a path of the server itself; choose another");
        after_trust(&[(&format!("server: {{base_path: '{own}'}}\n"), &[&line])]);
    }
}

#[test]
fn socket_modes_are_octal_text() {
    for (text, expected) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777), ("0", 0)] {
        assert_eq!(server(&format!("{{socket_mode: '{text}'}}")).socket_mode, expected);
    }
    for bad in ["0680", "1660", "0o660", "+660", "-1", "rw", ""] {
        let line =
            format!("duragent.yaml:2:23: server.socket_mode: expected an octal mode like \"0660\", found {bad:?}");
        after_trust(&[(&format!("server: {{socket_mode: '{bad}'}}\n"), &[&line])]);
    }
    after_trust(&[(
        "server: {socket_mode: 660}\n",
        &["duragent.yaml:2:23: server.socket_mode: expected text, found 660 (put it in quotes)"],
    )]);
}

#[test]
fn the_dump_has_all_of_it_and_can_be_read_again() {
    let text = "server:\n  address: \"0.0.0.0:80\"\n  api_token: \"***\"\n  admin_token: \"***\"\n  allowed_hosts: [\"a\", \
                \"b:1\"]\n  allowed_origins: [\"https://a\"]\n  trusted_proxies: [\"10.0.0.0/8\", \"unix\"]\n  base_path: \
                \"/x\"\n  socket_mode: \"0060\"\n  body_bytes_max: 1024\n  arriving_bytes_max: 65536\n  connections_max: 1\n  head_seconds_max: 2\n  \
                body_seconds_max: 3\n  write_seconds_max: 4\n  idle_seconds_max: 5\n  ping_seconds: 6\n";
    let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]);
    let dump = report(&folder.0).dump.expect("a dump");
    assert!(dump.contains(text), "{dump}");
    assert!(!dump.contains("sk-secret"));
}
