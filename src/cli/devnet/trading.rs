//! Offers, bids, one epoch that everybody computes alike, and settlements.

use std::time::Duration;

use super::broken::Broken;
use super::document::{EpochPart, RootPart};
use super::node::Node;
use super::plan::PlannedTrade;
use super::story::{count, id, msat};
use super::wait::{Awaited, Look};
use super::{Run, Sold};
use crate::api::types::{
    Book, Certificate, ClassLimit, Epoch, Mode, Order, PlaceOrder, Placed, Side, Status,
    TimeInForce, Trade,
};
use crate::cli::output::{sat, slots};
use capex_core::reason;

/// How far ahead capacity is offered, slots.
pub(super) const OFFERED_SLOTS: u32 = 15;
/// A bid is for a window this many slots after the first that can be traded, so that it
/// still can be when the epoch is not the one in which it was placed.
const SPARE_SLOTS: u32 = 1;
/// Orders are signed when an epoch opens: placed in the last part of the one before, all
/// are signed for the same.
const PLACE_BEFORE_MS: u64 = 700;

/// State of an order whose window came too near.
pub(super) const EXPIRED: &str = "expired";

const OFFERS_TIME: Duration = Duration::from_secs(20);
const EPOCH_TIME: Duration = Duration::from_secs(20);
/// Several epochs and a second bid.
pub(super) const MATCH_TIME: Duration = Duration::from_secs(30);
const TERMS_TIME: Duration = Duration::from_secs(15);
const CHAIN_TIME: Duration = Duration::from_secs(20);

