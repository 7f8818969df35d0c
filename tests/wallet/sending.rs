//! Payments that a person asks for.

use crate::bench::*;

fn to(n: u8) -> Address {
    Address::from_script(&foreign_script(n), NETWORK).unwrap()
}

fn all_pay(bench: &mut Bench, amount: Amounts) -> Transaction {
    let quote = bench.wallet.quote_send(&to(5), amount, FEERATE, &[]).unwrap();
    assert_eq!(bench.wallet.quote_send(&to(5), amount, FEERATE, &[]).unwrap(), quote);
    assert_eq!(bench.wallet.balance().locked_sat, 0, "a preview locks nothing");
    let payment = bench.wallet.send(&to(5), amount, FEERATE, &[]).unwrap();
    assert_eq!(payment, quote, "the act is what the preview said");
    verify(&payment.tx, &bench.prevouts(&payment.tx)).unwrap();
    let paid = payment.tx.output.iter().find(|o| o.script_pubkey == foreign_script(5)).unwrap();
    assert_eq!(paid.value.to_sat(), payment.amount_sat);
    payment.tx
}

#[test]
fn a_preview_is_what_is_sent() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let tx = all_pay(&mut bench, Amounts::Exactly(20_000));
    assert_eq!(tx.output.len(), 2);
}

#[test]
fn all_takes_every_free_coin_and_no_locked_one() {
    let mut bench = Bench::with_coins(&[50_000, 60_000, 70_000]);
    let fund = bench.fund(1, 30_000).unwrap();
    let payment = bench.wallet.send(&to(5), Amounts::All, FEERATE, &[]).unwrap();
    let locked = inputs(&fund.tx);
    assert!(inputs(&payment.tx).iter().all(|coin| !locked.contains(coin)));
    assert_eq!((payment.tx.input.len(), payment.tx.output.len()), (2, 1));
    let free: u64 = bench.prevouts(&payment.tx).iter().map(|o| o.value.to_sat()).sum();
    assert_eq!(payment.amount_sat + payment.fee_sat, free);
    assert_eq!(payment.change_sat, 0);
    let error = bench.wallet.send(&to(5), Amounts::All, FEERATE, &[]).unwrap_err();
    assert_eq!(error.code(), "wallet.insufficient_funds");
}

#[test]
fn a_payment_is_bumped_until_it_confirms() {
    for amount in [Amounts::Exactly(20_000), Amounts::All] {
        let mut bench = Bench::with_coins(&[50_000]);
        let first = bench.wallet.send(&to(5), amount, FEERATE, &[]).unwrap();
        let txid = first.tx.compute_txid();
        bench.wallet.mark_broadcast(&first.tx, 1_700_000_000).unwrap();
        let same = bench.wallet.bump_payment(txid, FEERATE).unwrap_err();
        assert_eq!(same.code(), "wallet.not_bumped");
        let much = bench.wallet.bump_payment(txid, 9_000_000).unwrap_err();
        assert_eq!(much.code(), "wallet.not_bumped");
        let second = bench.wallet.bump_payment(txid, 30_000).unwrap();
        assert_eq!(inputs(&second.tx), inputs(&first.tx));
        verify(&second.tx, &bench.prevouts(&second.tx)).unwrap();
        assert!(second.fee_sat >= 30 * second.tx.vsize() as u64);
        if amount != Amounts::All {
            assert_eq!(second.amount_sat, first.amount_sat, "the change pays");
        }
        let mut bench = bench.reopen();
        assert_eq!(bench.wallet.unsettled()[0].1, second.tx);
        let old = bench.wallet.bump_payment(txid, 90_000).unwrap_err();
        assert_eq!(old.code(), "wallet.no_payment");
        bench.wallet.mark_broadcast(&second.tx, 1_700_000_001).unwrap();
        bench.mine(vec![second.tx.clone()]);
        let late = bench.wallet.bump_payment(second.tx.compute_txid(), 90_000).unwrap_err();
        assert_eq!(late.code(), "wallet.confirmed");
    }
}

#[test]
fn a_fund_is_not_bumped_as_a_payment() {
    let mut bench = Bench::with_coins(&[50_000]);
    let fund = bench.fund(1, 20_000).unwrap();
    let error = bench.wallet.bump_payment(fund.tx.compute_txid(), 90_000).unwrap_err();
    assert_eq!(error.code(), "wallet.no_payment");
}

fn free(bench: &Bench) -> Vec<OutPoint> {
    bench.wallet.coin_list().into_iter().map(|coin| coin.outpoint).collect()
}

#[test]
fn named_coins_are_spent_all_of_them_and_no_others() {
    for amount in [Amounts::Exactly(20_000), Amounts::All] {
        let mut bench = Bench::with_coins(&[50_000, 60_000, 70_000]);
        let coins = free(&bench);
        let named = [coins[2], coins[0]];
        let quote = bench.wallet.quote_send(&to(5), amount, FEERATE, &named).unwrap();
        let payment = bench.wallet.send(&to(5), amount, FEERATE, &named).unwrap();
        assert_eq!(payment, quote);
        let spent: BTreeSet<OutPoint> = inputs(&payment.tx).into_iter().collect();
        assert_eq!(spent, BTreeSet::from(named));
        verify(&payment.tx, &bench.prevouts(&payment.tx)).unwrap();
        assert_eq!(payment.amount_sat + payment.fee_sat + payment.change_sat, 120_000);
        assert_eq!(payment.change_sat == 0, amount == Amounts::All);
    }
}

#[test]
fn a_named_coin_that_cannot_be_spent_refuses_the_payment() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let stranger = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    let update =
        ChainUpdate { mempool: vec![payment(77, stranger, 9_000)], ..bench.chain.update(vec![]) };
    bench.apply(&update);
    let pending = OutPoint::new(update.mempool[0].compute_txid(), 0);
    let fund = bench.fund(1, 30_000).unwrap();
    let locked = inputs(&fund.tx)[0];
    let other = *free(&bench).iter().find(|coin| **coin != locked && **coin != pending).unwrap();
    let unknown = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
    let before = bench.wallet.balance();
    let table = [
        ("wallet.coin_locked", vec![locked]),
        ("wallet.coin_locked", vec![other, locked]),
        ("wallet.coin_pending", vec![pending]),
        ("wallet.no_coin", vec![unknown]),
        ("wallet.insufficient_funds", vec![other]),
    ];
    for (code, named) in table {
        let sat = Amounts::Exactly(60_000);
        let error = bench.wallet.send(&to(5), sat, FEERATE, &named).unwrap_err();
        assert_eq!(error.code(), code, "{named:?}");
        assert_eq!(bench.wallet.balance(), before);
    }
    bench.wallet.send(&to(5), Amounts::All, FEERATE, &[other]).unwrap();
    let again = bench.wallet.send(&to(5), Amounts::All, FEERATE, &[other]).unwrap_err();
    assert_eq!(again.code(), "wallet.coin_locked", "it is kept for the first payment");
}
