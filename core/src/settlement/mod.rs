//! Settlement, mode H: a taproot hash-timelock contract whose address commits to the terms.
//!
//! ```text
//! B → S  Request          S → B  Terms (+ Issue)        B → P  Terms + Accept
//! P → B  LockGrant        B waits for a conflicting lock, persists, then
//! B → P  raw FUND         P acknowledges and broadcasts, B broadcasts
//! S      CLAIM, reveals x B reads x from the chain      B → P  Transfer, P → B Activation
//! ```
//!
//! Rules that never bend: persist and fsync, then broadcast; chain facts decide; every
//! script, amount and key is recomputed from signed terms; no pre-signed fixed-fee exits;
//! never reveal inside the margin; one live lock per (certificate, seq).

pub mod buyer;
pub mod check;
pub mod facts;
pub mod fees;
pub mod keyagg;
pub mod objects;
pub mod registrar;
pub mod script;
pub mod seller;
pub mod timelock;
pub mod transaction;

pub use registrar::Registrar;

#[cfg(test)]
pub(crate) mod sample;
