//! Streams into a running lease, as both ends of them need it.
//!
//! ```text
//! capex lease exec … ── holder's node ══ session ══════════════════════════ lease process
//!                              └── stream ── provider's node ── access.sock ──┘
//! ```
//!
//! The two ends of a session are the holder's node and the process of the lease. What lies between
//! them may break: another stream goes on where the last one ended.

mod backlog;
mod cut;
mod doors;
mod files;
mod follow;
pub mod frames;
mod programs;
pub mod session;
mod sftp;
mod ssh;
pub mod words;

pub(super) use self::doors::Doors;
pub use self::files::{pack, unpack};
