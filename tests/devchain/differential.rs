//! The same transactions, put to the devchain server and to a real Bitcoin Core, get the
//! same verdict, and the RPC source reads both alike.
//!
//! The reference is the program that `BITCOIND` names, with its default policy. Without it
//! there is nothing to compare, and the test says that it was skipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{
    Amount, BlockHash, Network, ScriptBuf, Sequence, Transaction, Witness, absolute, transaction,
};
use capex::chain::RejectKind;
use capex::chain::devchain::{faucet_address, faucet_script};
use capex::chain::rpc::{RpcClient, RpcConfig, RpcSource};
use serde_json::{Value, json};

use crate::htlc::{Htlc, PREIMAGE, VALUE_SAT};
use crate::kit::{Owned, owned, pay, sign, sweep, unsigned};
use crate::rpc::{Server, coinbase, heights, news};

/// Longest wait for a Bitcoin Core to answer its first call.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Longest chain of unconfirmed transactions since Core 31.
const MAX_CLUSTER_TXS: usize = 64;

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
    verdict_below(client, tx, None).await
}

/// The same with a bound on the feerate, BTC per kvB.
async fn verdict_below(
    client: &RpcClient,
    tx: &Transaction,
    max_feerate: Option<f64>,
) -> Option<RejectKind> {
    let mut params = vec![json!([serialize_hex(tx)])];
    params.extend(max_feerate.map(|rate| json!(rate)));
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

/// What a transaction pays at 0.1 sat/vB, the least that is relayed and that a replacement adds.
fn tenth(tx: &Transaction) -> u64 {
    (tx.vsize() as u64).div_ceil(10)
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
        ("one sat under the minimum", sweep(&coin, tenth(&sweep(&coin, 1)) - 1)),
        ("the minimum fee", sweep(&coin, tenth(&sweep(&coin, 1)))),
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
    let more_sat = tenth(&first);
    vec![
        (
            "one sat more",
            pay(
                std::slice::from_ref(&coin),
                &[(faucet_script(), coin.output.value.to_sat() - 1_000 - 1)],
            ),
        ),
        ("one sat too little more", sweep(&coin, 1_000 + more_sat - 1)),
        ("just enough more", sweep(&coin, 1_000 + more_sat)),
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

/// Replacements of a parent whose child pays for both.
async fn descendant_cases(client: &RpcClient) -> Vec<(&'static str, Transaction)> {
    let coin = coinbase(client, 6).await;
    let parent = sweep(&coin, 200);
    let child = sweep(&owned(&parent, 0), 20_000);
    for tx in [&parent, &child] {
        client.broadcast(tx).await.expect("an honest payment");
    }
    let sat = coin.output.value.to_sat();
    let wide = |fee_sat: u64| {
        let mut outputs = vec![(faucet_script(), 10_000); 40];
        outputs.push((faucet_script(), sat - 400_000 - fee_sat));
        pay(std::slice::from_ref(&coin), &outputs)
    };
    vec![
        ("less than parent and child", sweep(&coin, 20_100)),
        ("as much as parent and child", sweep(&coin, 20_200)),
        ("as much, and its own relay", sweep(&coin, 20_200 + tenth(&parent))),
        ("more in all, and less by the byte", wide(21_000)),
        ("more by the byte too", wide(400_000)),
    ]
}

/// What settlements send, and everything that a byte out of place makes of it.
async fn mutated_cases(client: &RpcClient) -> Vec<(String, Transaction)> {
    let tip = client.height().await.expect("a height");
    let htlc = Htlc::new(tip + 1);
    let coin = fund(client, coinbase(client, 7).await, htlc.output_script()).await;
    let open = Sequence::ENABLE_LOCKTIME_NO_RBF;
    let coins = [coinbase(client, 8).await, coinbase(client, 9).await];
    let change_sat = coins.iter().map(|coin| coin.output.value.to_sat()).sum::<u64>() - 60_000;
    let funding = pay(&coins, &[(htlc.output_script(), VALUE_SAT), (faucet_script(), change_sat)]);
    let kinds = [
        ("funding", funding),
        ("claim", htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller)),
        ("refund", htlc.refund_tx(&coin, tip + 1, open)),
    ];
    let mut cases = Vec::new();
    for (kind, tx) in kinds {
        cases.push((format!("a {kind}"), tx.clone()));
        for (what, change) in MUTATIONS {
            let mut changed = tx.clone();
            change(&mut changed);
            cases.push((format!("a {kind} with {what}"), changed));
        }
    }
    cases
}

type Mutation = (&'static str, fn(&mut Transaction));

const MUTATIONS: &[Mutation] = &[
    ("a sat more", |tx| tx.output[0].value += Amount::ONE_SAT),
    ("a sat less", |tx| tx.output[0].value -= Amount::ONE_SAT),
    ("nothing for anybody", |tx| tx.output.clear()),
    ("a negative value", |tx| tx.output[0].value = Amount::from_sat(u64::MAX)),
    ("dust", |tx| tx.output[0].value = Amount::from_sat(329)),
    ("an output of no standard form", |tx| {
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x61; 40]);
    }),
    ("a script in its input", |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![1, 1])),
    ("the input twice", |tx| tx.input.push(tx.input[0].clone())),
    ("an input that is not there", |tx| tx.input[0].previous_output.vout = 7),
    ("another version", |tx| tx.version = transaction::Version::ONE),
    ("a version that is not relayed", |tx| tx.version = transaction::Version(4)),
    ("another sequence", |tx| tx.input[0].sequence = Sequence::ZERO),
    ("a relative lock", |tx| tx.input[0].sequence = Sequence::from_height(1_000)),
    ("a lock of a thousand blocks", |tx| {
        tx.lock_time = absolute::LockTime::from_consensus(1_200);
        tx.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    }),
    ("no witness", |tx| tx.input[0].witness = Witness::new()),
    ("a flipped bit", |tx| in_witness(tx, |items| items[0][3] ^= 1)),
    ("an item more", |tx| in_witness(tx, |items| items.insert(0, vec![1]))),
    ("an item less", |tx| in_witness(tx, |items| drop(items.remove(0)))),
    ("a long item", |tx| in_witness(tx, |items| items.insert(0, vec![7; 81]))),
    ("an annex", |tx| in_witness(tx, |items| items.push(vec![0x50, 1]))),
    ("a hash type", |tx| in_witness(tx, |items| items[0].push(0x81))),
];

