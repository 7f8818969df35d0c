//! Settlements on a real Bitcoin Core, with daemons as processes, on regtest and loopback.
//!
//! The program is the one that `BITCOIND` names; `scripts/check.sh bitcoind` finds or builds
//! one. Without it every test says that it was skipped. Each has a chain, a directory and
//! daemons of its own, so that they run beside each other.
#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a failed wait shows its logs")]

#[allow(dead_code, reason = "shared with tests/daemons, which uses more of it")]
#[path = "../daemons/daemon.rs"]
mod daemon;
#[path = "../daemons/home.rs"]
mod home;
#[allow(dead_code, reason = "shared with tests/daemons, which uses more of it")]
#[path = "../daemons/market.rs"]
mod market;
mod server;
mod settlements;
mod signed_elsewhere;
#[allow(dead_code, reason = "shared with tests/daemons, which uses more of it")]
#[path = "../daemons/signer.rs"]
mod signer;
mod sources;
mod world;
