//! What a lease is to run, and the bounds of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{EnvValue, EnvVar, Payload, Workload};
use capex_core::lease::workload::{self, WorkloadError};
use capex_core::reason;
use capex_core::reasons::Reason;

/// One WebAssembly memory of 32 bits is 4 GiB.
pub(super) const MAX_WASM_MEMORY_BYTES: u64 = 4 << 30;
/// Memory of one lease: the largest hosts have a few TiB.
pub(super) const MAX_MEMORY_BYTES: u64 = 16 << 40;
/// Processors of one lease, thousandths: no machine has a million, and below a hundredth the kernel
/// keeps no quota.
pub(super) const MAX_CPU_MILLI: u64 = 1_000_000_000;
pub(super) const MIN_CPU_MILLI: u64 = 10;
/// Below two pages not even the preview 1 adapter fits.
pub(super) const MIN_MEMORY_BYTES: u64 = 128 << 10;
/// Kept of each standard stream.
pub(super) const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// Disk of one lease.
pub(super) const MAX_WORK_BYTES: u64 = 16 << 40;
/// The rolling horizon of a certificate is 336 slots of an hour.
pub(super) const MAX_WINDOW_MS: u64 = 336 * 3_600_000;
/// A workload that was killed and does not end takes its process with it after this.
pub(super) const MAX_KILL_MS: u64 = 60_000;

/// A specification that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The workload itself is not allowed.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// An amount outside its bounds.
    #[error("{0} out of bounds")]
    Bounds(&'static str),
    /// The window is empty or longer than the horizon.
    #[error("the window is empty or too long")]
    Window,
}

impl SpecError {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Workload(error) => error.reason(),
            Self::Bounds(_) => reason!("spec.bounds"),
            Self::Window => reason!("spec.window"),
        }
    }
}

/// Everything a lease process needs to know; `spec.json`, of which it takes up a new one while
/// it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSpec {
    /// The lease.
    #[serde(with = "super::hex_text")]
    pub lease_id: LeaseId,
    /// What it runs.
    pub workload: Workload,
    /// Rises each time that its holder asks for another run; what runs then begins anew.
    pub order: u32,
    /// The window begins, unix ms.
    pub starts_at_ms: u64,
    /// The window ends (exclusive), unix ms.
    pub ends_at_ms: u64,
    /// Processors of a container, thousandths; a component has one thread.
    pub cpu_max_milli: u64,
    /// All memory of the workload together; of a component, its memories and tables.
    pub memory_max_bytes: u64,
    /// Kept of each standard stream; what goes beyond is dropped and counted.
    pub output_max_bytes: u64,
    /// Inputs and everything written beside them.
    pub work_max_bytes: u64,
    /// How long the end of a workload that was killed may take.
    pub kill_ms: u64,
}

/// Values of sealed variables, by name. They are handed to the lease process through a pipe, and lie
/// in its memory alone.
pub(super) type Secrets = BTreeMap<String, Zeroizing<String>>;

/// Most bytes of sealed values, with their names: what a workload may have, as JSON escapes it.
pub(super) const SECRETS_MAX_BYTES: u32 = 128 << 10;

/// As they are handed over.
pub(super) fn secrets_text(secrets: &Secrets) -> Zeroizing<Vec<u8>> {
    let values: BTreeMap<&str, &str> =
        secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Zeroizing::new(serde_json::to_vec(&values).unwrap_or_default())
}

/// Reads what was handed over; `None` for what is not that.
pub(super) fn parse_secrets(text: &[u8]) -> Option<Secrets> {
    let values: BTreeMap<String, String> = serde_json::from_slice(text).ok()?;
    Some(values.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect())
}

/// What a network and the blocks of a certificate give to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Which run it is that the holder asks for.
    pub order: u32,
    /// The window begins, unix ms.
    pub starts_at_ms: u64,
    /// The window ends (exclusive), unix ms.
    pub ends_at_ms: u64,
    /// Thousandths of a processor.
    pub cpu_max_milli: u64,
    pub memory_max_bytes: u64,
    /// Kept of each standard stream.
    pub output_max_bytes: u64,
    pub work_max_bytes: u64,
    /// How long the end of a workload that was killed may take.
    pub kill_ms: u64,
}

