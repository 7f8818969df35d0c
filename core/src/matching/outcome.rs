//! The result of an epoch, and the choice among the starts.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::improve;
use super::instance::{Instance, MatchError};
use super::pass::{self, Allocation, Placement};
use super::ranked::Book;

/// Trades and prices of one epoch, in canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sum over all trades of units × slots × (limit − ask), in msat.
    pub welfare_msat: u128,
    /// The uniform price of each (class, slot) in which something trades, in msat per block.
    pub prices: BTreeMap<(u16, u32), u64>,
    /// Ascending by (class, start, buy, sell).
    pub trades: Vec<Trade>,
}

/// Units that one ask delivers to one bid over a run of slots.
///
/// The derived order is the canonical one, since (class, start, buy, sell) is unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trade {
    /// Resource class.
    pub class: u16,
    /// First slot of the run.
    pub start: u32,
    /// Label of the bid.
    pub buy: String,
    /// Label of the ask.
    pub sell: String,
    /// Length of the run in slots.
    pub hours: u16,
    /// Units.
    pub qty: u32,
    /// Total to pay in msat: units × the sum of the run's slot prices. Authoritative.
    pub msat: u64,
    /// `msat` in whole satoshis, rounded down.
    pub sat: u64,
}

/// Version of the rules: every node of a network runs the one its definition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The best of the greedy starts.
    One,
    /// The best of the greedy starts, then improved within a fixed budget.
    Two,
}

impl TryFrom<u8> for Algorithm {
    type Error = MatchError;

    fn try_from(version: u8) -> Result<Self, MatchError> {
        match version {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(MatchError::Algorithm { version }),
        }
    }
}

/// Matches one book by the rules of `algorithm`.
///
/// Orders that cannot trade are dropped: cancelled by their owner, expired, filled, no
/// deliverable run left in the window, limit 0 or above [`super::PMAX_MSAT`].
/// The starts run in parallel; the largest welfare wins, the lowest start among equals, so
/// the result depends on nothing but the set of orders. Version 2 then looks for a better
/// sequence of insertion, within a budget that the book alone determines.
///
/// # Errors
/// A book that breaks a bound is refused as a whole, see [`MatchError`]; all orders are
/// checked, also those that would be dropped. [`MatchError::Infeasible`] stands for what
/// the price constraints exclude by construction.
pub fn solve(instance: &Instance, algorithm: Algorithm) -> Result<Outcome, MatchError> {
    let book = Book::new(instance)?;
    let Some((mut placement, sequence)) = best_start(&book, instance.starts)? else {
        return Ok(Outcome::default());
    };
    if algorithm == Algorithm::Two {
        let start = (placement.welfare_msat, sequence);
        let better = improve::improve(&book, &instance.beacon, start)?;
        placement = pass::place(&book, &better)?;
    }
    label(&book, placement.settle(&book)?)
}

/// The start with the largest welfare, the first among equals, and its sequence.
fn best_start<'a>(
    book: &'a Book<'a>,
    starts: u8,
) -> Result<Option<(Placement<'a>, Vec<usize>)>, MatchError> {
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    for start in 0..starts {
        let sequence = book.sequence(start);
        // The same order again would bring the same result.
        if !sequences.contains(&sequence) {
            sequences.push(sequence);
        }
    }
    let placements: Vec<Result<Placement<'_>, MatchError>> =
        sequences.par_iter().map(|sequence| pass::place(book, sequence)).collect();
    let mut best: Option<(Placement<'_>, Vec<usize>)> = None;
    for (placement, sequence) in placements.into_iter().zip(sequences) {
        let placement = placement?;
        if best.as_ref().is_none_or(|(best, _)| placement.welfare_msat > best.welfare_msat) {
            best = Some((placement, sequence));
        }
    }
    Ok(best)
}

/// Puts labels back and checks once more that nobody pays or gets less than agreed.
fn label(book: &Book<'_>, allocation: Allocation) -> Result<Outcome, MatchError> {
    let Allocation { welfare_msat, fills, prices } = allocation;
    let mut rows = Vec::with_capacity(fills.len());
    for fill in &fills {
        let class = &book.classes[fill.class];
        let run = prices.range((class.id, fill.start)..(class.id, fill.end));
        let run_msat: u64 = run.map(|(_, price_msat)| price_msat).sum();
        let bid = &book.bids[fill.bid];
        let hours = u64::from(bid.hours);
        for leg in &fill.legs {
            let ask = &class.asks[leg.ask];
            if run_msat > fill.limit_msat * hours || run_msat < ask.limit_msat * hours {
                return Err(MatchError::Infeasible);
            }
            // In the order of labels, without a look at one.
            let place = (class.id, fill.start, bid.id_rank, ask.id_rank);
            rows.push((place, bid, ask, leg.qty, run_msat));
        }
    }
    rows.sort_unstable_by_key(|&(place, ..)| place);
    let trades = rows.into_iter().map(|((class, start, ..), bid, ask, qty, run_msat)| {
        let msat = run_msat * u64::from(qty);
        let (buy, sell) = (bid.id.to_owned(), ask.id.to_owned());
        Trade { class, start, buy, sell, hours: bid.hours as u16, qty, msat, sat: msat / 1000 }
    });
    Ok(Outcome { welfare_msat, prices, trades: trades.collect() })
}
