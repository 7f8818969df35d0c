//! Fetching what a peer with another root has and we lack, and comparing clocks.

mod clock;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::clock::Clocks;
use crate::admission::{AdmissionError, admit};
use crate::engine::io::{Effect, Protocol};
use crate::engine::kernel::{Context, KernelNews};
use crate::engine::market::{Epochs, Lack};
use crate::ids::{Key, OrderId};
use crate::units::TimeMs;
use crate::wire::{Envelope, WireError};

/// Traders asked per epoch, and as many peers that relayed the root of one whose order we
/// lack: enough to meet one that has what we lack, few enough that a liar costs little. Apart,
/// so that roots by made-up keys cannot use up the questions to traders.
const SESSIONS_PER_EPOCH: usize = 4;
/// Orders per fetch: 256 × 2 KiB stays under the frame.
const ORDERS_PER_FETCH: usize = 256;
/// Ids of one answer: 30,000 × 32 bytes stays under 1 MiB.
const IDS_PER_REPLY: usize = 30_000;
/// Fetches that follow one id list.
const FETCHES_PER_SESSION: usize = 16;

/// Epochs whose sessions are remembered: roots of no more than three are taken.
const EPOCHS_REMEMBERED: usize = 4;

/// Requests of `sync/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Which orders of an epoch do you hold?
    Ids { epoch: u64 },
    Orders {
        epoch: u64,
        /// At most 256.
        ids: Vec<OrderId>,
    },
    /// What time is it for you, and where am I, as far as you have heard?
    Clock,
}

/// Answers of `sync/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncReply {
    /// Ids, ascending.
    Ids(Vec<OrderId>),
    Orders(Vec<Envelope>),
    Refused {
        code: String,
    },
    /// Own time when the request was handled.
    Clock {
        /// Unix ms.
        unix_ms: u64,
        /// The last Contacts of whoever asks, as they were heard: at most two.
        contacts: Vec<Envelope>,
    },
}

/// What a request of ours asked a peer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPurpose {
    /// Its order ids of an epoch.
    Ids(u64),
    /// Orders of an epoch that it said it holds.
    Orders(u64),
    Clock {
        /// When it was asked, unix ms.
        sent_ms: TimeMs,
    },
}

/// Who was asked in which epoch.
#[derive(Debug, Default)]
pub struct Sync {
    traders: BTreeMap<u64, Vec<Key>>,
    relays: BTreeMap<u64, Vec<Key>>,
    clocks: Clocks,
}

impl Sync {
    /// A peer came, and is asked for its time, or went.
    pub fn on_peer(&mut self, ctx: &mut Context<'_>, peer: Key, up: bool) {
        if up {
            self.clocks.ask(ctx, peer);
        } else {
            self.clocks.forget(&peer);
        }
    }

    /// Asks peers for their time now and then.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, peers: impl Iterator<Item = Key>) {
        self.clocks.on_tick(ctx, peers);
    }

    /// When [`Sync::on_tick`] has something to do, unix ms.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        self.clocks.next_deadline()
    }

    /// Own time minus that of the median peer, ms, and how many peers told theirs.
    #[must_use]
    pub fn clock_offset(&self) -> (i64, u16) {
        self.clocks.median()
    }

    /// Asks a peer that may hold orders of an epoch that we lack.
    pub fn ask(&mut self, ctx: &mut Context<'_>, lack: Lack) {
        match lack {
            Lack::Trader { epoch, key } => ask_ids(&mut self.traders, ctx, epoch, key),
            Lack::Relay { epoch, key } => ask_ids(&mut self.relays, ctx, epoch, key),
        }
    }

    /// Answers a peer, of which these are the last Contacts.
    #[must_use]
    pub fn on_request(
        &self,
        now_ms: TimeMs,
        epochs: &Epochs,
        contacts: Vec<Envelope>,
        request: &SyncRequest,
    ) -> SyncReply {
        let set = |epoch: &u64| epochs.get(*epoch).map(|view| &*view.set);
        let reply = match request {
            SyncRequest::Clock => Some(SyncReply::Clock { unix_ms: now_ms, contacts }),
            SyncRequest::Ids { epoch } => {
                set(epoch).map(|set| SyncReply::Ids(set.ids().take(IDS_PER_REPLY).collect()))
            }
            SyncRequest::Orders { epoch, ids } => set(epoch).map(|set| {
                let found = ids.iter().take(ORDERS_PER_FETCH).filter_map(|id| set.get(id));
                SyncReply::Orders(found.map(|order| order.envelope().clone()).collect())
            }),
        };
        reply.unwrap_or_else(|| SyncReply::Refused { code: "sync.unknown_epoch".to_owned() })
    }

    /// Takes a peer's answer. An order in it that its bytes prove invalid is the fault of
    /// the peer that sent it.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        epochs: &mut Epochs,
        peer: Key,
        purpose: SyncPurpose,
        reply: SyncReply,
    ) {
        match (purpose, reply) {
            (SyncPurpose::Ids(epoch), SyncReply::Ids(ids)) => {
                let lacks = |id: &OrderId| epochs.order(epoch, id).is_none();
                let missing: Vec<OrderId> =
                    ids.into_iter().take(IDS_PER_REPLY).filter(lacks).collect();
                for ids in missing.chunks(ORDERS_PER_FETCH).take(FETCHES_PER_SESSION) {
                    let request = SyncRequest::Orders { epoch, ids: ids.to_vec() };
                    let purpose = SyncPurpose::Orders(epoch);
                    ctx.out.send(peer, Protocol::Sync, &request, purpose);
                }
            }
            (SyncPurpose::Orders(epoch), SyncReply::Orders(orders)) => {
                take_orders(ctx, epochs, epoch, peer, &orders);
            }
            (SyncPurpose::Clock { sent_ms }, reply) => {
                self.clocks.answered(ctx, peer, sent_ms, &reply);
            }
            // A refusal, or an answer to something else: another peer is asked in its turn.
            (SyncPurpose::Ids(_), SyncReply::Orders(_))
            | (SyncPurpose::Orders(_), SyncReply::Ids(_))
            | (_, SyncReply::Refused { .. } | SyncReply::Clock { .. }) => {}
        }
    }
}

fn ask_ids(asked: &mut BTreeMap<u64, Vec<Key>>, ctx: &mut Context<'_>, epoch: u64, peer: Key) {
    let of_epoch = asked.entry(epoch).or_default();
    if peer == ctx.me() || of_epoch.contains(&peer) || of_epoch.len() >= SESSIONS_PER_EPOCH {
        return;
    }
    of_epoch.push(peer);
    ctx.out.send(peer, Protocol::Sync, &SyncRequest::Ids { epoch }, SyncPurpose::Ids(epoch));
    while asked.len() > EPOCHS_REMEMBERED {
        asked.pop_first();
    }
}

fn take_orders(
    ctx: &mut Context<'_>,
    epochs: &mut Epochs,
    epoch: u64,
    peer: Key,
    orders: &[Envelope],
) {
    for envelope in orders.iter().take(ORDERS_PER_FETCH) {
        if epochs.is_open(ctx, epoch).is_err() {
            return;
        }
        match admit(envelope, ctx.params) {
            Ok(order) if order.epoch == epoch => {
                epochs.insert(order);
            }
            Ok(_) | Err(AdmissionError::Wire(WireError::UnknownVersion)) => {}
            Err(error) => {
                // One is proof enough: the rest is not worth its signatures.
                ctx.out.notify(KernelNews::Refused { peer, code: error.code().to_owned() });
                ctx.out.push(Effect::Penalise { key: peer });
                return;
            }
        }
    }
}
