//! The block with the claim that paid for a certificate gives way while its parts are cut, joined
//! and given: the provider's word stands.

use capex::sim::Branch;

use super::recuts::{Cut, FRIEND, HOLDER, assert_kept, tell};

const SEED: u64 = 63;

#[test]
fn before_and_after_it() {
    for cut in Cut::ALL {
        for branch in [Branch::Same, Branch::Empty, Branch::Forgetful] {
            for is_first in [true, false] {
                let mut world = cut.begin(SEED);
                let label = format!("{cut:?}, {branch:?}, reorganised first: {is_first}");
                if is_first {
                    world.reorganise(1, branch);
                }
                let done = tell(&mut world, cut);
                assert!(matches!(done, Some(Ok(_))), "{label}: {done:?}");
                if !is_first {
                    world.reorganise(1, branch);
                }
                assert_kept(&mut world, &label);
                assert!(cut.is_done(&world), "{label}");
            }
        }
    }
}

/// The friend of the holder cuts what it was given, deeper in the chain than the block that goes.
#[test]
fn in_the_middle_of_several() {
    for depth in 1..=2 {
        let mut world = Cut::GiftOfUnit.begin(SEED);
        for (number, cut) in [Cut::GiftOfUnit, Cut::ByTime, Cut::Merge].into_iter().enumerate() {
            let done = tell(&mut world, cut);
            assert!(matches!(done, Some(Ok(_))), "{cut:?}: {done:?}");
            if number == 1 {
                world.reorganise(depth, Branch::Empty);
            }
        }
        assert_kept(&mut world, &format!("{depth} blocks"));
        let left = (
            super::recuts::usable(&world, HOLDER).len(),
            super::recuts::usable(&world, FRIEND).len(),
        );
        assert_eq!(left, (1, 1));
    }
}
