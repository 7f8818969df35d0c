//! A machine is lost. Words and one file are enough to go on: certificates are there, a
//! settlement that was under way ends, and no coin is missing.

use std::path::Path;

use capex::api::types::{Certificate, TimeInForce};

use crate::daemon::{Daemon, Said, capex, error_of, until};
use crate::market::{
    Coins, SETTLING, all_settled, bought, buy, certificates, meet, provider_and_buyer, sell, soon,
    total_sat,
};
use crate::world::World;

/// States of a buyer whose coins are in the contract, or on their way there.
const PAYING: [&str; 4] = ["fund_sent", "fund_confirmed", "preimage_known", "active"];

fn words_of(world: &World, daemon: &Daemon) -> std::path::PathBuf {
    let said: serde_json::Value = daemon.cli_json(&["wallet", "words"]);
    let words: Vec<&str> =
        said["words"].as_array().unwrap().iter().flat_map(|w| w.as_str()).collect();
    private(&world.path().join(format!("{}.words", daemon.name)), &words.join(" "))
}

fn private(path: &Path, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path.to_owned()
}

fn restore(home: &Path, file: &Path, words: &Path, to: &Path, network: &str) -> Said {
    let args = [
        "--json",
        "--network",
        network,
        "--datadir",
        to.to_str().unwrap(),
        "backup",
        "restore",
        file.to_str().unwrap(),
        "--words-file",
        words.to_str().unwrap(),
    ];
    capex(home, &args, &[])
}

#[test]
fn a_node_goes_on_elsewhere_from_its_backup() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_buyer(&world, 2);
    let words = words_of(&world, &buyer);
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    all_settled(&[&provider, &buyer]);

    let coins = Coins::count(&world, &[&provider, &buyer]);
    buy(&buyer, 1, soon(&buyer), TimeInForce::Ioc);
    until("payment", SETTLING, || {
        let trades: Vec<capex::api::types::Trade> = buyer.try_get("/trades").ok()?;
        let paying = |state: &str| PAYING.contains(&state);
        (trades.len() == 2 && trades.iter().all(|trade| paying(&trade.state))).then_some(())
    });
    let file = world.path().join("buyer.backup");
    let (code, _, err) = buyer.cli(&["backup", "create", file.to_str().unwrap()]);
    assert_eq!(code, 0, "beside the daemon: {err}");
    let again = buyer.cli_error(&["backup", "create", file.to_str().unwrap()]);
    assert_eq!(again, (2, "file.unusable".to_owned()), "an older backup is never replaced");
    buyer.kill();
    std::fs::remove_dir_all(&buyer.dir).unwrap();

    // A file that does not open, or of another network, leaves nothing behind.
    let mut elsewhere = world.daemon("elsewhere", 0);
    let other = private(&world.path().join("other.words"), OTHER_WORDS);
    for (words, network, code) in
        [(&other, "devnet", "backup.password"), (&words, "regtest", "store.wrong_network")]
    {
        let said = restore(world.path(), &file, words, &elsewhere.dir, network);
        assert_eq!(error_of(said).1, code);
        assert!(!elsewhere.dir.join("identity.key").exists());
    }
    let (code, _, err) = restore(world.path(), &file, &words, &elsewhere.dir, "devnet");
    assert_eq!(code, 0, "{err}");
    let twice = restore(world.path(), &file, &words, &elsewhere.dir, "devnet");
    assert_eq!(error_of(twice).1, "backup.not_empty");

    elsewhere.start(&[&provider.p2p()]);
    meet(&[&provider, &elsewhere]);
    let held: Vec<Certificate> = certificates(&elsewhere);
    assert!(held.iter().any(|held| held.cert_id == cert && held.state == "held"), "{held:?}");
    all_settled(&[&provider, &elsewhere]);
    coins.assert_only_fees_left(&world, &[&provider, &elsewhere]);
}

#[test]
fn a_backup_is_written_anew_when_a_certificate_comes() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_buyer(&world, 1);
    let words = words_of(&world, &buyer);
    buyer.kill();
    let file = world.path().join("kept.backup");
    buyer.set("CAPEX_BACKUP_PATH", file.to_str().unwrap());
    buyer.start(&[&provider.p2p()]);
    meet(&[&provider, &buyer]);
    until("first backup", SETTLING, || file.exists().then_some(()));
    sell(&provider, 1);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    all_settled(&[&provider, &buyer]);
    let total = total_sat(&buyer);
    buyer.kill();

    let mut elsewhere = world.daemon("elsewhere", 0);
    let (code, _, err) = restore(world.path(), &file, &words, &elsewhere.dir, "devnet");
    assert_eq!(code, 0, "{err}");
    elsewhere.start(&[&provider.p2p()]);
    let held = certificates(&elsewhere);
    assert!(held.iter().any(|held| held.cert_id == cert && held.state == "held"), "{held:?}");
    until("the same coins", SETTLING, || (total_sat(&elsewhere) == total).then_some(()));
}

/// A seed of nobody, from the vectors of BIP-39.
const OTHER_WORDS: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
