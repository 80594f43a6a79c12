use super::super::{Agent, Workspace};
use super::*;
use duragent_core::agent::OnDisconnect;

const CONFIG: (&str, &[u8]) = ("duragent.yaml", TRUST.as_bytes());
const FILE: &str = "agents/a/agent.yaml";
const HEAD: &str = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: a}\n";
const MODEL: &str = "spec:\n  model: {provider: ollama, name: m}\n";

/// Lines about an agent of this text below the usual first three lines.
fn below_head(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        table(FILE, &[CONFIG], &[(&format!("{HEAD}{text}"), expected)]);
    }
}

/// Lines about an agent with these keys in `spec`, from line 6 on.
fn in_spec(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        table(FILE, &[CONFIG], &[(&format!("{HEAD}{MODEL}{text}"), expected)]);
    }
}

fn load(files: &[(&str, &[u8])]) -> Agent {
    let folder = Folder::with(&[&[CONFIG], files].concat());
    let mut workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    workspace.agents.remove("a").expect("agent a").expect("a usable agent")
}

#[test]
fn what_every_agent_has() {
    table(
        FILE,
        &[CONFIG],
        &[
            (
                "",
                &[
                    "agents/a/agent.yaml:1:1: missing key \"apiVersion\" at the top level; write apiVersion: duragent/v1alpha1",
                    "agents/a/agent.yaml:1:1: missing key \"kind\" at the top level; write kind: Agent",
                    "agents/a/agent.yaml:1:1: missing key \"metadata\" at the top level; write metadata: with a name: below it",
                    "agents/a/agent.yaml:1:1: missing key \"spec\" at the top level; write spec: with a model: below it",
                ],
            ),
            (
                "apiVersion: duragent/v2\nkind: Policy\nmetadata: {name: a}\nspec: {model: {provider: ollama, name: m}}\n",
                &[
                    "agents/a/agent.yaml:1:13: apiVersion: expected duragent/v1alpha1, found \"duragent/v2\"",
                    "agents/a/agent.yaml:2:7: kind: expected Agent, found \"Policy\"",
                ],
            ),
        ],
    );
    below_head(&[
        (
            "spec:\n",
            &["agents/a/agent.yaml:4:1: missing key \"model\" in spec; write model: with provider: and name: below it"],
        ),
        (
            "spec:\n  model: {}\n",
            &[
                "agents/a/agent.yaml:5:3: missing key \"provider\" in spec.model; write something like provider: ollama",
                "agents/a/agent.yaml:5:3: missing key \"name\" in spec.model; write something like name: qwen3:1.7b",
            ],
        ),
        (
            "spec: {model: {provider: olama, name: ''}}\n",
            &[
                "agents/a/agent.yaml:4:26: spec.model.provider: there is no provider \"olama\" (did you mean \"ollama\"?)",
                "agents/a/agent.yaml:4:39: spec.model.name: expected a name, found nothing; write something like name: qwen3:1.7b",
            ],
        ),
        (
            "spec: {model: {provider: '${UNSET}', name: m}}\n",
            &["agents/a/agent.yaml:4:26: environment variable UNSET is not set; set it, or write ${UNSET:-default}"],
        ),
        (
            "spec: {model: {provider: mistral, name: m}}\n",
            &[
                "agents/a/agent.yaml:4:26: spec.model.provider: there is no provider \"mistral\" (add it to providers in \
             duragent.yaml, or write one of anthropic, ollama, openai, openrouter)",
            ],
        ),
        (
            "spec: {model: {provider: anthropic, name: m}}\n",
            &[
                "agents/a/agent.yaml:4:26: warning: spec.model.provider: anthropic will refuse to answer: environment variable \
             ANTHROPIC_API_KEY is not set; put the API key into it",
            ],
        ),
        (
            "spec: {model: {provider: openai, name: m}}\n",
            &[
                "agents/a/agent.yaml:4:26: warning: spec.model.provider: openai will refuse to answer: environment variable \
             OPENAI_API_KEY is not set; put the API key into it",
            ],
        ),
    ]);
}

