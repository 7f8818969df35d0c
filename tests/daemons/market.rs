//! What the tests do on a market: fund, sell, buy, wait for the end, count the coins.

use std::time::Duration;

use capex::api::types::{
    Acknowledged, Balance, Certificate, ClassLimit, FundWallet, Funded, Mode, PlaceOrder, Placed,
    Side, TimeInForce, Trade,
};

use crate::daemon::{Daemon, until, until_or};
use crate::world::World;

/// Long enough for an epoch, a settlement and even a refund on a busy machine.
pub(crate) const SETTLING: Duration = Duration::from_secs(60);
/// Coins of every daemon, sat.
const FUNDS_SAT: u64 = 5_000_000;
/// Price of the asks, msat per block.
const ASK_MSAT: u64 = 500_000;
/// Limit of the bids, msat per block.
const BID_MSAT: u64 = 900_000;
/// States in which a settlement stays.
const BUYER_ENDS: [&str; 5] = ["active", "cancelled", "refunded", "aborted", "fund_abandoned"];
const SELLER_ENDS: [&str; 2] = ["settled", "released"];

/// The states of the buyer's side of a trade, in order.
pub(crate) const BUYER_STATES: [&str; 9] = [
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
/// Those of the seller's side.
pub(crate) const SELLER_STATES: [&str; 8] = [
    "offered",
    "terms_signed",
    "lock_granted",
    "fund_seen",
    "fund_final",
    "claim_sent",
    "claimed",
    "settled",
];

/// Coins from the faucet, confirmed.
pub(crate) fn fund(daemon: &Daemon) {
    let body = FundWallet { amount_sat: FUNDS_SAT };
    let _: Funded = daemon.client().unwrap().post("/wallet/fund", &body).unwrap();
    until("coins", Duration::from_secs(20), || {
        (balance(daemon).confirmed_sat >= FUNDS_SAT && balance(daemon).pending_sat == 0)
            .then_some(())
    });
}

pub(crate) fn balance(daemon: &Daemon) -> Balance {
    daemon.get("/wallet")
}

/// All coins of a daemon, sat.
pub(crate) fn total_sat(daemon: &Daemon) -> u64 {
    balance(daemon).confirmed_sat + balance(daemon).pending_sat
}

pub(crate) fn certificates(daemon: &Daemon) -> Vec<Certificate> {
    daemon.get("/certificates")
}

/// A window of two slots, far enough ahead to be bought in any of the next four epochs and
/// behind what was traded before: an ask is cut at the edges of what it sold, and a run has
/// to lie inside one of the parts.
pub(crate) fn soon(daemon: &Daemon) -> [u32; 2] {
    let trades: Vec<Trade> = daemon.get("/trades");
    let traded = trades.iter().map(|trade| trade.window[1]).max().unwrap_or(0);
    let first = traded.max(daemon.status().unwrap().first_slot + 2);
    [first, first + 2]
}

fn place(daemon: &Daemon, order: &PlaceOrder) -> String {
    let placed: Placed = daemon.client().unwrap().post("/orders", order).unwrap();
    placed.order_id
}

fn order_for(side: Side, qty: u32, window: [u32; 2], limit_msat: u64) -> PlaceOrder {
    PlaceOrder {
        side,
        alternatives: vec![ClassLimit { class: "cpu.standard".to_owned(), limit_msat }],
        qty,
        all_spare: false,
        min_qty: 1,
        mode: Mode::Sticky,
        window,
        slots: 0,
        features: vec![],
        allow: vec![],
        deny: vec![],
        min_run: 0,
        time_in_force: TimeInForce::Gtc,
        expires_at: None,
        beneficiary: None,
        use_by: None,
        recall: false,
        max_fee_sat: None,
        max_fee_percent: None,
        cert_id: None,
        workload: None,
    }
}

/// A standing ask for everything that the daemon has in the next slots; its order id.
pub(crate) fn sell(daemon: &Daemon, qty: u32) -> String {
    let now = daemon.status().unwrap().slot;
    let mut ask = order_for(Side::Sell, qty, [now, now + 300], ASK_MSAT);
    ask.min_run = 1;
    place(daemon, &ask)
}

/// A bid for the whole window; its order id.
pub(crate) fn buy(
    daemon: &Daemon,
    qty: u32,
    window: [u32; 2],
    time_in_force: TimeInForce,
) -> String {
    let mut bid = order_for(Side::Buy, qty, window, BID_MSAT);
    bid.slots = u16::try_from(window[1] - window[0]).unwrap();
    bid.time_in_force = time_in_force;
    place(daemon, &bid)
}

pub(crate) fn cancel(daemon: &Daemon, order_id: &str) {
    let path = format!("/orders/{order_id}");
    let _: Acknowledged = daemon.client().unwrap().delete(&path).unwrap();
}

/// Whether a settlement is in a state in which it stays.
pub(crate) fn is_over(trade: &Trade) -> bool {
    let ends: &[&str] = if trade.side == Side::Buy { &BUYER_ENDS } else { &SELLER_ENDS };
    ends.contains(&trade.state.as_str())
}

/// Waits for a certificate that was bought for a window.
pub(crate) fn bought(daemon: &Daemon, window: [u32; 2]) -> Certificate {
    let look = || {
        let mut held = certificates(daemon).into_iter();
        held.find(|cert| cert.state == "held" && cert.window == window)
    };
    until_or("certificate", SETTLING, look, || picture(&[daemon]))
}

/// What daemons say of their market, for a test that fails.
pub(crate) fn picture(daemons: &[&Daemon]) -> String {
    let paths = ["/status", "/peers", "/orders", "/trades", "/book?class=cpu.standard"];
    let say = |daemon: &Daemon, path: &str| match daemon.try_get::<serde_json::Value>(path) {
        Ok(value) => format!("{} {path}: {value}\n", daemon.name),
        Err(failure) => format!("{} {path}: {failure}\n", daemon.name),
    };
    let all = daemons.iter().flat_map(|daemon| paths.map(|path| say(daemon, path)));
    all.collect()
}

/// Waits until no settlement is open.
pub(crate) fn all_settled(daemons: &[&Daemon]) {
    for daemon in daemons {
        until(&format!("end of the trades of {}", daemon.name), SETTLING, || {
            let trades: Vec<Trade> = daemon.try_get("/trades").ok()?;
            trades.iter().all(is_over).then_some(())
        });
    }
}

/// Two started and funded daemons that know each other: a provider and a buyer.
pub(crate) fn provider_and_buyer(world: &World, units: u32) -> (Daemon, Daemon) {
    let mut provider = world.daemon("provider", units);
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    fund(&provider);
    fund(&buyer);
    meet(&[&provider, &buyer]);
    (provider, buyer)
}

/// Waits until every daemon has all the others as peers, and its chain source answers.
pub(crate) fn meet(daemons: &[&Daemon]) {
    for daemon in daemons {
        until(&format!("peers of {}", daemon.name), Duration::from_secs(30), || {
            let status = daemon.status()?;
            let has_all = status.peers as usize + 1 >= daemons.len();
            (has_all && status.chain.up).then_some(())
        });
    }
}

/// Coins before something happens.
pub(crate) struct Coins {
    total_sat: u64,
    height: u32,
}

impl Coins {
    pub(crate) fn count(world: &World, daemons: &[&Daemon]) -> Self {
        // Whatever is in a block by now is in the wallets' balances too.
        let height = world.chain.height();
        Self { total_sat: daemons.iter().map(|daemon| total_sat(daemon)).sum(), height }
    }

    /// Since then, the daemons together lost what miners earned, to the sat. Waits for
    /// what is still to be mined; gives the fees, sat.
    pub(crate) fn assert_only_fees_left(&self, world: &World, daemons: &[&Daemon]) -> u64 {
        let mut last = (0, 0);
        let mut look = || {
            let fees_sat = world.chain.fees_after(self.height);
            let now_sat: u64 = daemons.iter().map(|daemon| total_sat(daemon)).sum();
            last = (now_sat, fees_sat);
            let settled = daemons.iter().all(|daemon| balance(daemon).pending_sat == 0);
            settled && self.total_sat == now_sat + fees_sat
        };
        let begun = std::time::Instant::now();
        while !look() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{} sat before, {} sat and {} sat of fees after",
                self.total_sat,
                last.0,
                last.1
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        last.1
    }
}
