//! Two parties, a chain and a network in virtual time: every settlement must end with the
//! certificate paid, or with the buyer's coins back, whatever is lost, repeated or restarted.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

#[path = "settlement_world/chain.rs"]
mod chain;
#[path = "settlement_world/conduct.rs"]
mod conduct;
#[path = "settlement_world/deadlines.rs"]
mod deadlines;
#[path = "settlement_world/elsewhere.rs"]
mod elsewhere;
#[path = "settlement_world/exit.rs"]
mod exit;
#[path = "settlement_world/facts.rs"]
mod facts;
#[path = "settlement_world/fees.rs"]
mod fees;
#[path = "settlement_world/pace.rs"]
mod pace;
#[path = "settlement_world/party.rs"]
mod party;
#[path = "settlement_world/proof.rs"]
mod proof;
#[path = "settlement_world/resale.rs"]
mod resale;
#[path = "settlement_world/rules.rs"]
mod rules;
#[path = "settlement_world/setup.rs"]
mod setup;
#[path = "settlement_world/vanish.rs"]
mod vanish;
#[path = "settlement_world/views.rs"]
mod views;

use bitcoin::absolute::LockTime;
use capex_core::certificate::{Hop, verify};
use capex_core::engine::trades::{TradeEvent, TradeView};
use capex_core::ids::Key;
use capex_core::settlement::seller::Goods;
use capex_core::settlement::transaction::SpendKind;
use capex_core::units::Units;

use chain::Chain;
use party::{Message, Party};
use setup::Setup;

/// Step of the virtual clock, ms.
const STEP_MS: u64 = 50;
/// Delay of every message, ms.
const DELAY_MS: u64 = 50;
/// Longest run: past the end of the delivery window.
const RUN_MAX_MS: u64 = 120_000;

/// What goes wrong.
#[derive(Default)]
struct Faults {
    /// Number of the message that is lost, counted over both directions.
    lose: Option<usize>,
    /// Every message arrives twice.
    repeat: bool,
    /// (party, number of its Persist): it crashes right after that write.
    crash: Option<(usize, usize)>,
    /// Seed of random troubles, for their time.
    random: Option<u64>,
}

impl Faults {
    /// A number below `below` of the seeded sequence (SplitMix64); none without a seed.
    fn draw(&mut self, below: u64) -> Option<u64> {
        let seed = self.random.as_mut()?;
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((z ^ (z >> 31)) % below)
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.draw(chances) == Some(0)
    }
}

struct World {
    setup: Setup,
    now_ms: u64,
    chain: Chain,
    parties: Vec<Party>,
    wire: Vec<(u64, usize, usize, Message)>,
    /// Messages that are held back for a test to change.
    catch: Option<fn(&Message) -> bool>,
    caught: Vec<(usize, usize, Message)>,
    messages: usize,
    /// Every message posted: when, by whom, to whom.
    posted: Vec<(u64, usize, usize, Message)>,
    faults: Faults,
    events: Vec<Vec<TradeEvent>>,
    crashes: usize,
    next_block_ms: u64,
}

const BUYER: usize = 0;
const SELLER: usize = 1;
/// Of three parties.
const PROVIDER: usize = 2;

impl World {
    /// A buyer, and a seller that is the provider too.
    fn new(faults: Faults) -> Self {
        Self::with(2, faults)
    }

    /// The provider is another than the seller, who resells what it bought.
    fn of_three(faults: Faults) -> Self {
        Self::with(3, faults)
    }

    fn with(parties: usize, faults: Faults) -> Self {
        let setup = Setup::new();
        let chain = Chain::new(setup.coin());
        let parties: Vec<Party> = (1..=3).take(parties).map(Party::new).collect();
        let now_ms = setup.start_ms;
        let mut world = Self {
            next_block_ms: now_ms + setup.params.chain.block_ms,
            setup,
            now_ms,
            chain,
            parties,
            wire: Vec::new(),
            catch: None,
            caught: Vec::new(),
            messages: 0,
            posted: Vec::new(),
            faults,
            events: vec![Vec::new(); 3],
            crashes: 0,
        };
        world.facts(&[]);
        world
    }

