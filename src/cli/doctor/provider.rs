//! Every model that an agent asks for: does its endpoint answer, does it know the model, and is the model's context as long
//! as configured.

use super::Check;
use crate::config::Workspace;
use crate::provider::{Failure, Probe};
use crate::session::{Agent, Agents};
use std::sync::Arc;

pub fn look(workspace: &Workspace, agents: &Agents) -> Vec<Check> {
    if agents.good.is_empty() {
        return vec![Check::warn("model", "no agent can be used, so no model was asked for")];
    }
    // One question a model, however many agents share it.
    let mut asked: Vec<(&Agent, Vec<&str>)> = Vec::new();
    for agent in &agents.good {
        match asked.iter_mut().find(|(other, _)| same_model(agent, other)) {
            Some((_, names)) => names.push(&agent.name),
            None => asked.push((agent, vec![&agent.name])),
        }
    }
    asked.into_iter().map(|(agent, names)| model(workspace, agent, &names)).collect()
}

fn same_model(a: &Agent, b: &Agent) -> bool {
    Arc::ptr_eq(&a.endpoint.provider, &b.endpoint.provider) && a.rules.model == b.rules.model
}

fn model(workspace: &Workspace, agent: &Agent, names: &[&str]) -> Check {
    let name = format!("model {}/{}", agent.rules.model.provider, agent.rules.model.name);
    let endpoint = workspace.config.providers.get(&agent.rules.model.provider);
    if let Some(why) = endpoint.and_then(|endpoint| endpoint.api_key_missing.as_deref()) {
        return Check::fail(&name, format!("there is no key: {why}")).hint(used_by(names));
    }
    verdict(&name, names, agent.rules.model.context_tokens, agent.endpoint.provider.probe(&agent.rules.model.name))
}

fn used_by(names: &[&str]) -> String {
    format!("used by {}", names.join(", "))
}

fn verdict(name: &str, names: &[&str], wanted: u64, found: Result<Probe, Failure>) -> Check {
    match found {
        Err(failure) => Check::fail(name, failure.detail).hint(used_by(names)),
        Ok(Probe { text, context_tokens: Some(most) }) if most < wanted => {
            let evidence = format!("{text}; context_tokens is {wanted}, the model has {most}");
            Check::warn(name, evidence).hint(format!("set context_tokens to {most} or less; {}", used_by(names)))
        }
        Ok(Probe { text, .. }) => Check::ok(name, format!("{text}; context_tokens is {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use duragent_core::event::FailureKind;

    #[test]
    fn what_a_probe_finds_is_compared_with_what_is_configured() {
        let probe = |context_tokens| Ok(Probe { text: "it answers".into(), context_tokens });
        let failure = Failure::new(FailureKind::Connect, "refused");
        for (found, status, part) in [
            (probe(None), Status::Ok, "it answers; context_tokens is 8192"),
            (probe(Some(8192)), Status::Ok, "it answers; context_tokens is 8192"),
            (probe(Some(8191)), Status::Warn, "it answers; context_tokens is 8192, the model has 8191"),
            (Err(failure), Status::Fail, "refused"),
        ] {
            let check = verdict("model x/y", &["a", "b"], 8192, found);
            assert_eq!((check.status, check.evidence.as_str()), (status, part));
            assert_eq!(check.hint.is_some_and(|hint| hint.ends_with("used by a, b")), status != Status::Ok);
        }
    }
}