#[test]
fn wrong_keys_and_values() {
    in_spec(&[
        (
            "  sytem_prompt: x\n",
            &["agents/a/agent.yaml:6:3: unknown key \"sytem_prompt\" in spec (did you mean \"system_prompt\"?)"],
        ),
        ("  soul: ./NONE.md\n", &["agents/a/agent.yaml:6:9: spec.soul: agents/a/NONE.md: no such file"]),
        (
            "  session: {on_disconnect: paus}\n",
            &[
                "agents/a/agent.yaml:6:28: spec.session.on_disconnect: expected continue or pause, found \"paus\" (did you mean \
             \"pause\"?)",
            ],
        ),
        (
            "  session: {max_tool_iterations: 0}\n",
            &[
                "agents/a/agent.yaml:6:34: spec.session.max_tool_iterations: expected a whole number from 1 to 1000, found 0",
            ],
        ),
        ("  tools: bash\n", &["agents/a/agent.yaml:6:10: spec.tools: expected a list, found \"bash\""]),
        (
            "  tools: [bahs]\n",
            &["agents/a/agent.yaml:6:11: spec.tools[0]: there is no tool \"bahs\" (did you mean \"bash\"?)"],
        ),
        (
            "  tools: [bash, 5]\n",
            &["agents/a/agent.yaml:6:17: spec.tools[1]: expected a tool name or {type: builtin, name: …}, found 5"],
        ),
        (
            "  tools:\n    - type: builtin\n",
            &["agents/a/agent.yaml:7:7: missing key \"name\" in spec.tools[0]; write the name of the tool"],
        ),
        (
            "  tools:\n    - {type: plugin, name: x}\n",
            &["agents/a/agent.yaml:7:14: spec.tools[0].type: expected builtin, found \"plugin\""],
        ),
        (
            "  tools:\n    - {name: bash, nmae: x}\n",
            &["agents/a/agent.yaml:7:20: unknown key \"nmae\" in spec.tools[0] (did you mean \"name\"?)"],
        ),
    ]);
    below_head(&[
        (
            "spec: {model: {provider: ollama, name: m, temperature: 2.5}}\n",
            &["agents/a/agent.yaml:4:56: spec.model.temperature: expected a number from 0 to 2, found 2.5"],
        ),
        (
            "spec: {model: {provider: ollama, name: m, temperature: .nan}}\n",
            &["agents/a/agent.yaml:4:56: spec.model.temperature: expected a number from 0 to 2, found .nan"],
        ),
        (
            "spec: {model: {provider: ollama, name: m, context_tokens: 100}}\n",
            &[
                "agents/a/agent.yaml:4:59: spec.model.context_tokens: expected a whole number from 512 to 2097152, found 100",
            ],
        ),
        (
            "spec: {model: {provider: ollama, name: m, base_url: box}}\n",
            &[
                "agents/a/agent.yaml:4:53: spec.model.base_url: expected a URL that starts with http:// or https://, found \
             \"box\"",
            ],
        ),
    ]);
}

#[test]
fn what_is_not_supported_is_named_and_the_agent_opens() {
    in_spec(&[
        (
            "  memory: {backend: filesystem}\n  hooks: [x]\n  access: {dm: {policy: open}}\n",
            &[
                "agents/a/agent.yaml:6:3: warning: spec.memory is not supported yet, ignored",
                "agents/a/agent.yaml:7:3: warning: spec.hooks is not supported yet, ignored",
                "agents/a/agent.yaml:8:3: warning: spec.access is not supported yet, ignored",
            ],
        ),
        (
            "  session: {ttl_hours: 48, compaction: archive}\n",
            &[
                "agents/a/agent.yaml:6:24: warning: spec.session.ttl_hours: not supported yet, ignored: sessions stay until they \
             are closed",
                "agents/a/agent.yaml:6:40: warning: spec.session.compaction: archive: ignored, logs are never cut; there are \
             summary and truncate",
            ],
        ),
        ("  session: {ttl_hours: 0}\n", &[]),
        (
            "  tools:\n    - {type: builtin, name: web}\n    - {type: cli, name: x, command: ./x.sh}\n",
            &[
                "agents/a/agent.yaml:7:29: warning: spec.tools[0]: web is not supported yet, ignored",
                "agents/a/agent.yaml:8:14: warning: spec.tools[1].type: tools of type cli are not supported yet, ignored",
            ],
        ),
    ]);
    below_head(&[(
        "spec: {model: {provider: ollama, name: m, max_input_tokens: 5}}\n",
        &["agents/a/agent.yaml:4:43: warning: spec.model.max_input_tokens is not supported yet, ignored"],
    )]);
    let text = format!("{HEAD}{MODEL}").replace("name: a", "name: b");
    let files: [(&str, &[u8]); 4] = [
        CONFIG,
        (FILE, text.as_bytes()),
        ("agents/a/SOUL.md", "Ä\nI am {{agent.name}}.\n".as_bytes()),
        ("agents/a/policy.local.yaml", b""),
    ];
    assert_eq!(
        lines(&files),
        [
            "agents/a/agent.yaml:3:18: warning: metadata.name: \"b\" is not used: the agent is called \"a\", as its folder",
            "agents/a/SOUL.md:2:6: warning: {{agent.name}} is not filled in by this build, it stays as it is",
            "agents/a/policy.local.yaml: warning: not read by this build; move its rules to policy.yaml",
        ]
    );
}

