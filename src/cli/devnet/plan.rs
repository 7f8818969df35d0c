//! Everything that a seed decides: names, keys, prices, quantities, inputs.

use std::fmt::Write;

use crate::wallet::Seed;
use capex_core::ids::to_hex;
use capex_core::wire::sha256;

/// Label in front of everything that is drawn.
const DOMAIN: &[u8] = b"capex devnet";
const PROVIDERS: [&str; 6] = ["granite", "harbour", "juniper", "meadow", "quarry", "willow"];
const BUYERS: [&str; 6] = ["ada", "ben", "cleo", "dora", "emil", "fay"];
const BYSTANDERS: [&str; 4] = ["ivo", "nils", "orla", "tess"];
/// Classes of the two sales by providers. Different ones, so that each has its own price.
const CLASSES: [&str; 2] = ["cpu.standard", "cpu.highmem"];
/// Class of the container.
pub(super) const CONTAINERS: &str = "box.standard";
/// Long enough to come into it on a slow machine.
const CONTAINER_SLOTS: u16 = 2;
/// Lowest limit of an ask, msat per block: one block alone is above the smallest trade, and
/// its claim pays its own fee many times over.
const ASK_MIN_MSAT: u64 = 4_000_000;
/// Width of the range above it, msat.
const ASK_RANGE_MSAT: u64 = 4_000_000;
/// Coins that the faucet gives each node, sat.
const FUNDS_SAT: u64 = 1_000_000;
/// Numbers in an input: an instant of work, and a few kB to move.
const NUMBERS: u64 = 400;
/// Certificates in the end: the first that is bought is cut in halves.
const TITLES: usize = 4;
/// Slots by which the first purchase lies further ahead than the second: half of it is sold on in a
/// later epoch, which needs the same time before the window, and some for a machine that is slow.
const RESALE_SLOTS: u32 = 3;

/// What a node is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Sells its own capacity.
    Provider,
    /// Buys.
    Buyer,
    /// Neither: it only computes what everyone computes.
    Bystander,
}

/// A node before it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    /// Name in the story, and of its directory.
    pub(super) name: &'static str,
    /// What it is there for.
    pub(super) role: Role,
    /// Units that it sells, with their class.
    pub(super) capacity: Option<(&'static str, u32)>,
    /// Coins from the faucet, sat.
    pub(super) funds_sat: u64,
}

/// One offer and the bid that meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedTrade {
    /// Who sells: index of its seat.
    pub(super) seller: usize,
    /// Who buys.
    pub(super) buyer: usize,
    /// Whose capacity it is: the seller, but where a holder sells on.
    pub(super) provider: usize,
    /// Resource class.
    pub(super) class: &'static str,
    /// Units offered.
    pub(super) units: u32,
    /// Limit of the ask, msat per block.
    pub(super) ask_msat: u64,
    /// Units bid for.
    pub(super) qty: u32,
    /// Slots bid for.
    pub(super) slots: u16,
    /// How much later than they could be, slots.
    pub(super) later_slots: u32,
    /// Limit of the bid, msat per block.
    pub(super) bid_msat: u64,
}

/// A whole market, before any of it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    seed: u64,
    /// Two providers, two buyers, one bystander, in this order.
    pub(super) seats: Vec<Seat>,
    /// Two sales by providers, the resale of a half of what is bought first, and what a pool buys.
    pub(super) trades: [PlannedTrade; 4],
    /// Room for a container, with what runs in it.
    pub(super) container: PlannedTrade,
    /// Who pays the last: index of a seat, and what it pledges of the highest price, sat; the
    /// creator first.
    pub(super) pledges: [(usize, u64); 3],
    /// Contents of the workloads' input files, one for each certificate that is redeemed.
    pub(super) inputs: [String; TITLES],
}

