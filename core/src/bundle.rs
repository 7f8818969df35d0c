//! Orders as they travel on gossip: up to 16 of one owner and epoch in one message.
//!
//! An owner signs its orders for an epoch at one moment, and a message costs each node that
//! forwards it far more than the signature in it. The way in has three steps, each with a
//! type of its own, so that none can be skipped and nothing is decoded, hashed or verified
//! twice: [`Bundle::decode`] (form), [`Bundle::candidates`] (work and rules of what is not
//! known yet), [`Candidates::verify`] (signatures).
//!
//! A list of orders has one form, so a stranger makes a new message of known orders only by
//! leaving some out. Such a message holds nothing new and goes no further; one that overtakes
//! the owner's own message does, but each message that a node forwards brought it an order
//! with its proof of work.

use std::sync::Arc;

use crate::admission::{AdmissionError, Candidate};
use crate::ids::{Key, OrderId};
use crate::limits::{BUNDLE_ORDERS_MAX, ENVELOPE_BYTES, GOSSIP_MAX_BYTES, ORDER_MAX_BYTES};
use crate::order::Order;
use crate::params::Params;
use crate::reason;
use crate::reasons::Reason;
use crate::wire::{Envelope, Magic, Parsed, Verified, WireError, decode_record, encode};

/// Length of the list in front of the orders.
const HEAD_BYTES: usize = 8;

/// Why a message on `orders` is wrong. Everything here is provable from its bytes, except an
/// unknown version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// One of its orders is not valid.
    #[error(transparent)]
    Order(#[from] AdmissionError),
    /// No order, or more than 16.
    #[error("a message carries 1 to {BUNDLE_ORDERS_MAX} orders")]
    Count,
    /// Orders of several owners, epochs or versions.
    #[error("the orders of a message have one owner, one epoch and one version")]
    Mixed,
    /// Ids do not ascend.
    #[error("the orders of a message ascend by id")]
    Unsorted,
}

impl From<WireError> for BundleError {
    fn from(error: WireError) -> Self {
        Self::Order(error.into())
    }
}

impl BundleError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Order(error) => error.reason(),
            Self::Count => reason!("orders.count"),
            Self::Mixed => reason!("orders.mixed"),
            Self::Unsorted => reason!("orders.unsorted"),
        }
    }
}

/// A message whose form is right: its orders are decoded and hashed, nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    epoch: u64,
    owner: Key,
    orders: Vec<Parsed<Order>>,
}

impl Bundle {
    /// Reads a message.
    ///
    /// # Errors
    /// What its bytes prove wrong, or an unknown version.
    pub fn decode(bytes: &[u8], magic: Magic) -> Result<Self, BundleError> {
        if bytes.len() > GOSSIP_MAX_BYTES {
            return Err(WireError::Oversize.into());
        }
        let envelopes: Vec<Envelope> = decode_record(bytes)?;
        let first = envelopes.first().ok_or(BundleError::Count)?;
        if envelopes.len() > BUNDLE_ORDERS_MAX {
            return Err(BundleError::Count);
        }
        // Versions are compared before one of them turns out to be unknown: a newer program
        // keeps to this rule as well.
        let kind = |envelope: &Envelope| (envelope.key, envelope.payload.first().copied());
        if envelopes.iter().any(|envelope| kind(envelope) != kind(first)) {
            return Err(BundleError::Mixed);
        }
        let orders: Vec<Parsed<Order>> = envelopes
            .into_iter()
            .map(|envelope| parse(envelope, magic))
            .collect::<Result<_, _>>()?;
        let Some((epoch, owner)) = orders.first().map(|o| (o.value().epoch, o.value().owner))
        else {
            return Err(BundleError::Count);
        };
        if orders.iter().any(|order| order.value().epoch != epoch) {
            return Err(BundleError::Mixed);
        }
        if !orders.is_sorted_by(|low, high| low.id() < high.id()) {
            return Err(BundleError::Unsorted);
        }
        Ok(Self { epoch, owner, orders })
    }

    /// The epoch of all its orders.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The key that is said to have signed them all.
    #[must_use]
    pub fn owner(&self) -> Key {
        self.owner
    }

    /// Its orders, ascending by id: 1 to 16.
    #[must_use]
    pub fn orders(&self) -> &[Parsed<Order>] {
        &self.orders
    }

    /// Checks work and rules of the orders that are not known.
    ///
    /// `is_known` must say yes only to an order that was verified with these very bytes: what
    /// is forwarded has to be good in every part, or the next node blames this one.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn candidates(
        self,
        params: &Params,
        is_known: impl Fn(&Parsed<Order>) -> bool,
    ) -> Result<Candidates, BundleError> {
        let unknown = self.orders.into_iter().filter(|order| !is_known(order));
        let orders =
            unknown.map(|order| Candidate::new(order, params)).collect::<Result<_, _>>()?;
        Ok(Candidates { epoch: self.epoch, orders })
    }
}

fn parse(envelope: Envelope, magic: Magic) -> Result<Parsed<Order>, AdmissionError> {
    if envelope.payload.len() > ORDER_MAX_BYTES {
        return Err(AdmissionError::Oversize);
    }
    Ok(envelope.parse(magic)?)
}

/// Orders of one message that passed all checks but the costly one.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    epoch: u64,
    orders: Vec<Candidate>,
}

impl Candidates {
    /// Ids of its orders, ascending.
    pub fn ids(&self) -> impl Iterator<Item = OrderId> {
        self.orders.iter().map(Candidate::id)
    }

    /// Checks every signature: about 45 µs each, on any thread.
    ///
    /// # Errors
    /// The first that is wrong; then the whole message is.
    pub fn verify(self) -> Result<Admitted, AdmissionError> {
        let verified = self.orders.into_iter().map(|order| order.verify().map(Arc::new));
        Ok(Admitted { epoch: self.epoch, orders: verified.collect::<Result<_, _>>()? })
    }
}

/// Valid orders of one message. Only [`Candidates::verify`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    epoch: u64,
    orders: Vec<Arc<Verified<Order>>>,
}

impl Admitted {
    /// The epoch of all its orders.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes the orders, ascending by id.
    #[must_use]
    pub fn into_orders(self) -> Vec<Arc<Verified<Order>>> {
        self.orders
    }
}

/// Packs orders of one owner and epoch into as few messages as hold them.
#[must_use]
pub fn pack(orders: &[Verified<Order>]) -> Vec<Vec<u8>> {
    let mut sorted: Vec<&Verified<Order>> = orders.iter().collect();
    sorted.sort_by_key(|order| order.id());
    let mut messages: Vec<Vec<&Envelope>> = Vec::new();
    let mut bytes = 0;
    for envelope in sorted.into_iter().map(Verified::envelope) {
        let size = ENVELOPE_BYTES + envelope.payload.len();
        match messages.last_mut() {
            Some(last) if last.len() < BUNDLE_ORDERS_MAX && bytes + size <= GOSSIP_MAX_BYTES => {
                last.push(envelope);
                bytes += size;
            }
            _ => {
                messages.push(vec![envelope]);
                bytes = HEAD_BYTES + size;
            }
        }
    }
    messages.iter().map(encode).collect()
}
