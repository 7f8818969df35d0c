//! Every fuzz target of `fuzz/` within `cargo test`: its corpus, mutations of valid messages
//! and arbitrary bytes. `CAPEX_FUZZ_CASES` multiplies the cases; `CAPEX_FUZZ_WRITE=1` writes
//! the valid messages into the corpus.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the bodies are crates of their own, too")]

use std::fs;
use std::path::Path;

use capex_core::certificate::file;
use capex_core::engine::courier::CourierRequest;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::pools::PoolRequest;
use capex_core::engine::register::{RegisterReply, RegisterRequest};
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::trades::{TradeReply, TradeRequest};
use capex_core::ids::{Digest, OrderId, PoolId, TermsHash};
use capex_core::lease::objects::{LeaseReply, LeaseRequest};
use capex_core::lease::pull::{ImageRef, Pulled};
use capex_core::order::Side;
use capex_core::settlement::buyer::Part;
use capex_core::settlement::joint::{Change, Coin, Contribution};
use capex_core::wire::encode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../fuzz/bodies/certificate.rs"]
mod certificate;
#[path = "../fuzz/bodies/devchain_rpc.rs"]
mod devchain_rpc;
#[path = "../fuzz/bodies/epoch.rs"]
mod epoch;
#[path = "../fuzz/bodies/gossip.rs"]
mod gossip;
#[path = "../fuzz/bodies/image.rs"]
mod image;
#[path = "../fuzz/bodies/journal.rs"]
mod journal;
#[path = "../fuzz/bodies/matching.rs"]
mod matching;
#[path = "../fuzz/bodies/objects.rs"]
mod objects;
#[path = "../fuzz/bodies/order_file.rs"]
mod order_file;
#[path = "../fuzz/bodies/replies.rs"]
mod replies;
#[path = "../fuzz/bodies/requests.rs"]
mod requests;
#[path = "../fuzz/bodies/world.rs"]
mod world;

use world::{ME, NOW_MS, PROVIDER, STRANGER};

/// Changes of one mutation: more only make garbage of it.
const EDITS_MAX: usize = 4;
/// Length of arbitrary bytes.
const BYTES_MAX: usize = 600;

