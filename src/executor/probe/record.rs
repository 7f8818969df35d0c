//! What a self-test proved, kept in the data directory: nothing else is offered from this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Proved;
use crate::clock::now_ms;
use crate::executor::state::{Durability, Written, read_json, write_json};
use capex_core::lease::score::Score;
use capex_core::params::{Isolation, Params};

/// Name of the record in the data directory.
const FILE: &str = "host-test.json";
/// Where the kernel says its release.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// A passed self-test. It holds for the program and the kernel that it was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Passed {
    version: String,
    kernel: String,
    /// Unix ms.
    tested_at_ms: u64,
    isolations: BTreeSet<Isolation>,
    /// What no lease may reach was held back from one that was let out.
    #[serde(default)]
    egress: bool,
    /// What the host did in a second, by what workloads run in.
    #[serde(default)]
    scores: BTreeMap<Isolation, Score>,
}

/// Where the record of this host lies, and whether anything is asked of it.
#[derive(Debug, Clone)]
pub struct HostProof {
    /// `None` where the operator sells without a test.
    file: Option<PathBuf>,
}

impl HostProof {
    /// The record of a data directory.
    #[must_use]
    pub fn of(datadir: &Path) -> Self {
        Self { file: Some(datadir.join(FILE)) }
    }

    /// Takes everything for proved.
    #[must_use]
    pub fn waived() -> Self {
        Self { file: None }
    }

    /// Whether the operator sells without a test.
    #[must_use]
    pub fn is_waived(&self) -> bool {
        self.file.is_none()
    }

    /// Keeps what a self-test proved.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self, proved: &Proved) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let containers = proved.containers.as_ref().map(|_| Isolation::Container);
        let passed = Passed {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel(),
            tested_at_ms: now_ms(),
            isolations: containers.into_iter().chain([Isolation::Wasm]).collect(),
            scores: proved.scores(),
            egress: proved.containers.as_ref().is_some_and(|proved| proved.egress.is_some()),
        };
        write_json(file, &passed, Durability::Fsync)
    }

    /// Forgets it: the last test failed.
    ///
    /// # Errors
    /// The disk.
    pub fn forget(&self) -> io::Result<()> {
        match self.file.as_ref().map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Which record lies there now, to be compared with another look; `None` if there is none.
    #[must_use]
    pub fn written(&self) -> Option<Written> {
        Written::of(self.file.as_ref()?)
    }

    /// Whether what no lease may reach was proved to be held back.
    #[must_use]
    pub fn has_egress(&self) -> bool {
        self.file.as_ref().is_none_or(|file| passed(file).is_some_and(|test| test.egress))
    }

    /// In which bands this host was measured; none where the operator sells without a test.
    #[must_use]
    pub fn scores(&self) -> BTreeMap<Isolation, Score> {
        let test = self.file.as_ref().and_then(|file| passed(file));
        let scores = test.map(|test| test.scores).unwrap_or_default().into_iter();
        scores.map(|(isolation, score)| (isolation, score.band())).collect()
    }

    /// Classes of a network of which this host proved nothing. What cannot be read proves nothing.
    #[must_use]
    pub fn unproved(&self, params: &Params) -> BTreeSet<u16> {
        let Some(file) = &self.file else { return BTreeSet::new() };
        let proved = passed(file).map(|test| test.isolations).unwrap_or_default();
        let classes = params.classes.iter().map(|class| &class.floors);
        classes.filter(|class| !proved.contains(&class.isolation)).map(|class| class.id).collect()
    }
}

/// The test that was passed, if it holds for this program and this kernel.
fn passed(file: &Path) -> Option<Passed> {
    let passed: Option<Passed> = read_json(file).ok().flatten();
    passed.filter(|test| test.version == env!("CARGO_PKG_VERSION") && test.kernel == kernel())
}

fn kernel() -> String {
    fs::read_to_string(RELEASE).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::ProvedContainers;
    use super::*;

    fn proved(containers: bool) -> Proved {
        Proved {
            backend: "wasm",
            isolation: "wasm",
            memory_peak_bytes: 1,
            deadline_overrun_ms: 0,
            score: Score { processor: 692, memory: 15_300 },
            containers: containers.then(Default::default),
            no_containers: None,
        }
    }

    #[test]
    fn nothing_is_sold_that_was_not_proved_by_this_program_on_this_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let params = crate::definitions::load("signet").unwrap();
        let (components, containers) = ([1, 2, 3, 4], [5, 6]);
        let all: BTreeSet<u16> = components.iter().chain(&containers).copied().collect();
        let proof = HostProof::of(dir.path());
        assert_eq!(proof.unproved(&params), all);
        assert_eq!(HostProof::waived().unproved(&params), BTreeSet::new());
        proof.keep(&proved(false)).unwrap();
        assert_eq!(proof.unproved(&params), BTreeSet::from(containers));
        proof.keep(&proved(true)).unwrap();
        assert_eq!(proof.unproved(&params), BTreeSet::new());
        let file = dir.path().join(FILE);
        let good: Passed = read_json(&file).unwrap().unwrap();
        let (version, kernel) = ("0.0.0".to_owned(), "other".to_owned());
        for stale in [Passed { version, ..good.clone() }, Passed { kernel, ..good.clone() }] {
            write_json(&file, &stale, Durability::Fsync).unwrap();
            assert_eq!(proof.unproved(&params), all);
        }
        fs::write(&file, "{").unwrap();
        assert_eq!(proof.unproved(&params), all);
        let let_out = ProvedContainers { egress: Some(Default::default()), ..Default::default() };
        for (test, has_egress) in [
            (proved(true), false),
            (Proved { containers: Some(let_out), ..proved(true) }, true),
            (proved(false), false),
        ] {
            proof.keep(&test).unwrap();
            assert_eq!(proof.has_egress(), has_egress);
            let told = proof.scores().get(&Isolation::Wasm).copied();
            assert_eq!(told, Some(Score { processor: 630, memory: 12_500 }));
        }
        assert!(HostProof::waived().has_egress());
        proof.keep(&proved(true)).unwrap();
        proof.forget().unwrap();
        proof.forget().unwrap();
        assert_eq!(proof.unproved(&params), all);
    }
}
