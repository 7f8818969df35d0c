//! Random books by seed: small enough for the naive matcher, with every attribute in use.

use capex_core::matching::{Cancel, Instance, Mode, Order, PMAX_MSAT, Side};

pub(crate) use super::dice::Dice;

/// What the orders of one book have in common.
struct Shape {
    owners: u64,
    classes: u64,
    first_slot: u32,
    slots: u32,
    longest_run: u64,
    /// Lowest and highest limit.
    limits: (u64, u64),
    /// One in so many orders carries a rare attribute.
    rarity: u64,
}

impl Shape {
    fn new(dice: &mut Dice) -> Self {
        let slots = [1, 3, 6, 12, 24, 60][dice.within(0, 5) as usize];
        let limits = [(1, 6), (90, 110), (50_000, 150_000), (PMAX_MSAT - 9, PMAX_MSAT + 1)]
            [dice.within(0, 3) as usize];
        Self {
            owners: dice.within(2, 12),
            classes: dice.within(1, 4),
            first_slot: [0, 100][dice.within(0, 1) as usize],
            slots,
            longest_run: dice.within(1, u64::from(slots).min(8)),
            limits,
            rarity: dice.within(2, 12),
        }
    }

    fn owner(&self, dice: &mut Dice) -> String {
        let owner = dice.within(1, self.owners);
        // Labels beyond ASCII sort by their bytes, after all others.
        if owner == 1 { "öwner".to_owned() } else { format!("o{owner}") }
    }

    fn owners(&self, dice: &mut Dice) -> Vec<String> {
        if !dice.one_in(self.rarity) {
            return Vec::new();
        }
        (0..dice.within(1, 4)).map(|_| self.owner(dice)).collect()
    }

    fn limit(&self, dice: &mut Dice) -> u64 {
        if dice.one_in(100) { 0 } else { dice.within(self.limits.0, self.limits.1) }
    }

    fn window(&self, dice: &mut Dice, least: u64) -> (u32, u32) {
        let slots = u64::from(self.slots);
        let length = if dice.one_in(8) { dice.within(1, slots) } else { dice.within(least, slots) };
        let start = self.first_slot + dice.within(0, slots - length) as u32;
        (start, start + length as u32)
    }

    fn features(&self, dice: &mut Dice, offered: bool) -> u64 {
        match (dice.one_in(self.rarity), offered) {
            (true, true) | (false, false) => 0,
            (true, false) => 1 << dice.within(0, 2),
            (false, true) => u64::MAX,
        }
    }

    fn side(&self, dice: &mut Dice, bid: bool, run: u64) -> Side {
        if bid {
            let mut classes: Vec<u16> = (0..self.classes as u16).collect();
            dice.shuffle(&mut classes);
            classes.truncate(if dice.one_in(3) { 4 } else { 1 });
            let mode = if dice.one_in(3) { Mode::Gang } else { Mode::Sticky };
            let alts = classes.into_iter().map(|class| (class, self.limit(dice))).collect();
            return Side::Buy { hours: run as u16, mode, alts };
        }
        Side::Sell {
            class: dice.within(0, self.classes - 1) as u16,
            limit_msat: self.limit(dice),
            min_run: if dice.one_in(self.rarity) { dice.within(1, 4) as u16 } else { 1 },
            provider: dice.one_in(self.rarity).then(|| self.owner(dice)),
        }
    }

    fn order(&self, dice: &mut Dice, at: u64) -> Order {
        let bid = dice.within(1, 5) <= 3;
        let run = if dice.one_in(2) { 1 } else { dice.within(1, self.longest_run) };
        let qty = if dice.one_in(50) { 10_000 } else { dice.within(0, 9) as u32 };
        Order {
            id: format!("{}{at:02}", if dice.one_in(9) { "é" } else { "x" }),
            owner: self.owner(dice),
            qty,
            filled: if dice.one_in(self.rarity) { dice.within(0, 5) as u32 } else { 0 },
            min_qty: if dice.one_in(3) { dice.within(1, 8) as u32 } else { 1 },
            window: self.window(dice, run),
            expiry_epoch: dice.one_in(self.rarity).then(|| dice.within(3, 8)),
            features: self.features(dice, !bid),
            allow: self.owners(dice),
            deny: self.owners(dice),
            side: self.side(dice, bid, run),
        }
    }
}

/// A book with up to 30 orders (one in ten: 80), any number of starts.
pub(crate) fn random(seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let most = if dice.one_in(10) { 80 } else { 30 };
    let count = dice.within(0, most);
    book(&mut dice, count)
}

/// A small book in which runs of several slots compete for few units of one class.
pub(crate) fn contested(seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let shape = Shape {
        owners: 20,
        classes: 1,
        first_slot: 100,
        slots: 12,
        longest_run: 6,
        limits: (50_000, 150_000),
        rarity: 12,
    };
    let orders = (0..16).map(|at| {
        let mut order = shape.order(&mut dice, at);
        if let Side::Sell { limit_msat, .. } = &mut order.side {
            *limit_msat = limit_msat.div_ceil(2);
            order.window = (100, 112);
        }
        order
    });
    let orders = orders.collect();
    Instance {
        beacon: [7; 32],
        now: 100,
        epoch: 1,
        starts: 3,
        max_legs: None,
        orders,
        cancels: Vec::new(),
    }
}

/// The same book, in which a bid may take few asks.
pub(crate) fn bounded(book: Instance, max_legs: u16) -> Instance {
    Instance { max_legs: Some(max_legs), ..book }
}

