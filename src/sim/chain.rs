//! The Bitcoin network of a world: its miners, what happens to its chain, and what each
//! node's own source shows of it.

use bitcoin::{Transaction, Txid};

use super::life::Node;
use super::queue::{Happening, NodeId};
use super::world::World;
use crate::chain::ChainUpdate;
use crate::chain::devchain::{Devchain, Fees, faucet_script};
use crate::wallet::{Amounts, Wallet, WalletError};
use capex_core::engine::io::Unsent;

/// Chain blocks come this much earlier or later than the network's mean, ms.
const BLOCK_JITTER_MS: u64 = 100;

/// What a node's chain source does.
#[derive(Debug, Default)]
pub(super) enum Source {
    #[default]
    Honest,
    /// It answers, but nothing new reaches it and nothing leaves it.
    Stale,
    /// It passes on what it is handed, and neither says so nor shows anything new.
    Silent,
    /// It shows a branch of its own on which nothing is ever confirmed, and keeps what it is
    /// handed. Half its lies are true: every block below the fork.
    Lying(Box<Devchain>),
}

/// What the blocks of a new branch hold of those that they replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// The same transactions, at once.
    Same,
    /// Nothing: they wait in the mempool for the block after.
    Empty,
    /// Nothing, and no mempool remembers them.
    Forgetful,
}

impl Node {
    /// What is new on the chain, as this node's source shows it.
    pub(super) fn look(&mut self, chain: &Devchain) -> Option<ChainUpdate> {
        let cursor = &mut self.life.as_mut()?.body.cursor;
        match &self.source {
            Source::Honest => cursor.changes(chain),
            Source::Stale | Source::Silent => None,
            Source::Lying(lie) => cursor.changes(lie),
        }
    }
}

impl World {
    /// A chain block is found, and the next one is set up.
    pub(super) fn mine_block(&mut self) {
        let now_s = u32::try_from(self.now_ms / 1000).unwrap_or(u32::MAX);
        // Only a full block store could refuse; then height stands still, and tests see it.
        let _ = self.chain.mine(&faucet_script(), now_s);
        for node in &mut self.nodes {
            if let Source::Lying(lie) = &mut node.source {
                let _ = lie.mine(&faucet_script(), now_s);
            }
        }
        let mean_ms = self.params.chain.block_ms;
        let low = mean_ms.saturating_sub(BLOCK_JITTER_MS);
        let wait_ms = self.rng.within(low, mean_ms + BLOCK_JITTER_MS).max(1);
        self.queue.push(self.now_ms + wait_ms, Happening::Block);
    }

    /// Another branch, one chain block longer, takes the place of the last chain blocks.
    pub fn reorganise(&mut self, depth: u32, branch: Branch) {
        let now_s = u32::try_from(self.now_ms / 1000).unwrap_or(u32::MAX);
        let fork = self.chain.height().saturating_sub(depth) + 1;
        let Some(first) = self.chain.hash_at(fork) else { return };
        let left = self.chain.invalidate_block(&first);
        let fees = self.chain.fees();
        match branch {
            Branch::Same => {}
            Branch::Empty => self.chain.set_fees(Fees { mined_sat_kvb: u64::MAX, ..fees }),
            Branch::Forgetful => self.forget_mempool(),
        }
        let payee = faucet_script();
        let joined = (0..=depth).try_for_each(|_| self.chain.mine(&payee, now_s).map(drop));
        self.chain.set_fees(fees);
        if left.and(joined).is_err() {
            self.evidence.broken("the chain refused to reorganise".to_owned());
        }
    }

    /// Block space costs so much from now on: nodes hear it from their sources, and miners
    /// leave out what pays less.
    pub fn set_feerate(&mut self, sat_kvb: u64) {
        self.chain.set_fees(Fees { estimate_sat_kvb: sat_kvb, mined_sat_kvb: sat_kvb });
    }

    /// Miners leave out what pays less, and no estimate says so.
    pub fn set_mined_feerate(&mut self, sat_kvb: u64) {
        let fees = self.chain.fees();
        self.chain.set_fees(Fees { mined_sat_kvb: sat_kvb, ..fees });
    }

