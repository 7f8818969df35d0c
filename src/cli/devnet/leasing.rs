//! Leases: redeemed, run at their provider, their output here, and nothing left there.

use std::time::Duration;

use super::Run;
use super::broken::Broken;
use super::document::{LeasePart, ResultPart};
use super::holding::RESULT;
use super::story::{count, id, list};
use super::wait::{Awaited, Look};
use crate::api::types::Lease;
use crate::executor::samples::wordsum::expected;
use capex_core::ids::to_hex;
use capex_core::reason;
use capex_core::wire::sha256;

/// Redeemed as soon as it is held, a lease waits for its window: the lead time and the window
/// itself, half a minute in all, and as much again for a slow machine.
const RUN_TIME: Duration = Duration::from_secs(60);
/// From the end of a window until the provider has forgotten everything but the receipts.
const END_TIME: Duration = Duration::from_secs(40);

impl Run<'_> {
    /// Redeems every certificate and follows the leases to their end.
    ///
    /// # Errors
    /// What did not run, did not give the expected result, or was left behind.
    pub(super) fn lease(&mut self) -> Result<(), Broken> {
        let mut leases = Vec::new();
        let mut told = Vec::new();
        for (title, input) in self.titles.iter().zip(&self.plan.inputs) {
            let lease_id = self.redeem(title, input)?;
            let [holder, provider] = [title.holder, title.provider].map(|n| self.nodes[n].name());
            told.push(format!("{holder} has lease {} at {provider}", id(&lease_id)));
            leases.push(lease_id);
        }
        let (all, told) = (leases.len(), told.join(", "));
        self.story.tell(format_args!(
            "all {all} certificates are redeemed, each with a workload and its input: {told}"
        ))?;
        let container = self.order_container()?;
        let mut leases_to_see = leases.iter().enumerate();
        // The first window is the earliest; that of the container comes next.
        if let Some((n, lease_id)) = leases_to_see.next() {
            self.see_output(n, lease_id)?;
        }
        let container = container.map(|ordered| self.see_container(ordered)).transpose()?;
        for (n, lease_id) in leases_to_see {
            self.see_output(n, lease_id)?;
        }
        self.await_window_end()?;
        for (n, lease_id) in leases.iter().enumerate() {
            let part = self.see_end(n, lease_id)?;
            self.document.leases.push(part);
        }
        self.tell_end()?;
        container.map_or(Ok(()), |running| self.end_container(running))
    }

    fn tell_end(&mut self) -> Result<(), Broken> {
        let leases = &self.document.leases;
        let delivered = leases.iter().map(|part| format!("{} s", part.delivered_s));
        let delivered = list(&delivered.collect::<Vec<_>>());
        let receipts = leases.iter().map(|part| u64::from(part.receipts)).sum();
        self.story.tell(format_args!(
            "the windows ended: {delivered} delivered, {} signed by both sides, nothing left behind",
            count(receipts, "receipt"),
        ))
    }

    /// A workload that ends early leaves its lease standing until the window ends.
    fn await_window_end(&self) -> Result<(), Broken> {
        let mut end = 0;
        for title in &self.titles {
            end = end.max(self.nodes[title.holder].certificate(&title.cert_id)?.window[1]);
        }
        let Some(holder) = self.nodes.last() else { return Ok(()) };
        let awaited =
            Awaited { what: "the end of the window", from: holder.name(), limit: RUN_TIME };
        self.wait(awaited, || {
            let slot = holder.status()?.slot;
            Ok(Look::when(slot >= end, || format!("slot {slot} of {end}")))
        })
    }

    /// The workload's line arrives while the lease is still its holder's.
    fn see_output(&mut self, n: usize, lease_id: &str) -> Result<(), Broken> {
        let (title, input) = (&self.titles[n], &self.plan.inputs[n]);
        let [holder, provider] = [title.holder, title.provider].map(|n| &self.nodes[n]);
        let awaited =
            Awaited { what: "the workload's output", from: provider.name(), limit: RUN_TIME };
        let line = self.wait(awaited, || {
            let lease = provider.lease(lease_id)?;
            if lease.phase == "failed" {
                return Err(failed(&lease).at(provider.name()));
            }
            let output = holder.logs(lease_id, "stdout")?;
            Ok(Look::some(output.ends_with('\n').then_some(output), || {
                format!("the lease is {}", lease.phase)
            }))
        })?;
        let (text, bytes) = (line.trim_end().to_owned(), input.len() as u64);
        self.story.tell(format_args!(
            "{} verified {} and ran the workload on {}; {} reads: {text}",
            provider.name(),
            id(&title.cert_id),
            count(bytes, "byte"),
            holder.name(),
        ))
    }

    fn see_end(&self, n: usize, lease_id: &str) -> Result<LeasePart, Broken> {
        let (title, input) = (&self.titles[n], &self.plan.inputs[n]);
        let [holder, provider] = [title.holder, title.provider].map(|n| &self.nodes[n]);
        let awaited =
            Awaited { what: "the end of the lease", from: provider.name(), limit: END_TIME };
        let (here, there) = self.wait(awaited, || {
            let [here, there] = [holder.lease(lease_id)?, provider.lease(lease_id)?];
            let accounts =
                |lease: &Lease| (lease.delivered_s.clone(), lease.receipts, lease.countersigned);
            let over = there.phase == "released" && there.countersigned;
            let equal = accounts(&here) == accounts(&there);
            let instead =
                format!("{:?} and {:?}, {}", accounts(&here), accounts(&there), there.phase);
            Ok(Look::some((over && equal).then_some((here, there)), || instead))
        })?;
        let want = expected(input.as_bytes());
        let result = holder.result(lease_id, RESULT)?;
        let stdout = holder.logs(lease_id, "stdout")?;
        let part = LeasePart {
            stderr: holder.logs(lease_id, "stderr")?,
            result: ResultPart {
                name: RESULT,
                sha256: to_hex(&sha256(&[&result])),
                matches_expected: result == want.as_bytes() && stdout == want,
            },
            stdout,
            lease_id: here.lease_id,
            cert_id: here.cert_id,
            holder: here.holder,
            provider: here.provider,
            backend: there.backend,
            exit_code: there.exit_code,
            started_at: there.started_at,
            ended_at: there.ended_at,
            delivered_s: there.delivered_s,
            cpu_us: there.cpu_us,
            memory_peak_bytes: there.memory_peak_bytes,
            receipts: there.receipts,
            countersigned: there.countersigned,
            left_behind: there.left_behind,
        };
        check(&part).map_err(|broken| broken.at(provider.name()))?;
        Ok(part)
    }
}

fn failed(lease: &Lease) -> Broken {
    let code = lease.code.as_deref().unwrap_or("no code");
    let message = format!("lease {} failed: {code}", id(&lease.lease_id));
    Broken::new(reason!("devnet.lease_failed"), message)
}

fn check(part: &LeasePart) -> Result<(), Broken> {
    let short = id(&part.lease_id);
    let wrong =
        |what: String| Err(Broken::new(reason!("devnet.lease"), format!("lease {short}: {what}")));
    if part.exit_code != Some(0) {
        return wrong(format!("exit code {:?}", part.exit_code));
    }
    if !part.result.matches_expected {
        return wrong("the result is not what the work gives".to_owned());
    }
    if !part.left_behind.is_empty() {
        return wrong(format!("left behind: {}", part.left_behind.join(", ")));
    }
    Ok(())
}
