//! A bid brings a workload: it begins by itself at the first second of what was bought, unless the
//! certificate is another's by then.

use std::collections::BTreeSet;

use super::kit::{ask, assert_sound, assert_sound_after, bid, place, rest, story, window, world};
use super::resale::{holds, offer, refusal};
use capex::sim::{Kill, Links, NodeId, World};
use capex_core::certificate::carve;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::{AttachedView, LeaseCommand, LeaseRole, LeaseView, Offer};
use capex_core::engine::market::{MarketCommand, OrderSpec};
use capex_core::engine::{Command, Done};
use capex_core::ids::{CertId, Digest, Key, StandingId};
use capex_core::lease::objects::{Content, EnvValue, EnvVar, Payload, PayloadKind, Workload};

const PROVIDER: NodeId = 0;
/// As in the stories of certificates that are sold on: its holder.
const BUYER: NodeId = 1;
const FRIEND: NodeId = 2;
const BOX: u16 = 5;
const START: u32 = 20;
const SLOTS: u16 = 3;
const SLOT_MS: u64 = 4_000;

fn component() -> Workload {
    Workload::wasm(Digest([7; 32]), 100)
}

fn root_file_system() -> Workload {
    let archive = Content { digest: Digest([8; 32]), bytes: 4_000 };
    let command = vec!["/bin/true".to_owned()];
    Workload { command, ..Workload::of(Payload::Rootfs { archive }) }
}

fn buy(spec: OrderSpec, workload: Workload) -> Command {
    Command::Buy { spec: Box::new(spec), workload: Box::new(workload) }
}

fn bid_for(class: u16, qty: u32) -> OrderSpec {
    bid(class, 1_000, qty, window(START, START + u32::from(SLOTS)), SLOTS)
}

/// A seller has what a buyer wants for its workload; the order.
fn wanted(seed: u64, class: u16, workload: Workload) -> (World, StandingId) {
    let mut world = world(seed, 3, Links::GOOD);
    world.set_capacity(PROVIDER, &[(class, 4)]);
    let slots = window(START, START + u32::from(SLOTS));
    place(&mut world, PROVIDER, ask(class, 500, 2, slots));
    let command = world.command(BUYER, buy(bid_for(class, 2), workload));
    match world.answer(BUYER, command) {
        Some(Ok(Done::Placed(order))) => {
            let order = *order;
            (world, order)
        }
        other => panic!("{other:?}"),
    }
}

fn attached(world: &World, node: NodeId) -> Vec<(CertId, AttachedView)> {
    let engine = world.engine(node).into_iter();
    engine.flat_map(|engine| engine.leases().attached(engine.params())).collect()
}

/// The leases that a node holds.
fn leases(world: &World, node: NodeId) -> Vec<LeaseView> {
    let engine = world.engine(node).into_iter();
    let views = engine.flat_map(|engine| engine.leases().views(engine.me(), world.now_ms));
    views.filter(|view| view.role == LeaseRole::Holder).collect()
}

/// What was bought has come, and has its workload.
fn bring(world: &mut World) -> CertId {
    let came = world.run_until(45_000, |world| !attached(world, BUYER).is_empty());
    assert!(came, "{}", story(world));
    attached(world, BUYER)[0].0
}

fn starts_at_ms() -> u64 {
    u64::from(window(START, START + 1).start) * SLOT_MS
}

/// Whether the buyer is told why its workload has not begun.
fn is_told(world: &World, code: &str) -> bool {
    let told = attached(world, BUYER).into_iter().filter_map(|(_, view)| view.refusal);
    told.into_iter().any(|told| told == code)
}

fn has_begun(world: &World) -> bool {
    leases(world, BUYER).iter().any(|lease| lease.started_at_ms.is_some())
}

/// All that there was of the workload is over, and no promise is broken.
fn end(world: &mut World, what: &str) {
    let over = |world: &World| world.now_ms > starts_at_ms() + 60_000;
    world.run_until(180_000, over);
    rest(world);
    assert_sound_after(what, world);
    assert_eq!(attached(world, BUYER), [], "{what}");
}

#[test]
fn one_whose_content_is_lost_uses_up_no_certificate() {
    let (mut world, order) = wanted(79, 1, component());
    let cert = bring(&mut world);
    let lost = world.command(BUYER, LeaseCommand::Lost(order));
    assert!(matches!(world.answer(BUYER, lost), Some(Ok(Done::Ok))));
    assert_eq!(attached(&world, BUYER), []);
    assert!(world.run_until(180_000, |world| world.now_ms > starts_at_ms()));
    assert!(leases(&world, BUYER).is_empty());
    assert!(holds(&world, BUYER).iter().any(|(held, ..)| *held == cert), "{}", story(&world));
    end(&mut world, "lost");
}

