//! `capex order list|show|explain|cancel`: what this node keeps in the market.

use super::failure::Failure;
use super::output::{self, sat, short, side, slots};
use super::paging::{Page, show_list};
use super::{Context, explain, id};
use crate::api::types::{Acknowledged, Order, Side};
use crate::cli::explain::because;
use capex_core::units::msat_to_sat;

/// What about orders.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List standing orders, newest first
    #[command(after_help = "Examples:
  capex order list
  capex order list --limit 20 --json

Next: capex order show <id>")]
    List(Page),
    /// Show one order
    #[command(after_help = "Examples:
  capex order show 0123abcd
  capex order show 0123abcd --json

Next: capex trade list")]
    Show {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Say why an order matched or did not; also an order of somebody else in the book
    #[command(after_help = "Examples:
  capex order explain 0123abcd
  capex order explain 0123abcd --epoch 871234567 --json

Next: capex quote buy --class cpu.standard --qty 1 --max-price 2000sat --for 2slots")]
    Explain {
        /// Id of a standing order, or of an order in an epoch; or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        /// Epoch [default: the last computed one in which it took part]
        #[arg(long, value_name = "EPOCH")]
        epoch: Option<u64>,
    },
    /// Stop re-signing an order; what is already signed stays firm for its epoch
    #[command(after_help = "Examples:
  capex order cancel 0123abcd
  capex order cancel 0123abcd --json

Next: capex order list")]
    Cancel {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        Noun::List(page) => show_list(context, "/orders", "order list", page, list),
        Noun::Show { id } => {
            let order: Order = client.get(&format!("/orders/{id}"))?;
            context.show(&order, show)
        }
        Noun::Explain { id, epoch } => explain::run(id, *epoch, context),
        Noun::Cancel { id } => {
            let done: Acknowledged = client.delete(&format!("/orders/{id}"))?;
            context.show(&done, |_, page| {
                page.line("cancelled: not signed for any further epoch");
            })
        }
    }
}

fn list(orders: &[Order], page: &mut output::Page) {
    let row = |order: &Order| {
        [
            short(&order.order_id),
            side(order.side).to_owned(),
            order.class.clone(),
            format!("{}/{}", order.filled_qty, order.qty),
            format!("{} sat/block", msat_to_sat(order.limit_msat)),
            slots(order.window),
            order.state.clone(),
        ]
    };
    let headings = ["order", "side", "class", "filled", "limit", "slots", "state"];
    page.table(headings, orders.iter().map(row), "no orders: see `capex help sell`");
}

fn show(order: &Order, page: &mut output::Page) {
    page.field("order", &order.order_id).field("side", side(order.side));
    for limit in &order.alternatives {
        let price = msat_to_sat(limit.limit_msat);
        page.field("class", format_args!("{} at {price} sat/block", limit.class));
    }
    page.field("quantity", format_args!("{} (at least {})", order.qty, order.min_qty))
        .field("filled", order.filled_qty)
        .field("slots", slots(order.window));
    if order.side == Side::Buy {
        page.field("run", format_args!("{} slots", order.slots));
    }
    let cap = order.max_fee_sat.map(|cap| format!(", and {}", sat(cap))).unwrap_or_default();
    page.field("fees", format_args!("at most {} % of a trade{cap}", order.max_fee_percent));
    page.maybe("sells", order.cert_id.as_ref().map(|cert| format!("certificate {cert}")));
    for part in order.offers.iter().filter(|part| Some(*part) != order.cert_id.as_ref()) {
        page.field("on offer", format_args!("what is left: {part}"));
    }
    page.maybe("runs", order.workload.as_ref().map(|kind| format!("{kind}, by itself")));
    page.maybe("for", order.beneficiary.as_ref())
        .maybe("redeemed before", order.use_by.map(|slot| format!("slot {slot}")))
        .maybe("recall", order.recall.then_some("by this node, until the first slot begins"))
        .field("state", &order.state)
        .maybe("reason", order.code.as_ref().map(|code| format!("{}: {}", code, because(code))));
    for signed in &order.signed {
        page.field("signed", format_args!("epoch {}: {}", signed.epoch, signed.id));
    }
}
