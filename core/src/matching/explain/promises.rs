//! What accepted trades promise about the price of every run, and which of them do.
//!
//! The same difference constraints on prefix sums of slot prices as the closure of a pass,
//! as a graph: an edge from boundary `u` to `v` of weight `w` says that the slots between
//! cost at most `w` (at least `-w` if `v` lies before `u`). The tightest bound on a run is a
//! shortest path, and the trades behind its edges are those that fix it.

use std::collections::BTreeMap;

use super::super::instance::PMAX_MSAT;

type Edges = BTreeMap<(usize, usize), (i64, usize)>;

/// Shortest ways from one boundary to all others.
struct Ways {
    sum_msat: Vec<i64>,
    /// Boundary before, and the run that made the edge from there, if one did.
    last: Vec<(usize, Option<usize>)>,
}

/// Bounds on the runs of one class.
pub(super) struct Promises {
    first_slot: u32,
    boundaries: usize,
    /// By boundaries: the tightest sum, and the caller's number of the run that made it.
    edges: Edges,
    ways: BTreeMap<usize, Ways>,
}

impl Promises {
    /// No promise yet, over the slots `[first_slot, end_slot)`.
    pub(super) fn new(first_slot: u32, end_slot: u32) -> Self {
        let boundaries = (end_slot - first_slot) as usize + 1;
        Self { first_slot, boundaries, edges: BTreeMap::new(), ways: BTreeMap::new() }
    }

    /// Run number `run` over `[start, end)` costs between `least_msat` and `most_msat`.
    pub(super) fn promise(
        &mut self,
        (start, end): (u32, u32),
        (least_msat, most_msat): (u64, u64),
        run: usize,
    ) {
        let (from, to) = (self.index(start), self.index(end));
        let sum = |msat: u64| i64::try_from(msat).unwrap_or(i64::MAX);
        for (edge, sum_msat) in [((from, to), sum(most_msat)), ((to, from), -sum(least_msat))] {
            let tightest = self.edges.entry(edge).or_insert((sum_msat, run));
            if sum_msat < tightest.0 {
                *tightest = (sum_msat, run);
            }
        }
    }

    /// The most that one unit may cost over `[start, end)`.
    pub(super) fn most_msat(&mut self, start: u32, end: u32) -> u64 {
        let to = self.index(end);
        self.ways(start).sum_msat[to].unsigned_abs()
    }

    /// The least that one unit must cost over `[start, end)`.
    pub(super) fn least_msat(&mut self, start: u32, end: u32) -> u64 {
        let to = self.index(start);
        self.ways(end).sum_msat[to].unsigned_abs()
    }

    /// Runs that make the bound of [`Promises::most_msat`].
    pub(super) fn bind_most(&mut self, start: u32, end: u32) -> Vec<usize> {
        self.on_way(start, end)
    }

    /// Runs that make the bound of [`Promises::least_msat`].
    pub(super) fn bind_least(&mut self, start: u32, end: u32) -> Vec<usize> {
        self.on_way(end, start)
    }

    /// Runs on the shortest way, nearest to its end first.
    fn on_way(&mut self, from: u32, to: u32) -> Vec<usize> {
        let (source, mut at) = (self.index(from), self.index(to));
        let boundaries = self.boundaries;
        let ways = self.ways(from);
        let mut runs = Vec::new();
        for _ in 0..boundaries {
            let (before, run) = ways.last[at];
            runs.extend(run.filter(|run| !runs.contains(run)));
            if before == source {
                break;
            }
            at = before;
        }
        runs
    }

    fn ways(&mut self, from: u32) -> &Ways {
        let (source, boundaries, edges) = (self.index(from), self.boundaries, &self.edges);
        self.ways.entry(source).or_insert_with(|| Ways::new(source, boundaries, edges))
    }

    fn index(&self, slot: u32) -> usize {
        (slot.saturating_sub(self.first_slot) as usize).min(self.boundaries - 1)
    }
}

impl Ways {
    /// Bellman and Ford, from the bounds that hold without any trade.
    fn new(source: usize, boundaries: usize, edges: &Edges) -> Self {
        let pmax = i64::try_from(PMAX_MSAT).unwrap_or(i64::MAX);
        let free = |to: usize| i64::try_from(to.saturating_sub(source)).unwrap_or(0) * pmax;
        let mut ways = Self {
            sum_msat: (0..boundaries).map(free).collect(),
            last: vec![(source, None); boundaries],
        };
        for _ in 0..boundaries {
            let mut changed = false;
            for (&(from, to), &(sum_msat, run)) in edges {
                changed |= ways.relax(from, to, sum_msat, Some(run));
            }
            for at in 1..boundaries {
                changed |= ways.relax(at - 1, at, pmax, None);
            }
            for at in (1..boundaries).rev() {
                changed |= ways.relax(at, at - 1, 0, None);
            }
            if !changed {
                break;
            }
        }
        ways
    }

    fn relax(&mut self, from: usize, to: usize, sum_msat: i64, run: Option<usize>) -> bool {
        let sum = self.sum_msat[from].saturating_add(sum_msat);
        let better = sum < self.sum_msat[to];
        if better {
            self.sum_msat[to] = sum;
            self.last[to] = (from, run);
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_names_the_runs_that_make_it() {
        let mut promises = Promises::new(100, 104);
        assert_eq!(promises.most_msat(100, 101), PMAX_MSAT);
        let mut promises = Promises::new(100, 104);
        // Run 0 costs at most 30 in all, run 1 at least 10 in its first slot.
        promises.promise((100, 103), (0, 30), 0);
        promises.promise((100, 101), (10, PMAX_MSAT), 1);
        assert_eq!(promises.most_msat(101, 103), 20);
        assert_eq!(promises.bind_most(101, 103), [0, 1]);
        assert_eq!((promises.least_msat(100, 103), promises.bind_least(100, 103)), (10, vec![1]));
        assert_eq!((promises.least_msat(101, 103), promises.bind_least(101, 103)), (0, vec![]));
    }

    #[test]
    fn promises_that_contradict_each_other_end_all_the_same() {
        let mut promises = Promises::new(0, 3);
        promises.promise((0, 2), (0, 5), 0);
        promises.promise((0, 1), (9, 9), 1);
        promises.most_msat(0, 3);
    }
}
