//! Random lives of certificates of one provider, made by hand: sold, resold, given, cut by time and
//! by quantity, joined, and left behind checkpoints.

use std::collections::BTreeMap;

use capex::sim::Rng;
use capex_core::certificate::objects::Area;
use capex_core::certificate::{Certificate, carve, verify};
use capex_core::limits::CERTIFICATE_HOPS_MAX;
use capex_core::units::{UnitRange, Units, Window};

use crate::certificate_fixture::devnet;
use crate::certificate_fixture::pieces::{Piece, area};

const HOLDERS: [u8; 3] = [2, 3, 4];
const DAY: Window = Window { start: 1000, end: 1024 };
/// Issues at the beginning, each of so many units.
const ISSUES: u8 = 5;
const UNITS: u32 = 6;
/// More pieces are joined before another is cut.
const PIECES: usize = 24;

pub(crate) struct Life {
    rng: Rng,
    /// Of a hundred operations, those that change the holder: every other life is one of trade.
    moves: u64,
    /// What is held, in no order.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) issued: Vec<Area>,
    done: BTreeMap<&'static str, u64>,
}

impl Life {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let issued: Vec<Area> = (0..ISSUES)
            .map(|number| {
                let first = u32::from(number) * UNITS;
                area(first, first + UNITS, DAY)
            })
            .collect();
        let sold = (1..).zip(&issued).map(|(nonce, area)| {
            let to = HOLDERS[below(&mut rng, HOLDERS.len())];
            Piece::sold(nonce, area, to)
        });
        let pieces = sold.collect();
        let moves = if seed.is_multiple_of(2) { 32 } else { 80 };
        Self { pieces, rng, moves, issued, done: BTreeMap::new() }
    }

    /// How often what was done.
    pub(crate) fn told(&self) -> String {
        format!("{:?}", self.done)
    }

    /// One operation. A certificate that no provider would have signed comes back.
    pub(crate) fn act(&mut self) -> Option<Certificate> {
        let at = below(&mut self.rng, self.pieces.len());
        if self.pieces[at].certificate.hops.len() + 4 >= CERTIFICATE_HOPS_MAX {
            self.replace(at, "checkpoint", |piece, _| piece.checkpointed());
            return None;
        }
        match self.rng.within(0, 100) {
            drawn if drawn < self.moves => {
                if self.rng.hits(600) {
                    self.replace(at, "gift", |piece, to| piece.give(to));
                } else {
                    self.replace(at, "sale", |piece, to| piece.sell(to));
                }
            }
            // A checkpoint alone has nothing to leave behind.
            95.. if !self.pieces[at].certificate.hops.is_empty() => {
                self.replace(at, "checkpoint", |piece, _| piece.checkpointed());
            }
            drawn if drawn % 2 == 0 && self.pieces.len() < PIECES => self.split(at),
            _ => return self.merge(at),
        }
        None
    }

    fn replace(&mut self, at: usize, what: &'static str, moved: impl FnOnce(Piece, u8) -> Piece) {
        let to = HOLDERS[below(&mut self.rng, HOLDERS.len())];
        let piece = self.pieces.swap_remove(at);
        self.pieces.push(moved(piece, to));
        *self.done.entry(what).or_default() += 1;
    }

    fn split(&mut self, at: usize) {
        let whole = self.pieces[at].area.clone();
        let Window { start, end } = whole.window;
        let by_time = self.rng.hits(500);
        let (qty, window) = if by_time {
            let from = start + self.number(end - start);
            (None, Window::new(from, from + 1 + self.number(end - from)))
        } else {
            (Some(1 + self.number(whole.units.count())), None)
        };
        let Some(mut parts) = carve(&whole, qty, window) else { return };
        if self.rng.hits(200) {
            parts = scattered(&whole).unwrap_or(parts);
        }
        let made = self.pieces.swap_remove(at).split(&parts);
        self.pieces.extend(made);
        *self.done.entry(if by_time { "split by time" } else { "split by units" }).or_default() +=
            1;
    }

    /// Joins a piece with one that fits, which is given to its holder first.
    fn merge(&mut self, at: usize) -> Option<Certificate> {
        let first = self.pieces[at].clone();
        let fits = |other: &Piece| {
            let other = &other.area;
            let in_time = first.area.units == other.units
                && (first.area.window.end == other.window.start
                    || other.window.end == first.area.window.start);
            in_time || first.area.window == other.window
        };
        let others: Vec<usize> = (0..self.pieces.len())
            .filter(|other| *other != at && fits(&self.pieces[*other]))
            .collect();
        if others.is_empty() {
            return None;
        }
        let at_other = others[below(&mut self.rng, others.len())];
        let mut other = self.pieces[at_other].clone();
        if other.holder != first.holder {
            other = other.give(first.holder);
        }
        let into = union(&first.area, &other.area)?;
        let merged = Piece::merge(&[&first, &other], &into);
        if verify(&merged.certificate, &devnet()).is_err() {
            // Too many hops or roots, or one rests on a checkpoint over what the other tells.
            *self.done.entry("refused merge").or_default() += 1;
            return Some(merged.certificate);
        }
        for gone in [at.max(at_other), at.min(at_other)] {
            self.pieces.swap_remove(gone);
        }
        self.pieces.push(merged);
        *self.done.entry("merge").or_default() += 1;
        None
    }

    /// Below a bound that is not 0.
    fn number(&mut self, bound: u32) -> u32 {
        u32::try_from(self.rng.within(0, u64::from(bound))).unwrap()
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.within(0, bound as u64)).unwrap()
}

/// Every other unit, and the rest: numbers that do not follow each other.
fn scattered(whole: &Area) -> Option<Vec<Area>> {
    let half = |odd: u32| {
        let numbers: Vec<u32> = whole.units.numbers().filter(|unit| unit % 2 == odd).collect();
        Some(Area { units: Units::from_sorted(&numbers)?, window: whole.window })
    };
    Some(vec![half(0)?, half(1)?])
}

/// `None` in more than 16 ranges.
fn union(one: &Area, other: &Area) -> Option<Area> {
    let start = one.window.start.min(other.window.start);
    let end = one.window.end.max(other.window.end);
    if one.window != other.window {
        return Some(Area { units: one.units.clone(), window: Window { start, end } });
    }
    let mut numbers: Vec<u32> = one.units.numbers().chain(other.units.numbers()).collect();
    numbers.sort_unstable();
    let units = Units::from_sorted(&numbers)?;
    debug_assert!(units.ranges().iter().all(|UnitRange { first, end }| first < end));
    Some(Area { units, window: one.window })
}
