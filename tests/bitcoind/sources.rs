//! Servers in every condition in which people have them, and a node that was given one.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Daemon, until_or};
use crate::market::picture;
use crate::server::{Core, begin, program};
use crate::world::World;

/// Long enough for a start on a busy machine, and far too short for a scan of everything.
const SOON: Duration = Duration::from_secs(30);
const DAY_S: u64 = 86_400;

/// Waits until a node follows the tip of the chain.
fn follows(world: &World, daemon: &Daemon) {
    let look = || {
        let chain = daemon.status()?.chain;
        (chain.up && chain.height + 1 >= world.chain.height()).then_some(())
    };
    until_or("node at the tip", SOON, look, || picture(&[daemon]));
}

/// Waits for a warning of a node; its words.
fn warning(daemon: &Daemon, code: &str) -> String {
    let look = || {
        let warnings = daemon.status()?.warnings.into_iter();
        warnings.filter(|warning| warning.code == code).map(|warning| warning.message).next()
    };
    until_or(code, SOON, look, || picture(&[daemon]))
}

#[test]
fn a_new_wallet_needs_no_block_that_a_pruned_core_has_deleted() {
    let world = World::with("a_new_wallet_on_a_pruned_core", |core| {
        core.start(&["-prune=1"]);
        core.mine_old(900, 10 * DAY_S);
        core.mine_old(10, 60);
        let _: u32 = core.call("pruneblockchain", vec![json!(600)]);
    });
    let Some(world) = world else { return };
    assert!(world.chain.try_call::<String>("getblock", vec![json!(world.chain.hash(9))]).is_err());
    let mut fresh = world.daemon("fresh", 0);
    fresh.start(&[]);
    follows(&world, &fresh);
    assert_eq!(fresh.status().unwrap().wallet.confirmed_sat, 0);

    // Keys of unknown age may own anything; then it says what is missing, and what to do.
    let mut restored = world.daemon("restored", 0);
    std::fs::create_dir_all(&restored.dir).unwrap();
    let seed = std::fs::read_to_string(fresh.dir.join("wallet.seed")).unwrap();
    let ageless = |line: &str| match line.starts_with("birthday ") {
        true => "birthday -\n".to_owned(),
        false => format!("{line}\n"),
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600);
    let mut file = file.open(restored.dir.join("wallet.seed")).unwrap();
    file.write_all(seed.lines().map(ageless).collect::<String>().as_bytes()).unwrap();
    restored.start(&[]);
    let words = warning(&restored, "chain.pruned");
    assert!(words.contains("prune=0"), "{words}");
}

#[test]
fn a_long_chain_is_not_read_by_a_new_wallet() {
    let world = World::with("a_long_chain", |core| {
        core.start(&[]);
        core.mine_old(6_000, 30 * DAY_S);
        core.mine(1);
    });
    let Some(world) = world else { return };
    let mut fresh = world.daemon("fresh", 0);
    fresh.start(&[]);
    follows(&world, &fresh);
    let log = std::fs::read_to_string(&fresh.log).unwrap();
    assert!(!log.contains("reading block 1000 of"), "{log}");
}

#[test]
fn a_core_that_downloads_the_chain_is_not_believed_and_says_how_far_it_is() {
    let test = "a_core_that_downloads";
    let Some(program) = program(test) else { return };
    let home = tempfile::tempdir().unwrap();
    let full = Core::new(program, home.path(), "full");
    full.start(&[]);
    full.mine_old(20, 3 * DAY_S);
    begin(&full);
    let top = full.height();
    let blocks: Vec<String> = (1..=top)
        .map(|height| full.call("getblock", vec![json!(full.hash(height)), json!(0)]))
        .collect();
    let Some(world) = World::still(test, |core| {
        core.start(&[]);
        for block in &blocks {
            let _: Value = core.call("submitheader", vec![json!(block[..160])]);
        }
        for block in &blocks[..10] {
            let _: Value = core.call("submitblock", vec![json!(block)]);
        }
    }) else {
        return;
    };
    let mut daemon = world.daemon("patient", 0);
    daemon.start(&[]);
    let words = warning(&daemon, "chain.behind");
    assert!(words.contains("downloading") && words.contains(&top.to_string()), "{words}");
    assert!(!daemon.status().unwrap().chain.up);
    let bid = ["buy", "--class", "cpu.standard", "--qty", "2", "--max-price", "900sat"];
    let bid = [&bid[..], &["--for", "2slots"]].concat();
    assert_eq!(daemon.cli_error(&bid).0, 3);
    for block in &blocks[10..] {
        let _: Value = world.chain.call("submitblock", vec![json!(block)]);
    }
    follows(&world, &daemon);
}

#[test]
fn a_core_with_a_fixed_password_is_read_by_a_file_written_by_hand() {
    let world = World::with("a_core_with_a_fixed_password", |core| {
        let file = core.dir.join("password");
        // As an editor on another system writes it.
        std::fs::write(&file, "\u{feff}ann:pass:word\r\n").unwrap();
        core.fix_password(file);
        core.start(&["-rpcuser=ann", "-rpcpassword=pass:word"]);
        begin(core);
    });
    let Some(world) = world else { return };
    let mut daemon = world.daemon("node", 0);
    daemon.start(&[]);
    follows(&world, &daemon);
}

#[test]
fn a_node_may_be_there_before_its_chain_server() {
    let Some(world) = World::still("a_node_before_its_chain_server", |_| {}) else { return };
    let mut daemon = world.daemon("early", 0);
    daemon.start(&[]);
    warning(&daemon, "chain.down");
    world.chain.start(&[]);
    begin(&world.chain);
    world.miner.resume();
    follows(&world, &daemon);
}
