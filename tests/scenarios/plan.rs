//! A world with its orders and troubles, all of it drawn from one seed, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use capex::sim::{BEGIN_MS, Branch, Kill, Links, NodeId, Rng, Sides, World};
use capex_core::engine::market::MarketCommand;
use capex_core::engine::trades::Role;

use super::kit::{ask, bid, devnet_of_depth, rest, story, trades, window, world_of};
use super::moves::{Move, moves};

/// Sellers come first: they have capacity.
const SELLERS_MAX: u64 = 2;
const BUYERS_MAX: u64 = 3;
const TROUBLES_MAX: u64 = 8;
/// Deepest that a funding has to be in any plan: a reorganisation is no deeper than that.
const CONFIRMATIONS_MAX: u64 = 3;
/// A world in which more happens goes in circles: twenty times what the busiest seed needs.
const HAPPENINGS_MAX: u64 = 100_000;
/// Until then a reorganisation would take back the coins that the nodes begin with, ms.
const PAID_AFTER_MS: u64 = 3_000;
/// How long troubles begin, ms.
const TROUBLE_MS: u64 = 25_000;
/// What relays at all, sat per 1,000 vB.
const FLOOR_SAT_KVB: u64 = 1_000;

/// An order that a node places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    at_ms: u64,
    node: NodeId,
    is_ask: bool,
    class: u16,
    limit_sat: u64,
    qty: u32,
    slots: u16,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// Down at a random moment.
    Crash {
        node: NodeId,
        away_ms: u64,
    },
    /// Down at one of the next writes.
    Kill {
        node: NodeId,
        writes: u64,
        side: Kill,
        away_ms: u64,
    },
    Vanish {
        node: NodeId,
    },
    Cut {
        node: NodeId,
        ms: u64,
    },
    Reorganise {
        depth: u32,
        branch: Branch,
    },
    /// Block space costs so many times the floor.
    Fees {
        times: u64,
        ms: u64,
    },
    /// No block takes anything.
    Unmined {
        ms: u64,
    },
    Forget,
    Stall {
        node: NodeId,
        ms: u64,
    },
    /// The source hears, and says nothing.
    Silence {
        node: NodeId,
        ms: u64,
    },
    Deceive {
        node: NodeId,
        ms: u64,
    },
    /// The node takes its orders back.
    Halt {
        node: NodeId,
    },
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) links: Links,
    /// How deep a funding has to be.
    pub(super) confirmations: u32,
    /// With their numbers, so that a smaller plan can be named.
    pub(super) orders: Vec<(usize, Placed)>,
    pub(super) troubles: Vec<(usize, u64, Trouble)>,
    /// What is done with what was bought.
    pub(super) moves: Vec<(usize, Move)>,
}

