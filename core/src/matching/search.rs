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
    pub(super) bid: &'a Bid,
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
        bid: &'a Bid,
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
        let option = match self.bid.mode {
            Mode::Sticky => self.sticky(accepted, level, can_win),
            Mode::Gang => {
                let plane = self.bid.min_qty.ilog2();
                let mut asks = FreeAsks::new(self, accepted, level, Sizes::from(plane));
                let option = self.gang(&mut asks, can_win);
                asks.learn();
                option
            }
        };
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
        let mut units = market.supply.most_units(bid.mode, payable, start, end);
        if bid.mode == Mode::Sticky && bid.max_legs < payable {
            let largest = market.supply.most_units(Mode::Gang, payable, start, end);
            // At most MAX_LEGS.
            units = units.min(largest.saturating_mul(bid.max_legs as u32));
        }
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
    ///
    /// If the bid may not take so many asks, the cheapest of those with at least two units come
    /// first, then of those with at least four and so on, and the best of all these attempts
    /// counts. It cannot get better once all asks of a size are in.
    fn sticky(
        &self,
        accepted: &mut Accepted<'_>,
        level: &mut Vec<usize>,
        can_win: impl Fn(Gain) -> bool,
    ) -> Option<(Gain, Vec<Leg>)> {
        let mut best: Option<Taken> = None;
        for plane in 0..self.market.supply.planes() {
            let can_win =
                |gain| can_win(gain) && best.as_ref().is_none_or(|best: &Taken| gain > best.gain);
            let mut taken = Taken::default();
            let mut asks = FreeAsks::new(self, accepted, level, Sizes::from(plane));
            let end = self.take(&mut asks, &mut taken, can_win);
            if plane == 0 {
                asks.learn();
            }
            if end == End::Asks {
                for smaller in (0..plane).rev() {
                    let mut asks = FreeAsks::new(self, accepted, level, Sizes::only(smaller));
                    self.take(&mut asks, &mut taken, can_win);
                }
            }
            let is_enough = taken.gain.qty >= self.bid.min_qty && !taken.legs.is_empty();
            if end != End::Hopeless && is_enough && can_win(taken.gain) {
                best = Some(taken);
            }
            let is_last = match end {
                End::Full | End::Asks => true,
                End::Legs => false,
                // No bid gains more than by the cheapest asks of all.
                End::Hopeless => plane == 0,
            };
            if is_last {
                break;
            }
        }
        best.map(|taken| (taken.gain, taken.legs))
    }

    /// Takes units from the cheapest of these asks until the bid is full, has all the asks it
    /// may take, or cannot win any more.
    fn take(
        &self,
        asks: &mut FreeAsks<'_, '_>,
        taken: &mut Taken,
        can_win: impl Fn(Gain) -> bool,
    ) -> End {
        while taken.gain.qty < self.bid.qty {
            if taken.legs.len() >= self.bid.max_legs {
                return End::Legs;
            }
            let Some(ask_msat) = asks.next_msat() else { return End::Asks };
            // Smaller asks that come later may be cheaper than the next one.
            let cheapest_msat = match asks.sizes.plane {
                0 if !asks.sizes.is_only => ask_msat,
                _ => self.market.class.limits_msat[self.first],
            };
            let most_units = self.most_units.saturating_sub(taken.gain.qty);
            if !can_win(taken.gain + self.gain(cheapest_msat, most_units)) {
                return End::Hopeless;
            }
            let missing = self.bid.qty - taken.gain.qty;
            let units = asks.take_level(missing, self.bid.max_legs, &mut taken.legs);
            taken.gain = taken.gain + self.gain(ask_msat, units);
        }
        End::Full
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

/// What one attempt to fill a bid has brought so far.
#[derive(Default)]
struct Taken {
    gain: Gain,
    legs: Vec<Leg>,
}

/// Why an attempt to fill a bid ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Full,
    /// There are no more asks of these sizes.
    Asks,
    /// The bid has as many asks as it may take.
    Legs,
    /// A better option is known already.
    Hopeless,
}

/// Which asks a walk reads, by their free units.
#[derive(Clone, Copy)]
struct Sizes {
    /// Only asks with at least `2^plane` units.
    plane: u32,
    /// And none with twice as many.
    is_only: bool,
}

impl Sizes {
    fn from(plane: u32) -> Self {
        Self { plane, is_only: false }
    }

    fn only(plane: u32) -> Self {
        Self { plane, is_only: true }
    }
}

/// The asks that are free for a run, affordable and accepted: levels of equal price, cheapest
/// first, and what is learnt about the run on the way.
struct FreeAsks<'a, 'b> {
    search: &'a Search<'a>,
    accepted: &'a mut Accepted<'b>,
    sizes: Sizes,
    word: usize,
    /// Asks of the current word that are still ahead.
    bits: u64,
    /// The first ask beyond the current level.
    next: Option<usize>,
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
        sizes: Sizes,
    ) -> Self {
        let payable =
            if accepted.is_all { search.market.class.asks.len() } else { search.payable() };
        let mut asks = Self {
            search,
            accepted,
            payable,
            sizes,
            word: search.first / WORD,
            bits: 0,
            next: None,
            level,
            first: None,
            end: None,
            most_units: (1 << sizes.plane) - 1,
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
    /// interval is the shortest, then those of the lowest rank. Returns how many there were in
    /// as many asks as make `max_legs` legs, which are fewer so far.
    fn take_level(&mut self, wanted: u32, max_legs: usize, legs: &mut Vec<Leg>) -> u32 {
        self.enter_level();
        let level = std::mem::take(self.level);
        let mut missing = wanted;
        let legs_left = max_legs - legs.len();
        let mut take = |asks: &mut Self, ask| {
            let qty = asks.units(ask).min(missing);
            legs.push(Leg { ask, qty });
            missing -= qty;
            missing > 0 && legs.len() < max_legs
        };
        if level.len() == 1 || level.len() <= legs_left && !self.exceed(&level, wanted) {
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
                    Ordering::Less => true,
                    Ordering::Greater => false,
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
        let mut free = market.supply.free_for(self.sizes.plane, word, start, end);
        if self.sizes.is_only {
            free &= !market.supply.free_for(self.sizes.plane + 1, word, start, end);
        }
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
        if let (0, Some(first)) = (self.sizes.plane, self.first.or(self.end)) {
            ceilings.lower_first(start, end, first);
        }
        if let (None, Some(counted), false) = (self.next, self.end, self.is_partial) {
            let most = Most { counted, units: self.most_units };
            ceilings.lower_most(start, end, bid.mode, most);
        }
    }
}
