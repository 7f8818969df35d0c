//! Effects in order, and what the answers to them are about.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::record::{Record, RecordTooLarge, Stored, Table};
use crate::engine::io::{Effect, Event, Protocol};
use crate::engine::messages::Purpose;
use crate::ids::Key;
use crate::limits::REQUESTS_PENDING_MAX;

/// What concerns no component alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelNews {
    /// A record was not written, since it could not be read back.
    RecordRefused { table: Table, bytes: usize },
    /// A peer sent what its bytes alone prove wrong.
    Refused { peer: Key, code: String },
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
    pub fn store<S: Stored>(&mut self, key: &[u8], value: &S) {
        match Record::store(key, value) {
            Ok(record) => self.records.push(record),
            Err(RecordTooLarge { table, bytes }) => {
                self.notify(KernelNews::RecordRefused { table, bytes });
            }
        }
    }

    /// Records what was encoded elsewhere.
    pub fn extend(&mut self, records: Vec<Record>) {
        self.records.extend(records);
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

    /// Queues an effect that stays inside the machine: it does not wait for the disk, and what
    /// was recorded so far is written together with what follows.
    pub fn push_inside(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Queues news. News never waits for the disk, since it changes nothing outside.
    pub fn notify(&mut self, news: impl Into<Event>) {
        self.effects.push_back(Effect::Notify(news.into()));
    }

    /// Asks a peer. False if too many requests wait already: the caller's timer tries again.
    pub fn send<T: Serialize>(
        &mut self,
        key: Key,
        protocol: Protocol,
        message: &T,
        purpose: impl Into<Purpose>,
    ) -> bool {
        if self.pending.len() >= REQUESTS_PENDING_MAX {
            return false;
        }
        self.next_request += 1;
        let id = self.next_request;
        self.pending.insert(id, (key, purpose.into()));
        self.push(Effect::Send { id, key, protocol, bytes: crate::wire::encode(message) });
        true
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::engine::kernel::CounterV1;
    use crate::limits::RECORD_MAX_BYTES;

    #[derive(Serialize, Deserialize)]
    struct Bytes(Vec<u8>);

    impl Stored for Bytes {
        const TABLE: Table = Table::Epoch;
    }

    #[test]
    fn a_record_that_could_not_be_read_back_is_news_and_the_rest_is_written() {
        let mut out = Outbox::default();
        out.store(b"a", &CounterV1(1));
        out.store(b"b", &Bytes(vec![0; RECORD_MAX_BYTES]));
        out.store(b"c", &CounterV1(2));
        out.flush();
        let told = out.poll();
        assert!(
            matches!(
                told,
                Some(Effect::Notify(Event::Kernel(KernelNews::RecordRefused {
                    table: Table::Epoch,
                    bytes,
                }))) if bytes > RECORD_MAX_BYTES
            ),
            "{told:?}"
        );
        let Some(Effect::Persist { records, .. }) = out.poll() else { panic!("nothing written") };
        let keys: Vec<&[u8]> = records.iter().map(|record| record.key.as_slice()).collect();
        assert_eq!(keys, [b"a", b"c"]);
    }
}
