//! Profiles: what is in them, what they do to a configuration, and what is wrong with one.

use super::super::profile::VARIABLE;
use super::super::{Workspace, check};
use super::{Folder, TOOLS, TRUST, after_trust, env, lines};
use duragent_core::packed::unpack;
use std::fs;
use std::path::Path;

/// A workspace with this text after a sandbox, and its dump.
fn dumped(text: &str, said: Option<&str>) -> (Workspace, String) {
    let folder = Folder::with(&[("duragent.yaml", text.as_bytes()), ("own.yaml", b"limits: {sessions_live_max: 3}\n")]);
    let env = |name: &str| if name == VARIABLE { said.map(str::to_owned) } else { env(name) };
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    let dump = check::dump(&workspace);
    (workspace, dump)
}

/// The repository's profiles, by name.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let paths = fs::read_dir(folder).expect("profiles").map(|entry| entry.expect("an entry").path());
    let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut files: Vec<_> = paths.map(|path| (stem(&path), fs::read_to_string(&path).expect("a profile"))).collect();
    files.sort();
    files
}

#[test]
fn the_binary_has_the_files() {
    let files = files();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["gateway-armv7", "openwrt", "pi-4", "pi-zero-2", "server-lowmem"]);
    let folder = Folder::new();
    for (name, text) in &files {
        // As a file of one's own, comments and all, and by its name: the same configuration.
        folder.write(&format!("{name}.yaml"), text.as_bytes());
        let of = |profile: &str| {
            folder.write("duragent.yaml", format!("{TRUST}profile: {profile}\n").as_bytes());
            Workspace::load(&folder.0, &env, &TOOLS).unwrap_or_else(|problems| panic!("{name}: {problems:?}")).config
        };
        let (built_in, file) = (of(name), of(&format!("./{name}.yaml")));
        assert_eq!((&built_in.limits, &built_in.server), (&file.limits, &file.server), "{name}");
        assert_eq!(
            (&built_in.sandbox.profile, &built_in.providers),
            (&file.sandbox.profile, &file.providers),
            "{name}"
        );
        let whole = built_in.origins.profile.expect("a profile");
        assert!(
            text.matches(": ").count() > 10 && whole.get("limits.sessions_live_max").is_some(),
            "{name}: {whole:?}"
        );
    }
    let packed = include_bytes!(concat!(env!("OUT_DIR"), "/profiles.packed"));
    assert!(packed.len() < 2048 && unpack(packed).len() > 2048, "{} bytes of the binary", packed.len());
}

#[test]
fn a_message_fits_into_a_body_and_a_result_into_a_window() {
    for (name, _) in files() {
        let (workspace, _) = dumped(&format!("{TRUST}profile: {name}\n"), None);
        let (limits, server) = (&workspace.config.limits, &workspace.config.server.limits);
        assert!(limits.message_bytes_max * 2 <= server.body_bytes_max, "{name}: JSON doubles what has to be escaped");
        assert!(limits.output_bytes_max <= limits.context_tokens * 2, "{name}: a result fills the window");
        assert!(limits.artifact_bytes_max >= limits.output_bytes_max, "{name}: an artifact has the whole output");
        let defaults = super::super::Limits::default();
        assert!(limits.sessions_live_max <= defaults.sessions_live_max, "{name}");
    }
}

