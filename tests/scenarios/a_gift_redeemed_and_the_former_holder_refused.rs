use super::kit::{assert_sound, bought_cert, pair, reach, rest, story};
use capex::sim::World;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::{LeaseCommand, LeaseRole};
use capex_core::engine::{Done, Protocol};
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::{LeaseReply, LeaseRequest, Redeem, Workload};
use capex_core::lease::workload::digest;
use capex_core::wire::{VERSION, decode_record, encode};

fn workload() -> Workload {
    Workload::wasm(Digest([7; 32]), 100)
}

fn ask(world: &mut World, holder: usize, request: &LeaseRequest) -> LeaseReply {
    let key = world.nodes[holder].key;
    let reply = world.ask_from(key, 0, Protocol::Lease, &encode(request)).unwrap();
    decode_record(&reply).unwrap()
}

/// What a node that keeps to no rule would send with its own, true key.
pub(super) fn redeem_by_hand(
    world: &mut World,
    holder: usize,
    cert_id: CertId,
    seq: u32,
) -> LeaseReply {
    let challenge32 = match ask(world, holder, &LeaseRequest::Challenge(cert_id)) {
        LeaseReply::Challenge(challenge32) => challenge32,
        // It goes on without one.
        LeaseReply::Refused { code } if code == "redeem.not_holder" => [0; 32],
        other => panic!("{other:?}"),
    };
    let redeem = Redeem {
        v: VERSION,
        cert_id,
        seq,
        holder: world.nodes[holder].key,
        workload_digest: digest(&workload()),
        challenge32,
        not_after_s: world.now_ms / 1000 + 30,
    };
    let redeem = world.sign_as(holder, redeem);
    ask(world, holder, &LeaseRequest::Redeem { redeem, workload: workload() })
}

#[test]
fn only_the_present_holder_redeems_and_only_once() {
    let mut world = pair(15, 3);
    reach(&mut world, 1, "active");
    let cert = bought_cert(&world, 1);
    let to = world.nodes[2].key;
    let gift = world.command(1, HoldingsCommand::Gift { cert, to });
    let received = |world: &World| {
        let held = world.engine(2).and_then(|engine| engine.holdings().held(&cert));
        held.is_some_and(|facts| facts.holder == to)
    };
    assert!(world.run_until(5_000, received));
    assert!(world.run_until(5_000, |world| world.answer(1, gift).is_some()));
    assert_eq!(world.answer(1, gift), Some(&Ok(Done::Gifted { cert, seq: 2 })));

    for seq in [1, 2] {
        let LeaseReply::Refused { code } = redeem_by_hand(&mut world, 1, cert, seq) else {
            panic!("the former holder redeemed");
        };
        assert!(matches!(code.as_str(), "redeem.not_holder" | "redeem.stale_seq"), "{code}");
    }
    let redeem = LeaseCommand::Redeem { cert, workload: Box::new(workload()) };
    let command = world.command(2, redeem);
    assert!(world.run_until(5_000, |world| world.answer(2, command).is_some()));
    assert!(matches!(world.answer(2, command), Some(Ok(Done::Redeemed { .. }))));
    let again = redeem_by_hand(&mut world, 2, cert, 2);
    assert!(matches!(again, LeaseReply::Refused { code } if code == "redeem.consumed"));

    let over = |world: &World| {
        let engine = world.engine(0).unwrap();
        let views = engine.leases().views(engine.me(), 0);
        views.iter().any(|view| view.role == LeaseRole::Provider && view.phase == "released")
    };
    assert!(world.run_until(120_000, over), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}
