//! All-pairs closure of difference constraints on prefix sums of slot prices.
//!
//! With `X[t]` the sum of the prices of all slots before boundary `t`, a bound on the cost
//! of a run `[a, b)` is a bound on `X[b] − X[a]`. The closure keeps for every pair of
//! boundaries the tightest bound that all constraints together imply (shortest paths), so
//! reading a bound is one look-up and no promise can contradict an earlier one.

use super::instance::{MatchError, PMAX_MSAT};

/// Bounds on the cost of every run between the slots of one class. All sums in msat.
pub(super) struct Closure {
    first_slot: u32,
    boundaries: usize,
    /// Row-major: `bound[u][v]` is the largest allowed `X[v] − X[u]`. Empty as long as
    /// nothing is constrained, since most classes of a wide book never trade.
    bound: Vec<i64>,
    /// Space for a copy of one row.
    rest: Vec<i64>,
}

impl Closure {
    /// Unconstrained prices, 0 to [`PMAX_MSAT`] per slot, over `[first_slot, end_slot)`.
    pub(super) fn new(first_slot: u32, end_slot: u32) -> Self {
        let boundaries = (end_slot - first_slot + 1) as usize;
        Self { first_slot, boundaries, bound: Vec::new(), rest: Vec::new() }
    }

    /// The most that the run `[start, end)` may cost.
    pub(super) fn max_msat(&self, start: u32, end: u32) -> u64 {
        // Prices are never negative, so neither is this bound.
        self.get(self.index(start), self.index(end)).unsigned_abs()
    }

    /// The least that the run `[start, end)` must cost.
    pub(super) fn min_msat(&self, start: u32, end: u32) -> u64 {
        // Stored as an upper bound on the negated cost, which is never positive.
        self.get(self.index(end), self.index(start)).unsigned_abs()
    }

    /// Requires that `[start, end)` costs at most `sum_msat`.
    pub(super) fn at_most(
        &mut self,
        start: u32,
        end: u32,
        sum_msat: u64,
    ) -> Result<(), MatchError> {
        let sum = i64::try_from(sum_msat).map_err(|_| MatchError::Infeasible)?;
        self.tighten(self.index(start), self.index(end), sum)
    }

    /// Requires that `[start, end)` costs at least `sum_msat`.
    pub(super) fn at_least(
        &mut self,
        start: u32,
        end: u32,
        sum_msat: u64,
    ) -> Result<(), MatchError> {
        let sum = i64::try_from(sum_msat).map_err(|_| MatchError::Infeasible)?;
        self.tighten(self.index(end), self.index(start), -sum)
    }

    fn index(&self, slot: u32) -> usize {
        (slot - self.first_slot) as usize
    }

    fn get(&self, from: usize, to: usize) -> i64 {
        match self.bound.get(from * self.boundaries + to) {
            Some(&bound) => bound,
            None => unconstrained(from, to),
        }
    }

    fn tighten(&mut self, from: usize, to: usize, bound: i64) -> Result<(), MatchError> {
        if bound >= self.get(from, to) {
            return Ok(());
        }
        if bound + self.get(to, from) < 0 {
            return Err(MatchError::Infeasible);
        }
        if self.bound.is_empty() {
            let n = self.boundaries;
            self.bound.reserve_exact(n * n);
            for from in 0..n {
                self.bound.extend((0..n).map(|to| unconstrained(from, to)));
            }
        }
        self.relax(from, to, bound);
        Ok(())
    }

    /// Routes every pair over the new edge. A pair can only gain if both its row's way to
    /// `to` and its column's way from `from` gain, because the old bounds were closed.
    fn relax(&mut self, from: usize, to: usize, bound: i64) {
        let n = self.boundaries;
        let (row_from, row_to) = (&self.bound[from * n..][..n], &self.bound[to * n..][..n]);
        let gains = |&j: &usize| bound + row_to[j] < row_from[j];
        let (Some(first), Some(last)) = ((0..n).find(gains), (0..n).rfind(gains)) else {
            return;
        };
        // Columns in between that cannot gain do no harm, and a plain loop is quicker.
        self.rest.clear();
        self.rest.extend_from_slice(&row_to[first..=last]);
        for row in self.bound.chunks_exact_mut(n) {
            let via = row[from] + bound;
            if via >= row[to] {
                continue;
            }
            for (pair, rest) in row[first..=last].iter_mut().zip(&self.rest) {
                *pair = (*pair).min(via + rest);
            }
        }
    }
}

/// A price between 0 and [`PMAX_MSAT`] in every slot and nothing else.
fn unconstrained(from: usize, to: usize) -> i64 {
    to.saturating_sub(from) as i64 * PMAX_MSAT as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_on_a_run_bounds_the_slots_inside_it() {
        let mut closure = Closure::new(100, 103);
        closure.at_most(100, 103, 30).unwrap();
        assert_eq!(closure.max_msat(101, 102), 30);
        closure.at_least(100, 101, 10).unwrap();
        assert_eq!(closure.max_msat(101, 103), 20);
        assert_eq!(closure.min_msat(100, 103), 10);
    }

    #[test]
    fn contradicting_promises_are_refused() {
        let mut closure = Closure::new(0, 2);
        closure.at_least(0, 1, 10).unwrap();
        assert_eq!(closure.at_most(0, 2, 9), Err(MatchError::Infeasible));
        assert_eq!(closure.at_least(0, 1, u64::MAX), Err(MatchError::Infeasible));
        assert_eq!(closure.at_most(0, 2, 10), Ok(()));
    }
}
