//! The market side of a node: standing orders, the open epoch, roots, results.
//!
//! A standing order is re-signed for every epoch until nothing of it is left. A node signs
//! for an epoch only what is neither reserved nor sold, and never before it has computed
//! the epoch before; after a restart never for an epoch that it may have signed for already.

pub mod archive;
mod closing;
mod computed;
mod conditions;
pub mod depth;
mod drafts;
pub mod epochs;
mod finished;
mod frozen;
mod gossip;
pub mod inventory;
mod messages;
mod offers;
pub mod quote;
pub mod records;
mod rows;
mod signed;
pub mod signing;
mod spec;
pub mod standing;

use std::collections::{BTreeMap, VecDeque};

pub use computed::{ComputeError, Computed};
pub use conditions::{Circumstances, Judgement};
pub use epochs::{EpochView, Epochs, Lack};
pub use frozen::Frozen;
pub use inventory::{Inventory, UnitLedger};
pub use messages::{MarketCommand, MarketNews};
pub use offers::{Offer, Stock, Title};
pub use rows::Matched;
pub use signed::SignedEpochs;
pub use signing::Obstacle;
pub use spec::{OrderSpec, TimeInForce};
pub use standing::{Standing, StandingState};

use self::closing::{Ended, is_ahead};
use self::drafts::Drafts;
use self::records::StandingV1;
use super::io::{Done, Effect, Refusal};
use super::kernel::{ClockCheck, Context, Record, Timer, Unreadable, records};
use crate::epoch::{computed_at_ms, epoch_at, root_at_ms};
use crate::ids::{Key, OrderId, StandingId};
use crate::params::Params;
use crate::reason;
use crate::units::{TimeMs, Units, Window};

/// Unit numbers and when: what one ask stands for.
pub type Rectangle = (Units, Window);

/// An order of ours in an epoch.
#[derive(Debug, Clone)]
pub struct SignedOrder {
    /// Which standing order it came from.
    pub standing: StandingId,
    pub epoch: u64,
    pub rectangle: Option<Rectangle>,
    pub features: u64,
    /// What a bid may cost, sat.
    pub reserved_sat: u64,
}

/// Standing orders, epochs and their results.
#[derive(Debug, Default)]
pub struct Market {
    standing: BTreeMap<StandingId, Standing>,
    /// Order sets, roots and results.
    pub epochs: Epochs,
    signed: BTreeMap<OrderId, SignedOrder>,
    drafts: Drafts,
    /// Number of the last order of ours.
    nonce: u64,
    /// Epochs for which this life or an earlier one has signed.
    signed_epochs: SignedEpochs,
    /// The same at the start of this life, or when its clock was last set back: for these
    /// nothing is signed any more.
    closed_epochs: SignedEpochs,
    /// Standing orders were signed again for every epoch up to here.
    resigned_through: u64,
    /// Epochs that ended and have no result yet, oldest first: the first is being computed.
    ended: VecDeque<Ended>,
    /// Number of the last set that was handed out. No other answer is awaited: an epoch ends
    /// twice where the clock was set back, and the answer of the first time has other orders.
    handed_out: u64,
    /// Whom nothing was signed towards last time, the worst first.
    denied: Vec<Key>,
    clock: ClockCheck,
    started: bool,
}

const NONCE: &str = "order.nonce";

