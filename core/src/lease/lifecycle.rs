//! The life of a lease at its provider.
//!
//! ```text
//! Reserved → Ready → Running → Ended → Released
//!     └────────┴───────────────↗   never started: stopped, out of time, or failed
//! ```

use serde::{Deserialize, Serialize};

use super::objects::Outcome;
use crate::units::TimeMs;

/// What happened to a lease on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// All content is here: it can be launched.
    Complete,
    /// The workload is prepared and waits for its window.
    Ready,
    /// The holder has read a result to its end, or there is none of this name.
    Fetched { name: String },
    /// The host could not prepare, keep or launch it.
    Failed { code: &'static str },
    Started {
        /// Unix ms.
        at_ms: TimeMs,
    },
    Usage {
        /// CPU time, µs.
        cpu_us: u64,
        /// Highest memory use, bytes.
        memory_peak_bytes: u64,
        output_bytes: u64,
    },
    Ended {
        outcome: Outcome,
        /// When it had started, unix ms; `None` if it never did.
        started_at_ms: Option<TimeMs>,
        /// Unix ms.
        at_ms: TimeMs,
        /// CPU time, µs.
        cpu_us: u64,
        /// Highest memory use, bytes.
        memory_peak_bytes: u64,
        output_bytes: u64,
    },
    /// Process and directory are gone.
    Released {
        /// What could not be removed: empty, or a fault of the host.
        left_behind: Vec<String>,
    },
}

/// What a workload has used since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    pub output_bytes: u64,
}

impl Usage {
    /// Counters only rise, whatever order samples come in.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.max(other.cpu_us),
            memory_peak_bytes: self.memory_peak_bytes.max(other.memory_peak_bytes),
            output_bytes: self.output_bytes.max(other.output_bytes),
        }
    }
}

/// How and when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When it had started, unix ms; `None` if it never did.
    pub started_at_ms: Option<TimeMs>,
    /// Unix ms, not before the start.
    pub ended_at_ms: TimeMs,
    pub outcome: Outcome,
    pub usage: Usage,
}

/// Where a lease stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Reserved,
    /// Prepared, waits for its window.
    Ready,
    Running {
        /// Unix ms.
        started_at_ms: TimeMs,
        usage: Usage,
    },
    /// Over; results are kept for a while.
    Ended(End),
    /// Process and directory are gone.
    Released {
        end: End,
        /// What could not be removed.
        left_behind: Vec<String>,
    },
}

impl Phase {
    /// Name on the wire and for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Ended(_) => "ended",
            Self::Released { .. } => "released",
        }
    }

    /// Whether a text that a peer sent is the name of a phase.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        matches!(text, "reserved" | "ready" | "running" | "ended" | "released")
    }

    /// The end, once there is one.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Ended(end) | Self::Released { end, .. } => Some(end),
            Self::Reserved | Self::Ready | Self::Running { .. } => None,
        }
    }

    /// When it started, unix ms.
    #[must_use]
    pub fn started_at_ms(&self) -> Option<TimeMs> {
        match self {
            Self::Running { started_at_ms, .. } => Some(*started_at_ms),
            Self::Reserved | Self::Ready | Self::Ended(_) | Self::Released { .. } => {
                self.end().and_then(|end| end.started_at_ms)
            }
        }
    }

    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match self {
            Self::Running { usage, .. } => *usage,
            Self::Reserved | Self::Ready | Self::Ended(_) | Self::Released { .. } => {
                self.end().map_or(Usage::default(), |end| end.usage)
            }
        }
    }

    /// The phase after an event; `None` if the event changes nothing here: it is repeated,
    /// late, or out of order.
    #[must_use]
    pub fn after(&self, event: &ExecutorEvent) -> Option<Self> {
        match (self, event) {
            (Self::Reserved, ExecutorEvent::Ready) => Some(Self::Ready),
            (Self::Reserved | Self::Ready, ExecutorEvent::Started { at_ms }) => {
                Some(Self::Running { started_at_ms: *at_ms, usage: Usage::default() })
            }
            (
                Self::Running { started_at_ms, usage },
                ExecutorEvent::Usage { cpu_us, memory_peak_bytes, output_bytes },
            ) => {
                let sample = Usage {
                    cpu_us: *cpu_us,
                    memory_peak_bytes: *memory_peak_bytes,
                    output_bytes: *output_bytes,
                };
                let usage = usage.at_least(sample);
                Some(Self::Running { started_at_ms: *started_at_ms, usage })
            }
            (
                Self::Reserved | Self::Ready | Self::Running { .. },
                ExecutorEvent::Ended {
                    outcome,
                    started_at_ms,
                    at_ms,
                    cpu_us,
                    memory_peak_bytes,
                    output_bytes,
                },
            ) => {
                let last = Usage {
                    cpu_us: *cpu_us,
                    memory_peak_bytes: *memory_peak_bytes,
                    output_bytes: *output_bytes,
                };
                Some(self.ended(outcome.clone(), *started_at_ms, *at_ms, last))
            }
            (Self::Ended(end), ExecutorEvent::Released { left_behind }) => {
                Some(Self::Released { end: end.clone(), left_behind: left_behind.clone() })
            }
            _ => None,
        }
    }

    /// The end of a lease that has none yet.
    #[must_use]
    pub fn ended(
        &self,
        outcome: Outcome,
        started_at_ms: Option<TimeMs>,
        at_ms: TimeMs,
        last: Usage,
    ) -> Self {
        let started_at_ms = self.started_at_ms().or(started_at_ms);
        let ended_at_ms = at_ms.max(started_at_ms.unwrap_or(0));
        let usage = self.usage().at_least(last);
        Self::Ended(End { started_at_ms, ended_at_ms, outcome, usage })
    }
}
