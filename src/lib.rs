//! The program around [`capex_core`]: a node daemon, its command line, and the simulator
//! that runs many engines at once.
//!
//! ```text
//! gossip bytes → wire → admission → book(epoch) → matching → settlement → certificate → redeem → lease → receipts
//!      ▲                                 │ effects, in order: nothing after a Persist leaves the node before its fsync
//!      └────────── node (the only event loop) ┘
//! ```
//!
//! The arrow's rooms are pure and live in `capex_core`; this crate moves bytes, blocks and
//! files for them.

pub mod api;
pub mod backup;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod definitions;
pub mod driver;
pub mod executor;
pub mod invite;
pub mod node;
pub mod sealed;
pub mod sim;
pub mod store;
pub mod wallet;
