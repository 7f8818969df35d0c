//! A provider dies in the middle of an upload: its next life goes on where that one stopped, and
//! what had come is not sent again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use capex::api::types::TimeInForce;
use capex::executor::samples::CHATTY;

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{Daemon, until, until_or};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

const INPUT_BYTES: usize = 48 << 20;
/// Comes before the cut: enough to see whether it comes again.
const BEFORE_BYTES: u64 = 8 << 20;
/// What the holder's node may read beside the rest of the content.
const SLACK_BYTES: u64 = 4 << 20;

/// The content of which a part has come, as it grows.
fn part(provider: &Daemon) -> Option<PathBuf> {
    let leases = fs::read_dir(provider.dir.join("leases")).ok()?.flatten();
    let blobs = leases.filter_map(|lease| fs::read_dir(lease.path().join("blobs")).ok());
    let files = blobs.flatten().flatten().map(|blob| blob.path());
    files.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "part"))
}

fn length(path: &PathBuf) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.len())
}

/// Bytes that a process has read from files.
fn read_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn an_upload_that_is_cut_goes_on() {
    let world = World::new();
    let (mut provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let [first, _] = soon(&buyer);
    let window = [first + 4, first + 10];
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    let wasm = file(&world, "chatty.wasm", CHATTY);
    let input = file(&world, "large", &vec![7; INPUT_BYTES]);
    let input = format!("large={}", input.display());
    let redeem = ["cert", "redeem", &cert, "--wasm", wasm.to_str().unwrap(), "--input", &input];
    let mut redeeming = buyer.spawn(&redeem);
    let begun = || part(&provider).filter(|path| length(path) >= Some(BEFORE_BYTES));
    let part = until_or("a part of the content", SETTLING, begun, || redeeming.errors());
    provider.kill();
    let came = length(&part).expect("the content is not whole yet");
    assert!(came < INPUT_BYTES as u64);
    let id = part.ancestors().nth(2).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let before = read_bytes(buyer.pid());

    provider.start(&[&buyer.p2p()]);
    until("a running lease", Duration::from_secs(90), || {
        // What has come stays, and is never less.
        assert!(length(&part).is_none_or(|now| now >= came));
        lease(&buyer, &id).filter(|lease| lease.phase == "running")
    });
    let read = read_bytes(buyer.pid()) - before;
    let rest = INPUT_BYTES as u64 - came;
    assert!(read < rest + SLACK_BYTES, "{read} bytes read again for {rest} that were missing");
    assert_eq!(redeeming.code(), Some(0), "{}", redeeming.errors());
    let copy = provider.dir.join("leases").join(&id).join("work/large");
    assert_eq!(length(&copy), Some(INPUT_BYTES as u64));
    let (code, _, err) = buyer.cli(&["lease", "stop", &id]);
    assert_eq!(code, 0, "{err}");
    until("receipt of both", SETTLING, || lease(&buyer, &id).filter(|lease| lease.countersigned));
}
