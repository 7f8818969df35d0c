//! The same transactions, put to the devchain server and to a real Bitcoin Core, get the
//! same verdict, and the RPC source reads both alike.
//!
//! The reference is the program that `BITCOIND` names; without it a second devchain stands
//! in, which shows that the comparison itself works.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, Network, Sequence, Transaction, Witness, absolute, transaction};
use capex::chain::RejectKind;
use capex::chain::devchain::{faucet_address, faucet_script};
use capex::chain::rpc::{RpcClient, RpcConfig, RpcSource};
use serde_json::{Value, json};

use crate::htlc::{Htlc, PREIMAGE, VALUE_SAT};
use crate::kit::{Owned, owned, pay, sign, sweep, unsigned};
use crate::rpc::{Server, coinbase, heights, news};

/// Longest wait for a Bitcoin Core to answer its first call.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A Bitcoin Core that ends with the test.
struct Core {
    child: Child,
    client: RpcClient,
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Core {
    async fn start(program: PathBuf, dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new(program)
            .arg("-regtest")
            .arg(format!("-datadir={}", dir.display()))
            .arg(format!("-rpcport={port}"))
            .args(["-server", "-listen=0", "-dnsseed=0", "-txindex=1"])
            // The defaults before 29.1, which the devchain keeps.
            .args(["-minrelaytxfee=0.00001", "-incrementalrelayfee=0.00001"])
            .stdout(Stdio::null())
            .spawn()
            .expect("BITCOIND starts");
        let client =
            RpcClient::new(format!("http://127.0.0.1:{port}"), dir.join("regtest/.cookie"));
        let core = Self { child, client };
        let deadline = Instant::now() + START_DEADLINE;
        while let Err(error) = core.client.height().await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        core
    }
}

/// What a node thinks of a transaction: accepted, or the kind of refusal.
async fn verdict(client: &RpcClient, tx: &Transaction) -> Option<RejectKind> {
    let params = vec![json!([serialize_hex(tx)])];
    let answer: Value = client.call("testmempoolaccept", params).await.expect("an answer");
    match answer[0]["allowed"].as_bool() {
        Some(true) => None,
        _ => Some(RejectKind::of(answer[0]["reject-reason"].as_str().expect("a reason"))),
    }
}

async fn fund(client: &RpcClient, coin: Owned, script: bitcoin::ScriptBuf) -> Owned {
    let left_sat = coin.output.value.to_sat() - VALUE_SAT - 1_000;
    let tx = pay(&[coin], &[(script, VALUE_SAT), (faucet_script(), left_sat)]);
    client.broadcast(&tx).await.expect("an honest payment");
    client.generate(1, &faucet_address()).await.expect("a block");
    owned(&tx, 0)
}

/// Cases on faucet coins, with names.
async fn plain_cases(client: &RpcClient) -> Vec<(&'static str, Transaction)> {
    let (coin, second) = (coinbase(client, 1).await, coinbase(client, 2).await);
    let young = coinbase(client, 150).await;
    let sat = coin.output.value.to_sat();
    let altered = |change: &dyn Fn(&mut Transaction)| {
        let mut tx = unsigned(std::slice::from_ref(&coin), &[(faucet_script(), sat - 1_000)]);
        change(&mut tx);
        sign(&mut tx, std::slice::from_ref(&coin));
        tx
    };
    let mut flipped = sweep(&coin, 1_000);
    let mut signature = flipped.input[0].witness.to_vec();
    signature[0][17] ^= 1;
    flipped.input[0].witness = Witness::from_slice(&signature);
    vec![
        ("a right payment", sweep(&coin, 1_000)),
        ("one flipped bit", flipped),
        ("an immature coinbase", sweep(&young, 1_000)),
        ("an unknown coin", sweep(&owned(&sweep(&coin, 500), 0), 500)),
        ("more out than in", pay(std::slice::from_ref(&coin), &[(faucet_script(), sat + 1)])),
        ("a negative value", pay(std::slice::from_ref(&coin), &[(faucet_script(), u64::MAX)])),
        ("the same coin twice", pay(&[second.clone(), second], &[(faucet_script(), sat)])),
        ("one sat under the minimum", sweep(&coin, sweep(&coin, 1).vsize() as u64 - 1)),
        ("the minimum fee", sweep(&coin, sweep(&coin, 1).vsize() as u64)),
        (
            "330 sat",
            pay(
                std::slice::from_ref(&coin),
                &[(faucet_script(), sat - 1_330), (faucet_script(), 330)],
            ),
        ),
        (
            "329 sat",
            pay(
                std::slice::from_ref(&coin),
                &[(faucet_script(), sat - 1_329), (faucet_script(), 329)],
            ),
        ),
        (
            "a lock height in the next block",
            altered(&|tx| {
                tx.lock_time = absolute::LockTime::from_consensus(201);
            }),
        ),
        (
            "a lock height at the tip",
            altered(&|tx| {
                tx.lock_time = absolute::LockTime::from_consensus(200);
            }),
        ),
        (
            "a relative lock not reached",
            altered(&|tx| {
                tx.input[0].sequence = Sequence::from_height(201);
            }),
        ),
        (
            "a relative lock reached",
            altered(&|tx| {
                tx.input[0].sequence = Sequence::from_height(200);
            }),
        ),
        ("version 4", altered(&|tx| tx.version = transaction::Version(4))),
    ]
}

async fn replacement_cases(client: &RpcClient) -> Vec<(&'static str, Transaction)> {
    let coin = coinbase(client, 3).await;
    let first = sweep(&coin, 1_000);
    client.broadcast(&first).await.expect("an honest payment");
    let vsize = first.vsize() as u64;
    vec![
        (
            "one sat more",
            pay(
                std::slice::from_ref(&coin),
                &[(faucet_script(), coin.output.value.to_sat() - 1_000 - 1)],
            ),
        ),
        ("one sat too little more", sweep(&coin, 1_000 + vsize - 1)),
        ("just enough more", sweep(&coin, 1_000 + vsize)),
    ]
}

async fn htlc_cases(client: &RpcClient) -> Vec<(&'static str, Transaction)> {
    let tip = client.height().await.expect("a height");
    let htlc = Htlc::new(tip + 1);
    let later = Htlc::new(tip + 50);
    let coin = fund(client, coinbase(client, 4).await, htlc.output_script()).await;
    let waiting = fund(client, coinbase(client, 5).await, later.output_script()).await;
    let open = Sequence::ENABLE_LOCKTIME_NO_RBF;
    vec![
        ("a claim", htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller)),
        ("a claim by the buyer", htlc.claim_tx(&coin, &PREIMAGE, &htlc.buyer)),
        ("another preimage", htlc.claim_tx(&coin, &[8; 32], &htlc.seller)),
        ("a longer preimage", htlc.claim_tx(&coin, &[7; 33], &htlc.seller)),
        ("no preimage", htlc.claim_tx(&coin, &[], &htlc.seller)),
        ("a refund", htlc.refund_tx(&coin, tip + 1, open)),
        ("a refund locked too low", htlc.refund_tx(&coin, tip, open)),
        ("a refund with a final sequence", htlc.refund_tx(&coin, tip + 1, Sequence::MAX)),
        ("a refund too early", later.refund_tx(&waiting, tip + 50, open)),
    ]
}

