//! What `sandbox` in the configuration does to a call, all the way from the file to the process. In mode `trust`, which works
//! on every machine; what is enforced is tested in the platform crate.

use crate::house::{House, config};
use duragent_core::event::{Body, ToolOutcome};
use std::process::Command;

/// What came of `command`, run by an agent with `keys` in `spec.sandbox`, in a runtime with `environment`.
fn outcome(name: &str, command: &str, keys: &str, environment: &[(&str, &str)]) -> ToolOutcome {
    let call = format!("{{\"tool_calls\":[{{\"name\":\"bash\",\"arguments\":{{\"command\":\"{command}\"}}}}]}}");
    let house = House::new(name, &format!("{call}\n{{\"deltas\":[\"Done.\"]}}\n"), "mode: allow");
    let file = ".duragent/agents/worker/agent.yaml";
    let spec = house.read(file).expect("the agent");
    house.write(file, &format!("{spec}  sandbox: {{{keys}}}\n"));
    house.write(".duragent/duragent.yaml", &config(&["worker"]));
    let mut run: Command = house.command(&["run", "worker", "go"]);
    run.env_remove("LC_ALL").envs(environment.iter().copied());
    let output = run.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let finished = house.events(&house.session()).into_iter().find_map(|event| match event.body {
        Body::ToolFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    finished.expect("a tool that finished")
}

#[test]
fn listed_variables_pass_and_no_others() {
    let environment = [("LISTED", "a"), ("UNLISTED", "b"), ("HOME", "/somewhere"), ("TZ", "UTC0")];
    let command = "echo $LISTED-$UNLISTED-$HOME-$TZ";
    assert_eq!(outcome("env", command, "env: [LISTED, ABSENT]", &environment).result, "a--/somewhere-UTC0\n");
    assert_eq!(outcome("env-default", command, "", &environment).result, "--/somewhere-UTC0\n");
}

#[test]
fn an_agent_lowers_the_bounds_of_a_call() {
    let outcome_of = |name, command, keys| outcome(name, command, keys, &[]);
    let slow = outcome_of("wall", "sleep 600", "limits: {wall_seconds: 1}");
    assert!(slow.result.contains("[killed at the deadline of 1 s]"), "{slow:?}");
    let print = "head -c 6000 /dev/zero | tr '\\\\0' x";
    let long = outcome_of("output", print, "limits: {output_bytes: 2048}");
    assert!(long.truncated && long.result.len() < 3000, "{long:?}");
    let whole = outcome_of("output-default", print, "");
    assert!(!whole.truncated && whole.result.len() == 6000, "the control: {whole:?}");
}
