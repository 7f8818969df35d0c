//! The market in the simulator: seeds, and stories told as sentences.
//!
//! `CAPEX_SIM_SEEDS` sets how many seeds the market of every fault runs.

mod scenarios;
