//! Every coin with what holds it.

use bitcoin::OutPoint;

use super::Wallet;

/// Whether a coin can be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoinState {
    /// Confirmed, and nothing waits for it.
    Free,
    /// Kept for a FUND that nobody acknowledged: the next one spends it.
    Lent,
    /// Own change, spent only where nothing else suffices.
    Unconfirmed,
    /// Kept for a FUND or payment that is not in the mempool or chain yet.
    Locked,
    /// An unconfirmed payment of others, or an immature coinbase.
    Pending,
}

impl CoinState {
    /// Name, as people and the API see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Lent => "lent",
            Self::Unconfirmed => "unconfirmed",
            Self::Locked => "locked",
            Self::Pending => "pending",
        }
    }
}

/// One coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub amount_sat: u64,
    /// Height of its chain block, `None` while unconfirmed.
    pub height: Option<u32>,
    pub state: CoinState,
}

impl Wallet {
    /// All coins, those that can be spent first, large before small.
    pub fn coin_list(&self) -> Vec<Coin> {
        let tip_height = self.tip_height();
        let state = |coin: &bdk_wallet::LocalOutput| {
            if self.entries.is_locked(coin.outpoint) {
                CoinState::Locked
            } else if !self.is_mature(coin, tip_height) {
                let is_own = self.is_own_change(coin);
                if is_own { CoinState::Unconfirmed } else { CoinState::Pending }
            } else if self.entries.is_lent(coin.outpoint) {
                CoinState::Lent
            } else {
                CoinState::Free
            }
        };
        let coins = self.coins().map(|coin| Coin {
            outpoint: coin.outpoint,
            amount_sat: coin.txout.value.to_sat(),
            height: self.confirmed_at(coin.outpoint.txid),
            state: state(&coin),
        });
        let mut coins: Vec<_> = coins.collect();
        coins.sort_by_key(|coin| (coin.state, std::cmp::Reverse(coin.amount_sat), coin.outpoint));
        coins
    }
}
