//! Calls to one server: cookie authentication, kept connections, typed errors.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, Block, BlockHash, OutPoint, Transaction, Txid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::Agent;

use crate::chain::ChainError;
use crate::chain::error::clean;

/// How long one call may take, if the caller does not say: Core answers most in milliseconds,
/// but waits for its main lock while it connects a block.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest answer read, in bytes: a listing of a mempool of a million transactions, or a block
/// of full weight in hex many times over. It comes from the node that this one trusts.
const MAX_ANSWER_BYTES: u64 = 128 << 20;

/// Longest cookie read, in bytes: Core writes 75.
const MAX_COOKIE_BYTES: u64 = 1_024;

/// Core's `RPC_INVALID_ADDRESS_OR_KEY`: an unknown block or transaction.
pub(super) const NOT_FOUND: i32 = -5;
/// Core's `RPC_INVALID_PARAMETER`: among others, a height above the tip.
pub(super) const OUT_OF_RANGE: i32 = -8;
/// Core's `RPC_MISC_ERROR`: among others, a block that was pruned.
const MISC: i32 = -1;
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

/// A client of one server. Cheap to clone; makes no connection before the first call, then
/// keeps it. Calls made at once have a connection each, so that none waits for another.
#[derive(Clone)]
pub struct RpcClient {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    cookie_path: PathBuf,
    agent: Agent,
    /// Value of the `Authorization` header, once the cookie was read.
    authorization: Mutex<Option<String>>,
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

/// An answer to one call, in the form of JSON-RPC 1.0 or 2.0.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    code: i32,
    #[serde(default)]
    message: String,
}

impl RpcClient {
    /// A client of the server at `url` (`http://host:port`), authenticated by the cookie
    /// file that the server writes.
    pub fn new(url: impl Into<String>, cookie_path: impl Into<PathBuf>) -> Self {
        Self::patient(url, cookie_path, CALL_TIMEOUT)
    }

