//! What a buyer asks of the wallet, and what it does with the answers.
//!
//! A wallet whose keys are elsewhere hands its funding out. From then on others can send it, so
//! the trade is over only when a block has given one of its coins to another transaction.

use bitcoin::ScriptBuf;

use super::batch::Once;
use super::buyer::lend;
use super::driver::{Machine, Open, Turn};
use crate::code;
use crate::engine::io::{Effect, Funding};
use crate::engine::kernel::{Miss, remote_code};
use crate::ids::FundingId;
use crate::settlement::buyer::{Buyer, FundPlan, Lock, Payment, Phase, State};
use crate::settlement::check::{self, Agreement, CheckError};
use crate::settlement::facts::Facts;
use crate::settlement::fees;
use crate::settlement::transaction::{KnownTx, OwnTx};

/// The wallet's reason when too few coins are free.
const NO_COINS: &str = code!("wallet.insufficient_funds");
/// The wallet's reason when its keys are elsewhere and somebody has still to sign.
const UNSIGNED: &str = code!("wallet.unsigned");
/// The wallet's reason when a funding can never confirm, and so needs no cancel.
const FUND_DEAD: &str = code!("wallet.fund_dead");
/// The wallet's reason when a funding is settled in the chain.
const FUND_CONFIRMED: &str = code!("wallet.confirmed");

/// Whether another lock of the same certificate was heard.
fn is_contested(turn: &Turn<'_, '_>, agreement: &Agreement, lock: &Lock) -> bool {
    let terms = agreement.terms();
    turn.titles.conflicting_lock(
        agreement.registrar,
        terms.cert_id,
        terms.seq,
        lock.attempt,
        agreement.hash(),
    )
}

/// Asks the wallet, once in a turn for all that share a funding.
pub(super) fn want(
    turn: &mut Turn<'_, '_>,
    funding: FundingId,
    outputs: Vec<(ScriptBuf, u64)>,
    feerate_sat_kvb: u64,
) {
    if turn.shared.is_first(Once::Ask(funding)) {
        turn.ctx.out.push(Effect::Fund { funding, outputs, feerate_sat_kvb });
    }
}

impl Open<Buyer> {
    /// Everything is checked once more before the wallet signs.
    pub(super) fn ask_wallet(&mut self, turn: &mut Turn<'_, '_>) {
        match &self.machine.state {
            State::Locked { .. } if self.machine.together.is_some() => self.gather(turn),
            State::Funding { plan, .. } if plan.gathering.is_some() => self.ask_coins(turn),
            State::Locked { .. } => {
                if self.is_fundable(turn) {
                    turn.shared.fundable(self.machine.trade);
                }
            }
            State::Funding { plan, .. } => {
                let (funding, outputs) = (plan.id(), plan.outputs.clone());
                if let Some(feerate_sat_kvb) = self.fund_rate(turn) {
                    self.tried(turn);
                    want(turn, funding, outputs, feerate_sat_kvb);
                }
            }
            State::Paying { phase: Phase::Exported, .. } => self.ask_signature(turn),
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Paying { .. }
            | State::Aborted { .. } => {}
        }
    }

    /// Whether nothing speaks against funding it now; what does for good ends it.
    pub(super) fn is_fundable(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        self.fund_rate(turn).is_some()
    }

    /// The rate of its funding, sat/kvB, as long as it may be funded.
    pub(super) fn fund_rate(&mut self, turn: &mut Turn<'_, '_>) -> Option<u64> {
        let (State::Locked { signed, lock, .. } | State::Funding { signed, lock, .. }) =
            &self.machine.state
        else {
            return None;
        };
        let agreement = &signed.agreement;
        let left = agreement.terms().fund_by.saturating_sub(turn.ctx.chain.height);
        // Without an estimate nobody knows what it costs: it waits for one until its deadline.
        let Some(feerate_sat_kvb) = turn.ctx.chain.estimate(fees::fund_target(left)) else {
            self.tried(turn);
            return None;
        };
        let refused = if is_contested(turn, agreement, lock) {
            Some("lock.conflict")
        } else if fees::fund_fee_sat(feerate_sat_kvb) > self.machine.fee_cap_sat {
            Some("fund.fee_above_cap")
        } else if self.machine.is_uneconomical(feerate_sat_kvb) {
            Some("fund.uneconomical")
        } else {
            check::reach(turn.now(), agreement.terms()).err().map(CheckError::code)
        };
        let Some(code) = refused else { return Some(feerate_sat_kvb) };
        self.give_up(turn, code);
        None
    }

    /// Whether this trade takes what the wallet has built for it.
    pub(super) fn takes(&self, turn: &Turn<'_, '_>, built: &Funding) -> bool {
        let State::Funding { signed, plan, .. } = &self.machine.state else { return false };
        let tx = KnownTx::new(built.tx.clone());
        let checked = self
            .rail
            .as_ref()
            .map(|rail| self.machine.funding(turn.now(), (signed, plan), rail, &tx, built.fee_sat));
        matches!(checked, Some(Ok(_)))
    }

