//! A buyer whose keys are elsewhere, on a real chain.

use std::time::{Duration, Instant};

use capex::api::types::{TimeInForce, Trade, WaitingPsbt};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    Coins, SETTLING, balance, buy, certificates, fund, is_over, meet, picture, sell, soon,
};
use crate::signer::{bring_back, descriptor, finished, signed, waiting};
use crate::world::World;

/// All timelocks and their confirmations.
const ENDING: Duration = Duration::from_secs(120);
/// Blocks without the payment, until it has to be replaced: fewer than its timelock leaves.
const BLOCKS_MAX: u32 = 3;
/// What a busy node takes to look at one.
const BLOCK_EVERY: Duration = Duration::from_secs(10);
/// Lowest rate of the chain once it has risen, sat/kvB, and as an option of its program.
const RISEN_SAT_KVB: u64 = 3_000;
const RISEN: &str = "-minrelaytxfee=0.00003";

/// A bid that met an ask, and whose payment waits for its signature.
struct Deal {
    world: World,
    provider: Daemon,
    buyer: Daemon,
    coins: Coins,
    trade_id: String,
    fund: WaitingPsbt,
}

impl Deal {
    fn begin(test: &str) -> Option<Self> {
        let world = World::new(test)?;
        let mut provider = world.daemon("provider", 4);
        provider.start(&[]);
        let mut buyer = world.daemon("buyer", 0);
        buyer.set("CAPEX_WALLET_DESCRIPTOR", &descriptor());
        buyer.start(&[&provider.p2p()]);
        fund(&buyer);
        meet(&[&provider, &buyer]);
        let coins = Coins::count(&world, &[&provider, &buyer]);
        sell(&provider, 4);
        buy(&buyer, 4, soon(&buyer), TimeInForce::Ioc);
        let fund = to_sign(&buyer, "fund");
        let trade_id = fund.trade_id.clone().unwrap();
        Some(Self { world, provider, buyer, coins, trade_id, fund })
    }

    fn wait(&self, daemon: &Daemon, states: &[&str]) -> Trade {
        let look =
            || daemon.trade(&self.trade_id).filter(|trade| states.contains(&trade.state.as_str()));
        let what = format!("{states:?} of {}", daemon.name);
        until_or(&what, ENDING, look, || picture(&[&self.provider, &self.buyer]))
    }

    /// What is to be signed once the rate has risen. A payment is looked at with each block, and the
    /// rate is heard with one or behind it: the blocks after the first wait for that.
    fn bump(&self) -> WaitingPsbt {
        let (mut blocks, mut last) = (0, Instant::now());
        let hears = || {
            let chain = self.buyer.status().map(|status| status.chain);
            chain.is_some_and(|chain| chain.up && chain.feerate_sat_kvb == RISEN_SAT_KVB)
        };
        let look = || {
            let is_next = blocks == 0 || last.elapsed() >= BLOCK_EVERY && hears();
            if blocks < BLOCKS_MAX && is_next {
                self.world.chain.mine_empty(1);
                (blocks, last) = (blocks + 1, Instant::now());
            }
            waiting(&self.buyer, "bump")
        };
        until_or("a bump to sign", SETTLING, look, || picture(&[&self.buyer]))
    }

    fn assert_ends(&self, expected: [&str; 2]) {
        let daemons = [&self.buyer, &self.provider];
        for (daemon, state) in daemons.into_iter().zip(expected) {
            assert!(is_over(&self.wait(daemon, &[state])));
        }
        let holds = certificates(&self.buyer).iter().any(|cert| cert.holder == self.buyer.key());
        assert_eq!(holds, expected[0] == "active", "paid and held, or neither");
        self.coins.assert_only_fees_left(&self.world, &daemons);
        until("coins that are free again", Duration::from_secs(20), || {
            (balance(&self.buyer).reserved_sat == 0).then_some(())
        });
    }
}

fn to_sign(buyer: &Daemon, what: &str) -> WaitingPsbt {
    until_or("something to sign", SETTLING, || waiting(buyer, what), || picture(&[buyer]))
}

#[test]
fn a_trade_whose_payment_is_signed_elsewhere_settles() {
    let Some(deal) = Deal::begin("a_trade_whose_payment_is_signed_elsewhere") else { return };
    bring_back(&deal.buyer, &signed(&deal.buyer, &deal.fund.txid));
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_payment_that_its_signer_sends_at_once_settles_too() {
    let Some(deal) = Deal::begin("a_payment_that_its_signer_sends_at_once") else { return };
    deal.world.chain.send(&finished(&signed(&deal.buyer, &deal.fund.txid)));
    deal.assert_ends(["active", "settled"]);
}

#[test]
fn a_payment_that_its_signer_sends_too_late_comes_back() {
    let Some(deal) = Deal::begin("a_payment_that_its_signer_sends_too_late") else { return };
    let psbt = signed(&deal.buyer, &deal.fund.txid);
    deal.wait(&deal.buyer, &["fund_abandoned"]);
    deal.wait(&deal.provider, &["released"]);
    deal.world.chain.send(&finished(&psbt));
    deal.assert_ends(["refunded", "released"]);
}

/// What the mempool asks for rises under a payment that waits: the signer signs a better one. A
/// bid keeps 600 vB at the rate at which it was signed for its funding, so one of 154 vB is
/// bumped to 3 sat/vB, and to 4 no more.
#[test]
fn a_better_fee_is_signed_elsewhere_too() {
    let Some(deal) = Deal::begin("a_better_fee_is_signed_elsewhere") else { return };
    let fund = signed(&deal.buyer, &deal.fund.txid);
    deal.world.miner.pause();
    bring_back(&deal.buyer, &fund);
    deal.wait(&deal.buyer, &["fund_sent"]);
    deal.world.chain.stop();
    deal.world.chain.start(&[RISEN]);
    let bump = deal.bump();
    assert_eq!(bump.trade_id.as_ref(), Some(&deal.trade_id));
    let psbt = signed(&deal.buyer, &bump.txid);
    assert_eq!(
        psbt.unsigned_tx.input[0].previous_output,
        fund.unsigned_tx.input[0].previous_output
    );
    bring_back(&deal.buyer, &psbt);
    deal.world.miner.resume();
    deal.assert_ends(["active", "settled"]);
    let paid = deal.buyer.trade(&deal.trade_id).unwrap().settlement.unwrap().fund.unwrap();
    assert_eq!(paid.txid, bump.txid);
    assert!(paid.fee_sat.unwrap() >= 3 * paid.vsize, "{paid:?}");
}
