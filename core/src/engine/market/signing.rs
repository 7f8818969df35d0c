//! From standing orders to signed orders of the open epoch.

use super::drafts::Draft;
use super::records::StandingV1;
use super::{Circumstances, Inventory, Market, OrderSpec, SignedOrder, Standing, TimeInForce};
use crate::admission::check_rules;
use crate::bundle::pack;
use crate::engine::io::{Effect, Topic};
use crate::engine::kernel::{ClockCheck, ClockState, Context};
use crate::epoch::{Phase, epoch_at, opens_at_ms};
use crate::ids::{Key, OrderId, StandingId};
use crate::limits::{ALLOW_DENY_MAX, ORDER_MAX_BYTES, ORDERS_PER_OWNER_BOOK};
use crate::order::{Order, Side, Source};
use crate::params::Params;
use crate::units::{TimeMs, Units, Window};
use crate::wire::{VERSION, encode, sha256, signing_prefix};

/// What keeps a node from signing, whatever the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its clock is off.
    Clock(ClockCheck),
    /// No chain source answers.
    Chain,
    /// It has signed for this epoch in an earlier life, or by a clock that was ahead.
    SignedBefore(u64),
}

/// The order that is signed now for an epoch, without its proof of work, of own capacity.
pub(super) fn order_of(
    at: &Circumstances<'_>,
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
        | TimeInForce::ImmediateOrCancel => at.least_qty(spec).min(qty),
    };
    let ascending = |keys: &[crate::ids::Key]| {
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        keys
    };
    let offset_ms = at.now_ms.saturating_sub(opens_at_ms(epoch, at.params));
    Order {
        v: VERSION,
        epoch,
        side: spec.side,
        owner: at.me,
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

/// Denies those who let trades lapse, as many as an order has room for. Where the owner names
/// its counterparties they are left out there; `None` if nobody is left.
fn leave_out(mut order: Order, denied: &[Key]) -> Option<Order> {
    if order.allow.is_empty() {
        let others = denied.iter().filter(|key| !order.deny.contains(key)).copied();
        let room = ALLOW_DENY_MAX.saturating_sub(order.deny.len());
        let others: Vec<Key> = others.take(room).collect();
        order.deny.extend(others);
        order.deny.sort_unstable();
        return Some(order);
    }
    order.allow.retain(|key| !denied.contains(key));
    (!order.allow.is_empty()).then_some(order)
}

fn fits(order: &Order) -> bool {
    encode(order).len() <= ORDER_MAX_BYTES
}

/// When an owner signs its standing orders for an epoch again, unix ms.
///
/// Spread over the first half of OPEN by a hash of owner and epoch: if all did so at once,
/// every epoch would begin with a burst. The second half is left for the orders to spread.
#[must_use]
pub fn signs_at_ms(owner: Key, epoch: u64, params: &Params) -> TimeMs {
    let hash = sha256(&[b"signing", &owner.0, &epoch.to_be_bytes()]);
    let [a, b, c, d, ..] = hash;
    let spread_ms = (params.epoch.open_ms / 2).max(1);
    opens_at_ms(epoch, params) + u64::from(u32::from_be_bytes([a, b, c, d])) % spread_ms
}

impl Market {
    /// Whether this node may sign for an epoch now.
    fn may_sign(&self, now_ms: TimeMs, params: &Params, epoch: u64) -> bool {
        !self.closed_epochs.contains(epoch)
            && self.epochs.computed_through.saturating_add(1) == epoch
            && Phase::at(now_ms, params) == Phase::Open
            && self.clock.state != ClockState::Off
    }

    /// What keeps this node from signing anything in this epoch.
    #[must_use]
    pub fn obstacle(&self, now_ms: TimeMs, params: &Params, is_chain_up: bool) -> Option<Obstacle> {
        let epoch = epoch_at(now_ms, params);
        if self.clock.state == ClockState::Off {
            Some(Obstacle::Clock(self.clock))
        } else if !is_chain_up {
            Some(Obstacle::Chain)
        } else {
            self.closed_epochs.contains(epoch).then_some(Obstacle::SignedBefore(epoch))
        }
    }

    /// Whether standing orders wait for the moment at which they are signed again.
    pub(super) fn awaits_signing(&self, now_ms: TimeMs, params: &Params, epoch: u64) -> bool {
        epoch > self.resigned_through
            && self.may_sign(now_ms, params, epoch)
            && self.standing.values().any(Standing::is_open)
    }

    /// Signs every standing order that has none in the open epoch, once an epoch.
    pub(super) fn sign_due(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        epoch: u64,
    ) {
        let ready = epoch > self.resigned_through
            && self.may_sign(ctx.now_ms, ctx.params, epoch)
            && ctx.now_ms >= signs_at_ms(ctx.me(), epoch, ctx.params)
            && ctx.chain.up;
        if !ready {
            return;
        }
        self.resigned_through = epoch;
        let open = self.standing.values().filter(|order| order.is_open());
        // An epoch takes 16 orders of an owner: those that waited longest come first.
        let mut due: Vec<(Option<u64>, StandingId)> =
            open.map(|order| (order.last_epoch, order.id)).collect();
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        self.look_whom_to_deny(ctx);
        for (_, id) in due {
            self.sign_standing(ctx, inventory, id, epoch);
        }
        self.publish_ready(ctx);
    }

    /// Signs one new order for the open epoch, at once.
    pub(super) fn sign_one(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: StandingId,
    ) {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        if self.may_sign(ctx.now_ms, ctx.params, epoch) && ctx.chain.up {
            self.look_whom_to_deny(ctx);
            self.sign_standing(ctx, inventory, id, epoch);
            self.publish_ready(ctx);
        }
    }

    fn look_whom_to_deny(&mut self, ctx: &Context<'_>) {
        let matters = |key: &Key| self.epochs.is_trader(key) || self.epochs.is_resold(key);
        self.denied = ctx.conduct.denied(ctx.now_ms, matters);
        // A provider that bought back what it sold would be its own registrar.
        if self.epochs.is_resold(&ctx.me()) {
            self.denied.insert(0, ctx.me());
        }
    }

    /// What this node has signed or is about to sign for an epoch.
    fn begun_for(&self, epoch: u64) -> impl Iterator<Item = &SignedOrder> {
        let signed = self.signed.values().chain(self.drafts.iter());
        signed.filter(move |signed| signed.epoch == epoch)
    }

    /// Whether the book of an epoch takes one more order of ours. If not, the standing order
    /// waits for the next epoch, and says so.
    pub(super) fn has_room(&mut self, standing: StandingId, epoch: u64) -> bool {
        let has_room = self.begun_for(epoch).count() < ORDERS_PER_OWNER_BOOK;
        if !has_room {
            self.note(standing, "order.too_many_in_epoch");
        }
        has_room
    }

    fn sign_standing(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: StandingId,
        epoch: u64,
    ) {
        let Some(standing) = self.standing.get(&id).cloned() else { return };
        let is_begun = self.begun_for(epoch).any(|signed| signed.standing == id);
        if is_begun || standing.is_one_shot() && standing.last_epoch.is_some() {
            return;
        }
        match (standing.spec.side, &standing.units) {
            (Side::Buy, _) => self.sign_bid(ctx, &standing, epoch),
            (Side::Sell, Some(_)) if standing.spec.is_spare => {
                self.sign_spare(ctx, inventory, standing, epoch);
            }
            (Side::Sell, Some(units)) => self.sign_asks(ctx, inventory, &standing, units, epoch),
            (Side::Sell, None) => self.sign_resales(ctx, inventory, &standing, epoch),
        }
    }

    fn sign_bid(&mut self, ctx: &mut Context<'_>, standing: &Standing, epoch: u64) {
        let qty = standing.remainder();
        if qty == 0 {
            return;
        }
        if !self.has_room(standing.id, epoch) {
            return;
        }
        let at = Circumstances::of(ctx);
        let needed = at.needed_sat(&standing.spec, qty);
        if let Err(refusal) = at.check_signing(&standing.spec, qty) {
            return self.note(standing.id, &refusal.code);
        }
        if ctx.treasury.reserve_bid(epoch, standing.id, needed).is_err() {
            return self.note(standing.id, "order.insufficient_funds");
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
            reserved_sat: needed,
        };
        self.begin(ctx, &standing.spec, (qty, window), Source::Primary, signed);
    }

    /// Signs for what is spare by now.
    fn sign_spare(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        mut standing: Standing,
        epoch: u64,
    ) {
        let Some(units) = self.spare_units(inventory, &standing) else {
            return self.note(standing.id, "order.capacity_exceeded");
        };
        if standing.units.as_ref() != Some(&units) {
            standing.spec.qty = units.count();
            standing.units = Some(units.clone());
            ctx.out.store(&standing.id.0, &StandingV1::from(&standing));
            self.standing.insert(standing.id, standing.clone());
        }
        self.sign_asks(ctx, inventory, &standing, &units, epoch);
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
        if !self.has_room(standing.id, epoch) {
            return;
        }
        if let Err(code) = inventory.may_offer(class) {
            return self.note(standing.id, code);
        }
        if let Err(refusal) = Circumstances::of(ctx).check_signing(&standing.spec, units.count()) {
            return self.note(standing.id, &refusal.code);
        }
        for (units, window) in inventory.free_within(class, units, window) {
            if window.len() < u32::from(standing.spec.min_run) {
                continue;
            }
            if !self.has_room(standing.id, epoch) {
                return;
            }
            let qty = units.count();
            let signed = SignedOrder {
                standing: standing.id,
                epoch,
                rectangle: Some((units, window)),
                features: standing.spec.features,
                reserved_sat: 0,
            };
            self.begin(ctx, &standing.spec, (qty, window), Source::Primary, signed);
        }
    }

    pub(super) fn begin(
        &mut self,
        ctx: &mut Context<'_>,
        spec: &OrderSpec,
        (qty, window): (u32, Window),
        source: Source,
        signed: SignedOrder,
    ) {
        // Journaled with the signature: a number that nobody saw may be used again.
        let nonce = self.nonce.saturating_add(1);
        let mut order = order_of(&Circumstances::of(ctx), spec, signed.epoch, qty, window, nonce);
        order.source = source;
        let Some(less) = leave_out(order.clone(), &self.denied) else {
            ctx.treasury.release_bid(signed.epoch, signed.standing);
            return self.note(signed.standing, "order.counterparties_denied");
        };
        // What a resale has to show may leave no room for all who are denied.
        let order = if fits(&less) { less } else { order };
        if !fits(&order) {
            return self.note(signed.standing, "order.oversize");
        }
        // What every other node would refuse is not worth a signature.
        if let Err(error) = check_rules(&order, ctx.params) {
            ctx.treasury.release_bid(signed.epoch, signed.standing);
            return self.note(signed.standing, error.code());
        }
        self.nonce = nonce;
        if ctx.params.pow_bits == 0 {
            return self.drafts.add_ready(Draft { order, signed });
        }
        let mut prefix = signing_prefix(&order, ctx.params.magic);
        prefix.truncate(prefix.len().saturating_sub(size_of::<u64>()));
        let job = self.drafts.search(Draft { order, signed });
        ctx.out.push(Effect::Mine { job, prefix, bits: ctx.params.pow_bits });
    }

    /// A proof of work was found.
    pub fn on_mined(&mut self, ctx: &mut Context<'_>, job: u64, nonce: u64) {
        self.drafts.found(job, nonce);
        self.publish_ready(ctx);
    }

    /// Signs, journals and gossips what was begun, once all of it has its proof of work, and
    /// unless the moment has passed.
    pub(super) fn publish_ready(&mut self, ctx: &mut Context<'_>) {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        let is_open = Phase::at(ctx.now_ms, ctx.params) == Phase::Open;
        let ready = self.drafts.take_ready().into_iter();
        let (drafts, late): (Vec<Draft>, Vec<Draft>) =
            ready.partition(|draft| is_open && draft.signed.epoch == epoch);
        for Draft { signed, .. } in late {
            ctx.treasury.release_bid(signed.epoch, signed.standing);
        }
        if drafts.is_empty() {
            return;
        }
        // On disk before anything signed leaves: after a restart nothing is added to it.
        ctx.set_counter(super::NONCE, self.nonce);
        self.signed_epochs.add(ctx, epoch);
        let mut orders = Vec::with_capacity(drafts.len());
        for Draft { order, signed } in drafts {
            let order = ctx.sign(order);
            let id = OrderId(order.id());
            if let Some(standing) = self.standing.get_mut(&signed.standing) {
                standing.last_epoch = Some(epoch);
                standing.last_order = Some(id);
                standing.note = None;
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
            self.epochs.insert_own(ctx, order.clone(), &signed);
            self.signed.insert(id, signed);
            orders.push(order);
        }
        for bytes in pack(&orders) {
            ctx.out.push(Effect::Publish { topic: Topic::Orders, bytes });
        }
    }

    pub(super) fn note(&mut self, id: StandingId, code: &str) {
        if let Some(standing) = self.standing.get_mut(&id) {
            standing.note = Some(code.to_owned());
        }
    }
}