#[test]
fn a_whole_agent() {
    let text = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: a\n  description: does things\n  version: 1.10\n  \
                labels: {domain: general, tier: 2}\nspec:\n  model:\n    provider: ollama\n    name: m\n    temperature: 1\n    \
                max_output_tokens: 100\n    base_url: http://box:1/\n    context_tokens: 4096\n  soul: ./who/ME.md\n  \
                instructions: MORE.md\n  session:\n    on_disconnect: pause\n    max_tool_iterations: 10\n  tools:\n    - type: \
                builtin\n      name: bash\n    - read_file\n    - bash\n  workdir: ${UNSET:-data}\n";
    let agent = load(&[
        (FILE, text.as_bytes()),
        ("agents/a/who/ME.md", b"soul\n"),
        ("agents/a/SYSTEM_PROMPT.md", b"\xef\xbb\xbfsystem\n"),
        ("agents/a/MORE.md", b"more"),
        ("agents/a/INSTRUCTIONS.md", b"not named, not read"),
    ]);
    let spec = &agent.spec;
    assert_eq!(spec.system_prompt(), "soul\n\nsystem\n\nmore");
    assert_eq!((spec.name.as_str(), spec.version.as_deref()), ("a", Some("1.10")));
    assert_eq!(spec.labels, [("domain".to_owned(), "general".to_owned()), ("tier".to_owned(), "2".to_owned())]);
    assert_eq!((spec.model.temperature, spec.model.max_output_tokens), (Some(1.0), Some(100)));
    assert_eq!((spec.model.base_url.as_deref(), spec.model.context_tokens), (Some("http://box:1"), Some(4096)));
    assert_eq!((spec.on_disconnect, spec.steps_max), (OnDisconnect::Pause, Some(10)));
    assert_eq!(spec.tools, ["bash", "read_file"]);
    assert_eq!(agent.workdir(Path::new("/home/pi/.duragent")), Path::new("/home/pi/data"));
    assert_eq!(agent.warnings, []);
}

#[test]
fn an_agent_with_defaults() {
    let agent = load(&[(FILE, format!("{HEAD}{MODEL}").as_bytes())]);
    assert_eq!(agent.spec.system_prompt(), "");
    assert_eq!(agent.spec.on_disconnect, OnDisconnect::Continue);
    assert_eq!(agent.spec.tools, [""; 0]);
    assert_eq!(agent.policy, None);
    assert_eq!(agent.workdir(Path::new("/home/pi/.duragent")), Path::new("/home/pi"));
    assert_eq!(agent.workdir(Path::new(".duragent")), Path::new("."));
}

#[test]
fn prompts_have_a_limit() {
    let text = format!("{HEAD}{MODEL}");
    let with = |bytes: &[u8]| lines(&[CONFIG, (FILE, text.as_bytes()), ("agents/a/SOUL.md", bytes)]);
    assert_eq!(with(&vec![b'x'; 64 * 1024]), [""; 0]);
    assert_eq!(with(&vec![b'x'; 64 * 1024 + 1]), ["agents/a/SOUL.md: the file has more than 65536 bytes; shorten it"]);
    assert_eq!(with(b"\xff"), ["agents/a/SOUL.md: not UTF-8; save the file as UTF-8"]);
}

