use super::super::Workspace;
use super::super::policy::{append_allow, load};
use super::*;
use duragent_core::policy::{Policy, Rule, Verdict};
use std::io;

const CONFIG: (&str, &[u8]) = ("duragent.yaml", TRUST.as_bytes());

#[test]
fn what_is_wrong_with_a_policy() {
    table(
        "policy.yaml",
        &[CONFIG],
        &[
            ("", &[]),
            (
                "mode: asks\n",
                &["policy.yaml:1:7: mode: expected allow or ask or deny, found \"asks\" (did you mean \"ask\"?)"],
            ),
            ("alow: []\n", &["policy.yaml:1:1: unknown key \"alow\" at the top level (did you mean \"allow\"?)"]),
            ("kind: Agent\n", &["policy.yaml:1:7: kind: expected Policy, found \"Agent\""]),
            ("deny: bash\n", &["policy.yaml:1:7: deny: expected a list, found \"bash\""]),
            (
                "deny:\n  - bash: ls\n",
                &["policy.yaml:2:5: deny[0]: expected \"tool:pattern\", found a mapping; put it in quotes"],
            ),
            ("deny: [read_file, 5]\n", &["policy.yaml:1:19: deny[1]: expected \"tool:pattern\", found 5"]),
            (
                "deny:\n  - 'bash:'\n",
                &[
                    "policy.yaml:2:5: deny[0]: expected a pattern after the colon; without the colon every argument matches, found \
             \"bash:\"",
                ],
            ),
            (
                "deny: [\"a b:c\"]\n",
                &[
                    "policy.yaml:1:8: deny[0]: expected tool:pattern or tool, with a tool name of letters, digits, _, - and *, found \
             \"a b:c\"",
                ],
            ),
            (
                "allow: ['builtin:web:search', 'mcp:github:*', 'cli:x']\nnotify: {enabled: true}\n",
                &[
                    "policy.yaml:1:9: warning: allow[0]: \"builtin:web:search\" matches nothing; write \"web:search\"",
                    "policy.yaml:1:31: warning: allow[1]: \"mcp:github:*\" matches nothing; write \"mcp__github__*\"",
                    "policy.yaml:1:47: warning: allow[2]: \"cli:x\" matches nothing; tools of type cli are not supported yet",
                    "policy.yaml:2:1: warning: notify is not supported yet, ignored",
                ],
            ),
            (
                "tags:\n  bash: [private, egres]\n  'mcp__*': egress\n  'bash:ls *': []\n  read_file:\n  \"*\": [1]\n",
                &[
                    "policy.yaml:2:19: tags.bash: expected private, untrusted or egress, found \"egres\" (did you mean \"egress\"?)",
                    "policy.yaml:3:13: tags.mcp__*: expected a list, found \"egress\"",
                    "policy.yaml:4:3: tags: expected the name of a tool, of letters, digits, _, - and *, found \"bash:ls *\"",
                    "policy.yaml:5:3: tags.read_file: expected a list; write [] for no tags",
                    "policy.yaml:6:9: tags.*: expected private, untrusted or egress, found 1",
                ],
            ),
            (
                "deny: ['read_file:~/.ssh/**', 'bash:~/x *']\n",
                &[
                    "policy.yaml:1:8: warning: deny[0]: \"read_file:~/.ssh/**\" matches nothing; read_file does not expand ~, write the whole path",
                ],
            ),
            ("tags: [bash]\n", &["policy.yaml:1:7: tags: expected a mapping (key: value), found a list"]),
        ],
    );
}

#[test]
fn variables_are_not_expanded_in_rules() {
    let folder = Folder::with(&[("policy.yaml", b"mode: restrict\ndeny: ['bash:*${SET}*', 'bash:$$']\n")]);
    let (policy, _) = load(&folder.0.join("policy.yaml"), "policy.yaml").expect("valid").expect("there");
    let rules: Vec<&str> = policy.deny.iter().map(Rule::as_str).collect();
    assert_eq!(rules, ["bash:*${SET}*", "bash:$$"]);
    assert_eq!(policy.mode, Some(Verdict::Deny));
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)
}

#[test]
fn a_rule_is_appended_and_everything_else_stays() {
    const NEW: &str = "  - \"bash:ls -l\"\n";
    for (before, after) in [
        (
            "mode: ask\n# why\nallow:\n  # because\n  - a # x\n",
            "mode: ask\n# why\nallow:\n  - \"bash:ls -l\"\n  # because\n  - a # x\n",
        ),
        ("allow:\n- a\nmode: ask\n", "allow:\n- \"bash:ls -l\"\n- a\nmode: ask\n"),
        ("allow:\n    - a\n", "allow:\n    - \"bash:ls -l\"\n    - a\n"),
        ("allow: # all\nmode: ask\n", "allow: # all\n  - \"bash:ls -l\"\nmode: ask\n"),
        ("allow: []\nmode: ask", "allow:\n  - \"bash:ls -l\"\nmode: ask"),
        ("allow: [a, 'b:c'] # x\n", "allow: [\"bash:ls -l\", a, 'b:c'] # x\n"),
        ("mode: ask", "mode: ask\nallow:\n  - \"bash:ls -l\"\n"),
        ("mode: ask\r\nallow:\r\n  - a\r\n", "mode: ask\r\nallow:\r\n  - \"bash:ls -l\"\r\n  - a\r\n"),
        ("", "allow:\n  - \"bash:ls -l\"\n"),
        ("allow:", &format!("allow:\n{NEW}")),
    ] {
        let folder = Folder::with(&[("policy.yaml", before.as_bytes())]);
        let path = folder.0.join("policy.yaml");
        let rule = Rule::parse("bash:ls -l").expect("a rule");
        append_allow(&path, &rule, &write).expect(before);
        assert_eq!(folder.read("policy.yaml"), after);
        // Again: it is there already.
        append_allow(&path, &rule, &|_, _| Err(io::Error::other("written twice"))).expect(before);
    }
}

