//! Real engines for the bodies, and the valid messages that are mutated.
#![allow(dead_code, unreachable_pub, reason = "each target uses a part")]

#[path = "../../core/tests/certificate_fixture/mod.rs"]
mod certificate_fixture;

use capex_core::bundle::pack;
use capex_core::certificate::Certificate;
use capex_core::engine::contacts::Contact;
use capex_core::engine::courier::CourierRequest;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::{Effect, Engine, Input, Keys, Protocol, Record, Unchecked};
use capex_core::epoch::{Root, epoch_at};
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::units::Window;
use capex_core::wire::{Verified, encode, sha256};

pub use certificate_fixture::party::START_MS as NOW_MS;
pub use certificate_fixture::*;

/// The provider, the holder whose engine is fuzzed, and a stranger.
pub const PROVIDER: u8 = 1;
pub const ME: u8 = 2;
pub const STRANGER: u8 = 3;

/// devnet without work, so that mutated orders reach the rules behind it.
pub fn params() -> Params {
    Params { pow_bits: 0, ..devnet() }
}

pub fn certificate() -> Certificate {
    let window = Window { start: 1000, end: 1004 };
    Draft::new(PROVIDER, units(0, 2), window, &params()).sell(ME).certificate()
}

/// An engine that has been given a certificate.
pub fn engine() -> Engine {
    let mut engine = Engine::new(params(), Keys::new(secret(ME), [ME; 32]));
    engine.handle(NOW_MS, Input::Started { records: Vec::<Record>::new(), salt: [3; 32] });
    engine.handle(NOW_MS, Input::Tick);
    let bytes = encode(&SettleRequest::Courier(CourierRequest::Push(certificate())));
    let (peer, protocol) = (public(PROVIDER), Protocol::Settle);
    engine.handle(NOW_MS, Input::Request { peer, id: 1, protocol, bytes });
    // Its owner wants it: so the words of its provider are heard.
    let (certificate, provider) = (Box::new(certificate()), Some(public(PROVIDER)));
    let command = HoldingsCommand::Import { certificate, provider }.into();
    engine.handle(NOW_MS, Input::Command { id: 2, command });
    effects(&mut engine);
    assert!(engine.certificate(&certificate_id()).is_some());
    engine
}

pub fn certificate_id() -> capex_core::ids::CertId {
    let draft = Draft::new(PROVIDER, units(0, 2), Window { start: 1000, end: 1004 }, &params());
    capex_core::ids::CertId(draft.issue.id())
}

/// What follows from the last input, signatures checked at once.
pub fn effects(engine: &mut Engine) -> Vec<Effect> {
    let mut all = Vec::new();
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Verify { peer, ticket, candidates } => {
                let checked = candidates.verify().map_err(Unchecked::Invalid);
                engine.handle(NOW_MS, Input::Checked { peer, ticket, checked });
            }
            other => all.push(other),
        }
    }
    all
}

/// Everything that an engine decides by.
pub fn digest(engine: &Engine) -> [u8; 32] {
    let (market, trades) = (engine.market(), engine.trades());
    let (register, holdings) = (engine.register(), engine.holdings());
    let (witness, leases) = (engine.witness(), engine.leases());
    let contacts: Vec<&Contact> = engine.contacts().iter().collect();
    let pools = engine.pools();
    sha256(&[format!(
        "{market:?}{trades:?}{register:?}{holdings:?}{witness:?}{leases:?}{contacts:?}{pools:?}"
    )
    .as_bytes()])
}

/// What garbage may lead to.
pub fn is_harmless(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Verdict { .. } | Effect::Reply { .. } | Effect::Notify(_) | Effect::Penalise { .. }
    )
}

/// Bids of one owner.
pub fn orders(owner: u8, count: u64) -> Vec<Verified<Order>> {
    let order = order(owner, Side::Buy).into_value();
    let numbered = |nonce| by(owner, Order { nonce, deny: Vec::new(), ..order.clone() }, &params());
    (0..count).map(numbered).collect()
}

pub fn order(owner: u8, side: Side) -> Verified<Order> {
    let params = params();
    let epoch = epoch_at(NOW_MS, &params);
    let start = params.first_slot(epoch);
    let order = Order {
        v: 1,
        epoch,
        side,
        owner: public(owner),
        nonce: 7,
        alts: vec![Alternative { class: 1, limit_msat: 900_000 }],
        qty: 3,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window { start, end: start + 6 },
        slots: if side == Side::Buy { 2 } else { 0 },
        features: 0,
        allow: Vec::new(),
        deny: vec![public(9)],
        min_run: u16::from(side == Side::Sell),
        source: Source::Primary,
        created_ms: 100,
        backing: None,
        pow_nonce: 0,
    };
    by(owner, order, &params)
}

/// Orders as one message.
pub fn bundle(orders: &[Verified<Order>]) -> Vec<u8> {
    pack(orders).concat()
}

pub fn root(signer: u8) -> Verified<Root> {
    let params = params();
    let root = Root { v: 1, epoch: epoch_at(NOW_MS, &params), root: [5; 32], count: 4 };
    by(signer, root, &params)
}

pub fn contact(signer: u8) -> Verified<Contact> {
    let addrs = vec!["/ip4/127.0.0.1/tcp/4001".to_owned()];
    let contact = Contact { v: 1, key: public(signer), addrs, seq: NOW_MS };
    by(signer, contact, &params())
}
