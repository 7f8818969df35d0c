//! What can go wrong with the wallet.

use bitcoin::OutPoint;

use super::psbt::PsbtFault;
use crate::store::{SecretError, StoreError};

/// Every way in which the wallet refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The seed file.
    #[error(transparent)]
    Seed(#[from] SecretError),
    /// The stored wallet belongs to another seed or network.
    #[error("the stored wallet belongs to another seed, descriptor or network")]
    OtherSeed,
    /// A stored row of the wallet cannot be read.
    #[error("a stored row of the wallet cannot be read: {0}")]
    Damaged(&'static str),
    /// The store failed; nothing was signed away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not enough unlocked coins.
    #[error("insufficient funds: {have_sat} sat can be spent, {need_sat} sat are needed")]
    InsufficientFunds {
        /// Unlocked confirmed coins and own unconfirmed change.
        have_sat: u64,
        need_sat: u64,
    },
    /// An amount is zero, below dust, or too large to add up.
    #[error("output {index} has an amount that cannot be paid")]
    BadAmount {
        /// Position among the given outputs.
        index: usize,
    },
    /// More outputs than a FUND may have.
    #[error("at most {max} outputs")]
    TooManyOutputs { max: usize },
    /// The fee rate is outside what the wallet signs for.
    #[error("a fee rate of {feerate_sat_kvb} sat/kvB is out of bounds")]
    BadFeerate { feerate_sat_kvb: u64 },
    /// The same terms were funded with other outputs.
    #[error("these terms are funded with other outputs")]
    OtherOutputs,
    /// The FUND of these terms was cancelled: a second one is never built.
    #[error("the FUND of these terms was cancelled")]
    Cancelled,
    /// The coins of these terms were released: a second FUND is never built.
    #[error("the coins of these terms were released")]
    Released,
    /// The chain gave a coin of the FUND to another transaction: it can never confirm, and
    /// needs no cancel.
    #[error("the FUND of these terms can never confirm")]
    Dead,
    /// All that the FUND spends is being replaced, or a chain block has just settled it: it
    /// will end by itself.
    #[error("what the FUND of these terms spends is being replaced")]
    Orphaned,
    /// Another FUND spends the same coins, which cancels this one.
    #[error("another FUND takes the coins of these terms")]
    Superseded,
    /// A wallet cannot look so far for coins.
    #[error("a gap of {gap} addresses is out of bounds")]
    BadGap { gap: u32 },
    /// No unconfirmed payment of this wallet has this id.
    #[error("no unconfirmed payment of this wallet has this id")]
    NoPayment,
    /// The payment cannot be replaced by a better paying one.
    #[error("the payment cannot be replaced: its change is too small or the fee rate no higher")]
    NotBumped,
    /// There is no FUND to cancel.
    #[error("these terms have no FUND")]
    NoFund,
    /// The FUND is in the chain and can no longer be replaced.
    #[error("the FUND of these terms is confirmed")]
    Confirmed,
    /// The address is of another network.
    #[error("the address belongs to another network")]
    OtherNetwork,
    /// A chain block does not follow from what the wallet knows.
    #[error("the chain block at height {height} does not connect")]
    Disconnected { height: u32 },
    /// The transaction waits for a signature made elsewhere.
    #[error("the transaction waits for its signature")]
    Unsigned,
    /// What came back from a signer.
    #[error(transparent)]
    Psbt(#[from] PsbtFault),
    /// A coin that was named is not one of this wallet, or is spent.
    #[error("{coin} is no coin of this wallet")]
    NoCoin { coin: OutPoint },
    /// A coin that was named is kept for a funding or payment.
    #[error("{coin} is kept for a funding or payment that waits")]
    CoinLocked { coin: OutPoint },
    /// A coin that was named can hardly be spent yet.
    #[error("{coin} is an unconfirmed payment of others, or immature")]
    CoinPending { coin: OutPoint },
    /// A part of what others pay too needs the keys here: there are seconds to sign it.
    #[error("the keys of this wallet are elsewhere")]
    KeysElsewhere,
    /// A part of what others pay too takes too many coins.
    #[error("it takes more than {max} coins")]
    TooManyCoins { max: usize },
    /// A transaction could not be built or signed.
    #[error("cannot build the transaction: {0}")]
    Build(String),
}

impl WalletError {
    /// Stable reason code; a failure of the store keeps the store's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Seed(error) => error.code(),
            Self::OtherSeed => "wallet.other_seed",
            Self::Damaged(_) => "wallet.damaged",
            Self::Store(e) => e.code(),
            Self::InsufficientFunds { .. } => "wallet.insufficient_funds",
            Self::BadAmount { .. } => "wallet.bad_amount",
            Self::TooManyOutputs { .. } => "wallet.too_many_outputs",
            Self::BadFeerate { .. } => "wallet.bad_feerate",
            Self::OtherOutputs => "wallet.other_outputs",
            Self::Cancelled => "wallet.cancelled",
            Self::Released => "wallet.released",
            Self::Dead => "wallet.fund_dead",
            Self::Orphaned => "wallet.fund_orphaned",
            Self::Superseded => "wallet.fund_superseded",
            Self::BadGap { .. } => "wallet.bad_gap",
            Self::NoPayment => "wallet.no_payment",
            Self::NotBumped => "wallet.not_bumped",
            Self::NoFund => "wallet.no_fund",
            Self::Confirmed => "wallet.confirmed",
            Self::OtherNetwork => "wallet.other_network",
            Self::Disconnected { .. } => "wallet.disconnected",
            Self::Unsigned => "wallet.unsigned",
            Self::Psbt(fault) => fault.code(),
            Self::NoCoin { .. } => "wallet.no_coin",
            Self::CoinLocked { .. } => "wallet.coin_locked",
            Self::CoinPending { .. } => "wallet.coin_pending",
            Self::KeysElsewhere => "wallet.keys_elsewhere",
            Self::TooManyCoins { .. } => "wallet.too_many_coins",
            Self::Build(_) => "wallet.build",
        }
    }

    pub(super) fn build(error: impl std::fmt::Display) -> Self {
        Self::Build(error.to_string())
    }
}
