//! A disk is put back to what it was before a certificate was cut, joined or given in part.

use capex::sim::{NodeId, World};
use capex_core::engine::kernel::Record;

use super::recuts::{Cut, FRIEND, HOLDER, PROVIDER, assert_kept, tell, usable};

const SEED: u64 = 65;

fn restore(world: &World, node: NodeId, copy: &[Record]) {
    let disk = &world.nodes[node].disk;
    let gone = disk.records().into_iter().map(|record| Record { value: None, ..record });
    let records: Vec<Record> = gone.chain(copy.iter().cloned()).collect();
    disk.write(&records).unwrap();
}

/// Cuts, and then a node begins a life on a copy that was made before.
fn restored(cut: Cut, node: NodeId) -> World {
    let mut world = cut.begin(SEED);
    let copy = world.nodes[node].disk.records();
    let done = tell(&mut world, cut);
    assert!(matches!(done, Some(Ok(_))), "{cut:?}: {done:?}");
    world.run_for(1_000);
    world.crash(node);
    // The copy knows as little of the orders that were signed: their epochs pass.
    world.run_for(7_000);
    restore(&world, node, &copy);
    world.start(node);
    world
}

/// Its peers tell the provider that it has signed more than it knows: it signs no more, and who
/// holds the parts still shows them to anyone.
#[test]
fn the_provider() {
    for cut in Cut::ALL {
        let mut world = restored(cut, PROVIDER);
        let halted = |world: &World| world.engine(PROVIDER).unwrap().register().halted();
        assert!(world.run_until(5_000, |world| halted(world).is_some()), "{cut:?}");
        assert_eq!(halted(&world), Some("register.behind"), "{cut:?}");
        let left = (usable(&world, HOLDER), usable(&world, FRIEND));
        // Whatever is asked of it, and if it were what it has signed for others already.
        let again = match cut {
            Cut::ByUnits | Cut::GiftOfUnit => Cut::ByTime,
            _ => Cut::ByUnits,
        };
        let asked = tell(&mut world, again);
        assert!(!matches!(asked, Some(Ok(_))), "{cut:?}: {asked:?}");
        assert_eq!((usable(&world, HOLDER), usable(&world, FRIEND)), left, "{cut:?}");
        let provider = world.nodes[PROVIDER].key;
        for (node, engine) in world.engines() {
            assert!(!engine.witness().is_equivocator(provider), "{cut:?}: node {node}");
        }
        let faults = world.faults();
        assert!(faults.is_empty(), "{cut:?}: {faults:?}");
    }
}

/// The holder asks its provider what it holds, and has everything again.
#[test]
fn the_holder() {
    for cut in Cut::ALL {
        let mut world = restored(cut, HOLDER);
        assert_kept(&mut world, &format!("{cut:?}"));
        assert!(cut.is_done(&world), "{cut:?}: {:?}", usable(&world, HOLDER));
    }
}

/// So does the one who was given a part.
#[test]
fn the_one_who_was_given_a_part() {
    for cut in [Cut::GiftOfUnit, Cut::GiftOfSlot] {
        let mut world = restored(cut, FRIEND);
        assert_kept(&mut world, &format!("{cut:?}"));
        assert!(cut.is_done(&world), "{cut:?}: {:?}", usable(&world, FRIEND));
    }
}
