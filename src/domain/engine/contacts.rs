//! Signed addresses of nodes, gossiped each minute and on change (DESIGN §4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::io::{Effect, Topic, Verdict};
use super::market::epochs::{gossip_envelope, wire_verdict};
use crate::domain::ids::Key;
use crate::domain::units::TimeMs;
use crate::limits::{CONTACT_ADDR_BYTES, CONTACT_ADDRS_MAX, CONTACT_SKEW_MS, CONTACTS_MAX};
use crate::wire::{Object, VERSION, WireError, encode};

/// How often an unchanged Contact is published again, ms.
const REPUBLISH_MS: u64 = 60_000;

/// Where a node can be dialled. Signed by the node's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Version.
    pub v: u8,
    /// Whose.
    pub key: Key,
    /// Multiaddrs, at most 8 of at most 128 bytes of printable ASCII.
    pub addrs: Vec<String>,
    /// The highest counts: unix ms of signing.
    pub seq: u64,
}

impl Object for Contact {
    const NAME: &'static str = "contact";
    fn version(&self) -> u8 {
        self.v
    }
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.key.0)
    }
}

impl Contact {
    fn is_bounded(&self) -> bool {
        let plain = |addr: &String| {
            addr.len() <= CONTACT_ADDR_BYTES && addr.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.addrs.len() <= CONTACT_ADDRS_MAX && self.addrs.iter().all(plain)
    }
}

/// Contacts heard, and our own.
#[derive(Debug, Default)]
pub struct Contacts {
    /// With the time of hearing, unix ms.
    heard: BTreeMap<Key, (TimeMs, Contact)>,
    own: Vec<String>,
    published_at_ms: Option<TimeMs>,
}

impl Contacts {
    /// Contacts heard, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.heard.values().map(|(_, contact)| contact)
    }

    /// Own addresses changed.
    pub fn set_own(&mut self, addrs: Vec<String>) {
        if self.own != addrs {
            self.own = addrs;
            self.published_at_ms = None;
        }
    }

    /// A peer joined: it can not know our Contact yet.
    pub fn on_peer_up(&mut self) {
        self.published_at_ms = None;
    }

    /// Publishes our Contact when it is due.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        let due = self.published_at_ms.is_none_or(|at| ctx.now_ms >= at + REPUBLISH_MS);
        if self.own.is_empty() || !due {
            return;
        }
        self.published_at_ms = Some(ctx.now_ms);
        let contact = Contact {
            v: VERSION,
            key: ctx.me(),
            addrs: self.own.iter().take(CONTACT_ADDRS_MAX).cloned().collect(),
            seq: ctx.now_ms,
        };
        let bytes = encode(ctx.sign(contact).envelope());
        ctx.out.push(Effect::Publish { topic: Topic::Contacts, bytes });
    }

    /// When `on_tick` is due.
    #[must_use]
    pub fn next_deadline(&self, now_ms: TimeMs) -> Option<(TimeMs, &'static str)> {
        (!self.own.is_empty())
            .then(|| (self.published_at_ms.map_or(now_ms, |at| at + REPUBLISH_MS), "publish contact"))
    }

    /// A Contact on gossip. `is_trader` tells who has an order.
    pub fn on_gossip(
        &mut self,
        ctx: &mut Context<'_>,
        is_trader: impl Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> (Verdict, Option<&'static str>) {
        let verified =
            gossip_envelope(bytes).and_then(|env| env.verify::<Contact>(ctx.params.magic));
        let contact = match verified {
            Ok(contact) => contact.into_value(),
            Err(error) => return wire_verdict(error),
        };
        if !contact.is_bounded() {
            return wire_verdict(WireError::Oversize);
        }
        let known = self.heard.get(&contact.key);
        if known.is_some_and(|(_, old)| old.seq >= contact.seq) || contact.key == ctx.me() {
            return (Verdict::Ignore, Some("contact.duplicate"));
        }
        if contact.seq.abs_diff(ctx.now_ms) > CONTACT_SKEW_MS {
            return (Verdict::Ignore, Some("contact.stale"));
        }
        if known.is_none() && !self.make_room(&contact.key, is_trader) {
            return (Verdict::Ignore, Some("contact.full"));
        }
        let (key, addrs) = (contact.key, contact.addrs.clone());
        self.heard.insert(key, (ctx.now_ms, contact));
        ctx.out.push(Effect::Addrs { key, addrs });
        (Verdict::Accept, None)
    }

    /// Forgets the contact heard longest ago, of keys without an order before those with one;
    /// false if that would forget a trader for a stranger.
    fn make_room(&mut self, newcomer: &Key, is_trader: impl Fn(&Key) -> bool) -> bool {
        if self.heard.len() < CONTACTS_MAX {
            return true;
        }
        let age = |(key, (heard_ms, _)): (&Key, &(TimeMs, Contact))| (is_trader(key), *heard_ms, *key);
        let Some((trades, _, oldest)) = self.heard.iter().map(age).min() else { return true };
        if trades && !is_trader(newcomer) {
            return false;
        }
        self.heard.remove(&oldest);
        true
    }
}
