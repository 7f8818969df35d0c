use capex::sim::{Links, NodeId};
use capex_core::params::Params;

use super::kit::{
    ask, assert_sound, bid, bought_cert, devnet, place, reach, rest, story, trades, window,
    world_of,
};
use super::resale::{BUYER, PROVIDER, QTY, RESELLER, holds, offer, want};
use super::troubles::{halt_orders, halt_orders_of};

const OTHER: NodeId = 3;
/// As much as one of the certificates can cost, and less than two do, sat.
const CAP_SAT: u64 = 8_000;

#[test]
fn and_not_towards_that_of_its_seller() {
    let params = Params { prepaid_cap_sat: CAP_SAT, ..devnet() };
    let mut world = world_of(params, 81, 4, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 2 * QTY)]);
    let window = window(40, 44);
    place(&mut world, PROVIDER, ask(1, 500, 2 * QTY, window));
    for node in [RESELLER, BUYER] {
        place(&mut world, node, bid(1, 1_000, QTY, window, 4));
    }
    reach(&mut world, RESELLER, "active");
    reach(&mut world, BUYER, "active");
    halt_orders(&mut world);
    world.run_for(4_000);
    // From another key, and of the same provider: together above the cap.
    let cert = bought_cert(&world, RESELLER);
    offer(&mut world, cert);
    want(&mut world, BUYER, QTY, window);
    world.run_for(9_000);
    assert_eq!(trades(&world, BUYER).len(), 1, "{}", story(&world));
    halt_orders_of(&mut world, BUYER);
    // Whoever has paid that provider nothing yet may buy it.
    want(&mut world, OTHER, QTY, window);
    reach(&mut world, OTHER, "active");
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, OTHER), [(cert, QTY, window)]);
}
