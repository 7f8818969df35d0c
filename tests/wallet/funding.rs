//! Fundings, payments and cancels: what the wallet signs, and which coins it locks.

use crate::bench::*;

#[test]
fn a_fund_is_valid_pays_its_outputs_and_can_be_replaced() {
    let mut bench = Bench::with_coins(&[50_000, 60_000, 70_000]);
    let outputs =
        [(foreign_script(1), 40_000), (foreign_script(2), 80_000), (foreign_script(1), 40_000)];
    let funded = bench.wallet.fund([1; 32], &outputs, FEERATE, 1).unwrap();
    let prevouts = bench.prevouts(&funded.tx);
    verify(&funded.tx, &prevouts).unwrap();
    for ((script, sat), outpoint) in outputs.iter().zip(&funded.outpoints) {
        assert_eq!(outpoint.txid, funded.tx.compute_txid());
        let output = &funded.tx.output[outpoint.vout as usize];
        assert_eq!((&output.script_pubkey, output.value.to_sat()), (script, *sat));
    }
    assert_ne!(funded.outpoints[0], funded.outpoints[2], "equal outputs are told apart");
    let spent: u64 = prevouts.iter().map(|o| o.value.to_sat()).sum();
    let paid: u64 = funded.tx.output.iter().map(|o| o.value.to_sat()).sum();
    assert_eq!(funded.fee_sat, spent - paid);
    let rate = funded.fee_sat * 1_000 / funded.tx.vsize() as u64;
    assert!((FEERATE..FEERATE + 100).contains(&rate), "{rate} sat/kvB");
    assert_eq!(funded.tx.lock_time, LockTime::from_height(1).unwrap());
    assert!(funded.tx.input.iter().all(|i| i.sequence.0 == 0xffff_fffd));
}

#[test]
fn a_changed_signature_bit_is_refused_by_the_verifier() {
    let mut bench = Bench::with_coins(&[50_000]);
    let funded = bench.fund(1, 20_000).unwrap();
    let prevouts = bench.prevouts(&funded.tx);
    let mut tx = funded.tx;
    let mut signature = tx.input[0].witness.nth(0).unwrap().to_vec();
    signature[40] ^= 1;
    tx.input[0].witness = Witness::from_slice(&[signature]);
    assert!(verify(&tx, &prevouts).is_err());
}

#[test]
fn the_same_terms_give_the_same_transaction_also_after_a_restart() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let first = bench.fund(1, 30_000).unwrap();
    assert_eq!(bench.fund(1, 30_000).unwrap(), first);
    assert_eq!(bench.fund(1, 30_001).unwrap_err().code(), "wallet.other_outputs");
    let mut bench = bench.reopen();
    assert_eq!(bench.fund(1, 30_000).unwrap(), first);
    assert_eq!(bench.fund(1, 30_001).unwrap_err().code(), "wallet.other_outputs");
}

