//! What an order can cost, before it is placed.

use serde::Serialize;

use super::failure::Failure;
use super::output::{Page, sat, side, slots};
use super::time::utc;
use super::{Context, client::Client};
use crate::api::types::{PlaceOrder, Placed, Preview, Side};
use capex_core::units::msat_to_sat;

/// Asks the node what an order can cost.
///
/// # Errors
/// What the daemon refused.
pub fn preview(order: &PlaceOrder, client: &Client) -> Result<Preview, Failure> {
    // What shall run costs nothing.
    let order = PlaceOrder { workload: None, ..order.clone() };
    client.post("/orders/preview", &order)
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
        .field(worst, sat(preview.worst_case_sat))
        .field("fee limit", format_args!("{}, or it is not signed", sat(preview.max_fee_sat)));
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
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let preview = preview(&order, client)?;
    if dry_run {
        let order = PlaceOrder { workload: None, ..order };
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
            .next(format_args!("order show {}", placed.order_id));
    })
}
