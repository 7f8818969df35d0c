//! What the wallet promises: it never spends a coin twice, forgets no transaction that it
//! signed, and what it signs is valid.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence,
    Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, constants::genesis_block,
};
use capex::chain::ChainUpdate;
use capex::store::{Meta, Record, Row, Store, StoreError};
use capex::wallet::{Balance, Funded, Keys, Persist, Wallet, WalletError, faucet_spend};
use proptest::prelude::*;

const NETWORK: Network = Network::Regtest;
const FEERATE: u64 = 2_000;

/// Chain blocks by hand: they link and carry transactions, which is all a wallet looks at.
#[derive(Clone)]
struct Chain {
    blocks: Vec<Arc<Block>>,
    salt: u32,
}

impl Chain {
    fn new() -> Self {
        Self { blocks: vec![Arc::new(genesis_block(NETWORK))], salt: 0 }
    }

    fn height(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    fn tip(&self) -> BlockHash {
        self.blocks.last().unwrap().block_hash()
    }

    fn mine_to(&mut self, to: ScriptBuf, txs: Vec<Transaction>) -> ChainUpdate {
        let height = self.height() + 1;
        let script_sig = ScriptBuf::builder().push_int(height.into()).push_int(self.salt.into());
        let mut txdata = vec![tx(OutPoint::null(), script_sig.into_script(), to, 5_000_000_000)];
        txdata.extend(txs);
        let header = Header {
            version: BlockVersion::TWO,
            prev_blockhash: self.tip(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000 + height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: self.salt,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let block = Arc::new(block);
        self.blocks.push(block.clone());
        self.update(vec![(height, block)])
    }

    fn mine(&mut self, txs: Vec<Transaction>) -> ChainUpdate {
        self.mine_to(ScriptBuf::new(), txs)
    }

    fn update(&self, connected: Vec<(u32, Arc<Block>)>) -> ChainUpdate {
        let (tip, height) = (Some(self.tip()), self.height());
        ChainUpdate { connected, tip, height, ..ChainUpdate::default() }
    }

    /// Drops the highest `count` blocks; what is mined next differs from them.
    fn fork(&mut self, count: usize) -> Vec<(u32, Arc<Block>)> {
        self.salt += 1;
        (0..count).map(|_| (self.height(), self.blocks.pop().unwrap())).collect()
    }
}

fn tx(from: OutPoint, script_sig: ScriptBuf, to: ScriptBuf, sat: u64) -> Transaction {
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: from, script_sig, sequence, witness: Witness::new() }],
        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: to }],
    }
}

/// Somebody else's payment to the wallet; `n` makes it unique.
fn payment(n: u8, to: ScriptBuf, sat: u64) -> Transaction {
    tx(OutPoint::new(Txid::from_byte_array([n; 32]), 0), ScriptBuf::new(), to, sat)
}

fn foreign_script(n: u8) -> ScriptBuf {
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &[n; 32]).unwrap();
    ScriptBuf::new_p2tr(&Secp256k1::new(), key.x_only_public_key().0, None)
}

/// A wallet, its chain and its directory.
struct Bench {
    dir: tempfile::TempDir,
    chain: Chain,
    wallet: Wallet,
}

fn open_store(dir: &Path) -> Arc<Mutex<Store>> {
    let meta = Meta { network: "regtest".into(), magic: *b"capr" };
    Arc::new(Mutex::new(Store::open(dir, &meta).unwrap().0))
}

fn keys() -> Keys {
    Keys::from_seed(&[7; 32], NETWORK).unwrap()
}

fn open_wallet(dir: &Path) -> Wallet {
    Wallet::open(&keys(), NETWORK, open_store(dir), None).unwrap()
}

