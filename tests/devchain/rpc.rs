//! The RPC source against the devchain server, over loopback.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Network, Transaction, Txid};
use capex::chain::devchain::server::{Running, ServeOptions, serve};
use capex::chain::devchain::{faucet_address, faucet_script};
use capex::chain::rpc::{Kind, RpcClient, RpcConfig, RpcSource};
use capex::chain::{Behind, ChainError, ChainSource, ChainUpdate, FEE_TARGETS, Watcher};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::kit::{Owned, pay, sweep};
use crate::proxy::Proxy;

/// A server that a test starts, stops and starts again.
pub(crate) struct Server {
    pub(crate) running: Running,
    stop: oneshot::Sender<()>,
}

/// Credentials of nodes of others.
pub(crate) const GUEST: &str = "guest:0123456789abcdef";

impl Server {
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_on(dir, SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    pub(crate) async fn start_on(
        dir: &Path,
        listen: SocketAddr,
        block_every: Option<Duration>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = Box::pin(async move {
            let _ = stopped.await;
        });
        let options = ServeOptions {
            listen,
            block_every,
            state_dir: dir.to_owned(),
            guest: Some(GUEST.to_owned()),
            shutdown,
        };
        Self { running: serve(options).await.expect("a server"), stop }
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        let addr = self.running.addr;
        let _ = self.stop.send(());
        self.running.stopped().await;
        addr
    }

    pub(crate) fn client(&self) -> RpcClient {
        RpcClient::new(self.running.url(), &self.running.cookie_path)
    }

    pub(crate) fn source(&self, start_height: u32) -> RpcSource {
        self.source_after(start_height, vec![])
    }

    fn source_after(&self, start_height: u32, checkpoints: Vec<(u32, BlockHash)>) -> RpcSource {
        let config = RpcConfig::new(self.client(), Network::Regtest, start_height);
        RpcSource::new(RpcConfig { checkpoints, ..config })
    }
}

pub(crate) async fn news(source: &mut RpcSource) -> ChainUpdate {
    source.poll().await.expect("a poll").expect("news")
}

pub(crate) fn heights<T>(blocks: &[(u32, T)]) -> Vec<u32> {
    blocks.iter().map(|(height, _)| *height).collect()
}

pub(crate) async fn coinbase(client: &RpcClient, height: u32) -> Owned {
    let block = client.block_at(height).await.expect("a call").expect("a block");
    crate::kit::owned(&block.txdata[0], 0)
}

#[tokio::test]
async fn a_source_follows_mining_and_a_reorganisation() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let (client, mut source) = (server.client(), server.source(190));

    let update = news(&mut source).await;
    assert_eq!(heights(&update.connected), (190..=200).collect::<Vec<_>>());
    assert_eq!(update.height, 200);
    assert!(update.median_time_past_s > 1_700_000_000);
    assert_eq!(update.feerates, FEE_TARGETS.map(|target| (target, 1_000)));
    assert!(source.poll().await.expect("a poll").is_none());

    let mined = client.generate(3, &faucet_address()).await.expect("blocks");
    let update = news(&mut source).await;
    assert_eq!(heights(&update.connected), [201, 202, 203]);
    assert_eq!(update.tip, mined.last().copied());

    client.call::<Value>("invalidateblock", vec![json!(mined[1])]).await.expect("known");
    client.generate(1, &faucet_address()).await.expect("a block");
    let update = news(&mut source).await;
    assert_eq!(heights(&update.disconnected), [203, 202]);
    assert_eq!(update.disconnected[1].1.block_hash(), mined[1]);
    assert_eq!(heights(&update.connected), [202]);

    source.rescan_from(150).await.expect("remembered");
    let mut again = Vec::new();
    while let Some(update) = source.poll().await.expect("a poll") {
        assert!(update.disconnected.is_empty());
        again.extend(heights(&update.connected));
        assert_eq!(update.height, *again.last().expect("a block"), "no height runs ahead");
    }
    assert_eq!(again, (150..=202).collect::<Vec<_>>());
    server.stop().await;
}

