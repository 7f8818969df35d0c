//! A host that pretends to run leases. Like the processes of a real one it outlives the
//! daemon, and tells a new life what it missed.

use std::collections::BTreeMap;

use capex_core::ids::LeaseId;
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::Outcome;
use capex_core::units::TimeMs;

/// Time that a workload needs to be prepared, ms.
const PREPARE_MS: u64 = 20;

/// Leases on one host: what happened and will happen to each.
#[derive(Debug, Default)]
pub(super) struct Host {
    leases: BTreeMap<LeaseId, Vec<(TimeMs, ExecutorEvent)>>,
}

impl Host {
    /// Prepares a lease, or tells again what has become of it.
    pub(super) fn start(
        &mut self,
        now_ms: TimeMs,
        lease: LeaseId,
        starts_at_ms: TimeMs,
        ends_at_ms: TimeMs,
    ) -> Vec<(TimeMs, ExecutorEvent)> {
        if let Some(known) = self.leases.get(&lease) {
            let missed = known.iter().filter(|(at_ms, _)| *at_ms <= now_ms);
            return missed.map(|(_, event)| (now_ms + 1, event.clone())).collect();
        }
        let ready_ms = now_ms + PREPARE_MS;
        let started_ms = ready_ms.max(starts_at_ms);
        let ended_ms = ends_at_ms.max(started_ms);
        let events = vec![
            (ready_ms, ExecutorEvent::Ready),
            (started_ms, ExecutorEvent::Started { at_ms: started_ms }),
            (ended_ms, ended(Outcome::Deadline, started_ms, ended_ms)),
        ];
        self.leases.insert(lease, events.clone());
        events
    }

    /// Ends a lease early.
    pub(super) fn stop(
        &mut self,
        now_ms: TimeMs,
        lease: LeaseId,
    ) -> Option<(TimeMs, ExecutorEvent)> {
        let events = self.leases.get_mut(&lease)?;
        events.retain(|(at_ms, _)| *at_ms <= now_ms);
        let started = |event: &ExecutorEvent| matches!(event, ExecutorEvent::Started { .. });
        let started_ms = events.iter().find(|(_, event)| started(event)).map_or(now_ms, |e| e.0);
        let last = (now_ms + 1, ended(Outcome::Stopped, started_ms, now_ms));
        events.push(last.clone());
        Some(last)
    }
}

fn ended(outcome: Outcome, started_ms: TimeMs, at_ms: TimeMs) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome,
        started_at_ms: Some(started_ms),
        at_ms,
        cpu_us: at_ms.saturating_sub(started_ms) * 1000,
        memory_peak_bytes: 1 << 20,
        output_bytes: 0,
    }
}
