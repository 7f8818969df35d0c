//! When the leases of a host rest, because its operator has announced a maintenance: one file
//! beside them, which every lease process reads.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::state::{Durability, printable, read_json, write_json};
use crate::clock::now_ms;
use capex_core::lease::Maintenance;

/// Name of the file.
const FILE: &str = "maintenance.json";

/// A time in which no lease has a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rest {
    /// Unix ms.
    pub(super) from_ms: u64,
    /// Unix ms.
    pub(super) to_ms: u64,
    /// Why, in the operator's words.
    pub(super) why: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rests(Vec<Rest>);

impl Rests {
    pub(super) fn new(all: &[Maintenance]) -> Self {
        let rest = |one: &Maintenance| Rest {
            from_ms: one.from_ms,
            to_ms: one.to_ms,
            why: printable(&one.why),
        };
        Self(all.iter().map(rest).collect())
    }

    /// Of the host whose leases lie in this directory. What cannot be read is none: the daemon writes
    /// it again.
    pub(super) fn of_host(leases: &Path) -> Self {
        read_json(&leases.join(FILE)).ok().flatten().unwrap_or_default()
    }

    pub(super) fn keep(&self, leases: &Path) -> io::Result<()> {
        let path = leases.join(FILE);
        if !self.0.is_empty() {
            return write_json(&path, self, Durability::Fsync);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether leases rest now.
    pub(super) fn is_now(&self) -> bool {
        let now_ms = now_ms();
        self.0.iter().any(|rest| rest.from_ms <= now_ms && now_ms < rest.to_ms)
    }

    /// When [`Self::is_now`] changes, unix ms, in no order.
    pub(super) fn changes_ms(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|rest| [rest.from_ms, rest.to_ms])
    }

    /// How much of a time was announced to be one of rest, ms.
    pub(super) fn within(&self, (from_ms, to_ms): (u64, u64)) -> u64 {
        let part = |rest: &Rest| to_ms.min(rest.to_ms).saturating_sub(from_ms.max(rest.from_ms));
        self.0.iter().map(part).fold(0, u64::saturating_add)
    }

    /// Those to come in a time.
    fn to_come(&self, (from_ms, to_ms): (u64, u64)) -> impl Iterator<Item = &Rest> {
        let from_ms = from_ms.max(now_ms());
        self.0.iter().filter(move |rest| from_ms < rest.to_ms && rest.from_ms < to_ms)
    }
}

/// What a lease process knows of the file.
pub(super) struct Watched {
    leases: PathBuf,
    written: Option<(u64, SystemTime)>,
    rests: Rests,
    /// What was told of it to what runs.
    told: Rests,
}

impl Watched {
    /// Beside a lease.
    pub(super) fn beside(lease: &Path) -> Self {
        let leases = lease.parent().unwrap_or(lease).to_owned();
        let mut watched =
            Self { leases, written: None, rests: Rests::default(), told: Rests::default() };
        watched.look();
        watched
    }

    /// Reads the file if another was written.
    pub(super) fn look(&mut self) {
        let meta = fs::metadata(self.leases.join(FILE)).ok();
        let written = meta.and_then(|meta| Some((meta.ino(), meta.modified().ok()?)));
        if written != self.written {
            self.written = written;
            self.rests = Rests::of_host(&self.leases);
        }
    }

    pub(super) fn rests(&self) -> &Rests {
        &self.rests
    }

    /// What is new of the rest of a window, unix ms, in words: once.
    pub(super) fn news(&mut self, window_ms: (u64, u64)) -> Option<String> {
        let to_come: Vec<Rest> = self.rests.to_come(window_ms).cloned().collect();
        let is_new = |rest: &&Rest| !self.told.0.contains(rest);
        let new = to_come.iter().filter(is_new).map(words).collect::<String>();
        let is_gone = |rest: &&Rest| !to_come.contains(rest);
        let gone = self.told.to_come(window_ms).filter(is_gone);
        let gone = gone.map(|_| "capex: a maintenance that was announced is called off\n");
        let text = gone.collect::<String>() + &new;
        self.told = Rests(to_come);
        (!text.is_empty()).then_some(text)
    }
}

fn words(rest: &Rest) -> String {
    let Rest { from_ms, to_ms, why } = rest;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let (left, length) =
        (span(from_ms.saturating_sub(now_ms())), span(to_ms.saturating_sub(*from_ms)));
    format!("capex: the provider ends what runs in {left}, for a maintenance of {length}{why}\n")
}

/// A length of time in words, as exact as people need it.
fn span(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7_200 => format!("{} minutes", seconds / 60),
        seconds => format!("{} hours", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(from_ms: u64, to_ms: u64) -> Maintenance {
        Maintenance { from_ms, to_ms, why: String::new() }
    }

    #[test]
    fn what_is_to_come_is_told_once_and_so_is_its_end() {
        let root = tempfile::tempdir().unwrap();
        let (now, hour) = (now_ms(), 3_600_000);
        let window = (now, now + 10 * hour);
        let mut watched = Watched::beside(&root.path().join("lease"));
        assert_eq!(watched.news(window), None);
        let why = "new disks\u{1b}".to_owned();
        let first = Maintenance { why, ..rest(now + hour + 5_000, now + 3 * hour + 5_000) };
        let after = rest(now + 11 * hour, now + 12 * hour);
        Rests::new(&[first.clone(), after.clone()]).keep(root.path()).unwrap();
        watched.look();
        let told = watched.news(window).unwrap();
        let expected = "capex: the provider ends what runs in 60 minutes, for a maintenance of 2 hours: new disks \n";
        assert_eq!(told, expected);
        assert_eq!(watched.news(window), None, "once");
        // A lease that is extended into the other one is told of that.
        let longer = (now, now + 13 * hour);
        assert!(
            watched.news(longer).unwrap().contains("in 10 hours, for a maintenance of 60 minutes")
        );
        Rests::new(&[after]).keep(root.path()).unwrap();
        watched.look();
        let gone = watched.news(longer).unwrap();
        assert_eq!(gone, "capex: a maintenance that was announced is called off\n");
        assert!(!watched.rests().is_now());
    }

    #[test]
    fn leases_rest_from_the_first_moment_to_the_last() {
        let now = now_ms();
        let rests = Rests::new(&[rest(now - 10_000, now - 5_000), rest(now - 1_000, now + 60_000)]);
        assert!(rests.is_now());
        assert!(!Rests::new(&[rest(now - 10_000, now - 5_000)]).is_now());
        assert!(!Rests::new(&[rest(now + 5_000, now + 9_000)]).is_now());
        assert_eq!(rests.within((now - 7_000, now)), 2_000 + 1_000);
        assert_eq!(rests.within((now, now - 7_000)), 0);
    }
}
