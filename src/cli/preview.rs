//! What an order can cost, before it is placed.

use serde::Serialize;

use super::failure::Failure;
use super::order::side;
use super::output::{Page, sat, slots};
use super::time::utc;
use super::{Context, client::Client};
use crate::api::types::{PlaceOrder, Placed, Reason, Side, SlotRange, Status};
use capex_core::settlement::fees::{CLAIM_VSIZE, FUND_VSIZE, REFUND_VSIZE, fee_sat};
use capex_core::units::msat_to_sat;

/// Total, fee and worst case of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Bid or ask.
    pub side: Side,
    /// Class of the first alternative.
    pub class: String,
    /// Blocks per slot.
    pub qty: u32,
    /// When, slots.
    pub window: SlotRange,
    /// Start of the window, unix ms.
    pub starts_at: u64,
    /// End of the window, unix ms.
    pub ends_at: u64,
    /// Paid at most (buy) or earned at least if everything is sold (sell), sat.
    pub total_sat: u64,
    /// Fees of one trade at the present fee rate, sat.
    pub fee_sat: u64,
    /// Most that can be lost: a bid's total with the fees of as many trades as it may be
    /// filled by, refunds included; an ask's claims. Sat.
    pub worst_case_sat: u64,
    /// What to know before saying yes.
    pub warnings: Vec<Reason>,
}

/// Computes the preview of an order.
#[must_use]
pub fn preview(order: &PlaceOrder, status: &Status) -> Preview {
    let fee = |vsize: u64| fee_sat(status.chain.feerate_sat_kvb, vsize);
    let trades = u64::from(order.qty / order.min_qty.max(1));
    let limits = order.alternatives.iter().map(|limit| limit.limit_msat);
    let run = if order.side == Side::Buy {
        u64::from(order.slots)
    } else {
        u64::from(order.window[1].saturating_sub(order.window[0]))
    };
    let blocks = u64::from(order.qty).saturating_mul(run);
    let msat = limits.max().unwrap_or(0).saturating_mul(blocks);
    let (total_sat, fee_sat, worst_case_sat) = match order.side {
        Side::Buy => {
            let total = msat.div_ceil(1000);
            let fees = fee(FUND_VSIZE).saturating_add(fee(REFUND_VSIZE)).saturating_mul(trades);
            (total, fee(FUND_VSIZE), total.saturating_add(fees))
        }
        Side::Sell => (msat / 1000, fee(CLAIM_VSIZE), fee(CLAIM_VSIZE).saturating_mul(trades)),
    };
    let slot_ms = u64::from(status.slot_s) * 1000;
    Preview {
        side: order.side,
        class: order.alternatives.first().map(|limit| limit.class.clone()).unwrap_or_default(),
        qty: order.qty,
        window: order.window,
        starts_at: u64::from(order.window[0]) * slot_ms,
        ends_at: u64::from(order.window[1]) * slot_ms,
        total_sat,
        fee_sat,
        worst_case_sat,
        warnings: warnings(order, status, total_sat),
    }
}

fn warnings(order: &PlaceOrder, status: &Status, total_sat: u64) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut warn = |code: &str, message: String| {
        found.push(Reason { code: code.to_owned(), message });
    };
    if total_sat < status.min_trade_sat {
        let least = sat(status.min_trade_sat);
        warn("trade.below_minimum", format!("a trade under {least} is void: ask for more blocks"));
    }
    if order.window[1] <= status.first_slot {
        let first = status.first_slot;
        warn(
            "trade.window_too_near",
            format!("the window ends before slot {first}, the next for sale"),
        );
    }
    if order.side == Side::Buy {
        let left = order.window[1].saturating_sub(order.window[0].max(status.first_slot));
        if u32::from(order.slots) > left {
            warn("trade.window_too_near", format!("only {left} slots of the window can be bought"));
        }
        if total_sat > status.wallet.spendable_sat {
            let have = sat(status.wallet.spendable_sat);
            warn("order.insufficient_funds", format!("only {have} can be spent now"));
        }
        warn(
            "trade.default_risk",
            "payment proves the sale, not delivery: a provider that sells can still fail"
                .to_owned(),
        );
    }
    found
}

