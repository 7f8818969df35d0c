//! deals.
