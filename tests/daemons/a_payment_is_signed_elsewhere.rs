//! A buyer whose keys are elsewhere: the signer signs, and the trade ends like any other; nobody
//! signs, and the trade ends unpaid with all coins free.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, Network};
use capex::api::types::{PsbtText, SignedPsbt, Status, TimeInForce, Trade, WaitingPsbt};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    Coins, SETTLING, all_settled, balance, bought, buy, fund, meet, picture, sell, soon, total_sat,
};
use crate::world::World;

fn master() -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[0x5e; 32]).unwrap()
}

fn descriptor() -> String {
    let secp = Secp256k1::new();
    let path = DerivationPath::from_str("84h/1h/0h").unwrap();
    let account = Xpub::from_priv(&secp, &master().derive_priv(&secp, &path).unwrap());
    format!("wpkh([{}/{path}]{account}/<0;1>/*)", master().fingerprint(&secp))
}

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

fn waiting(daemon: &Daemon) -> Option<WaitingPsbt> {
    daemon.try_get::<Vec<WaitingPsbt>>("/wallet/psbts").ok()?.into_iter().next()
}

#[test]
fn a_payment_is_signed_elsewhere() {
    let world = World::new();
    let (provider, buyer) = provider_and_watcher(&world);
    let coins = Coins::count(&world, &[&provider, &buyer]);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let found = until_or("a payment to sign", SETTLING, || waiting(&buyer), || picture(&[&buyer]));
    let path = format!("/wallet/psbts/{}", found.txid);
    let text: PsbtText = buyer.get(&path);
    let status: Status = buyer.get("/status");
    let mut psbt = Psbt::deserialize(&BASE64.decode(&text.psbt).unwrap()).unwrap();
    psbt.sign(&master(), &Secp256k1::new()).unwrap();
    let mut wrong = psbt.clone();
    wrong.unsigned_tx.output[0].value -= Amount::from_sat(1);
    let body = |psbt: &Psbt| PsbtText { psbt: BASE64.encode(psbt.serialize()) };
    let client = buyer.client().unwrap();
    let refused = client.post::<_, SignedPsbt>("/wallet/psbts", &body(&wrong)).unwrap_err();
    let taken: SignedPsbt = client.post("/wallet/psbts", &body(&psbt)).unwrap();
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
    let to = ["wallet", "send", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "5000sat"];
    assert_eq!(buyer.cli_error(&to), (6, "wallet.watch_only".to_owned()));
}

#[test]
fn a_payment_that_nobody_signs_ends_its_trade_and_keeps_no_coin() {
    let world = World::new();
    let (provider, buyer) = provider_and_watcher(&world);
    let before_sat = total_sat(&buyer);
    buy(&buyer, 1, soon(&buyer), TimeInForce::Ioc);
    let found = until_or("a payment to sign", SETTLING, || waiting(&buyer), || picture(&[&buyer]));
    let out = world.path().join("fund.psbt");
    let args = ["wallet", "psbt", "export", &found.txid[..12], "--out", out.to_str().unwrap()];
    let (code, _, err) = buyer.cli(&args);
    all_settled(&[&provider, &buyer]);
    let trades: Vec<Trade> = buyer.get("/trades");
    let trade: Trade = buyer.get(&format!("/trades/{}", trades[0].trade_id));
    assert_eq!((trade.state.as_str(), trade.code.as_deref()), ("aborted", Some("wallet.unsigned")));
    until("an end of what waits", Duration::from_secs(10), || {
        waiting(&buyer).is_none().then_some(())
    });
    assert_eq!((balance(&buyer).reserved_sat, total_sat(&buyer)), (0, before_sat));
    // Signed too late, it is nobody's.
    assert_eq!(code, 0, "{err}");
    let mut psbt = Psbt::deserialize(&std::fs::read(&out).unwrap()).unwrap();
    psbt.sign(&master(), &Secp256k1::new()).unwrap();
    std::fs::write(&out, psbt.serialize()).unwrap();
    let import = ["wallet", "psbt", "import", out.to_str().unwrap()];
    assert_eq!(buyer.cli_error(&import), (5, "wallet.psbt_unknown".to_owned()));
}
