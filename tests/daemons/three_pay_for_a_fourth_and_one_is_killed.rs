//! Three found a pool for a fourth, over five processes, and one of those who pay is killed when
//! the provider has locked: either all of them have paid, or each has its coins back.

use std::time::Duration;

use capex::api::types::{CreatePool, JoinPool, Pool, Trade};

use crate::a_daemon_killed_in_mid_settlement_loses_nothing::assert_nothing_is_locked;
use crate::daemon::{Daemon, until_or};
use crate::market::{
    Coins, SETTLING, all_settled, certificates, fund, meet, picture, provider_and_buyer, sell,
};
use crate::world::World;

const QTY: u32 = 2;
const SLOTS: u16 = 3;
const LIMIT_MSAT: u64 = 900_000;
/// Of 5,400 sat: the creator's pledge, and those of the two others.
const PLEDGES_SAT: [u64; 3] = [2_400, 1_500, 1_500];

fn states(payers: &[&Daemon]) -> Vec<String> {
    let of = |payer: &&Daemon| payer.get::<Vec<Trade>>("/trades");
    payers.iter().flat_map(of).map(|trade| trade.state).collect()
}

/// Founds the pool, which the others join.
fn found(payers: &[&Daemon; 3], holder: &Daemon, all_or_nothing: bool) {
    let [creator, others @ ..] = payers;
    let status = creator.status().unwrap();
    let first = status.first_slot + 8;
    let create = CreatePool {
        holder: holder.key(),
        class: "cpu.standard".to_owned(),
        features: Vec::new(),
        qty: QTY,
        window: [first, first + u32::from(SLOTS)],
        slots: SLOTS,
        limit_msat: LIMIT_MSAT,
        expires_at: status.now_at + 25_000,
        invited: others.iter().map(|other| other.key()).collect(),
        all_or_nothing,
        share_sat: PLEDGES_SAT[0],
        max_fee_sat: None,
    };
    let pool: Pool = creator.client().unwrap().post("/pools", &create).unwrap();
    for (other, share_sat) in others.iter().zip(&PLEDGES_SAT[1..]) {
        let (invitation, share_sat) = (pool.invitation.clone(), *share_sat);
        let join = JoinPool { invitation, share_sat, max_fee_sat: None };
        let _: Pool = other.client().unwrap().post("/pools/join", &join).unwrap();
    }
}

#[test]
fn all_pay_or_each_has_its_coins_back() {
    // Away for less time than its consent lasts, and for more.
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(5));
    for (away, all_or_nothing) in [(short, true), (long, true), (long, false)] {
        let world = World::new();
        let (provider, creator) = provider_and_buyer(&world, QTY);
        let peers = [provider.p2p(), creator.p2p()];
        let peers = peers.each_ref().map(String::as_str);
        let [second, mut victim, holder] = ["second", "third", "holder"].map(|name| {
            let mut daemon = world.daemon(name, 0);
            daemon.start(&peers);
            daemon
        });
        fund(&second);
        fund(&victim);
        meet(&[&provider, &creator, &second, &victim, &holder]);
        let coins = Coins::count(&world, &[&provider, &creator, &second, &victim]);
        sell(&provider, QTY);
        found(&[&creator, &second, &victim], &holder, all_or_nothing);
        let is_locked = || {
            let states = states(&[&victim]);
            let far = ["locked", "funding", "fund_", "preimage_known"];
            let is_far = |state: &String| far.iter().any(|name| state.starts_with(name));
            states.iter().any(is_far).then_some(())
        };
        until_or("a lock", SETTLING, is_locked, || picture(&[&creator, &second, &victim]));
        victim.kill();
        std::thread::sleep(away);
        victim.start(&peers);
        let payers = [&creator, &second, &victim];
        all_settled(&payers);
        all_settled(&[&provider]);
        let states = states(&payers);
        let paid = states.iter().filter(|state| *state == "active").count();
        assert!([0, 3].contains(&paid), "{states:?}");
        let holds = || {
            let held = certificates(&holder).iter().any(|held| held.state == "held");
            (held == (paid == 3)).then_some(())
        };
        until_or("the holder's certificate", SETTLING, holds, || picture(&[&provider, &holder]));
        let all = [&provider, &creator, &second, &victim];
        let fees_sat = coins.assert_only_fees_left(&world, &all);
        assert_nothing_is_locked(&all);
        println!(
            "away {away:?}, all or nothing {all_or_nothing}: {states:?}, {fees_sat} sat of fees"
        );
    }
}