impl Bench {
    /// A wallet with one confirmed coin for each of `coins_sat`.
    fn with_coins(coins_sat: &[u64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wallet = open_wallet(dir.path());
        let mut bench = Self { dir, chain: Chain::new(), wallet };
        let scripts = bench.wallet.fresh_scripts(coins_sat.len() as u16).unwrap();
        let payments = scripts.into_iter().zip(coins_sat).enumerate();
        let txs = payments.map(|(n, (script, sat))| payment(n as u8 + 1, script, *sat)).collect();
        bench.mine(txs);
        bench
    }

    fn mine(&mut self, txs: Vec<Transaction>) {
        let update = self.chain.mine(txs);
        self.apply(&update);
    }

    fn apply(&mut self, update: &ChainUpdate) {
        self.wallet.apply(update, 1_700_000_000).unwrap();
    }

    fn reopen(self) -> Self {
        let Self { dir, chain, wallet } = self;
        drop(wallet);
        let wallet = open_wallet(dir.path());
        Self { dir, chain, wallet }
    }

    fn fund(&mut self, terms: u8, sat: u64) -> Result<Funded, WalletError> {
        let outputs = [(foreign_script(terms), sat)];
        self.wallet.fund([terms; 32], &outputs, FEERATE, self.chain.height())
    }

    fn cancel(&mut self, terms: u8, rate: u64) -> Result<Funded, WalletError> {
        self.wallet.fund([terms; 32], &[], rate, self.chain.height())
    }

    fn prevouts(&self, tx: &Transaction) -> Vec<TxOut> {
        let known = self.chain.blocks.iter().flat_map(|b| b.txdata.iter());
        let by_id: BTreeMap<_, _> = known.map(|tx| (tx.compute_txid(), tx)).collect();
        let spent = tx.input.iter().map(|i| i.previous_output);
        spent.map(|o| by_id[&o.txid].output[o.vout as usize].clone()).collect()
    }
}

/// Bitcoin Core's verdict on every input.
fn verify(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), bitcoinconsensus::Error> {
    let bytes = serialize(tx);
    let spent: Vec<_> = prevouts
        .iter()
        .map(|o| bitcoinconsensus::Utxo {
            script_pubkey: o.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: o.script_pubkey.len() as u32,
            value: o.value.to_sat() as i64,
        })
        .collect();
    let flags = bitcoinconsensus::VERIFY_ALL_PRE_TAPROOT | bitcoinconsensus::VERIFY_TAPROOT;
    prevouts.iter().enumerate().try_for_each(|(i, o)| {
        let (script, sat) = (o.script_pubkey.as_bytes(), o.value.to_sat());
        bitcoinconsensus::verify_with_flags(script, sat, &bytes, Some(&spent), i, flags)
    })
}

fn inputs(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|i| i.previous_output).collect()
}

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
    let before = (bench.wallet.balance(), bench.wallet.history(10), bench.wallet.checkpoints());
    let address = bench.wallet.next_address().unwrap();
    let mut bench = bench.reopen();
    let after = (bench.wallet.balance(), bench.wallet.history(10), bench.wallet.checkpoints());
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
    let history = bench.wallet.history(1);
    assert_eq!((history[0].height, history[0].fee_sat), (Some(2), Some(funded.fee_sat)));
    // A reorganisation makes it unsettled again.
    let disconnected = bench.chain.fork(1);
    let mut update = bench.chain.mine(vec![]);
    update.disconnected = disconnected;
    bench.apply(&update);
    assert_eq!(bench.wallet.unsettled().len(), 1);
}

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
    let tx = bench.wallet.send(&to, 20_000, FEERATE).unwrap();
    verify(&tx, &bench.prevouts(&tx)).unwrap();
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.unsettled()[0].1, tx);
    assert_eq!(bench.wallet.balance().locked_sat, 50_000);
    bench.mine(vec![tx]);
    assert_eq!(bench.wallet.unsettled(), vec![]);
    let rows =
        |dir: &Path| open_store(dir).lock().unwrap().scan(capex::wallet::FUND_TABLE).unwrap().len();
    for _ in 0..5 {
        bench.mine(vec![]);
    }
    let dir = bench.dir;
    drop(bench.wallet);
    assert_eq!(rows(dir.path()), 0);
    let foreign = Address::from_script(&foreign_script(5), Network::Bitcoin).unwrap();
    let mut wallet = open_wallet(dir.path());
    assert_eq!(wallet.send(&foreign, 1_000, FEERATE).unwrap_err().code(), "wallet.other_network");
}

/// A store that fails on demand.
struct Failing {
    store: Arc<Mutex<Store>>,
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

#[test]
fn a_birthday_skips_older_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..10).for_each(|_| drop(chain.mine(vec![])));
    let birthday = Some((10, chain.tip()));
    let mut wallet = Wallet::open(&keys(), NETWORK, open_store(dir.path()), birthday).unwrap();
    assert_eq!(wallet.checkpoints()[0], (10, chain.tip()));
    let script = wallet.fresh_scripts(1).unwrap().remove(0);
    wallet.apply(&chain.mine(vec![payment(1, script, 50_000)]), 1).unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 50_000);
}

#[test]
fn the_stored_wallet_of_another_seed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_wallet(dir.path()));
    let other = Keys::from_seed(&[8; 32], NETWORK).unwrap();
    let error = Wallet::open(&other, NETWORK, open_store(dir.path()), None).unwrap_err();
    assert_eq!(error.code(), "wallet.other_seed");
    let signet = Wallet::open(&keys(), Network::Signet, open_store(dir.path()), None);
    assert_eq!(signet.unwrap_err().code(), "wallet.other_seed");
}

