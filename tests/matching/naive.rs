//! The matching rules once more, in the plainest form: labels instead of ranks, no index,
//! no bound on the search, every candidate run looked at in full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use capex_core::matching::{
    self, Algorithm, Instance, Mode, Order, Outcome, PMAX_MSAT, Side, Trade,
};
use sha2::{Digest, Sha256};

use super::books;
use super::dice::Dice;

const PMAX: i128 = PMAX_MSAT as i128;

struct Bid<'a> {
    order: &'a Order,
    k: u32,
    gang: bool,
    alts: &'a [(u16, u64)],
}

struct Ask<'a> {
    order: &'a Order,
    class: u16,
    limit: i128,
    min_run: u16,
    provider: &'a str,
    free: BTreeMap<u32, u32>,
}

type Legs = Vec<(usize, u32)>;

struct Fill<'a> {
    bid: &'a Bid<'a>,
    class: u16,
    limit: i128,
    start: u32,
    legs: Legs,
    units: u32,
    surplus: i128,
}

struct Closure {
    t0: u32,
    d: Vec<Vec<i128>>,
}

impl Closure {
    fn new(t0: u32, t1: u32) -> Self {
        let n = i128::from(t1 - t0 + 1);
        let cell = |i: i128, j: i128| if j > i { (j - i) * PMAX } else { 0 };
        Self { t0, d: (0..n).map(|i| (0..n).map(|j| cell(i, j)).collect()).collect() }
    }

    fn hi(&self, a: u32, b: u32) -> i128 {
        self.d[(a - self.t0) as usize][(b - self.t0) as usize]
    }

    fn lo(&self, a: u32, b: u32) -> i128 {
        -self.d[(b - self.t0) as usize][(a - self.t0) as usize]
    }

    fn add(&mut self, u: u32, v: u32, w: i128) {
        let (u, v) = ((u - self.t0) as usize, (v - self.t0) as usize);
        if w >= self.d[u][v] {
            return;
        }
        assert!(w + self.d[v][u] >= 0, "infeasible");
        let row = self.d[v].clone();
        for line in &mut self.d {
            let base = line[u] + w;
            for (cell, rest) in line.iter_mut().zip(&row) {
                *cell = (*cell).min(base + rest);
            }
        }
    }

    fn at_most(&mut self, a: u32, b: u32, x: i128) {
        self.add(a, b, x);
    }

    fn at_least(&mut self, a: u32, b: u32, x: i128) {
        self.add(b, a, -x);
    }
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

fn left(order: &Order) -> u32 {
    order.qty.saturating_sub(order.filled)
}

fn min_fill(order: &Order) -> u32 {
    order.min_qty.min(left(order))
}

fn compatible(b: &Bid<'_>, s: &Ask<'_>) -> bool {
    let (bo, so) = (b.order, s.order);
    let lists = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    bo.owner != so.owner
        && bo.features & !so.features == 0
        && !lists(&bo.deny, s.provider)
        && !lists(&so.deny, &bo.owner)
        && (bo.allow.is_empty() || lists(&bo.allow, s.provider))
        && (so.allow.is_empty() || lists(&so.allow, &bo.owner))
        && b.k >= u32::from(s.min_run)
}

fn live(inst: &Instance) -> Vec<&Order> {
    let dead: BTreeSet<&str> = inst
        .cancels
        .iter()
        .filter(|c| inst.orders.iter().any(|o| o.id == c.order && o.owner == c.signer))
        .map(|c| c.order.as_str())
        .collect();
    let mut orders: Vec<&Order> = inst
        .orders
        .iter()
        .filter(|o| {
            let (limit, k) = match &o.side {
                Side::Buy { alts, hours, .. } => {
                    (alts.iter().map(|a| a.1).max().unwrap(), i64::from(*hours))
                }
                Side::Sell { limit_msat, .. } => (*limit_msat, 1),
            };
            !dead.contains(o.id.as_str())
                && left(o) > 0
                && o.expiry_epoch.unwrap_or(1 << 62) >= inst.epoch
                && limit > 0
                && limit <= PMAX_MSAT
                && i64::from(o.window.1) - i64::from(o.window.0.max(inst.now)) >= k
        })
        .collect();
    orders.sort_by(|a, b| a.id.cmp(&b.id));
    orders
}

/// Welfare, fills and prices.
type Priced<'a> = (i128, Vec<Fill<'a>>, BTreeMap<(u16, u32), i128>);

