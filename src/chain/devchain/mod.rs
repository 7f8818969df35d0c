//! A chain with Bitcoin's regtest rules in this process.
//!
//! [`Devchain`] holds blocks, the set of unspent outputs and a mempool, and validates as
//! Bitcoin Core does: scripts with Core's own verifier (`bitcoinconsensus`), the rest
//! here. It has no clock and no randomness: the caller passes the time, so the simulator
//! replays it from a seed. [`server`] puts it behind Core's JSON-RPC.
//!
//! Narrower than Core: transactions of version 3 (BIP-431) are refused as `version`,
//! packages are not relayed, the standardness of witnesses (stack sizes, annex) and the
//! policy-only script flags are not checked, and a failed script is not told apart
//! further.

mod admission;
mod block;
mod chain;
mod consensus;
mod faucet;
mod journal;
mod mempool;
mod policy;
mod reject;
mod script;
pub mod server;
mod source;

pub use block::{BLOCK_BITS, build_block, solve, subsidy_sat};
pub use chain::{Devchain, Fees, MAX_BLOCKS, PREMINED_BLOCKS};
pub use consensus::{COINBASE_MATURITY, Coin};
pub use faucet::{faucet_address, faucet_keypair, faucet_script};
pub use mempool::{MAX_MEMPOOL_TXS, MAX_MEMPOOL_VSIZE, Mempool, MempoolEntry};
pub use policy::{Accepted, DUST_RELAY_SAT_KVB, INCREMENTAL_SAT_KVB, MIN_RELAY_SAT_KVB, Policy};
pub use reject::Reject;
pub use source::{Cursor, DevchainSource};
