//! The best that one bid can get in one run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ceiling::Ceiling;
use super::instance::Mode;
use super::pass::{Gain, Leg, Market, Standing};
use super::ranked::{Bid, Class};
use super::supply::WORD;

/// A run that one bid could take at one alternative's limit.
pub(super) struct Search<'a> {
    pub(super) bid: &'a Bid<'a>,
    pub(super) market: &'a Market<'a>,
    pub(super) limit_msat: u64,
    pub(super) start: u32,
    pub(super) end: u32,
    /// The most the whole run may cost per unit.
    cap_msat: u64,
    known: Ceiling,
    /// The most units that an option can bring.
    most_units: u32,
}

impl<'a> Search<'a> {
    /// `None` if the limit is below a total already promised to a seller, or too few units
    /// are known to be left.
    pub(super) fn new(
        bid: &'a Bid<'a>,
        market: &'a Market<'a>,
        limit_msat: u64,
        start: u32,
    ) -> Option<Self> {
        let end = start + bid.hours;
        let limits = &market.class.limits_msat;
        let hours = u64::from(bid.hours);
        let known = market.supply.ceiling(start, end);
        let cheapest_msat = *limits.get(known.first)?;
        let most_msat = limit_msat * hours;
        if cheapest_msat > limit_msat || most_msat < market.closure.min_msat(start, end) {
            return None;
        }
        let cap_msat = most_msat.min(market.closure.max_msat(start, end));
        // What is known speaks for all asks that the bid can pay if the next is too dear.
        let is_complete = limits.get(known.counted).is_none_or(|&ask| ask * hours > cap_msat);
        let most_units = match bid.mode {
            _ if !is_complete => bid.qty,
            Mode::Sticky => bid.qty.min(known.total),
            Mode::Gang => bid.qty.min(known.largest),
        };
        if cheapest_msat * hours > cap_msat || most_units < bid.min_qty {
            return None;
        }
        Some(Self { bid, market, limit_msat, start, end, cap_msat, known, most_units })
    }

    /// No option is worth more than this.
    pub(super) fn bound(&self) -> Gain {
        self.gain(self.market.class.limits_msat[self.known.first], self.most_units)
    }

    /// The best option, if it stands above `best`. `standing` is what a gain amounts to here.
    pub(super) fn option(
        &self,
        accepted: &mut Accepted<'_>,
        standing: impl Fn(Gain) -> Standing,
        best: Option<Standing>,
    ) -> Option<(Gain, Vec<Leg>)> {
        let can_win = |gain: Gain| best.is_none_or(|best| standing(gain) > best);
        let mut asks = FreeAsks::new(self, accepted);
        let option = match self.bid.mode {
            Mode::Sticky => self.sticky(&mut asks, can_win),
            Mode::Gang => self.gang(&mut asks, can_win),
        };
        asks.learn();
        option.filter(|(gain, _)| gain.qty >= self.bid.min_qty && can_win(*gain))
    }

    /// Takes units from the cheapest asks until the bid is full.
    fn sticky(
        &self,
        asks: &mut FreeAsks<'_, '_>,
        can_win: impl Fn(Gain) -> bool,
    ) -> Option<(Gain, Vec<Leg>)> {
        let mut gain = Gain::default();
        let mut legs = Vec::new();
        while gain.qty < self.bid.qty
            && let Some(ask_msat) = asks.next_msat()
        {
            let most_units = self.most_units.saturating_sub(gain.qty);
            if !can_win(gain + self.gain(ask_msat, most_units)) {
                return None;
            }
            let missing = self.bid.qty - gain.qty;
            let taken = asks.take_level(missing, &mut legs);
            gain = gain + self.gain(ask_msat, taken);
        }
        (!legs.is_empty()).then_some((gain, legs))
    }