/// A book of asks of all sizes, small ones cheap as a rule, and bids that need several of them.
pub(crate) fn scattered(seed: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let mut book = contested(seed);
    book.orders.clear();
    for at in 0..36 {
        let size = dice.within(0, 6) as u32;
        let (qty, min_qty, side) = if at < 24 {
            let qty = (1 << size) + dice.within(0, (1 << size) - 1) as u32;
            let limit_msat = 10 + u64::from(size) + dice.within(0, 4);
            (qty, 1, Side::Sell { class: 0, limit_msat, min_run: 1, provider: None })
        } else {
            let qty = dice.within(1, 200) as u32;
            let alts = vec![(0, 12 + dice.within(0, 14))];
            let side = Side::Buy { hours: dice.within(1, 2) as u16, mode: Mode::Sticky, alts };
            (qty, if dice.one_in(2) { qty } else { 1 }, side)
        };
        book.orders.push(Order {
            id: format!("{at:02}"),
            owner: format!("owner {at}"),
            qty,
            filled: 0,
            min_qty,
            window: (100, 100 + dice.within(2, 4) as u32),
            allow: Vec::new(),
            deny: Vec::new(),
            features: 0,
            expiry_epoch: None,
            side,
        });
    }
    book
}

/// A book of orders for one slot each, of which one in `oddity` asks for something more. Few
/// owners and few limits make ties and meetings of an owner with itself.
pub(crate) fn one_slot(seed: u64, oddity: u64) -> Instance {
    let mut dice = Dice::new(seed);
    let (classes, slots) = (dice.within(1, 2), dice.within(1, 3));
    let owners = [3, 9, 1_000][dice.within(0, 2) as usize];
    let steps = [3, 20, 100_000][dice.within(0, 2) as usize];
    let largest = [1, 4, 9][dice.within(0, 2) as usize];
    let mut orders = Vec::new();
    for at in 0..dice.within(0, 24) {
        let id = format!("{}{at}", dice.within(0, 9));
        let (owner, qty) = (format!("o{}", dice.within(1, owners)), dice.within(1, largest) as u32);
        let none = Side::Sell { class: 0, limit_msat: 0, min_run: 1, provider: None };
        let mut order = Order::sample(id, owner, qty, (100, 101), none);
        let slot = 100 + dice.within(0, slots - 1) as u32;
        // Those that begin before `now` are cut.
        order.window = (if slot == 100 { 100 - dice.within(0, 2) as u32 } else { slot }, slot + 1);
        let class = dice.within(0, classes - 1) as u16;
        let limit_msat = 1_000 + dice.within(0, steps);
        order.side = if dice.one_in(2) {
            Side::Buy { hours: 1, mode: Mode::Sticky, alts: vec![(class, limit_msat)] }
        } else {
            order.features = dice.within(0, 1);
            Side::Sell { class, limit_msat, min_run: 1, provider: None }
        };
        if dice.one_in(oddity) {
            make_odd(&mut dice, &mut order);
        }
        orders.push(order);
    }
    let mut book = contested(seed);
    book.starts = dice.within(1, 8) as u8;
    book.max_legs = [None, Some(2), Some(3), Some(16)][dice.within(0, 3) as usize];
    book.beacon.fill(dice.within(0, 255) as u8);
    book.orders = orders;
    book
}

fn make_odd(dice: &mut Dice, order: &mut Order) {
    let named = vec![format!("o{}", dice.within(1, 3))];
    match (dice.within(0, 7), &mut order.side) {
        (0, _) => order.allow = named,
        (1, _) => order.deny = named,
        (2, _) => order.window.1 += 1,
        (3, _) => order.min_qty = 2,
        (4, Side::Buy { mode, .. }) => *mode = Mode::Gang,
        (5, Side::Buy { alts, .. }) => alts.push((1 - alts[0].0, alts[0].1)),
        (6, Side::Buy { .. }) => order.features = 1,
        (_, Side::Buy { hours, .. }) => {
            *hours = 2;
            order.window.1 += 1;
        }
        (4, Side::Sell { provider, .. }) => *provider = named.into_iter().next(),
        (5, _) => order.filled = order.qty - 1,
        (_, Side::Sell { min_run, .. }) => *min_run = 2,
    }
}

/// A book with so many asks that their ranks exceed one word of any bit set.
pub(crate) fn crowded(seed: u64) -> Instance {
    book(&mut Dice::new(seed), 500)
}

fn book(dice: &mut Dice, count: u64) -> Instance {
    let shape = Shape::new(dice);
    let orders: Vec<Order> = (0..count).map(|at| shape.order(dice, at)).collect();
    let mut cancels = Vec::new();
    for order in &orders {
        if dice.one_in(20) {
            let signer = if dice.one_in(2) { order.owner.clone() } else { shape.owner(dice) };
            cancels.push(Cancel { order: order.id.clone(), signer });
        }
    }
    if dice.one_in(5) {
        cancels.push(Cancel { order: "none".into(), signer: shape.owner(dice) });
    }
    let mut beacon = [0; 32];
    beacon.fill_with(|| dice.within(0, 255) as u8);
    Instance {
        beacon,
        now: shape.first_slot + dice.within(0, 3) as u32,
        epoch: dice.within(0, 6),
        starts: dice.within(1, 8) as u8,
        max_legs: None,
        orders,
        cancels,
    }
}
