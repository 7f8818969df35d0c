//! What takes every order of a computed epoch: matching them again, writing them as text.

use std::sync::Arc;

use super::class_name;
use crate::api::types::{
    Epoch, EpochCheck, EpochDifference, EpochRow, SeenRoot, SlotPrice, book_json, slot_range,
};
use crate::api::{ApiError, EpochFile, EpochInput};
use crate::node::history;
use crate::store::Store;
use capex_core::book::{OrderSet, instance};
use capex_core::epoch::EpochResult;
use capex_core::epoch::audit::{Depth, audit};
use capex_core::epoch::signed::{SignedEpoch, SignedEpochFault, write};
use capex_core::ids::to_hex;
use capex_core::params::Params;

/// A computed epoch, with its orders shared rather than copied.
pub(in crate::node) struct EpochStudy {
    pub(in crate::node) params: Params,
    pub(in crate::node) set: Arc<OrderSet>,
    pub(in crate::node) result: Arc<EpochResult>,
    /// Roots that were heard, one for each signer.
    pub(in crate::node) roots: Vec<[u8; 32]>,
}

/// A computed epoch that is in the store only.
pub(in crate::node) struct PastEpoch {
    pub(in crate::node) store: Arc<Store>,
    pub(in crate::node) params: Params,
    pub(in crate::node) epoch: u64,
}

impl PastEpoch {
    /// Reads it.
    ///
    /// # Errors
    /// The store cannot be read, or has forgotten it meanwhile.
    pub(super) fn open(self) -> Result<EpochStudy, ApiError> {
        let (set, result) = history::epoch(&self.store, &self.params, self.epoch)?;
        // Roots are kept as long as an epoch is in memory.
        Ok(EpochStudy { params: self.params, set, result, roots: Vec::new() })
    }
}

impl EpochStudy {
    /// Verifies every signature and matches the orders again.
    pub(super) fn check(self) -> EpochCheck {
        let signed = SignedEpoch::new(&self.result, &self.set, &self.params);
        let audit = audit(&signed, &self.params, Depth::Full);
        let equal = self.roots.iter().filter(|root| **root == self.result.root).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        EpochCheck {
            epoch: self.result.epoch,
            orders: count(audit.orders),
            differences: audit.differences.into_iter().map(EpochDifference::from).collect(),
            more_differences: count(audit.more),
            roots_equal: count(equal),
            roots_different: count(self.roots.len() - equal),
        }
    }

    /// The orders of the book and the version of the rules, to be matched by anyone.
    pub(super) fn input(self) -> EpochInput {
        let instance = instance(&self.set.book(), self.result.epoch, &self.params);
        let mut book = book_json(&instance);
        book["algorithm"] = self.params.matching_version.into();
        EpochInput(book.to_string())
    }

    /// All orders with their signatures, and the result.
    pub(super) fn signed(self) -> Result<EpochFile, ApiError> {
        let signed = SignedEpoch::new(&self.result, &self.set, &self.params);
        write(&signed, &self.params.name).map(EpochFile).map_err(refused)
    }
}

/// A computed epoch for the API, with the roots that were heard.
pub(in crate::node) fn shown(params: &Params, result: &EpochResult, roots: Vec<SeenRoot>) -> Epoch {
    let rows = result.rows.iter().map(|found| EpochRow {
        trade_id: found.trade.to_string(),
        buy: to_hex(&found.row.buy),
        sell: to_hex(&found.row.sell),
        class: class_name(params, found.row.class),
        window: slot_range(found.row.window()),
        qty: found.row.qty,
        price_msat: found.row.msat,
    });
    let root = to_hex(&result.root);
    Epoch {
        epoch: result.epoch,
        first_slot: params.first_slot(result.epoch),
        agreed: roots.iter().all(|seen| seen.root == root),
        root,
        count: result.count,
        result_root: to_hex(&result.result_root),
        rows: rows.collect(),
        prices: prices(params, &result.prices, None),
        roots,
    }
}

/// Prices for the API, of one class or of all.
pub(in crate::node) fn prices(
    params: &Params,
    prices: &[capex_core::epoch::SlotPrice],
    class: Option<u16>,
) -> Vec<SlotPrice> {
    let wanted = prices.iter().filter(|(of, _, _)| class.is_none_or(|class| class == *of));
    let shown = wanted.map(|&(class, slot, price_msat)| SlotPrice {
        class: class_name(params, class),
        slot,
        price_msat,
    });
    shown.collect()
}

fn refused(fault: SignedEpochFault) -> ApiError {
    ApiError::coded(fault.code(), fault.to_string())
        .with_hint("this node can still check it: `capex epoch verify EPOCH`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use capex_core::epoch::compute;
    use capex_core::epoch::signed::{network, parse};

    fn study() -> EpochStudy {
        let (params, set) = (capex_core::test_support::devnet(), Arc::new(OrderSet::default()));
        let result = Arc::new(compute(7, &set, &params).unwrap());
        EpochStudy { roots: vec![result.root, [1; 32], result.root], params, set, result }
    }

    #[test]
    fn a_check_counts_roots_and_names_what_differs() {
        let good = study().check();
        assert_eq!((good.epoch, good.orders, good.differences.len()), (7, 0, 0));
        assert_eq!((good.roots_equal, good.roots_different), (2, 1));
        let mut changed = study();
        let result = Arc::make_mut(&mut changed.result);
        result.welfare_msat += 1;
        result.root = [1; 32];
        let bad = changed.check();
        let codes: Vec<&str> = bad.differences.iter().map(|found| found.code.as_str()).collect();
        assert_eq!(codes, ["epoch.bad_root", "epoch.bad_welfare"]);
        assert_eq!((bad.roots_equal, bad.roots_different), (1, 2));
    }

    #[test]
    fn an_epoch_is_written_for_both_who_read_it() {
        let EpochInput(json) = study().input();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["epoch"], &value["orders"]), (&7.into(), &serde_json::json!([])));
        assert_eq!(value["algorithm"], study().params.matching_version);
        assert_eq!(value["max_legs"], study().params.max_legs);
        let EpochFile(text) = study().signed().unwrap();
        assert_eq!(network(&text), Ok(study().params.name.as_str()));
        assert_eq!(parse(&text).unwrap().result_root, study().result.result_root);
        let refused = refused(SignedEpochFault::TooLong);
        assert_eq!((refused.status, refused.code.as_str()), (413, "epoch.file_too_long"));
    }
}
