//! A holder sells a part of what it bought to a third node, over three processes; the provider
//! countersigns, and the third node redeems there.

use capex::api::types::{Certificate, Order, Placed, Quote, Redeemed, TimeInForce};
use capex::executor::samples::WORDSUM;

use crate::a_certificate_is_given_and_redeemed::{file, redeem_args};
use crate::daemon::{until, until_or};
use crate::market::{
    SETTLING, all_settled, bought, buy, cancel, certificates, fund, meet, picture,
    provider_and_buyer, sell,
};
use crate::world::World;

#[test]
fn a_part_is_sold_on_and_redeemed_by_its_buyer() {
    let world = World::new();
    let (provider, holder) = provider_and_buyer(&world, 2);
    let mut third = world.daemon("third", 0);
    third.start(&[&provider.p2p(), &holder.p2p()]);
    fund(&third);
    meet(&[&provider, &holder, &third]);
    let offer = sell(&provider, 2);
    // Time for two settlements, one after the other.
    let first = holder.status().unwrap().first_slot + 12;
    let window = [first, first + 2];
    let bid = buy(&holder, 2, window, TimeInForce::Gtc);
    let cert = bought(&holder, window).cert_id;
    cancel(&provider, &offer);
    cancel(&holder, &bid);

    let bid = buy(&third, 1, window, TimeInForce::Gtc);
    let seen = until("a bid for it", SETTLING, || {
        certificates(&holder).into_iter().find(|held| held.best_bid_msat.is_some())
    });
    assert_eq!((seen.cert_id.as_str(), seen.best_bid_msat), (cert.as_str(), Some(900_000)));
    let quoted = ["quote", "sell", "--cert", &cert[..12], "--price", "600sat"];
    let quote: Quote = holder.cli_json(&quoted);
    assert_eq!(quote.qty, 2, "{quote:?}");
    let placed: Placed =
        holder.cli_json(&["sell", "--cert", &cert[..12], "--price", "600sat", "--yes"]);
    let shown: Certificate = holder.get(&format!("/certificates/{cert}"));
    assert_eq!(shown.order_id.as_ref(), Some(&placed.order_id));
    let gift = ["cert", "gift", &cert[..12], "--to", &third.key()];
    assert_eq!(holder.cli_error(&gift), (6, "gift.on_offer".to_owned()));
    let again = ["sell", "--cert", &cert[..12], "--price", "700sat", "--yes"];
    assert_eq!(holder.cli_error(&again), (6, "resale.on_offer".to_owned()));

    let look = || certificates(&third).into_iter().find(|held| held.state == "held");
    let part = until_or("a part", SETTLING, look, || picture(&[&holder, &third]));
    assert_eq!((part.window, part.provider.as_str()), (window, provider.key().as_str()));
    assert_eq!((part.holder, part.seq), (third.key(), 2));
    cancel(&third, &bid);
    // What is left is offered on, once the sale of the part is over.
    let left = until("an order of the rest", SETTLING, || {
        let order: Order = holder.try_get(&format!("/orders/{}", placed.order_id)).ok()?;
        (order.offers.len() == 1).then_some(order)
    });
    assert_eq!((left.state.as_str(), left.filled_qty), ("open", 1));
    cancel(&holder, &placed.order_id);
    all_settled(&[&provider, &holder, &third]);

    let wasm = file(&world, "wordsum.wasm", WORDSUM);
    let input = file(&world, "in.txt", b"1 2 3 40 and 500\n");
    let input = format!("input.txt={}", input.display());
    let args = redeem_args(&part.cert_id, &wasm, &input);
    assert_eq!(holder.cli_error(&args).0, 6, "sold is sold");
    let redeemed: Redeemed = third.cli_json(&args);
    assert_eq!(redeemed.cert_id, part.cert_id);
}
