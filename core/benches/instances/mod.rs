//! Books by seed and size, for measuring. Their shapes are described in docs/performance.md.

#[path = "../../../tests/matching/dice.rs"]
#[allow(dead_code, reason = "shared with tests that shuffle")]
mod dice;

use capex_core::matching::{Instance, MAX_KEYS, Mode, Order, Side};
use dice::Dice;

/// First slot of every book.
pub(crate) const FIRST_SLOT: u32 = 1_000;
/// Slots of a book whose runs are longer than one: a week of hours.
pub(crate) const SLOTS: u32 = 168;
/// Longest run that a bid asks for.
const LONGEST_RUN: u64 = 24;
/// A feature that some bids require and most asks offer.
const FEATURE: u64 = 1;

/// Bids for runs of 1 to 24 slots within `slots`, each of which may start up to `flexible`
/// slots later than its earliest. A quarter want one provider, a third all units or none.
/// Asks offer parts of the span, as much as is wanted in total if bids are ten to an ask.
pub(crate) fn runs(bids: u64, asks: u64, slots: u32, flexible: u32, seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let mut orders: Vec<Order> = (0..asks).map(|_| ask(&mut dice, slots)).collect();
    orders.extend((0..bids).map(|_| bid(&mut dice, slots, flexible)));
    instance(orders, seed)
}

/// The same bids, but every ask is over the whole span and the asks have a third of the units
/// that are wanted: nearly every bid meets sold-out asks.
pub(crate) fn tight_runs(bids: u64, asks: u64, flexible: u32, seed: u64) -> Instance {
    let mut book = runs(bids, asks, SLOTS, flexible, seed);
    let (mut wanted, mut offered) = (0, 0);
    for order in &mut book.orders {
        match order.side {
            Side::Buy { hours, .. } => wanted += u64::from(order.qty) * u64::from(hours),
            Side::Sell { .. } => {
                order.window = (FIRST_SLOT, FIRST_SLOT + SLOTS);
                offered += u64::from(order.qty) * u64::from(SLOTS);
            }
        }
    }
    for order in book.orders.iter_mut().filter(|order| matches!(order.side, Side::Sell { .. })) {
        order.qty = (u64::from(order.qty) * wanted / (3 * offered)).max(1) as u32;
    }
    book
}

/// The same with one price for all asks, so that only the fit tells them apart.
pub(crate) fn one_price_runs(bids: u64, asks: u64, flexible: u32, seed: u64) -> Instance {
    let mut book = tight_runs(bids, asks, flexible, seed);
    for order in &mut book.orders {
        if let Side::Sell { limit_msat, .. } = &mut order.side {
            *limit_msat = 90_000;
        }
    }
    book
}

/// A book in which every bid can pay every ask and accepts almost none of them, which rules
/// and features alone tell: a bid wants a feature that only the dearest ask has, or it allows
/// as many labels as it may and only the dearest ask carries one. Asks deny as many labels.
pub(crate) fn strangers(bids: u64, asks: u64, seed: u64) -> Instance {
    const RARE: u64 = 1 << 1;
    let mut book = runs(bids, asks, SLOTS, 24, seed);
    let mut dice = Dice::new(!seed);
    let mut labels = || (0..MAX_KEYS).map(|_| label(&mut dice)).collect::<Vec<_>>();
    let dearest = book.orders[0].owner.clone();
    for (at, order) in book.orders.iter_mut().enumerate() {
        match &mut order.side {
            Side::Sell { limit_msat, .. } => {
                order.deny = labels();
                if at == 0 {
                    *limit_msat = 140_000;
                    order.features = RARE;
                    order.window = (FIRST_SLOT, FIRST_SLOT + SLOTS);
                }
            }
            Side::Buy { alts, .. } => {
                alts[0].1 = 140_000;
                order.min_qty = 1;
                if at % 2 == 0 {
                    order.features = RARE;
                } else {
                    order.features = 0;
                    order.allow = labels();
                    order.allow[0].clone_from(&dearest);
                }
            }
        }
    }
    instance(book.orders, seed)
}

