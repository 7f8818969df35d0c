//! A chain, five nodes on it, coins for all, and everyone connected.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::broken::Broken;
use super::node::Node;
use super::plan::{Role, Seat};
use super::story::list;
use super::wait::{Awaited, Look};
use super::{ChainKind, Run};
use crate::api::endpoints;
use crate::api::types::{FundWallet, Funded};
use crate::cli::failure::Failure;
use crate::cli::output::sat;
use crate::node::config::dirs::{CONFIG_FILE, chain_cookie};
use capex_core::reason;

/// Time between chain blocks, as the devnet's definition has it.
const BLOCK_EVERY: &str = "500ms";
/// File in which a devchain says where it listens.
const DEVCHAIN_ADDR: &str = "devchain.addr";
/// Filter of the nodes' logs.
const LOG: &str = "info,capex=debug";
/// Loopback, any free port, both transports.
const LISTEN: [&str; 2] = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];

/// A real Bitcoin Core needs some seconds.
const CHAIN_TIME: Duration = Duration::from_secs(60);
const NODE_TIME: Duration = Duration::from_secs(30);
const PEERS_TIME: Duration = Duration::from_secs(30);
const FUNDS_TIME: Duration = Duration::from_secs(30);

/// What a node needs to know of the chain.
struct Chain {
    url: String,
    cookie: PathBuf,
}

/// The configuration file of a node.
#[derive(Serialize)]
struct File<'a> {
    network: &'a str,
    log: &'a str,
    chain: ChainFile<'a>,
    p2p: P2pFile<'a>,
    api: ApiFile<'a>,
    capacity: BTreeMap<&'a str, u32>,
}

#[derive(Serialize)]
struct ChainFile<'a> {
    url: &'a str,
    cookie: &'a str,
}

#[derive(Serialize)]
struct P2pFile<'a> {
    listen: &'a [&'a str],
    peers: &'a [String],
}

#[derive(Serialize)]
struct ApiFile<'a> {
    listen: &'a str,
}

