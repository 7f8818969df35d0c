//! Flags that `sell` and `buy` share, and what they mean in slots.

use std::path::PathBuf;

use super::failure::Failure;
use super::key;
use super::time::{Moment, SlotWindow, Span};
use crate::api::types::{SlotRange, Status, TimeInForce};
use capex_core::reason;
use capex_core::units::Price;

/// For clap: a whole number of sat with its unit, since a bare number may be meant in either.
pub fn sats(text: &str) -> Result<u64, String> {
    if text.trim() == "0sat" {
        return Ok(0);
    }
    let msat = text.parse::<Price>().map_err(|error| error.to_string())?.msat();
    if msat % 1000 == 0 { Ok(msat / 1000) } else { Err("fees are whole sats".to_owned()) }
}

/// How long an order stands, as written: `gtc`, `ioc`, `fok` or `gtt:<time>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tif {
    /// Without an end of its own.
    Plain(TimeInForce),
    /// Until a moment.
    Until(Moment),
}

impl Tif {
    /// The API's two fields.
    #[must_use]
    pub fn resolve(self, now_ms: u64) -> (TimeInForce, Option<u64>) {
        match self {
            Self::Plain(kind) => (kind, None),
            Self::Until(moment) => (TimeInForce::Gtt, Some(moment.at_ms(now_ms))),
        }
    }
}

/// For clap.
pub fn tif(text: &str) -> Result<Tif, String> {
    match text {
        "gtc" => Ok(Tif::Plain(TimeInForce::Gtc)),
        "ioc" => Ok(Tif::Plain(TimeInForce::Ioc)),
        "fok" => Ok(Tif::Plain(TimeInForce::Fok)),
        _ => match text.strip_prefix("gtt:") {
            Some(moment) => moment.parse().map(Tif::Until).map_err(|error| format!("gtt: {error}")),
            None => Err("expected gtc, ioc, fok or gtt:<time>".to_owned()),
        },
    }
}

/// Flags of both sides. Each may also stand in an order file, under the same name.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Common {
    /// Resource class, such as cpu.standard
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Blocks per slot
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub qty: Option<u32>,
    /// Smallest fill to accept [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub min_qty: Option<u32>,
    /// Start of the window: now, +30s, unix seconds or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// Length of the window: 2slots, 8s, 2h, 7d
    #[arg(long = "for", value_name = "LENGTH")]
    pub length: Option<Span>,
    /// The window in slots, a..b, instead of --from and --for
    #[arg(long, value_name = "A..B", conflicts_with_all = ["from", "length"])]
    pub window: Option<SlotWindow>,
    /// Feature that is required (buy) or offered (sell); repeat for more
    #[arg(long, value_name = "NAME")]
    pub feature: Vec<String>,
    /// Trade with this key only; repeat for more
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub allow: Vec<String>,
    /// Never trade with this key; repeat for more
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub deny: Vec<String>,
    /// gtc: until cancelled, gtt:<time>: until then, ioc: one epoch, fok: one epoch, all or nothing [default: gtc]
    #[arg(long, value_name = "TIF", value_parser = tif)]
    pub tif: Option<Tif>,
    /// Most that the fees of one trade may come to, with its unit: 500sat [default: no cap beside `max_fee_share` of the configuration]
    #[arg(long, value_name = "AMOUNT", value_parser = sats)]
    pub max_fee: Option<u64>,
}

/// Flags of both sides that are not part of the order.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// Read the order from a TOML file whose keys are the flags' names; flags win
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show the preview and place nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Common {
    /// These flags, with those of a file where they say nothing.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        // A window named here replaces the file's, however either is written.
        let named = self.window.is_some() || self.from.is_some() || self.length.is_some();
        let times = if named { Self::default() } else { file.clone() };
        Self {
            class: self.class.or(file.class),
            qty: self.qty.or(file.qty),
            min_qty: self.min_qty.or(file.min_qty),
            from: self.from.or(times.from),
            length: self.length.or(times.length),
            window: self.window.or(times.window),
            feature: first(self.feature, file.feature),
            allow: first(self.allow, file.allow),
            deny: first(self.deny, file.deny),
            tif: self.tif.or(file.tif),
            max_fee: self.max_fee.or(file.max_fee),
        }
    }

    /// The window in slots. `soonest` is the slot that `now` means; `length` stands in for
    /// a missing `--for`.
    ///
    /// # Errors
    /// No window, or no whole number of slots.
    pub fn slots(
        &self,
        status: &Status,
        soonest: u32,
        length: Option<u32>,
    ) -> Result<SlotRange, Failure> {
        if let Some(window) = self.window {
            return Ok([window.start, window.end]);
        }
        let length = match self.length {
            Some(span) => Some(span.slots(status.slot_s).map_err(|error| {
                Failure::new(reason!("order.window"), format!("--for: {error}"))
            })?),
            None => length,
        };
        let length = length.ok_or_else(|| missing("for"))?;
        let slot_ms = u64::from(status.slot_s.max(1)) * 1000;
        let start = match self.from.unwrap_or(Moment::Now) {
            Moment::Now => soonest,
            moment => u32::try_from(moment.at_ms(status.now_at).div_ceil(slot_ms))
                .map_err(|_| Failure::new(reason!("order.window"), "--from is too far away"))?,
        };
        Ok([start, start.saturating_add(length)])
    }
}

/// The list of the flags unless it is empty.
pub fn first<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
    if flags.is_empty() { file } else { flags }
}

/// What every order needs, said once.
///
/// # Errors
/// Exit 2 if it is missing.
pub fn need<T>(value: Option<T>, flag: &str) -> Result<T, Failure> {
    value.ok_or_else(|| missing(flag))
}

fn missing(flag: &str) -> Failure {
    Failure::new(reason!("order.incomplete"), format!("--{flag} is missing"))
        .with_hint("give it as a flag or in --file")
}

/// A class with its own price, `cpu.highmem=25sat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassPrice {
    /// Class name.
    pub class: String,
    /// Limit.
    pub price: Price,
}

/// For clap.
pub fn class_price(text: &str) -> Result<ClassPrice, String> {
    let (class, price) = text.split_once('=').ok_or("expected class=price")?;
    let price = price.parse::<Price>().map_err(|error| error.to_string())?;
    Ok(ClassPrice { class: class.to_owned(), price })
}
