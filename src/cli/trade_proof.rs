//! `capex trade proof ID` and `capex trade proof --verify FILE`: what shows anyone that a provider
//! was paid and gave nothing.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::Failure;
use super::file_out::Out;
use super::output::{Page, sat, slots};
use super::{Context, cert_verify, id};
use crate::api::types::{SlotRange, slot_range};
use capex_core::certificate::file::parse_default;
use capex_core::certificate::verify::{VerifiedDefault, verify_default};
use capex_core::ids::to_hex;
use capex_core::params::Params;

/// Flags of `trade proof`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex trade proof 0123abcd --out default.txt
  capex trade proof --verify default.txt --json

Next: capex peer list")]
pub struct Flags {
    /// Id of a trade whose provider has defaulted, or its first 8 or more digits
    #[arg(value_parser = id, required_unless_present = "verify")]
    id: Option<String>,
    #[command(flatten)]
    out: Out,
    /// Verify the file of a proof offline instead, `-` for standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["id", "out"])]
    verify: Option<PathBuf>,
}

/// What was verified, and what no file can prove.
#[derive(Debug, Serialize)]
struct Report {
    network: String,
    provider: String,
    seller: String,
    holder: String,
    cert_id: String,
    class: String,
    window: SlotRange,
    price_sat: u64,
    terms_hash: String,
    preimage: String,
    /// `spend`, or `quittance`: the seller has signed that it was paid.
    paid_by: &'static str,
    /// Transaction whose input spent the contract; null with a quittance.
    spend_txid: Option<String>,
    spend_vin: Option<u32>,
    /// `ok`: of the certificate, the terms and the lock.
    signatures: &'static str,
    /// `unchecked`: the chain was not asked for the spend.
    payment: &'static str,
}

/// Runs it.
///
/// # Errors
/// What the daemon refused, or a file that cannot be read or proves nothing.
pub(super) fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    if let Some(file) = &flags.verify {
        return verify(file, context);
    }
    let id = flags.id.as_deref().unwrap_or_default();
    let text = context.client()?.text(&format!("/trades/{id}/proof"))?;
    match flags.out.write(text.as_bytes(), context) {
        Some(written) => written,
        None if context.global.json => context.io.json(&serde_json::json!({ "proof_file": text })),
        None => Ok(context.io.out.write_all(super::sanitise::paragraph(&text).as_bytes())?),
    }
}

fn verify(file: &Path, context: &mut Context<'_>) -> Result<(), Failure> {
    let text = cert_verify::read(file, context)?;
    let report = report(&text, context)
        .map_err(|(code, what)| Failure::coded(code, format!("{}: {what}", file.display())))?;
    context.show(&report, page)
}

fn report(text: &str, context: &Context<'_>) -> Result<Report, (&'static str, String)> {
    let params = cert_verify::network(text, context)?;
    let proof = parse_default(text, &params).map_err(|error| (error.code(), error.to_string()))?;
    let facts =
        verify_default(&proof, &params).map_err(|error| (error.code(), error.to_string()))?;
    Ok(facts_of(&facts, &params))
}

fn facts_of(facts: &VerifiedDefault, params: &Params) -> Report {
    let VerifiedDefault { title, terms, terms_hash, transfer } = facts;
    let class = params.class(title.class).map(|class| class.name.clone()).unwrap_or_default();
    // People know transactions by their bytes in reverse.
    let txid: Vec<u8> = transfer.spend_txid.iter().rev().copied().collect();
    let is_quit = transfer.quittance.is_some();
    Report {
        network: params.name.clone(),
        provider: title.provider.to_string(),
        seller: terms.from.to_string(),
        holder: terms.to.to_string(),
        cert_id: title.cert_id.to_string(),
        class,
        window: slot_range(title.window),
        price_sat: terms.price_sat,
        terms_hash: terms_hash.to_string(),
        preimage: to_hex(&transfer.x),
        paid_by: if is_quit { "quittance" } else { "spend" },
        spend_txid: (!is_quit).then(|| to_hex(&txid)),
        spend_vin: (!is_quit).then_some(transfer.vin),
        signatures: "ok",
        payment: "unchecked",
    }
}

fn page(report: &Report, page: &mut Page) {
    let payment = match (report.spend_vin, &report.spend_txid) {
        (Some(vin), Some(txid)) => {
            format!("input {vin} of {txid} must spend the contract with the preimage")
        }
        _ => "the seller has signed that it was paid".to_owned(),
    };
    page.line(format_args!("signatures: {}", report.signatures))
        .line(format_args!("payment: {}; {payment}", report.payment))
        .line("delivery: an Activation by the provider would answer this proof")
        .field("provider", &report.provider)
        .field("seller", &report.seller)
        .field("holder to be", &report.holder)
        .field("certificate", &report.cert_id)
        .field("network", &report.network)
        .field("class", &report.class)
        .field("slots", slots(report.window))
        .field("price", sat(report.price_sat))
        .field("terms", &report.terms_hash)
        .field("preimage", &report.preimage);
}
