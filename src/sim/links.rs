//! Links between nodes: late, lossy, repeating, and sometimes cut.

use super::queue::NodeId;
use super::rng::Rng;
use capex_core::units::TimeMs;

/// How links treat a message. Reordering follows from latencies drawn one by one.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    /// Latency, ms: `[low, high)`.
    pub latency_ms: (u64, u64),
    pub loss: u16,
    /// Messages that arrive twice, per mille.
    pub duplication: u16,
    /// Messages that take up to twenty times the latency, per mille.
    pub stray: u16,
}

impl Links {
    /// Nothing goes wrong on a network of some milliseconds.
    pub const GOOD: Self = Self { latency_ms: (2, 20), loss: 0, duplication: 0, stray: 0 };
    /// Every fault at once.
    pub const BAD: Self = Self { latency_ms: (2, 60), loss: 50, duplication: 50, stray: 50 };

    /// When the copies of a message sent now arrive: none, one or two.
    pub fn arrivals(&self, now_ms: TimeMs, rng: &mut Rng) -> Vec<TimeMs> {
        if rng.hits(self.loss) {
            return Vec::new();
        }
        let copies = if rng.hits(self.duplication) { 2 } else { 1 };
        (0..copies).map(|_| now_ms + self.latency(rng)).collect()
    }

    fn latency(&self, rng: &mut Rng) -> u64 {
        let (low, high) = self.latency_ms;
        let high = if rng.hits(self.stray) { high.saturating_mul(20) } else { high };
        rng.within(low, high).max(1)
    }
}

/// Which nodes reach each other: those of one side.
#[derive(Debug, Clone, Default)]
pub struct Sides(Vec<NodeId>);

impl Sides {
    /// These nodes on one side, all others on the other.
    #[must_use]
    pub fn cut(nodes: &[NodeId]) -> Self {
        Self(nodes.to_vec())
    }

    /// Whether a message passes.
    #[must_use]
    pub fn joins(&self, a: NodeId, b: NodeId) -> bool {
        self.0.contains(&a) == self.0.contains(&b)
    }
}
