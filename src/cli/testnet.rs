//! `capex testnet host`: a test network of one's own, and what others need to come into it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::hex::DisplayHex;
use tokio::sync::oneshot;

use super::client::Client;
use super::failure::Failure;
use super::init::write_new;
use super::invite::{self, Shown};
use super::seed::{self, make_private_dir};
use super::up::{self, Running};
use super::{Context, wait_ms};
use crate::chain::devchain::server::{ServeError, ServeOptions, serve};
use crate::definitions::{DEVNET, Definition};
use crate::node::config::{self, ChainConfig, Config, First, Overrides, dirs};
use crate::store::{SEED_FILE, replace_private};
use capex_core::reason;

/// Who starts a network, and how it goes on.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Found a network, serve its chain and its first peer, and print the invitation
    #[command(after_help = "Examples:
  capex testnet host
  capex testnet host --name harbour --address 192.0.2.7 --datadir /tmp/harbour

Next: capex join INVITATION    on the other machine")]
    Host(HostFlags),
}

/// Flags of `testnet host`.
#[derive(Debug, clap::Args)]
pub struct HostFlags {
    /// Name of the network
    #[arg(long, default_value = "testnet", value_name = "NAME")]
    pub name: String,
    /// Network whose rules it takes: devnet, with a chain that is served from here, or another,
    /// on whose chain it lives
    #[arg(long, default_value = DEVNET, value_name = "NAME")]
    pub from: String,
    /// Address or name at which others reach this machine [default: that of its way out]
    #[arg(long, value_name = "HOST")]
    pub address: Option<String>,
    /// Port of the first peer, UDP and TCP
    #[arg(long, default_value_t = 7230, value_name = "PORT")]
    pub port: u16,
    /// Port of the chain
    #[arg(long, default_value_t = 7231, value_name = "PORT")]
    pub chain_port: u16,
    /// How long the invitation can be taken
    #[arg(long, default_value = "7d", value_parser = wait_ms, value_name = "TIME")]
    pub good_for: u64,
    /// Filter of the log, such as info,capex=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Stop when standard input ends, so that the process does not outlive its parent
    #[arg(long, hide = true)]
    pub exit_on_stdin_eof: bool,
}

const DEFINITION_FILE: &str = "definition.toml";
const GUEST_FILE: &str = "guest-token";
const CHAIN_DIR: &str = "chain";
/// Between two blocks of the chain that is served.
const BLOCK_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at the node that starts.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs it.
///
/// # Errors
/// The rules, a port that is taken, or what stopped the node.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Host(flags) => host(flags, context),
    }
}

fn host(flags: &HostFlags, context: &mut Context<'_>) -> Result<(), Failure> {
    let datadir = match config::datadir_named(&context.overrides(), context.env)? {
        Some(named) => named.value,
        None => dirs::data(context.env, &flags.name)
            .ok_or_else(|| Failure::new(reason!("config.no_home"), "no home directory"))?,
    };
    let datadir = std::path::absolute(&datadir).map_err(|error| Failure::file(&datadir, &error))?;
    // All that is shown from here on names it.
    context.global.datadir = Some(datadir.clone());
    let address = flags.address.clone().unwrap_or_else(own_address);
    if !datadir.join(dirs::CONFIG_FILE).exists() {
        found(flags, &address, &datadir)?;
    }
    let overrides = Overrides { log: flags.log.clone(), ..context.overrides() };
    let config = Config::load(&overrides, context.env)?;
    let runtime = up::runtime()?;
    let chain = match &config.shared_chain {
        Some(shared) => {
            let guest = invite::token(&shared.cookie)?;
            let (stop, stopped) = oneshot::channel::<()>();
            let options = ServeOptions {
                listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, port_of(&shared.url))),
                block_every: Some(BLOCK_EVERY),
                state_dir: datadir.join(CHAIN_DIR),
                guest: Some(guest),
                shutdown: Box::pin(async move {
                    // A dropped sender means the same: stop.
                    let _ = stopped.await;
                }),
            };
            let failed = |error: ServeError| Failure::coded(error.code(), error.to_string());
            Some((runtime.block_on(serve(options)).map_err(failed)?, stop))
        }
        None => None,
    };
    let addresses = addresses(&address, &config.p2p.listen);
    let good_for = Duration::from_millis(flags.good_for);
    let told = (config.clone(), addresses);
    let served = up::run_in(runtime, config, flags.exit_on_stdin_eof, context, async move {
        Ok(Running { shown: invitation(&told.0, &told.1, good_for).await?, page: invite::page })
    });
    drop(chain);
    served
}

