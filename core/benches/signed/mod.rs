//! Books as signed orders in a set.

use capex_core::book::OrderSet;
use capex_core::ids::Key;
use capex_core::matching::{self, Instance};
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::units::Window;
use capex_core::wire::{VERSION, Verified, sign};
use ed25519_dalek::SigningKey;

use crate::instances::FIRST_SLOT;

/// The epoch for which they are signed.
pub(crate) const EPOCH: u64 = 0;

/// The orders of a book, signed and in a set, so many of one owner.
pub(crate) fn signed(book: &Instance, per_owner: usize, params: &Params) -> OrderSet {
    let mut set = OrderSet::default();
    for (at, order) in book.orders.iter().enumerate() {
        // Bids and asks have owners of their own: nobody trades with itself.
        let is_bid = matches!(order.side, matching::Side::Buy { .. });
        set.insert(wire(order, at, 2 * (at / per_owner) + usize::from(is_bid), params));
    }
    set
}

fn wire(order: &matching::Order, at: usize, owner: usize, params: &Params) -> Verified<Order> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(owner as u64).to_be_bytes());
    let key = SigningKey::from_bytes(&seed);
    let alternative = |limit_msat| Alternative { class: 1, limit_msat };
    let (side, mode, slots, min_run, limit_msat) = match &order.side {
        matching::Side::Buy { hours, mode, alts } => {
            let mode = if *mode == matching::Mode::Gang { Mode::Gang } else { Mode::Sticky };
            (Side::Buy, mode, *hours, 0, alts[0].1)
        }
        matching::Side::Sell { limit_msat, min_run, .. } => {
            (Side::Sell, Mode::Sticky, 0, *min_run, *limit_msat)
        }
    };
    let first = params.first_slot(EPOCH) - FIRST_SLOT;
    let order = Order {
        v: VERSION,
        epoch: EPOCH,
        side,
        owner: Key(key.verifying_key().to_bytes()),
        nonce: at as u64,
        alts: vec![alternative(limit_msat)],
        qty: order.qty,
        min_qty: order.min_qty,
        mode,
        window: Window::new(first + order.window.0, first + order.window.1).unwrap(),
        slots,
        features: order.features,
        allow: Vec::new(),
        deny: Vec::new(),
        min_run,
        source: Source::Primary,
        created_ms: 0,
        backing: None,
        pow_nonce: 0,
    };
    sign(order, params.magic, &key)
}
