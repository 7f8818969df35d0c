//! The JSON form of a book, read strictly; [`crate::api::types::book_json`] writes it.

use capex_core::reason;
use capex_core::reasons::Reason;
use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use capex_core::matching::{Algorithm, Cancel, Instance, MatchError, Mode, Order, Side};

/// What a book that does not say gets, like the published reference.
const DEFAULT_STARTS: u8 = 3;

/// Why a book is not in the form `capex match` reads, or is refused by the matcher.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("{at}: unknown field")]
    UnknownField { at: String },
    #[error("{at}: missing")]
    MissingField { at: String },
    #[error("{at}: expected {expected}")]
    WrongType { at: String, expected: &'static str },
    #[error("{at}: integer out of range")]
    IntegerRange { at: String },
    #[error("{at}: class ids are 0 to 65535")]
    ClassRange { at: String },
    #[error("{at}: expected 64 hex digits")]
    Beacon { at: String },
    #[error("{at}: expected \"buy\" or \"sell\"")]
    UnknownSide { at: String },
    #[error("{at}: expected \"sticky\" or \"gang\"")]
    UnknownMode { at: String },
    #[error(transparent)]
    Match(#[from] MatchError),
}

impl Refusal {
    /// Stable reason code.
    pub(super) fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::UnknownField { .. } => reason!("match.unknown_field"),
            Self::MissingField { .. } => reason!("match.missing_field"),
            Self::WrongType { .. } => reason!("match.wrong_type"),
            Self::IntegerRange { .. } => reason!("match.integer_range"),
            Self::ClassRange { .. } => reason!("match.class_range"),
            Self::Beacon { .. } => reason!("match.beacon"),
            Self::UnknownSide { .. } => reason!("match.unknown_side"),
            Self::UnknownMode { .. } => reason!("match.unknown_mode"),
            Self::Match(error) => error.reason(),
        }
    }
}

/// The fields of one JSON object, each of which must be asked for.
struct Fields<'a> {
    at: String,
    map: &'a Map<String, Value>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    fn new(value: &'a Value, at: String) -> Result<Self, Refusal> {
        match value.as_object() {
            Some(map) => Ok(Self { at, map, asked: BTreeSet::new() }),
            None => Err(Refusal::WrongType { at, expected: "an object" }),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    fn optional(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.insert(name);
        self.map.get(name)
    }

    fn required(&mut self, name: &'static str) -> Result<&'a Value, Refusal> {
        self.optional(name).ok_or_else(|| Refusal::MissingField { at: self.path(name) })
    }

    fn text(&mut self, name: &'static str) -> Result<&'a str, Refusal> {
        let value = self.required(name)?;
        text(value, || self.path(name))
    }

    /// An integer for which all values beyond `T` are refused or cut by the matcher alike,
    /// so that the largest `T` stands for them.
    fn capped<T: TryFrom<u64> + Bounded>(
        &mut self,
        name: &'static str,
        default: Option<T>,
    ) -> Result<T, Refusal> {
        let value = match default {
            None => self.required(name)?,
            Some(default) => match self.optional(name) {
                None => return Ok(default),
                Some(value) => value,
            },
        };
        Ok(T::try_from(integer(value, || self.path(name))?).unwrap_or(T::MAX))
    }

    fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Refusal> {
        let Some(value) = self.optional(name) else {
            return Ok(Vec::new());
        };
        array(value, || self.path(name))?
            .iter()
            .map(|item| text(item, || self.path(name)).map(str::to_owned))
            .collect()
    }

    fn class(&mut self) -> Result<u16, Refusal> {
        let value = self.required("class")?;
        class(value, || self.path("class"))
    }

    /// Refuses the first field nobody asked for.
    fn finish(self) -> Result<(), Refusal> {
        match self.map.keys().find(|name| !self.asked.contains(name.as_str())) {
            Some(name) => {
                Err(Refusal::UnknownField { at: self.path(&name.escape_debug().to_string()) })
            }
            None => Ok(()),
        }
    }
}

/// The largest value of an integer type.
trait Bounded {
    const MAX: Self;
}
impl Bounded for u8 {
    const MAX: Self = Self::MAX;
}
impl Bounded for u16 {
    const MAX: Self = Self::MAX;
}
impl Bounded for u32 {
    const MAX: Self = Self::MAX;
}
impl Bounded for u64 {
    const MAX: Self = Self::MAX;
}

fn text(value: &Value, at: impl FnOnce() -> String) -> Result<&str, Refusal> {
    value.as_str().ok_or_else(|| Refusal::WrongType { at: at(), expected: "a string" })
}

fn array(value: &Value, at: impl FnOnce() -> String) -> Result<&[Value], Refusal> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(Refusal::WrongType { at: at(), expected: "an array" }),
    }
}

fn pair(value: &Value, at: impl FnOnce() -> String) -> Result<(&Value, &Value), Refusal> {
    match value.as_array().map(Vec::as_slice) {
        Some([first, second]) => Ok((first, second)),
        _ => Err(Refusal::WrongType { at: at(), expected: "an array of two integers" }),
    }
}

fn integer(value: &Value, at: impl FnOnce() -> String) -> Result<u64, Refusal> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(integer), _) => Ok(integer),
            // Longer integers than `u64` are read as floats of at least this size.
            (None, Some(float)) if !number.is_i64() && float.abs() < BEYOND_U64 => {
                Err(Refusal::WrongType { at: at(), expected: "an integer" })
            }
            _ => Err(Refusal::IntegerRange { at: at() }),
        },
        _ => Err(Refusal::WrongType { at: at(), expected: "an integer" }),
    }
}

