//! The life of a lease at its provider. A lease lasts as long as its window: its workload may end
//! before, and be run again.
//!
//! ```text
//! Reserved → Ready → Running ⇄ Exited → Ended → Released
//!     └────────┴────────┴──────────↗   stopped, out of time, or failed by the host
//!     └────────┴────────┴──────────⇄ Interrupted   the host has lost its process, and starts it again
//! ```

use serde::{Deserialize, Serialize};

use super::objects::Outcome;
use crate::code;
use crate::units::TimeMs;

/// What happened to a lease on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// All content is here: it can be launched.
    Complete,
    /// The workload is prepared and waits for its window.
    Ready,
    /// The holder has read a result to its end, or there is none of this name.
    Fetched {
        name: String,
    },
    /// The host could not prepare, keep or launch it.
    Failed {
        code: &'static str,
    },
    /// A run of the workload has begun.
    Started {
        /// 1 for the first.
        run: u32,
        /// When the lease came to be at its holder's disposal, unix ms.
        at_ms: TimeMs,
    },
    Usage(Usage),
    /// Of the time that is lost, so much was lost in maintenances that were announced, ms in all.
    Announced {
        ms: u64,
    },
    /// The workload ended by itself, or cannot be run; the lease goes on.
    Exited {
        exit: Exit,
        /// When the lease came to be at its holder's disposal, unix ms; `None` before its window.
        started_at_ms: Option<TimeMs>,
        usage: Usage,
    },
    /// The host has lost the process of the lease, and will start it again.
    Interrupted {
        loss: Loss,
        /// Last sign of life, unix ms.
        since_ms: TimeMs,
        /// When the lease came to be at its holder's disposal, unix ms; `None` before its window.
        started_at_ms: Option<TimeMs>,
        usage: Usage,
    },
    /// The lease is over.
    Ended {
        outcome: Outcome,
        /// When it came to be at its holder's disposal, unix ms; `None` if it never did.
        started_at_ms: Option<TimeMs>,
        /// Unix ms.
        at_ms: TimeMs,
        usage: Usage,
    },
    /// Process and directory are gone.
    Released {
        /// What could not be removed: empty, or a fault of the host.
        left_behind: Vec<String>,
    },
}

/// How the host lost the process of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// It vanished while the host went on.
    Process,
    /// The host was started anew.
    Host,
    /// It was ended for a maintenance that was announced.
    Maintenance,
}

impl Loss {
    /// Reason code for the holder.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Process => code!("lease.process_lost"),
            Self::Host => code!("lease.host_restarted"),
            Self::Maintenance => code!("lease.maintenance"),
        }
    }
}

/// What a workload has used in all its runs, and what of its time the host has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time, µs.
    pub cpu_us: u64,
    /// Highest memory use, bytes.
    pub memory_peak_bytes: u64,
    pub output_bytes: u64,
    /// Time in which the workload waited for processors because its blocks have no more of them, µs.
    pub throttled_us: u64,
    /// Time in which the lease had no process and then had one again, ms.
    pub interrupted_ms: u64,
}

impl Usage {
    /// Counters only rise, whatever order samples come in.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.max(other.cpu_us),
            memory_peak_bytes: self.memory_peak_bytes.max(other.memory_peak_bytes),
            output_bytes: self.output_bytes.max(other.output_bytes),
            throttled_us: self.throttled_us.max(other.throttled_us),
            interrupted_ms: self.interrupted_ms.max(other.interrupted_ms),
        }
    }
}

/// How a run of a workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 1 for the first; 0 for what could never be run.
    pub run: u32,
    pub outcome: Outcome,
    /// Unix ms.
    pub at_ms: TimeMs,
    /// Why it cannot be run, for [`Outcome::Unfit`]: reason code.
    pub code: Option<String>,
}

/// How and when a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When it came to be at its holder's disposal, unix ms; `None` if it never did.
    pub started_at_ms: Option<TimeMs>,
    /// Unix ms, not before the start.
    pub ended_at_ms: TimeMs,
    /// What the workload came to by itself, else what ended the lease.
    pub outcome: Outcome,
    pub usage: Usage,
    /// Runs that had begun.
    pub runs: u32,
}

