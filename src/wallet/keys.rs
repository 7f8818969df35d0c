//! The seed file and what is derived from it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use bitcoin::Network;
use bitcoin::bip32::{ChildNumber, DerivationPath, Xpriv, Xpub};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{All, Secp256k1};

use super::error::WalletError;

/// Purpose of the spending wallet's account: single-key taproot outputs (BIP-86).
const PURPOSE_SPEND: u32 = 86;
/// Purpose of the settlement keys (DESIGN §13).
const PURPOSE_SETTLEMENT: u32 = 7268;
/// Longest seed file that is read, in bytes: 64 digits and a line end.
const SEED_FILE_MAX_BYTES: u64 = 66;

/// The wallet's keys of one network. Never printed.
#[derive(Clone)]
pub struct Keys {
    network: Network,
    master: Xpriv,
    account: Xpriv,
    secp: Secp256k1<All>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the seed file at `path`, or creates it from the system's randomness: 32 bytes in
    /// hex, mode 0600.
    ///
    /// # Errors
    /// [`WalletError::SeedPermissions`] when others may access the file,
    /// [`WalletError::SeedInvalid`], [`WalletError::SeedIo`].
    pub fn load_or_create(path: &Path, network: Network) -> Result<Self, WalletError> {
        match File::open(path) {
            Ok(file) => Self::from_seed(&read_seed(path, file)?, network),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                create_seed(path).map_err(WalletError::seed_io(path))?;
                let file = File::open(path).map_err(WalletError::seed_io(path))?;
                Self::from_seed(&read_seed(path, file)?, network)
            }
            Err(e) => Err(WalletError::seed_io(path)(e)),
        }
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
        Ok(Self { network, master, account, secp })
    }

    /// The network whose coin type is in every path.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Private key of `m/7268'/coin'/0'`: the HMAC key from which the engine derives its
    /// single-use keys and preimages (DESIGN §13).
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

fn read_seed(path: &Path, file: File) -> Result<[u8; 32], WalletError> {
    let io = WalletError::seed_io(path);
    let mode = file.metadata().map_err(&io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(WalletError::SeedPermissions { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(SEED_FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(&io)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let digits = text.strip_suffix('\n').unwrap_or(text);
    <[u8; 32]>::from_hex(digits).map_err(|_| WalletError::SeedInvalid(path.to_owned()))
}

/// Writes a fresh seed under a temporary name first, so that a crash leaves a whole file or
/// none, and links it into place, so that a seed that appeared meanwhile is never replaced.
fn create_seed(path: &Path) -> std::io::Result<()> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = writeln!(file, "{}", seed.to_lower_hex_string())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match written {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
        Ok(()) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        }
    }
}