impl Plan {
    /// The market of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let draw = Draw(seed);
        let [bought_first, bought_second] = [0, 1].map(|n| draw.planned(n));
        let resold = draw.resold(&bought_first, &bought_second);
        let pooled = draw.pooled(&bought_first, &bought_second);
        let pledges = draw.pledges(&pooled);
        let container = draw.container();
        let trades = [bought_first, bought_second, resold, pooled];
        let [first, second] = draw.two(PROVIDERS, "provider");
        let [third, fourth] = draw.two(BUYERS, "buyer");
        let bystander = BYSTANDERS[draw.index("bystander", BYSTANDERS.len())];
        let names = [first, second, third, fourth, bystander];
        let roles = [Role::Provider, Role::Provider, Role::Buyer, Role::Buyer, Role::Bystander];
        let seats = names.into_iter().zip(roles).enumerate().map(|(n, (name, role))| Seat {
            name,
            role,
            capacity: trades
                .iter()
                .find(|planned| planned.seller == n)
                .map(|planned| (planned.class, planned.units)),
            funds_sat: FUNDS_SAT + 1000 * draw.below(&format!("{name} funds"), 1000),
        });
        let inputs = std::array::from_fn(|n| draw.input(n));
        Self { seed, seats: seats.collect(), trades, container, pledges, inputs }
    }

    /// The sales by providers.
    pub(super) fn first_sales(&self) -> &[PlannedTrade] {
        &self.trades[..CLASSES.len()]
    }

    /// The seed file of a node.
    pub(super) fn seed_file(&self, name: &str) -> String {
        let seed = Seed::from_digest(Draw(self.seed).hash(&[name, "wallet"]), Some(0));
        seed.plain_text().to_string()
    }

    /// A secret of a node, as its key files hold it: 64 hex digits.
    pub(super) fn secret(&self, name: &str, purpose: &str) -> String {
        to_hex(&Draw(self.seed).hash(&[name, purpose]))
    }
}

/// SHA-256 over a label: the same on every machine, which a generator's crate need not be.
struct Draw(u64);

impl Draw {
    fn hash(&self, labels: &[&str]) -> [u8; 32] {
        let seed = self.0.to_be_bytes();
        let labels = labels.iter().map(|label| label.as_bytes());
        let parts: Vec<&[u8]> = [DOMAIN, &seed[..]].into_iter().chain(labels).collect();
        sha256(&parts)
    }

    /// A number below `most`. The bias of the remainder is far below what a price shows.
    fn below(&self, label: &str, most: u64) -> u64 {
        let hash = self.hash(&[label]);
        let first = hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        first % most.max(1)
    }

    fn index(&self, label: &str, length: usize) -> usize {
        usize::try_from(self.below(label, length as u64)).unwrap_or(0)
    }

