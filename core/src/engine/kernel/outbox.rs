//! Effects in order, and what the answers to them are about.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::halt::Halt;
use super::record::{Record, Stored, Table};
use crate::engine::io::{Effect, Event, Protocol};
use crate::engine::messages::Purpose;
use crate::ids::Key;
use crate::limits::REQUESTS_PENDING_MAX;

/// What concerns no component alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelNews {
    /// A peer sent what its bytes alone prove wrong.
    Refused { peer: Key, code: String },
}

/// Effects in order, with the records that must be on disk before them.
///
/// All that one input records is one [`Effect::Persist`], before its other effects: after a
/// crash a step is there whole or not at all. A record that could not be read back ends the
/// engine, and nothing of its step is written or leaves.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Of steps that are complete.
    effects: VecDeque<Effect>,
    /// Of the step that is being made.
    step: Vec<Effect>,
    records: Vec<Record>,
    /// Nothing leaves any more.
    fault: Option<Halt>,
    has_told_fault: bool,
    persist_seq: u64,
    next_request: u64,
    pending: BTreeMap<u64, (Key, Purpose)>,
}

impl Outbox {
    /// Records an upsert, to be on disk before any effect of this step leaves. One that could
    /// not be read back ends the engine.
    pub fn store<S: Stored>(&mut self, key: &[u8], value: &S) {
        match Record::store(key, value) {
            Ok(record) => self.records.push(record),
            Err(fault) => self.halt(fault.into()),
        }
    }

    /// Ends the engine: nothing of this step leaves, and nothing of any later one.
    pub fn halt(&mut self, fault: Halt) {
        self.fault.get_or_insert(fault);
    }

    /// Records what was encoded elsewhere.
    pub fn extend(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    /// Records a deletion.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.records.push(Record::delete(table, key));
    }

    /// Queues an effect behind everything that this step records.
    pub fn push(&mut self, effect: Effect) {
        self.step.push(effect);
    }

    /// Queues news.
    pub fn notify(&mut self, news: impl Into<Event>) {
        self.push(Effect::Notify(news.into()));
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

    /// Completes a step: what it recorded, then its effects.
    pub fn flush(&mut self) {
        let (records, step) = (std::mem::take(&mut self.records), std::mem::take(&mut self.step));
        if let Some(fault) = &self.fault {
            if !std::mem::replace(&mut self.has_told_fault, true) {
                self.effects.push_back(Effect::Halt { fault: fault.clone() });
            }
            return;
        }
        if !records.is_empty() {
            self.persist_seq += 1;
            self.effects.push_back(Effect::Persist { seq: self.persist_seq, records });
        }
        self.effects.extend(step);
    }

    /// Next effect of the steps that are complete; without one, the step so far is taken to be
    /// complete.
    pub fn poll(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.flush();
        }
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

    fn reply(id: u64) -> Effect {
        Effect::Reply { id, bytes: Vec::new() }
    }

    #[test]
    fn all_that_a_step_records_is_one_batch_before_its_effects() {
        let mut out = Outbox::default();
        out.store(b"a", &CounterV1(1));
        out.push(reply(1));
        out.store(b"b", &CounterV1(2));
        out.push(reply(2));
        out.flush();
        out.push(reply(3));
        out.flush();
        let Some(Effect::Persist { seq: 1, records }) = out.poll() else { panic!("not first") };
        let keys: Vec<&[u8]> = records.iter().map(|record| record.key.as_slice()).collect();
        assert_eq!(keys, [b"a", b"b"]);
        let rest: Vec<Effect> = std::iter::from_fn(|| out.poll()).collect();
        assert_eq!(rest, [reply(1), reply(2), reply(3)]);
    }

    #[test]
    fn a_record_that_could_not_be_read_back_ends_the_engine_before_anything_of_its_step_leaves() {
        let mut out = Outbox::default();
        out.push(reply(1));
        out.flush();
        out.store(b"a", &CounterV1(1));
        out.push(reply(2));
        out.store(b"b", &Bytes(vec![0; RECORD_MAX_BYTES]));
        out.store(b"c", &CounterV1(2));
        out.push(reply(3));
        out.flush();
        assert_eq!(out.poll(), Some(reply(1)), "an earlier step");
        match out.poll() {
            Some(Effect::Halt { fault: Halt::TooLarge(fault) }) => {
                assert_eq!((fault.table, &fault.key[..]), (Table::Epoch, &b"b"[..]));
                assert!(fault.bytes > RECORD_MAX_BYTES);
            }
            other => panic!("{other:?}"),
        }
        out.store(b"d", &CounterV1(3));
        out.push(reply(4));
        out.flush();
        assert_eq!(out.poll(), None, "nothing of any later step either");
    }
}
