//! The accounts: who had what before and after, and that nothing else went anywhere.

use std::time::Duration;

use super::Run;
use super::broken::Broken;
use super::document::{BalancePart, FunderPart, NodePart, SettlementPart, TradePart, TxPart};
use super::node::Node;
use super::pooling::POOL;
use super::story::seconds;
use super::wait::{Awaited, Look};
use crate::api::types::{Balance, ChainTx, Status, Trade};
use crate::cli::output::sat;
use capex_core::reason;

const SETTLED: &str = "settled";
const SETTLE_TIME: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Wallets before the first trade.
    ///
    /// # Errors
    /// A node that does not answer.
    pub(super) fn note_balances(&mut self) -> Result<(), Broken> {
        for (node, status) in self.nodes.iter().zip(self.statuses()?) {
            let before_sat = total_sat(&status.wallet);
            let part = BalancePart { node: node.name(), before_sat, after_sat: before_sat };
            self.document.balances.push(part);
        }
        Ok(())
    }

    /// Waits until every sale is final, then fills in trades, wallets and nodes.
    ///
    /// # Errors
    /// A sale that does not settle, or money that is missing.
    pub(super) fn close(&mut self) -> Result<(), Broken> {
        for n in 0..self.sold.len() {
            let mut part = self.settled(n)?;
            if n == POOL {
                part.funders = self.funders(&part.trade_id)?;
            }
            let funds = part.funders.iter().map(|funder| funder.fund.fee_sat);
            let fees_sat =
                if part.funders.is_empty() { part.settlement.fund.fee_sat } else { funds.sum() };
            self.document.fees_paid_sat += fees_sat + part.seller_fees_sat;
            self.document.trades.push(part);
        }
        self.note_certificates()?;
        self.check_money()?;
        self.note_nodes()
    }

    fn settled(&self, n: usize) -> Result<TradePart, Broken> {
        let planned = &self.plan.trades[n];
        let seller = &self.nodes[planned.seller];
        let awaited = Awaited { what: "the final claim", from: seller.name(), limit: SETTLE_TIME };
        self.wait(awaited, || {
            let [bought, sold] = self.both(planned, &self.sold[n].trade_id)?;
            let instead = format!("the sale is {}, the purchase {}", sold.state, bought.state);
            let part = trade_part(&bought, &sold, &self.nodes[planned.provider].key);
            Ok(Look::some(part, || instead))
        })
    }

    /// Who paid for a pool, each as its own node has it.
    fn funders(&self, trade_id: &str) -> Result<Vec<FunderPart>, Broken> {
        let funder = |&(n, pledged_sat): &(usize, u64)| {
            let node = &self.nodes[n];
            let awaited = Awaited { what: "its part", from: node.name(), limit: SETTLE_TIME };
            let fund = self.wait(awaited, || {
                let fund = node.trade(trade_id)?.settlement.and_then(|paid| paid.fund);
                let fund = fund.and_then(|tx| tx_part(&tx));
                Ok(Look::some(fund, || "it is not confirmed".to_owned()))
            })?;
            Ok(FunderPart { key: node.key.clone(), pledged_sat, fund })
        };
        self.plan.pledges.iter().map(funder).collect()
    }

    /// Coins are neither made nor lost: what all wallets lost is what the fees were.
    fn check_money(&mut self) -> Result<(), Broken> {
        let container = self.document.container.as_ref().and_then(|part| part.trade.as_ref());
        let trades = self.document.trades.iter().chain(container);
        let claims = trades.map(|trade| trade.settlement.claim.height);
        let last_claim = claims.max().unwrap_or(0);
        for (n, node) in self.nodes.iter().enumerate() {
            let awaited =
                Awaited { what: "the last claim's block", from: node.name(), limit: SETTLE_TIME };
            let wallet = self.wait(awaited, || {
                let Status { chain, wallet, .. } = node.status()?;
                let is_final = chain.height >= last_claim && wallet.pending_sat == 0;
                Ok(Look::some(is_final.then_some(wallet), || format!("height {}", chain.height)))
            })?;
            self.document.balances[n].after_sat = total_sat(&wallet);
        }
        let sum =
            |of: fn(&BalancePart) -> u64| -> u64 { self.document.balances.iter().map(of).sum() };
        let (before_sat, after_sat) = (sum(|part| part.before_sat), sum(|part| part.after_sat));
        let fees_sat = self.document.fees_paid_sat;
        if before_sat != after_sat.saturating_add(fees_sat) {
            let message = format!(
                "wallets held {} before and {} after, but the fees were {}",
                sat(before_sat),
                sat(after_sat),
                sat(fees_sat)
            );
            return Err(Broken::new(reason!("devnet.money"), message));
        }
        Ok(())
    }

    /// The nodes, each by its own status.
    ///
    /// # Errors
    /// A node that does not answer.
    pub(super) fn note_nodes(&mut self) -> Result<(), Broken> {
        let statuses = self.statuses()?;
        let parts = self.nodes.iter().zip(statuses).map(|(node, status)| node_part(node, status));
        self.document.nodes = parts.collect();
        Ok(())
    }

    /// What it came to, and what to do next.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn sum_up(&mut self) -> Result<(), Broken> {
        self.document.elapsed_s = seconds(self.story.elapsed());
        let sold_sat = self.document.trades.iter().map(|trade| trade.price_sat).sum();
        self.story.line("")?;
        self.story.line(format_args!(
            "{} nodes, {} trades of {} in all, {} leases, {} of fees, no sat lost: {} s",
            self.document.nodes.len(),
            self.document.trades.len(),
            sat(sold_sat),
            self.document.leases.len(),
            sat(self.document.fees_paid_sat),
            self.document.elapsed_s,
        ))
    }
}

