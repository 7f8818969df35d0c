use super::kit::{COINS_SAT, assert_sound, pair, reach, rest, trades};

#[test]
fn the_coins_come_back_less_two_fees() {
    let mut world = pair(11, 2);
    reach(&mut world, 1, "fund_sent");
    world.crash(0);
    reach(&mut world, 1, "refunded");
    rest(&mut world);
    assert_sound(&world);
    let trade = trades(&world, 1).into_iter().find(|trade| trade.state == "refunded").unwrap();
    let fees_sat = trade.fund.unwrap().fee_sat.unwrap() + trade.refund.unwrap().fee_sat.unwrap();
    assert!((1..2_000).contains(&fees_sat), "{fees_sat}");
    assert_eq!(world.balance(1).unwrap().confirmed_sat, COINS_SAT - fees_sat);
}
