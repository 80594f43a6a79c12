//! Reads `duragent.yaml`.

use super::budgets;
use super::env::Env;
use super::problem::Problem;
use super::profile::Origins;
use super::read::{self, Problems, Section};
use super::sandbox::{self, Protected};
use super::server;
use super::types::{Config, Limits, Retention};
use super::{profile, providers, proxy};
use std::path::Path;

/// Reads the configuration of the workspace `dir`. Warnings come with the configuration.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn load(dir: &Path, env: Env<'_>) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    const NAME: &str = "duragent.yaml";
    let (mut root, document) = read::document(&dir.join(NAME), NAME).map_err(|mut problem| {
        if problem.line == 0 && problem.message == "no such file" {
            problem.message = format!("no such file in {}; `duragent init` writes one", dir.display());
        }
        vec![problem]
    })?;
    let problems = Problems::new(NAME, &document);
    let variables = sandbox::secret_variables(&root, env);
    read::expand(&mut root, env, &problems);
    let (config, mut of_others) = {
        let top = Section::top(&root, &problems);
        top.keys(
            &[
                "profile",
                "server",
                "providers",
                "proxy",
                "no_proxy",
                "limits",
                "budgets",
                "prices",
                "prices_file",
                "sandbox",
                "log",
                "retention",
            ],
            &["gateways", "routes", "schedules", "sessions", "services", "world_memory", "workspace", "agents_dir"],
        );
        let mut of_others = profile::choose(&top, dir, env);
        let profile = problems.profile.get();
        let server = server::read(&top, dir);
        let outward = proxy::read(&top, env, None);
        let limits = limits(&top);
        let providers = providers::read(&top, dir, env, &outward, &limits);
        let log = super::log::read(&top, dir);
        let retention = retention(&top);
        let budgets = budgets::read(&top, true);
        let (prices, of_prices) = budgets::prices(&top, dir, &providers);
        of_others.extend(of_prices);
        let files = profile.and_then(|profile| profile.path.clone()).into_iter().collect();
        let protected = Protected::new(dir, &root, variables, files, &server, &providers);
        let reader = sandbox::Reader {
            folder: &sandbox::folder(dir),
            protected: &protected,
            device: &limits,
            server: &server,
            is_secret: &|name| protected.is_secret(name, env, &server, &providers),
        };
        let sandbox = reader.workspace(&top, profile);
        let origins = Origins { profile: profile.cloned(), written: problems.written.take() };
        let config = sandbox.map(|sandbox| Config {
            server,
            providers,
            outward,
            limits,
            sandbox,
            log,
            retention,
            budgets,
            prices,
            origins,
        });
        (config, of_others)
    };
    let mut list = problems.finish();
    list.append(&mut of_others);
    match config {
        Some(config) if !super::problem::has_errors(&list) => Ok((config, list)),
        _ => Err(list),
    }
}

fn limits(top: &Section<'_>) -> Limits {
    let section = top.section_or_empty("limits");
    let known: Vec<&str> = Limits::TABLE.iter().map(|(name, ..)| *name).collect();
    section.keys(&known, &[]);
    Limits::from_fn(|name, range, default| section.int(name, range, default))
}

fn retention(top: &Section<'_>) -> Retention {
    let section = top.section_or_empty("retention");
    let known: Vec<&str> = Retention::TABLE.iter().map(|(name, ..)| *name).collect();
    section.keys(&known, &[]);
    Retention::from_fn(|name, range, default| section.int(name, range, default))
}
