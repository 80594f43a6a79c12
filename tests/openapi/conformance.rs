//! The server against its description: a scenario that has every answer, and a campaign of generated requests.

use crate::DESCRIPTION;
use crate::python;
use crate::stage::{ADMIN_TOKEN, Stage, TOKEN};
use std::path::Path;
use std::process::Command;

/// Generated requests for each operation and phase, unless the variable `DURAGENT_OPENAPI_EXAMPLES` says otherwise: the
/// slice takes less than a minute. `cargo xtask openapi` makes a longer campaign.
const EXAMPLES: &str = "50";

/// A whole number, printed by schemathesis too; the variable `DURAGENT_OPENAPI_SEED` says otherwise.
const SEED: &str = "1";

/// The agents of the scenario.
const EVERYBODY: [&str; 4] = ["assistant", "asker", "slow", "broken"];

const CONFIG: &str = include_str!("schemathesis.toml");

/// The end of the command's output, if it succeeded or if it did not.
fn outcome(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn var(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Runs schemathesis with the description in the file `path`.
fn campaign(stage: &Stage, path: &Path, options: &[&str]) -> Result<String, String> {
    let config = stage.write("schemathesis.toml", CONFIG);
    stage.write("hooks.py", include_str!("hooks.py"));
    let mut command = Command::new(python::programs().join("schemathesis"));
    command.arg("--config-file").arg(config).arg("run").arg(path).args(["--url", &stage.url, "--no-color"]);
    command.args(["--generation-database", "none", "--request-timeout", "30", "--continue-on-failure"]);
    command.env("DURAGENT_API_TOKEN", TOKEN).env("DURAGENT_ADMIN_TOKEN", ADMIN_TOKEN);
    outcome(command.args(options).current_dir(&stage.folder))
}

#[test]
fn the_description_is_valid() {
    let mut command = Command::new(python::programs().join("openapi-spec-validator"));
    let told = outcome(command.args(["--schema", "3.1", concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml")]));
    told.unwrap_or_else(|text| panic!("docs/openapi.yaml is not OpenAPI 3.1: {text}"));
}

/// Runs the scenario with the description in the file `path`. It ends the server.
fn scenario(stage: &Stage, path: &Path) -> Result<String, String> {
    stage.write("hooks.py", include_str!("hooks.py"));
    let script = stage.write("scenario.py", include_str!("scenario.py"));
    let mut command = Command::new(python::programs().join("python"));
    command.arg(script).arg(path).args([&stage.url, TOKEN, ADMIN_TOKEN]);
    outcome(command.current_dir(stage.folder.join(".duragent")))
}

#[test]
fn every_answer_that_is_described_is_given_as_described() {
    let stage = Stage::new("scenario", &EVERYBODY, 600);
    let told = scenario(&stage, &stage.write("openapi.yaml", DESCRIPTION)).unwrap_or_else(|text| panic!("{text}"));
    assert!(told.contains(" answers are as described"), "{told}");
}

/// The control of the scenario: what is described and never answered, and what is answered otherwise.
#[test]
fn an_answer_that_is_not_given_is_found_out() {
    let tea = "\"404\": { $ref: \"#/components/responses/Problem\" }\n        \"418\": { description: Tea }\n";
    for (right, wrong, expected) in [
        ("\"404\": { $ref: \"#/components/responses/Problem\" }\n", tea, "described, and never answered: [('"),
        ("exit_code: { type: integer }", "exit_code: { type: string }", "is not of type \"string\""),
    ] {
        let stage = Stage::new("tea", &EVERYBODY, 600);
        assert!(DESCRIPTION.contains(right), "{right:?} is in the description no more");
        let told = scenario(&stage, &stage.write("wrong.yaml", &DESCRIPTION.replace(right, wrong)));
        let told = told.err().unwrap_or_else(|| panic!("{wrong:?} was not found out"));
        assert!(told.contains(expected), "{wrong:?}: no {expected:?} in {told}");
    }
}

#[test]
fn generated_requests_are_answered_as_described() {
    let stage = Stage::new("campaign", &["assistant", "asker"], 1);
    let description = stage.write("openapi.yaml", DESCRIPTION);
    let (examples, seed) = (var("DURAGENT_OPENAPI_EXAMPLES", EXAMPLES), var("DURAGENT_OPENAPI_SEED", SEED));
    let told = campaign(&stage, &description, &["--max-examples", &examples, "--seed", &seed]);
    let told = told.unwrap_or_else(|text| panic!("{text}"));
    // A campaign that did not get to the server finds nothing wrong either. Shutting it down is left out.
    let tested = format!("Tested: {}", DESCRIPTION.matches(" operationId: ").count() - 1);
    for word in [tested.as_str(), "Examples", "Coverage", "Fuzzing", "Stateful"] {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    println!("{told}");
}

/// The control: what is checked can be found wrong. Each time the description of one operation is bent in a way in which the
/// server is not.
#[test]
fn a_wrong_description_is_found_out() {
    let stage = Stage::new("control", &["assistant"], 1);
    // right, wrong, operation, what is told
    let bent = [
        (
            "required: [id, agent, status,",
            "required: [colour, id, agent, status,",
            "createSession",
            "\"colour\" is a required",
        ),
        ("application/yaml: {}", "text/csv: {}", "getDescription", "Undocumented Content-Type"),
        ("\"201\": ", "\"299\": ", "createSession", "201 is neither described here nor listed"),
        (
            "pattern: \"^/api/v1/sessions/",
            "pattern: \"^/somewhere/",
            "createSession",
            "Response header does not conform",
        ),
        ("      security: []\n", "", "getLivez", "API accepts requests without authentication"),
        (
            "additionalProperties: false\n",
            "additionalProperties: true\n",
            "createSession",
            "Schema-valid request rejected",
        ),
        ("maximum: 1000,", "maximum: 900,", "listSessions", "Schema-violating request accepted"),
    ];
    let bend = |right: &str, wrong: &str| {
        assert!(DESCRIPTION.contains(right), "{right:?} is in the description no more");
        stage.write("wrong.yaml", &DESCRIPTION.replace(right, wrong))
    };
    for (right, wrong, operation, expected) in bent {
        let path = bend(right, wrong);
        let told =
            campaign(&stage, &path, &["--include-operation-id", operation, "--max-examples", "20", "--seed", SEED]);
        let told = told.err().unwrap_or_else(|| panic!("{wrong:?} was not found out"));
        assert!(told.contains(expected), "{wrong:?}: no {expected:?} in {told}");
    }
}
