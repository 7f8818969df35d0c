//! `capex epoch show|verify|export`.

use std::path::PathBuf;

use super::Context;
use super::failure::{Exit, Failure};
use super::output::{Page, sat, short, slots};
use crate::api::types::{Epoch, EpochCheck, EpochRow};
use crate::domain::units::msat_to_sat;

/// What about epochs.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Show the result of an epoch
    #[command(after_help = "Examples:
  capex epoch show
  capex epoch show 871234567 --json

Next: capex epoch verify <number>")]
    Show {
        /// Number [default: the last one computed]
        epoch: Option<u64>,
    },
    /// Compute an epoch again from its orders and compare
    #[command(after_help = "Examples:
  capex epoch verify 871234567
  capex epoch verify 871234567 --json

Next: capex epoch export <number>")]
    Verify {
        /// Number
        epoch: u64,
    },
    /// Write an epoch in the form that `capex match` reads
    #[command(after_help = "Examples:
  capex epoch export 871234567 | capex match --input -
  capex epoch export 871234567 --out epoch.json

Next: capex match --input epoch.json")]
    Export {
        /// Number
        epoch: u64,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused; exit 1 if a verification fails.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        Noun::Show { epoch } => {
            let which = epoch.map_or("last".to_owned(), |epoch| epoch.to_string());
            let epoch: Epoch = client.get(&format!("/epochs/{which}"))?;
            context.show(&epoch, show)
        }
        Noun::Verify { epoch } => {
            let check: EpochCheck = client.get(&format!("/epochs/{epoch}/verify"))?;
            verdict(&check)?;
            context.show(&check, |check, page| {
                page.field("epoch", check.epoch)
                    .field("orders", format_args!("{}: all good", check.orders))
                    .field("root", "ok")
                    .field("result", "ok")
                    .field(
                        "others' roots",
                        format_args!(
                            "{} equal, {} differ",
                            check.roots_equal, check.roots_different
                        ),
                    );
            })
        }
        Noun::Export { epoch, out } => {
            let input: serde_json::Value = client.get(&format!("/epochs/{epoch}/export"))?;
            match out {
                None => context.io.json(&input),
                Some(path) => {
                    let refuse = |error: std::io::Error| Failure::file(path, &error);
                    let text = serde_json::to_vec_pretty(&input).map_err(|e| refuse(e.into()))?;
                    std::fs::write(path, text).map_err(refuse)?;
                    context.show(&serde_json::json!({ "path": path }), |_, page| {
                        page.line(format_args!("written to {}", path.display()));
                    })
                }
            }
        }
    }
}

fn verdict(check: &EpochCheck) -> Result<(), Failure> {
    let failed = [
        (check.orders_ok, "epoch.bad_order", "a signature or proof of work is wrong"),
        (check.root_ok, "epoch.bad_root", "the root is not that of the orders"),
        (check.result_ok, "epoch.bad_result", "matching again gives another result"),
    ];
    match failed.iter().find(|(ok, ..)| !ok) {
        None => Ok(()),
        Some((_, code, message)) => {
            Err(Failure::new(Exit::Failed, code, format!("epoch {}: {message}", check.epoch)))
        }
    }
}

fn show(epoch: &Epoch, page: &mut Page) {
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
