//! A directory, a real chain and the daemons on it.

use crate::daemon::Daemon;
use crate::home::Home;
use crate::server::{self, Core, Miner};

/// Everything of one test. Ends all processes when dropped, and shows their logs if the
/// test failed.
pub(crate) struct World {
    // Dropped first: it speaks to the chain.
    pub(crate) miner: Miner,
    pub(crate) chain: Core,
    home: Home,
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
        let home = Home::new();
        let mut chain = Core::new(program, home.path(), "chain");
        begin(&mut chain);
        home.watch(&chain.log);
        Some(Self { miner: Miner::start(&chain), chain, home })
    }

    /// A daemon on the chain that sells `units` of `cpu.standard`; not started.
    pub(crate) fn daemon(&self, name: &'static str, units: u32) -> Daemon {
        self.home.daemon(name, units, &self.chain.url(), &self.chain.cookie())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.home.end();
    }
}
