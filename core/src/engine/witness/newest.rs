//! The newest statement of each provider, on disk.
//!
//! A provider that was restored from an old copy asks its peers what it has signed. One statement
//! that its register lacks is enough to halt it, and the newest is lacking in every copy that
//! is older, so this one outlives the peers that heard it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::certificate::equivocation::Statement;
use crate::certificate::objects::StatementKind;
use crate::engine::kernel::{Context, Record, Stored, Table, Unreadable, records as read};
use crate::epoch::epoch_at;
use crate::ids::Key;
use crate::limits::HORIZON_SLOTS;
use crate::units::Slot;
use crate::wire::Envelope;

/// Providers whose newest statement is on disk: at half a kilobyte each, 2 MB, and 16 MB of the
/// longest statements. Only keys that trade are heard, so each costs a stranger the work of an order; when there are more, the one
/// that was silent for longest is forgotten. Each is written at most once an epoch.
const PROVIDERS_MAX: usize = 4096;

/// A provider's newest statement, by the provider's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct HeardV1 {
    /// Slot in which it was heard.
    slot: Slot,
    kind: StatementKind,
    bytes: Envelope,
}

impl Stored for HeardV1 {
    const TABLE: Table = Table::Heard;
}

#[derive(Debug)]
struct Newest {
    slot: Slot,
    statement: Statement,
    is_written: bool,
}

/// The newest statements by provider.
#[derive(Debug, Default)]
pub(super) struct Memory {
    newest: BTreeMap<Key, Newest>,
    /// Epoch in which they were last written.
    written: u64,
}

impl Memory {
    /// Reads them back; returns what was heard, with its slot.
    pub(super) fn load(
        &mut self,
        ctx: &Context<'_>,
        all: &[Record],
    ) -> Result<Vec<(Slot, Statement)>, Unreadable> {
        let mut heard = Vec::new();
        for found in read::<HeardV1>(all) {
            let (record, HeardV1 { slot, kind, bytes }) = found?;
            let provider = Key(record.key_array()?);
            // One of another network, or that was damaged unseen, says nothing.
            let Ok(statement) = Statement::verify(kind, &bytes, ctx.params.magic) else { continue };
            heard.push((slot, statement.clone()));
            self.newest.insert(provider, Newest { slot, statement, is_written: true });
        }
        Ok(heard)
    }

    /// A statement was heard. By the provider's height, so that repeating an old one changes
    /// nothing.
    pub(super) fn hear(&mut self, ctx: &mut Context<'_>, statement: &Statement) {
        let provider = statement.provider();
        let known = self.newest.get(&provider);
        if known.is_some_and(|known| known.statement.height() > statement.height()) {
            return;
        }
        if known.is_none() && self.newest.len() >= PROVIDERS_MAX {
            let silent = self.newest.iter().map(|(key, newest)| (newest.slot, *key)).min();
            if let Some((_, silent)) = silent {
                self.forget(ctx, silent);
            }
        }
        let slot = ctx.params.slot_at(ctx.now_ms);
        let newest = Newest { slot, statement: statement.clone(), is_written: false };
        self.newest.insert(provider, newest);
    }

