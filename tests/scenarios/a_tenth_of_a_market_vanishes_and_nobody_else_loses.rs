//! Twenty nodes trade. Two of them vanish for good and two for a while, each in the middle of
//! something: in a settlement, or before it, or between two.
//!
//! `CAPEX_EXPLORE` (`scripts/explore`) plays more seeds here too, up to [`SEEDS_MAX`].

use capex::sim::{Kill, Links, NodeId, Rng, World};

use super::kit::{ask, assert_sound_after, bid, bought, is_in, place, rest, story, window, world};

const NODES: usize = 20;
const SELLERS: usize = 8;
/// A tenth vanishes for good, a tenth comes back, in turns.
const STRUCK: usize = 4;
/// Seeds of a normal test run.
const SEEDS: u64 = 3;
/// Seeds at most: one is as large as ten of the explorer.
const SEEDS_MAX: u64 = 1_000;
/// How long a point in a settlement is waited for, ms.
const PATIENCE_MS: u64 = 8_000;
/// A world in which more happens goes in circles.
const HAPPENINGS_MAX: u64 = 20_000_000;

/// States of a trade that has not ended, of its seller and of its buyer.
const POINTS: [&str; 11] = [
    "offered",
    "terms_signed",
    "lock_granted",
    "fund_seen",
    "claim_sent",
    "claimed",
    "draft",
    "fund_built",
    "fund_sent",
    "fund_confirmed",
    "preimage_known",
];

fn market(seed: u64, rng: &mut Rng) -> World {
    let mut world = world(seed, NODES, Links::BAD);
    world.set_fuse(HAPPENINGS_MAX);
    for node in 0..SELLERS {
        let class = class_of(node);
        world.set_capacity(node, &[(class, 4)]);
        place(&mut world, node, ask(class, rng.within(300, 700), 4, window(12, 40)));
    }
    for node in SELLERS..NODES - 2 * STRUCK {
        buy(&mut world, node, rng);
    }
    world
}

fn class_of(node: NodeId) -> u16 {
    if node.is_multiple_of(2) { 1 } else { 2 }
}

fn buy(world: &mut World, node: NodeId, rng: &mut Rng) {
    let (qty, slots) = (rng.within(1, 4) as u32, rng.within(1, 4) as u16);
    let bid = bid(class_of(node), rng.within(1_000, 3_000), qty, window(12, 40), slots);
    place(world, node, bid);
}

/// Ends a node that nothing has happened to at a random point of one of its settlements: in a
/// state, a little later, or at one of its next writes. If nobody comes to it, a node without.
fn strike(world: &mut World, struck: &[NodeId], rng: &mut Rng) -> NodeId {
    let state = POINTS[usize::try_from(rng.within(0, POINTS.len() as u64)).unwrap()];
    let others = || (0..NODES).filter(|node| !struck.contains(node));
    let there = |world: &World| others().filter(|node| is_in(world, *node, state)).collect();
    world.run_until(PATIENCE_MS, |world| others().any(|node| is_in(world, node, state)));
    let mut nodes: Vec<NodeId> = there(world);
    if nodes.is_empty() {
        nodes = others().collect();
    }
    let node = nodes[usize::try_from(rng.within(0, nodes.len() as u64)).unwrap()];
    if rng.hits(300) {
        let disk = &world.nodes[node].disk;
        let side = if rng.hits(500) { Kill::Before } else { Kill::After };
        disk.kill_at(disk.writes() + rng.within(0, 4), side);
        world.run_for(1_500);
    } else if rng.hits(500) {
        world.run_for(rng.within(1, 600));
    }
    world.crash(node);
    node
}

/// Returns how many trades of the others went through.
fn play(seed: u64) -> usize {
    let mut rng = Rng::new(seed ^ 0x7e47);
    let mut world = market(seed, &mut rng);
    let mut struck = Vec::new();
    for n in 0..STRUCK {
        // So that there are settlements until the last.
        for late in [2 * n, 2 * n + 1].map(|late| NODES - 2 * STRUCK + late) {
            if !struck.contains(&late) {
                buy(&mut world, late, &mut rng);
            }
        }
        let node = strike(&mut world, &struck, &mut rng);
        struck.push(node);
        if n % 2 == 1 {
            world.restart(node, rng.within(200, 20_000));
        }
    }
    // Longer than anybody is away.
    world.run_for(20_500);
    world.links = Links::GOOD;
    let gone: Vec<NodeId> = struck.iter().copied().step_by(2).collect();
    for node in (0..NODES).filter(|node| !gone.contains(node)) {
        // One that was to die at a later write may have died in the meantime.
        world.start(node);
    }
    rest(&mut world);
    assert_sound_after(&format!("{gone:?} vanished, of {struck:?}"), &world);
    let lives = |node: NodeId| world.engine(node).is_some();
    assert!((0..NODES).all(|node| lives(node) != gone.contains(&node)), "{}", story(&world));
    bought(&world)
}

#[test]
#[allow(clippy::print_stdout, reason = "says how far it came")]
fn whatever_the_seed() {
    let asked = std::env::var("CAPEX_EXPLORE").ok().and_then(|text| text.parse().ok());
    let seeds = asked.unwrap_or(SEEDS).min(SEEDS_MAX);
    let bought: usize = (0..seeds).map(play).sum();
    println!("{seeds} markets of {NODES}: {bought} sales");
    assert!(bought >= 2 * usize::try_from(seeds).unwrap(), "only {bought} in {seeds} markets");
}
