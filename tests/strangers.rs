//! What a stranger can not do to a node: fill its tables, be heard for nothing, go unblamed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "shared with the fuzz targets")]

#[path = "../fuzz/bodies/world.rs"]
mod world;

use capex_core::certificate::equivocation::{Statement, prove};
use capex_core::certificate::objects::EquivProof;
use capex_core::certificate::objects::StatementKind;
use capex_core::engine::contacts::Contact;
use capex_core::engine::holdings::GIFTED_HOPS_MAX;
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::{Effect, Engine, Input, Protocol, Topic, Verdict};
use capex_core::ids::Key;
use capex_core::limits::{CONTACT_SKEW_MS, CONTACTS_MAX, GOSSIP_MAX_BYTES, PROOF_MAX_BYTES};
use capex_core::order::Side;
use capex_core::settlement::objects::{SettleReply, SettleRequest};
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{decode_record, encode, sign};
use ed25519_dalek::SigningKey;
use world::{ME, NOW_MS, PROVIDER, STRANGER, effects, public};

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

#[test]
fn roots_by_made_up_keys_neither_make_room_nor_use_up_the_questions_to_traders() {
    let mut engine = world::engine();
    let params = world::params();
    let mut questions = 0;
    for number in 0..50 {
        let root = sign(world::root(ME).into_value(), params.magic, &made_up(number));
        let (verdict, effects) = gossip(&mut engine, Topic::Roots, encode(root.envelope()));
        assert_eq!(verdict, Verdict::Ignore);
        questions += asked(&effects).len();
    }
    assert_eq!(questions, 1, "the one peer that relays them is asked once");
    assert_eq!(engine.market().epochs.iter().count(), 0);
    let order = encode(world::order(STRANGER, Side::Buy).envelope());
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    let root = encode(world::root(STRANGER).envelope());
    let (verdict, effects) = gossip(&mut engine, Topic::Roots, root);
    assert_eq!((verdict, asked(&effects)), (Verdict::Accept, vec![public(STRANGER)]));
}

#[test]
fn contacts_of_strangers_do_not_push_out_those_of_traders() {
    let mut engine = world::engine();
    let order = encode(world::order(STRANGER, Side::Sell).envelope());
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    let trader = encode(world::contact(STRANGER).envelope());
    assert_eq!(gossip(&mut engine, Topic::Contacts, trader).0, Verdict::Accept);
    let most = u32::try_from(CONTACTS_MAX).unwrap();
    for number in 0..most + 10 {
        let bytes = contact(&made_up(number), NOW_MS + u64::from(number));
        assert_eq!(gossip(&mut engine, Topic::Contacts, bytes).0, Verdict::Accept);
    }
    assert_eq!(engine.contacts().iter().count(), CONTACTS_MAX);
    assert!(engine.contacts().iter().any(|contact| contact.key == public(STRANGER)));
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
fn gifts_of_strangers_leave_room_for_what_is_bought() {
    let params = world::params();
    let window = Window { start: 1000, end: 1004 };
    let mut engine = world::engine();
    let mut stored = 0;
    let mut refused = None;
    for number in 0..100 {
        // A made-up provider sells to itself and gives back and forth, as long as it can be.
        let mut draft =
            world::Draft::new(STRANGER, world::units(number, number + 1), window, &params);
        draft = draft.sell(PROVIDER);
        for _ in 0..31 {
            draft = draft.give(ME).give(PROVIDER);
        }
        let certificate = draft.give(ME).certificate();
        let bytes = encode(&SettleRequest::Push(certificate));
        match reply(&request(&mut engine, Protocol::Settle, bytes)) {
            SettleReply::Stored => stored += 1,
            SettleReply::Refused { code } => refused = Some(code),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stored, GIFTED_HOPS_MAX / 64 - 1);
    assert_eq!(refused.as_deref(), Some("acquire.full"));
}

#[test]
fn a_peer_is_told_the_time() {
    let mut engine = world::engine();
    let effects = request(&mut engine, Protocol::Sync, encode(&SyncRequest::Clock));
    assert_eq!(reply::<SyncReply>(&effects), SyncReply::Clock { unix_ms: NOW_MS });
}
