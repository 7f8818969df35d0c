//! How much matching a book takes, estimated from its orders alone.

use std::collections::BTreeMap;

use super::super::improve::{
    BUDGET, MAX_ROUNDS, NEIGHBOURS, PAIRS_PER_WORK, START_WORK, UNITS_PER_WORK,
};
use super::super::instance::{Instance, MAX_HORIZON_SLOTS, Order};
use super::super::outcome::Algorithm;
use super::pair::{Ask, Bid, Sided};

/// Asks of one class: their number and the slots that they reach.
struct Supply {
    asks: u64,
    first_slot: u32,
    end_slot: u32,
}

impl Supply {
    fn slots(&self) -> u64 {
        // More are refused, unless they belong to orders that take no part.
        let slots = self.end_slot.saturating_sub(self.first_slot);
        slots.min(MAX_HORIZON_SLOTS).into()
    }
}

/// Work of matching a book once, in looks at an ask: an upper estimate, since a pass skips
/// what cannot win.
pub(super) fn of_match(instance: &Instance, algorithm: Algorithm) -> u64 {
    let (mut supplies, mut bids) = (BTreeMap::new(), Vec::new());
    for order in &instance.orders {
        match Sided::from(order) {
            Sided::Ask(ask) => offer(&mut supplies, &ask, instance.now),
            Sided::Bid(bid) => bids.push(bid),
        }
    }
    let works = bids.iter().map(|bid| of_bid(bid, &supplies, instance.now));
    let layout = supplies.values().map(|supply| supply.asks * supply.slots() / UNITS_PER_WORK);
    let pass = works.chain(layout).fold(1, u64::saturating_add);
    let starts = pass.saturating_mul(instance.starts.into());
    match algorithm {
        Algorithm::One => starts,
        Algorithm::Two => {
            let pairs = (bids.len() as u64).saturating_pow(2);
            let passes = pairs.min(MAX_ROUNDS) * NEIGHBOURS as u64;
            starts.saturating_add(pass.saturating_mul(passes).min(BUDGET))
        }
    }
}

fn offer(supplies: &mut BTreeMap<u16, Supply>, ask: &Ask<'_>, now: u32) {
    let (first_slot, end_slot) = (ask.order.first_slot(now), ask.order.window.1);
    let none = Supply { asks: 0, first_slot, end_slot };
    let supply = supplies.entry(ask.class).or_insert(none);
    supply.asks += 1;
    supply.first_slot = supply.first_slot.min(first_slot);
    supply.end_slot = supply.end_slot.max(end_slot);
}

fn of_bid(bid: &Bid<'_>, supplies: &BTreeMap<u16, Supply>, now: u32) -> u64 {
    let reached = bid.alts.iter().filter_map(|(class, _)| supplies.get(class));
    let works = reached.map(|supply| {
        let starts = starts(bid.order, bid.hours, supply, now);
        starts * (START_WORK + supply.asks) + supply.slots().pow(2) / PAIRS_PER_WORK
    });
    works.fold(0, u64::saturating_add)
}

/// Runs of so many slots that both the order's window and the supply hold.
fn starts(order: &Order, hours: u32, supply: &Supply, now: u32) -> u64 {
    let first = order.first_slot(now).max(supply.first_slot);
    let end = order.window.1.min(supply.end_slot);
    end.saturating_add(1).saturating_sub(first.saturating_add(hours)).min(MAX_HORIZON_SLOTS).into()
}
