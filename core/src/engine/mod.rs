//! The engine: composes the domain behind one `handle`.
//!
//! It never fails and never blocks: bad input becomes a verdict or a refusal, consequences
//! become effects. It owns its signing keys and draws no randomness. Every input may
//! arrive twice.

pub mod certificates;
pub mod contacts;
pub mod holdings;
pub mod io;
pub mod kernel;
pub mod leases;
pub mod market;
pub mod register;
pub mod sync;
pub mod trades;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::certificates::CertificateView;
use self::contacts::Contacts;
use self::holdings::Holdings;
use self::kernel::{Counters, Kernel, Treasury};
use self::leases::Leases;
use self::market::{ComputeError, Computed, Inventory, Market, Matched};
use self::register::{Desk, Register};
use self::sync::{Sync, SyncReply, SyncRequest};
use self::trades::{BuyLimits, Purchase, TradeEvent, Trades};
use self::witness::Witness;
use super::ids::{CertId, Key};
use super::lease::objects::{LeaseReply, LeaseRequest};
use super::settlement::facts::ChainFacts;
use super::settlement::objects::{LockGrant, SettleReply, SettleRequest};
use super::settlement::seller::Goods;
use super::units::{Slot, TimeMs};
use crate::certificate::Certificate;
use crate::limits::{LEASE_MAX_BYTES, SETTLE_MAX_BYTES, SYNC_MAX_BYTES};
use crate::params::Params;
use crate::wire::{Envelope, WireError, decode_record, encode};

pub use io::{
    Checked, Command, Done, Effect, Event, Input, Protocol, Refusal, Topic, Unchecked, Verdict,
};
pub use kernel::{
    ChainView, Context, Keys, Outbox, Purpose, Record, Table, Unreadable, WalletView, remote_code,
};

/// One node's whole protocol state.
#[derive(Debug)]
pub struct Engine {
    kernel: Kernel,
    market: Market,
    trades: Trades,
    register: Register,
    holdings: Holdings,
    witness: Witness,
    leases: Leases,
    contacts: Contacts,
    sync: Sync,
    peers: BTreeSet<Key>,
    refused: BTreeMap<String, u64>,
    /// A record could not be read: nothing is done any more.
    is_halted: bool,
}

impl Engine {
    /// An engine that has seen nothing yet; its first input is `Started`.
    #[must_use]
    pub fn new(params: Params, keys: Keys) -> Self {
        Self {
            kernel: Kernel::new(params, keys),
            market: Market::default(),
            trades: Trades::default(),
            register: Register::default(),
            holdings: Holdings::default(),
            witness: Witness::default(),
            leases: Leases::default(),
            contacts: Contacts::default(),
            sync: Sync::default(),
            peers: BTreeSet::new(),
            refused: BTreeMap::new(),
            is_halted: false,
        }
    }

    /// Applies one input. Never blocks, never fails. After an [`Effect::Halt`] it does nothing.
    pub fn handle(&mut self, now_ms: TimeMs, input: Input) {
        if self.is_halted {
            return;
        }
        match input {
            Input::Started { records, salt } => self.start(now_ms, &records, salt),
            Input::Tick => self.tick(now_ms),
            Input::Gossip { peer, topic, bytes, ticket } => {
                self.on_gossip(now_ms, peer, topic, &bytes, ticket);
            }
            Input::Request { peer, id, protocol, bytes } => {
                self.on_request(now_ms, peer, id, protocol, &bytes);
            }
            Input::Response { id, result } => self.on_response(now_ms, id, result),
            Input::Peer { key, up } => {
                if up {
                    self.peers.insert(key);
                    self.contacts.on_peer_up();
                } else {
                    self.peers.remove(&key);
                }
                self.sync.on_peer(&mut self.kernel.context(now_ms), key, up);
                self.judge_clock(now_ms);
            }
            Input::Chain(facts) => self.on_chain(now_ms, &facts),
            Input::ChainSource { up } => self.kernel.chain.up = up,
            Input::Wallet(facts) => {
                self.kernel.treasury.set_spendable(facts.spendable_sat);
                self.kernel.wallet.fresh_spks.extend(facts.fresh_spks);
            }
            Input::Funded { funding, result } => {
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_funded(&mut ctx, &mut desk, funding, result);
                self.apply(now_ms, events);
            }
            Input::Broadcasted { txid, result } => {
                self.trades.on_broadcasted(txid, &result);
            }
            Input::Matched { epoch, result } => self.on_matched(now_ms, epoch, result),
            Input::Mined { job, nonce } => {
                self.market.on_mined(&mut self.kernel.context(now_ms), job, nonce);
            }
            Input::Checked { peer, ticket, checked } => {
                self.on_checked(now_ms, peer, ticket, checked);
            }
            Input::Persisted { .. } => {}
            Input::Executor { lease, event } => {
                let mut ctx = self.kernel.context(now_ms);
                self.leases.on_executor(&mut ctx, lease, event);
            }
            Input::Held { lease, event } => {
                self.leases.on_held(&mut self.kernel.context(now_ms), lease, event);
            }
            Input::Command { id, command } => self.on_command(now_ms, id, command),
        }
        self.kernel.out.flush();
    }

