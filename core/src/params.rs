//! What defines a network: its magic, timings, classes and ports.
//!
//! The values stand in `network/definitions/*.toml`; there is no `if network == …`
//! anywhere else. All integers, so that a definition has one meaning on every machine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bitcoin::Network as Chain;
use serde::{Deserialize, Serialize};

use crate::limits::{HORIZON_SLOTS, LEGS_MAX, PRICE_MAX_MSAT};
use crate::wire::{Magic, Object, VERSION};

/// A day, ms: no time of a definition is longer, but where it says so. What reckons with several
/// of them at once does not overflow then, whoever has written the definition.
const DAY_MS: u64 = 86_400_000;
/// Most blocks that a timelock waits: a hundred days of Bitcoin.
const BLOCKS_MAX: u32 = 16_384;
/// Hardest proof of work of an order: a thousand seconds of a processor or so are refused as a
/// mistake.
const POW_BITS_MAX: u8 = 32;
const CLASSES_MAX: usize = 64;
const BOOTSTRAP_MAX: usize = 32;
const NAME_MAX_BYTES: usize = 32;

/// Whether a name can be part of a topic, of a path and of a line of text.
fn is_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    name.len() <= NAME_MAX_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(plain)
        && !name.contains("..")
}

/// Phases of one epoch. They add up to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochTimes {
    /// Orders are gossiped, ms.
    pub open_ms: u64,
    /// Orders are only reconciled, ms.
    pub freeze_ms: u64,
    /// Roots are signed and compared, ms.
    pub root_ms: u64,
}

impl EpochTimes {
    /// Length of an epoch, ms.
    #[must_use]
    pub fn length_ms(self) -> u64 {
        self.open_ms + self.freeze_ms + self.root_ms
    }
}

/// Timelock profile for prices of at least a floor, in chain blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Smallest price, sat.
    pub min_price_sat: u64,
    /// F − t0: the funding must have confirmed by then.
    pub fund_blocks: u32,
    /// Confirmations of the funding before the seller may reveal.
    pub funding_confirmations: u32,
    pub claim_blocks: u32,
    /// Margin before the refund in which the seller never reveals first.
    pub margin_blocks: u32,
    /// T_R − t0: from here on the buyer can refund.
    pub refund_blocks: u32,
    /// Smallest time from match to the start of the delivery window, s.
    pub lead_s: u64,
}

/// Numeric floors of a resource class; its object id is the `class_hash` of an Issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassDef {
    /// Version.
    #[serde(default = "version_one")]
    pub v: u8,
    /// Number of the class on its network.
    pub id: u16,
    /// CPU, thousandths of a core.
    pub cpu_milli: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Disk, MiB.
    pub disk_mib: u32,
    pub gpus: u16,
    /// Memory of each GPU, MiB.
    pub gpu_memory_mib: u32,
    /// Feature bits that every unit has.
    pub features: u64,
    /// What its workloads run in.
    #[serde(default)]
    pub isolation: Isolation,
}

/// What stands between a workload and the machine that runs it. A class names it: what it was sold
/// as, no provider delivers otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// WASI components; whether images run as well is the provider's choice.
    #[default]
    Wasm,
    /// Containers: images run, and so do components.
    Container,
}

impl Isolation {
    /// Name in definitions, for people and for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
        }
    }
}

fn version_one() -> u8 {
    VERSION
}

impl Object for ClassDef {
    const NAME: &'static str = "class";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// A class with its name, as it stands in a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedClass {
    /// Name, such as `cpu.standard`.
    pub name: String,
    pub floors: ClassDef,
}

/// Deadlines of a settlement's messages, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleTimes {
    /// Terms must come within this time of the match.
    pub terms_ms: u64,
    /// The signed funding must come within this time of the lock.
    pub fund_ms: u64,
    /// How long the buyer listens for a conflicting lock before it funds.
    pub conflict_wait_ms: u64,
    /// How long a seller that has revealed its preimage to its buyer waits for that one's key
    /// before it claims by script; 0: it claims by script at once, and no buyer takes a
    /// Quittance. Whatever the wait saves in fees, a seller that stops within it and stays away
    /// until the refund loses the price.
    pub quit_ms: u64,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTimes {
    /// Notice before a workload is killed at the end of its window, ms.
    pub grace_ms: u64,
    /// How long results stay after the end, ms.
    pub retention_ms: u64,
}

/// Chain facts of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainParams {
    pub network: Chain,
    /// Time between chain blocks for lead-time arithmetic, ms.
    pub block_ms: u64,
    /// How far two parties' tips may differ, chain blocks.
    pub tip_tolerance_blocks: u32,
    /// Depth at which a spend is final and a lock is released.
    pub final_blocks: u32,
    /// How old the median time past of the tip may be for it to be believed, s; 0 for any age,
    /// where blocks are made on request.
    pub max_tip_age_s: u32,
}

