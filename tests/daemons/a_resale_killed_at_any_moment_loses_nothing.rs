//! Three processes: a provider, one that bought from it and sells on, and who buys that. One of
//! them is killed at a drawn moment of the resale and comes back on its directory.
//!
//! After each round no sat is missing but the fees, no coin is locked, and what was sold on has one
//! holder. `scripts/kill_loop --resale` plays as many rounds as it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use capex::api::types::{Acknowledged, Placed, TimeInForce, Trade};

use crate::a_daemon_killed_in_mid_settlement_loses_nothing::{
    assert_no_unit_is_sold_twice, assert_nothing_is_locked, draw, forgive, setting,
};
use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    BUYER_STATES, Coins, SELLER_STATES, SETTLING, all_settled, bought, buy, cancel, certificates,
    fund, meet, picture, sell,
};
use crate::world::World;

const ROUNDS: usize = 2;
const SEED: u64 = 4;
const PROVIDER: usize = 0;
const RESELLER: usize = 1;
const BUYER: usize = 2;
/// Slots from now until what is sold on begins: two settlements, one after the other.
const LATER: u32 = 14;

/// One kill.
#[derive(Debug, Clone, Copy)]
struct Round {
    victim: usize,
    /// A state of the victim, or a time from when the buyer has a trade on.
    moment: Result<&'static str, Duration>,
    away: Duration,
}

fn rounds(count: usize, seed: u64) -> Vec<Round> {
    let mut random = seed;
    let mut below = |bound: usize| usize::try_from(draw(&mut random) % bound as u64).unwrap();
    let mut one = |number: usize| {
        let victim = (number + below(2)) % 3;
        let delay = Duration::from_millis(below(4_000) as u64);
        let moment = match victim {
            // It has no trade of its own.
            PROVIDER => Err(delay),
            _ if below(3) == 0 => Err(delay),
            RESELLER => Ok(SELLER_STATES[below(SELLER_STATES.len())]),
            _ => Ok(BUYER_STATES[below(BUYER_STATES.len())]),
        };
        let away_ms = if below(4) == 0 { 4_000 + below(6_000) } else { below(1_000) };
        Round { victim, moment, away: Duration::from_millis(away_ms as u64) }
    };
    (0..count).map(&mut one).collect()
}

#[test]
fn a_resale_killed_at_any_moment_loses_nothing() {
    let count = setting("CAPEX_KILL_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    let seed = setting("CAPEX_KILL_SEED").unwrap_or(SEED);
    let core = std::env::var_os("CAPEX_KILL_BITCOIND").map(PathBuf::from);
    let world = core.map_or_else(World::new, World::on_bitcoind);
    let mut parties = [("provider", 1), ("reseller", 0), ("buyer", 0)]
        .map(|(name, units)| world.daemon(name, units));
    let mut peers: Vec<String> = Vec::new();
    for party in &mut parties {
        party.start(&peers.iter().map(String::as_str).collect::<Vec<_>>());
        peers.push(party.p2p());
        fund(party);
    }
    meet(&parties.each_ref());
    sell(&parties[PROVIDER], 1);
    let mut ends = BTreeMap::<&str, usize>::new();
    for round in rounds(count, seed) {
        let begun = Instant::now();
        let coins = Coins::count(&world, &parties.each_ref());
        let end = play(&mut parties, round);
        let all = parties.each_ref();
        let fees_sat = coins.assert_only_fees_left(&world, &all);
        assert_nothing_is_locked(&all);
        all.iter().for_each(|party| assert_no_unit_is_sold_twice(&certificates(party)));
        for (one, other) in [(BUYER, RESELLER), (BUYER, PROVIDER), (RESELLER, PROVIDER)] {
            forgive(&parties[one], &parties[other]);
            forgive(&parties[other], &parties[one]);
        }
        println!("{round:?} → {end}, {fees_sat} sat of fees, after {:?}", begun.elapsed());
        *ends.entry(end).or_default() += 1;
    }
    println!("seed {seed}, {count} kills: {ends:?}");
}

/// What became of a resale and a kill.
fn play(parties: &mut [Daemon; 3], round: Round) -> &'static str {
    let [provider, reseller, buyer] = &*parties;
    let first = reseller.status().unwrap().first_slot + LATER;
    let window = [first, first + 2];
    let bid = buy(reseller, 1, window, TimeInForce::Gtc);
    let cert = bought(reseller, window).cert_id;
    cancel(reseller, &bid);
    all_settled(&[provider, reseller]);
    let known = trades(buyer);
    let offered: Placed =
        reseller.cli_json(&["sell", "--cert", &cert, "--price", "600sat", "--yes"]);
    let wanted = buy(buyer, 1, window, TimeInForce::Gtc);
    await_moment(parties, &known, round.moment, round.victim);
    let victim = &mut parties[round.victim];
    victim.kill();
    std::thread::sleep(round.away);
    let others: Vec<String> =
        (0..3).filter(|n| *n != round.victim).map(|n| parties[n].p2p()).collect();
    parties[round.victim].start(&others.iter().map(String::as_str).collect::<Vec<_>>());
    meet(&parties.each_ref());
    for (party, order) in [(RESELLER, &offered.order_id), (BUYER, &wanted)] {
        // One that is filled is none to cancel.
        let path = format!("/orders/{order}");
        let _ = parties[party].client().unwrap().delete::<Acknowledged>(&path);
    }
    // What was signed before may still be matched.
    std::thread::sleep(Duration::from_secs(6));
    all_settled(&parties.each_ref());
    let holds = |party: usize| {
        let mut held = certificates(&parties[party]).into_iter();
        held.any(|held| held.cert_id == cert && held.state == "held")
    };
    let one_holds = || match (holds(RESELLER), holds(BUYER)) {
        (true, false) => Some("kept"),
        (false, true) => Some("sold on"),
        (true, true) | (false, false) => None,
    };
    let end = until_or("one holder", SETTLING, one_holds, || picture(&parties.each_ref()));
    let paid = trades(&parties[BUYER])
        .values()
        .any(|trade| trade.cert_id.as_ref() == Some(&cert) && trade.state == "active");
    assert_eq!(paid, end == "sold on", "who pays holds: {}", picture(&parties.each_ref()));
    end
}

fn trades(daemon: &Daemon) -> BTreeMap<String, Trade> {
    let trades: Vec<Trade> = daemon.try_get("/trades").unwrap_or_default();
    trades.into_iter().map(|trade| (trade.trade_id.clone(), trade)).collect()
}

/// Waits until the victim's side of the resale has come to a state, or past it.
fn await_moment(
    parties: &[Daemon; 3],
    known: &BTreeMap<String, Trade>,
    moment: Result<&'static str, Duration>,
    victim: usize,
) {
    let fresh = |party: usize| {
        let of_buyer = trades(&parties[BUYER]).into_keys().filter(|id| !known.contains_key(id));
        of_buyer.filter_map(|id| parties[party].trade(&id)).collect::<Vec<_>>()
    };
    until_or(
        "a trade",
        SETTLING,
        || (!fresh(BUYER).is_empty()).then_some(()),
        || picture(&parties.each_ref()),
    );
    match moment {
        Err(delay) => std::thread::sleep(delay),
        Ok(state) => {
            let names: &[&str] = if victim == BUYER { &BUYER_STATES } else { &SELLER_STATES };
            let place = |state: &str| names.iter().position(|name| *name == state);
            until(state, SETTLING, || {
                let furthest = fresh(victim).iter().filter_map(|trade| place(&trade.state)).max();
                (furthest >= place(state)).then_some(())
            });
        }
    }
}
