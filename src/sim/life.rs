//! A node, and one life of it: everything that a crash takes away.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{BlockHash, Network, ScriptBuf};

use super::chain::Source;
use super::disk::Disk;
use super::host::{HeldFiles, Host};
use super::queue::{Heard, Message, NodeId};
use crate::chain::devchain::{Cursor, Devchain};
use crate::driver::{Driver, START_COMMAND};
use crate::store::{Record, StoreError};
use crate::wallet::{self, Wallet, WalletError, Watched};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::{Done, Engine, Keys, Refusal, Verdict};
use capex_core::ids::Key;
use capex_core::params::Params;
use capex_core::units::TimeMs;
use capex_core::wire::sha256;

/// Addresses that a wallet watches beyond the last revealed one, which its disk has: more than a
/// life reveals that the copy of a disk has not seen.
const LOOKAHEAD: u32 = 16;

/// Which messages a dishonest node keeps to itself.
pub type Kept = fn(&SettleRequest) -> bool;
/// Which answers.
pub type KeptReply = fn(&SettleReply) -> bool;

/// What stays of a node when it ends: keys, disk, host, and how many lives it had.
#[derive(Debug)]
pub struct Node {
    pub key: Key,
    pub disk: Disk,
    pub(super) host: Host,
    pub(super) held: HeldFiles,
    pub(super) secret: [u8; 32],
    /// Scripts of the contracts that it watched, in all lives.
    pub(super) contracts: BTreeSet<ScriptBuf>,
    /// Blocks of each class that it sells.
    pub(super) capacity: Vec<(u16, u32)>,
    /// It hears no buyer's funding, as if it were a provider that wants none.
    pub ignores_fundings: bool,
    /// What it never sends to a node, if it is dishonest.
    pub withholds: Option<(NodeId, Kept)>,
    /// What it never answers, if it is dishonest.
    pub never_says: Option<KeptReply>,
    /// How long it needs to write down the orders of an epoch, and again to match them.
    pub computes_for_ms: u64,
    /// Own clock minus true time, ms.
    pub(super) offset_ms: i64,
    /// From its next life on the keys of its coins are elsewhere: see [`super::World::sign_elsewhere`].
    pub is_watch_only: bool,
    /// It stopped because another process has its key.
    pub gave_way: bool,
    pub(super) source: Source,
    pub(super) lives: u32,
    pub(super) life: Option<Life>,
}

/// One life of a node.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) driver: Driver,
    pub(super) body: Body,
}

/// What surrounds the driver for one life.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) cursor: Cursor,
    pub(super) tick_at_ms: TimeMs,
    /// Gossip that waits for its verdict.
    pub(super) tickets: BTreeMap<u64, (Key, Message)>,
    next_ticket: u64,
    /// Gossip seen, as the mesh keeps it.
    seen: Heard,
    /// Gossip that arrives, or has arrived: a mesh asks nobody else for it.
    coming: Heard,
    pub(super) answers: BTreeMap<u64, Result<Done, Refusal>>,
    pub(super) next_command: u64,
    pub(super) verdict: Option<(Verdict, Option<String>)>,
}

impl Node {
    /// A node that has not begun. Its keys follow from seed and number.
    pub(super) fn new(seed: u64, number: usize) -> Self {
        let secret = sha256(&[b"sim node", &seed.to_be_bytes(), &(number as u64).to_be_bytes()]);
        Self {
            key: Keys::new(secret, [0; 32]).public(),
            disk: Disk::default(),
            host: Host::default(),
            held: HeldFiles::default(),
            secret,
            contracts: BTreeSet::new(),
            capacity: Vec::new(),
            ignores_fundings: false,
            withholds: None,
            never_says: None,
            computes_for_ms: 0,
            offset_ms: 0,
            is_watch_only: false,
            gave_way: false,
            source: Source::default(),
            lives: 0,
            life: None,
        }
    }

