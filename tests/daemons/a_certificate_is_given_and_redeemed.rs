//! A gift to a third node, which redeems; the giver cannot any more.

use std::path::{Path, PathBuf};

use capex::api::types::{Gifted, Lease, Redeemed, TimeInForce};
use capex::executor::samples::{CHATTY, WORDSUM, wordsum};

use crate::daemon::{Daemon, processes_of, until, until_or};
use crate::market::{
    SETTLING, all_settled, bought, buy, certificates, meet, provider_and_buyer, sell, soon,
};
use crate::world::World;

const INPUT: &str = "1 2 3 40 and 500\n";

/// A file of the holder.
pub(crate) fn file(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn redeem_args<'a>(cert: &'a str, wasm: &'a Path, input: &'a str) -> [&'a str; 9] {
    let wasm = wasm.to_str().unwrap();
    ["cert", "redeem", cert, "--wasm", wasm, "--input", input, "--result", "result.txt"]
}

/// A lease that runs, of a workload that goes on to its end, for so many slots.
pub(crate) fn chatting(world: &World, buyer: &Daemon, slots: u32) -> String {
    let [start, _] = soon(buyer);
    let window = [start, start + slots];
    buy(buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(buyer, window).cert_id;
    let wasm = file(world, "chatty.wasm", CHATTY);
    let redeem = ["cert", "redeem", &cert, "--wasm", wasm.to_str().unwrap()];
    let redeemed: Redeemed = buyer.cli_json(&redeem);
    let id = redeemed.lease_id;
    until("the start", SETTLING, || lease(buyer, &id).filter(|lease| lease.phase == "running"));
    id
}

pub(crate) fn lease(daemon: &Daemon, id: &str) -> Option<Lease> {
    daemon.try_get(&format!("/leases/{id}")).ok()
}

#[test]
fn a_certificate_is_given_and_redeemed() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    let mut third = world.daemon("third", 0);
    third.start(&[&provider.p2p(), &buyer.p2p()]);
    meet(&[&provider, &buyer, &third]);
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    all_settled(&[&provider, &buyer]);

    let given: Gifted = buyer.cli_json(&["cert", "gift", &cert[..12], "--to", &third.key()]);
    assert_eq!((given.cert_id.as_str(), given.seq), (cert.as_str(), 2));
    until("gift", SETTLING, || {
        let held = certificates(&third).into_iter().find(|found| found.cert_id == cert)?;
        (held.state == "held" && held.seq == 2).then_some(())
    });

    let wasm = file(&world, "wordsum.wasm", WORDSUM);
    let input = file(&world, "in.txt", INPUT.as_bytes());
    let input = format!("input.txt={}", input.display());
    let args = redeem_args(&cert, &wasm, &input);
    assert_eq!(buyer.cli_error(&args), (6, "redeem.not_holder".to_owned()));
    let redeemed: Redeemed = third.cli_json(&args);
    assert_eq!(redeemed.cert_id, cert);
    let again = third.cli_error(&args);
    assert_eq!(again.0, 6, "{again:?}");

    let id = redeemed.lease_id;
    let look = || lease(&third, &id).filter(|lease| lease.countersigned && lease.is_over());
    let ended = until_or("receipt of both", SETTLING, look, || {
        format!("{:#?}", [&third, &provider].map(|daemon| lease(daemon, &id)))
    });
    assert_eq!((ended.role.as_str(), ended.exit_code), ("holder", Some(0)));
    assert_eq!(ended.outcome.as_deref(), Some("exited"));
    let expected = wordsum::expected(INPUT.as_bytes());
    let (code, out, err) = third.cli(&["lease", "logs", &id]);
    assert_eq!((code, out.as_str()), (0, expected.as_str()), "{err}");
    let client = third.client().unwrap();
    assert_eq!(client.result(&id, "result.txt").unwrap(), expected.as_bytes());

    // The provider signed what it delivered, and keeps nothing of it.
    let released = until("release", SETTLING, || {
        lease(&provider, &id).filter(|lease| lease.phase == "released")
    });
    assert_eq!(released.left_behind, [] as [&str; 0]);
    assert!(released.countersigned && released.receipts > 0, "{released:?}");
    assert_eq!(processes_of(&provider.dir.join("leases")), [] as [u32; 0]);
    let left: Vec<_> = std::fs::read_dir(provider.dir.join("leases")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
