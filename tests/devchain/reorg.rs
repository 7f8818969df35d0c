//! Reorganisations, and what readers are told of them.

use std::sync::{Arc, Mutex};

use bitcoin::ScriptBuf;
use capex::chain::devchain::{Cursor, Devchain, DevchainSource, build_block, faucet_script};
use capex::chain::{ChainSource, Watcher};

use crate::kit::{Kit, NOW_S, owned, sweep};

#[test]
fn an_invalidated_block_returns_its_transactions_to_the_mempool() {
    let mut kit = Kit::new();
    let parent = sweep(&kit.next_coinbase(), 1_000);
    kit.send(&parent).expect("a spend");
    kit.mine(1);
    let child = sweep(&owned(&parent, 0), 1_000);
    kit.send(&child).expect("a child");
    kit.mine(1);
    let bad = kit.chain.hash_at(201).expect("a block");
    kit.chain.invalidate_block(&bad).expect("a known block");
    assert_eq!(kit.chain.height(), 200);
    assert_eq!(kit.chain.mempool().len(), 2);
    kit.mine(1);
    assert_eq!(kit.chain.confirmed_tx(&child.compute_txid()).expect("again").0, 201);
    kit.chain.reconsider_block(&bad).expect("a known block");
    assert_eq!(kit.chain.hash_at(201), Some(bad), "the longer branch is back");
    assert_eq!(kit.chain.height(), 202);
}

#[test]
fn a_transaction_that_the_new_branch_contradicts_is_dropped_with_its_child() {
    let mut kit = Kit::new();
    let coin = kit.next_coinbase();
    let (fork, height) = (kit.chain.tip(), kit.chain.height());
    let first = sweep(&coin, 1_000);
    kit.send(&first).expect("a spend");
    kit.mine(1);
    kit.send(&sweep(&owned(&first, 0), 1_000)).expect("a child");
    let rival = sweep(&coin, 2_000);
    let a =
        build_block(fork, height + 1, kit.now_s, vec![rival.clone()], 2_000, &faucet_script(), 77);
    let b = build_block(a.block_hash(), height + 2, kit.now_s + 1, vec![], 0, &faucet_script(), 78);
    kit.chain.submit_block(a, kit.now_s).expect("a side branch");
    assert!(kit.chain.confirmed_tx(&first.compute_txid()).is_some(), "first seen wins a tie");
    kit.chain.submit_block(b, kit.now_s).expect("the longer branch");
    assert!(kit.chain.confirmed_tx(&rival.compute_txid()).is_some());
    assert!(kit.chain.mempool().is_empty());
}

#[test]
fn a_longer_branch_with_an_invalid_block_changes_nothing() {
    let mut kit = Kit::new();
    let (fork, height) = (kit.chain.tip(), kit.chain.height());
    kit.mine(1);
    let tip = kit.chain.tip();
    let a = build_block(fork, height + 1, kit.now_s, vec![], 1, &faucet_script(), 77);
    let b = build_block(a.block_hash(), height + 2, kit.now_s + 1, vec![], 0, &faucet_script(), 78);
    let c = build_block(b.block_hash(), height + 3, kit.now_s + 1, vec![], 0, &faucet_script(), 79);
    kit.chain.submit_block(a, kit.now_s).expect("not yet checked for its amount");
    let _ = kit.chain.submit_block(b, kit.now_s);
    assert_eq!(kit.chain.tip(), tip);
    let refused = kit.chain.submit_block(c, kit.now_s).expect_err("on an invalid block");
    assert_eq!(refused.reason(), "bad-prevblk");
}

#[test]
fn a_coinbase_that_left_the_chain_takes_its_spends_along() {
    let mut kit = Kit::new();
    kit.mine(100);
    let young = kit.coinbase(201);
    kit.send(&sweep(&young, 1_000)).expect("mature in the next block");
    let bad = kit.chain.hash_at(300).expect("the tip");
    kit.chain.invalidate_block(&bad).expect("a known block");
    assert!(kit.chain.mempool().is_empty(), "immature again");
}

