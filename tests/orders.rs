//! Admission, order sets and epoch results: decided by content alone.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::collections::BTreeMap;

use capex::definitions;
use capex_core::admission::{AdmissionError, admit, check_rules, has_work};
use capex_core::book::{Inserted, OrderSet};
use capex_core::certificate::objects::{Activation, Consumed, blinded};
use capex_core::epoch::{self, compute};
use capex_core::ids::{CertId, Key};
use capex_core::limits::{ORDERS_PER_OWNER_BOOK, ORDERS_PER_OWNER_KEPT};
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{VERSION, Verified, WireError, sign};
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

const EPOCH: u64 = 1000;

fn params() -> Params {
    let mut params = definitions::load("devnet").unwrap();
    params.pow_bits = 0;
    params
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn owner(number: u8) -> Key {
    Key(key(number).verifying_key().to_bytes())
}

fn bid(number: u8, nonce: u64) -> Order {
    let first = params().first_slot(EPOCH);
    Order {
        v: 1,
        epoch: EPOCH,
        side: Side::Buy,
        owner: owner(number),
        nonce,
        alts: vec![Alternative { class: 1, limit_msat: 900_000 }],
        qty: 2,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window { start: first, end: first + 4 },
        slots: 2,
        features: 0,
        allow: vec![],
        deny: vec![],
        min_run: 0,
        source: Source::Primary,
        created_ms: 0,
        backing: None,
        pow_nonce: 0,
    }
}

fn ask(number: u8, nonce: u64, limit_msat: u64) -> Order {
    Order {
        side: Side::Sell,
        slots: 0,
        min_run: 1,
        alts: vec![Alternative { class: 1, limit_msat }],
        ..bid(number, nonce)
    }
}

fn signed(order: Order, number: u8) -> Verified<Order> {
    sign(order, params().magic, &key(number))
}

#[test]
fn every_rule_has_its_code() {
    let params = params();
    let first = params.first_slot(EPOCH);
    let change = |change: &dyn Fn(&mut Order)| {
        let mut order = bid(1, 1);
        change(&mut order);
        order
    };
    let many = |from: u8, count: u8| (from..from + count).map(|n| Key([n; 32])).collect::<Vec<_>>();
    let table: Vec<(&str, Order)> = vec![
        ("order.quantity", change(&|o| o.qty = 0)),
        ("order.quantity", change(&|o| o.min_qty = 0)),
        ("order.quantity", change(&|o| o.min_qty = 3)),
        ("order.quantity", change(&|o| o.qty = 10_001)),
        ("order.alternatives", change(&|o| o.alts.clear())),
        ("order.alternatives", change(&|o| o.alts.push(o.alts[0]))),
        ("order.unknown_class", change(&|o| o.alts[0].class = 999)),
        ("order.limit_out_of_range", change(&|o| o.alts[0].limit_msat = 0)),
        ("order.limit_out_of_range", change(&|o| o.alts[0].limit_msat = 1_000_000_000_001)),
        ("order.run", change(&|o| o.slots = 0)),
        ("order.run", change(&|o| o.slots = 169)),
        ("order.run", change(&|o| o.min_run = 1)),
        ("order.run", Order { min_run: 0, ..ask(1, 1, 1) }),
        ("order.run", Order { mode: Mode::Gang, ..ask(1, 1, 1) }),
        ("order.window", change(&|o| o.window = Window { start: first + 1, end: first + 1 })),
        ("order.window", change(&|o| o.window = Window { start: 0, end: first })),
        ("order.window", change(&|o| o.window.end = first + 337)),
        ("order.counterparties", change(&|o| o.deny = many(1, 17))),
        ("order.counterparties", change(&|o| o.allow = vec![Key([2; 32]), Key([1; 32])])),
        ("order.counterparties", change(&|o| o.allow = vec![Key([1; 32]), Key([1; 32])])),
        (
            "order.resale",
            Order {
                source: Source::Resale {
                    activation: Box::new(signed(bid(1, 1), 1).envelope().clone()),
                    salt16: [0; 16],
                },
                ..ask(1, 1, 1)
            },
        ),
    ];
    for (code, order) in table {
        let refused = check_rules(&order, &params).unwrap_err();
        assert_eq!(refused.code(), code, "{order:?}");
        let envelope = sign(order, params.magic, &key(1)).envelope().clone();
        assert_eq!(admit(&envelope, &params).unwrap_err().code(), code);
    }
    assert_eq!(check_rules(&change(&|o| o.window.end = first + 336), &params), Ok(()));
    assert!(admit(signed(bid(1, 1), 1).envelope(), &params).is_ok());
}

/// What key 9 signed for key 1: two units in three slots.
fn activation(change: impl Fn(&mut Activation)) -> Activation {
    let params = params();
    let first = params.first_slot(EPOCH);
    let (cert_id, prev_hash) = (CertId([5; 32]), [6; 32]);
    let mut activation = Activation {
        v: VERSION,
        provider: owner(9),
        cert_id,
        seq: 1,
        consumes: vec![Consumed { cert_id, seq: 0, attempt: 0, prev_hash }],
        roots: vec![cert_id],
        holder_hash: blinded(owner(1), [3; 16], params.magic),
        class: 1,
        features: 0b11,
        units: Units::range(0, 2).unwrap(),
        window: Window { start: first + 1, end: first + 4 },
        cause_hash: [7; 32],
        p_height: 100,
    };
    change(&mut activation);
    activation
}

/// An ask of key 1 that sells it.
fn resale_of(activation: Activation, number: u8) -> Order {
    let window = activation.window;
    let activation = sign(activation, params().magic, &key(number)).envelope().clone();
    let source = Source::Resale { activation: Box::new(activation), salt16: [3; 16] };
    Order { qty: 2, min_qty: 1, window, features: 0b01, source, ..ask(1, 1, 5) }
}

#[test]
fn a_resale_ask_shows_what_its_owner_holds() {
    let params = params();
    let good = || resale_of(activation(|_| ()), 9);
    assert_eq!(check_rules(&good(), &params), Ok(()));
    assert!(admit(signed(good(), 1).envelope(), &params).is_ok());
    let part = Window { start: good().window.start + 1, ..good().window };
    assert_eq!(check_rules(&Order { qty: 1, window: part, ..good() }, &params), Ok(()));
    let change = |change: &dyn Fn(&mut Order)| {
        let mut order = good();
        change(&mut order);
        order
    };
    let of = |change: &dyn Fn(&mut Activation)| resale_of(activation(change), 9);
    let salted = |order: &mut Order, salt| match &mut order.source {
        Source::Resale { salt16, .. } => *salt16 = salt,
        Source::Primary => panic!(),
    };
    let forged = |order: &mut Order| match &mut order.source {
        Source::Resale { activation, .. } => activation.signature[0][0] ^= 1,
        Source::Primary => panic!(),
    };
    let table: Vec<(&str, Order)> = vec![
        ("another owner", change(&|o| o.owner = owner(2))),
        ("another salt", change(&|o| salted(o, [4; 16]))),
        ("a forged signature", change(&forged)),
        ("signed by its holder", resale_of(activation(|_| ()), 1)),
        ("of another provider", of(&|a| a.provider = owner(8))),
        ("for another holder", of(&|a| a.holder_hash = [1; 32])),
        ("of another class", change(&|o| o.alts[0].class = 2)),
        ("a unit more", change(&|o| o.qty = 3)),
        ("a slot earlier", change(&|o| o.window.start -= 1)),
        ("a slot later", change(&|o| o.window.end += 1)),
        ("a feature more", change(&|o| o.features = 0b100)),
        ("a leap of its seq", of(&|a| a.seq = 3)),
        ("of nothing", of(&|a| a.consumes.clear())),
        ("without roots", of(&|a| a.roots.clear())),
        (
            "units twice",
            of(&|a| {
                let twice = vec![UnitRange { first: 0, end: 2 }, UnitRange { first: 1, end: 3 }];
                a.units = serde_json::from_value(serde_json::to_value(twice).unwrap()).unwrap();
            }),
        ),
    ];
    for (what, order) in table {
        let refused = check_rules(&order, &params).unwrap_err();
        assert_eq!(refused.code(), "order.resale", "{what}");
        let number = if order.owner == owner(2) { 2 } else { 1 };
        let envelope = signed(order, number).envelope().clone();
        assert_eq!(admit(&envelope, &params).unwrap_err().code(), "order.resale", "{what}");
    }
    let bid = Order { source: good().source, ..bid(1, 1) };
    assert_eq!(check_rules(&bid, &params).unwrap_err().code(), "order.resale", "a bid");
}

#[test]
fn bytes_prove_who_is_at_fault() {
    let params = params();
    let good = signed(bid(1, 1), 1).envelope().clone();
    let code = |envelope: &capex_core::wire::Envelope| admit(envelope, &params).unwrap_err().code();

    let mut other_signer = sign(bid(1, 1), params.magic, &key(2)).envelope().clone();
    assert_eq!(code(&other_signer), "wire.wrong_signer");
    other_signer.key = owner(1).0;
    assert_eq!(code(&other_signer), "wire.bad_signature");

    let other_network = sign(bid(1, 1), [1, 2, 3, 4], &key(1));
    assert_eq!(code(other_network.envelope()), "wire.bad_signature");

    let mut flipped = good.clone();
    flipped.signature[0][0] ^= 1;
    assert_eq!(code(&flipped), "wire.bad_signature");

    let mut trailing = good.clone();
    trailing.payload.push(0);
    assert_eq!(code(&trailing), "wire.not_canonical");

    let mut newer = good.clone();
    newer.payload[0] = 2;
    assert_eq!(admit(&newer, &params).unwrap_err(), WireError::UnknownVersion.into());
    assert!(!WireError::UnknownVersion.is_blamable());

    let mut short = good;
    short.payload.truncate(40);
    assert_eq!(code(&short), "wire.malformed");
    short.payload = vec![1; 2049];
    assert_eq!(code(&short), "order.oversize");
}

#[test]
fn work_is_leading_zero_bits_of_the_id() {
    let mut id = [0xff; 32];
    assert!(has_work(&id, 0) && !has_work(&id, 1));
    id[0] = 0;
    id[1] = 0x0f;
    assert!(has_work(&id, 12) && !has_work(&id, 13));
    assert!(has_work(&[0; 32], 255));
    let mut hard = params();
    hard.pow_bits = 40;
    let refused = admit(signed(bid(1, 1), 1).envelope(), &hard).unwrap_err();
    assert_eq!(refused, AdmissionError::Work);
}

#[test]
fn a_set_keeps_the_lowest_ids_of_an_owner() {
    let orders: Vec<_> = (0..70).map(|nonce| signed(bid(1, nonce), 1)).collect();
    let mut ids: Vec<_> = orders.iter().map(Verified::id).collect();
    ids.sort_unstable();
    let mut set = OrderSet::default();
    for order in &orders {
        set.insert(order.clone());
    }
    assert_eq!(set.len(), ORDERS_PER_OWNER_KEPT);
    let kept: Vec<_> = set.ids().map(|id| id.0).collect();
    assert_eq!(kept, ids[..ORDERS_PER_OWNER_KEPT]);
    assert_eq!(set.book().len(), ORDERS_PER_OWNER_BOOK);
    assert_ne!(set.insert(orders[0].clone()), Inserted::New);
}

#[test]
fn of_two_orders_with_one_nonce_the_lower_id_is_matched() {
    let twins = [signed(bid(1, 7), 1), signed(Order { qty: 3, ..bid(1, 7) }, 1)];
    let lower = twins.iter().map(Verified::id).min().unwrap();
    let mut set = OrderSet::default();
    for twin in twins {
        set.insert(twin);
    }
    assert_eq!(set.len(), 2, "both are under the root, as evidence");
    let book: Vec<_> = set.book().iter().map(|order| order.id()).collect();
    assert_eq!(book, [lower]);
}

#[test]
fn rows_too_small_or_too_near_are_void_by_content() {
    let params = params();
    let mut set = OrderSet::default();
    set.insert(signed(Order { qty: 1, slots: 1, ..bid(1, 1) }, 1));
    set.insert(signed(ask(2, 1, 500_000), 2));
    let result = compute(EPOCH, &set, &params).unwrap();
    assert_eq!(result.rows.len(), 1);
    assert_eq!(result.rows[0].void.as_deref(), Some(epoch::BELOW_MINIMUM), "{result:?}");

    let mut slow = params.clone();
    let mut second = slow.profiles[0];
    second.min_price_sat = 1500;
    second.lead_s = 3600;
    slow.profiles.push(second);
    let mut set = OrderSet::default();
    set.insert(signed(bid(1, 1), 1));
    set.insert(signed(ask(2, 1, 500_000), 2));
    let result = compute(EPOCH, &set, &slow).unwrap();
    assert_eq!(result.rows[0].void.as_deref(), Some(epoch::WINDOW_TOO_NEAR));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Root, book and result are functions of the set, not of the order of arrival.
    #[test]
    fn arrival_does_not_matter(
        parts in prop::collection::vec((0u8..6, 0u64..5, 1u32..5, any::<bool>(), 1u64..9), 1..40),
        seed in any::<u64>(),
    ) {
        let params = params();
        let orders: BTreeMap<[u8; 32], Verified<Order>> = parts
            .iter()
            .map(|&(number, nonce, qty, buys, price)| {
                let limit_msat = price * 100_000;
                let order = if buys {
                    Order {
                        qty,
                        alts: vec![Alternative { class: 1, limit_msat }],
                        ..bid(number + 1, nonce)
                    }
                } else {
                    Order { qty, ..ask(number + 1, nonce, limit_msat) }
                };
                let order = signed(order, number + 1);
                (order.id(), order)
            })
            .collect();
        let forwards: Vec<_> = orders.values().cloned().collect();
        let mut shuffled = forwards.clone();
        let mut state = seed;
        for index in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(index, (state >> 33) as usize % (index + 1));
        }
        let collect = |orders: Vec<Verified<Order>>| {
            let mut set = OrderSet::default();
            for order in orders {
                set.insert(order);
            }
            set
        };
        let (one, two) = (collect(forwards), collect(shuffled));
        prop_assert_eq!(one.root(), two.root());
        let result = compute(EPOCH, &one, &params).unwrap();
        prop_assert_eq!(&result, &compute(EPOCH, &two, &params).unwrap());
        for row in &result.rows {
            prop_assert_ne!(row.buyer, row.seller);
        }
    }
}
