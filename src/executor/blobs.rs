//! Content of a lease as it arrives: in order, resumable, checked when complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::{At, ExecutorError};
use super::layout::LeaseDir;
use super::spec::LeaseSpec;
use capex_core::ids::Digest;
use capex_core::lease::workload;
use capex_core::limits::LEASE_CHUNK_BYTES;

/// Read at once while hashing.
const HASH_BUFFER_BYTES: usize = 64 << 10;

/// How far the upload of a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutProgress {
    /// Contiguous bytes received: the offset to go on at.
    pub received: u64,
    /// Whole, and its digest right.
    pub complete: bool,
}

/// The digests that are not complete, in ascending order.
pub(super) fn missing(dir: &LeaseDir, spec: &LeaseSpec) -> Vec<Digest> {
    spec.blobs().into_keys().filter(|digest| !dir.blob(digest).exists()).collect()
}

/// Appends a chunk. What was received before is skipped, so that any chunk may be repeated;
/// a complete blob with a wrong digest is discarded and starts over.
pub(super) fn put(
    dir: &LeaseDir,
    spec: &LeaseSpec,
    digest: &Digest,
    offset: u64,
    bytes: &[u8],
) -> Result<PutProgress, ExecutorError> {
    let size = *spec.blobs().get(digest).ok_or(ExecutorError::UnknownDigest)?;
    if bytes.len() > LEASE_CHUNK_BYTES {
        return Err(ExecutorError::ChunkTooLarge(bytes.len()));
    }
    if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
        return Err(ExecutorError::Oversize);
    }
    if dir.blob(digest).exists() {
        return Ok(PutProgress { received: size, complete: true });
    }
    let part = dir.part(digest);
    let mut file = OpenOptions::new().create(true).append(true).open(&part).at(&part)?;
    let before = file.metadata().at(&part)?.len();
    let known = before.checked_sub(offset).ok_or(ExecutorError::OutOfOrder { expected: before })?;
    let fresh = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or(&[]);
    file.write_all(fresh).at(&part)?;
    let received = before + fresh.len() as u64;
    if received < size {
        return Ok(PutProgress { received, complete: false });
    }
    file.sync_all().at(&part)?;
    if hash(&part).at(&part)? != *digest {
        fs::remove_file(&part).at(&part)?;
        return Err(ExecutorError::WrongDigest);
    }
    fs::rename(&part, dir.blob(digest)).at(&part)?;
    Ok(PutProgress { received, complete: true })
}

/// Takes content that is missing from other leases, where it is whole. Nothing writes to whole
/// content, so both have the one file.
pub(super) fn share(
    dir: &LeaseDir,
    spec: &LeaseSpec,
    others: &[LeaseDir],
) -> Result<(), ExecutorError> {
    for digest in missing(dir, spec) {
        let Some(there) = others.iter().map(|other| other.blob(&digest)).find(|path| path.exists())
        else {
            continue;
        };
        let here = dir.blob(&digest);
        match fs::hard_link(&there, &here) {
            // A lease may be released at any time: then its holder sends the content.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            linked => linked.at(&here)?,
        }
        // What was received of it before.
        let _ = fs::remove_file(dir.part(&digest));
    }
    Ok(())
}

/// Lays the inputs into the working directory, once for each workload: what it has made of them
/// stays. Copies, not links: the workload may write.
pub(super) fn place_inputs(dir: &LeaseDir, spec: &LeaseSpec) -> Result<(), ExecutorError> {
    let workload = workload::digest(&spec.workload).to_string();
    if fs::read_to_string(dir.placed()).is_ok_and(|placed| placed == workload) {
        return Ok(());
    }
    for input in &spec.workload.inputs {
        let target = dir.work().join(&input.name);
        fs::copy(dir.blob(&input.digest), &target).at(&target)?;
    }
    fs::write(dir.placed(), workload).at(&dir.placed())
}

fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use capex_core::lease::objects::Workload;

    use super::super::spec::tests::example;
    use super::*;

    fn lease(content: &[u8]) -> (tempfile::TempDir, LeaseDir, LeaseSpec, Digest) {
        let root = tempfile::tempdir().unwrap();
        let dir = LeaseDir::new(root.path().to_owned());
        fs::create_dir(dir.blobs()).unwrap();
        let digest = Digest(Sha256::digest(content).into());
        let mut spec = example();
        spec.workload.payload = Workload::wasm(digest, content.len() as u64).payload;
        (root, dir, spec, digest)
    }

    #[test]
    fn chunks_resume_repeat_and_complete() {
        let (_root, dir, spec, digest) = lease(b"0123456789");
        let steps: [(u64, &[u8], u64, bool); 6] = [
            (0, b"0123", 4, false),
            (0, b"0123", 4, false),
            (2, b"2345", 6, false),
            (1, b"1", 6, false),
            (6, b"6789", 10, true),
            (0, b"0123", 10, true),
        ];
        for (offset, bytes, received, complete) in steps {
            let progress = put(&dir, &spec, &digest, offset, bytes).unwrap();
            assert_eq!(progress, PutProgress { received, complete }, "{offset}");
        }
        assert!(!missing(&dir, &spec).contains(&digest));
        assert_eq!(fs::read(dir.blob(&digest)).unwrap(), b"0123456789");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let (_root, dir, spec, digest) = lease(&[7; 300 << 10]);
        put(&dir, &spec, &digest, 0, &[7; 100]).unwrap();
        let large = vec![7; LEASE_CHUNK_BYTES + 1];
        let table: [(Digest, u64, &[u8], &str); 5] = [
            (Digest([9; 32]), 0, b"x", "put.unknown_digest"),
            (digest, 101, b"x", "put.out_of_order"),
            (digest, 100, &large, "put.chunk_too_large"),
            (digest, (300 << 10) - 1, b"xx", "put.oversize"),
            (digest, u64::MAX, b"x", "put.oversize"),
        ];
        for (digest, offset, bytes, code) in table {
            let error = put(&dir, &spec, &digest, offset, bytes).unwrap_err();
            assert_eq!(error.code(), code);
        }
        assert_eq!(fs::metadata(dir.part(&digest)).unwrap().len(), 100);
    }

    #[test]
    fn content_of_another_lease_is_taken_whole_and_outlives_it() {
        let (first, dir, spec, digest) = lease(b"a layer");
        let (_second, other, other_spec, _) = lease(b"a layer");
        put(&dir, &spec, &digest, 0, b"a lay").unwrap();
        put(&other, &other_spec, &digest, 0, b"a").unwrap();
        share(&other, &other_spec, std::slice::from_ref(&dir)).unwrap();
        assert!(missing(&other, &other_spec).contains(&digest), "a part is nothing to share");
        put(&dir, &spec, &digest, 5, b"er").unwrap();
        share(&other, &other_spec, &[dir]).unwrap();
        drop(first);
        assert!(!missing(&other, &other_spec).contains(&digest));
        assert_eq!(fs::read(other.blob(&digest)).unwrap(), b"a layer");
        assert!(!other.part(&digest).exists());
        let progress = put(&other, &other_spec, &digest, 0, &[]).unwrap();
        assert_eq!(progress, PutProgress { received: 7, complete: true });
    }

    #[test]
    fn a_wrong_digest_is_discarded_and_can_be_sent_again() {
        let (_root, dir, spec, digest) = lease(b"right");
        let error = put(&dir, &spec, &digest, 0, b"wrong").unwrap_err();
        assert_eq!(error.code(), "put.wrong_digest");
        assert!(!dir.part(&digest).exists() && !dir.blob(&digest).exists());
        assert!(put(&dir, &spec, &digest, 0, b"right").unwrap().complete);
    }
}
