//! Leases: the running period after a certificate is redeemed.

pub mod objects;
