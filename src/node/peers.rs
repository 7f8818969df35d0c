//! Where peers can be dialled, some of it remembered across restarts: a node that comes back
//! finds its market even if its first peers are gone.
//!
//! `<datadir>/peers.json` lists addresses of peers that were connected, newest first. It is a
//! hint: a peer that answers at an address must still prove its key.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use capex_core::ids::Key;
use capex_core::limits::{CONTACT_ADDR_BYTES, CONTACT_ADDRS_MAX, CONTACTS_MAX};

/// Peers remembered on disk: more than a node keeps connections to by itself.
const REMEMBERED_MAX: usize = 64;
/// Room for that many Contacts with their keys, as JSON.
const FILE_MAX_BYTES: u64 =
    (REMEMBERED_MAX * (CONTACT_ADDRS_MAX + 1) * (CONTACT_ADDR_BYTES + 16)) as u64;

/// Least time between two writes of the file: a peer can say something new at any moment, and the
/// loop waits for the disk.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Addresses of peers, bounded in memory and on disk.
#[derive(Debug)]
pub(super) struct Peers {
    known: BTreeMap<Key, Vec<String>>,
    /// Peers that were connected, newest first.
    met: VecDeque<Key>,
    path: PathBuf,
    /// Whether the file says something else.
    is_changed: bool,
    written_at: Option<Instant>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        if self.is_changed {
            self.write();
        }
    }
}

impl Peers {
    /// What an earlier life remembered. A file that cannot be read is worth nothing, and
    /// is written anew.
    pub(super) fn open(datadir: &Path) -> Self {
        let path = datadir.join("peers.json");
        let mut peers = Self {
            known: BTreeMap::new(),
            met: VecDeque::new(),
            path,
            is_changed: false,
            written_at: None,
        };
        for (key, addrs) in peers.read().unwrap_or_default() {
            let Ok(key) = key.parse::<Key>() else { continue };
            if peers.met.len() < REMEMBERED_MAX && peers.known.insert(key, addrs).is_none() {
                peers.met.push_back(key);
            }
        }
        peers
    }

    fn read(&self) -> Option<Vec<(String, Vec<String>)>> {
        let size = std::fs::metadata(&self.path).ok()?.len();
        if size > FILE_MAX_BYTES {
            return None;
        }
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }

    /// Peers and their addresses, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Vec<String>)> {
        self.known.iter()
    }

    /// Addresses of a peer; none if it is not known.
    pub(super) fn addrs(&self, key: &Key) -> Vec<String> {
        self.known.get(key).cloned().unwrap_or_default()
    }

    /// A peer says where it listens.
    pub(super) fn hear(&mut self, key: Key, addrs: Vec<String>, is_connected: bool) {
        let changed = self.known.get(&key) != Some(&addrs);
        self.known.insert(key, addrs);
        if is_connected && (changed || !self.met.contains(&key)) {
            self.meet(key);
        }
        if self.known.len() > CONTACTS_MAX {
            let stranger = self.known.keys().find(|known| !self.met.contains(known)).copied();
            stranger.map(|stranger| self.known.remove(&stranger));
        }
    }

    /// A peer answered at an address.
    pub(super) fn reached(&mut self, key: Key, addr: String) {
        let addrs = self.known.entry(key).or_default();
        if !addrs.contains(&addr) {
            addrs.insert(0, addr);
            addrs.truncate(CONTACT_ADDRS_MAX);
        }
        self.meet(key);
    }

    fn meet(&mut self, key: Key) {
        self.met.retain(|met| *met != key);
        self.met.push_front(key);
        self.met.truncate(REMEMBERED_MAX);
        self.is_changed = true;
    }

    /// Writes the file if it is due.
    pub(super) fn tend(&mut self, now: Instant) {
        let is_early = |written_at| now.saturating_duration_since(written_at) < WRITE_EVERY;
        if self.is_changed && !self.written_at.is_some_and(is_early) {
            self.written_at = Some(now);
            self.write();
        }
    }

    fn write(&mut self) {
        self.is_changed = false;
        if let Err(error) = self.replace() {
            tracing::warn!(%error, path = %self.path.display(), "peers are not remembered");
        }
    }

    /// Replaces the file at once. Without fsync: a loss of power costs only hints.
    fn replace(&self) -> std::io::Result<()> {
        let met: Vec<(String, &Vec<String>)> = self
            .met
            .iter()
            .filter_map(|key| Some((key.to_string(), self.known.get(key)?)))
            .collect();
        let part = self.path.with_extension("part");
        std::fs::write(&part, serde_json::to_vec_pretty(&met)?)?;
        std::fs::rename(&part, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Key(bytes)
    }

    fn keys(peers: &Peers) -> Vec<Key> {
        peers.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn connected_peers_are_remembered_and_strangers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut peers = Peers::open(dir.path());
        peers.hear(key(1), vec!["/a".into()], false);
        peers.hear(key(2), vec!["/b".into()], true);
        peers.reached(key(3), "/c".into());
        peers.hear(key(3), vec!["/d".into()], true);
        drop(peers);
        let again = Peers::open(dir.path());
        assert_eq!(keys(&again), [key(2), key(3)]);
        assert_eq!(again.addrs(&key(3)), ["/d"], "its own word is newer");
        assert_eq!(again.addrs(&key(1)), [""; 0]);
    }

    #[test]
    fn a_peer_with_much_news_does_not_keep_the_disk_busy() {
        let dir = tempfile::tempdir().unwrap();
        let mut peers = Peers::open(dir.path());
        let begin = Instant::now();
        // Milliseconds, what the peer says then, what the file says after it.
        for (at_ms, addr, kept) in
            [(0, "/a", "/a"), (1, "/b", "/a"), (999, "/c", "/a"), (1_000, "/d", "/d")]
        {
            peers.hear(key(1), vec![addr.into()], true);
            peers.tend(begin + Duration::from_millis(at_ms));
            assert_eq!(Peers::open(dir.path()).addrs(&key(1)), [kept], "{at_ms}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_damaged_file_is_no_matter() {
        let dir = tempfile::tempdir().unwrap();
        let mut peers = Peers::open(dir.path());
        for n in 0..REMEMBERED_MAX + 10 {
            peers.reached(key(n), "/a".into());
        }
        for n in 0..CONTACTS_MAX + 10 {
            peers.hear(key(1000 + n), vec!["/s".into()], false);
        }
        assert!(peers.known.len() <= CONTACTS_MAX);
        drop(peers);
        let again = Peers::open(dir.path());
        assert_eq!(again.known.len(), REMEMBERED_MAX);
        assert!(again.known.contains_key(&key(REMEMBERED_MAX + 9)), "the newest stay");
        std::fs::write(dir.path().join("peers.json"), "[[\"00\", 3").unwrap();
        assert!(Peers::open(dir.path()).known.is_empty());
    }
}
