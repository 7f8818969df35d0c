//! Providers proven to have contradicted themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::certificate::objects::EquivProof;
use crate::engine::kernel::{Context, Record, Stored, Table, Unreadable, records as read};
use crate::ids::Key;
use crate::limits::HORIZON_SLOTS;
use crate::units::Slot;

/// Providers that are remembered as proven equivocators: at 9 KiB for the longest proof, 36 MiB.
/// Only keys that trade, or of whom this node holds something, are taken in, so that each costs a
/// stranger the work of an order; what this node finds itself always has room.
pub(super) const PROOFS_MAX: usize = 4096;

/// A proof on disk; its key is that of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct ProofRecord {
    proof: EquivProof,
    /// Slot in which it was taken in, or in which its provider still traded.
    slot: Slot,
}

impl Stored for ProofRecord {
    const TABLE: Table = Table::Proof;
}

/// Proofs by provider.
#[derive(Debug, Default)]
pub(super) struct Proofs(BTreeMap<Key, ProofRecord>);

impl Proofs {
    pub(super) fn load(
        &mut self,
        ctx: &mut Context<'_>,
        records: &[Record],
    ) -> Result<(), Unreadable> {
        for found in read::<ProofRecord>(records) {
            let (record, proof) = found?;
            let provider = Key(record.key_array()?);
            ctx.conduct.convict(provider);
            self.0.insert(provider, proof);
        }
        Ok(())
    }

    pub(super) fn has(&self, provider: &Key) -> bool {
        self.0.contains_key(provider)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &EquivProof)> {
        self.0.iter().map(|(provider, record)| (provider, &record.proof))
    }

    /// Takes a proof in. When the room is full, the oldest of those that matter least makes
    /// place, of keys that trade no more before others; one that was only heard of never takes
    /// the place of one that matters.
    pub(super) fn take(
        &mut self,
        ctx: &mut Context<'_>,
        provider: Key,
        proof: EquivProof,
        is_known: &dyn Fn(&Key) -> bool,
        is_own: bool,
    ) -> bool {
        if self.0.len() >= PROOFS_MAX {
            let age = |(key, record): (&Key, &ProofRecord)| (record.slot, *key);
            let mut oldest: Vec<(Slot, Key)> = self.0.iter().map(age).collect();
            oldest.sort_unstable();
            let mut oldest = oldest.into_iter().map(|(_, key)| key);
            // Who is known costs a look at all that this node has, so few are asked about.
            let gone = oldest.clone().find(|key| !is_known(key));
            let Some(gone) = gone.or_else(|| oldest.next().filter(|_| is_own)) else {
                return false;
            };
            self.forget(ctx, gone);
        }
        let slot = ctx.params.slot_at(ctx.now_ms);
        let record = ProofRecord { proof, slot };
        ctx.out.store(&provider.0, &record);
        ctx.conduct.convict(provider);
        self.0.insert(provider, record);
        true
    }

    /// Forgets those whose providers have not traded for a horizon.
    pub(super) fn expire(&mut self, ctx: &mut Context<'_>, is_known: &dyn Fn(&Key) -> bool) {
        let slot = ctx.params.slot_at(ctx.past_ms());
        let mut gone = Vec::new();
        for (provider, record) in &mut self.0 {
            if record.slot.saturating_add(HORIZON_SLOTS) >= slot {
                continue;
            }
            if is_known(provider) {
                record.slot = slot;
                ctx.out.store(&provider.0, record);
            } else {
                gone.push(*provider);
            }
        }
        gone.into_iter().for_each(|provider| self.forget(ctx, provider));
    }

    fn forget(&mut self, ctx: &mut Context<'_>, provider: Key) {
        self.0.remove(&provider);
        ctx.conduct.acquit(&provider);
        ctx.out.delete(Table::Proof, &provider.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::objects::StatementKind;
    use crate::engine::kernel::{Kernel, Keys};
    use crate::test_support::devnet;
    use crate::wire::Envelope;

    fn proof() -> EquivProof {
        let statement = || {
            let envelope = Envelope { key: [0; 32], payload: Vec::new(), signature: [[0; 32]; 2] };
            (StatementKind::LockGrant, envelope)
        };
        EquivProof { a: statement(), b: statement() }
    }

    fn number(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        Key(key)
    }

    #[test]
    fn a_full_table_has_room_for_what_is_found_here_and_for_those_that_trade() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut ctx = kernel.context(1_000_000);
        let mut proofs = Proofs::default();
        let traders = |key: &Key| *key >= number(PROOFS_MAX / 2);
        for n in 0..PROOFS_MAX {
            assert!(proofs.take(&mut ctx, number(n), proof(), &traders, false));
        }
        // Half of them stopped trading: they go first.
        let next = number(PROOFS_MAX);
        assert!(proofs.take(&mut ctx, next, proof(), &traders, false));
        assert!(proofs.has(&next) && !proofs.has(&number(0)) && proofs.has(&number(1)));
        assert_eq!(proofs.0.len(), PROOFS_MAX);
        let denied = |ctx: &Context<'_>| ctx.conduct.denied(ctx.now_ms, |_| false).len();
        assert_eq!(denied(&ctx), PROOFS_MAX, "no more are left out than are proven");
        // Where all trade, only what is found here has room.
        let all = |_: &Key| true;
        let (heard, found) = (number(PROOFS_MAX + 1), number(PROOFS_MAX + 2));
        assert!(!proofs.take(&mut ctx, heard, proof(), &all, false) && !proofs.has(&heard));
        assert!(proofs.take(&mut ctx, found, proof(), &all, true) && proofs.has(&found));
        assert_eq!(proofs.0.len(), PROOFS_MAX);
    }

    #[test]
    fn few_are_asked_about_when_the_room_is_full() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut ctx = kernel.context(1_000_000);
        let mut proofs = Proofs::default();
        let asked = std::cell::Cell::new(0);
        let is_known = |key: &Key| {
            asked.set(asked.get() + 1);
            *key < number(3)
        };
        for n in 0..=PROOFS_MAX {
            assert!(proofs.take(&mut ctx, number(n), proof(), &is_known, false));
        }
        assert_eq!(asked.get(), 4, "three that are known, and the one that goes");
        assert!(proofs.has(&number(2)) && !proofs.has(&number(3)));
    }

    #[test]
    fn a_proof_lasts_for_as_long_as_its_provider_trades_and_a_horizon() {
        let params = devnet();
        let slot_ms = u64::from(params.slot_s) * 1000;
        let mut kernel = Kernel::new(params, Keys::new([1; 32], [2; 32]));
        let mut proofs = Proofs::default();
        let (trader, gone) = (number(1), number(2));
        for key in [trader, gone] {
            proofs.take(&mut kernel.context(0), key, proof(), &|_| true, false);
        }
        let is_known = |key: &Key| *key == trader;
        let horizon_ms = u64::from(HORIZON_SLOTS) * slot_ms;
        // A clock alone ends nothing.
        proofs.expire(&mut kernel.context(2 * horizon_ms), &is_known);
        kernel.chain.median_time_past_s = u32::MAX;
        proofs.expire(&mut kernel.context(horizon_ms), &is_known);
        assert!(proofs.has(&trader) && proofs.has(&gone));
        let mut ctx = kernel.context(horizon_ms + slot_ms);
        proofs.expire(&mut ctx, &is_known);
        assert!(proofs.has(&trader) && !proofs.has(&gone));
        assert_eq!(ctx.conduct.denied(ctx.now_ms, |_| false), [trader]);
    }
}
