//! What is said of `https` by a build without TLS. `cargo xtask check` runs these in such a build.

use super::after_trust;
use super::house::House;

const SAID: &str = "https is not in this build (feature tls is off); use http, or a build with TLS";

#[test]
fn no_tls_is_told_of_every_url_and_certificate() {
    after_trust(&[
        (
            "providers: {far: {kind: openai, base_url: 'https://u:geheim@host/v1'}}\n",
            &[&format!("duragent.yaml:2:43: providers.far.base_url: {SAID}, found \"https://***@host/v1\"")],
        ),
        (
            "providers: {near: {kind: openai, base_url: 'http://10.0.0.1/v1', ca_file: ca.pem}}\n",
            &[&format!("duragent.yaml:2:75: providers.near.ca_file: DIR/ca.pem: {SAID}")],
        ),
        // Known by itself, and used by nobody.
        ("providers: {near: {kind: openai, base_url: 'http://10.0.0.1/v1'}}\n", &[]),
    ]);
}

#[test]
fn no_tls_is_told_to_an_agent_whose_provider_needs_it() {
    let house = House::new();
    let agent = |model: &str| {
        format!("apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  model: {model}\n")
    };
    let said = |model: &str| {
        house.write("sandbox: {mode: trust}\n", "");
        house.folder.write(".duragent/agents/a/agent.yaml", agent(model).as_bytes());
        house.said().into_iter().filter(|line| line.contains("not in this build")).collect::<Vec<_>>()
    };
    assert_eq!(
        said("{provider: openai, name: m}"),
        [format!("agents/a/agent.yaml:5:21: spec.model.provider: openai: {SAID}")]
    );
    assert_eq!(
        said("{provider: openai, name: m, base_url: 'http://10.0.0.1/v1'}"),
        [""; 0],
        "control: elsewhere it is"
    );
    assert_eq!(said("{provider: ollama, name: m}"), [""; 0]);
}
