//! A node's disk: what was written before a crash, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{Record, Row, StoreError};
use crate::wallet::{CHAIN_TABLE, Persist};

/// On which side of a write the node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The write does not happen.
    Before,
    /// The write is on disk; nothing that follows it happens.
    After,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    writes: u64,
    kill: Option<(u64, Kill)>,
    dead: bool,
}

/// Shared by the engine's Persist effects and the wallet, as the store is in a node.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one batch, whole or not at all.
    ///
    /// # Errors
    /// The node died at this write, or at an earlier one.
    pub fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut inner = self.inner();
        // What a wallet has seen of the chain it can see again: only promises are counted.
        let counts = records.iter().any(|record| record.table != CHAIN_TABLE);
        let number = inner.writes + u64::from(counts);
        let kill = inner.kill.filter(|(at, _)| counts && *at == number).map(|(_, side)| side);
        if inner.dead || kill == Some(Kill::Before) {
            inner.dead = true;
            return Err(died());
        }
        inner.writes = number;
        for record in records {
            let key = (record.table, record.key.clone());
            match &record.value {
                Some(value) => inner.rows.insert(key, value.clone()),
                None => inner.rows.remove(&key),
            };
        }
        if kill == Some(Kill::After) {
            // The process never learns that its write succeeded.
            inner.dead = true;
            return Err(died());
        }
        Ok(())
    }

    /// Everything on it, as a store hands it to the next life.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let inner = self.inner();
        let row = |((table, key), value): (&(u8, Vec<u8>), &Vec<u8>)| Record {
            table: *table,
            key: key.clone(),
            value: Some(value.clone()),
        };
        inner.rows.iter().map(row).collect()
    }

    /// Batches with promises in them written so far, in all lives.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.inner().writes
    }

    /// Lets the node die at such a write, counted in all lives from 1.
    pub fn kill_at(&self, write: u64, side: Kill) {
        self.inner().kill = Some((write, side));
    }

    /// Whether the node has died at a write.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// The next life may write again.
    pub fn revive(&self) {
        let mut inner = self.inner();
        if inner.dead {
            (inner.dead, inner.kill) = (false, None);
        }
    }
}

fn died() -> StoreError {
    StoreError::Full { path: PathBuf::from("simulated disk") }
}

impl Persist for Disk {
    fn rows(&self, table: u8) -> Result<Vec<Row>, StoreError> {
        let inner = self.inner();
        let from = (table, Vec::new());
        let rows = inner.rows.range(from..).take_while(|((of, _), _)| *of == table);
        Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn persist(&mut self, records: &[Record]) -> Result<(), StoreError> {
        self.write(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{erase, upsert};

    #[test]
    fn a_kill_lets_the_write_happen_or_not_and_nothing_after_it() {
        for (side, kept) in [(Kill::Before, vec![1]), (Kill::After, vec![1, 2])] {
            let disk = Disk::default();
            disk.kill_at(2, side);
            for number in 1..4 {
                let _ = disk.write(&[upsert(1, [number], [number])]);
            }
            assert!(disk.is_dead());
            disk.revive();
            let values: Vec<u8> =
                disk.records().iter().map(|record| record.value.clone().unwrap()[0]).collect();
            assert_eq!(values, kept, "{side:?}");
            disk.write(&[erase(1, [1])]).unwrap();
            assert_eq!(disk.rows(1).unwrap().len(), kept.len() - 1);
        }
    }
}
