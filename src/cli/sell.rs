//! `capex sell`: offer capacity, or a certificate that this node holds.

use std::path::Path;

use super::cert_parts::units;
use super::client::Client;
use super::failure::Failure;
use super::order_file;
use super::order_flags::{Common, Place, Tif, need};
use super::preview::place;
use super::{Context, id};
use crate::api::types::{Certificate, ClassLimit, Mode, PlaceOrder, Side, Status, TimeInForce};
use capex_core::units::Price;

/// Flags of `sell`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex sell --all-spare --class cpu.standard --price 20sat --for 30d
  capex sell --cert 0123abcd --qty 1 --price 2500sat --dry-run

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
    /// Sell all units of the class that no other order offers, and again as they become free
    #[arg(long, conflicts_with_all = ["qty", "cert"])]
    pub all_spare: bool,
    /// Shortest run to accept, slots [default: 1]
    #[arg(long, value_name = "SLOTS", value_parser = clap::value_parser!(u16).range(1..))]
    pub min_run: Option<u16>,
    /// Sell this certificate on, or --qty of its units, or --window of its slots [default: own capacity]
    #[arg(long, value_name = "ID", value_parser = id)]
    pub cert: Option<String>,
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
            all_spare: flags.all_spare || file.all_spare,
            cert: flags.cert.or(file.cert),
        },
        None => flags,
    };
    check(&ask)?;
    let client = context.client()?;
    let status = client.status()?;
    let resold = match &ask.cert {
        Some(id) => Some(client.get::<Certificate>(&format!("/certificates/{id}"))?),
        None => None,
    };
    let order = order(ask, &status, resold.as_ref())?;
    Ok((order, client))
}

/// What needs no daemon, before it is asked.
fn check(ask: &Ask) -> Result<(), Failure> {
    need(ask.price, "price")?;
    if ask.cert.is_some() {
        return Ok(());
    }
    need(ask.common.class.as_ref(), "class")?;
    if !ask.all_spare {
        need(ask.common.qty, "qty")?;
    }
    if ask.common.window.is_none() {
        need(ask.common.length, "for")?;
    }
    Ok(())
}

/// What flags do not say of a certificate is what it has.
fn order(
    mut ask: Ask,
    status: &Status,
    resold: Option<&Certificate>,
) -> Result<PlaceOrder, Failure> {
    let is_named = ask.common.window.is_some() || ask.common.length.is_some();
    let window = match resold {
        Some(certificate) if !is_named => certificate.window,
        // An ask may begin in a slot that is already too near: the book cuts it.
        Some(_) | None => ask.common.slots(status, status.slot, None)?,
    };
    if let Some(certificate) = resold {
        ask.common.class.get_or_insert_with(|| certificate.class.clone());
        ask.common.qty.get_or_insert_with(|| units(certificate));
    }
    let common = ask.common;
    let tif = common.tif.unwrap_or(Tif::Plain(TimeInForce::Gtc));
    let (time_in_force, expires_at) = tif.resolve(status.now_at);
    let limit_msat = need(ask.price, "price")?.msat();
    Ok(PlaceOrder {
        side: Side::Sell,
        alternatives: vec![ClassLimit { class: need(common.class, "class")?, limit_msat }],
        qty: if ask.all_spare { 0 } else { need(common.qty, "qty")? },
        all_spare: ask.all_spare,
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
        use_by: None,
        recall: false,
        max_fee_sat: common.max_fee,
        max_fee_percent: None,
        cert_id: resold.map(|certificate| certificate.cert_id.clone()),
        workload: None,
    })
}
