//! A Bitcoin Core on regtest, and time on its chain.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use capex::chain::devchain::{faucet_address, subsidy_sat};
use capex::chain::rpc::RpcClient;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::daemon::{STARTING, until};

/// Time between blocks, as the devnet's definition has it.
const BLOCK_EVERY: Duration = Duration::from_millis(500);
/// Blocks before a test begins: the faucet's first coins are mature.
const FIRST_BLOCKS: u32 = 110;

/// The program that `BITCOIND` names. Without it a test says that it did not run; in CI that
/// is a failure.
pub(crate) fn program(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("BITCOIND").map(PathBuf::from);
    if found.is_none() {
        // Not by a macro, whose output is kept back when a test passes.
        let words = format!("skipped: {test}: BITCOIND is not set (see scripts/bitcoind)\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        assert!(std::env::var_os("CAPEX_NEEDS_BITCOIND").is_none(), "this run needs BITCOIND");
    }
    found
}

/// A Bitcoin Core that ends with the test.
pub(crate) struct Core {
    program: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) log: PathBuf,
    port: u16,
    /// User and password of a server without a cookie.
    fixed: Option<PathBuf>,
    child: Mutex<Option<Child>>,
    runtime: Runtime,
}

impl Core {
    /// Not started yet.
    pub(crate) fn new(program: PathBuf, home: &Path, name: &str) -> Self {
        let dir = home.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            program,
            log: dir.join("regtest/debug.log"),
            dir,
            port: listener.local_addr().unwrap().port(),
            fixed: None,
            child: Mutex::new(None),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// Takes a user and a password instead of a cookie.
    pub(crate) fn fix_password(&mut self, file: PathBuf) {
        self.fixed = Some(file);
    }

    /// Starts it with further arguments, and waits for its first answer.
    pub(crate) fn start(&self, args: &[&str]) {
        let child = Command::new(&self.program)
            .args(["-regtest", "-server", "-listen=0", "-dnsseed=0", "-discover=0"])
            // Small and quick: these are for one test, on a machine that runs others.
            .args(["-dbcache=16", "-par=1", "-checkblockindex=0", "-checkmempool=0"])
            .args(["-printtoconsole=0", "-fastprune"])
            .arg(format!("-datadir={}", self.dir.display()))
            .arg(format!("-rpcport={}", self.port))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        *self.child() = Some(child);
        until("answer of Bitcoin Core", STARTING, || {
            let ended = self.child().as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "bitcoind ended: {ended:?}");
            self.try_call::<u32>("getblockcount", vec![]).ok()
        });
    }