struct Pass<'a> {
    inst: &'a Instance,
    start: u8,
    bids: &'a [Bid<'a>],
    asks: Vec<Ask<'a>>,
    closures: BTreeMap<u16, Closure>,
}

impl<'a> Pass<'a> {
    fn first(&self, order: &Order) -> u32 {
        order.window.0.max(self.inst.now)
    }

    fn tie(&self, order: &'a Order) -> ([u8; 32], &'a str) {
        (sha(&[b"draw", &self.inst.beacon, order.owner.as_bytes()]), &order.id)
    }

    fn priority(&self, b: &Bid<'_>) -> i128 {
        let limit = b.alts.iter().map(|a| i128::from(a.1)).max().unwrap();
        let size = i128::from(b.k) * if b.gang { i128::from(min_fill(b.order)) } else { 1 };
        if self.start == 1 {
            return limit;
        }
        if self.start == 2 {
            let mut d = 0;
            for &(class, limit) in b.alts {
                for s in &self.asks {
                    let fits = s.order.window.0 <= b.order.window.1 - b.k
                        && s.order.window.1 >= self.first(b.order) + b.k;
                    if s.class == class && fits && compatible(b, s) {
                        d = d.max(i128::from(limit) - s.limit);
                    }
                }
            }
            return d * size;
        }
        let z = limit * limit * size;
        if self.start < 3 {
            return z;
        }
        let h = sha(&[b"pert", &self.inst.beacon, &[self.start], b.order.id.as_bytes()]);
        z * (500 + i128::from(u32::from_be_bytes(h[..4].try_into().unwrap()) % 1001))
    }

    fn slack(&self, s: &Ask<'_>, start: u32, k: u32) -> u32 {
        let free = |t: Option<u32>| t.and_then(|t| s.free.get(&t)).is_some_and(|&v| v > 0);
        let (mut a, mut z) = (start, start + k);
        while free(a.checked_sub(1)) {
            a -= 1;
        }
        while free(Some(z)) {
            z += 1;
        }
        z - a - k
    }

    /// What the bid gains, gets, and from whom, in one run.
    fn candidate(
        &self,
        b: &Bid<'_>,
        class: u16,
        limit: i128,
        start: u32,
    ) -> Option<(i128, u32, Legs)> {
        let (k, closure) = (i128::from(b.k), &self.closures[&class]);
        if limit * k < closure.lo(start, start + b.k) {
            return None;
        }
        let cap = (limit * k).min(closure.hi(start, start + b.k));
        let mut candidates = Vec::new();
        for (rank, s) in self.asks.iter().enumerate() {
            if s.class != class || s.limit * k > cap || !compatible(b, s) {
                continue;
            }
            let run = start..start + b.k;
            let a = run.map(|t| s.free.get(&t).copied().unwrap_or(0)).min().unwrap();
            if a > 0 {
                candidates.push((s.limit, self.slack(s, start, b.k), rank, a));
            }
        }
        candidates.sort();
        let (q, m) = (left(b.order), min_fill(b.order));
        if b.gang {
            let mut best: Option<(i128, u32, Legs)> = None;
            for (ask, _, rank, a) in candidates {
                let u = a.min(q);
                let g = (limit - ask) * i128::from(u) * k;
                if u >= m && best.as_ref().is_none_or(|x| g > x.0) {
                    best = Some((g, u, vec![(rank, u)]));
                }
            }
            return best;
        }
        let max_legs = self.inst.max_legs.map_or(usize::MAX, usize::from);
        let mut best: Option<(i128, u32, Legs)> = None;
        for large in 0..14 {
            // Large ones first, all of the size 2^large and above alike.
            candidates.sort_by_key(|&(ask, slack, rank, a)| {
                (large.max(a.ilog2()) - a.ilog2(), ask, slack, rank)
            });
            let (mut g, mut u, mut legs) = (0, 0, Vec::new());
            for &(ask, _, rank, a) in candidates.iter().take(max_legs) {
                let n = a.min(q - u);
                if n > 0 {
                    legs.push((rank, n));
                    u += n;
                    g += i128::from(n) * (limit - ask) * k;
                }
            }
            let is_better = best.as_ref().is_none_or(|best| (g, u) > (best.0, best.1));
            if u >= m && u > 0 && is_better {
                best = Some((g, u, legs));
            }
        }
        best
    }

