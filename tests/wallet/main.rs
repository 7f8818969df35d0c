//! What the wallet promises: it never spends a coin twice, forgets no transaction that it
//! signed, and what it signs is valid.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

mod bench;
mod coins;
mod external;
mod following;
mod funding;
mod histories;
mod joint;
mod keys;
mod payouts;
mod pruning;
mod replacing;
mod sending;
