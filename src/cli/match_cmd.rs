//! `capex match`: matches books given as JSON, offline.
//!
//! The form is the one in which `capex epoch export` writes an epoch, so anybody can
//! recompute it. Reading is strict: a field that is unknown, missing or of another type
//! refuses the book, never the command; the other books of an array are still matched.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::domain::matching::{self, Cancel, Instance, MatchError, Mode, Order, Outcome, Side};

/// Everything was matched.
const EXIT_OK: u8 = 0;
/// The input could not be read, or the output not written.
const EXIT_IO: u8 = 2;
/// The input is not JSON, or a book in it was refused.
const EXIT_REFUSED: u8 = 6;

/// Longest input read: about a million orders, far above any book a network can hold.
const MAX_INPUT_BYTES: u64 = 512 << 20;
/// What a book that does not say gets, like the published reference.
const DEFAULT_STARTS: u8 = 3;

/// Why a book is not in the form `capex match` reads, or is refused by the matcher.
#[derive(Debug, Error)]
enum Refusal {
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
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownField { .. } => "match.unknown_field",
            Self::MissingField { .. } => "match.missing_field",
            Self::WrongType { .. } => "match.wrong_type",
            Self::IntegerRange { .. } => "match.integer_range",
            Self::ClassRange { .. } => "match.class_range",
            Self::Beacon { .. } => "match.beacon",
            Self::UnknownSide { .. } => "match.unknown_side",
            Self::UnknownMode { .. } => "match.unknown_mode",
            Self::Match(error) => error.code(),
        }
    }
}

/// Why the command as a whole failed.
#[derive(Debug, Error)]
enum Failure {
    #[error("{input}: {error}")]
    Read { input: String, error: io::Error },
    #[error("{input}: longer than {MAX_INPUT_BYTES} bytes")]
    TooLong { input: String },
    #[error("{input}: {error}")] // The JSON error names line and column.
    Malformed {
        input: String,
        error: serde_json::Error,
    },
    #[error("output: {0}")]
    Write(io::Error),
}

impl Failure {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "match.unreadable",
            Self::TooLong { .. } => "match.input_too_long",
            Self::Malformed { .. } => "match.malformed_json",
            Self::Write(_) => "match.unwritable",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::Write(_) => EXIT_IO,
            Self::TooLong { .. } | Self::Malformed { .. } => EXIT_REFUSED,
        }
    }
}

/// Matches the book, or the array of books, in the file `input` (`-` for standard input).
///
/// Writes exactly one JSON value to `out`: the result, or an array of results in the order
/// of the books, with `{"error":{"code","message"}}` in the place of a refused book. A
/// failure of the command itself leaves `out` empty and goes to `err`, as one line of text
/// or, with `json`, as the same error object.
///
/// Returns the exit code: 0 if all books were matched, 6 if one was refused or the input is
/// not JSON, 2 if the input cannot be read or the output not written.
pub fn run(input: &str, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match read(input).and_then(|value| match_all(&value, out)) {
        Ok(exit_code) => exit_code,
        Err(failure) => {
            let line = if json {
                error_value(failure.code(), &failure.to_string()).to_string()
            } else {
                format!("error: {failure}")
            };
            // Nowhere is left to report that even this could not be written.
            let _ = writeln!(err, "{line}");
            failure.exit_code()
        }
    }
}

/// The form that [`run`] reads, for one book.
pub fn to_json(instance: &Instance) -> Value {
    json!({
        "beacon": instance.beacon.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "now": instance.now,
        "epoch": instance.epoch,
        "starts": instance.starts,
        "orders": instance.orders.iter().map(order_json).collect::<Vec<_>>(),
        "cancels": instance
            .cancels
            .iter()
            .map(|cancel| json!({"order": cancel.order, "signer": cancel.signer}))
            .collect::<Vec<_>>(),
    })
}

fn order_json(order: &Order) -> Value {
    let mut value = json!({
        "id": order.id,
        "owner": order.owner,
        "qty": order.qty,
        "filled": order.filled,
        "min_qty": order.min_qty,
        "window": [order.window.0, order.window.1],
        "features": order.features,
        "allow": order.allow,
        "deny": order.deny,
    });
    if let Some(epoch) = order.expiry_epoch {
        value["expiry_epoch"] = epoch.into();
    }
    match &order.side {
        Side::Buy { hours, mode, alts } => {
            value["side"] = "buy".into();
            value["hours"] = (*hours).into();
            value["mode"] = match mode {
                Mode::Sticky => "sticky".into(),
                Mode::Gang => "gang".into(),
            };
            value["alts"] = alts
                .iter()
                .map(|(class, limit)| json!([class, limit]))
                .collect();
        }
        Side::Sell {
            class,
            limit_msat,
            min_run,
            provider,
        } => {
            value["side"] = "sell".into();
            value["class"] = (*class).into();
            value["limit"] = (*limit_msat).into();
            value["min_run"] = (*min_run).into();
            if let Some(provider) = provider {
                value["provider"] = provider.as_str().into();
            }
        }
    }
    value
}

fn read(input: &str) -> Result<Value, Failure> {
    let unreadable = |error| Failure::Read {
        input: input.to_owned(),
        error,
    };
    let source: Box<dyn Read> = match input {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(File::open(path).map_err(unreadable)?),
    };
    let mut bytes = Vec::new();
    source
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::TooLong {
            input: input.to_owned(),
        });
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::Malformed {
        input: input.to_owned(),
        error,
    })
}

