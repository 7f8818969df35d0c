use super::kit::{ask, assert_sound, bid, bought, place, rest, window, world};
use capex::sim::{BEGIN_MS, Branch, Links, Rng, Sides, World};

/// Seeds of a normal test run.
const SEEDS: u64 = 20;
/// How long everything goes wrong, ms.
const TROUBLE_MS: u64 = 25_000;

/// Two sellers, three buyers, bad links, and every node restarts once or twice.
pub(super) fn market(seed: u64) -> World {
    let mut world = world(seed, 5, Links::BAD);
    let mut rng = Rng::new(!seed);
    for seller in 0..2 {
        world.set_capacity(seller, &[(1, 4), (2, 2)]);
        place(&mut world, seller, ask(1, rng.within(300, 700), 4, window(9, 40)));
        place(&mut world, seller, ask(2, rng.within(300, 700), 2, window(9, 40)));
    }
    for buyer in 2..5 {
        let (qty, slots) = (rng.within(1, 4) as u32, rng.within(2, 5) as u16);
        place(&mut world, buyer, bid(1, rng.within(600, 1500), qty, window(9, 40), slots));
        place(&mut world, buyer, bid(2, rng.within(600, 1500), 1, window(9, 40), slots));
    }
    for node in 0..5 {
        for _ in 0..rng.within(1, 3) {
            let at_ms = BEGIN_MS + rng.within(1_000, TROUBLE_MS);
            world.restart_at(node, at_ms, rng.within(50, 3_000));
        }
    }
    world
}

#[test]
fn loss_duplication_reordering_cuts_reorganisations_and_restarts_break_nothing() {
    let seeds = std::env::var("CAPEX_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds: u64 = seeds.unwrap_or(SEEDS);
    let mut with_trade = 0;
    for seed in 0..seeds {
        let mut world = market(seed);
        let mut rng = Rng::new(seed ^ 0x5eed);
        while world.now_ms < BEGIN_MS + TROUBLE_MS + 3_000 {
            let cut = [rng.within(0, 5) as usize, rng.within(0, 5) as usize];
            world.sides = if rng.hits(200) { Sides::cut(&cut) } else { Sides::default() };
            world.run_for(2_000);
            if rng.hits(100) {
                world.reorganise(1, Branch::Same);
            }
            let faults = world.faults();
            assert!(faults.is_empty(), "seed {seed}, step {}: {faults:#?}", world.steps());
        }
        (world.links, world.sides) = (Links::GOOD, Sides::default());
        rest(&mut world);
        assert_sound(&world);
        with_trade += u64::from(bought(&world) > 0);
    }
    assert!(with_trade * 4 >= seeds * 3, "only {with_trade} of {seeds} seeds settled a trade");
}