fn in_witness(tx: &mut Transaction, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut items = tx.input[0].witness.to_vec();
    change(&mut items);
    tx.input[0].witness = Witness::from_slice(&items);
}

type Verdicts = Vec<(String, Option<RejectKind>)>;

/// Each kind is judged before the next one mines what was sent.
async fn verdicts(client: &RpcClient) -> Verdicts {
    let mut found = Vec::new();
    judge(client, plain_cases(client).await, &mut found).await;
    judge(client, replacement_cases(client).await, &mut found).await;
    judge(client, descendant_cases(client).await, &mut found).await;
    judge(client, htlc_cases(client).await, &mut found).await;
    judge(client, mutated_cases(client).await, &mut found).await;
    let dear = sweep(&coinbase(client, 10).await, 2_000_000);
    for (name, bound) in [("default", None), ("none", Some(0.0)), ("low", Some(0.000_01))] {
        let verdict = verdict_below(client, &dear, bound).await;
        found.push((format!("18,000 sat/vB under a bound that is {name}"), verdict));
    }
    found
}

async fn judge<N: Into<String>>(
    client: &RpcClient,
    cases: Vec<(N, Transaction)>,
    found: &mut Verdicts,
) {
    for (name, tx) in cases {
        found.push((name.into(), verdict(client, &tx).await));
    }
}

/// A chain of unconfirmed transactions: how many the node takes.
async fn longest_chain(client: &RpcClient) -> usize {
    let mut tx = sweep(&coinbase(client, 11).await, 1_000);
    for length in 0..=MAX_CLUSTER_TXS {
        if let Some(refusal) = verdict(client, &tx).await {
            assert_eq!(refusal, RejectKind::MempoolFull);
            return length;
        }
        client.broadcast(&tx).await.expect("it was found good");
        tx = sweep(&owned(&tx, 0), 1_000);
    }
    panic!("a chain without end");
}

/// What is good of all that is put to both.
const ACCEPTED: &[&str] = &[
    "a right payment",
    "the minimum fee",
    "330 sat",
    "a lock height at the tip",
    "a relative lock reached",
    "just enough more",
    "as much, and its own relay",
    "more by the byte too",
    "a claim",
    "a refund",
    "a funding",
    "a claim",
    "a refund",
    "18,000 sat/vB under a bound that is none",
];

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
    let Some(program) = std::env::var_os("BITCOIND") else {
        // Not by a macro, whose output is kept back when a test passes.
        let words = "skipped: devchain_and_reference_judge_alike: BITCOIND is not set\n";
        std::io::stderr().write_all(words.as_bytes()).expect("standard error");
        assert!(std::env::var_os("CAPEX_NEEDS_BITCOIND").is_none(), "this run needs BITCOIND");
        return;
    };
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let server = Server::start(dir.path()).await;
    let core = Core::start(PathBuf::from(program), other.path()).await;
    let (ours, reference) = (server.client(), core.client.clone());
    reference.generate(200, &faucet_address()).await.expect("blocks");
    let (found, expected) = (verdicts(&ours).await, verdicts(&reference).await);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "devchain, reference");
    }
    assert_eq!(found.len(), expected.len());
    let accepted: Vec<&str> =
        found.iter().filter(|(_, refusal)| refusal.is_none()).map(|(name, _)| &**name).collect();
    assert_eq!(accepted, ACCEPTED);
    assert!(found.iter().all(|(_, refusal)| *refusal != Some(RejectKind::Other)));
    println!("{} transactions, judged alike", found.len());
    // The devchain keeps to the strictest version in use.
    let (ours_long, theirs_long) = (longest_chain(&ours).await, longest_chain(&reference).await);
    assert_eq!(ours_long, 25);
    assert!([25, MAX_CLUSTER_TXS].contains(&theirs_long), "{theirs_long}");
    follow_reorganisation(&ours).await;
    follow_reorganisation(&reference).await;
    drop(core);
    server.stop().await;
}
