//! The matcher against its published vectors, a naive second implementation, an external
//! reference, and the properties that make a result safe.
// Helpers of tests fail by panicking and print, like the tests themselves.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod books;
mod command;
mod coverage;
mod dice;
mod explain;
mod naive;
mod one_slot;
mod plot;
mod properties;
mod reference;
mod refusals;
mod vectors;
mod verification;
