//! Epochs as text: as they come, as digits of a valid one changed, and with every order
//! signed anew, so that changes reach the rules behind form and signatures. What is read is
//! written back alike, and auditing it never fails in another way than by differences.

use std::sync::OnceLock;

use capex_core::book::OrderSet;
use capex_core::epoch::audit::{Depth, audit};
use capex_core::epoch::signed::{SignedEpoch, parse, write};
use capex_core::epoch::{compute, epoch_at};
use capex_core::order::{Order, Side};
use capex_core::params::Params;
use capex_core::wire::sign;

use super::world::{self, ME, NOW_MS, PROVIDER, STRANGER, key};

/// More changes only make garbage of it.
const EDITS_MAX: usize = 3;

pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
    read(&edited(bytes));
}

/// A valid epoch with digits changed: each three bytes say where and to what.
fn edited(bytes: &[u8]) -> String {
    static VALID: OnceLock<String> = OnceLock::new();
    let mut text = VALID.get_or_init(text).clone().into_bytes();
    for edit in bytes.chunks_exact(3).take(EDITS_MAX) {
        let at = usize::from(edit[0]) << 8 | usize::from(edit[1]);
        let length = text.len();
        if let Some(digit) = text.get_mut(at % length).filter(|byte| byte.is_ascii_hexdigit()) {
            *digit = b"0123456789abcdef"[usize::from(edit[2] % 16)];
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn read(text: &str) {
    let Ok(mut signed) = parse(text) else { return };
    let again = write(&signed, "devnet").expect("no longer than what was read");
    assert_eq!(parse(&again).as_ref(), Ok(&signed));
    let params = world::params();
    check(&signed, &params);
    sign_anew(&mut signed, &params);
    check(&signed, &params);
}

fn check(signed: &SignedEpoch, params: &Params) {
    let full = audit(signed, params, Depth::Full);
    let quick = audit(signed, params, Depth::Quick);
    assert!(quick.is_equal() || !full.is_equal(), "{quick:?}");
}

fn sign_anew(signed: &mut SignedEpoch, params: &Params) {
    for envelope in &mut signed.orders {
        let signer = (1..=3).map(key).find(|key| key.verifying_key().to_bytes() == envelope.key);
        if let (Some(signer), Ok(order)) = (signer, envelope.peek::<Order>()) {
            *envelope = sign(order, params.magic, &signer).envelope().clone();
        }
    }
}

/// A valid epoch with a trade.
pub fn text() -> String {
    let params = world::params();
    let mut set = OrderSet::default();
    for (owner, side) in [(ME, Side::Buy), (STRANGER, Side::Buy), (PROVIDER, Side::Sell)] {
        set.insert(world::order(owner, side));
    }
    let result = compute(epoch_at(NOW_MS, &params), &set, &params).expect("a valid book");
    assert!(!result.rows.is_empty());
    write(&SignedEpoch::new(&result, &set, &params), "devnet").expect("a small epoch")
}
