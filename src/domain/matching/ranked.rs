//! The book with labels replaced by ranks, so that passes compare integers alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::instance::{Instance, MatchError, Mode, Order, Side};
use super::supply::WORD;

/// What counterparty rules read of either side.
struct Party {
    owner: u32,
    features: u64,
    allow: Vec<u32>,
    deny: Vec<u32>,
}

/// A live bid.
pub(super) struct Bid<'a> {
    pub(super) id: &'a str,
    party: Party,
    /// Units wanted and the fewest that make a match.
    pub(super) qty: u32,
    pub(super) min_qty: u32,
    /// Deliverable window and run length, in slots.
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    pub(super) hours: u32,
    pub(super) mode: Mode,
    /// Highest limit over all alternatives, also those whose class nobody offers.
    pub(super) best_limit_msat: u64,
    /// (index into [`Book::classes`], limit in msat per block), classes with asks only.
    pub(super) alts: Vec<(usize, u64)>,
}

/// A live ask.
pub(super) struct Ask<'a> {
    pub(super) id: &'a str,
    party: Party,
    provider: u32,
    pub(super) qty: u32,
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    pub(super) limit_msat: u64,
    pub(super) min_run: u32,
}

/// A class in which a trade is conceivable.
pub(super) struct Class<'a> {
    pub(super) id: u16,
    /// Slots that lie both between the bids' and between the asks' outermost ones.
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    /// Ascending by (limit, draw, id): the position is the ask's rank.
    pub(super) asks: Vec<Ask<'a>>,
    /// Limits of the asks in msat per block.
    pub(super) limits_msat: Vec<u64>,
    /// Units of 64 asks each: of all together, of the largest.
    pub(super) word_units: Vec<(u32, u32)>,
}

/// The live orders of an instance.
pub(super) struct Book<'a> {
    beacon: &'a [u8; 32],
    /// Ascending by id of the class.
    pub(super) classes: Vec<Class<'a>>,
    /// Ascending by (draw, id): a stable sort by priority needs no further key.
    pub(super) bids: Vec<Bid<'a>>,
}

impl Bid<'_> {
    /// Whether `ask` may serve this bid, price and free units aside.
    pub(super) fn accepts(&self, ask: &Ask<'_>) -> bool {
        let (b, s) = (&self.party, &ask.party);
        b.owner != s.owner
            && b.features & !s.features == 0
            && self.hours >= ask.min_run
            && !b.deny.contains(&ask.provider)
            && !s.deny.contains(&b.owner)
            && (b.allow.is_empty() || b.allow.contains(&ask.provider))
            && (s.allow.is_empty() || s.allow.contains(&b.owner))
    }

    /// First slots of the runs that the bid could take in `class`, ascending.
    pub(super) fn starts(&self, class: &Class<'_>) -> Range<u32> {
        let first = self.first_slot.max(class.first_slot);
        let last = self.end_slot.min(class.end_slot).checked_sub(self.hours);
        first..last.map_or(first, |last| last + 1)
    }

    /// Units that must be placed together, the last factor of the priorities.
    fn bundle(&self) -> u128 {
        match self.mode {
            Mode::Gang => self.min_qty.into(),
            Mode::Sticky => 1,
        }
    }
}

impl<'a> Book<'a> {
    /// Checks an instance, drops what cannot trade and ranks the rest.
    ///
    /// # Errors
    /// As [`super::solve`], `match.infeasible` aside.
    pub(super) fn new(instance: &'a Instance) -> Result<Self, MatchError> {
        let mut live = instance.live()?;
        let names = Names::new(&live);
        let draws = draws(&instance.beacon, &live);
        live.sort_by_cached_key(|o| draws[o.owner.as_str()]);
        let classes = classes(&live, &names, instance.now);
        let index: BTreeMap<u16, usize> =
            classes.iter().enumerate().map(|(at, class)| (class.id, at)).collect();
        let bids = live.iter().filter_map(|o| bid(o, &names, instance.now, &index)).collect();
        Ok(Self { beacon: &instance.beacon, classes, bids })
    }

    /// The order in which start number `start` inserts the bids, as indices into `bids`.
    pub(super) fn sequence(&self, start: u8) -> Vec<usize> {
        let mut keyed: Vec<(Reverse<u128>, usize)> = self
            .bids
            .iter()
            .enumerate()
            .map(|(at, bid)| (Reverse(self.priority(bid, start)), at))
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, at)| at).collect()
    }

    /// Start 0 ranks by value over the root of the bundle size, squared to stay integral;
    /// 1 by limit; 2 by the best conceivable surplus; later ones perturb the first.
    fn priority(&self, bid: &Bid<'_>, start: u8) -> u128 {
        let size = u128::from(bid.hours) * bid.bundle();
        let limit = u128::from(bid.best_limit_msat);
        match start {
            0 => limit * limit * size,
            1 => limit,
            2 => u128::from(self.best_margin_msat(bid)) * size,
            _ => limit * limit * size * u128::from(500 + self.perturbation(bid, start)),
        }
    }

    fn perturbation(&self, bid: &Bid<'_>, start: u8) -> u32 {
        let hash = sha256(&[b"pert", self.beacon, &[start], bid.id.as_bytes()]);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 1001
    }

    /// Largest (limit − ask) over the compatible asks whose window can hold the run.
    fn best_margin_msat(&self, bid: &Bid<'_>) -> u64 {
        let margin = |&(class, limit): &(usize, u64)| {
            self.classes[class]
                .asks
                .iter()
                .take_while(|ask| ask.limit_msat < limit)
                .find(|ask| {
                    ask.first_slot <= bid.end_slot - bid.hours
                        && ask.end_slot >= bid.first_slot + bid.hours
                        && bid.accepts(ask)
                })
                .map_or(0, |ask| limit - ask.limit_msat)
        };
        bid.alts.iter().map(margin).max().unwrap_or(0)
    }
}

