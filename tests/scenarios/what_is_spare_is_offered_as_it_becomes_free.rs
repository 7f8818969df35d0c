use super::kit::{ask, assert_sound, bid, place, reach, rest, story, trades, window, world};
use capex::sim::{Links, World};
use capex_core::engine::Done;
use capex_core::engine::market::{MarketCommand, OrderSpec, Standing};
use capex_core::engine::register::{RegisterCommand, Room};
use capex_core::ids::StandingId;

const PROVIDER: usize = 0;
const BUYER: usize = 1;
/// Two processors; memory for four units of the first class and two of the second.
const ROOM: Room = Room { cpu_milli: 2_500, memory_mib: 2_048, disk_mib: 1_024, gpus: 0 };

fn spare(class: u16) -> OrderSpec {
    OrderSpec { is_spare: true, ..ask(class, 500, 1, window(8, 40)) }
}

fn sharing(seed: u64) -> World {
    let mut world = world(seed, 2, Links::GOOD);
    world.command(PROVIDER, RegisterCommand::Share(ROOM));
    world
}

fn placed(world: &mut World, spec: OrderSpec) -> Result<StandingId, String> {
    let command = world.command(PROVIDER, MarketCommand::Place(Box::new(spec)));
    match world.answer(PROVIDER, command) {
        Some(Ok(Done::Placed(id))) => Ok(*id),
        Some(Err(refusal)) => Err(refusal.code.clone()),
        other => panic!("{other:?}"),
    }
}

fn standing(world: &World, id: StandingId) -> Standing {
    let market = world.engine(PROVIDER).unwrap().market();
    market.standing().find(|order| order.id == id).unwrap().clone()
}

fn capacity(world: &World, class: u16) -> u32 {
    world.engine(PROVIDER).unwrap().register().ledger.capacity(class)
}

/// Whether the provider has signed for a new epoch since.
fn signs_again(world: &mut World, id: StandingId) {
    let before = standing(world, id).last_epoch;
    let signed = world.run_until(10_000, |world| standing(world, id).last_epoch > before);
    assert!(signed, "{}", story(world));
}

#[test]
fn units_are_offered_again_around_what_is_sold() {
    let mut world = sharing(91);
    let id = placed(&mut world, spare(1)).unwrap();
    assert_eq!(standing(&world, id).spec.qty, 2);
    place(&mut world, BUYER, bid(1, 1000, 1, window(10, 13), 3));
    reach(&mut world, BUYER, "active");
    // Of the unit that was sold, what comes before and after it is still for sale.
    signs_again(&mut world, id);
    place(&mut world, BUYER, bid(1, 1000, 2, window(24, 27), 3));
    let both = |world: &World| {
        trades(world, BUYER).iter().filter(|trade| trade.state == "active").count() >= 2
    };
    assert!(world.run_until(60_000, both), "{}", story(&world));
    assert_eq!(standing(&world, id).spec.qty, 2);
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn what_one_class_offers_is_not_there_for_another() {
    let mut world = sharing(92);
    assert_eq!((capacity(&world, 1), capacity(&world, 2)), (2, 2));
    // A GPU is not there for anybody.
    assert_eq!(capacity(&world, 4), 0);
    let one = OrderSpec { is_spare: false, ..spare(1) };
    let one = placed(&mut world, one).unwrap();
    assert_eq!((capacity(&world, 1), capacity(&world, 2)), (2, 1));
    let two = placed(&mut world, spare(2)).unwrap();
    assert_eq!(standing(&world, two).spec.qty, 1);
    assert_eq!((capacity(&world, 1), capacity(&world, 2)), (1, 1));
    assert_eq!(placed(&mut world, spare(2)), Err("order.capacity_exceeded".to_owned()));
    signs_again(&mut world, one);
    // What was signed for an epoch may still be matched: only then the other class grows.
    world.command(PROVIDER, MarketCommand::Cancel(one));
    assert_eq!((capacity(&world, 1), capacity(&world, 2)), (1, 1));
    let grows = |world: &World| standing(world, two).spec.qty == 2;
    assert!(world.run_until(20_000, grows), "{}", story(&world));
    assert_eq!((capacity(&world, 1), capacity(&world, 2)), (0, 2));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn what_an_order_that_was_cancelled_is_signed_for_is_not_spare_before_its_epoch() {
    let mut world = sharing(94);
    let one = OrderSpec { is_spare: false, ..spare(1) };
    let one = placed(&mut world, one).unwrap();
    signs_again(&mut world, one);
    world.command(PROVIDER, MarketCommand::Cancel(one));
    // Its unit may still be matched.
    let rest_of_it = placed(&mut world, spare(1)).unwrap();
    assert_eq!(standing(&world, rest_of_it).spec.qty, 1);
    let grows = |world: &World| standing(world, rest_of_it).spec.qty == 2;
    assert!(world.run_until(20_000, grows), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn nothing_is_offered_of_a_class_that_was_not_proved() {
    let mut world = sharing(93);
    let id = placed(&mut world, spare(1)).unwrap();
    world.command(PROVIDER, RegisterCommand::Withhold([1].into()));
    assert_eq!(placed(&mut world, spare(1)), Err("host.untested".to_owned()));
    let noted = |world: &World| standing(world, id).note.as_deref() == Some("host.untested");
    assert!(world.run_until(10_000, noted), "{}", story(&world));
    let signed = standing(&world, id).last_epoch;
    world.run_for(10_000);
    assert_eq!(standing(&world, id).last_epoch, signed);
    world.command(PROVIDER, RegisterCommand::Withhold([2].into()));
    signs_again(&mut world, id);
}
