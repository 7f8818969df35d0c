//! The calls, named and answered as Bitcoin Core does.

use std::str::FromStr;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, Transaction, Txid};
use serde_json::{Value, json};

use super::answers;
use super::http::Shared;
use super::ledger::LedgerError;
use super::now_s;
use crate::chain::FEE_FLOOR_SAT_KVB;
use crate::chain::devchain::chain::Devchain;
use crate::chain::devchain::policy::Accepted;
use crate::chain::devchain::reject::Reject;

/// Most blocks mined by one call: they keep all other calls waiting.
const MAX_GENERATE: u64 = 1_000;
/// Most transactions in one `testmempoolaccept` (Core's bound).
const MAX_TESTED: usize = 25;
/// Core's default `maxfeerate`, sat per kvB: 0.10 BTC.
const DEFAULT_MAX_FEERATE_SAT_KVB: u64 = 10_000_000;

/// Core's codes (`src/rpc/protocol.h`).
const MISC: i32 = -1;
const TYPE: i32 = -3;
const NOT_FOUND: i32 = -5;
const PARAMETER: i32 = -8;
const DATABASE: i32 = -20;
const DECODE: i32 = -22;
const VERIFY: i32 = -25;
const REJECTED: i32 = -26;
const ALREADY_IN_CHAIN: i32 = -27;
const NO_METHOD: i32 = -32_601;

/// The error of one call.
#[derive(Debug)]
pub(super) struct RpcError {
    pub(super) code: i32,
    pub(super) message: String,
}

impl RpcError {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<LedgerError> for RpcError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Reject(reject) => Self::new(MISC, reject.to_string()),
            LedgerError::Io(error) => Self::new(DATABASE, error.to_string()),
        }
    }
}

type Answer = Result<Value, RpcError>;

/// The positional parameters of a call; a missing one reads as null.
struct Params<'a>(&'a [Value]);

impl Params<'_> {
    fn get(&self, index: usize) -> &Value {
        self.0.get(index).unwrap_or(&Value::Null)
    }

    fn text(&self, index: usize) -> Result<&str, RpcError> {
        self.get(index)
            .as_str()
            .ok_or_else(|| RpcError::new(TYPE, format!("Parameter {index} must be a string")))
    }

    fn number(&self, index: usize) -> Result<u64, RpcError> {
        self.get(index)
            .as_u64()
            .ok_or_else(|| RpcError::new(TYPE, format!("Parameter {index} must be a number")))
    }

    fn flag(&self, index: usize, default: bool) -> bool {
        self.get(index).as_bool().unwrap_or(default)
    }

    /// A verbosity, which Core takes as a number or a boolean.
    fn verbosity(&self, index: usize, default: u64) -> u64 {
        let value = self.get(index);
        value.as_u64().or(value.as_bool().map(u64::from)).unwrap_or(default)
    }

    fn parse<T: FromStr>(&self, index: usize, what: &str) -> Result<T, RpcError> {
        let text = self.text(index)?;
        text.parse().map_err(|_| RpcError::new(PARAMETER, format!("{what} must be of length 64")))
    }

    fn tx(&self, index: usize) -> Result<Transaction, RpcError> {
        decode_tx(self.text(index)?)
    }

    /// A feerate in BTC per kvB; zero means no limit.
    fn max_feerate_sat_kvb(&self, index: usize) -> u64 {
        let given = match self.get(index) {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        };
        match given.and_then(|btc| bitcoin::Amount::from_btc(btc).ok()) {
            None => DEFAULT_MAX_FEERATE_SAT_KVB,
            Some(bitcoin::Amount::ZERO) => u64::MAX,
            Some(rate) => rate.to_sat(),
        }
    }
}

/// Answers one call.
pub(super) fn call(shared: &Shared, method: &str, params: &[Value]) -> Answer {
    let params = Params(params);
    match method {
        "uptime" => Ok(json!(shared.uptime_s())),
        "stop" => {
            shared.stop();
            Ok(json!("Capex devchain stopping"))
        }
        "getnetworkinfo" => Ok(answers::network_info()),
        "sendrawtransaction" => send(shared, &params),
        "generatetoaddress" => generate(shared, &params),
        "invalidateblock" => mark(shared, &params, true),
        "reconsiderblock" => mark(shared, &params, false),
        "submitblock" => submit_block(shared, &params),
        _ => read(shared.ledger().chain(), method, &params),
    }
}