#[test]
fn what_the_file_says_goes_over_the_profile_and_the_profile_over_the_default() {
    let text = format!(
        "{TRUST}profile: gateway-armv7\nlimits: {{sessions_live_max: 5}}\nserver: {{ping_seconds: 9}}\n\
         providers: {{near: {{kind: openai, base_url: 'http://10.0.0.1/v1'}}, far: {{kind: openai, base_url: 'https://a.example/v1'}}, \
         said: {{kind: ollama, context_tokens: 600}}}}\n"
    );
    let (workspace, dump) = dumped(&text, None);
    let config = &workspace.config;
    assert_eq!((config.limits.sessions_live_max, config.limits.workers_max, config.limits.steps_max), (5, 6, 20));
    let windows = ["near", "far", "said", "ollama", "anthropic"].map(|name| config.providers[name].context_tokens);
    assert_eq!(windows, [4096, 16384, 600, 4096, 16384]);
    for line in [
        "profile: \"gateway-armv7\"",
        "  sessions_live_max: 5  # duragent.yaml",
        "  workers_max: 6  # profile",
        "  steps_max: 20",
        "  ping_seconds: 9  # duragent.yaml",
        "  connections_max: 32  # profile",
        "    context_tokens: 600  # duragent.yaml",
    ] {
        assert!(dump.lines().any(|found| found == line), "{line}\n{dump}");
    }
    // The dump is a configuration, and says the same.
    let (again, _) =
        dumped(&dump.lines().take_while(|line| !line.starts_with("# agents")).collect::<Vec<_>>().join("\n"), None);
    assert_eq!((&again.config.limits, &again.config.server), (&config.limits, &config.server));
    // Without a profile, nothing comes from one.
    let (_, plain) = dumped(TRUST, None);
    assert!(!plain.contains("# profile") && !plain.contains("profile:"), "{plain}");
}

#[test]
fn calls_get_the_profile_beneath_every_layer_and_no_preset_goes_beyond_it() {
    let limits = |text: &str| {
        let (workspace, _) = dumped(text, None);
        let spec = workspace.config.sandbox.spec(&Default::default());
        (spec.policy.limits.memory_bytes, spec.policy.limits.cpu_seconds, spec.policy.limits.processes)
    };
    let auto = "profile: gateway-armv7\nsandbox: {mode: auto";
    assert_eq!(limits(&format!("{auto}}}\n")), (67108864, 600, 32));
    assert_eq!(limits(&format!("{auto}, limits: {{processes: 9}}}}\n")), (67108864, 600, 9));
    assert_eq!(limits(&format!("{auto}, limits: {{processes: 900}}}}\n")), (67108864, 600, 900));
    // strict alone has 512 MiB, and 60 seconds of processor time.
    assert_eq!(limits(&format!("{auto}, preset: strict}}\n")), (67108864, 60, 32));
    assert_eq!(limits("sandbox: {mode: auto, preset: strict}\n"), (536870912, 60, 64));
}

#[test]
fn the_command_line_or_the_environment_goes_over_the_file() {
    let text = format!("{TRUST}profile: gateway-armv7\n");
    let of = |said| dumped(&text, said).0.config;
    for (said, name, live) in [
        (None, "gateway-armv7", 12),
        (Some(""), "gateway-armv7", 12),
        (Some("pi-4"), "pi-4", 48),
        (Some("./own.yaml"), "./own.yaml", 3),
    ] {
        let config = of(said);
        assert_eq!((config.origins.profile.expect("one").name.as_str(), config.limits.sessions_live_max), (name, live));
    }
    let own = of(Some("./own.yaml"));
    assert_eq!(own.limits.workers_max, 64, "nothing of another profile");
    let folder = Folder::with(&[("duragent.yaml", TRUST.as_bytes())]);
    let env = |name: &str| (name == VARIABLE).then(|| "pi-9".to_owned());
    let found = check::check(&folder.0, &env, &TOOLS).lines;
    assert_eq!(
        found[0],
        "profile: pi-9: no such profile (did you mean pi-4? there are gateway-armv7, openwrt, pi-4, pi-zero-2, server-lowmem; a file of your own has a / in its path)"
    );
}