#[test]
fn it_begins_at_the_first_second_and_not_before_it_has_to() {
    let (mut world, order) = wanted(71, 1, component());
    let kind = world.engine(BUYER).unwrap().leases().workload_of_order(&order);
    assert_eq!(kind, Some(PayloadKind::Wasm));
    let cert = bring(&mut world);
    let (_, view) = attached(&world, BUYER).remove(0);
    assert_eq!((view.order, view.refusal), (order, None));
    assert_eq!(view.redeems_at_ms, starts_at_ms() - 2 * SLOT_MS);
    let before = world.run_until(110_000, |world| world.now_ms + 500 >= view.redeems_at_ms);
    assert!(before && leases(&world, BUYER).is_empty());
    assert!(world.run_until(20_000, has_begun), "{}", story(&world));
    let lease = leases(&world, BUYER).remove(0);
    assert_eq!((lease.cert_id, lease.started_at_ms), (cert, Some(starts_at_ms())));
    let kind = world.engine(BUYER).unwrap().leases().workload_of_order(&order);
    assert_eq!(kind, None, "the order brings no more");
    end(&mut world, "begins");
}

#[test]
fn what_is_filled_in_parts_runs_it_on_each() {
    let mut world = world(72, 4, Links::GOOD);
    let slots = window(START, START + u32::from(SLOTS));
    for seller in [PROVIDER, 3] {
        world.set_capacity(seller, &[(1, 1)]);
        place(&mut world, seller, ask(1, 500, 1, slots));
    }
    world.command(BUYER, buy(bid_for(1, 2), component()));
    let both = |world: &World| {
        let begun = leases(world, BUYER).into_iter().filter(|one| one.started_at_ms.is_some());
        begun.count() == 2
    };
    assert!(world.run_until(110_000, both), "{}", story(&world));
    end(&mut world, "in parts");
}

#[test]
fn a_certificate_that_is_given_takes_none_with_it() {
    let (mut world, _) = wanted(73, 1, component());
    let cert = bring(&mut world);
    let to = world.nodes[FRIEND].key;
    let gift = world.command(BUYER, HoldingsCommand::Gift { cert, to });
    assert!(world.run_until(10_000, |world| world.answer(BUYER, gift).is_some()));
    let let_go = world.run_until(10_000, |world| attached(world, BUYER).is_empty());
    assert!(let_go, "{:?}", attached(&world, BUYER));
    end(&mut world, "given");
    assert_eq!((leases(&world, BUYER).len(), leases(&world, FRIEND).len()), (0, 0));
}

#[test]
fn one_that_is_cut_or_detached_or_redeemed_by_hand_runs_what_its_holder_says() {
    for (seed, what) in [(74, "cut"), (75, "detached"), (76, "by hand")] {
        let (mut world, _) = wanted(seed, 1, component());
        let cert = bring(&mut world);
        let other = Workload { command: vec!["other".to_owned()], ..component() };
        let command: Command = match what {
            "cut" => {
                let facts = world.engine(BUYER).unwrap().holdings().held(&cert).unwrap();
                let parts = carve(&facts.area(), Some(1), None).unwrap();
                HoldingsCommand::Split { cert, parts, give: None }.into()
            }
            "detached" => LeaseCommand::Detach(cert).into(),
            _ => LeaseCommand::Redeem { cert, workload: Box::new(other.clone()) }.into(),
        };
        let command = world.command(BUYER, command);
        let done = world.run_until(10_000, |world| world.answer(BUYER, command).is_some());
        assert!(done && world.answer(BUYER, command).unwrap().is_ok(), "{what}");
        assert!(world.run_until(5_000, |world| attached(world, BUYER).is_empty()), "{what}");
        let again = refusal(&mut world, BUYER, LeaseCommand::Detach(cert));
        assert_eq!(again, "attach.none", "{what}");
        end(&mut world, what);
        let engine = world.engine(BUYER).unwrap();
        let ran = leases(&world, BUYER);
        let ran: Vec<_> = ran.iter().map(|one| engine.leases().workload(&one.lease_id)).collect();
        assert_eq!(ran, if what == "by hand" { vec![Some(&other)] } else { vec![] }, "{what}");
    }
}

#[test]
fn one_that_is_on_offer_waits_until_it_is_free() {
    let (mut world, _) = wanted(77, 1, component());
    let cert = bring(&mut world);
    offer(&mut world, cert);
    // Nobody takes it, and the offer ends when the window is too near to sell it.
    assert!(world.run_until(110_000, has_begun), "{}", story(&world));
    assert_eq!(leases(&world, BUYER)[0].started_at_ms, Some(starts_at_ms()));
    end(&mut world, "on offer");
}

#[test]
fn one_that_its_provider_has_still_to_move_waits_too() {
    let (mut world, _) = wanted(83, 1, component());
    let cert = bring(&mut world);
    world.crash(PROVIDER);
    let to = world.nodes[FRIEND].key;
    world.command(BUYER, HoldingsCommand::Gift { cert, to });
    assert!(world.run_until(110_000, |world| is_told(world, "attach.waits")), "{}", story(&world));
    assert_eq!(leases(&world, BUYER).len(), 0);
    world.start(PROVIDER);
    let moved = |world: &World| attached(world, BUYER).is_empty();
    assert!(world.run_until(20_000, moved), "{:?}", attached(&world, BUYER));
    end(&mut world, "given late");
    // Whoever holds it by then decides: one of them, and never both.
    assert!(leases(&world, BUYER).len() + leases(&world, FRIEND).len() <= 1);
}

