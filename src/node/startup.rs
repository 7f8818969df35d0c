//! Opens everything, in this order: directory and lock, keys, engine from its records, then
//! chain, network and API. What is opened last is closed first.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use capex_network::limits::STREAM_QUEUE;
use capex_network::{
    Command as NetCommand, InboundStream, PeerKey, ProtocolConfig, Secret, StreamConfig,
    TopicConfig,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::access;
use super::beside::Beside;
use super::chain_task::{ChainHandle, ChainTasks};
use super::config::{Config, PayoutTo};
use super::host::heed_self_tests;
use super::lease_client::HeldFiles;
use super::lease_host::LeaseHost;
use super::owner::{Owner, OwnerError};
use super::peers::Peers;
use super::presence::Presence;
use super::shell::Outside;
use super::verify::Verifier;
use super::{ChainStatus, Node, NodeError, Sources, chain_task};
use crate::api::endpoints::EndpointsFile;
use crate::api::types::Endpoints;
use crate::api::{self, ApiHandle, ApiState, CookieFile};
use crate::backup::{Backup, Keeper};
use crate::chain::rpc::{RpcClient, RpcConfig, RpcSource};
use crate::clock::now_ms;
use crate::definitions;
use crate::driver::{Driver, PayTo, START_COMMAND};
use crate::executor::inventory;
use crate::executor::pulls::{Patience, Pulls};
use crate::executor::{EVENT_QUEUE, LeaseEvent, Manager};
use crate::sealed::Opener;
use crate::store::{self, IDENTITY_FILE, Meta, Password, SEED_FILE, Store, load_or_create_secret};
use crate::wallet::{self, RESTORE_GAP, Wallet, WalletError};
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::{Engine, Input, Keys, Protocol, Record, Topic};
use capex_core::limits::{LEASE_MAX_BYTES, SETTLE_MAX_BYTES, SYNC_MAX_BYTES};

/// Messages between the loop and its tasks. Each holds a frame of at most 1 MiB; a fuller
/// queue only means that the loop is stuck.
const QUEUE: usize = 1024;
/// How often the chain source is asked, as a part of the time between chain blocks.
const POLLS_PER_BLOCK: u32 = 5;
/// A public chain is asked at least this often, so that the mempool is seen.
const POLL_EVERY_MAX: Duration = Duration::from_secs(5);

/// How long a call to the chain source may take, in chain blocks, and within which bounds: what
/// it says of a tip is old after that time.
const PATIENCE_BLOCKS: u32 = 10;
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(20);

fn at<T>(what: impl Into<String>, result: std::io::Result<T>) -> Result<T, NodeError> {
    result.map_err(|source| NodeError::Io { what: what.into(), source })
}

/// Secrets and durable state of a data directory.
pub(super) struct Opened {
    store: Arc<Store>,
    records: Vec<Record>,
    /// Random bytes of this life.
    salt: [u8; 32],
    wallet: Wallet,
    /// When the wallet's keys were made, unix seconds, if that is known.
    birthday_s: Option<u64>,
    pub(super) identity: [u8; 32],
    settlement: [u8; 32],
}

/// Takes the lock of the data directory and reads what an earlier life left.
pub(super) fn open_datadir(config: &Config) -> Result<Opened, NodeError> {
    let datadir = &config.datadir;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(datadir);
    at(datadir.display().to_string(), made)?;
    for name in ["leases", "held"] {
        let dir = datadir.join(name);
        at(dir.display().to_string(), own_alone(&dir))?;
    }
    let meta = Meta { network: config.params.name.clone(), magic: config.params.magic };
    let (store, report) = Store::open(&datadir.join(store::DIR), &meta)?;
    if let Some(quarantined) = &report.quarantined {
        tracing::warn!(dir = %quarantined.display(), "the index was damaged and has been rebuilt");
    }
    let records = super::history::opening_records(&store)?;
    let store = Arc::new(store);
    let (identity_file, seed_file) = (datadir.join(IDENTITY_FILE), datadir.join(SEED_FILE));
    let owner = Owner::of(&store)?;
    owner.expect(&identity_file)?;
    owner.expect(&seed_file)?;
    let password = config.wallet.password_file.as_deref().map(Password::read).transpose()?;
    let identity = load_or_create_secret(&identity_file, password.as_ref())?;
    let chain = config.params.chain.network;
    let now_s = now_ms() / 1000;
    let keys = wallet::Keys::load_or_create(&seed_file, chain, password.as_ref(), now_s)?;
    let keys = keys.watching(config.wallet.watched.clone());
    let settlement = keys.settlement_secret()?;
    owner.admit(&store, &identity_file, Keys::new(identity, settlement).public())?;
    let wallet = Wallet::open(&keys, chain, Arc::clone(&store), None);
    let mut wallet = wallet.map_err(|error| {
        if matches!(error, WalletError::OtherSeed) && config.wallet.watched.is_none() {
            OwnerError::Foreign { path: seed_file, keys: None }.into()
        } else {
            NodeError::from(error)
        }
    })?;
    let birthday_s = keys.birthday_s();
    if birthday_s.is_none() || wallet.is_watch_only() {
        // Another life, or another program, may have handed out addresses in a row that nobody paid to.
        wallet.widen(RESTORE_GAP)?;
    }
    Ok(Opened { store, records, salt: fresh_salt()?, wallet, birthday_s, identity, settlement })
}

/// A directory that only its owner reads, also inside one that others may: content of leases is
/// their holders'.
fn own_alone(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

fn pay_to(config: &Config) -> PayTo {
    match &config.wallet.payout {
        None => PayTo::Wallet,
        Some(PayoutTo::Address(address)) => PayTo::Script(address.script_pubkey()),
        Some(PayoutTo::Descriptor(descriptor)) => PayTo::Descriptor(descriptor.clone()),
    }
}

/// The backup that is written by itself, if one is configured.
fn keep_backup(config: &Config, store: &Arc<Store>) -> Result<Option<Keeper>, NodeError> {
    let Some(path) = config.backup.path.clone() else { return Ok(None) };
    let read = |path: &Option<PathBuf>| path.as_deref().map(Password::read).transpose();
    let seed_password = read(&config.wallet.password_file)?;
    let password = read(&config.backup.password_file)?;
    let backup = Backup::read(&config.datadir, seed_password.as_ref(), password.as_ref())?;
    let keeper = Keeper::start(backup, store, path, now_ms);
    Ok(Some(at("the thread for backups", keeper)?))
}

/// Random bytes from the operating system.
fn fresh_salt() -> Result<[u8; 32], NodeError> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| NodeError::Io {
        what: "cannot draw the salt of this life".to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(salt)
}

/// What runs leases on this host, opens what was sealed for this node, and fetches images for them.
fn run_leases(
    config: &Config,
    opened: &Opened,
    events: mpsc::Sender<LeaseEvent>,
) -> Result<(Manager, Pulls), NodeError> {
    let exe = at("the path of this program", std::env::current_exe())?;
    let dir = config.datadir.join("leases");
    let manager = Manager::new(&dir, exe, events)?.opening(Opener::new(&opened.identity));
    let pulls = Pulls::open(&dir, config.registries.clone(), Patience::default());
    Ok((manager.letting_out(config.egress.clone()), at("pulled images", pulls)?))
}

pub(super) async fn open(config: Config) -> Result<(Node, Sources, Tasks), NodeError> {
    let overcommitted = config.overcommitted(inventory::read(Path::new("/")))?;
    let opened = open_datadir(&config)?;
    let params = config.params.clone();
    let mut tasks = Tasks::default();
    let (inbound, streams) = mpsc::channel(STREAM_QUEUE);
    let (asks, asked) = mpsc::channel(STREAM_QUEUE);
    let plan = network_config(&config, opened.identity, inbound);
    let (network, network_events) = capex_network::start(plan)?;
    let (chain, chain_events, chain_tasks) = chain_source(&config, &opened);
    let (executor_events, executor) = mpsc::channel(EVENT_QUEUE);
    let leases_run = run_leases(&config, &opened, executor_events)?;
    let (answers, answer_events) = mpsc::unbounded_channel();
    let (written, written_events) = mpsc::unbounded_channel();
    let (verifier, checked) = at("verification threads", Verifier::start())?;
    let (lease_events, leases) = mpsc::channel(QUEUE);
    let (redemption_events, redemptions) = mpsc::channel(QUEUE);
    let peers = Peers::open(&config.datadir);
    let held = HeldFiles::start(config.datadir.join("held"), lease_events.clone());
    let held = at("the thread for files of leases", held)?;
    let (presence, api, api_events) = start_api(&config, &mut tasks).await?;
    let backup = keep_backup(&config, &opened.store)?;
    let keys = Keys::new(opened.identity, opened.settlement);
    let host = LeaseHost::new(leases_run, network.clone(), lease_events, params.lease.grace_ms);
    let shared_params = Arc::new(params.clone());
    let mut node = Node {
        driver: Driver::new(Engine::new(params, keys), opened.wallet)
            .paying_out_to(pay_to(&config)),
        outside: Outside::new(
            network,
            chain,
            (opened.store, written),
            (answers, verifier),
            shared_params,
            peers,
            (host, held),
        ),
        config,
        backup,
        redemptions: super::answer::Redemptions::new(redemption_events),
        chain_status: ChainStatus::default(),
        presence,
        overcommitted,
        served: Beside::default(),
        asks,
        api,
        studies: super::offload::Studies::new(),
        stop: false,
    };
    node.resume(opened.records, opened.salt).await;
    // Not before: its first look must include the rescan that open settlements ask for.
    let (following, sending) = chain_tasks.split();
    tasks.set.spawn(following);
    tasks.set.spawn(sending);
    let sources = Sources {
        network: network_events,
        chain: chain_events,
        executor,
        answers: answer_events,
        written: written_events,
        checked,
        leases,
        redemptions,
        streams,
        asked,
        api: api_events,
    };
    Ok((node, sources, tasks))
}

impl Node {
    /// Takes up what an earlier life left: capacity from the configuration, leases on this
    /// host, leases held elsewhere, fundings that may not have reached the network.
    async fn resume(&mut self, records: Vec<Record>, salt: [u8; 32]) {
        // Adopted leases must be known before the engine asks for any of them again.
        match self.outside.leases.executor.adopt().await {
            Ok(adopted) => {
                for (lease, state) in adopted {
                    tracing::info!(%lease, ?state, "lease adopted");
                }
            }
            Err(error) => tracing::error!(%error, "running leases could not be adopted"),
        }
        let capacity = self.config.capacity.iter().map(|(class, units)| (*class, *units)).collect();
        self.driver.start(&mut self.outside, records, salt, capacity);
        if self.driver.has_failed() {
            return;
        }
        let tested = self.config.tested();
        let shared = self.config.shared_room().map(|room| RegisterCommand::Share(room).into());
        for command in self.config.host_commands().into_iter().chain(shared) {
            let command = Input::Command { id: START_COMMAND, command };
            self.driver.feed(&mut self.outside, command);
        }
        self.served.spawn(heed_self_tests(self.config.clone(), self.api.clone(), tested));
        self.forget_lost_workloads();
        for (key, addrs) in self.outside.peers.iter() {
            let addrs = addrs.clone();
            let command = NetCommand::AddAddresses { peer: PeerKey(key.0), addrs };
            // The book takes four times as many; a hint that is lost does no harm.
            let _ = self.outside.network.try_send(command);
        }
        self.tell_endpoints();
    }

    /// A backup has no content. Before any provider can answer, so that no certificate is used up.
    fn forget_lost_workloads(&mut self) {
        let all = self.engine().leases().attached_content();
        let lost = all.filter(|(_, workload)| !self.outside.held.has(workload));
        let lost: Vec<_> = lost.map(|(order, _)| order).collect();
        for order in lost {
            tracing::warn!(%order, "the workload of this order is not on this disk: redeem by hand");
            let command = LeaseCommand::Lost(order).into();
            self.driver.feed(&mut self.outside, Input::Command { id: START_COMMAND, command });
        }
    }

    /// Tells the command line where this node is.
    pub(super) fn tell_endpoints(&self) {
        self.presence.tell(Endpoints {
            api: self.presence.api_addr.clone(),
            p2p: self.presence.listening.clone(),
            pid: std::process::id(),
            network: self.config.params.name.clone(),
            key: self.engine().me().to_string(),
        });
    }
}

/// Tasks that end with the node.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    /// The API, and what ends it.
    api: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    keeper: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Waits until a task fails. Else nobody would notice: a node whose chain task is gone goes on
    /// with the last that it heard, and misses every deadline by it.
    pub(super) async fn failed(&mut self) -> NodeError {
        while let Some(ended) = self.set.join_next().await {
            if let Err(error) = ended {
                return NodeError::Task(error.to_string());
            }
        }
        std::future::pending().await
    }

    /// Ends the API gracefully, then everything else.
    pub(super) async fn shutdown(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // It must not bring back what is removed at the end.
            keeper.abort();
            let _ = keeper.await;
        }
        if let Some((stop, mut api)) = self.api.take() {
            let _ = stop.send(());
            if tokio::time::timeout(api::DRAIN_TIME * 2, &mut api).await.is_err() {
                api.abort();
            }
        }
        self.set.shutdown().await;
    }
}

