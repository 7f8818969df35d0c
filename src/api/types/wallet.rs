use serde::{Deserialize, Serialize};

/// Answer to `GET /api/v1/wallet`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Neither locked nor unconfirmed of others, sat.
    pub spendable_sat: u64,
    /// Confirmed coins, locked ones included, sat.
    pub confirmed_sat: u64,
    /// Unconfirmed coins, sat.
    pub pending_sat: u64,
    /// Reserved for orders and settlements, sat.
    pub reserved_sat: u64,
}

/// Answer to `POST /api/v1/wallet/address`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Fresh address of this wallet.
    pub address: String,
}

/// Body of `POST /api/v1/wallet/fund`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FundWallet {
    /// How much the faucet shall pay, sat.
    pub amount_sat: u64,
}

/// Answer to `POST /api/v1/wallet/fund`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funded {
    /// Transaction of the faucet.
    pub txid: String,
    /// Paid to this wallet, sat.
    pub amount_sat: u64,
    /// Fee paid by the faucet, sat.
    pub fee_sat: u64,
    pub outputs: u32,
}
