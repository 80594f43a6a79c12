use super::super::problem::ERRORS_MAX;
use super::super::providers::{masked_url, ollama_url};
use super::super::types::PORT_DEFAULT;
use super::super::{Limits, Listen, ProviderKind, Workspace};
use super::*;
use std::os::unix::fs::PermissionsExt;

fn load(text: &str) -> Workspace {
    let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]);
    Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace")
}

#[test]
fn the_promised_form() {
    let text = "# A comment, so that the key is where formats.md says.\n#\n#\n#\n#\n#\n#\n#\nsandbox:\n  mode: trust\nserver:\n    adress: x\n";
    assert_eq!(
        lines(&[("duragent.yaml", text.as_bytes())]),
        ["duragent.yaml:12:5: unknown key \"adress\" in server (did you mean \"address\"?)"]
    );
}

#[test]
fn unknown_and_duplicate_keys() {
    after_trust(&[
        ("sevrer: {}\n", &["duragent.yaml:2:1: unknown key \"sevrer\" at the top level (did you mean \"server\"?)"]),
        (
            "other: {}\n",
            &[
                "duragent.yaml:2:1: unknown key \"other\" at the top level (expected one of profile, server, providers, proxy, no_proxy, limits, \
               budgets, prices, prices_file, sandbox, log, retention)",
            ],
        ),
        (
            "providers:\n  ollama: {base_ulr: x}\n",
            &["duragent.yaml:3:12: unknown key \"base_ulr\" in providers.ollama (did you mean \"base_url\"?)"],
        ),
        (
            "limits:\n  steps_max: 1\n  steps_max: 2\n",
            &["duragent.yaml:4:3: duplicate key \"steps_max\" (first at line 3)"],
        ),
        ("limits:\n", &[]),
        (
            "routes: []\ngateways:\n",
            &[
                "duragent.yaml:2:1: warning: routes is not supported yet, ignored",
                "duragent.yaml:3:1: warning: gateways is not supported yet, ignored",
            ],
        ),
        (
            "server: {request_timeout_seconds: 300, host: 127.0.0.1, port: 8080}\n",
            &["duragent.yaml:2:10: warning: server.request_timeout_seconds is not supported yet, ignored"],
        ),
    ]);
}

#[test]
fn wrong_types_and_ranges() {
    after_trust(&[
        (
            "limits:\n  steps_max: many\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found \"many\""],
        ),
        (
            "limits:\n  steps_max: 0\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found 0"],
        ),
        (
            "limits:\n  steps_max: -3\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found -3"],
        ),
        (
            "limits:\n  steps_max: 1.50\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found 1.50"],
        ),
        (
            "limits:\n  steps_max: [1]\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found a list"],
        ),
        (
            "limits:\n  steps_max: '5'\n",
            &["duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found \"5\""],
        ),
        (
            "limits:\n  steps_max: 99999999999999999999\n",
            &[
                "duragent.yaml:3:14: limits.steps_max: expected a whole number from 1 to 1000, found 99999999999999999999",
            ],
        ),
        ("limits: 5\n", &["duragent.yaml:2:9: limits: expected a mapping (key: value), found 5"]),
        (
            "server: {address: 8410}\n",
            &["duragent.yaml:2:19: server.address: expected text, found 8410 (put it in quotes)"],
        ),
        (
            "server: {address: yes}\n",
            &["duragent.yaml:2:19: server.address: expected an address like 127.0.0.1:8410, [::1]:8410 or \
             unix:/run/duragent.sock, found \"yes\""],
        ),
        (
            "server: {address: '127.0.0.1:1', listen: '127.0.0.1:1'}\n",
            &["duragent.yaml:2:42: server.listen: address says it already; keep one"],
        ),
        (
            "server: {address: '127.0.0.1:1', port: 2}\n",
            &["duragent.yaml:2:40: server.port: the port belongs into address"],
        ),
    ]);
}