/// Half a scan must not pass for the whole: a seller would take an old height for the tip.
#[tokio::test]
async fn a_source_says_that_it_is_behind_until_the_last_part() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let mut source = server.source(110);
    let mut parts = Vec::new();
    while let Some(update) = source.poll().await.expect("a poll") {
        parts.push((update.height, update.behind, update.waiting.is_some()));
    }
    let reading = Some(Behind::Reading { to: 200 });
    assert_eq!(parts, [(141, reading, false), (173, reading, false), (200, None, true)]);

    source.rescan_from(150).await.expect("a rescan");
    let first = news(&mut source).await;
    assert_eq!((first.height, first.behind), (181, reading));
    let second = news(&mut source).await;
    assert_eq!((second.height, second.behind), (200, None));
}

#[tokio::test]
async fn a_source_resumes_above_its_checkpoints_and_leaves_a_stale_branch() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let client = server.client();
    let at_198: BlockHash = client.call("getblockhash", vec![json!(198)]).await.expect("a hash");
    let mined = client.generate(4, &faucet_address()).await.expect("blocks");
    let checkpoints = vec![(198, at_198), (204, mined[3])];
    client.call::<Value>("invalidateblock", vec![json!(mined[1])]).await.expect("known");
    client.generate(1, &faucet_address()).await.expect("a block");

    let update = news(&mut server.source_after(0, checkpoints.clone())).await;
    // The gap between the checkpoints is walked by the parents of the stale blocks.
    assert_eq!(heights(&update.disconnected), [204, 203, 202]);
    assert_eq!(heights(&update.connected), [202]);

    let fresh = news(&mut server.source_after(0, checkpoints[..1].to_vec())).await;
    assert!(fresh.disconnected.is_empty());
    assert_eq!(heights(&fresh.connected), [199, 200, 201, 202]);
    server.stop().await;
}

#[tokio::test]
async fn broadcasts_are_accepted_known_or_refused_with_a_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let (client, mut source) = (server.client(), server.source(201));
    source.poll().await.expect("a poll");
    let coin = coinbase(&client, 1).await;
    let tx = sweep(&coin, 1_000);
    assert!(client.is_unspent(coin.outpoint).await.expect("a call"));
    assert!(client.block_at(201).await.expect("a call").is_none());

    assert_eq!(source.sender().broadcast(&tx).await.expect("accepted"), tx.compute_txid());
    assert_eq!(source.sender().broadcast(&tx).await.expect("in the mempool"), tx.compute_txid());
    assert_eq!(news(&mut source).await.mempool, std::slice::from_ref(&tx));
    assert!(source.poll().await.expect("a poll").is_none(), "told once");
    assert!(!client.is_unspent(coin.outpoint).await.expect("a call"));
    client.generate(1, &faucet_address()).await.expect("a block");
    assert_eq!(source.sender().broadcast(&tx).await.expect("confirmed"), tx.compute_txid());
    assert_eq!(client.get_tx(tx.compute_txid()).await.expect("a call"), Some(tx.clone()));

    let young = coinbase(&client, 150).await;
    let second = coinbase(&client, 2).await;
    let mut flipped = sweep(&second, 1_000);
    let mut signature = flipped.input[0].witness.to_vec();
    signature[0][9] ^= 4;
    flipped.input[0].witness = bitcoin::Witness::from_slice(&signature);
    let dust = pay(std::slice::from_ref(&second), &[(faucet_script(), 100)]);
    let table = [
        (sweep(&coin, 2_000), "chain.reject.missing_inputs"),
        (sweep(&young, 1_000), "chain.reject.immature_coinbase"),
        (sweep(&second, 10), "chain.reject.fee_too_low"),
        (flipped, "chain.reject.script"),
        (dust, "chain.reject.dust"),
    ];
    for (tx, code) in table {
        let refused = source.sender().broadcast(&tx).await.expect_err("a refusal");
        assert_eq!(refused.code(), code, "{refused}");
    }
    // Whoever makes a transaction bounds its fee; the last block for a claim may be dear.
    let dear = pay(&[second], &[(faucet_script(), 10_000)]);
    assert_eq!(source.sender().broadcast(&dear).await.expect("accepted"), dear.compute_txid());
    server.stop().await;
}

