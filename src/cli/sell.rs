//! `capex sell`: offer capacity.

use std::path::Path;

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::order_file;
use super::order_flags::{Common, Place, Tif, need};
use super::preview::place;
use crate::api::types::{ClassLimit, Mode, PlaceOrder, Side, Status, TimeInForce};
use capex_core::units::Price;

/// Flags of `sell`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex sell --class cpu.standard --qty 2 --price 2000sat --from now --for 2h
  capex sell --file offer.toml --dry-run

Next: capex order list")]
pub struct Flags {
    /// The order.
    #[command(flatten)]
    pub ask: Ask,
    /// How to place it.
    #[command(flatten)]
    pub place: Place,
}

/// Flags of an ask.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Ask {
    /// Flags of both sides.
    #[command(flatten)]
    pub common: Common,
    /// Lowest price per block, with its unit: 20sat, 1500msat
    #[arg(long, value_name = "PRICE")]
    pub price: Option<Price>,
    /// Shortest run to accept, slots [default: 1]
    #[arg(long, value_name = "SLOTS", value_parser = clap::value_parser!(u16).range(1..))]
    pub min_run: Option<u16>,
}

/// Previews, asks, places.
///
/// # Errors
/// A flag, the file, a declined prompt, or what the daemon refused.
pub fn run(flags: Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let (order, client) = prepare(flags.ask, flags.place.file.as_deref(), context)?;
    place(order, flags.place.dry_run, &client, context)
}

/// The order that flags and file mean, with the daemon that was asked about its time.
///
/// # Errors
/// A flag, the file, or the daemon.
pub fn prepare(
    flags: Ask,
    file: Option<&Path>,
    context: &Context<'_>,
) -> Result<(PlaceOrder, Client), Failure> {
    let ask = match file.map(order_file::read::<Ask>).transpose()? {
        Some(file) => Ask {
            common: flags.common.or(file.common),
            price: flags.price.or(file.price),
            min_run: flags.min_run.or(file.min_run),
        },
        None => flags,
    };
    check(&ask)?;
    let client = context.client()?;
    let status = client.status()?;
    let order = order(ask, &status)?;
    Ok((order, client))
}

/// What needs no daemon, before it is asked.
fn check(ask: &Ask) -> Result<(), Failure> {
    need(ask.common.class.as_ref(), "class")?;
    need(ask.common.qty, "qty")?;
    need(ask.price, "price")?;
    if ask.common.window.is_none() {
        need(ask.common.length, "for")?;
    }
    Ok(())
}

fn order(ask: Ask, status: &Status) -> Result<PlaceOrder, Failure> {
    // An ask may begin in a slot that is already too near: the book cuts it.
    let window = ask.common.slots(status, status.slot, None)?;
    let common = ask.common;
    let tif = common.tif.unwrap_or(Tif::Plain(TimeInForce::Gtc));
    let (time_in_force, expires_at) = tif.resolve(status.now_at);
    let limit_msat = need(ask.price, "price")?.msat();
    Ok(PlaceOrder {
        side: Side::Sell,
        alternatives: vec![ClassLimit { class: need(common.class, "class")?, limit_msat }],
        qty: need(common.qty, "qty")?,
        min_qty: common.min_qty.unwrap_or(1),
        mode: Mode::Sticky,
        window,
        slots: 0,
        features: common.feature,
        allow: common.allow,
        deny: common.deny,
        min_run: ask.min_run.unwrap_or(1),
        time_in_force,
        expires_at,
        beneficiary: None,
        max_fee_sat: common.max_fee,
        max_fee_percent: None,
    })
}
