//! Why an order matched, or did not: one order of a matched book against all others.
//!
//! [`explain`] reads an [`Instance`] and its published [`Outcome`] and repeats no search. For
//! every order of the other side it names the first [`Constraint`] that kept the two apart,
//! with the value of either side. That is exact for what a greedy pass refuses: units only
//! ever leave a book and promises only ever tighten, so whatever stopped an order in its
//! turn still stops it in the final state.
//!
//! What needs the search, "which limit would have matched", is for [`boundaries`].

mod boundary;
mod pair;
mod paradox;
mod promises;
mod state;

use crate::reason;
use crate::reasons::Reason;
use std::cmp::Reverse;

use thiserror::Error;

pub use boundary::{Boundary, boundaries};

use super::instance::{Instance, MatchError, Order, Side};
use super::outcome::{Outcome, Trade};
use state::State;

/// Most accepted trades that one finding blames: a chain of coupled prices can name many.
pub const BLAMED_MAX: usize = 4;

/// What two orders must satisfy to trade, in the order in which it is tried.
///
/// The first eight read the two orders alone, [`Constraint::Limit`] their prices, the rest
/// what the other trades of the epoch left. A pair counts as stopped by the first that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// The other order takes part: not cancelled, expired, filled or past.
    Live,
    /// The ask's class is one of the bid's alternatives.
    Class,
    /// The windows share as many deliverable slots as the bid's run needs.
    Window,
    SelfTrade,
    /// The ask offers every feature that the bid requires.
    Features,
    /// The bid's run is at least the shortest that the ask accepts.
    MinRun,
    /// Each is on the other's list of allowed counterparties, if there is one.
    Allow,
    /// Neither is on the other's list of denied counterparties.
    Deny,
    /// The bid's limit for the class reaches the ask's.
    Limit,
    /// The bid still wants units of this run: it is neither full nor, as a gang, served.
    Filled,
    /// The ask alone has the minimum fill of a bid that wants all units from one ask.
    Gang,
    /// All asks that pass so far have the bid's minimum fill together. For an ask that is
    /// explained: the ask itself, since which others would have joined is the search's choice.
    MinFill,
    /// The run's price can lie between both limits without breaking what was promised to the
    /// parties of accepted trades: a bid may be cheaper than a seller was promised, an ask
    /// dearer than a buyer was.
    Promised,
    /// Units are left by better orders, enough for the minimum fill.
    Taken,
    /// The bid may take one more ask, or as few as it may have its minimum fill.
    Legs,
    /// Nothing stands against it and the search still chose otherwise. Never the verdict on
    /// a plain greedy result.
    Chosen,
}

impl Constraint {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 16] = [
        Self::Live,
        Self::Class,
        Self::Window,
        Self::SelfTrade,
        Self::Features,
        Self::MinRun,
        Self::Allow,
        Self::Deny,
        Self::Limit,
        Self::Filled,
        Self::Gang,
        Self::MinFill,
        Self::Promised,
        Self::Taken,
        Self::Legs,
        Self::Chosen,
    ];

    /// The stable reason code of its failure.
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub fn reason(self) -> Reason {
        match self {
            Self::Live => reason!("explain.not_live"),
            Self::Class => reason!("explain.class"),
            Self::Window => reason!("explain.window"),
            Self::SelfTrade => reason!("explain.self_trade"),
            Self::Features => reason!("explain.features"),
            Self::MinRun => reason!("explain.min_run"),
            Self::Allow => reason!("explain.allow"),
            Self::Deny => reason!("explain.deny"),
            Self::Limit => reason!("explain.limit"),
            Self::Filled => reason!("explain.filled"),
            Self::Gang => reason!("explain.gang"),
            Self::MinFill => reason!("explain.min_fill"),
            Self::Promised => reason!("explain.promised_price"),
            Self::Taken => reason!("explain.taken"),
            Self::Legs => reason!("explain.max_legs"),
            Self::Chosen => reason!("explain.not_chosen"),
        }
    }

    /// What is required, in a few words for people.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Live => "takes part",
            Self::Class => "same class",
            Self::Window => "windows share the run",
            Self::SelfTrade => "another owner",
            Self::Features => "features offered",
            Self::MinRun => "run long enough",
            Self::Allow => "on the allow lists",
            Self::Deny => "not on a deny list",
            Self::Limit => "limits cross",
            Self::Filled => "bid wants more",
            Self::Gang => "all units in one ask",
            Self::MinFill => "minimum fill on offer",
            Self::Promised => "within promised prices",
            Self::Taken => "units left by better orders",
            Self::Legs => "in as few asks as a bid may take",
            Self::Chosen => "chosen by the search",
        }
    }
}