    /// Stops it in order and waits for its end.
    pub(crate) fn stop(&self) {
        let _: String = self.call("stop", vec![]);
        let mut child = self.child().take().unwrap();
        until("end of Bitcoin Core", STARTING, || child.try_wait().unwrap());
    }

    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its process, to be stopped and continued.
    pub(crate) fn pid(&self) -> u32 {
        self.child().as_ref().unwrap().id()
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cookie(&self) -> PathBuf {
        self.fixed.clone().unwrap_or_else(|| self.dir.join("regtest/.cookie"))
    }

    pub(crate) fn client(&self) -> RpcClient {
        RpcClient::new(self.url(), self.cookie())
    }

    pub(crate) fn try_call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<T, capex::chain::ChainError> {
        self.runtime.block_on(self.client().call(method, params))
    }

    pub(crate) fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: Vec<Value>,
    ) -> T {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub(crate) fn height(&self) -> u32 {
        self.call("getblockcount", vec![])
    }

    /// Mines blocks that hold what the mempool has.
    pub(crate) fn mine(&self, blocks: u32) {
        let to = faucet_address().to_string();
        let _: Vec<BlockHash> = self.call("generatetoaddress", vec![json!(blocks), json!(to)]);
    }

    /// Mines blocks that hold nothing.
    pub(crate) fn mine_empty(&self, blocks: u32) {
        let to = faucet_address().to_string();
        for _ in 0..blocks {
            let _: Value = self.call("generateblock", vec![json!(to), json!([])]);
        }
    }

    /// Mines blocks that were made so long ago.
    pub(crate) fn mine_old(&self, blocks: u32, age_s: u64) {
        let now_s = capex::clock::now_ms() / 1000;
        let _: Value = self.call("setmocktime", vec![json!(now_s - age_s)]);
        self.mine(blocks);
        let _: Value = self.call("setmocktime", vec![json!(0)]);
    }

    pub(crate) fn hash(&self, height: u32) -> BlockHash {
        self.call("getblockhash", vec![json!(height)])
    }

    pub(crate) fn block(&self, height: u32) -> Block {
        let hex: String = self.call("getblock", vec![json!(self.hash(height)), json!(0)]);
        deserialize_hex(&hex).unwrap()
    }

    /// Takes the block at a height, and all above it, off the chain.
    pub(crate) fn invalidate(&self, height: u32) {
        let _: Value = self.call("invalidateblock", vec![json!(self.hash(height))]);
    }

    /// The unconfirmed transaction that pays an address.
    pub(crate) fn waiting_for(&self, address: &str) -> Option<Transaction> {
        let txids: Vec<Txid> = self.call("getrawmempool", vec![]);
        let script = address
            .parse::<bitcoin::Address<_>>()
            .unwrap()
            .require_network(bitcoin::Network::Regtest)
            .unwrap()
            .script_pubkey();
        let transactions = txids.into_iter().filter_map(|txid| {
            let hex: String = self.try_call("getrawtransaction", vec![json!(txid)]).ok()?;
            deserialize_hex::<Transaction>(&hex).ok()
        });
        let pays = |tx: &Transaction| tx.output.iter().any(|out| out.script_pubkey == script);
        transactions.into_iter().find(pays)
    }

    /// Hands it a transaction, as a wallet elsewhere would.
    pub(crate) fn send(&self, tx: &Transaction) {
        self.runtime.block_on(self.client().broadcast(tx)).unwrap();
    }

    /// Keeps a transaction out of blocks, as a market with other prices would.
    pub(crate) fn spurn(&self, txid: Txid) {
        let params = vec![json!(txid), json!(0), json!(-100_000_000)];
        let _: bool = self.call("prioritisetransaction", params);
    }

    /// What miners earned beyond the subsidy in the blocks above `after`, up to the tip, sat.
    pub(crate) fn fees_after(&self, after: u32) -> u64 {
        let fees = |height| {
            let coinbase = &self.block(height).txdata[0];
            let earned: u64 = coinbase.output.iter().map(|out| out.value.to_sat()).sum();
            earned - subsidy_sat(height)
        };
        (after + 1..=self.height()).map(fees).sum()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Mines a block each half second, once told to.
pub(crate) struct Miner {
    is_paused: Arc<Mutex<bool>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Miner {
    /// One that waits for [`Self::resume`].
    pub(crate) fn start(core: &Core) -> Self {
        let (is_paused, is_over) = (Arc::new(Mutex::new(true)), Arc::<AtomicBool>::default());
        let (paused, over) = (Arc::clone(&is_paused), Arc::clone(&is_over));
        let client = core.client();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !over.load(Ordering::SeqCst) {
                {
                    let paused = paused.lock().unwrap_or_else(PoisonError::into_inner);
                    if !*paused {
                        // Core may be away for a while, on purpose.
                        let _ = runtime.block_on(client.generate(1, &faucet_address()));
                    }
                }
                // The pace of the chain.
                std::thread::sleep(BLOCK_EVERY);
            }
        });
        Self { is_paused, is_over, thread: Some(thread) }
    }

    /// No block comes from now on, until [`Self::resume`].
    pub(crate) fn pause(&self) {
        *self.is_paused.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(crate) fn resume(&self) {
        *self.is_paused.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic in it ends a test elsewhere.
            let _ = thread.join();
        }
    }
}

/// A chain that can be traded on at once.
pub(crate) fn begin(core: &Core) {
    core.mine(FIRST_BLOCKS);
}