#[test]
fn a_seed_file_is_created_private_and_read_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let first = Keys::load_or_create(&path, NETWORK).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    let second = Keys::load_or_create(&path, NETWORK).unwrap();
    assert_eq!(first.settlement_secret().unwrap(), second.settlement_secret().unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!format!("{first:?}").contains(text.trim()));

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let error = Keys::load_or_create(&path, NETWORK).unwrap_err();
    assert_eq!(error.code(), "wallet.seed_permissions");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    for bad in ["", "00", &text[1..], &format!("{text}x"), &"g".repeat(64)] {
        std::fs::write(&path, bad).unwrap();
        let error = Keys::load_or_create(&path, NETWORK).unwrap_err();
        assert_eq!(error.code(), "wallet.seed_invalid", "{bad:?}");
    }
}

#[test]
fn networks_have_keys_of_their_own() {
    let secret = |network| Keys::from_seed(&[7; 32], network).unwrap().settlement_secret().unwrap();
    assert_ne!(secret(Network::Bitcoin), secret(Network::Signet));
}

/// The first addresses of BIP-86's test vectors.
#[test]
fn the_first_addresses_are_those_of_bip_86() {
    let seed = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1\
                9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";
    let seed = <Vec<u8> as bitcoin::hex::FromHex>::from_hex(seed).unwrap();
    let keys = Keys::from_seed(&seed, Network::Bitcoin).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut wallet = Wallet::open(&keys, Network::Bitcoin, open_store(dir.path()), None).unwrap();
    let first = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
    let second = "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh";
    assert_eq!(wallet.next_address().unwrap().to_string(), first);
    assert_eq!(wallet.next_address().unwrap().to_string(), second);
    let change = "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7";
    let change: Address<_> = change.parse().unwrap();
    assert!(wallet.watched_scripts().contains(&change.assume_checked().script_pubkey()));
}

#[test]
fn the_faucet_pays_in_four_parts() {
    let secp = Secp256k1::new();
    let faucet = Keypair::from_seckey_slice(&secp, &[3; 32]).unwrap();
    let output = faucet.tap_tweak(&secp, None).to_keypair().x_only_public_key().0;
    let own = ScriptBuf::new_p2tr_tweaked(
        bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(output),
    );
    let coin = |n: u8| (OutPoint::new(Txid::from_byte_array([n; 32]), 0), 5_000_000_000);
    let coins = [coin(1), coin(2), coin(3)];
    let to = [1, 2, 3, 4].map(foreign_script);
    let tx = faucet_spend(&coins, &faucet, to.clone(), 7_000_000_003, FEERATE).unwrap();
    assert_eq!(inputs(&tx), [coins[0].0, coins[1].0], "as many coins as needed, in order");
    let prevout = TxOut { value: Amount::from_sat(5_000_000_000), script_pubkey: own.clone() };
    verify(&tx, &vec![prevout; 2]).unwrap();
    let paid: Vec<_> = tx.output.iter().map(|o| o.value.to_sat()).collect();
    assert_eq!(paid[..4], [1_750_000_003, 1_750_000_000, 1_750_000_000, 1_750_000_000]);
    assert!(tx.output.iter().zip(&to).all(|(o, script)| o.script_pubkey == *script));
    assert_eq!(tx.output[4].script_pubkey, own);
    let fee = 10_000_000_000 - paid.iter().sum::<u64>();
    assert_eq!(fee, (FEERATE * tx.vsize() as u64).div_ceil(1_000));

    let short = faucet_spend(&coins, &faucet, to.clone(), 15_000_000_000, FEERATE).unwrap_err();
    assert_eq!(short.code(), "wallet.insufficient_funds");
    let dust = faucet_spend(&coins, &faucet, to.clone(), 1_000, FEERATE).unwrap_err();
    assert_eq!(dust.code(), "wallet.bad_amount");
    let rate = faucet_spend(&coins, &faucet, to.clone(), 10_000, u64::MAX).unwrap_err();
    assert_eq!(rate.code(), "wallet.bad_feerate");
    let none = faucet_spend(&[], &faucet, to, 10_000, FEERATE).unwrap_err();
    assert_eq!(none.code(), "wallet.insufficient_funds");
}

#[derive(Debug, Clone)]
enum Step {
    Fund(u8, u64),
    Cancel(u8, u64),
    Release(u8),
    Broadcast(u8),
    Mine,
    Reorganise,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let terms = || 1u8..6;
    prop_oneof![
        4 => (terms(), 1_000u64..60_000).prop_map(|(t, sat)| Step::Fund(t, sat)),
        1 => (terms(), 1_000u64..9_000).prop_map(|(t, rate)| Step::Cancel(t, rate)),
        1 => terms().prop_map(Step::Release),
        3 => terms().prop_map(Step::Broadcast),
        1 => Just(Step::Mine),
        1 => Just(Step::Reorganise),
        1 => Just(Step::Reopen),
    ]
}