    /// Two different names.
    fn two<const N: usize>(&self, names: [&'static str; N], label: &str) -> [&'static str; 2] {
        let first = self.index(label, N);
        let second = (first + 1 + self.index(&format!("second {label}"), N - 1)) % N;
        [names[first], names[second]]
    }

    fn planned(&self, n: usize) -> PlannedTrade {
        let of = |what: &str, most: u64| self.below(&format!("deal {n} {what}"), most);
        let ask_msat = ASK_MIN_MSAT + of("ask", ASK_RANGE_MSAT);
        // The first is cut in halves, and its provider sells out: who wants more buys of a holder.
        let (qty, spare, later_slots) = match n {
            0 => (2 + 2 * small(of("qty", 2)), 0, RESALE_SLOTS),
            // Enough is left for a pool whose parts are worth their fees.
            _ => (1 + small(of("qty", 3)), 4 + small(of("spare", 3)), 0),
        };
        PlannedTrade {
            seller: n,
            buyer: 2 + n,
            provider: n,
            class: CLASSES[n],
            units: qty + spare,
            ask_msat,
            qty,
            slots: 1,
            later_slots,
            bid_msat: ask_msat + ask_msat / 20 + of("margin", ask_msat / 4),
        }
    }

    /// Half of what was bought first, above all that it was worth to its buyer then.
    fn resold(&self, first: &PlannedTrade, second: &PlannedTrade) -> PlannedTrade {
        let ask_msat = first.bid_msat + 1 + self.below("resale ask", ASK_MIN_MSAT / 4);
        PlannedTrade {
            seller: first.buyer,
            buyer: second.buyer,
            units: first.qty / 2,
            qty: first.qty / 2,
            ask_msat,
            bid_msat: ask_msat + ask_msat / 20 + self.below("resale margin", ask_msat / 4),
            ..first.clone()
        }
    }

    /// What the second provider has left, in the window of the first.
    fn pooled(&self, first: &PlannedTrade, second: &PlannedTrade) -> PlannedTrade {
        let PlannedTrade { ask_msat, .. } = *second;
        PlannedTrade {
            buyer: first.buyer,
            qty: second.units - second.qty,
            bid_msat: ask_msat + ask_msat / 20 + self.below("pool margin", ask_msat / 4),
            later_slots: first.later_slots,
            ..second.clone()
        }
    }

    /// Of the first provider, by the first buyer.
    fn container(&self) -> PlannedTrade {
        let ask_msat = ASK_MIN_MSAT + self.below("container ask", ASK_RANGE_MSAT);
        PlannedTrade {
            seller: 0,
            buyer: 2,
            provider: 0,
            class: CONTAINERS,
            units: 1,
            ask_msat,
            qty: 1,
            slots: CONTAINER_SLOTS,
            later_slots: 0,
            bid_msat: ask_msat + ask_msat / 20 + self.below("container margin", ask_msat / 4),
        }
    }

    /// Both buyers and the provider of the other class share the highest price.
    fn pledges(&self, pooled: &PlannedTrade) -> [(usize, u64); 3] {
        let price_sat = pooled.bid_msat * u64::from(pooled.qty) / 1000;
        let part_sat = |label: &str| price_sat / 4 + self.below(label, price_sat / 8);
        let [second_sat, third_sat] = ["second pledge", "third pledge"].map(part_sat);
        [(2, price_sat - second_sat - third_sat), (3, second_sat), (0, third_sat)]
    }

    fn input(&self, n: usize) -> String {
        let mut text = String::new();
        let count = NUMBERS / 2 + self.below(&format!("deal {n} numbers"), NUMBERS / 2);
        for row in 0..count {
            let number = self.below(&format!("deal {n} number {row}"), 1_000_000);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{number}");
        }
        text
    }
}

/// A number that was drawn below another small one.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_everything_and_another_decides_otherwise() {
        assert_eq!(Plan::of(7), Plan::of(7));
        assert_ne!(Plan::of(7).trades, Plan::of(8).trades);
        assert_eq!(Plan::of(7).secret("ada", "wallet"), Plan::of(7).secret("ada", "wallet"));
        let secrets: BTreeSet<String> = [7, 8]
            .into_iter()
            .flat_map(|seed| {
                ["ada", "ben"].into_iter().flat_map(move |name| {
                    ["wallet", "identity"].map(|purpose| Plan::of(seed).secret(name, purpose))
                })
            })
            .collect();
        assert_eq!(secrets.len(), 8);
    }

    #[test]
    fn every_seed_gives_a_market_that_clears() {
        for plan in (0..200).map(Plan::of) {
            let names: BTreeSet<&str> = plan.seats.iter().map(|seat| seat.name).collect();
            assert_eq!(names.len(), 5);
            for planned in &plan.trades {
                assert!(planned.bid_msat > planned.ask_msat && planned.units >= planned.qty);
                assert!(planned.slots == 1 && planned.qty >= 1);
                assert_eq!(plan.seats[planned.provider].role, Role::Provider);
                assert_eq!(plan.seats[planned.buyer].role, Role::Buyer);
                let most_sat =
                    planned.bid_msat / 1000 * u64::from(planned.qty) * u64::from(planned.slots);
                // Four outputs of the faucet: the price fits into two of them.
                assert!(most_sat < plan.seats[planned.buyer].funds_sat / 2);
            }
            for planned in plan.first_sales() {
                assert_eq!(planned.seller, planned.provider);
                let capacity = Some((planned.class, planned.units));
                assert_eq!(plan.seats[planned.seller].capacity, capacity);
            }
            let [first, second, resold, pooled] = &plan.trades;
            let pledged_sat: u64 = plan.pledges.iter().map(|(_, share_sat)| share_sat).sum();
            assert_eq!(pledged_sat, pooled.bid_msat * u64::from(pooled.qty) / 1000);
            assert!(plan.pledges.iter().all(|(_, share_sat)| *share_sat >= 1_000));
            assert!(plan.pledges.iter().all(|(seat, _)| *seat != pooled.seller && *seat < 4));
            assert_eq!((first.units, first.qty), (first.qty, 2 * resold.qty));
            assert!(resold.ask_msat > first.bid_msat, "another price in any case");
            assert_eq!((resold.seller, resold.provider), (first.buyer, first.seller));
            assert_ne!(first.buyer, second.buyer);
            assert!(plan.inputs.iter().all(|input| input.lines().count() >= 200));
        }
    }
}
