//! Order sets, heard roots and results of recent epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::SignedOrder;
use super::archive::{self, ArchivedEpoch, Own, order_key};
use super::computed::Computed;
use super::frozen::Frozen;
use super::records::{EpochV1, FrozenV1, OrderV1, Parts};
use crate::admission::resale_activation;
use crate::book::{Inserted, OrderSet};
use crate::engine::io::{Effect, Topic};
use crate::engine::kernel::{Context, Judged, Record, Table, Unreadable, gossip_envelope, judge};
use crate::epoch::{EpochResult, Root, epoch_at, opens_at_ms};
use crate::ids::{Key, OrderId};
use crate::limits::{EPOCHS_IN_MEMORY, EPOCHS_KEPT, ROOTS_PER_EPOCH};
use crate::order::Order;
use crate::reason;
use crate::reasons::Reason;
use crate::units::TimeMs;
use crate::wire::{VERSION, Verified, WireError, encode};

/// Epochs for which an order makes its owner a trader: who stops for longer is found again
/// with its next order.
const TRADER_EPOCHS: usize = 4;

/// Roots of unknown signers kept until an epoch is computed, for the order of one that is still
/// on its way. Keys are free: strangers fill it in a moment, and then such a root does not count
/// in that epoch; the next begins empty.
const EARLY_ROOTS_MAX: usize = 256;

/// How often a large set is hashed to compare its root, ms. A full one takes a tenth of a second,
/// every new order changes it, and a root costs a stranger one signature.
const COMPARE_EVERY_MS: u64 = 1_000;
/// Orders of a set that is hashed as often as it changes: two milliseconds.
const SMALL_SET: usize = 4096;

/// Everything known of one epoch.
#[derive(Debug, Default)]
pub struct EpochView {
    /// Its valid orders. Shared with who reads them all elsewhere: a set that still grows is
    /// copied then, that of a computed epoch never.
    pub set: Arc<OrderSet>,
    pub roots: BTreeMap<Key, Root>,
    /// Roots whose signers had no order here when they came.
    early_roots: BTreeMap<Key, Root>,
    /// Providers of what others resell in it.
    resold: BTreeSet<Key>,
    /// When its set was last hashed for a root that was heard, unix ms.
    compared_ms: TimeMs,
    /// Its result, once computed.
    pub result: Option<Arc<EpochResult>>,
}

impl EpochView {
    /// Whether a root is of another set than ours, as far as that is known without hashing a
    /// large set all the time: whoever may hold what we lack is asked.
    fn differs(&mut self, now_ms: TimeMs, root: [u8; 32]) -> bool {
        // In either direction: a clock that was set back would wait for its former time.
        let is_due = now_ms.abs_diff(self.compared_ms) >= COMPARE_EVERY_MS;
        if self.set.known_root().is_none() && (is_due || self.set.len() <= SMALL_SET) {
            self.compared_ms = now_ms;
            return self.set.root() != root;
        }
        self.set.known_root() != Some(root)
    }
}

/// A peer whose root of an epoch differs from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It has an order in the epoch.
    Trader { epoch: u64, key: Key },
    /// It passed on the root of a key whose order we lack.
    Relay { epoch: u64, key: Key },
}

/// Recent epochs.
#[derive(Debug, Default)]
pub struct Epochs {
    views: BTreeMap<u64, EpochView>,
    /// Epochs on disk, with the number of their records.
    archived: BTreeMap<u64, Parts>,
    /// Epochs that ended, whose orders are on disk and whose result is not.
    frozen: BTreeMap<u64, FrozenV1>,
    /// Orders of this node that are on disk, by epoch.
    own: BTreeMap<u64, BTreeSet<OrderId>>,
    /// Every epoch up to here is computed or was missed.
    pub computed_through: u64,
    /// Every epoch up to here has ended: its set is what it is.
    pub(super) frozen_through: u64,
    pub(super) voted_through: u64,
    /// Not asked for yet, oldest first.
    lacks: Vec<Lack>,
    orders_seen: u64,
}

impl Epochs {
    /// One epoch.
    #[must_use]
    pub fn get(&self, epoch: u64) -> Option<&EpochView> {
        self.views.get(&epoch)
    }

