//! `capex cert verify FILE`: what a certificate proves by itself, without daemon or network.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::Failure;
use super::output::{Page, slots};
use super::{Context, pasted, read_text_or_input};
use crate::api::types::{CertificateTransfer, SlotRange, UnitRanges, slot_range, unit_ranges};
use crate::definitions;
use capex_core::certificate::file::{TEXT_MAX_BYTES, parse};
use capex_core::certificate::verify::{VerifiedCertificate, verify};
use capex_core::certificate::{Certificate, Hop};
use capex_core::params::Params;

/// Flags of `cert verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex cert verify cert.txt
  capex cert verify cert.txt --json

Next: capex cert redeem <id> --wasm <file>")]
pub struct Flags {
    /// Certificate file, `-` for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
}

/// What was verified, and what no file can prove.
#[derive(Debug, Serialize)]
struct Report {
    network: String,
    cert_id: String,
    provider: String,
    class: String,
    window: SlotRange,
    units: UnitRanges,
    holder: String,
    seq: u32,
    transfers: Vec<CertificateTransfer>,
    /// `ok`: of Issue, every hop and every Activation.
    signatures: &'static str,
    /// `unchecked`: the chain was not asked.
    payment: &'static str,
    /// How each hop was paid for: `spend`, of which the chain has to show that it stands;
    /// `quittance`, the seller's own signature that it was; null where nothing was.
    paid_by: Vec<Option<&'static str>>,
    /// The provider's chain height at the last transfer: a later one may exist.
    current_as_of_height: Option<u32>,
    /// The provider's chain height up to which its history is not in the file, and rests on the
    /// provider's word; null if it is all there.
    checkpointed_at_height: Option<u32>,
}

/// Verifies the file against the definition of the network that it names.
///
/// # Errors
/// Exit 2 for a file that cannot be read, exit 6 for one that proves nothing.
pub(super) fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let text = read(&flags.file, context)?;
    let report = network(&text, context).and_then(|params| report(&text, &params)).map_err(
        |(code, what)| Failure::coded(code, format!("{}: {what}", flags.file.display())),
    )?;
    context.show(&report, page)
}

/// Text of a certificate file, as it was written.
///
/// # Errors
/// It cannot be read, or is longer than a certificate can be.
pub(super) fn read(file: &Path, context: &mut Context<'_>) -> Result<String, Failure> {
    let text = read_text_or_input(file, TEXT_MAX_BYTES as u64, context)?;
    Ok(unwrapped(pasted(&text)))
}

/// Lines that a mail program has wrapped, put together again: every line of a certificate begins
/// with a word that is no hex, and what follows it there is.
fn unwrapped(text: &str) -> String {
    let mut whole = String::new();
    for line in text.lines() {
        let word = line.trim_end().split(' ').next().unwrap_or_default();
        if !word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            whole.truncate(whole.trim_end().len());
            whole.push_str(if whole.is_empty() { "" } else { "\n" });
        }
        whole.push_str(line);
    }
    whole
}

fn report(text: &str, params: &Params) -> Result<Report, (&'static str, String)> {
    let certificate = parse(text, params).map_err(|error| (error.code(), error.to_string()))?;
    let facts = verify(&certificate, params).map_err(|error| (error.code(), error.to_string()))?;
    let paid_by = certificate.hops.iter().map(paid_by).collect();
    Ok(Report { paid_by, ..facts_of(&certificate, &facts, params) })
}

fn paid_by(hop: &Hop) -> Option<&'static str> {
    match hop {
        Hop::Sale { transfer, .. } if transfer.quittance.is_some() => Some("quittance"),
        Hop::Sale { .. } => Some("spend"),
        Hop::Gift { .. } | Hop::Split { .. } | Hop::Merge { .. } => None,
    }
}

/// The network that the first line names; an unknown one is left to the parser to refuse.
pub(super) fn network(text: &str, context: &Context<'_>) -> Result<Params, (&'static str, String)> {
    let name = text.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    context
        .rules_of(name)
        .or_else(|_| definitions::load(definitions::DEFAULT_NETWORK))
        .map_err(|what| ("config.invalid", what))
}

fn facts_of(certificate: &Certificate, facts: &VerifiedCertificate, params: &Params) -> Report {
    let class = params.class(facts.class).map(|class| class.name.clone()).unwrap_or_default();
    Report {
        network: params.name.clone(),
        cert_id: facts.cert_id.to_string(),
        provider: facts.provider.to_string(),
        class,
        window: slot_range(facts.window),
        units: unit_ranges(&facts.units),
        holder: facts.holder.to_string(),
        seq: facts.seq,
        transfers: CertificateTransfer::all(certificate, facts),
        signatures: "ok",
        payment: "unchecked",
        paid_by: Vec::new(),
        current_as_of_height: (facts.seq > 0).then_some(facts.as_of_height),
        checkpointed_at_height: facts.checkpointed_at,
    }
}

/// What the last sale shows of its payment.
fn told_by(paid_by: &[Option<&str>]) -> &'static str {
    match paid_by.iter().rev().flatten().next() {
        Some(&"quittance") => "; the seller has signed that the last sale was paid",
        _ => "",
    }
}

fn page(report: &Report, page: &mut Page) {
    let current = match report.current_as_of_height {
        Some(height) => format!("as of height {height}"),
        None => "never sold".to_owned(),
    };
    page.line(format_args!("signatures: {}", report.signatures))
        .line(format_args!("payment: {}{}", report.payment, told_by(&report.paid_by)))
        .line(format_args!("current: {current}"))
        .field("certificate", &report.cert_id)
        .field("network", &report.network)
        .field("provider", &report.provider)
        .field("class", &report.class)
        .field("slots", slots(report.window))
        .field("holder", &report.holder)
        .field("transfers", report.transfers.len())
        .maybe(
            "history",
            report
                .checkpointed_at_height
                .map(|height| format!("up to height {height} it rests on the provider's word")),
        );
    super::cert_parts::lineage(&report.transfers, page);
}