/// Why an order takes no part in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    Cancelled,
    /// Its last epoch has passed.
    Expired,
    /// All its units were filled before.
    Filled,
    /// Too few slots of its window can still be delivered.
    Window,
    /// Its limit is 0 or above the highest legal one.
    Limit,
}

impl Dropped {
    /// The stable reason code.
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub fn reason(self) -> Reason {
        match self {
            Self::Cancelled => reason!("explain.cancelled"),
            Self::Expired => reason!("explain.expired"),
            Self::Filled => reason!("explain.filled_before"),
            Self::Window => reason!("explain.window_past"),
            Self::Limit => reason!("order.limit_out_of_range"),
        }
    }

    /// Why an order that is not among the live ones is not.
    fn of(order: &Order, instance: &Instance) -> Self {
        let limit_msat = order.view().best_limit_msat();
        if order.view().is_live(instance.now, instance.epoch) {
            Self::Cancelled
        } else if order.units_left() == 0 {
            Self::Filled
        } else if limit_msat == 0 || limit_msat > super::PMAX_MSAT {
            Self::Limit
        } else if order.expiry_epoch.is_some_and(|last| last < instance.epoch) {
            Self::Expired
        } else {
            Self::Window
        }
    }
}

/// One side's value in a failed comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Live,
    /// Takes no part, and why.
    Dropped(Dropped),
    /// Classes asked for or offered.
    Classes(Vec<u16>),
    /// Deliverable window and the slots of it that are needed in a row.
    Window {
        start: u32,
        end: u32,
        /// Slots in a row: the run of a bid, the shortest run of an ask.
        slots: u32,
    },
    Party(String),
    Features(u64),
    Slots(u32),
    /// Price in msat per block.
    LimitMsat(u64),
    /// Price of one unit over a whole run, msat.
    RunMsat(u64),
    Qty(u64),
    Asks(u64),
}

/// Why two orders did not trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The first constraint that failed.
    pub constraint: Constraint,
    /// Value of the order that is explained.
    pub own: Value,
    /// Value of the counter-order.
    pub theirs: Value,
    /// Accepted trades that made the promise or took the units, at most [`BLAMED_MAX`].
    pub because: Vec<Trade>,
}

/// One order of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub id: String,
    /// Units traded with it; 0 if none.
    pub traded: u32,
    /// Why not, if nothing was traded.
    pub finding: Option<Finding>,
}

/// How many counter-orders met one constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The constraint that was tried.
    pub constraint: Constraint,
    /// Counter-orders that passed all before.
    pub tried: u32,
    /// Those of them that passed this one too.
    pub passed: u32,
}

/// What became of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It took no part.
    Dropped(Dropped),
    /// It took part and got nothing.
    Unmatched,
    Partly,
    /// It got all its units (a bid), or sold at least one in every slot of its window.
    Matched,
}

/// In the money at the published prices, and refused all the same.
///
/// The order got nothing although, over some run in which every slot has a price, its limit
/// is strictly better than the run's price, and the run is offered: asks that accept the bid,
/// cover the run and ask no more than its price bring the bid's minimum fill together (the
/// largest of them, if it may not take all; one of them alone for a gang), counted before anything is sold. To an ask a run is offered by a
/// bid that accepts it, pays the run's price and whose minimum fill the ask brings alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paradox {
    pub class: u16,
    /// First slot of the run with the largest gain forgone.
    pub start: u32,
    pub slots: u32,
    /// The order's limit for one unit over the run, msat.
    pub limit_msat: u64,
    /// Published price of one unit over the run, msat.
    pub market_msat: u64,
    /// What stood against the nearest of the counter-orders that offered the run.
    pub constraint: Constraint,
    /// Accepted trades that stood against it.
    pub because: Vec<Trade>,
}

/// Why one order matched or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub fate: Fate,
    /// Units that it brought into the epoch.
    pub qty: u32,
    /// Its trades, as in the outcome.
    pub trades: Vec<Trade>,
    /// Constraints in order; what passes the last has traded. Empty for a dropped order.
    pub funnel: Vec<Step>,
    /// Counter-orders, nearest to a trade first.
    pub counters: Vec<Counter>,
    /// Whether it was paradoxically rejected.
    pub paradox: Option<Paradox>,
}