#[test]
fn one_bad_agent_does_not_stop_the_others() {
    let good = format!("{HEAD}{MODEL}");
    let files: [(&str, &[u8]); 6] = [
        CONFIG,
        (FILE, good.as_bytes()),
        ("agents/b/agent.yaml", b"kind: [\n"),
        ("agents/Bad Name/agent.yaml", b""),
        ("agents/README.md", b""),
        ("agents/.hidden/x", b""),
    ];
    let folder = Folder::with(&files);
    std::fs::create_dir(folder.0.join("agents/empty")).expect("mkdir");
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    let usable: Vec<(&str, bool)> =
        workspace.agents.iter().map(|(name, agent)| (name.as_str(), agent.is_ok())).collect();
    assert_eq!(usable, [("Bad Name", false), ("a", true), ("b", false), ("empty", false)]);
    assert_eq!(
        report(&folder.0).lines,
        [
            "agents/Bad Name: expected a folder name of a-z, 0-9, _ and -, at most 64; rename it",
            "agents/b/agent.yaml:2:1: did not find expected node content, while parsing a flow node",
            "agents/empty/agent.yaml: no such file",
            "3 errors",
        ]
    );
}

#[test]
fn a_model_may_have_others_to_fall_back_to() {
    let chain = |text: &str| {
        let text = format!("{HEAD}spec: {{model: {{provider: ollama, name: m, fallback: {text}}}}}\n");
        load(&[(FILE, text.as_bytes())]).spec.model.fallback
    };
    let list =
        chain("[{provider: ollama, name: a, context_tokens: 4096}, {provider: ollama, name: b, temperature: 0.5}]");
    let names: Vec<&str> = list.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((list[0].context_tokens, list[1].temperature), (Some(4096), Some(0.5)));
    assert_eq!(chain("{provider: ollama, name: a}").len(), 1);
    assert!(chain("[]").is_empty());
    let one = "{provider: ollama, name: a}, ";
    below_head(&[
        (
            "spec: {model: {provider: ollama, name: m, fallback: [{provider: olama, name: a}]}}\n",
            &[
                "agents/a/agent.yaml:4:65: spec.model.fallback[0].provider: there is no provider \"olama\" (did you mean \
             \"ollama\"?)",
            ],
        ),
        (
            "spec: {model: {provider: ollama, name: m, fallback: {provider: openai, name: a}}}\n",
            &[
                "agents/a/agent.yaml:4:64: warning: spec.model.fallback.provider: openai will refuse to answer: environment \
             variable OPENAI_API_KEY is not set; put the API key into it",
            ],
        ),
        (
            "spec: {model: {provider: ollama, name: m, fallback: [{name: a, fallback: []}]}}\n",
            &[
                "agents/a/agent.yaml:4:54: missing key \"provider\" in spec.model.fallback[0]; write something like provider: ollama",
                "agents/a/agent.yaml:4:64: unknown key \"fallback\" in spec.model.fallback[0] (expected one of provider, name, \
             temperature, max_output_tokens, base_url, context_tokens)",
            ],
        ),
        (
            "spec: {model: {provider: ollama, name: m, fallback: [x]}}\n",
            &["agents/a/agent.yaml:4:54: spec.model.fallback[0]: expected a mapping (key: value), found \"x\""],
        ),
        (
            &format!("spec: {{model: {{provider: ollama, name: m, fallback: [{}]}}}}\n", one.repeat(9)),
            &["agents/a/agent.yaml:4:53: spec.model.fallback: expected at most 8 models, found 9"],
        ),
    ]);
    let text = format!("{HEAD}spec: {{model: {{provider: ollama, name: m, fallback: [{}]}}}}\n", one.repeat(2));
    let folder = Folder::with(&[CONFIG, (FILE, text.as_bytes())]);
    let dump = report(&folder.0).dump.expect("a dump");
    let item = "      - provider: \"ollama\"\n        name: \"a\"\n";
    assert!(dump.contains(&format!("    name: \"m\"\n    fallback:\n{item}{item}")), "{dump}");
}