    /// Asks the wallet whether what it handed out has come back signed.
    fn ask_signature(&mut self, turn: &mut Turn<'_, '_>) {
        let State::Paying { payment, .. } = &self.machine.state else { return };
        let agreement = &payment.signed.agreement;
        let refused = if is_contested(turn, agreement, &payment.lock) {
            Some("lock.conflict")
        } else {
            check::reach(turn.now(), agreement.terms()).err().map(CheckError::code)
        };
        if let Some(code) = refused {
            self.give_up(turn, code);
            return;
        }
        self.tried(turn);
        self.want_funding(turn);
    }

    /// Asks the wallet for the funding that it has built already.
    pub(super) fn want_funding(&self, turn: &mut Turn<'_, '_>) {
        let Some(payment) = self.machine.state.payment() else { return };
        let feerate_sat_kvb = turn.ctx.chain.feerate_sat_kvb(fees::FUND_TARGET);
        want(turn, payment.plan.id(), payment.plan.outputs.clone(), feerate_sat_kvb);
    }

    /// Near its last height a funding that waits is worth what is paid for the next block, if
    /// the buyer allows as much.
    pub(super) fn ask_bump(&self, turn: &mut Turn<'_, '_>) {
        let payment = self.machine.state.payment();
        // Its outputs are what the others have signed for.
        let Some(payment) = payment.filter(|payment| !payment.is_joint()) else { return };
        let fund_by = payment.signed.agreement.terms().fund_by;
        let left = fund_by.saturating_sub(turn.ctx.chain.height);
        let Some(rate) = turn.ctx.chain.estimate(fees::URGENT_TARGET) else { return };
        let Some(vsize) = payment.fund().map(|fund| fund.tx().vsize() as u64) else { return };
        let wanted_sat = fees::fee_sat(rate, vsize);
        let is_better = fees::bump(payment.fee_sat, wanted_sat, vsize).is_some();
        if left > fees::LAST_BLOCKS || !is_better || wanted_sat > payment.plan.fee_cap_sat {
            return;
        }
        want(turn, payment.plan.id(), payment.plan.outputs.clone(), rate);
    }

    /// The wallet's answer: a funding, or its replacement.
    pub(super) fn on_funded(&mut self, turn: &mut Turn<'_, '_>, result: Result<Funding, String>) {
        match (&mut self.machine.state, result) {
            (State::Funding { plan, .. }, Ok(funding)) if plan.gathering.is_some() => {
                self.take_part(turn, &funding);
            }
            (State::Funding { .. }, Ok(funding)) => self.take_funding(turn, funding),
            // The change of another funding comes free as soon as that is broadcast.
            (State::Funding { .. }, Err(code)) if code == NO_COINS || code == UNSIGNED => {
                self.refusal = Some(code);
            }
            (State::Funding { .. }, Err(code)) => self.give_up(turn, remote_code(&code)),
            (State::Paying { payment, phase: Phase::Cancelling { cancel } }, Ok(funding)) => {
                // The wallet may repeat its answer to the funding itself.
                let fund = payment.fund().map(KnownTx::tx);
                let last = cancel.as_ref().map(|cancel| cancel.tx.tx());
                if fund != Some(&funding.tx) && last != Some(&funding.tx) {
                    *cancel = Some(OwnTx::new(funding.tx, funding.fee_sat));
                    self.changed(turn);
                    self.tries.reset();
                }
            }
            (State::Paying { payment, phase: Phase::Exported }, Ok(funding))
                if !payment.is_joint() =>
            {
                self.take_signed(turn, funding);
            }
            (State::Paying { phase: Phase::Abandoned { .. }, .. }, Ok(funding)) => {
                self.sent_elsewhere(turn, &KnownTx::new(funding.tx));
            }
            (State::Paying { payment, phase: Phase::Abandoned { .. } }, Err(code))
                if code == FUND_CONFIRMED =>
            {
                if let Some(fund) = payment.fund().cloned() {
                    self.sent_elsewhere(turn, &fund);
                }
            }
            (State::Paying { phase: Phase::Exported | Phase::Abandoned { .. }, .. }, Err(code))
                if code == FUND_DEAD =>
            {
                self.enter_phase(turn, Phase::Cancelled);
            }
            (State::Paying { phase: Phase::Sent, .. }, Ok(funding)) => {
                let (tx, fee_sat) = (KnownTx::new(funding.tx), funding.fee_sat);
                let rail = self.rail.as_ref();
                if rail.is_some_and(|rail| self.machine.bumped(rail, &tx, fee_sat)) {
                    self.changed(turn);
                    self.broadcast(turn, &tx);
                }
            }
            (State::Paying { phase: Phase::Cancelling { .. }, .. }, Err(code)) => {
                if code == FUND_DEAD {
                    self.enter_phase(turn, Phase::Cancelled);
                } else {
                    self.refusal = Some(code);
                }
            }
            _ => {}
        }
    }