    fn best(&self, b: &'a Bid<'a>) -> Option<Fill<'a>> {
        let mut best: Option<Fill<'a>> = None;
        for &(class, limit) in b.alts {
            let limit = i128::from(limit);
            for start in self.first(b.order)..=b.order.window.1 - b.k {
                let Some((surplus, units, legs)) = self.candidate(b, class, limit, start) else {
                    continue;
                };
                if best.as_ref().is_none_or(|x| (surplus, units) > (x.surplus, x.units)) {
                    best = Some(Fill { bid: b, class, limit, start, legs, units, surplus });
                }
            }
        }
        best
    }

    fn sequence(&self) -> Vec<&'a Bid<'a>> {
        let mut order: Vec<&'a Bid<'a>> = self.bids.iter().collect();
        order.sort_by_cached_key(|b| (Reverse(self.priority(b)), self.tie(b.order)));
        order
    }

    fn run(&mut self, sequence: &[&'a Bid<'a>]) -> Priced<'a> {
        let mut fills = Vec::new();
        for &b in sequence {
            let Some(fill) = self.best(b) else { continue };
            let (a, z, k) = (fill.start, fill.start + b.k, i128::from(b.k));
            for &(rank, n) in &fill.legs {
                for t in a..z {
                    *self.asks[rank].free.get_mut(&t).unwrap() -= n;
                }
            }
            let dearest = fill.legs.iter().map(|l| self.asks[l.0].limit).max().unwrap();
            let closure = self.closures.get_mut(&fill.class).unwrap();
            closure.at_most(a, z, fill.limit * k);
            closure.at_least(a, z, dearest * k);
            fills.push(fill);
        }
        let mut prices = BTreeMap::new();
        for class in self.closures.keys().copied().collect::<Vec<_>>() {
            self.price(class, &fills, &mut prices);
        }
        (fills.iter().map(|f| f.surplus).sum(), fills, prices)
    }

    fn price(&mut self, class: u16, fills: &[Fill<'a>], prices: &mut BTreeMap<(u16, u32), i128>) {
        let mut a: BTreeMap<u32, i128> = BTreeMap::new();
        let mut z: BTreeMap<u32, i128> = BTreeMap::new();
        let mut sellers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut buyers: BTreeMap<u32, Vec<&Bid<'_>>> = BTreeMap::new();
        for fill in fills.iter().filter(|f| f.class == class) {
            for t in fill.start..fill.start + fill.bid.k {
                buyers.entry(t).or_default().push(fill.bid);
                let limit = z.entry(t).or_insert(PMAX);
                *limit = (*limit).min(fill.limit);
                for &(rank, _) in &fill.legs {
                    sellers.entry(t).or_default().push(rank);
                    let ask = a.entry(t).or_insert(0);
                    *ask = (*ask).max(self.asks[rank].limit);
                }
            }
        }
        let (lo, hi) = (self.up(class, fills, &sellers), self.down(class, &buyers));
        let closure = self.closures.get_mut(&class).unwrap();
        for &t in sellers.keys() {
            if let Some(&v) = lo.get(&t) {
                let v = v.min(closure.hi(t, t + 1));
                closure.at_least(t, t + 1, v);
                a.insert(t, a[&t].max(v));
            }
            if let Some(&v) = hi.get(&t) {
                let v = v.max(closure.lo(t, t + 1));
                closure.at_most(t, t + 1, v);
                z.insert(t, z[&t].min(v));
            }
        }
        for &t in sellers.keys() {
            let middle = (a[&t] + z[&t]).div_euclid(2);
            let p = closure.hi(t, t + 1).min(closure.lo(t, t + 1).max(middle));
            closure.at_most(t, t + 1, p);
            closure.at_least(t, t + 1, p);
            prices.insert((class, t), p);
        }
    }

    fn up(
        &self,
        class: u16,
        fills: &[Fill<'a>],
        sellers: &BTreeMap<u32, Vec<usize>>,
    ) -> BTreeMap<u32, i128> {
        let mut lo = BTreeMap::new();
        for b in self.bids {
            let fill = fills.iter().find(|f| f.bid.order.id == b.order.id);
            let done = fill.map_or(0, |f| f.units);
            if b.k != 1 || done >= left(b.order) || (done == 0 && min_fill(b.order) > 1) {
                continue;
            }
            let legs = fill.map_or(0, |f| f.legs.len());
            if self.inst.max_legs.is_some_and(|most| legs >= usize::from(most)) {
                continue;
            }
            for &(c, limit) in b.alts {
                if c != class || fill.is_some_and(|f| f.class != class) {
                    continue;
                }
                let window = match fill {
                    Some(f) => f.start..f.start + 1,
                    None => self.first(b.order)..b.order.window.1,
                };
                for t in window {
                    let ranks = sellers.get(&t).map_or(&[][..], Vec::as_slice);
                    if ranks.iter().any(|&rank| compatible(b, &self.asks[rank])) {
                        let v = lo.entry(t).or_insert(0);
                        *v = (*v).max(i128::from(limit));
                    }
                }
            }
        }
        lo
    }

    fn down(&self, class: u16, buyers: &BTreeMap<u32, Vec<&Bid<'_>>>) -> BTreeMap<u32, i128> {
        let mut hi = BTreeMap::new();
        for s in self.asks.iter().filter(|s| s.class == class && s.min_run <= 1) {
            for (&t, &v) in &s.free {
                let bids = buyers.get(&t).map_or(&[][..], Vec::as_slice);
                if v > 0 && bids.iter().any(|b| compatible(b, s)) {
                    let v = hi.entry(t).or_insert(PMAX);
                    *v = (*v).min(s.limit);
                }
            }
        }
        hi
    }
}

fn closures(inst: &Instance, bids: &[Bid<'_>]) -> BTreeMap<u16, Closure> {
    let mut spans: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for b in bids {
        for &(class, _) in b.alts {
            let (w0, w1) = (b.order.window.0.max(inst.now), b.order.window.1);
            let span = spans.entry(class).or_insert((w0, w1));
            *span = (span.0.min(w0), span.1.max(w1));
        }
    }
    spans.into_iter().map(|(class, (t0, t1))| (class, Closure::new(t0, t1))).collect()
}

fn asks<'a>(inst: &Instance, orders: &[&'a Order]) -> Vec<Ask<'a>> {
    let mut asks: Vec<Ask<'a>> = Vec::new();
    for order in orders {
        if let Side::Sell { class, limit_msat, min_run, provider } = &order.side {
            asks.push(Ask {
                order,
                class: *class,
                limit: i128::from(*limit_msat),
                min_run: *min_run,
                provider: provider.as_ref().unwrap_or(&order.owner),
                free: (order.window.0.max(inst.now)..order.window.1)
                    .map(|t| (t, left(order)))
                    .collect(),
            });
        }
    }
    asks.sort_by_key(|s| {
        (s.limit, sha(&[b"draw", &inst.beacon, s.order.owner.as_bytes()]), s.order.id.clone())
    });
    asks
}

