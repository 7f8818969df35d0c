use super::kit::{assert_sound, bid, place, reach, rest, story, trades};
use super::resale::{BUYER, PROVIDER, QTY, RESELLER, facts, held, holds, offer, want};
use capex::sim::{NodeId, World};

const OTHER: NodeId = 3;

#[test]
fn the_one_that_bids_more_gets_it_and_nobody_pays_twice() {
    let (mut world, cert) = held(61, 4);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    offer(&mut world, cert);
    let slots = u16::try_from(window.len()).unwrap();
    place(&mut world, BUYER, bid(1, 900, QTY, window, slots));
    place(&mut world, OTHER, bid(1, 1_000, QTY, window, slots));
    reach(&mut world, OTHER, "active");
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, OTHER), [(cert, QTY, window)]);
    assert_eq!(holds(&world, BUYER), []);
    let locks = world.evidence.locks().filter(|lock| lock.cert_id == cert && lock.seq == 1);
    assert_eq!(locks.count(), 1, "one lock of the certificate at its seq");
}

#[test]
fn each_gets_a_part_by_one_split() {
    let (mut world, cert) = held(62, 4);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    offer(&mut world, cert);
    want(&mut world, BUYER, 1, window);
    want(&mut world, OTHER, 1, window);
    let both = |world: &World| {
        [BUYER, OTHER].into_iter().all(|node| holds(world, node).iter().any(|held| held.1 == 1))
    };
    assert!(world.run_until(45_000, both), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, RESELLER), []);
    let sales = trades(&world, RESELLER).into_iter().filter(|trade| trade.state == "settled");
    assert_eq!(sales.count(), 2);
    let kept = world.engine(PROVIDER).unwrap().register().issued(&cert).unwrap().seq;
    assert_eq!(kept, 1, "it was split as it was");
}
