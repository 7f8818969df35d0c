//! Random lives of certificates, against a ledger that knows nothing of them: every unit-slot has
//! one holder at all times, and nobody can show two.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use std::collections::{BTreeMap, BTreeSet};

use capex_core::certificate::objects::{Activation, Area};
use capex_core::certificate::{Claim, carve, verify};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::{Done, Effect, Topic};
use capex_core::ids::{CertId, LeaseId};
use capex_core::units::Window;
use capex_core::wire::{self, Envelope};
use certificate_fixture::party::*;
use certificate_fixture::*;
use proptest::prelude::*;

const PROVIDER: u8 = 1;
const HOLDERS: [u8; 3] = [2, 3, 4];
const OPERATIONS: usize = 50;

/// A unit in a slot.
type Cell = (u32, u32);

/// What the test itself believes: the certificate of each cell, and its holder. Redeemed ones
/// move no more.
#[derive(Default)]
struct Book {
    cells: BTreeMap<Cell, CertId>,
    holders: BTreeMap<CertId, u8>,
    redeemed: BTreeSet<CertId>,
}

fn cells(area: &Area) -> Vec<Cell> {
    let slots = area.window.start..area.window.end;
    slots.flat_map(|slot| area.units.numbers().map(move |unit| (unit, slot))).collect()
}

impl Book {
    fn cells_of(&self, cert: CertId) -> BTreeSet<Cell> {
        let of = self.cells.iter().filter(|(_, one)| **one == cert);
        of.map(|(cell, _)| *cell).collect()
    }

    /// Certificates that can still move, of one holder.
    fn free_of(&self, holder: u8) -> Vec<CertId> {
        let free = self
            .holders
            .iter()
            .filter(|(cert, one)| **one == holder && !self.redeemed.contains(cert));
        free.map(|(cert, _)| *cert).collect()
    }

    /// The rectangle of a certificate, found without asking for it.
    fn bounds(&self, cert: CertId) -> (BTreeSet<u32>, Window) {
        let cells = self.cells_of(cert);
        let units = cells.iter().map(|(unit, _)| *unit).collect();
        let start = cells.iter().map(|(_, slot)| *slot).min().unwrap();
        let end = cells.iter().map(|(_, slot)| *slot).max().unwrap() + 1;
        (units, Window { start, end })
    }

    /// Whether two certificates make a rectangle.
    fn fit(&self, a: CertId, b: CertId) -> bool {
        let ((units, window), (others, other)) = (self.bounds(a), self.bounds(b));
        let in_time = units == others && (window.end == other.start || other.end == window.start);
        in_time || (window == other && units.is_disjoint(&others))
    }

    fn became(&mut self, cert: CertId, area: &Area, holder: u8) {
        for cell in cells(area) {
            self.cells.insert(cell, cert);
        }
        self.holders.insert(cert, holder);
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Split { qty: u32, from: u32, len: u32 },
    Merge,
    Gift { to: usize },
    GiftPart { to: usize, qty: u32 },
    Redeem,
}

fn operation() -> impl Strategy<Value = (usize, usize, Operation)> {
    let what = prop_oneof![
        4 => (1..4u32, 0..4u32, 1..4u32)
            .prop_map(|(qty, from, len)| Operation::Split { qty, from, len }),
        4 => Just(Operation::Merge),
        3 => (0..3usize).prop_map(|to| Operation::Gift { to }),
        2 => (0..3usize, 1..3u32).prop_map(|(to, qty)| Operation::GiftPart { to, qty }),
        1 => Just(Operation::Redeem),
    ];
    (0..3usize, any::<usize>(), what)
}

struct World {
    net: Net,
    book: Book,
    commands: u64,
    /// Every Activation that the provider has published.
    said: Vec<Activation>,
}

impl World {
    fn new() -> Self {
        let mut net = Net::new(&[PROVIDER, 2, 3, 4]);
        let mut book = Book::default();
        for (trade, holder) in (0..).zip(HOLDERS) {
            let first = u32::from(trade) * 4;
            let cert = net.sell(trade, &units(first, first + 4), holder);
            let area = Area { units: units(first, first + 4), window: WINDOW };
            book.became(cert, &area, holder);
        }
        Self { net, book, commands: 0, said: Vec::new() }
    }

    fn command(&mut self, holder: u8, command: HoldingsCommand) -> Result<Done, String> {
        self.commands += 1;
        self.net.party(PROVIDER).chain.height += 1;
        self.net.party(holder).command(self.commands, command, false);
        self.net.pump();
        let done = self.net.party(holder).done();
        let (_, result) = done.into_iter().find(|(id, _)| *id == self.commands).unwrap();
        result
    }

    fn area(&mut self, holder: u8, cert: CertId) -> Area {
        self.net.party(holder).books.holdings.held(&cert).unwrap().area()
    }

