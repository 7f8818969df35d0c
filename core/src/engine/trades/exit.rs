//! Carries out the cooperative exit: the seller asks for the buyer's key, and the buyer gives it
//! once it holds the Activation.

use super::buyer::REFUND_LABEL;
use super::driver::{Open, Turn};
use super::seller::PREIMAGE_LABEL;
use super::{TradePurpose, TradeReply, TradeRequest};
use crate::engine::holdings::HoldingsPurpose;
use crate::engine::io::Protocol;
use crate::engine::kernel::Answer;
use crate::engine::messages::SettleRequest;
use crate::engine::register::RegisterRequest;
use crate::ids::Key;
use crate::settlement::buyer::{Buyer, Exit};
use crate::settlement::exit::HandedKey;
use crate::settlement::objects::Quittance;
use crate::settlement::seller::{Refused, Seller};
use crate::wire::{Envelope, VERSION};

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

    /// Asks for the certificate that an earlier life has had, which tells this trade of its end.
    pub(super) fn ask_certificate(&mut self, turn: &mut Turn<'_, '_>) {
        self.tried(turn);
        let Some(agreement) = self.machine.state.agreement() else { return };
        let cert = agreement.terms().cert_id;
        let request = SettleRequest::Register(RegisterRequest::Get(cert));
        let (registrar, purpose) = (self.machine.registrar, HoldingsPurpose::Fetch(cert, None));
        turn.ctx.out.send(registrar, Protocol::Settle, &request, purpose);
    }
}
