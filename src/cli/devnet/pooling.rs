//! Three pay together, each a part, for a fourth.

use std::time::Duration;

use super::broken::Broken;
use super::story::{id, list};
use super::wait::{Awaited, Look};
use super::{Run, Sold};
use crate::api::types::{CreatePool, JoinPool, Pool};
use crate::cli::output::sat;

/// What the pool buys, among the planned trades.
pub(super) const POOL: usize = 3;

/// How long the pool gathers and bids.
const OPEN_MS: u64 = 20_000;
/// Several epochs, and contracts that are funded and claimed.
const POOL_TIME: Duration = Duration::from_secs(40);

impl Run<'_> {
    /// One founds a pool for somebody else, two join by its invitation.
    ///
    /// # Errors
    /// What a node refused.
    pub(super) fn found_pool(&mut self, holder: usize) -> Result<String, Broken> {
        let (planned, holder) = (&self.plan.trades[POOL], &self.nodes[holder]);
        let [(creator, share_sat), members @ ..] = &self.plan.pledges;
        let creator = &self.nodes[*creator];
        let window = creator.certificate(&self.sold[0].cert_id)?.window;
        let create = CreatePool {
            holder: holder.key.clone(),
            class: planned.class.to_owned(),
            features: Vec::new(),
            qty: planned.qty,
            window,
            slots: planned.slots,
            limit_msat: planned.bid_msat,
            expires_at: creator.status()?.now_at + OPEN_MS,
            invited: Vec::new(),
            all_or_nothing: true,
            share_sat: *share_sat,
            max_fee_sat: None,
        };
        let pool: Pool = creator.post("/pools", &create)?;
        for (member, share_sat) in members {
            let (invitation, share_sat) = (pool.invitation.clone(), *share_sat);
            let join = JoinPool { invitation, share_sat, max_fee_sat: None };
            let _: Pool = self.nodes[*member].post("/pools/join", &join)?;
        }
        let pledged = self.plan.pledges.iter();
        let pledged = pledged.map(|(n, part)| format!("{} {}", self.nodes[*n].name(), sat(*part)));
        self.story.tell(format_args!(
            "{} founded a pool for {} × {} that {} shall hold; pledges: {}",
            creator.name(),
            planned.qty,
            planned.class,
            holder.name(),
            list(&pledged.collect::<Vec<_>>()),
        ))?;
        Ok(pool.pool_id)
    }

    /// Each has paid its part into a contract of its own, and the other has the certificate: its id.
    ///
    /// # Errors
    /// What did not come about.
    pub(super) fn see_pool(&mut self, pool_id: &str, holder: usize) -> Result<String, Broken> {
        let (planned, holder) = (&self.plan.trades[POOL], &self.nodes[holder]);
        let mut trade_id = String::new();
        for (member, _) in &self.plan.pledges {
            let member = &self.nodes[*member];
            let awaited = Awaited { what: "the pool", from: member.name(), limit: POOL_TIME };
            trade_id = self.wait(awaited, || {
                let pool: Pool = member.get(&format!("/pools/{pool_id}"))?;
                let instead = format!("the pool is {} {:?}", pool.stage, pool.code);
                let bought = pool.trade_id.filter(|_| pool.stage == "bought");
                Ok(Look::some(bought, || instead))
            })?;
        }
        let creator = &self.nodes[planned.buyer];
        let awaited = Awaited { what: "what was paid for", from: holder.name(), limit: POOL_TIME };
        let (cert_id, price_sat) = self.wait(awaited, || {
            let trade = creator.trade(&trade_id)?;
            let Some(cert_id) = trade.cert_id else {
                return Ok(Look::Not(format!("the purchase is {}", trade.state)));
            };
            let held = holder.certificate(&cert_id)?.holder == holder.key;
            Ok(Look::some(held.then_some((cert_id, trade.price_sat)), || trade.state))
        })?;
        let provider = self.nodes[planned.provider].name();
        self.story.tell(format_args!(
            "the pool paid {provider} {} by one transaction into {} contracts; certificate {} is for {}, who paid nothing",
            sat(price_sat),
            self.plan.pledges.len(),
            id(&cert_id),
            holder.name(),
        ))?;
        self.sold.push(Sold { trade_id, cert_id: cert_id.clone() });
        Ok(cert_id)
    }
}