#[test]
fn variables_stand_for_values_and_inject_no_structure() {
    after_trust(&[
        (
            "server: {address: '${UNSET}'}\n",
            &["duragent.yaml:2:19: environment variable UNSET is not set; set it, or write ${UNSET:-default}"],
        ),
        (
            "limits: {steps_max: '${SET}'}\n",
            &[
                "duragent.yaml:2:21: limits.steps_max: expected a whole number from 1 to 1000, found another value in the \
             environment",
            ],
        ),
        (
            "limits: {'${SET}': 1}\n",
            &["duragent.yaml:2:10: unknown key \"${SET}\" in limits (expected one of steps_max, turn_seconds_max, \
             tool_seconds_max, model_attempts_max, output_bytes_max, artifact_bytes_max, sessions_live_max, \
             session_idle_seconds, message_bytes_max, messages_waiting_max, log_segment_bytes_max, approval_seconds_max, \
             call_repeats_max, offline_seconds_max, reserve_bytes, context_tokens, remote_context_tokens, workers_max, \
             writers_max, readers_max, stack_bytes)"],
        ),
    ]);
    let workspace = load("limits: {steps_max: '${NUMBER}', tool_seconds_max: '${UNSET:-9}'}\n");
    assert_eq!((workspace.config.limits.steps_max, workspace.config.limits.tool_seconds_max), (7, 9));
    let folder = Folder::with(&[("duragent.yaml", b"sandbox: {mode: trust}\nserver: {address: '${X}'}\n")]);
    let inject = |_: &str| Some("127.0.0.1:1\nlimits: {steps_max: 1}".to_owned());
    assert!(Workspace::load(&folder.0, &inject, &TOOLS).is_err());
}

#[test]
fn beyond_this_machine_a_token_is_required() {
    for address in ["0.0.0.0:8410", "[::]:8410", "192.168.1.2:80", "192.168.1.2"] {
        let found = Listen::parse(address).expect(address);
        let expected = format!(
            "duragent.yaml:2:19: server.address: {found} listens beyond this machine, so api_token or api_token_file is \
             required"
        );
        let text = format!("server: {{address: '{address}'}}\n");
        after_trust(&[(&text, &[&expected])]);
        after_trust(&[(&format!("server: {{address: '{address}', api_token: '${{KEY}}'}}\n"), &[])]);
        assert!(!lines(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]).is_empty());
    }
    after_trust(&[("server: {address: '127.0.0.2:1', api_token: '${EMPTY}'}\n", &[])]);
    assert!(
        !lines(&[("duragent.yaml", b"sandbox: {mode: trust}\nserver: {address: ':::1', api_token: '  '}\n")])
            .is_empty()
    );
}

#[test]
fn addresses() {
    let tcp = |text: &str| Listen::Tcp(text.parse().expect(text));
    for (text, expected) in [
        ("127.0.0.1:80", Some(tcp("127.0.0.1:80"))),
        ("localhost:80", Some(tcp("127.0.0.1:80"))),
        ("localhost", Some(tcp(&format!("127.0.0.1:{PORT_DEFAULT}")))),
        (":80", Some(tcp("127.0.0.1:80"))),
        ("[::1]:80", Some(tcp("[::1]:80"))),
        ("::1", Some(tcp(&format!("[::1]:{PORT_DEFAULT}")))),
        ("unix:/run/x", Some(Listen::Unix("/run/x".into()))),
        ("unix:", None),
        ("localhosts:80", None),
        ("example.org:80", None),
        ("127.0.0.1:99999", None),
        ("", None),
    ] {
        assert_eq!(Listen::parse(text).ok(), expected, "{text}");
    }
    let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}server: {{address: 'unix:s'}}\n").as_bytes())]);
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    assert_eq!(workspace.config.server.listen, Listen::Unix(folder.0.join("s")));
    assert_eq!(load("server: {host: 127.0.0.1, port: 8080}\n").config.server.listen, tcp("127.0.0.1:8080"));
}

