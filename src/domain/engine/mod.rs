//! The engine: composes the domain behind one `handle`.
//!
//! It never fails and never blocks: bad input becomes a verdict or a refusal, consequences
//! become effects. It owns its signing keys and draws no randomness. Every input may
//! arrive twice.

pub mod contacts;
pub mod context;
pub mod custody;
pub mod deals;
pub mod io;
pub mod leases;
pub mod market;
pub mod record;

pub use context::{ChainView, Context, Keys, Outbox, Purpose, WalletView};
pub use io::{Command, Done, Effect, Event, Input, Protocol, Refusal, Topic, Verdict};
pub use record::{Record, Table};
