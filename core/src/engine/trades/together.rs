//! Several who pay by one transaction: what they show each other until it is whole.
//!
//! The first funder gathers. Each other tells it again and again what it puts in, and its
//! signatures once it has seen what all do; the first one asks those that are missing, and shows
//! all to everybody as soon as there is more to see. Everything is on disk before it is shown, and
//! asked for again after a restart, so no message has to arrive.

use super::batch::Once;
use super::driver::{Open, Turn};
use super::{NO_AGREEMENT, TradePurpose, TradeReply, TradeRequest, Trades, buyer_of};
use crate::code;
use crate::engine::io::{Effect, Funding};
use crate::engine::kernel::{Answer, Miss, remote_code};
use crate::ids::{Key, TermsHash};
use crate::params::Params;
use crate::settlement::buyer::{Buyer, FundPlan, Gathered, Gathering, Part, Payment, Phase, State};
use crate::settlement::joint::Contribution;
use crate::settlement::seller::Refused;
use crate::units::TimeMs;

/// What does not come from who should have it.
const UNKNOWN: Refused = code!("joint.unknown");
/// What comes too late, and the end of one that not all have signed in time.
const NOT_WHOLE: Refused = code!("joint.not_whole");

impl Trades {
    /// A funder shows the first one what it puts in.
    pub(super) fn on_part(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: TermsHash,
        part: Part,
    ) -> Result<TradeReply, Refused> {
        let trade = buyer_of(turn.index, &terms).ok_or(NO_AGREEMENT)?;
        let answer = self.buyers.touch(turn, trade, |open, turn| open.on_part(turn, peer, part));
        answer.unwrap_or(Err(NO_AGREEMENT))
    }

    /// The first funder shows what all put in, or asks for it.
    pub(super) fn on_parts(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: TermsHash,
        parts: &[Part],
    ) -> Result<TradeReply, Refused> {
        let trade = buyer_of(turn.index, &terms).ok_or(NO_AGREEMENT)?;
        let answer = self.buyers.touch(turn, trade, |open, turn| {
            if open.machine.together.is_none() {
                return Err(UNKNOWN);
            }
            if open.machine.state.gathering().is_some() {
                open.on_parts(turn, peer, parts)?;
            }
            Ok(open.own_part().map_or(TradeReply::NotYet, TradeReply::Part))
        });
        answer.unwrap_or(Err(NO_AGREEMENT))
    }
}

impl Open<Buyer> {
    /// The lock stands: what all put in is brought together while a conflicting one is listened
    /// for.
    pub(super) fn gather(&mut self, turn: &mut Turn<'_, '_>) {
        let Some(feerate_sat_kvb) = self.machine.together else { return };
        if !self.is_fundable(turn) {
            return;
        }
        let State::Locked { signed, lock, quiet_until_ms } = &self.machine.state else { return };
        let rail = self.rail.as_ref();
        let Some(stake) = rail.and_then(|rail| self.machine.stake(turn.now(), rail)) else {
            return;
        };
        let gathering = Gathering::new(feerate_sat_kvb, *quiet_until_ms);
        let plan = FundPlan::together(stake, gathering);
        let (signed, lock) = (signed.clone(), lock.clone());
        self.enter(turn, State::Funding { signed, lock, plan });
    }

    /// Asks the wallet for coins, and once it is known what all put in, for its signatures.
    pub(super) fn ask_coins(&mut self, turn: &mut Turn<'_, '_>) {
        if self.fund_rate(turn).is_none() {
            return;
        }
        let State::Funding { signed, plan, .. } = &self.machine.state else { return };
        let (Some(gathering), Some(own)) = (&plan.gathering, signed.own_number()) else { return };
        let funding = plan.id();
        let effect = if gathering.contributions.contains_key(&own) {
            let joint = self.rail.as_ref().map(|rail| plan.joint(signed, rail));
            let Some(Ok(joint)) = joint else { return };
            Effect::SignPart { funding, tx: joint.tx().clone() }
        } else {
            let Some(output) = plan.outputs.first().cloned() else { return };
            let feerate_sat_kvb = gathering.feerate_sat_kvb;
            Effect::Contribute { funding, output, feerate_sat_kvb }
        };
        self.tried(turn);
        if turn.shared.is_first(Once::Ask(funding)) {
            turn.ctx.out.push(effect);
        }
    }

    /// The wallet's coins for the own part.
    pub(super) fn on_contributed(
        &mut self,
        turn: &mut Turn<'_, '_>,
        result: &Result<Contribution, String>,
    ) {
        let State::Funding { signed, plan, .. } = &self.machine.state else { return };
        let (Some(own), Some(rail)) = (signed.own_number(), &self.rail) else { return };
        let contribution = match result {
            Ok(contribution) => contribution,
            Err(code) if code == code!("wallet.insufficient_funds") => {
                self.refusal = Some(code.clone());
                return;
            }
            Err(code) => return self.give_up(turn, remote_code(code)),
        };
        let amount_sat = plan.outputs.first().map_or(0, |(_, amount_sat)| *amount_sat);
        let fee_sat = contribution.fee_sat(amount_sat);
        if fee_sat.is_none_or(|fee_sat| fee_sat > self.machine.fee_cap_sat) {
            return self.give_up(turn, code!("fund.fee_above_cap"));
        }
        match self.machine.contribute(rail, own, contribution.clone()) {
            Ok(false) => {}
            Ok(true) => self.gathered(turn),
            Err(code) => self.give_up(turn, code),
        }
    }

