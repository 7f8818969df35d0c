//! Splits and merges between nodes: what the provider grants, and what a holder keeps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::carve;
use capex_core::certificate::objects::{Activation, Area, Gift, Merge, Parent, Split};
use capex_core::certificate::verify::{TransferKind, verify};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::{Done, Effect, Protocol, Topic};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::{RegisterReply, RegisterRequest};
use capex_core::ids::{CertId, TermsHash};
use capex_core::limits::PARTS_PER_ROOT_MAX;
use capex_core::settlement::objects::Terms;
use capex_core::units::Window;
use capex_core::wire::{self, Envelope, Verified};
use certificate_fixture::party::*;
use certificate_fixture::pieces::area;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const EARLY: Window = Window { start: 1000, end: 1002 };
const LATE: Window = Window { start: 1002, end: 1004 };

fn halves() -> Vec<Area> {
    vec![area(0, 4, EARLY), area(0, 4, LATE)]
}

fn units_apart() -> Vec<Area> {
    vec![area(0, 1, WINDOW), area(1, 4, WINDOW)]
}

/// Four units in the window, bought by Alice.
fn bought() -> (Net, CertId) {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 4), ALICE);
    (net, cert)
}

fn command(net: &mut Net, from: u8, id: u64, command: HoldingsCommand) {
    net.party(from).command(id, command, false);
    net.pump();
}

fn split(net: &mut Net, from: u8, id: u64, cert: CertId, parts: Vec<Area>) -> Vec<CertId> {
    command(net, from, id, HoldingsCommand::Split { cert, parts, give: None });
    match net.party(from).done().last().unwrap() {
        (told, Ok(Done::Split { parts })) if *told == id => parts.clone(),
        other => panic!("{other:?}"),
    }
}

fn last(net: &mut Net, number: u8) -> Result<Done, String> {
    net.party(number).done().last().unwrap().1.clone()
}

/// What waits for the provider of a certificate of Alice.
fn waits(net: &mut Net, cert: CertId) -> Option<TransferKind> {
    let slot = devnet().slot_at(START_MS);
    let mut views = net.party(ALICE).books.views(public(ALICE), slot).into_iter();
    views.find(|view| view.facts.cert_id == cert).unwrap().recut_pending
}

fn head(net: &mut Net, cert: CertId) -> Parent {
    net.party(PROVIDER).books.register.issued(&cert).unwrap().head()
}

fn signed_split(net: &mut Net, by_party: u8, cert: CertId, parts: Vec<Area>) -> Verified<Split> {
    let Parent { cert_id, seq, prev_hash } = head(net, cert);
    by(by_party, Split { v: 1, cert_id, seq, prev_hash, parts, nonce16: [1; 16] }, &devnet())
}

fn ask(net: &mut Net, request: RegisterRequest) -> Result<RegisterReply, String> {
    match net.settle(PROVIDER, ALICE, request) {
        SettleReply::Register(reply) => Ok(reply),
        SettleReply::Refused { code } => Err(code),
        other => panic!("{other:?}"),
    }
}

/// A chain source that falls back, as one of another node may: what comes of a certificate is
/// never older than it, or both would be current at the height between.
#[test]
fn no_activation_is_older_than_what_it_consumes() {
    let (mut net, cert) = bought();
    let height = |net: &mut Net, cert: CertId| {
        net.party(PROVIDER).books.register.issued(&cert).unwrap().as_of_height
    };
    let sold_at = height(&mut net, cert);
    net.party(PROVIDER).chain.height = sold_at + 7;
    let parts = split(&mut net, ALICE, 1, cert, halves());
    assert_eq!(parts.iter().map(|part| height(&mut net, *part)).min(), Some(sold_at + 7));
    net.party(PROVIDER).chain.height = sold_at + 9;
    net.give(ALICE, 2, parts[1], BOB);
    net.give(BOB, 3, parts[1], ALICE);
    net.party(PROVIDER).chain.height = sold_at - 2;
    net.give(ALICE, 4, parts[0], BOB);
    assert_eq!(height(&mut net, parts[0]), sold_at + 7);
    net.give(BOB, 5, parts[0], ALICE);
    command(&mut net, ALICE, 6, HoldingsCommand::Merge { certs: parts });
    let Ok(Done::Held { cert: merged }) = last(&mut net, ALICE) else { panic!() };
    assert_eq!(height(&mut net, merged), sold_at + 9, "the later of its parts");
}

