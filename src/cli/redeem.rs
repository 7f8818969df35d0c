//! `capex cert redeem`: a certificate becomes a running workload.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::failure::Failure;
use super::{Context, id, lease, read_file, wait_ms};
use crate::api::types::{FileBody, RedeemBody, Redeemed};
use capex_core::limits::WORKLOAD_MAX_BYTES;
use capex_core::reason;

/// Flags of `cert redeem`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex cert redeem 0123abcd --wasm sort.wasm --input in.txt=./words --result out.txt
  capex cert redeem 0123abcd --wasm hash.wasm --arg --rounds --arg 9 --wait

Next: capex lease logs <id>")]
pub struct Flags {
    /// Id, or its first 8 or more digits
    #[arg(value_parser = id)]
    pub id: String,
    /// WASI 0.2 command component
    #[arg(long, value_name = "FILE")]
    pub wasm: PathBuf,
    /// File for the workload's directory
    #[arg(long, value_name = "NAME=PATH", value_parser = named_path)]
    pub input: Vec<(String, PathBuf)>,
    /// Argument of the workload; repeat for more
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub arg: Vec<String>,
    /// Name of a file to keep as a result
    #[arg(long, value_name = "NAME")]
    pub result: Vec<String>,
    /// Wait for the end of the lease, at most this long
    #[arg(long, value_name = "TIME", value_parser = wait_ms, num_args = 0..=1,
          require_equals = true, default_missing_value = "10m")]
    pub wait: Option<u64>,
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("expected name=path".to_owned()),
    }
}

/// Redeems, and waits if asked to.
///
/// # Errors
/// What a file, the daemon or the provider refused; exit 7 if the wait is over first.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let body = body(flags)?;
    let client = context.client()?;
    let redeemed: Redeemed = client.post(&format!("/certificates/{}/redeem", flags.id), &body)?;
    let Some(timeout) = flags.wait.map(Duration::from_millis) else {
        return context.show(&redeemed, |redeemed, page| {
            page.field("lease", &redeemed.lease_id)
                .field("certificate", format_args!("{} is redeemed", redeemed.cert_id))
                .next(format_args!("lease show {}", redeemed.lease_id));
        });
    };
    let ended = lease::wait(&client, &redeemed.lease_id, timeout)?;
    context.show(&ended, lease::show)
}

fn body(flags: &Flags) -> Result<RedeemBody, Failure> {
    let component = read_file(&flags.wasm, WORKLOAD_MAX_BYTES)?;
    if !component.starts_with(b"\0asm") {
        let message = format!("{} is not a WebAssembly file", flags.wasm.display());
        return Err(Failure::new(reason!("workload.invalid"), message));
    }
    let mut inputs = Vec::with_capacity(flags.input.len());
    for (name, path) in &flags.input {
        let base64 = BASE64.encode(read_file(path, WORKLOAD_MAX_BYTES)?);
        inputs.push(FileBody { name: name.clone(), base64 });
    }
    Ok(RedeemBody {
        component_base64: BASE64.encode(component),
        args: flags.arg.clone(),
        inputs,
        results: flags.result.clone(),
    })
}
