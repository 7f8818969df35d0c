//! What must hold in every state, and what every state can still come to.

use super::*;

impl World {
    /// A rule that a state breaks.
    pub(crate) fn broken(&self, state: &State) -> Option<&'static str> {
        let lives = |number: u16| {
            let registrar = self.registrars.get(number);
            registrar.is_some_and(|r| !matches!(r.state, registrar::State::Released { .. }))
        };
        let is_one_certificate = self.bounds.trades == Trades::InTurn;
        if is_one_certificate && state.registrar.into_iter().all(lives) {
            return Some("two locks of one certificate live");
        }
        let is_paid = |trade: usize| state.view[trade].paid_depth(state.tip) >= FINAL;
        if is_one_certificate && is_paid(0) && is_paid(1) {
            return Some("one certificate is paid twice");
        }
        Self::trades(state).find_map(|trade| self.broken_trade(state, trade))
    }

    fn broken_trade(&self, state: &State, trade: usize) -> Option<&'static str> {
        let registrar = self.registrars.get(state.registrar[trade]).map(|r| &r.state);
        let has_moved = matches!(registrar, Some(registrar::State::Activated { .. }))
            && !self.is_taken_back(state, trade);
        let buyer = self.buyers.get(state.buyer[trade])?;
        let has_coins = matches!(buyer.state.name(), "refunded" | "cancelled" | "aborted");
        let view = &state.view[trade];
        let is_here = |who: Who| state.up & state.sure[trade] & who.bit() != 0;
        // What a provider signed on its own word alone is good for nothing while it is away.
        let is_good = is_here(Who::Provider) || !self.is_on_its_word(state, trade);
        if has_coins && has_moved && is_good {
            return Some("the buyer has its coins and the certificate");
        }
        let is_waiting = matches!(buyer.state.name(), "fund_confirmed" | "preimage_known");
        if is_waiting && is_here(Who::Buyer) && self.is_refundable(state, trade) {
            return Some("the buyer leaves its coins where it could take them back");
        }
        let has_activation = buyer.state.name() == "active";
        if state.sent[trade] & message::KEY != 0 && !has_activation {
            return Some("the buyer gave its key and has no certificate");
        }
        if buyer.state.name() == "aborted" && view.is_mined(Tx::Fund) {
            return Some("the buyer gave up a trade that it funded");
        }
        let is_abandoned = buyer.state.name() == "fund_abandoned";
        if is_abandoned && view.is_mined(Tx::Fund) && is_here(Who::Buyer) {
            return Some("the buyer overlooks what was sent elsewhere");
        }
        let lapsed = matches!(
            registrar,
            Some(registrar::State::Released { code }) if code == "settle.window_over"
        );
        let is_paid = view.paid_depth(state.tip) >= FINAL;
        if is_paid && is_here(Who::Provider) && !has_moved && !lapsed {
            return Some("the seller is paid and the certificate has not moved");
        }
        // A settled sale is as deep as anything is.
        let seller = self.sellers.get(state.seller[trade])?;
        if seller.state.name() == "released" && is_paid {
            return Some("the seller has given up what it was paid for");
        }
        None
    }

    /// Whether a block can take the refund of a trade, and none has taken anything else.
    fn is_refundable(&self, state: &State, trade: usize) -> bool {
        let view = &state.view[trade];
        let cast = state.t0[trade].map(|t0| &self.casts[&(u8::try_from(trade).unwrap(), t0)]);
        let is_due =
            cast.is_some_and(|cast| FIRST + u32::from(state.tip) >= cast.heights.refund_at);
        is_due && view.is_mined(Tx::Fund) && !Tx::SPENDS.into_iter().any(|tx| view.is_mined(tx))
    }

    /// Whether a certificate was moved because its provider, the seller, called it paid.
    fn is_on_its_word(&self, state: &State, trade: usize) -> bool {
        let registrar = self.registrars.get(state.registrar[trade]).map(|r| &r.state);
        matches!(
            registrar,
            Some(registrar::State::Activated { transfer, .. }) if transfer.quittance.is_some()
        )
    }

    /// Whether the register has taken a certificate back, as its seller of the same node tells it.
    fn is_taken_back(&self, state: &State, trade: usize) -> bool {
        let seller = self.sellers.get(state.seller[trade]);
        seller.is_some_and(|seller| seller.takes_back().is_some())
    }

    /// Whether nothing is left to do for anybody who is there.
    pub(crate) fn is_end(&self, state: &State) -> bool {
        Self::trades(state).all(|trade| {
            let buyer = self.buyers.get(state.buyer[trade]).map(|buyer| &buyer.state);
            let seller = self.sellers.get(state.seller[trade]);
            let registrar = self.registrars.get(state.registrar[trade]);
            // It holds the proof of what it paid for: the provider is gone, or delivery is over.
            let is_over = u32::from(state.tip) >= self.stage.delivery_in;
            let waits_for_provider = (is_over || !Self::is_up(state, Who::Provider))
                && buyer.map(buyer::State::name) == Some("preimage_known");
            let done = |who: Who, is_done: bool| is_done || !Self::is_up(state, who);
            // Nothing of it is out, and nothing need ever be.
            let is_idle = buyer.map(buyer::State::name) == Some("fund_abandoned");
            let buyer_done = buyer.is_none_or(buyer::State::is_done) || is_idle;
            done(Who::Buyer, buyer_done || waits_for_provider)
                && done(Who::Seller, seller.is_none_or(|seller| seller.state.is_done()))
                && done(Who::Provider, registrar.is_none_or(|r| r.state.is_done()))
        })
    }

    /// Whether a state at the end of the search still comes to an end when all that was sent
    /// arrives, and every block takes what it can.
    pub(crate) fn finishes(&mut self, state: &State) -> bool {
        if state.tip < self.tip_max() {
            return false;
        }
        let mut state = *state;
        for _ in 0..BLOCKS_TO_FINISH {
            for trade in Self::trades(&state) {
                let sent = state.sent[trade];
                for bit in messages().filter(|bit| sent & bit != 0) {
                    self.deliver(&mut state, trade, bit);
                }
                let offered = state.offered[trade];
                for tx in Tx::ALL.into_iter().filter(|tx| offered & tx.bit() != 0) {
                    self.relay(&mut state, trade, tx);
                }
            }
            state.tip += 1;
            for view in &mut state.view {
                for tx in Tx::ALL.into_iter().filter(|tx| view.mempool & tx.bit() != 0) {
                    view.mined[tx as usize] = state.tip + 1;
                }
                view.mempool = 0;
            }
            self.new_tip(&mut state);
            if self.is_end(&state) {
                return true;
            }
        }
        false
    }

    /// A state in a line, for people.
    pub(crate) fn tell(&self, state: &State) -> String {
        let mut text = format!("tip {}, up {:03b}", state.tip, state.up);
        for trade in Self::trades(state) {
            let buyer = self.buyers.get(state.buyer[trade]).map_or("-", |b| b.state.name());
            let seller = self.sellers.get(state.seller[trade]).map_or("-", |s| s.state.name());
            let registrar =
                self.registrars.get(state.registrar[trade]).map_or("-", |r| r.state.name());
            let View { mined, mempool } = state.view[trade];
            text += &format!(
                "; trade {trade}: buyer {buyer}, seller {seller}, registrar {registrar}, \
                 mined {mined:?}, mempool {mempool:05b}"
            );
        }
        text
    }
}