    /// Takes all units from the one ask with the largest surplus.
    fn gang(
        &self,
        asks: &mut FreeAsks<'_, '_>,
        can_win: impl Fn(Gain) -> bool,
    ) -> Option<(Gain, Vec<Leg>)> {
        let mut best: Option<(Gain, usize)> = None;
        while let Some(ask_msat) = asks.next_msat() {
            let bound = self.gain(ask_msat, self.most_units);
            let is_useless = best.is_some_and(|(gain, _)| bound.surplus_msat <= gain.surplus_msat);
            if is_useless || !can_win(bound) {
                break;
            }
            let option = asks.best_in_level(|units| self.gain(ask_msat, units.min(self.bid.qty)));
            let stands = |gain: Gain| best.is_none_or(|best| gain.surplus_msat > best.0.surplus_msat);
            best = option.filter(|option| stands(option.0)).or(best);
        }
        best.map(|(gain, ask)| (gain, vec![Leg { ask, qty: gain.qty }]))
    }

    fn gain(&self, ask_msat: u64, qty: u32) -> Gain {
        let margin_msat = self.limit_msat - ask_msat;
        Gain { surplus_msat: margin_msat * u64::from(qty) * u64::from(self.bid.hours), qty }
    }
}

/// Which asks of one class a bid accepts, found out by words of 64 when first needed.
pub(super) struct Accepted<'a> {
    bid: &'a Bid<'a>,
    class: &'a Class<'a>,
    /// The first word of `words`.
    first: usize,
    words: Vec<Option<u64>>,
}

impl<'a> Accepted<'a> {
    pub(super) fn new(bid: &'a Bid<'a>, class: &'a Class<'a>) -> Self {
        Self { bid, class, first: class.words.len(), words: Vec::new() }
    }

    /// One bit for each ask of the ranks from `word · 64`.
    fn word(&mut self, word: usize) -> u64 {
        if self.bid.accepts_all(&self.class.words[word]) {
            return u64::MAX;
        }
        if word < self.first {
            self.words.splice(..0, vec![None; self.first - word]);
            self.first = word;
        }
        let at = word - self.first;
        if at >= self.words.len() {
            self.words.resize(at + 1, None);
        }
        let (bid, asks) = (self.bid, &self.class.asks);
        *self.words[at].get_or_insert_with(|| {
            let ranks = word * WORD..asks.len().min((word + 1) * WORD);
            let bits = asks[ranks].iter().enumerate();
            bits.fold(0, |bits, (bit, ask)| bits | u64::from(bid.accepts(ask)) << bit)
        })
    }
}

/// The asks that are free for a run, affordable and accepted: levels of equal price, cheapest
/// first, and what is learnt about the run on the way.
struct FreeAsks<'a, 'b> {
    search: &'a Search<'a>,
    accepted: &'a mut Accepted<'b>,
    word: usize,
    /// Asks of the current word that are still ahead.
    bits: u64,
    /// The first ask beyond the current level.
    next: Option<usize>,
    /// The last level entered: ranks and their free units.
    level: Vec<(usize, u32)>,
    /// The first free ask, accepted or not.
    first: Option<usize>,
    /// Rank below which all asks are affordable, once the walk got there.
    end: Option<usize>,
    total: u32,
    largest: u32,
}

impl<'a, 'b> FreeAsks<'a, 'b> {
    fn new(search: &'a Search<'a>, accepted: &'a mut Accepted<'b>) -> Self {
        let mut asks = Self {
            search,
            accepted,
            word: search.known.first / WORD,
            bits: 0,
            next: None,
            level: Vec::new(),
            first: None,
            end: None,
            total: 0,
            largest: 0,
        };
        asks.read_word();
        asks.next = asks.advance();
        asks
    }

    /// The price of the next level.
    fn next_msat(&self) -> Option<u64> {
        self.next.map(|rank| self.search.market.class.limits_msat[rank])
    }

    /// Reads all asks of the next level.
    fn enter_level(&mut self) {
        let Search { market, start, end, .. } = *self.search;
        let level_msat = self.next_msat();
        self.level.clear();
        while let Some(rank) = self.next.filter(|_| self.next_msat() == level_msat) {
            let units = market.supply.units(rank, start, end);
            self.total = self.total.saturating_add(units);
            self.largest = self.largest.max(units);
            self.level.push((rank, units));
            self.next = self.advance();
        }
    }