    /// As [`Self::new`]; a call fails that takes longer than `timeout`.
    pub fn patient(
        url: impl Into<String>,
        cookie_path: impl Into<PathBuf>,
        timeout: Duration,
    ) -> Self {
        let agent = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        let inner = Inner {
            url: url.into(),
            cookie_path: cookie_path.into(),
            agent,
            authorization: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
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

    /// Hands a transaction to the server; one that it has already counts as sent. The server's
    /// own bound on feerates is lifted: a claim in its last block pays what it must, and whoever
    /// makes a transaction has a bound of its own.
    ///
    /// # Errors
    /// [`ChainError::Rejected`] with the server's words, or another [`ChainError`].
    pub async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        let sent: Result<Txid, _> =
            self.call("sendrawtransaction", vec![json!(serialize_hex(tx)), json!(0)]).await;
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
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params});
        result_of(parse(&self.post(&body)?)?)
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
        let call =
            |(id, params)| json!({"jsonrpc": "1.0", "id": id, "method": method, "params": params});
        let body = params.iter().enumerate().map(call).collect();
        let answers: Vec<Answer> = parse(&self.post(&Value::Array(body))?)?;
        let missing = || ChainError::Malformed(format!("no answer to {method} in a batch"));
        let mut results: Vec<_> = params.iter().map(|_| Err(missing())).collect();
        for answer in answers {
            let place = answer.id.as_u64().and_then(|id| usize::try_from(id).ok());
            if let Some(result) = place.and_then(|place| results.get_mut(place)) {
                *result = result_of(answer);
            }
        }
        Ok(results)
    }

    /// The body of an answer. If the server refuses the credentials, reads the cookie again and
    /// tries once more: a server writes a new one at each start.
    fn post(&self, body: &Value) -> Result<Vec<u8>, ChainError> {
        match self.post_once(body) {
            Err(ChainError::Unauthorized(_)) => {
                *self.authorization() = None;
                self.post_once(body)
            }
            done => done,
        }
    }

    fn post_once(&self, body: &Value) -> Result<Vec<u8>, ChainError> {
        let authorization = self.authorize()?;
        let request = self.inner.agent.post(&self.inner.url);
        let request = request.header("authorization", &authorization);
        let unreachable = |error: ureq::Error| ChainError::Unreachable(clean(&error.to_string()));
        let mut response = request.send_json(body).map_err(unreachable)?;
        let status = response.status();
        let limited = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
        let bytes = limited.read_to_vec().map_err(unreachable)?;
        if matches!(status.as_u16(), 401 | 403) {
            return Err(ChainError::Unauthorized(format!("it answers HTTP {status}")));
        }
        // Errors of a call come with a status of their own, and are told by the body.
        if !status.is_success() && !is_json(&bytes) {
            let words = String::from_utf8_lossy(&bytes);
            return Err(ChainError::Unreachable(clean(&format!("HTTP {status}: {words}"))));
        }
        Ok(bytes)
    }

    fn authorize(&self) -> Result<String, ChainError> {
        let mut slot = self.authorization();
        if let Some(known) = &*slot {
            return Ok(known.clone());
        }
        let credentials = read_cookie(&self.inner.cookie_path)?;
        let basic = base64::engine::general_purpose::STANDARD.encode(credentials);
        Ok(slot.insert(format!("Basic {basic}")).clone())
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.inner.authorization.lock().unwrap_or_else(PoisonError::into_inner)
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

/// `user:password` from the first line of a file: the server's cookie, or one written by hand
/// for a server that has a fixed user and password.
fn read_cookie(path: &Path) -> Result<String, ChainError> {
    let unreadable = |why: &str| {
        ChainError::Unauthorized(format!("cookie file {}: {}", path.display(), clean(why)))
    };
    let mut cookie = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_COOKIE_BYTES).read_to_string(&mut cookie))
        .map_err(|error| unreadable(&error.to_string()))?;
    // Editors on some systems begin a text with a byte order mark.
    let text = cookie.strip_prefix('\u{feff}').unwrap_or(&cookie);
    let line = text.lines().next().unwrap_or_default().trim();
    match line.split_once(':') {
        Some(_) => Ok(line.to_owned()),
        None => Err(unreadable("not user:password")),
    }
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

fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ChainError> {
    serde_json::from_slice(bytes).map_err(malformed)
}

fn result_of<T: DeserializeOwned>(answer: Answer) -> Result<T, ChainError> {
    match answer.error {
        Some(error) => Err(from_server(&error)),
        None => serde_json::from_value(answer.result).map_err(malformed),
    }
}

fn from_server(error: &ServerError) -> ChainError {
    let message = clean(&error.message);
    match error.code {
        IN_WARMUP => ChainError::WarmingUp(message),
        // Core's own words in every version that prunes.
        MISC if message.contains("pruned data") => ChainError::Pruned,
        code => ChainError::Rpc { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_that_mean_something_have_a_code_of_their_own() {
        let table = [
            (-28, "Loading block index…", "chain.warming_up"),
            (-1, "Block not available (pruned data)", "chain.pruned"),
            (-1, "anything else", "chain.rpc"),
        ];
        for (code, message, expected) in table {
            let error = ServerError { code, message: message.to_owned() };
            assert_eq!(from_server(&error).code(), expected, "{message}");
        }
    }

    #[test]
    fn credentials_are_read_as_people_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cookie");
        for text in
            ["ann:b:c", "ann:b:c\n", "ann:b:c\r\n", "\u{feff}ann:b:c\r\n", " ann:b:c \nmore"]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_cookie(&path).unwrap(), "ann:b:c", "{text:?}");
        }
        std::fs::write(&path, "secret without a user").unwrap();
        let refused = read_cookie(&path).unwrap_err();
        assert_eq!(refused.code(), "chain.unauthorised");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