impl Run<'_> {
    /// From offers to certificates.
    ///
    /// # Errors
    /// What did not come about.
    pub(super) fn trade(&mut self) -> Result<(), Broken> {
        self.offer()?;
        self.bid()?;
        let trades = self.matched()?;
        if let Some(first) = trades.first() {
            self.document.epoch = Some(self.compare_epochs(first.epoch)?);
        }
        self.settle(trades)
    }

    /// From matches to certificates that are their buyers'.
    ///
    /// # Errors
    /// What did not come about.
    pub(super) fn settle(&mut self, trades: Vec<Trade>) -> Result<(), Broken> {
        let settling = self.sold.len()..self.sold.len() + trades.len();
        for (n, trade) in settling.clone().zip(trades) {
            self.see_terms(n, &trade)?;
            self.sold.push(Sold { trade_id: trade.trade_id, cert_id: String::new() });
        }
        for n in settling.clone() {
            self.see_funding(n)?;
        }
        for n in settling {
            self.see_claim(n)?;
        }
        Ok(())
    }

    fn offer(&mut self) -> Result<(), Broken> {
        for planned in self.plan.first_sales() {
            let seller = &self.nodes[planned.seller];
            let first = seller.status()?.first_slot;
            let ask = order(planned, Side::Sell, [first, first + OFFERED_SLOTS]);
            let _: Placed = seller.post("/orders", &ask)?;
        }
        for node in &self.nodes {
            for planned in self.plan.first_sales() {
                self.see_offer(node, planned)?;
            }
        }
        let offers = self.plan.first_sales().iter().map(|planned| {
            let (seller, units) = (self.nodes[planned.seller].name(), planned.units);
            let (class, price) = (planned.class, msat(planned.ask_msat));
            format!("{seller} offers {units} × {class} from {price} a block")
        });
        let (offers, all) = (offers.collect::<Vec<_>>().join(", "), self.nodes.len());
        self.story.tell(format_args!("{offers}: all {all} nodes hold both offers"))
    }

    fn see_offer(&self, node: &Node, planned: &PlannedTrade) -> Result<(), Broken> {
        let seller = &self.nodes[planned.seller];
        let what = format!("the {} offer of {}", planned.class, seller.name());
        let awaited = Awaited { what: &what, from: node.name(), limit: OFFERS_TIME };
        self.wait(awaited, || {
            let book: Book = node.get(&format!("/book?class={}", planned.class))?;
            let is_there = book.asks.iter().any(|ask| ask.owner == seller.key);
            Ok(Look::when(is_there, || format!("{} asks in epoch {}", book.asks.len(), book.epoch)))
        })
    }

    fn bid(&mut self) -> Result<(), Broken> {
        let status = self.end_of_epoch(&self.nodes[self.plan.trades[0].buyer])?;
        let mut told = Vec::new();
        for planned in self.plan.first_sales() {
            let order_id = self.place_bid(planned, &status)?;
            let (buyer, qty, class) =
                (self.nodes[planned.buyer].name(), planned.qty, planned.class);
            let (when, price) = (slots(bid_window(planned, &status)), msat(planned.bid_msat));
            told.push(format!(
                "{buyer} bids for {qty} × {class} in slots {when}, at most {price} a block"
            ));
            self.bids.push(order_id);
        }
        self.story.tell(told.join("; "))
    }

    /// A node's status in the last part of an epoch.
    ///
    /// # Errors
    /// It does not come.
    pub(super) fn end_of_epoch(&self, node: &Node) -> Result<Status, Broken> {
        let awaited = Awaited { what: "the end of an epoch", from: node.name(), limit: EPOCH_TIME };
        self.wait(awaited, || {
            let status = node.status()?;
            let left_ms = status.epoch_ends_at.saturating_sub(status.now_at);
            let is_time = left_ms <= PLACE_BEFORE_MS && left_ms > PLACE_BEFORE_MS / 3;
            Ok(Look::some(is_time.then_some(status), || format!("{left_ms} ms are left")))
        })
    }

    fn place_bid(&self, planned: &PlannedTrade, status: &Status) -> Result<String, Broken> {
        let bid = order(planned, Side::Buy, bid_window(planned, status));
        let placed: Placed = self.nodes[planned.buyer].post("/orders", &bid)?;
        Ok(placed.order_id)
    }

    /// The trades, one per planned, as their buyers have them. On a machine so slow that a
    /// bid's window comes too near before it is matched, the bid is made again for a later
    /// one.
    fn matched(&self) -> Result<Vec<Trade>, Broken> {
        let mut trades = Vec::new();
        for (planned, order_id) in self.plan.first_sales().iter().zip(&self.bids) {
            let buyer = &self.nodes[planned.buyer];
            let mut order_id = order_id.clone();
            let awaited = Awaited { what: "a match", from: buyer.name(), limit: MATCH_TIME };
            trades.push(self.wait(awaited, || {
                if let Some(trade) = buyer.live_trade(planned.class, &self.sold)? {
                    return Ok(Look::Found(trade));
                }
                let bid: Order = buyer.get(&format!("/orders/{order_id}"))?;
                if bid.state == EXPIRED {
                    order_id = self.place_bid(planned, &buyer.status()?)?;
                }
                Ok(Look::Not(format!("its bid is {}", bid.state)))
            })?);
        }
        Ok(trades)
    }

    /// Every node computes an epoch by itself: their roots and results must be equal.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn compare_epochs(&mut self, number: u64) -> Result<EpochPart, Broken> {
        let mut roots = Vec::new();
        let mut rows = Vec::new();
        for node in &self.nodes {
            let what = format!("the result of epoch {number}");
            let awaited = Awaited { what: &what, from: node.name(), limit: EPOCH_TIME };
            let epoch: Epoch =
                self.wait(awaited, || Ok(Look::Found(node.get(&format!("/epochs/{number}"))?)))?;
            roots.push(RootPart {
                node: node.name(),
                root: epoch.root,
                count: epoch.count,
                result_root: epoch.result_root,
            });
            rows.push(epoch.rows);
        }
        let equal = |a: &RootPart, b: &RootPart| {
            (&a.root, a.count, &a.result_root) == (&b.root, b.count, &b.result_root)
        };
        let agreed = roots.windows(2).all(|pair| equal(&pair[0], &pair[1]))
            && rows.windows(2).all(|pair| pair[0] == pair[1]);
        let told = roots.first().map(|first| {
            let (root, result) = (id(&first.root), id(&first.result_root));
            format!(
                "epoch {number} ended: {} nodes computed root {root} over {}, result {result} with {}",
                roots.len(),
                count(first.count.into(), "order"),
                count(rows.first().map_or(0, Vec::len) as u64, "row"),
            )
        });
        if !agreed {
            let message = format!("the nodes computed epoch {number} differently");
            return Err(Broken::new(reason!("devnet.epoch_differs"), message));
        }
        self.story.tell(told.unwrap_or_default())?;
        Ok(EpochPart { epoch: number, roots, agreed })
    }

    /// Buyer and seller have signed the same Terms for the same row.
    fn see_terms(&self, n: usize, trade: &Trade) -> Result<(), Broken> {
        let planned = &self.plan.trades[n];
        let seller = &self.nodes[planned.seller];
        let awaited = Awaited { what: "the same terms", from: seller.name(), limit: TERMS_TIME };
        self.wait(awaited, || {
            let [bought, sold] = self.both(planned, &trade.trade_id)?;
            let signed = |trade: &Trade| {
                let hash =
                    trade.settlement.as_ref().map(|settlement| settlement.terms_hash.clone());
                let row = (trade.class.clone(), trade.window, trade.qty, trade.price_msat);
                hash.map(|hash| (hash, row))
            };
            let equal = signed(&bought).is_some() && signed(&bought) == signed(&sold);
            Ok(Look::when(equal, || instead(&bought, &sold)))
        })
    }

    /// The provider has granted the lock, and the buyer has paid the contract.
    fn see_funding(&mut self, n: usize) -> Result<(), Broken> {
        let (planned, trade_id) = (&self.plan.trades[n], &self.sold[n].trade_id);
        let (buyer, seller) = (&self.nodes[planned.buyer], &self.nodes[planned.seller]);
        let awaited = Awaited { what: "the funding", from: buyer.name(), limit: CHAIN_TIME };
        let (trade, paid, fund) = self.wait(awaited, || {
            let [bought, sold] = self.both(planned, trade_id)?;
            let paid = bought.settlement.clone();
            let fund = paid.as_ref().and_then(|paid| paid.fund.clone());
            Ok(match paid.zip(fund) {
                Some((paid, fund)) => Look::Found((bought, paid, fund)),
                None => Look::Not(instead(&bought, &sold)),
            })
        })?;
        let (buyer, seller) = (buyer.name(), seller.name());
        let provider = self.nodes[planned.provider].name();
        self.story.tell(format_args!(
            "{buyer} and {seller} signed terms {}; {provider} granted the lock, {buyer} paid {} in {} to {}",
            id(&paid.terms_hash),
            sat(trade.price_sat),
            id(&fund.txid),
            short_address(&paid.address),
        ))
    }

    /// The seller has taken the payment, with the buyer's key or by a claim, which reveals the
    /// preimage, and the provider's Activation has made the certificate the buyer's.
    fn see_claim(&mut self, n: usize) -> Result<(), Broken> {
        let (planned, trade_id) = (&self.plan.trades[n], &self.sold[n].trade_id);
        let (buyer, seller) = (&self.nodes[planned.buyer], &self.nodes[planned.seller]);
        let awaited = Awaited { what: "the claim", from: seller.name(), limit: CHAIN_TIME };
        let ((claim, by_key), preimage) = self.wait(awaited, || {
            let [bought, sold] = self.both(planned, trade_id)?;
            let preimage = bought.settlement.as_ref().and_then(|paid| paid.preimage.clone());
            let earned = sold.settlement.as_ref();
            let claim = earned.and_then(|e| e.claim.clone().map(|claim| (claim, e.by_key)));
            Ok(Look::some(claim.zip(preimage), || instead(&bought, &sold)))
        })?;
        let awaited = Awaited { what: "the certificate", from: seller.name(), limit: CHAIN_TIME };
        let certificate: Certificate = self.wait(awaited, || {
            let [bought, sold] = self.both(planned, trade_id)?;
            let Some(cert_id) = &bought.cert_id else {
                return Ok(Look::Not(instead(&bought, &sold)));
            };
            let certificate = buyer.certificate(cert_id)?;
            let is_held = certificate.holder == buyer.key;
            Ok(Look::some(is_held.then_some(certificate), || instead(&bought, &sold)))
        })?;
        let (buyer, seller) = (buyer.name(), seller.name());
        let (claim, preimage, cert) = (id(&claim.txid), id(&preimage), id(&certificate.cert_id));
        let taken = if by_key {
            format!("told {buyer} {preimage} and took it in {claim} with the key of {buyer}")
        } else {
            format!("claimed it in {claim}, which reveals {preimage}")
        };
        self.story.tell(format_args!("{seller} {taken}; certificate {cert} is for {buyer}"))?;
        self.sold[n].cert_id = certificate.cert_id;
        Ok(())
    }

    /// A trade as its buyer and its seller have it.
    pub(super) fn both(
        &self,
        planned: &PlannedTrade,
        trade_id: &str,
    ) -> Result<[Trade; 2], Broken> {
        let bought = self.nodes[planned.buyer].trade(trade_id)?;
        Ok([bought, self.nodes[planned.seller].trade(trade_id)?])
    }

    /// Every node's status.
    pub(super) fn statuses(&self) -> Result<Vec<Status>, Broken> {
        self.nodes.iter().map(Node::status).collect()
    }
}

