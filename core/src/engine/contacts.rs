//! Signed addresses of nodes, gossiped each minute and on change.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::io::{Done, Effect, Topic};
use super::kernel::{Context, Judged, Timer, answer, gossip_envelope, judge};
use crate::ids::Key;
use crate::limits::{CONTACT_ADDR_BYTES, CONTACT_ADDRS_MAX, CONTACT_SKEW_MS, CONTACTS_MAX};
use crate::reason;
use crate::reasons::Reason;
use crate::units::TimeMs;
use crate::wire::{Object, VERSION, WireError, encode};

/// How often an unchanged Contact is published again, ms.
const REPUBLISH_MS: u64 = 60_000;
/// How long peers that come together wait for one Contact, ms: a node that finds twenty
/// peers at its start publishes twice and not twenty times.
const PEERS_TOGETHER_MS: u64 = 1000;

/// Where a node can be dialled. Signed by the node's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    pub v: u8,
    pub key: Key,
    /// Multiaddrs, at most 8 of at most 128 bytes of printable ASCII.
    pub addrs: Vec<String>,
    /// The highest counts: unix ms of signing, or one more than that of the Contact before.
    pub seq: u64,
}

impl Object for Contact {
    const NAME: &'static str = "contact";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
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

/// What the shell tells of this node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactsCommand {
    /// Addresses at which this node listens, to publish in its Contact.
    SetAddresses(Vec<String>),
}

/// Contacts heard, and our own.
#[derive(Debug, Default)]
pub struct Contacts {
    /// With the time of hearing, unix ms.
    heard: BTreeMap<Key, (TimeMs, Contact)>,
    own: Vec<String>,
    due_at_ms: TimeMs,
    /// Of the Contact published last, and when.
    seq: u64,
    published_at_ms: TimeMs,
}

