//! A half is sold on, in a later epoch and at another price.

use super::Run;
use super::broken::Broken;
use super::story::{id, msat};
use super::trading::{MATCH_TIME, order};
use super::wait::{Awaited, Look};
use crate::api::types::{Certificate, Order, PlaceOrder, Placed, Side};

/// The resale among the planned trades.
pub(super) const RESALE: usize = 2;

impl Run<'_> {
    /// Its holder offers a certificate, another node buys it, and the provider, who is neither,
    /// grants the lock and countersigns.
    ///
    /// # Errors
    /// What did not come about.
    pub(super) fn resell(&mut self, cert_id: &str) -> Result<(), Broken> {
        let planned = &self.plan.trades[RESALE];
        let [seller, buyer] = [planned.seller, planned.buyer].map(|n| &self.nodes[n]);
        let Certificate { window, .. } = seller.certificate(cert_id)?;
        self.end_of_epoch(seller)?;
        let ask = order(planned, Side::Sell, window);
        let ask = PlaceOrder { cert_id: Some(cert_id.to_owned()), ..ask };
        let ask: Placed = seller.post("/orders", &ask)?;
        let _: Placed = buyer.post("/orders", &order(planned, Side::Buy, window))?;
        self.story.tell(format_args!(
            "{} offers {}, {} × {}, from {} a block; {} bids at most {} a block for as much",
            seller.name(),
            id(cert_id),
            planned.qty,
            planned.class,
            msat(planned.ask_msat),
            buyer.name(),
            msat(planned.bid_msat),
        ))?;
        let awaited = Awaited { what: "the resale", from: seller.name(), limit: MATCH_TIME };
        let trade = self.wait(awaited, || {
            let offer: Order = seller.get(&format!("/orders/{}", ask.order_id))?;
            let instead = format!("the offer is {}", offer.state);
            Ok(Look::some(buyer.live_trade(planned.class, &self.sold)?, || instead))
        })?;
        self.document.resale_epoch = Some(self.compare_epochs(trade.epoch)?);
        self.settle(vec![trade])
    }
}