    /// Recent epochs with orders or a result, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &EpochView)> {
        self.views.iter().map(|(epoch, view)| (*epoch, view))
    }

    /// An order of an epoch.
    #[must_use]
    pub fn order(&self, epoch: u64, id: &OrderId) -> Option<&Verified<Order>> {
        self.views.get(&epoch)?.set.get(id)
    }

    /// Whether a key has an order in one of the last epochs.
    #[must_use]
    pub fn is_trader(&self, key: &Key) -> bool {
        self.views.values().rev().take(TRADER_EPOCHS).any(|view| view.set.has_owner(key))
    }

    /// Whether others resell certificates of a provider, as of the last epochs.
    #[must_use]
    pub fn is_resold(&self, provider: &Key) -> bool {
        self.views.values().rev().take(TRADER_EPOCHS).any(|view| view.resold.contains(provider))
    }

    /// The latest epoch that is known or on disk.
    pub(super) fn latest(&self) -> Option<u64> {
        let known = self.views.last_key_value().map(|(epoch, _)| *epoch);
        known.max(self.archived.last_key_value().map(|(epoch, _)| *epoch))
    }

    /// Forgets all epochs after the open one: the clock was ahead, and they are still to come.
    pub(super) fn set_back(&mut self, ctx: &mut Context<'_>, open: u64) {
        let through = open.saturating_sub(1);
        self.computed_through = through;
        self.frozen_through = through;
        self.voted_through = self.voted_through.min(through);
        self.lacks.clear();
        for (epoch, view) in self.views.split_off(&open.saturating_add(1)) {
            self.discard(ctx, epoch, view);
        }
        for (epoch, parts) in self.archived.split_off(&open.saturating_add(1)) {
            self.delete(ctx, epoch, parts);
        }
        while let Some(epoch) = self.frozen.first_key_value().map(|(epoch, _)| *epoch) {
            self.thaw(ctx, epoch);
        }
    }

    /// Lets go of an epoch in memory.
    fn discard(&mut self, ctx: &mut Context<'_>, epoch: u64, view: EpochView) {
        if view.result.is_none() {
            let own = self.own.remove(&epoch).unwrap_or_default();
            archive::delete_orders(ctx.out, epoch, 0, &own);
        }
        ctx.out.push(Effect::Discard { set: view.set });
    }

    fn delete(&mut self, ctx: &mut Context<'_>, epoch: u64, parts: Parts) {
        let own = self.own.remove(&epoch).unwrap_or_default();
        archive::delete(ctx.out, epoch, parts, &own);
    }

    /// Epochs whose orders are on disk, and which have no result.
    pub(super) fn frozen(&self) -> Vec<u64> {
        self.frozen.keys().copied().collect()
    }

    /// Orders of this node in an epoch that are on disk.
    pub(super) fn own(&self, epoch: u64) -> BTreeSet<OrderId> {
        self.own.get(&epoch).cloned().unwrap_or_default()
    }

    /// Journals the orders of others in an epoch that ended: with those of this node it can be
    /// matched by the next life too.
    pub(super) fn freeze(&mut self, ctx: &mut Context<'_>, epoch: u64, frozen: Frozen) {
        let Some(view) = self.views.get(&epoch) else { return };
        let early = view.early_roots.keys().filter(|key| view.set.has_owner(key));
        let known = view.roots.keys().chain(early).filter(|key| **key != ctx.me()).count();
        let head = FrozenV1 {
            count: number(view.set.len()),
            parts: frozen.parts,
            operators: number(known),
        };
        ctx.out.extend(frozen.records);
        ctx.out.store(&epoch.to_be_bytes(), &head);
        self.frozen.insert(epoch, head);
    }

    /// Forgets an epoch that gets no result.
    pub(super) fn thaw(&mut self, ctx: &mut Context<'_>, epoch: u64) {
        let Some(head) = self.frozen.remove(&epoch) else { return };
        let own = self.own.remove(&epoch).unwrap_or_default();
        archive::delete_orders(ctx.out, epoch, head.parts, &own);
        ctx.out.delete(Table::Frozen, &epoch.to_be_bytes());
    }

    /// Distinct valid orders seen in this life, own ones included.
    #[must_use]
    pub fn orders_seen(&self) -> u64 {
        self.orders_seen
    }

    /// Restores state from the journal; returns the orders of this node.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub(super) fn load(
        &mut self,
        ctx: &Context<'_>,
        all: &[Record],
    ) -> Result<Vec<(OrderId, SignedOrder)>, Unreadable> {
        let loaded = archive::load(all, ctx.params.magic)?;
        for (epoch, ArchivedEpoch { set, result }) in loaded.recent {
            let view = self.views.entry(epoch).or_default();
            view.set = set;
            view.result = Some(result);
        }
        self.archived = loaded.parts;
        for (epoch, (head, set)) in loaded.frozen {
            self.views.entry(epoch).or_default().set = Arc::new(set);
            self.frozen.insert(epoch, head);
        }
        let mut own = Vec::new();
        for Own { order, signed } in loaded.own {
            let (epoch, id) = (order.epoch, OrderId(order.id()));
            self.own.entry(epoch).or_default().insert(id);
            if !self.archived.contains_key(&epoch) && !self.frozen.contains_key(&epoch) {
                self.set_mut(epoch).insert(order);
            }
            own.push((id, signed));
        }
        Ok(own)
    }

    fn set_mut(&mut self, epoch: u64) -> &mut OrderSet {
        Arc::make_mut(&mut self.views.entry(epoch).or_default().set)
    }

    pub(super) fn insert_own(
        &mut self,
        ctx: &mut Context<'_>,
        order: Verified<Order>,
        signed: &SignedOrder,
    ) {
        let (epoch, id) = (order.epoch, OrderId(order.id()));
        let record = OrderV1 {
            envelope: order.envelope().clone(),
            standing: signed.standing,
            rectangle: signed.rectangle.clone(),
            reserved_sat: signed.reserved_sat,
        };
        ctx.out.store(&order_key(epoch, &id), &record);
        self.own.entry(epoch).or_default().insert(id);
        self.insert(order);
    }

    pub(in crate::engine) fn insert(&mut self, order: impl Into<Arc<Verified<Order>>>) -> Inserted {
        let order = order.into();
        let (epoch, title) = (order.epoch, resale_activation(&order));
        let inserted = self.set_mut(epoch).insert(order);
        if inserted == Inserted::New {
            self.orders_seen += 1;
            if let Some(view) = self.views.get_mut(&epoch) {
                view.resold.extend(title.map(|title| title.provider));
            }
        }
        inserted
    }

    /// Whether orders of an epoch are still taken: the open one, and the next if our clock
    /// may be the one that is behind.
    pub(in crate::engine) fn is_open(&self, ctx: &Context<'_>, epoch: u64) -> Result<(), Reason> {
        let tolerance_ms = ctx.params.clock_tolerance_ms();
        let now = epoch_at(ctx.now_ms, ctx.params);
        // One with a result is over, even if the clock was ahead when it got that.
        if epoch < now || epoch <= self.frozen_through || self.is_archived(epoch) {
            return Err(reason!("order.stale_epoch"));
        }
        let early = opens_at_ms(epoch, ctx.params).saturating_sub(tolerance_ms);
        if ctx.now_ms < early {
            return Err(reason!("order.future_epoch"));
        }
        Ok(())
    }

    /// Who may hold orders that we lack, by the roots heard since the last call.
    pub fn take_lacks(&mut self) -> Vec<Lack> {
        std::mem::take(&mut self.lacks)
    }

    /// A root on gossip, passed on by `peer`.
    pub fn on_root(&mut self, ctx: &mut Context<'_>, peer: Key, bytes: &[u8]) -> Judged {
        judge(self.take_root(ctx, peer, bytes))
    }

    fn take_root(&mut self, ctx: &Context<'_>, peer: Key, bytes: &[u8]) -> Result<(), Reason> {
        let verified = gossip_envelope(bytes).and_then(|env| env.verify::<Root>(ctx.params.magic));
        let root = verified.map_err(WireError::reason)?;
        let signer = Key(root.key());
        let now = epoch_at(ctx.now_ms, ctx.params);
        if root.epoch < now.saturating_sub(1) || root.epoch > now.saturating_add(1) {
            return Err(reason!("root.stale_epoch"));
        }
        // A stranger's root makes no room for its epoch: keys are free.
        let Some(view) = self.views.get_mut(&root.epoch) else {
            self.lacks.push(Lack::Relay { epoch: root.epoch, key: peer });
            return Err(reason!("root.not_a_trader"));
        };
        if view.roots.contains_key(&signer) {
            return Err(reason!("root.duplicate"));
        }
        let trades = view.set.has_owner(&signer);
        if root.epoch > self.frozen_through && view.differs(ctx.now_ms, root.root) {
            // Its signer may hold orders that we lack. If its own is among them, then whoever
            // relayed the root has it: only roots of traders are relayed.
            if trades {
                self.lacks.push(Lack::Trader { epoch: root.epoch, key: signer });
            } else {
                self.lacks.push(Lack::Relay { epoch: root.epoch, key: peer });
            }
        }
        if !trades {
            // Its order may be on the way: counted when the epoch is computed, not relayed.
            if view.early_roots.len() < EARLY_ROOTS_MAX {
                view.early_roots.insert(signer, root.into_value());
            }
            return Err(reason!("root.not_a_trader"));
        }
        if view.roots.len() >= ROOTS_PER_EPOCH {
            return Err(reason!("root.too_many"));
        }
        view.roots.insert(signer, root.into_value());
        Ok(())
    }

    /// Signs and gossips the root of an epoch that has orders, once.
    pub(super) fn vote(&mut self, ctx: &mut Context<'_>, epoch: u64) {
        if self.voted_through >= epoch {
            return;
        }
        self.voted_through = epoch;
        let me = ctx.me();
        let Some(view) = self.views.get_mut(&epoch) else { return };
        if view.set.is_empty() || view.roots.contains_key(&me) {
            return;
        }
        let root = Root {
            v: VERSION,
            epoch,
            root: view.set.root(),
            count: u32::try_from(view.set.len()).unwrap_or(u32::MAX),
        };
        view.roots.insert(me, root.clone());
        // Peers relay only roots of traders: without an order of our own it would be noise.
        if view.set.has_owner(&me) {
            let bytes = encode(ctx.sign(root).envelope());
            ctx.out.push(Effect::Publish { topic: Topic::Roots, bytes });
        }
    }

    /// Epochs up to `through` that have orders and end only now.
    pub(super) fn unfrozen(&self, through: u64) -> Vec<u64> {
        self.views
            .range(self.frozen_through.saturating_add(1)..=through)
            .filter(|(_, view)| view.result.is_none() && !view.set.is_empty())
            .map(|(epoch, _)| *epoch)
            .collect()
    }

    /// Other traders whose roots of an epoch were heard.
    #[must_use]
    pub fn operators(&self, epoch: u64, me: Key) -> usize {
        let roots = |view: &EpochView| view.roots.keys().filter(|key| **key != me).count();
        let heard = self.views.get(&epoch).map_or(0, roots);
        // An earlier life may have heard more.
        let before = self.frozen.get(&epoch).and_then(|head| usize::try_from(head.operators).ok());
        heard.max(before.unwrap_or(0))
    }

    /// Takes the result of an epoch, and journals it: its orders are on disk.
    /// Returns how many other traders were heard.
    pub(super) fn complete(
        &mut self,
        ctx: &mut Context<'_>,
        epoch: u64,
        computed: Arc<Computed>,
    ) -> usize {
        let Some(view) = self.views.get_mut(&epoch) else { return 0 };
        for (signer, root) in std::mem::take(&mut view.early_roots) {
            if view.set.has_owner(&signer) {
                view.roots.entry(signer).or_insert(root);
            }
        }
        // Only a simulator shares it: elsewhere nothing is copied.
        let Computed { result, records, parts } = Arc::unwrap_or_clone(computed);
        view.result = Some(Arc::clone(&result));
        let operators = self.operators(epoch, ctx.me());
        let orders = self.frozen.remove(&epoch).map_or(0, |head| head.parts);
        let parts = Parts { orders, result: parts };
        ctx.out.extend(records);
        ctx.out.store(&epoch.to_be_bytes(), &EpochV1 { head: result.head(), parts });
        ctx.out.delete(Table::Frozen, &epoch.to_be_bytes());
        self.archived.insert(epoch, parts);
        operators
    }

    /// Keeps the last epochs only: a few in memory, more of them on disk.
    pub(super) fn forget_oldest(&mut self, ctx: &mut Context<'_>) {
        let ended = self.views.range(..=self.computed_through).count();
        for _ in EPOCHS_IN_MEMORY..ended {
            let Some((epoch, view)) = self.views.pop_first() else { break };
            self.discard(ctx, epoch, view);
        }
        while self.archived.len() > EPOCHS_KEPT {
            let Some((epoch, parts)) = self.archived.pop_first() else { break };
            self.delete(ctx, epoch, parts);
        }
    }

    /// Whether an epoch can be read from the store.
    #[must_use]
    pub fn is_archived(&self, epoch: u64) -> bool {
        self.archived.contains_key(&epoch)
    }
}