#[test]
fn a_certificate_is_split_given_in_part_and_merged_again() {
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    for party in [PROVIDER, ALICE] {
        assert_eq!(net.state(party, cert).0, "split");
        for part in &parts {
            assert_eq!(net.state(party, *part), ("active", 1, public(ALICE)));
        }
    }
    net.give(ALICE, 2, parts[0], BOB);
    assert_eq!(net.state(BOB, parts[0]), ("active", 2, public(BOB)));
    net.give(BOB, 3, parts[0], ALICE);
    command(&mut net, ALICE, 4, HoldingsCommand::Merge { certs: parts.clone() });
    let Ok(Done::Held { cert: merged }) = last(&mut net, ALICE) else { panic!() };
    for party in [PROVIDER, ALICE] {
        assert_eq!(net.state(party, merged), ("active", 1, public(ALICE)));
        assert_eq!(net.state(party, parts[0]).0, "merged");
        let certificate = net.party(party).books.certificate(&merged).unwrap().clone();
        let facts = verify(&certificate, &devnet()).unwrap();
        assert_eq!((facts.cert_id, facts.area()), (merged, area(0, 4, WINDOW)));
        assert_eq!(&facts.roots, &[cert]);
    }
    // Everyone has heard every Activation, and nobody is convicted.
    for party in [PROVIDER, ALICE, BOB] {
        assert!(!net.party(party).books.witness.is_equivocator(public(PROVIDER)));
    }
    let free = net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW);
    assert_eq!(free, 60);
}

#[test]
fn a_part_is_given_in_one_step() {
    let (mut net, cert) = bought();
    let whole = area(0, 4, WINDOW);
    let parts = carve(&whole, Some(1), Some(LATE)).unwrap();
    let give = Some((0, public(BOB)));
    command(&mut net, ALICE, 1, HoldingsCommand::Split { cert, parts, give });
    let Ok(Done::Gifted { cert: part, seq: 2 }) = last(&mut net, ALICE) else { panic!() };
    assert_eq!(net.state(BOB, part), ("active", 2, public(BOB)));
    assert_eq!(net.state(ALICE, part), ("given", 2, public(BOB)));
    let facts = net.party(BOB).books.holdings.held(&part).unwrap().clone();
    assert_eq!(facts.area(), area(0, 1, LATE));
    // Alice keeps the rest of it, in as many parts as it takes.
    let slot = devnet().slot_at(START_MS);
    let views = net.party(ALICE).books.views(public(ALICE), slot);
    let kept = views.iter().filter(|view| view.state == "active");
    let kept: u64 = kept.map(|view| view.facts.area().unit_slots()).sum();
    assert_eq!(kept, whole.unit_slots() - 2);
}

#[test]
fn a_provider_refuses_what_no_holder_may_ask_and_changes_nothing() {
    let (mut net, cert) = bought();
    let unsold = net.offer(9, &units(8, 12), ALICE).cert_id;
    let part = area(0, 4, EARLY);
    type Change = fn(&mut Split);
    let table: Vec<(&str, u8, Change)> = vec![
        ("split.unknown_certificate", ALICE, |s| s.cert_id = CertId([0; 32])),
        ("split.not_holder", BOB, |_| ()),
        ("split.stale_seq", ALICE, |s| s.seq = 0),
        ("split.stale_seq", ALICE, |s| s.seq = 2),
        ("split.prev_hash", ALICE, |s| s.prev_hash = [0; 32]),
        ("split.outside", ALICE, |s| s.parts[1].window.end = 1005),
        ("split.outside", ALICE, |s| s.parts[1].units = units(0, 5)),
        ("split.sum", ALICE, |s| s.parts[1].window.start = 1003),
        ("split.sum", ALICE, |s| s.parts[1].window.start = 1001),
        ("split.bad_parts", ALICE, |s| s.parts.truncate(1)),
        ("split.bad_parts", ALICE, |s| s.parts.clear()),
        ("split.bad_parts", ALICE, |s| s.parts[1].window.start = 1004),
    ];
    net.pump();
    let before = net.party(PROVIDER).disk.clone();
    for (code, signer, change) in table {
        let mut value = signed_split(&mut net, ALICE, cert, halves()).into_value();
        change(&mut value);
        let split = by(signer, value, &devnet()).envelope().clone();
        assert_eq!(ask(&mut net, RegisterRequest::Split(split)), Err(code.to_owned()));
    }
    let mut forged = signed_split(&mut net, ALICE, cert, halves()).envelope().clone();
    forged.signature[0][0] ^= 1;
    let refused = ask(&mut net, RegisterRequest::Split(forged));
    assert_eq!(refused, Err("wire.bad_signature".to_owned()));
    let of_unsold = signed_split(&mut net, PROVIDER, unsold, vec![part.clone(), part]);
    let refused = ask(&mut net, RegisterRequest::Split(of_unsold.envelope().clone()));
    assert_eq!(refused, Err("split.not_holder".to_owned()));
    net.pump();
    assert_eq!(net.party(PROVIDER).disk, before);
}

