//! What a stranger cannot do to a node: fill its tables, be heard for nothing, go unblamed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "shared with the fuzz targets")]

mod connections;
mod rooms;
mod table;
#[path = "../../fuzz/bodies/world.rs"]
mod world;

use capex_core::bundle::pack;
use capex_core::certificate::equivocation::{Statement, prove};
use capex_core::certificate::objects::EquivProof;
use capex_core::certificate::objects::StatementKind;
use capex_core::engine::contacts::Contact;
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::{Effect, Engine, Input, Protocol, Topic, Unchecked, Verdict};
use capex_core::ids::Key;
use capex_core::limits::{
    CONTACT_SKEW_MS, GOSSIP_MAX_BYTES, ORDERS_PER_OWNER_KEPT, PROOF_MAX_BYTES,
};
use capex_core::order::{Order, Side};
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{Envelope, Verified, decode_record, encode, sign};
use ed25519_dalek::SigningKey;
use world::{NOW_MS, PROVIDER, STRANGER, effects, public};

fn gossip(engine: &mut Engine, topic: Topic, bytes: Vec<u8>) -> (Verdict, Vec<Effect>) {
    let peer = public(PROVIDER);
    engine.handle(NOW_MS, Input::Gossip { peer, topic, bytes, ticket: 1 });
    let effects = effects(engine);
    let verdict = effects.iter().find_map(|effect| match effect {
        Effect::Verdict { verdict, .. } => Some(*verdict),
        _ => None,
    });
    (verdict.unwrap(), effects)
}

fn request(engine: &mut Engine, protocol: Protocol, bytes: Vec<u8>) -> Vec<Effect> {
    let peer = public(STRANGER);
    engine.handle(NOW_MS, Input::Request { peer, id: 9, protocol, bytes });
    effects(engine)
}

fn reply<T: serde::Serialize + serde::de::DeserializeOwned>(effects: &[Effect]) -> T {
    let bytes = effects.iter().find_map(|effect| match effect {
        Effect::Reply { bytes, .. } => Some(bytes),
        _ => None,
    });
    decode_record(bytes.unwrap()).unwrap()
}

fn blamed(effects: &[Effect]) -> Vec<Key> {
    let key = |effect: &Effect| match effect {
        Effect::Penalise { key } => Some(*key),
        _ => None,
    };
    effects.iter().filter_map(key).collect()
}

fn asked(effects: &[Effect]) -> Vec<Key> {
    let key = |effect: &Effect| match effect {
        Effect::Send { key, protocol: Protocol::Sync, .. } => Some(*key),
        _ => None,
    };
    effects.iter().filter_map(key).collect()
}

