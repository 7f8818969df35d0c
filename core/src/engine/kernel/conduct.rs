//! How others have behaved towards this node: what they failed to do, and how long nothing is
//! signed towards them.
//!
//! A counterparty that lets a trade lapse costs the other side fees, coins or units that wait
//! in vain, and itself nothing. So every miss is counted against its key, and against the coins
//! that it showed, and doubles the time for which it is left out: a stranger can do harm once,
//! twice, and then ever more rarely. What is remembered fades again, because keys are free and
//! links fail.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use super::outbox::Outbox;
use super::record::{Cause, Record, Stored, Table, Unreadable, records};
use crate::ids::Key;
use crate::limits::{CONDUCT_MAX, FUND_TERMS_MAX};
use crate::units::TimeMs;

/// Most points: a denial lasts 2^12 epochs at most, four weeks of mainnet.
const POINTS_MAX: u8 = 12;
/// Epochs after a denial that forgive one point, a day of mainnet.
const FORGIVING_EPOCHS: u64 = 144;

/// Something that a counterparty promised with its order, or later, and did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Miss {
    /// No good terms came in time.
    Terms,
    /// No good lock came in time.
    Lock,
    /// The funding was shown and not acknowledged: its payer had to take it back.
    Acknowledgement,
    /// A lock stood, and no funding confirmed.
    Funding,
    /// The payment was not claimed: its payer had to wait for the refund.
    Claim,
    /// Paid, and the certificate did not come.
    Default,
    /// A certificate was not split in time for a sale of a part.
    Split,
}

impl Miss {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Terms,
        Self::Lock,
        Self::Acknowledgement,
        Self::Funding,
        Self::Claim,
        Self::Default,
        Self::Split,
    ];

    /// Name for people and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Terms => "terms",
            Self::Lock => "lock",
            Self::Acknowledgement => "acknowledgement",
            Self::Funding => "funding",
            Self::Claim => "claim",
            Self::Default => "default",
            Self::Split => "split",
        }
    }

    /// Doublings of the denial: by what it costs the other side. Nothing but a moment; units
    /// that wait for a while; two fees; two fees and hours of locked coins; the price.
    fn points(self) -> u8 {
        match self {
            Self::Terms | Self::Lock | Self::Split => 1,
            Self::Funding => 2,
            Self::Acknowledgement => 3,
            Self::Claim => 6,
            Self::Default => 9,
        }
    }
}

/// Against whom a miss is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Key(Key),
    /// A coin that was to fund a lock and did not: its owner may have many keys.
    Coin(OutPoint),
}

impl Subject {
    fn record_key(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => key.0.to_vec(),
            Self::Coin(coin) => [&coin.txid.to_byte_array()[..], &coin.vout.to_be_bytes()].concat(),
        }
    }

    fn from_record(record: &Record) -> Result<Self, Unreadable> {
        if let Ok(key) = record.key_array::<32>() {
            return Ok(Self::Key(Key(key)));
        }
        let bytes = record.key_array::<36>()?;
        let (txid, vout) = bytes.split_at(32);
        let txid = txid.try_into().map_err(|_| record.unreadable(Cause::Key))?;
        let vout = vout.try_into().map_err(|_| record.unreadable(Cause::Key))?;
        let coin = OutPoint::new(Txid::from_byte_array(txid), u32::from_be_bytes(vout));
        Ok(Self::Coin(coin))
    }
}

/// What is remembered of one subject, as a record keeps it; its key is a key, or the txid and
/// output of a coin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConductV1 {
    /// When the denial ends, unix ms.
    until_ms: TimeMs,
    /// Doublings of the next denial, as of its end.
    points: u8,
    /// Misses by kind, since it is remembered.
    counts: BTreeMap<Miss, u32>,
    /// The last fundings that missed something, at most [`FUND_TERMS_MAX`]: one pays for several
    /// trades, which end one after the other.
    fundings: Vec<[u8; 32]>,
}

impl Stored for ConductV1 {
    const TABLE: Table = Table::Conduct;
}

