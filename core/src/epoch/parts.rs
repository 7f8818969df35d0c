//! A result in records of bounded size: a head, and parts with so many rows and prices each.
//!
//! Rows grow with what strangers order, and a record must not: one that is too large to be read
//! back would take the whole epoch with it. The head says how much there is, so that a part
//! that is missing is noticed.

use serde::{Deserialize, Serialize};

use super::{EpochResult, ResultRow, SlotPrice};

/// Rows of one part: 240 kB of the 4 MiB that a record may have, with rows of at most 235 bytes.
pub const ROWS_PER_PART: usize = 1024;
/// Prices of one part, of at most 18 bytes each.
pub const PRICES_PER_PART: usize = 8192;

/// What a result says of itself: the record that its parts belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultHead {
    pub epoch: u64,
    pub root: [u8; 32],
    /// Orders.
    pub count: u32,
    pub rows: u32,
    prices: u32,
    pub result_root: [u8; 32],
    welfare_msat: u128,
}

/// Some rows and some prices of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultPart {
    rows: Vec<ResultRow>,
    prices: Vec<SlotPrice>,
}

/// Key of a part: epoch and number of the part, which ascend by bytes as by number.
#[must_use]
pub fn part_key(epoch: u64, part: u32) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), part.to_be_bytes().as_slice()].concat()
}

/// Epoch and number of a part with this key.
#[must_use]
pub fn read_part_key(key: &[u8]) -> Option<(u64, u32)> {
    let (epoch, part) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*epoch), u32::from_be_bytes(part.try_into().ok()?)))
}

impl EpochResult {
    /// What stands in the head record.
    #[must_use]
    pub fn head(&self) -> ResultHead {
        ResultHead {
            epoch: self.epoch,
            root: self.root,
            count: self.count,
            rows: number(self.rows.len()),
            prices: number(self.prices.len()),
            result_root: self.result_root,
            welfare_msat: self.welfare_msat,
        }
    }

    /// The rest, in parts numbered from 0.
    pub fn parts(&self) -> impl Iterator<Item = (u32, ResultPart)> + '_ {
        let mut rows = self.rows.chunks(ROWS_PER_PART);
        let mut prices = self.prices.chunks(PRICES_PER_PART);
        let parts = std::iter::from_fn(move || match (rows.next(), prices.next()) {
            (None, None) => None,
            (rows, prices) => Some(ResultPart {
                rows: rows.unwrap_or_default().to_vec(),
                prices: prices.unwrap_or_default().to_vec(),
            }),
        });
        (0..).zip(parts)
    }
}

impl ResultHead {
    /// The whole result, from all its parts, ascending by number. `None` if they have another
    /// number of rows or prices than the head says: a part is missing, or of another result.
    #[must_use]
    pub fn assemble(self, parts: impl IntoIterator<Item = ResultPart>) -> Option<EpochResult> {
        let (mut rows, mut prices) = (Vec::new(), Vec::new());
        for part in parts {
            rows.extend(part.rows);
            prices.extend(part.prices);
        }
        if (number(rows.len()), number(prices.len())) != (self.rows, self.prices) {
            return None;
        }
        Some(EpochResult {
            epoch: self.epoch,
            root: self.root,
            count: self.count,
            rows,
            prices,
            result_root: self.result_root,
            welfare_msat: self.welfare_msat,
        })
    }
}

/// An epoch has fewer rows and prices than 2^32, see [`crate::limits::LEGS_MAX`].
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
