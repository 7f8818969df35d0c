//! Statements of providers as they were heard, in bounded room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::certificate::equivocation::Statement;
use crate::ids::{CertId, Key, TermsHash};
use crate::limits::{HORIZON_SLOTS, STATEMENTS_MAX_BYTES};
use crate::units::Slot;

/// Statements remembered of one (cert_id, seq): attempts beyond are rare, and the oldest
/// matter least.
const STATEMENTS_PER_SEQ: usize = 16;
/// Statements remembered of one provider: an Activation is compared with all of them, at most
/// about a millisecond.
const STATEMENTS_PER_PROVIDER: usize = 8192;
/// Statements of one provider that are taken in one epoch: lock, Activation and redemption of
/// as many trades as one daemon may have open. What comes beyond is not relayed either.
const STATEMENTS_PER_EPOCH: u32 = 3 * 1024;
/// What each statement takes beside what was signed: its decoded form, and its places by number,
/// in order and by certificate.
const PLACES_BYTES: usize = 512;

type Place = (CertId, u32);

/// What one provider said.
#[derive(Debug, Default)]
struct OfProvider {
    /// A merge stands at each place that it consumes.
    by_place: BTreeMap<Place, VecDeque<Statement>>,
    /// In the order of hearing, with the slot.
    order: VecDeque<(Slot, Place)>,
    /// What it takes in memory.
    bytes: usize,
    epoch: u64,
    in_epoch: u32,
}

impl OfProvider {
    fn remember(&mut self, statement: Statement, place: Place, slot: Slot) {
        self.bytes = self.bytes.saturating_add(weight(&statement));
        let known = self.by_place.entry(place).or_default();
        known.push_back(statement);
        if known.len() > STATEMENTS_PER_SEQ {
            let oldest = known.pop_front();
            self.lighten(oldest.as_ref());
        } else {
            self.order.push_back((slot, place));
        }
        if self.order.len() > STATEMENTS_PER_PROVIDER {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, place)) = self.order.pop_front() else { return };
        let Some(known) = self.by_place.get_mut(&place) else { return };
        let oldest = known.pop_front();
        if known.is_empty() {
            self.by_place.remove(&place);
        }
        self.lighten(oldest.as_ref());
    }

    fn lighten(&mut self, gone: Option<&Statement>) {
        self.bytes = self.bytes.saturating_sub(gone.map_or(0, weight));
    }
}

/// What a statement takes in memory, bytes: as it was signed, as it is read, and its places. One
/// of 400 ranges of units takes ten times as much as the usual.
fn weight(statement: &Statement) -> usize {
    PLACES_BYTES.saturating_add(statement.envelope().payload.len().saturating_mul(2))
}

/// What was heard of all providers. A key costs a stranger the work of one order, and goes on to
/// be heard while it says something: most of what a provider signs it signs when that order is
/// gone. When the room is full, the provider of whom most is remembered gives up its oldest, so
/// that none is pushed out by another's noise. After the horizon a statement is forgotten: its
/// window is over.
#[derive(Debug, Default)]
pub(super) struct Heard {
    of: BTreeMap<Key, OfProvider>,
    /// Providers by the bytes of what they said.
    sizes: BTreeSet<(usize, Key)>,
    bytes: usize,
}

impl Heard {
    /// Whether anything is remembered of a provider.
    pub(super) fn has(&self, provider: &Key) -> bool {
        self.of.contains_key(provider)
    }

    /// Whether a provider has said as much in an epoch as it may.
    pub(super) fn is_loud(&self, provider: &Key, epoch: u64) -> bool {
        let of = self.of.get(provider);
        of.is_some_and(|of| of.epoch == epoch && of.in_epoch >= STATEMENTS_PER_EPOCH)
    }

    pub(super) fn knows(&self, statement: &Statement) -> bool {
        let Some(place) = statement.places().first().copied() else { return false };
        let known = self.of.get(&statement.provider()).and_then(|of| of.by_place.get(&place));
        known.is_some_and(|known| known.contains(statement))
    }

