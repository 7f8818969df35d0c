//! Signed addresses of nodes, gossiped each minute and on change.

mod own;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use self::own::Own;
use self::pace::Pace;
use super::io::{Done, Effect, Topic};
use super::kernel::{Context, IdentityInUse, Judged, Timer, answer, gossip_envelope, judge};
use crate::ids::Key;
use crate::limits::{CONTACT_ADDR_BYTES, CONTACT_ADDRS_MAX, CONTACT_SKEW_MS, CONTACTS_MAX};
use crate::reason;
use crate::reasons::Reason;
use crate::units::TimeMs;
use crate::wire::{Envelope, Object, VERSION, Verified, WireError, encode};

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

/// When there is no room, so many of those heard longest ago are looked at for one that has no
/// order: a Contact costs a stranger one signature, so it must not cost us a walk through all.
const OLDEST_LOOKED_AT: usize = 64;
/// Contacts of one key that are taken at once, and how long one more takes in the long run, ms: a
/// node that comes up says where it listens, address by address, and then once a minute. Every
/// node verifies each of them, and passes it on.
const AT_ONCE: u64 = 8;
const EACH_MS: u64 = 1_000;
/// The same for all keys without an order together, which cost nothing: each takes a signature
/// check, in all less than a hundredth of a processor; as many as are kept come again within a
/// minute.
const STRANGERS_AT_ONCE: u64 = 2 * CONTACTS_MAX as u64;
const STRANGER_EACH_MS: u64 = 8;
/// Contacts of this node that a peer may tell of in an answer.
const TOLD_MAX: usize = 2;
/// Counter of the highest number that this node has given a Contact.
const SIGNED: &str = "contact";

/// What the shell tells of this node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactsCommand {
    /// Addresses at which this node listens, to publish in its Contact.
    SetAddresses(Vec<String>),
}

/// Contacts heard of a key.
#[derive(Debug)]
struct Heard {
    /// When the latest was heard, unix ms.
    at_ms: TimeMs,
    latest: Verified<Contact>,
    /// The one before: of two processes with one key, each peer has one of both.
    before: Option<Envelope>,
    pace: Pace,
}

/// Contacts heard, and our own.
#[derive(Debug, Default)]
pub struct Contacts {
    heard: BTreeMap<Key, Heard>,
    /// The same keys, the one heard longest ago first.
    by_age: BTreeSet<(TimeMs, Key)>,
    /// Of all keys without an order.
    strangers: Pace,
    own: Own,
    addrs: Vec<String>,
    due_at_ms: TimeMs,
    /// Of the Contact published last, and when.
    seq: u64,
    published_at_ms: TimeMs,
}