/// Matches a book known to be within bounds.
pub(crate) fn solve(inst: &Instance, algorithm: Algorithm) -> Outcome {
    let orders = live(inst);
    let bids: Vec<Bid<'_>> = orders
        .iter()
        .filter_map(|order| match &order.side {
            Side::Buy { hours, mode, alts } => {
                Some(Bid { order, k: (*hours).into(), gang: *mode == Mode::Gang, alts })
            }
            Side::Sell { .. } => None,
        })
        .collect();
    let pass = |start| {
        let (asks, closures) = (asks(inst, &orders), closures(inst, &bids));
        Pass { inst, start, bids: &bids, asks, closures }
    };
    let mut best: Option<(Priced<'_>, Vec<&Bid<'_>>)> = None;
    for start in 0..inst.starts {
        let sequence = pass(start).sequence();
        let priced = pass(start).run(&sequence);
        if best.as_ref().is_none_or(|((welfare, ..), _)| priced.0 > *welfare) {
            best = Some((priced, sequence));
        }
    }
    let (mut priced, sequence) = best.unwrap();
    if algorithm == Algorithm::Two {
        priced = improve(inst, priced, sequence, &pass);
    }
    outcome(&priced, &asks(inst, &orders))
}

/// The rounds of version 2, one neighbour after the other.
fn improve<'a>(
    inst: &'a Instance,
    mut priced: Priced<'a>,
    mut sequence: Vec<&'a Bid<'a>>,
    pass: &dyn Fn(u8) -> Pass<'a>,
) -> Priced<'a> {
    let book = pass(0);
    sequence.retain(|b| served(&book, b));
    let seed = sha(&[b"improve", &inst.beacon]);
    let mut dice = Dice::new(u64::from_be_bytes(seed[..8].try_into().unwrap()));
    let mut draw = |bound: usize| ((u128::from(dice.next()) * bound as u128) >> 64) as usize;
    for _ in 0..rounds(&book, &sequence) {
        let neighbours: [Vec<&'a Bid<'a>>; 4] = std::array::from_fn(|_| {
            let mut moved = sequence.clone();
            for _ in 0..1 + draw(2) {
                let (from, to) = (draw(moved.len()), draw(moved.len()));
                let bid = moved.remove(from);
                moved.insert(to, bid);
            }
            moved
        });
        let mut best: Option<(Priced<'a>, Vec<&'a Bid<'a>>)> = None;
        for moved in neighbours {
            let result = pass(0).run(&moved);
            if best.as_ref().is_none_or(|((welfare, ..), _)| result.0 > *welfare) {
                best = Some((result, moved));
            }
        }
        let (result, moved) = best.unwrap();
        if result.0 >= priced.0 {
            (priced, sequence) = (result, moved);
        }
    }
    priced
}

