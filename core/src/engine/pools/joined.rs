//! A member's side: the pledge, and what is signed for it.

use super::objects::{Pool, Share, is_fair, may_pledge, pool_id};
use super::records::{Part, PoolV1, Stage};
use super::{Floor, JOIN_TRIES, PACE, PoolPurpose, PoolReply, PoolRequest, Pools};
use crate::certificate::Certificate;
use crate::code;
use crate::engine::io::{Done, Protocol};
use crate::engine::kernel::{Answer, Context, Pace, Retry, answer, remote_code};
use crate::engine::market::Circumstances;
use crate::engine::messages::SettleRequest;
use crate::engine::trades::{BuyLimits, Invited, Purchase, refund_key};
use crate::ids::{Key, PoolId, TermsHash, TradeId};
use crate::limits::FUNDERS_MAX;
use crate::settlement::fees::{self, FeeLimit};
use crate::settlement::objects::{Funder, Row, Terms};
use crate::wire::{Envelope, Verified, object_id};

/// What the creator shows of a match.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) row: &'a Row,
    /// The certificate on sale; at a primary sale its Issue alone.
    pub(super) title: Certificate,
    pub(super) terms: &'a Envelope,
    /// In an all-or-nothing pool, what each pays for its part of the transaction, sat/kvB.
    pub(super) feerate_sat_kvb: Option<u64>,
}