    fn act(&mut self, holder: u8, pick: usize, operation: Operation) {
        let free = self.book.free_of(holder);
        if free.is_empty() {
            return;
        }
        let cert = free[pick % free.len()];
        let whole = self.area(holder, cert);
        match operation {
            Operation::Split { qty, from, len } => {
                let start = (whole.window.start + from).min(whole.window.end - 1);
                let end = (start + len).min(whole.window.end);
                let qty = qty.min(whole.units.count());
                let window = Window { start, end };
                let Some(parts) = carve(&whole, Some(qty), Some(window)) else { return };
                let split = HoldingsCommand::Split { cert, parts: parts.clone(), give: None };
                let Ok(Done::Split { parts: made }) = self.command(holder, split) else { return };
                self.book.holders.remove(&cert);
                for (part, area) in made.into_iter().zip(&parts) {
                    self.book.became(part, area, holder);
                }
            }
            Operation::Merge => {
                let other = free
                    .iter()
                    .copied()
                    .find(|other| *other != cert && self.book.fit(cert, *other));
                let Some(other) = other else { return };
                let merge = HoldingsCommand::Merge { certs: vec![cert, other] };
                let Ok(Done::Held { cert: merged }) = self.command(holder, merge) else { return };
                let (one, two) = (self.book.cells_of(cert), self.book.cells_of(other));
                for cell in one.into_iter().chain(two) {
                    self.book.cells.insert(cell, merged);
                }
                self.book.holders.remove(&cert);
                self.book.holders.remove(&other);
                self.book.holders.insert(merged, holder);
            }
            Operation::Gift { to } => {
                let to = HOLDERS[to];
                let gift = HoldingsCommand::Gift { cert, to: public(to) };
                if self.command(holder, gift).is_ok() {
                    self.book.holders.insert(cert, to);
                }
            }
            Operation::GiftPart { to, qty } => {
                let to = HOLDERS[to];
                let Some(parts) = carve(&whole, Some(qty), None) else { return };
                let give = Some((0, public(to)));
                let split = HoldingsCommand::Split { cert, parts: parts.clone(), give };
                let Ok(Done::Gifted { cert: part, .. }) = self.command(holder, split) else {
                    return;
                };
                self.book.holders.remove(&cert);
                self.book.became(part, &parts[0], to);
                let rest = self.net.party(holder).books.holdings.held(&part).unwrap().clone();
                assert_eq!(rest.area(), parts[0]);
                let kept = self.kept_part(holder, &parts[1]);
                self.book.became(kept, &parts[1], holder);
            }
            Operation::Redeem => {
                let lease = LeaseId(cert.0);
                self.net.party(PROVIDER).with(|ctx, books, _| {
                    books.register.consume_redeem(ctx, cert, lease).unwrap();
                });
                self.net.party(holder).with(|ctx, books, _| {
                    books.holdings.mark_redeemed(ctx, cert, lease);
                });
                self.net.pump();
                self.book.redeemed.insert(cert);
            }
        }
    }

    /// What a holder keeps of a split, by its area.
    fn kept_part(&mut self, holder: u8, area: &Area) -> CertId {
        let slot = devnet().slot_at(START_MS);
        let views = self.net.party(holder).books.views(public(holder), slot);
        let mut active = views.iter().filter(|view| view.state == "active");
        active.find(|view| view.facts.area() == *area).unwrap().facts.cert_id
    }

    /// The provider, every holder and the book agree on every cell.
    fn check(&mut self) {
        let mut claimed = BTreeMap::new();
        for (cert, holder) in self.book.holders.clone() {
            let ledger = &self.net.party(PROVIDER).books.register.ledger;
            let areas: Vec<Area> = ledger
                .areas(Claim::Certificate(cert))
                .map(|(_, units, window)| Area { units: units.clone(), window })
                .collect();
            let all: BTreeSet<Cell> = areas.iter().flat_map(cells).collect();
            assert_eq!(all, self.book.cells_of(cert), "the ledger");
            claimed.extend(all.into_iter().map(|cell| (cell, cert)));
            let issued = self.net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
            assert_eq!(issued.holder, public(holder));
            let held = self.net.party(holder).books.holdings.certificate(&cert).unwrap().clone();
            let facts = verify(&held, &devnet()).unwrap();
            assert_eq!((facts.holder, facts.seq), (issued.holder, issued.seq));
            assert_eq!((facts.last_hash, facts.area()), (issued.last_hash, issued.area()));
        }
        assert_eq!(claimed, self.book.cells, "nothing was made, nothing lost");
        let free = self.net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW);
        assert_eq!(free, 64 - 12);
    }

    /// Keeps what the provider has published in this life.
    fn listen(&mut self) {
        let log = std::mem::take(&mut self.net.party(PROVIDER).log);
        self.said.extend(log.iter().filter_map(|effect| match effect {
            Effect::Publish { topic: Topic::Locks, bytes } => {
                wire::decode_exact::<Envelope>(bytes).unwrap().peek::<Activation>().ok()
            }
            _ => None,
        }));
    }

    /// At no height did the provider's word name two holders of one cell.
    fn check_heights(&mut self) {
        self.listen();
        let said = &self.said;
        let last = said.iter().map(|one| one.p_height).max().unwrap();
        for height in 100..=last {
            let until: Vec<&Activation> =
                said.iter().filter(|one| one.p_height <= height).collect();
            let gone: BTreeSet<(CertId, u32)> = until
                .iter()
                .flat_map(|one| &one.consumes)
                .map(|consumed| (consumed.cert_id, consumed.seq))
                .collect();
            let mut current = BTreeSet::new();
            for one in until.iter().filter(|one| !gone.contains(&(one.cert_id, one.seq))) {
                let area = Area { units: one.units.clone(), window: one.window };
                for cell in cells(&area) {
                    assert!(current.insert(cell), "{cell:?} twice at height {height}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn unit_slots_are_conserved_and_have_one_holder(
        operations in prop::collection::vec(operation(), OPERATIONS),
    ) {
        let mut world = World::new();
        for (at, (holder, pick, operation)) in operations.into_iter().enumerate() {
            world.act(HOLDERS[holder], pick, operation);
            if at % 10 == 9 {
                world.check();
            }
            if at == OPERATIONS / 2 {
                world.listen();
                let height = world.net.party(PROVIDER).chain.height;
                for party in [PROVIDER, 2, 3, 4] {
                    world.net.restart(party);
                }
                world.net.party(PROVIDER).chain.height = height;
            }
        }
        world.check();
        world.check_heights();
        for party in [PROVIDER, 2, 3, 4] {
            prop_assert!(!world.net.party(party).books.witness.is_equivocator(public(PROVIDER)));
        }
    }
}