fn split_by_hand(net: &mut Net, cert: CertId, parts: Vec<Area>) -> Vec<CertId> {
    let split = signed_split(net, ALICE, cert, parts).envelope().clone();
    let answer = ask(net, RegisterRequest::Split(split)).unwrap();
    let RegisterReply::Activations(activations) = answer else { panic!("{answer:?}") };
    let id = |bytes: &Envelope| bytes.peek::<Activation>().unwrap().cert_id;
    activations.iter().map(id).collect()
}

/// What comes of splits counts like what is given: an epoch has room for 256 of one Issue.
#[test]
fn who_has_split_as_much_as_others_listen_to_gives_in_the_next_epoch() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 64), ALICE);
    let cut = |whole: &Area| -> Vec<Area> {
        let window = whole.window;
        let first = whole.units.ranges()[0].first;
        match whole.units.count() {
            64 => (0..4).map(|n| area(16 * n, 16 * n + 16, window)).collect(),
            16 => (first..first + 16).map(|unit| area(unit, unit + 1, window)).collect(),
            _ => (window.start..window.end)
                .map(|start| area(first, first + 1, Window { start, end: start + 1 }))
                .collect(),
        }
    };
    let mut whole = std::collections::VecDeque::from([(cert, area(0, 64, WINDOW))]);
    let mut made = 0;
    while made < 256 {
        let (cert, area) = whole.pop_front().unwrap();
        let parts = cut(&area);
        made += parts.len();
        let ids = split_by_hand(&mut net, cert, parts.clone());
        whole.extend(ids.into_iter().zip(parts));
    }
    assert_eq!(made, 256);
    let Parent { cert_id, seq, prev_hash } = head(&mut net, whole[0].0);
    let gift = Gift { v: 1, cert_id, seq, prev_hash, to: public(BOB), nonce16: [1; 16] };
    let gift = RegisterRequest::Gift(by(ALICE, gift, &devnet()).envelope().clone());
    net.pump();
    let before = net.party(PROVIDER).disk.clone();
    assert_eq!(ask(&mut net, gift.clone()), Err("register.busy".to_owned()));
    net.pump();
    assert!(net.party(PROVIDER).disk == before);
    net.pass(devnet().epoch_ms());
    assert!(matches!(ask(&mut net, gift), Ok(RegisterReply::Activation(_))));
}

/// A provider that lost what it had signed signs a second future of a certificate. What its holder
/// has by the first stays.
#[test]
fn what_a_provider_signs_of_an_earlier_seq_spends_nothing_later() {
    let (mut net, cert) = bought();
    let early = signed_split(&mut net, ALICE, cert, halves()).envelope().clone();
    net.pump();
    let before = net.party(PROVIDER).disk.clone();
    net.give(ALICE, 1, cert, BOB);
    net.give(BOB, 2, cert, ALICE);
    assert_eq!(net.state(ALICE, cert), ("active", 3, public(ALICE)));
    net.party(PROVIDER).disk = before;
    net.party(PROVIDER).with(|_, books, _| *books = Default::default());
    net.restart(PROVIDER);
    let answer = ask(&mut net, RegisterRequest::Split(early)).unwrap();
    let RegisterReply::Activations(activations) = answer else { panic!("{answer:?}") };
    let part = activations[0].peek::<Activation>().unwrap().cert_id;
    let fetch = HoldingsCommand::Fetch { cert: part, provider: public(PROVIDER) };
    command(&mut net, ALICE, 3, fetch);
    assert_eq!(last(&mut net, ALICE), Ok(Done::Held { cert: part }));
    assert_eq!(net.state(ALICE, part).0, "active");
    assert_eq!(net.state(ALICE, cert), ("active", 3, public(ALICE)));
}

