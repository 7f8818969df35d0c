//! Capex network.
