//! The best that one bid can get in one run.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::accept::Accepted;
use super::ceiling::Most;
use super::instance::Mode;
use super::pass::{Gain, Leg, Market, Standing};
use super::ranked::Bid;
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
    /// No ask of a lower rank is free for the run.
    first: usize,
    /// The most units that an option can bring, and whether that is more than a guess.
    most_units: u32,
    is_known: bool,
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
        let ceiling = market.supply.ceiling(start, end);
        let (first, most) = (ceiling.first, ceiling.most(bid.mode));
        let cheapest_msat = *limits.get(first)?;
        let most_msat = limit_msat * hours;
        if cheapest_msat > limit_msat || most_msat < market.closure.min_msat(start, end) {
            return None;
        }
        let cap_msat = most_msat.min(market.closure.max_msat(start, end));
        // What was counted is all that the bid can pay, if the next ask is too dear.
        let is_known = limits.get(most.counted).is_none_or(|&ask| ask * hours > cap_msat);
        let most_units = if is_known { bid.qty.min(most.units) } else { bid.qty };
        if cheapest_msat * hours > cap_msat || most_units < bid.min_qty {
            return None;
        }
        Some(Self { bid, market, limit_msat, start, end, cap_msat, first, most_units, is_known })
    }

    /// No option is worth more than this.
    pub(super) fn bound(&self) -> Gain {
        self.gain(self.market.class.limits_msat[self.first], self.most_units)
    }

    /// The best option, if it stands above `best`. `standing` is what a gain amounts to here.
    pub(super) fn option(
        &mut self,
        accepted: &mut Accepted<'_>,
        level: &mut Vec<usize>,
        standing: impl Fn(Gain) -> Standing,
        best: Option<Standing>,
    ) -> Option<(Gain, Vec<Leg>)> {
        let can_win = |gain: Gain| best.is_none_or(|best| standing(gain) > best);
        self.count();
        if self.most_units < self.bid.min_qty || !can_win(self.bound()) {
            return None;
        }
        let mut asks = FreeAsks::new(self, accepted, level);
        let option = match self.bid.mode {
            Mode::Sticky => self.sticky(&mut asks, can_win),
            Mode::Gang => self.gang(&mut asks, can_win),
        };
        asks.learn();
        option.filter(|(gain, _)| gain.qty >= self.bid.min_qty && can_win(*gain))
    }

    /// Counts the units that the bid can pay, if no search did so before: roughly, but
    /// without a look at a single ask.
    fn count(&mut self) {
        if self.is_known {
            return;
        }
        let Self { bid, market, start, end, .. } = *self;
        let payable = self.payable();
        let units = market.supply.most_units(bid.mode, payable, start, end);
        let most = Most { counted: payable, units };
        market.supply.ceilings().lower_most(start, end, bid.mode, most);
        self.most_units = bid.qty.min(units);
    }

    /// How many asks the bid could pay.
    fn payable(&self) -> usize {
        let hours = u64::from(self.bid.hours);
        self.market.class.limits_msat.partition_point(|&ask| ask * hours <= self.cap_msat)
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
            let stands =
                |gain: Gain| best.is_none_or(|best| gain.surplus_msat > best.0.surplus_msat);
            best = option.filter(|option| stands(option.0)).or(best);
        }
        best.map(|(gain, ask)| (gain, vec![Leg { ask, qty: gain.qty }]))
    }

    fn gain(&self, ask_msat: u64, qty: u32) -> Gain {
        let margin_msat = self.limit_msat - ask_msat;
        Gain { surplus_msat: margin_msat * u64::from(qty) * u64::from(self.bid.hours), qty }
    }
}

/// The asks that are free for a run, affordable and accepted: levels of equal price, cheapest
/// first, and what is learnt about the run on the way.
struct FreeAsks<'a, 'b> {
    search: &'a Search<'a>,
    accepted: &'a mut Accepted<'b>,
    /// Only asks with at least `2^plane` units are of use.
    plane: u32,
    word: usize,
    /// Asks of the current word that are still ahead.
    bits: u64,
    /// The first ask beyond the current level.
    next: Option<usize>,
    /// The last level entered.
    level: &'a mut Vec<usize>,
    /// The first free ask, accepted or not.
    first: Option<usize>,
    /// No ask from this rank on is both affordable and accepted.
    payable: usize,
    /// Rank below which all asks are affordable, once the walk got there.
    end: Option<usize>,
    /// The most units that the asks seen so far have, together or the largest.
    most_units: u32,
    /// Whether some were left out of `most_units`.
    is_partial: bool,
}

