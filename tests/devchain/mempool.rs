//! What the mempool takes, replaces and refuses.

use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::{ScriptBuf, Sequence, Transaction, transaction};
use capex::chain::devchain::{Policy, faucet_script};

use crate::kit::{Kit, owned, pay, sign, sweep, unsigned};

#[test]
fn a_transaction_that_is_not_relayed_is_refused_with_cores_reason() {
    type Build = fn(&mut Kit) -> Transaction;
    let table: &[(&str, Build)] = &[
        ("dust", |kit| {
            let coin = kit.next_coinbase();
            let sat = coin.output.value.to_sat() - 10_000;
            pay(&[coin], &[(faucet_script(), sat), (faucet_script(), 329)])
        }),
        ("min relay fee not met", |kit| sweep(&kit.next_coinbase(), 11)),
        ("version", |kit| {
            let coin = kit.next_coinbase();
            let mut tx = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), 10_000)]);
            tx.version = transaction::Version(4);
            sign(&mut tx, &[coin]);
            tx
        }),
        ("scriptpubkey", |kit| {
            pay(&[kit.next_coinbase()], &[(ScriptBuf::from_bytes(vec![0x61; 40]), 10_000)])
        }),
        ("multi-op-return", |kit| {
            let note = ScriptBuf::builder().push_opcode(OP_RETURN).push_slice([1]).into_script();
            pay(&[kit.next_coinbase()], &[(note.clone(), 0), (note, 0), (faucet_script(), 10_000)])
        }),
        ("bad-txns-inputs-missingorspent", |kit| {
            let parent = sweep(&kit.next_coinbase(), 1_000);
            sweep(&owned(&parent, 0), 1_000)
        }),
        ("non-final", |kit| {
            let coin = kit.next_coinbase();
            let mut tx = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), 10_000)]);
            tx.lock_time =
                bitcoin::absolute::LockTime::from_consensus(kit.chain.median_time_past_s());
            sign(&mut tx, &[coin]);
            tx
        }),
        ("coinbase", |kit| {
            let hash = kit.chain.tip();
            kit.chain.block(&hash).expect("the tip").txdata[0].clone()
        }),
        ("txn-already-in-mempool", |kit| {
            let tx = sweep(&kit.next_coinbase(), 1_000);
            kit.send(&tx).expect("a spend");
            tx
        }),
        ("txn-already-known", |kit| {
            let tx = sweep(&kit.next_coinbase(), 1_000);
            kit.send(&tx).expect("a spend");
            kit.mine(1);
            tx
        }),
    ];
    for (reason, build) in table {
        let mut kit = Kit::new();
        let tx = build(&mut kit);
        assert_eq!(kit.refusal(&tx), *reason);
    }
}

#[test]
fn the_smallest_fee_and_the_smallest_output_are_accepted() {
    let mut kit = Kit::new();
    let coin = kit.next_coinbase();
    let least_sat = (sweep(&coin, 1_000).vsize() as u64).div_ceil(10);
    kit.send(&sweep(&coin, least_sat)).expect("0.1 sat/vB");
    let coin = kit.next_coinbase();
    let sat = coin.output.value.to_sat() - 10_000;
    kit.send(&pay(&[coin], &[(faucet_script(), sat), (faucet_script(), 330)])).expect("not dust");
}

#[test]
fn a_replacement_pays_for_what_it_evicts_and_for_itself() {
    let mut kit = Kit::new();
    let coin = kit.next_coinbase();
    let first = sweep(&coin, 1_000);
    let more_sat = (first.vsize() as u64).div_ceil(10);
    kit.send(&first).expect("the first");
    for fee_sat in [500, 1_000, 1_000 + more_sat - 1] {
        let refused = sweep(&coin, fee_sat);
        if fee_sat != 1_000 {
            assert_eq!(kit.refusal(&refused), "insufficient fee", "{fee_sat} sat");
        }
    }
    let second = sweep(&coin, 1_000 + more_sat);
    kit.send(&second).expect("0.1 sat/vB more");
    assert!(kit.chain.mempool().get(&first.compute_txid()).is_none());
    kit.mine(1);
    assert!(kit.chain.confirmed_tx(&second.compute_txid()).is_some());
}

