//! Cancels of FUNDs that depend on each other, FUNDs that nobody answered for, and higher
//! fees: no coin stays locked for a transaction that can never confirm.

use crate::bench::*;

/// Confirmations from which nothing is undone.
const FINAL: usize = 6;

impl Bench {
    fn sent(&mut self, terms: u8, sat: u64) -> Funded {
        let funded = self.fund(terms, sat).unwrap();
        self.broadcast(&funded);
        funded
    }

    fn broadcast(&mut self, funded: &Funded) {
        self.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
    }

    fn code_of_cancel(&mut self, terms: u8) -> &'static str {
        self.cancel(terms, FEERATE).unwrap_err().code()
    }

    fn deepen(&mut self) {
        (0..FINAL).for_each(|_| self.mine(vec![]));
    }

    fn is_at_rest(&self) -> bool {
        let balance = self.wallet.balance();
        (balance.locked_sat, balance.pending_sat) == (0, 0)
            && balance.spendable_sat == balance.confirmed_sat
    }
}

#[test]
fn change_that_may_vanish_is_never_mixed_with_confirmed_coins() {
    let mut bench = Bench::with_coins(&[100_000, 40_000]);
    let first = bench.sent(1, 60_000);
    // 40,000 confirmed and nearly 40,000 of change: together they would do.
    match bench.fund(2, 60_000).unwrap_err() {
        WalletError::InsufficientFunds { have_sat, .. } => assert_eq!(have_sat, 40_000),
        other => panic!("{other}"),
    }
    let confirmed = bench.fund(3, 30_000).unwrap();
    assert_eq!(confirmed.tx.input.len(), 1);
    let change = bench.fund(4, 30_000).unwrap();
    let parents: Vec<_> = inputs(&change.tx).iter().map(|coin| coin.txid).collect();
    assert_eq!(parents, [first.tx.compute_txid()], "only where nothing else suffices");
}

#[test]
fn the_change_of_what_is_being_cancelled_is_nobodys() {
    let mut bench = Bench::with_coins(&[100_000]);
    bench.sent(1, 60_000);
    let cancel = bench.cancel(1, FEERATE).unwrap();
    assert_eq!(bench.fund(2, 20_000).unwrap_err().code(), "wallet.insufficient_funds");
    bench.broadcast(&cancel);
    let funded = bench.fund(2, 20_000).unwrap();
    assert_eq!(inputs(&funded.tx)[0].txid, cancel.tx.compute_txid());
}

#[test]
fn a_fund_on_the_change_of_a_cancelled_one_ends_with_it() {
    for restarts in [false, true] {
        let mut bench = Bench::with_coins(&[100_000]);
        bench.sent(1, 60_000);
        bench.sent(2, 20_000);
        let cancel = bench.cancel(1, FEERATE).unwrap();
        assert_eq!(bench.code_of_cancel(2), "wallet.fund_orphaned", "before it is broadcast");
        bench.broadcast(&cancel);
        assert_eq!(bench.code_of_cancel(2), "wallet.fund_orphaned");
        if restarts {
            bench = bench.reopen();
        }
        bench.mine(vec![cancel.tx]);
        assert!(bench.is_at_rest(), "{:?}", bench.wallet.balance());
        assert_eq!(bench.code_of_cancel(2), "wallet.fund_orphaned", "it is not deep yet");
        bench.deepen();
        assert_eq!(bench.code_of_cancel(2), "wallet.fund_dead");
        assert_eq!(bench.wallet.unsettled(), vec![]);
        bench = bench.reopen();
        assert_eq!(bench.code_of_cancel(2), "wallet.fund_dead");
        assert_eq!(bench.wallet.balance().spendable_sat, 100_000 - cancel.fee_sat);
        bench.fund(3, 95_000).unwrap();
    }
}