    /// Next effect to perform. Poll until `None` after every [`Engine::handle`].
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.kernel.out.poll()
    }

    /// When [`Input::Tick`] is due, and why. May change after any `handle`.
    #[must_use]
    pub fn poll_timeout(&self, now_ms: TimeMs) -> (TimeMs, &'static str) {
        let kernel = &self.kernel;
        let market = self.market.next_deadline(now_ms, &kernel.params, self.me(), kernel.chain.up);
        [
            self.trades.next_deadline(),
            self.register.next_deadline(&self.kernel.params).map(|at| (at, "register")),
            self.holdings.next_deadline().map(|at| (at, "holdings")),
            self.leases.next_deadline(&self.kernel.params).map(|at| (at, "lease")),
            self.contacts.next_deadline(),
            self.sync.next_deadline().map(|at| (at, "clocks")),
        ]
        .into_iter()
        .flatten()
        .fold(market, |first, other| if other.0 < first.0 { other } else { first })
    }

    fn judge_clock(&mut self, now_ms: TimeMs) {
        let (offset_ms, peers) = self.sync.clock_offset();
        self.market.on_clock(&self.kernel.context(now_ms), offset_ms, peers);
    }

    fn start(&mut self, now_ms: TimeMs, records: &[Record], salt: [u8; 32]) {
        if let Err(fault) = self.load(now_ms, records, salt) {
            self.is_halted = true;
            self.kernel.out.clear();
            self.kernel.out.push(Effect::Halt { fault });
        }
    }

    fn load(
        &mut self,
        now_ms: TimeMs,
        records: &[Record],
        salt: [u8; 32],
    ) -> Result<(), Unreadable> {
        kernel::check_tables(records)?;
        self.kernel.counters = Counters::load(records, salt)?;
        let mut ctx = self.kernel.context(now_ms);
        self.market.load(&mut ctx, records)?;
        self.register.load(&mut ctx, records)?;
        self.witness.load(records)?;
        self.holdings.load(&mut ctx, &mut self.witness, records)?;
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.load(&mut ctx, &mut desk, records)?;
        ctx.counters.keep_salts(ctx.out, self.trades.key_indices())?;
        for (trade, row, units) in self.trades.open_sells() {
            // Refused where the certificate was issued already: then it has the claim.
            let _ = self.register.reserve(trade, row, units);
        }
        self.leases.load(&mut ctx, records)?;
        self.market.forget_unopened(&mut ctx, |trade| self.trades.knows(trade));
        self.apply(now_ms, events);
        Ok(())
    }

    fn on_matched(
        &mut self,
        now_ms: TimeMs,
        epoch: u64,
        result: Result<Arc<Computed>, ComputeError>,
    ) {
        let mut ctx = self.kernel.context(now_ms);
        let matched = self.market.on_matched(&mut ctx, &mut self.register, epoch, result);
        let Some(matched) = matched else { return };
        for row in matched {
            self.open(now_ms, row);
        }
        self.market.advance(&mut self.kernel.context(now_ms));
        // What was held back until this epoch is computed.
        self.tick(now_ms);
    }

    fn tick(&mut self, now_ms: TimeMs) {
        let mut ctx = self.kernel.context(now_ms);
        self.market.on_tick(&mut ctx, &self.register);
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_tick(&mut ctx, &mut desk);
        self.apply(now_ms, events);
        let mut ctx = self.kernel.context(now_ms);
        self.register.on_tick(&mut ctx);
        self.holdings.on_tick(&mut ctx);
        self.leases.on_tick(&mut ctx);
        self.contacts.on_tick(&mut ctx);
        self.sync.on_tick(&mut ctx, self.peers.iter().copied());
    }

    fn apply(&mut self, now_ms: TimeMs, events: Vec<TradeEvent>) {
        for event in events {
            let mut ctx = self.kernel.context(now_ms);
            match event {
                TradeEvent::Void { trade, .. } => {
                    self.register.void_trade(&mut ctx, trade);
                    ctx.treasury.commit(trade, 0);
                    self.market.on_trade_end(&mut ctx, trade, false);
                }
                TradeEvent::Sold { trade, .. } => self.market.on_trade_end(&mut ctx, trade, true),
                TradeEvent::Bought { trade, certificate } => {
                    let acquired = self.holdings.acquire(&mut ctx, &mut self.witness, certificate);
                    if let Err(code) = acquired {
                        *self.refused.entry(code.to_owned()).or_default() += 1;
                    }
                    self.market.on_trade_end(&mut ctx, trade, true);
                }
            }
        }
    }

    fn on_gossip(&mut self, now_ms: TimeMs, peer: Key, topic: Topic, bytes: &[u8], ticket: u64) {
        let mut ctx = self.kernel.context(now_ms);
        let (verdict, code) = match topic {
            Topic::Orders => match self.market.epochs.on_orders(&ctx, bytes) {
                Ok(candidates) => {
                    ctx.out.push_inside(Effect::Verify { peer, ticket, candidates });
                    return;
                }
                Err((verdict, code)) => (verdict, Some(code)),
            },
            Topic::Roots => {
                let judged = self.market.epochs.on_root(&mut ctx, peer, bytes);
                for lack in self.market.epochs.take_lacks() {
                    self.sync.ask(&mut ctx, lack);
                }
                judged
            }
            Topic::Contacts => {
                let is_trader = |key: &Key| self.market.epochs.is_trader(key);
                self.contacts.on_gossip(&mut ctx, is_trader, bytes)
            }
            Topic::Locks => self.witness.on_lock_gossip(&mut ctx, bytes),
            Topic::Proofs => self.witness.on_proof_gossip(&mut ctx, bytes),
        };
        if verdict == Verdict::Accept && topic == Topic::Locks {
            self.hear_lock(now_ms, bytes);
        }
        self.judge(peer, ticket, verdict, code);
    }

    fn on_checked(&mut self, now_ms: TimeMs, peer: Key, ticket: u64, checked: Checked) {
        let ctx = self.kernel.context(now_ms);
        let (verdict, code) = self.market.epochs.on_checked(&ctx, checked);
        self.judge(peer, ticket, verdict, code);
    }

    /// Tells the network what becomes of a message, and counts what is not forwarded.
    fn judge(&mut self, peer: Key, ticket: u64, verdict: Verdict, code: Option<&'static str>) {
        if let Some(code) = code {
            *self.refused.entry(code.to_owned()).or_default() += 1;
            if verdict == Verdict::Reject {
                self.kernel.out.notify(Event::Refused { peer, code: code.to_owned() });
            }
        }
        let code = code.map(str::to_owned);
        self.kernel.out.push(Effect::Verdict { ticket, verdict, code });
    }

    /// A grant that the witness took may be the lock that a seller waits for.
    fn hear_lock(&mut self, now_ms: TimeMs, bytes: &[u8]) {
        let envelope = decode_record::<Envelope>(bytes);
        let Ok(grant) = envelope.and_then(|envelope| envelope.peek::<LockGrant>()) else { return };
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_lock(&mut ctx, &mut desk, grant.provider, grant.terms_hash);
        self.apply(now_ms, events);
    }

    fn on_request(&mut self, now_ms: TimeMs, peer: Key, id: u64, protocol: Protocol, bytes: &[u8]) {
        let reply = match protocol {
            Protocol::Settle => match bounded::<SettleRequest>(bytes, SETTLE_MAX_BYTES) {
                Ok(request) => Some(encode(&self.on_settle(now_ms, peer, request))),
                Err(error) => {
                    Some(encode(&SettleReply::Refused { code: self.refuse(peer, error) }))
                }
            },
            Protocol::Sync => match bounded::<SyncRequest>(bytes, SYNC_MAX_BYTES) {
                Ok(request) => {
                    Some(encode(&self.sync.on_request(now_ms, &self.market.epochs, &request)))
                }
                Err(error) => Some(encode(&SyncReply::Refused { code: self.refuse(peer, error) })),
            },
            Protocol::Lease => match bounded::<LeaseRequest>(bytes, LEASE_MAX_BYTES) {
                Ok(request) => {
                    let mut ctx = self.kernel.context(now_ms);
                    let reply =
                        self.leases.on_request(&mut ctx, &mut self.register, peer, id, request);
                    reply.map(|reply| {
                        if let LeaseReply::Refused { code } = &reply {
                            *self.refused.entry(code.clone()).or_default() += 1;
                        }
                        encode(&reply)
                    })
                }
                Err(error) => Some(encode(&LeaseReply::Refused { code: self.refuse(peer, error) })),
            },
        };
        if let Some(bytes) = reply {
            self.kernel.out.push(Effect::Reply { id, bytes });
        }
    }

    fn refuse(&mut self, peer: Key, error: WireError) -> String {
        *self.refused.entry(error.code().to_owned()).or_default() += 1;
        self.kernel.out.notify(Event::Refused { peer, code: error.code().to_owned() });
        if error.is_blamable() {
            self.kernel.out.push(Effect::Penalise { key: peer });
        }
        error.code().to_owned()
    }

    /// Reads an answer of a peer, which is to blame for one that is none.
    fn read_reply<T: Serialize + DeserializeOwned>(
        &mut self,
        peer: Key,
        result: Result<Vec<u8>, String>,
        limit: usize,
    ) -> Result<T, String> {
        bounded(&result?, limit).map_err(|error| self.refuse(peer, error))
    }

    fn on_settle(&mut self, now_ms: TimeMs, peer: Key, request: SettleRequest) -> SettleReply {
        let mut ctx = self.kernel.context(now_ms);
        let reply = match request {
            SettleRequest::Gift(gift) => {
                Some(reply(self.register.on_gift(&mut ctx, &gift).map(SettleReply::Activation)))
            }
            SettleRequest::Push(certificate) => {
                let pushed = self.holdings.on_push(&mut ctx, &mut self.witness, &certificate);
                Some(reply(pushed.map(|()| SettleReply::Stored)))
            }
            SettleRequest::GetCert(id) => Some(reply(self.on_get_certificate(peer, &id))),
            SettleRequest::Terms(_)
            | SettleRequest::Accept { .. }
            | SettleRequest::Fund { .. }
            | SettleRequest::Transfer(_)
            | SettleRequest::Cancel(_) => {
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let (reply, events) = self.trades.on_request(&mut ctx, &mut desk, peer, request);
                self.apply(now_ms, events);
                Some(reply)
            }
        };
        let reply = reply
            .unwrap_or_else(|| SettleReply::Refused { code: "settle.unknown_request".to_owned() });
        if let SettleReply::Refused { code } = &reply {
            *self.refused.entry(code.clone()).or_default() += 1;
        }
        reply
    }

    /// The same refusal whether it is unknown or not for this peer, so that asking tells
    /// nothing.
    fn on_get_certificate(&self, peer: Key, id: &CertId) -> Result<SettleReply, &'static str> {
        let issued = self.register.certificate_for(peer, id);
        let found = issued.or_else(|| self.holdings.certificate_for(peer, id));
        let certificate = found.ok_or("certificate.not_a_party")?;
        Ok(SettleReply::Certificate(certificate.clone()))
    }

    fn on_response(&mut self, now_ms: TimeMs, id: u64, result: Result<Vec<u8>, String>) {
        let Some((peer, purpose)) = self.kernel.out.take_request(id) else { return };
        match &purpose {
            Purpose::Terms(_)
            | Purpose::Accept(_)
            | Purpose::Fund(_)
            | Purpose::Transfer(_)
            | Purpose::Cancel(_) => {
                let reply = self.read_reply::<SettleReply>(peer, result, SETTLE_MAX_BYTES);
                let mut ctx = self.kernel.context(now_ms);
                let mut desk = Desk { register: &mut self.register, witness: &self.witness };
                let events = self.trades.on_reply(&mut ctx, &mut desk, peer, &purpose, reply);
                self.apply(now_ms, events);
            }
            Purpose::Register(purpose) => {
                let reply = self.read_reply::<SettleReply>(peer, result, SETTLE_MAX_BYTES);
                self.register.on_reply(&mut self.kernel.context(now_ms), *purpose, &reply);
            }
            Purpose::Holdings(purpose) => {
                let reply = self.read_reply::<SettleReply>(peer, result, SETTLE_MAX_BYTES);
                let mut ctx = self.kernel.context(now_ms);
                self.holdings.on_reply(&mut ctx, &mut self.witness, *purpose, reply);
            }
            Purpose::Lease(purpose) => {
                let reply = self.read_reply::<LeaseReply>(peer, result, LEASE_MAX_BYTES);
                let mut ctx = self.kernel.context(now_ms);
                self.leases.on_reply(&mut ctx, &mut self.holdings, *purpose, reply);
            }
            Purpose::Sync(purpose) => {
                if let Ok(reply) = self.read_reply::<SyncReply>(peer, result, SYNC_MAX_BYTES) {
                    let mut ctx = self.kernel.context(now_ms);
                    let epochs = &mut self.market.epochs;
                    self.sync.on_reply(&mut ctx, epochs, peer, *purpose, reply);
                    self.judge_clock(now_ms);
                }
            }
        }
    }

    fn on_chain(&mut self, now_ms: TimeMs, facts: &ChainFacts) {
        let chain = &mut self.kernel.chain;
        chain.up = true;
        chain.height = facts.height;
        chain.median_time_past_s = facts.median_time_past_s;
        if !facts.feerates.is_empty() {
            chain.feerates.clone_from(&facts.feerates);
        }
        let mut ctx = self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = self.trades.on_chain(&mut ctx, &mut desk, facts);
        self.apply(now_ms, events);
    }

    fn on_command(&mut self, now_ms: TimeMs, id: u64, command: Command) {
        let mut ctx = self.kernel.context(now_ms);
        let result = match command {
            Command::Place(spec) => {
                let placed = self.market.place(&mut ctx, &self.register, *spec);
                Some(placed.map(Done::Placed))
            }
            Command::Cancel(order) => Some(self.market.cancel(&mut ctx, order).map(|()| Done::Ok)),
            Command::SetCapacity(capacity) => {
                self.register.set_capacity_command(&mut ctx, id, &capacity);
                None
            }
            Command::SetAddresses(addrs) => {
                self.contacts.set_own(addrs);
                self.contacts.on_tick(&mut ctx);
                Some(Ok(Done::Ok))
            }
            // These answer later, or at once with a refusal.
            Command::Gift { cert, to } => {
                self.holdings.gift(&mut ctx, id, cert, to);
                None
            }
            Command::Redeem { cert, workload } => {
                self.leases.redeem(&mut ctx, &self.holdings, id, cert, *workload);
                None
            }
            Command::StopLease(lease) => {
                self.leases.stop(&mut ctx, id, lease);
                None
            }
        };
        if let Some(result) = result {
            self.kernel.out.push(Effect::CommandDone { id, result });
        }
    }

    /// Network definition.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.kernel.params
    }

    /// Public identity.
    #[must_use]
    pub fn me(&self) -> Key {
        self.kernel.keys.public()
    }

    /// Chain view.
    #[must_use]
    pub fn chain(&self) -> &ChainView {
        &self.kernel.chain
    }

    /// Unused scripts of the wallet at hand.
    #[must_use]
    pub fn fresh_scripts(&self) -> u16 {
        u16::try_from(self.kernel.wallet.fresh_spks.len()).unwrap_or(u16::MAX)
    }

    /// Coins and what they are reserved for.
    #[must_use]
    pub fn treasury(&self) -> &Treasury {
        &self.kernel.treasury
    }

    /// Standing orders, epochs, results.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Settlements.
    #[must_use]
    pub fn trades(&self) -> &Trades {
        &self.trades
    }

    /// Certificates issued here and the ledger of units.
    #[must_use]
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// Certificates that this node holds or held.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What was heard of providers.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Every signed byte of a certificate held or issued.
    #[must_use]
    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        self.holdings.certificate(id).or_else(|| self.register.certificate(id))
    }

    /// Certificates issued here, then those held, as they are in a slot.
    #[must_use]
    pub fn certificates(&self, slot: Slot) -> Vec<CertificateView> {
        let held = self.holdings.views(self.me(), slot);
        self.register.views(slot).chain(held).collect()
    }

    /// Leases on both sides.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Contacts heard.
    #[must_use]
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// Connected peers.
    #[must_use]
    pub fn peers(&self) -> &BTreeSet<Key> {
        &self.peers
    }

    /// Refused messages by reason code.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, u64> {
        &self.refused
    }

    fn open(&mut self, now_ms: TimeMs, matched: Matched) {
        let ctx = &mut self.kernel.context(now_ms);
        let mut desk = Desk { register: &mut self.register, witness: &self.witness };
        let events = match matched {
            Matched::Buy { row, trade, seller, to, features } => {
                let fee_cap_sat = market::signing::fee_reserve_sat(ctx);
                let limits = BuyLimits { fee_cap_sat, features };
                let purchase = Purchase { seller, to, title: None, limits };
                self.trades.open_buy(ctx, &mut desk, &row, trade, purchase)
            }
            Matched::Sell { row, trade, buyer, units, features } => {
                let goods = Goods::Capacity { units, features };
                self.trades.open_sell(ctx, &mut desk, &row, trade, buyer, goods)
            }
        };
        self.apply(now_ms, events);
    }
}

fn reply(result: Result<SettleReply, &'static str>) -> SettleReply {
    result.unwrap_or_else(|code| SettleReply::Refused { code: code.to_owned() })
}

fn bounded<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, WireError> {
    if bytes.len() > limit {
        return Err(WireError::Oversize);
    }
    decode_record(bytes)
}
