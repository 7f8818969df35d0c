//! `capex lease bench`: what the host does within a lease, beside what its provider has said.

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::lease_access::{Way, halves, lost, runtime};
use super::lease_exec::failed;
use super::output::Page;
use crate::api::types::{HostScore, Lease, StreamFor};
use crate::executor::access::frames::{kind, read_frame};
use crate::executor::score::of_printed;

/// Flags of `lease bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex lease bench 0123abcd
  capex lease bench 0123abcd --json

Next: capex lease show <id>")]
pub struct Bench {
    #[command(flatten)]
    pub way: Way,
}

#[derive(Serialize)]
struct Shown {
    lease_id: String,
    /// Lower end of the band that the provider has told; null if it has told none.
    told: Option<HostScore>,
    /// What one thread of the lease did.
    measured: HostScore,
    /// Whether both numbers are at least those of the band; null without one.
    is_kept: Option<bool>,
}

/// Measures for two seconds beside the workload.
///
/// # Errors
/// What was refused, or a stream that ended too early.
pub fn bench(flags: &Bench, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    let lease: Option<Lease> = match &flags.way.grant {
        // Another's lease is not known here.
        Some(_) => None,
        None => Some(client.get(&format!("/leases/{}", flags.way.id))?),
    };
    let stream = flags.way.stream(&client, StreamFor::Bench)?;
    let printed = runtime()?.block_on(printed(stream))?;
    let measured: HostScore = of_printed(&printed).ok_or_else(lost)?.into();
    let told = lease.as_ref().and_then(|lease| lease.score);
    let keeps =
        |told: HostScore| measured.processor >= told.processor && measured.memory >= told.memory;
    let lease_id = lease.map_or_else(|| flags.way.id.clone(), |lease| lease.lease_id);
    let shown = Shown { lease_id, told, measured, is_kept: told.map(keeps) };
    context.show(&shown, print)
}

fn print(shown: &Shown, page: &mut Page) {
    let row = |what: &str, unit: &str, number: fn(HostScore) -> u32| {
        let told = shown.told.map_or_else(|| "-".to_owned(), |told| number(told).to_string());
        [what.to_owned(), told, number(shown.measured).to_string(), unit.to_owned()]
    };
    let rows = [
        row("processor", "million steps a second", |score| score.processor),
        row("memory", "MiB copied a second", |score| score.memory),
    ];
    page.field("lease", &shown.lease_id);
    page.table(["of one thread", "at least, as told", "measured", "in"], rows, "");
    match shown.is_kept {
        Some(true) => page.line("the host does what its provider has told"),
        Some(false) => page.line("the host does less than its provider has told"),
        None => page.line("the provider has told nothing to compare it with"),
    };
}

async fn printed(stream: std::net::TcpStream) -> Result<Vec<u8>, Failure> {
    let (mut read, _write) = halves(stream)?;
    let (mut data, mut printed) = (Vec::new(), Vec::new());
    loop {
        match read_frame(&mut read, &mut data).await.map_err(|_| lost())? {
            kind::OUTPUT => printed.extend_from_slice(&data),
            kind::EXIT => return Ok(printed),
            kind::FAILED => return Err(failed(&data)),
            _ => {}
        }
    }
}