#[test]
fn two_funds_never_share_a_coin() {
    let mut bench = Bench::with_coins(&[50_000, 60_000, 70_000]);
    let mut spent = inputs(&bench.fund(1, 30_000).unwrap().tx);
    let mut bench = bench.reopen();
    spent.extend(inputs(&bench.fund(2, 30_000).unwrap().tx));
    spent.extend(inputs(&bench.fund(3, 30_000).unwrap().tx));
    spent.sort();
    spent.dedup();
    assert_eq!(spent.len(), 3);
    let balance = bench.wallet.balance();
    let expected = Balance { confirmed_sat: 180_000, locked_sat: 180_000, ..Balance::default() };
    assert_eq!(balance, expected);
    match bench.fund(4, 30_000).unwrap_err() {
        WalletError::InsufficientFunds { have_sat, need_sat } => {
            assert_eq!(have_sat, 0);
            assert!(need_sat > 30_000);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn own_change_is_spent_unconfirmed_but_nobody_elses_payment() {
    let mut bench = Bench::with_coins(&[100_000]);
    let first = bench.fund(1, 30_000).unwrap();
    assert_eq!(bench.fund(2, 20_000).unwrap_err().code(), "wallet.insufficient_funds");
    bench.wallet.mark_broadcast(&first.tx, 1_700_000_001).unwrap();
    assert!(bench.wallet.balance().spendable_sat > 69_000);
    let second = bench.fund(2, 20_000).unwrap();
    assert_eq!(second.tx.input[0].previous_output.txid, first.tx.compute_txid());

    let mut bench = Bench::with_coins(&[10_000]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    let mut update = bench.chain.update(vec![]);
    update.mempool = vec![payment(9, script, 90_000)];
    bench.apply(&update);
    let balance = bench.wallet.balance();
    assert_eq!((balance.pending_sat, balance.spendable_sat), (90_000, 10_000));
    assert_eq!(bench.fund(1, 50_000).unwrap_err().code(), "wallet.insufficient_funds");
}

#[test]
fn confirmed_coins_go_first() {
    let mut bench = Bench::with_coins(&[100_000, 40_000]);
    let first = bench.fund(1, 90_000).unwrap();
    bench.wallet.mark_broadcast(&first.tx, 1_700_000_001).unwrap();
    let second = bench.fund(2, 8_000).unwrap();
    assert_ne!(second.tx.input[0].previous_output.txid, first.tx.compute_txid());
}

#[test]
fn a_restart_keeps_coins_locks_addresses_and_history() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let funded = bench.fund(1, 30_000).unwrap();
    bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
    bench.fund(2, 30_000).unwrap();
    let before =
        (bench.wallet.balance(), bench.wallet.history(10).unwrap(), bench.wallet.checkpoints());
    let address = bench.wallet.next_address().unwrap();
    let mut bench = bench.reopen();
    let after =
        (bench.wallet.balance(), bench.wallet.history(10).unwrap(), bench.wallet.checkpoints());
    assert_eq!(before, after);
    assert_ne!(bench.wallet.next_address().unwrap(), address);
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], funded.tx)]);
}

#[test]
fn a_fund_is_unsettled_from_its_broadcast_to_its_confirmation() {
    let mut bench = Bench::with_coins(&[50_000]);
    let funded = bench.fund(1, 30_000).unwrap();
    assert_eq!(bench.wallet.unsettled(), vec![]);
    bench.wallet.mark_broadcast(&funded.tx, 1_700_000_001).unwrap();
    assert_eq!(bench.wallet.unsettled().len(), 1);
    bench.mine(vec![funded.tx.clone()]);
    assert_eq!(bench.wallet.unsettled(), vec![]);
    let history = bench.wallet.history(1).unwrap();
    assert_eq!((history[0].height, history[0].fee_sat), (Some(2), Some(funded.fee_sat)));
    // A reorganisation makes it unsettled again.
    let disconnected = bench.chain.fork(1);
    let mut update = bench.chain.mine(vec![]);
    update.disconnected = disconnected;
    bench.apply(&update);
    assert_eq!(bench.wallet.unsettled().len(), 1);
}

#[test]
fn a_cancel_spends_the_same_coins_and_pays_to_replace() {
    let mut bench = Bench::with_coins(&[50_000, 60_000]);
    let funded = bench.fund(1, 80_000).unwrap();
    bench.wallet.mark_broadcast(&funded.tx, 1_700_000_009).unwrap();
    let cancel = bench.cancel(1, FEERATE).unwrap();
    assert_eq!(inputs(&cancel.tx), inputs(&funded.tx));
    assert!(cancel.outpoints.is_empty());
    verify(&cancel.tx, &bench.prevouts(&cancel.tx)).unwrap();
    assert!(cancel.fee_sat >= funded.fee_sat + cancel.tx.vsize() as u64);
    assert!(cancel.fee_sat * funded.tx.vsize() as u64 > funded.fee_sat * cancel.tx.vsize() as u64);
    assert_eq!(cancel.tx.output.len(), 1);
    assert_eq!(bench.cancel(1, FEERATE).unwrap(), cancel);
    assert_eq!(bench.fund(1, 80_000).unwrap_err().code(), "wallet.cancelled");

    let mut bench = bench.reopen();
    assert_eq!(bench.cancel(1, FEERATE).unwrap(), cancel);
    assert_eq!(bench.wallet.unsettled(), vec![([1; 32], cancel.tx.clone())]);
    let urgent = bench.cancel(1, 50_000).unwrap();
    assert_eq!(inputs(&urgent.tx), inputs(&funded.tx));
    assert!(urgent.fee_sat >= cancel.fee_sat + urgent.tx.vsize() as u64);
    // It counts although the clock has been set back since the FUND was seen.
    bench.wallet.mark_broadcast(&urgent.tx, 1_700_000_001).unwrap();
    let balance = bench.wallet.balance();
    assert_eq!(balance.pending_sat, 110_000 - urgent.fee_sat);
    bench.mine(vec![urgent.tx.clone()]);
    assert_eq!(bench.wallet.balance().spendable_sat, 110_000 - urgent.fee_sat);
    assert_eq!(bench.wallet.unsettled(), vec![]);
}

