//! Certificates: transferable proof of the right to a delivery window at one provider.
//!
//! A certificate is an Issue followed by hops; each hop consumes the last sequence number
//! and ends in an Activation that the provider signed. What it proves offline: the
//! provider's signatures on Issue and every Activation. It proves neither that no later
//! transfer exists nor that payment stands.

pub mod equivocation;
pub mod file;
pub mod ledger;
pub mod objects;
mod ranges;
mod timeline;
pub mod verify;

pub use ledger::{Claim, Ledger};
pub use objects::{Certificate, Hop};
pub use verify::{CertificateError, VerifiedCertificate, verify};
