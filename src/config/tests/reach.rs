//! What tools may be given by a sandbox, and what they never are.

use super::super::Workspace;
use super::super::list::ITEMS_MAX;
use super::super::sandbox::{Layer, PRESETS, devices, folder};
use super::house::{AGENT, House, hosts, workspace_table};
use super::*;
use duragent_platform::sandbox::policy::Network;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

#[test]
fn paths_start_at_the_folder_that_holds_the_workspace() {
    let house = House::new();
    symlink(house.root.join("data"), house.root.join("link")).expect("a link");
    let text = "sandbox: {mode: auto, read: [data, ./x/../file, '${DATA}', /usr/share], write: [./out, link]}\n";
    let spec = house.spec(text, "");
    assert_eq!(spec.policy.read, [house.real(&["data", "file"]), vec!["/usr/share".into()]].concat());
    assert_eq!(spec.policy.write, house.real(&["out", "data"]));
    // However the workspace is named.
    let relative = folder(Path::new("x/.duragent"));
    assert!(relative.is_absolute() && relative.ends_with("x"), "{relative:?}");
}

#[test]
fn lists_of_paths_hold_paths() {
    workspace_table(
        &House::new(),
        &[
            ("read: data", &["29: sandbox.read: expected a list, found \"data\""]),
            ("read: [5]", &["30: sandbox.read[0]: expected a path, found 5"]),
            ("write: [out, ~]", &["36: sandbox.write[1]: expected a path, found nothing"]),
            ("write: ['~']", &["31: sandbox.write[0]: ~ is not expanded; write ${HOME}"]),
            ("read: [~/x]", &["30: sandbox.read[0]: ~ is not expanded; write ${HOME}/x"]),
            ("read: ['']", &["30: sandbox.read[0]: expected a path, found nothing"]),
            ("read: [\"a\\0b\"]", &["30: sandbox.read[0]: expected a path, found one with a NUL in it"]),
            ("read: [{a: b}]", &["30: sandbox.read[0]: expected a path, found a mapping"]),
            ("read: ['${UNSET}']", &["30: environment variable UNSET is not set; set it, or write ${UNSET:-default}"]),
        ],
    );
    let many: Vec<String> = (0..=ITEMS_MAX).map(|i| format!("/{i}")).collect();
    let text = format!("read: [{}]", many.join(","));
    workspace_table(
        &House::new(),
        &[(&text, &[&format!("29: sandbox.read: expected at most {ITEMS_MAX} items, found {}", ITEMS_MAX + 1)])],
    );
}

#[test]
fn what_is_not_there_is_said() {
    workspace_table(
        &House::new(),
        &[
            (
                "read: [none/x]",
                &[
                    "30: warning: sandbox.read[0]: DIR/none/x cannot be read, and is not there for tools: no such file or directory",
                ],
            ),
            (
                "write: [none/x]",
                &["31: sandbox.write[0]: DIR/none/x does not exist; make it with: mkdir -p DIR/none/x"],
            ),
            ("write: [file/x]", &["31: sandbox.write[0]: DIR/file/x: Not a directory (os error 20)"]),
        ],
    );
}

