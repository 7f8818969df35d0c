//! The creator's side: who joins and leaves, and the bid.

use bitcoin::XOnlyPublicKey;

use super::objects::{Pool, may_pledge, pool_id, split};
use super::records::{Member, Part, PoolV1, Stage};
use super::{Floor, PoolReply, Pools};
use crate::code;
use crate::engine::kernel::Context;
use crate::engine::market::{Market, OrderSpec, StandingState, TimeInForce};
use crate::engine::shelf::Shelf;
use crate::ids::{Key, PoolId, TradeId};
use crate::limits::FUNDERS_MAX;
use crate::order::{Alternative, Mode, Side};
use crate::params::Params;
use crate::settlement::fees::FeeLimit;
use crate::settlement::objects::{Funder, Row};
use crate::units::TimeMs;
use crate::wire::VERSION;

/// Refusals of a bid that another epoch may not bring.
const PASSING: [&str; 2] = [code!("chain.down"), code!("order.too_many")];

/// What the creator of a pool has to pay of a row, and who pays the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partners {
    /// The others, in the order in which they joined.
    pub others: Vec<Funder>,
    /// What the creator is willing to lose in fees, sat.
    pub max_loss_sat: u64,
    /// Whether all pay by one transaction.
    pub together: bool,
}

impl Pools {
    /// Founds a pool, with the creator's own pledge.
    pub(super) fn create(
        &mut self,
        ctx: &mut Context<'_>,
        pool: Pool,
        share_sat: u64,
        fees: FeeLimit,
    ) -> Result<PoolId, &'static str> {
        let mut nonce16 = [0; 16];
        nonce16.copy_from_slice(&ctx.fresh("pool")[..16]);
        let pool = Pool { v: VERSION, creator: ctx.me(), nonce16, ..pool };
        pool.check(ctx.params)?;
        if ctx.now_ms >= pool.until_ms {
            return Err(code!("pool.expired"));
        }
        // Who pays all of it needs no pool.
        if share_sat >= pool.price_sat() {
            return Err(code!("pool.share"));
        }
        may_pledge(ctx.params, pool.price_sat(), &[], share_sat)?;
        let signed = ctx.sign(pool);
        let kept = |_: &mut Context<'_>, reserved_sat| PoolV1 {
            signed: signed.envelope().clone(),
            pool: (*signed).clone(),
            share_sat,
            reserved_sat,
            fees,
            part: Part::Creator { others: Vec::new() },
            stage: Stage::Gathering,
        };
        self.keep(ctx, pool_id(&signed), kept, (share_sat, fees))
    }

    /// Somebody pledges, or says once more that it does.
    pub(super) fn on_join(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        id: PoolId,
        share_sat: u64,
        refund_xonly: [u8; 32],
    ) -> Result<PoolReply, &'static str> {
        let kept = self.pools.get_mut(&id).ok_or(code!("pool.unknown"))?;
        let (price_sat, pledges) = (kept.pool.price_sat(), kept.pledges());
        let Part::Creator { others } = &mut kept.part else { return Err(code!("pool.unknown")) };
        if kept.stage.is_over() {
            return Err(code!("pool.ended"));
        }
        let joins = Member { key: peer, share_sat, refund_xonly };
        if let Some(known) = others.iter().find(|member| member.key == peer) {
            let is_same = *known == joins;
            return if is_same { Ok(members(kept)) } else { Err(code!("pool.joined_twice")) };
        }
        if !kept.pool.is_invited(&peer) {
            return Err(code!("pool.not_invited"));
        }
        if ctx.now_ms >= kept.pool.until_ms {
            return Err(code!("pool.expired"));
        }
        if ctx.conduct.denial(ctx.now_ms, &peer).is_some() {
            return Err(code!("pool.denied"));
        }
        // Two contracts of one key could be taken for each other.
        let is_known = others.iter().any(|member| member.refund_xonly == refund_xonly);
        if is_known || XOnlyPublicKey::from_slice(&refund_xonly).is_err() {
            return Err(code!("pool.bad_key"));
        }
        if kept.stage != Stage::Gathering || pledges.len() >= FUNDERS_MAX {
            return Err(code!("pool.full"));
        }
        let pledged: Vec<u64> = pledges.iter().map(|(_, pledge_sat)| *pledge_sat).collect();
        may_pledge(ctx.params, price_sat, &pledged, share_sat)?;
        others.push(joins);
        let (told, is_complete) = (members(kept), kept.missing_sat() == 0);
        self.changed(ctx, id);
        if is_complete {
            self.bid_due(ctx, floor);
        }
        Ok(told)
    }

    /// Own pools whose pledges make up the price, and that do not bid.
    pub(super) fn complete(&self) -> impl Iterator<Item = PoolId> {
        let waiting = self.pools.iter().filter(|(_, kept)| {
            matches!(kept.part, Part::Creator { .. }) && kept.stage == Stage::Gathering
        });
        waiting.filter(|(_, kept)| kept.missing_sat() == 0).map(|(id, _)| *id)
    }

    /// When a pool may bid, unix ms.
    pub(super) fn bids_from_ms(&self, id: &PoolId) -> TimeMs {
        self.bids_from_ms.get(id).copied().unwrap_or(0)
    }

    /// Own pools that bid no more, for want of a bid.
    pub(super) fn given_up(&self, market: &Market) -> impl Iterator<Item = PoolId> {
        let is_up = |id| {
            let mut all = market.standing();
            all.any(|order| {
                order.id == id && matches!(order.state, StandingState::Open | StandingState::Filled)
            })
        };
        let bidding = self.pools.iter();
        let given_up = bidding.filter(
            move |(_, kept)| matches!(kept.stage, Stage::Bidding(standing) if !is_up(standing)),
        );
        given_up.map(|(id, _)| *id)
    }

    /// Bids for every complete pool that may.
    pub(super) fn bid_due(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>) {
        let due = self.complete().filter(|id| ctx.now_ms >= self.bids_from_ms(id));
        let due: Vec<PoolId> = due.collect();
        due.into_iter().for_each(|id| self.bid(ctx, floor, id));
    }

    fn bid(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>, id: PoolId) {
        let next_ms = ctx.now_ms.saturating_add(ctx.params.epoch_ms());
        self.bids_from_ms.insert(id, next_ms);
        let Some(kept) = self.pools.get_mut(&id) else { return };
        let (register, holdings) = (&*floor.register, floor.holdings);
        let shelf = Shelf { me: ctx.me(), register, holdings };
        match floor.market.place(ctx, &shelf, order(id, kept)) {
            Ok(standing) => {
                kept.stage = Stage::Bidding(standing);
                self.moved(ctx, id);
            }
            Err(refusal) if PASSING.contains(&refusal.code.as_str()) => {}
            Err(refusal) => self.end(ctx, floor.market, id, &refusal.code),
        }
    }

    /// A member withdraws, while nobody has been asked to pay.
    pub(super) fn on_leave(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        id: PoolId,
    ) -> Result<PoolReply, &'static str> {
        let kept = self.pools.get_mut(&id).ok_or(code!("pool.unknown"))?;
        let Part::Creator { others } = &mut kept.part else { return Err(code!("pool.unknown")) };
        if !others.iter().any(|member| member.key == peer) || kept.stage.is_over() {
            return Ok(PoolReply::Noted);
        }
        match kept.stage {
            Stage::Settling { .. } => return Err(code!("pool.settling")),
            Stage::Bidding(standing) => {
                // A bid that is signed already may be matched once more; its row is then let go.
                let _ = floor.market.cancel(ctx, standing);
            }
            Stage::Gathering | Stage::Bought(_) | Stage::Ended { .. } => {}
        }
        others.retain(|member| member.key != peer);
        kept.stage = Stage::Gathering;
        self.moved(ctx, id);
        Ok(PoolReply::Noted)
    }

    /// Who pays what of a row that the bid of a pool was matched to.
    ///
    /// # Errors
    /// `pool.ended`: it bids no more; `trade.below_minimum`: the price is too small for so many.
    pub fn partners(
        &self,
        params: &Params,
        id: PoolId,
        row: &Row,
    ) -> Result<Partners, &'static str> {
        let kept = self.pools.get(&id).ok_or(code!("pool.ended"))?;
        let (Part::Creator { others }, Stage::Bidding(_)) = (&kept.part, &kept.stage) else {
            return Err(code!("pool.ended"));
        };
        let pledges: Vec<u64> = kept.pledges().iter().map(|(_, pledge_sat)| *pledge_sat).collect();
        let shares = split(&pledges, row.price_sat(), params.min_trade_sat);
        let shares = shares.ok_or(code!("trade.below_minimum"))?;
        let own_sat = shares.first().copied().unwrap_or(0);
        let others = others.iter().zip(shares.iter().skip(1)).map(|(member, amount_sat)| Funder {
            key: member.key,
            refund_xonly: member.refund_xonly,
            amount_sat: *amount_sat,
        });
        Ok(Partners {
            others: others.collect(),
            max_loss_sat: kept.fees.allowed_sat(own_sat),
            together: kept.pool.all_or_nothing,
        })
    }

    /// The row of a pool's bid has become a trade, whose coins take the place of the pledge.
    pub fn on_opened(&mut self, ctx: &mut Context<'_>, id: PoolId, trade: TradeId) {
        let Some(kept) = self.pools.get_mut(&id) else { return };
        let Stage::Bidding(standing) = kept.stage else { return };
        kept.stage = Stage::Settling { trade, standing: Some(standing), is_asked: false };
        self.moved(ctx, id);
    }
}

fn members(kept: &PoolV1) -> PoolReply {
    PoolReply::Members(kept.pledges())
}

/// One bid for all of it at one provider, so that one row, one certificate and one set of contracts
/// follow.
fn order(id: PoolId, kept: &PoolV1) -> OrderSpec {
    let pool = &kept.pool;
    OrderSpec {
        side: Side::Buy,
        alts: vec![Alternative { class: pool.class, limit_msat: pool.limit_msat }],
        qty: pool.qty,
        min_qty: pool.qty,
        mode: Mode::Gang,
        window: pool.window,
        slots: pool.slots,
        features: pool.features,
        allow: Vec::new(),
        deny: Vec::new(),
        min_run: 0,
        time_in_force: TimeInForce::GoodTillTime(pool.until_ms),
        beneficiary: Some(pool.to),
        use_by: None,
        is_recallable: false,
        pool: Some(id),
        fees: kept.fees,
        cert: None,
        is_spare: false,
    }
}