fn made_up(number: u32) -> SigningKey {
    let mut secret = [0xaa; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_bytes(&secret)
}

fn contact(signer: &SigningKey, seq: u64) -> Vec<u8> {
    let key = Key(signer.verifying_key().to_bytes());
    let addrs = vec!["/ip4/10.0.0.1/tcp/1".to_owned()];
    let contact = Contact { v: 1, key, addrs, seq };
    encode(sign(contact, world::params().magic, signer).envelope())
}

#[test]
fn an_unreadable_request_is_blamed_on_its_sender_for_every_protocol() {
    for protocol in Protocol::ALL {
        let mut engine = world::engine();
        let effects = request(&mut engine, protocol, vec![0xff; 40]);
        assert_eq!(blamed(&effects), [public(STRANGER)], "{protocol:?}");
    }
}

#[test]
fn an_invalid_order_in_an_answer_is_blamed_on_the_peer_that_sent_it() {
    let mut engine = world::engine();
    let (verdict, sent) =
        gossip(&mut engine, Topic::Roots, encode(world::root(STRANGER).envelope()));
    assert_eq!(verdict, Verdict::Ignore);
    assert_eq!(asked(&sent), [public(PROVIDER)], "who relayed it is asked, not its signer");
    let Some(Effect::Send { id, .. }) = sent.iter().find(|e| matches!(e, Effect::Send { .. }))
    else {
        panic!("{sent:?}");
    };
    let order = world::order(STRANGER, Side::Buy);
    let ids = SyncReply::Ids(vec![capex_core::ids::OrderId(order.id())]);
    engine.handle(NOW_MS, Input::Response { id: *id, result: Ok(encode(&ids)) });
    let sent = effects(&mut engine);
    let Some(Effect::Send { id, .. }) = sent.first() else { panic!("{sent:?}") };
    let mut bad = order.envelope().clone();
    bad.signature[0][0] ^= 1;
    let orders = SyncReply::Orders(vec![bad]);
    engine.handle(NOW_MS, Input::Response { id: *id, result: Ok(encode(&orders)) });
    assert_eq!(blamed(&effects(&mut engine)), [public(PROVIDER)]);
}

/// Envelopes of orders, ascending by id, as a message has them.
fn sorted(mut orders: Vec<Verified<Order>>) -> Vec<Envelope> {
    orders.sort_by_key(Verified::id);
    orders.iter().map(|order| order.envelope().clone()).collect()
}

fn altered(change: impl Fn(&mut Order)) -> Vec<Envelope> {
    let orders = world::orders(STRANGER, 3).into_iter().enumerate().map(|(number, order)| {
        let mut order = order.into_value();
        if number == 1 {
            change(&mut order);
        }
        world::by(STRANGER, order, &world::params())
    });
    sorted(orders.collect())
}

fn with_one(change: impl Fn(&mut Envelope)) -> Vec<Envelope> {
    let mut message = sorted(world::orders(STRANGER, 3));
    change(&mut message[1]);
    message
}

fn wrong_messages() -> Vec<(&'static str, Vec<Envelope>, Verdict, &'static str)> {
    use Verdict::{Ignore, Reject};
    let good = sorted(world::orders(STRANGER, 3));
    let of_two = [world::orders(STRANGER, 1), world::orders(PROVIDER, 1)].concat();
    let newer = |envelope: &Envelope| Envelope { payload: vec![2, 0xde], ..envelope.clone() };
    let descending: Vec<Envelope> = good.iter().rev().cloned().collect();
    let twice = vec![good[0].clone(), good[0].clone()];
    let long = |envelope: &mut Envelope| envelope.payload.resize(2049, 0);
    vec![
        ("no order", Vec::new(), Reject, "orders.count"),
        ("17 orders", sorted(world::orders(STRANGER, 17)), Reject, "orders.count"),
        ("of two owners", sorted(of_two), Reject, "orders.mixed"),
        ("of two epochs", altered(|order| order.epoch += 1), Reject, "orders.mixed"),
        ("of two versions", with_one(|e| *e = newer(e)), Reject, "orders.mixed"),
        ("of a later version", good.iter().map(newer).collect(), Ignore, "wire.unknown_version"),
        ("descending", descending, Reject, "orders.unsorted"),
        ("one order twice", twice, Reject, "orders.unsorted"),
        ("one too long", with_one(long), Reject, "order.oversize"),
        ("one cut off", with_one(|e| e.payload.truncate(100)), Reject, "wire.malformed"),
        ("one against the rules", altered(|order| order.min_qty = 0), Reject, "order.quantity"),
        ("one badly signed", with_one(|e| e.signature[0][0] ^= 1), Reject, "wire.bad_signature"),
        ("late", sorted(at_epoch(-1)), Ignore, "order.stale_epoch"),
        ("early", sorted(at_epoch(3)), Ignore, "order.future_epoch"),
    ]
}

fn at_epoch(distance: i64) -> Vec<Verified<Order>> {
    let moved = |order: Verified<Order>| {
        let mut order = order.into_value();
        order.epoch = order.epoch.saturating_add_signed(distance);
        world::by(STRANGER, order, &world::params())
    };
    world::orders(STRANGER, 2).into_iter().map(moved).collect()
}

#[test]
fn a_wrong_message_of_orders_is_judged_by_its_content_and_changes_nothing() {
    for (what, message, verdict, code) in wrong_messages() {
        let mut engine = world::engine();
        let before = world::digest(&engine);
        let found = judged(&mut engine, encode(&message));
        assert_eq!(found, (verdict, Some(code.to_owned())), "{what}");
        assert_eq!(world::digest(&engine), before, "{what}");
    }
    let mut engine = world::engine();
    let mut trailing = encode(&sorted(world::orders(STRANGER, 3)));
    trailing.push(0);
    let code = Some("wire.not_canonical".to_owned());
    assert_eq!(judged(&mut engine, trailing), (Verdict::Reject, code));
}

fn judged(engine: &mut Engine, bytes: Vec<u8>) -> (Verdict, Option<String>) {
    let (_, effects) = gossip(engine, Topic::Orders, bytes);
    let found = effects.into_iter().find_map(|effect| match effect {
        Effect::Verdict { verdict, code, .. } => Some((verdict, code)),
        _ => None,
    });
    found.unwrap()
}

/// What a message leads to before any signature is checked.
fn first_effects(engine: &mut Engine, bytes: Vec<u8>) -> Vec<Effect> {
    let peer = public(PROVIDER);
    engine.handle(NOW_MS, Input::Gossip { peer, topic: Topic::Orders, bytes, ticket: 1 });
    std::iter::from_fn(|| engine.poll_effect()).collect()
}

#[test]
fn a_message_is_forwarded_as_long_as_it_brings_an_order() {
    let mut engine = world::engine();
    let all = sorted(world::orders(STRANGER, 16));
    let cases: [(&str, &[Envelope], Result<(), &str>); 6] = [
        ("some", &all[2..5], Ok(())),
        ("the same", &all[2..5], Err("order.duplicate")),
        ("fewer", &all[2..4], Err("order.duplicate")),
        ("known and new", &all[..5], Ok(())),
        ("all", &all, Ok(())),
        ("any part of them", &all[3..9], Err("order.duplicate")),
    ];
    for (what, message, expected) in cases {
        let found = judged(&mut engine, encode(&message));
        let expected = match expected {
            Ok(()) => (Verdict::Accept, None),
            Err(code) => (Verdict::Ignore, Some(code.to_owned())),
        };
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(engine.market().epochs.orders_seen(), 16);
}

#[test]
fn a_known_order_with_a_false_signature_spoils_the_message_that_brings_a_new_one() {
    let mut engine = world::engine();
    let all = sorted(world::orders(STRANGER, 2));
    assert_eq!(judged(&mut engine, encode(&&all[..1])).0, Verdict::Accept);
    let before = world::digest(&engine);
    let mut false_copy = all.clone();
    false_copy[0].signature[0][0] ^= 1;
    let found = judged(&mut engine, encode(&false_copy));
    assert_eq!(found, (Verdict::Reject, Some("wire.bad_signature".to_owned())));
    assert_eq!(world::digest(&engine), before);
    assert_eq!(judged(&mut engine, encode(&all)).0, Verdict::Accept);
}

#[test]
fn what_is_known_stale_or_hopeless_costs_no_check_of_a_signature() {
    let mut engine = world::engine();
    let kept = u64::try_from(ORDERS_PER_OWNER_KEPT).unwrap();
    let mut all = world::orders(STRANGER, kept + 2);
    all.sort_by_key(Verified::id);
    let (kept, hopeless) = all.split_at(ORDERS_PER_OWNER_KEPT);
    for message in pack(kept) {
        assert_eq!(judged(&mut engine, message).0, Verdict::Accept);
    }
    let cases = [
        ("known", world::bundle(&kept[..2]), "order.duplicate"),
        ("hopeless", world::bundle(hopeless), "order.quota"),
        ("stale", world::bundle(&at_epoch(-1)), "order.stale_epoch"),
    ];
    for (what, message, expected) in cases {
        let effects = first_effects(&mut engine, message);
        let [Effect::Verdict { verdict: Verdict::Ignore, code, .. }] = &effects[..] else {
            panic!("{what}: {effects:?}");
        };
        assert_eq!(code.as_deref(), Some(expected), "{what}");
    }
}

#[test]
fn what_a_busy_node_cannot_check_is_nobodys_fault() {
    let mut engine = world::engine();
    let effects = first_effects(&mut engine, world::bundle(&world::orders(STRANGER, 2)));
    let [Effect::Verify { peer, ticket, .. }] = effects[..] else { panic!("{effects:?}") };
    engine.handle(NOW_MS, Input::Checked { peer, ticket, checked: Err(Unchecked::Busy) });
    let code = Some("node.busy".to_owned());
    let verdict = Effect::Verdict { ticket: 1, verdict: Verdict::Ignore, code };
    assert_eq!(world::effects(&mut engine), [verdict]);
}

#[test]
fn a_contact_of_another_time_is_ignored() {
    let mut engine = world::engine();
    let cases = [
        (NOW_MS + CONTACT_SKEW_MS + 1, Verdict::Ignore),
        (NOW_MS - CONTACT_SKEW_MS - 1, Verdict::Ignore),
        (u64::MAX, Verdict::Ignore),
        (NOW_MS - CONTACT_SKEW_MS, Verdict::Accept),
        (NOW_MS + CONTACT_SKEW_MS, Verdict::Accept),
    ];
    for (seq, expected) in cases {
        let verdict = gossip(&mut engine, Topic::Contacts, contact(&made_up(1), seq)).0;
        assert_eq!(verdict, expected, "{seq}");
    }
}

#[test]
fn a_proof_of_long_statements_is_heard() {
    let params = world::params();
    let window = Window { start: 1000, end: 1004 };
    let draft = world::Draft::new(PROVIDER, world::units(0, 2), window, &params);
    // Far more ranges than a certificate may have: the statement is signed all the same.
    let statement = |holder: u8| {
        let mut activation = draft.activation(0, holder, [holder; 32]);
        let ranges: Vec<UnitRange> =
            (0..400).map(|n| UnitRange { first: 2 * n, end: 2 * n + 1 }).collect();
        activation.units = decode_record::<Units>(&encode(&ranges)).unwrap();
        let signed = world::by(PROVIDER, activation, &params);
        let kind = StatementKind::Activation;
        Statement::verify(kind, signed.envelope(), params.magic).unwrap()
    };
    let proof: EquivProof = prove(&statement(2), &statement(3)).unwrap();
    let bytes = encode(&proof);
    assert!((GOSSIP_MAX_BYTES..=PROOF_MAX_BYTES).contains(&bytes.len()), "{}", bytes.len());
    let mut engine = world::engine();
    assert_eq!(gossip(&mut engine, Topic::Proofs, bytes).0, Verdict::Accept);
    let long = vec![0; PROOF_MAX_BYTES + 1];
    assert_eq!(gossip(&mut engine, Topic::Proofs, long).0, Verdict::Reject);
}

#[test]
fn a_peer_is_told_the_time() {
    let mut engine = world::engine();
    let effects = request(&mut engine, Protocol::Sync, encode(&SyncRequest::Clock));
    assert_eq!(
        reply::<SyncReply>(&effects),
        SyncReply::Clock { unix_ms: NOW_MS, contacts: Vec::new() }
    );
}
