//! Counters, and the salts that make what is derived from them this life's own.
//!
//! Keys and nonces follow from a journaled index, so that nothing random has to be kept. An old
//! copy of a data directory would count through the same indices again; therefore each life
//! that derives anything mixes in 32 random bytes from the shell, journaled before the first
//! use. An index says which life it belongs to, so that the keys of an open trade are found in
//! every later life.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::outbox::Outbox;
use super::record::{Cause, Record, Stored, Table, Unreadable, records};

/// Bits of an index that count within a counter: 10^12 derivations, and 16 million lives.
const NUMBER_BITS: u32 = 40;

/// A counter by its name, as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterV1(pub u64);

impl Stored for CounterV1 {
    const TABLE: Table = Table::Counter;
}

/// The salt of a life by its number, as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaltV1(pub [u8; 32]);

impl Stored for SaltV1 {
    const TABLE: Table = Table::Salt;
}

/// Named counters that only rise, and the salts of the lives that derived something.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    values: BTreeMap<String, u64>,
    salts: BTreeMap<u64, [u8; 32]>,
    /// Random bytes of this life.
    salt: [u8; 32],
    /// Number of this life, once it has derived something.
    life: Option<u64>,
}

impl Counters {
    /// Restores what the journal holds, for a life with these random bytes.
    ///
    /// # Errors
    /// The first record that cannot be read.
    pub fn load(all: &[Record], salt: [u8; 32]) -> Result<Self, Unreadable> {
        let mut counters = Self { salt, ..Self::default() };
        for found in records::<CounterV1>(all) {
            let (record, CounterV1(value)) = found?;
            let name = String::from_utf8(record.key.clone());
            counters.values.insert(name.map_err(|_| record.unreadable(Cause::Key))?, value);
        }
        for found in records::<SaltV1>(all) {
            let (record, SaltV1(salt)) = found?;
            counters.salts.insert(u64::from_be_bytes(record.key_array()?), salt);
        }
        Ok(counters)
    }

    /// Keeps the salts of lives whose indices are still in use, and forgets the others.
    ///
    /// # Errors
    /// The salt of an index in use is not there: what it derived cannot be derived again.
    pub fn keep_salts(
        &mut self,
        out: &mut Outbox,
        indices: impl IntoIterator<Item = u64>,
    ) -> Result<(), Unreadable> {
        let used: BTreeSet<u64> = indices.into_iter().map(life_of).collect();
        if let Some(missing) = used.iter().find(|life| !self.salts.contains_key(life)) {
            let (table, key) = (Table::Salt.number(), missing.to_be_bytes().to_vec());
            return Err(Unreadable { table, key, cause: Cause::Missing });
        }
        // The number of the latest life is taken, whether it is in use or not.
        let latest = self.salts.last_key_value().map(|(life, _)| *life);
        self.salts.retain(|life, _| {
            let stays = used.contains(life) || Some(*life) == latest;
            if !stays {
                out.delete(Table::Salt, &life.to_be_bytes());
            }
            stays
        });
        Ok(())
    }

    /// A counter's value.
    #[must_use]
    pub(super) fn value(&self, counter: &str) -> u64 {
        self.values.get(counter).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, out: &mut Outbox, counter: &str, value: u64) {
        self.values.insert(counter.to_owned(), value);
        out.store(counter.as_bytes(), &CounterV1(value));
    }

    /// The next number of a counter.
    pub(super) fn next(&mut self, out: &mut Outbox, counter: &str) -> u64 {
        let next = self.value(counter).saturating_add(1);
        self.set(out, counter, next);
        next
    }

    /// The next index to derive something from, which names this life too.
    pub(super) fn next_index(&mut self, out: &mut Outbox, counter: &str) -> u64 {
        let life = self.life.unwrap_or_else(|| {
            let life = self.salts.last_key_value().map_or(0, |(life, _)| life.saturating_add(1));
            self.salts.insert(life, self.salt);
            out.store(&life.to_be_bytes(), &SaltV1(self.salt));
            life
        });
        self.life = Some(life);
        let number = self.next(out, counter) & ((1 << NUMBER_BITS) - 1);
        (life << NUMBER_BITS) + number
    }

