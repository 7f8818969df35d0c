//! A directory, a real chain and the daemons on it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::daemon::{Daemon, processes_of, tail};
use crate::server::{self, Core, Miner};

/// Everything of one test. Ends all processes when dropped, and shows their logs if the
/// test failed.
pub(crate) struct World {
    // Dropped first: it speaks to the chain.
    pub(crate) miner: Miner,
    pub(crate) chain: Core,
    home: TempDir,
    logs: RefCell<Vec<PathBuf>>,
}

impl World {
    /// With a chain that grows; nothing without a Bitcoin Core to run it.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, |core| {
            core.start(&[]);
            server::begin(core);
        })
    }

    /// With a chain that `begin` starts and that grows.
    pub(crate) fn with(test: &str, begin: impl FnOnce(&mut Core)) -> Option<Self> {
        let world = Self::still(test, begin)?;
        world.miner.resume();
        Some(world)
    }

    /// With a chain that `begin` starts, and no further block.
    pub(crate) fn still(test: &str, begin: impl FnOnce(&mut Core)) -> Option<Self> {
        let program = server::program(test)?;
        let home = tempfile::tempdir().unwrap();
        let mut chain = Core::new(program, home.path(), "chain");
        begin(&mut chain);
        let logs = RefCell::new(vec![chain.log.clone()]);
        Some(Self { miner: Miner::start(&chain), chain, home, logs })
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    /// A daemon on the chain that sells `units` of `cpu.standard`; not started.
    pub(crate) fn daemon(&self, name: &'static str, units: u32) -> Daemon {
        let (url, cookie) = (self.chain.url(), self.chain.cookie());
        let capacity = format!("cpu.standard={units}");
        let mut env = vec![
            ("CAPEX_CHAIN_URL", url.as_str()),
            ("CAPEX_CHAIN_COOKIE", cookie.to_str().unwrap()),
            ("CAPEX_LOG", "info,capex=debug"),
        ];
        if units > 0 {
            env.push(("CAPEX_CAPACITY", &capacity));
        }
        let daemon = Daemon::new(name, self.path(), &env);
        self.logs.borrow_mut().push(daemon.log.clone());
        daemon
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Lease processes outlive a daemon on purpose.
        for pid in processes_of(self.path()) {
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        if std::thread::panicking() {
            for log in self.logs.borrow().iter() {
                eprintln!("--- {}\n{}", log.display(), tail(log));
            }
        }
    }
}
