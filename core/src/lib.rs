//! The exchange itself: orders, epochs, matching, settlement, certificates, leases.
//!
//! Pure. No IO, clock, randomness, floating point, async or hash-map iteration in here:
//! time and chain facts come in as [`engine::Input`], consequences go out as
//! [`engine::Effect`], and the same engine runs in the daemon and in the simulator.

// A new variant must be decided on wherever it arrives; a test looks for what it expects.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod admission;
pub mod book;
pub mod bundle;
pub mod certificate;
pub mod engine;
pub mod epoch;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod matching;
pub mod memo;
pub mod order;
pub mod params;
pub mod reasons;
pub mod settlement;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod units;
pub mod wire;
