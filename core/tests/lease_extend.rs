//! A lease goes on with another certificate, and with no other one than fits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;
mod lease_fixture;

use capex_core::engine::io::{Done, Effect, Topic};
use capex_core::engine::leases::{LeaseCommand, LeaseEffect, LeasePurpose};
use capex_core::ids::{CertId, LeaseId};
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::{Extend, LeaseReply, LeaseRequest, Outcome, Receipt};
use capex_core::limits::{EXTENSIONS_MAX, HORIZON_SLOTS};
use capex_core::units::Window;
use capex_core::wire::decode_record;
use certificate_fixture::party::*;
use certificate_fixture::*;
use lease_fixture::*;

const NEXT: Window = Window { start: 1004, end: 1007 };
const NEXT_ENDS_MS: u64 = 1007 * 4000;

fn extend(net: &mut Net, who: u8, command: u64, lease: LeaseId, cert: CertId) {
    net.party(who).with(|ctx, books, leases| {
        leases.on_command(ctx, &books.holdings, command, LeaseCommand::Extend { lease, cert });
    });
    net.pump();
}

fn answer(net: &mut Net, who: u8, command: u64) -> Option<Result<Done, String>> {
    let done = net.party(who).done();
    done.into_iter().find(|(id, _)| *id == command).map(|(_, result)| result)
}

/// The latest end that the provider's host was told.
fn told_end_ms(net: &mut Net) -> u64 {
    let log = net.party(PROVIDER).log.iter().rev();
    let mut ends = log.filter_map(|effect| match effect {
        Effect::Lease(LeaseEffect::Prepare { ends_at_ms, .. }) => Some(*ends_at_ms),
        _ => None,
    });
    ends.next().unwrap()
}

fn started(net: &mut Net, lease: LeaseId) {
    net.until(STARTS_MS + 3_000);
    let event = ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 };
    net.party(PROVIDER).executor(lease, event);
}

#[test]
fn a_lease_ends_with_the_certificate_that_extends_it_and_has_one_chain_of_receipts() {
    let (mut net, cert, lease) = redeemed();
    let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
    started(&mut net, lease);
    extend(&mut net, ALICE, 5, lease, next);
    assert_eq!(answer(&mut net, ALICE, 5), Some(Ok(Done::Ok)));
    let said = is_published(&net.party(PROVIDER).log, Topic::Locks);
    assert_eq!(said, 6, "lock and sale of both, redemption and extension");
    assert_eq!(told_end_ms(&mut net), NEXT_ENDS_MS);
    for who in [PROVIDER, ALICE] {
        let view = view(&mut net, who, lease);
        assert_eq!((view.cert_id, view.extensions), (cert, vec![next]), "{who}");
        assert_eq!(view.window, Window { end: NEXT.end, ..WINDOW }, "{who}");
        assert_eq!(net.state(who, next).0, "redeemed", "{who}");
    }
    // Nothing of it is lost to a restart of either side.
    net.restart(PROVIDER);
    net.restart(ALICE);
    assert_eq!(told_end_ms(&mut net), NEXT_ENDS_MS);
    net.until(ENDS_MS + 1_000);
    let stops = effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Stop { .. })));
    assert_eq!(stops, 0, "the first window is not its end");
    net.until(NEXT_ENDS_MS);
    net.party(PROVIDER).executor(lease, ended(Outcome::Deadline, NEXT_ENDS_MS));
    let receipts = fetch_receipts(&mut net, lease, 1);
    let last: Receipt = receipts.last().unwrap().peek().unwrap();
    assert_eq!((last.to_ms, last.delivered_ms), (NEXT_ENDS_MS, NEXT_ENDS_MS - STARTS_MS - 100));
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    assert_eq!(view(&mut net, ALICE, lease).countersigned, 1);
}

/// A certificate that Alice has bought of a provider, of its own making.
fn from_elsewhere(net: &mut Net, provider: u8) -> CertId {
    let sold = Draft::new(provider, units(0, 2), NEXT, &devnet()).sell(ALICE).certificate();
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, sold).unwrap())
}