/// What became of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) faults: Vec<String>,
    pub(super) story: String,
    /// How many trades ended how.
    pub(super) ends: BTreeMap<&'static str, u64>,
    /// Things that happened.
    pub(super) happened: u64,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(7));
        let sellers = below(&mut rng, SELLERS_MAX) + 1;
        let buyers = below(&mut rng, BUYERS_MAX) + 1;
        let nodes = sellers + buyers;
        let links = if rng.hits(500) { Links::GOOD } else { Links::BAD };
        let mut orders = Vec::new();
        for node in 0..nodes {
            for _ in 0..=below(&mut rng, 2) {
                orders.push((orders.len(), order(&mut rng, node, node < sellers)));
            }
        }
        let count = below(&mut rng, TROUBLES_MAX + 1);
        let confirmations = if rng.hits(500) { 1 } else { rng.within(1, CONFIRMATIONS_MAX + 1) };
        let mut troubles: Vec<(u64, Trouble)> = (0..count)
            .map(|_| (rng.within(500, TROUBLE_MS), trouble(&mut rng, nodes, confirmations)))
            .collect();
        troubles.sort_by_key(|(at_ms, _)| *at_ms);
        let troubles = troubles.into_iter().enumerate().map(|(n, (at, what))| (n, at, what));
        let confirmations = u32::try_from(confirmations).unwrap();
        let moves = moves(seed, nodes).into_iter().enumerate().collect();
        Self { seed, nodes, links, confirmations, orders, troubles: troubles.collect(), moves }
    }

    /// Names this plan, however much has been taken out of it.
    pub(super) fn name(&self) -> String {
        let numbers = |all: &mut dyn Iterator<Item = usize>| {
            all.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
        };
        let orders = numbers(&mut self.orders.iter().map(|(number, _)| *number));
        let troubles = numbers(&mut self.troubles.iter().map(|(number, ..)| *number));
        let moves = numbers(&mut self.moves.iter().map(|(number, _)| *number));
        let links = if self.links.loss == 0 { "good" } else { "bad" };
        format!("{}/{orders}/{troubles}/{links}/{moves}", self.seed)
    }

    /// The plan of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let mut plan = Self::new(parts.next()?.parse().ok()?);
        let numbers = |text: &str| -> Vec<usize> {
            text.split(',').filter_map(|number| number.parse().ok()).collect()
        };
        if let (Some(orders), Some(troubles)) = (parts.next(), parts.next()) {
            let (orders, troubles) = (numbers(orders), numbers(troubles));
            plan.orders.retain(|(number, _)| orders.contains(number));
            plan.troubles.retain(|(number, ..)| troubles.contains(number));
        }
        match parts.next() {
            Some("good") => plan.links = Links::GOOD,
            Some("bad") => plan.links = Links::BAD,
            _ => {}
        }
        if let Some(moves) = parts.next().map(numbers) {
            plan.moves.retain(|(number, _)| moves.contains(number));
        }
        Some(plan)
    }

    /// Lets it happen. A panic in a node is a fault.
    pub(super) fn run(&self) -> Outcome {
        let run = std::panic::AssertUnwindSafe(|| self.play());
        std::panic::catch_unwind(run).unwrap_or_else(|_| Outcome {
            faults: vec!["a node panicked".to_owned()],
            ..Outcome::default()
        })
    }

    fn play(&self) -> Outcome {
        let params = devnet_of_depth(self.confirmations);
        let mut world = world_of(params, self.seed, self.nodes, self.links);
        world.set_fuse(HAPPENINGS_MAX);
        let mut steps = self.steps();
        steps.sort_by_key(|(at_ms, _)| *at_ms);
        let mut gone = Vec::new();
        for (at_ms, step) in steps {
            world.run_for((BEGIN_MS + at_ms).saturating_sub(world.now_ms));
            step.perform(&mut world, &mut gone);
            let faults = world.faults();
            if !faults.is_empty() {
                let (story, happened) = (story(&world), world.happened());
                return Outcome { faults, story, ends: BTreeMap::new(), happened };
            }
        }
        heal(&mut world, self.nodes, &gone);
        let mut ends = BTreeMap::new();
        for (node, trade) in (0..self.nodes)
            .flat_map(|node| trades(&world, node).into_iter().map(move |trade| (node, trade)))
        {
            *ends.entry(trade.state).or_default() += 1;
            let is_resale = trade.role == Role::Seller && trade.registrar != world.nodes[node].key;
            if is_resale && trade.state == "settled" {
                *ends.entry("sold_on").or_default() += 1;
            }
            if trade.role == Role::Seller && trade.is_by_key {
                *ends.entry("by_key").or_default() += 1;
            }
        }
        for became in super::moves::became(&world) {
            *ends.entry(became).or_default() += 1;
        }
        let (faults, story) = (world.faults_at_rest(), story(&world));
        Outcome { faults, story, ends, happened: world.happened() }
    }

    fn steps(&self) -> Vec<(u64, Step)> {
        let mut steps: Vec<(u64, Step)> =
            self.orders.iter().map(|(_, order)| (order.at_ms, Step::Place(*order))).collect();
        steps.extend(self.moves.iter().map(|(_, what)| (what.at_ms, Step::Move(*what))));
        for (_, at_ms, trouble) in &self.troubles {
            steps.push((*at_ms, Step::Begin(*trouble)));
            if let Some(lasts_ms) = trouble.lasts_ms() {
                steps.push((at_ms + lasts_ms, Step::End(*trouble)));
            }
        }
        steps
    }

    /// Takes out whatever is not needed to break a promise.
    pub(super) fn shrink(mut self) -> Self {
        let fails = |plan: &Self| !plan.run().faults.is_empty();
        for _ in 0..2 {
            for number in self.troubles.iter().map(|(number, ..)| *number).collect::<Vec<_>>() {
                let mut less = self.clone();
                less.troubles.retain(|(other, ..)| *other != number);
                if fails(&less) {
                    self = less;
                }
            }
            for number in self.orders.iter().map(|(number, _)| *number).collect::<Vec<_>>() {
                let mut less = self.clone();
                less.orders.retain(|(other, _)| *other != number);
                if fails(&less) {
                    self = less;
                }
            }
            for number in self.moves.iter().map(|(number, _)| *number).collect::<Vec<_>>() {
                let mut less = self.clone();
                less.moves.retain(|(other, _)| *other != number);
                if fails(&less) {
                    self = less;
                }
            }
            let calm = Self { links: Links::GOOD, ..self.clone() };
            if fails(&calm) {
                self = calm;
            }
        }
        self
    }

    /// Orders, troubles and moves in the order in which they come.
    pub(super) fn tell(&self) -> String {
        let Self { nodes, links, confirmations, .. } = self;
        let mut text = format!("{nodes} nodes, {links:?}, k_f = {confirmations}\n");
        for (_, order) in &self.orders {
            let _ = writeln!(text, "  {order:?}");
        }
        for (_, at_ms, trouble) in &self.troubles {
            let _ = writeln!(text, "  at {at_ms} ms: {trouble:?}");
        }
        for (_, what) in &self.moves {
            let _ = writeln!(text, "  {what:?}");
        }
        text
    }
}

