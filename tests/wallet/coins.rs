//! Which coins are kept for what, and until when.

use capex::wallet::{CoinState, MAX_FUND_OUTPUTS};

use crate::bench::*;

fn states(bench: &Bench) -> Vec<(u64, CoinState)> {
    let coins = bench.wallet.coin_list().into_iter();
    coins.map(|coin| (coin.amount_sat, coin.state)).collect()
}

fn unsettled(bench: &Bench) -> Vec<Transaction> {
    bench.wallet.unsettled().into_iter().map(|(_, tx)| tx).collect()
}

#[test]
fn each_coin_has_its_state_and_the_free_ones_come_first() {
    let mut bench = Bench::with_coins(&[10_000, 20_000, 40_000]);
    bench.fund(1, 35_000).unwrap();
    bench.fund(2, 18_000).unwrap();
    bench.wallet.lend([2; 32]).unwrap();
    let [script] = &bench.wallet.fresh_scripts(1).unwrap()[..] else { panic!() };
    let mempool = vec![payment(9, script.clone(), 5_000)];
    bench.apply(&ChainUpdate { mempool, ..bench.chain.update(vec![]) });
    let expected = [
        (10_000, CoinState::Free),
        (20_000, CoinState::Lent),
        (40_000, CoinState::Locked),
        (5_000, CoinState::Pending),
    ];
    assert_eq!(states(&bench), expected);
    let change = bench.fund(1, 35_000).unwrap();
    bench.wallet.mark_broadcast(&change.tx, 1_700_000_001).unwrap();
    let own = states(&bench).into_iter().filter(|(_, state)| *state == CoinState::Unconfirmed);
    assert_eq!(own.count(), 1, "own change, not a payment of others");
    let names = expected.map(|(_, state)| state.name());
    assert_eq!(names, ["free", "lent", "locked", "pending"]);
    assert_eq!(CoinState::Unconfirmed.name(), "unconfirmed");
}

/// It is cancelled by that at no cost, so a larger coin that is simply free stays.
#[test]
fn the_next_funding_takes_a_lent_coin_before_a_larger_one() {
    let mut bench = Bench::with_coins(&[30_000, 60_000]);
    let large = bench.fund(1, 25_000).unwrap();
    let small = bench.fund(2, 25_000).unwrap();
    bench.wallet.lend([2; 32]).unwrap();
    bench.wallet.release([1; 32]).unwrap();
    let next = bench.fund(3, 25_000).unwrap();
    assert_eq!(inputs(&next.tx), inputs(&small.tx));
    assert_ne!(inputs(&next.tx), inputs(&large.tx));
    // It is locked now, for as long as that one counts.
    assert_eq!(states(&bench), [(60_000, CoinState::Free), (30_000, CoinState::Locked)]);
}

#[test]
fn what_was_broadcast_or_is_being_cancelled_is_not_lent() {
    for is_cancelled in [false, true] {
        let mut bench = Bench::with_coins(&[50_000]);
        let funded = bench.fund(1, 20_000).unwrap();
        if is_cancelled {
            bench.cancel(1, FEERATE).unwrap();
        } else {
            bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
        }
        bench.wallet.lend([1; 32]).unwrap();
        let error = bench.fund(2, 40_000).unwrap_err();
        assert_eq!(error.code(), "wallet.insufficient_funds", "{is_cancelled}");
    }
}

#[test]
fn one_broadcast_is_of_one_funding() {
    let mut bench = Bench::with_coins(&[30_000, 60_000]);
    let [first, second] = [1, 2].map(|terms| bench.fund(terms, 20_000).unwrap().tx);
    bench.wallet.mark_broadcast(&first, 1_700_000_001).unwrap();
    assert_eq!(unsettled(&bench), std::slice::from_ref(&first));
    bench.wallet.mark_broadcast(&payment(3, foreign_script(3), 1), 1_700_000_001).unwrap();
    assert_eq!(unsettled(&bench), [first], "somebody else's");
    bench.wallet.mark_broadcast(&second, 1_700_000_002).unwrap();
    assert_eq!(unsettled(&bench).len(), 2);
}

#[test]
fn a_payment_is_sent_again_until_it_confirms_and_then_forgotten() {
    let to = Address::from_script(&foreign_script(5), NETWORK).unwrap();
    let mut bench = Bench::with_coins(&[50_000]);
    let paid = bench.wallet.send(&to, Amounts::Exactly(20_000), FEERATE, &[]).unwrap();
    assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&paid.tx));
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.open_payments(), std::slice::from_ref(&paid.tx));
    bench.mine(vec![paid.tx.clone()]);
    assert_eq!(bench.wallet.open_payments(), []);
    let bump = |bench: &mut Bench| {
        bench.wallet.bump_payment(paid.tx.compute_txid(), 30_000).unwrap_err().code()
    };
    for _ in 0..5 {
        assert_eq!(bump(&mut bench), "wallet.confirmed");
        bench.mine(vec![]);
    }
    assert_eq!(bump(&mut bench), "wallet.no_payment", "six blocks deep");
}

#[test]
fn a_funding_of_another_trade_is_no_open_payment() {
    let mut bench = Bench::with_coins(&[50_000]);
    let funded = bench.fund(1, 20_000).unwrap();
    bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
    assert_eq!(bench.wallet.open_payments(), []);
}

#[test]
fn amounts_and_outputs_have_bounds() {
    let mut bench = Bench::with_coins(&[50_000]);
    let most = Amount::MAX_MONEY.to_sat();
    let script = |n: usize| foreign_script(n as u8 + 1);
    let pay = |bench: &mut Bench, sats: &[u64]| {
        let outputs: Vec<_> = sats.iter().enumerate().map(|(n, sat)| (script(n), *sat)).collect();
        bench.wallet.fund([7; 32], &outputs, FEERATE, 1).unwrap_err().code()
    };
    let table: [(&[u64], &str); 7] = [
        (&[1_000; MAX_FUND_OUTPUTS + 1], "wallet.too_many_outputs"),
        (&[2_000; MAX_FUND_OUTPUTS], "wallet.insufficient_funds"),
        (&[0], "wallet.bad_amount"),
        (&[1_000, 0], "wallet.bad_amount"),
        (&[most], "wallet.insufficient_funds"),
        (&[most, 1], "wallet.bad_amount"),
        (&[u64::MAX, 1], "wallet.bad_amount"),
    ];
    for (sats, code) in table {
        assert_eq!(pay(&mut bench, sats), code, "{sats:?}");
    }
    assert_eq!(bench.wallet.balance().locked_sat, 0);
}

/// The doubling steps of what a chain source may resume from.
#[test]
fn checkpoints_are_dense_near_the_tip_and_end_at_genesis() {
    let mut bench = Bench::with_coins(&[]);
    for _ in 0..60 {
        bench.mine(vec![]);
    }
    let heights: Vec<u32> = bench.wallet.checkpoints().iter().map(|(height, _)| *height).collect();
    let dense: Vec<u32> = (45..=61).rev().collect();
    let sparse = [43, 39, 31, 15, 0];
    assert_eq!(heights, [dense, sparse.to_vec()].concat());
}
