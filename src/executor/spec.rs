//! What a lease is to run, and the bounds of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A component is compiled in memory: 64 MiB is far above any real one.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;
/// Inputs and results are listed in one request each.
pub const MAX_FILES: usize = 64;
/// Longest name of a file, below every file system's 255.
pub const MAX_NAME_BYTES: usize = 128;
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
    /// Not 64 lower-case hexadecimal digits.
    #[error("not 64 lower-case hexadecimal digits")]
    Hex,
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
        match self {
            Self::Hex => "spec.hex",
            Self::Name(_) => "spec.name",
            Self::DuplicateName(_) => "spec.duplicate_name",
            Self::TooMany(_) => "spec.too_many",
            Self::Strings => "spec.strings",
            Self::Bounds(_) => "spec.bounds",
            Self::DigestSizes => "spec.digest_sizes",
            Self::Window => "spec.window",
        }
    }
}

macro_rules! hex32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = SpecError;

            fn from_str(text: &str) -> Result<Self, SpecError> {
                parse_hex32(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SpecError;

            fn try_from(text: String) -> Result<Self, SpecError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

hex32! {
    /// The id of the `Redeem` that began the lease; 64 hexadecimal digits as text.
    LeaseId
}
hex32! {
    /// SHA-256 of a blob; 64 hexadecimal digits as text.
    Digest
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

fn parse_hex32(text: &str) -> Result<[u8; 32], SpecError> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(SpecError::Hex),
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(SpecError::Hex) };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return Err(SpecError::Hex);
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Ok(bytes)
}

/// A file laid into the working directory before the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Plain file name, at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// Its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// Everything a lease process needs to know; written once as `spec.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSpec {
    /// The lease.
    pub lease_id: LeaseId,
    /// The WASI 0.2 component to run: an export of `wasi:cli/run`.
    pub component: Digest,
    /// Size of the component, at most [`MAX_COMPONENT_BYTES`].
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

impl LeaseSpec {
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
            ("component_bytes", self.component_bytes, 1, MAX_COMPONENT_BYTES),
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
        let inputs = self.inputs.iter().try_fold(0u64, |sum, i| sum.checked_add(i.bytes));
        if inputs.is_none_or(|bytes| bytes > self.work_max_bytes) {
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
    if names.len() > MAX_FILES {
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
        && name.len() <= MAX_NAME_BYTES
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
    fn every_broken_rule_has_its_code() {
        type Break = fn(&mut LeaseSpec);
        let table: [(&str, Break); 21] = [
            ("spec.name", |s| s.inputs[0].name = "../input.txt".into()),
            ("spec.name", |s| s.inputs[0].name = "..".into()),
            ("spec.name", |s| s.inputs[0].name = ".".into()),
            ("spec.name", |s| s.inputs[0].name = String::new()),
            ("spec.name", |s| s.inputs[0].name = "a\0b".into()),
            ("spec.name", |s| s.inputs[0].name = "a\u{1b}[2J".into()),
            ("spec.name", |s| s.inputs[0].name = "x".repeat(MAX_NAME_BYTES + 1)),
            ("spec.name", |s| s.results[0] = "a/b".into()),
            ("spec.duplicate_name", |s| s.results.push("result.txt".into())),
            ("spec.too_many", |s| s.results = (0..65).map(|i| i.to_string()).collect()),
            ("spec.too_many", |s| s.args = vec![String::new(); 65]),
            ("spec.strings", |s| s.args = vec!["x".repeat(MAX_STRINGS_BYTES)]),
            ("spec.strings", |s| s.env[0].0 = "A=B".into()),
            ("spec.strings", |s| s.env[0].1 = "\0".into()),
            ("spec.bounds", |s| s.component_bytes = MAX_COMPONENT_BYTES + 1),
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

    #[test]
    fn ids_are_exactly_64_lower_case_digits() {
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"A".repeat(64), &"g".repeat(64)] {
            assert_eq!(bad.parse::<LeaseId>(), Err(SpecError::Hex), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(bytes in prop::array::uniform32(any::<u8>())) {
            prop_assert_eq!(Digest(bytes).to_string().parse::<Digest>().unwrap(), Digest(bytes));
        }

        #[test]
        fn a_valid_name_stays_in_its_directory(name in "\\PC{0,20}") {
            if is_plain_name(&name) {
                let path = std::path::Path::new("work").join(&name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("work")));
            }
        }
    }
}