#[test]
fn providers() {
    after_trust(&[
        (
            "providers: {mine: {base_url: 'http://x/v1'}}\n",
            &[
                "duragent.yaml:2:13: missing key \"kind\" in providers.mine; write kind: ollama, openai, openrouter, anthropic or replay",
            ],
        ),
        (
            "providers: {mine: {kind: openai}}\n",
            &["duragent.yaml:2:13: missing key \"base_url\" in providers.mine; write the URL up to and including /v1"],
        ),
        (
            "providers: {mine: {kind: opena}}\n",
            &[
                "duragent.yaml:2:26: providers.mine.kind: expected ollama or openai or openrouter or anthropic or replay, found \
             \"opena\" (did you mean \"openai\"?)",
            ],
        ),
        (
            "providers: {mine: {kind: openai, base_url: 'ftp://u:p@x'}}\n",
            &[
                "duragent.yaml:2:44: providers.mine.base_url: expected a URL that starts with http:// or https://, found \
             \"ftp://***@x\"",
            ],
        ),
        (
            "providers: {r: {kind: replay}}\n",
            &["duragent.yaml:2:13: missing key \"file\" in providers.r; name the transcript that is to be replayed"],
        ),
        (
            "providers: {ollama: {keep_alive: soon}}\n",
            &[
                "duragent.yaml:2:34: providers.ollama.keep_alive: expected seconds or a time like 30m, or -1 for ever, found \
             \"soon\"",
            ],
        ),
        (
            "providers: {openai: {headers: {\"a b\": x}}}\n",
            &[
                "duragent.yaml:2:39: providers.openai.headers.a b: expected a header name and a value of printable ASCII",
            ],
        ),
        (
            "providers: {openai: {headers: {X: \"a\\r\\nb\"}}}\n",
            &["duragent.yaml:2:35: providers.openai.headers.X: expected a header name and a value of printable ASCII"],
        ),
        (
            "providers: {m: {kind: openai, base_url: 'http://10.0.0.1/v1', api_key_env: KEY}}\n",
            &[
                "duragent.yaml:2:41: warning: providers.m.base_url: the API key crosses the network unencrypted; use https",
            ],
        ),
        ("providers: {m: {kind: openai, base_url: 'http://localhost:8080/v1', api_key_env: KEY}}\n", &[]),
    ]);
    let config = load(
        "providers:\n  r: {kind: replay, file: ./t.jsonl}\n  ollama: {context_tokens: 4096, keep_alive: -1}\n  openai: \
         {base_url: 'https://other/v1/'}\n",
    )
    .config;
    let of = |name: &str| config.providers.get(name).expect(name);
    assert_eq!(of("r").kind, ProviderKind::Replay);
    assert!(of("r").file.as_ref().is_some_and(|path| path.ends_with("t.jsonl") && path.is_absolute()));
    assert_eq!((of("ollama").context_tokens, of("ollama").keep_alive.as_str()), (4096, "-1"));
    assert_eq!(of("ollama").base_url, "http://127.0.0.1:11434");
    assert_eq!(of("openai").base_url, "https://other/v1");
}

#[test]
fn a_server_that_is_near_is_waited_for() {
    for (url, seconds) in [
        ("http://127.0.0.1:8080/v1", 900),
        ("http://localhost:8080/v1", 900),
        ("http://192.168.1.2/v1", 900),
        ("http://[fd00::1]:80/v1", 900),
        ("http://box.local/v1", 900),
        ("https://8.8.8.8/v1", 120),
        ("https://host/v1", 120),
    ] {
        let config = load(&format!("providers: {{m: {{kind: openai, base_url: '{url}'}}}}\n")).config;
        assert_eq!(config.providers.get("m").map(|p| p.first_byte_seconds_max), Some(seconds), "{url}");
    }
    let config = load("providers: {m: {kind: openai, base_url: 'http://[::1]', first_byte_seconds_max: 3}}\n").config;
    assert_eq!(config.providers.get("m").map(|p| p.first_byte_seconds_max), Some(3));
}

