//! How several funders may share a price.

use capex_core::ids::Key;
use capex_core::params::Params;
use capex_core::settlement::check::shares_add_up;
use capex_core::settlement::objects::Funder;

#[test]
fn shares_make_up_the_price_and_none_is_too_small_to_be_claimed() {
    let params: Params = toml::from_str(include_str!("../../network/definitions/devnet.toml"))
        .expect("the definition is read");
    let least = params.min_trade_sat;
    let table: [(&str, &[u64], u64, bool); 11] = [
        ("nobody", &[], 0, false),
        ("one pays all", &[5 * least], 5 * least, true),
        ("one pays less than the least of several", &[least - 1], least - 1, true),
        ("a sat too little", &[5 * least - 1], 5 * least, false),
        ("a sat too much", &[5 * least + 1], 5 * least, false),
        ("two", &[least, 4 * least], 5 * least, true),
        ("one of two too small", &[least - 1, 4 * least + 1], 5 * least, false),
        ("both too small", &[least - 1, least - 1], 2 * least - 2, false),
        ("eight", &[least; 8], 8 * least, true),
        ("nine", &[least; 9], 9 * least, false),
        ("more than there can be", &[u64::MAX, least], least - 1, false),
    ];
    for (what, amounts, price_sat, expected) in table {
        let funder = |amount_sat: &u64| Funder {
            key: Key([1; 32]),
            refund_xonly: [2; 32],
            amount_sat: *amount_sat,
        };
        let funders: Vec<Funder> = amounts.iter().map(funder).collect();
        assert_eq!(shares_add_up(&params, &funders, price_sat), expected, "{what}");
    }
}
