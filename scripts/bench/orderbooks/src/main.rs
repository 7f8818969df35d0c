//! One order flow through the batch matcher and through two continuous order books.
//!
//! Prints a table of orders per second of processor time and of the welfare each reaches, as a share of the
//! most that any matching of these orders could reach.

#[path = "../../../../core/benches/cpu_time/mod.rs"]
mod cpu_time;
#[allow(dead_code, reason = "shared with the benchmarks of the matcher")]
#[path = "../../../../core/benches/instances/mod.rs"]
mod instances;

use std::time::Duration;

use capex_core::matching::{Algorithm, Instance, Side, solve};
use lobster::{OrderBook as Lobster, OrderEvent, OrderType, Side as LobsterSide};
use orderbook_rs::prelude::{Id, OrderBook, Side as RsSide, TimeInForce};
use rayon::{ThreadPool, ThreadPoolBuilder};

const ORDERS: u64 = 100_000;
const SEED: u64 = 1;
/// Runs of each engine; the fastest is reported, the least disturbed by other programs.
const RUNS: usize = 7;
/// Distances between neighbouring prices in msat: 100,000 and 1,000 levels in all.
const GRIDS_MSAT: [u64; 2] = [1_000, 100_000];

/// An order as continuous books see it, in the order of arrival.
struct Flow {
    is_bid: bool,
    price: u64,
    qty: u64,
}

/// Positions of the two orders in the flow, and units.
type Fill = (usize, usize, u64);

fn main() {
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    println!("| price grid | engine | orders/s | welfare |\n|---|---|---|---|");
    for grid_msat in GRIDS_MSAT {
        let book = on_grid(instances::one_slot(ORDERS, SEED), grid_msat);
        let flow: Vec<Flow> = book.orders.iter().map(flow).collect();
        let most = most_welfare(&flow);
        let row = |name: &str, (time, welfare): (Duration, u128)| {
            let orders_s = ORDERS as f64 / time.as_secs_f64();
            let share = welfare as f64 / most as f64;
            println!("| {grid_msat} msat | {name} | {orders_s:.0} | {share:.4} |");
        };
        row("capex, uniform batch", fastest(|| batch(&book, &one_thread)));
        row("orderbook-rs 0.15.3", fastest(|| continuous(&flow, orderbook_rs(&flow))));
        row("lobster 0.7.0", fastest(|| continuous(&flow, lobster(&flow))));
    }
}

fn on_grid(mut book: Instance, grid_msat: u64) -> Instance {
    for order in &mut book.orders {
        match &mut order.side {
            Side::Buy { alts, .. } => alts[0].1 -= alts[0].1 % grid_msat,
            Side::Sell { limit_msat, .. } => *limit_msat -= *limit_msat % grid_msat,
        }
    }
    book
}

fn flow(order: &capex_core::matching::Order) -> Flow {
    let (is_bid, price) = match &order.side {
        Side::Buy { alts, .. } => (true, alts[0].1),
        Side::Sell { limit_msat, .. } => (false, *limit_msat),
    };
    Flow { is_bid, price, qty: order.qty.into() }
}

fn fastest(run: impl Fn() -> (Duration, u128)) -> (Duration, u128) {
    (0..RUNS).map(|_| run()).min().expect("at least one run")
}

/// The dearest bids meet the cheapest asks, unit by unit, as long as that gains anything.
fn most_welfare(flow: &[Flow]) -> u128 {
    let units = |bids: bool| {
        let side = flow.iter().filter(move |order| order.is_bid == bids);
        side.flat_map(|order| (0..order.qty).map(|_| order.price)).collect::<Vec<u64>>()
    };
    let (mut bids, mut asks) = (units(true), units(false));
    bids.sort_unstable_by(|a, b| b.cmp(a));
    asks.sort_unstable();
    bids.iter().zip(&asks).map(|(bid, ask)| u128::from(bid.saturating_sub(*ask))).sum()
}

/// Everything from labelled orders to labelled trades, on one thread.
fn batch(book: &Instance, one_thread: &ThreadPool) -> (Duration, u128) {
    let begin = cpu_time::now();
    let outcome = one_thread.install(|| solve(book, Algorithm::One)).expect("a valid book");
    (cpu_time::now() - begin, outcome.welfare_msat)
}

fn continuous(flow: &[Flow], (time, fills): (Duration, Vec<Fill>)) -> (Duration, u128) {
    let gain =
        |&(a, b, qty): &Fill| u128::from(flow[a].price.abs_diff(flow[b].price)) * u128::from(qty);
    (time, fills.iter().map(gain).sum())
}

fn orderbook_rs(flow: &[Flow]) -> (Duration, Vec<Fill>) {
    let book: OrderBook<()> = OrderBook::new("flow");
    let position = |id: Id| id.as_u64().expect("all ids are numbers") as usize;
    let mut fills = Vec::new();
    let begin = cpu_time::now();
    for (at, order) in (0..).zip(flow) {
        let side = if order.is_bid { RsSide::Buy } else { RsSide::Sell };
        let (id, price) = (Id::sequential(at), u128::from(order.price));
        let (_, trades) = book
            .add_limit_order_with_result(id, price, order.qty, side, TimeInForce::Gtc, None)
            .expect("a valid order");
        for trade in trades.iter().flat_map(|trades| trades.match_result.trades().as_vec()) {
            let maker = position(trade.maker_order_id());
            fills.push((at as usize, maker, trade.quantity().as_u64()));
        }
    }
    (cpu_time::now() - begin, fills)
}

fn lobster(flow: &[Flow]) -> (Duration, Vec<Fill>) {
    let mut book = Lobster::new(flow.len(), 16, false);
    let mut fills = Vec::new();
    let begin = cpu_time::now();
    for (at, order) in flow.iter().enumerate() {
        let side = if order.is_bid { LobsterSide::Bid } else { LobsterSide::Ask };
        let limit = OrderType::Limit { id: at as u128, side, qty: order.qty, price: order.price };
        if let OrderEvent::Filled { fills: new, .. }
        | OrderEvent::PartiallyFilled { fills: new, .. } = book.execute(limit)
        {
            fills.extend(new.iter().map(|fill| (at, fill.order_2 as usize, fill.qty)));
        }
    }
    (cpu_time::now() - begin, fills)
}