    /// Who keeps the register.
    fn provider(&self) -> usize {
        self.parties.len() - 1
    }

    fn everybody(&self) -> std::ops::Range<usize> {
        0..self.parties.len()
    }

    fn open_sell(&mut self) {
        let keys = [self.parties[BUYER].key(), self.parties[SELLER].key()];
        let resold = (self.provider() != SELLER).then(|| {
            let provider = &mut self.parties[2];
            let title = self.setup.title(provider.keys(), keys[SELLER]);
            provider.registrar.title = verify(&title, &self.setup.params).ok();
            title
        });
        let goods = match resold {
            Some(title) => Goods::Certificate(Box::new(title)),
            None => {
                let features = self.setup.features;
                Goods::Capacity { units: Units::range(4, 6).unwrap(), features }
            }
        };
        self.parties[SELLER].open_sell(&self.setup, self.now_ms, keys[BUYER], goods);
        self.settle(SELLER);
    }

    fn open(mut self) -> Self {
        self.open_sell();
        let [seller, registrar] = [SELLER, self.provider()].map(|who| self.parties[who].key());
        self.parties[BUYER].open_buy(&self.setup, self.now_ms, seller, registrar);
        self.settle(BUYER);
        self
    }

    /// Performs a party's effects, and crashes it where the plan says so.
    fn settle(&mut self, who: usize) {
        for _ in 0..64 {
            let crash_at =
                self.faults.crash.filter(|(party, _)| *party == who).map(|(_, number)| number);
            let party = &mut self.parties[who];
            let crashed = party.pump(&self.setup, &mut self.chain, crash_at);
            if crashed {
                self.faults.crash = None;
                self.crashes += 1;
                // What was on its way to the dead process is lost with its connections.
                self.wire.retain(|(_, _, to, _)| *to != who);
                self.parties[who].restart(&self.setup, self.now_ms);
                continue;
            }
            let told = std::mem::take(&mut party.events);
            self.events[who].extend(told);
            for (to, message) in std::mem::take(&mut self.parties[who].outgoing) {
                // A gossiped lock matters to a seller elsewhere.
                let hears = |other: &usize| match to {
                    Some(key) => self.parties[*other].key() == key,
                    None => *other == SELLER && who != SELLER,
                };
                for to in self.everybody().filter(hears).collect::<Vec<_>>() {
                    self.post(who, to, message.clone());
                }
            }
            if self.parties[who].rescan {
                self.parties[who].rescan = false;
                let facts = self.parties[who].rescan_facts(&self.setup, &self.chain);
                self.parties[who].on_chain(&self.setup, self.now_ms, &facts);
                continue;
            }
            if let Some((terms_hash, funding)) = self.parties[who].funded.pop() {
                self.parties[who].on_funded(&self.setup, self.now_ms, terms_hash, funding);
                continue;
            }
            if self.parties[who].hear_broadcast(&self.setup, self.now_ms) {
                continue;
            }
            if self.parties[who].idle() {
                return;
            }
        }
        panic!("a party never comes to rest");
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        let number = self.messages;
        self.messages += 1;
        self.posted.push((self.now_ms, from, to, message.clone()));
        if self.catch.is_some_and(|is| is(&message)) {
            self.caught.push((from, to, message));
            return;
        }
        if self.faults.lose == Some(number) || self.faults.one_in(6) {
            return;
        }
        let copies = if self.faults.repeat || self.faults.one_in(6) { 2 } else { 1 };
        for copy in 0..copies {
            let at_ms = self.now_ms + DELAY_MS * (copy + 1);
            self.wire.push((at_ms, from, to, message.clone()));
        }
    }

