//! `capex config path|show`.

use serde::Serialize;
use std::collections::BTreeMap;

use super::Context;
use super::failure::Failure;
use crate::node::config::{Config, file_path};

/// What about the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Print the path of the configuration file
    #[command(after_help = "Examples:
  capex config path
  capex config path --datadir /tmp/a

Next: capex config show")]
    Path,
    /// Print every setting and where its value came from
    #[command(after_help = "Examples:
  capex config show
  CAPEX_NETWORK=devnet capex config show --json

Next: capex up")]
    Show,
}

#[derive(Serialize)]
struct Shown {
    setting: &'static str,
    value: serde_json::Value,
    origin: String,
}

/// Runs it.
///
/// # Errors
/// A mistake in the configuration, with its place.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Path => {
            let (path, _) = file_path(&context.overrides(), context.env)?;
            context.show(&BTreeMap::from([("path", path)]), |shown, page| {
                for path in shown.values() {
                    page.line(path.display());
                }
            })
        }
        Noun::Show => {
            let settings = settings(&context.config()?);
            context.show(&settings, |settings, page| {
                let row = |shown: &Shown| {
                    [shown.setting.to_owned(), shown.value.to_string(), shown.origin.clone()]
                };
                page.table(["setting", "value", "from"], settings.iter().map(row), "");
            })
        }
    }
}

fn settings(config: &Config) -> Vec<Shown> {
    let named: BTreeMap<&str, u32> = config
        .capacity
        .iter()
        .filter_map(|(class, units)| Some((config.params.class(*class)?.name.as_str(), *units)))
        .collect();
    let value = |setting: &str| match setting {
        "network" => config.params.name.clone().into(),
        "datadir" => config.datadir.to_string_lossy().into(),
        "chain.url" => config.chain.url.clone().into(),
        "chain.cookie" => config.chain.cookie.to_string_lossy().into(),
        "p2p.listen" => config.p2p.listen.clone().into(),
        "p2p.peers" => config.p2p.peers.clone().into(),
        "api.listen" => config.api.listen.to_string().into(),
        "wallet.payout" => config.wallet.payout.as_ref().map(ToString::to_string).into(),
        "wallet.descriptor" => config.wallet.watched.as_ref().map(ToString::to_string).into(),
        "backup.path" => config.backup.path.as_ref().map(|path| path.to_string_lossy()).into(),
        "backup.password_file" => {
            config.backup.password_file.as_ref().map(|path| path.to_string_lossy()).into()
        }
        "wallet.password_file" => {
            config.wallet.password_file.as_ref().map(|path| path.to_string_lossy()).into()
        }
        "capacity" => serde_json::json!(named),
        "max_fee_share" => format!("{}%", config.max_fee_percent).into(),
        "log" => config.log.clone().into(),
        _ => serde_json::Value::Null,
    };
    let shown = |(setting, origin): (&&'static str, &crate::node::config::layers::Origin)| Shown {
        setting,
        value: value(setting),
        origin: origin.to_string(),
    };
    config.origins.iter().map(shown).collect()
}
