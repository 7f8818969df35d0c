//! Version 2 of the rules: a better sequence, found by a bounded, deterministic local search.
//!
//! What a pass brings depends on nothing but the sequence in which it inserts the bids. The
//! search starts from the sequence of the best start and works in rounds. A round draws a few
//! neighbours of the present sequence, each by moving one or two bids elsewhere, runs a pass
//! over each, and goes on with the best neighbour unless the present sequence is better.
//! Steps that gain nothing are taken: they lead across the many sequences of equal welfare.
//!
//! The draws come from the beacon, and the rounds are counted from the book alone, never from
//! the clock, so that every node walks the same way. Neighbours are judged in parallel.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::instance::{Instance, MatchError};
use super::outcome::Algorithm;
use super::pass;
use super::ranked::{Bid, Book, Class};

/// Neighbours per round: as good as one by one, and as many cores can help.
const NEIGHBOURS: usize = 4;
/// Most rounds. Seven times as many were seen to add less than half a point of welfare.
const MAX_ROUNDS: u64 = 1024;
/// Estimated work of all passes together, see [`rounds`]: about a second on one core.
const BUDGET: u64 = 1 << 27;
/// Work of a look at one start of one bid, over that of a look at one ask.
const START_WORK: u64 = 16;
/// Pairs of slots whose price bounds are tightened with the work of a look at one ask.
const PAIRS_PER_WORK: u64 = 32;
/// Slots of asks laid out with the work of a look at one ask.
const UNITS_PER_WORK: u64 = 2;

/// Searches for a sequence of more welfare than that of the best start, which is given with
/// its welfare in msat.
///
/// # Errors
/// As [`pass::place`].
pub(super) fn improve(
    book: &Book<'_>,
    beacon: &[u8; 32],
    start: (u128, Vec<usize>),
) -> Result<Vec<usize>, MatchError> {
    let mut draws = Draws::new(beacon);
    let mut present = start;
    for _ in 0..rounds(book, &present.1) {
        let neighbours: Vec<Vec<usize>> =
            (0..NEIGHBOURS).map(|_| neighbour(&present.1, &mut draws)).collect();
        let judged: Result<Vec<(u128, Vec<usize>)>, MatchError> = neighbours
            .into_par_iter()
            .map(|sequence| Ok((pass::place(book, &sequence)?.welfare_msat, sequence)))
            .collect();
        for candidate in judged?.into_iter().rev() {
            // From the last to the first, so that the first among equals stays.
            if candidate.0 >= present.0 {
                present = candidate;
            }
        }
    }
    Ok(present.1)
}

/// How many rounds a book is worth: few sequences need few, costly passes allow few.
fn rounds(book: &Book<'_>, sequence: &[usize]) -> u64 {
    let bids = sequence.len() as u64;
    if bids < 2 {
        return 0;
    }
    let affordable = affordable(pass_work(book, sequence));
    affordable.min(bids * bids).min(MAX_ROUNDS)
}

fn affordable(pass_work: u64) -> u64 {
    BUDGET / (NEIGHBOURS as u64 * pass_work)
}

/// Whether a book of which a pass takes at least so much work, in looks at an ask, is not
/// searched at all.
pub(super) fn is_too_large(least_work: u64) -> bool {
    least_work > 0 && affordable(least_work) == 0
}

/// Estimated work of a pass over a sequence, in looks at an ask.
fn pass_work(book: &Book<'_>, sequence: &[usize]) -> u64 {
    let placing: u64 = sequence.iter().map(|&bid| bid_work(book, &book.bids[bid])).sum();
    1 + layout_work(book) + placing
}

/// Estimated work of matching a book, in looks at an ask. An upper estimate: a pass skips
/// what cannot win.
pub(super) fn match_work(instance: &Instance, algorithm: Algorithm) -> Result<u64, MatchError> {
    let book = Book::new(&instance)?;
    let bids: Vec<usize> = (0..book.bids.len()).collect();
    let searched = match algorithm {
        Algorithm::One => 0,
        Algorithm::Two => rounds(&book, &bids) * NEIGHBOURS as u64,
    };
    Ok(pass_work(&book, &bids) * (u64::from(instance.starts) + searched))
}

/// What it takes to lay out the free units of all asks, slot by slot, before the first bid.
fn layout_work(book: &Book<'_>) -> u64 {
    let units: u64 = book.classes.iter().map(|class| class.asks.len() as u64 * slots(class)).sum();
    units / UNITS_PER_WORK
}

/// What the asks of one class cost for one start of one bid.
pub(super) fn start_work(asks: usize) -> u64 {
    START_WORK + asks as u64
}

/// What inserting a bid may take: each ask looked at for each start, and the bounds between
/// all pairs of slots.
fn bid_work(book: &Book<'_>, bid: &Bid) -> u64 {
    let work = |&(class, _): &(usize, u64)| {
        let class = &book.classes[class];
        let looks = bid.starts(class).len() as u64 * start_work(class.asks.len());
        looks + slots(class) * slots(class) / PAIRS_PER_WORK
    };
    bid.alts.iter().map(work).sum()
}

fn slots(class: &Class) -> u64 {
    u64::from(class.end_slot - class.first_slot)
}

/// The sequence after one or two moves.
fn neighbour(sequence: &[usize], draws: &mut Draws) -> Vec<usize> {
    let mut neighbour = sequence.to_vec();
    for _ in 0..=draws.below(2) {
        let (from, to) = (draws.below(sequence.len()), draws.below(sequence.len()));
        let bid = neighbour.remove(from);
        neighbour.insert(to, bid);
    }
    neighbour
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Draws(u64);

impl Draws {
    /// Seeded with the first eight bytes of SHA-256("improve" ‖ beacon), big-endian.
    fn new(beacon: &[u8; 32]) -> Self {
        let hash = Sha256::new().chain_update(b"improve").chain_update(beacon).finalize();
        Self(hash.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`: the high half of the product with a draw.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}
