//! Every model that an agent asks for, and those it falls back to: does its endpoint answer, does it know the model, what
//! can that do, and is its context as long as configured.

use super::{Check, Status};
use crate::config::Workspace;
use crate::provider::{Failure, Probe};
use crate::session::{Agents, Endpoint};
use duragent_core::session::Model;
use std::sync::Arc;

/// A model, and who asks for it.
struct Asked<'a> {
    model: &'a Model,
    endpoint: &'a Endpoint,
    /// Agents, with the place in their chain if it is not their own model.
    users: Vec<String>,
    /// Somebody's own model: sessions do not work without it.
    own: bool,
    /// One of them offers it tools.
    tools: bool,
}

pub fn look(workspace: &Workspace, agents: &Agents) -> Vec<Check> {
    if agents.good.is_empty() {
        return vec![Check::warn("model", "no agent can be used, so no model was asked for")];
    }
    // One question a model, however many agents share it.
    let mut all: Vec<Asked<'_>> = Vec::new();
    for agent in &agents.good {
        let tools = !agent.rules.tools.is_empty();
        for (place, model) in std::iter::once(&agent.rules.model).chain(&agent.rules.fallbacks).enumerate() {
            let endpoint = agent.endpoint_at(place);
            let user = if place == 0 { agent.name.clone() } else { format!("{} (fallback {place})", agent.name) };
            match all.iter_mut().find(|asked| is_same(asked, model, endpoint)) {
                Some(asked) => {
                    asked.users.push(user);
                    asked.own |= place == 0;
                    asked.tools |= tools;
                }
                None => all.push(Asked { model, endpoint, users: vec![user], own: place == 0, tools }),
            }
        }
    }
    all.iter().map(|asked| ask(workspace, asked)).collect()
}

fn is_same(asked: &Asked<'_>, model: &Model, endpoint: &Endpoint) -> bool {
    Arc::ptr_eq(&asked.endpoint.provider, &endpoint.provider)
        && (&asked.model.name, asked.model.context_tokens) == (&model.name, model.context_tokens)
}

fn ask(workspace: &Workspace, asked: &Asked<'_>) -> Check {
    let Asked { model, endpoint, users, own, tools } = asked;
    let name = format!("model {}/{}", model.provider, model.name);
    let provider = workspace.config.providers.get(&model.provider);
    let mut check = match provider.and_then(|provider| provider.api_key_missing.as_deref()) {
        Some(why) => Check::fail(&name, format!("there is no key: {why}")).hint(used_by(users)),
        None => verdict(&name, users, (model.context_tokens, *tools), endpoint.provider.probe(&model.name)),
    };
    if check.status == Status::Fail && !own {
        check.status = Status::Warn;
    }
    check
}

fn used_by(users: &[String]) -> String {
    format!("used by {}", users.join(", "))
}

fn verdict(name: &str, users: &[String], (wanted, tools): (u64, bool), found: Result<Probe, Failure>) -> Check {
    match found {
        Err(failure) => Check::fail(name, failure.detail).hint(used_by(users)),
        Ok(Probe { text, lacks_tools: true, .. }) if tools => {
            let hint = format!("choose a model that can call tools, or give the agent none; {}", used_by(users));
            Check::fail(name, text).hint(hint)
        }
        Ok(Probe { text, context_tokens: Some(most), .. }) if most < wanted => {
            let evidence = format!("{text}; context_tokens is {wanted}, the model has {most}");
            Check::warn(name, evidence).hint(format!("set context_tokens to {most} or less; {}", used_by(users)))
        }
        Ok(Probe { text, .. }) => Check::ok(name, format!("{text}; context_tokens is {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duragent_core::event::FailureKind;

    #[test]
    fn what_a_probe_finds_is_compared_with_what_is_configured() {
        let probe = |context_tokens| {
            Ok(Probe { text: "it answers".into(), context_tokens, lacks_tools: context_tokens == Some(1) })
        };
        let failure = Failure::new(FailureKind::Connect, "refused");
        for (found, status, part) in [
            (probe(None), Status::Ok, "it answers; context_tokens is 8192"),
            (probe(Some(8192)), Status::Ok, "it answers; context_tokens is 8192"),
            (probe(Some(8191)), Status::Warn, "it answers; context_tokens is 8192, the model has 8191"),
            (probe(Some(1)), Status::Fail, "it answers"),
            (Err(failure), Status::Fail, "refused"),
        ] {
            let check = verdict("model x/y", &["a".into(), "b".into()], (8192, true), found);
            assert_eq!((check.status, check.evidence.as_str()), (status, part));
            assert_eq!(check.hint.is_some_and(|hint| hint.ends_with("used by a, b")), status != Status::Ok);
        }
    }
}
