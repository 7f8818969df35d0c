//! Every state that a settlement can come to: the machines of buyer, seller and registrar
//! under breadth-first search.
//!
//! The bounds are small, and within them nothing is left to chance. A message that was sent
//! may arrive at any later time, any number of times, or never; the registrar's chain source
//! takes a funding or refuses it, and may not say so; a transaction may reach the mempools at
//! any later time; a block takes any part of what waits, which is what a jump of fees does; each
//! party may stop once between any two steps and come back, or not; a block may be replaced by
//! two others. Every state must keep the rules, and from every state everybody who is there can
//! come to an end without anybody coming back.
//!
//! States that differ only in what nobody acts on any more are one (`quiet.rs`): a message that
//! its receiver has passed, a transaction that can no longer be mined, what a machine that has
//! ended knew of the chain. Nothing else is left out.
//!
//! `CAPEX_STATES=large` searches further than a normal test run.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

#[path = "settlement_states/cast.rs"]
mod cast;
#[path = "settlement_states/index.rs"]
mod index;
#[path = "settlement_states/quiet.rs"]
mod quiet;
#[path = "settlement_states/roles.rs"]
mod roles;
#[path = "settlement_states/world.rs"]
mod world;

use std::time::Instant;

use cast::Trades;
use index::Index;
use world::{Action, Bounds, State, World};

/// One run of the search.
struct Search {
    world: World,
    states: Vec<State>,
    numbers: Index,
    /// How each state was first come to.
    from: Vec<(u32, Action)>,
    /// Steps that need nobody to come back.
    steps: Vec<(u32, u32)>,
}

impl Search {
    fn new(bounds: Bounds) -> Self {
        let mut world = World::new(bounds);
        let first = world.first();
        let mut search = Self {
            world,
            states: Vec::new(),
            numbers: Index::new(),
            from: Vec::new(),
            steps: Vec::new(),
        };
        search.number(first, 0, Action::Begin);
        search
    }

    /// Finds every state, and checks the rules in each.
    fn explore(&mut self) {
        let mut next = 0;
        while let Some(state) = self.states.get(next).copied() {
            let number = u32::try_from(next).unwrap();
            if let Some(rule) = self.world.broken(&state) {
                panic!("{rule}:\n{}", self.way_to(number));
            }
            for (action, after, broken) in self.world.next(&state) {
                let to = self.number(after, number, action);
                if let Some(rule) = broken {
                    panic!("{rule}:\n{}", self.way_to(to));
                }
                if !matches!(action, Action::Return(_)) {
                    self.steps.push((to, number));
                }
            }
            next += 1;
        }
    }

    fn number(&mut self, state: State, from: u32, action: Action) -> u32 {
        let next = u32::try_from(self.states.len()).unwrap();
        let states = &self.states;
        let at = |number: u32| &states[number as usize];
        let is = |number: u32| *at(number) == state;
        let number = self.numbers.number(state.digest(), next, is, |number| at(number).digest());
        if number == next {
            self.states.push(state);
            self.from.push((from, action));
        }
        number
    }

    /// Goes back from every end, and finds a state from which there is no way to any.
    fn stuck(&mut self) -> Option<u32> {
        self.steps.sort_unstable();
        let mut ends = vec![false; self.states.len()];
        let mut queue: Vec<u32> = Vec::new();
        for (number, state) in (0..).zip(&self.states) {
            if self.world.is_end(state) || self.world.finishes(state) {
                ends[number as usize] = true;
                queue.push(number);
            }
        }
        while let Some(to) = queue.pop() {
            let first = self.steps.partition_point(|(other, _)| *other < to);
            let before = self.steps[first..].iter().take_while(|(other, _)| *other == to);
            for (_, from) in before {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    queue.push(*from);
                }
            }
        }
        ends.iter().position(|end| !end).map(|number| u32::try_from(number).unwrap())
    }

    fn way_to(&self, mut number: u32) -> String {
        let mut way = Vec::new();
        loop {
            let (from, action) = self.from[number as usize];
            let state = &self.states[number as usize];
            way.push(format!("{action:?}\n    {}", self.world.tell(state)));
            if number == 0 {
                break;
            }
            number = from;
        }
        way.reverse();
        way.join("\n")
    }
}

