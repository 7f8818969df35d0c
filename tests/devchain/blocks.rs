//! What a block may hold.

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxMerkleNode, Txid, Witness,
    absolute,
};
use capex::chain::devchain::{Devchain, build_block, faucet_script, solve, subsidy_sat};

use crate::kit::{Kit, NOW_S, pay, sign, sweep, unsigned};

/// A solved block on the tip with these transactions, claiming `fees_sat`.
pub(crate) fn block_with(kit: &Kit, txs: Vec<Transaction>, fees_sat: u64) -> Block {
    build_block(
        kit.chain.tip(),
        kit.chain.height() + 1,
        kit.now_s + 1,
        txs,
        fees_sat,
        &faucet_script(),
        1 << 40,
    )
}

fn refusal(kit: &mut Kit, block: Block) -> &'static str {
    let (tip, coins) = (kit.chain.tip(), kit.chain.coin(&kit.coinbase(1).outpoint).cloned());
    let reason = kit.chain.submit_block(block, kit.now_s).expect_err("a refusal").reason();
    assert_eq!(kit.chain.tip(), tip, "a refused block leaves the chain as it was");
    assert_eq!(kit.chain.coin(&kit.coinbase(1).outpoint).cloned(), coins);
    reason
}

#[test]
fn the_premine_ends_now_one_second_apart_and_half_of_it_is_mature() {
    let kit = Kit::new();
    assert_eq!(kit.chain.height(), 200);
    let time = |height| {
        let hash = kit.chain.hash_at(height).expect("a block");
        kit.chain.block(&hash).expect("a block").header.time
    };
    assert_eq!(time(200), NOW_S);
    assert_eq!(time(1), NOW_S - 199);
    assert_eq!(kit.coinbase(149).output.value, Amount::from_sat(50 * 100_000_000));
    assert_eq!(kit.coinbase(150).output.value, Amount::from_sat(25 * 100_000_000));
    assert_eq!(kit.coinbase(7).output.script_pubkey, faucet_script());
}

#[test]
fn the_subsidy_ends() {
    assert_eq!(subsidy_sat(33 * 150), 0);
    assert_eq!(subsidy_sat(u32::MAX), 0);
}

#[test]
fn two_chains_with_the_same_clock_are_the_same() {
    assert_eq!(Devchain::new(NOW_S).tip(), Devchain::new(NOW_S).tip());
}

#[test]
fn a_broken_block_is_refused_with_cores_reason() {
    type Break = fn(&Kit, &mut Block);
    let table: &[(&str, Break)] = &[
        ("bad-txnmrklroot", |_, block| {
            block.header.merkle_root = TxMerkleNode::all_zeros();
            resolve_only(block);
        }),
        ("high-hash", |_, block| {
            while bitcoin::Target::from_compact(block.header.bits).is_met_by(block.block_hash()) {
                block.header.nonce += 1;
            }
        }),
        ("bad-diffbits", |_, block| {
            block.header.bits = bitcoin::CompactTarget::from_consensus(0x1d00_ffff);
        }),
        ("time-too-old", |kit, block| {
            block.header.time = kit.chain.median_time_past_s();
            resolve_only(block);
        }),
        ("time-too-new", |kit, block| {
            block.header.time = kit.now_s + 7_201;
            resolve_only(block);
        }),
        ("bad-version", |_, block| {
            block.header.version = bitcoin::block::Version::from_consensus(3);
            resolve_only(block);
        }),
        ("prev-blk-not-found", |_, block| {
            block.header.prev_blockhash = bitcoin::BlockHash::all_zeros();
            resolve_only(block);
        }),
        ("bad-cb-height", |_, block| {
            block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![1, 9, 0, 0]);
            solve(block);
        }),
        ("bad-cb-length", |kit, block| {
            let height = i64::from(kit.chain.height()) + 1;
            let mut script = ScriptBuf::builder().push_int(height).into_script().into_bytes();
            script.resize(101, 0);
            block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
            solve(block);
        }),
        ("bad-cb-amount", |_, block| {
            block.txdata[0].output[0].value += Amount::from_sat(1);
            solve(block);
        }),
        ("bad-cb-missing", |_, block| {
            block.txdata.swap(0, 1);
            resolve(block);
        }),
        ("bad-cb-multiple", |_, block| {
            let mut second = block.txdata[0].clone();
            second.lock_time = absolute::LockTime::from_consensus(1);
            block.txdata.push(second);
            solve(block);
        }),
        ("bad-txns-duplicate", |_, block| {
            block.txdata.push(block.txdata[1].clone());
            solve(block);
        }),
        ("unexpected-witness", |_, block| {
            block.txdata[0].output.pop();
            resolve(block);
        }),
        ("bad-witness-nonce-size", |_, block| {
            block.txdata[0].input[0].witness = Witness::from_slice(&[[0u8; 31]]);
            resolve(block);
        }),
        ("bad-witness-merkle-match", |_, block| {
            block.txdata[0].input[0].witness = Witness::from_slice(&[[1u8; 32]]);
            resolve(block);
        }),
    ];
    for (reason, spoil) in table {
        let mut kit = Kit::new();
        let tx = sweep(&kit.next_coinbase(), 1_000);
        let mut block = block_with(&kit, vec![tx], 1_000);
        spoil(&kit, &mut block);
        assert_eq!(refusal(&mut kit, block), *reason);
    }
    let mut kit = Kit::new();
    let tx = sweep(&kit.next_coinbase(), 1_000);
    let block = block_with(&kit, vec![tx], 1_000);
    kit.chain.submit_block(block, kit.now_s).expect("the unspoiled block is right");
}

/// Solves again without touching the witness commitment.
fn resolve(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().expect("transactions");
    resolve_only(block);
}

