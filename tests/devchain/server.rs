//! The devchain server as other clients see it.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bdk_bitcoind_rpc::bitcoincore_rpc::{Auth, Client, RpcApi};
use bitcoin::OutPoint;
use capex::chain::ChainSource;
use capex::chain::devchain::faucet_address;
use capex::chain::devchain::server::{ServeError, ServeOptions, serve};
use capex::chain::rpc::RpcClient;
use serde_json::{Value, json};

use crate::kit::{Kit, sweep};
use crate::rpc::{GUEST, Server, coinbase};

#[tokio::test(flavor = "multi_thread")]
async fn the_common_rust_client_understands_every_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let tx = sweep(&coinbase(&server.client(), 1).await, 1_000);
    let (url, cookie) = (server.running.url(), server.running.cookie_path.clone());
    tokio::task::spawn_blocking(move || {
        let client = Client::new(&url, Auth::CookieFile(cookie)).expect("a cookie");
        let info = client.get_blockchain_info().expect("an answer");
        assert_eq!((info.blocks, info.chain), (200, bitcoin::Network::Regtest));
        assert!(client.get_network_info().expect("an answer").subversion.contains("devchain"));
        let tip = client.get_best_block_hash().expect("an answer");
        assert_eq!(client.get_block_info(&tip).expect("an answer").n_tx, 1);
        assert_eq!(client.get_block_header_info(&tip).expect("an answer").height, 200);
        assert_eq!(client.get_block_header(&tip).expect("an answer").block_hash(), tip);
        assert_eq!(client.get_block(&tip).expect("an answer").block_hash(), tip);

        let tested = client.test_mempool_accept(&[&tx]).expect("an answer");
        assert!(tested[0].allowed, "{:?}", tested[0].reject_reason);
        let txid = client.send_raw_transaction(&tx).expect("accepted");
        assert_eq!(client.get_raw_mempool().expect("an answer"), [txid]);
        assert_eq!(client.get_raw_mempool_verbose().expect("an answer").len(), 1);
        assert_eq!(client.get_mempool_entry(&txid).expect("an answer").ancestor_count, 1);
        assert_eq!(client.get_mempool_info().expect("an answer").size, 1);
        let spent = tx.input[0].previous_output;
        assert!(client.get_tx_out(&spent.txid, spent.vout, Some(true)).expect("one").is_none());
        assert!(client.get_tx_out(&spent.txid, spent.vout, Some(false)).expect("one").is_some());
        let paid = OutPoint { txid, vout: 0 };
        let fresh = client.get_tx_out(&paid.txid, paid.vout, None).expect("an answer");
        assert_eq!(fresh.expect("unconfirmed").confirmations, 0);
        let address = faucet_address();
        assert_eq!(client.generate_to_address(2, &address).expect("blocks").len(), 2);
        let mined = client.get_raw_transaction_info(&txid, None).expect("an answer");
        assert_eq!(mined.confirmations, Some(2));
        assert!(client.estimate_smart_fee(6, None).expect("an answer").fee_rate.is_some());
        assert!(client.uptime().is_ok());
        client.invalidate_block(&client.get_best_block_hash().expect("one")).expect("known");
        assert_eq!(client.get_block_count().expect("an answer"), 201);
        client.stop().expect("an answer");
    })
    .await
    .expect("no panic");
    server.running.stopped().await;
}

#[tokio::test]
async fn the_emitter_of_bdk_reads_it() {
    use bdk_bitcoind_rpc::{Emitter, NO_EXPECTED_MEMPOOL_TXS};
    use bdk_wallet::chain::local_chain::LocalChain;
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let (url, cookie) = (server.running.url(), server.running.cookie_path.clone());
    let blocks = tokio::task::spawn_blocking(move || {
        let client = Client::new(&url, Auth::CookieFile(cookie)).expect("a cookie");
        let genesis = client.get_block_hash(0).expect("an answer");
        let (chain, _) = LocalChain::from_genesis_hash(genesis);
        let mut emitter = Emitter::new(&client, chain.tip(), 1, NO_EXPECTED_MEMPOOL_TXS);
        let mut blocks = 0;
        while let Some(event) = emitter.next_block().expect("an answer") {
            blocks += 1;
            assert_eq!(event.block_height(), blocks);
        }
        blocks
    });
    assert_eq!(blocks.await.expect("no panic"), 200);
    server.stop().await;
}

