//! `capex init`: writes a configuration file and the seed of the wallet. The identity is made at
//! the first `capex up`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::file_out;
use super::output::{Page, typed};
use super::places::Places;
use super::seed::{self, Restored, make_private_dir};
use super::time::Moment;
use crate::definitions;
use crate::node::config::{self, ChainConfig, Config, ConfigError, First, Overrides};
use crate::store::{Password, SEED_FILE};
use capex_core::reason;

/// Flags of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex init --network devnet --datadir /tmp/a
  capex init --network signet --chain-url http://127.0.0.1:38332

Next: capex up")]
pub struct Flags {
    #[command(flatten)]
    pub places: Places,
    /// File with the words of a wallet to restore, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    pub restore_words: Option<PathBuf>,
    /// When the words were made, so that no older chain block is read
    #[arg(long, value_name = "TIME", requires = "restore_words")]
    pub birthday: Option<Moment>,
    /// Seal the seed with the password in this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Serialize)]
struct Made {
    config: PathBuf,
    datadir: PathBuf,
    network: String,
    chain_url: String,
    chain_cookie: PathBuf,
    /// Flags that the next commands need too.
    #[serde(skip)]
    named: String,
}

/// Writes the file, unless there is one.
///
/// # Errors
/// There is one, or a value is wrong; nothing is written then.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let overrides = flags.places.over(Overrides {
        // Read nothing: what is written must not depend on the file that it replaces.
        config: Some(PathBuf::from("/dev/null")),
        ..context.overrides()
    });
    let (path, _) = config::file_path(&context.overrides(), context.env)?;
    let checked = match Config::load(&overrides, context.env) {
        Err(ConfigError::MainnetRefused { .. }) => return Err(no_mainnet(&path)),
        other => other?,
    };
    let chain = named_chain(&flags.places, &checked);
    let password = flags.password_file.as_deref().map(Password::read).transpose()?;
    let definition = context.global.definition.as_deref().map(std::path::absolute);
    let definition =
        definition.and_then(Result::ok).map(|path| path.to_string_lossy().into_owned());
    let text = First {
        network: &checked.params.name,
        definition: definition.as_deref(),
        chain,
        api: flags.places.api_listen.as_deref(),
        peers: &flags.places.peer,
        ..First::default()
    }
    .text();
    let restored = flags.restore_words.as_ref();
    let restored =
        restored.map(|words| Restored { words: words.clone(), birthday: flags.birthday });
    let seed_file = checked.datadir.join(SEED_FILE);
    let seed = seed::made(&seed_file, restored.as_ref())?;
    write_new(&path, &text, flags.force)?;
    if let Some(seed) = seed {
        seed::put(&seed, &seed_file, password.as_ref())?;
    }
    let named = [
        ("--datadir", context.global.datadir.as_deref()),
        ("--config", context.global.config.as_deref()),
        ("--password-file", flags.password_file.as_deref()),
    ];
    let named = named.into_iter().filter_map(|(flag, path)| Some((flag, path?)));
    let named = named.map(|(flag, path)| format!(" {flag} {}", typed(path))).collect();
    let made = Made {
        config: path,
        datadir: checked.datadir,
        network: checked.params.name,
        chain_url: checked.chain.url,
        chain_cookie: checked.chain.cookie,
        named,
    };
    context.show(&made, page)
}

fn page(made: &Made, page: &mut Page) {
    page.field("config", made.config.display())
        .field("datadir", made.datadir.display())
        .field("network", &made.network)
        .field("chain", &made.chain_url)
        .field("chain cookie", made.chain_cookie.display())
        .line(format_args!(
            "The seed of the wallet is made: write its words down (capex wallet words{}).",
            made.named
        ))
        .line(format_args!("Next: capex up{}", made.named));
}

fn no_mainnet(path: &Path) -> Failure {
    let message = "mainnet is never configured by a command: write the file yourself";
    Failure::new(reason!("config.mainnet_refused"), message)
        .with_hint(format!("network = \"mainnet\" and allow_mainnet = true in {}", path.display()))
}

/// A source that was named, or the devchain: others follow Bitcoin Core's defaults.
fn named_chain(places: &Places, checked: &Config) -> Option<ChainConfig> {
    let named = places.chain_url.is_some() || places.chain_cookie.is_some();
    (named || checked.params.name == definitions::DEVNET).then(|| ChainConfig {
        url: checked.chain.url.clone(),
        // In the file, a relative path would begin where the file is.
        cookie: std::path::absolute(&checked.chain.cookie)
            .unwrap_or_else(|_| checked.chain.cookie.clone()),
    })
}

/// Writes a configuration, unless one is there.
pub(super) fn write_new(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        make_private_dir(dir)?;
    }
    file_out::write(path, text.as_bytes(), force).map_err(|failure| {
        if failure.code == reason!("file.exists").code() {
            let message = format!("{} exists", path.display());
            return Failure::new(reason!("init.exists"), message).with_hint("--force replaces it");
        }
        failure
    })
}