/// Writes the definition and the configuration of the first node.
fn found(flags: &HostFlags, address: &str, datadir: &Path) -> Result<(), Failure> {
    let invalid = |what: String| Failure::new(reason!("testnet.definition"), what);
    let definition = definition(&flags.name, &flags.from).map_err(invalid)?;
    make_private_dir(datadir)?;
    let seed_file = datadir.join(SEED_FILE);
    if let Some(seed) = seed::made(&seed_file, None)? {
        seed::put(&seed, &seed_file, None)?;
    }
    replace_private(&datadir.join(DEFINITION_FILE), &definition.text)?;
    let is_served = flags.from == DEVNET;
    let failed =
        |error: std::io::Error| Failure::new(reason!("devchain.listen"), error.to_string());
    let (port, chain_port) =
        (free(flags.port).map_err(failed)?, free(flags.chain_port).map_err(failed)?);
    let (chain, shared_chain) = match is_served {
        true => {
            let token = datadir.join(GUEST_FILE);
            replace_private(&token, guest()?)?;
            let url = |host: &str| format!("http://{host}:{chain_port}");
            let cookie = dirs::chain_cookie(&datadir.join(CHAIN_DIR));
            let own = ChainConfig { url: url("127.0.0.1"), cookie };
            (Some(own), Some(ChainConfig { url: url(address), cookie: token }))
        }
        false => (None, None),
    };
    let text = First {
        network: &definition.params.name,
        definition: Some(DEFINITION_FILE),
        chain,
        shared_chain,
        listen: &[format!("/ip4/0.0.0.0/udp/{port}/quic-v1"), format!("/ip4/0.0.0.0/tcp/{port}")],
        ..First::default()
    }
    .text();
    // Last, since it says that all is there.
    write_new(&datadir.join(dirs::CONFIG_FILE), &text, false)
}

/// The port, or a free one for 0, which stays in the configuration.
fn free(port: u16) -> std::io::Result<u16> {
    if port != 0 {
        return Ok(port);
    }
    Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

/// A network of the same rules, with a name and a magic of its own.
fn definition(name: &str, from: &str) -> Result<Definition, String> {
    let shipped = Definition::shipped(from)?;
    if shipped.params.chain.network == bitcoin::Network::Bitcoin {
        return Err("a test network does not live on a chain whose coins are real".to_owned());
    }
    let mut table: toml::Table =
        toml::from_str(&shipped.text).map_err(|error| error.to_string())?;
    let mut magic = [0_u8; 4];
    getrandom::fill(&mut magic).map_err(|error| error.to_string())?;
    table.insert("name".into(), name.into());
    table.insert("magic".into(), magic.map(i64::from).to_vec().into());
    table.insert("loopback".into(), false.into());
    table.insert("private".into(), true.into());
    let rules = toml::to_string(&table).map_err(|error| error.to_string())?;
    Definition::of_text(&format!("# The rules of a test network, from those of {from}.\n{rules}"))
}

fn guest() -> Result<String, Failure> {
    let mut secret = [0_u8; 16];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::new(reason!("devchain.random"), error.to_string()))?;
    Ok(format!("guest:{}", secret.to_lower_hex_string()))
}

/// The address of this machine on its way out; nothing is sent to find it.
fn own_address() -> String {
    let outward = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    outward().map_or_else(|_| Ipv4Addr::LOCALHOST.to_string(), |address| address.to_string())
}

/// Where others dial what this node listens at.
fn addresses(host: &str, listen: &[String]) -> Vec<String> {
    let kind = match host.parse() {
        Ok(IpAddr::V4(_)) => "ip4",
        Ok(IpAddr::V6(_)) => "ip6",
        Err(_) => "dns4",
    };
    let named = |addr: &String| addr.replacen("/ip4/0.0.0.0/", &format!("/{kind}/{host}/"), 1);
    listen.iter().map(named).collect()
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
}

/// Waits until the node serves, and makes its invitation.
async fn invitation(
    config: &Config,
    addresses: &[String],
    good_for: Duration,
) -> Result<Shown, Failure> {
    loop {
        let datadir: PathBuf = config.datadir.clone();
        let asked = tokio::task::spawn_blocking(move || Client::open(&datadir)?.status()).await;
        if let Ok(Ok(status)) = asked
            && !status.p2p.is_empty()
        {
            return invite::made(&status, addresses, config, good_for);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
