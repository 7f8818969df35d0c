//! Computed epochs: the last few from memory, older ones read from the store by a study.

use std::sync::Arc;

use crate::api::ApiError;
use crate::api::types::{Epoch, SeenRoot};
use crate::node::Node;
use crate::node::history::epoch_not_found;
use crate::node::offload::{EpochStudy, PastEpoch, Study, Then, shown};
use capex_core::engine::market::EpochView;
use capex_core::epoch::EpochResult;
use capex_core::ids::to_hex;

impl Node {
    fn epoch_view(&self, epoch: Option<u64>) -> Result<(&EpochView, &Arc<EpochResult>), ApiError> {
        let epochs = &self.engine().market().epochs;
        let found = match epoch {
            Some(epoch) => epochs.get(epoch),
            None => epochs.iter().filter(|(_, view)| view.result.is_some()).last().map(|(_, v)| v),
        };
        found
            .and_then(|view| Some((view, view.result.as_ref()?)))
            .ok_or_else(|| epoch_not_found("this node has no result of that epoch"))
    }

    pub(super) fn epoch(&self, epoch: Option<u64>) -> Result<Epoch, ApiError> {
        let (view, result) = self.epoch_view(epoch)?;
        let roots = view.roots.iter().map(|(key, root)| SeenRoot {
            key: key.to_string(),
            root: to_hex(&root.root),
            count: root.count,
        });
        Ok(shown(self.engine().params(), result, roots.collect()))
    }

    /// A study about a computed epoch, which is read first if it is in the store only.
    pub(super) fn epoch_study(
        &self,
        epoch: u64,
        study: fn(Box<EpochStudy>) -> Study,
    ) -> Result<Study, ApiError> {
        if self.is_past(epoch) {
            return Ok(self.past_study(epoch, Box::new(move |found| Ok(study(Box::new(found))))));
        }
        let (view, result) = self.epoch_view(Some(epoch))?;
        Ok(study(Box::new(EpochStudy {
            params: self.engine().params().clone(),
            set: view.set.clone(),
            result: result.clone(),
            roots: view.roots.values().map(|root| root.root).collect(),
        })))
    }

    /// Whether an epoch is in the store only.
    pub(super) fn is_past(&self, epoch: u64) -> bool {
        let epochs = &self.engine().market().epochs;
        epochs.get(epoch).is_none() && epochs.is_archived(epoch)
    }

    pub(super) fn past_study(&self, epoch: u64, then: Then) -> Study {
        let (store, params) = (self.outside.store.clone(), self.engine().params().clone());
        Study::Past(Box::new(PastEpoch { store, params, epoch }), then)
    }
}