    /// Writes what is new, once an epoch.
    pub(super) fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        // Another, not only a later one: the clock may have been ahead.
        if std::mem::replace(&mut self.written, epoch) == epoch {
            return;
        }
        for (provider, newest) in self.newest.iter_mut().filter(|(_, newest)| !newest.is_written) {
            let (kind, bytes) = (newest.statement.kind(), newest.statement.envelope().clone());
            ctx.out.store(&provider.0, &HeardV1 { slot: newest.slot, kind, bytes });
            newest.is_written = true;
        }
    }

    /// Forgets what was heard more than a horizon ago.
    pub(super) fn expire(&mut self, ctx: &mut Context<'_>, past: Slot) {
        let old = |newest: &Newest| newest.slot.saturating_add(HORIZON_SLOTS) < past;
        let gone = self.newest.iter().filter(|(_, newest)| old(newest));
        let gone: Vec<Key> = gone.map(|(provider, _)| *provider).collect();
        gone.into_iter().for_each(|provider| self.forget(ctx, provider));
    }

    fn forget(&mut self, ctx: &mut Context<'_>, provider: Key) {
        if self.newest.remove(&provider).is_some() {
            ctx.out.delete(Table::Heard, &provider.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::objects::RedeemGrant;
    use crate::engine::io::Effect;
    use crate::engine::kernel::{Kernel, Keys};
    use crate::ids::{CertId, LeaseId};
    use crate::test_support::devnet;
    use crate::wire::VERSION;

    fn said(provider: u32, p_height: u32) -> Statement {
        let mut secret = [1; 32];
        secret[..4].copy_from_slice(&provider.to_be_bytes());
        let keys = Keys::new(secret, secret);
        let grant = RedeemGrant {
            v: VERSION,
            provider: keys.public(),
            cert_id: CertId([6; 32]),
            seq: 1,
            attempt: 0,
            redeem_hash: LeaseId([7; 32]),
            p_height,
        };
        Statement::Redeem(keys.sign(grant, &devnet()))
    }

    fn written(kernel: &mut Kernel) -> Vec<Record> {
        let mut all = Vec::new();
        while let Some(effect) = kernel.out.poll() {
            if let Effect::Persist { records, .. } = effect {
                all.extend(records);
            }
        }
        all
    }

    #[test]
    fn the_newest_is_written_once_an_epoch_and_read_back() {
        let mut kernel = Kernel::new(devnet(), Keys::new([9; 32], [9; 32]));
        let (mut memory, epoch_ms) = (Memory::default(), devnet().epoch_ms());
        let start_ms = 1_000 * epoch_ms;
        // Heights in the order of hearing, and what stands on the disk in the end.
        let mut disk = Vec::new();
        for (heights, expected) in [(&[5, 7, 6][..], Some(7)), (&[6], None), (&[8], Some(8))] {
            let now_ms = start_ms + epoch_ms * disk.len() as u64;
            for height in heights {
                memory.hear(&mut kernel.context(now_ms), &said(1, *height));
            }
            memory.on_tick(&mut kernel.context(now_ms));
            memory.on_tick(&mut kernel.context(now_ms + 1));
            let records = written(&mut kernel);
            let found: Vec<u32> = {
                let ctx = kernel.context(now_ms);
                let heard = Memory::default().load(&ctx, &records).unwrap();
                heard.iter().map(|(_, statement)| statement.height()).collect()
            };
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{heights:?}");
            disk.push(records);
        }
    }

    #[test]
    fn what_is_heard_after_the_clock_was_set_back_is_written() {
        let mut kernel = Kernel::new(devnet(), Keys::new([9; 32], [9; 32]));
        let (mut memory, epoch_ms) = (Memory::default(), devnet().epoch_ms());
        for (now_ms, height) in [(9_000 * epoch_ms, 5), (1_000 * epoch_ms, 6)] {
            memory.hear(&mut kernel.context(now_ms), &said(1, height));
            memory.on_tick(&mut kernel.context(now_ms));
            assert_eq!(written(&mut kernel).len(), 1, "{height}");
        }
    }

    #[test]
    fn the_room_has_a_bound_and_a_statement_an_end() {
        let mut kernel = Kernel::new(devnet(), Keys::new([9; 32], [9; 32]));
        let mut memory = Memory::default();
        let slot_ms = u64::from(devnet().slot_s) * 1000;
        let first = said(0, 5);
        memory.hear(&mut kernel.context(slot_ms * 1_000), &first);
        for provider in 1..=u32::try_from(PROVIDERS_MAX).unwrap() {
            memory.hear(&mut kernel.context(slot_ms * 1_001), &said(provider, 5));
        }
        assert_eq!(memory.newest.len(), PROVIDERS_MAX);
        assert!(!memory.newest.contains_key(&first.provider()), "the silent one goes");
        let mut ctx = kernel.context(slot_ms * 1_001);
        memory.expire(&mut ctx, 1_001 + HORIZON_SLOTS);
        assert_eq!(memory.newest.len(), PROVIDERS_MAX);
        memory.expire(&mut ctx, 1_002 + HORIZON_SLOTS);
        assert!(memory.newest.is_empty());
    }
}
