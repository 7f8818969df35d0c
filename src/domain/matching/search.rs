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
            let missing = self.most_units.saturating_sub(gain.qty);
            if !can_win(gain + self.gain(ask_msat, missing)) {
                return None;
            }
            asks.enter_level();
            while gain.qty < self.bid.qty
                && let Some(ask) = asks.best_fit()
            {
                let qty = asks.units(ask).min(self.bid.qty - gain.qty);
                gain = gain + self.gain(ask_msat, qty);
                legs.push(Leg { ask, qty });
            }
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
            asks.enter_level();
            let Some((qty, ask)) = asks.largest_best_fit(self.bid.qty) else { continue };
            let gain = self.gain(ask_msat, qty);
            let is_better = best.is_none_or(|(best, _)| gain.surplus_msat > best.surplus_msat);
            if qty >= self.bid.min_qty && is_better {
                best = Some((gain, ask));
            }
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
    words: Vec<Option<u64>>,
}

impl<'a> Accepted<'a> {
    pub(super) fn new(bid: &'a Bid<'a>, class: &'a Class<'a>) -> Self {
        Self { bid, class, words: vec![None; class.asks.len().div_ceil(WORD)] }
    }

    /// One bit for each ask of the ranks from `word · 64`.
    fn word(&mut self, word: usize) -> u64 {
        let (bid, asks) = (self.bid, &self.class.asks);
        *self.words[word].get_or_insert_with(|| {
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
    /// The current level, least (slack, rank) first: the shortest free interval fits best.
    level: BinaryHeap<Reverse<(u32, usize)>>,
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
            level: BinaryHeap::new(),
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

    fn enter_level(&mut self) {
        let Some(first) = self.next else { return };
        let Search { market, start, end, .. } = *self.search;
        let limits = &market.class.limits_msat;
        self.next = self.advance();
        if self.next.is_none_or(|next| limits[next] > limits[first]) {
            // Alone in its level, it is the best fit whatever its slack.
            self.level.push(Reverse((0, first)));
            return;
        }
        self.level.push(Reverse((market.supply.slack(first, start, end), first)));
        while let Some(rank) = self.next.filter(|&next| limits[next] == limits[first]) {
            self.level.push(Reverse((market.supply.slack(rank, start, end), rank)));
            self.next = self.advance();
        }
    }

    /// Takes the best fit out of the current level.
    fn best_fit(&mut self) -> Option<usize> {
        self.level.pop().map(|Reverse((_, rank))| rank)
    }

    /// The best fit among those in the current level with most units, up to `enough`.
    fn largest_best_fit(&mut self, enough: u32) -> Option<(u32, usize)> {
        let mut best: Option<(u32, Reverse<(u32, usize)>)> = None;
        for fit in std::mem::take(&mut self.level) {
            best = best.max(Some((self.units(fit.0.1).min(enough), fit)));
        }
        best.map(|(qty, Reverse((_, rank)))| (qty, rank))
    }

    /// Units that an ask taken out of the current level has for the run.
    fn units(&mut self, rank: usize) -> u32 {
        let units = self.search.market.supply.units(rank, self.search.start, self.search.end);
        self.total = self.total.saturating_add(units);
        self.largest = self.largest.max(units);
        units
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
            let (total, largest) = market.class.word_units[self.word];
            self.total = self.total.saturating_add(total);
            self.largest = self.largest.max(largest);
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
            Some(counted) if self.next.is_none() && self.level.is_empty() => {
                Ceiling { first, counted, total: self.total, largest: self.largest }
            }
            _ => Ceiling { first, ..known },
        };
        market.supply.learn(start, end, found);
    }
}
