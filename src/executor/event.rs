//! What the manager tells the node about its leases.

use super::state::{Ended, Usage};
use capex_core::ids::LeaseId;
use capex_core::lease::ExecutorEvent;

/// One event. After a restart an event may come again; its content is then the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Compiled and waiting for its window.
    Ready { lease: LeaseId },
    Started {
        lease: LeaseId,
        /// Unix ms.
        at_ms: u64,
    },
    /// A sample, about once a second.
    Usage { lease: LeaseId, usage: Usage },
    /// The workload ran and is over. The last event of a lease.
    Ended { lease: LeaseId, ended: Ended, usage: Usage },
    /// The workload never ran. The last event of a lease.
    Failed {
        lease: LeaseId,
        ended: Ended,
        /// Stable reason code: that of the outcome.
        code: &'static str,
        reason: String,
    },
}

impl LeaseEvent {
    /// The event of an end, by whether the workload ever ran.
    pub(super) fn of_end(lease: LeaseId, ended: Ended, usage: Usage) -> Self {
        if ended.started_at_ms.is_some() {
            return Self::Ended { lease, ended, usage };
        }
        let code = ended.outcome.code();
        let reason = ended.outcome.to_string();
        Self::Failed { lease, ended, code, reason }
    }

    /// The lease and the engine's form of the event.
    #[must_use]
    pub fn for_engine(&self) -> (LeaseId, ExecutorEvent) {
        match self {
            Self::Ready { lease } => (*lease, ExecutorEvent::Ready),
            Self::Started { lease, at_ms } => (*lease, ExecutorEvent::Started { at_ms: *at_ms }),
            Self::Usage { lease, usage } => (*lease, engine_usage(usage)),
            Self::Ended { lease, ended, usage } => {
                (*lease, engine_end(ended, usage.output_bytes()))
            }
            Self::Failed { lease, ended, .. } => (*lease, engine_end(ended, 0)),
        }
    }
}

fn engine_usage(usage: &Usage) -> ExecutorEvent {
    ExecutorEvent::Usage {
        cpu_us: usage.cpu_us,
        memory_peak_bytes: usage.memory_peak_bytes,
        output_bytes: usage.output_bytes(),
    }
}

fn engine_end(ended: &Ended, output_bytes: u64) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome: ended.outcome.for_receipt(),
        started_at_ms: ended.started_at_ms,
        at_ms: ended.ended_at_ms,
        cpu_us: ended.cpu_us,
        memory_peak_bytes: ended.memory_peak_bytes,
        output_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Outcome;
    use super::*;
    use capex_core::lease::objects;

    fn ended(outcome: Outcome, started_at_ms: Option<u64>) -> Ended {
        Ended {
            outcome,
            started_at_ms,
            ended_at_ms: 9,
            delivered_ms: 4,
            cpu_us: 3,
            memory_peak_bytes: 2,
        }
    }

    #[test]
    fn an_end_without_a_start_is_a_failure_of_the_same_outcome() {
        let lease = LeaseId([1; 32]);
        let usage = Usage { stdout_bytes: 5, stderr_bytes: 6, ..Usage::default() };
        let table = [
            (Outcome::Exited { code: 3 }, Some(5), objects::Outcome::Exited { code: 3 }, 11),
            (Outcome::Memory, Some(5), objects::Outcome::OutOfMemory, 11),
            (Outcome::OutputQuota, Some(5), objects::Outcome::OutOfDisk, 11),
            (Outcome::Interrupted, Some(5), objects::Outcome::Failed, 11),
            (Outcome::failed("no component"), None, objects::Outcome::Failed, 0),
            (Outcome::Stopped, None, objects::Outcome::Stopped, 0),
        ];
        for (outcome, started_at_ms, told, output_bytes) in table {
            let code = outcome.code();
            let event = LeaseEvent::of_end(lease, ended(outcome, started_at_ms), usage);
            match &event {
                LeaseEvent::Ended { .. } => assert!(started_at_ms.is_some()),
                LeaseEvent::Failed { code: told, .. } => {
                    assert_eq!((*told, None), (code, started_at_ms))
                }
                other => panic!("{other:?}"),
            }
            let expected = ExecutorEvent::Ended {
                outcome: told,
                started_at_ms,
                at_ms: 9,
                cpu_us: 3,
                memory_peak_bytes: 2,
                output_bytes,
            };
            assert_eq!(event.for_engine(), (lease, expected));
        }
    }
}
