//! Spending the published faucet of a test chain.

use bitcoin::absolute::LockTime;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use super::error::WalletError;
use super::sign::{fee_sat, sign_key_spends, signed_vsize};

/// Most coinbases that one faucet transaction spends: keeps it far below the standard weight.
const MAX_COINS: usize = 200;

/// Pays `total_sat` from the faucet in four parts, so that the receiver can fund several trades
/// at once. Takes `coins` (mature coinbase outputs of the faucet, with values in sat) in the
/// given order until they suffice; change goes back to the faucet.
///
/// `keypair` is the faucet's internal key: its outputs are single-key taproot (BIP-86).
///
/// # Errors
/// [`WalletError::InsufficientFunds`], [`WalletError::BadAmount`] for a part below dust,
/// [`WalletError::BadFeerate`] for a fee that does not fit.
pub fn faucet_spend(
    coins: &[(OutPoint, u64)],
    keypair: &Keypair,
    to: [ScriptBuf; 4],
    total_sat: u64,
    feerate_sat_kvb: u64,
) -> Result<Transaction, WalletError> {
    let secp = Secp256k1::new();
    let key = keypair.tap_tweak(&secp, None).to_keypair();
    let own = ScriptBuf::new_p2tr(&secp, keypair.x_only_public_key().0, None);
    let mut tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: Vec::new(),
        output: parts(to, total_sat)?,
    };
    // The change's place, so that its size is counted.
    tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: own.clone() });
    let mut have_sat = 0u64;
    let mut need_sat = total_sat;
    for (outpoint, value_sat) in coins.iter().take(MAX_COINS) {
        tx.input.push(TxIn {
            previous_output: *outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        });
        have_sat = have_sat.saturating_add(*value_sat);
        need_sat = fee_sat(feerate_sat_kvb, signed_vsize(&tx, true))
            .and_then(|fee| fee.checked_add(total_sat))
            .ok_or(WalletError::BadFeerate { feerate_sat_kvb })?;
        if have_sat >= need_sat {
            break;
        }
    }
    let Some(change_sat) = have_sat.checked_sub(need_sat).filter(|_| !tx.input.is_empty()) else {
        return Err(WalletError::InsufficientFunds { have_sat, need_sat });
    };
    // Change below dust is left to the fee.
    tx.output.pop();
    if change_sat >= own.minimal_non_dust().to_sat() {
        let value = Amount::from_sat(change_sat);
        tx.output.push(TxOut { value, script_pubkey: own.clone() });
    }
    let prevouts: Vec<_> = coins[..tx.input.len()]
        .iter()
        .map(|(_, sat)| TxOut { value: Amount::from_sat(*sat), script_pubkey: own.clone() })
        .collect();
    let keys = vec![key; prevouts.len()];
    sign_key_spends(&secp, &mut tx, &prevouts, &keys)?;
    Ok(tx)
}

fn parts(to: [ScriptBuf; 4], total_sat: u64) -> Result<Vec<TxOut>, WalletError> {
    let part_sat = total_sat / 4;
    let outputs = to.into_iter().enumerate().map(|(index, script_pubkey)| {
        let rest_sat = if index == 0 { total_sat % 4 } else { 0 };
        let value = Amount::from_sat(part_sat + rest_sat);
        if value < script_pubkey.minimal_non_dust() {
            return Err(WalletError::BadAmount { index });
        }
        Ok(TxOut { value, script_pubkey })
    });
    outputs.collect()
}
