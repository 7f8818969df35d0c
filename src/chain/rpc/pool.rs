//! What is known of a server's mempool.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Transaction, Txid};
use serde_json::{Value, json};

use super::client::{NOT_FOUND, RpcClient, malformed};
use crate::chain::ChainError;

/// Most mempool transactions fetched in one poll; a first look at a full mainnet mempool
/// takes many polls, and each stays short. Even the heaviest that are relayed fit into one
/// answer.
const MAX_PER_POLL: usize = 128;
/// Bytes of transactions kept whole: more than an hour of mainnet.
const MAX_RECENT_BYTES: usize = 16 << 20;

/// Transactions that were delivered and are still unconfirmed.
#[derive(Debug, Default)]
pub(super) struct Pool {
    known: Arc<HashSet<Txid>>,
    /// Those that came last, whole: what a script that is watched only now may have been paid
    /// by, since nobody knew the script long before.
    recent: VecDeque<(Txid, Transaction)>,
    recent_bytes: usize,
}

/// What a look at the mempool found.
pub(super) struct Look {
    known: HashSet<Txid>,
    fresh: Vec<Transaction>,
    /// Whether nothing is left for the next look.
    is_whole: bool,
}

impl Pool {
    /// Forgets everything: all of it is to be delivered again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What came last and is still there.
    pub(super) fn recent(&self) -> Vec<Transaction> {
        let waiting = self.recent.iter().filter(|(txid, _)| self.known.contains(txid));
        waiting.map(|(_, tx)| tx.clone()).collect()
    }

    /// Looks for what is new; changes nothing. With `anew`, everything is.
    pub(super) fn look(&self, client: &RpcClient, anew: bool) -> Result<Look, ChainError> {
        let is_known = |txid: &Txid| !anew && self.known.contains(txid);
        let listed: Vec<Txid> = client.call_blocking("getrawmempool", &[])?;
        let (mut known, mut wanted, mut is_whole) = (HashSet::new(), Vec::new(), true);
        for txid in listed {
            if is_known(&txid) {
                known.insert(txid);
            } else if wanted.len() < MAX_PER_POLL {
                wanted.push(txid);
            } else {
                is_whole = false;
            }
        }
        let params: Vec<Vec<Value>> = wanted.iter().map(|txid| vec![json!(txid)]).collect();
        let answers = client.batch_blocking::<String>("getrawtransaction", &params)?;
        let mut fresh = Vec::new();
        for (txid, hex) in wanted.into_iter().zip(answers) {
            match hex {
                Ok(hex) => fresh.push(deserialize_hex(&hex).map_err(malformed)?),
                // Mined or evicted since it was listed.
                Err(ChainError::Rpc { code: NOT_FOUND, .. }) => continue,
                Err(error) => return Err(error),
            }
            known.insert(txid);
        }
        Ok(Look { known, fresh, is_whole })
    }

    /// Takes in what a look found; gives what is new, and the ids of all that waits if all of it
    /// has been given by then.
    pub(super) fn take(&mut self, look: Look) -> (Vec<Transaction>, Option<Arc<HashSet<Txid>>>) {
        self.known = Arc::new(look.known);
        for tx in &look.fresh {
            self.recent_bytes += tx.total_size();
            self.recent.push_back((tx.compute_txid(), tx.clone()));
        }
        while self.recent_bytes > MAX_RECENT_BYTES {
            let Some((_, oldest)) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.total_size();
        }
        (look.fresh, look.is_whole.then(|| Arc::clone(&self.known)))
    }
}
