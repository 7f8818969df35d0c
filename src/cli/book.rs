//! `capex book`: everyone's orders for one class in the open epoch.

use super::Context;
use super::client::percent;
use super::failure::Failure;
use super::output::{Page, short, slots};
use crate::api::types::{Book, BookOrder};
use crate::domain::units::msat_to_sat;

/// Flags of `book`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex book
  capex book --class cpu.highmem --json

Next: capex buy --class cpu.standard --qty 1 --max-price 20sat --for 2slots")]
pub struct Flags {
    /// Class
    #[arg(long, default_value = "cpu.standard", value_name = "CLASS")]
    pub class: String,
}

/// Shows it.
///
/// # Errors
/// What the daemon refused.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let path = format!("/book?class={}", percent(&flags.class));
    let book: Book = context.client()?.get(&path)?;
    context.show(&book, page)
}

fn page(book: &Book, page: &mut Page) {
    page.line(format_args!(
        "{} in epoch {}, for slots from {}",
        book.class, book.epoch, book.first_slot
    ));
    side("asks", &book.asks, page);
    side("bids", &book.bids, page);
    for price in &book.prices {
        let sat = msat_to_sat(price.price_msat);
        page.field("last price", format_args!("slot {}: {sat} sat/block", price.slot));
    }
}

fn side(name: &str, orders: &[BookOrder], page: &mut Page) {
    let row = |order: &BookOrder| {
        [
            format!("{} sat/block", msat_to_sat(order.limit_msat)),
            format!("{} (min {})", order.qty, order.min_qty),
            slots(order.window),
            if order.slots == 0 { "any".to_owned() } else { order.slots.to_string() },
            short(&order.owner) + if order.own { " (own)" } else { "" },
            short(&order.id),
        ]
    };
    let headings = [name, "quantity", "slots", "run", "owner", "id"];
    page.table(headings, orders.iter().map(row), &format!("no {name}"));
}
