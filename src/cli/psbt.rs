//! `capex wallet psbt list|export|import|drop`: what waits for a signature made elsewhere.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::failure::Failure;
use super::file_out::Out;
use super::output::{Page, sat, short};
use super::time::utc;
use super::{Context, id};
use crate::api::types::{PsbtText, SignedPsbt, WaitingPsbt};
use crate::wallet::PSBT_MAX_BYTES;
use capex_core::reason;

/// First bytes of a partially signed transaction.
const MAGIC: &[u8] = b"psbt\xff";

/// What about transactions that wait for a signature.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List what waits for a signature, and until when
    #[command(after_help = "Examples:
  capex wallet psbt list
  capex wallet psbt list --json

Next: capex wallet psbt export <txid> --out fund.psbt")]
    List,
    /// Write a transaction for its signer (BIP-174)
    ///
    /// Let the signer sign and nothing else: the node sends the transaction once the provider has
    /// acknowledged it. From now on the node watches what it pays. Sent by the signer after its
    /// time, its coins come back only at the height of the refund. A file has it in binary,
    /// standard output in base64.
    #[command(after_help = "Examples:
  capex wallet psbt export 0123abcd --out fund.psbt
  capex wallet psbt export 0123abcd

Next: capex wallet psbt import fund.signed.psbt")]
    Export {
        /// Id of the transaction, or its first 8 or more digits
        #[arg(value_parser = id)]
        txid: String,
        #[command(flatten)]
        out: Out,
    },
    /// Bring back what was signed: its trade goes on, a payment is sent
    #[command(after_help = "Examples:
  capex wallet psbt import fund.signed.psbt
  capex wallet psbt import fund.signed.psbt --json

Next: capex trade list")]
    Import {
        /// File, binary or base64, `-` for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Leave a payment, or its higher fee, without a signature
    ///
    /// Its coins are free again. If it was exported, its signer can still send it, so the next
    /// payment takes the same coins first.
    #[command(after_help = "Examples:
  capex wallet psbt drop 0123abcd
  capex wallet psbt drop 0123abcd --json

Next: capex wallet balance")]
    Drop {
        /// Id of the transaction, or its first 8 or more digits
        #[arg(value_parser = id)]
        txid: String,
    },
}

/// Runs it.
///
/// # Errors
/// What a file or the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::List => {
            let waiting: Vec<WaitingPsbt> = context.client()?.get("/wallet/psbts")?;
            context.show(&waiting, |waiting, page| list(waiting, page))
        }
        Noun::Export { txid, out } => export(txid, out, context),
        Noun::Import { file } => {
            let body = PsbtText { psbt: read(file, context)? };
            let signed: SignedPsbt = context.client()?.post("/wallet/psbts", &body)?;
            context.show(&signed, |signed, page| {
                page.field("signed", &signed.txid).maybe("trade", signed.trade_id.as_deref());
            })
        }
        Noun::Drop { txid } => {
            let left: Vec<WaitingPsbt> =
                context.client()?.delete(&format!("/wallet/psbts/{txid}"))?;
            context.show(&left, |left, page| list(left, page))
        }
    }
}

fn list(waiting: &[WaitingPsbt], page: &mut Page) {
    let row = |waiting: &WaitingPsbt| {
        [
            waiting.what.clone(),
            sat(waiting.amount_sat),
            sat(waiting.fee_sat),
            waiting.until.map(utc).unwrap_or_default(),
            waiting.trade_id.as_deref().map(short).unwrap_or_default(),
            waiting.txid.clone(),
        ]
    };
    let headings = ["WHAT", "AMOUNT", "FEE", "UNTIL", "TRADE", "TXID"];
    page.table(headings, waiting.iter().map(row), "Nothing waits for a signature.");
}

fn export(txid: &str, out: &Out, context: &mut Context<'_>) -> Result<(), Failure> {
    let found: PsbtText = context.client()?.get(&format!("/wallet/psbts/{txid}"))?;
    let bytes = BASE64.decode(&found.psbt);
    let bytes = bytes.map_err(|_| malformed("what the daemon sent"))?;
    out.write(&bytes, context).unwrap_or_else(|| {
        context.show(&found, |found, page| {
            page.line(&found.psbt);
        })
    })
}

/// A file as base64, whichever of the two forms it has.
fn read(path: &Path, context: &mut Context<'_>) -> Result<String, Failure> {
    let most = (PSBT_MAX_BYTES.div_ceil(3) * 4 + 2) as u64;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        (&mut *context.io.input).take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file(path, &error))?;
    if bytes.len() as u64 > most {
        let error = std::io::Error::other(format!("larger than {most} bytes"));
        return Err(Failure::file(path, &error));
    }
    if bytes.starts_with(MAGIC) {
        return Ok(BASE64.encode(bytes));
    }
    let text = String::from_utf8(bytes).map_err(|_| malformed(path.display()))?;
    Ok(text.split_whitespace().collect())
}

fn malformed(what: impl Display) -> Failure {
    let message = format!("{what} is no partially signed transaction");
    Failure::new(reason!("wallet.psbt_malformed"), message)
}
