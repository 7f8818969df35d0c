//! What a lease is to run, and the bounds of it.

use capex_core::reason;
use capex_core::reasons::Reason;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::Workload;
use capex_core::limits::{WORKLOAD_FILES_MAX, WORKLOAD_MAX_BYTES, WORKLOAD_NAME_BYTES};

/// Arguments, and environment variables, of one lease.
pub const MAX_STRINGS: usize = 64;
/// Bytes of all arguments and variables together.
pub const MAX_STRINGS_BYTES: usize = 16 << 10;
/// One WebAssembly memory of 32 bits is 4 GiB.
pub const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Below two pages not even the preview 1 adapter fits.
pub const MIN_MEMORY_BYTES: u64 = 128 << 10;
/// Kept of each standard stream.
pub const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// Disk of one lease.
pub const MAX_WORK_BYTES: u64 = 64 << 30;
/// The rolling horizon of a certificate is 336 slots of an hour.
pub const MAX_WINDOW_MS: u64 = 336 * 3_600_000;
/// A workload that does not yield is cut off after this at the latest.
pub const MAX_GRACE_MS: u64 = 60_000;

/// A specification that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A file name that could leave its directory or hide in it.
    #[error("{0:?} is no plain file name")]
    Name(String),
    /// One name twice among the inputs, or among the results.
    #[error("{0:?} is named twice")]
    DuplicateName(String),
    /// Too many inputs, results, arguments or variables.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Arguments or variables too long, holding NUL, or a variable without a name.
    #[error("arguments or environment out of bounds")]
    Strings,
    /// An amount outside its bounds.
    #[error("{0} out of bounds")]
    Bounds(&'static str),
    /// One digest announced with two sizes.
    #[error("one digest with two sizes")]
    DigestSizes,
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
            Self::Name(_) => reason!("spec.name"),
            Self::DuplicateName(_) => reason!("spec.duplicate_name"),
            Self::TooMany(_) => reason!("spec.too_many"),
            Self::Strings => reason!("spec.strings"),
            Self::Bounds(_) => reason!("spec.bounds"),
            Self::DigestSizes => reason!("spec.digest_sizes"),
            Self::Window => reason!("spec.window"),
        }
    }
}

/// A file laid into the working directory before the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Plain file name, at most [`WORKLOAD_NAME_BYTES`].
    pub name: String,
    /// Its content.
    #[serde(with = "super::hex_text")]
    pub digest: Digest,
    pub bytes: u64,
}

/// Everything a lease process needs to know; written once as `spec.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSpec {
    /// The lease.
    #[serde(with = "super::hex_text")]
    pub lease_id: LeaseId,
    /// The WASI 0.2 component to run: an export of `wasi:cli/run`.
    #[serde(with = "super::hex_text")]
    pub component: Digest,
    /// Size of the component; with the inputs at most [`WORKLOAD_MAX_BYTES`].
    pub component_bytes: u64,
    /// Files of the working directory at the start.
    pub inputs: Vec<Input>,
    /// Arguments, the first of which is the program's name by custom.
    pub args: Vec<String>,
    /// Environment variables: there are no others.
    pub env: Vec<(String, String)>,
    /// Names of the files of the working directory that can be fetched afterwards.
    pub results: Vec<String>,
    /// The window begins, unix ms.
    pub starts_at_ms: u64,
    /// The window ends (exclusive), unix ms.
    pub ends_at_ms: u64,
    /// All linear memories and tables together.
    pub memory_max_bytes: u64,
    /// Kept of each standard stream; what goes beyond is dropped and counted.
    pub output_max_bytes: u64,
    /// Inputs and everything written beside them.
    pub work_max_bytes: u64,
    /// How long a workload may take to yield once interrupted.
    pub grace_ms: u64,
}

/// What a network and the blocks of a certificate give to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The window begins, unix ms.
    pub starts_at_ms: u64,
    /// The window ends (exclusive), unix ms.
    pub ends_at_ms: u64,
    pub memory_max_bytes: u64,
    /// Kept of each standard stream.
    pub output_max_bytes: u64,
    pub work_max_bytes: u64,
    /// How long a workload may take to yield.
    pub grace_ms: u64,
}

