//! What is settled for good is forgotten, and no coin comes back or is lost by it.

use crate::bench::*;

/// Enough chain blocks to make everything before them final and to fall due.
const A_WHILE: u32 = 1_200;

/// Longer than a finished FUND is remembered.
const LONG: u32 = 3_300;

impl Bench {
    fn wait(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.mine(Vec::new());
        }
    }

    /// Two own outputs in one transaction.
    fn pay_twice(&mut self, sat: [u64; 2]) {
        let scripts = self.wallet.fresh_scripts(2).unwrap();
        let mut both = payment(200, scripts[0].clone(), sat[0]);
        both.output
            .push(TxOut { value: Amount::from_sat(sat[1]), script_pubkey: scripts[1].clone() });
        self.mine(vec![both]);
    }

    /// FUNDs that confirm, one after the other, each from the change of the one before.
    fn trade(&mut self, terms: std::ops::Range<u8>, sat: u64) -> Vec<Transaction> {
        let mut sent = Vec::new();
        for terms in terms {
            let funded = self.fund(terms, sat).unwrap();
            self.wallet.mark_broadcast(&funded.tx, 1_700_000_000).unwrap();
            self.mine(vec![funded.tx.clone()]);
            sent.push(funded.tx);
        }
        sent
    }

    fn rows(self, table: u8) -> (usize, Self) {
        let Self { dir, chain, wallet } = self;
        drop(wallet);
        let count = open_store(dir.path()).rows(table).unwrap().len();
        let wallet = open_wallet(dir.path());
        (count, Self { dir, chain, wallet })
    }
}

#[test]
fn a_hundred_settled_trades_leave_a_small_wallet_with_the_same_coins() {
    let mut bench = Bench::with_coins(&[5_000_000]);
    bench.pay_twice([1_000, 9_000_000]);
    let sent = bench.trade(1..101, 50_000);
    let before = (bench.wallet.balance(), bench.wallet.history(1_000).unwrap());
    bench.wait(A_WHILE);
    let after = (bench.wallet.balance(), bench.wallet.history(1_000).unwrap());
    assert_eq!(before.0, after.0);
    assert_eq!(after.1.len(), sent.len() + 2);
    assert!(before.1 == after.1, "newest first, with what they sent and their fees");
    let (rows, mut bench) = bench.rows(capex::wallet::CHAIN_TABLE);
    assert!(rows < 1_300, "{rows} rows for two coins and the last day of chain blocks");
    assert_eq!(bench.wallet.balance(), before.0, "after a restart");
    // Every coin that can be selected is one that the chain still has.
    let all = before.0.spendable_sat - 20_000;
    let last = bench.fund(101, all).unwrap().tx;
    let spent: BTreeSet<OutPoint> = sent.iter().flat_map(inputs).collect();
    assert!(inputs(&last).iter().all(|coin| !spent.contains(coin)));
    let prevouts = bench.prevouts(&last);
    assert_eq!(verify(&last, &prevouts), Ok(()));
    let (forgotten, _) = bench.rows(capex::wallet::HISTORY_TABLE);
    assert!(forgotten >= 99, "{forgotten} of the settled trades are history");
}

/// It may still be replaced, and its coins be free again.
#[test]
fn what_waits_for_a_block_is_not_forgotten_and_neither_are_its_coins() {
    let mut bench = Bench::with_coins(&[1_000_000]);
    let sent = bench.wallet.send(&address(9), Amounts::All, FEERATE, &[]).unwrap().tx;
    bench.wallet.mark_broadcast(&sent, 1_700_000_000).unwrap();
    let before = (bench.wallet.balance(), bench.wallet.history(10).unwrap());
    bench.wait(A_WHILE);
    assert_eq!((bench.wallet.balance(), bench.wallet.history(10).unwrap()), before);
    let mut bench = bench.reopen();
    assert_eq!((bench.wallet.balance(), bench.wallet.history(10).unwrap()), before);
    bench.mine(vec![sent.clone()]);
    let history = bench.wallet.history(10).unwrap();
    assert_eq!((history[0].txid, history[0].height), (sent.compute_txid(), Some(A_WHILE + 2)));
}

