//! Leases of this host and of this holder.
