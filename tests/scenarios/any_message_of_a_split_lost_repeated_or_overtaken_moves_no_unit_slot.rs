//! Each message of a split, a merge or a gift of a part is lost, comes twice, or comes after its
//! successors.

use capex::sim::Mishap;

use super::recuts::{Cut, HOLDER, assert_kept, tell};

const SEED: u64 = 62;
/// Longer than it takes until the same is asked for again.
const AGES_MS: u64 = 4_000;

#[test]
fn whichever_it_is() {
    let mishaps = [
        Mishap::Lost,
        Mishap::Again(40),
        Mishap::Again(AGES_MS),
        Mishap::Late(200),
        Mishap::Late(AGES_MS),
    ];
    for cut in Cut::ALL {
        let mut world = cut.begin(SEED);
        let first = world.settling.sent();
        let done = tell(&mut world, cut);
        assert!(matches!(done, Some(Ok(_))), "{cut:?}: {done:?}");
        assert_kept(&mut world, &format!("{cut:?}, no mishap"));
        let last = world.settling.sent();
        assert!(last >= first + 2, "{first} to {last}");
        for number in first + 1..=last {
            for mishap in mishaps {
                let mut world = cut.begin(SEED);
                world.settling.choose(number, mishap);
                let command = cut.command(&world);
                world.command(HOLDER, command);
                let label = format!("{cut:?}, message {number} of {first} to {last}: {mishap:?}");
                assert_kept(&mut world, &label);
                assert!(cut.is_done(&world), "{label}");
            }
        }
    }
}
