//! From standing orders to signed orders of the open epoch.

use super::{Inventory, Job, Market, OrderSpec, SignedOrder, Standing, TimeInForce};
use crate::admission::{AdmissionError, check_rules};
use crate::engine::io::{Effect, Refusal};
use crate::engine::kernel::{Context, Short};
use crate::epoch::{Phase, epoch_at, opens_at_ms};
use crate::ids::StandingId;
use crate::limits::{HORIZON_SLOTS, ORDERS_PER_OWNER_BOOK};
use crate::order::{Order, Side, Source};
use crate::units::{Units, Window};
use crate::wire::{VERSION, signing_prefix};

/// Virtual bytes that a buyer reserves fees for: funding with three inputs, refund, bumps.
const RESERVED_VBYTES: u64 = 600;

/// Checks an instruction as if it were signed now.
///
/// # Errors
/// The reason code of the rule that it breaks.
pub(super) fn check_spec(ctx: &Context<'_>, spec: &OrderSpec) -> Result<(), Refusal> {
    spec.check(ctx.params).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let epoch = epoch_at(ctx.now_ms, ctx.params);
    let first = ctx.params.first_slot(epoch);
    if spec.window.end <= first {
        return Err(Refusal::new(
            "order.window",
            format!("the window ends before the first slot that can still be settled, {first}"),
        ));
    }
    let end = spec.window.end.min(ctx.params.horizon_end(epoch));
    let window = Window { start: spec.window.start.max(first), end };
    if spec.side == Side::Sell && spec.window.start > first.saturating_add(HORIZON_SLOTS) {
        // Signed when the rolling horizon reaches it.
        return Ok(());
    }
    check_rules(&order_of(ctx, spec, epoch, spec.qty, window, 0), ctx.params).map_err(|error| {
        let from = match error {
            AdmissionError::Window => format!("; the first slot that can be traded is {first}"),
            _ => String::new(),
        };
        Refusal::new(error.code(), format!("{error}{from}"))
    })
}

/// Coins that a bid needs: its limit for every block, and fees.
#[must_use]
pub fn needed_sat(ctx: &Context<'_>, spec: &OrderSpec, qty: u32) -> u64 {
    let limit = spec.alts.iter().map(|alt| alt.limit_msat).max().unwrap_or(0);
    let msat = u128::from(limit) * u128::from(qty) * u128::from(spec.slots);
    u64::try_from(msat.div_ceil(1000)).unwrap_or(u64::MAX).saturating_add(fee_reserve_sat(ctx))
}

/// Most that one settlement may cost its buyer in fees now, sat.
#[must_use]
pub fn fee_reserve_sat(ctx: &Context<'_>) -> u64 {
    ctx.chain.feerate_sat_kvb(3).saturating_mul(RESERVED_VBYTES).div_ceil(1000)
}

/// Checks that a bid could be paid now.
///
/// # Errors
/// `order.insufficient_funds` or `chain.down`.
pub(super) fn check_funds(ctx: &Context<'_>, spec: &OrderSpec) -> Result<(), Refusal> {
    if !ctx.chain.up {
        return Err(Refusal::new("chain.down", "no chain source answers, so nothing can be paid"));
    }
    ctx.treasury.check(needed_sat(ctx, spec, spec.qty)).map_err(|Short { needed_sat, free_sat }| {
        Refusal::new(
            "order.insufficient_funds",
            format!("the bid can cost {needed_sat} sat with fees and {free_sat} sat are free"),
        )
    })
}

fn order_of(
    ctx: &Context<'_>,
    spec: &OrderSpec,
    epoch: u64,
    qty: u32,
    window: Window,
    nonce: u64,
) -> Order {
    let min_qty = match spec.time_in_force {
        TimeInForce::FillOrKill => qty,
        TimeInForce::GoodTillCancelled
        | TimeInForce::GoodTillTime(_)
        | TimeInForce::ImmediateOrCancel => spec.min_qty.min(qty),
    };
    let ascending = |keys: &[crate::ids::Key]| {
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        keys
    };
    let offset_ms = ctx.now_ms.saturating_sub(opens_at_ms(epoch, ctx.params));
    Order {
        v: VERSION,
        epoch,
        side: spec.side,
        owner: ctx.me(),
        nonce,
        alts: spec.alts.clone(),
        qty,
        min_qty,
        mode: spec.mode,
        window,
        slots: spec.slots,
        features: spec.features,
        allow: ascending(&spec.allow),
        deny: ascending(&spec.deny),
        min_run: spec.min_run,
        source: Source::Primary,
        created_ms: u32::try_from(offset_ms).unwrap_or(u32::MAX),
        backing: None,
        pow_nonce: 0,
    }
}