    /// Facts to all parties after blocks left the chain.
    fn facts(&mut self, disconnected: &[bitcoin::Txid]) {
        for who in self.everybody() {
            if self.parties[who].online {
                let facts = self.parties[who].tip_facts(&self.setup, &self.chain, disconnected);
                self.parties[who].on_chain(&self.setup, self.now_ms, &facts);
                self.settle(who);
            }
        }
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        let now_ms = self.now_ms;
        self.chain.median_time_past_s = u32::try_from(now_ms / 1000).unwrap();
        let due: Vec<_> = self.wire.extract_if(.., |(at, ..)| *at <= now_ms).collect();
        for (_, from, to, message) in due {
            if self.parties[to].online {
                let from = self.parties[from].key();
                self.parties[to].receive(&self.setup, now_ms, from, message);
                self.settle(to);
            }
        }
        if now_ms >= self.next_block_ms {
            self.next_block_ms += self.setup.params.chain.block_ms;
            self.chain.mine();
            self.facts(&[]);
        }
        for who in self.everybody() {
            if self.parties[who].online {
                self.parties[who].tick(&self.setup, now_ms);
                self.settle(who);
            }
        }
    }

    /// A step in which parties come, go and crash, the mempool loses transactions, miners
    /// hold claims or fundings back, and blocks leave the chain.
    fn troubled_step(&mut self, patience: u64) {
        for who in self.everybody() {
            if self.faults.one_in(60) {
                self.parties[who].online = false;
            } else if !self.parties[who].online && self.faults.one_in(patience) {
                self.parties[who].online = true;
                self.parties[who].restart(&self.setup, self.now_ms);
                self.settle(who);
            }
            if self.faults.crash.is_none() && self.faults.one_in(30) {
                let next = self.parties[who].persists();
                self.faults.crash = Some((who, next));
            }
        }
        if self.faults.one_in(50) {
            self.chain.hold_claims = !self.chain.hold_claims;
        }
        if self.faults.one_in(80) {
            self.chain.hold_contracts = !self.chain.hold_contracts;
        }
        if self.faults.one_in(100) {
            self.chain.forget_mempool();
        }
        if self.faults.one_in(150) && self.chain.can_disconnect() {
            let lost = self.chain.disconnect(1);
            self.facts(&lost);
        }
        self.step();
    }

