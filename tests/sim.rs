//! The market in the simulator: seeds, and stories told as sentences.
//!
//! `CAPEX_SIM_SEEDS` sets how many seeds the market of every fault runs.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

mod scenarios;