fn network_config(
    config: &Config,
    identity: [u8; 32],
    inbound: mpsc::Sender<InboundStream>,
) -> capex_network::Config {
    let topic =
        |topic: Topic| TopicConfig { name: topic.name().to_owned(), max_bytes: topic.max_bytes() };
    let protocol = |protocol: Protocol| ProtocolConfig {
        name: protocol.name().to_owned(),
        max_bytes: match protocol {
            Protocol::Settle => SETTLE_MAX_BYTES,
            Protocol::Sync => SYNC_MAX_BYTES,
            Protocol::Lease => LEASE_MAX_BYTES,
        },
    };
    capex_network::Config {
        network: config.params.name.clone(),
        secret: Secret::new(identity),
        listen: config.p2p.listen.clone(),
        bootstrap: config.p2p.peers.clone(),
        loopback: config.params.loopback || config.params.private,
        topics: Topic::ALL.into_iter().map(topic).collect(),
        protocols: Protocol::ALL
            .into_iter()
            .map(protocol)
            .chain([definitions::protocol()])
            .collect(),
        streams: Some(StreamConfig { name: access::PROTOCOL.to_owned(), inbound }),
        epoch_ms: config.params.epoch_ms(),
    }
}

fn chain_source(
    config: &Config,
    opened: &Opened,
) -> (ChainHandle, mpsc::Receiver<super::ChainEvent>, ChainTasks) {
    let chain = &config.params.chain;
    let block = Duration::from_millis(chain.block_ms);
    let patience = (block * PATIENCE_BLOCKS).clamp(PATIENCE_MIN, PATIENCE_MAX);
    let (url, cookie) = (config.chain.url.clone(), config.chain.cookie.clone());
    let source = Box::new(RpcSource::new(RpcConfig {
        client: RpcClient::patient(url, cookie, patience),
        network: chain.network,
        start_height: 0,
        checkpoints: opened.wallet.checkpoints(),
        birthday_s: opened.birthday_s,
        max_tip_age_s: chain.max_tip_age_s,
    }));
    let poll_every = (block / POLLS_PER_BLOCK).min(POLL_EVERY_MAX);
    chain_task::open(source, poll_every, QUEUE)
}

