//! What can still matter to a role: two states that differ in nothing else are one.

use capex_core::settlement::buyer::{Buyer, Phase, State as Buys};
use capex_core::settlement::facts::Facts;
use capex_core::settlement::registrar::{Registrar, State as Keeps};
use capex_core::settlement::seller::{self, Seller, State as Sells};

use crate::roles::message;

/// Messages that a buyer may still act on.
pub(crate) fn heard_by_buyer(buyer: &Buyer) -> u32 {
    use message::{ACK, ACTIVATION, LOCK, QUIT_REFUSED, QUITTANCE, TERMS, WALLET};
    let exit = QUITTANCE | QUIT_REFUSED;
    match &buyer.state {
        Buys::Draft { .. } => TERMS | LOCK | ACK | ACTIVATION | exit,
        Buys::TermsSigned(_) => LOCK | ACK | ACTIVATION | exit,
        Buys::Locked { .. } => ACK | ACTIVATION | exit,
        // The wallet is asked again in each of these states.
        Buys::Funding { .. } => WALLET | ACK | ACTIVATION | exit,
        Buys::Paying { payment, phase } => match phase {
            Phase::Exported => WALLET | ACK | ACTIVATION | exit,
            Phase::Built => ACK | ACTIVATION | exit,
            Phase::Cancelling { cancel: None } => WALLET | ACTIVATION | exit,
            Phase::PreimageKnown if payment.quitted.is_none_or(|quitted| quitted.is_refused) => {
                ACTIVATION
            }
            Phase::Abandoned { .. }
            | Phase::Lapsed
            | Phase::Sent
            | Phase::Confirmed
            | Phase::PreimageKnown
            | Phase::Cancelling { cancel: Some(_) } => ACTIVATION | exit,
            Phase::Refunding { .. } => ACTIVATION,
            Phase::Active { hands_over: true, .. } => QUITTANCE,
            Phase::Active { .. } | Phase::Cancelled | Phase::Refunded | Phase::Defaulted { .. } => {
                0
            }
        },
        Buys::Aborted { .. } => 0,
    }
}

/// Messages that a seller may still act on.
pub(crate) fn heard_by_seller(seller: &Seller) -> u32 {
    use message::{CANCEL_SHOWN, FUND_SHOWN, KEPT, KEY, LOCK_HEARD, NOT_KEPT, REQUEST};
    let Sells::Agreed { signed, phase } = &seller.state else {
        let is_open = matches!(seller.state, Sells::Offered { .. });
        return if is_open { REQUEST | LOCK_HEARD | FUND_SHOWN | CANCEL_SHOWN } else { 0 };
    };
    let shown = if has_fund(&signed.facts) { 0 } else { FUND_SHOWN };
    // One that came too late may count after a reorganisation.
    let kept = if seller.is_kept { 0 } else { KEPT | NOT_KEPT };
    match phase {
        seller::Phase::TermsSigned { .. } => LOCK_HEARD | shown | CANCEL_SHOWN,
        seller::Phase::LockGranted { .. } => shown | CANCEL_SHOWN,
        seller::Phase::Quitting { .. } if signed.handed.is_none() => KEY,
        seller::Phase::FundSeen | seller::Phase::FundFinal => kept,
        seller::Phase::Quitting { .. }
        | seller::Phase::ClaimSent { .. }
        | seller::Phase::Claimed { .. }
        | seller::Phase::Settled { .. }
        | seller::Phase::NeverReveal { .. } => 0,
    }
}

/// Messages that a registrar may still act on, of those that were sent; `answers` are the
/// messages that its buyer waits for and that no registrar has sent yet.
pub(crate) fn heard_by_registrar(registrar: Option<&Registrar>, answers: u32) -> u32 {
    use message::{ACCEPT, ACK, ACTIVATION, CANCEL, FUND, TAKEN, TRANSFER};
    use message::{QUIT_REFUSED, QUIT_SHOWN};
    let Some(registrar) = registrar else { return ACCEPT[0] | ACCEPT[1] | CANCEL };
    let fund = if answers & ACK == 0 { 0 } else { FUND };
    let transfer = if answers & ACTIVATION == 0 { 0 } else { TRANSFER };
    let shown = |answer: u32| if answers & answer == 0 { 0 } else { QUIT_SHOWN };
    match &registrar.state {
        Keeps::Locked => FUND | CANCEL | TAKEN | transfer | QUIT_SHOWN,
        Keeps::Funded => fund | transfer | QUIT_SHOWN,
        Keeps::Activated { .. } => fund | transfer | shown(ACTIVATION),
        Keeps::Released { .. } => shown(QUIT_REFUSED),
    }
}

fn has_fund(facts: &Facts) -> bool {
    facts.contracts().iter().any(|contract| contract.fund.is_some())
}

/// A machine that has ended knows of the chain no more than how it ended.
pub(crate) trait Ends {
    fn is_done(&self) -> bool;
    fn forget(&mut self);
}

impl Ends for Buyer {
    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    fn forget(&mut self) {
        if let Buys::Paying { payment, .. } = &mut self.state {
            payment.facts = Facts::none(payment.facts.contracts().len());
        }
    }
}

impl Ends for Seller {
    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    fn forget(&mut self) {
        self.is_kept = false;
        if let Sells::Agreed { signed, .. } = &mut self.state {
            signed.facts = Facts::none(signed.facts.contracts().len());
        }
    }
}

impl Ends for Registrar {
    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    fn forget(&mut self) {
        self.facts = Facts::none(self.facts.contracts().len());
        self.consent.release_at_ms = 0;
    }
}
