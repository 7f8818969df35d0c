//! The driver: takes the next happening, gives it to a node, performs what follows.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bitcoin::{Amount, BlockHash, OutPoint};

use super::evidence::Evidence;
use super::life::Node;
use super::links::{Links, Settling, Sides};
use super::queue::{Happening, Messages, NodeId, Queue};
use super::rng::Rng;
use super::shell::Here;
use super::trace::Trace;
use crate::chain::devchain::{Devchain, PREMINED_BLOCKS, faucet_keypair};
use crate::driver::Driver;
use crate::store::StoreError;
use crate::wallet::{Balance, faucet_spend};
use capex_core::engine::market::{ComputeError, Computed};
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::{Checked, Command, Done, Engine, Input, Protocol, Refusal};
use capex_core::ids::{Key, OrderId};
use capex_core::memo::remember_good_signatures;
use capex_core::params::Params;
use capex_core::units::TimeMs;

/// When every world begins, unix ms: the start of an epoch and of a slot on a devnet.
pub const BEGIN_MS: TimeMs = 1_800_000_000_000;
/// Looks at the chain per chain block, as in a node.
const POLLS_PER_BLOCK: u64 = 5;
/// A peer notices a broken connection, and a node that its request found nobody, ms.
const NOTICE_MS: u64 = 10;
/// Wallets are this much older than their first coins, chain blocks: a settlement looks back
/// six chain blocks, and a wallet cannot look behind its birthday.
const BIRTHDAY_DEPTH: u32 = 20;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    pub nodes: usize,
    pub params: Params,
    pub links: Links,
    /// Coins of each wallet, sat.
    pub coins_sat: u64,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) from: Option<NodeId>,
    pub(super) life: u32,
    pub(super) id: u64,
    pub(super) to: NodeId,
    pub(super) peer: Key,
    pub(super) protocol: Protocol,
}

/// Many nodes, one chain, one queue.
#[derive(Debug)]
pub struct World {
    /// True time, unix ms.
    pub now_ms: TimeMs,
    pub chain: Devchain,
    pub links: Links,
    pub sides: Sides,
    pub settling: Settling,
    /// Every node, dead or alive.
    pub nodes: Vec<Node>,
    /// What was signed, and which rules it breaks.
    pub evidence: Evidence,
    pub(super) params: Params,
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) queue: Queue,
    pub(super) trace: Trace,
    /// Results by epoch and root.
    pub(super) computed: BTreeMap<(u64, [u8; 32]), Result<Arc<Computed>, ComputeError>>,
    pub(super) messages: Messages,
    /// Results of verification by message and the orders looked at.
    pub(super) verified: BTreeMap<(usize, Vec<OrderId>), Checked>,
    pub(super) verifications: u64,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) next_call: u64,
    pub(super) answered: Option<Vec<u8>>,
    pub(super) birthday: (u32, BlockHash),
    pub(super) coins_sat: u64,
    /// Happenings so far, and the most before time stands still.
    happened: u64,
    fuse: u64,
}

/// The premined chain is the same in every world.
fn premined() -> Devchain {
    static CHAIN: OnceLock<Devchain> = OnceLock::new();
    let begin_s = u32::try_from(BEGIN_MS / 1000).unwrap_or(u32::MAX) - 2;
    CHAIN.get_or_init(|| Devchain::new(begin_s)).clone()
}

