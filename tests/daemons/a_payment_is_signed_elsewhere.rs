//! A buyer whose keys are elsewhere: the signer signs, and the trade ends like any other; nobody
//! signs, and the trade ends unpaid with all coins free.

use std::time::Duration;

use bitcoin::Amount;
use capex::api::types::{Payment, SignedPsbt, Status, TimeInForce, Trade, WaitingPsbt, WalletTx};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    Coins, SETTLING, all_settled, balance, bought, buy, fund, meet, picture, sell, soon, total_sat,
};
use crate::signer::{body, bring_back, descriptor, finished, signed, signed_in, waiting};
use crate::world::World;

fn provider_and_watcher(world: &World) -> (Daemon, Daemon) {
    let mut provider = world.daemon("provider", 2);
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.set("CAPEX_WALLET_DESCRIPTOR", &descriptor());
    buyer.start(&[&provider.p2p()]);
    fund(&buyer);
    meet(&[&provider, &buyer]);
    sell(&provider, 2);
    (provider, buyer)
}

/// What its signer is to sign, as soon as that waits.
fn to_sign(buyer: &Daemon) -> WaitingPsbt {
    until_or("a payment to sign", SETTLING, || waiting(buyer, "fund"), || picture(&[buyer]))
}

#[test]
fn a_payment_is_signed_elsewhere() {
    let world = World::new();
    let (provider, buyer) = provider_and_watcher(&world);
    let coins = Coins::count(&world, &[&provider, &buyer]);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let found = to_sign(&buyer);
    let status: Status = buyer.get("/status");
    let psbt = signed(&buyer, &found.txid);
    let mut wrong = psbt.clone();
    wrong.unsigned_tx.output[0].value -= Amount::from_sat(1);
    let client = buyer.client().unwrap();
    let refused = client.post::<_, SignedPsbt>("/wallet/psbts", &body(&wrong)).unwrap_err();
    let taken = bring_back(&buyer, &psbt);
    // Said afterwards: the time for a signature is short.
    assert_eq!(refused.code, "wallet.psbt_outputs");
    assert!(status.warnings.iter().any(|warning| warning.code == "wallet.unsigned"), "{status:?}");
    assert_eq!((found.what.as_str(), &found.trade_id), ("fund", &taken.trade_id));
    assert!(found.until.is_some() && taken.trade_id.is_some());

    bought(&buyer, window);
    all_settled(&[&provider, &buyer]);
    let trades: Vec<Trade> = buyer.get("/trades");
    assert_eq!(trades[0].state, "active");
    let fees_sat = coins.assert_only_fees_left(&world, &[&provider, &buyer]);
    assert!(fees_sat > 0 && total_sat(&provider) > 0);
    assert_eq!(balance(&buyer).reserved_sat, 0);
}

#[test]
fn coins_go_out_by_a_signature_made_elsewhere() {
    let world = World::new();
    let (_, owner) = provider_and_watcher(&world);
    let before_sat = total_sat(&owner);
    let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let send = ["wallet", "send", to, "5000sat", "--yes"];
    let dropped: Payment = owner.cli_json(&send);
    assert!(dropped.awaits_signature && !dropped.sent);
    let left: Vec<WaitingPsbt> = owner.cli_json(&["wallet", "psbt", "drop", &dropped.txid]);
    assert_eq!(left, []);
    let asked: Payment = owner.cli_json(&send);
    let found = waiting(&owner, "payment").unwrap();
    assert_eq!(found.txid, asked.txid);
    assert_eq!((found.trade_id, found.until), (None, None));
    let signed = signed(&owner, &asked.txid);
    let taken = bring_back(&owner, &signed);
    assert_eq!((taken.txid, taken.trade_id), (asked.txid.clone(), None));
    until("a chain block with the payment", Duration::from_secs(20), || {
        let history: Vec<WalletTx> = owner.get("/wallet/history");
        history.iter().any(|tx| tx.txid == asked.txid && tx.height.is_some()).then_some(())
    });
    assert_eq!(total_sat(&owner), before_sat - 5_000 - asked.fee_sat);
    assert_eq!(owner.get::<Vec<WaitingPsbt>>("/wallet/psbts"), []);
}

#[test]
fn a_payment_that_nobody_signs_ends_its_trade_and_keeps_no_coin() {
    let world = World::new();
    let (provider, buyer) = provider_and_watcher(&world);
    let before_sat = total_sat(&buyer);
    buy(&buyer, 1, soon(&buyer), TimeInForce::Ioc);
    to_sign(&buyer);
    all_settled(&[&provider, &buyer]);
    assert_eq!(ended(&buyer), ("aborted".to_owned(), Some("wallet.unsigned".to_owned())));
    until("an end of what waits", Duration::from_secs(10), || {
        waiting(&buyer, "fund").is_none().then_some(())
    });
    assert_eq!((balance(&buyer).reserved_sat, total_sat(&buyer)), (0, before_sat));
}

/// State and code of its one trade.
fn ended(daemon: &Daemon) -> (String, Option<String>) {
    let trades: Vec<Trade> = daemon.get("/trades");
    let trade: Trade = daemon.get(&format!("/trades/{}", trades[0].trade_id));
    (trade.state, trade.code)
}

#[test]
fn a_payment_that_its_signer_sends_at_once_is_a_sale() {
    let world = World::new();
    let (provider, buyer) = provider_and_watcher(&world);
    let coins = Coins::count(&world, &[&provider, &buyer]);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let found = to_sign(&buyer);
    world.chain.send(&finished(&signed_in(&world.path().join("fund"), &buyer, &found.txid)));
    bought(&buyer, window);
    all_settled(&[&provider, &buyer]);
    assert_eq!(ended(&buyer), ("active".to_owned(), None));
    coins.assert_only_fees_left(&world, &[&provider, &buyer]);
}

#[test]
fn a_payment_that_its_signer_sends_when_all_is_over_comes_back() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_watcher(&world);
    let coins = Coins::count(&world, &[&provider, &buyer]);
    let before_sat = total_sat(&buyer);
    buy(&buyer, 1, soon(&buyer), TimeInForce::Ioc);
    let found = to_sign(&buyer);
    let file = world.path().join("fund.psbt");
    let psbt = signed_in(&file, &buyer, &found.txid);
    all_settled(&[&provider, &buyer]);
    assert_eq!(ended(&buyer), ("fund_abandoned".to_owned(), Some("wallet.unsigned".to_owned())));
    assert!(waiting(&buyer, "fund").is_none());
    assert_eq!((balance(&buyer).reserved_sat, total_sat(&buyer)), (0, before_sat));
    // Signed too late, it is nobody's.
    let import = ["wallet", "psbt", "import", file.to_str().unwrap()];
    assert_eq!(buyer.cli_error(&import), (5, "wallet.psbt_unknown".to_owned()));

    // It is sent while nobody looks.
    buyer.kill();
    world.chain.send(&finished(&psbt));
    world.wait_blocks(2);
    buyer.start(&[&provider.p2p()]);
    until_or(
        "a refund",
        SETTLING,
        || (ended(&buyer).0 == "refunded").then_some(()),
        || picture(&[&buyer]),
    );
    assert_eq!(total_sat(&provider), 0);
    coins.assert_only_fees_left(&world, &[&provider, &buyer]);
}