async fn verdicts(client: &RpcClient) -> Vec<(&'static str, Option<RejectKind>)> {
    let mut found = Vec::new();
    for (name, tx) in plain_cases(client).await {
        found.push((name, verdict(client, &tx).await));
    }
    for (name, tx) in replacement_cases(client).await {
        found.push((name, verdict(client, &tx).await));
    }
    for (name, tx) in htlc_cases(client).await {
        found.push((name, verdict(client, &tx).await));
    }
    found
}

/// A source follows a reorganisation of this node.
async fn follow_reorganisation(client: &RpcClient) {
    let height = client.height().await.expect("a height");
    let mut source = RpcSource::new(RpcConfig::new(client.clone(), Network::Regtest, height));
    assert_eq!(heights(&news(&mut source).await.connected), [height]);
    let mined: Vec<BlockHash> = client.generate(2, &faucet_address()).await.expect("blocks");
    assert_eq!(heights(&news(&mut source).await.connected), [height + 1, height + 2]);
    client.call::<Value>("invalidateblock", vec![json!(mined[0])]).await.expect("known");
    let update = news(&mut source).await;
    assert_eq!(heights(&update.disconnected), [height + 2, height + 1]);
    assert_eq!(update.height, height);
    client.call::<Value>("reconsiderblock", vec![json!(mined[0])]).await.expect("known");
    assert_eq!(heights(&news(&mut source).await.connected), [height + 1, height + 2]);
}

#[tokio::test]
async fn devchain_and_reference_judge_alike() {
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let server = Server::start(dir.path()).await;
    let ours = server.client();
    let core = match std::env::var_os("BITCOIND") {
        Some(program) => Some(Core::start(PathBuf::from(program), other.path()).await),
        None => None,
    };
    let stand_in = match core {
        Some(_) => None,
        None => Some(Server::start(other.path()).await),
    };
    let reference = match (&core, &stand_in) {
        (Some(core), _) => {
            core.client.generate(200, &faucet_address()).await.expect("blocks");
            core.client.clone()
        }
        (None, Some(server)) => server.client(),
        (None, None) => unreachable!("one of them was started"),
    };
    let (found, expected) = (verdicts(&ours).await, verdicts(&reference).await);
    assert_eq!(found, expected);
    assert_eq!(found.iter().filter(|(_, refusal)| refusal.is_none()).count(), 8);
    assert!(found.iter().all(|(_, refusal)| *refusal != Some(RejectKind::Other)));
    follow_reorganisation(&ours).await;
    follow_reorganisation(&reference).await;
    drop(core);
    for server in [Some(server), stand_in].into_iter().flatten() {
        server.stop().await;
    }
}