    /// Ends the troubles: everybody is there, and everything is mined.
    fn heal(&mut self) {
        (self.faults.random, self.faults.crash) = (None, None);
        (self.chain.hold_claims, self.chain.hold_contracts) = (false, false);
        for who in self.everybody() {
            if !self.parties[who].online {
                self.parties[who].online = true;
                self.parties[who].restart(&self.setup, self.now_ms);
                self.settle(who);
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now_ms + RUN_MAX_MS;
        while !done(self) {
            assert!(self.now_ms < end, "never {what}: {:?} {:?}", self.states(), self.codes());
            self.step();
        }
    }

    fn view(&self, who: usize) -> Option<TradeView> {
        self.parties[who].view(&self.setup)
    }

    fn state(&self, who: usize) -> &'static str {
        self.view(who).map_or("none", |view| view.state)
    }

    fn states(&self) -> [&'static str; 2] {
        [self.state(BUYER), self.state(SELLER)]
    }

    fn codes(&self) -> [Option<String>; 2] {
        [BUYER, SELLER].map(|who| self.view(who).and_then(|view| view.code))
    }

    fn run(&mut self, buyer: &str, seller: &str) {
        self.until(&format!("{buyer} and {seller}"), |world| world.states() == [buyer, seller]);
        self.check_invariants();
    }

    /// Value is conserved, and a certificate moves if and only if it was paid.
    fn check_invariants(&self) {
        let spend = self.chain.contract_spend(&self.parties[BUYER]);
        let bought = self.events[BUYER].iter().any(|e| matches!(e, TradeEvent::Bought { .. }));
        let paid = matches!(spend, Some((_, SpendKind::Claim(_) | SpendKind::Taken)));
        let refunded = matches!(spend, Some((_, SpendKind::Refund)));
        assert!(!(bought && refunded), "the buyer has both certificate and coins");
        if self.state(BUYER) == "active" {
            assert!(paid, "activated without a payment");
        }
        if self.state(SELLER) == "settled" {
            assert!(paid);
        }
    }
}

#[test]
fn a_sale_ends_with_the_certificate_and_the_payment() {
    let mut world = World::new(Faults::default()).open();
    world.run("active", "settled");
    assert_eq!(world.chain.rejected, Vec::<String>::new());
    let bought = world.events[BUYER].iter().find_map(|event| match event {
        TradeEvent::Bought { certificate, .. } => Some(certificate.clone()),
        _ => None,
    });
    let certificate = bought.unwrap();
    assert!(matches!(certificate.hops.as_slice(), [Hop::Sale { .. }]));
    assert!(world.events[SELLER].iter().any(|event| matches!(event, TradeEvent::Sold { .. })));
    let (buyer, seller) = (world.view(BUYER).unwrap(), world.view(SELLER).unwrap());
    assert_eq!(buyer.preimage, seller.preimage);
    assert_eq!(buyer.fund.unwrap().txid, seller.fund.unwrap().txid);
    assert!(buyer.claim.unwrap().height > buyer.fund.unwrap().height);
    assert_eq!(world.parties[BUYER].committed_sat(), 0);
    assert_eq!(buyer.proof, None, "nobody defaulted");
}

#[test]
fn any_one_message_may_be_lost() {
    let mut total = usize::MAX;
    let mut lose = 0;
    while lose < total {
        let mut world = World::new(Faults { lose: Some(lose), ..Faults::default() }).open();
        world.run("active", "settled");
        assert!(lose > 0 || world.messages > 8, "a sale takes at least eight messages");
        total = total.min(world.messages - 1);
        lose += 1;
    }
}

#[test]
fn every_message_may_come_twice() {
    let mut world = World::new(Faults { repeat: true, ..Faults::default() }).open();
    world.run("active", "settled");
    assert_eq!(world.parties[SELLER].registrar.locks, 1);
    assert_eq!(world.parties[SELLER].registrar.activations, 1);
}

#[test]
fn a_party_may_crash_after_any_write() {
    for who in [BUYER, SELLER] {
        let mut number = 0;
        loop {
            let faults = Faults { crash: Some((who, number)), ..Faults::default() };
            let mut world = World::new(faults).open();
            world.run("active", "settled");
            if world.crashes == 0 {
                break;
            }
            number += 1;
        }
        assert!(number >= 7, "party {who} writes at least once in each state: {number}");
    }
}

#[test]
fn a_buyer_may_crash_after_any_write_of_a_refund() {
    let mut number = 0;
    loop {
        let faults = Faults { crash: Some((BUYER, number)), ..Faults::default() };
        let mut world = World::new(faults).open();
        world.until("funded", |world| world.state(SELLER) == "fund_seen");
        world.parties[SELLER].online = false;
        world.until("refunded", |world| world.state(BUYER) == "refunded");
        world.check_invariants();
        if world.crashes == 0 {
            break;
        }
        number += 1;
    }
    assert!(number >= 8, "{number}");
}

#[test]
fn a_party_may_crash_after_any_write_of_a_cancelled_funding() {
    for who in [BUYER, SELLER] {
        let mut number = 0;
        loop {
            let faults = Faults { crash: Some((who, number)), ..Faults::default() };
            let mut world = World::new(faults).open();
            world.chain.hold_contracts = true;
            world.run("cancelled", "released");
            assert!(world.chain.contract_spend(&world.parties[BUYER]).is_none());
            if world.crashes == 0 {
                break;
            }
            number += 1;
        }
        assert!(number >= 5, "party {who}: {number}");
    }
}

#[test]
fn a_seller_that_is_late_never_reveals() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    let last_reveal = world.view(BUYER).unwrap().refund_at.unwrap() - 5;
    world.until("past R", |world| world.chain.height() > last_reveal);
    world.parties[SELLER].online = true;
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.settle(SELLER);
    world.until("never", |world| world.state(SELLER) == "never_reveal");
    world.run("refunded", "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("settle.refunded"));
    assert_eq!(world.view(SELLER).unwrap().preimage, None);
    assert_eq!(world.parties[SELLER].registrar.released.len(), 1);
}

#[test]
fn a_seller_back_in_time_still_claims() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    let last_reveal = world.view(BUYER).unwrap().refund_at.unwrap() - 5;
    world.until("near R", |world| world.chain.height() + 3 > last_reveal);
    world.parties[SELLER].online = true;
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.settle(SELLER);
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    let claim = world.view(SELLER).unwrap().claim.unwrap();
    assert_eq!(claim.fee_sat, Some(155), "the first try pays what is asked for");
    world.run("active", "settled");
}