#[test]
fn a_cancel_outbids_what_spends_the_change() {
    let mut bench = Bench::with_coins(&[100_000]);
    let first = bench.fund(1, 30_000).unwrap();
    bench.wallet.mark_broadcast(&first.tx, 1_700_000_001).unwrap();
    let second = bench.wallet.fund([2; 32], &[(foreign_script(2), 20_000)], 40_000, 1).unwrap();
    let cancel = bench.cancel(1, FEERATE).unwrap();
    assert!(cancel.fee_sat >= first.fee_sat + second.fee_sat + cancel.tx.vsize() as u64);
}

#[test]
fn a_confirmed_or_unknown_fund_cannot_be_cancelled() {
    let mut bench = Bench::with_coins(&[50_000]);
    assert_eq!(bench.cancel(1, FEERATE).unwrap_err().code(), "wallet.no_fund");
    let funded = bench.fund(1, 30_000).unwrap();
    bench.mine(vec![funded.tx]);
    assert_eq!(bench.cancel(1, FEERATE).unwrap_err().code(), "wallet.confirmed");
}

#[test]
fn change_addresses_are_not_reused_across_restarts() {
    let mut bench = Bench::with_coins(&[50_000, 60_000, 70_000]);
    let mut change = BTreeSet::new();
    let mut handed_out = 0;
    for terms in [1, 2] {
        let funded = bench.fund(terms, 30_000).unwrap();
        let cancel = bench.cancel(terms, FEERATE).unwrap();
        for tx in [funded.tx, cancel.tx] {
            let own = tx.output.into_iter().map(|o| o.script_pubkey);
            change.extend(own.filter(|script| *script != foreign_script(terms)));
            handed_out += 1;
        }
        bench = bench.reopen();
    }
    assert_eq!(change.len(), handed_out);
}

#[test]
fn released_coins_are_free_but_the_terms_are_never_funded_again() {
    let mut bench = Bench::with_coins(&[50_000]);
    bench.fund(1, 30_000).unwrap();
    bench.wallet.release([1; 32]).unwrap();
    bench.wallet.release([1; 32]).unwrap();
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.balance().spendable_sat, 50_000);
    assert_eq!(bench.fund(1, 30_000).unwrap_err().code(), "wallet.released");
    assert_eq!(bench.cancel(1, FEERATE).unwrap_err().code(), "wallet.released");
    bench.fund(2, 30_000).unwrap();
    assert_eq!(bench.wallet.release([9; 32]).unwrap_err().code(), "wallet.no_fund");
}