impl Contacts {
    /// Contacts heard, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.heard.values().map(|(_, contact)| contact)
    }

    /// Does what the shell asks.
    pub fn on_command(&mut self, ctx: &mut Context<'_>, id: u64, command: ContactsCommand) {
        let ContactsCommand::SetAddresses(addrs) = command;
        self.set_own(addrs);
        self.on_tick(ctx);
        answer(ctx, Some(id), Ok(Done::Ok));
    }

    /// Own addresses changed.
    fn set_own(&mut self, addrs: Vec<String>) {
        if self.own != addrs {
            self.own = addrs;
            self.due_at_ms = 0;
        }
    }

    /// A peer joined: it cannot know our Contact yet, unless it is under way.
    pub fn on_peer_up(&mut self) {
        self.due_at_ms = self.due_at_ms.min(self.published_at_ms + PEERS_TOGETHER_MS);
    }

    /// Publishes our Contact when it is due.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        // A clock that was set back would wait for its former time, and its number would be one
        // of the future.
        let was_set_back = ctx.now_ms < self.published_at_ms;
        if was_set_back {
            self.seq = 0;
        }
        if self.own.is_empty() || ctx.now_ms < self.due_at_ms && !was_set_back {
            return;
        }
        self.published_at_ms = ctx.now_ms;
        self.due_at_ms = ctx.now_ms + REPUBLISH_MS;
        // Two changes within a millisecond are two Contacts, of which the later counts.
        self.seq = ctx.now_ms.max(self.seq + 1);
        let contact = Contact {
            v: VERSION,
            key: ctx.me(),
            addrs: self.own.iter().take(CONTACT_ADDRS_MAX).cloned().collect(),
            seq: self.seq,
        };
        let bytes = encode(ctx.sign(contact).envelope());
        ctx.out.push(Effect::Publish { topic: Topic::Contacts, bytes });
    }

    /// When `on_tick` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(TimeMs, Timer)> {
        (!self.own.is_empty()).then_some((self.due_at_ms, Timer::Contact))
    }

    /// A Contact on gossip. `is_trader` tells who has an order.
    pub fn on_gossip(
        &mut self,
        ctx: &mut Context<'_>,
        is_trader: impl Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> Judged {
        judge(self.take(ctx, is_trader, bytes))
    }

    fn take(
        &mut self,
        ctx: &mut Context<'_>,
        is_trader: impl Fn(&Key) -> bool,
        bytes: &[u8],
    ) -> Result<(), Reason> {
        let verified =
            gossip_envelope(bytes).and_then(|env| env.verify::<Contact>(ctx.params.magic));
        let contact = verified.map_err(WireError::reason)?.into_value();
        if !contact.is_bounded() {
            return Err(WireError::Oversize.reason());
        }
        let known = self.heard.get(&contact.key);
        if known.is_some_and(|(_, old)| old.seq >= contact.seq) || contact.key == ctx.me() {
            return Err(reason!("contact.duplicate"));
        }
        if contact.seq.abs_diff(ctx.now_ms) > CONTACT_SKEW_MS {
            return Err(reason!("contact.stale"));
        }
        if known.is_none() && !self.make_room(&contact.key, is_trader) {
            return Err(reason!("contact.full"));
        }
        let (key, addrs) = (contact.key, contact.addrs.clone());
        self.heard.insert(key, (ctx.now_ms, contact));
        ctx.out.push(Effect::Addrs { key, addrs });
        Ok(())
    }

    /// Forgets the contact heard longest ago, of keys without an order before those with one;
    /// false if that would forget a trader for a stranger.
    fn make_room(&mut self, newcomer: &Key, is_trader: impl Fn(&Key) -> bool) -> bool {
        if self.heard.len() < CONTACTS_MAX {
            return true;
        }
        let age =
            |(key, (heard_ms, _)): (&Key, &(TimeMs, Contact))| (is_trader(key), *heard_ms, *key);
        let Some((trades, _, oldest)) = self.heard.iter().map(age).min() else { return true };
        if trades && !is_trader(newcomer) {
            return false;
        }
        self.heard.remove(&oldest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Engine, Input, Keys};
    use super::*;
    use crate::test_support::devnet;
    use crate::wire::decode_record;

    /// Contacts that an engine publishes on an input.
    fn published(engine: &mut Engine, now_ms: TimeMs, input: Input) -> Vec<Contact> {
        engine.handle(now_ms, input);
        let mut contacts = Vec::new();
        while let Some(effect) = engine.poll_effect() {
            if let Effect::Publish { topic: Topic::Contacts, bytes } = effect {
                let envelope: crate::wire::Envelope = decode_record(&bytes).unwrap();
                contacts.push(envelope.peek::<Contact>().unwrap());
            }
        }
        contacts
    }

    fn listens(addrs: &[&str]) -> Input {
        let addrs = addrs.iter().map(|addr| (*addr).to_owned()).collect();
        Input::Command { id: 1, command: ContactsCommand::SetAddresses(addrs).into() }
    }

    #[test]
    fn changes_within_a_millisecond_are_contacts_in_order() {
        let now = 1_800_000_000_000;
        let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
        let one = published(&mut engine, now, listens(&["/a"]));
        let two = published(&mut engine, now, listens(&["/a", "/b"]));
        assert_eq!((one.len(), two.len()), (1, 1));
        assert!(two[0].seq > one[0].seq, "a receiver keeps the highest");
        assert_eq!(two[0].addrs.len(), 2);
        assert!(published(&mut engine, now, listens(&["/a", "/b"])).is_empty(), "no change");
    }

    #[test]
    fn peers_that_come_together_share_a_contact() {
        let now = 1_800_000_000_000;
        let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
        assert_eq!(published(&mut engine, now, listens(&["/a"])).len(), 1);
        for peer in 1..=20 {
            let up = Input::Peer { key: Key([peer; 32]), up: true };
            assert!(published(&mut engine, now, up).is_empty());
            assert!(published(&mut engine, now, Input::Tick).is_empty());
        }
        let later = now + PEERS_TOGETHER_MS;
        assert_eq!(published(&mut engine, later, Input::Tick).len(), 1);
        assert!(published(&mut engine, later + 1, Input::Tick).is_empty());
        // A peer that joins a quiet node hears of it at once.
        let up = Input::Peer { key: Key([99; 32]), up: true };
        published(&mut engine, later + 5000, up);
        assert_eq!(published(&mut engine, later + 5000, Input::Tick).len(), 1);
    }
}
