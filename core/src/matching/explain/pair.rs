//! What two orders say of each other, prices and all other orders aside.

use super::super::instance::{Order, Side};
use super::{Constraint, Value};

/// A bid with what the explanation reads of it.
#[derive(Clone, Copy)]
pub(super) struct Bid<'a> {
    pub(super) order: &'a Order,
    pub(super) hours: u32,
    pub(super) is_gang: bool,
    pub(super) alts: &'a [(u16, u64)],
}

/// An ask with what the explanation reads of it.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) order: &'a Order,
    pub(super) class: u16,
    pub(super) limit_msat: u64,
    pub(super) min_run: u32,
    pub(super) provider: &'a str,
}

/// The side of an order.
pub(super) enum Sided<'a> {
    Bid(Bid<'a>),
    Ask(Ask<'a>),
}

impl<'a> From<&'a Order> for Sided<'a> {
    fn from(order: &'a Order) -> Self {
        match &order.side {
            Side::Buy { hours, mode, alts } => Self::Bid(Bid {
                order,
                hours: u32::from(*hours),
                is_gang: *mode == super::super::instance::Mode::Gang,
                alts,
            }),
            Side::Sell { class, limit_msat, min_run, provider } => Self::Ask(Ask {
                order,
                class: *class,
                limit_msat: *limit_msat,
                min_run: u32::from(*min_run),
                provider: provider.as_deref().unwrap_or(&order.owner),
            }),
        }
    }
}

/// A failed comparison: values of the bid and of the ask.
pub(super) type Failure = (Constraint, Value, Value);

impl Bid<'_> {
    /// The limit for a class, in msat per block.
    pub(super) fn limit_msat(&self, class: u16) -> Option<u64> {
        self.alts.iter().find(|alt| alt.0 == class).map(|alt| alt.1)
    }

    fn window(&self, now: u32) -> Value {
        let (start, end) = (self.order.first_slot(now), self.order.window.1);
        Value::Window { start, end, slots: self.hours }
    }
}

impl Ask<'_> {
    pub(super) fn window(&self, now: u32) -> Value {
        let (start, end) = (self.order.first_slot(now), self.order.window.1);
        Value::Window { start, end, slots: self.min_run }
    }
}

/// The starts of a run that lies in both windows; empty if none does.
pub(super) fn common_starts(bid: &Bid<'_>, ask: &Ask<'_>, now: u32) -> std::ops::Range<u32> {
    let first = bid.order.first_slot(now).max(ask.order.first_slot(now));
    let end = bid.order.window.1.min(ask.order.window.1);
    let last = (end + 1).saturating_sub(bid.hours);
    first..last.max(first)
}

/// The first constraint up to [`Constraint::Limit`] that a live bid and a live ask fail.
pub(super) fn first_failure(bid: &Bid<'_>, ask: &Ask<'_>, now: u32) -> Option<Failure> {
    let Some(limit_msat) = bid.limit_msat(ask.class) else {
        let classes = bid.alts.iter().map(|alt| alt.0).collect();
        let (own, theirs) = (Value::Classes(classes), Value::Classes(vec![ask.class]));
        return Some((Constraint::Class, own, theirs));
    };
    if common_starts(bid, ask, now).is_empty() {
        return Some((Constraint::Window, bid.window(now), ask.window(now)));
    }
    let party = |label: &str| Value::Party(label.to_owned());
    let (buyer, seller) = (&bid.order.owner, &ask.order.owner);
    if buyer == seller {
        return Some((Constraint::SelfTrade, party(buyer), party(seller)));
    }
    let (needs, has) = (bid.order.features, ask.order.features);
    if needs & !has != 0 {
        return Some((Constraint::Features, Value::Features(needs), Value::Features(has)));
    }
    if bid.hours < ask.min_run {
        let (run, least) = (Value::Slots(bid.hours), Value::Slots(ask.min_run));
        return Some((Constraint::MinRun, run, least));
    }
    let lists = |allow: bool| {
        let named = |list: &[String], label: &str| list.iter().any(|listed| listed == label);
        let breaks = |order: &Order, label: &str| {
            if allow {
                !order.allow.is_empty() && !named(&order.allow, label)
            } else {
                named(&order.deny, label)
            }
        };
        breaks(bid.order, ask.provider) || breaks(ask.order, buyer)
    };
    for (constraint, allow) in [(Constraint::Allow, true), (Constraint::Deny, false)] {
        if lists(allow) {
            return Some((constraint, party(buyer), party(ask.provider)));
        }
    }
    (limit_msat < ask.limit_msat).then(|| {
        let (limit, least) = (Value::LimitMsat(limit_msat), Value::LimitMsat(ask.limit_msat));
        (Constraint::Limit, limit, least)
    })
}
