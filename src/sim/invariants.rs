//! What must hold in every world, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};

use super::queue::NodeId;
use super::world::World;
use crate::chain::devchain::faucet_script;
use capex_core::certificate::{Certificate, Hop};
use capex_core::engine::Engine;
use capex_core::engine::trades::{Role, TradeView};
use capex_core::ids::{CertId, OrderId, TermsHash};
use capex_core::order::{Order, Side};
use capex_core::settlement::objects::{Row, Terms};
use capex_core::wire::encode;

/// What the chain says of the coins of all nodes together.
#[derive(Debug, Default)]
struct Coins {
    unspent: BTreeMap<OutPoint, TxOut>,
    spends: Vec<Spend>,
}

/// A transaction that spends such coins.
#[derive(Debug)]
struct Spend {
    from: Vec<TxOut>,
    to: Vec<TxOut>,
    fee_sat: u64,
}

impl World {
    /// Broken rules, of those that hold at any moment.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.evidence.faults().to_vec();
        self.check_results(&mut faults);
        self.check_exits(&mut faults);
        self.evidence.check_heights(&mut faults);
        faults
    }

    /// Broken rules, including those of a world that has come to rest: every trade ended,
    /// who was paid has delivered, who paid holds, and every wallet has what its trades say.
    #[must_use]
    pub fn faults_at_rest(&self) -> Vec<String> {
        let mut faults = self.faults();
        self.check_money(&mut faults);
        self.check_unit_slots(&mut faults);
        for (node, engine) in self.engines() {
            for trade in engine.trades().views() {
                if !trade.done {
                    faults.push(format!("node {node}: a trade rests in {}", trade.state));
                }
                self.check_delivery(node, &trade, &mut faults);
            }
            self.check_taken_back(node, engine, &mut faults);
            self.check_wallet(node, engine, &mut faults);
        }
        faults
    }

    /// Equal roots give byte-equal results, and no row breaks a limit.
    fn check_results(&self, faults: &mut Vec<String>) {
        let mut results: BTreeMap<(u64, [u8; 32]), Vec<u8>> = BTreeMap::new();
        for (node, engine) in self.engines() {
            for (epoch, view) in engine.market().epochs.iter() {
                let Some(result) = &view.result else { continue };
                let bytes = encode(result);
                let first = results.entry((epoch, result.root)).or_insert_with(|| bytes.clone());
                if *first != bytes {
                    faults.push(format!("node {node}: another result of epoch {epoch}"));
                }
                let order = |id| view.set.get(&OrderId(id)).map(|order| &**order);
                let mut bought: BTreeMap<[u8; 32], u32> = BTreeMap::new();
                for found in &result.rows {
                    *bought.entry(found.row.buy).or_default() += found.row.qty;
                    if !keeps_limits(&found.row, order(found.row.buy), order(found.row.sell)) {
                        faults.push(format!("node {node}: a row of epoch {epoch} breaks a limit"));
                    }
                }
                // One bid may be filled by several asks, with a row for each.
                let too_few = |(buy, qty): (&[u8; 32], &u32)| {
                    order(*buy).is_none_or(|order| *qty < order.min_qty)
                };
                if bought.iter().any(too_few) {
                    faults.push(format!("node {node}: a bid of epoch {epoch} got too little"));
                }
            }
        }
    }

    /// Never the money back and the certificate too.
    fn check_exits(&self, faults: &mut Vec<String>) {
        for (node, engine) in self.engines() {
            for (trade, cert, terms) in given_back(engine) {
                let held = engine.holdings().certificate(&cert);
                if held.is_some_and(|held| self.is_sold_on(held, terms)) {
                    faults.push(format!("node {node} is {} and has the certificate", trade.state));
                }
            }
        }
    }

    /// Nor is it good at its provider, once that one knows of the money. What a provider signed
    /// ahead of the chain is nothing while it is away.
    fn check_taken_back(&self, node: NodeId, engine: &Engine, faults: &mut Vec<String>) {
        for (trade, cert, terms) in given_back(engine) {
            let provider = self.engines().find(|(_, other)| other.me() == trade.registrar);
            let Some((_, provider)) = provider else { continue };
            let register = provider.register();
            let is_valid = register.issued(&cert).is_some();
            let kept = register.certificate(&cert).filter(|_| is_valid);
            if kept.is_some_and(|kept| self.is_sold_on(kept, terms)) {
                faults.push(format!("node {node} is {} and can have more", trade.state));
            }
        }
    }

    /// Whether a certificate has moved by a sale on these terms.
    fn is_sold_on(&self, certificate: &Certificate, terms_hash: TermsHash) -> bool {
        certificate.hops.iter().any(|hop| match hop {
            Hop::Sale { terms, .. } => terms.id::<Terms>(self.params.magic) == terms_hash.0,
            Hop::Gift { .. } | Hop::Split { .. } | Hop::Merge { .. } => false,
        })
    }

    /// Never paid and the certificate not moved, while the provider lives.
    fn check_delivery(&self, node: NodeId, trade: &TradeView, faults: &mut Vec<String>) {
        let other = self.engines().find(|(_, other)| other.me() == trade.counterparty);
        match (trade.role, trade.state) {
            (Role::Seller, "claimed" | "settled") if !self.has_moved(trade) => {
                faults.push(format!("node {node} was paid and did not deliver"));
            }
            (Role::Buyer, "active") => {
                let Some((_, other)) = other else { return };
                let paid = other
                    .trades()
                    .view(trade.trade)
                    .is_some_and(|sale| matches!(sale.state, "claimed" | "settled"));
                // It ends when the seller has spent the contract.
                let is_unpaid = trade.done && !paid;
                if !self.has_moved(trade) || is_unpaid {
                    faults.push(format!("node {node} holds what its provider did not sell"));
                }
            }
            _ => {}
        }
    }

    /// Whether a sale has moved its certificate: by the word of its provider, or by its register.
    fn has_moved(&self, trade: &TradeView) -> bool {
        let Some((terms, to)) = trade.terms_hash.zip(trade.to) else { return false };
        let told = self.evidence.activations().any(|found| found.cause_hash == terms.0);
        let is_sold = |engine: &Engine| engine.register().activation_of_sale(terms, to).is_some();
        told || self.engines().any(|(_, engine)| is_sold(engine))
    }

    /// No coin is lost: all of them, and the fees, are what the nodes began with; every coin
    /// is in a wallet, or in a contract that is still open.
    fn check_money(&self, faults: &mut Vec<String>) {
        let coins = self.coins();
        let began_sat = self.coins_sat * self.nodes.len() as u64;
        let now_sat: u64 = coins.unspent.values().map(|coin| coin.value.to_sat()).sum();
        let fees_sat: u64 = coins.spends.iter().map(|spend| spend.fee_sat).sum();
        if now_sat + fees_sat != began_sat {
            faults.push(format!("{began_sat} sat became {now_sat} and {fees_sat} sat of fees"));
        }
        let own: BTreeSet<ScriptBuf> =
            (0..self.nodes.len()).flat_map(|node| self.scripts(node)).collect();
        let trades = self.engines().flat_map(|(_, engine)| engine.trades().views());
        let mut contracts: BTreeSet<ScriptBuf> =
            trades.filter_map(|trade| trade.contract_spk).collect();
        contracts.extend(self.deserted());
        for (outpoint, coin) in &coins.unspent {
            let spk = &coin.script_pubkey;
            if !own.contains(spk) && !contracts.contains(spk) {
                faults.push(format!("{outpoint} of {} sat is nobody's", coin.value.to_sat()));
            }
        }
    }

    /// Contracts that nobody is left to end: all who watched them are gone.
    fn deserted(&self) -> BTreeSet<ScriptBuf> {
        let (mut kept, mut deserted) = (BTreeSet::new(), BTreeSet::new());
        for node in &self.nodes {
            let of_node = if node.life.is_some() { &mut kept } else { &mut deserted };
            of_node.extend(node.contracts.iter().cloned());
        }
        &deserted - &kept
    }

    /// A wallet's own sum is the chain's, and what its trades make of its first coins.
    fn check_wallet(&self, node: NodeId, engine: &Engine, faults: &mut Vec<String>) {
        if !self.chain.mempool().is_empty() || engine.chain().height != self.chain.height() {
            return;
        }
        let Some(balance) = self.balance(node) else { return };
        let held_sat = balance.confirmed_sat + balance.pending_sat;
        let own: BTreeSet<ScriptBuf> = self.scripts(node).into_iter().collect();
        let coins = self.coins();
        let on_chain = coins.unspent.values().filter(|coin| own.contains(&coin.script_pubkey));
        let on_chain_sat: u64 = on_chain.map(|coin| coin.value.to_sat()).sum();
        if held_sat != on_chain_sat {
            faults.push(format!("node {node} counts {held_sat} sat, the chain {on_chain_sat}"));
        }
        if balance.locked_sat != 0 {
            faults.push(format!("node {node} rests with {} sat locked", balance.locked_sat));
        }
        let trades: Vec<TradeView> = engine.trades().views().collect();
        if trades.iter().all(|trade| trade.done) {
            let change_sat: i128 = trades.iter().map(change_sat).sum();
            let purchases = trades.iter().filter(|trade| trade.role == Role::Buyer);
            let contracts = purchases.filter_map(|trade| trade.contract_spk.clone()).collect();
            let paid_sat = coins.paid_by(&own, &contracts);
            let due_sat = i128::from(self.coins_sat) + change_sat - paid_sat;
            if due_sat != i128::from(held_sat) {
                faults.push(format!("node {node} has {held_sat} sat, its trades say {due_sat}"));
            }
        }
    }

    /// Every transaction since the world began, coinbases left out.
    fn transactions(&self) -> impl Iterator<Item = Transaction> + '_ {
        let blocks = (self.birthday.0 + 1..=self.chain.height())
            .filter_map(|height| self.chain.block(&self.chain.hash_at(height)?));
        blocks.flat_map(|block| block.txdata.iter().skip(1).cloned())
    }

    fn scripts(&self, node: NodeId) -> Vec<ScriptBuf> {
        if let Some(life) = &self.nodes[node].life {
            return life.driver.wallet().watched_scripts();
        }
        let opened = self.nodes[node].open_wallet(self.birthday);
        opened.map(|(wallet, _)| wallet.watched_scripts()).unwrap_or_default()
    }

    fn coins(&self) -> Coins {
        let faucet = faucet_script();
        let mut coins = Coins::default();
        for tx in self.transactions() {
            coins.spend(&tx, &faucet);
        }
        coins
    }
}