/// Fewer than 2^32, see [`crate::limits::ORDERS_PER_EPOCH`].
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::engine::kernel::{Kernel, Keys};
    use crate::test_support::devnet;
    use crate::wire::sign;

    const EPOCH: u64 = 1000;

    fn signer(number: u32) -> SigningKey {
        let mut secret = [0xaa; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        SigningKey::from_bytes(&secret)
    }

    /// A key that has an order in the epoch from here on.
    fn trader(epochs: &mut Epochs, number: u32) -> SigningKey {
        let signer = signer(number);
        let owner = Key(signer.verifying_key().to_bytes());
        epochs.insert(Verified::made_up(Order::sample(owner, EPOCH), owner.0));
        signer
    }

    /// A root of a set that nobody has; the code of its refusal, and how many were asked for it.
    fn hear(
        kernel: &mut Kernel,
        epochs: &mut Epochs,
        signer: &SigningKey,
        now_ms: TimeMs,
    ) -> (Option<&'static str>, usize) {
        let root = Root { v: VERSION, epoch: EPOCH, root: [5; 32], count: 4 };
        let peer = Key(signer.verifying_key().to_bytes());
        let mut ctx = kernel.context(now_ms);
        let bytes = encode(sign(root, ctx.params.magic, signer).envelope());
        let (_, code) = epochs.on_root(&mut ctx, peer, &bytes);
        (code, epochs.take_lacks().len())
    }

    #[test]
    fn roots_have_room_for_4096_traders_beside_256_strangers_and_the_own() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let now_ms = opens_at_ms(EPOCH, &devnet()) + 1;
        let mut epochs = Epochs::default();
        let traders: Vec<SigningKey> = (0..=4096).map(|n| trader(&mut epochs, n)).collect();
        // Strangers come first: they are not passed on, and few are remembered.
        for number in 0..300 {
            let stranger = signer(1_000_000 + number);
            let (code, _) = hear(&mut kernel, &mut epochs, &stranger, now_ms);
            assert_eq!(code, Some("root.not_a_trader"), "{number}");
        }
        assert_eq!(epochs.get(EPOCH).unwrap().early_roots.len(), 256);
        let (late, in_time) = traders.split_last().unwrap();
        for trader in in_time {
            assert_eq!(hear(&mut kernel, &mut epochs, trader, now_ms), (None, 1));
        }
        let refused = (Some("root.too_many"), 1);
        assert_eq!(
            hear(&mut kernel, &mut epochs, late, now_ms),
            refused,
            "it is asked all the same"
        );
        let view = epochs.get(EPOCH).unwrap();
        assert_eq!((view.roots.len(), view.early_roots.len()), (4096, 256));
        let mut ctx = kernel.context(now_ms);
        let me = ctx.me();
        epochs.vote(&mut ctx, EPOCH);
        assert_eq!(epochs.operators(EPOCH, me), 4096);
        assert!(epochs.get(EPOCH).unwrap().roots.contains_key(&me));
    }

    #[test]
    fn roots_of_strangers_do_not_make_a_large_set_be_hashed_again_and_again() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let now_ms = opens_at_ms(EPOCH, &devnet()) + 1;
        let mut epochs = Epochs::default();
        let (mut number, mut hashed) = (0, Vec::new());
        for orders in [4096, 4097, 4098, 4099] {
            while number < orders {
                trader(&mut epochs, number);
                number += 1;
            }
            let at_ms = if orders == 4099 { now_ms + 1_000 } else { now_ms };
            let stranger = signer(1_000_000 + number);
            let (_, asked) = hear(&mut kernel, &mut epochs, &stranger, at_ms);
            assert_eq!(asked, 1, "who relays it is asked in any case");
            hashed.push(epochs.get(EPOCH).unwrap().set.known_root().is_some());
        }
        assert_eq!(hashed, [true, false, false, true]);
    }
}
