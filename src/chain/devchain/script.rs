//! Script and signature checks, by Bitcoin Core's own verifier.

use bitcoin::Transaction;
use bitcoin::consensus::encode::serialize;
use bitcoinconsensus::{Utxo, VERIFY_ALL_PRE_TAPROOT, VERIFY_TAPROOT, verify_with_flags};

use super::consensus::Coin;
use super::reject::Reject;

/// Core's reason for a failed script.
pub(super) const SCRIPT_FAILED: &str = "mandatory-script-verify-flag-failed";

/// Every soft fork, taproot (BIP-341, BIP-342) included: on regtest all are active from
/// the first block. Without the taproot flag every taproot spend would pass.
const FLAGS: u32 = VERIFY_ALL_PRE_TAPROOT | VERIFY_TAPROOT;

/// Verifies every input of `tx` against the outputs it spends, which must be given for
/// all inputs and in their order: a taproot signature commits to all of them.
///
/// # Errors
/// [`SCRIPT_FAILED`] with the first input that fails.
pub(super) fn verify_scripts(tx: &Transaction, spent: &[Coin]) -> Result<(), Reject> {
    debug_assert_eq!(tx.input.len(), spent.len(), "one spent output per input");
    let raw = serialize(tx);
    let utxos: Vec<Utxo> = spent.iter().map(as_utxo).collect();
    for (index, coin) in spent.iter().enumerate() {
        let script = coin.output.script_pubkey.as_bytes();
        let value_sat = coin.output.value.to_sat();
        verify_with_flags(script, value_sat, &raw, Some(&utxos), index, FLAGS).map_err(|_| {
            Reject::with(
                SCRIPT_FAILED,
                format!(
                    "(Script evaluation failed), input {index} of {}, spending {}",
                    tx.compute_txid(),
                    tx.input[index].previous_output
                ),
            )
        })?;
    }
    Ok(())
}

/// Core's view of a spent output. It points into `coin`, which outlives the calls.
fn as_utxo(coin: &Coin) -> Utxo {
    let script = coin.output.script_pubkey.as_bytes();
    Utxo {
        script_pubkey: script.as_ptr(),
        script_pubkey_len: script.len() as u32,
        value: coin.output.value.to_sat() as i64,
    }
}