#[test]
fn the_whole_chain_read_again_changes_nothing() {
    let mut bench = Bench::with_coins(&[5_000_000]);
    bench.trade(1..20, 50_000);
    bench.wait(A_WHILE);
    let before = (bench.wallet.balance(), bench.wallet.history(1_000).unwrap());
    assert_eq!(bench.wallet.first_height(), 1, "also when its checkpoint is forgotten");
    bench.wallet.widen(300).unwrap();
    let blocks: Vec<_> = (1..).zip(bench.chain.blocks[1..].iter().cloned()).collect();
    for part in blocks.chunks(500) {
        let update = bench.chain.update(part.to_vec());
        bench.apply(&update);
    }
    assert_eq!((bench.wallet.balance(), bench.wallet.history(1_000).unwrap()), before);
    let mut bench = bench.reopen();
    assert_eq!((bench.wallet.balance(), bench.wallet.history(1_000).unwrap()), before);
    bench.wait(A_WHILE);
    assert_eq!(bench.wallet.balance(), before.0, "nor after the next pruning");
}

#[test]
fn a_coin_of_a_pruned_spender_does_not_come_back() {
    let mut bench = Bench::with_coins(&[]);
    bench.pay_twice([1_000, 900_000]);
    // Spends the large one; the small one keeps its transaction in the wallet for ever.
    let spend = bench.wallet.send(&address(9), Amounts::Exactly(800_000), FEERATE, &[]).unwrap().tx;
    bench.mine(vec![spend.clone()]);
    let change = spend.output.iter().find(|o| o.value.to_sat() != 800_000).unwrap().value;
    // The change goes as well, so that nothing of the spender is left.
    let rest = Amounts::Exactly(change.to_sat() - 2_000);
    let rest = bench.wallet.send(&address(8), rest, FEERATE, &[]).unwrap();
    bench.mine(vec![rest.tx]);
    let before = bench.wallet.balance();
    assert!(before.spendable_sat < 5_000, "{before:?}");
    bench.wait(A_WHILE);
    assert_eq!(bench.wallet.balance(), before);
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.balance(), before);
    bench.wait(A_WHILE);
    assert_eq!(bench.wallet.balance(), before, "nor after the second pruning");
    let error = bench.fund(1, 100_000).unwrap_err();
    assert_eq!(error.code(), "wallet.insufficient_funds");
}

#[test]
fn a_replaced_payment_is_gone_for_good() {
    let mut bench = Bench::with_coins(&[1_000_000]);
    let fund = bench.fund(1, 500_000).unwrap();
    bench.wallet.mark_broadcast(&fund.tx, 1_700_000_000).unwrap();
    let cancel = bench.cancel(1, 9_000).unwrap();
    bench.wallet.mark_broadcast(&cancel.tx, 1_700_000_001).unwrap();
    bench.mine(vec![cancel.tx]);
    let before = bench.wallet.balance();
    bench.wait(A_WHILE);
    assert_eq!(bench.wallet.balance(), before);
    let history = bench.wallet.history(10).unwrap();
    assert!(history.iter().all(|entry| entry.txid != fund.tx.compute_txid()));
}

#[test]
fn terms_are_funded_once_for_longer_than_any_timelock() {
    let mut bench = Bench::with_coins(&[1_000_000, 1_000_000]);
    bench.trade(1..2, 50_000);
    let released = bench.fund(2, 50_000).unwrap();
    bench.wallet.release([2; 32]).unwrap();
    bench.wait(A_WHILE);
    assert_eq!(bench.fund(2, 50_000).unwrap_err().code(), "wallet.released");
    assert_eq!(bench.fund(1, 60_000).unwrap_err().code(), "wallet.confirmed");
    bench.wait(LONG - A_WHILE);
    let (rows, mut bench) = bench.rows(capex::wallet::FUND_TABLE);
    assert_eq!(rows, 0, "a finished FUND is forgotten at last");
    assert_eq!(bench.wallet.balance().locked_sat, 0);
    assert_ne!(bench.fund(2, 50_000).unwrap().tx, released.tx);
}

#[test]
fn a_coinbase_matures_without_a_transaction() {
    let mut bench = Bench::with_coins(&[]);
    let script = bench.wallet.fresh_scripts(1).unwrap().remove(0);
    let update = bench.chain.mine_to(script, Vec::new());
    bench.apply(&update);
    bench.wait(98);
    assert_eq!(bench.wallet.balance().spendable_sat, 0);
    bench.wait(1);
    assert_eq!(bench.wallet.balance().spendable_sat, 5_000_000_000);
}

fn address(n: u8) -> Address {
    Address::from_script(&foreign_script(n), NETWORK).unwrap()
}
