//! Fetching what a peer with another root has and we lack (DESIGN §5, ROOT phase).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Market;
use crate::domain::admission::admit;
use crate::domain::engine::context::{Context, Purpose};
use crate::domain::engine::io::Protocol;
use crate::domain::ids::{Key, OrderId};
use crate::wire::Envelope;

/// Peers asked per epoch: enough to meet one that has what we lack, few enough that a liar
/// costs little.
const SESSIONS_PER_EPOCH: usize = 8;
/// Orders per fetch: 256 × 2 KiB stays under the frame.
const ORDERS_PER_FETCH: usize = 256;
/// Ids of one answer: 30,000 × 32 bytes stays under 1 MiB.
const IDS_PER_REPLY: usize = 30_000;
/// Fetches that follow one id list.
const FETCHES_PER_SESSION: usize = 16;

/// Requests of `sync/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Which orders of an epoch do you hold?
    Ids {
        /// Which epoch.
        epoch: u64,
    },
    /// Send me these.
    Orders {
        /// Which epoch.
        epoch: u64,
        /// At most 256.
        ids: Vec<OrderId>,
    },
}

/// Answers of `sync/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncReply {
    /// Ids, ascending.
    Ids(Vec<OrderId>),
    /// Signed orders.
    Orders(Vec<Envelope>),
    /// No, with a reason code.
    Refused {
        /// Reason code.
        code: String,
    },
}

/// Who was asked in which epoch.
#[derive(Debug, Default)]
pub(super) struct SyncState {
    asked: BTreeMap<u64, Vec<Key>>,
}

impl SyncState {
    pub(super) fn ask_ids(&mut self, ctx: &mut Context<'_>, epoch: u64, peer: Key) {
        let asked = self.asked.entry(epoch).or_default();
        if peer == ctx.me() || asked.contains(&peer) || asked.len() >= SESSIONS_PER_EPOCH {
            return;
        }
        asked.push(peer);
        let purpose = Purpose::SyncIds(epoch, peer);
        ctx.out.send(peer, Protocol::Sync, &SyncRequest::Ids { epoch }, purpose);
        while self.asked.len() > 4 {
            self.asked.pop_first();
        }
    }
}

impl Market {
    /// Answers a peer.
    #[must_use]
    pub fn on_sync_request(&self, request: &SyncRequest) -> SyncReply {
        let (SyncRequest::Ids { epoch } | SyncRequest::Orders { epoch, .. }) = request;
        let Some(view) = self.epochs.get(*epoch) else {
            return SyncReply::Refused { code: "sync.unknown_epoch".to_owned() };
        };
        match request {
            SyncRequest::Ids { .. } => SyncReply::Ids(view.set.ids().take(IDS_PER_REPLY).collect()),
            SyncRequest::Orders { ids, .. } => {
                let found = ids.iter().take(ORDERS_PER_FETCH).filter_map(|id| view.set.get(id));
                SyncReply::Orders(found.map(|order| order.envelope().clone()).collect())
            }
        }
    }

    /// Takes a peer's answer.
    pub fn on_sync_reply(&mut self, ctx: &mut Context<'_>, purpose: &Purpose, reply: SyncReply) {
        match (purpose, reply) {
            (Purpose::SyncIds(epoch, peer), SyncReply::Ids(ids)) => {
                let missing: Vec<OrderId> =
                    ids.into_iter().filter(|id| self.epochs.order(*epoch, id).is_none()).collect();
                for ids in missing.chunks(ORDERS_PER_FETCH).take(FETCHES_PER_SESSION) {
                    let request = SyncRequest::Orders { epoch: *epoch, ids: ids.to_vec() };
                    let purpose = Purpose::SyncOrders(*epoch, *peer);
                    ctx.out.send(*peer, Protocol::Sync, &request, purpose);
                }
            }
            (Purpose::SyncOrders(epoch, _), SyncReply::Orders(orders)) => {
                for envelope in orders.iter().take(ORDERS_PER_FETCH) {
                    if let Ok(order) = admit(envelope, ctx.params)
                        && order.epoch == *epoch
                        && self.epochs.is_open(ctx, *epoch).is_ok()
                    {
                        self.epochs.insert(order);
                    }
                }
            }
            _ => {}
        }
    }
}
