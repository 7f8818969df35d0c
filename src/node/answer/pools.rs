//! Pools of which this node is a member.

use crate::api::types::{Pledge, Pool, slot_range};
use crate::api::{ApiError, Noun, Prefix};
use crate::node::Node;
use capex_core::engine::pools::PoolView;

impl Node {
    pub(super) fn pools(&self) -> Vec<Pool> {
        let engine = self.engine();
        let views = engine.pools().views(engine.me(), engine.params());
        views.map(|view| self.pool_dto(&view)).collect()
    }

    pub(super) fn pool(&self, prefix: &Prefix) -> Result<Pool, ApiError> {
        let engine = self.engine();
        let views = engine.pools().views(engine.me(), engine.params());
        let found = prefix.find(Noun::Pool, views, |view| view.id.0)?;
        Ok(self.pool_dto(&found))
    }

    fn pool_dto(&self, view: &PoolView) -> Pool {
        let pool = &view.pool;
        let pledges = view
            .members
            .iter()
            .map(|(key, share_sat)| Pledge { key: key.to_string(), share_sat: *share_sat });
        Pool {
            pool_id: view.id.to_string(),
            invitation: view.invitation.clone(),
            creator: pool.creator.to_string(),
            holder: pool.to.to_string(),
            class: self.class_name(pool.class),
            features: self.feature_names(pool.features),
            qty: pool.qty,
            window: slot_range(pool.window),
            slots: pool.slots,
            limit_msat: pool.limit_msat,
            price_sat: pool.price_sat(),
            expires_at: pool.until_ms,
            invited: pool.invited.iter().map(ToString::to_string).collect(),
            all_or_nothing: pool.all_or_nothing,
            share_sat: view.share_sat,
            pledges: pledges.collect(),
            missing_sat: view.missing_sat,
            stage: view.stage.to_owned(),
            code: view.code.clone(),
            trade_id: view.trade.map(|trade| trade.to_string()),
        }
    }
}
