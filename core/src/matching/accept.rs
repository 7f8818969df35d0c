//! Which asks a bid accepts, price and free units aside.
//!
//! The terms of a class's asks are kept as bits by rank, so that a bid is held against 64
//! asks at once, and an order that hardly anybody accepts costs no more than others.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::names::Names;
use super::ranked::{Ask, Bid, Class};
use super::supply::WORD;
use super::view::View;

/// Bits of a minimum run: every length that a bid may have fits, and one that none has.
const RUN_BITS: usize = 8;
/// Minimum runs beyond this, the longest that fits, are beyond every bid alike.
const LONGEST_RUN: u32 = (1 << RUN_BITS) - 1;

/// What counterparty rules read of either side.
pub(super) struct Party {
    pub(super) owner: u32,
    pub(super) features: u64,
    /// Most orders have no rule about others.
    rules: Option<Box<Rules>>,
}

struct Rules {
    allow: Vec<u32>,
    deny: Vec<u32>,
}

impl Party {
    /// What concerns the live order with this number.
    pub(super) fn new(order: &View<'_>, number: usize, names: &Names<'_>) -> Self {
        let has_rules = order.allow.len() + order.deny.len() > 0;
        let rules =
            || Box::new(Rules { allow: names.find(order.allow), deny: names.find(order.deny) });
        Self { owner: names.owner(number), features: order.features, rules: has_rules.then(rules) }
    }

    /// Whether the rules allow the counterparty with this name.
    pub(super) fn admits(&self, name: u32) -> bool {
        self.rules.as_ref().is_none_or(|rules| {
            !rules.deny.contains(&name) && (rules.allow.is_empty() || rules.allow.contains(&name))
        })
    }
}

/// The asks of one class that go by each name, or name it.
struct Named(BTreeMap<u32, Ranks>);

/// A set of asks: the ranks of few, one bit for each of the class if they are many. Either
/// way it is read in no more steps than the class has words.
enum Ranks {
    Few(Vec<usize>),
    Many(Vec<u64>),
}

impl Named {
    fn new(words: usize, pairs: impl Iterator<Item = (u32, usize)>) -> Self {
        let mut named: BTreeMap<u32, Ranks> = BTreeMap::new();
        for (name, rank) in pairs {
            match named.entry(name).or_insert_with(|| Ranks::Few(Vec::new())) {
                Ranks::Few(few) if few.len() < words => few.push(rank),
                Ranks::Many(bits) => set(bits, rank),
                few => {
                    let mut bits = vec![0; words];
                    few.each(|word, more| bits[word] |= more);
                    set(&mut bits, rank);
                    *few = Ranks::Many(bits);
                }
            }
        }
        Self(named)
    }

    /// Calls `visit` with the bits of those that go with `name`, by word.
    fn each(&self, name: u32, visit: impl FnMut(usize, u64)) {
        if let Some(ranks) = self.0.get(&name) {
            ranks.each(visit);
        }
    }
}

impl Ranks {
    fn each(&self, mut visit: impl FnMut(usize, u64)) {
        match self {
            Self::Few(ranks) => ranks.iter().for_each(|at| visit(at / WORD, 1 << (at % WORD))),
            Self::Many(bits) => bits.iter().enumerate().for_each(|(word, &bits)| visit(word, bits)),
        }
    }
}

fn set(bits: &mut [u64], rank: usize) {
    bits[rank / WORD] |= 1 << (rank % WORD);
}

/// What the asks of one class offer and demand: one bit per ask.
pub(super) struct Terms {
    /// By word, then by feature: which asks offer it.
    offering: Vec<[u64; u64::BITS as usize]>,
    /// By word, then by bit of the minimum run: which asks' runs have it.
    min_runs: Vec<[u64; RUN_BITS]>,
    longest_min_run: u32,
    /// Made when the first bid needs them.
    by_owner: OnceLock<Named>,
    by_provider: OnceLock<Named>,
    rules: Option<AskRules>,
}

/// The rules that asks have about the owners of bids.
struct AskRules {
    /// Asks that allow nobody but those they name.
    choosy: Vec<u64>,
    allowing: Named,
    denying: Named,
}

impl Terms {
    /// The terms of these asks, which come by rank.
    pub(super) fn new(asks: &[Ask]) -> Self {
        let words = asks.len().div_ceil(WORD);
        let mut offering = vec![[0; u64::BITS as usize]; words];
        let mut min_runs = vec![[0; RUN_BITS]; words];
        for (rank, ask) in asks.iter().enumerate() {
            let (word, bit) = (rank / WORD, 1 << (rank % WORD));
            each_bit(ask.party.features, |feature| offering[word][feature] |= bit);
            let run = ask.min_run.min(LONGEST_RUN).into();
            each_bit(run, |plane| min_runs[word][plane] |= bit);
        }
        let has_rules = asks.iter().any(|ask| ask.party.rules.is_some());
        Self {
            offering,
            min_runs,
            longest_min_run: asks.iter().map(|ask| ask.min_run).max().unwrap_or(0),
            by_owner: OnceLock::new(),
            by_provider: OnceLock::new(),
            rules: has_rules.then(|| AskRules::new(asks)),
        }
    }

