//! `capex book`: everyone's orders in the open epoch, and how much stands at which price.

use super::client::percent;
use super::failure::Failure;
use super::output::{Page, short, slots};
use super::time::utc;
use super::{Context, watch};
use crate::api::types::{Book, BookOrder, Depth, SlotDepth};
use capex_core::units::msat_to_sat;

/// Class of a book without one.
const DEFAULT_CLASS: &str = "cpu.standard";
/// Rows of a class that `--watch` shows: two classes fit on a screen.
const ROWS_MAX: usize = 16;

/// Flags of `book`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex book cpu.highmem --json
  capex book --watch

Next: capex quote buy --class cpu.standard --qty 1 --max-price 20sat --for 2slots")]
pub struct Flags {
    /// Class [default: cpu.standard, with --watch all]
    #[arg(value_name = "CLASS")]
    pub name: Option<String>,
    /// Class
    #[arg(long, value_name = "CLASS", conflicts_with = "name")]
    pub class: Option<String>,
    /// Show units by class, slot and price, again each second until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Shows it.
///
/// # Errors
/// What the daemon refused.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let class = flags.name.as_ref().or(flags.class.as_ref());
    let client = context.client()?;
    if flags.watch {
        let path = match class {
            Some(class) => format!("/depth?class={}", percent(class)),
            None => "/depth".to_owned(),
        };
        return watch::watch(context, || client.get::<Depth>(&path), depth);
    }
    let class = class.map_or(DEFAULT_CLASS, String::as_str);
    let book: Book = client.get(&format!("/book?class={}", percent(class)))?;
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
    if !book.depth.is_empty() {
        page.line("");
        rows(&book.depth, page);
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

fn depth(depth: &Depth, page: &mut Page) {
    page.line(format_args!(
        "{}  epoch {}, {} orders; now {}, until {}",
        utc(depth.at),
        depth.epoch,
        depth.orders,
        depth.phase,
        utc(depth.epoch_ends_at)
    ));
    if depth.classes.is_empty() {
        page.line("no orders");
    }
    for class in &depth.classes {
        page.line("").line(&class.class);
        rows(&class.slots, page);
    }
}

/// Units at the best price, and in all, of each side.
fn rows(depth: &[SlotDepth], page: &mut Page) {
    let sat = |msat: Option<u64>| msat.map_or("-".to_owned(), |msat| msat_to_sat(msat).to_string());
    let row = |row: &SlotDepth| {
        [
            slots(row.window),
            row.bid_total_qty.to_string(),
            row.bid_qty.to_string(),
            sat(row.best_bid_msat),
            sat(row.best_ask_msat),
            row.ask_qty.to_string(),
            row.ask_total_qty.to_string(),
            sat(row.last_price_msat),
        ]
    };
    let headings =
        ["slots", "bids", "at best", "best bid", "best ask", "at best", "asks", "last price"];
    page.table(headings, depth.iter().take(ROWS_MAX).map(row), "no orders");
    if depth.len() > ROWS_MAX {
        page.line(format_args!("and {} further rows: see --json", depth.len() - ROWS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{ClassDepth, Level};

    #[test]
    fn depth_is_a_table_per_class() {
        let level = Level { limit_msat: 20_500, qty: 2, cumulative_qty: 2 };
        let row = SlotDepth {
            window: [110, 114],
            best_ask_msat: Some(20_500),
            ask_qty: 2,
            ask_total_qty: 5,
            best_bid_msat: None,
            bid_qty: 0,
            bid_total_qty: 0,
            asks: vec![level],
            bids: Vec::new(),
            last_price_msat: Some(20_000),
        };
        let found = Depth {
            at: 0,
            epoch: 7,
            phase: "open".to_owned(),
            epoch_ends_at: 2000,
            orders: 3,
            classes: vec![ClassDepth { class: "cpu.standard".to_owned(), slots: vec![row; 18] }],
        };
        let mut text = Page::default();
        depth(&found, &mut text);
        let lines: Vec<&str> = text.as_str().lines().collect();
        assert!(lines[0].contains("epoch 7, 3 orders; now open, until 1970-01-01"), "{lines:?}");
        assert_eq!(lines[2], "cpu.standard");
        let cells: Vec<&str> = lines[4].split_whitespace().collect();
        assert_eq!(cells, ["[110,", "114)", "0", "0", "-", "20.5", "2", "5", "20"]);
        assert_eq!(lines.last(), Some(&"and 2 further rows: see --json"));
    }
}