/// Everything is well again, and everybody back who is not gone for good.
fn heal(world: &mut World, nodes: usize, gone: &[NodeId]) {
    (world.links, world.sides) = (Links::GOOD, Sides::default());
    world.set_feerate(FLOOR_SAT_KVB);
    for node in 0..nodes {
        world.heal_source(node);
        if !gone.contains(&node) {
            world.start(node);
        }
    }
    world.run_for(1_000);
    rest(world);
    // One that was to die at a later write may have died in the meantime.
    for node in (0..nodes).filter(|node| !gone.contains(node)) {
        world.start(node);
    }
    rest(world);
}

fn below(rng: &mut Rng, bound: u64) -> usize {
    usize::try_from(rng.within(0, bound)).unwrap()
}

fn order(rng: &mut Rng, node: NodeId, is_ask: bool) -> Placed {
    let (low, high) = if is_ask { (300, 900) } else { (600, 3_000) };
    // Some trades are worth more than any fee.
    let times = if rng.hits(300) { 10 } else { 1 };
    Placed {
        at_ms: 350 + rng.within(0, 12_000) * u64::from(rng.hits(400)),
        node,
        is_ask,
        class: if rng.hits(700) { 1 } else { 2 },
        limit_sat: rng.within(low, high) * if is_ask { 1 } else { times },
        qty: u32::try_from(rng.within(1, 4)).unwrap(),
        slots: u16::try_from(rng.within(1, 4)).unwrap(),
    }
}

fn trouble(rng: &mut Rng, nodes: usize, confirmations: u64) -> Trouble {
    let node = below(rng, nodes as u64);
    // Shorter than a message's deadline, than the funding's, than the refund's; longer.
    let ms = [400, 2_000, 6_500, 10_000, 18_000][below(rng, 5)];
    let branch = [Branch::Same, Branch::Empty, Branch::Forgetful][below(rng, 3)];
    match rng.within(0, 100) {
        0..20 => Trouble::Crash { node, away_ms: ms },
        20..40 => {
            let side = if rng.hits(500) { Kill::Before } else { Kill::After };
            Trouble::Kill { node, writes: rng.within(1, 30), side, away_ms: ms }
        }
        40..45 => Trouble::Vanish { node },
        45..53 => Trouble::Cut { node, ms },
        // One less than makes a spend final.
        53..60 => {
            let depth = u32::try_from(rng.within(1, confirmations + 1)).unwrap();
            Trouble::Reorganise { depth, branch }
        }
        60..70 => Trouble::Fees { times: [2, 20, 500][below(rng, 3)], ms },
        70..78 => Trouble::Unmined { ms },
        78..84 => Trouble::Forget,
        84..88 => Trouble::Stall { node, ms },
        88..92 => Trouble::Silence { node, ms },
        92..96 => Trouble::Deceive { node, ms },
        _ => Trouble::Halt { node },
    }
}