#[test]
fn a_well_known_key_is_not_sent_to_another_endpoint() {
    let openai = |text: &str| {
        let folder = Folder::with(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]);
        let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "sk".to_owned());
        let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
        workspace.config.providers.get("openai").and_then(|p| p.api_key.clone()).is_some()
    };
    assert!(openai(""));
    assert!(openai("providers: {openai: {base_url: 'https://api.openai.com/v1/'}}\n"));
    assert!(!openai("providers: {openai: {base_url: 'https://elsewhere/v1'}}\n"));
    assert!(openai("providers: {openai: {base_url: 'https://elsewhere/v1', api_key_env: OPENAI_API_KEY}}\n"));
}

#[test]
fn key_files_are_for_their_owner_only() {
    let folder = Folder::with(&[
        ("duragent.yaml", format!("{TRUST}providers: {{openai: {{api_key_file: key}}}}\n").as_bytes()),
        ("key", b"sk-secret\n"),
    ]);
    let mode = |mode: u32| {
        std::fs::set_permissions(folder.0.join("key"), std::fs::Permissions::from_mode(mode)).expect("chmod");
        let lines = report(&folder.0).lines;
        assert!(lines.iter().all(|line| !line.contains("sk-secret")), "{lines:?}");
        lines.first().cloned().unwrap_or_default().replace(&folder.0.display().to_string(), "DIR")
    };
    let said = |found: &str| format!("duragent.yaml:2:36: providers.openai.api_key_file: DIR/key: {found}");
    assert_eq!(mode(0o600), "configuration ok");
    assert_eq!(mode(0o400), "configuration ok");
    assert_eq!(mode(0o640), said("mode 0640 lets other users at it; run chmod 600 on it"));
    assert_eq!(mode(0o602), said("mode 0602 lets other users at it; run chmod 600 on it"));
    folder.write("key", b" \n");
    assert_eq!(mode(0o600), said("expected one line with the secret and nothing else"));
    folder.write("key", b"a\nb\n");
    assert_eq!(mode(0o600), said("expected one line with the secret and nothing else"));
    std::fs::remove_file(folder.0.join("key")).expect("remove");
    std::fs::create_dir(folder.0.join("key")).expect("mkdir");
    assert_eq!(mode(0o700), said("expected a regular file of at most 65536 bytes"));
    std::fs::remove_dir(folder.0.join("key")).expect("rmdir");
    let line = report(&folder.0).lines.first().cloned().unwrap_or_default();
    assert_eq!(line.replace(&folder.0.display().to_string(), "DIR"), said("no such file"));
}

#[test]
fn ollama_host_in_all_its_forms() {
    for (value, expected) in [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("box:80", "http://box:80"),
        (" 'box:80' ", "http://box:80"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:1/ollama/", "https://box:1/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:80", "http://[::1]:80"),
        ("::1", "http://[::1]:11434"),
        ("[::]:80", "http://[::1]:80"),
        ("box:99999", "http://box:11434"),
    ] {
        assert_eq!(ollama_url(&|_| Some(value.to_owned())), expected, "{value}");
    }
    assert_eq!(ollama_url(&|_| None), "http://127.0.0.1:11434");
}

#[test]
fn all_errors_of_a_file_are_reported_up_to_a_limit() {
    let text: String = (0..ERRORS_MAX + 5).map(|i| format!("zzz{i}: 1\n")).collect();
    let found = lines(&[("duragent.yaml", format!("{TRUST}{text}").as_bytes())]);
    assert_eq!(found.len(), ERRORS_MAX + 1);
    assert!(found.first().is_some_and(|line| line.starts_with("duragent.yaml:2:1: unknown key \"zzz0\"")), "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some("duragent.yaml: and 5 more"));
}

#[test]
fn every_default_is_within_its_range() {
    for (name, default, range) in Limits::TABLE {
        assert!(range.contains(default), "{name}");
    }
    assert_eq!(Limits::default().entries().len(), Limits::TABLE.len());
}

#[test]
fn urls_are_shown_without_what_is_secret() {
    assert_eq!(masked_url("https://u:p@host/v1"), "https://***@host/v1");
    assert_eq!(masked_url("https://host/v1"), "https://host/v1");
}
