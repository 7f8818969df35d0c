//! The whole way of a trade between two processes, by the command line.

use capex::api::types::{Epoch, EpochCheck, Placed, Trade};

use crate::daemon::{capex, until};
use crate::market::{Coins, SETTLING, all_settled, bought, cancel, provider_and_buyer, soon};
use crate::world::World;

#[test]
fn two_daemons_trade_and_settle() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 4);
    let daemons = [&provider, &buyer];
    let coins = Coins::count(&world, &daemons);

    let ask: Placed = provider.cli_json(&[
        "sell",
        "--class",
        "cpu.standard",
        "--qty",
        "4",
        "--price",
        "500sat",
        "--from",
        "now",
        "--for",
        "400s",
    ]);
    let [start, end] = soon(&buyer);
    let window = format!("{start}..{end}");
    let _: Placed = buyer.cli_json(&[
        "buy",
        "--class",
        "cpu.standard",
        "--qty",
        "2",
        "--max-price",
        "900sat",
        "--window",
        &window,
    ]);

    let certificate = bought(&buyer, [start, end]);
    cancel(&provider, &ask.order_id);
    all_settled(&daemons);
    let bought: Vec<Trade> = buyer.cli_json(&["trade", "list"]);
    let sold: Vec<Trade> = provider.cli_json(&["trade", "list"]);
    let ([bought], [sold]) = (&bought[..], &sold[..]) else {
        panic!("one trade on each side: {bought:?} {sold:?}");
    };
    assert_eq!((bought.state.as_str(), sold.state.as_str()), ("active", "settled"));
    assert_eq!(bought.trade_id, sold.trade_id);
    assert_eq!((bought.buyer.clone(), bought.seller.clone()), (buyer.key(), provider.key()));
    assert_eq!((bought.qty, bought.price_sat), (2, 2000), "two blocks in two slots at 500 sat");
    assert_eq!(certificate.holder, buyer.key());
    assert_eq!(certificate.seq, 1);

    // Both computed the same epoch by themselves.
    let epoch = bought.epoch;
    let [one, other]: [Epoch; 2] = daemons.map(|daemon| daemon.get(&format!("/epochs/{epoch}")));
    assert_eq!((&one.root, &one.result_root), (&other.root, &other.result_root));
    assert_eq!(one.count, 2);
    for daemon in daemons {
        let check: EpochCheck = daemon.cli_json(&["epoch", "verify", &epoch.to_string()]);
        assert!(check.differences.is_empty(), "{check:?}");
        assert_eq!(check.roots_different, 0);
    }

    // Its signed orders prove the epoch without any daemon.
    let file = world.path().join("epoch.txt");
    let (number, path) = (epoch.to_string(), file.to_str().unwrap());
    let (code, _, err) = buyer.cli(&["epoch", "export", &number, "--signed", "--out", path]);
    assert_eq!(code, 0, "{err}");
    for depth in [&[][..], &["--quick"]] {
        let args = [&["epoch", "verify", &number, "--from", path], depth].concat();
        let (code, out, err) = capex(&world.path().join("nowhere"), &args, &[]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&one.result_root) && out.contains("2: all good"), "{out}");
    }

    // The certificate proves itself without any daemon.
    let file = world.path().join("certificate.txt");
    let path = file.to_str().unwrap();
    let (code, _, err) = buyer.cli(&["cert", "export", &certificate.cert_id, "--out", path]);
    assert_eq!(code, 0, "{err}");
    let nowhere = world.path().join("nowhere");
    let (code, out, err) = capex(&nowhere, &["cert", "verify", path], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("signatures: ok") && out.contains(&buyer.key()), "{out}");

    // Nothing was lost but what miners earned, and both sides name the same transactions.
    let fees_sat = coins.assert_only_fees_left(&world, &daemons);
    let bought: Trade = until("claim in a block", SETTLING, || {
        let trade = buyer.trade(&bought.trade_id)?;
        trade.settlement.as_ref()?.claim.as_ref()?.height?;
        Some(trade)
    });
    let sold = provider.trade(&bought.trade_id).unwrap();
    let (paid, claimed) = (bought.settlement.unwrap(), sold.settlement.unwrap());
    assert_eq!(paid.terms_hash, claimed.terms_hash);
    assert_eq!(paid.address, claimed.address);
    let (fund, claim) = (paid.fund.unwrap(), claimed.claim.unwrap());
    assert_eq!(fund.fee_sat.unwrap() + claim.fee_sat.unwrap(), fees_sat);
    assert_eq!(paid.claim.unwrap().txid, claim.txid);
    assert!(paid.refund.is_none() && claimed.refund.is_none());
}
