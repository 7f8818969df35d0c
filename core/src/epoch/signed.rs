//! An epoch as text: its signed orders and the result that they are said to give, so that
//! anyone can compute it again with the network definition alone. One fact per line, so that
//! an error has a line; lists ascend, which [`parse`] checks of rows and prices and the audit
//! of orders, since their ids need the network.
//!
//! ```text
//! capex-epoch 1 <network>
//! epoch <number>
//! algorithm <version of the matching rules>
//! beacon <hex>                                seed of the ties
//! root <hex> <orders under it>
//! order <hex payload> <hex signature>         by order id
//! row <class> <start> <slots> <qty> <msat> <bid id> <ask id>
//! price <class> <slot> <msat per block>
//! welfare <msat>
//! result_root <hex>
//! ```
//! An order names its owner, who signed it. Every order of the set stands here, also those
//! that a bound keeps out of the book, since the root is over all.

use crate::reason;
use crate::reasons::Reason;
use std::fmt::Write;
use std::str::{FromStr, Lines};

use super::{EpochResult, SlotPrice, row_key};
use crate::book::{OrderSet, beacon};
use crate::ids::{from_hex, to_hex};
use crate::limits::{ORDER_MAX_BYTES, ORDERS_PER_EPOCH};
use crate::order::Order;
use crate::params::Params;
use crate::settlement::objects::Row;
use crate::wire::{Envelope, VERSION};

/// Longest line of an order: its words, both in hex.
const ORDER_LINE_MAX_BYTES: usize = "order  \n".len() + 2 * (ORDER_MAX_BYTES + 64);
/// Longest line of a row: seven words, five of them integers of at most 5, 10, 5, 10 and 20
/// digits.
const ROW_LINE_MAX_BYTES: usize = "row       \n".len() + 50 + 2 * 64;
/// Longest text that is written or read: the largest set, of 200,000 orders of 2 KiB each, and
/// as many rows. Orders of the usual 300 bytes leave place for four million rows.
pub const TEXT_MAX_BYTES: usize = ORDERS_PER_EPOCH * (ORDER_LINE_MAX_BYTES + ROW_LINE_MAX_BYTES);

const HEADER: &str = "capex-epoch 1 ";
/// Characters of a line's word that an error shows.
const SHOWN_CHARS: usize = 32;

/// Signed orders of an epoch and what they are said to give. Nothing in it is checked: see
/// [`super::audit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEpoch {
    pub epoch: u64,
    /// Version of the matching rules.
    pub algorithm: u8,
    pub beacon: [u8; 32],
    /// Tree hash over the ids of the orders.
    pub root: [u8; 32],
    /// How many orders the root covers.
    pub count: u32,
    /// The orders as received, ascending by id.
    pub orders: Vec<Envelope>,
    /// Strictly ascending by (class, start, bid, ask).
    pub rows: Vec<Row>,
    /// Strictly ascending by (class, slot).
    pub prices: Vec<SlotPrice>,
    /// Gains from trade, msat.
    pub welfare_msat: u128,
    pub result_root: [u8; 32],
}

impl SignedEpoch {
    /// A result with the set that it was computed from.
    #[must_use]
    pub fn new(result: &EpochResult, set: &OrderSet, params: &Params) -> Self {
        Self {
            epoch: result.epoch,
            algorithm: params.matching_version,
            beacon: beacon(result.epoch, params),
            root: result.root,
            count: result.count,
            orders: set.iter().map(|order| order.envelope().clone()).collect(),
            rows: result.rows.iter().map(|found| found.row.clone()).collect(),
            prices: result.prices.clone(),
            welfare_msat: result.welfare_msat,
            result_root: result.result_root,
        }
    }
}

/// Why a text is not an epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedEpochFault {
    /// The first line is not that of an epoch file, version 1.
    #[error("expected `capex-epoch 1 <network>`")]
    Header,
    /// Longer than [`TEXT_MAX_BYTES`], or more orders than an epoch can have.
    #[error("longer than the text of an epoch may be")]
    TooLong,
    /// Another line must come here.
    #[error("expected `{0}`")]
    Line(&'static str),
    /// A row or a price that does not ascend.
    #[error("does not come after the line before")]
    Order,
    /// Nothing may follow the last line.
    #[error("text after the end")]
    Trailing,
}

impl SignedEpochFault {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Header => reason!("epoch.file_header"),
            Self::TooLong => reason!("epoch.file_too_long"),
            Self::Line(_) => reason!("epoch.file_line"),
            Self::Order => reason!("epoch.file_order"),
            Self::Trailing => reason!("epoch.file_trailing"),
        }
    }
}

/// A fault with its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct SignedEpochError {
    /// Line number from 1.
    pub line: usize,
    pub fault: SignedEpochFault,
}

impl SignedEpochError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.fault.reason()
    }
}