fn total_sat(wallet: &Balance) -> u64 {
    wallet.confirmed_sat.saturating_add(wallet.pending_sat)
}

fn node_part(node: &Node, status: Status) -> NodePart {
    NodePart {
        name: node.name(),
        role: node.seat.role,
        key: status.key,
        api: status.api,
        datadir: status.datadir,
        peers: status.peers,
        orders_seen: status.orders_seen,
    }
}

/// A trade that is final for its seller; each side tells what it alone knows.
pub(super) fn trade_part(bought: &Trade, sold: &Trade, provider: &str) -> Option<TradePart> {
    let (paid, earned) = (bought.settlement.as_ref()?, sold.settlement.as_ref()?);
    if earned.state != SETTLED {
        return None;
    }
    Some(TradePart {
        trade_id: bought.trade_id.clone(),
        epoch: bought.epoch,
        cert_id: bought.cert_id.clone()?,
        class: bought.class.clone(),
        window: bought.window,
        qty: bought.qty,
        price_msat: bought.price_msat,
        price_sat: bought.price_sat,
        buyer: bought.buyer.clone(),
        holder: bought.holder.clone()?,
        seller: sold.seller.clone(),
        provider: provider.to_owned(),
        buy_order: bought.buy_order.clone(),
        sell_order: sold.sell_order.clone(),
        settlement: SettlementPart {
            terms_hash: paid.terms_hash.clone(),
            address: paid.address.clone(),
            fund: tx_part(paid.fund.as_ref()?)?,
            claim: tx_part(earned.claim.as_ref()?)?,
            by_key: earned.by_key,
            preimage: paid.preimage.clone()?,
            state: earned.state.clone(),
        },
        seller_fees_sat: sold.fees_sat?,
        funders: Vec::new(),
    })
}

fn tx_part(tx: &ChainTx) -> Option<TxPart> {
    Some(TxPart {
        txid: tx.txid.clone(),
        height: tx.height?,
        vsize: tx.vsize,
        fee_sat: tx.fee_sat?,
    })
}
