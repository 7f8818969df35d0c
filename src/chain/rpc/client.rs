//! Calls to one server: cookie authentication, typed errors.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bdk_bitcoind_rpc::bitcoincore_rpc::jsonrpc::minreq_http::{self, MinreqHttpTransport};
use bdk_bitcoind_rpc::bitcoincore_rpc::jsonrpc::{self, error::RpcError};
use bdk_bitcoind_rpc::bitcoincore_rpc::{self, Client, RpcApi};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, Block, BlockHash, OutPoint, Transaction, Txid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::chain::ChainError;
use crate::chain::error::clean;

/// How long one call may take: Core answers most in milliseconds, but waits for its main
/// lock while it connects a block.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest cookie read, in bytes: Core writes 75.
const MAX_COOKIE_BYTES: u64 = 1_024;

/// Core's `RPC_INVALID_ADDRESS_OR_KEY`: an unknown block or transaction.
pub(super) const NOT_FOUND: i32 = -5;
/// Core's `RPC_INVALID_PARAMETER`: among others, a height above the tip.
pub(super) const OUT_OF_RANGE: i32 = -8;
/// Core's `RPC_IN_WARMUP`.
const IN_WARMUP: i32 = -28;
/// Core's `RPC_VERIFY_ERROR`: among others, inputs that are missing.
const VERIFY_ERROR: i32 = -25;
/// Core's `RPC_VERIFY_REJECTED`.
const VERIFY_REJECTED: i32 = -26;
/// Core's `RPC_VERIFY_ALREADY_IN_UTXO_SET`.
const ALREADY_IN_CHAIN: i32 = -27;

/// What stands behind an RPC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Devchain,
    /// Bitcoin Core, or one that calls itself like it.
    Bitcoind,
}

/// A client of one server. Cheap to clone; makes no connection before the first call.
#[derive(Clone)]
pub struct RpcClient {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    cookie_path: PathBuf,
    connected: Mutex<Option<Arc<Client>>>,
}

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcClient").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct NetworkInfo {
    subversion: String,
}

impl RpcClient {
    /// A client of the server at `url` (`http://host:port`), authenticated by the cookie
    /// file that the server writes.
    pub fn new(url: impl Into<String>, cookie_path: impl Into<PathBuf>) -> Self {
        Self {
            inner: Arc::new(Inner {
                url: url.into(),
                cookie_path: cookie_path.into(),
                connected: Mutex::new(None),
            }),
        }
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// One call, off the async threads.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<T, ChainError> {
        let client = self.clone();
        blocking(move || client.call_blocking(method, &params)).await
    }