/// The text of an epoch of a network.
///
/// # Errors
/// [`SignedEpochFault::TooLong`]: nobody could read it.
pub fn write(signed: &SignedEpoch, network: &str) -> Result<String, SignedEpochFault> {
    let mut writer = Writer { text: String::new(), max_bytes: TEXT_MAX_BYTES };
    writer.epoch(signed, network)?;
    Ok(writer.text)
}

/// Lines one by one, up to a bound.
struct Writer {
    text: String,
    max_bytes: usize,
}

impl Writer {
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), SignedEpochFault> {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
        if self.text.len() > self.max_bytes { Err(SignedEpochFault::TooLong) } else { Ok(()) }
    }

    fn epoch(&mut self, signed: &SignedEpoch, network: &str) -> Result<(), SignedEpochFault> {
        self.line(format_args!("{HEADER}{network}"))?;
        self.line(format_args!("epoch {}", signed.epoch))?;
        self.line(format_args!("algorithm {}", signed.algorithm))?;
        self.line(format_args!("beacon {}", to_hex(&signed.beacon)))?;
        self.line(format_args!("root {} {}", to_hex(&signed.root), signed.count))?;
        for order in &signed.orders {
            let signature = to_hex(&order.signature.concat());
            self.line(format_args!("order {} {signature}", to_hex(&order.payload)))?;
        }
        for row in &signed.rows {
            let Row { class, start, slots, qty, msat, .. } = row;
            let (buy, sell) = (to_hex(&row.buy), to_hex(&row.sell));
            self.line(format_args!("row {class} {start} {slots} {qty} {msat} {buy} {sell}"))?;
        }
        for (class, slot, price_msat) in &signed.prices {
            self.line(format_args!("price {class} {slot} {price_msat}"))?;
        }
        self.line(format_args!("welfare {}", signed.welfare_msat))?;
        self.line(format_args!("result_root {}", to_hex(&signed.result_root)))
    }
}

/// The network that the first line names, cut to what a message can show.
///
/// # Errors
/// The first line is not that of an epoch file.
pub fn network(text: &str) -> Result<&str, SignedEpochError> {
    let name = text.lines().next().and_then(|line| line.strip_prefix(HEADER));
    let name = name.ok_or(SignedEpochError { line: 1, fault: SignedEpochFault::Header })?;
    Ok(name.char_indices().nth(SHOWN_CHARS).map_or(name, |(end, _)| &name[..end]))
}

/// Reads the text of an epoch, whatever its network. Only its form is checked.
///
/// # Errors
/// The first line that is wrong, and why.
pub fn parse(text: &str) -> Result<SignedEpoch, SignedEpochError> {
    let mut reader = Reader { lines: text.lines(), line: 1, current: None };
    if text.len() > TEXT_MAX_BYTES {
        return Err(reader.error(SignedEpochFault::TooLong));
    }
    network(text)?;
    reader.advance();
    reader.advance();
    let epoch = reader.one("epoch <number>", |[number]| integer(number))?;
    let algorithm = reader.one("algorithm <version>", |[version]| integer(version))?;
    let beacon = reader.one("beacon <hex>", |[hex]| hash(hex))?;
    let (root, count) =
        reader.one("root <hex> <orders>", |[hex, count]| Some((hash(hex)?, integer(count)?)))?;
    let mut orders = Vec::new();
    while let Some(order) = reader.maybe("order <hex payload> <hex signature>", order)? {
        if orders.len() >= ORDERS_PER_EPOCH {
            return Err(reader.error(SignedEpochFault::TooLong));
        }
        orders.push(order);
    }
    let form = "row <class> <start> <slots> <qty> <msat> <bid id> <ask id>";
    let rows = reader.ascending(form, |fields| row(epoch, fields), row_key)?;
    let prices = reader.ascending(
        "price <class> <slot> <msat>",
        |[class, slot, msat]| Some((integer(class)?, integer(slot)?, integer(msat)?)),
        |&(class, slot, _): &SlotPrice| (class, slot),
    )?;
    let welfare_msat = reader.one("welfare <msat>", |[msat]| integer(msat))?;
    let result_root = reader.one("result_root <hex>", |[hex]| hash(hex))?;
    if reader.current.is_some() {
        return Err(reader.error(SignedEpochFault::Trailing));
    }
    Ok(SignedEpoch {
        epoch,
        algorithm,
        beacon,
        root,
        count,
        orders,
        rows,
        prices,
        welfare_msat,
        result_root,
    })
}

