//! An image is uploaded, runs as a container at its provider, and what it leaves comes back.

use std::path::Path;

use capex::api::types::{Redeemed, TimeInForce};

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{processes_of, until, until_or};
use crate::image::{busybox, rootfs};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

fn redeem<'a>(cert: &'a str, image: &'a Path, command: &[&'a str]) -> Vec<&'a str> {
    let image = image.to_str().unwrap();
    let mut words = vec!["cert", "redeem", cert, "--image", image, "--result", "result.txt"];
    words.extend(["--workdir", "/home", "--"]);
    words.extend(command);
    words
}

#[test]
fn a_container_is_redeemed() {
    let Some(busybox) = busybox("a_container_is_redeemed") else { return };
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    let image = file(&world, "image.tar", &rootfs(&busybox));
    let noise = file(&world, "noise.tar", &[7; 2_000]);
    // What cannot be run uses no certificate up.
    assert_eq!(buyer.cli_error(&redeem(&cert, &noise, &["sh"])), (2, "image.archive".to_owned()));
    assert_eq!(buyer.cli_error(&redeem(&cert, &image, &[])), (2, "image.no_command".to_owned()));
    let absent = buyer.cli_error(&redeem(&cert, &image, &["/bin/absent"]));
    assert_eq!(absent, (2, "image.no_program".to_owned()));
    let incoming = std::fs::read_dir(buyer.dir.join("held/incoming"));
    assert_eq!(incoming.map_or(0, Iterator::count), 0, "nothing is left of what was refused");

    let script = "echo hello; echo 42 > result.txt; exit 3";
    let command = ["/bin/busybox", "sh", "-c", script];
    let redeemed: Redeemed = buyer.cli_json(&redeem(&cert, &image, &command));
    let id = redeemed.lease_id;
    let look = || lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over());
    let ended = until_or("receipt of both", SETTLING, look, || {
        format!("{:#?}", [&buyer, &provider].map(|daemon| lease(daemon, &id)))
    });
    assert_eq!((ended.outcome.as_deref(), ended.exit_code), (Some("exited"), Some(3)));
    let (code, out, err) = buyer.cli(&["lease", "logs", &id]);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
    assert_eq!(buyer.client().unwrap().result(&id, "result.txt").unwrap(), b"42\n");
    let released = until("release", SETTLING, || {
        lease(&provider, &id).filter(|lease| lease.phase == "released")
    });
    assert_eq!(released.left_behind, [] as [&str; 0]);
    assert_eq!(processes_of(&provider.dir.join("leases")), [] as [u32; 0]);
}
