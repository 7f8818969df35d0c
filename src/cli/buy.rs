//! `capex buy`: bid for capacity.

use std::path::{Path, PathBuf};

use super::Context;
use super::client::Client;
use super::failure::Failure;
use super::known::Known;
use super::order_flags::{ClassPrice, Common, Place, Tif, class_price, first, need};
use super::preview::place;
use super::time::Moment;
use super::{key, order_file, workload};
use crate::api::types::{ClassLimit, Mode, PlaceOrder, Side, Status, TimeInForce};
use capex_core::limits::SLOTS_MAX;
use capex_core::reason;
use capex_core::units::Price;

/// Flags of `buy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex buy --class cpu.standard --qty 2 --max-price 2000sat --for 2slots
  capex buy --class cpu.standard --qty 2 --max-price 2000sat --for 2slots --workload work.toml

Next: capex trade list")]
pub struct Flags {
    /// The order.
    #[command(flatten)]
    pub bid: Bid,
    /// How to place it.
    #[command(flatten)]
    pub place: Place,
    /// Run this by itself on what is bought, from the first second of its window: a TOML file whose
    /// keys are the names of the flags of `capex cert redeem`
    #[arg(long, value_name = "FILE", conflicts_with = "for_key")]
    pub workload: Option<PathBuf>,
}

/// Flags of a bid.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Bid {
    /// Flags of both sides.
    #[command(flatten)]
    pub common: Common,
    /// Highest price per block, with its unit: 20sat, 1500msat
    #[arg(long, value_name = "PRICE", visible_alias = "price")]
    pub max_price: Option<Price>,
    /// Consecutive slots needed inside the window [default: the whole window]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS_MAX)))]
    pub slots: Option<u16>,
    /// Another class to accept, with its highest price; up to 3, by preference
    #[arg(long, value_name = "CLASS=PRICE", value_parser = class_price)]
    pub or: Vec<ClassPrice>,
    /// All blocks with one provider
    #[arg(long)]
    pub gang: bool,
    /// Key that shall hold what is bought [default: this node]
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub for_key: Option<String>,
    /// Until when that key has to redeem it: now, +30s, unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", requires = "for_key")]
    pub use_by: Option<Moment>,
    /// Keep the right to take it back from that key until its first slot begins
    #[arg(long, requires = "for_key")]
    pub recall: bool,
    /// Of whom to buy.
    #[command(flatten)]
    pub known: Known,
}

/// Previews, asks, places.
///
/// # Errors
/// A flag, the file, a declined prompt, or what the daemon refused.
pub fn run(flags: Flags, context: &mut Context<'_>) -> Result<(), Failure> {
    let workload = flags.workload.as_deref().map(workload::read).transpose()?;
    let workload = workload.map(|work| work.body()).transpose()?.map(Box::new);
    if workload.as_ref().is_some_and(|work| work.pull.is_some()) {
        let why = "a registry is reached by a provider, and there is none yet";
        return Err(Failure::new(reason!("pull.needs_certificate"), why));
    }
    let (order, client) = prepare(flags.bid, flags.place.file.as_deref(), context)?;
    let order = PlaceOrder { workload, ..order };
    place(order, flags.place.dry_run, &client, context)
}

/// The order that flags and file mean, with the daemon that was asked about its time.
///
/// # Errors
/// A flag, the file, or the daemon.
pub fn prepare(
    flags: Bid,
    file: Option<&Path>,
    context: &Context<'_>,
) -> Result<(PlaceOrder, Client), Failure> {
    let bid = match file.map(order_file::read::<Bid>).transpose()? {
        Some(file) => merge(flags, file),
        None => flags,
    };
    check(&bid)?;
    let client = context.client()?;
    let status = client.status()?;
    let known = bid.known.clone();
    let mut order = order(bid, &status)?;
    known.narrow(&mut order, &client)?;
    Ok((order, client))
}

fn merge(flags: Bid, file: Bid) -> Bid {
    Bid {
        common: flags.common.or(file.common),
        max_price: flags.max_price.or(file.max_price),
        slots: flags.slots.or(file.slots),
        or: first(flags.or, file.or),
        gang: flags.gang || file.gang,
        for_key: flags.for_key.or(file.for_key),
        use_by: flags.use_by.or(file.use_by),
        recall: flags.recall || file.recall,
        known: Known {
            only_known: flags.known.only_known || file.known.only_known,
            min_record: flags.known.min_record.or(file.known.min_record),
        },
    }
}

/// What needs no daemon, before it is asked.
fn check(bid: &Bid) -> Result<(), Failure> {
    need(bid.common.class.as_ref(), "class")?;
    need(bid.common.qty, "qty")?;
    need(bid.max_price, "max-price")?;
    if bid.common.window.is_none() && bid.slots.is_none() {
        need(bid.common.length, "for")?;
    }
    Ok(())
}

