//! Kills a party, or both, at every point of a settlement, restarts them on their directories,
//! and counts.
//!
//! A round is one or two trades at once and one kill, when a state is first seen or after a drawn
//! delay. The victim stays away for a drawn time. After each round no sat is missing but the
//! fees, no coin is locked, and no unit is sold twice. Rounds are dealt to lanes, each a market
//! of its own, which run beside each other. `scripts/kill_loop` plays as many as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use capex::api::types::{Acknowledged, Certificate, Coin, Side, TimeInForce, Trade};
use capex::cli::failure::{Exit, Failure};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    BUYER_STATES, Coins, SELLER_STATES, all_settled, balance, buy, cancel, certificates, meet,
    picture, provider_and_buyer, sell, soon,
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
    /// Whose state or delay decides.
    victim: Side,
    /// The other one is killed too, and comes back first or last.
    both: bool,
    moment: Moment,
    away: Duration,
    /// Trades that are under way.
    trades: u32,
}

/// SplitMix64: repeats from run to run.
pub(crate) fn draw(state: &mut u64) -> u64 {
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
        let mut points =
            [states(Side::Buy, &BUYER_STATES), states(Side::Sell, &SELLER_STATES)].concat();
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
            let (both, trades) = (
                draw(&mut random).is_multiple_of(4),
                1 + u32::from(draw(&mut random).is_multiple_of(3)),
            );
            let away = Duration::from_millis(away_ms);
            all.push(Round { victim, both, moment, away, trades });
        }
    }
    all.truncate(count);
    all
}

pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_daemon_killed_in_mid_settlement_loses_nothing() {
    let count = setting("CAPEX_KILL_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    let seed = setting("CAPEX_KILL_SEED").unwrap_or(SEED);
    let core = std::env::var_os("CAPEX_KILL_BITCOIND").map(PathBuf::from);
    let rounds = rounds(count, seed);
    let ends = Mutex::new(BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for lane in 0..LANES.min(count) {
            let mine: Vec<Round> = rounds.iter().copied().skip(lane).step_by(LANES).collect();
            let (ends, core) = (&ends, core.clone());
            scope.spawn(move || {
                for end in play(lane, core, &mine) {
                    *ends.lock().unwrap().entry(end).or_default() += 1;
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    println!("seed {seed}, {count} kills: {ends:?}");
    let trades: usize = rounds.iter().map(|round| round.trades as usize).sum();
    assert!(ends.values().sum::<usize>() >= trades, "each trade came to an end");
}

/// Plays the rounds on one market; how each trade ended.
fn play(lane: usize, core: Option<PathBuf>, rounds: &[Round]) -> Vec<String> {
    let world = core.map_or_else(World::new, World::on_bitcoind);
    let (mut provider, mut buyer) = provider_and_buyer(&world, 2);
    let mut coins = Coins::count(&world, &[&provider, &buyer]);
    let ask = sell(&provider, 2);
    let mut ends = Vec::new();
    for round in rounds {
        let begun = Instant::now();
        let end = play_round(&mut provider, &mut buyer, round);
        let fees_sat = coins.assert_only_fees_left(&world, &[&provider, &buyer]);
        assert_nothing_is_locked(&[&provider, &buyer]);
        for daemon in [&provider, &buyer] {
            assert_no_unit_is_sold_twice(&certificates(daemon));
        }
        coins = Coins::count(&world, &[&provider, &buyer]);
        forgive(&provider, &buyer);
        forgive(&buyer, &provider);
        let took = begun.elapsed();
        println!("lane {lane}: {round:?} → {end:?}, {fees_sat} sat of fees, after {took:?}");
        ends.extend(end);
    }
    cancel(&provider, &ask);
    ends
}

/// A victim that lets trades lapse is left out for a while: the next round is not to wait for that.
pub(crate) fn forgive(daemon: &Daemon, other: &Daemon) {
    let path = format!("/peers/{}/misses", other.key());
    let forgiven: Result<Acknowledged, Failure> = daemon.client().unwrap().delete(&path);
    if let Err(refused) = forgiven {
        assert_eq!(refused.exit, Exit::NotFound, "there was nothing to forgive: {refused}");
    }
}

/// At rest no coin is kept for a funding.
pub(crate) fn assert_nothing_is_locked(daemons: &[&Daemon]) {
    for daemon in daemons {
        let locked = || -> Vec<Coin> {
            let coins: Vec<Coin> = daemon.get("/wallet/coins");
            coins.into_iter().filter(|coin| coin.state == "locked").collect()
        };
        until_or(
            &format!("free coins of {}", daemon.name),
            Duration::from_secs(20),
            || (locked().is_empty() && balance(daemon).reserved_sat == 0).then_some(()),
            || format!("{:?} {:?}", locked(), balance(daemon)),
        );
    }
}

fn play_round(provider: &mut Daemon, buyer: &mut Daemon, round: &Round) -> Vec<String> {
    let ids = matched(provider, buyer, round);
    match round.moment {
        Moment::After(delay) => std::thread::sleep(delay),
        Moment::State(state) => {
            let names: &[&str] =
                if round.victim == Side::Buy { &BUYER_STATES } else { &SELLER_STATES };
            let place = |state: &str| names.iter().position(|name| *name == state);
            let victim = if round.victim == Side::Buy { &*buyer } else { &*provider };
            until(state, SEEING, || {
                let seen = ids.iter().filter_map(|id| victim.trade(id));
                let furthest = seen.map(|trade| place(&trade.state)).max()?;
                (furthest >= place(state)).then_some(())
            });
        }
    }
    let (first, last) = match round.victim {
        Side::Buy => (&mut *buyer, &mut *provider),
        Side::Sell => (&mut *provider, &mut *buyer),
    };
    first.kill();
    if round.both {
        last.kill();
        std::thread::sleep(round.away / 2);
        last.start(&[]);
        std::thread::sleep(round.away / 2);
    } else {
        std::thread::sleep(round.away);
    }
    // After a kill of both, the one that came back has another address.
    let peer = last.p2p();
    first.start(&[&peer]);
    meet(&[provider, buyer]);
    all_settled(&[provider, buyer]);
    ids.iter().map(|id| end_of(provider, buyer, id)).collect()
}

/// Bids until as many trades are under way as the round wants; their ids.
fn matched(provider: &Daemon, buyer: &Daemon, round: &Round) -> BTreeSet<String> {
    let all = |daemon: &Daemon| -> BTreeSet<String> {
        let trades: Vec<Trade> = daemon.try_get("/trades").unwrap_or_default();
        trades.into_iter().map(|trade| trade.trade_id).collect()
    };
    let known = &all(buyer) | &all(provider);
    // Right after a restart a bid may live in an epoch in which only one side sees both
    // orders, which binds nobody: then it is made again.
    let mut bid_at: Option<Instant> = None;
    let wanted = round.trades as usize;
    let look = || {
        let fresh = &(&all(buyer) | &all(provider)) - &known;
        if bid_at.is_none_or(|at| at.elapsed() > MATCHING) {
            let window = soon(buyer);
            for _ in fresh.len()..wanted {
                buy(buyer, 1, window, TimeInForce::Ioc);
            }
            bid_at = Some(Instant::now());
        }
        let victim = all(if round.victim == Side::Buy { buyer } else { provider });
        (fresh.len() >= wanted && !victim.is_disjoint(&fresh)).then_some(fresh)
    };
    until_or("match", BIDDING, look, || picture(&[provider, buyer]))
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
pub(crate) fn assert_no_unit_is_sold_twice(certificates: &[Certificate]) {
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
