//! `wallet fund`: coins from the published faucet key of a development network.

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, Txid};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::Node;
use crate::api::{Answer, ApiError, types};
use crate::chain::ChainError;
use crate::chain::devchain::{faucet_address, faucet_keypair};
use crate::chain::rpc::RpcClient;
use crate::wallet::faucet_spend;
use crate::wire::sha256;

/// Outputs of one funding, so that several trades can be funded at once.
const OUTPUTS: usize = 4;
/// Chain blocks before a coinbase can be spent.
const MATURITY: u32 = 100;
/// Blocks mined on a fresh regtest: the first coinbase is then mature.
const FRESH_BLOCKS: u32 = 101;
/// Coinbases of one funding: the faucet's are of 50 coins and less.
const COINS_MAX: usize = 50;
/// How often another node may have been faster at a coin before this gives up.
const TRIES: usize = 20;
/// Above the relay floor, since every node of a devnet is funded at once.
const FEERATE_SAT_KVB: u64 = 2000;

impl Node {
    pub(super) fn fund_from_faucet(
        &mut self,
        amount_sat: u64,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        if self.engine.params().chain.network != bitcoin::Network::Regtest {
            let refused = ApiError::new(
                422,
                "wallet.no_faucet",
                "only devnet and regtest have a faucet; send coins to `capex wallet address`",
            );
            let _ = answer.send(Err(refused));
            return;
        }
        let mut to = Vec::new();
        while to.len() < OUTPUTS {
            match self.wallet.next_address() {
                Ok(address) => to.push(address.script_pubkey()),
                Err(error) => {
                    let failed = ApiError::new(500, error.code(), error.to_string());
                    let _ = answer.send(Err(failed));
                    return;
                }
            }
        }
        let client =
            RpcClient::new(self.config.chain.url.clone(), self.config.chain.cookie.clone());
        let start = sha256(&[&self.engine.me().0]);
        self.served.spawn(async move {
            let _ = answer.send(fund(&client, start, to, amount_sat).await.map(Into::into));
        });
    }
}

#[derive(Deserialize)]
struct BlockTxids {
    tx: Vec<Txid>,
}

#[derive(Deserialize)]
struct Coin {
    value: f64,
}

async fn fund(
    client: &RpcClient,
    start: [u8; 32],
    to: Vec<bitcoin::ScriptBuf>,
    amount_sat: u64,
) -> Result<types::Funded, ApiError> {
    let to: [bitcoin::ScriptBuf; OUTPUTS] =
        to.try_into().map_err(|_| ApiError::internal("four scripts"))?;
    if client.height().await.map_err(chain)? < FRESH_BLOCKS {
        client.generate(FRESH_BLOCKS, &faucet_address()).await.map_err(chain)?;
    }
    // Subsidies of later blocks are smaller: regtest halves every 150.
    let mature = client.height().await.map_err(chain)?.saturating_sub(MATURITY).min(MATURITY);
    // Every node begins elsewhere, so that two seldom want the same coin.
    let offset = u64::from_be_bytes(start[..8].try_into().unwrap_or_default());
    let mut height = u32::try_from(offset % u64::from(mature.max(1))).unwrap_or(0);
    let mut last = None;
    for _ in 0..TRIES {
        let mut coins = Vec::new();
        let mut found_sat = 0;
        for _ in 0..mature {
            height = height % mature + 1;
            if let Some((outpoint, value_sat)) = coinbase(client, height).await.map_err(chain)? {
                coins.push((outpoint, value_sat));
                found_sat += value_sat;
            }
            if found_sat > amount_sat.saturating_add(amount_sat / 100).saturating_add(100_000)
                || coins.len() >= COINS_MAX
            {
                break;
            }
        }
        let tx = faucet_spend(&coins, &faucet_keypair(), to.clone(), amount_sat, FEERATE_SAT_KVB)
            .map_err(|error| ApiError::new(422, error.code(), error.to_string()))?;
        match client.broadcast(&tx).await {
            Ok(txid) => {
                let ours = |out: &&bitcoin::TxOut| to.contains(&out.script_pubkey);
                let outputs: Vec<_> = tx.output.iter().filter(ours).collect();
                let amount_sat = outputs.iter().map(|out| out.value.to_sat()).sum();
                let total: u64 = tx.output.iter().map(|out| out.value.to_sat()).sum();
                return Ok(types::Funded {
                    txid: txid.to_string(),
                    amount_sat,
                    fee_sat: found_sat.saturating_sub(total),
                    outputs: u32::try_from(outputs.len()).unwrap_or(u32::MAX),
                });
            }
            // Another node was faster at one of the coins: take the next ones.
            Err(error @ ChainError::Rejected { .. }) => last = Some(error),
            Err(error) => return Err(chain(error)),
        }
    }
    Err(last.map_or_else(|| ApiError::internal("no coin of the faucet is free"), chain))
}

/// The coinbase of a block, if the faucet still has it.
async fn coinbase(client: &RpcClient, height: u32) -> Result<Option<(OutPoint, u64)>, ChainError> {
    let hash: bitcoin::BlockHash = client.call("getblockhash", vec![json!(height)]).await?;
    let block: BlockTxids = client.call("getblock", vec![json!(hash), json!(1)]).await?;
    let Some(txid) = block.tx.first().copied() else { return Ok(None) };
    debug_assert_ne!(txid, Txid::all_zeros());
    let coin: Option<Coin> =
        client.call("gettxout", vec![json!(txid), json!(0), json!(true)]).await?;
    let value = coin.and_then(|coin| Amount::from_btc(coin.value).ok());
    Ok(value.map(|value| (OutPoint { txid, vout: 0 }, value.to_sat())))
}

fn chain(error: ChainError) -> ApiError {
    ApiError::unavailable(error.code(), error.to_string())
}
