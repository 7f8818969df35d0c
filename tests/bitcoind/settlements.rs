//! A trade, and what happens to it when somebody or something does not play along.

use std::time::Duration;

use bitcoin::Transaction;
use capex::api::types::{TimeInForce, Trade};

use crate::daemon::{Daemon, signal, until, until_or};
use crate::market::{
    BUYER_STATES, Coins, SELLER_STATES, SETTLING, buy, certificates, is_over, picture,
    provider_and_buyer, sell, soon,
};
use crate::world::World;

/// A match comes within some epochs of a bid, on a machine that runs other tests.
const MATCHING: Duration = Duration::from_secs(30);
/// All timelocks and their confirmations.
const ENDING: Duration = Duration::from_secs(120);
/// More than it takes to refund, in chain blocks.
const PAST_REFUND: u32 = 40;

/// One bid that met an ask.
struct Deal {
    world: World,
    provider: Daemon,
    buyer: Daemon,
    coins: Coins,
    trade_id: String,
}

impl Deal {
    /// Two daemons on a real chain, and a trade between them that has just begun.
    fn begin(test: &str) -> Option<Self> {
        Some(Self::begin_on(World::new(test)?))
    }

    fn begin_on(world: World) -> Self {
        Self::bid(world, |_| ())
    }

    /// The same, whose funding waits for its first block: none comes from before the bid on. A
    /// state that lasts for a block is easily missed on a busy machine.
    fn begin_held(test: &str) -> Option<(Self, Transaction)> {
        let deal = Self::bid(World::new(test)?, |world| world.miner.pause());
        let address = deal.address();
        let fund = until("funding", SETTLING, || deal.world.chain.waiting_for(&address));
        deal.wait(&deal.buyer, &["fund_sent"]);
        Some((deal, fund))
    }

    fn bid(world: World, before: impl FnOnce(&World)) -> Self {
        let (provider, buyer) = provider_and_buyer(&world, 4);
        let coins = Coins::count(&world, &[&provider, &buyer]);
        sell(&provider, 4);
        before(&world);
        buy(&buyer, 4, soon(&buyer), TimeInForce::Ioc);
        let look = || buyer.try_get::<Vec<Trade>>("/trades").ok()?.pop();
        let trade = until_or("match", MATCHING, look, || picture(&[&provider, &buyer]));
        Self { world, coins, trade_id: trade.trade_id, provider, buyer }
    }

    /// Waits until a side is in one of some states.
    fn wait(&self, daemon: &Daemon, states: &[&str]) -> Trade {
        let look =
            || daemon.trade(&self.trade_id).filter(|trade| states.contains(&trade.state.as_str()));
        let what = format!("{states:?} of {}", daemon.name);
        until_or(&what, SETTLING, look, || picture(&[&self.provider, &self.buyer]))
    }

    /// Address of the contract, once its terms are signed.
    fn address(&self) -> String {
        until("terms", SETTLING, || Some(self.buyer.trade(&self.trade_id)?.settlement?.address))
    }

    /// Waits for the ends of both sides; the states in which they are.
    fn ends(&self) -> [String; 2] {
        [&self.buyer, &self.provider].map(|daemon| {
            let look = || daemon.trade(&self.trade_id).filter(is_over);
            let what = format!("end of the trade at {}", daemon.name);
            until_or(&what, ENDING, look, || picture(&[&self.provider, &self.buyer])).state
        })
    }

    /// Whatever they are, they fit: paid and delivered, or neither.
    fn assert_ends_fit(&self) {
        let [bought, sold] = self.ends();
        let unpaid = ["refunded", "cancelled", "aborted"].contains(&bought.as_str());
        let fit = (bought == "active" && sold == "settled") || (unpaid && sold == "released");
        assert!(fit, "{bought} and {sold}: {}", picture(&[&self.provider, &self.buyer]));
        self.assert_ends([&bought, &sold]);
    }