/// Searches the nonce and changes nothing else.
fn resolve_only(block: &mut Block) {
    while !bitcoin::Target::from_compact(block.header.bits).is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
}

#[test]
fn a_broken_transaction_in_a_block_is_refused() {
    type Build = fn(&mut Kit) -> (Transaction, u64);
    let table: &[(&str, Build)] = &[
        ("bad-txns-premature-spend-of-coinbase", |kit| (sweep(&kit.coinbase(102), 1_000), 1_000)),
        ("bad-txns-inputs-missingorspent", |kit| {
            let coin = kit.next_coinbase();
            kit.send(&sweep(&coin, 1_000)).expect("a spend");
            kit.mine(1);
            (sweep(&coin, 2_000), 2_000)
        }),
        ("bad-txns-in-belowout", |kit| {
            let coin = kit.next_coinbase();
            let sat = coin.output.value.to_sat() + 1;
            (pay(&[coin], &[(faucet_script(), sat)]), 0)
        }),
        ("bad-txns-vout-negative", |kit| {
            (pay(&[kit.next_coinbase()], &[(faucet_script(), u64::MAX)]), 0)
        }),
        ("bad-txns-vout-toolarge", |kit| {
            (pay(&[kit.next_coinbase()], &[(faucet_script(), 2_100_000_000_000_001)]), 0)
        }),
        ("bad-txns-txouttotal-toolarge", |kit| {
            let most = (faucet_script(), 2_100_000_000_000_000);
            (pay(&[kit.next_coinbase()], &[most.clone(), most]), 0)
        }),
        ("bad-txns-inputs-duplicate", |kit| {
            let coin = kit.next_coinbase();
            let sat = coin.output.value.to_sat();
            (pay(&[coin.clone(), coin], &[(faucet_script(), sat)]), 0)
        }),
        ("bad-txns-nonfinal", |kit| {
            let coin = kit.next_coinbase();
            let mut tx = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), 10_000)]);
            tx.lock_time = absolute::LockTime::from_consensus(kit.chain.height() + 1);
            sign(&mut tx, &[coin]);
            (tx, 0)
        }),
        ("bad-txns-vin-empty", |_| (unsigned(&[], &[(faucet_script(), 1)]), 0)),
        ("bad-txns-vout-empty", |kit| (unsigned(&[kit.next_coinbase()], &[]), 0)),
        ("bad-txns-prevout-null", |kit| {
            let mut tx =
                unsigned(&[kit.next_coinbase(), kit.next_coinbase()], &[(faucet_script(), 1)]);
            tx.input[1].previous_output = OutPoint::null();
            (tx, 0)
        }),
    ];
    for (reason, build) in table {
        let mut kit = Kit::new();
        let (tx, fee_sat) = build(&mut kit);
        let block = block_with(&kit, vec![tx], fee_sat);
        assert_eq!(refusal(&mut kit, block), *reason);
    }
}

#[test]
fn a_double_spend_inside_one_block_is_refused() {
    let mut kit = Kit::new();
    let coin = kit.next_coinbase();
    let block = block_with(&kit, vec![sweep(&coin, 1_000), sweep(&coin, 2_000)], 3_000);
    assert_eq!(refusal(&mut kit, block), "bad-txns-inputs-missingorspent");
}

#[test]
fn a_child_may_stand_in_the_block_of_its_parent_but_not_before_it() {
    let mut kit = Kit::new();
    let parent = sweep(&kit.next_coinbase(), 1_000);
    let child = sweep(&crate::kit::owned(&parent, 0), 1_000);
    let block = block_with(&kit, vec![child.clone(), parent.clone()], 2_000);
    assert_eq!(refusal(&mut kit, block), "bad-txns-inputs-missingorspent");
    let block = block_with(&kit, vec![parent, child], 2_000);
    kit.chain.submit_block(block, kit.now_s).expect("in order");
}

#[test]
fn a_coinbase_is_spendable_from_the_hundredth_block_after_it() {
    let mut kit = Kit::new();
    // The next block is 201: depth 100 for the coinbase of block 101.
    assert_eq!(
        kit.refusal(&sweep(&kit.coinbase(102), 1_000)),
        "bad-txns-premature-spend-of-coinbase"
    );
    kit.send(&sweep(&kit.coinbase(101), 1_000)).expect("mature in the next block");
}

#[test]
fn an_unknown_transaction_is_not_confirmed() {
    assert!(Kit::new().chain.confirmed_tx(&Txid::all_zeros()).is_none());
}

#[test]
fn relative_locks_of_bip68_hold_in_blocks_and_seconds() {
    for (sequence, blocks) in
        [(Sequence::from_height(10), 10), (Sequence::from_512_second_intervals(1), 0)]
    {
        let mut kit = Kit::new();
        let coin = kit.funded(&faucet_script(), 100_000);
        let mut tx = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), 99_000)]);
        tx.input[0].sequence = sequence;
        sign(&mut tx, std::slice::from_ref(&coin));
        assert_eq!(kit.refusal(&tx), "non-BIP68-final");
        let block = block_with(&kit, vec![tx.clone()], 1_000);
        assert_eq!(refusal(&mut kit, block), "bad-txns-nonfinal");
        if blocks > 0 {
            // One block of the ten is the one it will stand in, one the coin's own.
            kit.mine(blocks - 2);
            assert_eq!(kit.refusal(&tx), "non-BIP68-final");
            kit.mine(1);
        } else {
            kit.now_s += 512;
            kit.mine(6);
        }
        kit.send(&tx).expect("the lock is reached");
        kit.mine(1);
        assert!(kit.chain.confirmed_tx(&tx.compute_txid()).is_some());
    }
}