#[test]
fn a_provider_merges_only_what_belongs_together() {
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    let apart = net.sell(8, &units(5, 9), ALICE);
    let of_bob = net.sell(9, &units(4, 5), BOB);
    let heads: Vec<Parent> =
        [parts[0], parts[1], apart, of_bob].map(|cert| head(&mut net, cert)).to_vec();
    let merge = |mut parts: Vec<Parent>| {
        parts.sort_unstable();
        Merge { v: 1, parts, nonce16: [1; 16] }
    };
    let pair = merge(vec![heads[0], heads[1]]);
    let changed = |change: fn(&mut Merge)| {
        let mut value = pair.clone();
        change(&mut value);
        value
    };
    let table = [
        ("merge.unknown_certificate", ALICE, changed(|m| m.parts[0].cert_id = CertId([0; 32]))),
        ("merge.not_holder", BOB, pair.clone()),
        ("merge.not_holder", ALICE, merge(vec![heads[2], heads[3]])),
        ("merge.stale_seq", ALICE, changed(|m| m.parts[0].seq = 2)),
        ("merge.prev_hash", ALICE, changed(|m| m.parts[1].prev_hash = [0; 32])),
        ("merge.bad_parts", ALICE, changed(|m| m.parts.truncate(1))),
        ("merge.bad_parts", ALICE, changed(|m| m.parts[1] = m.parts[0])),
        ("merge.bad_parts", ALICE, changed(|m| m.parts.reverse())),
        ("merge.bad_parts", ALICE, changed(|m| m.parts.clear())),
        ("merge.apart", ALICE, merge(vec![heads[0], heads[2]])),
    ];
    net.pump();
    let before = net.party(PROVIDER).disk.clone();
    for (row, (code, signer, value)) in table.into_iter().enumerate() {
        let merge = by(signer, value, &devnet()).envelope().clone();
        let refused = ask(&mut net, RegisterRequest::Merge(merge));
        assert_eq!(refused, Err(code.to_owned()), "row {row}");
    }
    net.pump();
    assert_eq!(net.party(PROVIDER).disk, before);
    // What was split is there no more; its parts are.
    let whole = signed_split(&mut net, ALICE, cert, units_apart());
    let refused = ask(&mut net, RegisterRequest::Split(whole.envelope().clone()));
    assert_eq!(refused, Err("split.consumed".to_owned()));
    let good = by(ALICE, pair, &devnet()).envelope().clone();
    let merged = ask(&mut net, RegisterRequest::Merge(good.clone())).unwrap();
    assert_eq!(ask(&mut net, RegisterRequest::Merge(good)), Ok(merged), "the same again");
}

/// Its request was refused and given up, and then a copy of it came late and was granted.
#[test]
fn a_holder_that_missed_its_split_hears_of_it_when_it_uses_the_whole() {
    for command_of in [
        |cert| HoldingsCommand::Gift { cert, to: public(BOB) },
        |cert| HoldingsCommand::Split { cert, parts: units_apart(), give: None },
    ] {
        let (mut net, cert) = bought();
        let late = signed_split(&mut net, ALICE, cert, halves()).envelope().clone();
        let answer = ask(&mut net, RegisterRequest::Split(late)).unwrap();
        assert!(matches!(answer, RegisterReply::Activations(_)), "{answer:?}");
        assert_eq!(net.state(ALICE, cert).0, "active");
        command(&mut net, ALICE, 1, command_of(cert));
        assert!(last(&mut net, ALICE).unwrap_err().ends_with(".consumed"));
        assert_eq!(net.state(ALICE, cert).0, "split");
        let slot = devnet().slot_at(START_MS);
        let views = net.party(ALICE).books.views(public(ALICE), slot);
        let parts = views.iter().filter(|view| view.state == "active");
        assert_eq!(parts.count(), 2);
    }
}