#[test]
fn a_policy_that_is_not_there_is_made() {
    let folder = Folder::new();
    append_allow(&folder.0.join("policy.yaml"), &Rule::parse("bash:ls").expect("a rule"), &write).expect("made");
    assert_eq!(folder.read("policy.yaml"), "apiVersion: duragent/v1alpha1\nkind: Policy\nallow:\n  - \"bash:ls\"\n");
}

#[test]
fn any_text_survives_being_appended() {
    for text in ["a\"b\\c", "a\nb\tc", "ä € 😀", "# x", "a\u{85}\u{2028}\u{feff}b\u{7f}", "${SET} $$ 'x' {}[]:", " "]
    {
        let folder = Folder::with(&[("policy.yaml", b"allow:\n  - x\n")]);
        let path = folder.0.join("policy.yaml");
        let rule = Rule::parse(&format!("bash:{text}")).expect(text);
        append_allow(&path, &rule, &write).expect(text);
        let (policy, _) = load(&path, "policy.yaml").expect(text).expect(text);
        assert!(policy.allow.contains(&rule), "{text}");
    }
}

#[test]
fn a_policy_that_cannot_be_edited_safely_is_left_alone() {
    let rule = Rule::parse("bash:ls").expect("a rule");
    for before in [
        "allow: [a,\n  b]\n",
        "allow: &x\n  - a\nask: *x\n",
        "{allow: [a]}\n",
        "\"allow\": [a]\n",
        "mode: asks\n",
        "allow: [\n",
    ] {
        let folder = Folder::with(&[("policy.yaml", before.as_bytes())]);
        let error = append_allow(&folder.0.join("policy.yaml"), &rule, &write).expect_err(before);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{before}");
        assert_eq!(folder.read("policy.yaml"), before);
    }
    let folder = Folder::with(&[("policy.yaml", b"mode: ask\n")]);
    let full = |_: &Path, _: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = append_allow(&folder.0.join("policy.yaml"), &rule, &full).expect_err("a full disk");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_broken_policy_breaks_its_agent_or_the_workspace() {
    let agent =
        "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {model: {provider: ollama, name: m}}\n";
    let files: [(&str, &[u8]); 3] =
        [CONFIG, ("agents/a/agent.yaml", agent.as_bytes()), ("agents/a/policy.yaml", b"deny: bash\n")];
    assert_eq!(lines(&files), ["agents/a/policy.yaml:1:7: deny: expected a list, found \"bash\""]);
    assert_eq!(lines(&[CONFIG, ("policy.yaml", b"[\n")]).len(), 1);
    assert_eq!(Policy::default().mode, None);
}

/// Tags of `bash` and `read_file` in a workspace with this sandbox and these policies.
fn tags(sandbox: &str, workspace: &str, agent: &str) -> (String, String) {
    let duragent =
        format!("sandbox: {{{sandbox}}}\nproviders: {{p: {{kind: openai, base_url: \"http://localhost:1/v1\"}}}}\n");
    let spec = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: a}\n\
                spec: {model: {provider: p, name: m}, tools: [bash, read_file], workdir: ./w}\n";
    let folder = Folder::with(&[
        ("duragent.yaml", duragent.as_bytes()),
        ("policy.yaml", workspace.as_bytes()),
        ("agents/a/agent.yaml", spec.as_bytes()),
        ("agents/a/policy.yaml", agent.as_bytes()),
    ]);
    let workspace = Workspace::load(&folder.0, &env, &TOOLS).expect("a workspace");
    let agent = workspace.agents["a"].as_ref().expect("an agent");
    let words = |tool: &str| workspace.tags(agent, tool).words().collect::<Vec<_>>().join(" ");
    (words("bash"), words("read_file"))
}

#[test]
fn tags_go_by_what_a_tool_can_do() {
    for (sandbox, workspace, agent, bash, read) in [
        ("mode: landlock", "", "", "private", "private"),
        ("mode: bubblewrap, network: loopback", "", "", "private", "private"),
        ("mode: bubblewrap, network: all", "", "", "private egress", "private"),
        ("mode: bubblewrap, network: ['example.com:443']", "", "", "private egress", "private"),
        ("mode: trust", "", "", "private egress", "private"),
        ("mode: trust", "tags: {bash: []}", "", "", "private"),
        (
            "mode: trust",
            "tags: {bash: [egress]}",
            "tags: {bash: [], '*': [untrusted]}",
            "untrusted egress",
            "untrusted",
        ),
        ("mode: trust", "", "tags: {'read_*': []}", "private egress", ""),
    ] {
        assert_eq!(
            tags(sandbox, workspace, agent),
            (bash.to_owned(), read.to_owned()),
            "{sandbox} {workspace} {agent}"
        );
    }
}