/// Lines one by one, each asked for by its form: `<kind> <field> …`.
struct Reader<'a> {
    lines: Lines<'a>,
    line: usize,
    current: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn advance(&mut self) {
        self.line += usize::from(self.current.is_some());
        self.current = self.lines.next();
    }

    fn error(&self, fault: SignedEpochFault) -> SignedEpochError {
        SignedEpochError { line: self.line, fault }
    }

    /// The present line, if it is of the kind that `form` begins with.
    fn maybe<T, const N: usize>(
        &mut self,
        form: &'static str,
        read: impl FnOnce([&'a str; N]) -> Option<T>,
    ) -> Result<Option<T>, SignedEpochError> {
        let mut words = self.current.unwrap_or_default().split(' ');
        if words.next() != form.split(' ').next() {
            return Ok(None);
        }
        let fields: Vec<&str> = words.take(N + 1).collect();
        let value = fields.try_into().ok().and_then(read);
        let value = value.ok_or_else(|| self.error(SignedEpochFault::Line(form)))?;
        self.advance();
        Ok(Some(value))
    }

    fn one<T, const N: usize>(
        &mut self,
        form: &'static str,
        read: impl FnOnce([&'a str; N]) -> Option<T>,
    ) -> Result<T, SignedEpochError> {
        self.maybe(form, read)?.ok_or_else(|| self.error(SignedEpochFault::Line(form)))
    }

    /// All lines of a kind, strictly ascending by `key`.
    fn ascending<T, K: Ord, const N: usize>(
        &mut self,
        form: &'static str,
        mut read: impl FnMut([&'a str; N]) -> Option<T>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, SignedEpochError> {
        let mut values: Vec<T> = Vec::new();
        let mut line = self.line;
        while let Some(value) = self.maybe(form, &mut read)? {
            if values.last().is_some_and(|last| key(last) >= key(&value)) {
                return Err(SignedEpochError { line, fault: SignedEpochFault::Order });
            }
            values.push(value);
            line = self.line;
        }
        Ok(values)
    }
}

/// An integer as it is written: no sign, no leading zero.
fn integer<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|value: &T| value.to_string() == text)
}

fn hash(text: &str) -> Option<[u8; 32]> {
    from_hex(text)?.try_into().ok()
}

/// The signer is the owner that the order names; an order that does not decode is left for
/// the audit to refuse.
fn order([payload, signature]: [&str; 2]) -> Option<Envelope> {
    let signature = from_hex(signature)?;
    let (first, second) = signature.split_at_checked(32)?;
    let signature = [first.try_into().ok()?, second.try_into().ok()?];
    let mut envelope = Envelope { key: [0; 32], payload: from_hex(payload)?, signature };
    if let Ok(order) = envelope.peek::<Order>() {
        envelope.key = order.owner.0;
    }
    Some(envelope)
}

fn row(epoch: u64, [class, start, slots, qty, msat, buy, sell]: [&str; 7]) -> Option<Row> {
    Some(Row {
        v: VERSION,
        epoch,
        buy: hash(buy)?,
        sell: hash(sell)?,
        class: integer(class)?,
        start: integer(start)?,
        slots: integer(slots)?,
        qty: integer(qty)?,
        msat: integer(msat)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_one_order(payload_bytes: usize, rows: usize) -> SignedEpoch {
        let row = Row {
            v: VERSION,
            epoch: u64::MAX,
            buy: [0; 32],
            sell: [0; 32],
            class: u16::MAX,
            start: u32::MAX,
            slots: u16::MAX,
            qty: u32::MAX,
            msat: u64::MAX,
        };
        let payload = vec![0; payload_bytes];
        SignedEpoch {
            epoch: u64::MAX,
            algorithm: 1,
            beacon: [0; 32],
            root: [0; 32],
            count: 1,
            orders: vec![Envelope { key: [0; 32], payload, signature: [[0; 32]; 2] }],
            rows: vec![row; rows],
            prices: Vec::new(),
            welfare_msat: 0,
            result_root: [0; 32],
        }
    }

    #[test]
    fn the_longest_lines_are_as_long_as_the_bound_says() {
        let text = write(&of_one_order(ORDER_MAX_BYTES, 1), "devnet").unwrap();
        let longest = |kind: &str| {
            text.lines().find(|line| line.starts_with(kind)).map(|line| line.len() + 1)
        };
        assert_eq!(longest("order"), Some(ORDER_LINE_MAX_BYTES));
        assert_eq!(longest("row"), Some(ROW_LINE_MAX_BYTES));
    }

    #[test]
    fn nothing_is_written_that_is_too_long_to_be_read() {
        let signed = of_one_order(1, 2);
        let length = write(&signed, "devnet").unwrap().len();
        for (max_bytes, fits) in [(length, true), (length - 1, false), (0, false)] {
            let mut writer = Writer { text: String::new(), max_bytes };
            let written = writer.epoch(&signed, "devnet");
            assert_eq!(written, fits.then_some(()).ok_or(SignedEpochFault::TooLong));
        }
        assert_eq!(SignedEpochFault::TooLong.code(), "epoch.file_too_long");
    }
}