impl Pools {
    /// Takes an invitation: reserves the coins. The caller asks the creator.
    pub(super) fn join(
        &mut self,
        ctx: &mut Context<'_>,
        pool: &Verified<Pool>,
        share_sat: u64,
        fees: FeeLimit,
    ) -> Result<PoolId, &'static str> {
        let id = pool_id(pool);
        pool.check(ctx.params)?;
        if !pool.is_invited(&ctx.me()) {
            return Err(code!("pool.not_invited"));
        }
        if ctx.now_ms >= pool.until_ms {
            return Err(code!("pool.expired"));
        }
        let known = self.pools.get(&id);
        if pool.creator == ctx.me() || known.is_some_and(|kept| !is_again(kept)) {
            return Err(code!("pool.joined_twice"));
        }
        // The creator's own pledge is there in any case.
        may_pledge(ctx.params, pool.price_sat(), &[], share_sat)?;
        let make = |ctx: &mut Context<'_>, reserved_sat| PoolV1 {
            signed: pool.envelope().clone(),
            pool: (**pool).clone(),
            share_sat,
            reserved_sat,
            fees,
            part: Part::Member { key_index: refund_key::next(ctx), told: Vec::new() },
            stage: Stage::Gathering,
        };
        self.keep(ctx, id, make, (share_sat, fees))?;
        // Not the pace of a withdrawal that this follows.
        self.asks.insert(id, Retry::new(PACE, ctx.now_ms));
        Ok(id)
    }

    /// Withdraws a pledge, or ends the own pool.
    pub(super) fn leave(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        id: PoolId,
    ) -> Result<(), &'static str> {
        let kept = self.pools.get(&id).ok_or(code!("pool.unknown"))?;
        let is_creator = matches!(kept.part, Part::Creator { .. });
        match kept.stage {
            Stage::Settling { .. } => Err(code!("pool.settling")),
            Stage::Bought(_) | Stage::Ended { .. } => Err(code!("pool.ended")),
            Stage::Gathering | Stage::Bidding(_) if is_creator => {
                self.end(ctx, floor.market, id, code!("pool.dissolved"));
                Ok(())
            }
            Stage::Gathering | Stage::Bidding(_) => {
                self.end(ctx, floor.market, id, code!("pool.left"));
                // The creator is to know; if it never hears of it, one bid of its comes to nothing.
                self.asks.insert(id, Retry::new(Pace::PEER, ctx.now_ms));
                self.ask_creator(ctx, id);
                Ok(())
            }
        }
    }

    /// Tells the creator of a pledge, or that it is withdrawn.
    pub(super) fn ask_creator(&mut self, ctx: &mut Context<'_>, id: PoolId) {
        let Some(kept) = self.pools.get(&id) else { return };
        let Part::Member { key_index, .. } = kept.part else { return };
        let ask = self.asks.entry(id).or_insert(Retry::new(PACE, ctx.now_ms));
        let tries = ask.tries();
        if !ask.take(ctx.now_ms) {
            self.asks.remove(&id);
            return;
        }
        let creator = kept.pool.creator;
        let (request, purpose) = if kept.stage.is_pledged() {
            if tries >= JOIN_TRIES && self.commands.contains_key(&id) {
                self.close(ctx, id, code!("pool.no_answer"));
                return;
            }
            let Some(refund_xonly) = refund_key::xonly(ctx, key_index) else { return };
            let join = PoolRequest::Join { pool: id, share_sat: kept.share_sat, refund_xonly };
            (join, PoolPurpose::Join(id))
        } else {
            (PoolRequest::Leave(id), PoolPurpose::Leave(id))
        };
        ctx.out.send(creator, Protocol::Settle, &SettleRequest::Pool(request), purpose);
    }

    /// The creator's answer to a pledge.
    pub(super) fn on_joined(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        id: PoolId,
        said: Answer<PoolReply>,
    ) {
        let Some(kept) = self.pools.get_mut(&id) else { return };
        let Part::Member { told, .. } = &mut kept.part else { return };
        if peer != kept.pool.creator || !kept.stage.is_pledged() {
            return;
        }
        match said {
            Answer::Said(PoolReply::Members(members)) if members.len() <= FUNDERS_MAX => {
                if *told != members {
                    *told = members;
                    self.changed(ctx, id);
                }
                let command = self.commands.remove(&id);
                answer(ctx, command, Ok(Done::Pool(id)));
            }
            Answer::Refused(code) => {
                let _ = self.close(ctx, id, remote_code(&code));
            }
            Answer::Said(_) | Answer::None => {}
        }
    }

    /// The creator shows what the seller has signed: signed here too, if it is what was pledged for.
    pub(super) fn on_terms(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        id: PoolId,
        shown: Shown<'_>,
    ) -> Result<PoolReply, &'static str> {
        let Shown { row, title, terms, feerate_sat_kvb } = shown;
        let kept = self.pools.get(&id).filter(|kept| kept.pool.creator == peer);
        let kept = kept.ok_or(code!("pool.unknown"))?;
        let Part::Member { key_index, .. } = kept.part else { return Err(code!("pool.unknown")) };
        let hash = TermsHash(terms.id::<Terms>(ctx.params.magic));
        match kept.stage {
            Stage::Gathering | Stage::Bidding(_) => {}
            Stage::Settling { trade, .. } => {
                let accept = floor.trades.own_consent(&trade, hash);
                return accept.map(PoolReply::Accept).ok_or(code!("pool.settling"));
            }
            Stage::Bought(_) | Stage::Ended { .. } => return Err(code!("pool.ended")),
        }
        let trade = TradeId(object_id(row, ctx.params.magic));
        let signed = terms.peek::<Terms>().map_err(|error| error.code())?;
        let registrar = title.signer().ok_or(code!("terms.wrong_issue"))?;
        let purchase = purchase(ctx, kept, key_index, row, &signed)?;
        let together = kept.pool.all_or_nothing.then_some(feerate_sat_kvb).flatten();
        if together.is_some() != kept.pool.all_or_nothing {
            return Err(code!("pool.unfair"));
        }
        if let Some(feerate_sat_kvb) = together {
            check_together(ctx, &signed, registrar, feerate_sat_kvb)?;
        }
        let purchase = Purchase { registrar, together, ..purchase };
        if ctx.conduct.denial(ctx.now_ms, &registrar).is_some() {
            return Err(code!("pool.denied"));
        }
        let invited = Invited { key_index, title, terms };
        let accept = floor
            .trade(|trades, desk| trades.join_buy(ctx, desk, row, trade, purchase, invited))?;
        if let Some(kept) = self.pools.get_mut(&id) {
            kept.stage = Stage::Settling { trade, standing: None, is_asked: true };
        }
        self.moved(ctx, id);
        Ok(PoolReply::Accept(accept))
    }

    /// All have signed: with their consents the provider gives its lock to whoever asks first.
    pub(super) fn on_agreed_by_all(
        &self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        terms: TermsHash,
        accepts: &[Envelope],
    ) -> Result<PoolReply, &'static str> {
        let by_peer = self.pools.values().filter(|kept| kept.pool.creator == peer);
        let settling = by_peer.filter_map(|kept| kept.stage.trade());
        let mut found = settling.filter(|trade| floor.trades.own_consent(trade, terms).is_some());
        let trade = found.next().ok_or(code!("pool.unknown"))?;
        floor.trade(|trades, desk| trades.agree(ctx, desk, trade, accepts))?;
        Ok(PoolReply::Noted)
    }
}

