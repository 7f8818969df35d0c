//! Signed objects: what decodes is the one encoding of its value, and no rule panics on it.

use capex_core::admission::check_rules;
use capex_core::certificate::objects::{Activation, EquivProof, Gift, Issue, RedeemGrant};
use capex_core::engine::contacts::Contact;
use capex_core::engine::pools::Pool;
use capex_core::epoch::Root;
use capex_core::lease::access::{AccessCall, Grant};
use capex_core::lease::objects::{Countersign, LeaseCall, Receipt, Redeem};
use capex_core::order::Order;
use capex_core::params::ClassDef;
use capex_core::settlement::objects::{Accept, LockGrant, Row, Terms, TermsCancel, Transfer};
use capex_core::wire::{Envelope, Object, decode_exact, decode_record, encode, object_id};

use super::world;

pub fn run(bytes: &[u8]) {
    let params = world::params();
    if let Ok(envelope) = decode_record::<Envelope>(bytes) {
        assert_eq!(encode(&envelope), bytes);
        every(&envelope.payload);
        // Behind a signature that fits, too.
        let _ = envelope.verify::<Order>(params.magic);
    }
    every(bytes);
    if let Ok(proof) = decode_record::<EquivProof>(bytes) {
        assert_eq!(encode(&proof), bytes);
    }
    if let Ok(order) = decode_exact::<Order>(bytes) {
        let _ = check_rules(&order, &params);
    }
}

fn every(payload: &[u8]) {
    one::<Order>(payload);
    one::<Root>(payload);
    one::<Contact>(payload);
    one::<Pool>(payload);
    one::<Row>(payload);
    one::<Terms>(payload);
    one::<Accept>(payload);
    one::<LockGrant>(payload);
    one::<Transfer>(payload);
    one::<TermsCancel>(payload);
    one::<Issue>(payload);
    one::<Activation>(payload);
    one::<Gift>(payload);
    one::<RedeemGrant>(payload);
    one::<Redeem>(payload);
    one::<LeaseCall>(payload);
    one::<AccessCall>(payload);
    one::<Grant>(payload);
    one::<Receipt>(payload);
    one::<Countersign>(payload);
    one::<ClassDef>(payload);
}

fn one<T: Object>(payload: &[u8]) {
    if let Ok(value) = decode_exact::<T>(payload) {
        assert_eq!(encode(&value), payload, "{}", T::NAME);
        let _ = object_id(&value, *b"fuzz");
    }
}