#[tokio::test]
async fn what_a_reorganisation_returns_is_told_as_mempool() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let (client, mut source, mut watcher) = (server.client(), server.source(201), Watcher::new());
    let script = bitcoin::ScriptBuf::new_p2tr(
        &bitcoin::secp256k1::Secp256k1::new(),
        crate::kit::key(5).x_only_public_key().0,
        None,
    );
    watcher.watch_spk(script.clone()).expect("room");
    let coin = coinbase(&client, 1).await;
    let left_sat = coin.output.value.to_sat() - 41_000;
    let tx = pay(&[coin], &[(script, 40_000), (faucet_script(), left_sat)]);
    source.sender().broadcast(&tx).await.expect("accepted");
    assert_eq!(watcher.reduce(&news(&mut source).await).mempool, std::slice::from_ref(&tx));
    let mined = client.generate(1, &faucet_address()).await.expect("a block");
    let seen = watcher.reduce(&news(&mut source).await);
    assert_eq!(seen.connected, [(201, tx.compute_txid(), tx.clone())]);
    client.call::<Value>("invalidateblock", vec![json!(mined[0])]).await.expect("known");
    let seen = watcher.reduce(&news(&mut source).await);
    assert_eq!((seen.disconnected, seen.mempool), (vec![tx.compute_txid()], vec![tx]));
    server.stop().await;
}

#[tokio::test]
async fn a_source_survives_the_restart_of_its_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let (client, mut source) = (server.client(), server.source(200));
    client.generate(2, &faucet_address()).await.expect("blocks");
    let tip = news(&mut source).await.tip;
    let addr = server.stop().await;

    let error = source.poll().await.expect_err("nobody listens");
    assert_eq!(error.code(), "chain.unreachable");

    // The same chain, with a new cookie.
    let server = Server::start_on(dir.path(), addr, None).await;
    let update = news(&mut source).await;
    assert_eq!((update.tip, update.behind), (tip, None), "it is back, and nothing changed");
    assert!(update.connected.is_empty() && update.disconnected.is_empty());
    assert!(source.poll().await.expect("a poll").is_none(), "told once");
    let info: Value = client.call("getblockchaininfo", vec![]).await.expect("a call");
    assert_eq!(info["bestblockhash"], json!(tip));
    client.generate(1, &faucet_address()).await.expect("a block");
    assert_eq!(heights(&news(&mut source).await.connected), [203]);
    server.stop().await;
}

#[tokio::test]
async fn a_source_follows_a_server_whose_chain_began_anew() {
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let server = Server::start(dir.path()).await;
    let client = server.client();
    client.generate(5, &faucet_address()).await.expect("blocks");
    let mut source = server.source(195);
    assert_eq!(news(&mut source).await.height, 205);
    let (addr, cookie) = (server.running.addr, server.running.cookie_path.clone());
    server.stop().await;

    let server = Server::start_on(other.path(), addr, None).await;
    std::fs::copy(&server.running.cookie_path, &cookie).expect("the new cookie");
    // Two chains begun in the same second are equal: make this one another.
    let early: BlockHash = client.call("getblockhash", vec![json!(100)]).await.expect("a hash");
    client.call::<Value>("invalidateblock", vec![json!(early)]).await.expect("known");
    client.generate(102, &faucet_address()).await.expect("another chain");
    let update = news(&mut source).await;
    assert_eq!(update.height, 201);
    assert_eq!(heights(&update.connected), (195..=201).collect::<Vec<_>>());
    // What the source itself still holds is shown; of the rest, what the server knows.
    assert!(heights(&update.disconnected).starts_with(&[205, 204, 203, 202, 201, 200]));
    server.stop().await;
}

#[tokio::test]
async fn a_cancelled_poll_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let mut source = server.source(200);
    let mut connected = Vec::new();
    for patience in [Duration::ZERO; 3].into_iter().chain([Duration::MAX]) {
        // One that was fast enough was not cancelled.
        if let Ok(polled) = tokio::time::timeout(patience, source.poll()).await {
            connected.extend(polled.expect("a poll").map(|update| update.connected));
        }
    }
    assert_eq!(heights(&connected.concat()), [200]);
    server.stop().await;
}

#[tokio::test]
async fn errors_of_the_server_are_typed() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let no_cookie = RpcClient::new(server.running.url(), dir.path().join("missing"));
    assert_eq!(no_cookie.height().await.expect_err("no cookie").code(), "chain.unauthorised");
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "__cookie__:00").expect("a file");
    let refused = RpcClient::new(server.running.url(), wrong).height().await;
    assert_eq!(refused.expect_err("a wrong cookie").code(), "chain.unauthorised");

    let mut mainnet = RpcSource::new(RpcConfig::new(server.client(), Network::Bitcoin, 0));
    let error = mainnet.poll().await.expect_err("another network");
    assert_eq!(error.code(), "chain.wrong_network");
    assert_eq!(server.client().kind().await.expect("a call"), Kind::Devchain);
    let unknown: Result<Value, ChainError> = server.client().call("getwalletinfo", vec![]).await;
    assert!(matches!(unknown, Err(ChainError::Rpc { code: -32_601, .. })));
    server.stop().await;
}