#[tokio::test]
async fn it_mines_by_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start_on(dir.path(), listen, Some(Duration::from_millis(20))).await;
    let mut source = server.source(201);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut seen = 0;
    while seen < 205 {
        assert!(Instant::now() < deadline, "no block came");
        if let Some(update) = source.poll().await.expect("a poll") {
            seen = update.height;
        }
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_chain_and_its_invalid_branches_outlive_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let client = server.client();
    let mined = client.generate(3, &faucet_address()).await.expect("blocks");
    client.call::<Value>("invalidateblock", vec![json!(mined[1])]).await.expect("known");
    let best: String = client.call("getbestblockhash", vec![]).await.expect("a hash");
    server.stop().await;
    let server = Server::start(dir.path()).await;
    let again: String = server.client().call("getbestblockhash", vec![]).await.expect("a hash");
    assert_eq!((again, server.client().height().await.expect("a height")), (best, 201));
    let mined_again = server.client().generate(1, &faucet_address()).await.expect("a block");
    assert_ne!(mined_again[0], mined[1]);
    server.stop().await;
}

#[tokio::test]
async fn files_are_private_and_a_state_folder_serves_one_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
    };
    assert_eq!(mode(&server.running.cookie_path), 0o600);
    let addr = std::fs::read_to_string(dir.path().join("devchain.addr")).expect("a file");
    assert_eq!(addr.trim(), server.running.addr.to_string());
    let second = serve(ServeOptions {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        block_every: None,
        state_dir: dir.path().to_owned(),
        guest: None,
        shutdown: Box::pin(std::future::pending()),
    });
    assert!(matches!(second.await, Err(ServeError::InUse(_))));
    server.stop().await;
    assert!(!dir.path().join(".cookie").exists());
}

#[tokio::test]
async fn wrong_calls_get_cores_codes() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let client = server.client();
    let zeros = "00".repeat(32);
    let table: [(&'static str, Value, i32); 9] = [
        ("getblockhash", json!([999_999]), -8),
        ("getblockhash", json!(["x"]), -3),
        ("getblock", json!([zeros]), -5),
        ("getblockheader", json!(["xy"]), -8),
        ("getrawtransaction", json!([zeros]), -5),
        ("sendrawtransaction", json!(["00"]), -22),
        ("generatetoaddress", json!([1, "nobody"]), -5),
        ("generatetoaddress", json!([1_001, faucet_address().to_string()]), -8),
        ("getwalletinfo", json!([]), -32_601),
    ];
    for (method, params, expected) in table {
        let params = params.as_array().expect("an array").clone();
        let error = client.call::<Value>(method, params).await.expect_err("an error");
        let code = match error {
            capex::chain::ChainError::Rpc { code, .. } => code,
            other => panic!("{method}: {other}"),
        };
        assert_eq!(code, expected, "{method}");
    }
    // Another chain's coin: unknown here, and said in the words of each call.
    let foreign = sweep(&Kit::new().coinbase(1), 1_000);
    let hex = bitcoin::consensus::encode::serialize_hex(&foreign);
    let tested: Value = client.call("testmempoolaccept", vec![json!([hex])]).await.expect("one");
    assert_eq!(tested[0]["reject-reason"], "missing-inputs");
    let sent = client.call::<Value>("sendrawtransaction", vec![json!(hex)]).await;
    assert!(matches!(sent, Err(capex::chain::ChainError::Rpc { code: -25, .. })), "{sent:?}");
    server.stop().await;
}

#[tokio::test]
async fn guests_read_and_submit_and_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path()).await;
    let token = dir.path().join("guest.token");
    std::fs::write(&token, GUEST).expect("a file");
    let guest = RpcClient::new(server.running.url(), &token);
    let height = guest.height().await.expect("a height");
    assert!(guest.block_at(height).await.expect("a block").is_some());
    let refused = guest.generate(1, &faucet_address()).await.expect_err("not theirs");
    assert_eq!(refused.code(), "chain.unauthorised", "{refused}");
    for method in ["stop", "invalidateblock", "reconsiderblock", "submitblock"] {
        let answer = guest.call::<serde_json::Value>(method, vec![]).await;
        assert_eq!(answer.expect_err(method).code(), "chain.unauthorised", "{method}");
    }
    assert_eq!(guest.height().await.expect("it runs on"), height);
    // What they submit is judged as everybody's.
    let tx = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![],
        output: vec![],
    };
    assert_eq!(guest.broadcast(&tx).await.expect_err("no inputs").code(), "chain.reject.invalid");
    server.stop().await;
}
