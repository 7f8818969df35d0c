//! What every part of the engine works with: time, parameters, keys, chain view, outbox.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{All, Secp256k1};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::io::{Effect, Event, Protocol};
use super::record::{Cause, Record, RecordTooLarge, Stored, Table, Unreadable, records};
use crate::ids::{CertId, Key, LeaseId, StandingId, TradeId};
use crate::limits::REQUESTS_PENDING_MAX;
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Object, Verified, sign};

/// The engine's signing keys. Single-use secrets come by HMAC from one hardened wallet
/// child and an index that is journaled first, so the engine needs no randomness
/// (DESIGN §13).
pub struct Keys {
    identity: SigningKey,
    settlement: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.public())
    }
}

impl Keys {
    /// From the identity secret and the private key of m/7268'/coin'/0'.
    #[must_use]
    pub fn new(identity: [u8; 32], settlement: [u8; 32]) -> Self {
        Self { identity: SigningKey::from_bytes(&identity), settlement }
    }

    /// Public identity.
    #[must_use]
    pub fn public(&self) -> Key {
        Key(self.identity.verifying_key().to_bytes())
    }

    /// Signs an object as this node.
    #[must_use]
    pub fn sign<T: Object>(&self, value: T, params: &Params) -> Verified<T> {
        sign(value, params.magic, &self.identity)
    }

    /// `HMAC-SHA256(settlement key, label ‖ u64be(index))`.
    #[must_use]
    pub fn secret(&self, label: &str, index: u64) -> [u8; 32] {
        // HMAC takes a key of any length, so this construction can not fail.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.settlement)
            .expect("HMAC accepts a key of any length");
        mac.update(label.as_bytes());
        mac.update(&index.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// The chain as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainView {
    /// Whether a source delivers facts now; without one nothing is spent or signed that
    /// leads to spending.
    pub up: bool,
    /// Height of the best block.
    pub height: u32,
    /// Median time past, unix s.
    pub median_time_past_s: u32,
    /// (target, sat per 1,000 vB), ascending by target.
    pub feerates: Vec<(u16, u64)>,
}

impl ChainView {
    /// Fee rate to confirm within a number of chain blocks, sat per 1,000 vB: that of the
    /// longest target not above it, never below 1 sat/vB.
    #[must_use]
    pub fn feerate_sat_kvb(&self, blocks: u32) -> u64 {
        let fits = |(target, _): &&(u16, u64)| u32::from(*target) <= blocks.max(2);
        let found = self.feerates.iter().rev().find(fits).or_else(|| self.feerates.first());
        found.map_or(1000, |(_, rate)| (*rate).max(1000))
    }
}

/// What a request of ours was about, to route its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Buyer waits for Terms.
    Terms(TradeId),
    /// Buyer waits for the LockGrant.
    Accept(TradeId),
    /// Buyer waits for the FundAck.
    Fund(TradeId),
    /// Buyer waits for the Activation of a sale.
    Transfer(TradeId),
    /// Buyer told the provider that it gave up.
    Cancel(TradeId),
    /// Giver waits for the Activation; the command to answer.
    Gift(CertId, Option<u64>),
    /// A certificate was pushed to its new holder.
    Push(CertId),
    /// Waits for a whole certificate.
    GetCert(CertId),
    /// Holder waits for a challenge; the command to answer.
    Challenge(CertId, u64),
    /// Holder waits for its lease; the command to answer.
    Redeem(LeaseId, u64),
    /// Holder told the provider to stop; the command to answer.
    StopLease(LeaseId, u64),
    /// Holder sent a countersignature of receipt number `.1`.
    Countersign(LeaseId, u32),
    /// A peer was asked for its order ids of an epoch.
    SyncIds(u64, Key),
    /// A peer was asked for orders of an epoch.
    SyncOrders(u64, Key),
}

/// Effects in order, with the records that must be on disk before them.
#[derive(Debug, Default)]
pub struct Outbox {
    effects: VecDeque<Effect>,
    records: Vec<Record>,
    persist_seq: u64,
    next_request: u64,
    pending: BTreeMap<u64, (Key, Purpose)>,
}

impl Outbox {
    /// Records an upsert, to be on disk before the next effect leaves. One that could not be
    /// read back is left out, and that is news.
    pub fn put<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) {
        self.keep(Record::put(table, key, value));
    }

    /// As [`Outbox::put`], of a stored form.
    pub fn store<S: Stored>(&mut self, key: &[u8], value: &S) {
        self.keep(Record::store(key, value));
    }

    fn keep(&mut self, record: Result<Record, RecordTooLarge>) {
        match record {
            Ok(record) => self.records.push(record),
            Err(RecordTooLarge { table, bytes }) => {
                self.notify(Event::RecordRefused { table, bytes });
            }
        }
    }