#[test]
fn a_claim_that_loses_its_block_is_sent_again() {
    let mut world = World::new(Faults::default()).open();
    world.until("claimed", |world| world.state(SELLER) == "claimed");
    let lost = world.chain.disconnect(1);
    let claim = world.view(SELLER).unwrap().claim.unwrap().txid;
    assert!(lost.contains(&claim));
    world.chain.forget_mempool();
    world.facts(&lost);
    assert_eq!(world.state(SELLER), "claim_sent");
    world.run("active", "settled");
}

#[test]
fn a_funding_that_loses_its_block_after_the_reveal_goes_out_with_the_claim() {
    let mut world = World::new(Faults::default()).open();
    world.until("claimed", |world| world.state(SELLER) == "claimed");
    let lost = world.chain.disconnect(2);
    assert_eq!(lost.len(), 2, "funding and claim");
    world.chain.forget_mempool();
    world.facts(&lost);
    world.run("active", "settled");
}

/// The preimage is public, so a claim of the old funding would leave the new one to the refund.
#[test]
fn a_claim_follows_its_contract_to_another_funding() {
    let mut world = World::new(Faults::default()).open();
    world.until("claimed", |world| world.state(SELLER) == "claimed");
    let (contract, old) = world.parties[BUYER].contract().unwrap();
    let other = world.setup.pay(&[(contract.spk, contract.amount_sat)], 5_000).tx;
    assert_ne!(other.compute_txid(), old.txid);
    let lost = world.chain.disconnect(2);
    world.chain.forget_mempool();
    world.chain.broadcast(&other).unwrap();
    world.chain.mine();
    world.facts(&lost);
    let waits = |tx: &bitcoin::Transaction| {
        tx.input.iter().any(|input| input.previous_output.txid == other.compute_txid())
    };
    assert!(world.chain.mempool.iter().any(waits), "{:?}", world.chain.rejected);
    world.run("active", "settled");
}

#[test]
fn a_funding_waits_for_coins_until_its_deadline() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("funding", |world| world.state(BUYER) == "funding");
    world.step();
    world.parties[BUYER].is_short = false;
    world.run("active", "settled");

    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("wallet.insufficient_funds"));
}

/// The crash may come after the record and before what follows from it.
#[test]
fn an_end_without_a_sale_is_told_again_after_a_restart() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("an end", |world| world.states() == ["aborted", "released"]);
    for who in [BUYER, SELLER] {
        (world.events[who], world.parties[who].released) = (Vec::new(), Vec::new());
        world.parties[who].restart(&world.setup, world.now_ms);
    }
    world.step();
    for who in [BUYER, SELLER] {
        let told = |event: &TradeEvent| matches!(event, TradeEvent::Void { .. });
        assert!(world.events[who].iter().any(told), "party {who}");
    }
    assert_eq!(world.parties[BUYER].released.len(), 1, "the wallet may not have heard of it");
}

