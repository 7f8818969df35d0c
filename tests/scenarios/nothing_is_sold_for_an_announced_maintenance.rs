use super::kit::{ask, assert_sound, bid, place, reach, rest, story, trades, window, world};
use capex::sim::{Links, World};
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::{Command, Done};
use capex_core::epoch::epoch_at;
use capex_core::lease::Maintenance;
use capex_core::units::Window;

const PROVIDER: usize = 0;
const BUYER: usize = 1;

fn command(world: &mut World, command: impl Into<Command>) -> Result<Done, String> {
    let command = world.command(PROVIDER, command);
    world.answer(PROVIDER, command).unwrap().clone().map_err(|refusal| refusal.code)
}

/// A maintenance from the middle of the first slot to the middle of the last.
fn announce(world: &mut World, slots: Window) -> Result<Done, String> {
    let slot_s = world.params().slot_s;
    let half_ms = u64::from(slot_s) * 500;
    let from_ms = slots.starts_at_ms(slot_s) + half_ms;
    let to_ms = slots.ends_at_ms(slot_s) - half_ms;
    let new = Maintenance { from_ms, to_ms, why: String::new() };
    command(world, LeaseCommand::Announce(new))
}

/// Windows for which the provider's orders of the open epoch are signed.
fn offered(world: &World) -> Vec<Window> {
    let engine = world.engine(PROVIDER).unwrap();
    let epoch = epoch_at(world.now_ms, world.params());
    let orders = engine.market().signed_for(epoch);
    orders.filter_map(|(_, order)| Some(order.rectangle.as_ref()?.1)).collect()
}

#[test]
fn it_is_offered_around_and_again_when_it_is_called_off() {
    let mut world = world(95, 2, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    let closed = window(20, 24);
    assert_eq!(announce(&mut world, closed), Ok(Done::Announced { number: 1 }));
    place(&mut world, PROVIDER, ask(1, 500, 4, window(8, 60)));
    let signs = |world: &World| offered(world).len() == 2;
    assert!(world.run_until(20_000, signs), "{}", story(&world));
    assert!(offered(&world).iter().all(|offer| !offer.overlaps(closed)), "{:?}", offered(&world));
    // So it is after a restart.
    let before = epoch_at(world.now_ms, world.params());
    world.restart(PROVIDER, 500);
    let signs_again = |world: &World| {
        let is_later = epoch_at(world.now_ms, world.params()) > before;
        is_later && world.engine(PROVIDER).is_some() && !offered(world).is_empty()
    };
    assert!(world.run_until(20_000, signs_again), "{}", story(&world));
    assert!(offered(&world).iter().all(|offer| !offer.overlaps(closed)), "{:?}", offered(&world));
    // Who wants those slots gets none; who wants others does.
    place(&mut world, BUYER, bid(1, 1000, 1, window(20, 24), 4));
    place(&mut world, BUYER, bid(1, 1000, 1, window(26, 30), 4));
    reach(&mut world, BUYER, "active");
    assert_eq!(trades(&world, BUYER).len(), 1);
    assert_eq!(command(&mut world, LeaseCommand::CallOff(1)), Ok(Done::Ok));
    let both = |world: &World| {
        trades(world, BUYER).iter().filter(|trade| trade.state == "active").count() == 2
    };
    assert!(world.run_until(60_000, both), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}
