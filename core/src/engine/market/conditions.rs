//! On what conditions an order is placed and signed: asked by who acts and by who previews.
//!
//! The same functions judge an instruction before it is placed, when it is placed, and again
//! at every signing, since fees, coins and time change in between.

use super::signing::order_of;
use super::{Inventory, Market, Offer, OrderSpec, Standing};
use crate::admission::{AdmissionError, check_rules};
use crate::code;
use crate::engine::io::Refusal;
use crate::engine::kernel::{ChainView, Conduct, Context, Short, Treasury};
use crate::epoch::epoch_at;
use crate::ids::Key;
use crate::ids::StandingId;
use crate::limits::{HORIZON_SLOTS, STANDING_ORDERS_MAX};
use crate::order::{Mode, Order, Side, Source};
use crate::params::Params;
use crate::reason;
use crate::settlement::fees::{
    self, CLAIM_VSIZE, FUND_TARGET, FeeLimit, FeesTooHigh, SETTLEMENT_VSIZE,
};
use crate::units::{TimeMs, Units, Window};
use std::collections::BTreeMap;

/// Virtual bytes that a buyer reserves fees for: funding with three inputs, refund, bumps.
const RESERVED_VBYTES: u64 = 600;

/// What an order is judged by. Read, never changed.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub now_ms: TimeMs,
    pub params: &'a Params,
    /// Owner of the orders.
    pub me: Key,
    pub chain: &'a ChainView,
    pub treasury: &'a Treasury,
    pub conduct: &'a Conduct,
}

impl<'a> Circumstances<'a> {
    /// Those in which an input is handled.
    #[must_use]
    pub fn of(ctx: &'a Context<'_>) -> Self {
        Self {
            now_ms: ctx.now_ms,
            params: ctx.params,
            me: ctx.me(),
            chain: ctx.chain,
            treasury: ctx.treasury,
            conduct: ctx.conduct,
        }
    }

    /// Coins that a bid needs: its limit for every block, and fees. The members of a pool keep
    /// theirs until it settles.
    #[must_use]
    pub fn needed_sat(&self, spec: &OrderSpec, qty: u32) -> u64 {
        if spec.pool.is_some() {
            return 0;
        }
        spec.worth_sat(None, qty).saturating_add(self.fee_reserve_sat())
    }

    /// Most that one settlement may cost its buyer in fees now, sat.
    #[must_use]
    pub fn fee_reserve_sat(&self) -> u64 {
        fees::fee_sat(self.chain.feerate_sat_kvb(FUND_TARGET), RESERVED_VBYTES)
    }

