//! Files of the leases that this node holds elsewhere: what will be uploaded, and what came
//! back. One thread does all of it, in the order in which it was asked, so that the loop
//! never waits for a disk.
//!
//! ```text
//! <datadir>/held/content/<workload>/<digest>   what to upload
//! <datadir>/held/<lease>/stdout stderr         what came back so far
//!                        partial               the file being fetched
//!                        results/<name>        fetched files
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use capex_core::engine::Input;
use capex_core::engine::leases::{HeldEvent, HeldFile, HeldJob};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::Stream;
use capex_core::lease::workload::is_name;
use capex_core::limits::LEASE_CHUNK_BYTES;

/// Jobs that wait for the disk. A lease has one at a time, so a fuller queue means thousands
/// of leases or a disk that stands still; the engine asks again for what does not fit.
const QUEUE: usize = 4096;
/// Content on its way into its place.
const INCOMING: &str = "incoming";
/// Read at once while hashing.
const HASH_BUFFER_BYTES: usize = 64 << 10;

/// Content of a workload by digest.
pub(super) type Content = BTreeMap<Digest, Source>;

/// Content that shall be kept.
#[derive(Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    /// In a file of [`HeldFiles::incoming`], whole and durable, which is moved.
    Staged(PathBuf),
}

/// One thing to do on the disk.
pub(super) enum Job {
    Do(HeldJob),
    /// Keep what will be uploaded, and say so.
    Keep {
        workload: Digest,
        content: Content,
        kept: Kept,
    },
}

/// What happens when content was kept, or was not.
pub(super) type Kept = Box<dyn FnOnce(Result<(), NotKept>) + Send>;

/// Where the content of a workload is.
fn content(dir: &Path, workload: &Digest) -> PathBuf {
    dir.join("content").join(workload.to_string())
}

/// Why content was not kept.
#[derive(Debug)]
pub(super) enum NotKept {
    /// Too many jobs wait for the disk: told at once, on the thread that asked.
    Busy,
    Disk(io::Error),
}

/// The thread's door.
pub(super) struct HeldFiles {
    dir: PathBuf,
    jobs: SyncSender<Job>,
    /// Workloads whose content is being kept for a redemption that the engine has not seen.
    keeping: BTreeMap<Digest, usize>,
}