impl ConductV1 {
    /// What time has left of the points.
    fn points_at(&self, now_ms: TimeMs, epoch_ms: u64) -> u8 {
        let forgiven = now_ms.saturating_sub(self.until_ms) / (FORGIVING_EPOCHS * epoch_ms).max(1);
        self.points.saturating_sub(u8::try_from(forgiven).unwrap_or(u8::MAX))
    }
}

/// For how long a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// Until a time, unix ms.
    Until(TimeMs),
    /// It was proven to have signed what contradicts itself.
    ForGood,
}

/// Misses of all counterparties, and who is convicted.
#[derive(Debug, Default)]
pub struct Conduct {
    known: BTreeMap<Subject, ConductV1>,
    equivocators: BTreeSet<Key>,
}

impl Conduct {
    /// Takes its records back after a restart.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn load(&mut self, all: &[Record]) -> Result<(), Unreadable> {
        for found in records::<ConductV1>(all) {
            let (record, known) = found?;
            self.known.insert(Subject::from_record(record)?, known);
        }
        Ok(())
    }

    /// Counts a miss; one of a funding once, for however many trades it was to pay.
    pub fn miss(
        &mut self,
        out: &mut Outbox,
        now_ms: TimeMs,
        epoch_ms: u64,
        (subject, funding): (Subject, Option<Txid>),
        miss: Miss,
    ) {
        let known = self.known.entry(subject).or_default();
        if let Some(funding) = funding.map(|txid| txid.to_byte_array()) {
            if known.fundings.contains(&funding) {
                return;
            }
            known.fundings.push(funding);
            let surplus = known.fundings.len().saturating_sub(FUND_TERMS_MAX);
            known.fundings.drain(..surplus);
        }
        let points = known.points_at(now_ms, epoch_ms).saturating_add(miss.points());
        known.points = points.min(POINTS_MAX);
        let denied_ms = epoch_ms.saturating_mul(1 << known.points);
        known.until_ms = known.until_ms.max(now_ms.saturating_add(denied_ms));
        let count = known.counts.entry(miss).or_default();
        *count = count.saturating_add(1);
        out.store(&subject.record_key(), known);
        self.make_room(out, &subject);
    }

    /// Forgets whose denial ends first, while there are too many.
    fn make_room(&mut self, out: &mut Outbox, newcomer: &Subject) {
        while self.known.len() > CONDUCT_MAX {
            let others = self.known.iter().filter(|(subject, _)| *subject != newcomer);
            let mildest = others.map(|(subject, known)| (known.until_ms, *subject)).min();
            let Some((_, mildest)) = mildest else { return };
            self.forget(out, &mildest);
        }
    }

    fn forget(&mut self, out: &mut Outbox, subject: &Subject) -> bool {
        let was_known = self.known.remove(subject).is_some();
        if was_known {
            out.delete(Table::Conduct, &subject.record_key());
        }
        was_known
    }

    /// A trade came true: that takes one point off.
    pub fn kept(&mut self, out: &mut Outbox, now_ms: TimeMs, epoch_ms: u64, key: Key) {
        let subject = Subject::Key(key);
        let Some(known) = self.known.get_mut(&subject) else { return };
        known.points = known.points_at(now_ms, epoch_ms).saturating_sub(1);
        if known.points == 0 {
            self.forget(out, &subject);
        } else {
            known.until_ms = known.until_ms.max(now_ms);
            out.store(&subject.record_key(), known);
        }
    }

    /// Forgets the misses of a key because its owner's counterparty says so. False if there
    /// are none.
    pub fn forgive(&mut self, out: &mut Outbox, key: Key) -> bool {
        self.forget(out, &Subject::Key(key))
    }

    /// Drops what time has forgiven: the time that has passed for certain, since a clock that is
    /// ahead would forgive everybody. A denial that is longer than any was meant by a clock that
    /// was ahead: it lasts for as long as its points say, from now on.
    pub fn fade(&mut self, out: &mut Outbox, now_ms: TimeMs, past_ms: TimeMs, epoch_ms: u64) {
        let longest_ms = epoch_ms.saturating_mul(1 << POINTS_MAX);
        for (subject, known) in &mut self.known {
            if known.until_ms > now_ms.saturating_add(longest_ms) {
                known.until_ms = now_ms.saturating_add(epoch_ms.saturating_mul(1 << known.points));
                out.store(&subject.record_key(), known);
            }
        }
        let faded = |known: &ConductV1| known.points_at(past_ms, epoch_ms) == 0;
        let gone = self.known.iter().filter(|(_, known)| faded(known));
        let gone: Vec<Subject> = gone.map(|(subject, _)| *subject).collect();
        for subject in gone {
            self.forget(out, &subject);
        }
    }

    /// A key was proven to have contradicted itself: it is left out for as long as the proof is
    /// kept.
    pub fn convict(&mut self, key: Key) {
        self.equivocators.insert(key);
    }

    /// The proof against a key was forgotten, so that those who may have been convicted are never
    /// more than the proofs.
    pub fn acquit(&mut self, key: &Key) {
        self.equivocators.remove(key);
    }

    /// How long a key is left out, if it is.
    #[must_use]
    pub fn denial(&self, now_ms: TimeMs, key: &Key) -> Option<Denial> {
        if self.equivocators.contains(key) {
            return Some(Denial::ForGood);
        }
        let until_ms = self.known.get(&Subject::Key(*key))?.until_ms;
        (until_ms > now_ms).then_some(Denial::Until(until_ms))
    }

    /// Whether a coin is refused.
    #[must_use]
    pub fn is_coin_denied(&self, now_ms: TimeMs, coin: OutPoint) -> bool {
        self.known.get(&Subject::Coin(coin)).is_some_and(|known| known.until_ms > now_ms)
    }

    /// Keys that are left out now and may matter, the worst first: those that trade before
    /// those that do not, for good before for long.
    #[must_use]
    pub fn denied(&self, now_ms: TimeMs, is_trader: impl Fn(&Key) -> bool) -> Vec<Key> {
        let keys: BTreeSet<Key> = self.keys().chain(self.equivocators.iter().copied()).collect();
        let mut worst: Vec<(bool, Denial, Key)> = keys
            .into_iter()
            .filter_map(|key| Some((is_trader(&key), self.denial(now_ms, &key)?, key)))
            .collect();
        worst.sort_unstable_by(|a, b| (b.0, b.1, a.2).cmp(&(a.0, a.1, b.2)));
        worst.into_iter().map(|(_, _, key)| key).collect()
    }

    /// Keys with misses.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.known.keys().filter_map(|subject| match subject {
            Subject::Key(key) => Some(*key),
            Subject::Coin(_) => None,
        })
    }

    /// Misses of a key by kind, since it is remembered.
    #[must_use]
    pub fn misses(&self, key: &Key) -> Option<&BTreeMap<Miss, u32>> {
        self.known.get(&Subject::Key(*key)).map(|known| &known.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH_MS: u64 = 2_000;
    const NOW_MS: TimeMs = 1_800_000_000_000;

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    /// A key, and no funding.
    fn by(n: u8) -> (Subject, Option<Txid>) {
        (Subject::Key(key(n)), None)
    }

    fn coin(n: u32) -> OutPoint {
        OutPoint::new(Txid::from_byte_array([7; 32]), n)
    }

    /// What happens, epochs after the last.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Missed(Miss),
        Kept,
        Epochs(u64),
        Forgiven,
        Restart,
    }
    use Step::{Epochs, Forgiven, Kept, Missed, Restart};

    fn written(out: &mut Outbox) -> Vec<Record> {
        out.flush();
        let mut all = Vec::new();
        while let Some(effect) = out.poll() {
            if let crate::engine::Effect::Persist { records, .. } = effect {
                all.extend(records);
            }
        }
        all
    }

    #[test]
    fn each_miss_doubles_the_denial_and_time_forgives() {
        let terms = Missed(Miss::Terms);
        // steps, epochs for which it is still left out
        let table: &[(&[Step], Option<u64>)] = &[
            (&[], None),
            (&[terms], Some(2)),
            (&[terms, Epochs(2)], None),
            (&[terms, terms], Some(4)),
            (&[Missed(Miss::Lock)], Some(2)),
            (&[Missed(Miss::Funding)], Some(4)),
            (&[Missed(Miss::Acknowledgement)], Some(8)),
            (&[Missed(Miss::Claim)], Some(64)),
            (&[Missed(Miss::Default)], Some(512)),
            (&[Missed(Miss::Acknowledgement), Epochs(8), Missed(Miss::Acknowledgement)], Some(64)),
            (&[Missed(Miss::Default), Missed(Miss::Default)], Some(4096)),
            (&[Missed(Miss::Default), Missed(Miss::Default), Missed(Miss::Default)], Some(4096)),
            // A later and milder one never shortens it.
            (&[Missed(Miss::Default), Epochs(500), terms], Some(1024)),
            // One point fades in 144 epochs after the denial.
            (&[terms, terms, Epochs(4 + 143), terms], Some(8)),
            (&[terms, terms, Epochs(4 + 144), terms], Some(4)),
            (&[terms, terms, Epochs(4 + 288), terms], Some(2)),
            (&[terms, Kept, terms], Some(2)),
            (&[Missed(Miss::Claim), Epochs(64), Kept, terms], Some(64)),
            (&[Missed(Miss::Claim), Forgiven], None),
            (&[Missed(Miss::Claim), Epochs(60), Restart], Some(4)),
            (&[Missed(Miss::Claim), Forgiven, Restart], None),
            (&[terms, Epochs(1000), Restart], None),
        ];
        for (steps, expected) in table {
            let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
            let mut disk: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
            let mut now_ms = NOW_MS;
            for step in *steps {
                match *step {
                    Missed(miss) => {
                        conduct.miss(
                            &mut out,
                            now_ms,
                            EPOCH_MS,
                            (Subject::Key(key(1)), None),
                            miss,
                        );
                    }
                    Kept => conduct.kept(&mut out, now_ms, EPOCH_MS, key(1)),
                    Epochs(epochs) => {
                        now_ms += epochs * EPOCH_MS;
                        conduct.fade(&mut out, now_ms, now_ms, EPOCH_MS);
                    }
                    Forgiven => assert!(conduct.forgive(&mut out, key(1))),
                    Restart => {
                        for record in written(&mut out) {
                            disk.insert(record.key.clone(), record);
                        }
                        let records: Vec<Record> = disk
                            .values()
                            .filter(|record| record.value.is_some())
                            .cloned()
                            .collect();
                        conduct = Conduct::default();
                        conduct.load(&records).unwrap();
                    }
                }
            }
            let left = conduct.denial(now_ms, &key(1)).map(|denial| match denial {
                Denial::Until(until_ms) => (until_ms - now_ms).div_ceil(EPOCH_MS),
                Denial::ForGood => u64::MAX,
            });
            assert_eq!(left, *expected, "{steps:?}");
        }
    }

    #[test]
    fn a_clock_that_was_ahead_once_neither_forgives_everybody_nor_denies_for_years() {
        let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
        let year_ms = 365 * 86_400_000;
        conduct.miss(&mut out, NOW_MS, EPOCH_MS, by(1), Miss::Claim);
        conduct.miss(&mut out, NOW_MS + year_ms, EPOCH_MS, by(2), Miss::Claim);
        conduct.fade(&mut out, NOW_MS + year_ms, NOW_MS, EPOCH_MS);
        conduct.fade(&mut out, NOW_MS, NOW_MS, EPOCH_MS);
        let expected = Some(Denial::Until(NOW_MS + 64 * EPOCH_MS));
        for number in [1, 2] {
            assert_eq!(conduct.denial(NOW_MS, &key(number)), expected, "{number}");
        }
        let mut again = Conduct::default();
        again.load(&written(&mut out)).unwrap();
        assert_eq!(again.denial(NOW_MS, &key(2)), expected, "in the next life too");
    }

    #[test]
    fn the_worst_come_first_and_those_that_trade_before_them() {
        let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
        for (n, miss) in [(1, Miss::Terms), (2, Miss::Claim), (3, Miss::Lock), (4, Miss::Default)] {
            conduct.miss(&mut out, NOW_MS, EPOCH_MS, by(n), miss);
        }
        conduct.miss(&mut out, NOW_MS, EPOCH_MS, (Subject::Coin(coin(1)), None), Miss::Funding);
        conduct.convict(key(5));
        conduct.convict(key(6));
        let denied = conduct.denied(NOW_MS, |found| *found != key(6) && *found != key(4));
        assert_eq!(denied, [5, 2, 1, 3, 6, 4].map(key));
        assert_eq!(conduct.denial(NOW_MS, &key(6)), Some(Denial::ForGood));
        assert!(
            conduct.is_coin_denied(NOW_MS, coin(1)) && !conduct.is_coin_denied(NOW_MS, coin(2))
        );
        let later_ms = NOW_MS + 4 * EPOCH_MS;
        assert!(!conduct.is_coin_denied(later_ms, coin(1)));
        assert_eq!(conduct.denied(later_ms, |_| true), [5, 6, 4, 2].map(key));
    }

    /// In the next life too.
    #[test]
    fn a_funding_that_was_to_pay_several_trades_is_missed_once() {
        let coins = [Subject::Key(key(1)), Subject::Coin(coin(1)), Subject::Coin(coin(2))];
        let txid = |n: u8| Some(Txid::from_byte_array([n; 32]));
        let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
        for life in 0..2 {
            for subject in coins {
                for funding in [1, 2, 1, 2] {
                    let by = (subject, txid(funding));
                    conduct.miss(&mut out, NOW_MS, EPOCH_MS, by, Miss::Funding);
                }
                assert_eq!(conduct.known[&subject].counts[&Miss::Funding], 2, "{life} {subject:?}");
            }
            let disk = written(&mut out);
            if life == 0 {
                let last = |record: &Record| disk.iter().rposition(|r| r.key == record.key);
                let is_last = |(at, record): &(usize, &Record)| last(record) == Some(*at);
                let disk: Vec<Record> =
                    disk.iter().enumerate().filter(is_last).map(|(_, r)| r.clone()).collect();
                conduct = Conduct::default();
                conduct.load(&disk).unwrap();
            }
        }
        for n in 3..100 {
            conduct.miss(&mut out, NOW_MS, EPOCH_MS, (coins[0], txid(n)), Miss::Funding);
        }
        assert_eq!(conduct.known[&coins[0]].fundings.len(), FUND_TERMS_MAX);
    }

    #[test]
    fn a_full_table_forgets_the_mildest_and_never_the_newest() {
        let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
        let subject = |n: usize| Subject::Coin(coin(u32::try_from(n).unwrap()));
        conduct.miss(&mut out, NOW_MS, EPOCH_MS, by(1), Miss::Default);
        for n in 0..CONDUCT_MAX + 10 {
            conduct.miss(&mut out, NOW_MS + n as u64, EPOCH_MS, (subject(n), None), Miss::Terms);
        }
        assert_eq!(conduct.known.len(), CONDUCT_MAX);
        assert!(conduct.denial(NOW_MS, &key(1)).is_some());
        assert!(conduct.known.contains_key(&subject(CONDUCT_MAX + 9)));
        assert!(!conduct.known.contains_key(&subject(0)));
        let gone = written(&mut out).iter().filter(|record| record.value.is_none()).count();
        assert_eq!(gone, 11, "from the store too");
    }

    #[test]
    fn the_record_has_a_frozen_form() {
        let counts = BTreeMap::from([(Miss::Terms, 1), (Miss::Default, 2)]);
        let fundings = vec![[6; 32]];
        let known = ConductV1 { until_ms: 0x0102, points: 9, counts, fundings };
        let record = Record::store(&Subject::Key(key(3)).record_key(), &known).unwrap();
        let value = [
            &[1][..],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[9],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 5, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[6; 32],
        ];
        assert_eq!((record.table, record.value.as_deref()), (18, Some(&value.concat()[..])));
        assert_eq!(record.load(), Ok(known));
    }

    #[test]
    fn records_of_keys_and_coins_come_back_and_others_are_refused() {
        for subject in [Subject::Key(key(3)), Subject::Coin(coin(9))] {
            let record = Record::store(&subject.record_key(), &ConductV1::default()).unwrap();
            assert_eq!(Subject::from_record(&record), Ok(subject));
        }
        let record = Record::store(&[1; 35], &ConductV1::default()).unwrap();
        assert_eq!(Subject::from_record(&record), Err(record.unreadable(Cause::Key)));
    }
}