    /// Whether the class has no ask that the bid might not accept.
    fn suit(&self, bid: &Bid) -> bool {
        self.rules.is_none()
            && bid.party.rules.is_none()
            && !bid.sells
            && bid.party.features == 0
            && bid.hours >= self.longest_min_run
    }

    /// The asks of one word whose features and minimum runs suit the bid.
    fn suiting(&self, bid: &Bid, word: usize) -> u64 {
        let mut bits = u64::MAX;
        each_bit(bid.party.features, |feature| bits &= self.offering[word][feature]);
        if bid.hours >= self.longest_min_run {
            return bits;
        }
        // Minimum runs equal to and below the bid's, as far as the bits read so far tell.
        let (mut equal, mut below) = (bits, 0);
        for (plane, &run) in self.min_runs[word].iter().enumerate().rev() {
            if bid.hours >> plane & 1 == 1 {
                below |= equal & !run;
                equal &= run;
            } else {
                equal &= !run;
            }
        }
        below | equal
    }

    /// The asks that the rules of neither side and no common owner exclude, `None` for all.
    fn admitted(&self, bid: &Bid, asks: &[Ask]) -> Option<Vec<u64>> {
        if self.rules.is_none() && bid.party.rules.is_none() && !bid.sells {
            return None;
        }
        let words = self.offering.len();
        let mut bits = vec![u64::MAX; words];
        if let Some(rules) = &bid.party.rules {
            let ranked = || asks.iter().enumerate();
            let named = || Named::new(words, ranked().map(|(rank, ask)| (ask.provider, rank)));
            let by_provider = self.by_provider.get_or_init(named);
            if !rules.allow.is_empty() {
                bits.fill(0);
                for &name in &rules.allow {
                    by_provider.each(name, |word, more| bits[word] |= more);
                }
            }
            for &name in &rules.deny {
                by_provider.each(name, |word, less| bits[word] &= !less);
            }
        }
        if let Some(rules) = &self.rules {
            rules.narrow(bid.party.owner, &mut bits);
        }
        if bid.sells {
            let ranked = asks.iter().enumerate();
            let named = || Named::new(words, ranked.map(|(rank, ask)| (ask.party.owner, rank)));
            let by_owner = self.by_owner.get_or_init(named);
            by_owner.each(bid.party.owner, |word, less| bits[word] &= !less);
        }
        Some(bits)
    }
}

impl AskRules {
    fn new(asks: &[Ask]) -> Self {
        let words = asks.len().div_ceil(WORD);
        let ruled = || {
            let rules = asks.iter().map(|ask| ask.party.rules.as_deref());
            rules.enumerate().filter_map(|(rank, rules)| Some((rank, rules?)))
        };
        let mut choosy = vec![0; words];
        for (rank, _) in ruled().filter(|(_, rules)| !rules.allow.is_empty()) {
            set(&mut choosy, rank);
        }
        let naming = |names: fn(&Rules) -> &[u32]| {
            let pairs = ruled()
                .flat_map(move |(rank, rules)| names(rules).iter().map(move |&name| (name, rank)));
            Named::new(words, pairs)
        };
        Self {
            choosy,
            allowing: naming(|rules| &rules.allow),
            denying: naming(|rules| &rules.deny),
        }
    }

    /// Leaves those that admit the owner of a bid.
    fn narrow(&self, owner: u32, bits: &mut [u64]) {
        let mut shut = self.choosy.clone();
        self.allowing.each(owner, |word, open| shut[word] &= !open);
        self.denying.each(owner, |word, more| shut[word] |= more);
        bits.iter_mut().zip(shut).for_each(|(bits, shut)| *bits &= !shut);
    }
}