    /// The salt for an index. [`Counters::keep_salts`] guarantees that the salt of an
    /// index in use is there.
    pub(super) fn salt(&self, index: u64) -> [u8; 32] {
        self.salts.get(&life_of(index)).copied().unwrap_or_default()
    }
}

fn life_of(index: u64) -> u64 {
    index >> NUMBER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::io::Effect;
    use crate::engine::kernel::Keys;

    const KEYS: &str = "settlement";

    fn written(out: &mut Outbox) -> Vec<Record> {
        out.flush();
        let Some(Effect::Persist { records, .. }) = out.poll() else { return Vec::new() };
        records
    }

    /// The journal after some more records.
    fn merged(journal: &[Record], more: Vec<Record>) -> Vec<Record> {
        let at = |record: Record| ((record.table, record.key.clone()), record);
        let all: BTreeMap<_, _> = journal.iter().cloned().chain(more).map(at).collect();
        all.into_values().filter(|record| record.value.is_some()).collect()
    }

    #[test]
    fn lives_of_one_copied_journal_derive_different_secrets() {
        let keys = Keys::new([1; 32], [2; 32]);
        let mut out = Outbox::default();
        let mut first = Counters::load(&[], [7; 32]).unwrap();
        let index = first.next_index(&mut out, KEYS);
        let secret = keys.secret("x", first.salt(index), index);
        let journal = written(&mut out);
        let salted = journal.iter().any(|record| record.table == Table::Salt.number());
        assert!(salted, "the salt is on disk before anything derived from it leaves");
        let mut seen = vec![(index, secret)];
        for salt in [[8; 32], [9; 32]] {
            let mut life = Counters::load(&journal, salt).unwrap();
            assert_eq!(keys.secret("x", life.salt(index), index), secret, "found again");
            let index = life.next_index(&mut out, KEYS);
            seen.push((index, keys.secret("x", life.salt(index), index)));
        }
        assert_eq!(seen[1].0, seen[2].0, "both copies count alike");
        assert_ne!(seen[1].1, seen[2].1, "and derive apart");
        assert!(seen[0].0 != seen[1].0 && seen[0].1 != seen[1].1);
    }

    #[test]
    fn salts_in_use_outlive_those_that_are_not() {
        let mut out = Outbox::default();
        let mut journal = Vec::new();
        let mut indices = Vec::new();
        for life in 1..=4 {
            let mut counters = Counters::load(&journal, [life; 32]).unwrap();
            indices.push(counters.next_index(&mut out, KEYS));
            journal = merged(&journal, written(&mut out));
        }
        let mut last = Counters::load(&journal, [5; 32]).unwrap();
        last.keep_salts(&mut out, [indices[1]]).unwrap();
        journal = merged(&journal, written(&mut out));
        let mut later = Counters::load(&journal, [6; 32]).unwrap();
        let salts = indices.iter().map(|index| later.salt(*index)[0]);
        assert_eq!(salts.collect::<Vec<_>>(), [0, 2, 0, 4], "life 2 is in use, 4 was the last");
        assert!(later.next_index(&mut out, KEYS) >> NUMBER_BITS == 4, "no number comes twice");
        let missing = later.keep_salts(&mut out, [indices[0]]).unwrap_err();
        assert_eq!((missing.table, missing.cause), (Table::Salt.number(), Cause::Missing));
    }

    #[test]
    fn a_life_that_derives_nothing_leaves_no_salt() {
        let mut out = Outbox::default();
        let mut counters = Counters::load(&[], [7; 32]).unwrap();
        counters.next(&mut out, "order.nonce");
        let tables: Vec<u8> = written(&mut out).iter().map(|record| record.table).collect();
        assert_eq!(tables, [Table::Counter.number()]);
    }
}
