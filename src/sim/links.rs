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

/// What happens to one message that a test chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    Lost,
    /// It arrives once more, so long after the first time, ms.
    Again(u64),
    /// It is overtaken by what is sent within this time, ms.
    Late(u64),
}

impl Mishap {
    fn applied(self, arrivals: &mut Vec<TimeMs>) {
        match self {
            Self::Lost => arrivals.clear(),
            Self::Again(ms) => arrivals.extend(arrivals.first().map(|first| first + ms)),
            Self::Late(ms) => arrivals.iter_mut().for_each(|at_ms| *at_ms += ms),
        }
    }
}

/// Messages of settlements, requests and answers, in the order in which they are sent.
#[derive(Debug, Clone, Default)]
pub struct Settling {
    sent: u64,
    chosen: Option<(u64, Mishap)>,
    silenced: Option<[u8; 32]>,
}

impl Settling {
    /// Lets something happen to such a message, counted from 1.
    pub fn choose(&mut self, number: u64, mishap: Mishap) {
        self.chosen = Some((number, mishap));
    }

    /// Loses every message that names something, such as a trade.
    pub fn silence(&mut self, name: [u8; 32]) {
        self.silenced = Some(name);
    }

    /// Messages sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn send(&mut self, bytes: &[u8], arrivals: &mut Vec<TimeMs>) {
        self.sent += 1;
        if self.silenced.is_some_and(|name| bytes.windows(32).any(|part| part == name)) {
            arrivals.clear();
        }
        if let Some((_, mishap)) = self.chosen.filter(|(number, _)| *number == self.sent) {
            mishap.applied(arrivals);
        }
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
