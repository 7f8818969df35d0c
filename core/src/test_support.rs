//! Samples that the tests of this crate and of its users share.

use std::collections::BTreeMap;

use bitcoin::Network as Chain;

use crate::params::{
    ChainParams, ClassDef, EpochTimes, FeeBounds, Isolation, LeaseTimes, NamedClass, Params, Ports,
    Profile, SettleTimes,
};
use crate::wire::VERSION;

/// A devnet with two classes, as far as pure tests need one.
///
/// # Panics
/// Never: the sample is valid.
#[must_use]
pub fn devnet() -> Params {
    let class = |id, name: &str| NamedClass {
        name: name.to_owned(),
        floors: ClassDef {
            v: VERSION,
            id,
            cpu_milli: 1000,
            memory_mib: 256,
            disk_mib: 64,
            gpus: 0,
            gpu_memory_mib: 0,
            features: 0,
            isolation: Isolation::Wasm,
        },
    };
    Params {
        name: "devnet".to_owned(),
        magic: [0xca, 0xfe, 0, 5],
        epoch: EpochTimes { open_ms: 1000, freeze_ms: 600, root_ms: 400 },
        slot_s: 4,
        pow_bits: 4,
        min_trade_sat: 1000,
        prepaid_cap_sat: 0,
        matching_version: 1,
        matching_starts: 3,
        max_legs: 16,
        min_operators: 1,
        loopback: true,
        private: false,
        profiles: vec![Profile {
            min_price_sat: 0,
            fund_blocks: 12,
            funding_confirmations: 1,
            claim_blocks: 10,
            margin_blocks: 5,
            refund_blocks: 28,
            lead_s: 18,
        }],
        settle: SettleTimes { terms_ms: 2000, fund_ms: 3000, conflict_wait_ms: 300, quit_ms: 3000 },
        lease: LeaseTimes { grace_ms: 500, retention_ms: 3000 },
        chain: ChainParams {
            network: Chain::Regtest,
            block_ms: 500,
            tip_tolerance_blocks: 8,
            final_blocks: 2,
            max_tip_age_s: 0,
        },
        fees: FeeBounds { max_sat_kvb: 2_000_000, fallback_sat_kvb: 1000 },
        ports: Ports { p2p: 0, api: 0 },
        bootstrap: Vec::new(),
        classes: vec![class(1, "cpu.standard"), class(2, "cpu.highmem")],
        features: BTreeMap::new(),
    }
    .validate()
    .expect("the sample is valid")
}
