//! A regtest of a real Bitcoin Core in the place of the development chain: run as a child,
//! mined by this process, ended with it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::time::MissedTickBehavior;

use crate::chain::devchain::{PREMINED_BLOCKS, faucet_address};
use crate::chain::rpc::RpcClient;
use crate::cli::failure::Failure;
use crate::node::config::dirs::{Env, chain_cookie, found_bitcoind};
use capex_core::reason;

/// Time for its first answer, on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);
/// Time in which it ends by itself; less than whoever runs this process waits for it.
const STOP_TIME: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running Bitcoin Core.
pub(super) struct Core {
    child: Child,
    client: RpcClient,
    pub(super) url: String,
    pub(super) cookie: PathBuf,
    addr_file: PathBuf,
}

/// The program that `BITCOIND` names, else `bitcoind` on PATH, else what `scripts/bitcoind`
/// has built.
///
/// # Errors
/// There is none.
pub(crate) fn find(env: Env<'_>) -> Result<PathBuf, Failure> {
    found_bitcoind(env).ok_or_else(|| {
        Failure::new(reason!("devchain.no_bitcoind"), "there is no Bitcoin Core on this machine")
            .with_hint("name one in BITCOIND, install bitcoind, or run scripts/bitcoind")
    })
}

impl Core {
    /// Starts it in `dir` with blocks whose coins belong to the faucet. Cookie and address are
    /// where the development chain has them.
    ///
    /// # Errors
    /// It does not start or does not answer.
    pub(super) async fn start(
        program: &Path,
        listen: SocketAddr,
        dir: &Path,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
        let dir = &std::fs::canonicalize(dir).map_err(|error| Failure::file(dir, &error))?;
        let addr = free(listen).map_err(|error| failed(format!("{listen}: {error}")))?;
        let cookie = chain_cookie(dir);
        let child = Command::new(program)
            .args(["-regtest", "-server", "-listen=0", "-dnsseed=0", "-discover=0"])
            .args(["-printtoconsole=0", "-dbcache=32"])
            .arg(format!("-datadir={}", dir.display()))
            .arg(format!("-rpccookiefile={}", cookie.display()))
            .arg(format!("-rpcbind={}", addr.ip()))
            .arg("-rpcallowip=127.0.0.1")
            .arg(format!("-rpcport={}", addr.port()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let url = format!("http://{addr}");
        let client = RpcClient::new(url.clone(), &cookie);
        let addr_file = dir.join("devchain.addr");
        let mut core = Self { child, client, url, cookie, addr_file };
        let height = core.first_answer().await?;
        let missing = PREMINED_BLOCKS.saturating_sub(height);
        if missing > 0 {
            let mined = core.client.generate(missing, &faucet_address()).await;
            mined.map_err(|error| failed(error.to_string()))?;
        }
        std::fs::write(&core.addr_file, format!("{addr}\n"))
            .map_err(|error| Failure::file(&core.addr_file, &error))?;
        Ok(core)
    }

    async fn first_answer(&mut self) -> Result<u32, Failure> {
        let deadline = Instant::now() + START_TIME;
        loop {
            let error = match self.client.height().await {
                Ok(height) => return Ok(height),
                Err(error) => error,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(failed(format!("it ended: {status}")));
            }
            if Instant::now() >= deadline {
                return Err(failed(error.to_string()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Mines until `shutdown`, then ends it.
    ///
    /// # Errors
    /// It ended by itself.
    pub(super) async fn run(
        mut self,
        block_every: Option<Duration>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let client = self.client.clone();
        let ended = tokio::select! {
            () = shutdown => None,
            () = mine(&client, block_every) => None,
            status = self.child.wait() => Some(status),
        };
        // The next one would overwrite it; until then it would only mislead.
        let _ = std::fs::remove_file(&self.addr_file);
        if let Some(status) = ended {
            let words = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(failed(format!("it ended: {words}")));
        }
        // Whatever it answers, it has to end.
        let _ = client.call::<String>("stop", vec![]).await;
        if tokio::time::timeout(STOP_TIME, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        Ok(())
    }
}

async fn mine(client: &RpcClient, block_every: Option<Duration>) {
    let Some(every) = block_every else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_silent = false;
    loop {
        ticks.tick().await;
        match client.generate(1, &faucet_address()).await {
            Ok(_) => is_silent = false,
            Err(error) if !is_silent => {
                is_silent = true;
                tracing::warn!(%error, "no block was mined");
            }
            Err(_) => {}
        }
    }
}

/// The address to listen on, with a port of the system's choice for 0.
fn free(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(listen)?.local_addr()
}

fn failed(why: String) -> Failure {
    Failure::new(reason!("devchain.bitcoind"), format!("Bitcoin Core: {why}"))
}