#[test]
fn a_cancel_leaves_out_coins_that_vanish_and_is_made_anew_when_one_does() {
    let mut bench = Bench::with_coins(&[100_000, 100_000]);
    bench.sent(1, 60_000);
    bench.sent(2, 60_000);
    // From the change of both.
    let third = bench.sent(3, 60_000);
    assert_eq!(third.tx.input.len(), 2);
    let early = bench.cancel(3, FEERATE).unwrap();
    assert_eq!(inputs(&early.tx), inputs(&third.tx));
    bench.broadcast(&early);
    let first = bench.cancel(1, FEERATE).unwrap();
    assert!(first.fee_sat > early.fee_sat, "it evicts the cancel of the third");
    bench.broadcast(&first);
    let late = bench.cancel(3, FEERATE).unwrap();
    assert_eq!(late.tx.input.len(), 1, "one conflict is enough");
    assert_eq!(bench.cancel(3, FEERATE).unwrap(), late);
    bench.broadcast(&late);
    let second = bench.wallet.unsettled().into_iter().find(|(id, _)| *id == [2; 32]).unwrap().1;
    bench.mine(vec![first.tx.clone(), second, late.tx.clone()]);
    assert!(bench.is_at_rest(), "{:?}", bench.wallet.balance());
    bench.deepen();
    let mut bench = bench.reopen();
    assert_eq!(bench.code_of_cancel(3), "wallet.fund_dead");
    assert!(bench.is_at_rest());
    // A coin that a dead FUND would have spent is free.
    let free = bench.wallet.balance().spendable_sat;
    bench.fund(4, free - 1_000).unwrap();
}

#[test]
fn a_coin_that_comes_back_is_not_kept_for_a_dead_fund() {
    let mut bench = Bench::with_coins(&[100_000, 100_000]);
    let first = bench.sent(1, 60_000);
    bench.sent(2, 60_000);
    bench.sent(3, 60_000);
    let cancel = bench.cancel(1, FEERATE).unwrap();
    bench.broadcast(&cancel);
    let third = bench.cancel(3, FEERATE).unwrap();
    bench.broadcast(&third);
    // The first confirms all the same, so its change exists, but the third is cancelled.
    let second = bench.wallet.unsettled().into_iter().find(|(id, _)| *id == [2; 32]).unwrap().1;
    bench.mine(vec![first.tx, second, third.tx]);
    assert!(bench.wallet.balance().locked_sat > 0, "until the cancel is final");
    bench.deepen();
    assert!(bench.is_at_rest(), "{:?}", bench.wallet.balance());
    assert_eq!(bench.code_of_cancel(1), "wallet.confirmed");
}

#[test]
fn a_better_cancel_is_made_for_a_rate_that_has_risen() {
    let mut bench = Bench::with_coins(&[100_000]);
    bench.sent(1, 60_000);
    let first = bench.cancel(1, FEERATE).unwrap();
    assert_eq!(bench.cancel(1, FEERATE * 5 / 4).unwrap(), first, "an estimate may tremble");
    let second = bench.cancel(1, 20_000).unwrap();
    assert!(second.fee_sat >= 20 * second.tx.vsize() as u64);
    assert_eq!(bench.cancel(1, FEERATE).unwrap(), second, "and may fall");
    assert_eq!(first.tx.output[0].script_pubkey, second.tx.output[0].script_pubkey);
    // What no coin can pay is paid as far as they go, and never worse than before.
    let most = bench.cancel(1, 9_000_000).unwrap();
    assert!(most.tx.output[0].value.to_sat() < 1_000);
    assert_eq!(bench.reopen().cancel(1, 10_000_000).unwrap(), most);
}

#[test]
fn coins_of_a_fund_that_nobody_answered_for_pay_the_next_one() {
    let mut bench = Bench::with_coins(&[60_000, 100_000]);
    // Of 60,000: the exact match of coins would be another one.
    let silent = bench.fund(1, 59_500).unwrap();
    assert_eq!(inputs(&silent.tx).len(), 1);
    let locked_sat = bench.wallet.balance().locked_sat;
    bench.wallet.lend([1; 32]).unwrap();
    let mut bench = bench.reopen();
    let balance = bench.wallet.balance();
    assert_eq!((balance.locked_sat, balance.spendable_sat), (0, 160_000));
    assert_eq!(bench.fund(1, 59_500).unwrap(), silent, "it stays journaled");

    let next = bench.fund(2, 30_000).unwrap();
    assert_eq!(inputs(&next.tx), inputs(&silent.tx), "they go first");
    assert_eq!(bench.wallet.balance().locked_sat, locked_sat);
    assert_eq!(bench.code_of_cancel(1), "wallet.fund_superseded");
    bench.broadcast(&next);
    bench.mine(vec![next.tx]);
    bench.deepen();
    assert_eq!(bench.code_of_cancel(1), "wallet.fund_dead", "without a transaction of its own");
    assert!(bench.is_at_rest());
    assert_eq!(bench.wallet.lend([9; 32]).unwrap_err().code(), "wallet.no_fund");
}

