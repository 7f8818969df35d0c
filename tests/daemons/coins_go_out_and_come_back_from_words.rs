//! Money that leaves a node: payments, payouts of sales, and a wallet on another machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use capex::api::types::{Address, Coin, Payment, TimeInForce, WalletTx};
use serde_json::Value;

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    all_settled, balance, bought, buy, cancel, fund, meet, picture, sell, soon, total_sat,
};
use crate::world::World;

const BLOCKS: Duration = Duration::from_secs(30);

fn address(daemon: &Daemon) -> String {
    daemon.cli_json::<Address>(&["wallet", "address"]).address
}

fn history(daemon: &Daemon) -> Vec<WalletTx> {
    daemon.cli_json(&["wallet", "history"])
}

fn until_confirmed(daemon: &Daemon, sat: u64) {
    let look = || {
        let now = balance(daemon);
        (now.confirmed_sat == sat && now.pending_sat == 0).then_some(())
    };
    until_or("coins", BLOCKS, look, || format!("{sat} expected; {:?}", balance(daemon)));
}

fn secret_file(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn coins_go_out_and_come_back_from_words() {
    let world = World::new();
    let mut owner = world.daemon("owner", 0);
    owner.start(&[]);
    let mut friend = world.daemon("friend", 0);
    friend.start(&[]);
    fund(&owner);
    let before_sat = total_sat(&owner);
    let to = address(&friend);
    let send = ["wallet", "send", &to, "0.01btc", "--fee-rate", "3"];
    let quote: Payment = owner.cli_json(&[&send[..], &["--dry-run"]].concat());
    let sent: Payment = owner.cli_json(&send);
    assert_eq!((quote.sent, sent.sent), (false, true));
    assert_eq!((quote.txid, quote.fee_sat), (sent.txid.clone(), sent.fee_sat));
    // What was answered is on disk, wherever the transaction is.
    owner.kill();
    let password = secret_file(&world.path().join("password"), "correct horse\n");
    let _: Value = owner.cli_json(&["wallet", "encrypt", "--password-file", &password]);
    assert_eq!(owner.cli_error(&["up"]), (1, "secret.sealed".to_owned()));
    owner.set("CAPEX_PASSWORD_FILE", &password);
    owner.start(&[]);
    until_confirmed(&friend, 1_000_000);
    let left_sat = before_sat - 1_000_000 - sent.fee_sat;
    until_confirmed(&owner, left_sat);
    let (gone, come) = (history(&owner), history(&friend));
    assert_eq!((gone[0].txid.as_str(), gone[0].what.as_str()), (sent.txid.as_str(), "payment"));
    assert_eq!(gone[0].fee_sat, Some(sent.fee_sat));
    assert_eq!((come[0].what.as_str(), come[0].received_sat), ("received", 1_000_000));
    let late = owner.cli_error(&["wallet", "bump", &sent.txid]);
    assert!(["wallet.confirmed", "wallet.no_payment"].contains(&late.1.as_str()), "{late:?}");

    // Another machine, with nothing but the words.
    let words: Value = owner.cli_json(&["wallet", "words", "--password-file", &password]);
    let words: Vec<&str> =
        words["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let file = secret_file(&world.path().join("words"), &words.join(" "));
    let mut restored = world.daemon("restored", 0);
    let _: Value = restored.cli_json(&["wallet", "restore", &file]);
    restored.start(&[]);
    until_confirmed(&restored, left_sat);
    let swept: Payment = restored.cli_json(&["wallet", "send", &to, "--all"]);
    assert_eq!(swept.amount_sat + swept.fee_sat, left_sat);
    until_confirmed(&restored, 0);
    until_confirmed(&owner, 0);
    until_confirmed(&friend, 1_000_000 + swept.amount_sat);
    let coins: Vec<Coin> = friend.cli_json(&["wallet", "coins"]);
    assert!(coins.iter().all(|coin| coin.state == "free"), "{coins:?}");
}

#[test]
fn sales_are_paid_out_to_the_address_that_their_owner_named() {
    let world = World::new();
    let mut friend = world.daemon("friend", 0);
    friend.start(&[]);
    let mut provider = world.daemon("provider", 4);
    provider.set("CAPEX_WALLET_PAYOUT", &address(&friend));
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    fund(&buyer);
    meet(&[&provider, &buyer]);
    let ask = sell(&provider, 4);
    let window = soon(&buyer);
    buy(&buyer, 2, window, TimeInForce::Gtc);
    bought(&buyer, window);
    cancel(&provider, &ask);
    all_settled(&[&provider, &buyer]);
    until_or(
        "the payout",
        BLOCKS,
        || (total_sat(&friend) > 0).then_some(()),
        || picture(&[&provider, &buyer]),
    );
    assert_eq!(total_sat(&provider), 0);
    let paid = history(&buyer).into_iter().find(|tx| tx.what == "fund").unwrap();
    let trades: Vec<capex::api::types::Trade> = buyer.get("/trades");
    assert_eq!(paid.trade_id.as_deref(), Some(trades[0].trade_id.as_str()));
    let price_sat = trades[0].price_sat;
    assert!((1..price_sat).contains(&total_sat(&friend)), "the price less the claim's fee");
    until("an end of the buyer's pending coins", BLOCKS, || {
        (balance(&buyer).pending_sat == 0).then_some(())
    });
}

/// The account of the first test vector of BIP-84, as a key of test networks.
const PAYOUTS: &str = "wpkh(tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp/0/*)";

#[test]
fn each_sale_is_paid_out_to_a_fresh_address_of_the_descriptor_that_its_owner_named() {
    let world = World::new();
    let mut provider = world.daemon("provider", 4);
    provider.set("CAPEX_WALLET_PAYOUT", PAYOUTS);
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    fund(&buyer);
    meet(&[&provider, &buyer]);
    sell(&provider, 4);
    let height = world.chain.height();
    for _ in 0..2 {
        let window = soon(&buyer);
        buy(&buyer, 1, window, TimeInForce::Ioc);
        bought(&buyer, window);
        all_settled(&[&provider, &buyer]);
    }
    assert_eq!(total_sat(&provider), 0);
    let own: Vec<_> = payouts(8);
    let paid = until_or(
        "both payouts",
        BLOCKS,
        || {
            Some(world.chain.scripts_after(height))
                .filter(|paid| own.iter().filter(|spk| paid.contains(spk)).count() == 2)
        },
        || picture(&[&provider, &buyer]),
    );
    for spk in &own {
        assert!(paid.iter().filter(|paid| *paid == spk).count() <= 1, "an address was used twice");
    }
}

fn payouts(count: u32) -> Vec<bitcoin::ScriptBuf> {
    use miniscript::{Descriptor, DescriptorPublicKey};
    let descriptor: Descriptor<DescriptorPublicKey> = PAYOUTS.parse().unwrap();
    (0..count).map(|n| descriptor.at_derivation_index(n).unwrap().script_pubkey()).collect()
}