fn drive(target: &str, body: fn(&[u8]), cases: u32, seeds: &[Vec<u8>]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    if std::env::var_os("CAPEX_FUZZ_WRITE").is_some() {
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("{number:02}")), seed).unwrap();
        }
    }
    let files = fs::read_dir(&dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let corpus: Vec<Vec<u8>> = files.collect();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    corpus.iter().chain(seeds).for_each(|bytes| body(bytes));
    let more = std::env::var("CAPEX_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let config = Config { cases: cases * more, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let edits = vec((any::<Index>(), any::<u8>()), 1..=EDITS_MAX);
    let mutated = (any::<Index>(), edits, proptest::option::weighted(0.2, any::<Index>()));
    let mutated =
        mutated.prop_map(|(seed, edits, cut)| mutate(seed.get::<Vec<u8>>(seeds), &edits, cut));
    let bytes = vec(any::<u8>(), 0..BYTES_MAX);
    let case = prop_oneof![4 => mutated, 1 => bytes];
    let result = runner.run(&case, |bytes| {
        body(&bytes);
        Ok(())
    });
    result.unwrap();
}

fn mutate(seed: &[u8], edits: &[(Index, u8)], cut: Option<Index>) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (at, value) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

/// A message behind the byte that picks its kind.
fn picked(pick: u8, message: Vec<u8>) -> Vec<u8> {
    [vec![pick], message].concat()
}

#[test]
fn objects_have_one_encoding() {
    let draft = world::certificate();
    let mut seeds = vec![
        world::order(ME, Side::Buy).envelope().payload.clone(),
        world::order(ME, Side::Sell).envelope().payload.clone(),
        encode(world::root(ME).envelope()),
        encode(world::contact(ME).envelope()),
        draft.issue().unwrap().payload.clone(),
    ];
    for hop in &draft.hops {
        let capex_core::certificate::Hop::Sale { terms, lock, activation, .. } = hop else {
            continue;
        };
        seeds.extend([terms, lock, activation].map(|part| part.payload.clone()));
    }
    drive("objects", objects::run, 2_000, &seeds);
}

/// What one of several puts into their one transaction.
fn part() -> TradeRequest {
    let coin = Coin { txid: [7; 32], vout: 1, value_sat: 9_000, key: [9; 32] };
    let change = Some(Change { spk: vec![0x51, 0x20], value_sat: 3_000 });
    let contribution = Contribution { coins: vec![coin], change };
    let part = Part { contribution, signatures: vec![[[8; 32]; 2]] };
    TradeRequest::Part { terms: TermsHash([7; 32]), part }
}

fn pledge() -> PoolRequest {
    PoolRequest::Join { pool: PoolId([7; 32]), share_sat: 5_000, refund_xonly: [9; 32] }
}

#[test]
fn requests_of_strangers_do_no_harm() {
    let id = world::certificate_id();
    let order = OrderId(world::order(ME, Side::Buy).id());
    let epoch = NOW_MS / 2000;
    let image = ImageRef { name: "a.example:5000/b/c".to_owned(), digest: Digest([7; 32]) };
    let seeds = [
        picked(0, encode(&SettleRequest::Courier(CourierRequest::Push(world::certificate())))),
        picked(0, encode(&SettleRequest::Pool(PoolRequest::Leave(PoolId([7; 32]))))),
        picked(0, encode(&SettleRequest::Pool(pledge()))),
        picked(0, encode(&SettleRequest::Trade(part()))),
        picked(0, encode(&SettleRequest::Register(RegisterRequest::Get(id)))),
        picked(0, encode(&SettleRequest::Trade(TradeRequest::IsKept(TermsHash([7; 32]))))),
        picked(1, encode(&SyncRequest::Ids { epoch })),
        picked(1, encode(&SyncRequest::Orders { epoch, ids: vec![order] })),
        picked(1, encode(&SyncRequest::Clock)),
        picked(2, encode(&LeaseRequest::Challenge(id))),
        picked(2, encode(&LeaseRequest::Extend { extend: world::root(ME).envelope().clone() })),
        picked(2, encode(&LeaseRequest::Pull { cert: id, image })),
        picked(2, encode(&LeaseRequest::Stop { call: world::root(ME).envelope().clone() })),
    ];
    drive("requests", requests::run, 150, &seeds);
}

#[test]
fn replies_of_peers_do_no_harm() {
    let refused = || "redeem.busy".to_owned();
    let order = world::order(STRANGER, Side::Sell).envelope().clone();
    let seeds = [
        picked(0, encode(&SyncReply::Ids(vec![OrderId([3; 32])]))),
        picked(0, encode(&SyncReply::Orders(vec![order.clone()]))),
        picked(1, encode(&LeaseReply::Challenge([7; 32]))),
        picked(1, encode(&LeaseReply::Refused { code: refused() })),
        picked(
            1,
            encode(&LeaseReply::Pulled(Pulled { documents: vec![vec![7]], ..Pulled::default() })),
        ),
        picked(2, encode(&SettleReply::Register(RegisterReply::Activation(order)))),
        picked(2, encode(&SettleReply::Register(RegisterReply::Certificate(world::certificate())))),
        picked(2, encode(&SettleReply::Trade(TradeReply::Kept))),
        picked(2, encode(&SettleReply::Refused { code: refused() })),
    ];
    drive("replies", replies::run, 150, &seeds);
}

#[test]
fn gossip_gets_one_verdict() {
    let certificate = world::certificate();
    let capex_core::certificate::Hop::Sale { lock, .. } = &certificate.hops[0] else {
        panic!("a sale comes first");
    };
    let seeds = [
        picked(0, world::bundle(&[world::order(STRANGER, Side::Buy)])),
        picked(0, world::bundle(&[world::order(PROVIDER, Side::Sell)])),
        picked(0, world::bundle(&world::orders(STRANGER, 16))),
        picked(1, encode(world::root(STRANGER).envelope())),
        picked(2, encode(lock)),
        picked(3, encode(world::contact(STRANGER).envelope())),
        picked(4, encode(&(0_u32, lock, 1_u32, lock))),
    ];
    drive("gossip", gossip::run, 200, &seeds);
}

#[test]
fn certificates_are_read_without_a_panic() {
    let certificate = world::certificate();
    let text = file::write(&certificate, &world::params());
    drive("certificate", certificate::run, 400, &[text.into_bytes(), encode(&certificate)]);
}

#[test]
fn epochs_are_audited_without_a_panic() {
    let valid = epoch::text();
    let without_orders = valid.lines().filter(|line| !line.starts_with("order "));
    let without_orders: String = without_orders.map(|line| format!("{line}\n")).collect();
    drive("epoch", epoch::run, 400, &[valid.into_bytes(), without_orders.into_bytes()]);
}

#[test]
fn books_are_matched_or_refused() {
    let golden = include_str!("vectors/matching-golden.json");
    let vectors: serde_json::Value = serde_json::from_str(golden).unwrap();
    let books = vectors.as_array().unwrap().iter().take(6);
    let mut seeds: Vec<Vec<u8>> =
        books.map(|vector| vector["input"].to_string().into_bytes()).collect();
    seeds.push((0..160).map(|n: u16| (n * 37 % 251) as u8).collect());
    drive("matching", matching::run, 400, &seeds);
}

#[test]
fn a_damaged_journal_never_invents_a_record() {
    let seeds = [
        picked(2, vec![0, 30, 1, 0, 90, 255]),
        picked(1, b"torn".to_vec()),
        picked(0, b"no journal at all".to_vec()),
    ];
    drive("journal", journal::run, 40, &seeds);
}

#[test]
fn order_files_are_read_or_blamed_on_a_line() {
    let seeds = [
        "class = \"cpu.standard\"\nqty = 3\nlimit = \"90\"\nwindow = \"tomorrow\"\n",
        "class = \"cpu.standard=12\"\nqty = 1\nslots = 4\nmin-qty = 1\nyes = true\n",
        "[table]\nqty = 1979-05-27T07:32:00Z\n",
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    drive("order_file", order_file::run, 200, &seeds);
}

/// An archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn images_are_read_or_refused() {
    let saved = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[]}}"#;
    let index = br#"{"manifests":[{"digest":"sha256:00","size":1}]}"#;
    let seeds = [
        archive(&[("manifest.json", saved), ("c.json", config), ("l.tar", b"layer")]),
        archive(&[("oci-layout", b"{}"), ("index.json", index)]),
        archive(&[("bin/sh", b"#!"), ("etc/passwd", b"root:x:0:0::/:/bin/sh")]),
    ];
    drive("image", image::run, 100, &seeds);
}

#[test]
fn the_devchain_answers_every_call() {
    let seeds = [
        r#"{"id":1,"method":"getblockchaininfo","params":[]}"#,
        r#"{"id":1,"method":"getblockhash","params":[200]}"#,
        r#"{"id":1,"method":"sendrawtransaction","params":["0200000000010000"]}"#,
        r#"[{"id":1,"method":"gettxout","params":["00",4294967295]},{"method":7}]"#,
        r#"{"id":1,"method":"estimatesmartfee","params":[18446744073709551615]}"#,
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    drive("devchain_rpc", devchain_rpc::run, 150, &seeds);
}
