//! leases.
