use super::super::sandbox::{ENV_DEFAULT, LIMITS, PRESETS, SandboxSpec};
use super::house::{House, hosts, workspace_table};
use super::*;
use duragent_platform::sandbox::policy::{Limits, Network};
use duragent_platform::sandbox::{Enforcement, Mode};

const FORMATS: &str = include_str!("../../../docs/formats.md");

#[test]
fn a_mode_has_to_be_written_down() {
    let missing = format!("duragent.yaml:1:1: missing key \"mode\" in sandbox; {WRITE_A_MODE}");
    let docker = format!("duragent.yaml:1:17: sandbox.mode: \"docker\" is not supported; {WRITE_A_MODE}");
    let expected = "expected auto or bubblewrap or landlock or trust";
    table(
        "duragent.yaml",
        &[],
        &[
            ("sandbox:\n", &[&missing]),
            ("sandbox: {mode: }\n", &[&missing]),
            ("sandbox: {read: [.]}\n", &[&missing]),
            ("sandbox: {mode: docker}\n", &[&docker]),
            ("sandbox: {mode: '${UNSET:-docker}'}\n", &[&docker]),
            (
                "sandbox: {mode: trusted}\n",
                &[&format!(
                    "duragent.yaml:1:17: sandbox.mode: {expected}, found \"trusted\" (did you mean \"trust\"?)"
                )],
            ),
            ("sandbox: {mode: true}\n", &[&format!("duragent.yaml:1:17: sandbox.mode: {expected}, found true")]),
            ("sandbox: trust\n", &["duragent.yaml:1:10: sandbox: expected a mapping (key: value), found \"trust\""]),
            (
                "sandbox: {mode: auto, wriet: [x]}\n",
                &["duragent.yaml:1:23: unknown key \"wriet\" in sandbox (did you mean \"write\"?)"],
            ),
        ],
    );
    for (word, mode) in
        [("auto", Mode::Auto), ("bubblewrap", Mode::Bubblewrap), ("landlock", Mode::Landlock), ("trust", Mode::Trust)]
    {
        let house = House::new();
        house.write(&format!("sandbox: {{mode: {word}}}\n"), "");
        let sandbox = house.workspace().config.sandbox;
        let required = if word == "trust" { Enforcement::None } else { Enforcement::Full };
        assert_eq!((sandbox.mode, sandbox.mode_word(), sandbox.required), (mode, word, required));
    }
}

#[test]
fn enforcement_is_full_unless_partial_will_do() {
    let house = House::new();
    workspace_table(
        &house,
        &[
            ("enforcement: full", &[]),
            ("enforcement: partial", &[]),
            ("enforcement: none", &["36: sandbox.enforcement: expected full or partial, found \"none\""]),
        ],
    );
    house.write("sandbox: {mode: landlock, enforcement: partial}\n", "");
    assert_eq!(house.workspace().config.sandbox.required, Enforcement::Partial);
    house.write("sandbox: {mode: trust, enforcement: full}\n", "");
    assert_eq!(
        house.said(),
        ["duragent.yaml:1:37: sandbox.enforcement: mode trust enforces nothing; remove this key, or write mode: auto"]
    );
    house.write("sandbox: {mode: auto}\n", "  sandbox: {mode: trust, enforcement: partial, reed: []}\n");
    let said = "is the workspace's to say; write it under sandbox in duragent.yaml";
    assert_eq!(
        house.said(),
        [
            format!("agents/a/agent.yaml:6:19: spec.sandbox.mode: {said}"),
            format!("agents/a/agent.yaml:6:39: spec.sandbox.enforcement: {said}"),
            "agents/a/agent.yaml:6:48: unknown key \"reed\" in spec.sandbox (did you mean \"read\"?)".to_owned(),
        ]
    );
}