#[test]
fn a_provider_that_is_away_is_asked_until_it_is_back() {
    let (mut world, _) = wanted(78, 1, component());
    bring(&mut world);
    world.crash(PROVIDER);
    world.run_until(110_000, |world| world.now_ms >= starts_at_ms() + 2_500);
    assert!(is_told(&world, "redeem.no_answer"), "{:?}", attached(&world, BUYER));
    assert_eq!(leases(&world, BUYER).len(), 0);
    world.start(PROVIDER);
    assert!(world.run_until(8_000, has_begun), "{:?}", attached(&world, BUYER));
    assert_eq!(leases(&world, BUYER).len(), 1);
    end(&mut world, "away");
}

#[test]
fn what_the_provider_refuses_leaves_the_certificate_and_is_tried_again() {
    let (mut world, _) = wanted(79, BOX, root_file_system());
    let cert = bring(&mut world);
    let refused = world.run_until(110_000, |world| is_told(world, "redeem.no_runtime"));
    assert!(refused, "{}", story(&world));
    let held: Vec<CertId> = holds(&world, BUYER).into_iter().map(|(cert, ..)| cert).collect();
    assert_eq!((held, leases(&world, BUYER).len()), (vec![cert], 0), "nothing is used up");
    let runtimes = BTreeSet::from([PayloadKind::Rootfs]);
    world.command(PROVIDER, LeaseCommand::Offer(Offer { runtimes, ..Offer::default() }));
    assert!(world.run_until(12_000, has_begun), "{:?}", attached(&world, BUYER));
    end(&mut world, "refused");
}

#[test]
fn a_bid_whose_workload_cannot_run_is_not_placed() {
    let mut world = world(80, 2, Links::GOOD);
    let sealed = EnvVar { name: "A".to_owned(), value: EnvValue::Sealed(vec![1; 100]) };
    let other = OrderSpec { beneficiary: Some(Key([9; 32])), ..bid_for(1, 1) };
    let large = Content { digest: Digest([8; 32]), bytes: 200 << 20 };
    let table = [
        (ask(1, 500, 1, window(20, 24)), component(), "attach.not_a_bid"),
        (other, component(), "attach.for_key"),
        (bid_for(1, 1), Workload { env: vec![sealed], ..component() }, "attach.sealed"),
        (bid_for(1, 1), root_file_system(), "attach.class"),
        (bid_for(BOX, 1), component(), "attach.class"),
        (
            bid_for(BOX, 1),
            Workload { payload: Payload::Rootfs { archive: large }, ..root_file_system() },
            "workload.disk",
        ),
        (bid_for(1, 1), Workload { ports: vec![80], ..component() }, "workload.not_in_wasm"),
    ];
    for (spec, workload, code) in table {
        assert_eq!(refusal(&mut world, BUYER, buy(spec, workload)), code);
    }
    let engine = world.engine(BUYER).unwrap();
    assert_eq!((engine.market().standing().count(), attached(&world, BUYER).len()), (0, 0));
}

/// The buyer dies on either side of each of its writes between the order and the first second.
#[test]
fn a_kill_at_any_write_costs_no_workload() {
    let (mut clean, _) = wanted(81, 1, component());
    let first = clean.nodes[BUYER].disk.writes() + 1;
    assert!(clean.run_until(110_000, has_begun), "{}", story(&clean));
    let last = clean.nodes[BUYER].disk.writes();
    for write in first..=last {
        for side in [Kill::Before, Kill::After] {
            let (mut world, _) = wanted(81, 1, component());
            world.nodes[BUYER].disk.kill_at(write, side);
            let label = format!("dies {side:?} write {write}");
            let died = world.run_until(110_000, |world| world.nodes[BUYER].disk.is_dead());
            assert!(died, "{label}");
            world.run_for(300);
            world.start(BUYER);
            let begun = world.run_until(110_000, has_begun);
            assert!(begun, "{label}: {:?}\n{}", attached(&world, BUYER), story(&world));
            assert_eq!(leases(&world, BUYER).len(), 1, "{label}");
            end(&mut world, &label);
        }
    }
    assert!(last - first > 5, "{first}..={last}");
}

#[test]
fn an_order_that_is_cancelled_lets_its_workload_go() {
    let mut world = world(82, 2, Links::GOOD);
    let command = world.command(BUYER, buy(bid_for(1, 1), component()));
    let Some(Ok(Done::Placed(order))) = world.answer(BUYER, command).cloned() else { panic!() };
    world.command(BUYER, MarketCommand::Cancel(order));
    let gone =
        |world: &World| world.engine(BUYER).unwrap().leases().workload_of_order(&order).is_none();
    assert!(world.run_until(10_000, gone));
    rest(&mut world);
    assert_sound(&world);
}
