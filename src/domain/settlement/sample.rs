//! Values that the tests of this folder share.

use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};

use super::objects::{Funder, Terms};
use super::script::TEMPLATE;
use crate::domain::ids::{CertId, Key, TradeId};
use crate::domain::units::{Units, Window};
use crate::params::Params;

pub(crate) fn params(name: &str) -> Params {
    let text = match name {
        "mainnet" => include_str!("../../../network/definitions/mainnet.toml"),
        "signet" => include_str!("../../../network/definitions/signet.toml"),
        "regtest" => include_str!("../../../network/definitions/regtest.toml"),
        _ => include_str!("../../../network/definitions/devnet.toml"),
    };
    toml::from_str::<Params>(text).unwrap().validate().unwrap()
}

pub(crate) fn keypair(secp: &Secp256k1<All>, seed: u8) -> Keypair {
    Keypair::from_secret_key(secp, &SecretKey::from_slice(&[seed; 32]).unwrap())
}

/// Terms of a million sat on mainnet, seller key 1, buyer key 2.
pub(crate) fn terms(t0: u32) -> Terms {
    let secp = Secp256k1::new();
    let xonly = |seed| keypair(&secp, seed).x_only_public_key().0.serialize();
    let funder = Funder { key: Key([2; 32]), refund_xonly: xonly(2), amount_sat: 1_000_000 };
    Terms {
        v: 1,
        trade_id: TradeId([10; 32]),
        cert_id: CertId([11; 32]),
        seq: 0,
        prev_hash: [11; 32],
        class: 1,
        units: Units::range(0, 2).unwrap(),
        window: Window { start: 500_000, end: 500_004 },
        from: Key([1; 32]),
        to: Key([2; 32]),
        funders: vec![funder],
        price_sat: 1_000_000,
        payment_hash: [5; 32],
        s_xonly: xonly(1),
        payout_spk: vec![0x51, 0x20, 1, 2, 3],
        t0,
        fund_by: t0 + 36,
        refund_at: t0 + 150,
        funding_confirmations: 6,
        template: TEMPLATE,
        nonce16: [6; 16],
    }
}
