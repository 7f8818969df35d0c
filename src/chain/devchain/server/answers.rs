//! The objects in Core's answers.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Block, BlockHash, Network, Script, Transaction, TxOut, Txid};
use serde_json::{Value, json};

use crate::chain::devchain::block::BLOCK_BITS;
use crate::chain::devchain::chain::Devchain;
use crate::chain::devchain::mempool::{MAX_MEMPOOL_VSIZE, MempoolEntry};
use crate::chain::devchain::policy::{INCREMENTAL_SAT_KVB, MIN_RELAY_SAT_KVB};

/// Tells this server from a Bitcoin Core.
const SUBVERSION: &str = concat!("/capex-devchain:", env!("CARGO_PKG_VERSION"), "/");

/// The Core version whose calls these are.
const CORE_VERSION: u32 = 280_000;

/// Regtest's difficulty, as Core prints it.
const DIFFICULTY: f64 = 4.656_542_373_906_925e-10;

/// An amount or feerate as Core writes it: a number of bitcoin.
pub(super) fn btc(sat: u64) -> Value {
    json!(Amount::from_sat(sat).to_btc())
}

pub(super) fn network_info() -> Value {
    json!({
        "version": CORE_VERSION,
        "subversion": SUBVERSION,
        "protocolversion": 70_016,
        "localservices": "0000000000000000",
        "localservicesnames": [],
        "localrelay": true,
        "timeoffset": 0,
        "networkactive": false,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [],
        "relayfee": btc(MIN_RELAY_SAT_KVB),
        "incrementalfee": btc(INCREMENTAL_SAT_KVB),
        "localaddresses": [],
        "warnings": [],
    })
}

/// Work up to a height: every block stands for two hashes.
fn chainwork(height: u32) -> String {
    format!("{:064x}", (u64::from(height) + 1) * 2)
}

pub(super) fn blockchain_info(chain: &Devchain) -> Value {
    json!({
        "chain": "regtest",
        "blocks": chain.height(),
        "headers": chain.height(),
        "bestblockhash": chain.tip(),
        "bits": format!("{BLOCK_BITS:08x}"),
        "difficulty": DIFFICULTY,
        "time": chain.tip_time_s(),
        "mediantime": chain.median_time_past_s(),
        "verificationprogress": 1,
        "initialblockdownload": false,
        "chainwork": chainwork(chain.height()),
        "size_on_disk": 0,
        "pruned": false,
        "warnings": [],
    })
}

pub(super) fn header(chain: &Devchain, hash: BlockHash, block: &Block) -> Value {
    let (height, mtp_s) = chain.position(&hash).unwrap_or_default();
    let on_best = chain.hash_at(height) == Some(hash);
    let header = &block.header;
    let mut answer = json!({
        "hash": hash,
        // Core's sign of a block that is not on the best chain.
        "confirmations": if on_best { i64::from(chain.height() - height) + 1 } else { -1 },
        "height": height,
        "version": header.version.to_consensus(),
        "versionHex": format!("{:08x}", header.version.to_consensus()),
        "merkleroot": header.merkle_root,
        "time": header.time,
        "mediantime": mtp_s,
        "nonce": header.nonce,
        "bits": format!("{:08x}", header.bits.to_consensus()),
        "difficulty": DIFFICULTY,
        "chainwork": chainwork(height),
        "nTx": block.txdata.len(),
    });
    if height > 0 {
        answer["previousblockhash"] = json!(header.prev_blockhash);
    }
    if let Some(next) = chain.hash_at(height + 1).filter(|_| on_best) {
        answer["nextblockhash"] = json!(next);
    }
    answer
}

pub(super) fn block(chain: &Devchain, hash: BlockHash, block: &Block, with_txs: bool) -> Value {
    let mut answer = header(chain, hash, block);
    let (size, weight) = (block.total_size(), block.weight().to_wu());
    answer["size"] = json!(size);
    // weight = 3 · stripped + size (BIP-141)
    answer["strippedsize"] = json!((weight - size as u64) / 3);
    answer["weight"] = json!(weight);
    answer["tx"] = match with_txs {
        true => block.txdata.iter().map(transaction).collect(),
        false => block.txdata.iter().map(|tx| json!(tx.compute_txid())).collect(),
    };
    answer
}

fn script(script: &Script) -> Value {
    let mut answer = json!({
        "asm": script.to_asm_string(),
        "hex": script.to_hex_string(),
        "type": script_type(script),
    });
    if let Ok(address) = Address::from_script(script, Network::Regtest) {
        answer["address"] = json!(address.to_string());
    }
    answer
}

fn script_type(script: &Script) -> &'static str {
    match script {
        s if s.is_p2tr() => "witness_v1_taproot",
        s if s.is_p2wpkh() => "witness_v0_keyhash",
        s if s.is_p2wsh() => "witness_v0_scripthash",
        s if s.is_witness_program() => "witness_unknown",
        s if s.is_p2pkh() => "pubkeyhash",
        s if s.is_p2sh() => "scripthash",
        s if s.is_p2pk() => "pubkey",
        s if s.is_op_return() => "nulldata",
        _ => "nonstandard",
    }
}