impl Coins {
    fn spend(&mut self, tx: &Transaction, faucet: &ScriptBuf) {
        let spent = tx.input.iter().filter_map(|input| self.unspent.remove(&input.previous_output));
        let spent: Vec<TxOut> = spent.collect();
        let spent_sat: u64 = spent.iter().map(|coin| coin.value.to_sat()).sum();
        let paid = (0u32..).zip(&tx.output).filter(|(_, out)| out.script_pubkey != *faucet);
        let txid = tx.compute_txid();
        let mut paid_sat = 0;
        for (vout, output) in paid {
            paid_sat += output.value.to_sat();
            self.unspent.insert(OutPoint { txid, vout }, output.clone());
        }
        // The faucet pays its own fees.
        if !spent.is_empty() {
            let (from, to) = (spent, tx.output.clone());
            self.spends.push(Spend { from, to, fee_sat: spent_sat.saturating_sub(paid_sat) });
        }
    }

    /// Fees that came out of the coins of these scripts, or of a contract that paid them, sat.
    /// Where others put in coins too: what the own ones lost beside own contracts.
    fn paid_by(&self, own: &BTreeSet<ScriptBuf>, contracts: &BTreeSet<ScriptBuf>) -> i128 {
        let is_own = |output: &&TxOut| own.contains(&output.script_pubkey);
        let sum = |outputs: &mut dyn Iterator<Item = &TxOut>| -> i128 {
            outputs.map(|output| i128::from(output.value.to_sat())).sum()
        };
        let paid = |spend: &Spend| {
            let (from, to) = (spend.from.iter(), spend.to.iter());
            let (mine, back) =
                (from.clone().filter(is_own).count(), to.clone().any(|out| is_own(&out)));
            if mine == 0 {
                // A seller claims several at once.
                let is_claim = spend.to.len() == 1 && back;
                return if is_claim { i128::from(spend.fee_sat) } else { 0 };
            }
            if mine == spend.from.len() {
                return i128::from(spend.fee_sat);
            }
            let is_kept =
                |output: &&TxOut| is_own(output) || contracts.contains(&output.script_pubkey);
            sum(&mut from.filter(is_own)) - sum(&mut to.filter(is_kept))
        };
        self.spends.iter().map(paid).sum()
    }
}

