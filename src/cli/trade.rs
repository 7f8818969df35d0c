//! `capex trade list|show`.

use super::failure::Failure;
use super::order::side;
use super::output::{self, sat, short, slots};
use super::paging::{Page, more};
use super::{Context, id};
use crate::api::types::{ChainTx, Trade};

/// What about trades.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List trades of this node, newest first
    #[command(after_help = "Examples:
  capex trade list
  capex trade list --limit 20 --json

Next: capex trade show <id>")]
    List(Page),
    /// Show one trade with its settlement
    #[command(after_help = "Examples:
  capex trade show 0123abcd
  capex trade show 0123abcd --json

Next: capex cert list")]
    Show {
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
        Noun::List(page) => {
            let (trades, before): (Vec<Trade>, _) = client.list("/trades", page)?;
            context.show(&trades, |trades, page| {
                list(trades, page);
                more("trade list", before, page);
            })
        }
        Noun::Show { id } => {
            let trade: Trade = client.get(&format!("/trades/{id}"))?;
            context.show(&trade, show)
        }
    }
}

fn list(trades: &[Trade], page: &mut output::Page) {
    let row = |trade: &Trade| {
        [
            short(&trade.trade_id),
            trade.epoch.to_string(),
            side(trade.side).to_owned(),
            format!("{} × {}", trade.qty, trade.class),
            slots(trade.window),
            sat(trade.price_sat),
            trade.state.clone(),
        ]
    };
    let headings = ["trade", "epoch", "side", "what", "slots", "price", "state"];
    page.table(headings, trades.iter().map(row), "no trades: see `capex book`");
}

fn show(trade: &Trade, page: &mut output::Page) {
    page.field("trade", &trade.trade_id)
        .field("epoch", trade.epoch)
        .field("side", side(trade.side))
        .field("what", format_args!("{} × {}", trade.qty, trade.class))
        .field("slots", slots(trade.window))
        .field("price", sat(trade.price_sat))
        .field("buyer", &trade.buyer)
        .field("seller", &trade.seller)
        .field("bid", &trade.buy_order)
        .field("ask", &trade.sell_order)
        .maybe("certificate", trade.cert_id.as_ref())
        .field("state", &trade.state)
        .maybe("reason", trade.code.as_ref());
    let Some(settlement) = &trade.settlement else {
        return;
    };
    page.field("terms", &settlement.terms_hash).field("address", &settlement.address);
    for (name, tx) in
        [("fund", &settlement.fund), ("claim", &settlement.claim), ("refund", &settlement.refund)]
    {
        page.maybe(name, tx.as_ref().map(transaction));
    }
    page.maybe("preimage", settlement.preimage.as_ref());
}

fn transaction(tx: &ChainTx) -> String {
    let place = tx.height.map_or("waits".to_owned(), |height| format!("height {height}"));
    let fee = tx.fee_sat.map_or(String::new(), |fee| format!(", fee {}", sat(fee)));
    format!("{} ({place}, {} vB{fee})", tx.txid, tx.vsize)
}
