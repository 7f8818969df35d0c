//! What providers say that this node holds: a certificate that was given away while this node
//! was away, or whose push was lost, is found so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Holdings, HoldingsPurpose};
use crate::certificate::objects::Activation;
use crate::engine::io::Protocol;
use crate::engine::kernel::Context;
use crate::engine::messages::SettleRequest;
use crate::engine::register::{HELD_PER_REPLY, RegisterRequest};
use crate::ids::{CertId, Key};
use crate::units::TimeMs;

/// How often one provider is asked, ms.
const ASK_EVERY_MS: u64 = 600_000;
/// Providers asked at start, and certificates fetched after one answer: what is left is asked
/// for next time.
const AT_ONCE: usize = 64;
/// Providers of whom it is remembered when they were asked: 40 bytes each.
const ASKED_MAX: usize = 1024;

/// Who was asked, and when.
#[derive(Debug, Default)]
pub(super) struct Providers {
    asked: BTreeMap<Key, TimeMs>,
    has_started: bool,
}

impl Providers {
    /// Whether a provider may be asked now; then it counts as asked.
    fn may_ask(&mut self, provider: Key, now_ms: TimeMs) -> bool {
        // In either direction: a clock that was set back would wait for its former time.
        let is_recent = |last: &TimeMs| now_ms.abs_diff(*last) < ASK_EVERY_MS;
        if self.asked.get(&provider).is_some_and(is_recent) {
            return false;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, last| is_recent(last));
            if self.asked.len() >= ASKED_MAX {
                return false;
            }
        }
        self.asked.insert(provider, now_ms);
        true
    }
}

impl Holdings {
    /// A peer came up: what is for it is brought; one that may be a provider is asked.
    pub fn on_peer_up(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        is_trader: &dyn Fn(&Key) -> bool,
    ) {
        self.pushes.on_peer_up(peer, ctx.now_ms);
        self.bring_due(ctx);
        let mut is_provider = is_trader(&peer);
        for (id, record) in &self.held {
            if record.facts.provider != peer {
                continue;
            }
            is_provider = true;
            if let Some(errand) = self.errands.get_mut(id) {
                errand.hasten(ctx.now_ms);
            }
        }
        if is_provider && self.providers.may_ask(peer, ctx.now_ms) {
            ask(ctx, peer, CertId([0; 32]));
        }
    }

    /// At start, the providers of what is held are asked, connected or not.
    pub(super) fn ask_at_start(&mut self, ctx: &mut Context<'_>) {
        if std::mem::replace(&mut self.providers.has_started, true) {
            return;
        }
        let slot = ctx.params.slot_at(ctx.now_ms);
        let live = self.held.values().filter(|record| record.facts.window.end > slot);
        let providers: BTreeSet<Key> = live.map(|record| record.facts.provider).collect();
        let me = ctx.me();
        for provider in providers.into_iter().filter(|key| *key != me).take(AT_ONCE) {
            if self.providers.may_ask(provider, ctx.now_ms) {
                ask(ctx, provider, CertId([0; 32]));
            }
        }
    }

    /// A provider published that it has moved, cut or joined a certificate. Of one that is held
    /// here, by all that this node knows, it tells how.
    pub fn hear_moved(&self, ctx: &mut Context<'_>, activation: &Activation) {
        let me = ctx.me();
        for spent in &activation.consumes {
            let is_held = self.held.get(&spent.cert_id).is_some_and(|record| {
                record.facts.provider == activation.provider
                    && record.facts.seq == spent.seq
                    && record.is_free_for(me)
            });
            if is_held && activation.cert_id == spent.cert_id {
                self.fetch(ctx, activation.provider, spent.cert_id, None);
            } else if is_held {
                ask(ctx, activation.provider, CertId([0; 32]));
            }
        }
    }

    /// A provider told what this node holds, of certificates above an id: what is missing here is
    /// fetched, and so is what is here and not there.
    pub(super) fn on_held(
        &self,
        ctx: &mut Context<'_>,
        provider: Key,
        after: CertId,
        told: &[(CertId, u32)],
    ) {
        let lacks = |(id, seq): &&(CertId, u32)| {
            self.held.get(id).is_none_or(|record| record.facts.seq < *seq)
        };
        let told = told.get(..HELD_PER_REPLY).unwrap_or(told);
        for (id, _) in told.iter().filter(lacks).take(AT_ONCE) {
            self.fetch(ctx, provider, *id, None);
        }
        let is_full = told.len() == HELD_PER_REPLY;
        let last = told.last().filter(|_| is_full).map_or(CertId([0xff; 32]), |last| last.0);
        if after < last {
            let (me, slot) = (ctx.me(), ctx.params.slot_at(ctx.now_ms));
            let known = self.held.range((Bound::Excluded(after), Bound::Included(last)));
            let gone = known.filter(|(id, record)| {
                let facts = &record.facts;
                let is_its = facts.provider == provider && facts.window.end > slot;
                is_its && record.is_free_for(me) && !told.iter().any(|(told, _)| told == *id)
            });
            for (id, _) in gone.take(AT_ONCE) {
                self.fetch(ctx, provider, *id, None);
            }
        }
        // A full answer has a next one, which is asked for only if it goes on.
        if let [first, .., last] = told
            && is_full
            && first.0 < last.0
            && !told.iter().any(|one| lacks(&one))
        {
            ask(ctx, provider, last.0);
        }
    }
}

/// Asks a provider what this node holds, of certificates above an id.
pub(super) fn ask(ctx: &mut Context<'_>, provider: Key, after: CertId) {
    let request = SettleRequest::Register(RegisterRequest::Held { after });
    ctx.out.send(provider, Protocol::Settle, &request, HoldingsPurpose::Held { after });
}