impl LeaseSpec {
    /// The lease that runs a redeemed workload. Memory beyond what a component can address is cut.
    #[must_use]
    pub fn of_workload(lease_id: LeaseId, workload: Workload, allowance: Allowance) -> Self {
        let memory_max_bytes = match &workload.payload {
            Payload::Wasm { .. } => MAX_WASM_MEMORY_BYTES,
            Payload::Oci { .. } | Payload::Rootfs { .. } => MAX_MEMORY_BYTES,
        };
        Self {
            lease_id,
            workload,
            order: allowance.order,
            starts_at_ms: allowance.starts_at_ms,
            ends_at_ms: allowance.ends_at_ms,
            cpu_max_milli: allowance.cpu_max_milli,
            memory_max_bytes: allowance.memory_max_bytes.min(memory_max_bytes),
            output_max_bytes: allowance.output_max_bytes.min(MAX_OUTPUT_BYTES),
            work_max_bytes: allowance.work_max_bytes.min(MAX_WORK_BYTES),
            kill_ms: allowance.kill_ms,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn validate(&self) -> Result<(), SpecError> {
        workload::validate(&self.workload, self.work_max_bytes)?;
        let bounds = [
            ("cpu_max_milli", self.cpu_max_milli, MIN_CPU_MILLI, MAX_CPU_MILLI),
            ("memory_max_bytes", self.memory_max_bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES),
            ("output_max_bytes", self.output_max_bytes, 0, MAX_OUTPUT_BYTES),
            ("work_max_bytes", self.work_max_bytes, 0, MAX_WORK_BYTES),
            ("kill_ms", self.kill_ms, 1, MAX_KILL_MS),
        ];
        for (what, amount, least, most) in bounds {
            if !(least..=most).contains(&amount) {
                return Err(SpecError::Bounds(what));
            }
        }
        let window_ms = self.ends_at_ms.saturating_sub(self.starts_at_ms);
        if window_ms == 0 || window_ms > MAX_WINDOW_MS {
            return Err(SpecError::Window);
        }
        Ok(())
    }

    /// Every blob of the lease with its size.
    #[must_use]
    pub fn blobs(&self) -> BTreeMap<Digest, u64> {
        let needs = workload::needs(&self.workload).into_iter();
        needs.map(|digest| (digest, workload::size_of(&self.workload, digest))).collect()
    }

    /// Variables of the environment, the sealed ones as they were opened at the launch; `None` if
    /// one could not be.
    pub(super) fn env<'a>(&'a self, opened: &'a Secrets) -> Option<Vec<(&'a str, &'a str)>> {
        let value = |var: &'a EnvVar| match &var.value {
            EnvValue::Plain(value) => Some((var.name.as_str(), value.as_str())),
            EnvValue::Sealed(_) => Some((var.name.as_str(), opened.get(&var.name)?.as_str())),
        };
        self.workload.env.iter().map(value).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use capex_core::lease::objects::{EnvVar, InputFile};

    use super::*;

    pub(in super::super) fn example() -> LeaseSpec {
        let workload = Workload {
            command: vec!["wordsum".into()],
            env: vec![EnvVar { name: "A".into(), value: EnvValue::Plain("b".into()) }],
            inputs: vec![InputFile { name: "input.txt".into(), digest: Digest([2; 32]), bytes: 5 }],
            results: vec!["result.txt".into()],
            ..Workload::wasm(Digest([1; 32]), 10)
        };
        LeaseSpec {
            lease_id: LeaseId([7; 32]),
            workload,
            order: 1,
            starts_at_ms: 1_000,
            ends_at_ms: 2_000,
            cpu_max_milli: 1_000,
            memory_max_bytes: 1 << 20,
            output_max_bytes: 1 << 20,
            work_max_bytes: 1 << 20,
            kill_ms: 500,
        }
    }

    #[test]
    fn the_example_is_valid_and_survives_json() {
        let spec = example();
        spec.validate().unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<LeaseSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn a_workload_gets_what_its_certificate_allows() {
        let example = example();
        let allowance = Allowance {
            order: 1,
            starts_at_ms: 1_000,
            ends_at_ms: 2_000,
            cpu_max_milli: 1_000,
            memory_max_bytes: u64::MAX,
            output_max_bytes: 1 << 20,
            work_max_bytes: 1 << 20,
            kill_ms: 500,
        };
        let spec = LeaseSpec::of_workload(example.lease_id, example.workload.clone(), allowance);
        spec.validate().unwrap();
        let expected = LeaseSpec { memory_max_bytes: MAX_WASM_MEMORY_BYTES, ..example };
        assert_eq!(spec, expected);
    }

    #[test]
    fn every_broken_rule_has_its_code() {
        type Break = fn(&mut LeaseSpec);
        let table: [(&str, Break); 6] = [
            ("workload.name", |s| s.workload.inputs[0].name = "../input.txt".into()),
            ("spec.bounds", |s| s.cpu_max_milli = MIN_CPU_MILLI - 1),
            ("spec.bounds", |s| s.memory_max_bytes = MAX_MEMORY_BYTES + 1),
            ("spec.bounds", |s| s.kill_ms = 0),
            ("spec.window", |s| s.ends_at_ms = s.starts_at_ms),
            ("spec.window", |s| s.ends_at_ms = s.starts_at_ms + MAX_WINDOW_MS + 1),
        ];
        for (index, (code, change)) in table.into_iter().enumerate() {
            let mut spec = example();
            change(&mut spec);
            assert_eq!(spec.validate().unwrap_err().code(), code, "row {index}");
        }
    }
}
