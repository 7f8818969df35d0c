//! `capex trade list|show|proof`.

use super::failure::Failure;
use super::output::{self, sat, short, side, slots};
use super::paging::{Page, show_list};
use super::time::utc;
use super::{Context, id, trade_proof};
use crate::api::types::{ChainTx, Trade, TradeDue, TradeStep};

/// What about trades.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List trades of this node, newest first
    #[command(after_help = "Examples:
  capex trade list --limit 20 --json
  capex trade list --stuck

Next: capex trade show <id>")]
    List {
        #[command(flatten)]
        page: Page,
        /// Only open trades that do not go on by themselves: overdue, or refused by the chain
        #[arg(long, conflicts_with_all = ["limit", "before"])]
        stuck: bool,
    },
    /// Show what happened in a trade, what comes next and when, and what can be lost
    #[command(after_help = "Examples:
  capex trade show 0123abcd
  capex trade show 0123abcd --json

Next: capex cert list")]
    Show {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Write what shows anyone that a provider was paid and gave nothing, or verify such a file
    Proof(trade_proof::Flags),
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    if let Noun::Proof(flags) = noun {
        return trade_proof::run(flags, context);
    }
    let client = context.client()?;
    match noun {
        // It may need no daemon.
        Noun::Proof(_) => Ok(()),
        Noun::List { stuck: true, .. } => {
            let trades: Vec<Trade> = client.get("/trades/stuck")?;
            context.show(&trades, |trades, page| stuck(trades, page))
        }
        Noun::List { page, .. } => show_list(context, "/trades", "trade list", page, list),
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
        .maybe("for", trade.holder.as_ref().filter(|holder| **holder != trade.buyer))
        .field("bid", &trade.buy_order)
        .field("ask", &trade.sell_order)
        .maybe("certificate", trade.cert_id.as_ref())
        .field("state", &trade.state)
        .maybe("reason", trade.code.as_ref());
    if let Some(settlement) = &trade.settlement {
        page.field("terms", &settlement.terms_hash).field("address", &settlement.address);
        page.maybe("preimage", settlement.preimage.as_ref());
    }
    for (n, step) in trade.timeline.iter().enumerate() {
        page.field(if n == 0 { "timeline" } else { "" }, happened(step));
    }
    page.field("next", &trade.next)
        .maybe("by", trade.due.as_ref().map(by))
        .field("at risk", at_risk(trade))
        .field("fees so far", trade.fees_sat.map_or("see `capex wallet history`".to_owned(), sat))
        .maybe("broadcast", trade.trouble.as_ref().map(|why| format!("failed: {why}")));
    if let Some(stuck) = &trade.stuck {
        page.field("stuck", format_args!("[{}] {}", stuck.code, stuck.message));
    }
    let nothing = trade.due.as_ref().map(|_| "nothing: the node acts by itself while it runs");
    page.maybe("you can", trade.advice.as_deref().or(nothing));
}

/// One line of the timeline.
fn happened(step: &TradeStep) -> String {
    let what = match (&step.tx, step.height, step.at) {
        (Some(tx), ..) => transaction(tx),
        (None, Some(height), _) => format!("height {height}"),
        (None, None, Some(at)) => utc(at),
        (None, None, None) => String::new(),
    };
    format!("{:<STEP_WIDTH$} {what}", step.what).trim_end().to_owned()
}

/// Width of the names in a timeline.
const STEP_WIDTH: usize = 12;

/// By when what happens.
fn by(due: &TradeDue) -> String {
    let when = if due.minutes_left == 0 {
        "now".to_owned()
    } else {
        format!("about {} min from now, {}", due.minutes_left, utc(due.expected_at))
    };
    match due.height {
        Some(height) => format!("height {height} ({when}): {}", due.then),
        None => format!("{when}: {}", due.then),
    }
}

fn at_risk(trade: &Trade) -> String {
    match (trade.at_risk_sat, trade.at_risk_units) {
        (0, 0) => "nothing".to_owned(),
        (sats, 0) => sat(sats),
        (0, units) => format!("no coins; {units} units are kept for it"),
        (sats, units) => format!("{} and {units} units", sat(sats)),
    }
}

/// What waits for somebody, with what can be done.
fn stuck(trades: &[Trade], page: &mut output::Page) {
    if trades.is_empty() {
        page.line("no trade is stuck");
    }
    for trade in trades {
        let why = trade.stuck.as_ref().map_or("", |reason| &reason.message);
        let head = format_args!("{} {}: {why}", short(&trade.trade_id), trade.state).to_string();
        page.line(head)
            .maybe("  failed", trade.trouble.as_ref())
            .maybe("  by", trade.due.as_ref().map(by))
            .field("  at risk", at_risk(trade))
            .maybe("  you can", trade.advice.as_ref())
            .field("  more", format_args!("capex trade show {}", short(&trade.trade_id)));
    }
}

fn transaction(tx: &ChainTx) -> String {
    let place = tx.height.map_or("waits".to_owned(), |height| format!("height {height}"));
    let fee = tx.fee_sat.map_or(String::new(), |fee| format!(", fee {}", sat(fee)));
    format!("{} ({place}, {} vB{fee})", tx.txid, tx.vsize)
}