/// Labels of owners and providers as ranks.
struct Names<'a>(BTreeMap<&'a str, u32>);

impl<'a> Names<'a> {
    fn new(live: &[&'a Order]) -> Self {
        let mut labels = BTreeSet::new();
        for order in live {
            labels.insert(order.owner.as_str());
            if let Side::Sell { provider: Some(provider), .. } = &order.side {
                labels.insert(provider);
            }
        }
        Self((0..).zip(labels).map(|(rank, label)| (label, rank)).collect())
    }

    /// Absent for a label that no live order carries: a rule about it meets nobody.
    fn rank(&self, label: &str) -> u32 {
        self.0.get(label).copied().unwrap_or(u32::MAX)
    }

    fn party(&self, order: &Order) -> Party {
        let ranks = |labels: &[String]| labels.iter().map(|label| self.rank(label)).collect();
        Party {
            owner: self.rank(&order.owner),
            features: order.features,
            allow: ranks(&order.allow),
            deny: ranks(&order.deny),
        }
    }
}

/// One draw per owner, so that splitting an order buys no further ticket.
fn draws<'a>(beacon: &[u8; 32], live: &[&'a Order]) -> BTreeMap<&'a str, [u8; 32]> {
    live.iter()
        .map(|o| (o.owner.as_str(), sha256(&[b"draw", beacon, o.owner.as_bytes()])))
        .collect()
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn classes<'a>(live: &[&'a Order], names: &Names<'a>, now: u32) -> Vec<Class<'a>> {
    let mut asks: BTreeMap<u16, Vec<Ask<'a>>> = BTreeMap::new();
    let mut spans: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for order in live {
        match &order.side {
            Side::Sell { class, limit_msat, min_run, provider } => {
                asks.entry(*class).or_default().push(Ask {
                    id: &order.id,
                    party: names.party(order),
                    provider: names.rank(provider.as_ref().unwrap_or(&order.owner)),
                    qty: order.units_left(),
                    first_slot: order.first_slot(now),
                    end_slot: order.window.1,
                    limit_msat: *limit_msat,
                    min_run: (*min_run).into(),
                });
            }
            Side::Buy { alts, .. } => {
                let (first, end) = (order.first_slot(now), order.window.1);
                for (class, _) in alts {
                    let span = spans.entry(*class).or_insert((first, end));
                    *span = (span.0.min(first), span.1.max(end));
                }
            }
        }
    }
    asks.into_iter().filter_map(|(id, asks)| class(id, *spans.get(&id)?, asks)).collect()
}

/// `None` if no slot is common to the bids' span and the asks.
fn class(id: u16, span: (u32, u32), mut asks: Vec<Ask<'_>>) -> Option<Class<'_>> {
    let first_slot = asks.iter().map(|ask| ask.first_slot).min()?.max(span.0);
    let end_slot = asks.iter().map(|ask| ask.end_slot).max()?.min(span.1);
    asks.sort_by_key(|ask| ask.limit_msat);
    let limits_msat = asks.iter().map(|ask| ask.limit_msat).collect();
    let word_units = asks
        .chunks(WORD)
        .map(|word| {
            let units = word.iter().map(|ask| ask.qty);
            (units.clone().sum(), units.max().unwrap_or(0))
        })
        .collect();
    (first_slot < end_slot).then_some(Class {
        id,
        first_slot,
        end_slot,
        asks,
        limits_msat,
        word_units,
    })
}

fn bid<'a>(
    order: &'a Order,
    names: &Names<'a>,
    now: u32,
    index: &BTreeMap<u16, usize>,
) -> Option<Bid<'a>> {
    let Side::Buy { hours, mode, alts } = &order.side else {
        return None;
    };
    Some(Bid {
        id: &order.id,
        party: names.party(order),
        qty: order.units_left(),
        min_qty: order.min_left(),
        first_slot: order.first_slot(now),
        end_slot: order.window.1,
        hours: (*hours).into(),
        mode: *mode,
        best_limit_msat: order.best_limit_msat(),
        alts: alts.iter().filter_map(|(class, limit)| Some((*index.get(class)?, *limit))).collect(),
    })
}