/// As many bids as asks for one slot, limits spread evenly around one price.
pub(crate) fn one_slot(orders: u64, seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let orders = (0..orders)
        .map(|_| {
            let window = (FIRST_SLOT, FIRST_SLOT + 1);
            let limit_msat = dice.within(50_000_000, 150_000_000);
            let qty = dice.within(1, 10) as u32;
            if dice.one_in(2) {
                let alts = vec![(0, limit_msat)];
                order(&mut dice, qty, window, Side::Buy { hours: 1, mode: Mode::Sticky, alts })
            } else {
                order(&mut dice, qty, window, sell(limit_msat))
            }
        })
        .collect();
    instance(orders, seed)
}

/// The same book with every ask dearer than every bid: there is nothing to match.
pub(crate) fn one_slot_apart(orders: u64, seed: u64) -> Instance {
    let mut book = one_slot(orders, seed);
    for order in &mut book.orders {
        if let Side::Sell { limit_msat, .. } = &mut order.side {
            *limit_msat += 100_000_001;
        }
    }
    book
}

/// Bids that want more units at once than they can afford, however they look for them: half
/// of `asks` offer one unit each at one price, the other half plenty at ten times the price.
pub(crate) fn hostile(bids: u64, asks: u64, flexible: u32, seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let cheap = asks / 2;
    let mut orders: Vec<Order> = (0..asks)
        .map(|at| {
            let (qty, limit_msat) = if at < cheap { (1, 100_000) } else { (100, 1_000_000) };
            order(&mut dice, qty, (FIRST_SLOT, FIRST_SLOT + SLOTS), sell(limit_msat))
        })
        .collect();
    for _ in 0..bids {
        let hours = dice.within(1, LONGEST_RUN) as u16;
        let first = FIRST_SLOT + dice.within(0, u64::from(SLOTS - flexible) - 24) as u32;
        let window = (first, first + u32::from(hours) + flexible);
        let alts = vec![(0, dice.within(100_000, 200_000))];
        let side = Side::Buy { hours, mode: Mode::Sticky, alts };
        let qty = dice.within(cheap + 1, 2 * cheap) as u32;
        let all_or_none = Order { min_qty: qty, ..order(&mut dice, qty, window, side) };
        orders.push(all_or_none);
    }
    instance(orders, seed)
}

fn ask(dice: &mut Dice, slots: u32) -> Order {
    let first = dice.within(0, u64::from(slots) - LONGEST_RUN);
    let length = dice.within(LONGEST_RUN, u64::from(slots) - first);
    let window = (FIRST_SLOT + first as u32, FIRST_SLOT + (first + length) as u32);
    let qty = dice.within(1, 12) as u32;
    let side = sell(dice.within(50_000, 130_000));
    let features = if dice.one_in(4) { 0 } else { FEATURE };
    Order { features, ..order(dice, qty, window, side) }
}

fn bid(dice: &mut Dice, slots: u32, flexible: u32) -> Order {
    let hours = dice.within(1, LONGEST_RUN);
    let first = dice.within(0, u64::from(slots - flexible) - hours);
    let window = (FIRST_SLOT + first as u32, FIRST_SLOT + (first + hours) as u32 + flexible);
    let qty = dice.within(1, 8) as u32;
    let mode = if dice.one_in(4) { Mode::Gang } else { Mode::Sticky };
    let min_qty = if dice.one_in(3) { qty } else { 1 };
    let features = if dice.one_in(8) { FEATURE } else { 0 };
    let alts = vec![(0, dice.within(60_000, 140_000))];
    let side = Side::Buy { hours: hours as u16, mode, alts };
    Order { min_qty, features, ..order(dice, qty, window, side) }
}

fn sell(limit_msat: u64) -> Side {
    Side::Sell { class: 0, limit_msat, min_run: 1, provider: None }
}

fn order(dice: &mut Dice, qty: u32, window: (u32, u32), side: Side) -> Order {
    let (id, owner) = (label(dice), label(dice));
    Order::sample(id, owner, qty, window, side)
}

/// Like the labels of wire orders: 32 bytes in lower-case hex.
fn label(dice: &mut Dice) -> String {
    (0..4).map(|_| format!("{:016x}", dice.within(0, u64::MAX - 1))).collect()
}

fn instance(orders: Vec<Order>, seed: u64) -> Instance {
    let mut beacon = [0; 32];
    beacon[..8].copy_from_slice(&seed.to_be_bytes());
    Instance {
        beacon,
        now: FIRST_SLOT,
        epoch: 0,
        starts: 3,
        max_legs: None,
        orders,
        cancels: Vec::new(),
    }
}
