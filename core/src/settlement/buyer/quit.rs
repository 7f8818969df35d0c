//! What a buyer does about a seller that calls the trade paid, and about a contract that was spent
//! with its own key.

use super::{Buyer, Payment, Phase, State, Step};
use crate::ids::Key;
use crate::settlement::check::Now;
use crate::settlement::exit::{self, Quitted};
use crate::settlement::objects::Transfer;
use crate::settlement::rails::chain::timelock::Timelocks;
use crate::settlement::seller::Refused;
use crate::wire::Envelope;

/// What a Quittance comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is kept, and shown to the registrar.
    News,
    /// The seller is to ask again.
    NotYet,
    /// The buyer holds the Activation: the key is the seller's.
    HandOver,
}

impl Buyer {
    /// The seller says that it is paid, and asks for the key of the contract.
    ///
    /// # Errors
    /// `quittance.does_not_fit`, `quittance.resale`, or `quittance.too_late`: the buyer counts on a
    /// claim by script, or on its refund, as always where the network has no such exit.
    pub fn quit(&mut self, now: Now<'_>, peer: Key, signed: &Envelope) -> Result<Exit, Refused> {
        if peer != self.seller {
            return Err(exit::DOES_NOT_FIT);
        }
        let State::Paying { payment, phase } = &mut self.state else {
            return Err(exit::TOO_LATE);
        };
        let terms = payment.signed.agreement.terms();
        if terms.funders.len() != 1 || payment.signed.own != [0] {
            return Err(exit::DOES_NOT_FIT);
        }
        let quitted = Quitted::new(now.params.magic, terms, payment.hash(), signed)?;
        if self.seller != self.registrar {
            return Err(exit::RESALE);
        }
        if now.params.settle.quit_ms == 0 {
            return Err(exit::TOO_LATE);
        }
        match phase {
            Phase::Active { hands_over: true, .. } => Ok(Exit::HandOver),
            Phase::Confirmed
                if payment.quitted.is_none()
                    && now.tip <= Timelocks::of(terms, now.params).last_reveal =>
            {
                payment.quitted = Some(quitted);
                *phase = Phase::PreimageKnown;
                Ok(Exit::News)
            }
            // Its own chain source does not know yet that it has paid.
            Phase::Exported
            | Phase::Abandoned { .. }
            | Phase::Built
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Cancelling { .. } => Ok(Exit::NotYet),
            Phase::PreimageKnown if payment.pending().is_some() => Ok(Exit::NotYet),
            Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Active { .. }
            | Phase::Cancelled
            | Phase::Refunding { .. }
            | Phase::Refunded
            | Phase::Defaulted { .. } => Err(exit::TOO_LATE),
        }
    }

    /// The registrar has refused the Transfer that it was shown. Returns whether that is news: it
    /// will not move the certificate on the seller's word.
    pub fn quittance_refused(&mut self, code: &str) -> bool {
        let State::Paying { payment, phase: Phase::PreimageKnown } = &mut self.state else {
            return false;
        };
        let Some(quitted) = &mut payment.quitted else { return false };
        let is_final = [exit::TOO_LATE, exit::RESALE, "transfer.not_paid"].contains(&code);
        is_final && !std::mem::replace(&mut quitted.is_refused, true)
    }
}

impl Payment {
    /// The contract was spent with a key that an earlier life handed over when it held the
    /// Activation: the certificate is at the registrar, and the coins are gone unless that spend
    /// never comes into a block.
    pub(super) fn due_taken(&self, now: Now<'_>, sure: bool) -> Step {
        let depth = self.facts.taken_depth(now.tip);
        let refund_at = self.signed.agreement.terms().refund_at;
        if !(sure && self.is_over(now)) {
            Step::AskCertificate
        } else if depth >= now.params.chain.final_blocks {
            Step::Default
        } else if depth == 0 && now.tip >= refund_at {
            Step::Refund
        } else {
            Step::Wait
        }
    }

    pub(super) fn is_quit(&self, now: Now<'_>, shown: &Transfer) -> bool {
        let terms = self.signed.agreement.terms();
        exit::has_quit(now.params.magic, terms, self.hash(), shown)
    }
}