impl World {
    /// A world in which every node has its coins and has just begun.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        // Every node is handed the same bytes.
        remember_good_signatures();
        let chain = premined();
        let born = chain.height().saturating_sub(BIRTHDAY_DEPTH);
        let birthday = (born, chain.hash_at(born).unwrap_or_else(|| chain.tip()));
        let mut world = Self {
            now_ms: BEGIN_MS,
            chain,
            links: setup.links,
            sides: Sides::default(),
            settling: Settling::default(),
            nodes: (0..setup.nodes).map(|number| Node::new(setup.seed, number)).collect(),
            evidence: Evidence::default(),
            params: setup.params,
            seed: setup.seed,
            rng: Rng::new(setup.seed),
            queue: Queue::default(),
            trace: Trace::default(),
            computed: BTreeMap::new(),
            messages: Messages::default(),
            verified: BTreeMap::new(),
            verifications: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            answered: None,
            birthday,
            coins_sat: setup.coins_sat,
            happened: 0,
            fuse: u64::MAX,
        };
        for node in 0..setup.nodes {
            world.start(node);
        }
        world.pay_everyone();
        world.mine_block();
        for node in 0..setup.nodes {
            world.poll(node);
        }
        world
    }

    /// One coinbase for each node, in four parts.
    fn pay_everyone(&mut self) {
        for number in 0..self.nodes.len() {
            let payer = u32::try_from(number + 1).unwrap_or(PREMINED_BLOCKS);
            let coinbase = self.chain.hash_at(payer).and_then(|hash| self.chain.block(&hash));
            let Some(coinbase) = coinbase.and_then(|block| block.txdata.first()) else { return };
            let coin = (
                OutPoint::new(coinbase.compute_txid(), 0),
                coinbase.output.first().map_or(Amount::ZERO, |output| output.value).to_sat(),
            );
            let Some(life) = &mut self.nodes[number].life else { return };
            let Ok(scripts) = life.driver.wallet_mut().fresh_scripts(4) else { return };
            let Ok(to) = scripts.try_into() else { return };
            if let Ok(tx) = faucet_spend(&[coin], &faucet_keypair(), to, self.coins_sat, 1000) {
                // A refused payment shows as an empty wallet.
                let _ = self.chain.submit_tx(tx);
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Lets time pass until something is so, at most for a while. Whether it came to be so.
    pub fn run_until(&mut self, most_ms: u64, mut so: impl FnMut(&Self) -> bool) -> bool {
        let end_ms = self.now_ms.saturating_add(most_ms);
        while !so(self) {
            if self.happened >= self.fuse {
                self.blow();
                return so(self);
            }
            let Some((at_ms, happening)) = self.queue.pop(end_ms) else {
                self.now_ms = end_ms;
                return so(self);
            };
            self.now_ms = at_ms;
            self.happened += 1;
            self.happen(happening);
        }
        true
    }

    /// Lets no more than so many things happen: a world that goes in circles is a fault.
    pub fn set_fuse(&mut self, most: u64) {
        self.fuse = most;
    }

    /// Things that happened so far.
    #[must_use]
    pub fn happened(&self) -> u64 {
        self.happened
    }

    fn blow(&mut self) {
        let what = format!("it does not end: {} things happened", self.happened);
        if !self.evidence.faults().contains(&what) {
            self.evidence.broken(what);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick(node) => {
                let due = self.nodes[node]
                    .life
                    .as_ref()
                    .is_some_and(|l| l.body.tick_at_ms == self.now_ms);
                if due {
                    self.feed(node, Input::Tick);
                }
            }
            Happening::Gossip { to, from, message } => self.gossip(to, from, message),
            Happening::Request { to, call, protocol, bytes } => {
                self.request(to, call, protocol, bytes);
            }
            Happening::Response { call, result } => self.response(call, result),
            Happening::Inside { node, life, input } => {
                if self.nodes[node].lives == life {
                    self.feed(node, *input);
                }
            }
            Happening::Peer { node, life, key, up } => {
                if self.nodes[node].lives == life {
                    self.drive(node, |driver, here| driver.on_peer(here, key, up));
                }
            }
            Happening::Host { node, input } => {
                if self.nodes[node].host.stands(&input) {
                    self.feed(node, *input);
                }
            }
            Happening::Served { node, life, call, bytes } => {
                if self.nodes[node].lives == life && self.nodes[node].life.is_some() {
                    self.reply(node, call, bytes);
                }
            }
            Happening::Broadcast { node, life, tx } => {
                if self.nodes[node].lives == life {
                    self.broadcast(node, &tx);
                }
            }
            Happening::Poll { node, life, regular } => {
                if self.nodes[node].lives == life && self.nodes[node].life.is_some() {
                    self.poll(node);
                    if regular {
                        self.poll_again(node);
                    }
                }
            }
            Happening::Block => self.mine_block(),
            Happening::Crash(node) => self.crash(node),
            Happening::Start(node) => self.start(node),
        }
    }

    pub(super) fn poll_again(&mut self, node: NodeId) {
        let life = self.nodes[node].lives;
        let every_ms = (self.params.chain.block_ms / POLLS_PER_BLOCK).max(1);
        self.queue.push(self.now_ms + every_ms, Happening::Poll { node, life, regular: true });
    }

    /// Ends a node without warning: memory is gone, the disk stays.
    pub fn crash(&mut self, node: NodeId) {
        if self.nodes[node].life.take().is_none() {
            return;
        }
        let key = self.nodes[node].key;
        self.tell_peers(key, false);
        let broken: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.to == node).map(|(id, _)| *id).collect();
        for call in broken {
            let result = Err("connection closed".to_owned());
            self.queue.push(self.now_ms + NOTICE_MS, Happening::Response { call, result });
        }
    }

    /// Ends a node now and begins its next life after a while.
    pub fn restart(&mut self, node: NodeId, after_ms: u64) {
        self.crash(node);
        self.queue.push(self.now_ms + after_ms, Happening::Start(node));
    }

    /// Sets up a crash and the next life of a node.
    pub fn restart_at(&mut self, node: NodeId, at_ms: TimeMs, after_ms: u64) {
        self.queue.push(at_ms, Happening::Crash(node));
        self.queue.push(at_ms + after_ms, Happening::Start(node));
    }

    fn tell_peers(&mut self, key: Key, up: bool) {
        for peer in (0..self.nodes.len()).filter(|peer| self.nodes[*peer].key != key) {
            let (life, at_ms) = (self.nodes[peer].lives, self.now_ms + NOTICE_MS);
            self.queue.push(at_ms, Happening::Peer { node: peer, life, key, up });
        }
    }

    /// Starts a second process with the keys of a node, on a copy of its disk. To others the two
    /// are one, and they do not reach each other.
    ///
    /// # Errors
    /// The disk cannot be copied.
    pub fn start_second(&mut self, of: NodeId) -> Result<NodeId, StoreError> {
        let second = self.nodes[of].copy()?;
        self.nodes.push(second);
        let node = self.nodes.len() - 1;
        self.start(node);
        Ok(node)
    }

    /// Begins a life: the driver from what is on disk, then chain and peers.
    pub fn start(&mut self, node: NodeId) {
        if self.nodes[node].life.is_some() {
            return;
        }
        if self.nodes[node].begin(&self.params, &self.chain, self.birthday).is_err() {
            self.evidence.broken(format!("node {node} cannot open its wallet"));
            return;
        }
        let records = self.nodes[node].disk.records();
        let salt = self.nodes[node].salt();
        let capacity = self.nodes[node].capacity.clone();
        self.drive(node, |driver, here| driver.start(here, records, salt, capacity));
        self.poll(node);
        self.poll_again(node);
        let me = self.nodes[node].key;
        for peer in 0..self.nodes.len() {
            let key = self.nodes[peer].key;
            if key != me && self.nodes[peer].life.is_some() {
                self.drive(node, |driver, here| driver.on_peer(here, key, true));
            }
        }
        if self.nodes[node].life.is_some() {
            self.tell_peers(me, true);
        }
    }

    /// Gives an engine an input and performs all that follows.
    pub(super) fn feed(&mut self, node: NodeId, input: Input) {
        self.drive(node, |driver, here| driver.feed(here, input));
    }

    /// Runs a living node's driver, then sets its timer anew. A fault ends that life.
    pub(super) fn drive(&mut self, node: NodeId, run: impl FnOnce(&mut Driver, &mut Here<'_>)) {
        let Some(mut life) = self.nodes[node].life.take() else { return };
        run(&mut life.driver, &mut Here { world: self, node, body: &mut life.body });
        let fault = life.driver.take_fault();
        self.nodes[node].life = Some(life);
        let Some(fault) = fault else { return self.set_timer(node) };
        self.nodes[node].gave_way = fault.code() == "identity.in_use";
        if !self.nodes[node].disk.is_dead() && !self.nodes[node].gave_way {
            self.evidence.broken(format!("node {node}: {fault}"));
        }
        self.crash(node);
    }

    fn set_timer(&mut self, node: NodeId) {
        let (now_ms, offset_ms) = (self.now_ms, self.nodes[node].offset_ms);
        let clock_ms = self.nodes[node].clock_ms(now_ms);
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        let (due_ms, _) = life.driver.poll_timeout(clock_ms);
        let due_ms = due_ms.saturating_add_signed(-offset_ms).max(now_ms + 1);
        if life.body.tick_at_ms != due_ms {
            life.body.tick_at_ms = due_ms;
            self.queue.push(due_ms, Happening::Tick(node));
        }
    }

    /// Sets a node's clock: so many ms ahead of true time, or behind it.
    pub fn set_clock(&mut self, node: NodeId, offset_ms: i64) {
        self.nodes[node].offset_ms = offset_ms;
        self.set_timer(node);
    }

    /// Gives a node a command; the answer may come later.
    pub fn command(&mut self, node: NodeId, command: impl Into<Command>) -> u64 {
        let Some(life) = self.nodes[node].life.as_mut() else { return 0 };
        life.body.next_command += 1;
        let id = life.body.next_command;
        self.feed(node, Input::Command { id, command: command.into() });
        id
    }

    /// Sets what a node sells, in this life and the next.
    pub fn set_capacity(&mut self, node: NodeId, capacity: &[(u16, u32)]) {
        self.nodes[node].capacity = capacity.to_vec();
        self.command(node, RegisterCommand::SetCapacity(capacity.to_vec()));
    }

    /// The answer to a command of this life.
    #[must_use]
    pub fn answer(&self, node: NodeId, command: u64) -> Option<&Result<Done, Refusal>> {
        self.nodes[node].life.as_ref()?.body.answers.get(&command)
    }

    /// A living node's engine.
    #[must_use]
    pub fn engine(&self, node: NodeId) -> Option<&Engine> {
        self.nodes[node].life.as_ref().map(|life| life.driver.engine())
    }

    /// Engines of all living nodes.
    pub fn engines(&self) -> impl Iterator<Item = (NodeId, &Engine)> {
        (0..self.nodes.len()).filter_map(|node| Some((node, self.engine(node)?)))
    }

    /// A living node's coins.
    #[must_use]
    pub fn balance(&self, node: NodeId) -> Option<Balance> {
        self.nodes[node].life.as_ref().map(|life| life.driver.wallet().balance())
    }

    /// The network definition.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The seed from which everything follows.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Messages of orders whose signatures were verified so far, each once for all nodes.
    #[must_use]
    pub fn verifications(&self) -> u64 {
        self.verifications
    }

    /// Inputs so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.trace.steps()
    }

    /// Hash over everything that happened so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.trace.digest()
    }
}