fn page(preview: &Preview, page: &mut Page) {
    let (total, worst) = match preview.side {
        Side::Buy => ("pays at most", "worst case"),
        Side::Sell => ("earns", "worst fees"),
    };
    page.field(side(preview.side), format_args!("{} × {}", preview.qty, preview.class))
        .field("slots", slots(preview.window))
        .field("from", utc(preview.starts_at))
        .field("until", utc(preview.ends_at))
        .field(total, sat(preview.total_sat))
        .field("fee", format_args!("about {} per trade", sat(preview.fee_sat)))
        .field(worst, sat(preview.worst_case_sat));
    for warning in &preview.warnings {
        page.line(format_args!("warning[{}]: {}", warning.code, warning.message));
    }
}

#[derive(Serialize)]
struct DryRun {
    dry_run: bool,
    preview: Preview,
    order: PlaceOrder,
}

/// Previews, asks, places.
///
/// # Errors
/// Declined, or what the daemon refused.
pub fn place(
    order: PlaceOrder,
    dry_run: bool,
    client: &Client,
    status: &Status,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let preview = preview(&order, status);
    if dry_run {
        return context.show(&DryRun { dry_run, preview, order }, |dry, text| {
            for limit in &dry.order.alternatives {
                let price = msat_to_sat(limit.limit_msat);
                text.field("limit", format_args!("{} at {price} sat/block", limit.class));
            }
            page(&dry.preview, text);
            text.line("Nothing was placed.");
        });
    }
    let mut text = Page::default();
    page(&preview, &mut text);
    context.io.confirm(&text, "Place this order?", context.global.yes)?;
    let placed: Placed = client.post("/orders", &order)?;
    context.show(&placed, |placed, page| {
        page.field("order", &placed.order_id)
            .line("Firm for every epoch that it is signed for, until filled or cancelled.")
            .line(format_args!("Next: capex order show {}", placed.order_id));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ClassLimit;

    pub(crate) fn status() -> Status {
        serde_json::from_str(include_str!("../../tests/api/status.json")).unwrap()
    }

    fn bid() -> PlaceOrder {
        PlaceOrder {
            side: Side::Buy,
            alternatives: vec![
                ClassLimit { class: "cpu.standard".into(), limit_msat: 20_000 },
                ClassLimit { class: "cpu.highmem".into(), limit_msat: 25_001 },
            ],
            qty: 10,
            min_qty: 5,
            mode: crate::api::types::Mode::Sticky,
            window: [110, 114],
            slots: 4,
            features: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            min_run: 0,
            time_in_force: Default::default(),
            expires_at: None,
            beneficiary: None,
        }
    }

    #[test]
    fn a_bid_pays_its_dearest_alternative_and_two_fees_per_trade() {
        let status = status();
        assert_eq!((status.chain.feerate_sat_kvb, status.first_slot), (2_000, 106));
        let found = preview(&bid(), &status);
        assert_eq!(found.total_sat, 1_001);
        assert_eq!(found.fee_sat, 308);
        assert_eq!(found.worst_case_sat, 1_001 + 2 * (308 + 276));
        let codes = |preview: &Preview| -> Vec<String> {
            preview.warnings.iter().map(|warning| warning.code.clone()).collect()
        };
        assert_eq!(codes(&found), ["trade.default_risk"]);
        let late = PlaceOrder { window: [104, 108], ..bid() };
        assert!(codes(&preview(&late, &status)).contains(&"trade.window_too_near".to_owned()));
        let small = PlaceOrder { qty: 5, ..bid() };
        assert!(codes(&preview(&small, &status)).contains(&"trade.below_minimum".to_owned()));
    }

    #[test]
    fn a_fee_rate_out_of_all_bounds_costs_all_there_is() {
        let mut status = status();
        status.chain.feerate_sat_kvb = u64::MAX;
        let found = preview(&bid(), &status);
        assert!(found.fee_sat >= u64::MAX / 1000 && found.worst_case_sat > found.fee_sat);
    }

    #[test]
    fn an_ask_earns_over_its_whole_window() {
        let mut ask = PlaceOrder { side: Side::Sell, slots: 0, ..bid() };
        ask.alternatives.truncate(1);
        let found = preview(&ask, &status());
        assert_eq!((found.total_sat, found.fee_sat, found.worst_case_sat), (800, 310, 620));
    }
}
