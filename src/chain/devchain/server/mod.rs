//! A devchain behind the part of Bitcoin Core's JSON-RPC that a chain source uses.

mod answers;
mod guests;
mod http;
mod ledger;
mod methods;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::http::Shared;
use self::ledger::{Ledger, LedgerError};
use super::faucet::faucet_script;
use crate::clock::now_ms;

/// How long open connections may take to finish when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What a caller decides about a server.
pub struct ServeOptions {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Time between blocks; `None` mines only on request.
    pub block_every: Option<Duration>,
    /// Folder for the chain (`blocks.dat`), the cookie (`.cookie`, mode 0600) and the
    /// actual address (`devchain.addr`). Created if missing; one server at a time.
    pub state_dir: PathBuf,
    /// Who may read and submit, and no more, as `user:password`: nodes of others.
    pub guest: Option<String>,
    /// The server stops when this is ready.
    pub shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    pub addr: SocketAddr,
    /// The file with its credentials.
    pub cookie_path: PathBuf,
    task: JoinHandle<()>,
}

impl Running {
    /// Its address as an RPC client takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until the server has stopped, by its `shutdown` or by the `stop` call.
    pub async fn stopped(self) {
        // A panic in the server's task was reported when it happened.
        let _ = self.task.await;
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The state folder or a file in it cannot be used.
    #[error("{path}: {source}")]
    State { path: PathBuf, source: io::Error },
    /// Another server uses the state folder.
    #[error("{0} is in use by another devchain")]
    InUse(PathBuf),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    /// The operating system gives no random numbers.
    #[error("no randomness for the cookie")]
    Random,
}

impl ServeError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::State { .. } => "devchain.state",
            Self::InUse(_) => "devchain.in_use",
            Self::Listen { .. } => "devchain.listen",
            Self::Random => "devchain.random",
        }
    }
}

/// Starts a server: reloads or pre-mines the chain, listens, mines.
///
/// # Errors
/// [`ServeError`]; nothing runs then.
pub async fn serve(options: ServeOptions) -> Result<Running, ServeError> {
    let ServeOptions { listen, block_every, state_dir, guest, shutdown } = options;
    let opening = state_dir.clone();
    let ledger = tokio::task::spawn_blocking(move || Ledger::open(&opening, now_s()))
        .await
        .map_err(|stopped| at(&state_dir)(io::Error::other(stopped)))??;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| ServeError::Listen { addr: listen, source })?;
    let addr =
        listener.local_addr().map_err(|source| ServeError::Listen { addr: listen, source })?;
    let cookie = new_cookie()?;
    let (cookie_path, addr_path) = (state_dir.join(".cookie"), state_dir.join("devchain.addr"));
    write_private(&cookie_path, &cookie).map_err(at(&cookie_path))?;
    write_private(&addr_path, &format!("{addr}\n")).map_err(at(&addr_path))?;

    let (stop, stopping) = watch::channel(false);
    let shared =
        Arc::new(Shared::new(ledger, &cookie, guest.as_deref(), stop.clone(), Instant::now()));
    let miner =
        block_every.map(|every| tokio::spawn(mine(shared.clone(), every, stopping.clone())));
    let server = tokio::spawn(http::run(listener, shared, stopping.clone()));
    let task = tokio::spawn(async move {
        let asked = async {
            let mut stopping = stopping;
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        tokio::select! { () = shutdown => {}, () = asked => {} }
        let _ = stop.send(true);
        if let Some(miner) = miner {
            let _ = miner.await;
        }
        let aborter = server.abort_handle();
        if tokio::time::timeout(STOP_GRACE, server).await.is_err() {
            aborter.abort();
        }
        // The next server would overwrite them; until then they would only mislead.
        let _ = std::fs::remove_file(&cookie_path);
        let _ = std::fs::remove_file(&addr_path);
    });
    Ok(Running { addr, cookie_path: state_dir.join(".cookie"), task })
}

async fn mine(shared: Arc<Shared>, every: Duration, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut refused = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let shared = shared.clone();
        let mined =
            tokio::task::spawn_blocking(move || shared.ledger().mine(&faucet_script(), now_s()));
        match mined.await {
            Ok(Ok(_)) => refused = None,
            // Blocks faster than six a second run ahead of the clock; the next tick tries again.
            Ok(Err(LedgerError::Reject(reject))) => {
                if refused.replace(reject.reason()) != Some(reject.reason()) {
                    tracing::warn!(%reject, "the devchain mines nothing for now");
                }
            }
            Ok(Err(LedgerError::Io(error))) => {
                tracing::error!(%error, "the devchain stops mining");
                return;
            }
            Err(_) => return,
        }
    }
}

/// The clock of the server, unix seconds.
fn now_s() -> u32 {
    u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX)
}

fn at(path: &Path) -> impl Fn(io::Error) -> ServeError + use<> {
    let path = path.to_owned();
    move |source| ServeError::State { path: path.clone(), source }
}

/// Credentials as Core writes them.
fn new_cookie() -> Result<String, ServeError> {
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(|_| ServeError::Random)?;
    Ok(format!("__cookie__:{}", bitcoin::hex::DisplayHex::to_lower_hex_string(&secret[..])))
}

/// Writes a file of mode 0600 in one step, so that nobody reads half of it.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, path)
}
