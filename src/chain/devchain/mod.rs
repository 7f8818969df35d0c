//! The devchain.