#[test]
fn what_is_locked_redeemed_or_begun_is_neither_split_nor_merged() {
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    let facts = net.party(PROVIDER).books.register.issued(&parts[0]).unwrap().clone();
    let draft = issue(PROVIDER, 1, facts.units.clone(), facts.window, &devnet());
    let terms: Terms = Terms {
        cert_id: facts.cert_id,
        ..terms(&draft, 1, facts.last_hash, public(ALICE), public(BOB))
    };
    let terms = by(ALICE, terms, &devnet());
    let accepts = [accept(BOB, &terms, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, &terms, &accepts).unwrap());
    net.pump();
    let again = || vec![area(0, 1, EARLY), area(1, 4, EARLY)];
    let locked = HoldingsCommand::Split { cert: parts[0], parts: again(), give: None };
    command(&mut net, ALICE, 2, locked);
    assert_eq!(last(&mut net, ALICE), Err("split.locked".to_owned()));
    let merge = HoldingsCommand::Merge { certs: parts.clone() };
    command(&mut net, ALICE, 3, merge.clone());
    assert_eq!(last(&mut net, ALICE), Err("merge.locked".to_owned()));
    // Nothing waits after a refusal, on none of them.
    for part in &parts {
        assert_eq!(waits(&mut net, *part), None);
    }
    let hash = TermsHash(terms.id());
    net.party(PROVIDER).with(|ctx, books, _| books.register.release(ctx, hash, [1; 32]));
    command(&mut net, ALICE, 4, merge);
    let Ok(Done::Held { cert: merged }) = last(&mut net, ALICE) else { panic!() };
    // The attempt after the released lock: the pair proves nothing.
    assert!(!net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
    net.party(PROVIDER).with(|ctx, books, _| {
        let lease = capex_core::ids::LeaseId([4; 32]);
        books.register.consume_redeem(ctx, merged, lease).unwrap();
    });
    let redeemed = HoldingsCommand::Split { cert: merged, parts: halves(), give: None };
    command(&mut net, ALICE, 5, redeemed);
    assert_eq!(last(&mut net, ALICE), Err("split.consumed".to_owned()));
    let late = net.sell(8, &units(4, 8), ALICE);
    net.party(ALICE).now_ms = 1000 * 4000;
    let begun = vec![area(4, 5, WINDOW), area(5, 8, WINDOW)];
    let begun = HoldingsCommand::Split { cert: late, parts: begun, give: None };
    command(&mut net, ALICE, 6, begun.clone());
    assert_eq!(last(&mut net, ALICE), Err("split.window_started".to_owned()));
    net.party(ALICE).now_ms = START_MS;
    net.party(PROVIDER).now_ms = 1000 * 4000;
    command(&mut net, ALICE, 7, begun);
    assert_eq!(last(&mut net, ALICE), Err("split.window_started".to_owned()));
}

#[test]
fn a_holder_is_told_before_anybody_is_asked() {
    let (mut net, cert) = bought();
    let other = net.sell(8, &units(5, 9), ALICE);
    let gone = net.sell(9, &units(9, 13), ALICE);
    let early_and_late = vec![area(9, 13, EARLY), area(9, 13, LATE)];
    self::split(&mut net, ALICE, 1, gone, early_and_late.clone());
    let split = |cert, parts| HoldingsCommand::Split { cert, parts, give: None };
    let merge = |certs: &[CertId]| HoldingsCommand::Merge { certs: certs.to_vec() };
    let give = |index, to: u8| HoldingsCommand::Split {
        cert,
        parts: halves(),
        give: Some((index, public(to))),
    };
    let table = [
        ("split.unknown_certificate", split(CertId([0; 32]), halves())),
        ("split.bad_parts", split(cert, vec![area(0, 4, WINDOW)])),
        ("split.outside", split(other, halves())),
        ("split.sum", split(cert, vec![area(0, 4, EARLY), area(0, 3, LATE)])),
        ("split.bad_parts", give(2, BOB)),
        ("gift.to_self", give(0, ALICE)),
        ("merge.bad_parts", merge(&[cert])),
        ("merge.bad_parts", merge(&[cert, cert])),
        ("merge.bad_parts", merge(&[])),
        ("merge.unknown_certificate", merge(&[cert, CertId([0; 32])])),
        ("split.consumed", split(gone, early_and_late)),
        ("merge.consumed", merge(&[gone, other])),
        ("gift.consumed", HoldingsCommand::Gift { cert: gone, to: public(BOB) }),
    ];
    net.pump();
    /// Table of held certificates.
    const HELD: u8 = 8;
    let held = |net: &mut Net| {
        let disk = net.party(ALICE).disk.clone();
        disk.into_iter().filter(|((table, _), _)| *table == HELD).collect::<Vec<_>>()
    };
    let before = held(&mut net);
    for (row, (code, command)) in table.into_iter().enumerate() {
        net.party(ALICE).command(9, command, false);
        let effects = net.party(ALICE).take_effects();
        let told = effects.iter().find_map(|effect| match effect {
            Effect::CommandDone { result: Err(refusal), .. } => Some(refusal.code.as_str()),
            _ => None,
        });
        assert_eq!(told, Some(code), "row {row}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })), "row {row}");
        assert!(held(&mut net) == before, "row {row}");
    }
}

#[test]
fn two_things_never_wait_for_the_provider_at_once() {
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    net.party(PROVIDER).up = false;
    command(&mut net, ALICE, 2, HoldingsCommand::Merge { certs: parts.clone() });
    net.give(ALICE, 3, parts[1], BOB);
    let again = vec![area(0, 1, LATE), area(1, 4, LATE)];
    let other = HoldingsCommand::Split { cert: parts[1], parts: again, give: None };
    command(&mut net, ALICE, 4, other);
    let codes: Vec<_> = net.party(ALICE).done().into_iter().skip(1).collect();
    let refused = |code: &str| Err(code.to_owned());
    assert_eq!(codes, [(3, refused("gift.pending")), (4, refused("split.pending"))]);
    for part in &parts {
        assert_eq!(waits(&mut net, *part), Some(TransferKind::Merge));
    }
    // The same command takes the place of the one before it.
    command(&mut net, ALICE, 5, HoldingsCommand::Merge { certs: parts });
    assert_eq!(net.party(ALICE).done().last().unwrap(), &(2, refused("merge.pending")));
    net.party(PROVIDER).up = true;
    net.pass(60_000);
    assert!(matches!(net.party(ALICE).done().last().unwrap(), (5, Err(_) | Ok(_))));
}

#[test]
fn a_split_and_a_merge_survive_lost_answers_and_restarts_of_both() {
    let (mut net, cert) = bought();
    net.party(PROVIDER).loses = |_| true;
    let parts = HoldingsCommand::Split { cert, parts: halves(), give: None };
    command(&mut net, ALICE, 1, parts);
    // The provider has it, the holder does not know.
    assert_eq!(net.state(PROVIDER, cert).0, "split");
    assert_eq!(net.state(ALICE, cert).0, "active");
    net.restart(ALICE);
    net.restart(PROVIDER);
    net.pass(2_000);
    assert_eq!(net.state(ALICE, cert).0, "split");
    let slot = devnet().slot_at(START_MS);
    let held = |net: &mut Net| -> Vec<CertId> {
        let views = net.party(ALICE).books.views(public(ALICE), slot);
        let active = views.iter().filter(|view| view.state == "active");
        active.map(|view| view.facts.cert_id).collect()
    };
    let parts = held(&mut net);
    assert_eq!(parts.len(), 2);
    net.party(PROVIDER).loses = |_| true;
    command(&mut net, ALICE, 2, HoldingsCommand::Merge { certs: parts.clone() });
    assert_eq!(net.state(ALICE, parts[0]).0, "active");
    net.restart(ALICE);
    net.restart(PROVIDER);
    net.pass(2_000);
    let merged = held(&mut net);
    assert_eq!(merged.len(), 1);
    assert_eq!(net.state(PROVIDER, merged[0]), ("active", 1, public(ALICE)));
    // The ledger of the new life has it once.
    let free = net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW);
    assert_eq!(free, 60);
}

/// The provider granted it in time, and every answer of its was lost until the window had begun.
#[test]
fn a_holder_asks_on_when_the_window_has_begun() {
    for (what, granted) in [("split", true), ("gift", true), ("split", false), ("gift", false)] {
        let (mut net, cert) = bought();
        net.party(PROVIDER).loses = |_| true;
        net.party(PROVIDER).up = granted;
        let asked = match what {
            "gift" => HoldingsCommand::Gift { cert, to: public(BOB) },
            _ => HoldingsCommand::Split { cert, parts: halves(), give: None },
        };
        command(&mut net, ALICE, 1, asked);
        net.until(1000 * 4000 - 1);
        net.party(PROVIDER).up = true;
        net.pass(1);
        net.party(PROVIDER).loses = |_| false;
        for _ in 0..8 {
            net.pass(500);
        }
        let (state, seq, _) = net.state(ALICE, cert);
        let (provider, at_provider, _) = net.state(PROVIDER, cert);
        assert_eq!(waits(&mut net, cert), None, "{what} {granted}");
        assert_eq!(seq, at_provider, "{what} {granted}");
        let expected = match (what, granted) {
            ("gift", true) => ("given", "active"),
            (_, true) => ("split", "split"),
            (_, false) => ("active", "active"),
        };
        assert_eq!((state, provider), expected, "{what} {granted}");
    }
}

#[test]
fn a_part_that_was_to_be_given_is_given_after_a_restart() {
    let (mut net, cert) = bought();
    net.party(PROVIDER).up = false;
    let give = Some((1, public(BOB)));
    command(&mut net, ALICE, 1, HoldingsCommand::Split { cert, parts: halves(), give });
    net.restart(ALICE);
    net.party(PROVIDER).up = true;
    net.pass(2_000);
    let slot = devnet().slot_at(START_MS);
    let views = net.party(BOB).books.views(public(BOB), slot);
    let got: Vec<Area> = views.iter().map(|view| view.facts.area()).collect();
    assert_eq!(got, [area(0, 4, LATE)]);
}

#[test]
fn a_holder_restored_from_an_old_copy_finds_what_became_of_it() {
    let (mut net, cert) = bought();
    net.pump();
    let old = net.party(ALICE).disk.clone();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    net.party(ALICE).disk = old;
    net.restart(ALICE);
    net.pass(1_000);
    assert_eq!(net.state(ALICE, cert).0, "split");
    for part in parts {
        assert_eq!(net.state(ALICE, part), ("active", 1, public(ALICE)));
    }
}

#[test]
fn a_provider_that_forgot_a_split_halts_and_two_splits_convict() {
    let (mut net, cert) = bought();
    net.pump();
    let old = net.party(PROVIDER).disk.clone();
    split(&mut net, ALICE, 1, cert, halves());
    let heard: Vec<Vec<u8>> = published(&mut net, PROVIDER);
    let said = heard.last().unwrap().clone();
    net.party(PROVIDER).disk = old;
    net.restart(PROVIDER);
    let other = signed_split(&mut net, ALICE, cert, units_apart()).envelope().clone();
    // It has not heard of it yet, and signs another: nodes that heard both convict it.
    let mut fork = Net::new(&[PROVIDER]);
    fork.party(PROVIDER).disk = net.party(PROVIDER).disk.clone();
    fork.restart(PROVIDER);
    ask(&mut fork, RegisterRequest::Split(other.clone())).unwrap();
    fork.pump();
    // Once it hears of the first, it signs nothing more.
    net.party(PROVIDER).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, &said));
    assert_eq!(net.party(PROVIDER).books.register.halted(), Some("register.behind"));
    let refused = ask(&mut net, RegisterRequest::Split(other));
    assert_eq!(refused, Err("register.behind".to_owned()));
    assert!(!net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
    for bytes in published(&mut fork, PROVIDER) {
        net.party(BOB).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, &bytes));
    }
    assert!(net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
}