fn transaction(tx: &Transaction) -> Value {
    let inputs: Vec<Value> = tx
        .input
        .iter()
        .map(|input| {
            let mut answer = match tx.is_coinbase() {
                true => json!({"coinbase": input.script_sig.to_hex_string()}),
                false => json!({
                    "txid": input.previous_output.txid,
                    "vout": input.previous_output.vout,
                    "scriptSig": {
                        "asm": input.script_sig.to_asm_string(),
                        "hex": input.script_sig.to_hex_string(),
                    },
                }),
            };
            if !input.witness.is_empty() {
                answer["txinwitness"] =
                    input.witness.iter().map(|item| json!(item.to_lower_hex_string())).collect();
            }
            answer["sequence"] = json!(input.sequence.to_consensus_u32());
            answer
        })
        .collect();
    let outputs: Vec<Value> = (0u32..)
        .zip(&tx.output)
        .map(|(n, output)| {
            json!({
                "value": btc(output.value.to_sat()),
                "n": n,
                "scriptPubKey": script(&output.script_pubkey),
            })
        })
        .collect();
    json!({
        "txid": tx.compute_txid(),
        "hash": tx.compute_wtxid(),
        "version": tx.version.0,
        "size": tx.total_size(),
        "vsize": tx.vsize(),
        "weight": tx.weight().to_wu(),
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
        "hex": serialize_hex(tx),
    })
}

/// A transaction with its place on the chain, if it has one.
pub(super) fn transaction_in(chain: &Devchain, tx: &Transaction, height: Option<u32>) -> Value {
    let mut answer = transaction(tx);
    let place = height.and_then(|height| Some((height, chain.hash_at(height)?)));
    if let Some((height, hash)) = place {
        answer["blockhash"] = json!(hash);
        answer["confirmations"] = json!(chain.height() - height + 1);
        if let Some(block) = chain.block(&hash) {
            answer["time"] = json!(block.header.time);
            answer["blocktime"] = json!(block.header.time);
        }
    }
    answer
}

pub(super) fn tx_out(
    chain: &Devchain,
    output: &TxOut,
    confirmations: u32,
    coinbase: bool,
) -> Value {
    json!({
        "bestblock": chain.tip(),
        "confirmations": confirmations,
        "value": btc(output.value.to_sat()),
        "scriptPubKey": script(&output.script_pubkey),
        "coinbase": coinbase,
    })
}

pub(super) fn raw_mempool(chain: &Devchain, verbose: bool) -> Value {
    let entries = chain.mempool().iter();
    match verbose {
        false => entries.map(|(txid, _)| json!(txid)).collect(),
        true => entries
            .map(|(txid, entry)| (txid.to_string(), mempool_entry(chain, txid, entry)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

pub(super) fn mempool_entry(chain: &Devchain, txid: &Txid, entry: &MempoolEntry) -> Value {
    let mempool = chain.mempool();
    let mut ancestors = mempool.ancestors(&entry.tx);
    ancestors.insert(*txid);
    let descendants = mempool.with_descendants(*txid);
    json!({
        "vsize": entry.vsize,
        "weight": entry.tx.weight().to_wu(),
        "time": entry.time_s,
        "height": entry.height,
        "descendantcount": descendants.len(),
        "descendantsize": mempool.sum(&descendants, |e| e.vsize),
        "ancestorcount": ancestors.len(),
        "ancestorsize": mempool.sum(&ancestors, |e| e.vsize),
        "wtxid": entry.wtxid,
        "fees": {
            "base": btc(entry.fee_sat),
            "modified": btc(entry.fee_sat),
            "ancestor": btc(mempool.sum(&ancestors, |e| e.fee_sat)),
            "descendant": btc(mempool.sum(&descendants, |e| e.fee_sat)),
        },
        "depends": mempool.parents(&entry.tx),
        "spentby": mempool.children(txid),
        "bip125-replaceable": true,
        "unbroadcast": false,
    })
}

pub(super) fn mempool_info(chain: &Devchain) -> Value {
    let mempool = chain.mempool();
    let fees_sat: u64 = mempool.iter().map(|(_, entry)| entry.fee_sat).sum();
    json!({
        "loaded": true,
        "size": mempool.len(),
        "bytes": mempool.vsize(),
        "usage": mempool.vsize(),
        "total_fee": btc(fees_sat),
        "maxmempool": MAX_MEMPOOL_VSIZE,
        "mempoolminfee": btc(MIN_RELAY_SAT_KVB),
        "minrelaytxfee": btc(MIN_RELAY_SAT_KVB),
        "incrementalrelayfee": btc(INCREMENTAL_SAT_KVB),
        "unbroadcastcount": 0,
        "fullrbf": true,
    })
}
