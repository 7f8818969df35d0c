//! A purchase brings its workload, which begins at the first second of what was bought, though the
//! buyer's daemon is killed on the way.

use std::time::Duration;

use capex::api::types::{Certificate, Order, Placed};
use capex::executor::samples::{WORDSUM, wordsum};

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{until, until_or};
use crate::market::{SETTLING, certificates, picture, provider_and_buyer, sell};
use crate::world::World;

const INPUT: &str = "1 2 3 40 and 500\n";
const WORK: &str =
    "wasm = \"wordsum.wasm\"\ninput = [\"input.txt=in.txt\"]\nresult = [\"result.txt\"]\n";
/// As far ahead as the buyer needs to be killed and to come back on a busy machine.
const AHEAD_SLOTS: u32 = 10;

#[test]
fn a_workload_begins_by_itself() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    file(&world, "wordsum.wasm", WORDSUM);
    file(&world, "in.txt", INPUT.as_bytes());
    let work = file(&world, "work.toml", WORK.as_bytes());
    let work = work.to_str().unwrap();
    let start = buyer.status().unwrap().first_slot + AHEAD_SLOTS;
    let window = format!("{start}..{}", start + 2);
    let bid = ["buy", "--class", "cpu.standard", "--qty", "1", "--max-price", "900sat"];
    let bid = [&bid[..], &["--window", &window]].concat();
    let with = |words: &[&'static str]| [&bid[..], words].concat();
    // What cannot be meant places nothing.
    let missing = with(&["--workload", "/nowhere/work.toml"]);
    assert_eq!(buyer.cli_error(&missing), (2, "file.unusable".to_owned()));
    for (line, code) in [
        ("colour = \"red\"", "order_file.unknown_key"),
        ("env-sealed = [\"A=@in.txt\"]", "attach.sealed"),
    ] {
        let text = format!("wasm = \"wordsum.wasm\"\n{line}\n");
        let odd = file(&world, "odd.toml", text.as_bytes());
        let odd = [&bid[..], &["--workload", odd.to_str().unwrap()]].concat();
        assert_eq!(buyer.cli_error(&odd), (2, code.to_owned()));
    }
    assert_eq!(buyer.get::<Vec<Order>>("/orders"), []);

    let placed: Placed = buyer.cli_json(&[&bid[..], &["--workload", work]].concat());
    let order: Order = buyer.get(&format!("/orders/{}", placed.order_id));
    assert_eq!(order.workload.as_deref(), Some("wasm"));
    let held = || certificates(&buyer).into_iter().find(|cert| cert.workload.is_some());
    let cert: Certificate = until_or("certificate", SETTLING, held, || picture(&[&buyer]));
    let attached = cert.workload.unwrap();
    assert_eq!((attached.kind.as_str(), attached.order_id), ("wasm", placed.order_id));
    assert!(cert.state == "held" && attached.code.is_none());
    buyer.kill();
    buyer.start(&[&provider.p2p()]);

    let id = until_or(
        "redemption",
        SETTLING,
        || {
            let cert = certificates(&buyer).into_iter().find(|found| found.cert_id == cert.cert_id);
            cert.and_then(|cert| cert.lease_id)
        },
        || picture(&[&buyer]),
    );
    let ended = until("receipt of both", Duration::from_secs(90), || {
        lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over())
    });
    assert_eq!((ended.exit_code, ended.code), (Some(0), None));
    let result = buyer.client().unwrap().result(&id, "result.txt").unwrap();
    assert_eq!(result, wordsum::expected(INPUT.as_bytes()).as_bytes());
    // Nothing is kept that no lease and no order needs.
    let content = buyer.dir.join("held/content");
    until("the content to go", SETTLING, || {
        let left = std::fs::read_dir(&content).map_or(0, Iterator::count);
        (left == 0).then_some(())
    });
}

/// As after a restore: what shall run is in no backup.
#[test]
fn a_workload_whose_content_is_gone_is_forgotten_at_the_start() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_buyer(&world, 2);
    file(&world, "wordsum.wasm", WORDSUM);
    file(&world, "in.txt", INPUT.as_bytes());
    let work = file(&world, "work.toml", WORK.as_bytes());
    let bid = ["buy", "--class", "cpu.standard", "--qty", "1", "--max-price", "900sat"];
    let place = ["--for", "20slots", "--slots", "2", "--workload", work.to_str().unwrap()];
    let placed: Placed = buyer.cli_json(&[&bid[..], &place].concat());
    let path = format!("/orders/{}", placed.order_id);
    assert_eq!(buyer.get::<Order>(&path).workload.as_deref(), Some("wasm"));
    for (is_lost, runs) in [(false, Some("wasm")), (true, None)] {
        buyer.kill();
        if is_lost {
            std::fs::remove_dir_all(buyer.dir.join("held/content")).unwrap();
        }
        buyer.start(&[&provider.p2p()]);
        assert_eq!(buyer.get::<Order>(&path).workload.as_deref(), runs, "lost: {is_lost}");
    }
}