    /// The wallet's unsigned funding was handed out: from now on it can be sent by others.
    pub(super) fn on_exported(&mut self, turn: &mut Turn<'_, '_>, built: Funding) {
        let State::Funding { signed, lock, plan } = &self.machine.state else { return };
        if plan.gathering.is_some() {
            // A crash came between the wallet's signatures and what follows from them.
            self.take_part(turn, &built);
            return;
        }
        let Some(rail) = &self.rail else { return };
        let contracts = rail.contracts();
        let mut facts = Facts::none(contracts.len());
        facts.fund(contracts, &KnownTx::new(built.tx));
        let (signed, lock, plan) = (signed.clone(), lock.clone(), plan.clone());
        let (fee_sat, quitted) = (built.fee_sat, None);
        let payment = Box::new(Payment { signed, lock, plan, fee_sat, quitted, facts });
        self.enter(turn, State::Paying { payment, phase: Phase::Exported });
    }

    /// What was handed out has come back with its signature.
    fn take_signed(&mut self, turn: &mut Turn<'_, '_>, funded: Funding) {
        let (tx, now) = (KnownTx::new(funded.tx), turn.now());
        let State::Paying { payment, .. } = &self.machine.state else { return };
        let Some(rail) = &self.rail else { return };
        let checked = if is_contested(turn, &payment.signed.agreement, &payment.lock) {
            Err(code!("lock.conflict"))
        } else {
            let stands = (&payment.signed, &payment.plan);
            self.machine.funding(now, stands, rail, &tx, funded.fee_sat).map(|_| ())
        };
        match checked {
            Ok(()) => {
                self.note_signed(&tx);
                self.enter_phase(turn, Phase::Built);
            }
            Err(code) => self.give_up(turn, code),
        }
    }

    /// The wallet has seen the abandoned funding on the chain, perhaps in an earlier life.
    fn sent_elsewhere(&mut self, turn: &mut Turn<'_, '_>, tx: &KnownTx) {
        self.note_signed(tx);
        if let Some(facts) = self.machine.facts_mut() {
            facts.answered(tx.txid(), Some(true));
        }
        self.enter_phase(turn, Phase::Sent);
        self.rescan(turn);
    }

    fn note_signed(&mut self, tx: &KnownTx) {
        if let (Some(rail), Some(facts)) = (&self.rail, self.machine.facts_mut()) {
            facts.fund(rail.contracts(), tx);
        }
    }

    fn take_funding(&mut self, turn: &mut Turn<'_, '_>, funded: Funding) {
        let State::Funding { signed, lock, plan } = &self.machine.state else { return };
        let Some(rail) = &self.rail else { return };
        let (tx, fee_sat) = (KnownTx::new(funded.tx), funded.fee_sat);
        match self.machine.funding(turn.now(), (signed, plan), rail, &tx, fee_sat) {
            Ok(facts) => {
                let (signed, lock, plan) = (signed.clone(), lock.clone(), plan.clone());
                let payment = Payment { signed, lock, plan, fee_sat, quitted: None, facts };
                let payment = Box::new(payment);
                self.enter(turn, State::Paying { payment, phase: Phase::Built });
            }
            Err(code) => self.give_up(turn, code),
        }
    }

    /// Nobody acknowledged the funding in time: the next one may take its coins, and a block
    /// with that one ends this trade at no extra cost.
    pub(super) fn lapse(&mut self, turn: &mut Turn<'_, '_>) {
        let Some(funding) = self.machine.state.plan().map(FundPlan::id) else { return };
        self.miss_acknowledgement(turn);
        self.enter_phase(turn, Phase::Lapsed);
        lend(turn, funding);
    }

    /// The provider has taken no funding; unless a partner had ended the lock by then.
    pub(super) fn miss_acknowledgement(&mut self, turn: &mut Turn<'_, '_>) {
        if !self.is_kept_by_partners() {
            let fund = self.machine.state.payment().and_then(Payment::fund).map(KnownTx::txid);
            self.missed_with(turn, self.machine.registrar, Miss::Acknowledgement, fund);
        }
    }

    /// Whether the registrar says that its lock has ended, which any of several payers may do, or
    /// that the others took too long to sign.
    pub(super) fn is_kept_by_partners(&self) -> bool {
        let refusal = self.refusal.as_deref();
        let is_theirs = matches!(refusal, Some("lock.released" | "accept.elapsed"));
        is_theirs && !self.machine.partners.is_empty()
    }
}