    fn assert_ends(&self, expected: [&str; 2]) {
        let ends = self.ends();
        assert_eq!(ends, expected, "{}", picture(&[&self.provider, &self.buyer]));
        let holds = certificates(&self.buyer).iter().any(|cert| cert.holder == self.buyer.key());
        assert_eq!(holds, expected[0] == "active", "paid and held, or neither");
        let daemons = [&self.provider, &self.buyer];
        self.coins.assert_only_fees_left(&self.world, &daemons);
        for daemon in daemons {
            until("coins that are free again", Duration::from_secs(20), || {
                (crate::market::balance(daemon).reserved_sat == 0).then_some(())
            });
        }
    }
}

#[test]
fn a_trade_settles() {
    let Some(deal) = Deal::begin("a_trade_settles") else { return };
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_trade_ends_by_the_buyers_key() {
    let Some(deal) = Deal::begin("a_trade_ends_by_the_buyers_key") else { return };
    deal.assert_ends(["active", "settled"]);
    let [bought, sold] = [&deal.buyer, &deal.provider]
        .map(|daemon| daemon.trade(&deal.trade_id).unwrap().settlement.unwrap());
    assert!(bought.by_key && sold.by_key, "{sold:?}");
    let (seen, spent) = (bought.claim.unwrap(), sold.claim.unwrap());
    assert_eq!((&seen.txid, spent.vsize), (&spent.txid, 111));
}

#[test]
fn a_seller_that_falls_silent_at_the_lock_costs_the_buyer_a_fee_at_most() {
    let Some(deal) = Deal::begin("a_seller_that_falls_silent_at_the_lock") else { return };
    deal.wait(&deal.provider, &["lock_granted"]);
    signal(deal.provider.pid(), "STOP");
    let look = || deal.buyer.trade(&deal.trade_id).filter(is_over);
    let end = until_or("end of the buyer", ENDING, look, || picture(&[&deal.buyer]));
    signal(deal.provider.pid(), "CONT");
    assert!(["cancelled", "aborted"].contains(&end.state.as_str()), "{end:?}");
    deal.assert_ends([&end.state, "released"]);
}

#[test]
fn a_seller_that_dies_after_the_funding_costs_the_buyer_a_wait() {
    let Some((mut deal, _)) = Deal::begin_held("a_seller_that_dies_after_the_funding") else {
        return;
    };
    deal.provider.kill();
    deal.world.miner.resume();
    let look = || deal.buyer.trade(&deal.trade_id).filter(is_over);
    let end = until_or("end of the buyer", ENDING, look, || picture(&[&deal.buyer]));
    assert_eq!(end.state, "refunded");
    deal.provider.start(&[]);
    deal.assert_ends(["refunded", "released"]);
}

#[test]
fn a_funding_that_nobody_mines_is_replaced() {
    let Some((deal, fund)) = Deal::begin_held("a_funding_that_nobody_mines") else { return };
    deal.world.chain.spurn(fund.compute_txid());
    deal.world.miner.resume();
    deal.assert_ends(["cancelled", "released"]);
}

#[test]
fn a_reorganisation_under_funding_and_claim_changes_no_end() {
    let Some(deal) = Deal::begin("a_reorganisation_under_funding_and_claim") else { return };
    let height = until("claim in a block", SETTLING, || {
        let settlement = deal.provider.trade(&deal.trade_id)?.settlement?;
        settlement.claim?.height?;
        settlement.fund?.height
    });
    deal.world.miner.pause();
    deal.world.chain.invalidate(height);
    deal.world.chain.mine_empty(5);
    let look = || {
        let settlement = deal.provider.trade(&deal.trade_id)?.settlement?;
        settlement.fund?.height.is_none().then_some(())
    };
    until_or("funding without a block", SETTLING, look, || picture(&[&deal.provider]));
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn blocks_that_come_at_once_let_the_seller_reveal_nothing_and_the_buyer_refund() {
    let Some((deal, _)) = Deal::begin_held("blocks_that_come_at_once") else { return };
    // Stopped for as long as it takes to mine them: who looks between two of the blocks sees a
    // funding that has just confirmed, and claims it as it should.
    for daemon in [&deal.provider, &deal.buyer] {
        signal(daemon.pid(), "STOP");
    }
    deal.world.chain.mine(PAST_REFUND);
    for daemon in [&deal.provider, &deal.buyer] {
        signal(daemon.pid(), "CONT");
    }
    deal.world.miner.resume();
    deal.assert_ends(["refunded", "released"]);
}

#[test]
fn a_chain_server_that_restarts_with_another_cookie_only_delays_a_trade() {
    let Some((deal, _)) = Deal::begin_held("a_chain_server_that_restarts") else { return };
    let before = std::fs::read(deal.world.chain.cookie()).unwrap();
    deal.world.chain.stop();
    for daemon in [&deal.provider, &deal.buyer] {
        until("word of a silent source", SETTLING, || (!daemon.status()?.chain.up).then_some(()));
    }
    deal.world.chain.start(&[]);
    assert_ne!(std::fs::read(deal.world.chain.cookie()).unwrap(), before);
    // No block came, and yet the source is heard again.
    for daemon in [&deal.provider, &deal.buyer] {
        until("word of a source", SETTLING, || daemon.status()?.chain.up.then_some(()));
    }
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_chain_server_that_hangs_is_noticed_and_only_delays_a_trade() {
    let Some((deal, _)) = Deal::begin_held("a_chain_server_that_hangs") else { return };
    signal(deal.world.chain.pid(), "STOP");
    for daemon in [&deal.provider, &deal.buyer] {
        until("word of a silent source", SETTLING, || (!daemon.status()?.chain.up).then_some(()));
    }
    signal(deal.world.chain.pid(), "CONT");
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_claim_pays_what_the_mempool_asks_for() {
    let Some((deal, _)) = Deal::begin_held("a_claim_pays_what_the_mempool_asks_for") else {
        return;
    };
    deal.world.chain.mine(1);
    // A claim that was sent by now is not taken up again: it pays too little.
    deal.world.chain.stop();
    deal.world.chain.start(&["-minrelaytxfee=0.00004"]);
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
    let claim = deal.provider.trade(&deal.trade_id).unwrap().settlement.unwrap().claim.unwrap();
    assert!(claim.fee_sat.unwrap() >= 4 * claim.vsize, "{claim:?}");
}

#[test]
fn daemons_that_are_killed_and_start_again_finish_their_trade() {
    let Some(mut deal) = Deal::begin("daemons_that_are_killed") else { return };
    deal.wait(&deal.buyer, &["fund_sent", "fund_confirmed", "preimage_known", "active"]);
    deal.buyer.kill();
    deal.buyer.start(&[&deal.provider.p2p()]);
    deal.wait(&deal.provider, &["claim_sent", "claimed", "settled"]);
    deal.provider.kill();
    deal.provider.start(&[]);
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_funding_that_the_mempool_lost_is_sent_again() {
    let Some((deal, fund)) = Deal::begin_held("a_funding_that_the_mempool_lost") else { return };
    let address = deal.address();
    deal.world.chain.stop();
    deal.world.chain.start(&["-persistmempool=0"]);
    deal.world.chain.mine_empty(1);
    let look = || deal.world.chain.waiting_for(&address);
    let again = until_or("funding again", SETTLING, look, || picture(&[&deal.buyer]));
    assert_eq!(again.compute_txid(), fund.compute_txid());
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_reorganisation_under_the_funding_alone_changes_no_end() {
    let Some((deal, _)) = Deal::begin_held("a_reorganisation_under_the_funding") else { return };
    deal.world.chain.mine(1);
    deal.world.chain.invalidate(deal.world.chain.height());
    deal.world.chain.mine_empty(2);
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_buyer_that_dies_after_paying_takes_its_coins_back_when_it_returns() {
    let Some((mut deal, _)) = Deal::begin_held("a_buyer_that_dies_after_paying") else { return };
    deal.provider.kill();
    deal.buyer.kill();
    deal.world.chain.mine(PAST_REFUND);
    deal.world.miner.resume();
    deal.buyer.start(&[]);
    let look = || deal.buyer.trade(&deal.trade_id).filter(is_over);
    until_or("end of the buyer", ENDING, look, || picture(&[&deal.buyer]));
    deal.provider.start(&[&deal.buyer.p2p()]);
    deal.assert_ends(["refunded", "released"]);
}

#[test]
fn a_refund_pays_what_the_mempool_asks_for() {
    let Some((mut deal, _)) = Deal::begin_held("a_refund_pays_what_the_mempool_asks_for") else {
        return;
    };
    deal.provider.kill();
    deal.world.chain.mine(1);
    deal.world.chain.stop();
    deal.world.chain.start(&["-minrelaytxfee=0.00004"]);
    deal.world.miner.resume();
    let look = || deal.buyer.trade(&deal.trade_id).filter(is_over);
    let end = until_or("end of the buyer", ENDING, look, || picture(&[&deal.buyer]));
    assert_eq!(end.state, "refunded");
    let refund = end.settlement.unwrap().refund.unwrap();
    assert!(refund.fee_sat.unwrap() >= 4 * refund.vsize, "{refund:?}");
    deal.provider.start(&[]);
    deal.assert_ends(["refunded", "released"]);
}

#[test]
fn two_trades_of_one_wallet_settle_beside_each_other() {
    let Some(deal) = Deal::begin("two_trades_of_one_wallet") else { return };
    let [_, end] = deal.buyer.trade(&deal.trade_id).unwrap().window;
    let second = [end, end + 2];
    buy(&deal.buyer, 4, second, TimeInForce::Gtc);
    let look = || {
        let trades: Vec<Trade> = deal.buyer.try_get("/trades").ok()?;
        let both = trades.len() == 2 && trades.iter().all(is_over);
        both.then_some(trades)
    };
    let trades = until_or("two ends", ENDING, look, || picture(&[&deal.provider, &deal.buyer]));
    assert!(trades.iter().all(|trade| trade.state == "active"), "{trades:?}");
    deal.assert_ends(["active", "settled"]);
}

/// Kills a side when it is first seen in a state or past it, and starts it again at once.
fn kill_at(test: &str, is_buyer: bool, state: &str) {
    let Some(mut deal) = Deal::begin(test) else { return };
    let states: &[&str] = if is_buyer { &BUYER_STATES } else { &SELLER_STATES };
    let from = states.iter().position(|name| *name == state).unwrap();
    let victim = if is_buyer { &deal.buyer } else { &deal.provider };
    // One that ended otherwise is past it too.
    let ends = ["refunded", "cancelled", "aborted", "released"];
    deal.wait(victim, &[&states[from..], &ends[..]].concat());
    let peer = if is_buyer { deal.provider.p2p() } else { deal.buyer.p2p() };
    let victim = if is_buyer { &mut deal.buyer } else { &mut deal.provider };
    victim.kill();
    victim.start(&[&peer]);
    deal.assert_ends_fit();
}

macro_rules! killed {
    ($($name:ident: $is_buyer:literal, $state:literal;)*) => {
        $(#[test]
        fn $name() {
            kill_at(stringify!($name), $is_buyer, $state);
        })*
    };
}

killed! {
    a_buyer_killed_with_terms_in_hand_loses_nothing: true, "terms_signed";
    a_buyer_killed_at_the_lock_loses_nothing: true, "locked";
    a_buyer_killed_with_a_funding_in_hand_loses_nothing: true, "fund_built";
    a_buyer_killed_after_its_funding_loses_nothing: true, "fund_sent";
    a_buyer_killed_with_the_preimage_loses_nothing: true, "preimage_known";
    a_provider_killed_at_the_lock_loses_nothing: false, "lock_granted";
    a_provider_killed_when_it_sees_the_funding_loses_nothing: false, "fund_seen";
    a_provider_killed_before_its_claim_loses_nothing: false, "fund_final";
    a_provider_killed_after_its_claim_loses_nothing: false, "claim_sent";
    a_provider_killed_when_it_is_paid_loses_nothing: false, "claimed";
}