/// Whether some compatible ask, whose window can hold the run, asks no more than the limit.
fn served(pass: &Pass<'_>, b: &Bid<'_>) -> bool {
    b.alts.iter().any(|&(class, limit)| {
        pass.asks.iter().any(|s| {
            s.class == class
                && s.limit <= i128::from(limit)
                && s.order.window.0 <= b.order.window.1 - b.k
                && s.order.window.1 >= pass.first(b.order) + b.k
                && compatible(b, s)
        })
    })
}

/// First slot, end slot and number of asks of a class in which something could trade.
fn extent(pass: &Pass<'_>, class: u16) -> Option<(u32, u32, u64)> {
    let sells = pass.asks.iter().filter(|s| s.class == class);
    let asks: Vec<&Order> = sells.map(|s| s.order).collect();
    let wants = pass.bids.iter().filter(|b| b.alts.iter().any(|alt| alt.0 == class));
    let bids: Vec<&Order> = wants.map(|b| b.order).collect();
    let first = |side: &[&Order]| side.iter().map(|o| pass.first(o)).min();
    let end = |side: &[&Order]| side.iter().map(|o| o.window.1).max();
    let (first, end) = (first(&asks)?.max(first(&bids)?), end(&asks)?.min(end(&bids)?));
    (first < end).then_some((first, end, asks.len() as u64))
}

fn rounds(pass: &Pass<'_>, sequence: &[&Bid<'_>]) -> u64 {
    let bids = sequence.len() as u64;
    if bids < 2 {
        return 0;
    }
    let classes: BTreeSet<u16> = pass.asks.iter().map(|s| s.class).collect();
    let extents = classes.iter().filter_map(|&class| extent(pass, class));
    let mut work = 1 + extents.map(|(a, z, asks)| u64::from(z - a) * asks).sum::<u64>() / 2;
    for b in sequence {
        for (first, end, asks) in b.alts.iter().filter_map(|alt| extent(pass, alt.0)) {
            let last = i64::from(b.order.window.1.min(end)) - i64::from(b.k);
            let starts = (last + 1 - i64::from(pass.first(b.order).max(first))).max(0) as u64;
            let slots = u64::from(end - first);
            work += starts * (16 + asks) + slots * slots / 32;
        }
    }
    ((1 << 27) / (4 * work)).min(bids * bids).min(1024)
}