    /// A second process with the keys of a node, on what its disk has now.
    pub(super) fn copy(&self) -> Result<Self, StoreError> {
        let disk = Disk::default();
        disk.write(&self.disk.records())?;
        Ok(Self {
            key: self.key,
            disk,
            host: Host::default(),
            held: HeldFiles::default(),
            secret: self.secret,
            contracts: self.contracts.clone(),
            capacity: self.capacity.clone(),
            ignores_fundings: false,
            withholds: None,
            never_says: None,
            computes_for_ms: 0,
            offset_ms: 0,
            is_watch_only: self.is_watch_only,
            gave_way: false,
            source: Source::default(),
            // Its random bytes are its own.
            lives: 1 << 16,
            life: None,
        })
    }

    /// The wallet as another would open it who has its keys and a copy of its disk, and does not
    /// care what is paid from it.
    pub(super) fn open_careless_wallet(
        &self,
        birthday: (u32, BlockHash),
    ) -> Result<Wallet, WalletError> {
        let is_kept = |record: &Record| record.table != wallet::FUND_TABLE;
        let records: Vec<Record> = self.disk.records().into_iter().filter(is_kept).collect();
        let careless = Self { disk: Disk::default(), ..self.copy()? };
        careless.disk.write(&records)?;
        Ok(careless.open_wallet(birthday)?.0)
    }

    /// Random bytes of the life that has begun.
    pub(super) fn salt(&self) -> [u8; 32] {
        sha256(&[b"sim salt", &self.secret, &self.lives.to_be_bytes()])
    }

    /// The wallet as its disk has it.
    pub(super) fn open_wallet(
        &self,
        birthday: (u32, BlockHash),
    ) -> Result<(Wallet, [u8; 32]), WalletError> {
        let keys = wallet::Keys::from_seed(&self.secret, Network::Regtest)?;
        let settlement = keys.settlement_secret()?;
        let open = |keys: &wallet::Keys| {
            let (network, disk) = (Network::Regtest, self.disk.clone());
            Wallet::open_within(keys, network, disk, Some(birthday), LOOKAHEAD)
        };
        let mut wallet = open(&keys)?;
        if self.is_watch_only {
            let [receive, change] = wallet.descriptors();
            let watched = Watched::parse(&receive, Some(&change), Network::Regtest);
            wallet = open(&keys.watching(watched.ok()))?;
        }
        Ok((wallet, settlement))
    }

    /// Begins a life from the disk; the engine has seen nothing yet.
    pub(super) fn begin(
        &mut self,
        params: &Params,
        chain: &Devchain,
        birthday: (u32, BlockHash),
    ) -> Result<(), WalletError> {
        self.disk.revive();
        let (wallet, settlement) = self.open_wallet(birthday)?;
        let on_chain = |(height, hash): &(u32, BlockHash)| chain.hash_at(*height) == Some(*hash);
        let known = wallet.checkpoints().into_iter().find(on_chain).map_or(0, |(height, _)| height);
        self.lives += 1;
        let engine = Engine::new(params.clone(), Keys::new(self.secret, settlement));
        let body = Body {
            cursor: Cursor::at(known + 1),
            tick_at_ms: 0,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            seen: Heard::default(),
            coming: Heard::default(),
            answers: BTreeMap::new(),
            next_command: START_COMMAND,
            verdict: None,
        };
        self.life = Some(Life { driver: Driver::new(engine, wallet), body });
        Ok(())
    }

    /// The node's own clock at a true time.
    pub(super) fn clock_ms(&self, now_ms: TimeMs) -> TimeMs {
        now_ms.saturating_add_signed(self.offset_ms)
    }
}

impl Body {
    /// Whether a gossip message is new here.
    pub(super) fn is_news(&mut self, message: &Message) -> bool {
        self.coming.insert(message);
        self.seen.insert(message)
    }

    /// Whether a gossip message is on its way to this node already.
    pub(super) fn awaits(&self, message: &Message) -> bool {
        self.coming.contains(message)
    }

    /// A gossip message is on its way to this node.
    pub(super) fn expect(&mut self, message: &Message) {
        self.coming.insert(message);
    }

    /// Keeps a gossip message until its verdict.
    pub(super) fn ticket(&mut self, from: Key, message: Message) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, (from, message));
        self.next_ticket
    }
}
