//! Rooms that strangers fill beyond their measure: who makes place, and who is still served.

use capex_core::certificate::equivocation::{Statement, prove};
use capex_core::certificate::objects::StatementKind;
use capex_core::certificate::{Certificate, Hop};
use capex_core::engine::courier::{CourierReply, CourierRequest};
use capex_core::engine::holdings::{BROUGHT_HOPS_MAX, BROUGHT_HOPS_PER_PROVIDER};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::pools::PoolRequest;
use capex_core::engine::{Effect, Engine, Protocol, Topic, Verdict};
use capex_core::ids::{PoolId, TermsHash};
use capex_core::limits::CONTACTS_MAX;
use capex_core::order::Side;
use capex_core::units::Window;
use capex_core::wire::{Envelope, encode, sign};

use crate::world::{ME, NOW_MS, PROVIDER, STRANGER, public};
use crate::{asked, contact, gossip, made_up, reply, request, world};

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
    let order = world::bundle(&[world::order(STRANGER, Side::Buy)]);
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    let root = encode(world::root(STRANGER).envelope());
    let (verdict, effects) = gossip(&mut engine, Topic::Roots, root);
    assert_eq!((verdict, asked(&effects)), (Verdict::Accept, vec![public(STRANGER)]));
}

#[test]
fn strangers_without_an_invitation_cannot_speak_to_a_pool() {
    let mut engine = world::engine();
    let before = world::digest(&engine);
    let pool = PoolId([7; 32]);
    for number in 0..100 {
        let asked = [
            PoolRequest::Join { pool, share_sat: 5_000 + number, refund_xonly: [9; 32] },
            PoolRequest::Leave(pool),
            PoolRequest::Agreed { terms_hash: TermsHash([8; 32]), accepts: Vec::new() },
        ];
        for asked in asked {
            let asked = encode(&SettleRequest::Pool(asked));
            let told: SettleReply = reply(&request(&mut engine, Protocol::Settle, asked));
            assert_eq!(told, SettleReply::Refused { code: "pool.unknown".to_owned() });
        }
    }
    assert_eq!(world::digest(&engine), before);
}

#[test]
fn contacts_of_strangers_do_not_push_out_those_of_traders() {
    let mut engine = world::engine();
    let order = world::bundle(&[world::order(STRANGER, Side::Sell)]);
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
fn what_keys_that_do_not_trade_say_is_neither_kept_nor_passed_on() {
    let params = world::params();
    let mut engine = world::engine();
    let draft = |to: u8| {
        world::Draft::new(STRANGER, world::units(0, 1), soon(), &params).sell(to).certificate()
    };
    let said = |certificate: &Certificate| {
        let Some(Hop::Sale { lock, activation, .. }) = certificate.hops.first() else { panic!() };
        (lock.clone(), activation.clone())
    };
    let (lock, sale) = said(&draft(PROVIDER));
    let (_, other) = said(&draft(ME));
    let verified = |bytes: &Envelope| {
        Statement::verify(StatementKind::Activation, bytes, params.magic).unwrap()
    };
    let proof = encode(&prove(&verified(&sale), &verified(&other)).unwrap());
    let hear = |engine: &mut Engine, topic: Topic, bytes: Vec<u8>| {
        let (_, effects) = gossip(engine, topic, bytes);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Verdict { verdict, code, .. } => Some((verdict, code)),
            _ => None,
        })
    };
    let ignored = |code: &str| Some((Verdict::Ignore, Some(code.to_owned())));
    for bytes in [encode(&lock), encode(&sale)] {
        assert_eq!(hear(&mut engine, Topic::Locks, bytes), ignored("lock.not_a_trader"));
    }
    let heard = hear(&mut engine, Topic::Proofs, proof.clone());
    assert_eq!(heard, ignored("proof.not_a_trader"));
    assert_eq!(engine.witness().proofs().count(), 0);
    // With an order it is a trader, whose words count.
    let order = world::bundle(&[world::order(STRANGER, Side::Sell)]);
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    for bytes in [encode(&lock), encode(&sale)] {
        assert_eq!(hear(&mut engine, Topic::Locks, bytes), Some((Verdict::Accept, None)));
    }
    assert_eq!(hear(&mut engine, Topic::Proofs, proof), Some((Verdict::Accept, None)));
    assert!(engine.witness().is_equivocator(public(STRANGER)));
}

/// A certificate that its provider sold to itself and gave away as often as it can be, to us.
fn gift(provider: u8, number: u32, window: Window, gifts: usize) -> SettleRequest {
    let params = world::params();
    let mut draft = world::Draft::new(provider, world::units(number, number + 1), window, &params);
    draft = draft.sell(PROVIDER);
    for _ in 0..gifts / 2 {
        draft = draft.give(ME).give(PROVIDER);
    }
    SettleRequest::Courier(CourierRequest::Push(draft.give(ME).certificate()))
}

fn bring(engine: &mut Engine, gift: &SettleRequest) -> Result<(), String> {
    match reply(&request(engine, Protocol::Settle, encode(gift))) {
        SettleReply::Courier(CourierReply::Stored) => Ok(()),
        SettleReply::Refused { code } => Err(code),
        other => panic!("{other:?}"),
    }
}