impl HeldFiles {
    /// Starts the thread, which ends with this value.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(dir: PathBuf, events: mpsc::Sender<Input>) -> io::Result<Self> {
        // Of redemptions that an earlier life did not finish.
        let _ = fs::remove_dir_all(dir.join(INCOMING));
        let (jobs, waiting) = sync_channel(QUEUE);
        let disk = Disk { dir: dir.clone(), events };
        std::thread::Builder::new()
            .name("held-files".to_owned())
            .spawn(move || disk.run(waiting))?;
        Ok(Self { dir, jobs, keeping: BTreeMap::new() })
    }

    /// Queues a job. What does not fit is lost, and asked for again.
    pub(super) fn ask(&mut self, job: HeldJob) {
        if let HeldJob::Discard { workload } = &job
            && self.keeping.contains_key(workload)
        {
            // A redemption that the engine has not seen yet needs it.
            return;
        }
        if self.jobs.try_send(Job::Do(job)).is_err() {
            tracing::warn!("the disk is too busy; leases wait");
        }
    }

    /// Keeps content for a redemption, and says so.
    pub(super) fn keep(&mut self, workload: Digest, content: Content, kept: Kept) {
        match self.jobs.try_send(Job::Keep { workload, content, kept }) {
            Ok(()) => *self.keeping.entry(workload).or_default() += 1,
            Err(TrySendError::Full(Job::Keep { kept, .. })) => kept(Err(NotKept::Busy)),
            // Without its thread the node is stopping.
            Err(TrySendError::Full(Job::Do(_)) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Whether the content of a workload is kept here.
    pub(super) fn has(&self, workload: &Digest) -> bool {
        content(&self.dir, workload).is_dir()
    }

    /// The engine knows of the redemption now, or there will be none.
    pub(super) fn handed_over(&mut self, workload: &Digest) {
        if let Some(count) = self.keeping.get_mut(workload) {
            *count -= 1;
            if *count == 0 {
                self.keeping.remove(workload);
            }
        }
    }

    /// Where content is written that shall be kept. Emptied when the node starts.
    pub(super) fn incoming(&self) -> PathBuf {
        self.dir.join(INCOMING)
    }

    /// Where the output of a lease is.
    pub(super) fn output(&self, lease: &LeaseId, stream: Stream) -> PathBuf {
        file_path(&self.dir.join(lease.to_string()), HeldFile::Output(stream))
    }

    /// Where a result of a lease is.
    pub(super) fn result(&self, lease: &LeaseId, name: &str) -> PathBuf {
        self.dir.join(lease.to_string()).join("results").join(name)
    }
}

/// At most `most` bytes of a file from an offset.
pub(super) fn read_at(path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn file_path(dir: &Path, file: HeldFile) -> PathBuf {
    dir.join(match file {
        HeldFile::Output(Stream::Stdout) => "stdout",
        HeldFile::Output(Stream::Stderr) => "stderr",
        HeldFile::Partial => "partial",
    })
}

struct Disk {
    dir: PathBuf,
    events: mpsc::Sender<Input>,
}

impl Disk {
    fn run(self, jobs: Receiver<Job>) {
        for job in jobs {
            let job = match job {
                Job::Do(job) => job,
                Job::Keep { workload, content, kept } => {
                    kept(self.keep(&workload, &content).map_err(NotKept::Disk));
                    continue;
                }
            };
            let (lease, done) = match job {
                HeldJob::Open { lease } => (lease, self.open(&lease)),
                HeldJob::Read { lease, workload, content, offset } => {
                    let path = self.content(&workload).join(content.to_string());
                    let read = read_at(&path, offset, LEASE_CHUNK_BYTES);
                    (lease, read.map(|bytes| HeldEvent::Read { bytes }))
                }
                HeldJob::Write { lease, file, offset, bytes } => {
                    (lease, self.write(&lease, file, offset, &bytes))
                }
                HeldJob::Finish { lease, name } => (lease, self.finish(&lease, &name)),
                HeldJob::Discard { workload } => {
                    // What stays behind is only disk space, and goes with the next equal
                    // workload.
                    let _ = fs::remove_dir_all(self.content(&workload));
                    continue;
                }
            };
            let event = done.unwrap_or_else(|error| {
                tracing::warn!(%lease, %error, "a file of a held lease");
                HeldEvent::Failed
            });
            if self.events.blocking_send(Input::Held { lease, event }).is_err() {
                return;
            }
        }
    }

    fn content(&self, workload: &Digest) -> PathBuf {
        content(&self.dir, workload)
    }

    /// Durable before the redemption is signed that promises it: that uses the certificate up.
    fn keep(&self, workload: &Digest, content: &Content) -> io::Result<()> {
        let dir = self.content(workload);
        fs::create_dir_all(&dir)?;
        for (digest, content) in content {
            let part = dir.join(format!("{digest}.part"));
            let whole = match content {
                Source::Staged(staged) => staged,
                Source::Bytes(bytes) => {
                    let mut file = File::create(&part)?;
                    file.write_all(bytes)?;
                    file.sync_all()?;
                    &part
                }
            };
            // Another lease may be reading an equal file.
            fs::rename(whole, dir.join(digest.to_string()))?;
        }
        self.sync_up_to(&dir)
    }

    /// Makes durable which files a directory has, and that it is there.
    fn sync_up_to(&self, dir: &Path) -> io::Result<()> {
        let mut above = dir.ancestors().take_while(|above| above.starts_with(&self.dir));
        above.try_for_each(|above| File::open(above)?.sync_all())
    }

    fn open(&self, lease: &LeaseId) -> io::Result<HeldEvent> {
        let dir = self.dir.join(lease.to_string());
        fs::create_dir_all(dir.join("results"))?;
        let length = |stream| {
            let path = file_path(&dir, HeldFile::Output(stream));
            fs::metadata(path).map_or(0, |meta| meta.len())
        };
        Ok(HeldEvent::Opened { stdout: length(Stream::Stdout), stderr: length(Stream::Stderr) })
    }

    fn write(
        &self,
        lease: &LeaseId,
        file: HeldFile,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<HeldEvent> {
        let dir = self.dir.join(lease.to_string());
        let path = file_path(&dir, file);
        let mut open = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        if open.metadata()?.len() > offset {
            open.set_len(offset)?;
        }
        open.seek(SeekFrom::Start(offset))?;
        open.write_all(bytes)?;
        match file {
            // Output has no end that is told, as a result has: each part counts as delivered,
            // and the provider need not keep the last one any more.
            HeldFile::Output(_) => {
                open.sync_data()?;
                if offset == 0 {
                    self.sync_up_to(&dir)?;
                }
            }
            HeldFile::Partial => {}
        }
        Ok(HeldEvent::Written)
    }

    fn finish(&self, lease: &LeaseId, name: &str) -> io::Result<HeldEvent> {
        // The engine has checked it; what leaves this directory would be worse than a loss.
        if !is_name(name) {
            return Err(io::Error::other("a result has no file name"));
        }
        let dir = self.dir.join(lease.to_string());
        let (partial, results) = (file_path(&dir, HeldFile::Partial), dir.join("results"));
        let (bytes, sha256) = hash(&partial)?;
        // Once this is told, the provider need not keep it any more.
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, results.join(name))?;
        self.sync_up_to(&results)?;
        Ok(HeldEvent::Finished { bytes, sha256 })
    }
}

fn hash(path: &Path) -> io::Result<(u64, Digest)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((length, Digest(hasher.finalize().into())));
        }
        hasher.update(&buffer[..read]);
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId([7; 32]);

    fn started(dir: &Path) -> (HeldFiles, mpsc::Receiver<Input>) {
        let (events, told) = mpsc::channel(16);
        (HeldFiles::start(dir.to_owned(), events).unwrap(), told)
    }

    fn next(told: &mut mpsc::Receiver<Input>) -> HeldEvent {
        match told.blocking_recv() {
            Some(Input::Held { lease: LEASE, event }) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_are_written_where_they_belong_and_results_are_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut files, mut told) = started(dir.path());
        let write = |file, offset, bytes: &[u8]| HeldJob::Write {
            lease: LEASE,
            file,
            offset,
            bytes: bytes.to_vec(),
        };
        let stdout = HeldFile::Output(Stream::Stdout);
        files.ask(HeldJob::Open { lease: LEASE });
        assert_eq!(next(&mut told), HeldEvent::Opened { stdout: 0, stderr: 0 });
        // A part that is written again, and one that began anew, leave no trace.
        for (file, offset, bytes) in [
            (stdout, 0, &b"tick"[..]),
            (stdout, 0, b"tick"),
            (stdout, 4, b"tock"),
            (HeldFile::Partial, 0, b"left over from before"),
            (HeldFile::Partial, 0, b"12"),
            (HeldFile::Partial, 2, b"34"),
        ] {
            files.ask(write(file, offset, bytes));
            assert_eq!(next(&mut told), HeldEvent::Written);
        }
        files.ask(HeldJob::Finish { lease: LEASE, name: "out".to_owned() });
        let sha256 = Digest(Sha256::digest(b"1234").into());
        assert_eq!(next(&mut told), HeldEvent::Finished { bytes: 4, sha256 });
        files.ask(HeldJob::Finish { lease: LEASE, name: "../out".to_owned() });
        assert_eq!(next(&mut told), HeldEvent::Failed);
        assert_eq!(fs::read(files.output(&LEASE, Stream::Stdout)).unwrap(), b"ticktock");
        assert_eq!(fs::read(files.result(&LEASE, "out")).unwrap(), b"1234");
        files.ask(HeldJob::Open { lease: LEASE });
        assert_eq!(next(&mut told), HeldEvent::Opened { stdout: 8, stderr: 0 });
    }

    #[test]
    fn output_that_the_disk_does_not_take_for_good_was_not_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut files, mut told) = started(dir.path());
        files.ask(HeldJob::Open { lease: LEASE });
        assert_eq!(next(&mut told), HeldEvent::Opened { stdout: 0, stderr: 0 });
        // A device that takes every byte and cannot be synced.
        let path = files.output(&LEASE, Stream::Stdout);
        std::os::unix::fs::symlink("/dev/null", path).unwrap();
        for (stream, event) in
            [(Stream::Stdout, HeldEvent::Failed), (Stream::Stderr, HeldEvent::Written)]
        {
            let (file, bytes) = (HeldFile::Output(stream), b"tick".to_vec());
            files.ask(HeldJob::Write { lease: LEASE, file, offset: 0, bytes });
            assert_eq!(next(&mut told), event, "{stream:?}");
        }
    }

    #[test]
    fn a_full_queue_gives_the_redemption_back() {
        let (jobs, _waiting) = sync_channel(1);
        let mut files = HeldFiles { dir: PathBuf::new(), jobs, keeping: BTreeMap::new() };
        let (workload, (told, answers)) = (Digest([1; 32]), std::sync::mpsc::channel());
        for number in 0..2 {
            let told = told.clone();
            let kept = move |result: Result<(), NotKept>| {
                told.send((number, matches!(result, Err(NotKept::Busy)))).unwrap();
            };
            files.keep(workload, Content::new(), Box::new(kept));
        }
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(1, true)]);
        assert_eq!(files.keeping.get(&workload), Some(&1), "the first one waits");
    }

    #[test]
    fn content_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut files, _told) = started(dir.path());
        let (workload, content) = (Digest([1; 32]), Digest([2; 32]));
        let place = dir.path().join("content").join(workload.to_string());
        let (file, before) = (place.join(content.to_string()), dir.path().join("before"));
        let mut keep = |bytes: &[u8]| {
            let (kept, is_kept) = std::sync::mpsc::channel();
            let kept =
                Box::new(move |result: Result<(), NotKept>| kept.send(result.is_ok()).unwrap());
            files.keep(workload, Content::from([(content, Source::Bytes(bytes.to_vec()))]), kept);
            assert_eq!(is_kept.recv(), Ok(true));
        };
        keep(b"whole");
        fs::hard_link(&file, &before).unwrap();
        keep(b"again");
        assert_eq!(fs::read(&before).unwrap(), b"whole", "whoever reads it reads on");
        assert_eq!(fs::read(&file).unwrap(), b"again");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn content_stays_until_the_engine_knows_of_its_redemption() {
        let dir = tempfile::tempdir().unwrap();
        let (mut files, mut told) = started(dir.path());
        let (workload, content) = (Digest([1; 32]), Digest([2; 32]));
        let read = HeldJob::Read { lease: LEASE, workload, content, offset: 1 };
        let (kept, is_kept) = std::sync::mpsc::channel();
        let kept = Box::new(move |result: Result<(), NotKept>| kept.send(result.is_ok()).unwrap());
        files.keep(workload, Content::from([(content, Source::Bytes(b"abc".to_vec()))]), kept);
        assert_eq!(is_kept.recv(), Ok(true));
        files.ask(HeldJob::Discard { workload });
        files.handed_over(&workload);
        files.ask(read);
        assert_eq!(next(&mut told), HeldEvent::Read { bytes: b"bc".to_vec() });
        files.ask(HeldJob::Discard { workload });
        files.ask(HeldJob::Read { lease: LEASE, workload, content, offset: 1 });
        assert_eq!(next(&mut told), HeldEvent::Failed);
    }
}