#[test]
fn tools_do_not_change_a_profile_outside_the_workspace() {
    let folder = Folder::with(&[
        ("device.yaml", b"limits: {workers_max: 3}\n"),
        ("ws/.duragent/duragent.yaml", b"sandbox: {mode: auto}\nprofile: ../../device.yaml\n"),
    ]);
    let workspace = Workspace::load(&folder.0.join("ws/.duragent"), &env, &TOOLS).expect("a workspace");
    let spec = workspace.config.sandbox.spec(&Default::default());
    let profile = folder.0.join("device.yaml").canonicalize().expect("there");
    assert!(spec.policy.read_only.contains(&profile), "{:?}", spec.policy.read_only);
}

#[test]
fn what_is_wrong_with_a_choice_is_said() {
    const NAMES: &str =
        "there are gateway-armv7, openwrt, pi-4, pi-zero-2, server-lowmem; a file of your own has a / in its path)";
    let unknown = format!("duragent.yaml:2:10: profile: pi-zero: no such profile (did you mean pi-zero-2? {NAMES}");
    let far = format!("duragent.yaml:2:10: profile: mainframe: no such profile ({NAMES}");
    after_trust(&[
        ("profile: pi-zero\n", &[&unknown]),
        ("profile: mainframe\n", &[&far]),
        ("profile: ./none.yaml\n", &["duragent.yaml:2:10: profile: ./none.yaml: no such file"]),
        ("profile: 4\n", &["duragent.yaml:2:10: profile: expected text, found 4 (put it in quotes)"]),
        ("profile:\n", &[]),
    ]);
}

#[test]
fn a_profile_has_limits_and_nothing_else() {
    let duragent = format!("{TRUST}profile: ./p.yaml\n");
    let cases: &[(&str, &str)] = &[
        ("limits: {sessions_live_max: 4}\nserver: {body_bytes_max: 2048}\nsandbox: {limits: {processes: 9}}\n", ""),
        (
            "limits: {steps_maxx: 4}\n",
            "./p.yaml:1:10: unknown key \"steps_maxx\" in limits (did you mean \"steps_max\"?)",
        ),
        (
            "limits: {sessions_live_max: 0}\n",
            "./p.yaml:1:29: limits.sessions_live_max: expected a whole number from 1 to 65536, found 0",
        ),
        (
            "limits: {sessions_live_max: '${SET}'}\n",
            "./p.yaml:1:29: limits.sessions_live_max: expected a whole number from 1 to 65536, found \"${SET}\"",
        ),
        (
            "server: {address: 0.0.0.0}\n",
            "./p.yaml:1:10: unknown key \"address\" in server (expected one of body_bytes_max",
        ),
        (
            "server: {api_token: x}\n",
            "./p.yaml:1:10: unknown key \"api_token\" in server (expected one of body_bytes_max",
        ),
        ("sandbox: {mode: trust}\n", "./p.yaml:1:11: unknown key \"mode\" in sandbox (expected one of limits)"),
        (
            "sandbox: {limits: {wall_seconds: 9}}\n",
            "./p.yaml:1:20: unknown key \"wall_seconds\" in sandbox.limits (expected one of cpu_seconds",
        ),
        (
            "providers: {ollama: {base_url: 'http://x'}}\n",
            "./p.yaml:1:1: unknown key \"providers\" at the top level (expected one of server, limits, retention, log, sandbox)",
        ),
        ("budgets: {day: {tokens: 1}}\n", "./p.yaml:1:1: unknown key \"budgets\" at the top level"),
        ("profile: pi-4\n", "./p.yaml:1:1: unknown key \"profile\" at the top level"),
        ("[1]\n", "./p.yaml:1:1: the file: expected a mapping (key: value), found a list"),
        ("limits: [\n", "./p.yaml:2:1: ./p.yaml: did not find expected node content"),
    ];
    for (text, expected) in cases {
        let found = lines(&[("duragent.yaml", duragent.as_bytes()), ("p.yaml", text.as_bytes())]);
        assert_eq!(found.len(), usize::from(!expected.is_empty()), "{text}: {found:?}");
        assert!(found.iter().all(|line| line.starts_with(expected)), "{text}: {found:?}");
    }
}
