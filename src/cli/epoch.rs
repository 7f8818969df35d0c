//! `capex epoch list|show|verify|export`.

use super::failure::Failure;
use super::file_out::Out;
use super::output::{self, sat, short, slots};
use super::paging::{Page, show_list};
use super::sanitise::paragraph;
use super::{Context, epoch_verify};
use crate::api::types::{Epoch, EpochHead, EpochRow};
use capex_core::units::msat_to_sat;

/// What about epochs.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List computed epochs, newest first
    #[command(after_help = "Examples:
  capex epoch list
  capex epoch list --limit 20 --json

Next: capex epoch show <number>")]
    List(Page),
    /// Show the result of an epoch
    #[command(after_help = "Examples:
  capex epoch show
  capex epoch show 871234567 --json

Next: capex epoch verify <number>")]
    Show {
        /// Number [default: the last one computed]
        epoch: Option<u64>,
    },
    /// Compute an epoch again from its orders and say where it differs
    Verify(epoch_verify::Flags),
    /// Write an epoch in the form that `capex match` reads, or with its signed orders
    #[command(after_help = "Examples:
  capex epoch export 871234567 | capex match --input -
  capex epoch export 871234567 --signed --out epoch.txt

Next: capex epoch verify --from epoch.txt")]
    Export {
        /// Number
        epoch: u64,
        /// Write the signed orders and the result as text, which anyone can verify
        #[arg(long)]
        signed: bool,
        #[command(flatten)]
        out: Out,
    },
}

/// Runs it.
///
/// # Errors
/// What a file or the daemon refused; exit 1 if a verification fails.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::List(page) => show_list(context, "/epochs", "epoch list", page, list),
        Noun::Show { epoch } => {
            let which = epoch.map_or("last".to_owned(), |epoch| epoch.to_string());
            let epoch: Epoch = context.client()?.get(&format!("/epochs/{which}"))?;
            context.show(&epoch, show)
        }
        Noun::Verify(flags) => epoch_verify::run(flags, context),
        Noun::Export { epoch, signed: false, out } => {
            let client = context.client()?;
            let input: serde_json::Value = client.get(&format!("/epochs/{epoch}/export"))?;
            let text = serde_json::to_vec_pretty(&input).map_err(std::io::Error::from)?;
            out.write(&text, context).unwrap_or_else(|| context.io.json(&input))
        }
        Noun::Export { epoch, signed: true, out } => {
            let text = context.client()?.text(&format!("/epochs/{epoch}/signed"))?;
            match out.write(text.as_bytes(), context) {
                Some(written) => written,
                None if context.global.json => {
                    context.io.json(&serde_json::json!({ "epoch_file": text }))
                }
                // The file's own form is printable ASCII; the daemon wrote it.
                None => Ok(context.io.out.write_all(paragraph(&text).as_bytes())?),
            }
        }
    }
}

fn list(epochs: &[EpochHead], page: &mut output::Page) {
    let row = |epoch: &EpochHead| {
        let counts = [epoch.epoch.to_string(), epoch.count.to_string(), epoch.rows.to_string()];
        let [number, orders, rows] = counts;
        [number, orders, rows, short(&epoch.root), short(&epoch.result_root)]
    };
    let headings = ["epoch", "orders", "trades", "root", "result"];
    page.table(headings, epochs.iter().map(row), "no epochs with orders yet");
}

fn show(epoch: &Epoch, page: &mut output::Page) {
    let differ = epoch.roots.iter().filter(|seen| seen.root != epoch.root).count();
    page.field("epoch", epoch.epoch)
        .field("orders", epoch.count)
        .field("root", &epoch.root)
        .field("result root", &epoch.result_root)
        .field("others", format_args!("{} roots seen, {differ} differ", epoch.roots.len()));
    let row = |row: &EpochRow| {
        [
            short(&row.trade_id),
            format!("{} × {}", row.qty, row.class),
            slots(row.window),
            sat(row.price_msat / 1000),
            short(&row.buy),
            short(&row.sell),
        ]
    };
    let headings = ["trade", "what", "slots", "price", "bid", "ask"];
    page.table(headings, epoch.rows.iter().map(row), "no trades");
    for price in &epoch.prices {
        let sat = msat_to_sat(price.price_msat);
        page.field("price", format_args!("{} slot {}: {sat} sat/block", price.class, price.slot));
    }
}
