//! Capex, the open capacity exchange.
//!
//! ```text
//! gossip bytes → wire → admission → book(epoch) → matching → settlement → certificate → redeem → lease → receipts
//!      ▲                                 │ effects, in order: nothing after a Persist leaves the node before its fsync
//!      └────────── node (the only event loop) ┘
//! ```
//!
//! [`domain`] is pure: it has no clock, no randomness, no input or output. Everything
//! else is a shell around it and only exists with the feature `node`.

pub mod domain;
pub mod limits;
pub mod params;
pub mod wire;

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod chain;
#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod executor;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod sim;
#[cfg(feature = "node")]
pub mod store;
#[cfg(feature = "node")]
pub mod wallet;