#[test]
fn limits_have_ranges() {
    let house = House::new();
    for (name, range, zero) in &LIMITS {
        let (least, most) = (*range.start(), *range.end());
        let at = name.len() + 35;
        let expected = format!("{}: sandbox.limits.{name}: expected", at - 1);
        let device = "limits: {tool_seconds_max: 86400, output_bytes_max: 1048576}\n";
        let said = |value: &str| {
            house.write(&format!("sandbox: {{mode: auto, limits: {{{name}: {value}}}}}\n{device}"), "");
            house.said()
        };
        assert_eq!(said(&least.to_string()), [""; 0]);
        assert_eq!(said(&most.to_string()), [""; 0]);
        let from = if *zero { 0 } else { least };
        for value in [(most + 1).to_string(), "-1".to_owned(), "lots".to_owned(), "1.5".to_owned()] {
            let found = if value == "lots" { "\"lots\"" } else { &value };
            let expected = format!("duragent.yaml:1:{expected} a whole number from {from} to {most}, found {found}");
            assert_eq!(said(&value), [expected]);
        }
        if from == 0 {
            assert_eq!(said("0"), [""; 0]);
            if least > 1 {
                let range = format!("0 for no limit, or a whole number from {least} to {most}, found {}", least - 1);
                assert_eq!(said(&(least - 1).to_string()), [format!("duragent.yaml:1:{expected} {range}")]);
            }
        } else {
            let expected = format!("duragent.yaml:1:{expected} a whole number from {least} to {most}, found 0");
            assert_eq!(said("0"), [expected]);
        }
    }
    workspace_table(
        &house,
        &[
            (
                "limits: {memroy_bytes: 1}",
                &["32: unknown key \"memroy_bytes\" in sandbox.limits (did you mean \"memory_bytes\"?)"],
            ),
            ("limits: [1]", &["31: sandbox.limits: expected a mapping (key: value), found a list"]),
            (
                "limits: {wall_seconds: 301}",
                &[
                    "46: sandbox.limits.wall_seconds: 301 is more than the device allows; it can only be lowered here, or raise \
                   that (limits.tool_seconds_max is 300)",
                ],
            ),
            (
                "limits: {output_bytes: 16385}",
                &[
                    "46: sandbox.limits.output_bytes: 16385 is more than the device allows; it can only be lowered here, or \
                   raise that (limits.output_bytes_max is 16384)",
                ],
            ),
        ],
    );
}

#[test]
fn every_limit_reaches_the_backend() {
    let house = House::new();
    for (index, (name, range, _)) in LIMITS.iter().enumerate() {
        let value = *range.start() + 1;
        let spec = house.spec(&format!("sandbox: {{mode: auto, limits: {{{name}: {value}}}}}\n"), "");
        let mut expected = SandboxSpec::default().limits();
        *expected.get_mut(index).expect(name) = Some(value);
        assert_eq!(spec.limits(), expected, "{name}");
    }
    let spec = house.spec("sandbox: {mode: auto}\n", "");
    assert_eq!((spec.policy.limits, spec.wall_seconds, spec.output_bytes), (Limits::default(), None, None));
    assert_eq!(spec.env, ENV_DEFAULT);
}