#[test]
fn what_configures_the_runtime_is_never_writable() {
    let house = House::new();
    house.folder.write(".duragent/token", b"t\n");
    house.folder.write("key", b"k\n");
    for name in [".duragent/token", "key"] {
        fs::set_permissions(house.root.join(name), fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    house.folder.write("other/.duragent/duragent.yaml", b"");
    symlink(".duragent/agents", house.root.join("link")).expect("a link");
    symlink("/etc", house.root.join("etc")).expect("a link");
    let own = "and what configures the runtime is never writable";
    let seen = "which tools never see";
    let whole = |path: &str| format!("{path} holds too much of the machine; name what is to be changed in it");
    let system = |path: &str| format!("{path} belongs to the system, and what others run is never writable");
    let around = "holds the folder around the workspace; name what is to be changed in it";
    let secret = "is a secret of the runtime, or configures it";
    let parent = house.root.parent().expect("a parent").display().to_string();
    let much = |path: &str| format!("{path} holds too much of the machine; name what is to be read in it");
    let other = "shows what another process knows, secrets included";
    let dev = "is more than one character device; name those one by one, never disks or memory";
    for (key, path, expected) in [
        ("write", ".duragent", Some(format!("DIR/.duragent is in a workspace, {own}"))),
        ("write", ".duragent/agents/a", Some(format!("DIR/.duragent/agents/a is in a workspace, {own}"))),
        ("write", "link", Some(format!("DIR/link (DIR/.duragent/agents) is in a workspace, {own}"))),
        ("write", "out/../.duragent/x", Some(format!("DIR/.duragent/x is in a workspace, {own}"))),
        ("write", "other/.duragent", Some(format!("DIR/other/.duragent is in a workspace, {own}"))),
        ("read", ".duragent/agents", Some(format!("DIR/.duragent/agents is in a workspace, {seen}"))),
        ("read", "link", Some(format!("DIR/link (DIR/.duragent/agents) is in a workspace, {seen}"))),
        ("read", "other/.duragent", Some(format!("DIR/other/.duragent is in a workspace, {seen}"))),
        ("write", "key", Some(format!("DIR/key {secret}"))),
        ("read", "key", Some(format!("DIR/key {secret}"))),
        ("write", "..", Some(format!("{parent} {around}"))),
        ("write", "/", Some(whole("/"))),
        ("write", "/../..", Some(whole("/"))),
        ("write", "/dev", Some(whole("/dev"))),
        ("write", "/home", Some(whole("/home"))),
        ("write", "/run", Some(whole("/run"))),
        ("write", "/sys", Some(whole("/sys"))),
        ("write", "/var", Some(whole("/var"))),
        ("write", "/etc", Some(system("/etc"))),
        ("write", "/etc/cron.d", Some(system("/etc/cron.d"))),
        ("write", "etc", Some(system("DIR/etc (/etc)"))),
        ("write", "/boot/x", Some(system("/boot/x"))),
        ("write", "/usr", Some(system("/usr"))),
        ("write", "/usr/local/bin", Some(system("/usr/local/bin"))),
        ("write", "/proc/sys", Some(system("/proc/sys"))),
        ("write", "/proc/self/cwd", None),
        ("write", "/bin", None),
        ("write", "/sbin", None),
        ("write", "/lib", None),
        ("write", "/dev/pts", Some(format!("/dev/pts {dev}"))),
        ("read", "/", Some(much("/"))),
        ("read", "/proc", Some(much("/proc"))),
        ("read", "/dev", Some(much("/dev"))),
        ("read", "/run", Some(much("/run"))),
        ("read", "/proc/1/environ", Some(format!("/proc/1/environ {other}"))),
        ("read", "/proc/self/environ", None),
        ("read", "/proc/thread-self", None),
    ] {
        let providers = "providers: {openai: {api_key_file: ../key}}\nserver: {api_token_file: token}\n";
        house.write(&format!("sandbox:\n  mode: auto\n  {key}: [{path}]\n{providers}"), "");
        let said = house.said();
        let [one] = said.as_slice() else { panic!("{key} {path}: {said:?}") };
        let start = format!("duragent.yaml:3:{}: sandbox.{key}[0]: ", key.len() + 6);
        let text = one.strip_prefix(&start).unwrap_or_else(|| panic!("{key} {path}: {one}"));
        match expected {
            Some(expected) => assert_eq!(text, expected),
            // Links of the machine lead to other places on others.
            None => assert!(text.contains(if key == "write" { "belongs to the system" } else { other }), "{text}"),
        }
    }
    // The control: what stands beside them may be given.
    for text in ["write: [out]", "write: [.]", "read: [.]", "read: [/etc/hostname]", "write: [/dev/null]"] {
        workspace_table(&house, &[(text, &[])]);
    }
}

#[test]
fn a_socket_is_a_door() {
    let house = House::new();
    let _listener = UnixListener::bind(house.root.join("s")).expect("a socket");
    let said = "is a socket: who listens there works outside the sandbox, for whoever asks";
    workspace_table(
        &house,
        &[
            ("read: [s]", &[&format!("30: warning: sandbox.read[0]: DIR/s {said}")]),
            ("write: [s]", &[&format!("31: warning: sandbox.write[0]: DIR/s {said}")]),
        ],
    );
}

#[test]
fn places_on_the_network() {
    let house = House::new();
    for (text, expected) in [
        ("none", Network::None),
        ("loopback", Network::Loopback),
        ("'${UNSET:-none}'", Network::None),
        ("", Network::None),
        ("[example.com:443]", hosts(&[("example.com", 443)])),
        ("['Example.COM.:443', 'example.com:443']", hosts(&[("example.com", 443)])),
        ("['*.example.com:1']", hosts(&[("*.example.com", 1)])),
        ("[10.0.0.5:8080]", hosts(&[("10.0.0.5", 8080)])),
        ("['[::1]:65535', '[2001:DB8:0::1]:80']", hosts(&[("::1", 65535), ("2001:db8::1", 80)])),
        ("['[::ffff:10.0.0.5]:80']", hosts(&[("10.0.0.5", 80)])),
        ("[localhost:3000, '${SET}:1']", hosts(&[("localhost", 3000), ("value", 1)])),
    ] {
        let spec = house.spec(&format!("sandbox: {{mode: auto, network: {text}}}\n"), "");
        assert_eq!(spec.policy.network, expected, "{text}");
    }
    let words = "expected none, loopback, all or a list of host:port";
    let long = "a".repeat(64);
    for (text, expected) in [
        ("non", format!("32: sandbox.network: {words}, found \"non\" (did you mean \"none\"?)")),
        ("a.example:443", format!("32: sandbox.network: {words}, found \"a.example:443\" (put it into a list)")),
        ("5", format!("32: sandbox.network: {words}, found 5")),
        ("{a: b}", format!("32: sandbox.network: {words}, found a mapping")),
        ("[]", format!("32: sandbox.network: expected 1 to {ITEMS_MAX} places, found 0; write network: none")),
        ("[5]", "33: sandbox.network[0]: expected host:port, found 5".to_owned()),
    ] {
        workspace_table(&house, &[(&format!("network: {text}"), &[&expected])]);
    }
    for (text, expected) in [
        ("https://a.example:443", "host:port without a scheme or path"),
        ("example.com", "host:port (443 is the port of https)"),
        ("example.com:0", "host:port with a port from 1 to 65535"),
        ("example.com:65536", "host:port with a port from 1 to 65535"),
        ("example.com:+80", "host:port with a port from 1 to 65535"),
        ("example.com:", "host:port with a port from 1 to 65535"),
        ("::1:80", "an IPv6 address in brackets, like [::1]:8080"),
        ("[::g]:80", "an IPv6 address in the brackets"),
        ("[fe80::1%eth0]:80", "an IPv6 address in the brackets"),
        ("0.0.0.0:80", "an address that can be connected to"),
        ("[::]:80", "an address that can be connected to"),
        ("10.1:80", "an IPv4 address as four numbers"),
        ("1.2.3.4.5:80", "an IPv4 address as four numbers"),
        ("0x7f000001:80", "an IPv4 address as four numbers"),
        ("127.0.0.0x1:80", "an IPv4 address as four numbers"),
        ("a..b:80", "a host name, *. and a host name, or an address"),
        (":80", "a host name, *. and a host name, or an address"),
        ("a b:80", "a host name, *. and a host name, or an address"),
        ("a/b:80", "a host name, *. and a host name, or an address"),
        ("bücher.example:80", "a host name, *. and a host name, or an address"),
        (&format!("{long}:80"), "a host name, *. and a host name, or an address"),
        ("*:80", "a * only as the whole of the first part, like *.example.com:443"),
        ("a.*.com:80", "a * only as the whole of the first part, like *.example.com:443"),
        ("*a.com:80", "a * only as the whole of the first part, like *.example.com:443"),
        ("*.*.com:80", "a * only as the whole of the first part, like *.example.com:443"),
    ] {
        let said = format!("33: sandbox.network[0]: expected {expected}, found \"{}\"", cut(text));
        workspace_table(&house, &[(&format!("network: ['{text}']"), &[&said])]);
    }
    // What a variable holds is in no message.
    let said =
        "33: sandbox.network[0]: expected host:port (443 is the port of https), found another value in the environment";
    workspace_table(&house, &[("network: ['${SECRET_PLACE}']", &[said])]);
    let many: Vec<String> = (0..=ITEMS_MAX).map(|i| format!("h{i}:1")).collect();
    let said =
        format!("32: sandbox.network: expected 1 to {ITEMS_MAX} places, found {}; write network: all", ITEMS_MAX + 1);
    workspace_table(&house, &[(&format!("network: [{}]", many.join(",")), &[&said])]);
}

/// As messages show a text.
fn cut(text: &str) -> String {
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text.to_owned() }
}

#[test]
fn the_servers_own_door_asks_for_a_token_before_tools_reach_it() {
    let house = House::new();
    let said = "tools reach the server at 127.0.0.1:8410 and could grant their own approvals, for it asks for no token; set \
                server.api_token_file, or server.address to unix:duragent.sock";
    let network = [format!("32: warning: sandbox.network: {said}")];
    let preset = [format!("31: warning: sandbox.preset: {said}")];
    for (text, expected) in [
        ("network: all", &network[..]),
        ("network: ['127.0.0.1:8410']", &network),
        ("network: ['localhost:8410']", &network),
        ("network: ['[::1]:8410']", &network),
        ("preset: web", &preset),
        ("network: ['127.0.0.1:8411', 'example.com:8410']", &[]),
        ("network: loopback", &[]),
        ("preset: web, network: none", &[]),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        workspace_table(&house, &[(text, &expected)]);
    }
    for server in ["{api_token: t}", "{address: 'unix:duragent.sock'}"] {
        house.write(&format!("sandbox: {{mode: auto, network: all}}\nserver: {server}\n"), "");
        assert_eq!(house.said(), [""; 0]);
    }
    house.write("sandbox: {mode: auto}\n", "  sandbox: {preset: web}\n");
    assert_eq!(house.said(), [format!("agents/a/agent.yaml:6:21: warning: spec.sandbox.preset: {said}")]);
}

#[test]
fn secrets_never_pass() {
    let house = House::new();
    let config = "server: {api_token: '${TOKEN_PART:-x}', admin_token: '${ADMIN_PART:-y}'}\nproviders:\n  mine: {kind: openai, base_url: 'https://h/v1', api_key_env: \
                  MY_KEY, headers: {X-A: 'a $${NOT_ME} ${HEADER:-x}'}}\n  two: {kind: openai, base_url: '${URL}', api_key_env: \
                  KEY}\n  three: {kind: openai, base_url: '${PLAIN_URL}'}\n";
    let secret = "holds a secret, and secrets never pass";
    let way = "names a proxy, and the way out is what network says";
    let code = "changes which code programs load";
    let shape = "expected the name of a variable, of letters, digits and _, found";
    for (name, expected) in [
        ("OPENAI_API_KEY", format!("\"OPENAI_API_KEY\" cannot pass: it {secret}")),
        ("OPENROUTER_API_KEY", format!("\"OPENROUTER_API_KEY\" cannot pass: it {secret}")),
        ("ANTHROPIC_API_KEY", format!("\"ANTHROPIC_API_KEY\" cannot pass: it {secret}")),
        ("MY_KEY", format!("\"MY_KEY\" cannot pass: it {secret}")),
        ("KEY", format!("\"KEY\" cannot pass: it {secret}")),
        // The same key under another name.
        ("OTHER_KEY", format!("\"OTHER_KEY\" cannot pass: it {secret}")),
        ("TOKEN_PART", format!("\"TOKEN_PART\" cannot pass: it {secret}")),
        ("ADMIN_PART", format!("\"ADMIN_PART\" cannot pass: it {secret}")),
        ("HEADER", format!("\"HEADER\" cannot pass: it {secret}")),
        ("URL", format!("\"URL\" cannot pass: it {secret}")),
        ("LD_PRELOAD", format!("\"LD_PRELOAD\" cannot pass: it {code}")),
        ("LD_", format!("\"LD_\" cannot pass: it {code}")),
        ("BASH_ENV", "\"BASH_ENV\" cannot pass: it names a file that every bash runs first".to_owned()),
        ("ENV", "\"ENV\" cannot pass: it names a file that shells run first".to_owned()),
        ("IFS", "\"IFS\" cannot pass: it changes how shells read what they are told".to_owned()),
        ("DURAGENT_DIR", "\"DURAGENT_DIR\" cannot pass: it is said by duragent itself".to_owned()),
        ("https_proxy", format!("\"https_proxy\" cannot pass: it {way}")),
        ("HTTP_PROXY", format!("\"HTTP_PROXY\" cannot pass: it {way}")),
        ("No_Proxy", format!("\"No_Proxy\" cannot pass: it {way}")),
        ("ALL_PROXY", format!("\"ALL_PROXY\" cannot pass: it {way}")),
        ("'1X'", format!("{shape} \"1X\"")),
        ("A-B", format!("{shape} \"A-B\"")),
        ("ÄB", format!("{shape} \"ÄB\"")),
        ("''", format!("{shape} \"\"")),
        ("5", "expected the name of a variable, found 5".to_owned()),
        ("'A=b'", format!("{shape} \"A=b\"; values are taken from the environment of duragent")),
        ("'${KEY}'", format!("{shape} another value in the environment")),
    ] {
        house.write(&format!("sandbox: {{mode: auto, env: [LANG, {name}]}}\n{config}"), "");
        assert_eq!(house.said(), [format!("duragent.yaml:1:35: sandbox.env[1]: {expected}")]);
        house.write(&format!("sandbox: {{mode: trust}}\n{config}"), &format!("  sandbox: {{env: [{name}]}}\n"));
        assert_eq!(house.said(), [format!("agents/a/agent.yaml:6:19: spec.sandbox.env[0]: {expected}")]);
    }
    // The control: names that are like those above and hold nothing.
    for name in ["SET", "LDFLAGS", "_", "NOT_ME", "PLAIN_URL", "ENVIRONMENT", "MY_KEY2", "UNSET", "PROXY"] {
        house.write(&format!("sandbox: {{mode: auto, env: [{name}]}}\n{config}"), "");
        assert_eq!(house.said(), [""; 0], "{name}");
    }
}

#[test]
fn a_board_has_the_devices_that_are_there() {
    let dev = Folder::with(&[("i2c-9", b"a file"), ("gpiochip", b"")]);
    for name in ["gpiochip0", "i2c-1", "ttyS0", "ttyprintk", "sda1", "iio:device0"] {
        symlink("/dev/null", dev.0.join(name)).expect("a link to a character device");
    }
    let hardware = PRESETS.iter().find(|preset| preset.name == "hardware").expect("hardware");
    let found = devices(&dev.0, hardware.devices);
    let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["gpiochip0", "i2c-1", "iio:device0", "ttyS0"]);
    assert_eq!(devices(&dev.0.join("none"), hardware.devices), [""; 0].map(PathBuf::from));
}