fn outcome((welfare, fills, prices): &Priced<'_>, asks: &[Ask<'_>]) -> Outcome {
    let mut trades = Vec::new();
    for fill in fills {
        let run: i128 =
            (fill.start..fill.start + fill.bid.k).map(|t| prices[&(fill.class, t)]).sum();
        let k = i128::from(fill.bid.k);
        for &(rank, qty) in &fill.legs {
            assert!(run <= fill.limit * k && asks[rank].limit * k <= run, "limits");
            let msat = u64::try_from(run * i128::from(qty)).unwrap();
            trades.push(Trade {
                class: fill.class,
                start: fill.start,
                hours: fill.bid.k as u16,
                buy: fill.bid.order.id.clone(),
                sell: asks[rank].order.id.clone(),
                qty,
                msat,
                sat: msat / 1000,
            });
        }
    }
    trades.sort_by_key(|t| (t.class, t.start, t.buy.clone(), t.sell.clone()));
    Outcome {
        welfare_msat: u128::try_from(*welfare).unwrap(),
        prices: prices.iter().map(|(at, &p)| (*at, u64::try_from(p).unwrap())).collect(),
        trades,
    }
}

fn compare(book: &Instance, algorithm: Algorithm, name: &str) -> Outcome {
    let result = matching::solve(book, algorithm).unwrap();
    assert_eq!(result, solve(book, algorithm), "{name}");
    result
}

#[test]
fn random_books_match_as_in_the_naive_implementation() {
    let mut traded = 0;
    for seed in 0..500 {
        let result = compare(&books::random(seed), Algorithm::One, &format!("book {seed}"));
        traded += usize::from(!result.trades.is_empty());
    }
    for seed in 0..16 {
        compare(&books::crowded(seed), Algorithm::One, &format!("crowded {seed}"));
    }
    assert!(traded > 250, "{traded}");
}

/// Bids of an outcome that are served by as many asks as the book allows.
fn with_all_legs(outcome: &Outcome, max_legs: u16) -> usize {
    let mut legs: BTreeMap<&str, u16> = BTreeMap::new();
    for trade in &outcome.trades {
        *legs.entry(&trade.buy).or_default() += 1;
    }
    assert!(legs.values().all(|legs| *legs <= max_legs));
    legs.values().filter(|legs| **legs == max_legs).count()
}

#[test]
fn books_of_few_legs_match_as_in_the_naive_implementation() {
    let (mut bound, mut differing) = (0, 0);
    for seed in 0..600 {
        let max_legs = [2, 3, 4, 7][seed as usize % 4];
        let book = match seed % 3 {
            0 => books::random(seed),
            _ => books::scattered(seed),
        };
        let free = matching::solve(&book, Algorithm::One).unwrap();
        let book = books::bounded(book, max_legs);
        let result = compare(&book, Algorithm::One, &format!("book {seed}"));
        matching::verify(&book, &result).unwrap();
        bound += with_all_legs(&result, max_legs);
        differing += usize::from(result != free);
    }
    for seed in 0..8 {
        compare(
            &books::bounded(books::crowded(seed), 2),
            Algorithm::One,
            &format!("crowded {seed}"),
        );
    }
    assert!(bound > 600 && differing > 200, "{bound} {differing}");
    for seed in 0..12 {
        let mut book = books::bounded(books::scattered(seed), 3);
        book.orders.drain(8..24);
        compare(&book, Algorithm::Two, &format!("improved {seed}"));
    }
}

#[test]
fn a_bound_that_no_bid_reaches_changes_nothing() {
    for seed in 0..100 {
        let book = books::random(seed);
        let free = matching::solve(&book, Algorithm::One).unwrap();
        if with_all_legs(&free, u16::MAX) == 0 && free.trades.len() < 64 {
            assert_eq!(matching::solve(&books::bounded(book, 64), Algorithm::One).unwrap(), free);
        }
    }
}

#[test]
fn improved_books_match_as_in_the_naive_implementation() {
    let mut improved = 0;
    for seed in 0..150 {
        let book = if seed % 3 == 0 { books::random(seed) } else { books::contested(seed) };
        if book.orders.len() > 20 {
            continue;
        }
        let result = compare(&book, Algorithm::Two, &format!("book {seed}"));
        let before = matching::solve(&book, Algorithm::One).unwrap();
        assert!(result.welfare_msat >= before.welfare_msat, "book {seed}");
        improved += usize::from(result.welfare_msat > before.welfare_msat);
    }
    assert!(improved > 20, "{improved}");
}
