//! Orders that are not signed yet: some still search their proof of work.
//!
//! Those that were begun together are signed together, so that they share one write to disk
//! and as few gossip messages as hold them.

use std::collections::BTreeMap;

use super::SignedOrder;
use crate::order::Order;

/// An order and what it stands for.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) order: Order,
    pub(super) signed: SignedOrder,
}

/// Orders by the number of their search, and those that have their proof of work.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    searching: BTreeMap<u64, Draft>,
    ready: Vec<Draft>,
    next_job: u64,
}

impl Drafts {
    /// Takes an order that needs a proof of work; the number names the search.
    pub(super) fn search(&mut self, draft: Draft) -> u64 {
        self.next_job += 1;
        self.searching.insert(self.next_job, draft);
        self.next_job
    }

    /// Takes an order that needs no work.
    pub(super) fn add_ready(&mut self, draft: Draft) {
        self.ready.push(draft);
    }

    /// A search has found its nonce.
    pub(super) fn found(&mut self, job: u64, nonce: u64) {
        if let Some(mut draft) = self.searching.remove(&job) {
            draft.order.pow_nonce = nonce;
            self.ready.push(draft);
        }
    }

    /// Drops orders, and says which.
    pub(super) fn discard(&mut self, unwanted: impl Fn(&SignedOrder) -> bool) -> Vec<SignedOrder> {
        let searching = self.searching.extract_if(.., |_, draft| unwanted(&draft.signed));
        let mut dropped: Vec<Draft> = searching.map(|(_, draft)| draft).collect();
        dropped.extend(self.ready.extract_if(.., |draft| unwanted(&draft.signed)));
        dropped.into_iter().map(|draft| draft.signed).collect()
    }

    /// What all orders stand for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &SignedOrder> {
        self.searching.values().chain(&self.ready).map(|draft| &draft.signed)
    }

    /// Takes the orders to sign, once none of them has to wait for another's work.
    pub(super) fn take_ready(&mut self) -> Vec<Draft> {
        if self.searching.is_empty() { std::mem::take(&mut self.ready) } else { Vec::new() }
    }
}
