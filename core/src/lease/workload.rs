//! What may run: bounds of a workload, checked by the holder before it asks and by the
//! provider before it agrees.

use std::collections::BTreeSet;

use super::objects::{InputFile, Workload};
use crate::ids::Digest;
use crate::limits::{WORKLOAD_FILES_MAX, WORKLOAD_MAX_BYTES, WORKLOAD_NAME_BYTES};
use crate::wire;

/// Arguments of a workload: more belongs into an input file.
pub const ARGS_MAX: usize = 64;
/// Bytes of all arguments together: with names and digests a Redeem stays under a tenth of
/// a lease message.
pub const ARGS_MAX_BYTES: usize = 16 << 10;

/// Why a workload may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// No component, or more bytes than allowed.
    #[error("component and inputs together must have 1 byte to 64 MiB")]
    Size,
    /// Inputs that the disk of the lease does not hold.
    #[error("the inputs are larger than the disk that was bought")]
    Disk,
    /// One digest for contents of two lengths.
    #[error("one digest has two sizes")]
    Digest,
    /// Too many inputs or results.
    #[error("at most 16 inputs and 16 results")]
    Files,
    /// A name that is empty, too long, repeated, or could leave the directory.
    #[error("a file name must be unique, without separators, and at most 128 bytes")]
    Name,
    /// Too many or too long arguments, or one with a NUL.
    #[error("at most 64 arguments of 16 KiB together, without NUL")]
    Args,
}

/// SHA-256 of the encoded workload: what a Redeem names.
#[must_use]
pub fn digest(workload: &Workload) -> Digest {
    Digest(wire::sha256(&[&wire::encode(workload)]))
}

/// Content that the holder has to upload, each once: component first, then inputs.
#[must_use]
pub fn needs(workload: &Workload) -> Vec<Digest> {
    let mut seen = BTreeSet::new();
    let inputs = workload.inputs.iter().map(|input| input.digest);
    std::iter::once(workload.component)
        .chain(inputs)
        .filter(|digest| seen.insert(*digest))
        .collect()
}

/// Length of a part of the content, bytes; 0 if the workload names no such part.
#[must_use]
pub fn size_of(workload: &Workload, digest: Digest) -> u64 {
    if workload.component == digest {
        return workload.component_bytes;
    }
    let input = workload.inputs.iter().find(|input| input.digest == digest);
    input.map_or(0, |input| input.bytes)
}

/// Checks names, counts and sizes: all that a host would refuse to make room for, so that nothing
/// is consumed for it. `disk_bytes` is the disk of the lease.
///
/// # Errors
/// The first bound that is broken.
pub fn validate(workload: &Workload, disk_bytes: u64) -> Result<(), WorkloadError> {
    if workload.inputs.len() > WORKLOAD_FILES_MAX || workload.results.len() > WORKLOAD_FILES_MAX {
        return Err(WorkloadError::Files);
    }
    let sizes = workload.inputs.iter().map(|input| input.bytes);
    let total = sizes.fold(workload.component_bytes, u64::saturating_add);
    if workload.component_bytes == 0 || total > WORKLOAD_MAX_BYTES {
        return Err(WorkloadError::Size);
    }
    if total - workload.component_bytes > disk_bytes {
        return Err(WorkloadError::Disk);
    }
    let has_its_size = |input: &InputFile| size_of(workload, input.digest) == input.bytes;
    if !workload.inputs.iter().all(has_its_size) {
        return Err(WorkloadError::Digest);
    }
    let inputs = workload.inputs.iter().map(|input| input.name.as_str());
    let results = workload.results.iter().map(String::as_str);
    if !are_names(inputs) || !are_names(results) {
        return Err(WorkloadError::Name);
    }
    let bytes: usize = workload.args.iter().map(String::len).fold(0, usize::saturating_add);
    let nul = workload.args.iter().any(|arg| arg.contains('\0'));
    if workload.args.len() > ARGS_MAX || bytes > ARGS_MAX_BYTES || nul {
        return Err(WorkloadError::Args);
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