#[test]
fn a_lent_fund_is_cancelled_as_usual_when_nobody_took_its_coins() {
    let mut bench = Bench::with_coins(&[100_000]);
    let silent = bench.fund(1, 60_000).unwrap();
    bench.wallet.lend([1; 32]).unwrap();
    let cancel = bench.cancel(1, FEERATE).unwrap();
    assert_eq!(inputs(&cancel.tx), inputs(&silent.tx));
    assert_eq!(bench.wallet.balance().locked_sat, 100_000, "until it confirms");
    bench.wallet.lend([1; 32]).unwrap();
    assert_eq!(bench.wallet.balance().locked_sat, 100_000, "it is too late to lend");
    bench.broadcast(&cancel);
    bench.mine(vec![cancel.tx]);
    assert!(bench.is_at_rest());
}

#[test]
fn a_lent_fund_that_confirms_after_all_takes_its_coins() {
    let mut bench = Bench::with_coins(&[100_000]);
    let silent = bench.fund(1, 60_000).unwrap();
    bench.wallet.lend([1; 32]).unwrap();
    let next = bench.fund(2, 30_000).unwrap();
    bench.broadcast(&next);
    bench.mine(vec![silent.tx]);
    assert_eq!(bench.code_of_cancel(1), "wallet.confirmed");
    assert_eq!(bench.code_of_cancel(2), "wallet.fund_orphaned");
    bench.deepen();
    assert_eq!(bench.code_of_cancel(2), "wallet.fund_dead");
    assert!(bench.is_at_rest());
}

#[test]
fn a_bumped_fund_keeps_its_outputs_and_their_places() {
    let mut bench = Bench::with_coins(&[100_000]);
    let outputs = [(foreign_script(1), 30_000), (foreign_script(2), 20_000)];
    let at = |bench: &mut Bench, rate| bench.wallet.fund([1; 32], &outputs, rate, 1).unwrap();
    let first = at(&mut bench, FEERATE);
    assert_eq!(at(&mut bench, 50_000), first, "nobody has seen it: it stays the same");
    bench.broadcast(&first);
    let second = at(&mut bench, 50_000);
    let places = |f: &Funded| f.outpoints.iter().map(|o| o.vout).collect::<Vec<_>>();
    assert_eq!(places(&second), places(&first));
    assert_eq!(inputs(&second.tx), inputs(&first.tx));
    verify(&second.tx, &bench.prevouts(&second.tx)).unwrap();
    let vsize = second.tx.vsize() as u64;
    assert!(second.fee_sat >= 50 * vsize && second.fee_sat >= first.fee_sat + vsize);
    assert_eq!(at(&mut bench, FEERATE), second);
    bench.broadcast(&second);
    assert_eq!(bench.wallet.balance().pending_sat, 50_000 - second.fee_sat);
    assert_eq!(at(&mut bench, 9_000_000), second, "its change cannot pay that");
    // Its change pays another: a third version would take that along.
    bench.sent(2, 20_000);
    assert_eq!(at(&mut bench, 100_000), second);
    // The first version may confirm all the same.
    bench.mine(vec![first.tx.clone()]);
    assert_eq!(bench.code_of_cancel(1), "wallet.confirmed");
    bench.deepen();
    assert_eq!(bench.code_of_cancel(2), "wallet.fund_dead");
    assert!(bench.is_at_rest());
}

#[test]
fn a_fund_on_unconfirmed_change_pays_for_its_ancestors() {
    let mut bench = Bench::with_coins(&[100_000]);
    let first = bench.sent(1, 30_000);
    let outputs = [(foreign_script(2), 20_000)];
    let second = bench.wallet.fund([2; 32], &outputs, 20_000, 1).unwrap();
    bench.broadcast(&second);
    let sizes = (first.tx.vsize() + second.tx.vsize()) as u64;
    let rate = (first.fee_sat + second.fee_sat) * 1_000 / sizes;
    assert!((20_000..20_400).contains(&rate), "{rate} sat/kvB");
    // At a lower rate than its ancestors it pays its own way, and is not carried.
    let outputs = [(foreign_script(3), 10_000)];
    let third = bench.wallet.fund([3; 32], &outputs, FEERATE, 1).unwrap();
    let rate = third.fee_sat * 1_000 / third.tx.vsize() as u64;
    assert!((FEERATE..FEERATE + 100).contains(&rate), "{rate} sat/kvB");
}
