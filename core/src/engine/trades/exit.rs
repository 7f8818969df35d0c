//! Carries out the cooperative exit: the seller asks for the buyer's key, and the buyer gives it
//! once it holds the Activation.

use super::buyer::REFUND_LABEL;
use super::driver::{Open, Turn};
use super::seller::PREIMAGE_LABEL;
use super::{Party, Role, TradeEvent, TradePurpose, TradeReply, TradeRequest, Trades};
use crate::certificate::{Certificate, Hop};
use crate::engine::io::Protocol;
use crate::engine::kernel::Answer;
use crate::engine::messages::SettleRequest;
use crate::ids::Key;
use crate::settlement::buyer::{Buyer, Exit, Payment};
use crate::settlement::exit::HandedKey;
use crate::settlement::objects::{Quittance, Terms};
use crate::settlement::seller::{Phase, Refused, Seller};
use crate::wire::{Envelope, VERSION};

impl Trades {
    /// Whether the last change of a certificate is a sale to this node that it takes its coins
    /// back from, or has. What a provider signed for it ahead of the chain came too late.
    #[must_use]
    pub fn has_refunded(&self, certificate: &Certificate) -> bool {
        let Some(Hop::Sale { terms, .. }) = certificate.hops.last() else { return false };
        let Ok(trade) = terms.peek::<Terms>().map(|terms| terms.trade_id) else { return false };
        let is_back = |state| matches!(state, "refunding" | "refunded");
        let past = || self.past.view(Role::Buyer, &trade).is_some_and(|view| is_back(view.state));
        self.buyers.get(&trade).map_or_else(past, |open| is_back(open.machine.state.name()))
    }
}

impl Open<Seller> {
    /// Decides to reveal, which is written before the buyer is told.
    pub(super) fn quit(&mut self, turn: &mut Turn<'_, '_>) {
        if turn.ctx.chain.up && self.machine.quit(turn.now()) {
            self.moved(turn);
        }
    }

    /// Tells the buyer that it has paid, each time in the same words, for its key.
    pub(super) fn ask_key(&mut self, turn: &mut Turn<'_, '_>) {
        let Some((signed, _)) = self.machine.state.agreed() else { return };
        let x = turn.ctx.secret(PREIMAGE_LABEL, signed.key_index);
        let quittance = Quittance { v: VERSION, terms_hash: signed.hash(), x };
        let quittance = turn.ctx.sign(quittance).envelope().clone();
        let request = SettleRequest::Trade(TradeRequest::Quittance(quittance));
        let (buyer, purpose) = (self.machine.buyer, TradePurpose::Quittance(self.machine.trade));
        self.tried(turn);
        turn.ctx.out.send(buyer, Protocol::Settle, &request, purpose);
    }

    /// Whether delivery is over and the own registrar has moved nothing on the word that was
    /// given: it ends both, and nothing is claimed that nobody has got anything for. One that has
    /// moved it has ended by itself, however long ago.
    pub(super) fn is_over_unsold(&self, turn: &Turn<'_, '_>) -> bool {
        let Seller { state, row, .. } = &self.machine;
        let Some((signed, Phase::Quitting { .. })) = state.agreed() else { return false };
        let ctx = &turn.ctx;
        let is_over = ctx.now_ms >= row.window().ends_at_ms(ctx.params.slot_s);
        let mut parties = turn.index.by_terms(&signed.hash()).iter();
        is_over && parties.any(|party| matches!(party, Party::Registrar(_)))
    }

    /// The buyer's answer. Its key is on disk before anything is spent with it; without it the
    /// seller claims by script at once.
    pub(super) fn on_key(&mut self, turn: &mut Turn<'_, '_>, answer: Answer<TradeReply>) {
        let moved = match answer {
            Answer::Said(TradeReply::Key(key)) => {
                self.machine.hand(turn.ctx.secp, key) || self.machine.keeps_key()
            }
            Answer::Refused(_) => self.machine.keeps_key(),
            Answer::Said(_) | Answer::None => false,
        };
        if moved {
            self.changed(turn);
        }
    }
}

impl Open<Buyer> {
    /// The seller says that it is paid. The key leaves only in an answer to that, and only when
    /// the Activation is on disk.
    pub(super) fn on_quittance(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        signed: &Envelope,
    ) -> Result<TradeReply, Refused> {
        match self.machine.quit(turn.now(), peer, signed)? {
            Exit::News => self.moved(turn),
            Exit::NotYet => {}
            Exit::HandOver => {
                let key = turn.single_use_key(REFUND_LABEL, self.machine.key_index);
                let secret = key.map(|key| HandedKey(key.secret_bytes()));
                return secret.map(TradeReply::Key).ok_or(crate::code!("settle.key"));
            }
        }
        Ok(TradeReply::NotYet)
    }

    /// The registrar has refused what it was shown.
    pub(super) fn on_unpaid(&mut self, turn: &mut Turn<'_, '_>, peer: Key, code: &str) {
        if peer == self.machine.registrar && self.machine.quittance_refused(code) {
            self.changed(turn);
        }
    }

    /// Shows the registrar what was paid.
    pub(super) fn ask_activation(&mut self, turn: &mut Turn<'_, '_>) {
        let payment = self.machine.state.payment();
        let Some(transfer) = payment.and_then(Payment::transfer) else {
            self.ask_certificate(turn);
            return;
        };
        self.tried(turn);
        let (registrar, purpose) =
            (self.machine.registrar, TradePurpose::Transfer(self.machine.trade));
        Self::send(turn, registrar, TradeRequest::Transfer(transfer), purpose);
    }

    /// Asks for the certificate that an earlier life has had, which tells this trade of its end.
    pub(super) fn ask_certificate(&mut self, turn: &mut Turn<'_, '_>) {
        self.tried(turn);
        let Some(agreement) = self.machine.state.agreement() else { return };
        let (cert, provider) = (agreement.terms().cert_id, self.machine.registrar);
        turn.events.push(TradeEvent::Missing { cert, provider });
    }
}
