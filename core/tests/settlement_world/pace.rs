//! How often anything is said. A peer that does not answer is asked at growing waits, the wallet
//! too, and the chain source is offered a transaction once a tip.

use capex_core::engine::kernel::Timer;
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::trades::TradeRequest;
use capex_core::wire::decode_record;

use super::*;

/// Tries within the time that a step has: the first at once, then after 1, 3, 7 … waits of an
/// eighth of it.
const TRIES: std::ops::RangeInclusive<usize> = 3..=5;

fn kind(message: &Message) -> &'static str {
    let Message::Request { bytes, .. } = message else { return "none" };
    let request = decode_record::<SettleRequest>(bytes).unwrap();
    match request.try_into().unwrap() {
        TradeRequest::Terms(_) | TradeRequest::RecallableTerms(_) => "terms",
        TradeRequest::Accept { .. } => "accept",
        TradeRequest::Fund { .. } => "fund",
        TradeRequest::Transfer(_) => "transfer",
        TradeRequest::Cancel(_) => "cancel",
        TradeRequest::Quittance(_) => "quittance",
        TradeRequest::IsKept(_) => "is_kept",
        TradeRequest::Part { .. } => "part",
        TradeRequest::Parts { .. } => "parts",
    }
}

impl World {
    /// When a party asked another for something, ms.
    fn asked(&self, from: usize, to: usize, what: &str) -> Vec<u64> {
        let posted = self.posted.iter();
        let ours = posted.filter(|(_, f, t, message)| (*f, *t, kind(message)) == (from, to, what));
        ours.map(|(at_ms, ..)| *at_ms).collect()
    }

    fn offered(&self, txid: bitcoin::Txid) -> usize {
        self.chain.offered.iter().filter(|offered| **offered == txid).count()
    }
}

/// A provider that is not there, from the moment when the buyer comes to a state.
fn silent_from(state: &str, end: &str) -> World {
    let mut world = World::of_three(Faults::default());
    if state == "draft" {
        world.parties[PROVIDER].online = false;
    }
    let mut world = world.open();
    world.until(state, |world| world.state(BUYER) == state);
    world.parties[PROVIDER].online = false;
    world.until(end, |world| world.state(BUYER) == end);
    world
}

#[test]
fn a_silent_peer_is_asked_at_growing_waits() {
    let mut world = World::new(Faults::default());
    world.parties[SELLER].online = false;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    let terms = world.asked(BUYER, SELLER, "terms");
    assert!(TRIES.contains(&terms.len()), "{terms:?}");
    assert!(terms.windows(3).all(|at| at[2] - at[1] > at[1] - at[0]), "{terms:?}");
    assert_eq!(world.asked(BUYER, SELLER, "cancel"), [0; 0], "nothing was agreed");

    let world = silent_from("draft", "aborted");
    let accepts = world.asked(BUYER, PROVIDER, "accept");
    assert!(TRIES.contains(&accepts.len()), "{accepts:?}");
    assert_eq!(world.asked(BUYER, PROVIDER, "cancel").len(), 1, "it may hold a lock");

    let world = silent_from("locked", "fund_lapsed");
    for to in [SELLER, PROVIDER] {
        let funds = world.asked(BUYER, to, "fund");
        assert!(TRIES.contains(&funds.len()), "{funds:?}");
    }
}

#[test]
fn a_wallet_without_coins_is_asked_at_growing_waits() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    let asked = &world.parties[BUYER].wallet_asked;
    assert!(TRIES.contains(&asked.len()), "{asked:?}");
}

/// The claim is public: each block gives the provider another chance to have seen it.
#[test]
fn a_silent_provider_is_asked_for_the_activation_at_each_tip() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("claimed", |world| {
        world.view(BUYER).unwrap().claim.is_some_and(|c| c.height.is_some())
    });
    let (since, tip) = (world.now_ms, world.chain.height());
    world.until("later", |world| world.chain.height() == tip + 10);
    let asked = world.asked(BUYER, PROVIDER, "transfer");
    let asked = asked.iter().filter(|at_ms| **at_ms > since).count();
    assert!((10..=16).contains(&asked), "{asked}");
}

/// After a restart a provider has not yet had a chance to answer this life.
#[test]
fn a_buyer_that_was_away_asks_before_it_cries_default() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("known", |world| world.state(BUYER) == "preimage_known");
    world.parties[BUYER].online = false;
    let ends_ms = world.setup.row.window().ends_at_ms(world.setup.params.slot_s);
    world.until("the window is over", |world| world.now_ms > ends_ms);
    let (since, tip) = (world.now_ms, world.chain.height());
    world.heal_only(BUYER);
    world.until("defaulted", |world| world.state(BUYER) == "defaulted");
    let asked = world.asked(BUYER, PROVIDER, "transfer");
    let asked = asked.iter().filter(|at_ms| **at_ms >= since).count();
    let tips = (world.chain.height() - tip) as usize;
    assert_eq!(asked, 5, "in {tips} blocks");
}

#[test]
fn what_waits_is_offered_once_a_tip() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    world.chain.hold_all = true;
    world.until("sent", |world| world.view(BUYER).unwrap().cancel.is_some());
    world.step();
    let cancel = world.view(BUYER).unwrap().cancel.unwrap().txid;
    let (tip, before) = (world.chain.height(), world.offered(cancel));
    world.until("later", |world| world.chain.height() == tip + 4);
    assert_eq!(world.offered(cancel) - before, 4);
    assert_eq!(world.chain.rejected, Vec::<String>::new());
}

#[test]
fn what_follows_from_an_answer_is_done_at_once() {
    let mut world = World::new(Faults::default()).open();
    world.run("active", "settled");
    let reply_to = |what: &str| {
        let first = world.posted.iter().position(|(.., message)| kind(message) == what).unwrap();
        let answers = world.posted[first..].iter();
        let mut answers = answers.filter(|(_, from, _, message)| {
            *from == SELLER && matches!(message, Message::Reply { .. })
        });
        answers.next().unwrap().0 + DELAY_MS
    };
    assert_eq!(world.asked(BUYER, SELLER, "accept")[0], reply_to("terms"));
}

/// A timer wakes a node only where something is asked for again and again.
#[test]
fn only_who_asks_is_woken_to_ask_again() {
    let mut world = World::of_three(Faults::default()).open();
    let asks = ["draft", "terms_signed", "funding", "fund_built", "preimage_known"];
    let mut met = std::collections::BTreeSet::new();
    world.until("bought", |world| {
        let state = world.state(BUYER);
        let retries = |who: usize| world.parties[who].next_timer() == Some(Timer::TradeRetry);
        assert!(!retries(BUYER) || asks.contains(&state), "{state}");
        let seller_asks = world.state(SELLER) == "fund_final";
        assert!(!retries(SELLER) || seller_asks, "{:?}", world.states());
        assert!(!retries(PROVIDER), "{:?}", world.states());
        met.insert(state);
        state == "active"
    });
    assert!(met.contains("locked") && met.contains("fund_confirmed"), "{met:?}");
}
