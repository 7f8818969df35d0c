//! What the wallet makes of chain updates.

use crate::bench::*;

#[test]
fn disconnected_blocks_take_their_coins_along() {
    let mut bench = Bench::with_coins(&[50_000]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    let late = payment(9, script, 70_000);
    bench.mine(vec![]);
    bench.mine(vec![late.clone()]);
    assert_eq!(bench.wallet.balance().confirmed_sat, 120_000);

    // The tip only shrinks.
    let disconnected = bench.chain.fork(2);
    let update = ChainUpdate { disconnected, ..bench.chain.update(vec![]) };
    bench.apply(&update);
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed_sat, balance.pending_sat), (50_000, 70_000));
    assert_eq!(bench.wallet.tip_height(), 1);
    bench.apply(&update);
    assert_eq!(bench.wallet.balance(), balance, "the same update again changes nothing");

    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.balance(), balance);
    bench.mine(vec![]);
    bench.mine(vec![late]);
    assert_eq!(bench.wallet.balance().confirmed_sat, 120_000);
    assert_eq!(bench.wallet.checkpoints()[0], (3, bench.chain.tip()));
}

#[test]
fn a_reorganisation_in_one_update_replaces_the_blocks() {
    let mut bench = Bench::with_coins(&[50_000]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    bench.mine(vec![payment(9, script.clone(), 70_000)]);
    let disconnected = bench.chain.fork(1);
    let mut update = bench.chain.mine(vec![payment(10, script, 90_000)]);
    update.disconnected = disconnected;
    bench.apply(&update);
    let balance = bench.wallet.balance();
    assert_eq!(balance.confirmed_sat, 140_000);
    assert_eq!(bench.wallet.checkpoints()[0], (2, bench.chain.tip()));
}

#[test]
fn a_light_source_may_leave_out_blocks() {
    let mut bench = Bench::with_coins(&[50_000]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    for _ in 0..5 {
        bench.chain.mine(vec![]);
    }
    let matched = bench.chain.mine(vec![payment(9, script, 70_000)]);
    for _ in 0..5 {
        bench.chain.mine(vec![]);
    }
    let update = bench.chain.update(matched.connected);
    bench.apply(&update);
    assert_eq!(bench.wallet.balance().confirmed_sat, 120_000);
    assert_eq!(bench.wallet.tip_height(), 12);
}

#[test]
fn a_block_that_does_not_connect_is_an_error() {
    let mut bench = Bench::with_coins(&[50_000]);
    bench.mine(vec![]);
    bench.chain.fork(2);
    bench.chain.mine(vec![]);
    let update = bench.chain.mine(vec![]);
    let error = bench.wallet.apply(&update, 1).unwrap_err();
    assert_eq!(error.code(), "wallet.disconnected");
}

/// The block above the tip is not one that follows from it, only because of its height.
#[test]
fn a_block_above_the_tip_of_another_branch_is_an_error() {
    let mut bench = Bench::with_coins(&[50_000]);
    bench.mine(vec![]);
    bench.chain.fork(1);
    bench.chain.mine(vec![]);
    let update = bench.chain.mine(vec![]);
    assert_eq!(update.connected[0].0, bench.wallet.tip_height() + 1);
    let error = bench.wallet.apply(&update, 1).unwrap_err();
    assert_eq!(error.code(), "wallet.disconnected");
}

#[test]
fn checkpoints_are_few_and_reach_genesis() {
    let mut bench = Bench::with_coins(&[50_000]);
    for _ in 0..300 {
        let update = bench.chain.mine(vec![]);
        bench.apply(&update);
    }
    let checkpoints = bench.wallet.checkpoints();
    assert!(checkpoints.len() < 30, "{}", checkpoints.len());
    assert_eq!(checkpoints[0], (301, bench.chain.tip()));
    assert_eq!(checkpoints.last().unwrap().0, 0);
    assert!(checkpoints.windows(2).all(|w| w[0].0 > w[1].0));
}

#[test]
fn an_immature_coinbase_is_pending() {
    let mut bench = Bench::with_coins(&[]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    let update = bench.chain.mine_to(script, vec![]);
    bench.apply(&update);
    let mined_at = bench.chain.height();
    while bench.chain.height() < mined_at + 98 {
        bench.mine(vec![]);
    }
    assert_eq!(bench.wallet.balance().spendable_sat, 0);
    assert_eq!(bench.fund(1, 10_000).unwrap_err().code(), "wallet.insufficient_funds");
    bench.mine(vec![]);
    assert_eq!(bench.wallet.balance().spendable_sat, 5_000_000_000);
    bench.fund(1, 10_000).unwrap();
}

#[test]
fn a_birthday_is_that_of_a_new_wallet_and_may_be_the_first_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    for _ in 0..10 {
        chain.mine(vec![]);
    }
    let tip = (chain.height(), chain.tip());
    let open = |birthday| Wallet::open(&keys(), NETWORK, open_store(dir.path()), birthday).unwrap();
    let first = open(Some((0, chain.tip())));
    assert_eq!((first.first_height(), first.tip_height()), (0, 0));
    drop(first);
    let again = open(Some(tip));
    assert_eq!((again.first_height(), again.tip_height()), (0, 0), "it is what it was");
}

#[test]
fn a_birthday_skips_older_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..10).for_each(|_| drop(chain.mine(vec![])));
    let birthday = Some((10, chain.tip()));
    let mut wallet = Wallet::open(&keys(), NETWORK, open_store(dir.path()), birthday).unwrap();
    assert_eq!(wallet.checkpoints()[0], (10, chain.tip()));
    assert_eq!(wallet.first_height(), 10);
    let script = wallet.fresh_scripts(1).unwrap().remove(0);
    wallet.apply(&chain.mine(vec![payment(1, script, 50_000)]), 1).unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 50_000);
}
