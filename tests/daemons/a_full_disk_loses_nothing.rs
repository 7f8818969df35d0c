//! A disk that is really full: a small file system in memory, filled and emptied again. Needs
//! root, who may mount one; elsewhere the tests say that they were skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use capex::api::types::{TimeInForce, Trade};

use crate::daemon::{Daemon, STARTING, until, until_or};
use crate::market::{
    Coins, all_settled, buy, cancel, fund, meet, picture, provider_and_buyer, sell, soon,
};
use crate::world::World;

/// Room for a node with some trades.
const DISK: &str = "size=12m";
/// What a file system in memory gives away at once, bytes.
const PAGE: u64 = 4096;

/// A mounted file system, gone with its owner.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at `path`; `None` where that is not allowed, which in CI is a failure.
    pub(crate) fn mount(path: &Path, test: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { path: path.to_owned() });
        }
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        assert!(!(root && std::env::var_os("CI").is_some()), "{test}: root cannot mount a tmpfs");
        // Not by a macro, whose output is kept back when a test passes.
        let words = format!("skipped: {test}: mounting a tmpfs needs root\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        None
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Fills it but for some pages.
    fn fill(&self, pages_left: u64) {
        let mut file = File::create(self.ballast()).unwrap();
        while file.write_all(&[7; PAGE as usize]).is_ok() {}
        let len = fs::metadata(self.ballast()).unwrap().len();
        file.set_len(len.saturating_sub(pages_left * PAGE)).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever still runs there is ended by the world.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// How a start on a full disk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Refused,
    Answers,
    /// It runs and cannot be found: its files do not fit.
    Hidden,
}

/// Starts a daemon on a disk that may be full, and looks at it for a while.
fn try_start(daemon: &mut Daemon) -> Start {
    daemon.begin(&[]);
    let bound = std::time::Instant::now();
    loop {
        if let Some(status) = daemon.ended() {
            assert_eq!(status.code(), Some(1), "{status}");
            return Start::Refused;
        }
        if daemon.status().is_some() {
            return Start::Answers;
        }
        if bound.elapsed() > Duration::from_secs(3) {
            return Start::Hidden;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(daemon: &Daemon, words: &str) -> bool {
    fs::read_to_string(&daemon.log).unwrap_or_default().to_lowercase().contains(words)
}

#[test]
fn a_node_that_begins_on_a_full_disk_begins_once_there_is_room() {
    let world = World::new();
    let mut daemon = world.daemon("only", 1);
    let Some(disk) = Disk::mount(&daemon.dir, "a start on a full disk") else { return };
    let mut starts = Vec::new();
    // From nothing at all to enough for some of the files.
    for pages_left in [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128] {
        disk.fill(pages_left);
        let start = try_start(&mut daemon);
        disk.empty();
        starts.push(start);
        if start == Start::Refused {
            assert!(said(&daemon, "no space left"), "{pages_left} pages");
            continue;
        }
        // What was missing comes by itself.
        until("answer", STARTING, || {
            daemon.ended().map_or_else(|| daemon.status().map(|_| ()), |_| Some(()))
        });
        if daemon.ended().is_none() {
            daemon.kill();
        }
    }
    println!("{starts:?}");
    assert!(starts.contains(&Start::Refused) && starts.contains(&Start::Answers));
    daemon.start(&[]);
    fund(&daemon);
}

#[test]
fn a_disk_that_fills_in_mid_settlement_loses_nothing() {
    let world = World::new();
    let place = world.path().join("buyer");
    let Some(disk) = Disk::mount(&place, "a disk that fills in mid-settlement") else { return };
    let (provider, mut buyer) = provider_and_buyer(&world, 1);
    let mut coins = Coins::count(&world, &[&provider, &buyer]);
    let ask = sell(&provider, 1);
    let mut ended = Vec::new();
    for state in ["draft", "locked", "fund_built", "fund_sent", "fund_confirmed", "active"] {
        let known: Vec<Trade> = buyer.get("/trades");
        let window = soon(&buyer);
        buy(&buyer, 1, window, TimeInForce::Gtc);
        let fresh = || {
            let trades: Vec<Trade> = buyer.get("/trades");
            trades.into_iter().find(|trade| known.iter().all(|old| old.trade_id != trade.trade_id))
        };
        let bound = Duration::from_secs(30);
        until_or("match", bound, fresh, || picture(&[&provider, &buyer]));
        until(state, bound, || {
            let trade = fresh()?;
            (trade.state == state || trade.due.is_none()).then_some(())
        });
        disk.fill(0);
        // The next thing that has to be durable ends it; a trade that has ended may need none.
        until("end", Duration::from_secs(20), || {
            (buyer.ended().is_some() || is_at_rest(&buyer)).then_some(())
        });
        if buyer.ended().is_some() {
            ended.push(state);
            assert!(said(&buyer, "store.full"), "{state}");
            assert_ne!(try_start(&mut buyer), Start::Hidden, "{state}");
        }
        disk.empty();
        if ended.last() == Some(&state) {
            // What answered on a full disk may be about to end.
            buyer.kill();
            buyer.start(&[&provider.p2p()]);
        }
        meet(&[&provider, &buyer]);
        all_settled(&[&provider, &buyer]);
        coins.assert_only_fees_left(&world, &[&provider, &buyer]);
        coins = Coins::count(&world, &[&provider, &buyer]);
        let _ = buyer.cli(&["peer", "forgive", &provider.key()]);
        let _ = provider.cli(&["peer", "forgive", &buyer.key()]);
    }
    cancel(&provider, &ask);
    println!("ended in {ended:?}");
    assert!(ended.len() >= 2, "a settlement goes on by writing: {ended:?}");
}

/// Whether no trade of a daemon is under way.
fn is_at_rest(daemon: &Daemon) -> bool {
    let trades: Result<Vec<Trade>, _> = daemon.try_get("/trades");
    trades.is_ok_and(|trades| trades.iter().all(|trade| trade.due.is_none()))
}

#[test]
fn a_log_on_a_full_disk_stops_no_trade() {
    let world = World::new();
    let place = world.path().join("logs");
    let Some(disk) = Disk::mount(&place, "a log on a full disk") else { return };
    let mut provider = world.daemon("provider", 1);
    provider.log = place.join("provider.log");
    provider.start(&[]);
    let mut buyer = world.daemon("buyer", 0);
    buyer.start(&[&provider.p2p()]);
    disk.fill(0);
    for daemon in [&provider, &buyer] {
        fund(daemon);
    }
    meet(&[&provider, &buyer]);
    let ask = sell(&provider, 1);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Gtc);
    crate::market::bought(&buyer, window);
    cancel(&provider, &ask);
    let (status, _) = provider.terminate(STARTING);
    assert!(status.success(), "{status}");
}
