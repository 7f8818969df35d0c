//! Settlement of a trade by three roles, over a rail.
//!
//! ```text
//! B → S  Request              S → B  Terms (+ Issue at a primary sale)
//! B → P  Terms + Accept       P → B  LockGrant, gossiped; B waits for a conflicting lock
//! B → P and S  raw FUND       P acknowledges and broadcasts it, then B does
//! S      CLAIM, reveals x     P → B  Activation, when the claim is in a block
//! ```
//!
//! Where buyer and seller are both there, [`exit`] takes the place of the last line.
//!
//! B is the [`buyer`], S the [`seller`], P the [`registrar`]: the provider of the capacity,
//! who keeps the register of holders. At a primary sale one node is S and P. Each role is a
//! machine of its own: facts and messages move it, and what it is due to do follows from its
//! state and the time. Machines decide and check; carrying it out is the engine's part.
//!
//! Rules that never bend: persist and fsync, then broadcast; chain facts decide; every
//! script, amount and key is recomputed from signed terms; no pre-signed fixed-fee exits;
//! never reveal inside the margin; one live lock per (certificate, seq).

pub mod buyer;
pub mod check;
mod deadline;
pub mod exit;
pub mod objects;
pub mod rails;
pub mod registrar;
pub mod seller;

pub use deadline::Deadline;
pub use rails::Rail;
pub use rails::chain::{facts, fees, joint, keyagg, script, timelock, transaction};

#[cfg(test)]
pub(crate) mod sample;