    /// Records a deletion.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.records.push(Record::delete(table, key));
    }

    /// Queues an effect behind everything recorded so far.
    pub fn push(&mut self, effect: Effect) {
        self.flush();
        self.effects.push_back(effect);
    }

    /// Queues news. News never waits for the disk, since it changes nothing outside.
    pub fn notify(&mut self, event: Event) {
        self.effects.push_back(Effect::Notify(event));
    }

    /// Asks a peer. False if too many requests wait already: the caller's timer tries again.
    pub fn send<T: Serialize>(
        &mut self,
        key: Key,
        protocol: Protocol,
        message: &T,
        purpose: Purpose,
    ) -> bool {
        if self.pending.len() >= REQUESTS_PENDING_MAX {
            return false;
        }
        self.next_request += 1;
        let id = self.next_request;
        self.pending.insert(id, (key, purpose));
        self.push(Effect::Send { id, key, protocol, bytes: crate::wire::encode(message) });
        true
    }

    /// What an answer is about; once per request.
    pub fn take_purpose(&mut self, id: u64) -> Option<Purpose> {
        self.take_request(id).map(|(_, purpose)| purpose)
    }

    /// Whom a request asked, and about what; once per request.
    pub fn take_request(&mut self, id: u64) -> Option<(Key, Purpose)> {
        self.pending.remove(&id)
    }

    /// Turns what was recorded into a Persist.
    pub fn flush(&mut self) {
        if self.records.is_empty() {
            return;
        }
        self.persist_seq += 1;
        let records = std::mem::take(&mut self.records);
        self.effects.push_back(Effect::Persist { seq: self.persist_seq, records });
    }

    /// Forgets every effect and record that waits.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.records.clear();
    }

    /// Next effect.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

/// Fresh scripts of the wallet and what it can spend.
#[derive(Debug, Clone, Default)]
pub struct WalletView {
    /// Spendable, sat.
    pub spendable_sat: u64,
    /// Unused scripts; taken from the front.
    pub fresh_spks: VecDeque<ScriptBuf>,
}

/// A counter by its name, as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterV1(pub u64);

impl Stored for CounterV1 {
    const TABLE: Table = Table::Counter;
}

/// Reads the counters of an earlier life.
///
/// # Errors
/// The first that cannot be read.
pub fn load_counters(all: &[Record]) -> Result<BTreeMap<String, u64>, Unreadable> {
    records::<CounterV1>(all)
        .map(|found| {
            let (record, CounterV1(value)) = found?;
            let name = String::from_utf8(record.key.clone());
            Ok((name.map_err(|_| record.unreadable(Cause::Key))?, value))
        })
        .collect()
}

/// Everything that a part of the engine may use while it handles one input.
#[derive(Debug)]
pub struct Context<'a> {
    /// Unix ms.
    pub now_ms: TimeMs,
    /// Network definition.
    pub params: &'a Params,
    /// Signing keys.
    pub keys: &'a Keys,
    /// Verification and signing context of secp256k1, made once.
    pub secp: &'a Secp256k1<All>,
    /// Chain view.
    pub chain: &'a ChainView,
    /// Wallet view.
    pub wallet: &'a mut WalletView,
    /// Counters by name; changed through [`Context::next_index`].
    pub counters: &'a mut BTreeMap<String, u64>,
    /// Where effects go.
    pub out: &'a mut Outbox,
}

impl Context<'_> {
    /// The next number of a counter, journaled before anything derived from it leaves.
    pub fn next_index(&mut self, counter: &str) -> u64 {
        let next = self.counters.get(counter).copied().unwrap_or(0).saturating_add(1);
        self.set_counter(counter, next);
        next
    }

    /// Sets a counter.
    pub fn set_counter(&mut self, counter: &str, value: u64) {
        self.counters.insert(counter.to_owned(), value);
        self.out.store(counter.as_bytes(), &CounterV1(value));
    }

    /// A counter's value.
    #[must_use]
    pub fn counter(&self, counter: &str) -> u64 {
        self.counters.get(counter).copied().unwrap_or(0)
    }

    /// 32 fresh pseudorandom bytes.
    pub fn fresh(&mut self, label: &str) -> [u8; 32] {
        let index = self.next_index(label);
        self.keys.secret(label, index)
    }

    /// Public identity of this node.
    #[must_use]
    pub fn me(&self) -> Key {
        self.keys.public()
    }

    /// Sign an object as this node.
    #[must_use]
    pub fn sign<T: Object>(&self, value: T) -> Verified<T> {
        self.keys.sign(value, self.params)
    }

    /// Id for a new standing order.
    pub fn fresh_standing_id(&mut self) -> StandingId {
        StandingId(self.fresh("standing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RECORD_MAX_BYTES;

    #[test]
    fn a_record_that_could_not_be_read_back_is_news_and_the_rest_is_written() {
        let mut out = Outbox::default();
        out.put(Table::Counter, b"a", &1_u64);
        out.put(Table::Epoch, b"b", &vec![0_u8; RECORD_MAX_BYTES]);
        out.put(Table::Counter, b"c", &2_u64);
        out.flush();
        let told = out.poll();
        assert!(
            matches!(
                told,
                Some(Effect::Notify(Event::RecordRefused { table: Table::Epoch, bytes }))
                    if bytes > RECORD_MAX_BYTES
            ),
            "{told:?}"
        );
        let Some(Effect::Persist { records, .. }) = out.poll() else { panic!("nothing written") };
        let keys: Vec<&[u8]> = records.iter().map(|record| record.key.as_slice()).collect();
        assert_eq!(keys, [b"a", b"c"]);
    }
}