/// The calls that change nothing.
fn read(chain: &Devchain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "getblockchaininfo" => Ok(answers::blockchain_info(chain)),
        "getbestblockhash" => Ok(json!(chain.tip())),
        "getblockcount" => Ok(json!(chain.height())),
        "getblockhash" => block_hash(chain, params),
        "getblockheader" => block_header(chain, params),
        "getblock" => block(chain, params),
        "getrawmempool" => Ok(answers::raw_mempool(chain, params.flag(0, false))),
        "getmempoolentry" => mempool_entry(chain, params),
        "getmempoolinfo" => Ok(answers::mempool_info(chain)),
        "getrawtransaction" => raw_transaction(chain, params),
        "gettxout" => tx_out(chain, params),
        "testmempoolaccept" => test_accept(chain, params),
        "estimatesmartfee" => {
            let blocks = params.number(0)?;
            Ok(json!({"feerate": answers::btc(FEE_FLOOR_SAT_KVB), "blocks": blocks}))
        }
        _ => Err(RpcError::new(NO_METHOD, "Method not found")),
    }
}

fn block_hash(chain: &Devchain, params: &Params<'_>) -> Answer {
    u32::try_from(params.number(0)?)
        .ok()
        .and_then(|height| chain.hash_at(height))
        .map(|hash| json!(hash))
        .ok_or_else(|| RpcError::new(PARAMETER, "Block height out of range"))
}

fn known_block<'a>(
    chain: &'a Devchain,
    params: &Params<'_>,
) -> Result<(BlockHash, &'a Block), RpcError> {
    let hash: BlockHash = params.parse(0, "blockhash")?;
    let block = chain.block(&hash).ok_or_else(|| RpcError::new(NOT_FOUND, "Block not found"))?;
    Ok((hash, block))
}

fn block_header(chain: &Devchain, params: &Params<'_>) -> Answer {
    let (hash, block) = known_block(chain, params)?;
    Ok(match params.flag(1, true) {
        true => answers::header(chain, hash, block),
        false => json!(serialize_hex(&block.header)),
    })
}

fn block(chain: &Devchain, params: &Params<'_>) -> Answer {
    let (hash, block) = known_block(chain, params)?;
    Ok(match params.verbosity(1, 1) {
        0 => json!(serialize_hex(block)),
        verbosity => answers::block(chain, hash, block, verbosity > 1),
    })
}

fn mempool_entry(chain: &Devchain, params: &Params<'_>) -> Answer {
    let txid: Txid = params.parse(0, "txid")?;
    match chain.mempool().get(&txid) {
        Some(entry) => Ok(answers::mempool_entry(chain, &txid, entry)),
        None => Err(RpcError::new(NOT_FOUND, "Transaction not in mempool")),
    }
}

fn raw_transaction(chain: &Devchain, params: &Params<'_>) -> Answer {
    let txid: Txid = params.parse(0, "txid")?;
    let found = match chain.mempool().get(&txid) {
        Some(entry) => Some((None, &*entry.tx)),
        None => chain.confirmed_tx(&txid).map(|(height, tx)| (Some(height), tx)),
    };
    let Some((height, tx)) = found else {
        let message = "No such mempool or blockchain transaction. \
                       Use gettransaction for wallet transactions.";
        return Err(RpcError::new(NOT_FOUND, message));
    };
    Ok(match params.verbosity(1, 0) {
        0 => json!(serialize_hex(tx)),
        _ => answers::transaction_in(chain, tx, height),
    })
}

fn tx_out(chain: &Devchain, params: &Params<'_>) -> Answer {
    let txid: Txid = params.parse(0, "txid")?;
    let Ok(vout) = u32::try_from(params.number(1)?) else {
        return Ok(Value::Null);
    };
    let outpoint = OutPoint { txid, vout };
    let with_mempool = params.flag(2, true);
    if with_mempool && chain.mempool().spender(&outpoint).is_some() {
        return Ok(Value::Null);
    }
    if let Some(coin) = chain.coin(&outpoint) {
        let confirmations = chain.height() + 1 - coin.height;
        return Ok(answers::tx_out(chain, &coin.output, confirmations, coin.coinbase));
    }
    let unconfirmed = chain
        .mempool()
        .get(&txid)
        .filter(|_| with_mempool)
        .and_then(|entry| entry.tx.output.get(vout as usize));
    Ok(unconfirmed.map_or(Value::Null, |output| answers::tx_out(chain, output, 0, false)))
}

fn decode_tx(hex: &str) -> Result<Transaction, RpcError> {
    deserialize_hex(hex).map_err(|_| {
        RpcError::new(DECODE, "TX decode failed. Make sure the tx has at least one input.")
    })
}