fn published(net: &mut Net, number: u8) -> Vec<Vec<u8>> {
    let log = net.party(number).log.iter().filter_map(|effect| match effect {
        Effect::Publish { topic: Topic::Locks, bytes } => Some(bytes.clone()),
        _ => None,
    });
    log.collect()
}

#[test]
fn one_purchase_makes_only_so_many_certificates() {
    let (mut net, cert) = bought();
    let (mut whole, mut made) = (cert, 0);
    let refused = loop {
        let split = HoldingsCommand::Split { cert: whole, parts: halves(), give: None };
        command(&mut net, ALICE, 1, split);
        let parts = match last(&mut net, ALICE) {
            Ok(Done::Split { parts }) => parts,
            other => break other,
        };
        command(&mut net, ALICE, 2, HoldingsCommand::Merge { certs: parts });
        let Ok(Done::Held { cert }) = last(&mut net, ALICE) else { break last(&mut net, ALICE) };
        whole = cert;
        made += 3;
        assert!(made <= PARTS_PER_ROOT_MAX);
    };
    assert_eq!(refused, Err("split.too_many_parts".to_owned()));
    // What there is goes on.
    net.give(ALICE, 3, whole, BOB);
    assert_eq!(net.state(BOB, whole).0, "active");
    net.restart(PROVIDER);
    let again = HoldingsCommand::Split { cert: whole, parts: halves(), give: None };
    command(&mut net, BOB, 4, again);
    assert_eq!(last(&mut net, BOB), Err("split.too_many_parts".to_owned()));
}