impl Contacts {
    /// Contacts heard, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.heard.values().map(|heard| &*heard.latest)
    }

    /// The last two Contacts of a key, as they were heard.
    pub fn last_two(&self, key: &Key) -> impl Iterator<Item = &Envelope> {
        let heard = self.heard.get(key).into_iter();
        heard.flat_map(|heard| heard.before.iter().chain([heard.latest.envelope()]))
    }

    /// A life begins.
    pub fn begin(&mut self, ctx: &Context<'_>) {
        self.own = Own::begin(ctx.now_ms, ctx.counter(SIGNED));
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
        if self.addrs != addrs {
            self.addrs = addrs;
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
        if self.addrs.is_empty() || ctx.now_ms < self.due_at_ms && !was_set_back {
            return;
        }
        self.published_at_ms = ctx.now_ms;
        self.due_at_ms = ctx.now_ms + REPUBLISH_MS;
        // Two changes within a millisecond are two Contacts, of which the later counts.
        self.seq = ctx.now_ms.max(self.seq + 1);
        self.own.sign(self.seq);
        // Of a clock that was set back the former numbers are still the highest.
        ctx.set_counter(SIGNED, ctx.counter(SIGNED).max(self.seq));
        let contact = Contact {
            v: VERSION,
            key: ctx.me(),
            addrs: self.addrs.iter().take(CONTACT_ADDRS_MAX).cloned().collect(),
            seq: self.seq,
        };
        let bytes = encode(ctx.sign(contact).envelope());
        ctx.out.push(Effect::Publish { topic: Topic::Contacts, bytes });
    }

    /// When `on_tick` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(TimeMs, Timer)> {
        (!self.addrs.is_empty()).then_some((self.due_at_ms, Timer::Contact))
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
        let envelope = gossip_envelope(bytes).map_err(WireError::reason)?;
        let key = Key(envelope.key);
        let is_stranger = key != ctx.me() && !is_trader(&key);
        if is_stranger && !self.strangers.take(ctx.now_ms, STRANGERS_AT_ONCE, STRANGER_EACH_MS) {
            return Err(reason!("contact.too_many"));
        }
        let verified = envelope.verify::<Contact>(ctx.params.magic).map_err(WireError::reason)?;
        let contact: &Contact = &verified;
        if !contact.is_bounded() {
            return Err(WireError::Oversize.reason());
        }
        if contact.key == ctx.me() {
            self.hear_own(ctx, contact);
            return Err(reason!("contact.duplicate"));
        }
        let known = self.heard.get(&contact.key);
        if known.is_some_and(|heard| heard.latest.seq >= contact.seq) {
            return Err(reason!("contact.duplicate"));
        }
        if contact.seq.abs_diff(ctx.now_ms) > CONTACT_SKEW_MS {
            return Err(reason!("contact.stale"));
        }
        let mut pace = known.map(|heard| heard.pace).unwrap_or_default();
        if !pace.take(ctx.now_ms, AT_ONCE, EACH_MS) {
            return Err(reason!("contact.too_many"));
        }
        if known.is_none() && !self.make_room(&key, is_trader) {
            return Err(reason!("contact.full"));
        }
        let addrs = contact.addrs.clone();
        let before = self.forget(&key).map(|heard| heard.latest.envelope().clone());
        self.by_age.insert((ctx.now_ms, key));
        self.heard.insert(key, Heard { at_ms: ctx.now_ms, latest: verified, before, pace });
        ctx.out.push(Effect::Addrs { key, addrs });
        Ok(())
    }

    /// A peer told what it has heard of this node: of two processes with one key none hears the
    /// other through a peer that takes both for one.
    pub fn on_told(&mut self, ctx: &mut Context<'_>, contacts: &[Envelope]) {
        let me = ctx.me();
        let of_me = contacts.iter().take(TOLD_MAX).filter(|told| told.key == me.0);
        for told in of_me {
            if let Ok(contact) = told.verify::<Contact>(ctx.params.magic)
                && contact.is_bounded()
            {
                self.hear_own(ctx, &contact);
            }
        }
    }

    fn hear_own(&mut self, ctx: &mut Context<'_>, contact: &Contact) {
        if self.own.hear(ctx.now_ms, contact.seq) {
            ctx.out.halt(IdentityInUse { addrs: contact.addrs.clone() }.into());
        }
    }

    /// Forgets the contact heard longest ago, of keys without an order before those with one;
    /// false if that would forget a trader for a stranger.
    fn make_room(&mut self, newcomer: &Key, is_trader: impl Fn(&Key) -> bool) -> bool {
        if self.heard.len() < CONTACTS_MAX {
            return true;
        }
        let oldest = || self.by_age.iter().take(OLDEST_LOOKED_AT).map(|(_, key)| *key);
        let stranger = oldest().find(|key| !is_trader(key));
        let gone = stranger.or_else(|| oldest().next().filter(|_| is_trader(newcomer)));
        gone.is_some_and(|key| self.forget(&key).is_some())
    }

    fn forget(&mut self, key: &Key) -> Option<Heard> {
        let heard = self.heard.remove(key)?;
        self.by_age.remove(&(heard.at_ms, *key));
        Some(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Kernel;
    use super::super::{Engine, Input, Keys, Protocol};
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

    fn begun(secret: u8, now_ms: TimeMs) -> Engine {
        let mut engine = Engine::new(devnet(), Keys::new([secret; 32], [2; 32]));
        engine.handle(now_ms, Input::Started { records: Vec::new(), salt: [secret; 32] });
        while engine.poll_effect().is_some() {}
        engine
    }

    /// The Contact of a minute, as bytes.
    fn publish(engine: &mut Engine, now_ms: TimeMs) -> Vec<u8> {
        engine.handle(now_ms, listens(&["/a"]));
        let mut bytes = Vec::new();
        while let Some(effect) = engine.poll_effect() {
            if let Effect::Publish { topic: Topic::Contacts, bytes: found } = effect {
                bytes = found;
            }
        }
        bytes
    }

    fn halt(engine: &mut Engine) -> Option<&'static str> {
        let mut effects = std::iter::from_fn(|| engine.poll_effect());
        effects.find_map(|effect| match effect {
            Effect::Halt { fault } => Some(fault.code()),
            _ => None,
        })
    }

    fn hears(engine: &mut Engine, now_ms: TimeMs, bytes: &[u8]) -> Option<&'static str> {
        let (peer, topic, bytes) = (Key([9; 32]), Topic::Contacts, bytes.to_vec());
        engine.handle(now_ms, Input::Gossip { peer, topic, bytes, ticket: 1 });
        halt(engine)
    }

    #[test]
    fn a_second_process_with_the_same_key_stops_the_first() {
        let now = 1_800_000_000_000;
        let (mut one, mut two) = (begun(1, now), begun(1, now));
        let first = publish(&mut two, now + 10);
        assert_eq!(hears(&mut one, now + 20, &first), None);
        assert_eq!(hears(&mut one, now + 30, &first), None, "the same once more");
        let own = publish(&mut one, now + 60_000);
        assert_eq!(hears(&mut one, now + 60_010, &own), None, "its own");
        let second = publish(&mut two, now + 60_020);
        assert_eq!(hears(&mut one, now + 60_030, &second), Some("identity.in_use"));
        assert_eq!(hears(&mut one, now + 60_040, &second), None, "it does nothing any more");
    }

    /// A peer keeps the highest Contacts, and tells them to whoever signed them.
    #[test]
    fn a_life_with_a_clock_that_was_set_back_does_not_stop_the_next() {
        const AHEAD_MS: u64 = 300_000;
        let now = 1_800_000_000_000;
        let mut journal = BTreeMap::new();
        let mut engine = begun(1, now + AHEAD_MS);
        let mut told = Vec::new();
        for at in [now + AHEAD_MS, now + AHEAD_MS + REPUBLISH_MS, now] {
            engine.handle(at, listens(&["/a"]));
            engine.handle(at, Input::Tick);
            while let Some(effect) = engine.poll_effect() {
                match effect {
                    Effect::Persist { records, .. } => {
                        journal.extend(records.into_iter().map(|r| ((r.table, r.key.clone()), r)))
                    }
                    Effect::Publish { topic: Topic::Contacts, bytes } => told.push(bytes),
                    _ => {}
                }
            }
        }
        assert_eq!(told.len(), 3);
        let mut next = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
        let records = journal.into_values().collect();
        next.handle(now + 1_000, Input::Started { records, salt: [4; 32] });
        assert_eq!(halt(&mut next), None);
        for bytes in &told {
            assert_eq!(hears(&mut next, now + 1_000, bytes), None);
        }
    }

    /// Two processes with one key are one peer to others, who bring none the other's gossip.
    #[test]
    fn a_peer_that_takes_both_for_one_tells_both() {
        let now = 1_800_000_000_000;
        let (mut one, mut two, mut peer) = (begun(1, now), begun(1, now), begun(3, now));
        let me = one.me();
        let mut ends = Vec::new();
        for minute in 0..4 {
            let at = now + 1 + minute * REPUBLISH_MS;
            for (process, late_ms) in [(&mut one, 0), (&mut two, 30_000)] {
                let bytes = publish(process, at + late_ms);
                hears(&mut peer, at + late_ms, &bytes);
                let up = Input::Peer { key: peer.me(), up: true };
                process.handle(at + late_ms, up);
                let mut effects = std::iter::from_fn(|| process.poll_effect());
                let asked = effects.find_map(|effect| match effect {
                    Effect::Send { id, protocol: Protocol::Sync, bytes, .. } => Some((id, bytes)),
                    _ => None,
                });
                let Some((id, bytes)) = asked else { continue };
                while process.poll_effect().is_some() {}
                let request = Input::Request { peer: me, id, protocol: Protocol::Sync, bytes };
                peer.handle(at + late_ms, request);
                let mut effects = std::iter::from_fn(|| peer.poll_effect());
                let reply = effects.find_map(|effect| match effect {
                    Effect::Reply { bytes, .. } => Some(bytes),
                    _ => None,
                });
                process.handle(at + late_ms, Input::Response { id, result: Ok(reply.unwrap()) });
                ends.extend(halt(process).map(|code| (minute, code)));
            }
        }
        assert_eq!(ends, [(1, "identity.in_use"), (2, "identity.in_use")]);
    }

    /// A Contact is free: it must not make a node look through all that it has.
    #[test]
    fn a_full_room_costs_a_stranger_no_more_than_a_look_at_the_oldest() {
        let now = 1_800_000_000_000;
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut contacts = Contacts::default();
        let signed = |number: usize| {
            let mut secret = [0xaa; 32];
            secret[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let signer = Keys::new(secret, [2; 32]);
            let contact = Contact { v: 1, key: signer.public(), addrs: Vec::new(), seq: now };
            (signer.public(), encode(signer.sign(contact, &devnet()).envelope()))
        };
        let mut hear = |contacts: &mut Contacts, number: usize, trades: &dyn Fn(&Key) -> bool| {
            let asked = std::cell::Cell::new(0);
            let is_trader = |key: &Key| {
                asked.set(asked.get() + 1);
                trades(key)
            };
            let (key, bytes) = signed(number);
            let mut ctx = kernel.context(now + number as u64);
            (contacts.on_gossip(&mut ctx, is_trader, &bytes).1, asked.get(), key)
        };
        let keys: Vec<Key> =
            (0..CONTACTS_MAX).map(|number| hear(&mut contacts, number, &|_| false).2).collect();
        // The oldest go first, and those that trade are passed over.
        let (code, asked, _) = hear(&mut contacts, CONTACTS_MAX, &|key| *key == keys[0]);
        assert_eq!((code, asked), (None, 3));
        let has = |contacts: &Contacts, key: &Key| contacts.heard.contains_key(key);
        assert!(has(&contacts, &keys[0]) && !has(&contacts, &keys[1]) && has(&contacts, &keys[2]));
        // Where all of the oldest trade, strangers are not heard, and one that trades is.
        let (code, asked, stranger) = hear(&mut contacts, 5000, &|key| keys.contains(key));
        assert_eq!((code, asked), (Some("contact.full"), OLDEST_LOOKED_AT + 2));
        let (code, asked, trader) = hear(&mut contacts, 5001, &|_| true);
        assert_eq!((code, asked), (None, OLDEST_LOOKED_AT + 2));
        assert!(has(&contacts, &trader) && !has(&contacts, &stranger) && !has(&contacts, &keys[0]));
        assert_eq!((contacts.heard.len(), contacts.by_age.len()), (CONTACTS_MAX, CONTACTS_MAX));
    }

    /// A Contact of a key; the code of its refusal.
    fn take_one(
        contacts: &mut Contacts,
        kernel: &mut Kernel,
        signer: &Keys,
        (now_ms, seq): (TimeMs, u64),
        trades: bool,
    ) -> Option<&'static str> {
        let contact = Contact { v: 1, key: signer.public(), addrs: Vec::new(), seq };
        let bytes = encode(signer.sign(contact, &devnet()).envelope());
        contacts.on_gossip(&mut kernel.context(now_ms), |_| trades, &bytes).1
    }

    #[test]
    fn one_key_publishes_eight_at_once_and_one_a_second() {
        let now = 1_800_000_000_000;
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut contacts = Contacts::default();
        let (one, other) = (Keys::new([3; 32], [2; 32]), Keys::new([4; 32], [2; 32]));
        let mut number = 0;
        let mut heard = |signer: &Keys, after_ms: u64| {
            let taken = (0..20).filter(|_| {
                number += 1;
                let at = (now + after_ms, now + number);
                take_one(&mut contacts, &mut kernel, signer, at, true).is_none()
            });
            taken.count()
        };
        assert_eq!(heard(&one, 0), 8);
        assert_eq!(heard(&other, 0), 8, "others are not held up");
        assert_eq!([999, 1_000, 4_000].map(|after_ms| heard(&one, after_ms)), [0, 1, 3]);
    }

    #[test]
    fn strangers_together_are_heard_no_faster_than_a_node_can_verify() {
        let now = 1_800_000_000_000;
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut contacts = Contacts::default();
        contacts.strangers.full_at_ms(now + STRANGERS_AT_ONCE * STRANGER_EACH_MS - 20);
        let mut number = 10_u8;
        let mut hear = |after_ms: u64, trades: bool| {
            number += 1;
            let signer = Keys::new([number; 32], [2; 32]);
            let at = (now + after_ms, now);
            take_one(&mut contacts, &mut kernel, &signer, at, trades)
        };
        assert_eq!((hear(0, false), hear(0, false)), (None, None));
        assert_eq!(hear(0, false), Some("contact.too_many"));
        assert_eq!(hear(0, true), None, "those that trade are");
        assert_eq!((hear(4, false), hear(4, false)), (None, Some("contact.too_many")));
    }
}
