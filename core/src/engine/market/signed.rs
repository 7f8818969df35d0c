//! Epochs for which this node has signed orders.
//!
//! A life must not sign for an epoch for which an earlier one did: it would promise the same
//! units and coins twice. A highest epoch would say that too, until the clock was ahead once:
//! then it would keep the node silent until that day. So the epochs themselves are kept.

use serde::{Deserialize, Serialize};

use crate::engine::kernel::{Cause, Context, Record, Stored, Table, Unreadable, records};

/// Ranges that are kept: one for each pause in which nothing stood in the market. With more,
/// the two with the shortest gap become one, and its epochs count as signed.
const RANGES_MAX: usize = 64;

/// The only key of the table.
const KEY: [u8; 1] = [0];

/// First and last epoch of each range, ascending, with gaps between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEpochs(Vec<(u64, u64)>);

impl Stored for SignedEpochs {
    const TABLE: Table = Table::SignedEpochs;
}

impl SignedEpochs {
    /// What the journal says.
    ///
    /// # Errors
    /// The record cannot be read, or its ranges are in disorder.
    pub(super) fn load(all: &[Record]) -> Result<Self, Unreadable> {
        let mut found = Self::default();
        for stored in records::<Self>(all) {
            let (record, signed) = stored?;
            let (firsts, lasts) = (signed.0.iter().skip(1), signed.0.iter());
            let is_ordered = signed.0.iter().all(|(first, last)| first <= last)
                && lasts.zip(firsts).all(|((_, last), (next, _))| last < next);
            if !is_ordered {
                return Err(record.unreadable(Cause::Content));
            }
            found = signed;
        }
        Ok(found)
    }

    pub(super) fn contains(&self, epoch: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&epoch))
    }

    /// The highest.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Adds an epoch, and journals it if it is new.
    pub(super) fn add(&mut self, ctx: &mut Context<'_>, epoch: u64) {
        if !self.contains(epoch) {
            self.insert(epoch);
            ctx.out.store(&KEY, self);
        }
    }

    fn insert(&mut self, epoch: u64) {
        let at = self.0.partition_point(|(_, last)| *last < epoch);
        self.0.insert(at, (epoch, epoch));
        self.join(|gap| gap == 1);
        while self.0.len() > RANGES_MAX {
            let gaps = self.0.iter().zip(self.0.iter().skip(1)).map(|(a, b)| b.0 - a.1);
            let Some(shortest) = gaps.min() else { break };
            self.join(|gap| gap == shortest);
        }
    }

    /// Makes one of neighbours that are so far apart.
    fn join(&mut self, is_near: impl Fn(u64) -> bool) {
        self.0.dedup_by(|later, earlier| {
            let joins = is_near(later.0 - earlier.1);
            if joins {
                earlier.1 = later.1;
            }
            joins
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(epochs: impl IntoIterator<Item = u64>) -> SignedEpochs {
        let mut signed = SignedEpochs::default();
        for epoch in epochs {
            if !signed.contains(epoch) {
                signed.insert(epoch);
            }
        }
        signed
    }

    #[test]
    fn epochs_become_ranges_in_whatever_order_they_come() {
        assert_eq!(of([7, 5, 6, 5, 9]).0, [(5, 7), (9, 9)]);
        assert_eq!(of([5, 6, 900, 7, 8]).0, [(5, 8), (900, 900)], "a clock that was ahead once");
        let signed = of([5, 6, 900]);
        assert!(signed.contains(900) && !signed.contains(7) && !signed.contains(899));
        assert_eq!(signed.last(), Some(900));
    }

    #[test]
    fn too_many_ranges_forget_nothing_that_was_signed() {
        let far = 1 << 40;
        let epochs: Vec<u64> = (0..1000).map(|n| n * n).chain([far]).collect();
        let signed = of(epochs.iter().copied());
        assert_eq!(signed.0.len(), RANGES_MAX);
        assert!(epochs.iter().all(|epoch| signed.contains(*epoch)));
        assert!(!signed.contains(far - 1), "nothing is joined across the longest gap");
    }

    #[test]
    fn ranges_in_disorder_are_no_record() {
        for (ranges, is_good) in [
            (vec![(1, 2), (4, 4)], true),
            (vec![(2, 1)], false),
            (vec![(1, 4), (4, 5)], false),
            (vec![(5, 6), (1, 2)], false),
        ] {
            let record = Record::store(&KEY, &SignedEpochs(ranges.clone())).unwrap();
            assert_eq!(SignedEpochs::load(&[record]).is_ok(), is_good, "{ranges:?}");
        }
    }
}
