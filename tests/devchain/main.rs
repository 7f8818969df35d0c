//! The devchain holds to Bitcoin's rules, and the RPC source reads it.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod blocks;
mod differential;
mod htlc;
mod kit;
mod mempool;
mod properties;
mod proxy;
mod reorg;
mod rpc;
mod server;
