//! `capex join`: from an invitation to a running node of that network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::devnet::story::count;
use super::failure::Failure;
use super::init::write_new;
use super::places::Places;
use super::seed::{self, make_private_dir};
use super::up::{self, Running};
use super::{Context, pasted};
use crate::api::types::Status;
use crate::clock::now_ms;
use crate::definitions::{self, Definition};
use crate::invite::{Invite, SharedChain};
use crate::node::config::{self, ChainConfig, Config, First, Overrides, dirs};
use crate::node::newcomer;
use crate::store::{SEED_FILE, replace_private};
use capex_core::reason;

/// Name of the file with the token of a chain that somebody serves, in the data directory.
const TOKEN_FILE: &str = "chain-token";
/// Between two looks at the node that starts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Flags of `join`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex join \"$INVITATION\"
  capex join \"$INVITATION\" --datadir /tmp/b --no-start --json

Next: capex wallet fund    where the network has a faucet")]
pub struct Flags {
    /// The line that `capex invite` or `capex testnet host` printed
    #[arg(value_name = "INVITATION")]
    pub invitation: String,
    #[command(flatten)]
    pub places: Places,
    /// Multiaddr to listen on
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Write the configuration, and leave the start to `capex up`
    #[arg(long)]
    pub no_start: bool,
    /// Filter of the log, such as info,capex=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Stop when standard input ends, so that the process does not outlive its parent
    #[arg(long, hide = true)]
    pub exit_on_stdin_eof: bool,
}

/// What was set up.
#[derive(Debug, Serialize)]
struct Prepared {
    network: String,
    config: PathBuf,
    datadir: PathBuf,
    chain_url: String,
    /// Whether the configuration was there already.
    known: bool,
}

/// The node has come into the network.
#[derive(Debug, Serialize)]
struct Joined {
    network: String,
    key: String,
    api: String,
    datadir: String,
    peers: u32,
    orders_seen: u64,
    chain_height: u32,
    /// Whether the network's coins come from a faucet.
    has_faucet: bool,
}

/// Sets up what is missing, then runs the node until interrupted.
///
/// # Errors
/// The invitation, its definition, a configuration of another network, or what stopped the node.
/// Nothing is written before the definition is known.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let invite = Invite::read(pasted(&flags.invitation), now_ms() / 1000)
        .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
    let runtime = up::runtime()?;
    let definition = runtime
        .block_on(newcomer::definition(&invite))
        .map_err(|error| Failure::new(error.reason(), error.to_string()))?;
    if definition.params.chain.network == bitcoin::Network::Bitcoin {
        let message = "an invitation never leads to where coins are real";
        return Err(Failure::new(reason!("config.mainnet_refused"), message));
    }
    let (config, known) = prepared(flags, &invite, &definition, context)?;
    if flags.no_start {
        let prepared = Prepared {
            network: config.params.name.clone(),
            config: config.file.clone(),
            datadir: config.datadir.clone(),
            chain_url: config.chain.url.clone(),
            known,
        };
        return context.show(&prepared, |prepared, page| {
            page.field("network", &prepared.network)
                .field("config", prepared.config.display())
                .field("datadir", prepared.datadir.display())
                .field("chain", &prepared.chain_url)
                .next("up");
        });
    }
    let has_faucet = config.params.chain.network == bitcoin::Network::Regtest;
    let datadir = config.datadir.clone();
    up::run_in(runtime, config, flags.exit_on_stdin_eof, context, async move {
        Ok(Running { shown: joined(&datadir, has_faucet).await, page })
    })
}