#[test]
fn where_tools_work_is_no_place_that_is_never_writable() {
    let mut house = House::new();
    let at = |message: &str| vec![format!("agents/a/agent.yaml:7:12: {message}")];
    let parent = house.root.parent().expect("a parent").display().to_string();
    for (workdir, expected) in [
        ("/", "spec.workdir: / holds too much of the machine; name what is to be changed in it".to_owned()),
        ("/etc/x", "spec.workdir: /etc/x belongs to the system, and what others run is never writable".to_owned()),
        ("/dev/shm", "spec.workdir: /dev/shm holds devices".to_owned()),
        (
            "..",
            format!("spec.workdir: {parent} holds the folder around the workspace; name what is to be changed in it"),
        ),
        (
            ".duragent/agents",
            "spec.workdir: DIR/.duragent/agents is in a workspace, and what configures the runtime is never writable"
                .to_owned(),
        ),
    ] {
        house.write("sandbox: {mode: auto}\n", &format!("  tools: [bash]\n  workdir: {workdir}\n"));
        assert_eq!(house.said(), at(&expected), "{workdir}");
        // Without tools, or without a wall, it makes no difference.
        house.write("sandbox: {mode: auto}\n", &format!("  workdir: {workdir}\n"));
        assert_eq!(house.said(), [""; 0]);
        house.write("sandbox: {mode: trust}\n", &format!("  tools: [bash]\n  workdir: {workdir}\n"));
        assert_eq!(house.said(), [""; 0]);
    }
    for workdir in ["out", "made/later"] {
        house.write("sandbox: {mode: auto}\n", &format!("  tools: [bash]\n  workdir: {workdir}\n"));
        assert_eq!(house.said(), [""; 0]);
    }
    let said = "is your home, and tools may change all of it but .duragent, .ssh and what shells, git and editors run by \
                themselves; a folder of its own is safer";
    house.home = house.root.clone();
    house.write("sandbox: {mode: auto}\n", "  tools: [bash]\n");
    assert_eq!(house.said(), [format!("agents/a/agent.yaml:4:1: warning: spec.workdir: DIR {said}")]);
    house.home = house.root.join("out");
    house.write("sandbox: {mode: auto}\n", "  tools: [bash]\n  workdir: out\n");
    assert_eq!(house.said(), at(&format!("warning: spec.workdir: DIR/out {said}")));
}

