//! The disks of a lease: what a holder keeps, and what its provider serves.

use std::collections::BTreeMap;

use capex_core::engine::leases::{HeldEvent, HeldFile, HeldJob, Serve};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{LeaseReply, Stream};
use capex_core::wire::sha256;

/// Files of leases that a party holds elsewhere.
#[derive(Default)]
pub struct HeldFiles {
    /// By workload and digest.
    pub content: BTreeMap<(Digest, Digest), Vec<u8>>,
    pub output: BTreeMap<(LeaseId, Stream), Vec<u8>>,
    pub partial: BTreeMap<LeaseId, Vec<u8>>,
    pub results: BTreeMap<(LeaseId, String), Vec<u8>>,
    /// Jobs that will fail.
    pub failures: usize,
    /// Largest part read at once.
    pub part: usize,
}

impl HeldFiles {
    /// Does a job, and answers it.
    pub fn perform(&mut self, job: &HeldJob) -> Option<(LeaseId, HeldEvent)> {
        if let HeldJob::Discard { workload } = job {
            self.content.retain(|(of, _), _| of != workload);
            return None;
        }
        let (lease, event) = self.answer(job)?;
        if self.failures > 0 {
            self.failures -= 1;
            return Some((lease, HeldEvent::Failed));
        }
        Some((lease, event))
    }

    fn answer(&mut self, job: &HeldJob) -> Option<(LeaseId, HeldEvent)> {
        let (lease, event) = match job {
            HeldJob::Open { lease } => {
                let length = |stream| {
                    self.output.get(&(*lease, stream)).map_or(0, |bytes| bytes.len() as u64)
                };
                let (stdout, stderr) = (length(Stream::Stdout), length(Stream::Stderr));
                (lease, HeldEvent::Opened { stdout, stderr })
            }
            HeldJob::Read { lease, workload, content, offset } => {
                let read = self.content.get(&(*workload, *content)).map(|bytes| {
                    let from = (*offset as usize).min(bytes.len());
                    bytes[from..(from + self.part).min(bytes.len())].to_vec()
                });
                (lease, read.map_or(HeldEvent::Failed, |bytes| HeldEvent::Read { bytes }))
            }
            // A disk that fails may have written all the same.
            HeldJob::Write { lease, file, offset, bytes } => {
                let kept = match file {
                    HeldFile::Output(stream) => self.output.entry((*lease, *stream)).or_default(),
                    HeldFile::Partial => self.partial.entry(*lease).or_default(),
                };
                assert!(*offset <= kept.len() as u64, "a hole at {offset} of {}", kept.len());
                kept.truncate(*offset as usize);
                kept.extend_from_slice(bytes);
                (lease, HeldEvent::Written)
            }
            HeldJob::Finish { lease, name } => {
                let Some(content) = self.partial.remove(lease) else {
                    return Some((*lease, HeldEvent::Failed));
                };
                let sha256 = Digest(sha256(&[&content]));
                let bytes = content.len() as u64;
                self.results.insert((*lease, name.clone()), content);
                (lease, HeldEvent::Finished { bytes, sha256 })
            }
            HeldJob::Discard { .. } => return None,
        };
        Some((*lease, event))
    }
}

/// A host that serves what a workload printed and left.
#[derive(Default)]
pub struct Host {
    /// What has been uploaded.
    pub content: BTreeMap<Digest, Vec<u8>>,
    pub sizes: BTreeMap<Digest, usize>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub results: BTreeMap<String, Vec<u8>>,
    pub is_over: bool,
    /// Largest part served at once.
    pub part: usize,
    /// Refusals that come first.
    pub refusals: Vec<&'static str>,
}

impl Host {
    /// The answer, the result that was read to its end, and whether all content is here.
    pub fn serve(&mut self, what: &Serve) -> (LeaseReply, Option<String>, bool) {
        if let Some(code) = self.refusals.pop() {
            return (LeaseReply::Refused { code: code.to_owned() }, None, false);
        }
        match what {
            Serve::Put { digest, offset, bytes } => {
                let kept = self.content.entry(*digest).or_default();
                if *offset == kept.len() as u64 {
                    kept.extend_from_slice(bytes);
                }
                let (received, size) = (kept.len(), self.sizes[digest]);
                assert!(received <= size);
                let is_whole = |(digest, size): (&Digest, &usize)| {
                    self.content.get(digest).is_some_and(|kept| kept.len() == *size)
                };
                let whole = self.sizes.iter().all(is_whole);
                let complete = received == size;
                (LeaseReply::Progress { received: received as u64, complete }, None, whole)
            }
            Serve::Logs { stream, from } => {
                let all = match stream {
                    Stream::Stdout => &self.stdout,
                    Stream::Stderr => &self.stderr,
                };
                (part(all, *from, self.part, self.is_over), None, false)
            }
            Serve::Get { name, from } => match self.results.get(name).filter(|_| self.is_over) {
                Some(all) => {
                    let reply = part(all, *from, self.part, true);
                    let is_read = matches!(&reply, LeaseReply::Bytes { end: true, .. });
                    (reply, is_read.then(|| name.clone()), false)
                }
                None => (LeaseReply::Refused { code: "result.not_found".to_owned() }, None, false),
            },
        }
    }
}

fn part(all: &[u8], from: u64, most: usize, is_over: bool) -> LeaseReply {
    let from = (from as usize).min(all.len());
    let bytes = all[from..(from + most).min(all.len())].to_vec();
    let end = is_over && from + bytes.len() == all.len();
    LeaseReply::Bytes { bytes, end }
}
