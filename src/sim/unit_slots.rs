//! Unit-slots are neither made nor lost, and each has one holder, whatever was split, merged or
//! given.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Evidence;
use super::queue::NodeId;
use super::world::World;
use capex_core::certificate::objects::{Activation, Area};
use capex_core::certificate::{Claim, VerifiedCertificate};
use capex_core::engine::Engine;
use capex_core::engine::certificates::CertificateView;
use capex_core::ids::{CertId, Key};
use capex_core::units::Slot;

/// A unit of a class in a slot.
type Cell = (u16, u32, u32);

fn cells(class: u16, area: &Area) -> Vec<Cell> {
    let units: Vec<u32> = area.units.numbers().collect();
    let slots = area.window.start..area.window.end;
    slots.flat_map(|slot| units.iter().map(move |unit| (class, *unit, slot))).collect()
}

fn is_current(view: &CertificateView, slot: Slot) -> bool {
    let is_sold = view.facts.seq > 0 && view.facts.window.end > slot;
    is_sold && matches!(view.state, "active" | "redeemed")
}

impl Evidence {
    /// At no height does what a provider signed until then say of two certificates that they are
    /// current and have a unit-slot in common.
    pub(super) fn check_heights(&self, faults: &mut Vec<String>) {
        let mut by_provider: BTreeMap<Key, Vec<&Activation>> = BTreeMap::new();
        for said in self.activations() {
            by_provider.entry(said.provider).or_default().push(said);
        }
        // Without a split or a merge an id keeps its units for ever, which is checked as they come.
        let is_recut = |said: &&Activation| said.consumes.iter().any(|c| c.cert_id != said.cert_id);
        by_provider.retain(|_, said| said.iter().any(is_recut));
        for said in by_provider.values_mut() {
            said.sort_by_key(|one| one.p_height);
            let mut until: Vec<&Activation> = Vec::new();
            for same in said.chunk_by(|a, b| a.p_height == b.p_height) {
                until.extend(same);
                let consumes = until.iter().flat_map(|one| &one.consumes);
                let gone: BTreeSet<(CertId, u32)> =
                    consumes.map(|consumed| (consumed.cert_id, consumed.seq)).collect();
                until.retain(|one| !gone.contains(&(one.cert_id, one.seq)));
                if let Some((one, two)) = overlapping(&until) {
                    let height = same.first().map_or(0, |one| one.p_height);
                    faults.push(format!("at height {height} both {one} and {two} are current"));
                }
            }
        }
    }
}

fn overlapping(current: &[&Activation]) -> Option<(CertId, CertId)> {
    let area = |one: &Activation| Area { units: one.units.clone(), window: one.window };
    current.iter().enumerate().find_map(|(at, one)| {
        let mut others = current.iter().skip(at + 1);
        let two = others.find(|two| one.class == two.class && area(one).overlaps(&area(two)))?;
        Some((one.cert_id, two.cert_id))
    })
}

impl World {
    /// Of every provider that lives and knows what it signed: the certificates that its register
    /// calls current have each unit-slot that it sold once, its ledger says the same, and so does
    /// each holder that lives. What a holder still waits for is left out.
    pub(super) fn check_unit_slots(&self, faults: &mut Vec<String>) {
        for (node, engine) in self.engines().filter(|(_, one)| one.register().halted().is_none()) {
            let slot = engine.params().slot_at(self.now_ms);
            let views: Vec<CertificateView> = engine.register().views(slot).collect();
            let current = views.iter().filter(|view| is_current(view, slot));
            let current: Vec<&VerifiedCertificate> = current.map(|view| &view.facts).collect();
            let mut held: BTreeMap<Cell, CertId> = BTreeMap::new();
            for facts in &current {
                let cert = facts.cert_id;
                for cell in cells(facts.class, &facts.area()) {
                    if let Some(other) = held.insert(cell, cert) {
                        faults.push(format!("node {node}: {cell:?} is in {other} and {cert}"));
                    }
                }
                let ledger = &engine.register().ledger;
                let claimed: Vec<_> = ledger.areas(Claim::Certificate(cert)).collect();
                if claimed != [(facts.class, &facts.units, facts.window)] {
                    faults.push(format!("node {node}: the ledger has {claimed:?} of {cert}"));
                }
                self.check_holder(node, facts, faults);
            }
            // What was sold under an id of its own, before it was cut.
            let sold = views.iter().map(|view| &view.facts);
            for facts in sold.filter(|one| one.seq > 0 && one.roots == [one.cert_id]) {
                let is_lost = |cell: &Cell| cell.2 >= slot && !held.contains_key(cell);
                let lost =
                    cells(facts.class, &facts.area()).iter().filter(|cell| is_lost(cell)).count();
                if lost > 0 {
                    let cert = facts.cert_id;
                    faults.push(format!("node {node}: {lost} unit-slots of {cert} are lost"));
                }
            }
            self.check_claims(node, engine, faults);
        }
    }

    /// Whether the holder, if it lives, has what the register says that it has.
    fn check_holder(&self, node: NodeId, facts: &VerifiedCertificate, faults: &mut Vec<String>) {
        let Some((holder, engine)) = self.engines().find(|(_, one)| one.me() == facts.holder)
        else {
            return;
        };
        let known = engine.holdings().held(&facts.cert_id);
        let is_same = known.is_some_and(|known| {
            (known.seq, known.last_hash, known.area()) == (facts.seq, facts.last_hash, facts.area())
        });
        // What made it has not come yet: an errand of the holder goes on.
        if !is_same && !self.waits(engine) {
            faults.push(format!("node {holder} has not {} of node {node}", facts.cert_id));
        }
    }

    /// Whether what nodes call theirs is theirs by the register.
    fn check_claims(&self, node: NodeId, provider: &Engine, faults: &mut Vec<String>) {
        for (holder, engine) in self.engines() {
            let slot = engine.params().slot_at(self.now_ms);
            for view in engine.holdings().views(engine.me(), slot) {
                let waits = view.gift_pending.is_some() || view.recut_pending.is_some();
                let is_its = view.facts.provider == provider.me() && view.state == "active";
                if !is_its || waits {
                    continue;
                }
                let mut views = provider.register().views(slot);
                let same = views
                    .find(|one| is_current(one, slot) && one.facts.cert_id == view.facts.cert_id);
                if same.is_none_or(|one| one.facts.last_hash != view.facts.last_hash) {
                    let cert = view.facts.cert_id;
                    faults
                        .push(format!("node {holder} calls {cert} its own, node {node} does not"));
                }
            }
        }
    }

    /// Whether a node has asked a provider for something that it has not heard of.
    fn waits(&self, engine: &Engine) -> bool {
        let slot = engine.params().slot_at(self.now_ms);
        let mut views = engine.holdings().views(engine.me(), slot);
        views.any(|view| view.gift_pending.is_some() || view.recut_pending.is_some())
    }
}
