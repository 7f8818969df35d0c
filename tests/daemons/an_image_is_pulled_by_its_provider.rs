//! A holder names an image, its provider fetches it from a registry, and it runs as a container: the
//! holder has sent nothing of it.

use std::fs;
use std::path::Path;

use capex::api::types::{Lease, Redeemed, TimeInForce};

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{Daemon, until_or};
use crate::image::{busybox, rootfs};
use crate::market::{SETTLING, bought, buy, fund, meet, sell, soon};
use crate::registry::{Image, Reply, Server, here};
use crate::world::World;

/// A provider that fetches from one registry, and a buyer.
fn pair(world: &World, registry: &Server) -> (Daemon, Daemon) {
    let mut provider = world.daemon("provider", 2);
    fs::create_dir_all(&provider.dir).unwrap();
    let config = format!("[host]\nregistries = [\"{}\"]\n", registry.name());
    fs::write(provider.dir.join("config.toml"), config).unwrap();
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    fund(&provider);
    fund(&buyer);
    meet(&[&provider, &buyer]);
    (provider, buyer)
}

fn redeem<'a>(cert: &'a str, image: &'a str) -> Vec<&'a str> {
    let script = "echo hello from $0";
    vec!["cert", "redeem", cert, "--image", image, "--", "/bin/busybox", "sh", "-c", script]
}

/// A layer with one small file.
fn note() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(5);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, "etc/note", &b"note\n"[..]).unwrap();
    archive.into_inner().unwrap()
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[test]
fn an_image_is_pulled_by_its_provider() {
    let Some(busybox) = busybox("an_image_is_pulled_by_its_provider") else { return };
    let world = World::new();
    // A small layer is one that could be sent without a question.
    let image = Image::of(&[&rootfs(&busybox), &note()], here());
    let server = Server::honest(&image);
    let stranger = Server::start(|_| Reply::status(404));
    let (provider, buyer) = pair(&world, &server);
    let shown: serde_json::Value = provider.cli_json(&["host", "show"]);
    assert_eq!(shown["registries"], serde_json::json!([server.name()]));
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;

    // What is not to be had uses no certificate up.
    let elsewhere = buyer.cli_error(&redeem(&cert, &stranger.image(&image.index)));
    assert_eq!(elsewhere, (6, "pull.not_allowed".to_owned()));
    assert_eq!(stranger.asked(), []);
    let unknown = buyer.cli_error(&redeem(&cert, &server.image(b"unknown")));
    assert_eq!(unknown, (5, "pull.not_found".to_owned()));
    let order =
        ["buy", "--class", "cpu.standard", "--qty", "1", "--max-price", "9sat", "--for", "1slots"];
    let work = format!("image = \"{}\"\n", server.image(&image.index));
    let work = file(&world, "work.toml", work.as_bytes());
    let early = buyer.cli_error(&[&order[..], &["--workload", work.to_str().unwrap()]].concat());
    assert_eq!(early, (2, "pull.needs_certificate".to_owned()));

    let redeemed: Redeemed = buyer.cli_json(&redeem(&cert, &server.image(&image.index)));
    let id = redeemed.lease_id;
    let look = || lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over());
    let ended: Lease = until_or("receipt of both", SETTLING, look, || {
        format!("{:#?}", [&buyer, &provider].map(|daemon| lease(daemon, &id)))
    });
    assert_eq!((ended.outcome.as_deref(), ended.exit_code), (Some("exited"), Some(0)));
    let (code, out, err) = buyer.cli(&["lease", "logs", &id]);
    assert_eq!((code, out.as_str()), (0, "hello from sh\n"), "{err}");
    assert!(bytes_below(&buyer.dir.join("held")) < 10_000, "the image was never here");
    assert_eq!(bytes_below(&provider.dir.join("leases/pulled")), 0, "nothing is left");
}