/// Which fee estimates of a chain source are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeBounds {
    /// Highest estimate that is obeyed, sat per 1,000 vB: the chain has not asked for more,
    /// and a source that is broken must not give the wallet away.
    pub max_sat_kvb: u64,
    /// Stands in for a missing estimate, sat per 1,000 vB; 0 = nothing does, and no bid is
    /// signed without one.
    pub fallback_sat_kvb: u64,
}

/// Default ports on which a node listens; 0 lets the system choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// QUIC and TCP of the peer-to-peer network.
    pub p2p: u16,
    pub api: u16,
}

/// A network definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Name: part of topics, protocol ids and data directories.
    pub name: String,
    /// Stands inside every signature.
    pub magic: Magic,
    pub epoch: EpochTimes,
    /// Length of a slot, s.
    pub slot_s: u32,
    /// Proof of work of an order: leading zero bits of its id.
    pub pow_bits: u8,
    /// Smallest trade, sat; a smaller row is void.
    pub min_trade_sat: u64,
    /// Prepaid and undelivered value that one holder accepts from one provider, sat; 0 = no cap.
    pub prepaid_cap_sat: u64,
    /// Version of the matching algorithm.
    pub matching_version: u8,
    /// Start orders that the matcher tries.
    pub matching_starts: u8,
    /// Most asks that one bid may take, 2 to [`LEGS_MAX`]. Each is a trade of its own, with its
    /// own funding, and an epoch has at most so many rows as bids, times this.
    pub max_legs: u16,
    /// Distinct operators that must agree before this node settles by itself.
    pub min_operators: u16,
    /// Peers are on this machine: no scoring by IP address.
    pub loopback: bool,
    /// Peers may be in one private network, whose addresses are dialled then: a test network of one's
    /// own.
    #[serde(default)]
    pub private: bool,
    /// Timelock profiles, by ascending price floor.
    pub profiles: Vec<Profile>,
    pub settle: SettleTimes,
    pub lease: LeaseTimes,
    pub chain: ChainParams,
    pub fees: FeeBounds,
    pub ports: Ports,
    /// Addresses of first peers, with `/p2p/<id>`.
    #[serde(default)]
    pub bootstrap: Vec<String>,
    pub classes: Vec<NamedClass>,
    /// Names of feature bits.
    #[serde(default)]
    pub features: BTreeMap<String, u8>,
}

