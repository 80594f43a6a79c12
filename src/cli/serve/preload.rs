//! Has the agents' models loaded before somebody asks: on a small board that takes minutes.
//!
//! Absent: the models they fall back to. Two on one board would drive each other out of memory.

use crate::provider::Provider;
use crate::session::Agents;
use duragent_platform::cancel::Cancel;
use duragent_platform::log;
use std::sync::Arc;
use std::time::Instant;

/// A model, and where it is loaded.
pub struct Wanted {
    provider: Arc<dyn Provider>,
    model: String,
    context_tokens: u64,
}

/// The agents' own models, each once.
pub fn models(agents: &Agents) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for agent in &agents.good {
        let (provider, model) = (&agent.endpoint.provider, &agent.rules.model);
        if !all.iter().any(|known| Arc::ptr_eq(&known.provider, provider) && known.model == model.name) {
            let (provider, context_tokens) = (Arc::clone(provider), model.context_tokens);
            all.push(Wanted { provider, model: model.name.clone(), context_tokens });
        }
    }
    all
}

/// Loads them one after the other, in the background; those whose provider is not told to are passed over.
pub fn start(models: Vec<Wanted>) {
    let load = move || {
        for Wanted { provider, model, context_tokens } in models {
            let start = Instant::now();
            match provider.preload(&model, context_tokens, &Cancel::new()) {
                None => {}
                Some(Ok(())) => log::info(&format!("loaded {model} in {} s", start.elapsed().as_secs())),
                Some(Err(failure)) => log::warn(&["cannot load ", &model, ": ", &failure.detail].concat()),
            }
        }
    };
    // Without the thread the first question loads the model.
    if let Err(error) = std::thread::Builder::new().name("preload".into()).spawn(load) {
        log::warn(&format!("no thread to load models in: {error}"));
    }
}