fn each_bit(mut bits: u64, mut visit: impl FnMut(usize)) {
    while bits != 0 {
        visit(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The asks of one class that a bid accepts, found out by words when first needed.
pub(super) struct Accepted<'a> {
    bid: &'a Bid,
    class: &'a Class,
    pub(super) is_all: bool,
    admitted: Option<Vec<u64>>,
    /// The first word of `words`.
    first: usize,
    words: Vec<u64>,
}

impl<'a> Accepted<'a> {
    pub(super) fn new(bid: &'a Bid, class: &'a Class) -> Self {
        let is_all = class.terms.suit(bid);
        Self { bid, class, is_all, admitted: None, first: 0, words: Vec::new() }
    }

    /// The first word from `word`, but before `end`, with an ask that is accepted, and one
    /// bit for each such ask. Bits beyond the last ask mean nothing.
    pub(super) fn next(&mut self, word: usize, end: usize) -> Option<(usize, u64)> {
        if self.is_all {
            return (word < end).then_some((word, u64::MAX));
        }
        if self.words.is_empty() {
            self.admitted = self.class.terms.admitted(self.bid, &self.class.asks);
            self.first = word;
        } else if word < self.first {
            let before: Vec<u64> = (word..self.first).map(|word| self.read(word)).collect();
            self.words.splice(..0, before);
            self.first = word;
        }
        let known = self.words.len().min(end.saturating_sub(self.first));
        let known = self.words.get(word - self.first..known).unwrap_or_default();
        if let Some(skipped) = known.iter().position(|&bits| bits != 0) {
            return Some((word + skipped, known[skipped]));
        }
        for at in self.first + self.words.len()..end {
            let bits = self.read(at);
            self.words.push(bits);
            if bits != 0 && at >= word {
                return Some((at, bits));
            }
        }
        None
    }

    /// Calls `visit` with each word that [`Accepted::next`] returns.
    pub(super) fn each(&mut self, mut visit: impl FnMut(usize, u64)) {
        let mut from = 0;
        while let Some((word, bits)) = self.next(from, self.class.words.len()) {
            visit(word, bits);
            from = word + 1;
        }
    }

    /// Whether one of these asks is accepted, given by one bit each.
    pub(super) fn meets(&mut self, asks: &[u64]) -> bool {
        let mut from = 0;
        while let Some((word, bits)) = self.next(from, asks.len()) {
            if bits & asks[word] != 0 {
                return true;
            }
            from = word + 1;
        }
        false
    }

    fn read(&self, word: usize) -> u64 {
        let admitted = self.admitted.as_ref().map_or(u64::MAX, |bits| bits[word]);
        if admitted == 0 { 0 } else { admitted & self.class.terms.suiting(self.bid, word) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::instance::{Instance, Mode, Order, Side};
    use super::super::ranked::Book;
    use super::*;

    fn order(at: usize, side: Side) -> Order {
        Order {
            id: format!("order {at:03}"),
            owner: format!("owner {}", at % 7),
            qty: 1,
            filled: 0,
            min_qty: 1,
            window: (0, 9),
            expiry_epoch: None,
            features: [0, 1, 5, 1 << 63 | 1][at % 4],
            allow: if at.is_multiple_of(5) {
                vec!["owner 3".into(), "owner 1".into()]
            } else {
                Vec::new()
            },
            deny: if at.is_multiple_of(3) {
                vec!["owner 2".into(), "nobody".into()]
            } else {
                Vec::new()
            },
            side,
        }
    }

    /// 150 asks with rules, of which every owner has more than there are words, and as many
    /// bids: `plain` asks have neither rules nor features nor long minimum runs.
    fn book(plain: bool) -> Instance {
        let mut orders = Vec::new();
        for at in 0..150 {
            let min_run = if plain { 1 } else { [1, 3, 300, 4, 5][at % 5] };
            let provider = (at % 11 == 0).then(|| "owner 1".into());
            let side = Side::Sell { class: 0, limit_msat: 1 + at as u64, min_run, provider };
            let ask = order(at, side);
            let rules = if plain { Vec::new() } else { ask.allow.clone() };
            let deny = if plain { Vec::new() } else { ask.deny.clone() };
            orders.push(Order { allow: rules, deny, ..ask });
            let (hours, alts) = ((at % 9 + 1) as u16, vec![(0, 1000)]);
            orders.push(order(200 + at, Side::Buy { hours, mode: Mode::Sticky, alts }));
        }
        for at in 0..9 {
            let side = Side::Buy { hours: 4, mode: Mode::Sticky, alts: vec![(0, 1000)] };
            let owner = "a stranger".into();
            let (allow, deny) = (Vec::new(), Vec::new());
            orders.push(Order { owner, allow, deny, features: 0, ..order(400 + at, side) });
        }
        Instance::sample(1, orders)
    }

    #[test]
    fn the_bits_tell_what_the_pairs_do() {
        for plain in [true, false] {
            let book = book(plain);
            let book = Book::new(&&book).unwrap();
            let class = &book.classes[0];
            let accepts_all: Vec<bool> =
                book.bids.iter().map(|bid| class.terms.suit(bid)).collect();
            assert_eq!(accepts_all.contains(&true), plain);
            for bid in &book.bids {
                let pairs: Vec<bool> = class.asks.iter().map(|ask| bid.accepts(ask)).collect();
                // Also from the middle, and then what stands before.
                for from in [0, 2, 1] {
                    let mut accepted = Accepted::new(bid, class);
                    accepted.next(from, 3);
                    let mut bits = [0; 3];
                    accepted.each(|word, accepted| bits[word] = accepted);
                    let told: Vec<bool> =
                        (0..150).map(|rank| bits[rank / WORD] >> (rank % WORD) & 1 == 1).collect();
                    assert_eq!(told, pairs);
                    for (rank, &pair) in pairs.iter().enumerate() {
                        let mut one = [0; 3];
                        set(&mut one, rank);
                        assert_eq!(accepted.meets(&one), pair);
                    }
                }
            }
        }
    }
}