#[test]
fn what_does_not_adjoin_extends_nothing() {
    type Sell = fn(&mut Net) -> CertId;
    let table: [(&str, Sell); 9] = [
        ("extend.other_provider", |net| from_elsewhere(net, BOB)),
        // Its class has the same number, and more to it.
        ("extend.other_class", |net| from_elsewhere(net, PROVIDER)),
        ("extend.gap", |net| {
            net.sell_of(8, &units(0, 2), (1, Window { start: 1005, end: 1006 }), ALICE)
        }),
        ("extend.gap", |net| net.sell_of(8, &units(8, 10), (1, WINDOW), ALICE)),
        ("extend.other_units", |net| net.sell_of(8, &units(0, 3), (1, NEXT), ALICE)),
        ("extend.other_class", |net| net.sell_of(8, &units(0, 2), (2, NEXT), ALICE)),
        ("redeem.unknown_certificate", |net| net.sell_of(8, &units(0, 2), (1, NEXT), BOB)),
        ("redeem.unknown_certificate", |_| CertId([9; 32])),
        ("redeem.consumed", |net| {
            let cert = net.sell_of(8, &units(0, 2), (1, NEXT), ALICE);
            redeem(net, ALICE, 3, cert);
            cert
        }),
    ];
    for (row, (code, sell)) in table.into_iter().enumerate() {
        let (mut net, _, lease) = redeemed();
        let cert = sell(&mut net);
        started(&mut net, lease);
        extend(&mut net, ALICE, 5, lease, cert);
        assert_eq!(answer(&mut net, ALICE, 5), Some(Err(code.to_owned())), "row {row}");
        assert_eq!(told_end_ms(&mut net).min(ENDS_MS), ENDS_MS);
        assert_eq!(view(&mut net, PROVIDER, lease).window, WINDOW, "row {row}");
        let state = net.party(ALICE).books.holdings.is_redeemed(&cert);
        assert_eq!(state, code == "redeem.consumed", "row {row}: what was refused is still good");
    }
}

/// The provider trusts no holder to have looked.
#[test]
fn a_provider_checks_for_itself() {
    type Change = fn(&mut Extend);
    let (mut net, cert, lease) = redeemed();
    let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
    let bobs = net.sell_of(9, &units(10, 12), (1, NEXT), BOB);
    let far = net.sell_of(10, &units(8, 10), (1, Window { start: 1010, end: 1011 }), ALICE);
    started(&mut net, lease);
    let good = Extend {
        v: 1,
        lease,
        cert_id: next,
        seq: net.state(ALICE, next).1,
        holder: public(ALICE),
        not_after_s: STARTS_MS / 1000 + 3,
    };
    let table: [(u8, &str, Change); 6] = [
        (BOB, "lease.bad_signature", |_| {}),
        (BOB, "lease.not_holder", |e| e.holder = public(BOB)),
        (ALICE, "lease.not_found", |e| e.lease = LeaseId([1; 32])),
        (ALICE, "redeem.expired", |e| e.not_after_s = STARTS_MS / 1000),
        (ALICE, "redeem.stale_seq", |e| e.seq += 1),
        (ALICE, "redeem.unknown_certificate", |e| e.cert_id = CertId([9; 32])),
    ];
    let ask = |net: &mut Net, who: u8, extend: Extend| {
        let extend = by(who, extend, &devnet()).envelope().clone();
        net.lease(PROVIDER, who, &LeaseRequest::Extend { extend })
    };
    for (row, (who, code, change)) in table.into_iter().enumerate() {
        let mut wrong = good.clone();
        change(&mut wrong);
        let reply = ask(&mut net, who, wrong);
        assert_eq!(reply, LeaseReply::Refused { code: code.to_owned() }, "row {row}");
    }
    for (cert_id, code) in
        [(bobs, "redeem.not_holder"), (far, "extend.gap"), (cert, "redeem.consumed")]
    {
        let seq = if cert_id == bobs { good.seq } else { net.state(ALICE, cert_id).1 };
        let reply = ask(&mut net, ALICE, Extend { cert_id, seq, ..good.clone() });
        assert_eq!(reply, LeaseReply::Refused { code: code.to_owned() });
    }
    assert_eq!(view(&mut net, PROVIDER, lease).window, WINDOW);
    // Asked twice it is granted once, and answered twice.
    let first = ask(&mut net, ALICE, good.clone());
    assert!(matches!(first, LeaseReply::Extended { ends_at_ms: NEXT_ENDS_MS, .. }), "{first:?}");
    assert_eq!(ask(&mut net, ALICE, good.clone()), first);
    assert_eq!(view(&mut net, PROVIDER, lease).extensions, [next]);
}

#[test]
fn after_its_end_a_lease_is_not_extended() {
    let (mut net, _, lease) = redeemed();
    let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
    run_to_end(&mut net, lease);
    extend(&mut net, ALICE, 5, lease, next);
    assert_eq!(answer(&mut net, ALICE, 5), Some(Err("extend.too_late".to_owned())));
    net.until(ENDS_MS);
    extend(&mut net, ALICE, 6, lease, next);
    assert_eq!(answer(&mut net, ALICE, 6), Some(Err("extend.too_late".to_owned())));
    redeem(&mut net, ALICE, 7, next);
    assert!(matches!(answer(&mut net, ALICE, 7), Some(Ok(Done::Redeemed { .. }))), "still good");
}