impl LeaseSpec {
    /// The lease that runs a redeemed workload. Memory beyond [`MAX_MEMORY_BYTES`] and
    /// disk beyond [`MAX_WORK_BYTES`] cannot be used by one component and are cut.
    #[must_use]
    pub fn of_workload(lease_id: LeaseId, workload: &Workload, allowance: Allowance) -> Self {
        let input = |file: &capex_core::lease::objects::InputFile| Input {
            name: file.name.clone(),
            digest: file.digest,
            bytes: file.bytes,
        };
        Self {
            lease_id,
            component: workload.component,
            component_bytes: workload.component_bytes,
            inputs: workload.inputs.iter().map(input).collect(),
            args: workload.args.clone(),
            env: Vec::new(),
            results: workload.results.clone(),
            starts_at_ms: allowance.starts_at_ms,
            ends_at_ms: allowance.ends_at_ms,
            memory_max_bytes: allowance.memory_max_bytes.min(MAX_MEMORY_BYTES),
            output_max_bytes: allowance.output_max_bytes.min(MAX_OUTPUT_BYTES),
            work_max_bytes: allowance.work_max_bytes.min(MAX_WORK_BYTES),
            grace_ms: allowance.grace_ms,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn validate(&self) -> Result<(), SpecError> {
        check_names("inputs", self.inputs.iter().map(|input| &input.name))?;
        check_names("results", self.results.iter())?;
        check_strings(&self.args, &self.env)?;
        self.check_amounts()?;
        self.check_digests()?;
        let window_ms = self.ends_at_ms.saturating_sub(self.starts_at_ms);
        if window_ms == 0 || window_ms > MAX_WINDOW_MS {
            return Err(SpecError::Window);
        }
        Ok(())
    }

    /// Every blob of the lease with its size, the component first among equals.
    #[must_use]
    pub fn blobs(&self) -> BTreeMap<Digest, u64> {
        let inputs = self.inputs.iter().map(|input| (input.digest, input.bytes));
        inputs.chain([(self.component, self.component_bytes)]).collect()
    }

    fn check_amounts(&self) -> Result<(), SpecError> {
        let bounds = [
            ("component_bytes", self.component_bytes, 1, WORKLOAD_MAX_BYTES),
            ("memory_max_bytes", self.memory_max_bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES),
            ("output_max_bytes", self.output_max_bytes, 0, MAX_OUTPUT_BYTES),
            ("work_max_bytes", self.work_max_bytes, 0, MAX_WORK_BYTES),
            ("grace_ms", self.grace_ms, 1, MAX_GRACE_MS),
        ];
        for (what, amount, least, most) in bounds {
            if !(least..=most).contains(&amount) {
                return Err(SpecError::Bounds(what));
            }
        }
        let inputs = self.inputs.iter().fold(0u64, |sum, input| sum.saturating_add(input.bytes));
        if inputs > self.work_max_bytes
            || inputs.saturating_add(self.component_bytes) > WORKLOAD_MAX_BYTES
        {
            return Err(SpecError::Bounds("inputs"));
        }
        Ok(())
    }

    fn check_digests(&self) -> Result<(), SpecError> {
        let sizes = self.blobs();
        let consistent = |input: &Input| sizes.get(&input.digest) == Some(&input.bytes);
        if self.inputs.iter().all(consistent) { Ok(()) } else { Err(SpecError::DigestSizes) }
    }
}

fn check_names<'a>(
    what: &'static str,
    names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), SpecError> {
    if names.len() > WORKLOAD_FILES_MAX {
        return Err(SpecError::TooMany(what));
    }
    let mut seen = BTreeSet::new();
    for name in names {
        if !is_plain_name(name) {
            return Err(SpecError::Name(name.clone()));
        }
        if !seen.insert(name) {
            return Err(SpecError::DuplicateName(name.clone()));
        }
    }
    Ok(())
}

/// One path component that is neither special nor able to confuse a terminal.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= WORKLOAD_NAME_BYTES
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control())
}

