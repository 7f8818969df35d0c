//! Price-feasible greedy matching of one epoch's book.
//!
//! [`solve`] is a pure function of an [`Instance`]: every node that holds the same set of
//! orders computes the same trades and the same prices, whatever the order in which they
//! arrived. One uniform price exists per (class, slot), a run of slots costs the sum of its
//! slot prices, and no trade breaks the limit of either side.
//!
//! ```text
//! orders ─ check, drop ─▶ ranked book ─▶ K greedy passes ─▶ best of them ─▶ prices ─▶ Outcome
//!  view       view          ranked         pass, search       improve        prices    outcome
//! ```
//!
//! Orders are inserted one by one. What an accepted run promises (a total no higher than the
//! bid's limit, no lower than the dearest ask used) is a difference constraint on the prefix
//! sums of slot prices; their all-pairs closure tells in advance whether one price vector
//! still supports the next run. Some fixed priorities are tried, the exact welfare decides;
//! version 2 goes on from the best of them to better sequences (`improve`).
//!
//! What keeps it fast changes no result. Each idea has its file:
//!
//! | file | idea |
//! |---|---|
//! | `view` | orders are read where they are kept, as text or as wire orders, once each |
//! | `labels` | ids and keys are bytes and become ranks at once; only a hash or a reader needs their text |
//! | `radix` | integers are sorted by digits |
//! | `one_slot` | where all orders are for one slot each, one sweep takes the place of the passes |
//! | `names` | an owner's draw is made only if its orders tie |
//! | `pass` | a bid's most promising runs are searched first, until none of the rest can win |
//! | `supply` | one bit per ask and slot: who is free for a run is a conjunction of words; further planes of bits bound the units without a look at an ask |
//! | `ceiling` | what one search learns about a run spares the next bid the search |
//! | `accept` | a bid is held against the terms of 64 asks at once |
//! | `search` | asks are read level by level of equal price, no further than they can help |
//! | `closure` | a promise touches only the rows and columns it improves |
//!
//! Integers only. Anyone can verify a given result in linear time with [`verify`].

mod accept;
mod ceiling;
mod check;
mod closure;
pub mod explain;
mod improve;
mod instance;
mod labels;
mod names;
mod one_slot;
mod outcome;
mod pass;
mod prices;
mod radix;
mod ranked;
mod search;
mod supply;
mod view;

pub use check::{CheckError, verify};
pub use instance::{
    Cancel, Instance, MAX_ALTERNATIVES, MAX_HORIZON_SLOTS, MAX_HOURS, MAX_KEYS, MAX_LEGS, MAX_QTY,
    MAX_STARTS, MIN_LEGS, MatchError, Mode, Order, PMAX_MSAT, Side,
};
pub(crate) use labels::Label;
pub use outcome::{Algorithm, Outcome, Trade, solve};
pub(crate) use outcome::{Match, clear};
#[cfg(any(test, feature = "test-support"))]
pub use outcome::{is_swept, solve_by_search};
pub(crate) use view::{Alts, Labels, Orders, Terms, View, ViewSide};