/// The configuration of the data directory, made if there is none, with the peers of the
/// invitation; and whether it was there.
fn prepared(
    flags: &Flags,
    invite: &Invite,
    definition: &Definition,
    context: &Context<'_>,
) -> Result<(Config, bool), Failure> {
    let named = context.overrides();
    let (path, _) = config::file_path(&named, context.env)?;
    let known = path.exists();
    if !known {
        write(flags, invite, definition, &path, context)?;
    }
    let run = flags.places.over(Overrides {
        listen: flags.listen.clone(),
        log: flags.log.clone(),
        ..named.clone()
    });
    let config = Config::load(&run, context.env)?;
    if definitions::hash(config.definition.as_bytes()) != invite.definition {
        let message = format!(
            "{} is of network `{}`, the invitation is for `{}`",
            path.display(),
            config.params.name,
            invite.network
        );
        return Err(Failure::new(reason!("join.other_network"), message));
    }
    let mut config = config;
    for peer in &invite.peers {
        if !config.p2p.peers.contains(peer) {
            config.p2p.peers.push(peer.clone());
        }
    }
    Ok((config, known))
}

fn write(
    flags: &Flags,
    invite: &Invite,
    definition: &Definition,
    path: &Path,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let name = &definition.params.name;
    let datadir = config::datadir_named(&context.overrides(), context.env)?.map(|dir| dir.value);
    let datadir = datadir
        .or_else(|| dirs::data(context.env, name))
        .ok_or_else(|| Failure::new(reason!("config.no_home"), "no home directory"))?;
    let place = path.parent().unwrap_or(Path::new(""));
    make_private_dir(place)?;
    make_private_dir(&datadir)?;
    let file = format!("{name}.toml");
    let is_shipped = Definition::shipped(name).is_ok();
    if !is_shipped {
        let path = place.join(&file);
        replace_private(&path, &definition.text)?;
    }
    let chain = invite.chain.as_ref().map(|chain| chain_of(chain, &datadir)).transpose()?;
    let text = First {
        network: name,
        definition: (!is_shipped).then_some(file.as_str()),
        chain: named_chain(&flags.places).or(chain),
        api: flags.places.api_listen.as_deref(),
        listen: &flags.listen,
        peers: &invite.peers,
        ..First::default()
    }
    .text();
    let seed_file = datadir.join(SEED_FILE);
    if let Some(seed) = seed::made(&seed_file, None)? {
        seed::put(&seed, &seed_file, None)?;
    }
    // Last, since it says that all is there.
    write_new(path, &text, false)
}

/// The chain that somebody serves, with its token in a file.
fn chain_of(chain: &SharedChain, datadir: &Path) -> Result<ChainConfig, Failure> {
    let cookie = std::path::absolute(datadir.join(TOKEN_FILE))
        .map_err(|error| Failure::file(datadir, &error))?;
    replace_private(&cookie, &chain.token)?;
    Ok(ChainConfig { url: chain.url.clone(), cookie })
}

fn named_chain(places: &Places) -> Option<ChainConfig> {
    let (url, cookie) = (places.chain_url.clone()?, places.chain_cookie.clone()?);
    Some(ChainConfig { url, cookie: std::path::absolute(&cookie).unwrap_or(cookie) })
}

/// Waits until the node has a peer and its chain.
async fn joined(datadir: &Path, has_faucet: bool) -> Joined {
    loop {
        let datadir = datadir.to_owned();
        let asked = tokio::task::spawn_blocking(move || Client::open(&datadir)?.status()).await;
        if let Ok(Ok(status)) = asked
            && status.peers > 0
            && status.chain.up
        {
            return of(status, has_faucet);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn of(status: Status, has_faucet: bool) -> Joined {
    Joined {
        network: status.network,
        key: status.key,
        api: status.api,
        datadir: status.datadir,
        peers: status.peers,
        orders_seen: status.orders_seen,
        chain_height: status.chain.height,
        has_faucet,
    }
}

fn page(joined: &Joined, page: &mut super::output::Page) {
    page.field("network", &joined.network)
        .field("node", &joined.key)
        .field("api", &joined.api)
        .field("datadir", &joined.datadir)
        .line(format_args!(
            "connected to {}, {} orders heard, chain at height {}",
            count(joined.peers.into(), "peer"),
            joined.orders_seen,
            joined.chain_height
        ))
        .next(if joined.has_faucet { "wallet fund --yes" } else { "wallet address" });
}
