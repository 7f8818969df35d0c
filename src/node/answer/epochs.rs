//! Computed epochs: shown, checked again, exported.

use crate::api::types::{Epoch, EpochCheck, EpochDifference, EpochRow, SeenRoot, slot_range};
use crate::api::{ApiError, EpochFile, EpochInput};
use crate::cli::match_cmd::to_json;
use crate::domain::book::instance;
use crate::domain::engine::market::EpochView;
use crate::domain::epoch::EpochResult;
use crate::domain::epoch::audit::{Depth, audit};
use crate::domain::epoch::signed::SignedEpoch;
use crate::domain::ids::to_hex;
use crate::node::Node;

impl Node {
    fn epoch_view(&self, epoch: Option<u64>) -> Result<(&EpochView, &EpochResult), ApiError> {
        let epochs = &self.engine.market().epochs;
        let found = match epoch {
            Some(epoch) => epochs.get(epoch),
            None => epochs.iter().filter(|(_, view)| view.result.is_some()).last().map(|(_, v)| v),
        };
        found.and_then(|view| Some((view, view.result.as_ref()?))).ok_or_else(|| {
            ApiError::new(404, "epoch.not_found", "this node has no result of that epoch")
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
            first_slot: self.engine.params().first_slot(result.epoch),
            root: to_hex(&result.root),
            count: result.count,
            result_root: to_hex(&result.result_root),
            rows: rows.collect(),
            prices: self.prices(&result.prices, None),
            roots: roots.collect(),
            agreed: view.roots.values().all(|root| root.root == result.root),
        })
    }

    pub(super) fn epoch_check(&self, epoch: u64) -> Result<EpochCheck, ApiError> {
        let (view, result) = self.epoch_view(Some(epoch))?;
        let params = self.engine.params();
        let signed = SignedEpoch::new(result, &view.set, params);
        let audit = audit(&signed, params, Depth::Full);
        let equal = view.roots.values().filter(|root| root.root == result.root).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(EpochCheck {
            epoch,
            orders: count(audit.orders),
            differences: audit.differences.into_iter().map(EpochDifference::from).collect(),
            more_differences: count(audit.more),
            roots_equal: count(equal),
            roots_different: count(view.roots.len() - equal),
        })
    }

    pub(super) fn epoch_signed(&self, epoch: u64) -> Result<EpochFile, ApiError> {
        let (view, result) = self.epoch_view(Some(epoch))?;
        let params = self.engine.params();
        let signed = SignedEpoch::new(result, &view.set, params);
        Ok(EpochFile { network: params.name.clone(), signed })
    }

    pub(super) fn epoch_export(&self, epoch: u64) -> Result<EpochInput, ApiError> {
        let (view, _) = self.epoch_view(Some(epoch))?;
        let params = self.engine.params();
        let mut input = to_json(&instance(&view.set.book(), epoch, params));
        input["algorithm"] = params.matching_version.into();
        Ok(EpochInput(input))
    }
}
