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

/// Body of `POST /api/v1/wallet/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendCoins {
    /// Address of this network.
    pub to: String,
    /// How much, sat; null for everything that is free, less the fee.
    #[serde(default)]
    pub amount_sat: Option<u64>,
    /// Sat per 1,000 vB; null for the present estimate.
    #[serde(default)]
    pub feerate_sat_kvb: Option<u64>,
    /// Coins to spend, `txid:vout`: all of these and no others; empty for whichever are free.
    #[serde(default)]
    pub coins: Vec<String>,
    /// Only says what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A transaction that waits for a signature made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPsbt {
    pub txid: String,
    /// `fund`; `payment`, to an address; `bump`, either of them for a higher fee; or `cancel`,
    /// which pays the coins of a funding back.
    pub what: String,
    pub trade_id: Option<String>,
    /// What it pays into contracts or to the address, sat.
    pub amount_sat: u64,
    pub fee_sat: u64,
    /// Until when it is worth a signature, unix ms; null where there is no such time.
    pub until: Option<u64>,
}

/// Answer to `GET /api/v1/wallet/psbts/{txid}`, and body of `POST /api/v1/wallet/psbts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PsbtText {
    /// Partially signed transaction (BIP-174) in base64.
    pub psbt: String,
}

/// Answer to `POST /api/v1/wallet/psbts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPsbt {
    pub txid: String,
    pub trade_id: Option<String>,
}

/// Body of `POST /api/v1/wallet/bump`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BumpPayment {
    /// An unconfirmed payment of this wallet.
    pub txid: String,
    /// Sat per 1,000 vB; null for what the next chain block should take.
    #[serde(default)]
    pub feerate_sat_kvb: Option<u64>,
}

/// Answer to `GET /api/v1/wallet/descriptors`: public, so they show all coins and spend none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    pub receive: String,
    pub change: String,
}

/// Body of `POST /api/v1/wallet/rescan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescanWallet {
    /// How many addresses beyond the last one that was handed out are looked at, from now on.
    pub gap: u32,
    /// First chain block to read again; null for the first that the wallet knew.
    #[serde(default)]
    pub from_height: Option<u32>,
}

/// Answer to `POST /api/v1/wallet/rescan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescan {
    /// First chain block that is read again.
    pub from_height: u32,
}

/// A payment that was sent, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub txid: String,
    /// What reaches the address, sat.
    pub amount_sat: u64,
    pub fee_sat: u64,
    /// What comes back to this wallet, sat.
    pub change_sat: u64,
    /// Virtual size, vB.
    pub vsize: u64,
    /// False for a preview, and for what waits for a signature.
    pub sent: bool,
    /// Whether it waits for a signature made elsewhere.
    pub awaits_signature: bool,
}

/// A transaction of this wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletTx {
    pub txid: String,
    /// Height of its chain block; null while it waits.
    pub height: Option<u32>,
    /// Time of its chain block, or when it was first seen, unix ms.
    pub at: Option<u64>,
    /// `received`, `payment`, `own` (moved within the wallet, as a cancelled purchase is), or of
    /// a trade: `fund`, `claim`, `refund`.
    pub what: String,
    /// Trade that it belongs to.
    pub trade_id: Option<String>,
    /// Own coins that it spends, sat.
    pub sent_sat: u64,
    /// What it pays to this wallet, change included, sat.
    pub received_sat: u64,
    /// Its fee, where every coin that it spends is known, sat.
    pub fee_sat: Option<u64>,
}

/// A coin of this wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// `txid:vout`.
    pub outpoint: String,
    pub amount_sat: u64,
    /// Height of its chain block; null while it waits.
    pub height: Option<u32>,
    /// `free`, `locked` (kept for a funding or payment that waits), `lent` (kept for a funding
    /// that nobody acknowledged: the next one spends it), `unconfirmed` (change that is spent
    /// only where nothing else suffices) or `pending` (of others, or immature).
    pub state: String,
}