    /// Whether a part of a price is worth the fees of paying it.
    ///
    /// # Errors
    /// `chain.no_estimate` or `order.fees_too_high`.
    pub fn check_share(&self, share_sat: u64, fees: FeeLimit) -> Result<(), &'static str> {
        let rate = self.chain.estimate(FUND_TARGET).ok_or(code!("chain.no_estimate"))?;
        let found = fees.check(SETTLEMENT_VSIZE, rate, share_sat);
        found.map_err(|_| code!("order.fees_too_high"))
    }

    /// The smallest fill that is worth its fees, and not below that of the owner.
    pub(super) fn least_qty(&self, spec: &OrderSpec) -> u32 {
        let fee_sat = fees::fee_sat(self.chain.feerate_sat_kvb(FUND_TARGET), SETTLEMENT_VSIZE);
        let (Side::Buy, Some(least_sat)) = (spec.side, spec.fees.least_worth_sat(fee_sat)) else {
            return spec.min_qty;
        };
        let least = (u128::from(least_sat) * 1000).div_ceil(spec.worth_msat(None, 1).max(1));
        u32::try_from(least).unwrap_or(u32::MAX).max(spec.min_qty)
    }

    /// Most trades that may fill an instruction in one epoch: no more than it may take asks,
    /// and none that is void or not worth its fees.
    #[must_use]
    pub fn trades_at_most(&self, spec: &OrderSpec) -> u64 {
        let least = match (spec.side, spec.mode) {
            (Side::Buy, Mode::Sticky) => 1,
            (Side::Buy, Mode::Gang) | (Side::Sell, _) => self.least_qty(spec).max(1),
        };
        let parts = u64::from(spec.qty / least);
        if spec.side == Side::Sell {
            return parts.max(1);
        }
        let fee_sat = fees::fee_sat(self.chain.feerate_sat_kvb(FUND_TARGET), SETTLEMENT_VSIZE);
        let least_sat = spec.fees.least_worth_sat(fee_sat).unwrap_or(u64::MAX);
        let least_sat = least_sat.max(self.params.min_trade_sat).max(1);
        let worthy = spec.worth_sat(None, spec.qty) / least_sat;
        parts.min(u64::from(self.params.max_legs)).min(worthy).max(1)
    }

    /// Whether an instruction could be signed now, by the rules of admission.
    ///
    /// # Errors
    /// The reason code of the rule that it breaks.
    fn check_content(&self, spec: &OrderSpec, source: Source) -> Result<(), Refusal> {
        spec.check(self.params).map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
        let epoch = epoch_at(self.now_ms, self.params);
        let first = self.params.first_slot(epoch);
        if spec.window.end <= first {
            return Err(Refusal::new(
                reason!("order.window"),
                format!("the window ends before the first slot that can still be settled, {first}"),
            ));
        }
        let end = spec.window.end.min(self.params.horizon_end(epoch));
        let window = Window { start: spec.window.start.max(first), end };
        if spec.side == Side::Sell && spec.window.start > first.saturating_add(HORIZON_SLOTS) {
            // Signed when the rolling horizon reaches it.
            return Ok(());
        }
        let order = Order { source, ..order_of(self, spec, epoch, spec.qty, window, 0) };
        check_rules(&order, self.params).map_err(|error| {
            let from = match error {
                AdmissionError::Window => format!("; the first slot that can be traded is {first}"),
                AdmissionError::Wire(_)
                | AdmissionError::Work
                | AdmissionError::Oversize
                | AdmissionError::Quantity
                | AdmissionError::Alternatives
                | AdmissionError::UnknownClass
                | AdmissionError::Limit
                | AdmissionError::Run
                | AdmissionError::UseBy
                | AdmissionError::Recall
                | AdmissionError::Counterparties
                | AdmissionError::Resale => String::new(),
            };
            Refusal::new(error.reason(), format!("{error}{from}"))
        })
    }

    /// Whether so much of an instruction may be signed now: the chain answers and knows what a
    /// transaction costs, the trade is worth its fees, and the coins are free.
    ///
    /// # Errors
    /// The first condition that is not met.
    pub(super) fn check_signing(&self, spec: &OrderSpec, qty: u32) -> Result<(), Refusal> {
        let bids = spec.side == Side::Buy;
        if bids && !self.chain.up {
            let message = "no chain source answers, so nothing can be paid";
            return Err(Refusal::new(reason!("chain.down"), message));
        }
        let is_denied = |key: &Key| self.conduct.denial(self.now_ms, key).is_some();
        if !spec.allow.is_empty() && spec.allow.iter().all(is_denied) {
            let message = "all its counterparties let trades lapse and are left out for a while";
            return Err(Refusal::new(reason!("order.counterparties_denied"), message));
        }
        let worth_sat = spec.worth_sat(None, qty);
        if bids && worth_sat < self.params.min_trade_sat {
            let least = self.params.min_trade_sat;
            let message =
                format!("it pays {worth_sat} sat at most, and trades below {least} sat are void");
            return Err(Refusal::new(reason!("trade.below_minimum"), message));
        }
        // No row that binds pays less than the smallest trade, whatever the limit of the ask.
        let worth_sat = worth_sat.max(self.params.min_trade_sat);
        let vsize = if bids { SETTLEMENT_VSIZE } else { CLAIM_VSIZE };
        match self.chain.estimate(FUND_TARGET) {
            Some(rate) => {
                spec.fees.check(vsize, rate, worth_sat).map_err(|found| too_dear(spec, found))?
            }
            None if bids => {
                let message =
                    "the chain source knows no fee rate, so what a trade costs is unknown";
                return Err(Refusal::new(reason!("chain.no_estimate"), message));
            }
            None => {}
        }
        if !bids {
            return Ok(());
        }
        self.treasury.check(self.needed_sat(spec, qty)).map_err(|Short { needed_sat, free_sat }| {
            let message =
                format!("the bid can cost {needed_sat} sat with fees and {free_sat} sat are free");
            Refusal::new(reason!("order.insufficient_funds"), message)
        })
    }
}