impl Trouble {
    /// How long it lasts, if it has an end, ms.
    fn lasts_ms(self) -> Option<u64> {
        match self {
            Self::Crash { away_ms, .. } | Self::Kill { away_ms, .. } => Some(away_ms),
            Self::Cut { ms, .. }
            | Self::Fees { ms, .. }
            | Self::Unmined { ms }
            | Self::Stall { ms, .. }
            | Self::Silence { ms, .. }
            | Self::Deceive { ms, .. } => Some(ms),
            Self::Vanish { .. } | Self::Reorganise { .. } | Self::Forget | Self::Halt { .. } => {
                None
            }
        }
    }
}

/// What happens at one time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Place(Placed),
    Move(Move),
    Begin(Trouble),
    End(Trouble),
}

impl Step {
    fn perform(self, world: &mut World, gone: &mut Vec<NodeId>) {
        match self {
            Self::Place(order) => order.place(world),
            Self::Move(what) => what.begin(world),
            Self::Begin(trouble) => trouble.begin(world, gone),
            Self::End(trouble) => trouble.end(world, gone),
        }
    }
}

impl Placed {
    fn place(self, world: &mut World) {
        let window = window(10, 40);
        let spec = if self.is_ask {
            world.set_capacity(self.node, &[(1, 4), (2, 2)]);
            ask(self.class, self.limit_sat, self.qty, window)
        } else {
            bid(self.class, self.limit_sat, self.qty, window, self.slots)
        };
        // Refused while its node is down or its coins are elsewhere.
        world.command(self.node, MarketCommand::Place(Box::new(spec)));
    }
}

impl Trouble {
    fn begin(self, world: &mut World, gone: &mut Vec<NodeId>) {
        match self {
            Self::Crash { node, .. } => world.crash(node),
            Self::Kill { node, writes, side, .. } => {
                let disk = &world.nodes[node].disk;
                disk.kill_at(disk.writes() + writes, side);
            }
            Self::Vanish { node } => {
                world.crash(node);
                gone.push(node);
            }
            Self::Cut { node, .. } => world.sides = Sides::cut(&[node]),
            Self::Reorganise { .. } if world.now_ms < BEGIN_MS + PAID_AFTER_MS => {}
            Self::Reorganise { depth, branch } => world.reorganise(depth, branch),
            Self::Fees { times, .. } => world.set_feerate(times * FLOOR_SAT_KVB),
            Self::Unmined { .. } => world.set_mined_feerate(u64::MAX),
            Self::Forget => world.forget_mempool(),
            Self::Stall { node, .. } => world.stall_source(node),
            Self::Silence { node, .. } => world.silence_source(node),
            Self::Deceive { node, .. } => world.deceive(node),
            Self::Halt { node } => super::troubles::halt_orders_of(world, node),
        }
    }

    fn end(self, world: &mut World, gone: &[NodeId]) {
        match self {
            Self::Crash { node, .. } | Self::Kill { node, .. } if !gone.contains(&node) => {
                world.start(node);
            }
            Self::Cut { .. } => world.sides = Sides::default(),
            Self::Fees { .. } | Self::Unmined { .. } => world.set_feerate(FLOOR_SAT_KVB),
            Self::Stall { node, .. } | Self::Silence { node, .. } | Self::Deceive { node, .. } => {
                world.heal_source(node);
            }
            Self::Crash { .. }
            | Self::Kill { .. }
            | Self::Vanish { .. }
            | Self::Reorganise { .. }
            | Self::Forget
            | Self::Halt { .. } => {}
        }
    }
}