/// Slots that an order may name now.
fn soon() -> Window {
    let first = world::params().slot_at(NOW_MS) + 10;
    Window { start: first, end: first + 4 }
}

#[test]
fn gifts_of_strangers_never_shut_out_those_of_a_trader() {
    let mut engine = world::engine();
    let full = Err("acquire.full".to_owned());
    let each = u32::try_from(BROUGHT_HOPS_PER_PROVIDER / 64).unwrap();
    let providers = u8::try_from(BROUGHT_HOPS_MAX / BROUGHT_HOPS_PER_PROVIDER).unwrap();
    for provider in 100..100 + providers {
        for number in 0..each {
            let brought = bring(&mut engine, &gift(provider, number, soon(), 62));
            assert_eq!(brought, Ok(()), "{provider} {number}");
        }
        let more = bring(&mut engine, &gift(provider, each, soon(), 0));
        assert_eq!(more, full, "its share is used");
    }
    let held = |engine: &Engine| engine.certificates(0).len();
    let before = held(&engine);
    // One more stranger takes the place of one that has more.
    assert_eq!(bring(&mut engine, &gift(200, 0, soon(), 62)), Ok(()));
    assert_eq!(held(&engine), before);
    // A provider that trades always has its share.
    let order = world::bundle(&[world::order(STRANGER, Side::Sell)]);
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    for number in 0..each {
        assert_eq!(bring(&mut engine, &gift(STRANGER, number, soon(), 62)), Ok(()));
    }
    assert_eq!(held(&engine), before);
    assert_eq!(bring(&mut engine, &gift(STRANGER, each, soon(), 62)), full);
    // What strangers bring now goes no more at its cost.
    for provider in 210..=255 {
        let _ = bring(&mut engine, &gift(provider, 0, soon(), 62));
    }
    let of_trader = engine.certificates(0).into_iter();
    let of_trader = of_trader.filter(|view| view.facts.provider == public(STRANGER));
    assert_eq!(of_trader.count(), usize::try_from(each).unwrap());
}

#[test]
fn a_gift_for_a_window_that_nobody_can_trade_is_refused() {
    let mut engine = world::engine();
    let before = engine.certificates(0).len();
    let refused = Err("acquire.beyond_horizon".to_owned());
    for start in [u32::MAX - 10, soon().start + 400] {
        let window = Window { start, end: start + 4 };
        assert_eq!(bring(&mut engine, &gift(STRANGER, 0, window, 0)), refused, "{start}");
    }
    let past = Window { start: soon().start - 14, end: soon().start - 12 };
    let expected = Err("acquire.window_past".to_owned());
    assert_eq!(bring(&mut engine, &gift(STRANGER, 1, past, 0)), expected);
    assert_eq!(engine.certificates(0).len(), before);
}

#[test]
fn gifts_of_providers_that_do_not_trade_leave_no_word_of_theirs_here() {
    let mut engine = world::engine();
    let params = world::params();
    // One certificate, sold to two: whoever is heard is convicted by that.
    let twice = |provider: u8| {
        let sold = |to: u8| {
            let draft = world::Draft::new(provider, world::units(0, 1), soon(), &params);
            draft.sell(to).give(ME).certificate()
        };
        [sold(PROVIDER), sold(ME + 7)]
    };
    let proofs = |effects: &[Effect]| {
        let is_proof =
            |effect: &&Effect| matches!(effect, Effect::Publish { topic: Topic::Proofs, .. });
        effects.iter().filter(is_proof).count()
    };
    let bring_twice = |engine: &mut Engine, provider: u8| {
        let mut published = 0;
        for certificate in twice(provider) {
            let push = SettleRequest::Courier(CourierRequest::Push(certificate));
            let effects = request(engine, Protocol::Settle, encode(&push));
            let stored = SettleReply::Courier(CourierReply::Stored);
            assert_eq!(reply::<SettleReply>(&effects), stored);
            published += proofs(&effects);
        }
        published
    };
    for provider in [100, 101] {
        assert_eq!(bring_twice(&mut engine, provider), 0);
        let [Hop::Sale { lock, .. }, ..] = &twice(provider)[0].hops[..] else { panic!() };
        let (_, effects) = gossip(&mut engine, Topic::Locks, encode(lock));
        let refused = effects.iter().any(|effect| match effect {
            Effect::Verdict { code, .. } => code.as_deref() == Some("lock.not_a_trader"),
            _ => false,
        });
        assert!(refused, "a gift makes nobody a trader: {effects:?}");
    }
    assert_eq!(engine.witness().proofs().count(), 0);
    let order = world::bundle(&[world::order(STRANGER, Side::Sell)]);
    assert_eq!(gossip(&mut engine, Topic::Orders, order).0, Verdict::Accept);
    assert_eq!(bring_twice(&mut engine, STRANGER), 1);
    assert!(engine.witness().is_equivocator(public(STRANGER)));
}