/// Why a definition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network definition: {0}")]
pub struct ParamsError(&'static str);

impl Params {
    /// Checks what the types cannot: order of profiles, sums of timelocks, unique classes.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn validate(self) -> Result<Self, ParamsError> {
        let check = |ok: bool, what| if ok { Ok(()) } else { Err(ParamsError(what)) };
        check(
            is_name(&self.name),
            "a name has 1 to 32 of a-z, 0-9, - and ., and begins with a letter",
        )?;
        let EpochTimes { open_ms, freeze_ms, root_ms } = self.epoch;
        let phases = [open_ms, freeze_ms, root_ms];
        check(phases.iter().all(|ms| *ms <= DAY_MS), "no phase of an epoch is longer than a day")?;
        check(self.epoch.length_ms() > 0 && self.slot_s > 0, "epoch and slot must not be empty")?;
        check(u64::from(self.slot_s) * 1000 <= DAY_MS, "a slot is no longer than a day")?;
        check(self.pow_bits <= POW_BITS_MAX, "pow_bits is at most 32")?;
        check(
            (1..=DAY_MS).contains(&self.chain.block_ms),
            "block_ms is at least 1, at most a day",
        )?;
        check(!self.profiles.is_empty(), "at least one profile")?;
        check(self.profiles[0].min_price_sat == 0, "the first profile starts at 0 sat")?;
        let ascending =
            self.profiles.windows(2).all(|pair| pair[0].min_price_sat < pair[1].min_price_sat);
        check(ascending, "profiles ascend by min_price_sat")?;
        for profile in &self.profiles {
            let parts = [
                profile.fund_blocks,
                profile.funding_confirmations,
                profile.claim_blocks,
                profile.margin_blocks,
            ];
            let needed: u64 = parts.into_iter().map(u64::from).sum();
            let refund_blocks = profile.refund_blocks;
            check(
                u64::from(refund_blocks) >= needed,
                "refund_blocks leaves no room for its parts",
            )?;
            check(refund_blocks <= BLOCKS_MAX, "refund_blocks is at most 16,384")?;
            check(profile.lead_s <= 30 * (DAY_MS / 1000), "lead_s is at most 30 days")?;
            check(profile.fund_blocks >= 3, "fund_blocks must be at least 3")?;
        }
        let mut ids: Vec<u16> = self.classes.iter().map(|class| class.floors.id).collect();
        ids.dedup();
        check(ids.is_sorted() && ids.len() == self.classes.len(), "classes ascend by id")?;
        check((1..=2).contains(&self.matching_version), "matching_version is 1 or 2")?;
        check((1..=8).contains(&self.matching_starts), "matching_starts is 1 to 8")?;
        check((2..=LEGS_MAX).contains(&self.max_legs), "max_legs is 2 to 64")?;
        check(self.classes.len() <= CLASSES_MAX, "at most 64 classes")?;
        check(self.classes.iter().all(|class| is_name(&class.name)), "a class is named so, too")?;
        check(self.features.len() <= 64, "at most 64 features")?;
        check(self.features.values().all(|bit| *bit < 64), "a feature is one of 64 bits")?;
        check(self.bootstrap.len() <= BOOTSTRAP_MAX, "at most 32 bootstrap addresses")?;
        let fees = self.fees;
        let settle = self.settle;
        let LeaseTimes { grace_ms, retention_ms } = self.lease;
        let times = [settle.terms_ms, settle.fund_ms, settle.conflict_wait_ms, grace_ms];
        check(times.iter().all(|ms| *ms <= DAY_MS), "no wait is longer than a day")?;
        check(retention_ms <= 30 * DAY_MS, "lease.retention_ms is at most 30 days")?;
        let blocks = [self.chain.tip_tolerance_blocks, self.chain.final_blocks];
        check(blocks.iter().all(|blocks| *blocks <= BLOCKS_MAX), "so many blocks are too many")?;
        check(settle.quit_ms <= settle.fund_ms.saturating_mul(2), "settle.quit_ms is too long")?;
        check(fees.max_sat_kvb >= 1000, "fees.max_sat_kvb is below 1 sat/vB")?;
        check(fees.fallback_sat_kvb <= fees.max_sat_kvb, "fees.fallback_sat_kvb is too large")?;
        check(self.min_trade_sat <= PRICE_MAX_MSAT, "min_trade_sat is too large")?;
        Ok(self)
    }

    /// Length of an epoch, ms.
    #[must_use]
    pub fn epoch_ms(&self) -> u64 {
        self.epoch.length_ms()
    }

    /// The smallest lead of the profiles, s.
    #[must_use]
    pub fn lead_s(&self) -> u64 {
        self.profiles.iter().map(|profile| profile.lead_s).min().unwrap_or(0)
    }

    /// How far clocks may be apart, ms: min(2 s, FREEZE / 4).
    #[must_use]
    pub fn clock_tolerance_ms(&self) -> u64 {
        (self.epoch.freeze_ms / 4).min(2000)
    }

    /// First slot that an epoch can trade: `ceil(((e+1)·T + lead) / slot)`, a pure function
    /// of the epoch.
    #[must_use]
    pub fn first_slot(&self, epoch: u64) -> u32 {
        let ready_ms = epoch
            .saturating_add(1)
            .saturating_mul(self.epoch_ms())
            .saturating_add(self.lead_s().saturating_mul(1000));
        u32::try_from(ready_ms.div_ceil(u64::from(self.slot_s) * 1000)).unwrap_or(u32::MAX)
    }

    /// Last slot end that an epoch can trade.
    #[must_use]
    pub fn horizon_end(&self, epoch: u64) -> u32 {
        self.first_slot(epoch).saturating_add(HORIZON_SLOTS)
    }

    /// The timelock profile of a price.
    #[must_use]
    pub fn profile(&self, price_sat: u64) -> Profile {
        let fits = |profile: &&Profile| profile.min_price_sat <= price_sat;
        // `validate` guarantees a first profile at 0 sat.
        *self.profiles.iter().rev().find(fits).unwrap_or(&self.profiles[0])
    }

    /// The slot of a time.
    #[must_use]
    pub fn slot_at(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms / (u64::from(self.slot_s) * 1000)).unwrap_or(u32::MAX)
    }

    /// A class by its number.
    #[must_use]
    pub fn class(&self, id: u16) -> Option<&NamedClass> {
        self.classes.iter().find(|class| class.floors.id == id)
    }

    /// A class by its name.
    #[must_use]
    pub fn class_named(&self, name: &str) -> Option<&NamedClass> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// Object id of a class's floors.
    #[must_use]
    pub fn class_hash(&self, id: u16) -> Option<[u8; 32]> {
        self.class(id).map(|class| crate::wire::object_id(&class.floors, self.magic))
    }
}
