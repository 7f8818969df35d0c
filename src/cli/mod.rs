//! cli.

pub mod match_cmd;
