//! Leases: the running period after a certificate is redeemed.

pub mod lifecycle;
pub mod objects;
pub mod receipts;
pub mod workload;

pub use lifecycle::{End, ExecutorEvent, Phase, Usage};