/// What becomes of an instruction if it is placed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Units that an ask would stand for.
    pub units: Option<Units>,
    /// The certificate that it would offer.
    pub offers: Vec<Offer>,
    /// Why it is refused: the first is what [`Market::place`] says. None if it is taken.
    pub objections: Vec<Refusal>,
}

impl Market {
    /// Judges an instruction as [`Market::place`] does, and changes nothing.
    #[must_use]
    pub fn judge(
        &self,
        at: &Circumstances<'_>,
        inventory: &dyn Inventory,
        spec: &OrderSpec,
    ) -> Judgement {
        let mut judged = Judgement { units: None, offers: Vec::new(), objections: Vec::new() };
        let open = self.standing().filter(|order| order.is_open()).count();
        if open >= STANDING_ORDERS_MAX {
            let message = "this node keeps as many orders as it may";
            judged.objections.push(Refusal::new(reason!("order.too_many"), message));
        }
        let source = match spec.cert {
            None => Source::Primary,
            Some(cert) => match self.offer_of(at, inventory, spec, cert) {
                Ok((offer, source)) => {
                    judged.offers.push(offer);
                    source
                }
                Err(refusal) => {
                    judged.objections.push(refusal);
                    return judged;
                }
            },
        };
        if let Err(refusal) = at.check_content(spec, source) {
            // What is no order has no price either.
            judged.objections.push(refusal);
            return judged;
        }
        if spec.side == Side::Sell && spec.cert.is_none() {
            match self.pick_units(inventory, spec) {
                Ok(units) => judged.units = Some(units),
                Err(refusal) => judged.objections.push(refusal),
            }
        }
        let qty = match (&judged.units, spec.is_spare) {
            (Some(units), true) => units.count(),
            _ => spec.qty,
        };
        judged.objections.extend(at.check_signing(spec, qty).err());
        judged
    }

    /// What other open asks stand for of a class in a window.
    fn offered(&self, class: u16, window: Window, but: Option<StandingId>) -> Vec<Units> {
        self.standing()
            // What was signed before a cancellation may still be matched.
            .filter(|other| other.is_open() || self.is_firm(other.id))
            .filter(|other| Some(other.id) != but)
            .filter(|other| other.spec.window.overlaps(window))
            .filter(|other| other.spec.alts.first().map(|alt| alt.class) == Some(class))
            .filter_map(|other| other.units.clone())
            .collect()
    }

    /// The units for which a standing ask of what is spare is signed now.
    pub(super) fn spare_units(
        &self,
        inventory: &dyn Inventory,
        standing: &Standing,
    ) -> Option<Units> {
        let class = standing.spec.alts.first()?.class;
        let taken = self.offered(class, standing.spec.window, Some(standing.id));
        inventory.others(class, &taken)
    }

    /// The end of the unit numbers that orders offer or may still be matched with, by class.
    #[must_use]
    pub fn offered_units(&self) -> BTreeMap<u16, u32> {
        let mut ends = BTreeMap::new();
        let stands = |order: &&Standing| order.is_open() || self.is_firm(order.id);
        for order in self.standing.values().filter(stands) {
            let last = order.units.as_ref().and_then(|units| units.ranges().last());
            if let (Some(alt), Some(last)) = (order.spec.alts.first(), last) {
                let end: &mut u32 = ends.entry(alt.class).or_default();
                *end = last.end.max(*end);
            }
        }
        ends
    }

    fn pick_units(&self, inventory: &dyn Inventory, spec: &OrderSpec) -> Result<Units, Refusal> {
        let class = spec.alts.first().map_or(0, |alt| alt.class);
        if let Err(code) = inventory.may_offer(class) {
            return Err(Refusal::of_code(code));
        }
        let taken = self.offered(class, spec.window, None);
        let picked = match spec.is_spare {
            true => inventory.others(class, &taken),
            false => inventory.pick(class, spec.qty, spec.window, &taken),
        };
        picked.ok_or_else(|| {
            Refusal::new(
                reason!("order.capacity_exceeded"),
                "this host has fewer free units of the class in that window",
            )
        })
    }
}

