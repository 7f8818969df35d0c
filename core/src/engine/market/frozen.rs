//! The orders of an epoch that ended, on disk before it is matched: a life that ends in between
//! leaves the next one all that it needs to match the same set.

use std::collections::BTreeSet;

use super::{ComputeError, Ended, Market, SignedOrder, archive};
use crate::book::OrderSet;
use crate::engine::kernel::{Context, Record};
use crate::ids::OrderId;

/// How many epochs may have passed since the end of one that is still matched after a start.
/// Before that a counterparty has given up, and to settle with nobody would only hold coins.
const RESUMED_MAX: u64 = 2;

/// The records of a set, ready to be written. Orders of this node are on disk since they were
/// signed, and not among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    pub(super) records: Vec<Record>,
    pub(super) parts: u32,
}

impl Frozen {
    /// Encodes a set but for the orders in `own`. Takes long with many orders: a shell calls it
    /// on a thread of its own.
    ///
    /// # Errors
    /// A record that could not be read back.
    pub fn new(epoch: u64, set: &OrderSet, own: &BTreeSet<OrderId>) -> Result<Self, ComputeError> {
        let mut records = Vec::new();
        let parts = archive::encode_orders(epoch, set, own, &mut records)?;
        Ok(Self { records, parts })
    }
}

impl Market {
    /// Goes on where an earlier life stopped: the orders that it signed are this node's as
    /// before, and an epoch that ended just before is matched. What ended without its orders on
    /// disk was missed: fetched anew from peers they would be a set that this node has not voted
    /// for.
    pub(super) fn resume(
        &mut self,
        ctx: &mut Context<'_>,
        now_epoch: u64,
        own: Vec<(OrderId, SignedOrder)>,
    ) {
        let through = now_epoch.saturating_sub(1);
        self.epochs.frozen_through = through;
        for epoch in self.epochs.frozen() {
            let age = now_epoch.checked_sub(epoch);
            if age.is_some_and(|age| (1..=RESUMED_MAX).contains(&age)) {
                self.ended.push_back(Ended { epoch, is_frozen: true });
            } else {
                self.epochs.thaw(ctx, epoch);
            }
        }
        let first = self.ended.front().map(|ended| ended.epoch.saturating_sub(1));
        self.epochs.computed_through = first.unwrap_or(through);
        for (id, signed) in own {
            if signed.epoch > self.epochs.computed_through {
                ctx.treasury.restore_bid(signed.epoch, signed.standing, signed.reserved_sat);
                self.signed.insert(id, signed);
            }
        }
        self.hand_out(ctx);
    }
}