/// Whether a member pays these terms by one transaction with the others. Not a resale: a seller that
/// is not the provider could be one of them, keep the whole until the lock is gone, and be paid for a
/// certificate that nobody moves. Nor at a rate at which it may come too late.
fn check_together(
    ctx: &Context<'_>,
    terms: &Terms,
    registrar: Key,
    feerate_sat_kvb: u64,
) -> Result<(), &'static str> {
    if terms.from != registrar {
        return Err(code!("joint.resale"));
    }
    let estimate = ctx.chain.estimate(fees::URGENT_TARGET).ok_or(code!("chain.down"))?;
    if feerate_sat_kvb < fees::FLOOR_SAT_KVB || feerate_sat_kvb < estimate / 2 {
        return Err(code!("joint.feerate"));
    }
    let fee_sat = fees::fee_sat(feerate_sat_kvb, fees::FUND_VSIZE);
    if fee_sat > Circumstances::of(ctx).fee_reserve_sat() {
        return Err(code!("fund.fee_above_cap"));
    }
    Ok(())
}

/// Whether an invitation that was taken before may be taken again.
fn is_again(kept: &PoolV1) -> bool {
    matches!(kept.stage, Stage::Ended { trade: None, .. })
}

/// What a member buys by terms that name it, if they are what it pledged for. Title, price, window
/// and heights are checked as every buyer does.
fn purchase(
    ctx: &Context<'_>,
    kept: &PoolV1,
    key_index: u64,
    row: &Row,
    terms: &Terms,
) -> Result<Purchase, &'static str> {
    if !kept.pool.is_bought_by(row) {
        return Err(code!("terms.not_the_row"));
    }
    let me = ctx.me();
    let own: Vec<&Funder> = terms.funders.iter().filter(|funder| funder.key == me).collect();
    let refund_xonly = refund_key::xonly(ctx, key_index).ok_or(code!("settle.key"))?;
    let [own] = own.as_slice() else { return Err(code!("terms.wrong_party")) };
    if own.refund_xonly != refund_xonly {
        return Err(code!("terms.wrong_party"));
    }
    // Who gathers answers for a transaction that is never whole: the creator, and nobody else.
    let first = terms.funders.first().map(|funder| funder.key);
    if kept.pool.all_or_nothing && first != Some(kept.pool.creator) {
        return Err(code!("terms.wrong_party"));
    }
    let share = Share {
        share_sat: own.amount_sat,
        price_sat: terms.price_sat,
        funders: terms.funders.len() as u64,
    };
    if !is_fair(&kept.pool, ctx.params, kept.share_sat, share) {
        return Err(code!("pool.unfair"));
    }
    if ctx.conduct.denial(ctx.now_ms, &terms.from).is_some() {
        return Err(code!("pool.denied"));
    }
    let limits = BuyLimits {
        fee_cap_sat: Circumstances::of(ctx).fee_reserve_sat(),
        max_loss_sat: kept.fees.allowed_sat(own.amount_sat),
        features: kept.pool.features,
        use_by: None,
        is_recallable: false,
    };
    let others = terms.funders.iter().filter(|funder| funder.key != me);
    let partners = others.cloned().collect();
    let (seller, to) = (terms.from, kept.pool.to);
    Ok(Purchase { seller, registrar: seller, to, limits, partners, together: None })
}
