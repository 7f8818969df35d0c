//! The seed file and what is derived from it.

use std::path::Path;

use bitcoin::Network;
use bitcoin::bip32::{ChildNumber, DerivationPath, Xpriv, Xpub};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{All, Secp256k1};

use super::error::WalletError;
use super::seed::Seed;
use super::watched::Watched;
use crate::store::Password;

/// Purpose of the spending wallet's account: single-key taproot outputs (BIP-86).
const PURPOSE_SPEND: u32 = 86;
/// Purpose of the settlement keys.
const PURPOSE_SETTLEMENT: u32 = 7268;

/// The wallet's keys of one network. Never printed.
#[derive(Clone)]
pub struct Keys {
    network: Network,
    master: Xpriv,
    account: Xpriv,
    birthday_s: Option<u64>,
    /// Where the coins are, if their keys are elsewhere.
    watched: Option<Watched>,
    secp: Secp256k1<All>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.master.private_key.non_secure_erase();
        self.account.private_key.non_secure_erase();
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of the seed file at `path`, which is made if there is none.
    ///
    /// # Errors
    /// [`WalletError::Seed`].
    pub fn load_or_create(
        path: &Path,
        network: Network,
        password: Option<&Password>,
        now_s: u64,
    ) -> Result<Self, WalletError> {
        Self::of(&Seed::load_or_create(path, password, now_s)?, network)
    }

    /// The keys that follow from a seed.
    ///
    /// # Errors
    /// As [`Keys::from_seed`].
    pub fn of(seed: &Seed, network: Network) -> Result<Self, WalletError> {
        let mut keys = Self::from_seed(seed.bytes().as_ref(), network)?;
        keys.birthday_s = seed.birthday_s();
        Ok(keys)
    }

    /// The keys of a given BIP-32 seed of 16 to 64 bytes.
    ///
    /// # Errors
    /// [`WalletError::Build`] if the seed yields no valid key (BIP-32: less than once in 2^127).
    pub fn from_seed(seed: &[u8], network: Network) -> Result<Self, WalletError> {
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(network, seed).map_err(WalletError::build)?;
        let path = account_path(PURPOSE_SPEND, network).map_err(WalletError::build)?;
        let account = master.derive_priv(&secp, &path).map_err(WalletError::build)?;
        Ok(Self { network, master, account, birthday_s: None, watched: None, secp })
    }

    /// The same settlement keys, beside coins whose keys are elsewhere.
    #[must_use]
    pub fn watching(mut self, watched: Option<Watched>) -> Self {
        self.watched = watched;
        self
    }

    /// Whether the keys of the coins are elsewhere.
    pub(super) fn is_watch_only(&self) -> bool {
        self.watched.is_some()
    }

    /// When the seed was made, unix seconds, if that is known: it has no older coins.
    pub fn birthday_s(&self) -> Option<u64> {
        self.birthday_s
    }

    /// The network whose coin type is in every path.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Private key of `m/7268'/coin'/0'`: the HMAC key from which the engine derives its
    /// single-use keys and preimages.
    ///
    /// # Errors
    /// [`WalletError::Build`] as in [`Keys::from_seed`].
    pub fn settlement_secret(&self) -> Result<[u8; 32], WalletError> {
        let path = account_path(PURPOSE_SETTLEMENT, self.network).map_err(WalletError::build)?;
        let child = self.master.derive_priv(&self.secp, &path).map_err(WalletError::build)?;
        Ok(child.private_key.secret_bytes())
    }

    /// Public descriptor of receiving (`0`) or change (`1`) addresses.
    pub(super) fn descriptor(&self, branch: u32) -> String {
        if let Some(watched) = &self.watched {
            return watched.branch(branch).to_owned();
        }
        let fingerprint = self.master.fingerprint(&self.secp);
        let xpub = Xpub::from_priv(&self.secp, &self.account);
        let coin = coin_type(self.network);
        format!("tr([{fingerprint}/{PURPOSE_SPEND}'/{coin}'/0']{xpub}/{branch}/*)")
    }

    /// The tweaked key pair that spends address `index` of `branch` by key path.
    pub(super) fn spend_keypair(&self, branch: u32, index: u32) -> Result<Keypair, WalletError> {
        let child = |n| ChildNumber::from_normal_idx(n).map_err(WalletError::build);
        let path = [child(branch)?, child(index)?];
        let key = self.account.derive_priv(&self.secp, &path).map_err(WalletError::build)?;
        Ok(key.to_keypair(&self.secp).tap_tweak(&self.secp, None).to_keypair())
    }

    pub(super) fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }
}

fn coin_type(network: Network) -> u32 {
    u32::from(network != Network::Bitcoin)
}

fn account_path(purpose: u32, network: Network) -> Result<DerivationPath, bitcoin::bip32::Error> {
    [purpose, coin_type(network), 0].into_iter().map(ChildNumber::from_hardened_idx).collect()
}