impl Market {
    /// Signs every standing order for the open epoch, once.
    pub(super) fn sign_due(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        epoch: u64,
    ) {
        let ready = epoch > self.signed_through
            && epoch > self.floor
            && self.epochs.computed_through + 1 == epoch
            && Phase::at(ctx.now_ms, ctx.params) == Phase::Open
            && ctx.chain.up
            && !self.clock_is_off;
        if !ready {
            return;
        }
        self.signed_through = epoch;
        let ids: Vec<StandingId> =
            self.standing.values().filter(|order| order.is_open()).map(|order| order.id).collect();
        for id in ids {
            self.sign_standing(ctx, inventory, id, epoch);
        }
    }

    /// Signs one new order for the open epoch, if it is still open.
    pub(super) fn sign_one(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: StandingId,
    ) {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        let open = Phase::at(ctx.now_ms, ctx.params) == Phase::Open;
        let ours = epoch == self.signed_through && epoch > self.floor;
        if open && ours && ctx.chain.up && !self.clock_is_off {
            self.sign_standing(ctx, inventory, id, epoch);
        }
    }

    fn sign_standing(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: StandingId,
        epoch: u64,
    ) {
        let Some(standing) = self.standing.get(&id).cloned() else { return };
        if standing.is_one_shot() && standing.last_epoch.is_some() {
            return;
        }
        match (standing.spec.side, &standing.units) {
            (Side::Buy, _) => self.sign_bid(ctx, &standing, epoch),
            (Side::Sell, Some(units)) => self.sign_asks(ctx, inventory, &standing, units, epoch),
            (Side::Sell, None) => {}
        }
    }

    fn sign_bid(&mut self, ctx: &mut Context<'_>, standing: &Standing, epoch: u64) {
        let qty = standing.remainder();
        if qty == 0 {
            return;
        }
        let needed = needed_sat(ctx, &standing.spec, qty);
        if ctx.treasury.reserve_bid(epoch, standing.id, needed).is_err() {
            self.note(standing.id, "order.insufficient_funds");
            return;
        }
        // The horizon moves on: what lies beyond it is asked for later.
        let window = Window {
            start: standing.spec.window.start,
            end: standing.spec.window.end.min(ctx.params.horizon_end(epoch)),
        };
        let signed = SignedOrder {
            standing: standing.id,
            epoch,
            rectangle: None,
            features: standing.spec.features,
        };
        self.start_job(ctx, &standing.spec, qty, window, signed);
    }

    fn sign_asks(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        standing: &Standing,
        units: &Units,
        epoch: u64,
    ) {
        let first = ctx.params.first_slot(epoch);
        let start = standing.spec.window.start.max(first);
        let end = standing.spec.window.end.min(ctx.params.horizon_end(epoch));
        let (Some(window), Some(class)) =
            (Window::new(start, end), standing.spec.alts.first().map(|alt| alt.class))
        else {
            return;
        };
        for (units, window) in inventory.free_within(class, units, window) {
            let asked = self.signed_for(epoch).count() + self.jobs.len();
            if asked >= ORDERS_PER_OWNER_BOOK {
                self.note(standing.id, "order.too_many_in_epoch");
                return;
            }
            if window.len() < u32::from(standing.spec.min_run) {
                continue;
            }
            let qty = units.count();
            let signed = SignedOrder {
                standing: standing.id,
                epoch,
                rectangle: Some((units, window)),
                features: standing.spec.features,
            };
            self.start_job(ctx, &standing.spec, qty, window, signed);
        }
    }

    fn start_job(
        &mut self,
        ctx: &mut Context<'_>,
        spec: &OrderSpec,
        qty: u32,
        window: Window,
        signed: SignedOrder,
    ) {
        let nonce = ctx.next_number("order.nonce");
        // On disk before anything signed leaves: after a restart this epoch is over for us.
        ctx.set_counter(super::SIGNED_THROUGH, signed.epoch);
        let order = order_of(ctx, spec, signed.epoch, qty, window, nonce);
        if ctx.params.pow_bits == 0 {
            self.publish(ctx, order, signed);
            return;
        }
        self.next_job += 1;
        let mut prefix = signing_prefix(&order, ctx.params.magic);
        prefix.truncate(prefix.len().saturating_sub(size_of::<u64>()));
        self.jobs.insert(self.next_job, Job { order, signed });
        ctx.out.push(Effect::Mine { job: self.next_job, prefix, bits: ctx.params.pow_bits });
    }

    /// A proof of work was found: sign and gossip, unless the moment has passed.
    pub fn on_mined(&mut self, ctx: &mut Context<'_>, job: u64, nonce: u64) {
        let Some(Job { mut order, signed }) = self.jobs.remove(&job) else { return };
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        if signed.epoch != epoch || Phase::at(ctx.now_ms, ctx.params) != Phase::Open {
            ctx.treasury.release_bid(signed.epoch, signed.standing);
            return;
        }
        order.pow_nonce = nonce;
        self.publish(ctx, order, signed);
    }

    fn note(&mut self, id: StandingId, code: &str) {
        if let Some(standing) = self.standing.get_mut(&id) {
            standing.note = Some(code.to_owned());
        }
    }
}