#[tokio::test]
async fn a_new_wallet_reads_no_block_that_is_older_than_its_keys() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let client = server.client();
    let hash: BlockHash = client.call("getblockhash", vec![json!(30)]).await.expect("a hash");
    let header: Value = client.call("getblockheader", vec![json!(hash)]).await.expect("a header");
    let at_30 = header["mediantime"].as_u64().expect("a time");
    let genesis: BlockHash = client.call("getblockhash", vec![json!(0)]).await.expect("a hash");
    const DAY_S: u64 = 86_400;
    // (keys made at, first block read)
    let table = [(Some(at_30 + DAY_S), 30), (Some(at_30 + 9 * DAY_S), 56), (Some(0), 1), (None, 1)];
    for (birthday_s, first) in table {
        let config = RpcConfig::new(client.clone(), Network::Regtest, 0);
        let checkpoints = vec![(0, genesis)];
        let mut source = RpcSource::new(RpcConfig { checkpoints, birthday_s, ..config });
        let update = news(&mut source).await;
        assert_eq!(update.connected.first().map(|(height, _)| *height), Some(first));
    }
    // Who has read further goes on there.
    let config = RpcConfig::new(client, Network::Regtest, 0);
    let checkpoints = vec![(0, genesis), (30, hash)];
    let birthday_s = Some(at_30 + 9 * DAY_S);
    let mut source = RpcSource::new(RpcConfig { checkpoints, birthday_s, ..config });
    assert_eq!(heights(&news(&mut source).await.connected)[0], 31);
    server.stop().await;
}

#[tokio::test]
async fn a_chain_whose_last_block_is_too_old_is_not_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    // The median of the last eleven blocks, a second apart and just made.
    for (max_tip_age_s, is_believed) in [(1, false), (3_600, true), (0, true)] {
        let config = RpcConfig::new(server.client(), Network::Regtest, 200);
        let mut source = RpcSource::new(RpcConfig { max_tip_age_s, ..config });
        let update = news(&mut source).await;
        let expected = Behind::Old { median_time_past_s: update.median_time_past_s };
        assert_eq!(update.behind, (!is_believed).then_some(expected));
        assert!(update.tip_time_s > update.median_time_past_s);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_scan_keeps_its_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let proxy = Proxy::before(server.running.addr).await;
    let url = format!("http://{}", proxy.addr);
    let client = RpcClient::new(url, &server.running.cookie_path);
    let mut source = RpcSource::new(RpcConfig::new(client, Network::Regtest, 1));
    let mut read = 0;
    while let Some(update) = source.poll().await.expect("a poll") {
        read += update.connected.len();
    }
    assert_eq!((read, proxy.connections()), (200, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_hangs_ends_and_the_next_one_is_heard() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let proxy = Proxy::before(server.running.addr).await;
    let url = format!("http://{}", proxy.addr);
    let patience = Duration::from_millis(200);
    let client = RpcClient::patient(url, &server.running.cookie_path, patience);
    let mut source = RpcSource::new(RpcConfig::new(client, Network::Regtest, 200));
    proxy.fall_silent(true);
    let error = source.poll().await.expect_err("no answer");
    assert_eq!(error.code(), "chain.unreachable");
    proxy.fall_silent(false);
    // The clock of a busy machine may need more than one try.
    let answered = async {
        loop {
            if let Ok(Some(update)) = source.poll().await {
                return update;
            }
        }
    };
    let update = tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an answer");
    assert_eq!(update.height, 200);
    server.stop().await;
}

/// What was read last is not asked for again: each settlement begins with such a scan.
#[tokio::test]
async fn a_short_scan_needs_no_block_of_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let proxy = Proxy::before(server.running.addr).await;
    let url = format!("http://{}", proxy.addr);
    let client = RpcClient::new(url, &server.running.cookie_path);
    let mut source = RpcSource::new(RpcConfig::new(client.clone(), Network::Regtest, 150));
    let tx = sweep(&coinbase(&client, 1).await, 1_000);
    while source.poll().await.expect("a poll").is_some() {}
    source.sender().broadcast(&tx).await.expect("accepted");
    assert_eq!(news(&mut source).await.mempool, std::slice::from_ref(&tx));
    proxy.take_blocks();
    source.rescan_from(196).await.expect("remembered");
    let update = news(&mut source).await;
    assert_eq!(heights(&update.connected), [196, 197, 198, 199, 200]);
    assert_eq!((update.mempool, update.behind), (vec![tx.clone()], None));
    assert_eq!(proxy.take_blocks(), 0);
    // Deeper than it keeps: all of it comes again, the mempool at the end.
    source.rescan_from(160).await.expect("remembered");
    let first = news(&mut source).await;
    assert_eq!(heights(&first.connected), (160..=191).collect::<Vec<_>>());
    let second = news(&mut source).await;
    assert_eq!(heights(&second.connected), (192..=200).collect::<Vec<_>>());
    assert_eq!((second.mempool, second.behind), (vec![tx], None));
    assert_eq!(proxy.take_blocks(), 41);
    server.stop().await;
}

fn ids<'a>(txs: impl IntoIterator<Item = &'a Transaction>) -> HashSet<Txid> {
    txs.into_iter().map(Transaction::compute_txid).collect()
}

