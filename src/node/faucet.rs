//! `wallet fund`: coins from the published faucet key of a development network.

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use tokio::sync::oneshot;

use super::Node;
use crate::api::{Answer, ApiError, types};
use crate::chain::ChainError;
use crate::chain::devchain::{faucet_address, faucet_keypair, faucet_script};
use crate::chain::rpc::RpcClient;
use crate::wallet::faucet_spend;
use capex_core::reason;
use capex_core::wire::sha256;

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
        if self.engine().params().chain.network != bitcoin::Network::Regtest {
            let refused = ApiError::new(
                reason!("wallet.no_faucet"),
                "only devnet and regtest have a faucet; send coins to `capex wallet address`",
            );
            let _ = answer.send(Err(refused));
            return;
        }
        let mut to = Vec::new();
        while to.len() < OUTPUTS {
            match self.driver.wallet_mut().next_address() {
                Ok(address) => to.push(address.script_pubkey()),
                Err(error) => {
                    let failed = ApiError::coded(error.code(), error.to_string());
                    let _ = answer.send(Err(failed));
                    return;
                }
            }
        }
        let client =
            RpcClient::new(self.config.chain.url.clone(), self.config.chain.cookie.clone());
        let start = sha256(&[&self.engine().me().0]);
        self.served.spawn(async move {
            let _ = answer.send(fund(&client, start, to, amount_sat).await.map(Into::into));
        });
    }
}

/// Where the next search for a coin goes on.
struct Search {
    height: u32,
    /// Highest height whose coinbase is mature.
    mature: u32,
}

async fn fund(
    client: &RpcClient,
    start: [u8; 32],
    to: Vec<ScriptBuf>,
    amount_sat: u64,
) -> Result<types::Funded, ApiError> {
    let to: [ScriptBuf; OUTPUTS] = to.try_into().map_err(|_| ApiError::internal("four scripts"))?;
    if client.height().await.map_err(chain)? < FRESH_BLOCKS {
        client.generate(FRESH_BLOCKS, &faucet_address()).await.map_err(chain)?;
    }
    // Subsidies of later blocks are smaller: regtest halves every 150.
    let mature = client.height().await.map_err(chain)?.saturating_sub(MATURITY).min(MATURITY);
    // Every node begins elsewhere, so that two seldom want the same coin.
    let [a, b, c, d, ..] = start;
    let height = u32::from_be_bytes([a, b, c, d]) % mature.max(1);
    let mut search = Search { height, mature };
    let mut last = None;
    for _ in 0..TRIES {
        let coins = search.coins(client, amount_sat).await.map_err(chain)?;
        let tx = faucet_spend(&coins, &faucet_keypair(), to.clone(), amount_sat, FEERATE_SAT_KVB)
            .map_err(|error| ApiError::coded(error.code(), error.to_string()))?;
        match client.broadcast(&tx).await {
            Ok(_) => return Ok(funded(&tx, &coins, &to)),
            // Another node was faster at one of the coins: take the next ones.
            Err(error @ ChainError::Rejected { .. }) => last = Some(error),
            Err(error) => return Err(chain(error)),
        }
    }
    Err(last.map_or_else(|| ApiError::internal("no coin of the faucet is free"), chain))
}

impl Search {
    /// The faucet's next free coins, enough for an amount and its fee if it has them.
    async fn coins(
        &mut self,
        client: &RpcClient,
        amount_sat: u64,
    ) -> Result<Vec<(OutPoint, u64)>, ChainError> {
        let enough_sat = amount_sat.saturating_add(amount_sat / 100).saturating_add(100_000);
        let mut coins = Vec::new();
        let mut found_sat: u64 = 0;
        for _ in 0..self.mature {
            if found_sat > enough_sat || coins.len() >= COINS_MAX {
                break;
            }
            self.height = self.height % self.mature + 1;
            if let Some((outpoint, value_sat)) = coinbase(client, self.height).await? {
                coins.push((outpoint, value_sat));
                found_sat = found_sat.saturating_add(value_sat);
            }
        }
        Ok(coins)
    }
}

fn funded(tx: &Transaction, coins: &[(OutPoint, u64)], to: &[ScriptBuf]) -> types::Funded {
    let ours = tx.output.iter().filter(|out| to.contains(&out.script_pubkey));
    let spent = coins
        .iter()
        .filter(|(coin, _)| tx.input.iter().any(|input| input.previous_output == *coin));
    let spent_sat: u64 = spent.map(|(_, value_sat)| value_sat).sum();
    let total_sat: u64 = tx.output.iter().map(|out| out.value.to_sat()).sum();
    types::Funded {
        txid: tx.compute_txid().to_string(),
        amount_sat: ours.clone().map(|out| out.value.to_sat()).sum(),
        fee_sat: spent_sat.saturating_sub(total_sat),
        outputs: u32::try_from(ours.count()).unwrap_or(u32::MAX),
    }
}

/// The coinbase of a block, if it is the faucet's and unspent: on a regtest of others most
/// blocks pay somebody else.
async fn coinbase(client: &RpcClient, height: u32) -> Result<Option<(OutPoint, u64)>, ChainError> {
    let block = client.block_at(height).await?;
    let Some(tx) = block.as_ref().and_then(|block| block.txdata.first()) else { return Ok(None) };
    let Some(out) = tx.output.first().filter(|out| out.script_pubkey == faucet_script()) else {
        return Ok(None);
    };
    let outpoint = OutPoint { txid: tx.compute_txid(), vout: 0 };
    let unspent = client.is_unspent(outpoint).await?;
    Ok(unspent.then_some((outpoint, out.value.to_sat())))
}

fn chain(error: ChainError) -> ApiError {
    ApiError::coded(error.code(), error.to_string())
}
