use super::super::types::{Provider, Secret, Thinking};
use super::super::{Outward, ProviderKind, Workspace};
use super::*;

const CA: &[u8] = include_bytes!("../../provider/http/testdata/ca.pem");

fn load(text: &str, env: super::super::env::Env<'_>) -> Workspace {
    let text = format!("{TRUST}{text}");
    let folder = Folder::with(&[("duragent.yaml", text.as_bytes()), ("ca.pem", CA)]);
    Workspace::load(&folder.0, env, &TOOLS).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn provider(text: &str, name: &str) -> Provider {
    load(text, &env).config.providers.remove(name).expect(name)
}

#[test]
fn the_well_known_ones_need_nothing_but_a_key() {
    let keys = |name: &str| name.ends_with("_API_KEY").then(|| format!("sk-{name}"));
    let config = load("", &keys).config;
    for (name, kind, url) in [
        ("openai", ProviderKind::OpenAi, "https://api.openai.com/v1"),
        ("openrouter", ProviderKind::OpenRouter, "https://openrouter.ai/api/v1"),
        ("anthropic", ProviderKind::Anthropic, "https://api.anthropic.com"),
    ] {
        let found = config.providers.get(name).expect(name);
        let variable = format!("{}_API_KEY", name.to_ascii_uppercase());
        assert_eq!((found.kind, found.base_url.as_str()), (kind, url));
        assert_eq!(found.api_key, Some(Secret::new(format!("sk-{variable}"))));
        assert_eq!(found.key_from, Some(format!("environment variable {variable}")));
    }
    let of = |text: &str, name: &str| {
        let found = provider(text, name);
        (found.kind, found.base_url)
    };
    let work = |kind| format!("providers: {{work: {{kind: {kind}, api_key_env: KEY}}}}\n");
    assert_eq!(of(&work("anthropic"), "work"), (ProviderKind::Anthropic, "https://api.anthropic.com".into()));
    assert_eq!(of(&work("openrouter"), "work"), (ProviderKind::OpenRouter, "https://openrouter.ai/api/v1".into()));
    // As configurations had it before OpenRouter was a kind of its own.
    let before = "providers: {openrouter: {kind: openai, api_key_env: KEY}}\n";
    assert_eq!(of(before, "openrouter"), (ProviderKind::OpenAi, "https://openrouter.ai/api/v1".into()));
}

#[test]
fn where_a_key_comes_from_is_known_whether_it_is_there_or_not() {
    let missing = provider("providers: {openai: {api_key_env: WORK_KEY}}\n", "openai");
    assert_eq!(missing.key_from.as_deref(), Some("environment variable WORK_KEY"));
    assert!(missing.api_key_missing.is_some_and(|why| why.contains("WORK_KEY is not set")));
    let elsewhere = provider("providers: {openai: {base_url: 'https://other/v1'}}\n", "openai");
    assert_eq!((elsewhere.key_from, elsewhere.api_key_missing), (None, None));
}

#[test]
fn keys_of_one_kind_and_their_ranges() {
    let found = provider("providers: {ollama: {preload: true, bytes_per_token: 3.7}}\n", "ollama");
    assert_eq!((found.preload, found.token_tenths), (true, 37));
    assert_eq!(provider("", "ollama").token_tenths, 30);
    assert_eq!(provider("", "anthropic").token_tenths, 28);
    let thinking = |value: &str| {
        provider(&format!("providers: {{anthropic: {{thinking_tokens: {value}}}}}\n"), "anthropic").thinking
    };
    assert_eq!(provider("", "anthropic").thinking, Thinking::Unset);
    assert_eq!(thinking("adaptive"), Thinking::Adaptive);
    assert_eq!(thinking("1024"), Thinking::Tokens(1024));
    after_trust(&[
        (
            "providers: {openai: {preload: true}}\n",
            &["duragent.yaml:2:31: providers.openai.preload: only kind: ollama loads models"],
        ),
        (
            "providers: {ollama: {preload: 1}}\n",
            &["duragent.yaml:2:31: providers.ollama.preload: expected true or false, found 1"],
        ),
        (
            "providers: {ollama: {bytes_per_token: 0.5}}\n",
            &["duragent.yaml:2:39: providers.ollama.bytes_per_token: expected a number from 1 to 8, found 0.5"],
        ),
        (
            "providers: {ollama: {thinking_tokens: 2048}}\n",
            &["duragent.yaml:2:39: providers.ollama.thinking_tokens: only kind: anthropic is asked to think"],
        ),
        (
            "providers: {anthropic: {thinking_tokens: 1023}}\n",
            &[
                "duragent.yaml:2:42: providers.anthropic.thinking_tokens: expected a whole number from 1024 to 2097152, found \
                 1023",
            ],
        ),
        (
            "providers: {anthropic: {thinking_tokens: much}}\n",
            &[
                "duragent.yaml:2:42: providers.anthropic.thinking_tokens: expected adaptive, or a whole number from 1024 on",
            ],
        ),
    ]);
}

#[test]
fn certificates_are_looked_at_when_they_are_configured() {
    let found = provider("providers: {openai: {ca_file: ca.pem}}\n", "openai").ca.expect("certificates");
    assert_eq!(found.1, [include_bytes!("../../provider/http/testdata/ca.der").to_vec()]);
    let head = "-----BEGIN CERTIFICATE-----\n";
    let twice = [CA, b"what other programs write between them\n", CA].concat();
    let cases: [(&[u8], &str); 6] = [
        (&twice, ""),
        (b"", "expected certificates in PEM (-----BEGIN CERTIFICATE-----), found none"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "expected certificates in PEM"),
        (&format!("{head}AAAA\n").into_bytes(), "certificate 1 is not PEM"),
        (&format!("{head}AAAA\n-----END CERTIFICATE-----\n").into_bytes(), "certificate 1 cannot be trusted: "),
        (&[b'\n'; 1024 * 1024 + 1], "the file has more than 1048576 bytes"),
    ];
    for (bytes, what) in cases {
        let text = format!("{TRUST}providers: {{openai: {{ca_file: ca.pem}}}}\n");
        let said = lines(&[("duragent.yaml", text.as_bytes()), ("ca.pem", bytes)]);
        let begin = "duragent.yaml:2:31: providers.openai.ca_file: DIR/ca.pem: ";
        match said.first() {
            Some(line) => assert!(line.starts_with(&format!("{begin}{what}")) && !what.is_empty(), "{line}"),
            None => assert!(what.is_empty(), "{what}"),
        }
    }
    let missing = "duragent.yaml:2:31: providers.openai.ca_file: DIR/none.pem: no such file";
    after_trust(&[("providers: {openai: {ca_file: none.pem}}\n", &[missing])]);
}

/// The proxies on the way to these, in this environment.
fn ways(text: &str, variables: &[(&str, &str)], urls: &[&str]) -> Vec<String> {
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = load(text, &env).config;
    let outward: &Outward = &config.providers.get("openai").expect("openai").outward;
    urls.iter().map(|url| outward.to(url).map_or("-", Secret::expose).to_owned()).collect()
}

#[test]
fn a_proxy_is_used_only_where_one_is_configured() {
    const URLS: [&str; 3] = ["https://api.example.com/v1", "http://model.lan/v1", "http://127.0.0.1:11434"];
    let surroundings = [("HTTP_PROXY", "http://h:1"), ("https_proxy", "http://s:2"), ("HTTPS_PROXY", "http://x:3")];
    let p = "http://p:3128";
    for (text, want) in [
        ("", ["-", "-", "-"]),
        ("proxy: 'http://p:3128'\n", [p, p, "-"]),
        ("proxy: environment\n", ["http://s:2", "http://h:1", "-"]),
        ("providers: {openai: {proxy: 'http://p:3128'}}\n", [p, p, "-"]),
        ("proxy: 'http://q:1'\nproviders: {openai: {proxy: 'http://p:3128'}}\n", [p, p, "-"]),
        ("proxy: 'http://q:1'\nproviders: {openai: {proxy: none}}\n", ["-", "-", "-"]),
        ("proxy: 'http://p:3128'\nno_proxy: [model.lan]\n", [p, "-", "-"]),
        (
            "proxy: 'http://p:3128'\nno_proxy: [model.lan]\nproviders: {openai: {no_proxy: [example.com]}}\n",
            ["-", p, "-"],
        ),
        ("proxy: 'http://p:3128'\nno_proxy: ['*']\n", ["-", "-", "-"]),
    ] {
        assert_eq!(ways(text, &surroundings, &URLS), want, "{text}");
    }
    let none = ways("proxy: environment\n", &[("NO_PROXY", "x")], &URLS);
    assert_eq!(none, ["-", "-", "-"]);
    let all = [("all_proxy", "http://a:1"), ("NO_PROXY", ".lan, example.com:443")];
    assert_eq!(ways("proxy: environment\n", &all, &["https://other.com", URLS[0], URLS[1]]), ["http://a:1", "-", "-"]);
}

#[test]
fn no_proxy_means_names_and_what_is_below_them_and_ranges() {
    let reached = |rule: &str, host: &str| {
        let text = format!("proxy: 'http://p:1'\nno_proxy: ['{rule}']\n");
        ways(&text, &[], &[&format!("https://{host}/v1")]) == ["-"]
    };
    for (rule, host) in [
        ("example.com", "example.com"),
        ("example.com", "API.example.com"),
        (".example.com", "api.example.com"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("192.0.2.1", "192.0.2.1:8080"),
        ("fd00::/8", "[fd00::1]"),
    ] {
        assert!(reached(rule, host), "{rule} {host}");
    }
    for (rule, host) in [
        ("example.com", "badexample.com"),
        ("example.com", "example.com.evil.net"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/8", "10.example.com"),
        (".", "example.com"),
    ] {
        assert!(!reached(rule, host), "{rule} {host}");
    }
}

#[test]
fn what_is_wrong_with_a_proxy_is_told_without_its_password() {
    let wrong = "expected http://HOST:PORT, environment or none";
    let at = |place: &str| format!("duragent.yaml:{place}: {wrong}");
    let (top, inner) = (at("2:8: proxy"), at("2:29: providers.openai.proxy"));
    after_trust(&[
        ("proxy: 'https://u:geheim@p:1'\n", &[&top]),
        ("proxy: p:3128\n", &[&top]),
        ("proxy: 'http://u:geheim@p/path'\n", &[&top]),
        ("providers: {openai: {proxy: 'socks5://p'}}\n", &[&inner]),
        ("proxy: [x]\n", &["duragent.yaml:2:8: proxy: expected text (put it in quotes)"]),
        (
            "no_proxy: ['http://x', 7]\n",
            &[
                "duragent.yaml:2:12: no_proxy[0]: expected a host, .domain, address, range or *, found \"http://x\"",
                "duragent.yaml:2:24: no_proxy[1]: expected a host, .domain, address, range or *, found 7",
            ],
        ),
    ]);
    // And a variable that goes into it is a secret, which no tool sees.
    after_trust(&[("proxy: 'http://me:${KEY}@p:1'\n", &[])]);
    let text = "sandbox: {mode: auto, env: [KEY]}\nproxy: 'http://me:${KEY}@p:1'\n";
    let said = lines(&[("duragent.yaml", text.as_bytes())]);
    assert!(said.iter().any(|line| line.contains("\"KEY\" cannot pass: it holds a secret")), "{said:?}");
    let control = lines(&[("duragent.yaml", b"sandbox: {mode: auto, env: [KEY]}\n".as_slice())]);
    assert!(control.is_empty(), "{control:?}");
}

#[test]
fn the_dump_has_all_of_it_and_no_password() {
    let text = format!(
        "{TRUST}proxy: 'http://me:geheim@p:1'\nno_proxy: [.lan]\nproviders:\n  ollama: {{preload: true}}\n  anthropic: \
         {{thinking_tokens: adaptive, ca_file: ca.pem}}\n"
    );
    let folder = Folder::with(&[("duragent.yaml", text.as_bytes()), ("ca.pem", CA)]);
    let dump = report(&folder.0).dump.expect("a dump");
    let ca = format!("    ca_file: \"{}\"\n    certificates: 1", folder.0.join("ca.pem").display());
    for part in [
        "    preload: true\n",
        "    thinking_tokens: adaptive\n",
        "    bytes_per_token: 2.8\n",
        "    proxy: \"http://***@p:1\"\n    no_proxy: [\".lan\"]\n",
        &ca.replace("    certificates", "#     certificates"),
    ] {
        assert!(dump.contains(part), "{part}\n{dump}");
    }
    assert!(!dump.contains("geheim"));
    let ollama = dump.split("\"ollama\":").nth(1).expect("ollama").split("\"openai\":").next().expect("its keys");
    assert!(!ollama.contains(" proxy:"), "this machine is reached directly: {ollama}");
}

#[test]
fn as_much_is_kept_free_for_an_answer_as_it_may_have() {
    for (keys, name, window, free) in [
        ("", "ollama", 8192, 1024),
        ("", "ollama", 2048, 512),
        ("", "anthropic", 200_000, 4096),
        ("", "anthropic", 8192, 2048),
        ("thinking_tokens: 8000", "anthropic", 200_000, 12_096),
        ("thinking_tokens: 8000", "anthropic", 8192, 4096),
        ("thinking_tokens: adaptive", "anthropic", 200_000, 16_384),
    ] {
        let text = format!("providers: {{{name}: {{{keys}}}}}\n");
        assert_eq!(provider(&text, name).answer_tokens(window), free, "{text} {window}");
    }
}
