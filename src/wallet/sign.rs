//! Key-path signatures (BIP-341), deterministic: no auxiliary randomness.

use bitcoin::key::Keypair;
use bitcoin::secp256k1::{Message, Secp256k1, Signing};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{TapSighashType, Transaction, TxOut, Witness, taproot};

use super::error::WalletError;

/// Bytes of a key-path witness item: a Schnorr signature with the default sighash type.
const SIGNATURE_BYTES: usize = 64;
/// Bytes of an ECDSA signature with its sighash type, at most.
const ECDSA_BYTES: usize = 72;
/// Bytes of a public key.
const KEY_BYTES: usize = 33;

/// Signs every input of `tx` by key path with the tweaked key pair at its position.
///
/// # Errors
/// [`WalletError::Build`] when the numbers of inputs, outputs spent and keys differ.
pub(super) fn sign_key_spends<C: Signing>(
    secp: &Secp256k1<C>,
    tx: &mut Transaction,
    prevouts: &[TxOut],
    keys: &[Keypair],
) -> Result<(), WalletError> {
    if prevouts.len() != tx.input.len() || keys.len() != tx.input.len() {
        return Err(WalletError::build("an input without its key"));
    }
    let mut cache = SighashCache::new(&*tx);
    let mut witnesses = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        let sighash_type = TapSighashType::Default;
        let sighash = cache
            .taproot_key_spend_signature_hash(index, &Prevouts::All(prevouts), sighash_type)
            .map_err(WalletError::build)?;
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), key);
        witnesses.push(Witness::p2tr_key_spend(&taproot::Signature { signature, sighash_type }));
    }
    for (input, witness) in tx.input.iter_mut().zip(witnesses) {
        input.witness = witness;
    }
    Ok(())
}

/// Virtual size that `tx` has once all its inputs are signed: by key path, or as witness key
/// hashes.
pub(super) fn signed_vsize(tx: &Transaction, is_taproot: bool) -> u64 {
    let witness = match is_taproot {
        true => Witness::from_slice(&[[0u8; SIGNATURE_BYTES]]),
        false => Witness::from_slice(&[&[0u8; ECDSA_BYTES][..], &[0u8; KEY_BYTES][..]]),
    };
    let mut signed = tx.clone();
    for input in &mut signed.input {
        input.witness = witness.clone();
    }
    signed.vsize() as u64
}

/// `feerate_sat_kvb` for `vsize`, rounded up; `None` when it does not fit.
pub(super) fn fee_sat(feerate_sat_kvb: u64, vsize: u64) -> Option<u64> {
    feerate_sat_kvb.checked_mul(vsize).map(|millis| millis.div_ceil(1_000))
}
