use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Balance, Reason, Unavailable};

/// The file `<datadir>/endpoints`: how to reach the daemon that runs on a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Address of the API, `http://127.0.0.1:port`.
    pub api: String,
    /// Multiaddrs with `/p2p/<id>`.
    pub p2p: Vec<String>,
    pub pid: u32,
    pub network: String,
    pub key: String,
}

/// Chain source as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainStatus {
    pub source: String,
    /// Whether it delivers facts now.
    pub up: bool,
    pub height: u32,
    /// Time that the last block itself names, unix ms; null before the first.
    pub tip_at: Option<u64>,
    /// Fee rate for a funding now, sat per 1,000 vB.
    pub feerate_sat_kvb: u64,
}

/// Units of a class that this node sells, and what has become of them in the present slot:
/// `units` is always the sum of `sold`, `reserved` and `free`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    pub class: String,
    pub units: u32,
    /// With a certificate.
    #[serde(default)]
    pub sold: u32,
    /// Matched, and being settled.
    #[serde(default)]
    pub reserved: u32,
    #[serde(default)]
    pub free: u32,
}

/// Open matters of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Open {
    pub orders: u32,
    /// Settlements that are not finished.
    pub trades: u32,
    pub certificates: u32,
    /// Leases not yet released, on either side.
    pub leases: u32,
}

/// Answer to `GET /api/v1/status`: one screen about this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub network: String,
    /// Hash of its definition.
    pub definition: String,
    pub key: String,
    /// `starting`, `ready` or `stopping`.
    pub phase: String,
    pub api: String,
    /// Multiaddrs with `/p2p/<id>`.
    pub p2p: Vec<String>,
    pub datadir: String,
    /// Start of this process, unix ms.
    pub started_at: u64,
    /// Clock of this node, unix ms.
    pub now_at: u64,
    pub peers: u32,
    /// Distinct valid orders seen since start, own ones included.
    pub orders_seen: u64,
    pub epoch: u64,
    /// Its end, unix ms.
    pub epoch_ends_at: u64,
    /// Length of an epoch, ms.
    pub epoch_ms: u64,
    /// Version of the rules by which the network matches.
    pub matching_version: u8,
    pub computed_epoch: Option<u64>,
    pub slot: u32,
    /// Length of a slot, s.
    pub slot_s: u32,
    /// First slot that the open epoch can trade.
    pub first_slot: u32,
    /// Smallest trade, sat.
    pub min_trade_sat: u64,
    /// Names of the network's classes.
    pub classes: Vec<String>,
    pub chain: ChainStatus,
    pub wallet: Balance,
    pub capacity: Vec<Capacity>,
    /// When this host will not deliver, as announced.
    #[serde(default)]
    pub maintenance: Vec<Maintenance>,
    pub open: Open,
    /// What an operator should look at.
    pub warnings: Vec<Reason>,
}

/// A time in which this host will not deliver, and that it has announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub number: u32,
    /// Unix ms.
    pub starts_at: u64,
    /// Unix ms.
    pub ends_at: u64,
    /// What holders are told of it.
    pub why: String,
}

/// Body of `POST /api/v1/maintenance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceMaintenance {
    /// Unix ms, at least a slot ahead.
    pub starts_at: u64,
    /// Unix ms.
    pub ends_at: u64,
    /// What holders are told of it: a line of at most 200 bytes.
    #[serde(default)]
    pub why: String,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub key: String,
    /// Whether a connection is open.
    pub connected: bool,
    pub addresses: Vec<String>,
    /// What it failed to do in trades with this node, by kind: `terms`, `lock`,
    /// `acknowledgement`, `funding`, `claim`, `default`.
    pub misses: BTreeMap<String, u32>,
    /// Until when nothing is signed towards it, unix ms.
    pub denied_until: Option<u64>,
    /// Proven to have signed what contradicts itself: denied for good.
    pub equivocator: bool,
    pub record: PeerRecord,
}

/// What a node has done with this one, by receipts and settlements that this node has itself.
/// Leases and trades are remembered for some time after their end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Leases here held of it as a provider that are over.
    pub leases: u32,
    /// Of which it ended before their windows, without being asked.
    #[serde(default)]
    pub ended_early: u32,
    /// Of their windows, as far as they were not ended early here, block-seconds.
    pub sold_block_s: String,
    /// Of which delivered, block-seconds.
    pub delivered_block_s: String,
    /// Of which not, as it says, block-seconds by cause.
    pub unavailable: Vec<Unavailable>,
    /// Delivered of what was sold, in percent with one digit; null without anything sold.
    pub delivered_percent: Option<String>,
    /// Trades with it that were paid and delivered, of those that are remembered.
    pub settled: u32,
    /// Trades that it let lapse, and certificates that it took money for and did not give.
    pub defaulted: u32,
}

/// Body of `POST /api/v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddPeer {
    /// Multiaddr with `/p2p/<id>`.
    pub address: String,
}
