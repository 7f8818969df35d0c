//! Kills a party at every point of a settlement, restarts it on its directory, and counts.
//!
//! A round is one trade and one kill, of the buyer or the provider, when a state is first
//! seen or after a drawn delay. The victim stays away for a drawn time. Rounds are dealt to
//! lanes, each a market of its own, which run beside each other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use capex::api::types::{Certificate, Side, TimeInForce, Trade};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    Coins, all_settled, buy, cancel, certificates, meet, picture, provider_and_buyer, sell, soon,
};
use crate::world::World;

const ROUNDS: usize = 8;
const LANES: usize = 4;
const SEED: u64 = 2;
/// A match comes within two epochs of a bid, or never.
const MATCHING: Duration = Duration::from_secs(6);
/// Several bids.
const BIDDING: Duration = Duration::from_secs(30);
/// A state that is passed too quickly to be seen does not hold up the round.
const SEEING: Duration = Duration::from_secs(8);
/// The states of the buyer and of the seller, in order.
const BUYER: [&str; 9] = [
    "draft",
    "terms_signed",
    "locked",
    "funding",
    "fund_built",
    "fund_sent",
    "fund_confirmed",
    "preimage_known",
    "active",
];
const SELLER: [&str; 8] = [
    "offered",
    "terms_signed",
    "lock_granted",
    "fund_seen",
    "fund_final",
    "claim_sent",
    "claimed",
    "settled",
];

/// When a party is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// When a state, or a later one, is first seen.
    State(&'static str),
    /// So long after the trade is first seen.
    After(Duration),
}

/// One kill.
#[derive(Debug, Clone, Copy)]
struct Round {
    victim: Side,
    moment: Moment,
    away: Duration,
}

