//! What an order would get in the open book.

use std::collections::BTreeMap;

use super::explanation::{class_name, explanation, fill};
use crate::api::ApiError;
use crate::api::types::{Fill, Quote, Reason, Side, SlotPrice};
use capex_core::engine::market::quote::LABEL;
use capex_core::epoch::{Phase, computed_at_ms, void_code};
use capex_core::matching::{self, Algorithm, Instance, Outcome, Trade, solve};
use capex_core::params::Params;
use capex_core::settlement::fees::{CLAIM_VSIZE, FUND_VSIZE, REFUND_VSIZE, fee_sat};
use capex_core::settlement::objects::Row;
use capex_core::wire::VERSION;

/// A book with the order that is asked about in it.
pub(in crate::node) struct QuoteStudy {
    pub(in crate::node) params: Params,
    /// For the open epoch, with the order last.
    pub(in crate::node) instance: Instance,
    /// Epoch whose orders these are.
    pub(in crate::node) book_epoch: u64,
    pub(in crate::node) phase: Phase,
    pub(in crate::node) feerate_sat_kvb: u64,
}

impl QuoteStudy {
    pub(super) fn run(self) -> Result<Quote, ApiError> {
        let refuse = |error: matching::MatchError| {
            ApiError::coded(error.code(), error.to_string())
                .with_hint("change what the order asks for; `capex help buy` names the bounds")
        };
        let algorithm = Algorithm::try_from(self.params.matching_version).map_err(refuse)?;
        let outcome = solve(&self.instance, algorithm).map_err(refuse)?;
        let order = self.instance.orders.last();
        let order = order.ok_or_else(|| ApiError::internal("a quote without its order"))?;
        let side = match order.side {
            matching::Side::Buy { .. } => Side::Buy,
            matching::Side::Sell { .. } => Side::Sell,
        };
        let own: Vec<&Trade> =
            outcome.trades.iter().filter(|t| t.buy == LABEL || t.sell == LABEL).collect();
        let binding: Vec<&Trade> = own.iter().copied().filter(|t| self.void(t).is_none()).collect();
        let filled_qty = match side {
            Side::Buy => binding.iter().map(|trade| trade.qty).sum(),
            Side::Sell => most_at_once(&binding),
        };
        let price_sat: u64 = binding.iter().map(|trade| trade.sat).sum();
        let trades = binding.len() as u64;
        let fee = |vsize: u64| fee_sat(self.feerate_sat_kvb, vsize).saturating_mul(trades);
        let (fee_sat, worst_fee_sat) = match side {
            Side::Buy => (fee(FUND_VSIZE), fee(FUND_VSIZE).saturating_add(fee(REFUND_VSIZE))),
            Side::Sell => (fee(CLAIM_VSIZE), fee(CLAIM_VSIZE)),
        };
        let lacking = own.is_empty() || (side == Side::Buy && filled_qty < order.qty);
        let (epoch, qty) = (self.instance.epoch, order.qty);
        Ok(Quote {
            binding: "indication".to_owned(),
            reason: self.reason(),
            book_epoch: self.book_epoch,
            orders: u32::try_from(self.instance.orders.len() - 1).unwrap_or(u32::MAX),
            epoch,
            phase: self.phase.name().to_owned(),
            joins_epoch: if self.phase == Phase::Open { epoch } else { epoch + 1 },
            expires_at: computed_at_ms(epoch, &self.params),
            side,
            qty,
            filled_qty,
            fills: self.fills(&own, side),
            prices: self.prices(&own, &outcome),
            price_sat,
            fee_sat,
            total_sat: match side {
                Side::Buy => price_sat.saturating_add(fee_sat),
                Side::Sell => price_sat.saturating_sub(fee_sat),
            },
            worst_fee_sat,
            explanation: lacking
                .then(|| explanation(&self.params, &self.instance, &outcome, LABEL))
                .transpose()?,
        })
    }

    fn reason(&self) -> Reason {
        let (code, message) = if self.book_epoch != self.instance.epoch {
            (
                "quote.last_book",
                "nobody has signed for the open epoch yet: these are the orders of the last one \
                 that had any, and their owners need not sign them again",
            )
        } else if self.phase == Phase::Open {
            (
                "quote.open_book",
                "orders that are signed stay firm until the epoch ends, but others may still \
                 come, and one price is set for all of them together",
            )
        } else {
            (
                "quote.closed_book",
                "this epoch takes no further orders: one placed now joins the next, whose book \
                 does not exist yet",
            )
        };
        Reason { code: code.to_owned(), message: message.to_owned() }
    }

    fn void(&self, trade: &Trade) -> Option<&'static str> {
        let row = Row {
            v: VERSION,
            epoch: self.instance.epoch,
            buy: [0; 32],
            sell: [0; 32],
            class: trade.class,
            start: trade.start,
            slots: trade.hours,
            qty: trade.qty,
            msat: trade.msat,
        };
        void_code(&row, &self.params)
    }

    fn fills(&self, own: &[&Trade], side: Side) -> Vec<Fill> {
        let orders: BTreeMap<&str, &matching::Order> =
            self.instance.orders.iter().map(|order| (order.id.as_str(), order)).collect();
        own.iter()
            .map(|trade| Fill {
                code: self.void(trade).map(str::to_owned),
                ..fill(&self.params, &orders, trade, side)
            })
            .collect()
    }

    fn prices(&self, own: &[&Trade], outcome: &Outcome) -> Vec<SlotPrice> {
        let delivered = |class: u16, slot: u32| {
            own.iter()
                .any(|t| t.class == class && t.start <= slot && slot < t.start + u32::from(t.hours))
        };
        let prices = outcome.prices.iter().filter(|((class, slot), _)| delivered(*class, *slot));
        prices
            .map(|(&(class, slot), &price_msat)| SlotPrice {
                class: class_name(&self.params, class),
                slot,
                price_msat,
            })
            .collect()
    }
}

/// Units delivered in the busiest slot.
fn most_at_once(trades: &[&Trade]) -> u32 {
    let at = |slot: u32| {
        let there =
            trades.iter().filter(|t| t.start <= slot && slot < t.start + u32::from(t.hours));
        there.map(|trade| trade.qty).sum()
    };
    trades.iter().map(|trade| at(trade.start)).max().unwrap_or(0)
}