fn match_all(value: &Value, out: &mut dyn Write) -> Result<u8, Failure> {
    let (text, refused) = match value {
        Value::Array(books) => {
            let answers: Vec<Answer> = books.iter().map(answer).collect();
            let refused = answers
                .iter()
                .any(|answer| matches!(answer, Answer::Refused(_)));
            (serde_json::to_string(&answers), refused)
        }
        book => {
            let answer = answer(book);
            (
                serde_json::to_string(&answer),
                matches!(answer, Answer::Refused(_)),
            )
        }
    };
    let text = text.map_err(|error| Failure::Write(error.into()))?;
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(Failure::Write)?;
    Ok(if refused { EXIT_REFUSED } else { EXIT_OK })
}

fn answer(book: &Value) -> Answer {
    match instance(book).and_then(|instance| Ok(matching::solve(&instance)?)) {
        Ok(outcome) => Answer::Matched(outcome),
        Err(refusal) => Answer::Refused(error_value(refusal.code(), &refusal.to_string())),
    }
}

fn error_value(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// What is printed for one book. Written field by field, not as a [`Value`], because the
/// welfare may exceed what a [`Value`] holds, and to keep slots in numeric order.
enum Answer {
    Matched(Outcome),
    Refused(Value),
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome = match self {
            Self::Matched(outcome) => outcome,
            Self::Refused(error) => return error.serialize(serializer),
        };
        let trades: Vec<TradeJson<'_>> = outcome.trades.iter().map(TradeJson).collect();
        let mut result = serializer.serialize_struct("Outcome", 3)?;
        result.serialize_field("welfare_msat", &outcome.welfare_msat)?;
        result.serialize_field("prices", &PricesJson(outcome))?;
        result.serialize_field("trades", &trades)?;
        result.end()
    }
}

struct PricesJson<'a>(&'a Outcome);

impl Serialize for PricesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.prices.len()))?;
        for ((class, slot), price_msat) in &self.0.prices {
            map.serialize_entry(&format!("{class}/{slot}"), price_msat)?;
        }
        map.end()
    }
}

struct TradeJson<'a>(&'a matching::Trade);

impl Serialize for TradeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut trade = serializer.serialize_struct("Trade", 8)?;
        trade.serialize_field("class", &self.0.class)?;
        trade.serialize_field("start", &self.0.start)?;
        trade.serialize_field("hours", &self.0.hours)?;
        trade.serialize_field("buy", &self.0.buy)?;
        trade.serialize_field("sell", &self.0.sell)?;
        trade.serialize_field("qty", &self.0.qty)?;
        trade.serialize_field("msat", &self.0.msat)?;
        trade.serialize_field("sat", &self.0.sat)?;
        trade.end()
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
            Some(map) => Ok(Self {
                at,
                map,
                asked: BTreeSet::new(),
            }),
            None => Err(Refusal::WrongType {
                at,
                expected: "an object",
            }),
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
        self.optional(name).ok_or_else(|| Refusal::MissingField {
            at: self.path(name),
        })
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
        match self
            .map
            .keys()
            .find(|name| !self.asked.contains(name.as_str()))
        {
            Some(name) => Err(Refusal::UnknownField {
                at: self.path(&name.escape_debug().to_string()),
            }),
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
    value.as_str().ok_or_else(|| Refusal::WrongType {
        at: at(),
        expected: "a string",
    })
}

fn array(value: &Value, at: impl FnOnce() -> String) -> Result<&[Value], Refusal> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(Refusal::WrongType {
            at: at(),
            expected: "an array",
        }),
    }
}

fn pair(value: &Value, at: impl FnOnce() -> String) -> Result<(&Value, &Value), Refusal> {
    match value.as_array().map(Vec::as_slice) {
        Some([first, second]) => Ok((first, second)),
        _ => Err(Refusal::WrongType {
            at: at(),
            expected: "an array of two integers",
        }),
    }
}

fn integer(value: &Value, at: impl FnOnce() -> String) -> Result<u64, Refusal> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(integer), _) => Ok(integer),
            // Longer integers than `u64` are read as floats of at least this size.
            (None, Some(float)) if !number.is_i64() && float.abs() < BEYOND_U64 => {
                Err(Refusal::WrongType {
                    at: at(),
                    expected: "an integer",
                })
            }
            _ => Err(Refusal::IntegerRange { at: at() }),
        },
        _ => Err(Refusal::WrongType {
            at: at(),
            expected: "an integer",
        }),
    }
}

fn slot(value: &Value, at: impl Fn() -> String) -> Result<u32, Refusal> {
    u32::try_from(integer(value, &at)?).map_err(|_| Refusal::IntegerRange { at: at() })
}

fn class(value: &Value, at: impl Fn() -> String) -> Result<u16, Refusal> {
    u16::try_from(integer(value, &at)?).map_err(|_| Refusal::ClassRange { at: at() })
}

fn instance(value: &Value) -> Result<Instance, Refusal> {
    let mut fields = Fields::new(value, "book".to_owned())?;
    let beacon = beacon(fields.text("beacon")?).ok_or_else(|| Refusal::Beacon {
        at: fields.path("beacon"),
    })?;
    let now = match fields.optional("now") {
        Some(value) => slot(value, || fields.path("now"))?,
        None => 0,
    };
    let epoch = fields.capped("epoch", Some(0))?;
    let starts = fields.capped("starts", Some(DEFAULT_STARTS))?;
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
    Ok(Instance {
        beacon,
        now,
        epoch,
        starts,
        orders,
        cancels,
    })
}

fn beacon(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |b, d| b << 4 | d))
        .collect();
    if digits.len() == 64 {
        bytes.try_into().ok()
    } else {
        None
    }
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
                return Err(Refusal::UnknownSide {
                    at: fields.path("side"),
                });
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
                return Err(Refusal::UnknownMode {
                    at: fields.path("mode"),
                });
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