/// SplitMix64: repeats from run to run.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Every state of both sides and as many drawn moments, in a drawn order, repeated.
fn rounds(count: usize, seed: u64) -> Vec<Round> {
    let mut random = seed;
    let states = |victim, names: &[&'static str]| -> Vec<_> {
        names.iter().map(|name| (victim, Moment::State(name))).collect()
    };
    let mut all = Vec::new();
    while all.len() < count {
        let mut points = [states(Side::Buy, &BUYER), states(Side::Sell, &SELLER)].concat();
        for index in 0..points.len() {
            let victim = if index % 2 == 0 { Side::Buy } else { Side::Sell };
            let after = Duration::from_millis(draw(&mut random) % 5000);
            points.push((victim, Moment::After(after)));
        }
        while !points.is_empty() {
            let index = usize::try_from(draw(&mut random) % points.len() as u64).unwrap();
            let (victim, moment) = points.swap_remove(index);
            // Mostly a restart; sometimes longer than the deadlines of the handshake, or
            // than the time in which a funding has to confirm.
            let away_ms = match draw(&mut random) % 4 {
                0 => 4000 + draw(&mut random) % 6000,
                _ => draw(&mut random) % 1000,
            };
            all.push(Round { victim, moment, away: Duration::from_millis(away_ms) });
        }
    }
    all.truncate(count);
    all
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_daemon_killed_in_mid_settlement_loses_nothing() {
    let count = setting("CAPEX_KILL_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    let seed = setting("CAPEX_KILL_SEED").unwrap_or(SEED);
    let rounds = rounds(count, seed);
    let ends = Mutex::new(BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for lane in 0..LANES.min(count) {
            let mine: Vec<Round> = rounds.iter().copied().skip(lane).step_by(LANES).collect();
            let ends = &ends;
            scope.spawn(move || {
                for end in play(lane, &mine) {
                    *ends.lock().unwrap().entry(end).or_default() += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    println!("seed {seed}, {count} kills: {ends:?}");
    assert_eq!(ends.values().sum::<usize>(), count);
}

/// Plays the rounds on one market; how each ended.
fn play(lane: usize, rounds: &[Round]) -> Vec<String> {
    let world = World::new();
    let (mut provider, mut buyer) = provider_and_buyer(&world, 2);
    let coins = Coins::count(&world, &[&provider, &buyer]);
    let ask = sell(&provider, 2);
    let mut ends = Vec::new();
    for round in rounds {
        let begun = Instant::now();
        let end = play_round(&mut provider, &mut buyer, round);
        println!("lane {lane}: {round:?} → {end} after {:?}", begun.elapsed());
        ends.push(end);
    }
    cancel(&provider, &ask);
    coins.assert_only_fees_left(&world, &[&provider, &buyer]);
    assert_no_unit_is_sold_twice(&certificates(&buyer));
    assert_no_unit_is_sold_twice(&certificates(&provider));
    ends
}

fn play_round(provider: &mut Daemon, buyer: &mut Daemon, round: &Round) -> String {
    let known: Vec<Trade> = buyer.get("/trades");
    let victim = |provider: &Daemon, buyer: &Daemon| -> Option<Trade> {
        let daemon = if round.victim == Side::Buy { buyer } else { provider };
        let trades: Vec<Trade> = daemon.try_get("/trades").ok()?;
        let fresh = |trade: &Trade| known.iter().all(|old| old.trade_id != trade.trade_id);
        trades.into_iter().find(fresh)
    };
    // Right after a restart a bid may live in an epoch in which only one side sees both
    // orders, which binds nobody: then it is made again.
    let mut bid_at: Option<Instant> = None;
    let look = || {
        if bid_at.is_none_or(|at| at.elapsed() > MATCHING) {
            buy(buyer, 1, soon(buyer), TimeInForce::Ioc);
            bid_at = Some(Instant::now());
        }
        victim(provider, buyer)
    };
    let id = until_or("match", BIDDING, look, || picture(&[provider, buyer])).trade_id;
    match round.moment {
        Moment::After(delay) => std::thread::sleep(delay),
        Moment::State(state) => {
            let names: &[&str] = if round.victim == Side::Buy { &BUYER } else { &SELLER };
            let place = |state: &str| names.iter().position(|name| *name == state);
            until(state, SEEING, || {
                let seen = victim(provider, buyer)?.state;
                (place(&seen) >= place(state)).then_some(())
            });
        }
    }
    if round.victim == Side::Buy {
        buyer.kill();
        std::thread::sleep(round.away);
        buyer.start(&[]);
    } else {
        provider.kill();
        std::thread::sleep(round.away);
        provider.start(&[]);
    }
    meet(&[provider, buyer]);
    all_settled(&[provider, buyer]);
    end_of(provider, buyer, &id)
}

/// Checks that both sides came to ends that fit.
fn end_of(provider: &Daemon, buyer: &Daemon, id: &str) -> String {
    let (bought, sold) = match (buyer.trade(id), provider.trade(id)) {
        (Some(bought), Some(sold)) => (bought, sold),
        // A row that one side lacks binds nobody.
        (Some(only), None) | (None, Some(only)) => {
            assert!(["aborted", "released"].contains(&only.state.as_str()), "{only:?}");
            assert!(only.settlement.is_none_or(|s| s.fund.is_none() && s.claim.is_none()));
            return "no agreement".to_owned();
        }
        (None, None) => panic!("a trade that was seen is forgotten"),
    };
    let held = certificates(buyer)
        .into_iter()
        .any(|cert| Some(&cert.cert_id) == bought.cert_id.as_ref() && cert.holder == buyer.key());
    let claimed = sold.settlement.as_ref().is_some_and(|s| s.claim.is_some());
    let ends = (bought.state.as_str(), sold.state.as_str());
    match ends {
        ("active", "settled") => assert!(held && claimed, "paid, so the certificate is here"),
        ("refunded" | "cancelled" | "aborted", "released") => {
            assert!(!held && !claimed, "not paid, so nothing is held");
        }
        _ => panic!("ends that do not fit: {bought:?} {sold:?}"),
    }
    format!("{} and {}", ends.0, ends.1)
}

/// No two certificates name the same unit in the same slot.
fn assert_no_unit_is_sold_twice(certificates: &[Certificate]) {
    let sold: Vec<&Certificate> =
        certificates.iter().filter(|certificate| certificate.seq > 0).collect();
    for (index, one) in sold.iter().enumerate() {
        for other in &sold[index + 1..] {
            let in_time = one.window[0] < other.window[1] && other.window[0] < one.window[1];
            let in_units =
                one.units.iter().any(|a| other.units.iter().any(|b| a[0] < b[1] && b[0] < a[1]));
            assert!(!(in_time && in_units), "{one:?}\n{other:?}");
        }
    }
}