#[test]
fn an_agents_layer_goes_over_the_workspaces() {
    let house = House::new();
    let workspace = "sandbox:\n  mode: auto\n  preset: build\n  read: [data]\n  network: ['a.example:1']\n  env: [CC]\n  limits: \
                     {cpu_seconds: 5, wall_seconds: 100}\n";
    let agent = "  sandbox:\n    read: [data, file]\n    write: [out]\n    network: ['b.example:2', 'a.example:1']\n    env: [LANG, \
                 CC]\n    limits: {cpu_seconds: 7, output_bytes: 2048}\n";
    let spec = house.spec(workspace, agent);
    assert_eq!(spec.policy.read, house.real(&["data", "file"]));
    assert_eq!(spec.policy.write, house.real(&["out"]));
    assert_eq!(spec.policy.network, hosts(&[("a.example", 1), ("b.example", 2)]));
    assert_eq!(spec.env, ["CC", "LANG"]);
    assert_eq!((spec.wall_seconds, spec.output_bytes), (Some(100), Some(2048)));
    assert_eq!((spec.policy.limits.cpu_seconds, spec.policy.limits.processes), (7, 1024));

    let limits = |text: &str, agent: &str| house.spec(&format!("sandbox: {{mode: auto, {text}}}\n"), agent).policy;
    // The agent's preset takes the place of the workspace's, and goes over the workspace's keys.
    let policy = limits("preset: build, limits: {cpu_seconds: 5}", "  sandbox: {preset: strict}\n");
    assert_eq!((policy.limits.cpu_seconds, policy.limits.processes, policy.network), (60, 64, Network::None));
    let policy = limits("preset: build, limits: {cpu_seconds: 5}", "  sandbox: {preset: default}\n");
    assert_eq!((policy.limits.cpu_seconds, policy.limits.processes, policy.network), (5, 256, Network::None));
    // A list replaces what is no list.
    let list = "  sandbox: {network: ['b.example:2']}\n";
    assert_eq!(limits("network: loopback", list).network, hosts(&[("b.example", 2)]));
    assert_eq!(limits("network: ['a.example:1']", "  sandbox: {network: none}\n").network, Network::None);
    assert_eq!(limits("network: ['a.example:1']", "  sandbox:\n").network, hosts(&[("a.example", 1)]));
    assert_eq!(house.spec("sandbox: {mode: auto, env: []}\n", "").env, [""; 0]);
    assert_eq!(
        house.spec("sandbox: {mode: auto}\n", "  sandbox: {env: [CC]}\n").env,
        ["PATH", "LANG", "LC_ALL", "TZ", "CC"]
    );
}

#[test]
fn presets() {
    let house = House::new();
    workspace_table(
        &house,
        &[(
            "preset: bild",
            &[
                "31: sandbox.preset: expected default or strict or build or web or hardware, found \"bild\" (did you mean \
               \"build\"?)",
            ],
        )],
    );
    let policy = |name: &str| {
        let server = "server: {address: 'unix:duragent.sock'}\n";
        let spec = house.spec(&format!("sandbox: {{mode: auto, preset: {name}}}\n{server}"), "");
        (spec.policy.limits.clone(), spec.policy.network.clone(), spec)
    };
    let default = Limits::default();
    assert_eq!(policy("default").0, default);
    assert_eq!(policy("default").1, Network::None);
    let (limits, network, _) = policy("strict");
    let expected = Limits {
        cpu_seconds: 60,
        memory_bytes: 512 << 20,
        processes: 64,
        file_bytes: 64 << 20,
        tmp_bytes: 16 << 20,
        ..default.clone()
    };
    assert_eq!((limits, network), (expected, Network::None));
    let (limits, network, _) = policy("build");
    let expected =
        Limits { cpu_seconds: 3600, processes: 1024, file_bytes: 4 << 30, tmp_bytes: 512 << 20, ..default.clone() };
    assert_eq!((limits, network), (expected, Network::Loopback));
    assert_eq!((policy("web").0, policy("web").1), (default.clone(), Network::All));
    let (limits, network, spec) = policy("hardware");
    assert_eq!((limits, network), (default, Network::None));
    assert!(spec.policy.read.contains(&PathBuf::from("/sys/class")), "{:?}", spec.policy.read);
    assert!(spec.policy.read.iter().chain(&spec.policy.write).all(|path| path.exists()), "{spec:?}");
}

