//! Which orders are valid. Decided by their content and the network definition alone, so
//! that every node decides alike.

use super::certificate::objects::{Activation, blinded};
use super::ids::OrderId;
use super::order::{Order, Side, Source};
use crate::limits::{
    ALLOW_DENY_MAX, ALTS_MAX, ORDER_MAX_BYTES, PRICE_MAX_MSAT, QTY_MAX, SLOTS_MAX,
};
use crate::params::Params;
use crate::reason;
use crate::reasons::Reason;
use crate::wire::{Envelope, Parsed, Verified, WireError, decode_exact};

/// Why an order is not valid. Everything here is provable from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Encoding, version, signer or signature.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The id has too few leading zero bits.
    #[error("proof of work is too small")]
    Work,
    /// Larger than an order may be.
    #[error("order is larger than 2,048 bytes")]
    Oversize,
    /// 1 ≤ min_qty ≤ qty ≤ 10,000 does not hold.
    #[error("quantity must satisfy 1 <= min_qty <= qty <= 10000")]
    Quantity,
    /// No alternative, too many, or a class twice.
    #[error("1 to 4 distinct classes (an ask: one)")]
    Alternatives,
    /// A class that the network does not define.
    #[error("unknown resource class")]
    UnknownClass,
    /// A limit of 0 or above 10^12 msat.
    #[error("limit must lie between 1 and 10^12 msat per block")]
    Limit,
    /// Slots, min_run or mode that do not fit the side.
    #[error(
        "a bid has 1 to 168 slots inside its window and no min_run; \
             an ask has min_run >= 1, no slots, no gang and no beneficiary"
    )]
    Run,
    /// Empty, past or beyond the horizon.
    #[error("window is empty, past or beyond the horizon of 336 slots")]
    Window,
    /// To be used before it begins, or by nobody else.
    #[error("to be used by a slot that every run begins before, and by somebody else")]
    UseBy,
    /// To be recalled from nobody else, or by several.
    #[error("to be recalled from somebody else, by one who pays alone")]
    Recall,
    /// Lists not strictly ascending, or more than 16 keys.
    #[error("allow and deny must ascend and hold at most 16 keys together")]
    Counterparties,
    /// A resale that its Activation does not support.
    #[error("resale is not supported by the activation that it carries")]
    Resale,
}

impl AdmissionError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Wire(error) => error.reason(),
            Self::Work => reason!("order.proof_of_work"),
            Self::Oversize => reason!("order.oversize"),
            Self::Quantity => reason!("order.quantity"),
            Self::Alternatives => reason!("order.alternatives"),
            Self::UnknownClass => reason!("order.unknown_class"),
            Self::Limit => reason!("order.limit_out_of_range"),
            Self::Run => reason!("order.run"),
            Self::Window => reason!("order.window"),
            Self::UseBy => reason!("order.use_by"),
            Self::Recall => reason!("order.recall"),
            Self::Counterparties => reason!("order.counterparties"),
            Self::Resale => reason!("order.resale"),
        }
    }
}

/// Whether an id has the work of the network: that many leading zero bits.
#[must_use]
pub fn has_work(id: &[u8; 32], bits: u8) -> bool {
    let mut zeros = 0;
    for byte in id {
        zeros += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    zeros >= u32::from(bits)
}

/// Checks an order as received: size, form, work, rules, and the signature last, because it
/// costs most.
///
/// # Errors
/// The first [`AdmissionError`] found.
pub fn admit(envelope: &Envelope, params: &Params) -> Result<Verified<Order>, AdmissionError> {
    if envelope.payload.len() > ORDER_MAX_BYTES {
        return Err(AdmissionError::Oversize);
    }
    Candidate::new(envelope.clone().parse(params.magic)?, params)?.verify()
}

/// An order that has passed every check but that of its signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    order: Parsed<Order>,
    activation: Option<Parsed<Activation>>,
}

impl Candidate {
    /// Checks work and rules.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn new(order: Parsed<Order>, params: &Params) -> Result<Self, AdmissionError> {
        if !has_work(&order.id(), params.pow_bits) {
            return Err(AdmissionError::Work);
        }
        let activation = parse_rules(order.value(), params)?;
        Ok(Self { order, activation })
    }

    /// Id of the order.
    #[must_use]
    pub fn id(&self) -> OrderId {
        OrderId(self.order.id())
    }

    /// Checks the signatures: that of the order, and that of the provider whose certificate it
    /// resells.
    ///
    /// # Errors
    /// The first that does not verify.
    pub fn verify(self) -> Result<Verified<Order>, AdmissionError> {
        verify_source(self.activation)?;
        Ok(self.order.verify()?)
    }
}

