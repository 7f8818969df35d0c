//! `capex epoch verify`: an epoch computed again from its signed orders, by the daemon that
//! keeps them or, from a file, here: without daemon, data directory or network.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::Page;
use super::{Context, read_text};
use crate::api::types::{EpochCheck, EpochDifference};
use capex_core::epoch::audit::{Audit, Depth, audit};
use capex_core::epoch::signed::{SignedEpoch, TEXT_MAX_BYTES, network, parse};
use capex_core::ids::to_hex;
use capex_core::params::Params;
use capex_core::reason;

/// Flags of `epoch verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex epoch verify 871234567
  capex epoch verify --from epoch.txt

Next: capex epoch export <number> --signed")]
pub struct Flags {
    /// Number
    #[arg(required_unless_present = "from")]
    pub epoch: Option<u64>,
    /// File that `capex epoch export --signed` wrote, `-` for standard input
    #[arg(long, value_name = "FILE|-")]
    pub from: Option<PathBuf>,
    /// Check that the given result breaks no rule, without matching the orders again
    #[arg(long, requires = "from")]
    pub quick: bool,
}

/// What was verified.
#[derive(Debug, Serialize)]
struct Report {
    network: String,
    epoch: u64,
    /// Signatures, work and rules of so many orders.
    orders: usize,
    root: String,
    rows: usize,
    prices: usize,
    result_root: String,
    /// `recomputed`, or `safe` if the orders were not matched again.
    result: &'static str,
}

/// Verifies an epoch.
///
/// # Errors
/// Exit 1 where it differs, exit 6 for a file that is no epoch, what the daemon refused.
pub(super) fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    match (&flags.from, flags.epoch) {
        (Some(path), epoch) => offline(path, epoch, flags.quick, context),
        (None, epoch) => by_daemon(epoch.unwrap_or_default(), context),
    }
}

fn by_daemon(epoch: u64, context: &mut Context<'_>) -> Result<(), Failure> {
    let check: EpochCheck = context.client()?.get(&format!("/epochs/{epoch}/verify"))?;
    verdict(check.epoch, &check.differences, check.more_differences as usize)?;
    context.show(&check, |check, page| {
        page.field("epoch", check.epoch)
            .field("orders", format_args!("{}: all good", check.orders))
            .field("root", "ok")
            .field("result", "ok")
            .field(
                "others' roots",
                format_args!("{} equal, {} differ", check.roots_equal, check.roots_different),
            );
    })
}

fn offline(
    path: &Path,
    epoch: Option<u64>,
    quick: bool,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let text = read(path, context)?;
    if text.trim_start().starts_with('{') {
        return Err(json(path));
    }
    let (signed, params) = signed_epoch(&text, context)
        .map_err(|(code, what)| Failure::coded(code, format!("{}: {what}", path.display())))?;
    if let Some(expected) = epoch.filter(|expected| *expected != signed.epoch) {
        let what = format!("expected epoch {expected}, found {}", signed.epoch);
        return Err(Failure::new(reason!("epoch.other_epoch"), what));
    }
    let depth = if quick { Depth::Quick } else { Depth::Full };
    let Audit { orders, differences, more } = audit(&signed, &params, depth);
    let differences: Vec<_> = differences.into_iter().map(EpochDifference::from).collect();
    verdict(signed.epoch, &differences, more)?;
    let report = Report {
        network: params.name,
        epoch: signed.epoch,
        orders,
        root: to_hex(&signed.root),
        rows: signed.rows.len(),
        prices: signed.prices.len(),
        result_root: to_hex(&signed.result_root),
        result: if quick { "safe" } else { "recomputed" },
    };
    context.show(&report, page)
}

fn read(path: &Path, context: &mut Context<'_>) -> Result<String, Failure> {
    let max_bytes = TEXT_MAX_BYTES as u64;
    if path != Path::new("-") {
        return read_text(path, max_bytes);
    }
    // One byte more than is parsed: then the text is refused as too long.
    let mut text = String::new();
    let read = (&mut context.io.input).take(max_bytes + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::file(path, &error))?;
    Ok(text)
}

/// The other form of an export has no signatures, so nothing in it can be verified.
fn json(path: &Path) -> Failure {
    let what = format!("{}: JSON, not the signed orders of an epoch", path.display());
    Failure::new(reason!("epoch.file_json"), what)
        .with_hint("export it with its signatures: `capex epoch export EPOCH --signed --out FILE`")
}

/// The epoch and the network that its first line names.
fn signed_epoch(
    text: &str,
    context: &Context<'_>,
) -> Result<(SignedEpoch, Params), (&'static str, String)> {
    let name = network(text).map_err(|error| (error.code(), error.to_string()))?;
    if let Some(wanted) = context.global.network.as_ref().filter(|wanted| *wanted != name) {
        let what = format!("an epoch of network `{name}`, not of `{wanted}`");
        return Err(("epoch.other_network", what));
    }
    let params = context.rules_of(name).map_err(|what| ("epoch.unknown_network", what))?;
    let signed = parse(text).map_err(|error| (error.code(), error.to_string()))?;
    Ok((signed, params))
}

/// The first difference names the failure, all are told. A file that says something else than
/// its orders give has failed its check (1), whatever the same code means where a file is read.
fn verdict(epoch: u64, differences: &[EpochDifference], more: usize) -> Result<(), Failure> {
    let Some(first) = differences.first() else { return Ok(()) };
    let mut message = format!("epoch {epoch} is not what its orders give");
    for EpochDifference { code, place, expected, found } in differences {
        message += &format!("\n  {code}: {place}: expected {expected}, found {found}");
    }
    if more > 0 {
        message += &format!("\n  and {more} more");
    }
    Err(Failure { exit: Exit::Failed, ..Failure::coded(&first.code, message) })
}

fn page(report: &Report, page: &mut Page) {
    page.field("epoch", report.epoch)
        .field("network", &report.network)
        .field("orders", format_args!("{}: all good", report.orders))
        .field("root", format_args!("{} ok", report.root))
        .field(
            "result",
            format_args!("{} rows, {} prices: {}", report.rows, report.prices, report.result),
        )
        .field("result root", format_args!("{} ok", report.result_root));
}
