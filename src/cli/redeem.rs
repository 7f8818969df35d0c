//! `capex cert redeem`: a certificate becomes a running workload.

use std::time::Duration;

use super::failure::Failure;
use super::workload::Given;
use super::{Context, id, lease, upload, wait_ms};
use crate::api::types::Redeemed;

/// Flags of `cert redeem`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex cert redeem 0123abcd --wasm sort.wasm --input in.txt=./words --result out.txt
  capex cert redeem 0123abcd --image ./alpine.tar --env-sealed TOKEN=@./token -- sh -c 'echo ok'

Next: capex lease logs <id>")]
pub struct Flags {
    /// Id, or its first 8 or more digits
    #[arg(value_parser = id)]
    pub id: String,
    #[command(flatten)]
    pub given: Given,
    /// Wait until the workload has ended, at most this long
    #[arg(long, value_name = "TIME", value_parser = wait_ms, num_args = 0..=1,
          require_equals = true, default_missing_value = "10m")]
    pub wait: Option<u64>,
}

/// Redeems, and waits if asked to.
///
/// # Errors
/// What a file, the daemon or the provider refused; exit 7 if the wait is over first.
pub fn run(flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let body = flags.given.body()?;
    let client = context.client()?;
    if let Some(image) = &body.pull {
        upload::pull(&client, &flags.id, image, context)?;
    }
    let redeemed: Redeemed = client.post(&format!("/certificates/{}/redeem", flags.id), &body)?;
    upload::follow(&client, &redeemed.lease_id, context)?;
    let Some(timeout) = flags.wait.map(Duration::from_millis) else {
        return context.show(&redeemed, |redeemed, page| {
            page.field("lease", &redeemed.lease_id)
                .field("certificate", format_args!("{} is redeemed", redeemed.cert_id))
                .next(format_args!("lease show {}", redeemed.lease_id));
        });
    };
    let ended = lease::wait_done(&client, &redeemed.lease_id, timeout)?;
    context.show(&ended, lease::show)
}