/// The first slot that is still for sale if signing the order takes until the next epoch
/// but one.
fn soonest(status: &Status) -> u32 {
    let slot_ms = u64::from(status.slot_s.max(1)) * 1000;
    let slack = (2 * status.epoch_ms).div_ceil(slot_ms);
    status.first_slot.saturating_add(u32::try_from(slack).unwrap_or(u32::MAX))
}

/// The slots of a window that is bought whole. Hours are many slots where those are short.
fn whole([start, end]: [u32; 2], slot_s: u32) -> Result<u16, Failure> {
    let count = end.saturating_sub(start);
    let slots = u16::try_from(count).ok().filter(|slots| *slots <= SLOTS_MAX);
    slots.ok_or_else(|| {
        let message = format!(
            "the window has {count} slots of {slot_s} s, and a bid takes {SLOTS_MAX} at most"
        );
        Failure::new(reason!("order.run"), message)
            .with_hint("shorten the window, as in --for 2slots, or say how many of them: --slots N")
    })
}

/// The slot in which a moment lies.
fn slot_of(moment: Moment, status: &Status) -> Result<u32, Failure> {
    let slot_ms = u64::from(status.slot_s.max(1)) * 1000;
    u32::try_from(moment.at_ms(status.now_at) / slot_ms)
        .map_err(|_| Failure::new(reason!("order.use_by"), "--use-by is too far away"))
}

fn order(bid: Bid, status: &Status) -> Result<PlaceOrder, Failure> {
    let window = bid.common.slots(status, soonest(status), bid.slots.map(u32::from))?;
    let slots = bid.slots.map_or_else(|| whole(window, status.slot_s), Ok)?;
    let common = bid.common;
    let tif = common.tif.unwrap_or(Tif::Plain(TimeInForce::Gtc));
    let (time_in_force, expires_at) = tif.resolve(status.now_at);
    let limit_msat = need(bid.max_price, "max-price")?.msat();
    let mut alternatives = vec![ClassLimit { class: need(common.class, "class")?, limit_msat }];
    alternatives.extend(
        bid.or
            .into_iter()
            .map(|other| ClassLimit { class: other.class, limit_msat: other.price.msat() }),
    );
    Ok(PlaceOrder {
        side: Side::Buy,
        alternatives,
        qty: need(common.qty, "qty")?,
        all_spare: false,
        min_qty: common.min_qty.unwrap_or(1),
        mode: if bid.gang { Mode::Gang } else { Mode::Sticky },
        window,
        slots,
        features: common.feature,
        allow: common.allow,
        deny: common.deny,
        min_run: 0,
        time_in_force,
        expires_at,
        beneficiary: bid.for_key,
        use_by: bid.use_by.map(|moment| slot_of(moment, status)).transpose()?,
        recall: bid.recall,
        max_fee_sat: common.max_fee,
        max_fee_percent: None,
        cert_id: None,
        workload: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::time::{SlotWindow, Span};

    fn status() -> Status {
        serde_json::from_str(include_str!("../../tests/api/status.json")).unwrap()
    }

    fn bid(common: Common, slots: Option<u16>) -> Result<([u32; 2], u16), String> {
        let common = Common { class: Some("cpu.standard".into()), qty: Some(1), ..common };
        let bid = Bid { common, slots, max_price: Price::from_msat(1).ok(), ..Bid::default() };
        check(&bid)
            .and_then(|()| order(bid, &status()))
            .map(|order| (order.window, order.slots))
            .map_err(|failure| failure.code)
    }

    #[test]
    fn windows_follow_the_daemons_clock() {
        let length = |slots| Common { length: Some(Span::Slots(slots)), ..Common::default() };
        // The status: slot 100 of 4 s, first for sale 106, epochs of 2 s.
        assert_eq!(bid(length(2), None), Ok(([107, 109], 2)));
        assert_eq!(bid(length(6), Some(2)), Ok(([107, 113], 2)));
        assert_eq!(bid(Common::default(), Some(3)), Ok(([107, 110], 3)));
        let later = Common { from: Some(Moment::In(41_000)), ..length(2) };
        assert_eq!(bid(later, None), Ok(([111, 113], 2)));
        let window = Common { window: Some(SlotWindow { start: 5, end: 9 }), ..Common::default() };
        assert_eq!(bid(window, None), Ok(([5, 9], 4)));
        assert_eq!(bid(Common::default(), None), Err("order.incomplete".into()));
        // 168 slots of 4 s, and one more.
        let long =
            |seconds: u64| Common { length: Some(Span::Ms(seconds * 1000)), ..Common::default() };
        assert_eq!(bid(long(672), None), Ok(([107, 275], 168)));
        assert_eq!(bid(long(676), None), Err("order.run".into()));
        assert_eq!(bid(long(7200), Some(2)), Ok(([107, 1907], 2)));
        let uneven = Common { length: Some(Span::Ms(5000)), ..Common::default() };
        assert_eq!(bid(uneven, None), Err("order.window".into()));
    }
}
