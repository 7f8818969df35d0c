//! How often a register signs for nothing.
//!
//! A gift, a split or a merge costs its holder a signature, and the network one to check for every
//! node. A provider may say 3,072 things in an epoch before others stop to listen; two thirds of
//! them for what nobody pays leave locks, sales and redemptions their room.

use std::collections::BTreeMap;

use crate::code;
use crate::engine::kernel::Context;
use crate::epoch::epoch_at;
use crate::ids::CertId;

/// Activations without a sale in one epoch.
const FREE_PER_EPOCH: usize = 2_048;
/// Those of certificates that go back to one Issue: to keep all others from theirs takes eight
/// purchases, and going on for as long.
pub(super) const FREE_PER_ROOT: usize = 256;

/// What was signed for nothing in this epoch.
#[derive(Debug, Default)]
pub(super) struct Pace {
    epoch: u64,
    total: usize,
    of_root: BTreeMap<CertId, usize>,
}

impl Pace {
    /// Counts Activations of a certificate with these roots, if there is room for them.
    ///
    /// # Errors
    /// `register.busy`.
    pub(super) fn take(
        &mut self,
        ctx: &Context<'_>,
        roots: &[CertId],
        count: usize,
    ) -> Result<(), &'static str> {
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let of = |root: &CertId| self.of_root.get(root).copied().unwrap_or(0);
        let most = roots.iter().map(of).max().unwrap_or(0);
        let is_full = self.total.saturating_add(count) > FREE_PER_EPOCH
            || most.saturating_add(count) > FREE_PER_ROOT;
        if is_full {
            return Err(code!("register.busy"));
        }
        self.total = self.total.saturating_add(count);
        for root in roots {
            let taken = self.of_root.entry(*root).or_default();
            *taken = taken.saturating_add(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernel::{Kernel, Keys};
    use crate::test_support::devnet;

    #[test]
    fn an_epoch_has_room_for_so_many_and_a_root_for_fewer() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let epoch_ms = devnet().epoch_ms();
        let ctx = kernel.context(10 * epoch_ms);
        let mut pace = Pace::default();
        let root = |n: u8| [CertId([n; 32])];
        assert_eq!(pace.take(&ctx, &root(0), FREE_PER_ROOT), Ok(()));
        assert_eq!(pace.take(&ctx, &root(0), 1), Err("register.busy"));
        let both = [CertId([0; 32]), CertId([1; 32])];
        assert_eq!(pace.take(&ctx, &both, 1), Err("register.busy"), "one of its roots");
        for n in 1..8 {
            assert_eq!(pace.take(&ctx, &root(n), FREE_PER_ROOT), Ok(()));
        }
        assert_eq!(pace.take(&ctx, &root(9), 1), Err("register.busy"), "in all");
        let ctx = kernel.context(11 * epoch_ms);
        assert_eq!(pace.take(&ctx, &root(0), FREE_PER_ROOT), Ok(()), "the next epoch");
    }
}