    /// A statement that contradicts this one.
    pub(super) fn contradiction(&self, statement: &Statement) -> Option<&Statement> {
        let of = self.of.get(&statement.provider())?;
        let places = match statement {
            Statement::Lock(_) | Statement::Redeem(_) => statement.places(),
            // These may also clash with those of the provider's other certificates.
            Statement::Activation(_) => {
                let mut known = of.by_place.values().flatten();
                return known.find(|known| known.contradicts(statement));
            }
        };
        let mut known = places.iter().filter_map(|place| of.by_place.get(place)).flatten();
        known.find(|known| known.contradicts(statement))
    }

    pub(super) fn insert(&mut self, statement: Statement, slot: Slot, epoch: u64) {
        let provider = statement.provider();
        let of = self.of.entry(provider).or_default();
        let before = of.bytes;
        if of.epoch != epoch {
            (of.epoch, of.in_epoch) = (epoch, 0);
        }
        of.in_epoch = of.in_epoch.saturating_add(1);
        for place in statement.places() {
            of.remember(statement.clone(), place, slot);
        }
        self.resized(provider, before);
        self.make_room(STATEMENTS_MAX_BYTES);
    }

    /// Forgets the oldest statements of whoever said most, while there is more than so much.
    fn make_room(&mut self, most_bytes: usize) {
        while self.bytes > most_bytes
            && let Some((_, largest)) = self.sizes.last().copied()
        {
            self.shrink(largest, OfProvider::forget_oldest);
        }
    }

    /// Forgets what was heard more than a horizon ago.
    pub(super) fn expire(&mut self, past: Slot) {
        let providers: Vec<Key> = self.of.keys().copied().collect();
        for provider in providers {
            self.shrink(provider, |of| {
                let old = |(heard, _): &(Slot, Place)| heard.saturating_add(HORIZON_SLOTS) < past;
                while of.order.front().is_some_and(old) {
                    of.forget_oldest();
                }
            });
        }
    }

    fn shrink(&mut self, provider: Key, change: impl FnOnce(&mut OfProvider)) {
        let Some(of) = self.of.get_mut(&provider) else { return };
        let before = of.bytes;
        change(of);
        self.resized(provider, before);
    }

    /// Keeps the sizes true after a change of one provider.
    fn resized(&mut self, provider: Key, before: usize) {
        let now = self.of.get(&provider).map_or(0, |of| of.bytes);
        self.sizes.remove(&(before, provider));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(now);
        if now == 0 {
            self.of.remove(&provider);
        } else {
            self.sizes.insert((now, provider));
        }
    }

    /// Whether a grant for other terms, of this or a later attempt, was heard.
    pub(super) fn conflicts(
        &self,
        provider: Key,
        cert: CertId,
        seq: u32,
        attempt: u32,
        terms_hash: TermsHash,
    ) -> bool {
        let known = self.of.get(&provider).and_then(|of| of.by_place.get(&(cert, seq)));
        known.into_iter().flatten().flat_map(Statement::consumes).any(|heard| {
            (heard.cert_id, heard.seq) == (cert, seq)
                && heard.cause != terms_hash.0
                && (heard.attempt >= attempt || heard.is_final)
        })
    }