/// Where a lease stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Reserved,
    /// Prepared, waits for its window.
    Ready,
    Running {
        /// When the lease came to be at its holder's disposal, unix ms.
        started_at_ms: TimeMs,
        /// 1 for the first.
        run: u32,
        usage: Usage,
    },
    /// The workload is over, the window is not: the disk is kept, and it can be run again, or
    /// another one.
    Exited {
        /// As in `Running`; `None` before the window.
        started_at_ms: Option<TimeMs>,
        exit: Exit,
        usage: Usage,
    },
    /// Without a process, which the host starts again: its disk is kept.
    Interrupted {
        /// As in `Exited`.
        started_at_ms: Option<TimeMs>,
        /// Runs that had begun.
        run: u32,
        loss: Loss,
        /// Last sign of life, unix ms.
        since_ms: TimeMs,
        /// Without the time since then.
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

/// Names of phases on the wire and for people.
const NAMES: [&str; 7] =
    ["reserved", "ready", "running", "exited", "interrupted", "ended", "released"];

impl Phase {
    /// Name on the wire and for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAMES[match self {
            Self::Reserved => 0,
            Self::Ready => 1,
            Self::Running { .. } => 2,
            Self::Exited { .. } => 3,
            Self::Interrupted { .. } => 4,
            Self::Ended(_) => 5,
            Self::Released { .. } => 6,
        }]
    }

    /// The name of a phase that a peer sent, if it is one.
    #[must_use]
    pub fn named(text: &str) -> Option<&'static str> {
        NAMES.into_iter().find(|name| *name == text)
    }

    /// The end, once there is one.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Ended(end) | Self::Released { end, .. } => Some(end),
            Self::Reserved
            | Self::Ready
            | Self::Running { .. }
            | Self::Exited { .. }
            | Self::Interrupted { .. } => None,
        }
    }

    /// The exit of a workload whose lease goes on.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited { exit, .. } => Some(exit),
            Self::Reserved
            | Self::Ready
            | Self::Running { .. }
            | Self::Interrupted { .. }
            | Self::Ended(_)
            | Self::Released { .. } => None,
        }
    }

    /// What the last run, or the lease, came to.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        let exit = self.exit().map(|exit| &exit.outcome);
        exit.or_else(|| self.end().map(|end| &end.outcome))
    }

    /// When it came to be at its holder's disposal, unix ms.
    #[must_use]
    pub fn started_at_ms(&self) -> Option<TimeMs> {
        match self {
            Self::Running { started_at_ms, .. } => Some(*started_at_ms),
            Self::Exited { started_at_ms, .. } | Self::Interrupted { started_at_ms, .. } => {
                *started_at_ms
            }
            Self::Reserved | Self::Ready | Self::Ended(_) | Self::Released { .. } => {
                self.end().and_then(|end| end.started_at_ms)
            }
        }
    }

    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match self {
            Self::Running { usage, .. }
            | Self::Exited { usage, .. }
            | Self::Interrupted { usage, .. } => *usage,
            Self::Reserved | Self::Ready | Self::Ended(_) | Self::Released { .. } => {
                self.end().map_or(Usage::default(), |end| end.usage)
            }
        }
    }

    /// Runs that have begun.
    #[must_use]
    pub fn runs(&self) -> u32 {
        match self {
            Self::Reserved | Self::Ready => 0,
            Self::Running { run, .. } | Self::Interrupted { run, .. } => *run,
            Self::Exited { exit, .. } => exit.run,
            Self::Ended(end) | Self::Released { end, .. } => end.runs,
        }
    }

    /// Since when nothing of the lease can be had that is sold, unix ms.
    #[must_use]
    pub fn lost_since_ms(&self) -> Option<TimeMs> {
        match (self, self.started_at_ms()) {
            (Self::Interrupted { since_ms, .. }, Some(started_at_ms)) => {
                Some((*since_ms).max(started_at_ms))
            }
            _ => None,
        }
    }

    /// Time of the lease until then that was lost to interruptions, ms.
    #[must_use]
    pub fn interrupted_ms(&self, until_ms: TimeMs) -> u64 {
        let open_ms = self.lost_since_ms().map_or(0, |since_ms| until_ms.saturating_sub(since_ms));
        self.usage().interrupted_ms.saturating_add(open_ms)
    }

    /// The phase after an event; `None` if the event changes nothing here: it is repeated,
    /// late, or out of order.
    #[must_use]
    pub fn after(&self, event: &ExecutorEvent) -> Option<Self> {
        match (self, event) {
            (
                Self::Reserved | Self::Interrupted { started_at_ms: None, .. },
                ExecutorEvent::Ready,
            ) => Some(Self::Ready),
            (
                Self::Reserved
                | Self::Ready
                | Self::Running { .. }
                | Self::Exited { .. }
                | Self::Interrupted { .. },
                ExecutorEvent::Started { run, at_ms },
            ) if *run > self.runs() => Some(Self::Running {
                started_at_ms: self.started_at_ms().unwrap_or(*at_ms),
                run: *run,
                usage: self.usage(),
            }),
            (Self::Running { started_at_ms, run, usage }, ExecutorEvent::Usage(sample)) => {
                let (started_at_ms, run, usage) = (*started_at_ms, *run, usage.at_least(*sample));
                Some(Self::Running { started_at_ms, run, usage })
            }
            (
                Self::Reserved
                | Self::Ready
                | Self::Running { .. }
                | Self::Exited { .. }
                | Self::Interrupted { .. },
                ExecutorEvent::Exited { exit, started_at_ms, usage },
            ) if exit.run >= self.runs() => {
                let after = Self::Exited {
                    started_at_ms: self.started_at_ms().or(*started_at_ms),
                    exit: exit.clone(),
                    usage: self.usage().at_least(*usage),
                };
                (after != *self).then_some(after)
            }
            (
                Self::Reserved
                | Self::Ready
                | Self::Running { .. }
                | Self::Exited { .. }
                | Self::Interrupted { .. },
                ExecutorEvent::Interrupted { loss, since_ms, started_at_ms, usage },
            ) => {
                let after = Self::Interrupted {
                    started_at_ms: self.started_at_ms().or(*started_at_ms),
                    run: self.runs(),
                    loss: *loss,
                    since_ms: *since_ms,
                    usage: self.usage().at_least(*usage),
                };
                (after != *self).then_some(after)
            }
            (
                Self::Reserved
                | Self::Ready
                | Self::Running { .. }
                | Self::Exited { .. }
                | Self::Interrupted { .. },
                ExecutorEvent::Ended { outcome, started_at_ms, at_ms, usage },
            ) => Some(self.ended(outcome.clone(), *started_at_ms, *at_ms, *usage)),
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
        Self::Ended(End { started_at_ms, ended_at_ms, outcome, usage, runs: self.runs() })
    }
}