/// Coins are let go by what is missing there: so nothing may be missing that has only not been
/// delivered yet.
#[tokio::test]
async fn what_waits_in_the_mempool_is_said_once_all_of_it_was_delivered() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let proxy = Proxy::before(server.running.addr).await;
    let url = format!("http://{}", proxy.addr);
    let client = RpcClient::new(url, &server.running.cookie_path);
    let mut source = RpcSource::new(RpcConfig::new(client.clone(), Network::Regtest, 201));
    // More than one poll takes.
    let outputs = vec![(faucet_script(), 10_000_000); 140];
    let split = pay(&[coinbase(&client, 1).await], &outputs);
    client.broadcast(&split).await.expect("accepted");
    client.generate(1, &faucet_address()).await.expect("a block");
    let nothing = news(&mut source).await.waiting;
    assert_eq!(nothing.as_deref(), Some(&HashSet::new()));
    let coin = |vout| crate::kit::owned(&split, vout);
    let mut sent: Vec<Transaction> = (0..140).map(|vout| sweep(&coin(vout), 1_000)).collect();
    for tx in &sent {
        client.broadcast(tx).await.expect("accepted");
    }
    let first = news(&mut source).await;
    assert_eq!((first.mempool.len(), first.waiting), (128, None));
    let second = news(&mut source).await;
    assert_eq!((second.mempool.len(), second.waiting.as_deref()), (12, Some(&ids(&sent))));

    // One that was replaced is there no more.
    sent[0] = sweep(&coin(0), 5_000);
    client.broadcast(&sent[0]).await.expect("accepted");
    let replaced = news(&mut source).await;
    assert_eq!(replaced.mempool, sent[..1]);
    assert_eq!(replaced.waiting.as_deref(), Some(&ids(&sent)));

    // One that left the mempool between two calls was never there.
    let [gone, other] = [2, 3].map(|height| coinbase(&client, height));
    let [gone, other] = [sweep(&gone.await, 1_000), sweep(&other.await, 1_000)];
    for tx in [&gone, &other] {
        client.broadcast(tx).await.expect("accepted");
    }
    proxy.hide(Some(gone.compute_txid()));
    let without = news(&mut source).await;
    sent.push(other.clone());
    assert_eq!((without.mempool, without.waiting.as_deref()), (vec![other], Some(&ids(&sent))));
    proxy.hide(None);
    sent.push(gone.clone());
    let with = news(&mut source).await;
    assert_eq!((with.mempool, with.waiting.as_deref()), (vec![gone], Some(&ids(&sent))));

    // Nothing is said while blocks are read again, nor until all has been delivered anew.
    let all = Some(Arc::new(ids(&sent)));
    let anew = [(201, 128, None), (201, 14, all)];
    for (height, before) in [(150, vec![(181, 0, None)]), (182, vec![])] {
        source.rescan_from(height).await.expect("remembered");
        let mut said = Vec::new();
        while let Some(update) = source.poll().await.expect("a poll") {
            said.push((update.height, update.mempool.len(), update.waiting));
        }
        assert_eq!(said, [before, anew.to_vec()].concat());
    }
    server.stop().await;
}