fn too_dear(spec: &OrderSpec, FeesTooHigh { fee_sat, allowed_sat }: FeesTooHigh) -> Refusal {
    let share = spec.fees.share_percent;
    let by = match spec.fees.cap_sat {
        Some(cap) if cap == allowed_sat => "its own cap".to_owned(),
        Some(_) | None => format!("{share} % of what it is worth"),
    };
    let message =
        format!("fees of a trade come to {fee_sat} sat now, above {by}, {allowed_sat} sat");
    Refusal::new(reason!("order.fees_too_high"), message)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Empty, bid, with};
    use super::super::{Standing, StandingState};
    use super::*;
    use crate::engine::kernel::{Miss, Subject};
    use crate::engine::market::TimeInForce;
    use crate::engine::market::signing::signs_at_ms;
    use crate::ids::StandingId;
    use crate::settlement::fees::FeeLimit;

    /// What differs from a bid of 7,200 sat, with a million sat at 1 sat/vB.
    #[derive(Debug, Clone, Copy)]
    enum With {
        Rate(Option<u64>),
        Chain(bool),
        Coins(u64),
        Limit(u64),
        Share(u8),
        Cap(u64),
        /// Only these counterparties.
        Allow(&'static [u8]),
        /// They failed to claim.
        Missed(&'static [u8]),
    }
    use With::{Allow, Cap, Chain, Coins, Limit, Missed, Rate, Share};

    const TABLE: [(&[With], Option<&str>); 20] = [
        (&[Missed(&[5, 6])], None),
        (&[Missed(&[5]), Allow(&[5, 6])], None),
        (&[Missed(&[5, 6]), Allow(&[5, 6])], Some("order.counterparties_denied")),
        (&[], None),
        (&[Chain(false)], Some("chain.down")),
        (&[Rate(None)], Some("chain.no_estimate")),
        // 447 vB against 20 % of 7,200 sat.
        (&[Rate(Some(3_221))], None),
        (&[Rate(Some(3_222))], Some("order.fees_too_high")),
        (&[Rate(Some(500_000))], Some("order.fees_too_high")),
        (&[Rate(Some(u64::MAX))], Some("order.fees_too_high")),
        (&[Rate(Some(3_222)), Share(21)], None),
        (&[Share(6)], Some("order.fees_too_high")),
        (&[Share(7)], None),
        (&[Share(0)], Some("order.fees_too_high")),
        (&[Cap(446)], Some("order.fees_too_high")),
        (&[Cap(447)], None),
        // 8 blocks of 124 sat are below the smallest trade of 1,000 sat.
        (&[Limit(124_000), Share(100)], Some("trade.below_minimum")),
        (&[Limit(125_000), Share(100)], None),
        // 600 vB are reserved for fees.
        (&[Coins(7_799)], Some("order.insufficient_funds")),
        (&[Coins(7_800)], None),
    ];

    fn apply(ctx: &mut Context<'_>, changes: &[With], spec: &mut OrderSpec, chain: &mut ChainView) {
        for change in changes {
            match *change {
                Allow(keys) => spec.allow = keys.iter().map(|n| Key([*n; 32])).collect(),
                Missed(keys) => {
                    for n in keys {
                        ctx.missed(Subject::Key(Key([*n; 32])), Miss::Claim);
                    }
                }
                Rate(rate) => chain.feerates = rate.map(|rate| (2, rate)).into_iter().collect(),
                Chain(up) => chain.up = up,
                Coins(sat) => ctx.treasury.set_spendable(sat),
                Limit(msat) => spec.alts[0].limit_msat = msat,
                Share(share_percent) => spec.fees.share_percent = share_percent,
                Cap(sat) => spec.fees.cap_sat = Some(sat),
            }
        }
    }

    fn with_chain<'a>(ctx: &'a mut Context<'_>, chain: &'a ChainView) -> Context<'a> {
        Context {
            now_ms: ctx.now_ms,
            params: ctx.params,
            keys: ctx.keys,
            secp: ctx.secp,
            chain,
            wallet: ctx.wallet,
            treasury: ctx.treasury,
            conduct: ctx.conduct,
            counters: ctx.counters,
            out: ctx.out,
        }
    }

    /// Runs `test` with a market and a bid after changes.
    fn after(changes: &[With], test: impl FnOnce(&mut Context<'_>, &mut Market, OrderSpec, u64)) {
        with(&[], |ctx, epoch| {
            ctx.treasury.set_spendable(1_000_000);
            let mut spec = bid(ctx, TimeInForce::GoodTillCancelled);
            let mut chain = ctx.chain.clone();
            apply(ctx, changes, &mut spec, &mut chain);
            let ctx = &mut with_chain(ctx, &chain);
            let mut market = Market::default();
            market.load(ctx, &[]).unwrap();
            test(ctx, &mut market, spec, epoch);
        });
    }

    #[test]
    fn previewed_placed_and_signed_again_by_the_same_rules() {
        for (changes, code) in TABLE {
            after(changes, |ctx, market, spec, epoch| {
                let judged = market.judge(&Circumstances::of(ctx), &Empty, &spec);
                let previewed = judged.objections.first().map(|refusal| refusal.code.as_str());
                assert_eq!(previewed, code, "preview: {changes:?}");
                let placed = market.place(ctx, &Empty, spec);
                assert_eq!(placed.as_ref().err(), judged.objections.first(), "{changes:?}");
                let signed = market.signed_for(epoch).count();
                assert_eq!(signed, usize::from(code.is_none()), "placed: {changes:?}");
            });
            // One that stood before things changed.
            after(changes, |ctx, market, spec, epoch| {
                let id = StandingId([1; 32]);
                market.standing.insert(id, Standing::new(id, spec, None, ctx.now_ms));
                ctx.now_ms = signs_at_ms(ctx.me(), epoch, ctx.params);
                market.sign_due(ctx, &Empty, epoch);
                let signed = market.signed_for(epoch).count();
                assert_eq!(signed, usize::from(code.is_none()), "signed again: {changes:?}");
                let standing = &market.standing[&id];
                assert_eq!(standing.state, StandingState::Open, "it waits: {changes:?}");
                // Without a chain nothing is looked at.
                let note = code.filter(|code| *code != "chain.down");
                assert_eq!(standing.note.as_deref(), note, "note: {changes:?}");
            });
        }
    }

    #[test]
    fn a_bid_takes_no_fill_that_is_not_worth_its_fees() {
        // rate, least fill of the owner, that of the order; a block is worth 1,800 sat
        for (rate, own, signed) in [(1_000, 1, 2), (1_000, 3, 3), (2_000, 1, 3), (3_000, 1, 4)] {
            with(&[], |ctx, _| {
                let chain = ChainView { feerates: vec![(2, rate)], ..ctx.chain.clone() };
                let at = Circumstances { chain: &chain, ..Circumstances::of(ctx) };
                let spec = OrderSpec { min_qty: own, ..bid(ctx, TimeInForce::GoodTillCancelled) };
                assert_eq!(at.least_qty(&spec), signed, "{rate}");
                let fee_sat = fees::fee_sat(rate, SETTLEMENT_VSIZE);
                let allowed = |qty| spec.fees.allowed_sat(spec.worth_sat(None, qty));
                assert!(
                    allowed(signed) >= fee_sat && (signed == own || allowed(signed - 1) < fee_sat)
                );
            });
        }
    }

    #[test]
    fn an_ask_is_worth_at_least_the_smallest_trade() {
        with(&[], |ctx, _| {
            let ask = |limit_msat| OrderSpec {
                side: Side::Sell,
                alts: vec![crate::order::Alternative { class: 1, limit_msat }],
                slots: 0,
                min_run: 1,
                fees: FeeLimit::default(),
                ..bid(ctx, TimeInForce::GoodTillCancelled)
            };
            // limit, rate, whether it is signed: 155 vB against 20 % of the larger of 1,000 sat
            // and 4 blocks in 4 slots
            for (limit_msat, rate, good) in [
                (1, Some(1_290), true),
                (1, Some(1_291), false),
                (500_000, Some(10_322), true),
                (500_000, Some(10_323), false),
                (1, None, true),
            ] {
                let feerates = rate.map(|rate| (2, rate)).into_iter().collect();
                let chain = ChainView { feerates, ..ctx.chain.clone() };
                let at = Circumstances { chain: &chain, ..Circumstances::of(ctx) };
                let got = at.check_signing(&ask(limit_msat), 4).err().map(|refusal| refusal.code);
                let expected = (!good).then(|| "order.fees_too_high".to_owned());
                assert_eq!(got, expected, "{limit_msat} at {rate:?}");
            }
        });
    }
}
