//! Images that this host fetches from registries for those who hold its certificates, so that a
//! holder behind a slow line need not send them.
//!
//! ```text
//! Pulls ─ ask ─▶ a thread ─ client ─▶ registry, and where it leads to
//!                   └─ index, manifest, configuration, layers: each by its digest
//!                      <datadir>/leases/pulled/<certificate>/blobs/<digest>
//! ```
//!
//! The holder asks again and again until all of it is there, and redeems then. What nobody asks for
//! any more is removed. The registry is a stranger as well: it is believed by digests alone, has a
//! time for each answer, and leads to no address of this host's own networks.

mod allowed;
mod client;
mod error;
mod fetch;
mod told;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use allowed::Registries;
pub use client::Patience;
pub use error::PullError;
pub use told::payload;

use super::layout::LeaseDir;
use capex_core::ids::CertId;
use capex_core::lease::pull::{ImageRef, Pulled};
use capex_core::limits::OPEN_LEASES_MAX;
use capex_core::reason;
use capex_core::reasons::Reason;
use fetch::Fetch;

/// Where they lie, beside the leases: both have the one file then.
const DIR: &str = "pulled";
/// Images that are fetched at once, each by a thread: they share one line to the outside. Whoever
/// comes later waits, and asks again.
const RUNNING_MAX: usize = 4;
/// How long content is kept that nobody asks for: longer than a holder needs who has been told that
/// it is there, or who begins again after a broken line.
pub const KEPT: Duration = Duration::from_secs(600);

/// What this host fetches, and has fetched, each for a certificate.
pub struct Pulls {
    dir: PathBuf,
    registries: Registries,
    patience: Patience,
    jobs: Mutex<BTreeMap<CertId, Job>>,
}

struct Job {
    image: Option<ImageRef>,
    state: Arc<Mutex<State>>,
    asked: Instant,
}

enum State {
    /// Of an earlier life, or left by a fetch that failed: what of it is whole counts.
    Left,
    Running {
        received_bytes: u64,
        total_bytes: u64,
    },
    Whole(Pulled),
    Failed(Reason),
}

impl Pulls {
    /// Images for the leases in this directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(leases: &Path, registries: Registries, patience: Patience) -> io::Result<Self> {
        let dir = leases.join(DIR);
        let mut jobs = BTreeMap::new();
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            if let Ok(cert) = entry?.file_name().to_string_lossy().parse() {
                let state = Arc::new(Mutex::new(State::Left));
                jobs.insert(cert, Job { image: None, state, asked: Instant::now() });
            }
        }
        Ok(Self { dir, registries, patience, jobs: Mutex::new(jobs) })
    }

    /// Fetches an image, unless that has begun, and says how far it is.
    ///
    /// # Errors
    /// Why there is nothing to be had; of a fetch that failed this is told once, and the next to ask
    /// begins it again.
    pub fn ask(
        self: &Arc<Self>,
        cert: CertId,
        image: ImageRef,
        max_bytes: u64,
    ) -> Result<Pulled, Reason> {
        let (registry, _) = image.parts().ok_or(reason!("pull.name"))?;
        if self.registries.find(registry).is_none() {
            return Err(reason!("pull.not_allowed"));
        }
        let mut jobs = lock(&self.jobs);
        let running = jobs.values().filter(|job| job.is_running()).count();
        if let Some(job) = jobs.get_mut(&cert) {
            if job.image.as_ref() == Some(&image) {
                job.asked = Instant::now();
                let said = job.said();
                if said.is_err() {
                    *lock(&job.state) = State::Left;
                }
                if let Some(said) = said.transpose() {
                    return said;
                }
            } else if job.is_running() {
                return Err(reason!("lease.busy"));
            }
        }
        if running >= RUNNING_MAX || jobs.len() > OPEN_LEASES_MAX {
            return Ok(Pulled::default());
        }
        let state = Arc::new(Mutex::new(State::Running { received_bytes: 0, total_bytes: 0 }));
        let (image, there) = (Some(image.clone()), (Arc::clone(&state), image));
        jobs.insert(cert, Job { image, state, asked: Instant::now() });
        drop(jobs);
        self.begin(cert, there, max_bytes);
        Ok(Pulled::default())
    }

    fn begin(
        self: &Arc<Self>,
        cert: CertId,
        (state, image): (Arc<Mutex<State>>, ImageRef),
        max_bytes: u64,
    ) {
        let pulls = Arc::clone(self);
        let (told, failed) = (Arc::clone(&state), Arc::clone(&state));
        let work = move || {
            let dir = pulls.of(&cert);
            let tell = |received_bytes, total_bytes| {
                *lock(&told) = State::Running { received_bytes, total_bytes };
            };
            let fetch = Fetch { dir: &dir, image: &image, max_bytes, tell: &tell };
            let done = fetch.run(&pulls.registries, pulls.patience);
            let end = match done {
                Ok(pulled) => State::Whole(pulled),
                Err(error) => {
                    tracing::warn!(%cert, %image, code = error.reason().code(), %error, "not pulled");
                    if !error.is_passing() {
                        pulls.remove(&cert);
                    }
                    State::Failed(error.reason())
                }
            };
            *lock(&told) = end;
        };
        if let Err(error) = std::thread::Builder::new().name("pull".to_owned()).spawn(work) {
            tracing::warn!(%error, "no thread to pull an image");
            *lock(&failed) = State::Failed(reason!("lease.busy"));
        }
    }

    /// Where the content for a certificate lies, as that of a lease does.
    pub(super) fn of(&self, cert: &CertId) -> LeaseDir {
        LeaseDir::new(self.dir.join(cert.to_string()))
    }

    /// A lease has it now.
    pub fn taken(&self, cert: &CertId) {
        let mut jobs = lock(&self.jobs);
        if jobs.get(cert).is_some_and(|job| !job.is_running()) {
            jobs.remove(cert);
            self.remove(cert);
        }
    }

    /// Removes what nobody has asked for in this time. To be called now and then.
    pub fn sweep(&self, kept: Duration) {
        let mut jobs = lock(&self.jobs);
        jobs.retain(|cert, job| {
            let stays = job.is_running() || job.asked.elapsed() < kept;
            if !stays {
                self.remove(cert);
            }
            stays
        });
    }

    fn remove(&self, cert: &CertId) {
        match fs::remove_dir_all(self.of(cert).path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%cert, %error, "pulled content cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Job {
    fn is_running(&self) -> bool {
        matches!(*lock(&self.state), State::Running { .. })
    }

    /// How far it is; `None` if nobody fetches it.
    fn said(&self) -> Result<Option<Pulled>, Reason> {
        match &*lock(&self.state) {
            State::Left => Ok(None),
            State::Running { received_bytes, total_bytes } => Ok(Some(Pulled {
                received_bytes: *received_bytes,
                total_bytes: *total_bytes,
                documents: Vec::new(),
            })),
            State::Whole(pulled) => Ok(Some(pulled.clone())),
            State::Failed(reason) => Err(*reason),
        }
    }
}

/// A panic elsewhere does not make the table wrong: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