    /// What a provider said, the newest first.
    pub(super) fn said_by(&self, provider: &Key) -> impl Iterator<Item = &Statement> {
        let of = self.of.get(provider);
        let places = of.into_iter().flat_map(|of| of.order.iter().rev().map(move |at| (of, at.1)));
        let mut seen = BTreeSet::new();
        let fresh = places.filter(move |(_, place)| seen.insert(*place));
        fresh.flat_map(|(of, place)| of.by_place.get(&place).into_iter().flatten().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::objects::{Activation, Consumed, RedeemGrant};
    use crate::engine::kernel::Keys;
    use crate::ids::LeaseId;
    use crate::test_support::devnet;
    use crate::units::{UnitRange, Units, Window};
    use crate::wire::{VERSION, decode_record, encode};

    fn grant(provider: u8, number: u32) -> Statement {
        let keys = Keys::new([provider; 32], [provider; 32]);
        let mut cert_id = CertId([0; 32]);
        cert_id.0[..4].copy_from_slice(&number.to_be_bytes());
        let grant = RedeemGrant {
            v: VERSION,
            provider: keys.public(),
            cert_id,
            seq: 1,
            attempt: 0,
            redeem_hash: LeaseId([7; 32]),
            p_height: 0,
        };
        Statement::Redeem(keys.sign(grant, &devnet()))
    }

    fn key(statement: &Statement) -> Key {
        statement.provider()
    }

    #[test]
    fn a_quiet_provider_is_not_forgotten_for_a_loud_one() {
        let mut heard = Heard::default();
        let quiet = grant(1, 0);
        let each = weight(&quiet);
        heard.insert(quiet.clone(), 5, 1);
        for number in 0..50 {
            heard.insert(grant(2, number), 5, 1);
        }
        assert_eq!((heard.bytes, heard.sizes.len()), (51 * each, 2));
        heard.make_room(51 * each);
        assert_eq!(heard.bytes, 51 * each, "as many as there may be");
        heard.make_room(49 * each);
        assert!(heard.knows(&quiet) && !heard.knows(&grant(2, 1)) && heard.knows(&grant(2, 2)));
        assert_eq!(heard.bytes, 49 * each);
    }

    /// A statement of as many unit ranges as there is room for in what may be signed.
    fn long(provider: u8, number: u32) -> Statement {
        let keys = Keys::new([provider; 32], [provider; 32]);
        let mut cert_id = CertId([0; 32]);
        cert_id.0[..4].copy_from_slice(&number.to_be_bytes());
        let ranges: Vec<UnitRange> =
            (0..450).map(|n| UnitRange { first: 2 * n, end: 2 * n + 1 }).collect();
        let activation = Activation {
            v: VERSION,
            provider: keys.public(),
            cert_id,
            seq: 1,
            consumes: vec![Consumed { cert_id, seq: 0, attempt: 0, prev_hash: [0; 32] }],
            roots: vec![cert_id],
            holder_hash: [2; 32],
            class: 1,
            features: 0,
            units: decode_record::<Units>(&encode(&ranges)).unwrap(),
            window: Window { start: number, end: number + 1 },
            cause_hash: [1; 32],
            p_height: 0,
        };
        Statement::Activation(keys.sign(activation, &devnet()))
    }

    #[test]
    fn long_statements_take_no_more_memory_than_short_ones() {
        let mut heard = Heard::default();
        let quiet = grant(1, 0);
        heard.insert(quiet.clone(), 5, 1);
        let each = weight(&long(2, 0));
        let most = u32::try_from((48 << 20) / each).unwrap();
        assert!((5_000..10_000).contains(&most), "{most} of {each} bytes");
        for number in 0..most + 100 {
            // Two of them: neither comes to the bound of one provider.
            let provider = if number % 2 == 0 { 2 } else { 3 };
            heard.insert(long(provider, number), 5, u64::from(number / 3000));
        }
        assert!(heard.bytes <= 48 << 20 && heard.bytes > (48 << 20) - each, "{}", heard.bytes);
        let mut of = heard.of.values();
        assert_eq!(heard.bytes, of.clone().map(|of| of.bytes).sum::<usize>());
        let all = of.all(|of| {
            let kept = of.by_place.values().flatten();
            of.bytes == kept.map(weight).sum::<usize>()
        });
        assert!(all && heard.knows(&quiet));
        assert!(!heard.knows(&long(2, 0)) && heard.knows(&long(2, most)));
    }

    #[test]
    fn an_epoch_has_a_bound_and_a_horizon_an_end() {
        let mut heard = Heard::default();
        let one = grant(1, 0);
        heard.insert(one.clone(), 5, 1);
        heard.of.get_mut(&key(&one)).unwrap().in_epoch = STATEMENTS_PER_EPOCH;
        assert!(heard.is_loud(&key(&one), 1) && !heard.is_loud(&key(&one), 2));
        heard.expire(5 + HORIZON_SLOTS);
        assert!(heard.knows(&one));
        heard.expire(6 + HORIZON_SLOTS);
        assert!(!heard.knows(&one) && !heard.has(&key(&one)));
        assert_eq!((heard.bytes, heard.sizes.len()), (0, 0));
    }
}
