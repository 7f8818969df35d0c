//! The devchain holds to Bitcoin's rules, and the RPC source reads it.
#![cfg(feature = "node")]

mod blocks;
mod differential;
mod htlc;
mod kit;
mod mempool;
mod properties;
mod reorg;
mod rpc;
mod server;