impl<'a, 'b> FreeAsks<'a, 'b> {
    fn new(
        search: &'a Search<'a>,
        accepted: &'a mut Accepted<'b>,
        level: &'a mut Vec<usize>,
    ) -> Self {
        let plane = match search.bid.mode {
            Mode::Sticky => 0,
            Mode::Gang => search.bid.min_qty.ilog2(),
        };
        let payable =
            if accepted.is_all { search.market.class.asks.len() } else { search.payable() };
        let mut asks = Self {
            search,
            accepted,
            payable,
            plane,
            word: search.first / WORD,
            bits: 0,
            next: None,
            level,
            first: None,
            end: None,
            most_units: (1 << plane) - 1,
            is_partial: false,
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
        let level_msat = self.next_msat();
        self.level.clear();
        while let Some(rank) = self.next.filter(|_| self.next_msat() == level_msat) {
            self.level.push(rank);
            self.next = self.advance();
        }
    }

    /// Takes up to `wanted` units from the next level, best fits first: those whose free
    /// interval is the shortest, then those of the lowest rank. Returns how many there were.
    fn take_level(&mut self, wanted: u32, legs: &mut Vec<Leg>) -> u32 {
        self.enter_level();
        let level = std::mem::take(self.level);
        let mut missing = wanted;
        let mut take = |asks: &mut Self, ask| {
            let qty = asks.units(ask).min(missing);
            legs.push(Leg { ask, qty });
            missing -= qty;
            missing > 0
        };
        if level.len() == 1 || !self.exceed(&level, wanted) {
            level.iter().for_each(|&ask| _ = take(self, ask));
        } else {
            self.is_partial = true;
            let fit = |&ask: &usize| Reverse((self.slack(ask), ask));
            let mut fits: BinaryHeap<_> = level.iter().map(fit).collect();
            while fits.pop().is_some_and(|Reverse((_, ask))| take(self, ask)) {}
        }
        *self.level = level;
        wanted - missing
    }

    /// Whether these asks, each of which has a unit, have more than `wanted`.
    fn exceed(&self, asks: &[usize], wanted: u32) -> bool {
        let Search { market, start, end, .. } = *self.search;
        let units = asks.iter().map(|&ask| market.supply.units(ask, start, end));
        asks.len() > wanted as usize || units.fold(0, u32::saturating_add) > wanted
    }

    /// Units that an ask has for the run.
    fn units(&mut self, ask: usize) -> u32 {
        let units = self.search.market.supply.units(ask, self.search.start, self.search.end);
        self.see(units, units);
        units
    }

    /// The best fit among those asks of the next level that bring the largest surplus and
    /// enough units.
    fn best_in_level(&mut self, gain: impl Fn(u32) -> Gain) -> Option<(Gain, usize)> {
        self.enter_level();
        let min_qty = self.search.bid.min_qty;
        let mut best: Option<(Gain, usize)> = None;
        for at in 0..self.level.len() {
            let ask = self.level[at];
            let units = self.units(ask);
            let gain = gain(units);
            let fits_better =
                |(best, other): (Gain, usize)| match best.surplus_msat.cmp(&gain.surplus_msat) {
                    Ordering::Equal => (self.slack(ask), ask) < (self.slack(other), other),
                    order => order == Ordering::Less,
                };
            if units >= min_qty && best.is_none_or(fits_better) {
                best = Some((gain, ask));
            }
        }
        best
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
        let words = self.payable.div_ceil(WORD);
        let Some((word, accepted)) = self.accepted.next(self.word, words) else {
            self.skip(words);
            self.end = Some(self.payable);
            return;
        };
        self.skip(word);
        let rank = word * WORD;
        if !self.is_affordable(rank) {
            self.end = Some(rank);
            return;
        }
        let Search { market, start, end, .. } = *self.search;
        let free = market.supply.free_for(self.plane, word, start, end);
        if free == 0 {
            return;
        }
        self.first = self.first.or(Some(rank + free.trailing_zeros() as usize));
        self.bits = free & accepted;
        if free & !accepted != 0 {
            self.see_word(word);
        }
    }

    /// Leaves out the words before `word`, of which no ask is accepted. They may be free.
    fn skip(&mut self, word: usize) {
        if self.word < word {
            self.first = self.first.or(Some(self.search.first.max(self.word * WORD)));
            (self.word..word).for_each(|word| self.see_word(word));
            self.word = word;
        }
    }

    /// Counts all that a word could ever offer: other bids may accept what this one does not.
    fn see_word(&mut self, word: usize) {
        let word = &self.search.market.class.words[word];
        self.see(word.total_units, word.largest_units);
    }

    fn is_affordable(&self, rank: usize) -> bool {
        let Search { bid, market, cap_msat, .. } = *self.search;
        let limit_msat = market.class.limits_msat.get(rank);
        limit_msat.is_some_and(|limit_msat| limit_msat * u64::from(bid.hours) <= cap_msat)
    }

    fn see(&mut self, total: u32, largest: u32) {
        self.most_units = match self.search.bid.mode {
            Mode::Sticky => self.most_units.saturating_add(total),
            Mode::Gang => self.most_units.max(largest),
        };
    }

    /// Tells later searches for the same run what this one found out.
    fn learn(&self) {
        let Search { bid, market, start, end, .. } = *self.search;
        let ceilings = market.supply.ceilings();
        if let (0, Some(first)) = (self.plane, self.first.or(self.end)) {
            ceilings.lower_first(start, end, first);
        }
        if let (None, Some(counted), false) = (self.next, self.end, self.is_partial) {
            let most = Most { counted, units: self.most_units };
            ceilings.lower_most(start, end, bid.mode, most);
        }
    }
}
