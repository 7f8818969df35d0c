//! A host that has no room for what is uploaded, or no longer what containers need: the holder hears
//! why, the receipt says what was not delivered, and the next certificate is not used up for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use capex::api::types::{Lease, Redeemed, TimeInForce, Unavailable};
use capex::executor::samples::{WORDSUM, wordsum};

use crate::a_certificate_is_given_and_redeemed::{file, lease, redeem_args};
use crate::a_full_disk_loses_nothing::Disk;
use crate::daemon::{Daemon, until, until_or};
use crate::image::{busybox, rootfs};
use crate::market::{SETTLING, bought, buy, certificates, fund, meet, sell, soon};
use crate::world::World;

/// Of each window.
const SLOTS: u32 = 2;
const INPUT: &str = "1 2 3 40 and 500\n";

/// Starts a provider, which sells, and a buyer.
fn begin(world: &World, provider: &mut Daemon) -> Daemon {
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    fund(provider);
    fund(&buyer);
    meet(&[provider, &buyer]);
    sell(provider, 2);
    buyer
}

/// A certificate of one block, that begins as soon as one can be had.
fn certificate(buyer: &Daemon) -> String {
    let window = soon(buyer);
    assert_eq!(window[1] - window[0], SLOTS);
    buy(buyer, 1, window, TimeInForce::Ioc);
    bought(buyer, window).cert_id
}

/// A lease that has ended for a fault of its host: what both sides agree to of it.
fn failed(provider: &Daemon, buyer: &Daemon, id: &str) -> Lease {
    let look = || lease(buyer, id).filter(|lease| lease.countersigned && lease.is_over());
    let ended = until_or("receipt of both", SETTLING, look, || {
        format!("{:#?}", [buyer, provider].map(|daemon| lease(daemon, id)))
    });
    assert_eq!(ended.outcome.as_deref(), Some("failed"));
    let slot_s = buyer.status().unwrap().slot_s;
    let whole = (SLOTS * slot_s).to_string();
    let lost = Unavailable { cause: "failed".to_owned(), unavailable_s: whole };
    assert_eq!((ended.unavailable.clone(), ended.delivered_s.as_str()), (vec![lost], "0"));
    let released = until("release", SETTLING, || {
        lease(provider, id).filter(|lease| lease.phase == "released")
    });
    assert_eq!((released.code, released.left_behind), (ended.code.clone(), vec![]));
    ended
}

#[test]
fn a_disk_that_is_full_of_an_upload_is_on_the_receipt() {
    let world = World::new();
    let mut provider = world.daemon("provider", 2);
    let place = provider.dir.join("leases");
    let Some(_disk) = Disk::mount(&place, "a disk that is full of an upload") else { return };
    let buyer = begin(&world, &mut provider);
    let wasm = file(&world, "wordsum.wasm", WORDSUM);
    let cert = certificate(&buyer);
    let large = file(&world, "large", &vec![b'7'; 20 << 20]);
    let large = format!("input.txt={}", large.display());
    let redeemed: Redeemed = buyer.cli_json(&redeem_args(&cert, &wasm, &large));
    let ended = failed(&provider, &buyer, &redeemed.lease_id);
    assert_eq!(ended.code.as_deref(), Some("executor.disk_full"));
    let (code, out, err) = buyer.cli(&["lease", "show", &redeemed.lease_id]);
    assert!(code == 0 && out.contains("executor.disk_full"), "{out}{err}");

    // It has given the room back, and goes on.
    let cert = certificate(&buyer);
    let small = file(&world, "in.txt", INPUT.as_bytes());
    let small = format!("input.txt={}", small.display());
    let redeemed: Redeemed = buyer.cli_json(&redeem_args(&cert, &wasm, &small));
    let id = redeemed.lease_id;
    let look = || lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over());
    let ended = until("receipt of both", SETTLING, look);
    assert_eq!((ended.exit_code, ended.code), (Some(0), None));
    let result = buyer.client().unwrap().result(&id, "result.txt").unwrap();
    assert_eq!(result, wordsum::expected(INPUT.as_bytes()).as_bytes());
}

/// Takes a program from a daemon, which has mounts of its own, and from all that it starts.
fn hide(daemon: &Daemon, program: &Path) {
    let mounts = format!("--mount=/proc/{}/ns/mnt", daemon.pid());
    let mut command = Command::new("nsenter");
    command.args([&mounts, "mount", "--bind", "/dev/null"]).arg(program);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_runtime_that_vanished_is_on_the_receipt() {
    let Some(busybox) = busybox("a_runtime_that_vanished_is_on_the_receipt") else { return };
    let world = World::new();
    let mut provider = world.daemon("provider", 2);
    provider.take_own_mounts();
    let buyer = begin(&world, &mut provider);
    let image = file(&world, "image.tar", &rootfs(&busybox));
    let image = image.to_str().unwrap();
    let program = ["/bin/busybox", "true"];
    let cert = certificate(&buyer);
    // Its node has said by then that it runs containers.
    hide(&provider, &fs::canonicalize("/usr/sbin/mkfs.ext4").unwrap());
    let redeem = ["cert", "redeem", &cert, "--image", image, "--", program[0], program[1]];
    let redeemed: Redeemed = buyer.cli_json(&redeem);
    let ended = failed(&provider, &buyer, &redeemed.lease_id);
    assert_eq!(ended.code.as_deref(), Some("runtime.gone"));

    // It has seen that it runs none: the next certificate is not used up for that.
    let cert = certificate(&buyer);
    let redeem = ["cert", "redeem", &cert, "--image", image, "--", program[0], program[1]];
    assert_eq!(buyer.cli_error(&redeem), (6, "redeem.no_runtime".to_owned()));
    let held = certificates(&buyer).into_iter().find(|held| held.cert_id == cert);
    assert_eq!(held.unwrap().state, "held");
}