#[test]
fn a_claim_that_waits_pays_more() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_claims = true;
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    let first = world.view(SELLER).unwrap().claim.unwrap().fee_sat.unwrap();
    let sent_at = world.chain.height();
    world.until("later", |world| world.chain.height() >= sent_at + 8);
    let later = world.view(SELLER).unwrap().claim.unwrap().fee_sat.unwrap();
    assert!(later > first * 2, "{first} then {later}");
    assert_eq!(world.chain.rejected, Vec::<String>::new(), "each replacement pays enough");
    world.chain.hold_claims = false;
    world.run("active", "settled");
}

#[test]
fn a_claim_that_never_confirms_leaves_the_refund() {
    let mut world = World::new(Faults::default()).open();
    world.chain.censor_claims = true;
    world.run("refunded", "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("settle.claim_lost"));
    assert_eq!(world.parties[SELLER].registrar.activations, 0);
}

#[test]
fn a_conflicting_lock_stops_the_buyer_before_it_funds() {
    let mut world = World::new(Faults::default()).open();
    world.parties[BUYER].registrar.conflict = true;
    world.run("aborted", "released");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("lock.conflict"));
    assert_eq!(world.codes()[SELLER].as_deref(), Some("trade.cancelled_by_buyer"));
    assert!(world.chain.offered.is_empty());
}

#[test]
fn a_window_too_near_is_refused_by_the_seller() {
    let mut world = World::new(Faults::default());
    world.setup.row.start -= 8;
    let mut world = world.open();
    world.run("aborted", "released");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("terms.window_too_near"));
}

#[test]
fn strangers_and_strange_requests_are_refused() {
    let mut world = World::new(Faults::default()).open();
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    let stranger = Party::new(9).key();
    let refused = world.parties[SELLER].probe(&world.setup, world.now_ms, stranger);
    assert_eq!(refused, ["trade.no_agreement", "trade.not_the_buyer"]);
    world.run("active", "settled");
}

#[test]
fn nothing_is_spent_while_the_chain_source_is_down() {
    let mut world = World::new(Faults::default()).open();
    world.until("locked", |world| world.state(BUYER) == "locked");
    world.parties[BUYER].chain_up = false;
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("fund.late"));
    assert!(world.chain.offered.is_empty());
}

/// The claim is the transfer: a provider that comes back moves the certificate.
#[test]
fn a_provider_back_after_the_claim_activates_by_itself() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("settled", |world| world.state(SELLER) == "settled");
    assert_eq!(world.state(BUYER), "preimage_known");
    world.parties[BUYER].online = false;
    world.parties[PROVIDER].online = true;
    world.parties[PROVIDER].restart(&world.setup, world.now_ms);
    world.settle(PROVIDER);
    world.until("activated", |world| world.parties[PROVIDER].registrar.activations == 1);
    world.heal();
    world.run("active", "settled");
}

/// A clock that jumps ahead stops the claim while it lasts, and decides nothing for good.
#[test]
fn a_clock_that_jumps_past_the_start_costs_no_sale() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    let starts_ms = world.setup.row.window().starts_at_ms(world.setup.params.slot_s);
    world.chain.median_time_past_s = u32::try_from(world.now_ms / 1000).unwrap();
    let party = &mut world.parties[SELLER];
    for _ in 0..3 {
        world.chain.mine();
        let facts = party.tip_facts(&world.setup, &world.chain, &[]);
        party.on_chain(&world.setup, starts_ms, &facts);
    }
    world.settle(SELLER);
    assert_eq!(world.state(SELLER), "fund_final", "neither revealed nor given up");
    world.facts(&[]);
    world.run("active", "settled");
}