#[test]
fn bad_requests_are_refused_with_their_code() {
    let mut bench = Bench::with_coins(&[50_000]);
    let to = foreign_script(1);
    let cases = [
        (vec![(to.clone(), 0)], FEERATE, "wallet.bad_amount"),
        (vec![(to.clone(), 100)], FEERATE, "wallet.bad_amount"),
        (vec![(to.clone(), u64::MAX), (to.clone(), 2)], FEERATE, "wallet.bad_amount"),
        (vec![(to.clone(), 21_000_000 * 100_000_000)], FEERATE, "wallet.insufficient_funds"),
        (vec![(to.clone(), 1_000); 33], FEERATE, "wallet.too_many_outputs"),
        (vec![(to.clone(), 1_000)], 0, "wallet.bad_feerate"),
        (vec![(to.clone(), 1_000)], u64::MAX, "wallet.bad_feerate"),
        (vec![(to, 49_990)], FEERATE, "wallet.insufficient_funds"),
    ];
    for (outputs, rate, code) in cases {
        let error = bench.wallet.fund([1; 32], &outputs, rate, 1).unwrap_err();
        assert_eq!(error.code(), code, "{outputs:?} at {rate}");
    }
    assert_eq!(bench.wallet.balance().spendable_sat, 50_000);
    bench.wallet.fund([1; 32], &[(foreign_script(1), 1_000)], FEERATE, u32::MAX).unwrap();
}

#[test]
fn a_payment_is_rebroadcast_until_it_confirms_and_forgotten_when_final() {
    let mut bench = Bench::with_coins(&[50_000]);
    let to = Address::from_script(&foreign_script(5), NETWORK).unwrap();
    let tx = bench.wallet.send(&to, Amounts::Exactly(20_000), FEERATE, &[]).unwrap().tx;
    verify(&tx, &bench.prevouts(&tx)).unwrap();
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.unsettled()[0].1, tx);
    assert_eq!(bench.wallet.balance().locked_sat, 50_000);
    bench.mine(vec![tx]);
    assert_eq!(bench.wallet.unsettled(), vec![]);
    let rows = |dir: &Path| open_store(dir).scan(capex::wallet::FUND_TABLE).unwrap().len();
    for _ in 0..5 {
        bench.mine(vec![]);
    }
    let dir = bench.dir;
    drop(bench.wallet);
    assert_eq!(rows(dir.path()), 0);
    let foreign = Address::from_script(&foreign_script(5), Network::Bitcoin).unwrap();
    let mut wallet = open_wallet(dir.path());
    let error = wallet.send(&foreign, Amounts::Exactly(1_000), FEERATE, &[]).unwrap_err();
    assert_eq!(error.code(), "wallet.other_network");
}

/// A store that fails on demand.
struct Failing {
    store: Arc<Store>,
    fails: Arc<Mutex<bool>>,
}

impl Persist for Failing {
    fn rows(&self, table: u8) -> Result<Vec<Row>, StoreError> {
        self.store.rows(table)
    }

    fn persist(&mut self, records: &[Record]) -> Result<(), StoreError> {
        if *self.fails.lock().unwrap() {
            return Err(StoreError::Full { path: "journal".into() });
        }
        self.store.persist(records)
    }
}

#[test]
fn a_failed_store_locks_no_coin_and_hands_out_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(Mutex::new(false));
    let persist = Failing { store: open_store(dir.path()), fails: fails.clone() };
    let mut wallet = Wallet::open(&keys(), NETWORK, persist, None).unwrap();
    let script = wallet.fresh_scripts(1).unwrap().remove(0);
    let mut chain = Chain::new();
    wallet.apply(&chain.mine(vec![payment(1, script, 50_000)]), 1).unwrap();
    *fails.lock().unwrap() = true;
    let outputs = [(foreign_script(1), 30_000)];
    assert_eq!(wallet.fund([1; 32], &outputs, FEERATE, 1).unwrap_err().code(), "store.full");
    assert!(wallet.next_address().is_err());
    assert_eq!(wallet.balance().spendable_sat, 50_000);
    *fails.lock().unwrap() = false;
    let funded = wallet.fund([1; 32], &outputs, FEERATE, 1).unwrap();
    *fails.lock().unwrap() = true;
    assert!(wallet.release([1; 32]).is_err());
    assert!(wallet.fund([1; 32], &[], FEERATE, 1).is_err());
    *fails.lock().unwrap() = false;
    assert_eq!(wallet.fund([1; 32], &outputs, FEERATE, 1).unwrap(), funded);
    assert_eq!(wallet.balance().locked_sat, 50_000);
}