fn pays_too_much(accepted: &Accepted, max_sat_kvb: u64) -> bool {
    u128::from(accepted.fee_sat) * 1_000 > u128::from(max_sat_kvb) * u128::from(accepted.vsize)
}

fn send(shared: &Shared, params: &Params<'_>) -> Answer {
    let tx = params.tx(0)?;
    let max_sat_kvb = params.max_feerate_sat_kvb(1);
    let txid = tx.compute_txid();
    let mut ledger = shared.ledger();
    match ledger.chain().test_tx(&tx) {
        Ok(accepted) if pays_too_much(&accepted, max_sat_kvb) => Err(RpcError::new(
            VERIFY,
            "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
        )),
        Ok(_) => ledger.chain_mut().submit_tx(tx).map(|txid| json!(txid)).map_err(refused),
        // Core only announces it once more.
        Err(_) if ledger.chain().mempool().get(&txid).is_some() => Ok(json!(txid)),
        Err(reject) => Err(refused(reject)),
    }
}

/// A refusal as `sendrawtransaction` reports it.
fn refused(reject: Reject) -> RpcError {
    match reject.reason() {
        "bad-txns-inputs-missingorspent" => RpcError::new(VERIFY, reject.to_string()),
        "txn-already-known" => {
            RpcError::new(ALREADY_IN_CHAIN, "Transaction outputs already in utxo set")
        }
        _ => RpcError::new(REJECTED, reject.to_string()),
    }
}

/// Each transaction is tested by itself: packages are not supported.
fn test_accept(chain: &Devchain, params: &Params<'_>) -> Answer {
    let raw = params.get(0).as_array().filter(|raw| (1..=MAX_TESTED).contains(&raw.len()));
    let raw = raw.ok_or_else(|| {
        RpcError::new(
            PARAMETER,
            format!("Array must contain between 1 and {MAX_TESTED} transactions."),
        )
    })?;
    let max_sat_kvb = params.max_feerate_sat_kvb(1);
    let test = |value: &Value| {
        let tx = decode_tx(value.as_str().unwrap_or_default())?;
        let mut result = json!({"txid": tx.compute_txid(), "wtxid": tx.compute_wtxid()});
        let refusal = match chain.test_tx(&tx) {
            Ok(accepted) if pays_too_much(&accepted, max_sat_kvb) => "max-fee-exceeded",
            Ok(accepted) => {
                result["allowed"] = json!(true);
                result["vsize"] = json!(accepted.vsize);
                result["fees"] = json!({"base": answers::btc(accepted.fee_sat)});
                return Ok(result);
            }
            // Core's word for it in this call alone.
            Err(reject) if reject.reason() == "bad-txns-inputs-missingorspent" => "missing-inputs",
            Err(reject) => {
                result["reject-details"] = json!(reject.to_string());
                reject.reason()
            }
        };
        result["allowed"] = json!(false);
        result["reject-reason"] = json!(refusal);
        Ok(result)
    };
    raw.iter().map(test).collect::<Result<Vec<_>, RpcError>>().map(Value::Array)
}

fn generate(shared: &Shared, params: &Params<'_>) -> Answer {
    let blocks = params.number(0)?;
    if blocks > MAX_GENERATE {
        return Err(RpcError::new(PARAMETER, format!("At most {MAX_GENERATE} blocks at once")));
    }
    let payee = Address::from_str(params.text(1)?)
        .ok()
        .and_then(|address| address.require_network(Network::Regtest).ok())
        .ok_or_else(|| RpcError::new(NOT_FOUND, "Error: Invalid address"))?
        .script_pubkey();
    let mut ledger = shared.ledger();
    let mut hashes = Vec::new();
    for _ in 0..blocks {
        hashes.push(json!(ledger.mine(&payee, now_s())?));
    }
    Ok(Value::Array(hashes))
}

fn mark(shared: &Shared, params: &Params<'_>, invalid: bool) -> Answer {
    let mut ledger = shared.ledger();
    let (hash, _) = known_block(ledger.chain(), params)?;
    match invalid {
        true => ledger.invalidate_block(hash)?,
        false => ledger.reconsider_block(hash)?,
    }
    Ok(Value::Null)
}

fn submit_block(shared: &Shared, params: &Params<'_>) -> Answer {
    let block: Block = deserialize_hex(params.text(0)?)
        .map_err(|_| RpcError::new(DECODE, "Block decode failed"))?;
    match shared.ledger().submit_block(block, now_s()) {
        Ok(_) => Ok(Value::Null),
        Err(LedgerError::Reject(reject)) => Ok(json!(reject.reason())),
        Err(error) => Err(error.into()),
    }
}
