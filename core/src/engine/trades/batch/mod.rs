//! Several trades in one transaction, where that saves fees: one FUND for the purchases of a buyer
//! from one provider, one CLAIM for all that is due to a seller.
//!
//! The machines of the trades know nothing of each other. One that is due to fund or to claim says
//! so in its [`Turn`]; at the end of the turn those that fit each other go on together. One that
//! could go on waits for those that are about to follow, and no longer than
//! [`batch_wait_ms`]; nothing of that is on disk, because a trade whose companions are gone after a
//! restart goes on alone.

mod claim;
mod fund;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;

use super::driver::Turn;
use super::{Party, Trades};
use crate::engine::kernel::Timer;
use crate::ids::{FundingId, TradeId};
use crate::units::TimeMs;

/// Rounds in which trades are put together in one turn: those of a funding that came to nothing
/// go on by themselves in the second.
const ROUNDS_MAX: usize = 4;

/// What one transaction of several trades is asked for once in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine::trades) enum Once {
    /// The wallet builds it.
    Ask(FundingId),
    /// The registrar sees it.
    Show(FundingId),
    /// Others may have its coins.
    Lend(FundingId),
    /// It is broadcast.
    Broadcast(Txid),
}

/// What trades say in a turn that concerns others too.
#[derive(Debug, Default)]
pub(in crate::engine::trades) struct Shared {
    /// Purchases that can be funded.
    fundable: Vec<TradeId>,
    /// Fundings that do not fit all of their trades.
    unfit: Vec<FundingId>,
    /// Sales that can be claimed.
    claimable: BTreeSet<TradeId>,
    done: BTreeSet<Once>,
}

impl Shared {
    /// Whether something has still to be done in this turn; from now on it has been.
    pub(in crate::engine::trades) fn is_first(&mut self, what: Once) -> bool {
        self.done.insert(what)
    }

    /// A purchase can be funded.
    pub(in crate::engine::trades) fn fundable(&mut self, trade: TradeId) {
        self.fundable.push(trade);
    }

    /// A sale can be claimed.
    pub(in crate::engine::trades) fn claimable(&mut self, trade: TradeId) {
        self.claimable.insert(trade);
    }

    /// A funding does not fit one of its trades.
    pub(in crate::engine::trades) fn unfit(&mut self, funding: FundingId) {
        self.unfit.push(funding);
    }
}

/// Trades that wait for others.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Purchases that could be funded, each with the time until which it waits, unix ms.
    purchases: BTreeMap<TradeId, TimeMs>,
    /// Purchases whose shared funding came to nothing: each has one of its own.
    alone: BTreeSet<TradeId>,
    /// Sales that could be claimed, each with the time until which it waits, unix ms.
    claims: BTreeMap<TradeId, TimeMs>,
}

impl Batches {
    /// When the first has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<(TimeMs, Timer)> {
        let waiting = self.purchases.values().chain(self.claims.values());
        waiting.min().map(|at_ms| (*at_ms, Timer::TradeBatch))
    }

    /// A purchase has ended.
    pub(super) fn forget(&mut self, purchase: &TradeId) {
        self.purchases.remove(purchase);
        self.alone.remove(purchase);
    }
}

impl Trades {
    /// Puts together what the trades of this turn are due to do.
    pub(super) fn put_together(&mut self, turn: &mut Turn<'_, '_>) {
        self.fund_together(turn);
        self.claim_together(turn);
    }

    fn fund_together(&mut self, turn: &mut Turn<'_, '_>) {
        for round in 0..ROUNDS_MAX {
            let unfit = std::mem::take(&mut turn.shared.unfit);
            let fundable = std::mem::take(&mut turn.shared.fundable);
            let nobody_waits = round > 0 || self.batches.purchases.is_empty();
            if unfit.is_empty() && fundable.is_empty() && nobody_waits {
                return;
            }
            unfit.into_iter().for_each(|funding| self.part(turn, funding));
            fundable.into_iter().for_each(|trade| self.let_wait(turn, trade));
            // Whom one waits for may have come, or have gone.
            let waiting: Vec<TradeId> = self.batches.purchases.keys().copied().collect();
            waiting.into_iter().for_each(|trade| self.fund_with_others(turn, trade));
        }
    }

    /// Purchases that share a funding.
    fn purchases_of(turn: &Turn<'_, '_>, funding: &FundingId) -> Vec<TradeId> {
        let parties = turn.index.by_funding(funding).into_iter();
        let purchases = parties.filter_map(|party| match party {
            Party::Buyer(trade) => Some(trade),
            Party::Seller(_) | Party::Registrar(_) => None,
        });
        purchases.collect()
    }
}
