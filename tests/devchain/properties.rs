//! Whatever is mined, sent and reorganised: the coins are those of the best chain, the
//! mempool fits the next block, and readers know exactly what is confirmed.

use std::collections::BTreeSet;

use bitcoin::{Transaction, Txid};
use capex::chain::Watcher;
use capex::chain::devchain::{Cursor, Devchain, faucet_script};
use proptest::prelude::*;

use crate::kit::{Kit, Owned, owned, sweep};

#[derive(Debug, Clone)]
enum Step {
    Mine,
    /// Sweeps a mature coinbase with a fee in sat; again the same one makes a rival.
    SweepCoinbase(u32, u64),
    /// Sweeps what the last sent transaction paid.
    SweepLast(u64),
    /// Invalidates the block this deep.
    Invalidate(u32),
    /// Reconsiders what was invalidated last.
    Reconsider,
    /// Lets the reader catch up.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Mine),
        4 => (1..6u32, 200..20_000u64).prop_map(|(height, fee)| Step::SweepCoinbase(height, fee)),
        2 => (200..5_000u64).prop_map(Step::SweepLast),
        1 => (0..4u32).prop_map(Step::Invalidate),
        1 => Just(Step::Reconsider),
        2 => Just(Step::Read),
    ]
}

struct Reader {
    cursor: Cursor,
    watcher: Watcher,
    confirmed: BTreeSet<Txid>,
}

impl Reader {
    fn read(&mut self, chain: &Devchain) {
        while let Some(update) = self.cursor.changes(chain) {
            let seen = self.watcher.reduce(&update);
            for txid in seen.disconnected {
                assert!(self.confirmed.remove(&txid), "it was told before");
            }
            for (_, txid, _) in seen.connected {
                assert!(self.confirmed.insert(txid), "told once");
            }
        }
    }
}

fn best_chain(chain: &Devchain) -> Vec<Transaction> {
    (1..=chain.height())
        .filter_map(|height| chain.block(&chain.hash_at(height)?))
        .flat_map(|block| block.txdata.clone())
        .collect()
}

/// The coins of the best chain, counted from its transactions alone.
fn coins(txs: &[Transaction]) -> BTreeSet<(Txid, u32)> {
    let mut coins = BTreeSet::new();
    for tx in txs {
        for input in &tx.input {
            coins.remove(&(input.previous_output.txid, input.previous_output.vout));
        }
        let txid = tx.compute_txid();
        let spendable = (0u32..).zip(&tx.output).filter(|(_, o)| !o.script_pubkey.is_op_return());
        coins.extend(spendable.map(|(vout, _)| (txid, vout)));
    }
    coins
}

fn check(kit: &mut Kit, reader: &mut Reader) {
    let txs = best_chain(&kit.chain);
    let expected = coins(&txs);
    assert_eq!(kit.chain.coin_count(), expected.len());
    for (txid, vout) in expected {
        assert!(kit.chain.coin(&bitcoin::OutPoint { txid, vout }).is_some());
    }
    reader.read(&kit.chain);
    let confirmed: BTreeSet<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    assert_eq!(reader.confirmed, confirmed);
    for (txid, _) in kit.chain.mempool().iter() {
        assert!(!confirmed.contains(txid));
    }
    // All of the mempool is valid in the next block.
    kit.mine(1);
    assert!(kit.chain.mempool().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn coins_mempool_and_readers_agree_with_the_best_chain(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut kit = Kit::new();
        let mut watcher = Watcher::new();
        watcher.watch_spk(faucet_script()).expect("room");
        let mut reader = Reader { cursor: Cursor::at(1), watcher, confirmed: BTreeSet::new() };
        let mut last: Option<Owned> = None;
        let mut invalidated = None;
        for step in steps {
            match step {
                Step::Mine => kit.mine(1),
                Step::SweepCoinbase(height, fee_sat) => {
                    let tx = sweep(&kit.coinbase(height), fee_sat);
                    if kit.send(&tx).is_ok() {
                        last = Some(owned(&tx, 0));
                    }
                }
                Step::SweepLast(fee_sat) => {
                    if let Some(tx) = last.take().map(|coin| sweep(&coin, fee_sat)) {
                        let _ = kit.send(&tx);
                        last = Some(owned(&tx, 0));
                    }
                }
                Step::Invalidate(depth) => {
                    let hash = kit.chain.hash_at(kit.chain.height() - depth).expect("a block");
                    kit.chain.invalidate_block(&hash).expect("not the genesis block");
                    invalidated = Some(hash);
                }
                Step::Reconsider => {
                    if let Some(hash) = invalidated.take() {
                        kit.chain.reconsider_block(&hash).expect("known");
                    }
                }
                Step::Read => reader.read(&kit.chain),
            }
        }
        check(&mut kit, &mut reader);
    }
}