    /// The wallet's signatures for the own part: from now on others can have them.
    pub(super) fn take_part(&mut self, turn: &mut Turn<'_, '_>, signed_by_wallet: &Funding) {
        let State::Funding { signed, lock, .. } = &self.machine.state else { return };
        let (Some(own), Some(rail)) = (signed.own_number(), self.rail.clone()) else { return };
        let made = self.machine.sign_together(turn.ctx.secp, &rail, &signed_by_wallet.tx);
        let (plan, facts) = match made {
            Ok(made) => made,
            Err(code) => return self.give_up(turn, code),
        };
        let contribution = plan.gathering.as_ref().and_then(|all| all.contributions.get(&own));
        let amount_sat = plan.outputs.first().map_or(0, |(_, amount_sat)| *amount_sat);
        let fee_sat = contribution.and_then(|one| one.fee_sat(amount_sat)).unwrap_or(0);
        let (signed, lock) = (signed.clone(), lock.clone());
        let payment = Payment { signed, lock, plan, fee_sat, quitted: None, facts };
        self.enter(turn, State::Paying { payment: Box::new(payment), phase: Phase::Exported });
        if self.machine.complete_together(&rail) {
            self.moved(turn);
            self.share(turn);
        }
    }

    /// Tells the first funder what this node puts in, or as the first asks those who are missing.
    pub(super) fn ask_others(&mut self, turn: &mut Turn<'_, '_>) {
        self.tried(turn);
        if self.machine.is_gatherer() {
            let me = turn.ctx.me();
            let missing = self.machine.who_is_missing().into_iter().filter(|key| *key != me);
            missing.for_each(|key| self.show(turn, key));
            return;
        }
        let Some((signed, _)) = self.machine.state.gathering() else { return };
        let (Some(first), Some(part)) = (signed.gatherer(), self.own_part()) else { return };
        let request = TradeRequest::Part { terms: signed.agreement.hash(), part };
        Self::send(turn, first, request, TradePurpose::Together(self.machine.trade));
    }

    /// Shows another what all put in.
    fn show(&self, turn: &mut Turn<'_, '_>, to: Key) {
        let Some((signed, gathering)) = self.machine.state.gathering() else { return };
        let parts = gathering.parts(signed.agreement.terms().funders.len());
        let request = TradeRequest::Parts { terms: signed.agreement.hash(), parts };
        Self::send(turn, to, request, TradePurpose::Together(self.machine.trade));
    }

    /// There is more to see: all are shown it.
    fn share(&self, turn: &mut Turn<'_, '_>) {
        if !self.machine.is_gatherer() {
            return;
        }
        let Some((signed, _)) = self.machine.state.gathering() else { return };
        let others: Vec<Key> =
            signed.agreement.terms().funders.iter().skip(1).map(|funder| funder.key).collect();
        others.into_iter().for_each(|key| self.show(turn, key));
    }

    /// Somebody has put something in: written, and once all have, shown to all.
    fn gathered(&mut self, turn: &mut Turn<'_, '_>) {
        self.refusal = None;
        self.tries.reset();
        self.changed(turn);
        let is_whole = self.machine.state.gathering().is_some_and(|(signed, gathering)| {
            gathering.all(signed.agreement.terms().funders.len()).is_some()
        });
        if is_whole {
            self.share(turn);
        }
    }

    /// Whether a time of its plan has passed.
    fn is_past(&self, turn: &Turn<'_, '_>, by_ms: impl Fn(&FundPlan, &Params) -> TimeMs) -> bool {
        let plan = self.machine.state.plan();
        plan.is_some_and(|plan| turn.ctx.now_ms >= by_ms(plan, turn.ctx.params))
    }

    /// Whether this node has signed, and not all others have.
    fn is_signed_here(&self) -> bool {
        matches!(self.machine.state, State::Paying { phase: Phase::Exported, .. })
    }

    fn own_part(&self) -> Option<Part> {
        let (signed, gathering) = self.machine.state.gathering()?;
        gathering.part(signed.own_number()?)
    }