    /// Height of the best block.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn height(&self) -> Result<u32, ChainError> {
        self.call("getblockcount", vec![]).await
    }

    /// A transaction in the mempool, or on the chain where the server keeps an index of
    /// transactions (the devchain does); `None` if it is unknown.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn get_tx(&self, txid: Txid) -> Result<Option<Transaction>, ChainError> {
        let hex: Result<String, _> = self.call("getrawtransaction", vec![json!(txid)]).await;
        match hex {
            Ok(hex) => deserialize_hex(&hex).map(Some).map_err(malformed),
            Err(ChainError::Rpc { code: NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The best chain's block at a height; `None` above the tip.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn block_at(&self, height: u32) -> Result<Option<Block>, ChainError> {
        let hash: BlockHash = match self.call("getblockhash", vec![json!(height)]).await {
            Ok(hash) => hash,
            Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let hex: String = self.call("getblock", vec![json!(hash), json!(0)]).await?;
        deserialize_hex(&hex).map(Some).map_err(malformed)
    }

    /// Whether an output is unspent, by the chain and by the mempool.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn is_unspent(&self, outpoint: OutPoint) -> Result<bool, ChainError> {
        let params = vec![json!(outpoint.txid), json!(outpoint.vout), json!(true)];
        let found: Option<Value> = self.call("gettxout", params).await?;
        Ok(found.is_some())
    }

    /// Mines `blocks` blocks that pay `address` (regtest and devchain only).
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn generate(
        &self,
        blocks: u32,
        address: &Address,
    ) -> Result<Vec<BlockHash>, ChainError> {
        self.call("generatetoaddress", vec![json!(blocks), json!(address.to_string())]).await
    }

    /// Hands a transaction to the server; one that it has already counts as sent.
    ///
    /// # Errors
    /// [`ChainError::Rejected`] with the server's words, or another [`ChainError`].
    pub async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        let sent: Result<Txid, _> =
            self.call("sendrawtransaction", vec![json!(serialize_hex(tx))]).await;
        match sent {
            Err(ChainError::Rpc { code: ALREADY_IN_CHAIN, .. }) => Ok(tx.compute_txid()),
            Err(ChainError::Rpc { code: VERIFY_ERROR | VERIFY_REJECTED, message }) => {
                match is_already_known(&message) {
                    true => Ok(tx.compute_txid()),
                    false => Err(ChainError::rejected(&message)),
                }
            }
            other => other,
        }
    }

    /// Whether this is a devchain or a Bitcoin Core.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn kind(&self) -> Result<Kind, ChainError> {
        let info: NetworkInfo = self.call("getnetworkinfo", vec![]).await?;
        Ok(match info.subversion.starts_with("/capex-devchain:") {
            true => Kind::Devchain,
            false => Kind::Bitcoind,
        })
    }

    pub(super) fn call_blocking<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &[Value],
    ) -> Result<T, ChainError> {
        self.with_fresh_cookie(|client| client.call(method, params).map_err(typed))
    }

    /// Many calls of one method in one request. The results come in the order of `params`;
    /// an error of one call is that call's own.
    pub(super) fn batch_blocking<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &[Vec<Value>],
    ) -> Result<Vec<Result<T, ChainError>>, ChainError> {
        if params.is_empty() {
            return Ok(Vec::new());
        }
        let raw = params
            .iter()
            .map(serde_json::value::to_raw_value)
            .collect::<Result<Vec<_>, _>>()
            .map_err(malformed)?;
        let responses = self.with_fresh_cookie(|client| {
            let rpc = client.get_jsonrpc_client();
            let requests: Vec<_> =
                raw.iter().map(|params| rpc.build_request(method, Some(params))).collect();
            rpc.send_batch(&requests).map_err(|error| typed(error.into()))
        })?;
        let result = |response: Option<jsonrpc::Response>| match response {
            Some(response) => response.result().map_err(|error| typed(error.into())),
            None => Err(ChainError::Malformed(format!("no answer to {method} in a batch"))),
        };
        Ok(responses.into_iter().map(result).collect())
    }

    /// Runs a call; if the server refuses the credentials, reads the cookie again and tries
    /// once more: a server writes a new one at each start.
    fn with_fresh_cookie<T>(
        &self,
        call: impl Fn(&Client) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        match call(&*self.connect()?) {
            Err(ChainError::Unauthorized(_)) => {
                *self.slot() = None;
                call(&*self.connect()?)
            }
            done => done,
        }
    }

    fn connect(&self) -> Result<Arc<Client>, ChainError> {
        let mut slot = self.slot();
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let (user, password) = read_cookie(&self.inner.cookie_path)?;
        let transport = MinreqHttpTransport::builder()
            .timeout(CALL_TIMEOUT)
            .url(&self.inner.url)
            .map_err(|error| ChainError::Unreachable(clean(&error.to_string())))?
            .basic_auth(user, Some(password))
            .build();
        let rpc = jsonrpc::client::Client::with_transport(transport);
        Ok(slot.insert(Arc::new(Client::from_jsonrpc(rpc))).clone())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Client>>> {
        self.inner.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChainError> + Send + 'static,
) -> Result<T, ChainError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => Err(ChainError::Unreachable(clean(&stopped.to_string()))),
    }
}

fn read_cookie(path: &Path) -> Result<(String, String), ChainError> {
    let unreadable = |why: String| {
        ChainError::Unauthorized(format!("cookie file {}: {}", path.display(), clean(&why)))
    };
    let mut cookie = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_COOKIE_BYTES).read_to_string(&mut cookie))
        .map_err(|error| unreadable(error.to_string()))?;
    let line = cookie.lines().next().unwrap_or_default();
    let (user, password) =
        line.split_once(':').ok_or_else(|| unreadable("not user:password".to_owned()))?;
    Ok((user.to_owned(), password.to_owned()))
}

/// Core's words for a transaction that it has already.
fn is_already_known(message: &str) -> bool {
    ["txn-already-in-mempool", "txn-already-known", "txn-same-nonwitness-data-in-mempool"]
        .iter()
        .any(|words| message.starts_with(words))
}

pub(super) fn malformed(error: impl std::fmt::Display) -> ChainError {
    ChainError::Malformed(clean(&error.to_string()))
}

fn typed(error: bitcoincore_rpc::Error) -> ChainError {
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Transport(error)) => {
            let text = clean(&error.to_string());
            match error.downcast_ref::<minreq_http::Error>() {
                Some(minreq_http::Error::Http(http)) if matches!(http.status_code, 401 | 403) => {
                    ChainError::Unauthorized(text)
                }
                _ => ChainError::Unreachable(text),
            }
        }
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) => from_server(error),
        error => malformed(error),
    }
}

fn from_server(error: RpcError) -> ChainError {
    let message = clean(&error.message);
    match error.code {
        IN_WARMUP => ChainError::WarmingUp(message),
        code => ChainError::Rpc { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_warms_up_has_a_code_of_its_own() {
        let error = RpcError { code: -28, message: "Loading block index…".into(), data: None };
        let error = from_server(error);
        assert_eq!(error.code(), "chain.warming_up");
    }
}
