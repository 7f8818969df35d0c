//! How much of the disk a lease holds.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and directories of one lease: bounds both the inodes and the time of a count.
pub(super) const MAX_ENTRIES: usize = 4_096;

/// Bytes below a directory, or `None` beyond [`MAX_ENTRIES`].
///
/// Sizes are as declared, so that a sparse file counts in full. Symbolic links are not
/// followed. Files that vanish meanwhile are not counted.
pub(super) fn used_bytes(dir: &Path) -> io::Result<Option<u64>> {
    let mut bytes = 0u64;
    let mut entries = 0;
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Some(list) = present(fs::read_dir(&dir))? else {
            continue;
        };
        for entry in list {
            let Some(entry) = present(entry)? else {
                continue;
            };
            let Some(meta) = present(entry.metadata())? else {
                continue;
            };
            entries += 1;
            if entries > MAX_ENTRIES {
                return Ok(None);
            }
            if meta.is_dir() {
                open.push(entry.path());
            }
            bytes = bytes.saturating_add(meta.len());
        }
    }
    Ok(Some(bytes))
}

/// Bytes of files that this process holds open on the same device after their last name
/// was removed: the disk is still theirs.
pub(super) fn unlinked_bytes(dir: &Path) -> io::Result<u64> {
    let device = fs::metadata(dir)?.dev();
    let mut bytes = 0u64;
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(meta) = present(fs::metadata(entry?.path()))? else {
            continue;
        };
        if meta.is_file() && meta.nlink() == 0 && meta.dev() == device {
            bytes = bytes.saturating_add(meta.len());
        }
    }
    Ok(bytes)
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn sparse_files_count_and_links_do_not() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![0; 100_000]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a");
        fs::create_dir(&below).unwrap();
        let base = used_bytes(dir.path()).unwrap().unwrap();
        fs::File::create(below.join("sparse")).unwrap().set_len(5_000).unwrap();
        std::os::unix::fs::symlink(outside.path(), below.join("link")).unwrap();
        let grown = used_bytes(dir.path()).unwrap().unwrap() - base;
        assert!((5_000..10_000).contains(&grown), "{grown}");
    }

    #[test]
    fn too_many_entries_have_no_size() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..=MAX_ENTRIES {
            fs::File::create(dir.path().join(index.to_string())).unwrap();
        }
        assert_eq!(used_bytes(dir.path()).unwrap(), None);
    }

    #[test]
    fn an_unlinked_open_file_still_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hidden");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&[0; 777_777]).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(unlinked_bytes(dir.path()).unwrap() >= 777_777);
    }
}
