//! Fresh addresses of a descriptor for what sales earn: none is used twice.

use capex::wallet::PayoutDescriptor;

use crate::bench::*;

/// The first test vector of BIP-84, as a key of test networks.
const RECEIVE: &str = "wpkh(tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp/0/*)";

fn set(scripts: &[ScriptBuf]) -> BTreeSet<ScriptBuf> {
    scripts.iter().cloned().collect()
}

#[test]
fn an_address_that_a_sale_was_promised_is_never_handed_out_again() {
    let payout = PayoutDescriptor::parse(RECEIVE, NETWORK).unwrap();
    let mut bench = Bench::with_coins(&[]);
    let none = BTreeSet::new();
    let first = bench.wallet.payout_scripts(&payout, 3, &none, &none).unwrap();
    assert_eq!(set(&first).len(), 3);
    // One was taken by a sale: it is not at hand any more, whatever became of the sale.
    let more = bench.wallet.payout_scripts(&payout, 1, &set(&first[1..]), &none).unwrap();
    assert!(!first.contains(&more[0]));
    // Two wait for a sale, one is promised as the node dies.
    let promised = set(&first[1..2]);
    let mut bench = bench.reopen();
    let again = bench.wallet.payout_scripts(&payout, 3, &none, &promised).unwrap();
    assert_eq!(again[..2], [first[2].clone(), more[0].clone()], "no gap grows by a restart");
    assert!(!again.contains(&first[0]) && !again.contains(&first[1]));
    // The sale has ended, and a life later its address stays used.
    let mut bench = bench.reopen();
    let last = bench.wallet.payout_scripts(&payout, 8, &none, &none).unwrap();
    assert_eq!(set(&last).len(), 8);
    assert!(!last.contains(&first[0]) && !last.contains(&first[1]));
    assert_eq!(last[..3], again[..]);
}

#[test]
fn each_descriptor_has_its_own_addresses() {
    let one = PayoutDescriptor::parse(RECEIVE, NETWORK).unwrap();
    let two = PayoutDescriptor::parse(&RECEIVE.replace("/0/*", "/1/*"), NETWORK).unwrap();
    let mut bench = Bench::with_coins(&[]);
    let none = BTreeSet::new();
    let first = bench.wallet.payout_scripts(&one, 2, &none, &none).unwrap();
    let other = bench.wallet.payout_scripts(&two, 2, &none, &none).unwrap();
    assert!(set(&first).is_disjoint(&set(&other)));
    let mut bench = bench.reopen();
    assert_eq!(bench.wallet.payout_scripts(&one, 2, &none, &none).unwrap(), first);
    assert!(PayoutDescriptor::parse(&RECEIVE.replace("/0/*", "/<0;1>/*"), NETWORK).is_err());
    assert!(PayoutDescriptor::parse(&RECEIVE.replace("/*", ""), NETWORK).is_err());
    assert!(PayoutDescriptor::parse(RECEIVE, Network::Bitcoin).is_err());
}
