//! What the manager tells the node about its leases.

use super::state::{Ended, Outcome, Usage};
use capex_core::ids::LeaseId;
use capex_core::lease::{self, ExecutorEvent, Exit, Loss};

/// One event. After a restart an event may come again; its content is then the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Compiled and waiting for its window.
    Ready { lease: LeaseId },
    /// A run of the workload has begun.
    Started {
        lease: LeaseId,
        /// 1 for the first.
        run: u32,
        /// When the window was opened, unix ms.
        at_ms: u64,
    },
    /// A sample, about once a second.
    Usage { lease: LeaseId, usage: Usage },
    /// The workload is over, or cannot be run, and the lease goes on.
    Exited {
        lease: LeaseId,
        exit: Exit,
        /// When the window was opened, unix ms.
        started_at_ms: Option<u64>,
        usage: Usage,
    },
    /// The lease is without a process, and will be given another.
    Interrupted {
        lease: LeaseId,
        loss: Loss,
        /// Last sign of life, unix ms.
        since_ms: u64,
        /// When the window was opened, unix ms.
        started_at_ms: Option<u64>,
        usage: Usage,
    },
    /// So much of what is lost was announced to be lost, ms in all.
    Announced { lease: LeaseId, ms: u64 },
    /// The lease is over, and had begun. Its last event.
    Ended { lease: LeaseId, ended: Ended, usage: Usage },
    /// The lease is over, and never began. Its last event.
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

    /// The event of an exit.
    pub(super) fn of_exit(
        lease: LeaseId,
        (run, outcome, at_ms): (u32, &Outcome, u64),
        started_at_ms: Option<u64>,
        usage: Usage,
    ) -> Self {
        let code = matches!(outcome, Outcome::Unfit { .. }).then(|| outcome.code().to_owned());
        let exit = Exit { run, outcome: outcome.for_receipt(), at_ms, code };
        Self::Exited { lease, exit, started_at_ms, usage }
    }

    /// Why the host has failed, where that is known better than by the outcome of the lease.
    #[must_use]
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Ended { ended, .. } | Self::Failed { ended, .. } => match &ended.outcome {
                Outcome::Failed { code: Some(_), .. } => Some(ended.outcome.code()),
                _ => None,
            },
            Self::Ready { .. }
            | Self::Started { .. }
            | Self::Usage { .. }
            | Self::Exited { .. }
            | Self::Interrupted { .. }
            | Self::Announced { .. } => None,
        }
    }

    /// The lease and the engine's form of the event: its cause before itself.
    pub fn for_engine(&self) -> (LeaseId, impl Iterator<Item = ExecutorEvent>) {
        let (lease, event) = self.as_engine_event();
        let cause = self.cause().map(|code| ExecutorEvent::Failed { code });
        (lease, cause.into_iter().chain([event]))
    }

    fn as_engine_event(&self) -> (LeaseId, ExecutorEvent) {
        match self {
            Self::Ready { lease } => (*lease, ExecutorEvent::Ready),
            Self::Started { lease, run, at_ms } => {
                (*lease, ExecutorEvent::Started { run: *run, at_ms: *at_ms })
            }
            Self::Usage { lease, usage } => (*lease, ExecutorEvent::Usage(engine_usage(usage))),
            Self::Exited { lease, exit, started_at_ms, usage } => {
                let (exit, usage) = (exit.clone(), engine_usage(usage));
                (*lease, ExecutorEvent::Exited { exit, started_at_ms: *started_at_ms, usage })
            }
            Self::Interrupted { lease, loss, since_ms, started_at_ms, usage } => {
                let (loss, usage) = (*loss, engine_usage(usage));
                let (since_ms, started_at_ms) = (*since_ms, *started_at_ms);
                (*lease, ExecutorEvent::Interrupted { loss, since_ms, started_at_ms, usage })
            }
            Self::Announced { lease, ms } => (*lease, ExecutorEvent::Announced { ms: *ms }),
            Self::Ended { lease, ended, usage } => {
                (*lease, engine_end(ended, usage.output_bytes()))
            }
            Self::Failed { lease, ended, .. } => (*lease, engine_end(ended, 0)),
        }
    }
}

fn engine_usage(usage: &Usage) -> lease::Usage {
    lease::Usage {
        cpu_us: usage.cpu_us,
        memory_peak_bytes: usage.memory_peak_bytes,
        output_bytes: usage.output_bytes(),
        throttled_us: usage.throttled_us,
        interrupted_ms: usage.interrupted_ms,
    }
}

fn engine_end(ended: &Ended, output_bytes: u64) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome: ended.outcome.for_receipt(),
        started_at_ms: ended.started_at_ms,
        at_ms: ended.ended_at_ms,
        usage: lease::Usage {
            cpu_us: ended.cpu_us,
            memory_peak_bytes: ended.memory_peak_bytes,
            output_bytes,
            throttled_us: ended.throttled_us,
            interrupted_ms: ended.interrupted_ms,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capex_core::lease::objects;

    fn ended(outcome: Outcome, started_at_ms: Option<u64>) -> Ended {
        Ended {
            outcome,
            runs: 1,
            started_at_ms,
            ended_at_ms: 9,
            delivered_ms: 4,
            cpu_us: 3,
            memory_peak_bytes: 2,
            throttled_us: 6,
            interrupted_ms: 7,
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
            (Outcome::Interrupted, Some(5), objects::Outcome::Interrupted, 11),
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
                usage: lease::Usage {
                    cpu_us: 3,
                    memory_peak_bytes: 2,
                    output_bytes,
                    throttled_us: 6,
                    interrupted_ms: 7,
                },
            };
            let (told, events) = event.for_engine();
            assert_eq!((told, events.collect::<Vec<_>>()), (lease, vec![expected]));
        }
    }
}