/// What the wallet's user knows: what it was handed out, and what it gave back.
#[derive(Default)]
struct Model {
    live: BTreeMap<u8, Transaction>,
    broadcast: Vec<Transaction>,
    known: BTreeMap<OutPoint, TxOut>,
}

impl Model {
    fn learn(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for (vout, output) in tx.output.iter().enumerate() {
            self.known.insert(OutPoint::new(txid, vout as u32), output.clone());
        }
    }

    fn hand_out(&mut self, terms: u8, tx: Transaction) {
        let prevouts: Vec<_> = inputs(&tx).iter().map(|o| self.known[o].clone()).collect();
        verify(&tx, &prevouts).unwrap();
        self.learn(&tx);
        self.live.insert(terms, tx);
        let spent: Vec<_> = self.live.values().flat_map(inputs).collect();
        let distinct: BTreeSet<_> = spent.iter().collect();
        assert_eq!(spent.len(), distinct.len(), "a coin is spent by two live transactions");
    }

    /// The broadcast transactions that the chain can take, later ones first in a conflict.
    fn minable(&self, chain: &Chain) -> Vec<Transaction> {
        let mined: Vec<_> = chain.blocks.iter().flat_map(|b| b.txdata.clone()).collect();
        let mut spent: BTreeSet<_> = mined.iter().flat_map(inputs).collect();
        let mut there: BTreeSet<_> = mined.iter().map(Transaction::compute_txid).collect();
        let mut chosen: Vec<Transaction> = Vec::new();
        for tx in &self.broadcast {
            let replaced =
                self.broadcast.iter().rev().find(|t| inputs(t) == inputs(tx)) != Some(tx);
            let fits = inputs(tx).iter().all(|o| there.contains(&o.txid) && !spent.contains(o));
            if fits && !replaced {
                spent.extend(inputs(tx));
                there.insert(tx.compute_txid());
                chosen.push(tx.clone());
            }
        }
        chosen
    }
}

fn play(bench: Bench, model: &mut Model, step: Step) -> Bench {
    let mut bench = bench;
    match step {
        Step::Fund(terms, sat) => {
            if let Ok(funded) = bench.fund(terms, sat) {
                assert_eq!(bench.fund(terms, sat).unwrap(), funded);
                model.hand_out(terms, funded.tx);
            }
        }
        Step::Cancel(terms, rate) => {
            if let Ok(cancel) = bench.cancel(terms, rate) {
                assert_eq!(inputs(&cancel.tx), inputs(&model.live[&terms]));
                model.hand_out(terms, cancel.tx);
            }
        }
        Step::Release(terms) => {
            // As the engine does: a transaction that was broadcast is not given up.
            let is_out = model.live.get(&terms).is_some_and(|tx| model.broadcast.contains(tx));
            if !is_out && bench.wallet.release([terms; 32]).is_ok() {
                model.live.remove(&terms);
            }
        }
        Step::Broadcast(terms) => {
            if let Some(tx) = model.live.get(&terms).filter(|tx| !model.broadcast.contains(tx)) {
                bench.wallet.mark_broadcast(tx, 1_700_000_000).unwrap();
                model.broadcast.push(tx.clone());
            }
        }
        Step::Mine => {
            let txs = model.minable(&bench.chain);
            bench.mine(txs);
        }
        Step::Reorganise if bench.chain.height() > 1 => {
            let disconnected = bench.chain.fork(1);
            let txs = model.minable(&bench.chain);
            let update = ChainUpdate { disconnected, ..bench.chain.mine(txs) };
            bench.apply(&update);
        }
        Step::Reorganise => {}
        Step::Reopen => bench = bench.reopen(),
    }
    bench
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_no_coin_is_in_two_live_transactions(
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut bench = Bench::with_coins(&[40_000, 50_000, 60_000, 70_000]);
        let mut model = Model::default();
        bench.chain.blocks[1].txdata.iter().for_each(|tx| model.learn(tx));
        for step in steps {
            bench = play(bench, &mut model, step);
            let b = bench.wallet.balance();
            prop_assert!(b.spendable_sat + b.locked_sat <= b.confirmed_sat + b.pending_sat);
        }
        let balance = bench.wallet.balance();
        let bench = bench.reopen();
        prop_assert_eq!(bench.wallet.balance(), balance);
    }
}
