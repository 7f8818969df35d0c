//! `capex quote buy|sell`: what an order would get in the open book, before it is placed.

use std::path::PathBuf;

use super::buy::{self, Bid};
use super::failure::Failure;
use super::output::{Page, sat, side};
use super::preview::preview;
use super::sell::{self, Ask};
use super::time::utc;
use super::{Context, explain};
use crate::api::types::{PlaceOrder, Quote, Side};
use capex_core::units::msat_to_sat;

/// Which side.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// What a bid would get and cost
    #[command(after_help = "Examples:
  capex quote buy --class cpu.standard --qty 2 --max-price 2000sat --for 2slots
  capex quote buy --class cpu.standard --qty 2 --max-price 2000sat --slots 2 --for 12h --json

Next: capex buy --class cpu.standard --qty 2 --max-price 2000sat --for 2slots")]
    Buy(Buy),
    /// What an ask would sell and earn
    #[command(after_help = "Examples:
  capex quote sell --class cpu.standard --qty 2 --price 2000sat --for 2h
  capex quote sell --file offer.toml --json

Next: capex sell --class cpu.standard --qty 2 --price 2000sat --for 2h")]
    Sell(Sell),
}

/// Flags of `quote buy`: those of `buy`.
#[derive(Debug, clap::Args)]
pub struct Buy {
    /// The order.
    #[command(flatten)]
    pub bid: Bid,
    /// Read the order from a TOML file whose keys are the flags' names; flags win
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Flags of `quote sell`: those of `sell`.
#[derive(Debug, clap::Args)]
pub struct Sell {
    /// The order.
    #[command(flatten)]
    pub ask: Ask,
    /// Read the order from a TOML file whose keys are the flags' names; flags win
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Asks and shows. Places nothing.
///
/// # Errors
/// A flag, the file, or what the daemon refused.
pub fn run(noun: Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let (order, client) = match noun {
        Noun::Buy(Buy { bid, file }) => buy::prepare(bid, file.as_deref(), context)?,
        Noun::Sell(Sell { ask, file }) => sell::prepare(ask, file.as_deref(), context)?,
    };
    let quote: Quote = client.post("/quote", &order)?;
    let warnings = preview(&order, &client)?.warnings;
    context.show(&quote, |quote, text| {
        page(quote, &order, text);
        for warning in &warnings {
            text.line(format_args!("warning[{}]: {}", warning.code, warning.message));
        }
        let verb = if quote.side == Side::Buy { "buy" } else { "sell" };
        text.line(format_args!("Nothing was placed. Next: `capex {verb}` with the same flags"));
    })
}

fn page(quote: &Quote, order: &PlaceOrder, page: &mut Page) {
    let class = order.alternatives.first().map_or("", |limit| limit.class.as_str());
    let buys = quote.side == Side::Buy;
    page.field(side(quote.side), format_args!("{} × {class}", quote.qty))
        .field(
            "binding",
            format_args!("{}: nothing is reserved and nobody is bound", quote.binding),
        )
        .field(
            "rests on",
            format_args!(
                "{} orders of epoch {} [{}]",
                quote.orders, quote.book_epoch, quote.reason.code
            ),
        )
        .line(format_args!("  {}", quote.reason.message))
        .field(
            "good until",
            format_args!("{}, the end of epoch {}", utc(quote.expires_at), quote.epoch),
        )
        .field("joins", format_args!("epoch {}, if it is placed now", quote.joins_epoch));
    let verb = if buys { "would get" } else { "would sell" };
    page.field(verb, format_args!("{} of {}", quote.filled_qty, quote.qty));
    for fill in &quote.fills {
        page.field("trade", explain::got(fill));
    }
    for price in &quote.prices {
        let each = msat_to_sat(price.price_msat);
        page.field(
            "price",
            format_args!("slot {}: {each} sat/block of {}", price.slot, price.class),
        );
    }
    if quote.filled_qty > 0 {
        let (fees, total) =
            if buys { ("to fund", "pays in all") } else { ("to claim", "earns in all") };
        page.field("price", sat(quote.price_sat))
            .field("fees", format_args!("about {} {fees}, at the present rate", sat(quote.fee_sat)))
            .field(total, sat(quote.total_sat))
            .field("worst fees", sat(quote.worst_fee_sat));
    }
    if let Some(explanation) = &quote.explanation {
        page.line("Why not all of it:");
        explain::body(explanation, page);
    }
}
