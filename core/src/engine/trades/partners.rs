//! Several who pay for one trade: what each needs of the others before it settles as a buyer by
//! itself.

use bitcoin::secp256k1::{Keypair, SecretKey};

use super::buyer::REFUND_LABEL;
use super::driver::{Open, Turn, now};
use super::purchase::{self, Invited, Purchase};
use super::titles::Titles;
use super::{KEYS, TradeEvent, Trades, turn};
use crate::code;
use crate::engine::kernel::Context;
use crate::ids::{Key, TermsHash, TradeId};
use crate::settlement::buyer::{Buyer, Gathering, Signed, State};
use crate::settlement::check::{self, Agreement, CheckError};
use crate::settlement::objects::{Accept, Row, Terms, TermsRequest};
use crate::settlement::seller::Refused;
use crate::wire::Envelope;

/// The single-use refund key of one who pledges before there is a trade.
pub mod refund_key {
    use super::{Context, KEYS, Keypair, REFUND_LABEL, SecretKey};

    /// A fresh index.
    #[must_use]
    pub fn next(ctx: &mut Context<'_>) -> u64 {
        ctx.next_index(KEYS)
    }

    /// The public key of an index, x-only; `None` with probability 2^-128.
    #[must_use]
    pub fn xonly(ctx: &Context<'_>, index: u64) -> Option<[u8; 32]> {
        let secret = SecretKey::from_slice(&ctx.secret(REFUND_LABEL, index)).ok()?;
        let pair = Keypair::from_secret_key(ctx.secp, &secret);
        Some(pair.x_only_public_key().0.serialize())
    }
}

impl Trades {
    /// Signs terms that another has asked for, as one of their funders, and goes on as a buyer once
    /// all have signed. Returns the own consent.
    pub fn join_buy(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        row: &Row,
        trade: TradeId,
        purchase: Purchase,
        invited: Invited<'_>,
    ) -> (Result<Envelope, Refused>, Vec<TradeEvent>) {
        if self.knows_buy(&trade) {
            return (Err(code!("trade.already_agreed")), Vec::new());
        }
        let mut buyer = purchase::draft(ctx, row, trade, purchase);
        buyer.key_index = invited.key_index;
        if let Err(code) = take_request(ctx, &mut buyer, &invited) {
            return (Err(code), Vec::new());
        }
        if let Some(code) = self.refuse_buy(ctx, &buyer) {
            return (Err(code), Vec::new());
        }
        turn!(self, ctx, titles, |turn| self.sign(turn, buyer, &invited))
    }

    fn sign(
        &mut self,
        turn: &mut Turn<'_, '_>,
        buyer: Buyer,
        invited: &Invited<'_>,
    ) -> Result<Envelope, Refused> {
        let agreement = agreement(turn, &buyer, invited)?;
        self.count(&buyer, turn.ctx.params.slot_s);
        let mut open = Open::new(turn, buyer);
        open.accept(turn, agreement);
        let accept = open.machine.state.signed().and_then(|signed| signed.accepts.first());
        let accept = accept.cloned().ok_or(code!("trade.void"));
        self.buyers.insert(turn, open);
        accept
    }

    /// Checks what one funder has signed.
    ///
    /// # Errors
    /// `trade.void`, or a code of [`CheckError`].
    pub fn check_consent(
        &self,
        ctx: &Context<'_>,
        trade: TradeId,
        accept: &Envelope,
    ) -> Result<(), Refused> {
        let signed = self.consents(&trade).ok_or(code!("trade.void"))?;
        let terms = signed.agreement.signed.envelope.verify::<Terms>(ctx.params.magic);
        let terms = terms.map_err(|error| error.code())?;
        check::consent(now(ctx), &terms, Key(accept.key), accept).map_err(CheckError::code)?;
        let is_together = self.buyers.get(&trade).is_some_and(|b| b.machine.together.is_some());
        let has_same = accept.peek::<Accept>().is_ok_and(|one| one.together == is_together);
        if has_same { Ok(()) } else { Err(CheckError::Accept.code()) }
    }

    /// Every funder has signed, in the order of the terms.
    pub fn agree(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        trade: TradeId,
        accepts: &[Envelope],
    ) -> (Result<(), Refused>, Vec<TradeEvent>) {
        turn!(self, ctx, titles, |turn| {
            let agreed = self.buyers.touch(turn, trade, |open, turn| open.agree(turn, accepts));
            agreed.unwrap_or(Err(code!("trade.void")))
        })
    }

    /// The terms of a purchase that this node has signed, with the consents that it knows, until
    /// it pays.
    #[must_use]
    pub fn consents(&self, trade: &TradeId) -> Option<&Signed> {
        self.buyers.get(trade)?.machine.state.signed()
    }

    /// The own consent to these terms of an open purchase.
    #[must_use]
    pub fn own_consent(&self, trade: &TradeId, terms: TermsHash) -> Option<Envelope> {
        let state = &self.buyers.get(trade)?.machine.state;
        let signed = match state {
            State::TermsSigned(signed)
            | State::Locked { signed, .. }
            | State::Funding { signed, .. } => signed,
            State::Paying { payment, .. } => &payment.signed,
            State::Draft { .. } | State::Aborted { .. } => return None,
        };
        let own = signed.own.first().filter(|_| signed.agreement.hash() == terms)?;
        let own = if signed.is_agreed() { usize::from(*own) } else { 0 };
        signed.accepts.get(own).cloned()
    }

    /// What is known of the one transaction of an open purchase.
    #[must_use]
    pub fn gathering(&self, trade: &TradeId) -> Option<&Gathering> {
        Some(self.buyers.get(trade)?.machine.state.gathering()?.1)
    }

    /// What each pays for its part of the one transaction of an open purchase, sat/kvB.
    #[must_use]
    pub fn joint_feerate(&self, trade: &TradeId) -> Option<u64> {
        self.buyers.get(trade)?.machine.together
    }

    /// The row and the terms of an open purchase.
    #[must_use]
    pub fn agreed_terms(&self, trade: &TradeId) -> Option<(&Row, &Agreement)> {
        let buyer = &self.buyers.get(trade)?.machine;
        Some((&buyer.row, buyer.state.agreement()?))
    }
}

/// The request that led to these terms was another's.
fn take_request(
    ctx: &Context<'_>,
    buyer: &mut Buyer,
    invited: &Invited<'_>,
) -> Result<(), Refused> {
    let terms = invited.terms.peek::<Terms>().map_err(|error| error.code())?;
    if let State::Draft { request, .. } = &mut buyer.state {
        *request = Some(TermsRequest {
            trade_id: buyer.trade,
            to: buyer.to,
            funders: terms.funders,
            tip_height: ctx.chain.height,
            use_by: None,
        });
    }
    Ok(())
}

/// All that a buyer checks before it signs.
fn agreement(
    turn: &Turn<'_, '_>,
    buyer: &Buyer,
    invited: &Invited<'_>,
) -> Result<Agreement, Refused> {
    let title = invited.title.clone();
    let checked = buyer.terms(turn.ctx.secp, turn.now(), title, invited.terms);
    checked.unwrap_or(Err(CheckError::Tips)).map_err(CheckError::code)
}