fn check_strings(args: &[String], env: &[(String, String)]) -> Result<(), SpecError> {
    if args.len() > MAX_STRINGS {
        return Err(SpecError::TooMany("args"));
    }
    if env.len() > MAX_STRINGS {
        return Err(SpecError::TooMany("env"));
    }
    let texts = || args.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
    let bytes: usize = texts().map(String::len).sum();
    let named = env.iter().all(|(name, _)| !name.is_empty() && !name.contains('='));
    if bytes > MAX_STRINGS_BYTES || texts().any(|text| text.contains('\0')) || !named {
        return Err(SpecError::Strings);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn example() -> LeaseSpec {
        LeaseSpec {
            lease_id: LeaseId([7; 32]),
            component: Digest([1; 32]),
            component_bytes: 10,
            inputs: vec![Input { name: "input.txt".into(), digest: Digest([2; 32]), bytes: 5 }],
            args: vec!["wordsum".into()],
            env: vec![("A".into(), "b".into())],
            results: vec!["result.txt".into()],
            starts_at_ms: 1_000,
            ends_at_ms: 2_000,
            memory_max_bytes: 1 << 20,
            output_max_bytes: 1 << 20,
            work_max_bytes: 1 << 20,
            grace_ms: 500,
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
        use capex_core::lease::objects::{InputFile, WorkloadKind};
        let example = example();
        let workload = Workload {
            kind: WorkloadKind::Wasm,
            component: example.component,
            component_bytes: example.component_bytes,
            args: example.args.clone(),
            inputs: vec![InputFile { name: "input.txt".into(), digest: Digest([2; 32]), bytes: 5 }],
            results: example.results.clone(),
        };
        let allowance = Allowance {
            starts_at_ms: 1_000,
            ends_at_ms: 2_000,
            memory_max_bytes: u64::MAX,
            output_max_bytes: 1 << 20,
            work_max_bytes: 1 << 20,
            grace_ms: 500,
        };
        let spec = LeaseSpec::of_workload(example.lease_id, &workload, allowance);
        spec.validate().unwrap();
        let expected = LeaseSpec { env: Vec::new(), memory_max_bytes: MAX_MEMORY_BYTES, ..example };
        assert_eq!(spec, expected);
    }

    #[test]
    fn every_broken_rule_has_its_code() {
        type Break = fn(&mut LeaseSpec);
        let table: [(&str, Break); 21] = [
            ("spec.name", |s| s.inputs[0].name = "../input.txt".into()),
            ("spec.name", |s| s.inputs[0].name = "..".into()),
            ("spec.name", |s| s.inputs[0].name = ".".into()),
            ("spec.name", |s| s.inputs[0].name = String::new()),
            ("spec.name", |s| s.inputs[0].name = "a\0b".into()),
            ("spec.name", |s| s.inputs[0].name = "a\u{1b}[2J".into()),
            ("spec.name", |s| s.inputs[0].name = "x".repeat(WORKLOAD_NAME_BYTES + 1)),
            ("spec.name", |s| s.results[0] = "a/b".into()),
            ("spec.duplicate_name", |s| s.results.push("result.txt".into())),
            ("spec.too_many", |s| s.results = (0..17).map(|i| i.to_string()).collect()),
            ("spec.too_many", |s| s.args = vec![String::new(); 65]),
            ("spec.strings", |s| s.args = vec!["x".repeat(MAX_STRINGS_BYTES)]),
            ("spec.strings", |s| s.env[0].0 = "A=B".into()),
            ("spec.strings", |s| s.env[0].1 = "\0".into()),
            ("spec.bounds", |s| s.component_bytes = WORKLOAD_MAX_BYTES + 1),
            ("spec.bounds", |s| s.memory_max_bytes = MAX_MEMORY_BYTES + 1),
            ("spec.bounds", |s| s.grace_ms = 0),
            ("spec.bounds", |s| s.inputs[0].bytes = u64::MAX),
            ("spec.digest_sizes", |s| s.inputs[0].digest = s.component),
            ("spec.window", |s| s.ends_at_ms = s.starts_at_ms),
            ("spec.window", |s| s.ends_at_ms = s.starts_at_ms + MAX_WINDOW_MS + 1),
        ];
        for (index, (code, change)) in table.into_iter().enumerate() {
            let mut spec = example();
            change(&mut spec);
            assert_eq!(spec.validate().unwrap_err().code(), code, "row {index}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_name_stays_in_its_directory(name in "\\PC{0,20}") {
            if is_plain_name(&name) {
                let path = std::path::Path::new("work").join(&name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("work")));
            }
        }
    }
}
