//! The seeded simulator: many engines with their wallets on one chain, in virtual time.
//!
//! A [`World`] runs the driver that the daemon runs. Only the shell is different: the
//! disk is a map of what was written, links lose and repeat messages, a crash takes all
//! memory, and time passes when there is nothing left to do. There is no clock, no thread
//! and no randomness but the seed's, so that a failure is found again by its seed alone
//! ([`World::digest`]).

mod chain;
mod disk;
mod evidence;
mod host;
mod invariants;
mod life;
mod links;
mod queue;
mod rng;
mod shell;
mod signer;
mod stranger;
mod trace;
mod unit_slots;
mod world;

pub use chain::Branch;
pub use disk::{Disk, Kill};
pub use evidence::Evidence;
pub use life::{Kept, KeptReply, Node};
pub use links::{Links, Mishap, Settling, Sides};
pub use queue::NodeId;
pub use rng::Rng;
pub use world::{BEGIN_MS, Setup, World};