async fn start_api(
    config: &Config,
    tasks: &mut Tasks,
) -> Result<(Presence, ApiHandle, mpsc::Receiver<api::Request>), NodeError> {
    let listen = config.api.listen;
    let listener = tokio::net::TcpListener::bind(listen).await;
    let listener = at(format!("the API cannot listen on {listen}"), listener)?;
    let addr = at("the API's address", listener.local_addr())?;
    let cookie = Arc::new(at("the cookie file", CookieFile::create(&config.datadir))?);
    let file = EndpointsFile::of(&config.datadir);
    let (presence, keeper) =
        Presence::start(format!("http://{addr}"), now_ms(), file, Arc::clone(&cookie));
    tasks.keeper = Some(keeper);
    let (handle, requests) = ApiHandle::channel();
    let own = handle.clone();
    let state = ApiState::new(handle, Arc::new(config.params.clone()), config.max_fee_percent)
        .with_proof(config.host_proof());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let shutdown = async move {
            // A dropped sender means the same: stop.
            let _ = stopped.await;
        };
        if let Err(error) = api::serve(listener, state, cookie, shutdown).await {
            tracing::error!(%error, "the API ended");
        }
    });
    tasks.api = Some((stop, served));
    Ok((presence, own, requests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_api_ends_gracefully_whichever_task_ends_first() {
        let mut tasks = Tasks::default();
        tasks.set.spawn(async {});
        let (stop, stopped) = oneshot::channel();
        let (done, was_done) = oneshot::channel();
        let api = tokio::spawn(async move {
            let _ = stopped.await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let _ = done.send(());
        });
        tasks.api = Some((stop, api));
        tasks.shutdown().await;
        assert_eq!(was_done.await, Ok(()));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_and_one_that_ends_is_not() {
        let mut tasks = Tasks::default();
        tasks.set.spawn(async {});
        tasks.set.spawn(async { panic!("on purpose") });
        let failed = tokio::time::timeout(Duration::from_secs(10), tasks.failed()).await;
        assert_eq!(failed.unwrap().code(), "node.panic");
        let more = tokio::time::timeout(Duration::from_millis(1), tasks.failed()).await;
        assert!(more.is_err());
    }
}