impl Run<'_> {
    /// Starts everything.
    ///
    /// # Errors
    /// What did not start, or did not find the others.
    pub(super) fn set_up(&mut self) -> Result<(), Broken> {
        let chain = self.start_chain()?;
        self.start_nodes(&chain)?;
        self.connect()?;
        self.fund()
    }

    fn start_chain(&mut self) -> Result<Chain, Broken> {
        let name = self.chain.name();
        let (dir, log) = (self.home.dir(name), self.home.log(name));
        let args = ["devchain", "--exit-on-stdin-eof", "--listen", "127.0.0.1:0", "--block-every"];
        let mut args: Vec<&OsStr> =
            args.into_iter().chain([BLOCK_EVERY, "--dir"]).map(OsStr::new).collect();
        args.push(dir.as_os_str());
        if self.chain == ChainKind::Bitcoind {
            args.push(OsStr::new("--bitcoind"));
        }
        self.fleet.start(name, &log, &args)?;
        let file = dir.join(DEVCHAIN_ADDR);
        let awaited = Awaited { what: "its address", from: name, limit: CHAIN_TIME };
        let addr = self.wait(awaited, || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            // A line that ends is a line that is whole.
            Ok(Look::some(text.strip_suffix('\n').map(str::to_owned), || {
                "not listening yet".into()
            }))
        })?;
        let chain = Chain { url: format!("http://{addr}"), cookie: chain_cookie(&dir) };
        let what = match self.chain {
            ChainKind::Devchain => "a bitcoin chain of its own",
            ChainKind::Bitcoind => "the regtest of a real Bitcoin Core",
        };
        let rest = match self.chain {
            ChainKind::Devchain => "; no bitcoind",
            ChainKind::Bitcoind => "",
        };
        self.story.tell(format_args!("{what} at {}, a block each half second{rest}", chain.url))?;
        Ok(chain)
    }

    /// The first provider, whose addresses the others need; then these, all at once.
    fn start_nodes(&mut self, chain: &Chain) -> Result<(), Broken> {
        let seats = self.plan.seats.clone();
        let Some((first, others)) = seats.split_first() else {
            return Ok(());
        };
        self.start_node(first, chain, &[])?;
        let peers = self.addresses(first)?;
        for seat in others {
            self.start_node(seat, chain, &peers)?;
        }
        for seat in &seats {
            self.addresses(seat)?;
            let dir = self.home.dir(seat.name);
            let awaited = Awaited { what: "an answer", from: seat.name, limit: NODE_TIME };
            let node = self.wait(awaited, || Ok(Look::Found(Node::open(seat, &dir)?)))?;
            self.nodes.push(node);
        }
        Ok(())
    }

    fn start_node(&self, seat: &Seat, chain: &Chain, peers: &[String]) -> Result<(), Broken> {
        let secret = |purpose: &str| self.plan.secret(seat.name, purpose);
        let container = &self.plan.container;
        let is_host = matches!(self.container, Some(Ok(_)))
            && self.plan.seats.get(container.seller).is_some_and(|host| host.name == seat.name);
        let capacity = seat.capacity.into_iter();
        let capacity = capacity.chain(is_host.then_some((container.class, container.units)));
        let files = [
            (CONFIG_FILE, config_file(capacity.collect(), chain, peers)?),
            ("identity.key", secret("identity")),
            ("wallet.seed", self.plan.seed_file(seat.name)),
        ];
        let dir = self.home.write(seat.name, &files)?;
        let args = ["--network", "devnet", "--datadir"].map(OsStr::new);
        let rest = ["up", "--exit-on-stdin-eof"].map(OsStr::new);
        let args: Vec<&OsStr> = args.into_iter().chain([dir.as_os_str()]).chain(rest).collect();
        self.fleet.start(seat.name, &self.home.log(seat.name), &args)
    }

    /// Where a node listens, once it does on every transport.
    fn addresses(&self, seat: &Seat) -> Result<Vec<String>, Broken> {
        let dir = self.home.dir(seat.name);
        let awaited = Awaited { what: "its addresses", from: seat.name, limit: NODE_TIME };
        self.wait(awaited, || {
            let found = endpoints::read(&dir).map(|found| found.p2p).unwrap_or_default();
            let listening = found.len();
            let enough = (listening >= LISTEN.len()).then_some(found);
            Ok(Look::some(enough, || format!("it listens on {listening} addresses")))
        })
    }

    fn connect(&self) -> Result<(), Broken> {
        for node in &self.nodes {
            let awaited = Awaited { what: "a peer", from: node.name(), limit: PEERS_TIME };
            self.wait(awaited, || {
                let status = node.status()?;
                Ok(Look::when(status.peers > 0 && status.chain.up, || {
                    format!("{} peers, chain source up: {}", status.peers, status.chain.up)
                }))
            })?;
        }
        Ok(())
    }

    fn fund(&mut self) -> Result<(), Broken> {
        std::thread::scope(|scope| {
            let asked = self.nodes.iter().map(|node| scope.spawn(|| ask_faucet(node)));
            let asked: Vec<_> = asked.collect();
            asked.into_iter().try_for_each(|asked| {
                let panicked = |_| Broken::new(reason!("devnet.thread"), "a thread panicked");
                asked.join().map_err(panicked)?
            })
        })?;
        let mut total_sat = 0;
        for node in &self.nodes {
            let awaited = Awaited { what: "its coins", from: node.name(), limit: FUNDS_TIME };
            let wanted_sat = node.seat.funds_sat;
            self.wait(awaited, || {
                let wallet = node.status()?.wallet;
                let is_there = wallet.confirmed_sat >= wanted_sat && wallet.pending_sat == 0;
                Ok(Look::when(is_there, || {
                    format!(
                        "{} confirmed, {} pending",
                        sat(wallet.confirmed_sat),
                        sat(wallet.pending_sat)
                    )
                }))
            })?;
            total_sat += wanted_sat;
        }
        self.note_balances()?;
        let of = |role: Role| {
            let names = self.nodes.iter().filter(|node| node.seat.role == role).map(Node::name);
            list(&names.collect::<Vec<_>>())
        };
        self.story.tell(format_args!(
            "{} nodes, each with its own keys, store, swarm on QUIC and TCP, and coins, {} in all: \
             {} sell, {} buy, {} looks on",
            self.nodes.len(),
            sat(total_sat),
            of(Role::Provider),
            of(Role::Buyer),
            of(Role::Bystander),
        ))
    }
}

fn ask_faucet(node: &Node) -> Result<(), Broken> {
    let body = FundWallet { amount_sat: node.seat.funds_sat };
    let _: Funded = node.post("/wallet/fund", &body)?;
    Ok(())
}

fn config_file(
    capacity: BTreeMap<&str, u32>,
    chain: &Chain,
    peers: &[String],
) -> Result<String, Failure> {
    let file = File {
        network: "devnet",
        log: LOG,
        chain: ChainFile { url: &chain.url, cookie: &chain.cookie.to_string_lossy() },
        p2p: P2pFile { listen: &LISTEN, peers },
        api: ApiFile { listen: "127.0.0.1:0" },
        capacity,
    };
    toml::to_string(&file)
        .map_err(|error| Failure::new(reason!("devnet.config"), error.to_string()))
}