    /// A node pays all coins that it can spend to itself, as a person would. Returns whether it
    /// could.
    pub fn pay_itself(&mut self, node: NodeId) -> bool {
        let rate = self.chain.fees().estimate_sat_kvb;
        let mut is_paid = false;
        self.drive(node, |driver, here| {
            let Ok(to) = driver.wallet_mut().next_address() else { return };
            is_paid = driver.pay(here, &to, Amounts::All, rate, &[]).is_ok();
        });
        is_paid
    }

    /// The wallet of a node as another would open it who has its keys, and spends its coins once
    /// more.
    ///
    /// # Errors
    /// What its disk holds cannot be read.
    pub fn careless_wallet(&self, node: NodeId) -> Result<Wallet, WalletError> {
        self.nodes[node].open_careless_wallet(self.birthday)
    }

    /// Every mempool loses what waits in it.
    pub fn forget_mempool(&mut self) {
        let waiting: Vec<Txid> = self.chain.mempool().iter().map(|(txid, _)| *txid).collect();
        for txid in waiting {
            self.chain.evict(txid);
        }
    }

    /// A node's source is cut off from the Bitcoin network.
    pub fn stall_source(&mut self, node: NodeId) {
        self.heal_source(node);
        self.nodes[node].source = Source::Stale;
    }

    /// A node's source answers nothing any more, but hears.
    pub fn silence_source(&mut self, node: NodeId) {
        self.heal_source(node);
        self.nodes[node].source = Source::Silent;
    }

    /// A node's source shows from now on a branch that confirms nothing.
    pub fn deceive(&mut self, node: NodeId) {
        self.heal_source(node);
        let mut lie = self.chain.clone();
        let fees = lie.fees();
        lie.set_fees(Fees { mined_sat_kvb: u64::MAX, ..fees });
        self.nodes[node].source = Source::Lying(Box::new(lie));
    }

    /// A node's source shows the chain again. What it lied is a branch that lost.
    pub fn heal_source(&mut self, node: NodeId) {
        let source = std::mem::take(&mut self.nodes[node].source);
        if let Source::Lying(lie) = source {
            let now_s = u32::try_from(self.now_ms / 1000).unwrap_or(u32::MAX);
            for height in self.birthday.0..=lie.height() {
                let block = lie.hash_at(height).and_then(|hash| lie.block(&hash));
                if let Some(block) = block {
                    // Blocks below the fork are known.
                    let _ = self.chain.submit_block((**block).clone(), now_s);
                }
            }
        }
        if self.nodes[node].life.is_some() {
            self.poll(node);
        }
    }

    /// A transaction of a node reaches the Bitcoin network, if its source lets it.
    pub(super) fn broadcast(&mut self, node: NodeId, tx: &Transaction) {
        let sent = match &mut self.nodes[node].source {
            Source::Honest => self.chain.submit_tx(tx.clone()),
            Source::Stale => Ok(tx.compute_txid()),
            Source::Silent => {
                let _ = self.chain.submit_tx(tx.clone());
                let result = Err(Unsent::NoAnswer("the source is silent".to_owned()));
                self.drive(node, |driver, here| driver.on_broadcasted(here, tx, result));
                return;
            }
            Source::Lying(lie) => lie.submit_tx(tx.clone()),
        };
        let result = match sent {
            Err(reject) if !reject.is_already_known() => Err(Unsent::Refused(reject.to_string())),
            _ => Ok(()),
        };
        self.drive(node, |driver, here| driver.on_broadcasted(here, tx, result));
        self.poll(node);
    }

    /// Looks at the chain, and gives the node what is new.
    pub(super) fn poll(&mut self, node: NodeId) {
        while let Some(update) = self.nodes[node].look(&self.chain) {
            let mut took = false;
            self.drive(node, |driver, here| took = driver.on_chain(here, &update));
            if !took {
                return;
            }
        }
    }
}
