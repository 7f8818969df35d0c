//! Leases: the running period after a certificate is redeemed.

pub mod access;
pub mod lifecycle;
pub mod maintenance;
pub mod objects;
pub mod pull;
pub mod receipts;
pub mod score;
pub mod workload;

pub use lifecycle::{End, ExecutorEvent, Exit, Loss, Phase, Usage};
pub use maintenance::Maintenance;
