//! Plays worlds drawn from seeds, and makes a small one of each that breaks a promise.
//!
//! `CAPEX_EXPLORE` says how long: `600s` are seconds, `2000` are seeds, and a name that a
//! failure printed (`17/0,3/2/good`) plays that one. `CAPEX_EXPLORE_FROM` is the first seed.
//! `scripts/explore` sets both and compiles for speed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Plan;

/// Seeds of a normal test run.
const SEEDS: u64 = 60;

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
    failure: Option<u64>,
}

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
    let seconds = asked.strip_suffix('s').and_then(|text| text.parse().ok());
    let until = match seconds {
        Some(seconds) => Until::Time(Duration::from_secs(seconds)),
        None => Until::Seeds(asked.parse().unwrap_or(SEEDS)),
    };
    let from = std::env::var("CAPEX_EXPLORE_FROM").ok().and_then(|text| text.parse().ok());
    let threads = match asked.is_empty() {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let begun = Instant::now();
    let found = explore(from.unwrap_or(0), &until, threads);
    println!("{} seeds in {:.0?}: {:?}", found.seeds, begun.elapsed(), found.ends);
    if let Some(seed) = found.failure {
        panic!("seed {seed}:\n{}", report(Plan::new(seed)));
    }
    for end in ["active", "settled", "aborted", "released", "cancelled", "refunded"] {
        let seen = found.ends.contains_key(end);
        assert!(seen || found.seeds < SEEDS, "no trade of {} seeds is {end}", found.seeds);
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
    assert_eq!(small.tell(), Plan::named(&small.name()).unwrap().tell());
}
