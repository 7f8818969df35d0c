//! What a buyer asks of the wallet, and what it does with the answers.
//!
//! A wallet whose keys are elsewhere hands its funding out. From then on others can send it, so
//! the trade is over only when a block has given one of its coins to another transaction.

use bitcoin::ScriptBuf;

use super::driver::{Machine, Open, Turn};
use crate::code;
use crate::engine::io::{Effect, Funding};
use crate::engine::kernel::remote_code;
use crate::ids::FundingId;
use crate::settlement::buyer::{Buyer, Lock, Payment, Phase, Signed, State};
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

impl Open<Buyer> {
    /// Everything is checked once more before the wallet signs.
    pub(super) fn ask_wallet(&mut self, turn: &mut Turn<'_, '_>) {
        let (signed, lock) = match &self.machine.state {
            State::Locked { signed, lock, .. } | State::Funding { signed, lock, .. } => {
                (signed.clone(), lock.clone())
            }
            State::Paying { phase: Phase::Exported, .. } => {
                self.ask_signature(turn);
                return;
            }
            State::Draft { .. }
            | State::TermsSigned(_)
            | State::Paying { .. }
            | State::Aborted { .. } => return,
        };
        let Some(outputs) = self.outputs(&signed) else { return };
        let terms = signed.agreement.terms();
        let left = terms.fund_by.saturating_sub(turn.ctx.chain.height);
        // Without an estimate nobody knows what it costs: it waits for one until its deadline.
        let Some(feerate_sat_kvb) = turn.ctx.chain.estimate(fees::fund_target(left)) else {
            self.tried(turn);
            return;
        };
        let refused = if is_contested(turn, &signed.agreement, &lock) {
            Some("lock.conflict")
        } else if fees::fund_fee_sat(feerate_sat_kvb) > self.machine.fee_cap_sat {
            Some("fund.fee_above_cap")
        } else if self.machine.is_uneconomical(feerate_sat_kvb) {
            Some("fund.uneconomical")
        } else {
            check::reach(turn.now(), terms).err().map(CheckError::code)
        };
        if let Some(code) = refused {
            self.give_up(turn, code);
            return;
        }
        let funding = FundingId::of(&[signed.agreement.hash()]);
        if matches!(self.machine.state, State::Locked { .. }) {
            self.enter(turn, State::Funding { signed, lock, funding });
        }
        self.tried(turn);
        turn.ctx.out.push(Effect::Fund { funding, outputs, feerate_sat_kvb });
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
        if let Some(outputs) = self.outputs(&payment.signed) {
            let funding = payment.funding;
            turn.ctx.out.push(Effect::Fund { funding, outputs, feerate_sat_kvb });
        }
    }

    fn outputs(&self, signed: &Signed) -> Option<Vec<(ScriptBuf, u64)>> {
        let contracts = self.rail.as_ref()?.contracts();
        let output = |n: &u8| {
            let contract = contracts.get(usize::from(*n))?;
            Some((contract.spk.clone(), contract.amount_sat))
        };
        signed.own.iter().map(output).collect()
    }

    /// Near its last height a funding that waits is worth what is paid for the next block, if
    /// the buyer allows as much.
    pub(super) fn ask_bump(&self, turn: &mut Turn<'_, '_>) {
        let Some(payment) = self.machine.state.payment() else { return };
        let fund_by = payment.signed.agreement.terms().fund_by;
        let left = fund_by.saturating_sub(turn.ctx.chain.height);
        let Some(rate) = turn.ctx.chain.estimate(fees::URGENT_TARGET) else { return };
        let Some(vsize) = payment.fund().map(|fund| fund.tx().vsize() as u64) else { return };
        let wanted_sat = fees::fee_sat(rate, vsize);
        let is_better = fees::bump(payment.fee_sat, wanted_sat, vsize).is_some();
        if left > fees::LAST_BLOCKS || !is_better || wanted_sat > self.machine.fee_cap_sat {
            return;
        }
        let (funding, feerate_sat_kvb) = (payment.funding, rate);
        if let Some(outputs) = self.outputs(&payment.signed) {
            turn.ctx.out.push(Effect::Fund { funding, outputs, feerate_sat_kvb });
        }
    }

    /// The wallet's answer: a funding, or its replacement.
    pub(super) fn on_funded(&mut self, turn: &mut Turn<'_, '_>, result: Result<Funding, String>) {
        match (&mut self.machine.state, result) {
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
            (State::Paying { phase: Phase::Exported, .. }, Ok(funding)) => {
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
        let State::Funding { signed, lock, funding } = &self.machine.state else { return };
        let Some(rail) = &self.rail else { return };
        let contracts = rail.contracts();
        let mut facts = Facts::none(contracts.len());
        facts.fund(contracts, &KnownTx::new(built.tx));
        let (signed, lock, funding) = (signed.clone(), lock.clone(), *funding);
        let (fee_sat, quitted) = (built.fee_sat, None);
        let payment = Box::new(Payment { signed, lock, funding, fee_sat, quitted, facts });
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
            self.machine.funding(now, &payment.signed, rail, &tx, funded.fee_sat).map(|_| ())
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
        let State::Funding { signed, lock, funding } = &self.machine.state else { return };
        let Some(rail) = &self.rail else { return };
        let (tx, fee_sat) = (KnownTx::new(funded.tx), funded.fee_sat);
        match self.machine.funding(turn.now(), signed, rail, &tx, fee_sat) {
            Ok(facts) => {
                let (signed, lock, funding) = (signed.clone(), lock.clone(), *funding);
                let payment = Payment { signed, lock, funding, fee_sat, quitted: None, facts };
                let payment = Box::new(payment);
                self.enter(turn, State::Paying { payment, phase: Phase::Built });
            }
            Err(code) => self.give_up(turn, code),
        }
    }
}
