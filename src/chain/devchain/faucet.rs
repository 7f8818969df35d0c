//! The published key that every devchain block pays.

use std::sync::LazyLock;

use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Address, Network, ScriptBuf};
use sha2::{Digest, Sha256};

/// The faucet's secret is the SHA-256 of these bytes: anybody can spend from it.
const FAUCET_PHRASE: &[u8] = b"capex devnet faucet";

/// The faucet's internal key pair, before the BIP-86 tweak that its output commits to:
/// sign with `faucet_keypair().tap_tweak(&secp, None)`.
pub fn faucet_keypair() -> Keypair {
    let digest: [u8; 32] = Sha256::digest(FAUCET_PHRASE).into();
    let secret =
        SecretKey::from_slice(&digest).expect("this constant digest is a valid secp256k1 scalar");
    Keypair::from_secret_key(&Secp256k1::new(), &secret)
}

/// The faucet's P2TR key-path output script (BIP-86).
pub fn faucet_script() -> ScriptBuf {
    // Every block pays it.
    static SCRIPT: LazyLock<ScriptBuf> = LazyLock::new(|| {
        let output = faucet_keypair().tap_tweak(&Secp256k1::new(), None).to_keypair();
        ScriptBuf::new_p2tr_tweaked(bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(
            output.x_only_public_key().0,
        ))
    });
    SCRIPT.clone()
}

/// The faucet's address (`bcrt1p…`).
pub fn faucet_address() -> Address {
    Address::p2tr(&Secp256k1::new(), faucet_keypair().x_only_public_key().0, None, Network::Regtest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_address_pays_the_faucet_script() {
        assert_eq!(faucet_address().script_pubkey(), faucet_script());
    }
}