#[allow(clippy::print_stdout, reason = "says how many states there are")]
fn check(name: &str, bounds: Bounds) -> usize {
    let begun = Instant::now();
    let mut search = Search::new(bounds);
    search.explore();
    if let Some(stuck) = search.stuck() {
        panic!("{name}: no way to an end:\n{}", search.way_to(stuck));
    }
    let (states, steps) = (search.states.len(), search.steps.len());
    let run = search.world.moves();
    let time = begun.elapsed();
    println!("{name}: {states} states, {steps} steps, {run} moves of machines, {time:.1?}");
    states
}

fn is_large() -> bool {
    std::env::var("CAPEX_STATES").is_ok_and(|size| size == "large")
}

/// One trade: a normal test run affords one stop of any party.
fn alone(is_one_node: bool) -> Bounds {
    let stops_in_all = if is_large() { u8::MAX } else { 1 };
    Bounds {
        trades: Trades::One,
        is_one_node,
        quits: false,
        stops: 1,
        stops_in_all,
        reorganisations: 1,
        is_signed_elsewhere: false,
        is_sent_late: false,
        is_brisk: false,
    }
}

/// The same, of a provider that asks for its buyer's key.
fn quitting() -> Bounds {
    Bounds { quits: true, ..alone(true) }
}

/// Two trades: a normal test run affords no stop and no reorganisation, a large one either.
fn one_after_the_other(is_one_node: bool) -> Vec<Bounds> {
    let bounds = |stops, reorganisations| Bounds {
        trades: Trades::InTurn,
        stops,
        stops_in_all: stops,
        reorganisations,
        is_brisk: true,
        ..alone(is_one_node)
    };
    if is_large() { vec![bounds(0, 1), bounds(1, 0)] } else { vec![bounds(0, 0)] }
}

#[test]
fn a_sale_by_the_provider() {
    assert!(check("one trade, two nodes", alone(true)) > 100_000);
}

#[test]
fn a_resale() {
    assert!(check("one trade, three nodes", alone(false)) > 100_000);
}

/// Without reorganisations, which a normal test run does not afford.
#[test]
fn a_sale_whose_funding_is_signed_elsewhere() {
    let bounds = Bounds { reorganisations: u8::from(is_large()), ..alone(true) };
    let bounds = Bounds { is_signed_elsewhere: true, is_sent_late: true, ..bounds };
    assert!(check("signed elsewhere, two nodes", bounds) > 10_000);
}

/// What is sent when its lock has gone is not taken for a sale: the seller asks the provider first.
#[test]
fn a_resale_whose_funding_is_signed_elsewhere() {
    let bounds = Bounds { reorganisations: u8::from(is_large()), ..alone(false) };
    let bounds = Bounds { is_signed_elsewhere: true, is_sent_late: true, ..bounds };
    assert!(check("signed elsewhere, three nodes", bounds) > 10_000);
}

#[test]
fn a_sale_by_the_provider_that_ends_by_the_buyers_key() {
    assert!(check("one trade, two nodes, by key", quitting()) > 100_000);
}

#[test]
fn two_sales_of_one_certificate() {
    for bounds in one_after_the_other(true) {
        assert!(check("two trades, two nodes", bounds) > 10_000);
    }
}

/// What comes before the wallet is asked is a matter of each: they begin there.
fn together(is_one_node: bool) -> Bounds {
    Bounds { trades: Trades::Together, ..alone(is_one_node) }
}

#[test]
fn two_sales_that_share_a_funding() {
    assert!(check("two trades, one funding, two nodes", together(true)) > 10_000);
}

#[test]
#[ignore = "longer than two sales: docs/testing.md"]
fn two_resales_that_share_a_funding() {
    let bounds = Bounds { is_brisk: !is_large(), ..together(false) };
    assert!(check("two trades, one funding, three nodes", bounds) > 10_000);
}

#[test]
#[ignore = "longer than two sales: docs/testing.md"]
fn two_sales_that_share_a_funding_and_end_by_the_buyers_key() {
    let bounds = Bounds { quits: true, is_brisk: !is_large(), ..together(true) };
    assert!(check("two trades, one funding, by key", bounds) > 10_000);
}

#[test]
#[ignore = "as long as two sales: docs/testing.md"]
fn two_resales_of_one_certificate() {
    for bounds in one_after_the_other(false) {
        assert!(check("two trades, three nodes", bounds) > 10_000);
    }
}