    /// A funder shows this node, the first, what it puts in.
    fn on_part(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        part: Part,
    ) -> Result<TradeReply, Refused> {
        if self.machine.together.is_none() {
            return Err(UNKNOWN);
        }
        // Whoever kept its signature until now gets none of the others': there would be no time left
        // to show the whole to the registrar.
        if self.is_signed_here() && self.is_past(turn, FundPlan::sign_by_ms) {
            return Err(NOT_WHOLE);
        }
        let Some((signed, gathering)) = self.machine.state.gathering() else {
            let is_waiting = self.machine.state.signed().is_some();
            return if is_waiting { Ok(TradeReply::NotYet) } else { Err(UNKNOWN) };
        };
        let funders = signed.agreement.terms().funders.len();
        let number = signed.number_of(peer).filter(|number| *number > 0).ok_or(UNKNOWN)?;
        if !self.machine.is_gatherer() {
            return Err(UNKNOWN);
        }
        // The others would have no time left to sign.
        let is_news = !gathering.contributions.contains_key(&number);
        if is_news && self.is_past(turn, FundPlan::name_by_ms) {
            return Err(NOT_WHOLE);
        }
        let rail = self.rail.clone().ok_or(UNKNOWN)?;
        if self.machine.contribute(&rail, number, part.contribution)? {
            self.gathered(turn);
        }
        if !part.signatures.is_empty() {
            let signed = self.machine.sign(turn.ctx.secp, &rail, number, &part.signatures)?;
            self.signed(turn, signed);
        }
        let parts = self.machine.state.gathering().map(|(_, all)| all.parts(funders));
        let parts = parts.filter(|parts| !parts.is_empty());
        Ok(parts.map_or(TradeReply::NotYet, TradeReply::Parts))
    }

    fn signed(&mut self, turn: &mut Turn<'_, '_>, signed: Gathered) {
        match signed {
            Gathered::Nothing => {}
            Gathered::News => self.changed(turn),
            Gathered::Whole => {
                self.moved(turn);
                self.share(turn);
            }
        }
    }

    /// The first funder shows this node what all put in.
    fn on_parts(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        parts: &[Part],
    ) -> Result<(), Refused> {
        if self.is_signed_here() && self.is_past(turn, |plan, _| plan.ack_by_ms) {
            return Err(NOT_WHOLE);
        }
        let (signed, _) = self.machine.state.gathering().ok_or(UNKNOWN)?;
        if signed.gatherer() != Some(peer) || self.machine.is_gatherer() {
            return Err(UNKNOWN);
        }
        // It asks, and has nothing to show yet.
        if parts.is_empty() {
            return Ok(());
        }
        let rail = self.rail.clone().ok_or(UNKNOWN)?;
        let all: Vec<Contribution> = parts.iter().map(|part| part.contribution.clone()).collect();
        if self.machine.contribute_all(&rail, &all)? {
            self.gathered(turn);
        }
        let signed = (0_u8..).zip(parts).filter(|(_, part)| !part.signatures.is_empty());
        for (number, part) in signed {
            let signed = self.machine.sign(turn.ctx.secp, &rail, number, &part.signatures)?;
            self.signed(turn, signed);
        }
        Ok(())
    }

    /// The answer of another funder.
    pub(super) fn on_together(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        answer: Answer<TradeReply>,
    ) {
        let taken = match answer {
            Answer::Said(TradeReply::Part(part)) => self.on_part(turn, peer, part).map(drop),
            Answer::Said(TradeReply::Parts(parts)) => self.on_parts(turn, peer, &parts),
            Answer::Refused(code) => {
                self.refusal = Some(remote_code(&code).to_owned());
                return;
            }
            Answer::Said(_) | Answer::None => return,
        };
        if let Err(code) = taken {
            self.refusal = Some(code.to_owned());
        }
    }

    /// Whether the registrar is asked to take what all pay together.
    pub(super) fn is_joint_shown(&self) -> bool {
        match &self.machine.state {
            State::Paying { payment, phase: Phase::Built } => payment.is_joint(),
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Locked { .. }
            | State::Funding { .. }
            | State::Paying { .. }
            | State::Aborted { .. } => false,
        }
    }

    /// Who kept the others waiting in vain, as far as this node can say: the first funder alone
    /// knows who has given nothing, and a registrar that answers nothing is known to all. Who was
    /// asked late may have answered late by no fault of its own.
    pub(super) fn blame_partners(&self, turn: &mut Turn<'_, '_>, code: &str) {
        let Some(plan) = self.machine.state.plan() else { return };
        let asked_by = |by_ms| self.tries.since_ms().is_some_and(|since_ms| since_ms <= by_ms);
        let is_asked = asked_by(plan.name_by_ms(turn.ctx.params));
        let is_shown = asked_by(plan.sign_by_ms(turn.ctx.params));
        if code == NOT_WHOLE && self.machine.is_gatherer() && is_asked {
            let me = turn.ctx.me();
            for key in self.machine.who_kept_it().into_iter().filter(|key| *key != me) {
                self.missed(turn, key, Miss::Funding);
            }
        }
        if self.is_joint_shown() && self.refusal.is_none() && is_shown {
            self.missed(turn, self.machine.registrar, Miss::Acknowledgement);
        }
    }
}