#[test]
fn a_certificate_in_parts_is_told_to_its_parties_alone() {
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    let get = |net: &mut Net, peer| {
        let request = SettleRequest::Register(RegisterRequest::Get(parts[0]));
        let bytes = net.ask(
            public(PROVIDER),
            public(peer),
            capex_core::engine::io::Protocol::Settle,
            &wire::encode(&request),
        );
        wire::decode_record::<SettleReply>(&bytes).unwrap()
    };
    let refused = SettleReply::Refused { code: "certificate.not_a_party".to_owned() };
    assert_eq!(get(&mut net, BOB), refused);
    assert_ne!(get(&mut net, ALICE), refused);
    let gift = Gift {
        v: 1,
        cert_id: parts[0],
        seq: 1,
        prev_hash: head(&mut net, parts[0]).prev_hash,
        to: public(BOB),
        nonce16: [1; 16],
    };
    ask(&mut net, RegisterRequest::Gift(by(ALICE, gift, &devnet()).envelope().clone())).unwrap();
    assert_ne!(get(&mut net, BOB), refused);
}

/// Asks the provider what Alice's node has asked it, and brings an answer that it did not give.
/// The code, and what Alice has then.
fn forge(
    net: &mut Net,
    of: HoldingsCommand,
    forge: fn(&mut Vec<Envelope>),
) -> (String, Vec<&'static str>) {
    net.party(ALICE).command(9, of, false);
    let sent = net.party(ALICE).take_effects().into_iter().find_map(|effect| match effect {
        Effect::Send { id, bytes, .. } => Some((id, bytes)),
        _ => None,
    });
    let (id, bytes) = sent.unwrap();
    let request: SettleRequest = wire::decode_record(&bytes).unwrap();
    let reply = match net.settle(PROVIDER, ALICE, request) {
        SettleReply::Register(RegisterReply::Activations(mut signed)) => {
            forge(&mut signed);
            RegisterReply::Activations(signed)
        }
        SettleReply::Register(RegisterReply::Activation(signed)) => {
            let mut signed = vec![signed];
            forge(&mut signed);
            RegisterReply::Activation(signed.remove(0))
        }
        other => panic!("{other:?}"),
    };
    let reply = wire::encode(&SettleReply::Register(reply));
    net.answer(ALICE, id, Protocol::Settle, Ok(reply));
    let views = net.party(ALICE).books.views(public(ALICE), devnet().slot_at(START_MS));
    let mut states: Vec<_> = views.into_iter().map(|view| view.state).collect();
    states.sort_unstable();
    net.pump();
    (last(net, ALICE).unwrap_err(), states)
}

