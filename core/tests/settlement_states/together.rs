//! Two trades that one funding pays: what concerns both, and where they begin.
//!
//! They begin with both locks granted and the wallet asked for the one funding, because what comes
//! before is a matter of each trade. Their first refund heights are a block apart. A trade whose
//! companion does not fit any more goes on with a funding of its own, and ends here: that is
//! another search.

use capex_core::settlement::buyer::FundPlan;

use super::*;

impl World {
    pub(super) fn is_together(&self) -> bool {
        self.bounds.trades == Trades::Together
    }

    /// Whether a message is about the funding, and so about both.
    pub(super) fn is_common(&self, bit: u32) -> bool {
        self.is_together() && bit & message::COMMON != 0
    }

    pub(super) fn is_common_tx(&self, tx: Tx) -> bool {
        self.is_together() && COMMON_TXS & tx.bit() != 0
    }

    /// Trades that something concerns which happens to one.
    pub(super) fn concerned(&self, trade: usize, is_common: bool) -> std::ops::Range<usize> {
        if is_common { 0..2 } else { trade..trade + 1 }
    }

    /// What leaves a node.
    pub(super) fn leave(&self, state: &mut State, trade: usize, left: Left) {
        state.sent[trade] |= left.sent;
        state.offered[trade] |= left.offered;
        if self.is_together() {
            // A provider that sells is shown a funding once, for both roles.
            let unseen = if self.bounds.is_one_node { message::FUND_SHOWN } else { 0 };
            state.sent[trade] &= !unseen;
            state.sent[1 - trade] |= left.sent & message::COMMON & !unseen;
            state.offered[1 - trade] |= left.offered & COMMON_TXS;
        }
    }

    /// A message arrives.
    pub(super) fn deliver(
        &mut self,
        state: &mut State,
        trade: usize,
        bit: u32,
    ) -> Option<&'static str> {
        match bit {
            _ if !self.is_common(bit) => self.drive(state, recipient(bit), trade, bit),
            message::FUND => self.show_fund(state),
            message::WALLET if !self.fits(state) => {
                self.drive_both(state, Who::Buyer, cause::PARTED)
            }
            _ => self.drive_both(state, recipient(bit), bit),
        }
    }

    fn drive_both(&mut self, state: &mut State, who: Who, bit: u32) -> Option<&'static str> {
        let first = self.drive(state, who, 0, bit);
        first.or(self.drive(state, who, 1, bit))
    }

    /// The provider takes the funding for both trades or for none, and acknowledges it likewise.
    fn show_fund(&mut self, state: &mut State) -> Option<&'static str> {
        if !(0..2).all(|trade| self.takes(state, trade)) {
            return self.drive_both(state, Who::Provider, cause::FACTS);
        }
        let (mut is_acknowledged, mut broken) = (true, None);
        let known = state.sent[0] & message::ACK;
        for trade in 0..2 {
            state.sent[trade] &= !message::ACK;
            broken = broken.or(self.drive(state, Who::Provider, trade, message::FUND));
            is_acknowledged &= state.sent[trade] & message::ACK != 0;
        }
        let acknowledged = if is_acknowledged { message::ACK } else { known };
        for sent in &mut state.sent {
            *sent = *sent & !message::ACK | acknowledged;
        }
        if self.bounds.is_one_node {
            broken = broken.or(self.drive_both(state, Who::Seller, message::FUND_SHOWN));
        }
        broken
    }

    fn takes(&self, state: &State, trade: usize) -> bool {
        let Some(registrar) = self.registrars.get(state.registrar[trade]) else { return false };
        let cast = self.cast(state, trade);
        let now = self.stage.now(state.tip);
        matches!(registrar.state, registrar::State::Activated { .. })
            || registrar.clone().fund(now, &cast.rail, &cast.fund).is_ok()
    }

    /// Whether what the wallet has built fits both, if that is what it answers.
    fn fits(&self, state: &State) -> bool {
        let buyer = |trade: usize| self.buyers.get(state.buyer[trade]).map(|buyer| &buyer.state);
        let is_funding = |trade| matches!(buyer(trade), Some(buyer::State::Funding { .. }));
        let fits = |trade: usize| {
            let Some(buyer) = self.buyers.get(state.buyer[trade]) else { return false };
            let buyer::State::Funding { signed, plan, .. } = &buyer.state else { return false };
            let (cast, now) = (self.cast(state, trade), self.stage.now(state.tip));
            buyer.funding(now, (signed, plan), &cast.rail, &cast.fund, 500).is_ok()
        };
        !(0..2).any(is_funding) || (0..2).all(fits)
    }

    fn cast(&self, state: &State, trade: usize) -> &Cast {
        &self.casts[&(u8::try_from(trade).unwrap(), state.t0[trade].unwrap())]
    }

    pub(super) fn first_together(&mut self) -> State {
        let stage = &self.stage;
        let mut casts = [0, 1].map(|number| Cast::new(stage, number, number));
        let [first, second] = &mut casts;
        Cast::pay_together(stage, [first, second]);
        let mut state = State { tip: 1, t0: [Some(0), Some(1)], ..Self::nothing() };
        let (mut buyers, mut stakes) = (Vec::new(), Vec::new());
        for (trade, cast) in casts.iter().enumerate() {
            let t0 = state.t0[trade].unwrap();
            let scene = |tip| {
                let (view, is_sure) = (View::default(), true);
                Scene { stage, cast, view, tip, is_sure }
            };
            let mut seller = new_seller(stage, cast);
            // Its tip was a block behind that of the other trade.
            tell_seller(&mut seller, scene(t0), message::REQUEST);
            tell_seller(&mut seller, scene(1), message::LOCK_HEARD);
            let mut buyer = new_buyer(stage, cast, 1);
            for bit in [message::TERMS, message::LOCK] {
                tell_buyer(&mut buyer, scene(1), bit);
            }
            stakes.push(buyer.stake(scene(1).now(), &cast.rail).unwrap());
            buyers.push(buyer);
            let accept = message::ACCEPT[usize::from(1 - t0)];
            let (registrar, _) = tell_registrar(None, scene(1), accept, true);
            state.seller[trade] = self.sellers.put(seller);
            state.registrar[trade] = self.registrars.put(registrar.unwrap());
        }
        assert!(stakes[0].fits(&stakes[1], &stage.params));
        let plan = FundPlan::of(stakes);
        for (trade, mut buyer) in buyers.into_iter().enumerate() {
            let buyer::State::Locked { signed, lock, .. } = buyer.state else { panic!() };
            buyer.state = buyer::State::Funding { signed, lock, plan: plan.clone() };
            state.buyer[trade] = self.buyers.put(buyer);
        }
        self.casts.extend(casts.into_iter().zip(0..).map(|(cast, n)| ((n, n), cast)));
        let _ = self.drive_all(&mut state, cause::TIP);
        state
    }
}
