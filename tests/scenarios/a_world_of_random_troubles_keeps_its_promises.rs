//! Plays worlds drawn from seeds, and makes a small one of each that breaks a promise.
//!
//! `CAPEX_EXPLORE` says how long: `600s` are seconds, `2000` are seeds, `500..900` are these,
//! and a name that a failure printed (`17/0,3/2/good/1`) plays that one. `CAPEX_EXPLORE_FROM` is
//! the first seed. `scripts/explore` sets both and compiles for speed. A seed that does not end
//! is a failure like any other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Plan;

/// Seeds of a normal test run.
const SEEDS: u64 = 60;
/// A line of progress after so many seeds.
const PROGRESS_EVERY: u64 = 100;

/// How long to go on.
enum Until {
    Seeds(u64),
    Time(Duration),
}

/// What all runs came to.
#[derive(Default)]
struct Found {
    seeds: u64,
    ends: BTreeMap<&'static str, u64>,
    /// Most that happened in one.
    happened: u64,
    failure: Option<u64>,
}

#[allow(clippy::print_stdout, reason = "says how far it has come")]
fn explore(from: u64, until: &Until, threads: usize) -> Found {
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let found = Mutex::new(Found::default());
    let is_over = |seed: u64| match until {
        Until::Seeds(count) => seed >= from + count,
        Until::Time(time) => begun.elapsed() >= *time,
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if is_over(seed) || found.lock().unwrap().failure.is_some() {
                return;
            }
            let outcome = Plan::new(seed).run();
            let mut found = found.lock().unwrap();
            found.seeds += 1;
            found.happened = found.happened.max(outcome.happened);
            if found.seeds.is_multiple_of(PROGRESS_EVERY) {
                println!("{} seeds in {:.0?}, up to {seed}", found.seeds, begun.elapsed());
            }
            for (end, count) in outcome.ends {
                *found.ends.entry(end).or_default() += count;
            }
            if !outcome.faults.is_empty() {
                found.failure = Some(found.failure.map_or(seed, |first| first.min(seed)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap()
}

/// The smallest plan that still breaks a promise, for people.
fn report(plan: Plan) -> String {
    let small = plan.shrink();
    let outcome = small.run();
    format!(
        "{}\n{}\n{}play it again: scripts/explore {}",
        outcome.faults.join("\n"),
        outcome.story,
        small.tell(),
        small.name()
    )
}

/// The first seed, and how long to go on.
fn extent(asked: &str, from: u64) -> (u64, Until) {
    if let Some((first, end)) = asked.split_once("..")
        && let (Ok(first), Ok(end)) = (first.parse::<u64>(), end.parse::<u64>())
    {
        return (first, Until::Seeds(end.saturating_sub(first)));
    }
    let seconds = asked.strip_suffix('s').and_then(|text| text.parse().ok());
    match seconds {
        Some(seconds) => (from, Until::Time(Duration::from_secs(seconds))),
        None => (from, Until::Seeds(asked.parse().unwrap_or(SEEDS))),
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "says how far it came")]
fn whatever_the_seed() {
    let asked = std::env::var("CAPEX_EXPLORE").unwrap_or_default();
    if asked.contains('/') {
        let plan = Plan::named(&asked).expect("a name that a failure printed");
        let outcome = plan.run();
        println!("{}{}", plan.tell(), outcome.story);
        assert!(outcome.faults.is_empty(), "{}", outcome.faults.join("\n"));
        return;
    }
    let from = std::env::var("CAPEX_EXPLORE_FROM").ok().and_then(|text| text.parse().ok());
    let (from, until) = extent(&asked, from.unwrap_or(0));
    let threads = match asked.is_empty() {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let begun = Instant::now();
    let found = explore(from, &until, threads);
    let (time, most) = (begun.elapsed(), found.happened);
    println!("{} seeds in {time:.0?}, {most} happenings at most: {:?}", found.seeds, found.ends);
    if let Some(seed) = found.failure {
        panic!("seed {seed}:\n{}", report(Plan::new(seed)));
    }
    let trades = ["active", "settled", "aborted", "released", "cancelled", "refunded", "by_key"];
    let certificates = ["cut", "joined", "given", "redeemed", "sold_on"];
    for end in trades.into_iter().chain(certificates) {
        let seen = found.ends.contains_key(end);
        assert!(seen || found.seeds < SEEDS, "nothing of {} seeds is {end}", found.seeds);
    }
}

#[test]
fn a_plan_has_a_name() {
    let plan = Plan::new(9);
    let same = Plan::named(&plan.name()).unwrap();
    assert_eq!(plan.tell(), same.tell());
    let mut small = plan;
    small.orders.truncate(1);
    small.troubles.clear();
    small.moves.truncate(2);
    assert_eq!(small.tell(), Plan::named(&small.name()).unwrap().tell());
}
