//! Rail `chain`: a taproot output for each funder, which the seller claims with the
//! preimage and the funder takes back from the refund height on.

pub mod facts;
pub mod fees;
pub mod joint;
pub mod keyagg;
pub mod script;
pub mod timelock;
pub mod transaction;