/// What there is of a trade instead of what is awaited.
fn instead(bought: &Trade, sold: &Trade) -> String {
    let told = |trade: &Trade| match &trade.code {
        Some(code) => format!("{} ({code})", trade.state),
        None => trade.state.clone(),
    };
    format!("the purchase is {}, the sale {}", told(bought), told(sold))
}

/// The end of an address tells it apart; its beginning is that of every taproot address.
fn short_address(address: &str) -> String {
    let end: Vec<char> = address.chars().rev().take(8).collect();
    format!("bcrt1p…{}", end.iter().rev().collect::<String>())
}

/// The slots for which a planned bid is made now.
pub(super) fn bid_window(planned: &PlannedTrade, status: &Status) -> [u32; 2] {
    let start = status.first_slot + SPARE_SLOTS + planned.later_slots;
    [start, start + u32::from(planned.slots)]
}

/// The planned order of a side.
pub(super) fn order(planned: &PlannedTrade, side: Side, window: [u32; 2]) -> PlaceOrder {
    let (limit_msat, qty, slots, min_run) = match side {
        Side::Sell => (planned.ask_msat, planned.units, 0, 1),
        Side::Buy => (planned.bid_msat, planned.qty, planned.slots, 0),
    };
    PlaceOrder {
        side,
        alternatives: vec![ClassLimit { class: planned.class.to_owned(), limit_msat }],
        qty,
        all_spare: false,
        // A part of a bid would be a second trade; a part of an offer is a sale.
        min_qty: if side == Side::Buy { qty } else { 1 },
        mode: Mode::Sticky,
        window,
        slots,
        features: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        min_run,
        time_in_force: TimeInForce::Gtc,
        expires_at: None,
        beneficiary: None,
        use_by: None,
        recall: false,
        max_fee_sat: None,
        max_fee_percent: None,
        cert_id: None,
        workload: None,
    }
}