#[test]
fn a_cursor_tells_a_reorganisation_and_then_the_new_branch() {
    let mut kit = Kit::new();
    let mut cursor = Cursor::at(199);
    let first = cursor.changes(&kit.chain).expect("news");
    assert_eq!(heights(&first.connected), [199, 200]);
    assert!(cursor.changes(&kit.chain).is_none());

    let bad = kit.chain.tip();
    kit.chain.invalidate_block(&bad).expect("the tip");
    kit.mine(2);
    let update = cursor.changes(&kit.chain).expect("news");
    assert_eq!(heights(&update.disconnected), [200]);
    assert_eq!(update.disconnected[0].1.block_hash(), bad);
    assert_eq!(heights(&update.connected), [200, 201]);
    assert_eq!((update.height, update.tip), (201, Some(kit.chain.tip())));
    assert_eq!(update.median_time_past_s, kit.chain.median_time_past_s());

    cursor.rescan_from(150);
    let again = cursor.changes(&kit.chain).expect("news");
    assert_eq!(heights(&again.connected), (150..=201).collect::<Vec<_>>());
    assert!(again.disconnected.is_empty());
}

fn heights(blocks: &[(u32, Arc<bitcoin::Block>)]) -> Vec<u32> {
    blocks.iter().map(|(height, _)| *height).collect()
}

#[test]
fn a_watcher_sees_payments_their_spends_and_their_end() {
    let mut kit = Kit::new();
    let mut cursor = Cursor::at(201);
    let mut watcher = Watcher::new();
    let script = ScriptBuf::new_p2tr(
        &bitcoin::secp256k1::Secp256k1::new(),
        crate::kit::key(9).x_only_public_key().0,
        None,
    );
    watcher.watch_spk(script.clone()).expect("room");
    cursor.changes(&kit.chain);

    let paid = kit.funded(&script, 40_000);
    let seen = watcher.reduce(&cursor.changes(&kit.chain).expect("news"));
    assert_eq!(seen.connected.len(), 1);
    assert_eq!((seen.connected[0].0, seen.connected[0].1), (201, paid.outpoint.txid));

    // Somebody else's payment concerns nobody here.
    let other = sweep(&kit.next_coinbase(), 1_000);
    kit.send(&other).expect("a spend");
    let seen = watcher.reduce(&cursor.changes(&kit.chain).expect("news"));
    assert!(seen.is_empty());

    let bad = kit.chain.tip();
    kit.chain.invalidate_block(&bad).expect("the tip");
    let seen = watcher.reduce(&cursor.changes(&kit.chain).expect("news"));
    assert_eq!(seen.disconnected, [paid.outpoint.txid]);
    assert_eq!(seen.mempool.len(), 1, "it waits for the next block");
}

#[test]
fn a_watcher_infers_what_left_when_the_source_cannot_tell() {
    // The source goes on at the replaced block itself, or only above it.
    for from in [200, 201] {
        let mut kit = Kit::new();
        let mut watcher = Watcher::new();
        watcher.watch_spk(faucet_script()).expect("room");
        let old = Cursor::at(199).changes(&kit.chain).expect("news");
        watcher.reduce(&old);
        let lost = kit.coinbase(200).outpoint.txid;
        let bad = kit.chain.tip();
        kit.chain.invalidate_block(&bad).expect("the tip");
        kit.mine(2);
        let seen = watcher.reduce(&Cursor::at(from).changes(&kit.chain).expect("news"));
        assert_eq!(seen.disconnected, [lost]);
        assert_eq!(seen.connected.len() as u32, 202 - from);
        let again = watcher.reduce(&Cursor::at(0).changes(&kit.chain).expect("news"));
        assert!(again.disconnected.is_empty(), "the same blocks again are no news");
    }
}

#[tokio::test]
async fn the_source_in_process_delivers_and_broadcasts() {
    let chain = Arc::new(Mutex::new(Devchain::new(NOW_S)));
    let mut source = DevchainSource::new(chain.clone(), 200);
    assert_eq!(source.poll().await.expect("a poll").expect("news").height, 200);
    assert!(source.poll().await.expect("a poll").is_none());
    let tx = sweep(&Kit::new().coinbase(1), 1_000);
    let txid = source.sender().broadcast(&tx).await.expect("accepted");
    assert_eq!(source.sender().broadcast(&tx).await.expect("already known is fine"), txid);
    assert_eq!(
        source.poll().await.expect("a poll").expect("news").mempool,
        std::slice::from_ref(&tx)
    );
    let refused = source.sender().broadcast(&sweep(&Kit::new().coinbase(1), 900)).await;
    assert_eq!(refused.expect_err("a conflict").code(), "chain.reject.replacement_fee");
}
