//! What may run: bounds of a workload, checked by the holder before it asks and by the
//! provider before it agrees.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::{Content, EnvValue, EnvVar, Payload, Workload};
use crate::ids::{CertId, Digest};
use crate::limits::{
    IMAGE_BLOBS_MAX, IMAGE_MANIFEST_MAX_BYTES, IMAGE_MAX_BYTES, SIGNAL_MAX, WORKLOAD_FILES_MAX,
    WORKLOAD_GRACE_MAX_MS, WORKLOAD_MAX_BYTES, WORKLOAD_NAME_BYTES, WORKLOAD_PORTS_MAX,
    WORKLOAD_STRINGS_MAX, WORKLOAD_STRINGS_MAX_BYTES,
};
use crate::reason;
use crate::reasons::Reason;
use crate::wire;

/// Why a workload may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    #[error("a component with its inputs has 1 byte to 64 MiB, an image up to 32 GiB")]
    Size,
    #[error("the image, or the inputs, are larger than the disk that was bought")]
    Disk,
    #[error("one digest has two sizes")]
    Digest,
    #[error("at most 16 inputs and 16 results")]
    Files,
    #[error("at most 127 layers")]
    Blobs,
    #[error("a file name must be unique, without separators, and at most 128 bytes")]
    Name,
    #[error("at most 64 arguments and 64 variables, of 16 KiB together, without NUL")]
    Strings,
    #[error("a variable needs a unique name without `=`")]
    EnvName,
    #[error("the working directory must be an absolute path without `..`")]
    Workdir,
    #[error("at most 16 ports, ascending, from 1 on")]
    Ports,
    #[error("at most 30 s between stop signal and kill")]
    Grace,
    #[error("signals have numbers up to 64")]
    Signal,
    #[error("a component has no ports, no network, no signals and no directory but its own")]
    NotInWasm,
    #[error("a root file system does not say what to run")]
    NoCommand,
    #[error("a sealed value is damaged, or for another certificate than that of the lease")]
    Sealed,
}

impl WorkloadError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Size => reason!("workload.size"),
            Self::Disk => reason!("workload.disk"),
            Self::Digest => reason!("workload.digest_sizes"),
            Self::Files => reason!("workload.files"),
            Self::Blobs => reason!("workload.blobs"),
            Self::Name => reason!("workload.name"),
            Self::Strings => reason!("workload.strings"),
            Self::EnvName => reason!("workload.env_name"),
            Self::Workdir => reason!("workload.workdir"),
            Self::Ports => reason!("workload.ports"),
            Self::Grace => reason!("workload.grace"),
            Self::Signal => reason!("workload.signal"),
            Self::NotInWasm => reason!("workload.not_in_wasm"),
            Self::NoCommand => reason!("workload.nothing_to_run"),
            Self::Sealed => reason!("workload.sealed"),
        }
    }

    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }
}

/// SHA-256 of the encoded workload: what a Redeem names.
#[must_use]
pub fn digest(workload: &Workload) -> Digest {
    Digest(wire::sha256(&[&wire::encode(workload)]))
}

fn contents(workload: &Workload) -> impl Iterator<Item = Content> {
    let inputs = workload.inputs.iter();
    let inputs = inputs.map(|input| Content { digest: input.digest, bytes: input.bytes });
    workload.payload.contents().copied().chain(inputs)
}

/// Content that the holder has to upload, each once: the payload first, then inputs.
#[must_use]
pub fn needs(workload: &Workload) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    let digests = contents(workload).map(|content| content.digest);
    digests.filter(|digest| seen.insert(*digest)).collect()
}

/// Length of a part of the content, bytes; 0 if the workload names no such part.
#[must_use]
pub fn size_of(workload: &Workload, digest: Digest) -> u64 {
    let part = contents(workload).find(|content| content.digest == digest);
    part.map_or(0, |content| content.bytes)
}

/// Checks names, counts and sizes: all that a host would refuse to make room for, so that nothing
/// is consumed for it. `disk_bytes` is the disk of the lease.
///
/// # Errors
/// The first bound that is broken.
pub fn validate(workload: &Workload, disk_bytes: u64) -> Result<(), WorkloadError> {
    check_files(workload)?;
    check_sizes(workload, disk_bytes)?;
    check_strings(workload)?;
    check_manners(workload)?;
    match &workload.payload {
        Payload::Wasm { .. } => check_wasm(workload),
        Payload::Rootfs { .. } if workload.command.is_empty() => Err(WorkloadError::NoCommand),
        Payload::Oci { .. } | Payload::Rootfs { .. } => Ok(()),
    }
}

/// Bytes of a sealed value beyond those of the value: the certificate for which it is, a key, a tag.
pub const SEALED_EXTRA_BYTES: usize = 32 + 32 + 16;

/// Checks that every sealed value is for this certificate, so that nobody has another's opened.
///
/// # Errors
/// [`WorkloadError::Sealed`].
pub fn check_sealed(workload: &Workload, cert: CertId) -> Result<(), WorkloadError> {
    let fits = |bytes: &[u8]| bytes.len() >= SEALED_EXTRA_BYTES && bytes.starts_with(&cert.0);
    let mut sealed = sealed(workload).map(|(_, bytes)| bytes);
    if sealed.all(fits) { Ok(()) } else { Err(WorkloadError::Sealed) }
}