/// Purchases of a node whose coins have come back: the certificate and the terms.
fn given_back(engine: &Engine) -> impl Iterator<Item = (TradeView, CertId, TermsHash)> {
    engine.trades().views().filter_map(|trade| {
        let is_back = trade.role == Role::Buyer && matches!(trade.state, "refunded" | "cancelled");
        let (cert, terms) = (trade.cert?, trade.terms_hash?);
        is_back.then_some((trade, cert, terms))
    })
}

fn keeps_limits(row: &Row, buy: Option<&Order>, sell: Option<&Order>) -> bool {
    let (Some(buy), Some(sell)) = (buy, sell) else { return false };
    let blocks = u128::from(row.qty) * u128::from(row.slots);
    let limit = |order: &Order| {
        let alternative = order.alts.iter().find(|alt| alt.class == row.class);
        alternative.map(|alt| u128::from(alt.limit_msat) * blocks)
    };
    (buy.side, sell.side) == (Side::Buy, Side::Sell)
        && limit(buy).is_some_and(|most| u128::from(row.msat) <= most)
        && limit(sell).is_some_and(|least| u128::from(row.msat) >= least)
        && row.qty <= buy.qty.min(sell.qty)
        && buy.window.covers(row.window())
        && sell.window.covers(row.window())
}

/// What an ended trade did to the wallet, without fees, sat.
fn change_sat(trade: &TradeView) -> i128 {
    let price_sat = i128::from(trade.share_sat);
    match (trade.role, trade.state) {
        (Role::Buyer, "active" | "preimage_known" | "defaulted") => -price_sat,
        (Role::Seller, "settled") => price_sat,
        _ => 0,
    }
}