/// The rules of content, without work and signature.
///
/// # Errors
/// The first rule broken.
pub fn check_rules(order: &Order, params: &Params) -> Result<(), AdmissionError> {
    verify_source(parse_rules(order, params)?)
}

/// All that is cheap of the rules; what a resale stands on is left to be verified.
fn parse_rules(
    order: &Order,
    params: &Params,
) -> Result<Option<Parsed<Activation>>, AdmissionError> {
    check_content(order, params)?;
    check_window(order, params)?;
    parse_source(order, params)
}

fn verify_source(activation: Option<Parsed<Activation>>) -> Result<(), AdmissionError> {
    let verified = activation.map(Parsed::verify).transpose();
    verified.map(drop).map_err(|_| AdmissionError::Resale)
}

/// The rules that hold whatever the time: of quantity, classes and limits, run, lists of keys.
///
/// # Errors
/// The first rule broken.
pub fn check_content(order: &Order, params: &Params) -> Result<(), AdmissionError> {
    check_quantity(order)?;
    check_alternatives(order, params)?;
    check_run(order)?;
    check_counterparties(order)
}

fn require(ok: bool, error: AdmissionError) -> Result<(), AdmissionError> {
    if ok { Ok(()) } else { Err(error) }
}

fn check_quantity(order: &Order) -> Result<(), AdmissionError> {
    let ok = 1 <= order.min_qty && order.min_qty <= order.qty && order.qty <= QTY_MAX;
    require(ok, AdmissionError::Quantity)
}

fn check_alternatives(order: &Order, params: &Params) -> Result<(), AdmissionError> {
    let most = if order.side == Side::Buy { ALTS_MAX } else { 1 };
    require((1..=most).contains(&order.alts.len()), AdmissionError::Alternatives)?;
    for (position, alt) in order.alts.iter().enumerate() {
        require(params.class(alt.class).is_some(), AdmissionError::UnknownClass)?;
        require((1..=PRICE_MAX_MSAT).contains(&alt.limit_msat), AdmissionError::Limit)?;
        let repeated = order.alts[..position].iter().any(|other| other.class == alt.class);
        require(!repeated, AdmissionError::Alternatives)?;
    }
    Ok(())
}

fn check_run(order: &Order) -> Result<(), AdmissionError> {
    let ok = match order.side {
        Side::Buy => (1..=SLOTS_MAX).contains(&order.slots) && order.min_run == 0,
        Side::Sell => {
            order.slots == 0 && order.min_run >= 1 && order.mode == super::order::Mode::Sticky
        }
    };
    require(ok, AdmissionError::Run)
}

fn check_window(order: &Order, params: &Params) -> Result<(), AdmissionError> {
    let now = params.first_slot(order.epoch);
    let window = order.window;
    let reaches = now < window.end && window.end <= params.horizon_end(order.epoch);
    require(!window.is_empty() && reaches, AdmissionError::Window)
}

fn check_counterparties(order: &Order) -> Result<(), AdmissionError> {
    let few = order.allow.len() + order.deny.len() <= ALLOW_DENY_MAX;
    let ascending = |keys: &[super::ids::Key]| keys.windows(2).all(|pair| pair[0] < pair[1]);
    let ok = few && ascending(&order.allow) && ascending(&order.deny);
    require(ok, AdmissionError::Counterparties)
}

fn parse_source(
    order: &Order,
    params: &Params,
) -> Result<Option<Parsed<Activation>>, AdmissionError> {
    let Source::Resale { activation: envelope, salt16 } = &order.source else {
        return Ok(None);
    };
    let parsed =
        envelope.clone().parse(params.magic).map_err(|_: WireError| AdmissionError::Resale)?;
    let activation: &Activation = parsed.value();
    let ok = order.side == Side::Sell
        && activation.is_well_formed()
        && activation.holder_hash == blinded(order.owner, *salt16, params.magic)
        && order.alts.iter().all(|alt| alt.class == activation.class)
        && activation.window.covers(order.window)
        && activation.units.is_canonical()
        && order.qty <= activation.units.count()
        && order.features & !activation.features == 0;
    require(ok, AdmissionError::Resale)?;
    Ok(Some(parsed))
}

/// The Activation behind a resale ask that was admitted.
#[must_use]
pub fn resale_activation(order: &Order) -> Option<Activation> {
    match &order.source {
        Source::Primary => None,
        Source::Resale { activation, .. } => decode_exact(&activation.payload).ok(),
    }
}