impl Market {
    /// Restores state from the journal.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn load(&mut self, ctx: &mut Context<'_>, all: &[Record]) -> Result<(), Unreadable> {
        for found in records::<StandingV1>(all) {
            let (record, standing) = found?;
            let id = StandingId(record.key_array()?);
            self.standing.insert(id, standing.with_id(id));
        }
        let own = self.epochs.load(ctx, all)?;
        self.signed_epochs = SignedEpochs::load(all)?;
        self.closed_epochs = self.signed_epochs.clone();
        self.nonce = ctx.counter(NONCE);
        let now_epoch = epoch_at(ctx.now_ms, ctx.params);
        self.resume(ctx, now_epoch, own);
        let latest = self.signed_epochs.last().max(self.epochs.latest());
        if latest.is_some_and(|latest| is_ahead(latest, now_epoch)) {
            self.set_back(ctx, now_epoch);
        }
        self.started = true;
        Ok(())
    }

    /// Every standing order, by id.
    pub fn standing(&self) -> impl Iterator<Item = &Standing> {
        self.standing.values()
    }

    /// What this node has signed for an epoch.
    pub fn signed_for(&self, epoch: u64) -> impl Iterator<Item = (&OrderId, &SignedOrder)> {
        self.signed.iter().filter(move |(_, signed)| signed.epoch == epoch)
    }

    /// Does what an operator asks.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: u64,
        command: MarketCommand,
    ) {
        let result = match command {
            MarketCommand::Place(spec) => self.place(ctx, inventory, *spec).map(Done::Placed),
            MarketCommand::Cancel(order) => self.cancel(ctx, order).map(|()| Done::Ok),
            MarketCommand::Forgive(key) => {
                ctx.conduct.forgive(ctx.out, key);
                Ok(Done::Ok)
            }
        };
        ctx.out.push(Effect::CommandDone { id, result });
    }

    /// Puts a standing order into the market.
    ///
    /// # Errors
    /// A refusal that says which bound it breaks.
    pub fn place(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        spec: OrderSpec,
    ) -> Result<StandingId, Refusal> {
        self.expire(ctx);
        self.forget_finished(ctx);
        let judged = self.judge(&Circumstances::of(ctx), inventory, &spec);
        if let Some(refusal) = judged.objections.into_iter().next() {
            return Err(refusal);
        }
        let id = ctx.fresh_standing_id();
        let mut standing = Standing::new(id, spec, judged.units, ctx.now_ms);
        if let (true, Some(units)) = (standing.spec.is_spare, &standing.units) {
            standing.spec.qty = units.count();
        }
        standing.offers = judged.offers;
        ctx.out.store(&id.0, &StandingV1::from(&standing));
        self.standing.insert(id, standing);
        self.sign_one(ctx, inventory, id);
        Ok(id)
    }

    /// Stops re-signing; what was gossiped stays firm for its epoch.
    ///
    /// # Errors
    /// `order.not_found`.
    pub fn cancel(&mut self, ctx: &mut Context<'_>, id: StandingId) -> Result<(), Refusal> {
        let standing = self
            .standing
            .get_mut(&id)
            .ok_or_else(|| Refusal::new(reason!("order.not_found"), "no such order"))?;
        if standing.is_open() {
            standing.state = StandingState::Cancelled;
            ctx.out.store(&id.0, &StandingV1::from(&*standing));
        }
        for dropped in self.drafts.discard(|signed| signed.standing == id) {
            ctx.treasury.release_bid(dropped.epoch, id);
        }
        self.publish_ready(ctx);
        Ok(())
    }

    /// Does what is due: closes the epoch that ended, votes, signs for the open one.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, inventory: &dyn Inventory) {
        if !self.started {
            return;
        }
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        if is_ahead(self.epochs.frozen_through, epoch) {
            self.set_back(ctx, epoch);
        }
        if self.epochs.frozen_through.saturating_add(1) < epoch {
            self.freeze_due(ctx, epoch);
        }
        self.expire(ctx);
        if ctx.now_ms >= root_at_ms(epoch, ctx.params) {
            self.epochs.vote(ctx, epoch);
        }
        self.sign_due(ctx, inventory, epoch);
    }

    /// When `on_tick` is due next: at once, if an input came between a deadline and its tick.
    #[must_use]
    pub fn next_deadline(
        &self,
        now_ms: TimeMs,
        params: &Params,
        me: Key,
        is_chain_up: bool,
    ) -> (TimeMs, Timer) {
        let epoch = epoch_at(now_ms, params);
        if self.started && self.epochs.frozen_through.saturating_add(1) < epoch {
            (now_ms, Timer::EpochEnd)
        } else if is_chain_up && self.awaits_signing(now_ms, params, epoch) {
            (signing::signs_at_ms(me, epoch, params).max(now_ms), Timer::SignOrders)
        } else if self.started && self.epochs.voted_through < epoch {
            (root_at_ms(epoch, params), Timer::SignRoot)
        } else {
            (computed_at_ms(epoch, params), Timer::EpochEnd)
        }
    }

    /// The clock was compared with those of others: one that is off signs and computes
    /// nothing.
    pub fn on_clock(&mut self, ctx: &mut Context<'_>, clock: ClockCheck) {
        if clock.state != self.clock.state {
            ctx.out.notify(MarketNews::Clock(clock));
        }
        self.clock = clock;
    }

    /// What others say of the clock.
    #[must_use]
    pub fn clock(&self) -> ClockCheck {
        self.clock
    }
}

#[cfg(test)]
mod tests;
