//! Agents: all of them in short, and one with its spec.

use super::Request;
use crate::http::json::{array, object, string};
use crate::http::problem::{self, Problem};
use crate::http::response::Response;
use crate::http::shared::Shared;
use crate::session::api::AgentInfo;
use crate::session::{About, Agent, Workdir};
use duragent_core::event::SandboxReport;
use duragent_core::json::ObjectWriter;
use duragent_platform::sandbox::policy::{Endpoint, Network};
use std::path::PathBuf;

pub(super) fn list(shared: &Shared, request: &Request<'_>) -> Result<Response, Problem> {
    request.wants_json()?;
    let agents = array(shared.runtime.agents().iter().map(|agent| object(|json| summary(json, agent))));
    Ok(Response::json(object(|json| {
        json.raw("agents", &agents);
    })))
}

pub(super) fn show(shared: &Shared, request: &Request<'_>, name: &str) -> Result<Response, Problem> {
    request.wants_json()?;
    let agents = shared.runtime.agents();
    let Some(info) = agents.iter().find(|agent| agent.name == name) else {
        return Err(Problem::new(problem::NOT_FOUND, format!("no agent {name:?}")));
    };
    Ok(Response::json(object(|json| {
        summary(json, info);
        // One that cannot be used has none: its files are wrong.
        if let Ok(agent) = shared.runtime.agent(name) {
            json.raw("spec", &spec(&agent));
        }
    })))
}

fn summary(json: &mut ObjectWriter<'_>, agent: &AgentInfo) {
    json.str("name", &agent.name).str("description", &agent.description);
    json.str("model", &agent.model).str("provider", &agent.provider);
    json.raw("tools", &texts(&agent.tools)).str_opt("error", agent.error.as_deref());
}

/// What is in force, in the words of `agent.yaml`.
fn spec(agent: &Agent) -> String {
    let (rules, about) = (&agent.rules, &agent.about);
    object(|json| {
        json.str_opt("version", about.version.as_deref()).raw("labels", &labels(&about.labels));
        let model = object(|json| {
            json.str("provider", &rules.model.provider).str("name", &rules.model.name);
            if let Some(temperature) = agent.endpoint.temperature {
                json.raw("temperature", &temperature.to_string());
            }
            u64_opt(json, "max_output_tokens", agent.endpoint.max_output_tokens);
            json.u64("context_tokens", rules.model.context_tokens).str_opt("base_url", about.base_url.as_deref());
        });
        json.raw("model", &model).str("system_prompt", &agent.system);
        json.bool("agents_md", about.agents_md).raw("skills", &texts(&about.skills));
        let session = object(|json| {
            json.str("on_disconnect", if agent.pause_on_disconnect { "pause" } else { "continue" });
            json.u64("max_tool_iterations", rules.limits.steps_max);
        });
        json.raw("session", &session);
        if let Workdir::Shared(path) = &agent.workdir {
            json.str("workdir", &path.to_string_lossy());
        }
        let tags = object(|json| {
            for tool in &rules.tools {
                json.raw(&tool.name, &array(tool.tags.words().map(string)));
            }
        });
        json.raw("tags", &tags);
        let wall = agent.tool_time_max.map(|time| time.as_secs());
        let output = agent.output_bytes_max.map(|bytes| bytes as u64);
        json.raw("sandbox", &sandbox(&rules.sandbox, about, wall, output));
    })
}

/// What the tools may do. Behind no wall only what the runtime itself sees to.
fn sandbox(report: &SandboxReport, about: &About, wall_seconds: Option<u64>, output_bytes: Option<u64>) -> String {
    let policy = &about.policy;
    let walled = !matches!(report.backend.as_str(), "trust" | "none");
    let limits = object(|json| {
        if walled {
            let l = &policy.limits;
            json.u64("cpu_seconds", l.cpu_seconds).u64("memory_bytes", l.memory_bytes).u64("processes", l.processes);
            json.u64("file_bytes", l.file_bytes).u64("open_files", l.open_files).u64("tmp_bytes", l.tmp_bytes);
        }
        u64_opt(json, "wall_seconds", wall_seconds);
        u64_opt(json, "output_bytes", output_bytes);
    });
    object(|json| {
        json.str("backend", &report.backend).str("enforcement", &report.enforcement);
        u64_opt(json, "landlock_abi", report.landlock_abi);
        if walled {
            json.raw("read", &paths(&policy.read)).raw("write", &paths(&policy.write));
            match &policy.network {
                Network::None => json.str("network", "none"),
                Network::Loopback => json.str("network", "loopback"),
                Network::All => json.str("network", "all"),
                Network::Hosts(hosts) => json.raw("network", &array(hosts.iter().map(|host| string(&endpoint(host))))),
            };
        }
        json.raw("env", &texts(&about.env)).raw("limits", &limits);
    })
}

fn endpoint(Endpoint { host, port }: &Endpoint) -> String {
    let (open, close) = if host.contains(':') { ("[", "]:") } else { ("", ":") };
    [open, host, close, &port.to_string()].concat()
}

fn labels(labels: &[(String, String)]) -> String {
    let mut out = String::from("{");
    for (key, value) in labels {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&string(key));
        out.push(':');
        out.push_str(&string(value));
    }
    out.push('}');
    out
}

fn texts(list: &[String]) -> String {
    array(list.iter().map(|text| string(text)))
}

fn paths(list: &[PathBuf]) -> String {
    array(list.iter().map(|path| string(&path.to_string_lossy())))
}

fn u64_opt(json: &mut ObjectWriter<'_>, key: &str, value: Option<u64>) {
    if let Some(value) = value {
        json.u64(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Network, sandbox};
    use crate::session::About;
    use duragent_core::event::SandboxReport;
    use duragent_platform::sandbox::Policy;

    #[test]
    fn a_sandbox_tells_what_it_keeps_to_and_no_more() {
        let host = |host: &str, port| Endpoint { host: host.into(), port };
        let mut about = About { env: vec!["PATH".into()], ..About::default() };
        about.policy = Policy { read: vec!["/srv/\"a\"".into()], hidden: vec!["/secret".into()], ..Policy::default() };
        let shown = |about: &About, backend: &str, abi| {
            let report = SandboxReport { backend: backend.into(), enforcement: "full".into(), landlock_abi: abi };
            sandbox(&report, about, Some(5), None)
        };
        let networks = [
            (Network::None, r#""none""#),
            (Network::Loopback, r#""loopback""#),
            (Network::All, r#""all""#),
            (Network::Hosts(vec![host("*.a.example", 443), host("::1", 80)]), r#"["*.a.example:443","[::1]:80"]"#),
        ];
        for (network, expected) in networks {
            about.policy.network = network;
            let found = shown(&about, "landlock", Some(7));
            let start = r#"{"backend":"landlock","enforcement":"full","landlock_abi":7,"read":["/srv/\"a\""],"write":[],"network":"#;
            assert!(
                found.starts_with(&[start, expected, r#","env":["PATH"],"limits":{"cpu_seconds":"#].concat()),
                "{found}"
            );
            assert!(found.ends_with(r#","wall_seconds":5}}"#) && !found.contains("secret"), "{found}");
        }
        let trusted = r#"{"backend":"trust","enforcement":"full","env":["PATH"],"limits":{"wall_seconds":5}}"#;
        assert_eq!(shown(&about, "trust", None), trusted);
    }
}