/// Names and values of the sealed variables.
pub fn sealed(workload: &Workload) -> impl Iterator<Item = (&str, &[u8])> {
    workload.env.iter().filter_map(|var| match &var.value {
        EnvValue::Sealed(bytes) => Some((var.name.as_str(), bytes.as_slice())),
        EnvValue::Plain(_) => None,
    })
}

fn check_files(workload: &Workload) -> Result<(), WorkloadError> {
    if workload.inputs.len() > WORKLOAD_FILES_MAX || workload.results.len() > WORKLOAD_FILES_MAX {
        return Err(WorkloadError::Files);
    }
    if let Payload::Oci { blobs, .. } = &workload.payload
        && blobs.len() > IMAGE_BLOBS_MAX
    {
        return Err(WorkloadError::Blobs);
    }
    let inputs = workload.inputs.iter().map(|input| input.name.as_str());
    let results = workload.results.iter().map(String::as_str);
    if are_names(inputs) && are_names(results) { Ok(()) } else { Err(WorkloadError::Name) }
}

fn check_sizes(workload: &Workload, disk_bytes: u64) -> Result<(), WorkloadError> {
    let inputs = workload.inputs.iter().map(|input| input.bytes);
    let inputs = inputs.fold(0, u64::saturating_add);
    let parts = workload.payload.contents().map(|content| content.bytes);
    let payload = parts.clone().fold(0, u64::saturating_add);
    // An empty part is a mistake; what is empty on purpose is an input.
    let fits = !parts.clone().any(|bytes| bytes == 0)
        && match &workload.payload {
            Payload::Wasm { .. } => payload.saturating_add(inputs) <= WORKLOAD_MAX_BYTES,
            Payload::Oci { manifest, .. } => {
                manifest.bytes <= IMAGE_MANIFEST_MAX_BYTES && payload <= IMAGE_MAX_BYTES
            }
            Payload::Rootfs { .. } => payload <= IMAGE_MAX_BYTES,
        };
    if !fits || inputs > WORKLOAD_MAX_BYTES {
        return Err(WorkloadError::Size);
    }
    let on_disk = match &workload.payload {
        Payload::Wasm { .. } => inputs,
        Payload::Oci { .. } | Payload::Rootfs { .. } => payload.max(inputs),
    };
    if on_disk > disk_bytes {
        return Err(WorkloadError::Disk);
    }
    let mut sizes = BTreeMap::new();
    let is_same = |part: Content| *sizes.entry(part.digest).or_insert(part.bytes) == part.bytes;
    if contents(workload).all(is_same) { Ok(()) } else { Err(WorkloadError::Digest) }
}

fn check_strings(workload: &Workload) -> Result<(), WorkloadError> {
    let Workload { command, env, workdir, .. } = workload;
    let value = |var: &EnvVar| match &var.value {
        EnvValue::Plain(text) => (text.len(), text.contains('\0')),
        EnvValue::Sealed(bytes) => (bytes.len(), false),
    };
    let names = env.iter().map(|var| &var.name);
    let texts = command.iter().chain(names.clone()).chain(workdir);
    let texts = texts.map(|text| (text.len(), text.contains('\0')));
    let all = || texts.clone().chain(env.iter().map(value));
    let bytes = all().map(|(bytes, _)| bytes).fold(0, usize::saturating_add);
    let is_many = command.len() > WORKLOAD_STRINGS_MAX || env.len() > WORKLOAD_STRINGS_MAX;
    if is_many || bytes > WORKLOAD_STRINGS_MAX_BYTES || all().any(|(_, has_nul)| has_nul) {
        return Err(WorkloadError::Strings);
    }
    let mut seen = BTreeSet::new();
    let mut named = names.map(|name| !name.is_empty() && !name.contains('=') && seen.insert(name));
    if !named.all(|is_named| is_named) {
        return Err(WorkloadError::EnvName);
    }
    let is_path = |path: &String| path.starts_with('/') && path.split('/').all(|part| part != "..");
    if workdir.as_ref().is_none_or(is_path) { Ok(()) } else { Err(WorkloadError::Workdir) }
}

fn check_manners(workload: &Workload) -> Result<(), WorkloadError> {
    let ports = &workload.ports;
    let ascends = ports.first() != Some(&0) && ports.is_sorted_by(|a, b| a < b);
    if ports.len() > WORKLOAD_PORTS_MAX || !ascends {
        return Err(WorkloadError::Ports);
    }
    if workload.grace_ms > WORKLOAD_GRACE_MAX_MS {
        return Err(WorkloadError::Grace);
    }
    if workload.stop_signal > SIGNAL_MAX {
        return Err(WorkloadError::Signal);
    }
    Ok(())
}

/// What would not be done must not be promised.
fn check_wasm(workload: &Workload) -> Result<(), WorkloadError> {
    let has_network = workload.egress || !workload.ports.is_empty();
    let has_signals = workload.stop_signal != 0 || workload.grace_ms != 0;
    if has_network || has_signals || workload.workdir.is_some() {
        return Err(WorkloadError::NotInWasm);
    }
    Ok(())
}

fn are_names<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    names.all(|name| is_name(name) && seen.insert(name))
}

/// Whether a text names a file in the working directory itself, on any system.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    let sized = (1..=WORKLOAD_NAME_BYTES).contains(&name.len());
    sized && name != "." && name != ".." && name.chars().all(plain)
}