/// Why there is no explanation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// The book is refused as a whole.
    #[error("the book itself is refused: {0}")]
    Book(#[from] MatchError),
    /// The book has no such order.
    #[error("no order {id:?} in the book")]
    UnknownOrder { id: String },
    /// Matching it again and again would take too long.
    #[error("the book is too large to match it again and again")]
    BookTooLarge,
}

impl ExplainError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Book(refusal) => refusal.reason(),
            Self::UnknownOrder { .. } => reason!("explain.unknown_order"),
            Self::BookTooLarge => reason!("explain.book_too_large"),
        }
    }
}

/// Explains what became of order `id`, naming at most `nearest` counter-orders.
///
/// A pure function: `outcome` is taken for the result of `instance`, by whatever version of
/// the rules. Time is linear in the counter-orders, times the starts that each leaves open;
/// before that, the price bounds of every class and slot boundary that is asked for take up to
/// boundaries × edges, where edges are the pairs of slot boundaries with a run between them:
/// at most 336² of each for a class.
///
/// # Errors
/// The refusal of the book itself, or `explain.unknown_order`.
pub fn explain(
    instance: &Instance,
    outcome: &Outcome,
    id: &str,
    nearest: usize,
) -> Result<Explanation, ExplainError> {
    let live = instance.live()?;
    let unknown = || ExplainError::UnknownOrder { id: id.to_owned() };
    let order = instance.orders.iter().find(|order| order.id == id).ok_or_else(unknown)?;
    if !live.iter().any(|other| other.id == id) {
        return Ok(dropped(order, Dropped::of(order, instance)));
    }
    let mut state = State::new(instance, &live, outcome);
    let mut counters = state::counters(instance, &live, order, &mut state);
    let funnel = funnel(&counters);
    counters.sort_by(|a, b| nearness(a).cmp(&nearness(b)));
    let trades: Vec<Trade> = state.trades_of(order).into_iter().cloned().collect();
    let paradox =
        trades.is_empty().then(|| paradox::find(order, instance, &live, outcome, &counters));
    let paradox = paradox.flatten();
    counters.truncate(nearest);
    let fate = fate(order, instance.now, &trades);
    Ok(Explanation { fate, qty: order.units_left(), trades, funnel, counters, paradox })
}

fn dropped(order: &Order, why: Dropped) -> Explanation {
    Explanation {
        fate: Fate::Dropped(why),
        qty: order.units_left(),
        trades: Vec::new(),
        funnel: Vec::new(),
        counters: Vec::new(),
        paradox: None,
    }
}

fn fate(order: &Order, now: u32, trades: &[Trade]) -> Fate {
    if trades.is_empty() {
        return Fate::Unmatched;
    }
    let all = match order.side {
        Side::Buy { .. } => trades.iter().map(|trade| trade.qty).sum::<u32>() >= order.units_left(),
        Side::Sell { .. } => (order.first_slot(now)..order.window.1).all(|slot| {
            let sold: u32 = trades.iter().filter(|t| covers(t, slot)).map(|t| t.qty).sum();
            sold >= order.units_left()
        }),
    };
    if all { Fate::Matched } else { Fate::Partly }
}

/// Whether a trade delivers in a slot.
fn covers(trade: &Trade, slot: u32) -> bool {
    trade.start <= slot && slot < trade.start + u32::from(trade.hours)
}

fn funnel(counters: &[Counter]) -> Vec<Step> {
    let mut left = counters.len();
    let mut steps = Vec::with_capacity(Constraint::ALL.len());
    for constraint in Constraint::ALL {
        let fails = |counter: &&Counter| {
            counter.finding.as_ref().is_some_and(|found| found.constraint == constraint)
        };
        let failed = counters.iter().filter(fails).count();
        let tried = left;
        left -= failed;
        // A book holds fewer than 2^32 orders: their ids alone would fill any memory.
        steps.push(Step { constraint, tried: tried as u32, passed: left as u32 });
    }
    steps
}

/// Ascending: traded ones first, then those that failed latest, by the smallest gap in price.
fn nearness(counter: &Counter) -> (Reverse<u32>, Reverse<Option<Constraint>>, u64, &str) {
    let gap = counter.finding.as_ref().map_or(0, |found| match (&found.own, &found.theirs) {
        (Value::LimitMsat(a), Value::LimitMsat(b)) | (Value::RunMsat(a), Value::RunMsat(b)) => {
            a.abs_diff(*b)
        }
        _ => 0,
    });
    let constraint = counter.finding.as_ref().map(|found| found.constraint);
    (Reverse(counter.traded), Reverse(constraint), gap, &counter.id)
}