#[test]
fn a_funding_that_waits_near_its_last_height_pays_more_within_the_cap() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    let first = world.view(BUYER).unwrap().fund.unwrap();
    let fund = |world: &World| world.view(BUYER).unwrap().fund.unwrap();
    // 154 vB at 70 sat/vB are more than the cap of 10,000 sat.
    world.chain.feerates = vec![(2, 70_000)];
    world.chain.mine();
    world.facts(&[]);
    assert_eq!(fund(&world).txid, first.txid);
    world.chain.feerates = vec![(2, 5_000)];
    world.chain.mine();
    world.facts(&[]);
    let second = fund(&world);
    assert!(second.txid != first.txid && second.fee_sat > first.fee_sat, "{second:?}");
    assert!(world.chain.mempool.iter().any(|tx| tx.compute_txid() == second.txid));
    // The provider still offers the form that it acknowledged.
    let other = |why: &&String| !why.starts_with("insufficient fee: 154");
    assert_eq!(world.chain.rejected.iter().find(other), None);
    world.chain.hold_contracts = false;
    world.run("active", "settled");
    assert_eq!(world.view(SELLER).unwrap().fund.unwrap().txid, second.txid);
}

/// The first form may be mined after all.
#[test]
fn a_funding_and_its_better_form_end_in_one_sale_whichever_is_mined() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    let first = world.chain.mempool.clone();
    world.chain.feerates = vec![(2, 5_000)];
    world.chain.mine();
    world.facts(&[]);
    assert!(world.chain.mempool != first);
    world.chain.mempool = first.clone();
    world.chain.hold_contracts = false;
    world.run("active", "settled");
    assert_eq!(world.view(BUYER).unwrap().fund.unwrap().txid, first[0].compute_txid());
}

#[test]
fn refunds_carry_their_lock_time() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    let (tx, kind) = world.chain.contract_spend(&world.parties[BUYER]).unwrap();
    assert_eq!(kind, SpendKind::Refund);
    let refund_at = world.view(BUYER).unwrap().refund_at.unwrap();
    assert_eq!(tx.lock_time, LockTime::from_height(refund_at).unwrap());
}

/// Random runs: enough to meet every end many times.
const SEEDS: u64 = 150;

#[test]
fn random_troubles_never_cost_anybody() {
    random_troubles(World::new);
}

#[test]
fn random_troubles_of_a_resale_never_cost_anybody() {
    random_troubles(World::of_three);
}

fn random_troubles(of: impl Fn(Faults) -> World) {
    let mut ends = std::collections::BTreeMap::<[&str; 2], usize>::new();
    for seed in 0..SEEDS {
        let faults = Faults { random: Some(seed), ..Faults::default() };
        let mut world = of(faults).open();
        let troubles_end = world.now_ms + 1_000 + seed % 20 * 1_000;
        // In every third run who is gone stays away for long.
        let patience = if seed % 3 == 0 { 400 } else { 20 };
        while world.now_ms < troubles_end {
            world.troubled_step(patience);
        }
        world.heal();
        let done = |world: &World, who| world.view(who).is_none_or(|view| view.done);
        world.until(&format!("done (seed {seed})"), |world| {
            done(world, BUYER) && done(world, SELLER)
        });
        // Both have ended: the chain shows one of the two fair outcomes.
        let spend = world.chain.contract_spend(&world.parties[BUYER]).map(|(_, kind)| kind);
        let states = world.states();
        match spend {
            Some(SpendKind::Claim(_)) => assert_eq!(states, ["active", "settled"], "seed {seed}"),
            Some(SpendKind::Refund) => assert_eq!(states, ["refunded", "released"], "seed {seed}"),
            _ => {
                assert!(matches!(states[BUYER], "aborted" | "cancelled"), "seed {seed} {states:?}");
                assert_eq!(states[SELLER], "released", "seed {seed}");
            }
        }
        for refused in &world.chain.rejected {
            assert!(
                !refused.starts_with("script") && !refused.starts_with("non-final"),
                "{refused}"
            );
        }
        *ends.entry(states).or_default() += 1;
    }
    for end in [["active", "settled"], ["refunded", "released"], ["cancelled", "released"]] {
        assert!(ends.get(&end).is_some_and(|count| *count > 5), "{ends:?}");
    }
}