/// What is granted later than a second before the end would not reach the process in time.
#[test]
fn an_extension_in_the_last_second_is_refused_and_consumes_nothing() {
    for (before_ms, is_granted) in [(1_001, true), (1_000, false), (1, false)] {
        let (mut net, _, lease) = redeemed();
        let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
        started(&mut net, lease);
        net.until(ENDS_MS - before_ms);
        let extend = Extend {
            v: 1,
            lease,
            cert_id: next,
            seq: net.state(ALICE, next).1,
            holder: public(ALICE),
            not_after_s: ENDS_MS / 1000,
        };
        let extend = by(ALICE, extend, &devnet()).envelope().clone();
        let known = net.state(PROVIDER, next);
        let reply = net.lease(PROVIDER, ALICE, &LeaseRequest::Extend { extend });
        if is_granted {
            assert!(matches!(reply, LeaseReply::Extended { .. }), "{before_ms} ms: {reply:?}");
        } else {
            let code = "extend.too_late".to_owned();
            assert_eq!(reply, LeaseReply::Refused { code }, "{before_ms} ms");
            assert_eq!(net.state(PROVIDER, next), known, "{before_ms} ms");
            assert_eq!(view(&mut net, PROVIDER, lease).window, WINDOW);
        }
    }
}

/// What was granted and not heard of is heard of later.
#[test]
fn an_extension_whose_answer_is_lost_is_asked_for_again() {
    for restarts in [false, true] {
        let (mut net, _, lease) = redeemed();
        let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
        started(&mut net, lease);
        net.party(PROVIDER).loses = |_| true;
        extend(&mut net, ALICE, 5, lease, next);
        assert_eq!(view(&mut net, PROVIDER, lease).extensions, [next]);
        assert_eq!(view(&mut net, ALICE, lease).extensions, []);
        extend(&mut net, ALICE, 6, lease, next);
        assert_eq!(answer(&mut net, ALICE, 6), Some(Err("lease.busy".to_owned())));
        net.party(PROVIDER).loses = |_| false;
        if restarts {
            net.restart(ALICE);
        }
        net.pass(2_000);
        assert_eq!(view(&mut net, ALICE, lease).extensions, [next], "restarts: {restarts}");
        assert_eq!(net.state(ALICE, next).0, "redeemed");
    }
}

/// No further than a certificate can be sold, and by no more of them than a record holds.
#[test]
fn a_lease_is_extended_as_far_as_a_horizon_and_by_as_many_as_there_may_be() {
    for (end, is_granted) in [(1000 + HORIZON_SLOTS, true), (1001 + HORIZON_SLOTS, false)] {
        let (mut net, _, lease) = redeemed();
        let next = net.sell_of(8, &units(8, 10), (1, Window { start: 1004, end }), ALICE);
        started(&mut net, lease);
        extend(&mut net, ALICE, 5, lease, next);
        let said = if is_granted { Ok(Done::Ok) } else { Err("extend.too_long".to_owned()) };
        assert_eq!(answer(&mut net, ALICE, 5), Some(said), "to {end}");
    }
    let (mut net, _, lease) = redeemed();
    started(&mut net, lease);
    let most = u32::try_from(EXTENSIONS_MAX).unwrap();
    for number in 0..=most {
        let window = Window { start: 1004 + number, end: 1005 + number };
        let trade = u8::try_from(8 + number).unwrap();
        let next = net.sell_of(trade, &units(0, 2), (1, window), ALICE);
        extend(&mut net, ALICE, 5 + u64::from(number), lease, next);
        let said = if number < most { Ok(Done::Ok) } else { Err("extend.too_long".to_owned()) };
        assert_eq!(answer(&mut net, ALICE, 5 + u64::from(number)), Some(said), "{number}");
    }
    assert_eq!(view(&mut net, PROVIDER, lease).extensions.len(), EXTENSIONS_MAX);
}

/// What the provider never granted has no time to add to.
#[test]
fn a_redemption_that_waits_for_its_answer_is_not_extended() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
    net.party(PROVIDER).loses =
        |bytes| matches!(decode_record::<LeaseReply>(bytes), Ok(LeaseReply::Lease { .. }));
    redeem(&mut net, ALICE, 1, cert);
    let lease = net.party(ALICE).views()[0].lease_id;
    extend(&mut net, ALICE, 5, lease, next);
    assert_eq!(answer(&mut net, ALICE, 5), Some(Err("extend.too_late".to_owned())));
    assert!(!net.party(ALICE).books.holdings.is_redeemed(&next));
}

#[test]
fn a_grant_for_something_else_is_no_extension() {
    let (mut net, _, lease) = redeemed();
    let next = net.sell_of(8, &units(8, 10), (1, NEXT), ALICE);
    started(&mut net, lease);
    net.party(PROVIDER).up = false;
    extend(&mut net, ALICE, 5, lease, next);
    let grant = redeem_grant(PROVIDER, next, 1, 0, &devnet()).envelope().clone();
    let reply = LeaseReply::Extended { grant, ends_at_ms: NEXT_ENDS_MS };
    net.party(ALICE).with(|ctx, books, leases| {
        leases.on_reply(ctx, &mut books.holdings, LeasePurpose::Extend(lease), Ok(reply));
    });
    net.pump();
    assert_eq!(answer(&mut net, ALICE, 5), Some(Err("redeem.bad_grant".to_owned())));
    assert!(!net.party(ALICE).books.holdings.is_redeemed(&next));
    assert_eq!(view(&mut net, ALICE, lease).window, WINDOW);
}
