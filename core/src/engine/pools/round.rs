//! Consents of all members to one set of terms: gathered by the creator, and given to all.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{Part, PoolV1, Stage};
use super::{Floor, PACE, PoolPurpose, PoolRequest, Pools};
use crate::engine::io::Protocol;
use crate::engine::kernel::{Context, Miss, Retry, Subject};
use crate::engine::messages::SettleRequest;
use crate::ids::{Key, PoolId, TermsHash, TradeId};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// One round. Not on disk: a member repeats its consent when it is asked again.
#[derive(Debug)]
pub(super) struct Round {
    pool: PoolId,
    terms: TermsHash,
    /// Funders in the order of the terms.
    order: Vec<Key>,
    accepts: BTreeMap<Key, Envelope>,
    is_agreed: bool,
    /// Who knows that all agree.
    told: BTreeSet<Key>,
    retry: Retry,
}

impl Round {
    fn is_over(&self) -> bool {
        self.is_agreed && self.told.len() >= self.order.len()
    }

    pub(super) fn due_ms(&self) -> TimeMs {
        if self.is_over() { TimeMs::MAX } else { self.retry.due_ms() }
    }

    /// Counts it against members that they did not sign in time.
    pub(super) fn blame(&self, ctx: &mut Context<'_>, kept: &PoolV1) {
        let Part::Creator { others } = &kept.part else { return };
        // Asked once alone, it may have been this node that was away until it was too late.
        if self.is_agreed || self.retry.tries() < 2 {
            return;
        }
        for member in others.iter().filter(|member| !self.accepts.contains_key(&member.key)) {
            ctx.missed(Subject::Key(member.key), Miss::Terms);
        }
    }

    /// All consents in the order of the terms, once they are there.
    fn complete(&self) -> Option<Vec<Envelope>> {
        self.order.iter().map(|key| self.accepts.get(key).cloned()).collect()
    }
}

impl Pools {
    /// The seller has signed, and so has this node, for a trade of its pool: now the others.
    pub fn on_signed(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>, trade: TradeId) {
        let mut created = self.pools.iter_mut().filter(|(_, kept)| {
            matches!(kept.part, Part::Creator { .. })
                && matches!(kept.stage, Stage::Settling { trade: t, .. } if t == trade)
        });
        let Some((id, kept)) = created.next() else { return };
        let id = *id;
        let Some(signed) = floor.trades.consents(&trade) else { return };
        let terms = signed.agreement.hash();
        if self.rounds.get(&trade).is_some_and(|round| round.terms == terms) {
            return;
        }
        if let Stage::Settling { is_asked, .. } = &mut kept.stage {
            *is_asked = true;
        }
        self.changed(ctx, id);
        let order: Vec<Key> =
            signed.agreement.terms().funders.iter().map(|funder| funder.key).collect();
        let is_agreed = signed.is_agreed();
        let known = if is_agreed { order.clone() } else { vec![ctx.me()] };
        let round = Round {
            pool: id,
            terms,
            accepts: known.into_iter().zip(signed.accepts.iter().cloned()).collect(),
            told: BTreeSet::from([ctx.me()]),
            retry: Retry::new(PACE, ctx.now_ms),
            order,
            is_agreed,
        };
        self.rounds.insert(trade, round);
        self.ask_members(ctx, floor, trade);
    }

    pub(super) fn ask_members_due(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>) {
        let due = self
            .rounds
            .iter()
            .filter(|(_, round)| !round.is_over() && round.retry.is_due(ctx.now_ms));
        let due: Vec<TradeId> = due.map(|(trade, _)| *trade).collect();
        due.into_iter().for_each(|trade| self.ask_members(ctx, floor, trade));
    }

    fn ask_members(&mut self, ctx: &mut Context<'_>, floor: &mut Floor<'_>, trade: TradeId) {
        let Some(round) = self.rounds.get_mut(&trade) else { return };
        round.retry.take(ctx.now_ms);
        let (pool, terms) = (round.pool, round.terms);
        let complete = round.complete().filter(|_| round.is_agreed);
        for key in &round.order {
            let request = match &complete {
                Some(_) if round.told.contains(key) => continue,
                Some(accepts) => {
                    PoolRequest::Agreed { terms_hash: terms, accepts: accepts.clone() }
                }
                None if round.accepts.contains_key(key) => continue,
                None => {
                    let Some((row, agreement)) = floor.trades.agreed_terms(&trade) else { return };
                    PoolRequest::Terms {
                        pool,
                        row: row.clone(),
                        title: Box::new(agreement.title.clone()),
                        terms: agreement.signed.envelope.clone(),
                        feerate_sat_kvb: floor.trades.joint_feerate(&trade),
                    }
                }
            };
            let purpose = match complete {
                Some(_) => PoolPurpose::Agreed(pool, terms),
                None => PoolPurpose::Terms(pool, terms),
            };
            ctx.out.send(*key, Protocol::Settle, &SettleRequest::Pool(request), purpose);
        }
    }

    /// A member has signed.
    pub(super) fn on_accept(
        &mut self,
        ctx: &mut Context<'_>,
        floor: &mut Floor<'_>,
        peer: Key,
        terms: TermsHash,
        accept: Envelope,
    ) {
        let found = self.rounds.iter_mut().find(|(_, round)| round.terms == terms);
        let Some((trade, round)) = found else { return };
        if accept.key != peer.0 || round.is_agreed {
            return;
        }
        let trade = *trade;
        // One that does not hold would keep the others' from being any good.
        if floor.trades.check_consent(ctx, trade, &accept).is_err() {
            return;
        }
        round.accepts.insert(peer, accept);
        let Some(accepts) = round.complete() else { return };
        let agreed = floor.trade(|trades, desk| trades.agree(ctx, desk, trade, &accepts));
        if let (Ok(()), Some(round)) = (agreed, self.rounds.get_mut(&trade)) {
            round.is_agreed = true;
            round.retry.reset(ctx.now_ms);
            self.ask_members(ctx, floor, trade);
        }
    }

    /// A member knows that all agree.
    pub(super) fn on_told(&mut self, peer: Key, terms: TermsHash) {
        if let Some(round) = self.rounds.values_mut().find(|round| round.terms == terms) {
            round.told.insert(peer);
        }
    }
}