/// The provider signs, and not what the holder has signed.
#[allow(clippy::ptr_arg, reason = "as the others that shorten it")]
fn other_units(signed: &mut Vec<Envelope>) {
    let mut said: Activation = signed[0].peek().unwrap();
    said.units = units(0, 1);
    signed[0] = by(PROVIDER, said, &devnet()).envelope().clone();
}

#[test]
fn a_holder_gives_nothing_up_for_another_answer_than_it_asked_for() {
    let forgeries: [fn(&mut Vec<Envelope>); 4] = [
        |signed| drop(signed.pop()),
        |signed| signed.swap(0, 1),
        |signed| signed[1] = signed[0].clone(),
        other_units,
    ];
    for forgery in forgeries {
        let (mut net, cert) = bought();
        let split = HoldingsCommand::Split { cert, parts: halves(), give: None };
        let kept = ("split.bad_activation".to_owned(), vec!["active"]);
        assert_eq!(forge(&mut net, split, forgery), kept);
        assert_eq!(waits(&mut net, cert), None);
    }
    let (mut net, cert) = bought();
    let parts = split(&mut net, ALICE, 1, cert, halves());
    let merge = HoldingsCommand::Merge { certs: parts };
    let kept = ("merge.bad_activation".to_owned(), vec!["active", "active", "split"]);
    assert_eq!(forge(&mut net, merge, other_units), kept);
}

#[test]
fn what_was_split_is_not_locked() {
    let (mut net, cert) = bought();
    let whole = net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
    split(&mut net, ALICE, 1, cert, halves());
    let draft = issue(PROVIDER, 1, whole.units.clone(), whole.window, &devnet());
    let terms = terms(&draft, 1, whole.last_hash, public(ALICE), public(BOB));
    let terms = by(ALICE, Terms { cert_id: cert, ..terms }, &devnet());
    let accepts = [accept(BOB, &terms, &devnet())];
    let provider = net.party(PROVIDER);
    let locked = provider.with(|ctx, books, _| books.register.lock(ctx, &terms, &accepts));
    assert_eq!(locked.err(), Some("lock.consumed"));
}
