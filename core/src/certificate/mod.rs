//! Certificates: transferable proof of the right to a delivery window at one provider.
//!
//! A certificate is an Issue followed by hops; each hop consumes the last sequence number
//! and ends in an Activation that the provider signed. A split makes several certificates of one,
//! a merge one of several. What it proves offline: the provider's signatures on Issue and every
//! Activation. It proves neither that no later transfer exists nor that payment stands.

pub mod equivocation;
pub mod file;
mod history;
pub(crate) mod hops;
pub mod ledger;
pub mod objects;
mod parts;
mod ranges;
mod timeline;
pub mod verify;

pub use history::{Origin, join, origins};
pub use ledger::{Claim, Ledger};
pub use objects::{Base, Certificate, Hop};
pub use parts::carve;
pub(crate) use parts::{cut, lowest_units};
pub use verify::{CertificateError, VerifiedCertificate, verify};
