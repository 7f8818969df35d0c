use super::a_market_of_every_fault_keeps_its_promises::market;

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let mut world = market(seed);
        world.run_for(15_000);
        (world.steps(), world.digest())
    };
    let first = run(3);
    assert_eq!(first, run(3));
    assert_ne!(first, run(4));
}