#[test]
fn a_replacement_pays_for_descendants_too() {
    let mut kit = Kit::new();
    let coin = kit.next_coinbase();
    let parent = sweep(&coin, 1_000);
    let child = sweep(&owned(&parent, 0), 50_000);
    kit.send(&parent).expect("a spend");
    kit.send(&child).expect("a child");
    assert_eq!(kit.refusal(&sweep(&coin, 20_000)), "insufficient fee");
    // More than both together, and yet worth less to a miner by the byte.
    let sat = coin.output.value.to_sat();
    let mut wide = vec![(faucet_script(), 10_000); 40];
    wide.push((faucet_script(), sat - 400_000 - 60_000));
    assert_eq!(kit.refusal(&pay(std::slice::from_ref(&coin), &wide)), "insufficient fee");
    kit.send(&sweep(&coin, 52_000)).expect("more than both");
    assert_eq!(kit.chain.mempool().len(), 1);
}

#[test]
fn a_replacement_neither_spends_what_it_evicts_nor_adds_unconfirmed_inputs() {
    let mut kit = Kit::new();
    let (coin, other) = (kit.next_coinbase(), kit.next_coinbase());
    let first = sweep(&coin, 1_000);
    kit.send(&first).expect("a spend");
    let both = pay(&[coin.clone(), owned(&first, 0)], &[(faucet_script(), 10_000)]);
    assert_eq!(kit.refusal(&both), "bad-txns-spends-conflicting-tx");
    let unconfirmed = sweep(&other, 1_000);
    kit.send(&unconfirmed).expect("a spend");
    let adds = pay(&[coin, owned(&unconfirmed, 0)], &[(faucet_script(), 10_000)]);
    assert_eq!(kit.refusal(&adds), "replacement-adds-unconfirmed");
}

#[test]
fn without_full_rbf_only_a_signalling_transaction_is_replaced() {
    let mut kit = Kit::new();
    kit.chain.set_policy(Policy { full_rbf: false, ..Policy::default() });
    for (sequence, replaced) in [(Sequence::MAX, false), (Sequence::ENABLE_RBF_NO_LOCKTIME, true)] {
        let coin = kit.next_coinbase();
        let sat = coin.output.value.to_sat();
        let mut first = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), sat - 1_000)]);
        first.input[0].sequence = sequence;
        sign(&mut first, std::slice::from_ref(&coin));
        kit.send(&first).expect("a spend");
        let second = sweep(&coin, 5_000);
        match replaced {
            true => kit.send(&second).expect("it signals"),
            false => assert_eq!(kit.refusal(&second), "txn-mempool-conflict"),
        }
    }
}

#[test]
fn chains_of_unconfirmed_transactions_end_at_25() {
    let mut kit = Kit::new();
    let mut tx = sweep(&kit.next_coinbase(), 1_000);
    for _ in 0..25 {
        kit.send(&tx).expect("within 25");
        tx = sweep(&owned(&tx, 0), 1_000);
    }
    assert_eq!(kit.refusal(&tx), "too-long-mempool-chain");
    kit.mine(1);
    kit.send(&tx).expect("its ancestors are confirmed");
    assert_eq!(kit.chain.mempool().len(), 1);
}

#[test]
fn a_full_mempool_keeps_what_pays_best() {
    let mut kit = Kit::new();
    kit.chain.set_policy(Policy { max_txs: 2, ..Policy::default() });
    let coins = [kit.next_coinbase(), kit.next_coinbase(), kit.next_coinbase()];
    let cheap = sweep(&coins[0], 500);
    kit.send(&cheap).expect("room");
    kit.send(&sweep(&coins[1], 5_000)).expect("room");
    assert_eq!(
        kit.chain.submit_tx(sweep(&coins[2], 400)).expect_err("no room").reason(),
        "mempool full"
    );
    kit.send(&sweep(&coins[2], 1_000)).expect("it pays more than the cheapest");
    assert_eq!(kit.chain.mempool().len(), 2);
    assert!(kit.chain.mempool().get(&cheap.compute_txid()).is_none());
}

#[test]
fn a_block_confirms_a_package_in_order_and_collects_its_fees() {
    let mut kit = Kit::new();
    let parent = sweep(&kit.next_coinbase(), 200);
    let child = sweep(&owned(&parent, 0), 9_000);
    kit.send(&parent).expect("a spend");
    kit.send(&child).expect("a child");
    kit.mine(1);
    assert!(kit.chain.mempool().is_empty());
    let reward_sat = kit.coinbase(201).output.value.to_sat();
    assert_eq!(reward_sat, 25 * 100_000_000 + 9_200);
}
