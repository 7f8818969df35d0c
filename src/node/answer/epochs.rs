//! Computed epochs: shown, and handed to the studies that check and export them.

use std::sync::Arc;

use crate::api::ApiError;
use crate::api::types::{Epoch, EpochRow, SeenRoot, slot_range};
use crate::node::Node;
use crate::node::offload::EpochStudy;
use capex_core::engine::market::EpochView;
use capex_core::epoch::EpochResult;
use capex_core::ids::to_hex;
use capex_core::reason;

impl Node {
    fn epoch_view(&self, epoch: Option<u64>) -> Result<(&EpochView, &Arc<EpochResult>), ApiError> {
        let epochs = &self.engine().market().epochs;
        let found = match epoch {
            Some(epoch) => epochs.get(epoch),
            None => epochs.iter().filter(|(_, view)| view.result.is_some()).last().map(|(_, v)| v),
        };
        found.and_then(|view| Some((view, view.result.as_ref()?))).ok_or_else(|| {
            ApiError::new(reason!("epoch.not_found"), "this node has no result of that epoch")
                .with_hint("epochs without orders have none; old ones are forgotten")
        })
    }

    pub(super) fn epoch(&self, epoch: Option<u64>) -> Result<Epoch, ApiError> {
        let (view, result) = self.epoch_view(epoch)?;
        let rows = result.rows.iter().map(|found| EpochRow {
            trade_id: found.trade.to_string(),
            buy: to_hex(&found.row.buy),
            sell: to_hex(&found.row.sell),
            class: self.class_name(found.row.class),
            window: slot_range(found.row.window()),
            qty: found.row.qty,
            price_msat: found.row.msat,
        });
        let roots = view.roots.iter().map(|(key, root)| SeenRoot {
            key: key.to_string(),
            root: to_hex(&root.root),
            count: root.count,
        });
        Ok(Epoch {
            epoch: result.epoch,
            first_slot: self.engine().params().first_slot(result.epoch),
            root: to_hex(&result.root),
            count: result.count,
            result_root: to_hex(&result.result_root),
            rows: rows.collect(),
            prices: self.prices(&result.prices, None),
            roots: roots.collect(),
            agreed: view.roots.values().all(|root| root.root == result.root),
        })
    }

    /// A computed epoch for a study: only its result is copied.
    pub(super) fn epoch_study(&self, epoch: u64) -> Result<Box<EpochStudy>, ApiError> {
        let (view, result) = self.epoch_view(Some(epoch))?;
        Ok(Box::new(EpochStudy {
            params: self.engine().params().clone(),
            set: view.set.clone(),
            result: result.clone(),
            roots: view.roots.values().map(|root| root.root).collect(),
        }))
    }
}