    /// Takes up to `wanted` units from the next level, best fits first: those whose free
    /// interval is the shortest, then those of the lowest rank. Returns how many there were.
    fn take_level(&mut self, wanted: u32, legs: &mut Vec<Leg>) -> u32 {
        self.enter_level();
        let total = self.level.iter().fold(0, |sum: u32, ask| sum.saturating_add(ask.1));
        if total <= wanted {
            legs.extend(self.level.iter().map(|&(ask, qty)| Leg { ask, qty }));
            return total;
        }
        let fit = |&(ask, units): &(usize, u32)| Reverse((self.slack(ask), ask, units));
        let mut fits: BinaryHeap<_> = self.level.iter().map(fit).collect();
        let mut missing = wanted;
        while missing > 0
            && let Some(Reverse((_, ask, units))) = fits.pop()
        {
            let qty = units.min(missing);
            missing -= qty;
            legs.push(Leg { ask, qty });
        }
        wanted - missing
    }

    /// The best fit among those asks of the next level that bring the largest surplus and
    /// enough units.
    fn best_in_level(&mut self, gain: impl Fn(u32) -> Gain) -> Option<(Gain, usize)> {
        self.enter_level();
        let min_qty = self.search.bid.min_qty;
        let options = self.level.iter().filter(|ask| ask.1 >= min_qty);
        let options = options.map(|&(ask, units)| (gain(units), ask));
        let most_msat = options.clone().map(|option| option.0.surplus_msat).max()?;
        options
            .filter(|option| option.0.surplus_msat == most_msat)
            .min_by_key(|&(_, ask)| (self.slack(ask), ask))
    }

    fn slack(&self, rank: usize) -> u32 {
        self.search.market.supply.slack(rank, self.search.start, self.search.end)
    }

    fn advance(&mut self) -> Option<usize> {
        while self.bits == 0 {
            if self.end.is_some() {
                return None;
            }
            self.word += 1;
            self.read_word();
        }
        let rank = self.word * WORD + self.bits.trailing_zeros() as usize;
        if !self.is_affordable(rank) {
            self.bits = 0;
            self.end = Some(rank);
            return None;
        }
        self.bits &= self.bits - 1;
        Some(rank)
    }

    fn read_word(&mut self) {
        let rank = self.word * WORD;
        if !self.is_affordable(rank) {
            self.end = Some(rank.min(self.search.market.class.asks.len()));
            return;
        }
        let Search { market, start, end, .. } = *self.search;
        let free = market.supply.free_for(self.word, start, end);
        if free == 0 {
            return;
        }
        self.first = self.first.or(Some(rank + free.trailing_zeros() as usize));
        let accepted = self.accepted.word(self.word);
        self.bits = free & accepted;
        if free & !accepted != 0 {
            // Other bids may accept them: count all that the whole word could ever offer.
            let word = &market.class.words[self.word];
            self.total = self.total.saturating_add(word.total_units);
            self.largest = self.largest.max(word.largest_units);
        }
    }

    fn is_affordable(&self, rank: usize) -> bool {
        let Search { bid, market, cap_msat, .. } = *self.search;
        let limit_msat = market.class.limits_msat.get(rank);
        limit_msat.is_some_and(|limit_msat| limit_msat * u64::from(bid.hours) <= cap_msat)
    }

    /// Tells later searches for the same run what this one found out.
    fn learn(&self) {
        let Search { market, start, end, known, .. } = *self.search;
        let first = self.first.or(self.end).unwrap_or(known.first);
        let found = match self.end {
            Some(counted) if self.next.is_none() => {
                Ceiling { first, counted, total: self.total, largest: self.largest }
            }
            _ => Ceiling { first, ..known },
        };
        market.supply.learn(start, end, found);
    }
}
