//! A directory, a chain and the daemons on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::{Block, ScriptBuf, Transaction};
use capex::chain::devchain::subsidy_sat;
use capex::chain::rpc::RpcClient;
use tokio::runtime::Runtime;

use crate::daemon::{Daemon, Process, STARTING, until};
use crate::home::Home;

/// The development chain as a process.
pub(crate) struct Chain {
    dir: PathBuf,
    log: PathBuf,
    addr: Option<String>,
    /// A Bitcoin Core in its place.
    core: Option<PathBuf>,
    process: Option<Process>,
    runtime: Runtime,
}

impl Chain {
    fn new(home: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            dir: home.join("chain"),
            log: home.join("chain.log"),
            addr: None,
            core: None,
            process: None,
            runtime,
        }
    }

    /// Starts it; after a kill, on the address of before.
    pub(crate) fn start(&mut self) {
        let file = self.dir.join("devchain.addr");
        // A killed server leaves the file behind.
        let _ = std::fs::remove_file(&file);
        let listen = self.addr.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let dir = self.dir.to_str().unwrap().to_owned();
        let mut args = vec!["devchain", "--listen", &listen, "--dir", &dir];
        let mut env = Vec::new();
        if let Some(core) = &self.core {
            args.push("--bitcoind");
            env.push(("BITCOIND".to_owned(), core.to_str().unwrap().to_owned()));
        }
        self.process = Some(Process::start(self.dir.parent().unwrap(), &args, &env, &self.log));
        let addr = until("address of the chain", STARTING, || {
            std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty())
        });
        self.addr = Some(addr.trim().to_owned());
        until("answer of the chain", STARTING, || self.try_height());
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr.as_ref().unwrap())
    }

    pub(crate) fn cookie(&self) -> PathBuf {
        self.dir.join(".cookie")
    }

    fn rpc(&self) -> RpcClient {
        RpcClient::new(self.url(), self.cookie())
    }

    fn try_height(&self) -> Option<u32> {
        self.runtime.block_on(self.rpc().height()).ok()
    }

    pub(crate) fn height(&self) -> u32 {
        self.try_height().unwrap()
    }

    fn block(&self, height: u32) -> Block {
        self.runtime.block_on(self.rpc().block_at(height)).unwrap().unwrap()
    }

    /// Hands it a transaction, as a wallet elsewhere would.
    pub(crate) fn send(&self, tx: &Transaction) {
        let sent = self.runtime.block_on(self.rpc().broadcast(tx));
        sent.unwrap();
    }

    /// Scripts paid in the blocks above `after`.
    pub(crate) fn scripts_after(&self, after: u32) -> Vec<ScriptBuf> {
        let blocks = (after + 1..=self.height()).map(|height| self.block(height));
        let txs = blocks.flat_map(|block| block.txdata);
        txs.flat_map(|tx| tx.output).map(|output| output.script_pubkey).collect()
    }

    /// What miners earned beyond the subsidy in the blocks above `after`, up to the tip, sat.
    pub(crate) fn fees_after(&self, after: u32) -> u64 {
        let fees = |height| {
            let earned: u64 =
                self.block(height).txdata[0].output.iter().map(|out| out.value.to_sat()).sum();
            earned - subsidy_sat(height)
        };
        (after + 1..=self.height()).map(fees).sum()
    }
}

/// Everything of one test. Ends all processes when dropped, and shows their logs if the
/// test failed.
pub(crate) struct World {
    pub chain: Chain,
    home: Home,
}

impl World {
    /// With a running chain.
    pub(crate) fn new() -> Self {
        let mut world = Self::without_chain();
        world.chain.start();
        world
    }

    /// The same on the regtest of a Bitcoin Core.
    pub(crate) fn on_bitcoind(program: PathBuf) -> Self {
        let mut world = Self::without_chain();
        world.chain.core = Some(program);
        world.chain.start();
        world
    }

    /// With a chain that was never started.
    pub(crate) fn without_chain() -> Self {
        let home = Home::new();
        let chain = Chain::new(home.path());
        home.watch(&chain.log);
        Self { chain, home }
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    /// A daemon on the chain that sells `units` of `cpu.standard`; not started.
    pub(crate) fn daemon(&self, name: &'static str, units: u32) -> Daemon {
        let cookie = self.chain.cookie();
        self.daemon_on(name, units, &self.chain.url(), &cookie)
    }

    /// The same on any chain source.
    pub(crate) fn daemon_on(
        &self,
        name: &'static str,
        units: u32,
        url: &str,
        cookie: &Path,
    ) -> Daemon {
        self.home.daemon(name, units, url, cookie)
    }

    /// Waits for the chain to grow by `blocks`.
    pub(crate) fn wait_blocks(&self, blocks: u32) {
        let target = self.chain.height() + blocks;
        until("chain blocks", Duration::from_secs(30), || {
            (self.chain.height() >= target).then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.home.end();
    }
}