fn slot(value: &Value, at: impl Fn() -> String) -> Result<u32, Refusal> {
    u32::try_from(integer(value, &at)?).map_err(|_| Refusal::IntegerRange { at: at() })
}

fn class(value: &Value, at: impl Fn() -> String) -> Result<u16, Refusal> {
    u16::try_from(integer(value, &at)?).map_err(|_| Refusal::ClassRange { at: at() })
}

/// Reads one book, and the version of the rules that it was matched by, if it says so.
pub(super) fn book(value: &Value) -> Result<(Instance, Option<Algorithm>), Refusal> {
    let mut fields = Fields::new(value, "book".to_owned())?;
    let beacon = beacon(fields.text("beacon")?)
        .ok_or_else(|| Refusal::Beacon { at: fields.path("beacon") })?;
    let now = match fields.optional("now") {
        Some(value) => slot(value, || fields.path("now"))?,
        None => 0,
    };
    let epoch = fields.capped("epoch", Some(0))?;
    let starts = fields.capped("starts", Some(DEFAULT_STARTS))?;
    let max_legs = match fields.optional("max_legs") {
        Some(legs) => Some(integer(legs, || fields.path("max_legs"))?),
        None => None,
    };
    let max_legs = max_legs.map(|legs| u16::try_from(legs).unwrap_or(u16::MAX));
    let algorithm = match fields.optional("algorithm") {
        Some(version) => {
            let version = integer(version, || fields.path("algorithm"))?;
            Some(Algorithm::try_from(u8::try_from(version).unwrap_or(u8::MAX))?)
        }
        None => None,
    };
    let orders = fields.required("orders")?;
    let orders = array(orders, || fields.path("orders"))?
        .iter()
        .enumerate()
        .map(|(at, order)| self::order(order, format!("orders[{at}]")))
        .collect::<Result<_, _>>()?;
    let cancels = match fields.optional("cancels") {
        Some(value) => array(value, || fields.path("cancels"))?,
        None => &[],
    };
    let cancels = cancels
        .iter()
        .enumerate()
        .map(|(at, cancel)| self::cancel(cancel, format!("cancels[{at}]")))
        .collect::<Result<_, _>>()?;
    fields.finish()?;
    Ok((Instance { beacon, now, epoch, starts, max_legs, orders, cancels }, algorithm))
}

fn beacon(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |b, d| b << 4 | d)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

fn cancel(value: &Value, at: String) -> Result<Cancel, Refusal> {
    let mut fields = Fields::new(value, at)?;
    let order = fields.text("order")?.to_owned();
    let signer = fields.text("signer")?.to_owned();
    fields.finish()?;
    Ok(Cancel { order, signer })
}

fn order(value: &Value, at: String) -> Result<Order, Refusal> {
    let mut fields = Fields::new(value, at)?;
    let window = fields.required("window")?;
    let path = || fields.path("window");
    let (start, end) = pair(window, path)?;
    let window = (slot(start, path)?, slot(end, path)?);
    let expiry_epoch = match fields.optional("expiry_epoch") {
        Some(value) => Some(integer(value, || fields.path("expiry_epoch"))?),
        None => None,
    };
    let order = Order {
        id: fields.text("id")?.to_owned(),
        owner: fields.text("owner")?.to_owned(),
        qty: fields.capped("qty", None)?,
        filled: fields.capped("filled", Some(0))?,
        min_qty: fields.capped("min_qty", Some(1))?,
        window,
        expiry_epoch,
        features: fields.capped("features", Some(0))?,
        allow: fields.texts("allow")?,
        deny: fields.texts("deny")?,
        side: match fields.text("side")? {
            "buy" => buy(&mut fields)?,
            "sell" => sell(&mut fields)?,
            _ => {
                return Err(Refusal::UnknownSide { at: fields.path("side") });
            }
        },
    };
    fields.finish()?;
    Ok(order)
}

fn buy(fields: &mut Fields<'_>) -> Result<Side, Refusal> {
    let hours = fields.capped("hours", Some(1))?;
    let mode = match fields.optional("mode") {
        None => Mode::Sticky,
        Some(value) => match text(value, || fields.path("mode"))? {
            "sticky" => Mode::Sticky,
            "gang" => Mode::Gang,
            _ => {
                return Err(Refusal::UnknownMode { at: fields.path("mode") });
            }
        },
    };
    let alts = match fields.optional("alts") {
        Some(value) => alternatives(value, || fields.path("alts"))?,
        None => vec![(fields.class()?, fields.capped("limit", None)?)],
    };
    Ok(Side::Buy { hours, mode, alts })
}

fn alternatives(value: &Value, at: impl Fn() -> String) -> Result<Vec<(u16, u64)>, Refusal> {
    array(value, &at)?
        .iter()
        .map(|alternative| {
            let (class, limit) = pair(alternative, &at)?;
            Ok((self::class(class, &at)?, integer(limit, &at)?))
        })
        .collect()
}

fn sell(fields: &mut Fields<'_>) -> Result<Side, Refusal> {
    Ok(Side::Sell {
        class: fields.class()?,
        limit_msat: fields.capped("limit", None)?,
        min_run: fields.capped("min_run", Some(1))?,
        provider: match fields.optional("provider") {
            Some(value) => Some(text(value, || fields.path("provider"))?.to_owned()),
            None => None,
        },
    })
}