#[test]
fn what_is_hidden_and_what_is_never_changed() {
    let house = House::new();
    house.folder.write("tape.jsonl", b"");
    house.folder.write("SOUL.md", b"x");
    house.folder.write("key", b"k\n");
    fs::set_permissions(house.root.join("key"), fs::Permissions::from_mode(0o600)).expect("chmod");
    for folder in ["big", "elsewhere", ".duragent"] {
        fs::create_dir_all(house.root.join(folder)).expect("mkdir");
    }
    symlink(house.root.join("big"), house.root.join(".duragent/sessions")).expect("a link");
    house.folder.write(".duragent/agents/a/x", b"");
    symlink(house.root.join("elsewhere"), house.root.join(".duragent/agents/b")).expect("a link");
    symlink(&house.root, house.root.join(".duragent/agents/a/up")).expect("a link");
    house
        .folder
        .write("elsewhere/agent.yaml", format!("{AGENT}  soul: ../SOUL.md\n").replace(": a}", ": b}").as_bytes());
    let config = "sandbox: {mode: auto}\nserver: {address: 'unix:../s.sock'}\nproviders: {openai: {api_key_file: ../key}, r: {kind: \
                  replay, file: ../tape.jsonl}, s: {kind: replay, file: tape.jsonl}}\n";
    let spec = house.spec(config, "");
    let mut hidden = spec.policy.hidden;
    hidden.sort();
    let mut expected = house.real(&[".duragent", "big", "elsewhere", "key", "s.sock"]);
    expected.sort();
    assert_eq!(hidden, expected);
    let binary = fs::canonicalize(std::env::current_exe().expect("this program")).expect("its path");
    // What another agent is made of is not changed by this one either.
    let mut expected = [house.real(&["AGENTS.md", "CLAUDE.md", "SOUL.md", "tape.jsonl"]), vec![binary]].concat();
    expected.sort();
    assert_eq!(spec.policy.read_only, expected);
    // A workspace by another name is the same place.
    symlink(".duragent", house.root.join("alias")).expect("a link");
    let workspace = Workspace::load(&house.root.join("alias"), &|name| house.env(name), &TOOLS).expect("a workspace");
    assert_eq!(
        workspace.config.sandbox.spec(&Layer::default()).policy.hidden.first(),
        house.real(&[".duragent"]).first()
    );
}
