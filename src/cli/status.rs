//! `capex status`: this node on one screen.

use super::Context;
use super::failure::Failure;
use super::output::{Page, sat};
use super::time::utc;
use crate::api::types::{Capacity, Maintenance, Status};

/// Flags of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex status
  capex status --datadir /tmp/a --json

Next: capex peer list")]
pub struct Flags {}

/// Shows it.
///
/// # Errors
/// No daemon runs.
pub fn run(_flags: &Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let status = context.client()?.status()?;
    context.show(&status, page)
}

fn page(status: &Status, page: &mut Page) {
    let ends_s = status.epoch_ends_at.saturating_sub(status.now_at) / 1000;
    let chain = &status.chain;
    let tip = if chain.up { format!("height {}", chain.height) } else { "not ready".to_owned() };
    page.field("node", &status.key)
        .field("network", format_args!("{} ({})", status.network, status.phase))
        .field("version", &status.version)
        .field("datadir", &status.datadir)
        .field("api", &status.api);
    for address in &status.p2p {
        page.field("p2p", address);
    }
    page.field("peers", format_args!("{} ({} orders seen)", status.peers, status.orders_seen))
        .field("epoch", format_args!("{}, ends in {ends_s} s", status.epoch))
        .field("slot", format_args!("{}, next for sale {}", status.slot, status.first_slot))
        .field("chain", format_args!("{tip}, {}", chain.source))
        .maybe("chain tip", chain.tip_at.map(utc))
        .field("spendable", sat(status.wallet.spendable_sat))
        .field("reserved", sat(status.wallet.reserved_sat));
    for capacity in &status.capacity {
        let Capacity { class, units, sold, reserved, free } = capacity;
        page.field(
            "sells",
            format_args!("{units} × {class}: now {sold} sold, {reserved} reserved, {free} free"),
        );
    }
    for Maintenance { number, starts_at, ends_at, .. } in &status.maintenance {
        let (from, to) = (utc(*starts_at), utc(*ends_at));
        page.field("maintenance", format_args!("{number}: {from} to {to}"));
    }
    let open = status.open;
    page.field(
        "open",
        format_args!(
            "{} orders, {} trades, {} certificates, {} leases",
            open.orders, open.trades, open.certificates, open.leases
        ),
    );
    for warning in &status.warnings {
        page.line(format_args!("warning[{}]: {}", warning.code, warning.message));
    }
}
