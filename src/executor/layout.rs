//! Names of the files of one lease.

use std::path::{Path, PathBuf};

use capex_core::ids::Digest;
use capex_core::lease::objects::Stream;

/// `<datadir>/leases/<lease_id>/`.
#[derive(Debug, Clone)]
pub(super) struct LeaseDir(PathBuf);

impl LeaseDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the leases of this host lie, and what holds for all of them.
    pub(super) fn host(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    /// The specification, written once.
    pub(super) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// The state, written by the manager until a lease process takes over.
    pub(super) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// The latest sample.
    pub(super) fn usage(&self) -> PathBuf {
        self.0.join("usage.json")
    }

    /// Its presence asks the lease process to stop.
    pub(super) fn stop(&self) -> PathBuf {
        self.0.join("stop")
    }

    /// Where it is told that a file of it was changed.
    pub(super) fn bell(&self) -> PathBuf {
        self.0.join("bell")
    }

    /// Locked as long as a lease process lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Locked as long as the guard of a container lives.
    pub(super) fn guard(&self) -> PathBuf {
        self.0.join("guard")
    }

    /// Where the lease process lets streams in, if its runtime lets any.
    pub(super) const DOOR: &str = "access.sock";

    /// Secret of the key by which ssh knows the lease.
    pub(super) fn host_key(&self) -> PathBuf {
        self.0.join("host_key")
    }

    /// The only directory that the workload sees.
    pub(super) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// What a container of the lease is made of: its disk, its bundle, its place.
    pub(super) fn oci(&self) -> PathBuf {
        self.0.join("oci")
    }

    /// What the host lets the lease have beyond its own network, if anything.
    pub(super) fn egress(&self) -> PathBuf {
        self.0.join("egress.json")
    }

    /// Digest of the workload whose inputs lie in the working directory.
    pub(super) fn placed(&self) -> PathBuf {
        self.0.join("placed")
    }

    /// What was uploaded.
    pub(super) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// A complete blob, its digest checked.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.to_string())
    }

    /// The bytes of a blob received so far.
    pub(super) fn part(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(format!("{digest}.part"))
    }

    /// A standard stream.
    pub(super) fn log(&self, stream: Stream) -> PathBuf {
        self.0.join(match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}