#[test]
fn trust_says_what_it_does_not_enforce() {
    let house = House::new();
    let said = |keys: &str| format!("mode trust enforces none of {keys}; write mode: auto");
    for (text, expected) in [
        ("read: [data]", Some("read")),
        ("write: [out], network: none, preset: strict", Some("preset, write, network")),
        ("limits: {cpu_seconds: 5, wall_seconds: 5, processes: 9}", Some("limits.cpu_seconds, limits.processes")),
        ("limits: {wall_seconds: 5, output_bytes: 2048}, env: [CC]", None),
        ("network: all", Some("network")),
    ] {
        house.write(&format!("sandbox: {{mode: trust, {text}}}\n"), "");
        let lines = expected.map(|keys| format!("duragent.yaml:1:1: warning: sandbox: {}", said(keys)));
        assert_eq!(house.said(), lines.into_iter().collect::<Vec<_>>());
        house.write("sandbox: {mode: trust}\n", &format!("  sandbox: {{{text}}}\n"));
        let lines = expected.map(|keys| format!("agents/a/agent.yaml:6:3: warning: spec.sandbox: {}", said(keys)));
        assert_eq!(house.said(), lines.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_dump_says_what_holds_and_can_be_read_again() {
    let house = House::new();
    let config =
        "sandbox:\n  mode: auto\n  enforcement: partial\n  read: [data]\n  network: ['[::1]:80', 'a.example:443']\n";
    let agent = "  sandbox: {write: [out], env: [CC], limits: {wall_seconds: 9, cpu_seconds: 0}}\n";
    house.write(config, agent);
    let dump = house.report().dump.expect("a dump").replace(&house.root.display().to_string(), "DIR");
    let limits = "memory_bytes: 8589934592\n    processes: 256\n    file_bytes: 1073741824\n    open_files: 1024\n    tmp_bytes: \
                  67108864\n";
    let network = "network: [\"[::1]:80\", \"a.example:443\"]\n";
    let workspace = format!(
        "sandbox:\n  mode: auto\n  enforcement: partial\n  read: [\"DIR/data\"]\n  write: []\n  {network}  env: [PATH, LANG, LC_ALL, \
         TZ]\n  limits:\n    cpu_seconds: 600\n    {limits}#   neither read nor changed: DIR/.duragent\n#   never changed: "
    );
    assert!(dump.contains(&workspace), "{workspace} in {dump}");
    let limits = limits.replace("\n    ", "\n      ");
    let agent = format!(
        "  sandbox:\n    read: [\"DIR/data\"]\n    write: [\"DIR/out\"]\n    {network}    env: [PATH, LANG, LC_ALL, TZ, CC]\n    \
         limits:\n      cpu_seconds: 0\n      {limits}      wall_seconds: 9\n#     neither read nor changed: DIR/.duragent\n"
    );
    assert!(dump.contains(&agent), "{agent} in {dump}");
    let text = dump.replace("DIR", &house.root.display().to_string());
    let (first, _) = text.split_once("# agents/").expect("the agent's part");
    house.write(first, "");
    assert_eq!(house.said(), [""; 0]);

    house.write("sandbox: {mode: trust, env: [CC], limits: {wall_seconds: 9}}\n", "");
    let dump = house.report().dump.expect("a dump");
    let part = "sandbox:\n  mode: trust\n  env: [CC]\n  limits:\n    wall_seconds: 9\n# agents/";
    assert!(dump.contains(part), "{part} in {dump}");
}

#[test]
fn the_page_has_every_limit_and_preset() {
    let limits = Limits::default();
    let spec = SandboxSpec {
        policy: duragent_platform::sandbox::Policy { limits, ..Default::default() },
        ..Default::default()
    };
    for ((name, range, zero), default) in LIMITS.iter().zip(spec.limits()) {
        let default = default.map_or("the device's".to_owned(), |value| value.to_string());
        let zero = if *zero { "0, " } else { "" };
        let row = format!("\n| `{name}` | {default} | {zero}{} to {} | ", range.start(), range.end());
        assert!(FORMATS.contains(&row) || *name == "memory_bytes", "{row} in docs/formats.md");
    }
    for preset in &PRESETS {
        assert!(FORMATS.contains(&format!("\n| `{}` | ", preset.name)), "{} in docs/formats.md", preset.name);
    }
}
